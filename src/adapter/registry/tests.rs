//! Publication, leases, the jail and the budget.

mod templates;

use super::super::testing::{Raw, first_value, make_pipe, model, write_adapter};
use super::*;
use crate::model::TargetModule;
use serde_json::json;
use std::os::unix::fs::symlink;
use tempfile::{TempDir, tempdir};

/// Bytes of what [`write_adapter`] writes, in f32: 2 layers of q (2·8 + 12·2) and down (2·10 + 8·2).
const ADAPTER_BYTES: u64 = 2 * (40 + 36) * 4;

const REPLACE: LoadOptions = LoadOptions { replace: true, pinned: false, expected: None, automatic: false };

fn registry_with(root: Option<&Path>, byte_budget: u64) -> Registry {
    let options = RegistryOptions {
        base_name: "callsmith".into(),
        root: root.map(Path::to_owned),
        byte_budget,
        max_rank: 8,
        packing: None,
        root_templates: true,
    };
    Registry::new(options, model(), DType::F32, Device::Cpu)
}

/// A registry whose root holds the adapters `a` (values from 1) and `b` (values from 2).
fn two_adapters() -> (TempDir, Registry) {
    let root = tempdir().unwrap();
    write_adapter(&root.path().join("a"), 1.0);
    write_adapter(&root.path().join("b"), 2.0);
    let registry = registry_with(Some(root.path()), 1 << 20);
    (root, registry)
}

fn names(registry: &Registry) -> Vec<String> {
    registry.list().iter().map(|listed| listed.lease.name.clone()).collect()
}

#[test]
fn a_loaded_adapter_is_leased_listed_and_unloaded() {
    let (root, registry) = two_adapters();
    registry.load("second", "b", &LoadOptions::default()).unwrap();
    let loaded = registry.load("first", "a", &LoadOptions::default()).unwrap();
    assert_eq!(names(&registry), ["first", "second"]);
    let lease = registry.lease("first").unwrap();
    assert!(Arc::ptr_eq(&lease, &loaded));
    assert_eq!((lease.rank, lease.bytes as u64, lease.id.len()), (2, ADAPTER_BYTES, 16));
    assert_eq!(lease.path, root.path().canonicalize().unwrap().join("a"));
    assert!(lease.created > 1_700_000_000);
    registry.unload("first", None).unwrap();
    assert!(registry.lease("first").is_none());
    assert!(matches!(registry.unload("first", None), Err(AdapterError::NotFound(_))));
    assert_eq!(names(&registry), ["second"]);
}

#[test]
fn leases_are_counted() {
    let (_root, registry) = two_adapters();
    drop(registry.load("x", "a", &LoadOptions::default()).unwrap());
    assert_eq!(registry.in_flight("x"), Some(0));
    let lease = registry.lease("x");
    assert_eq!(registry.in_flight("x"), Some(1));
    drop(lease);
    assert_eq!(registry.in_flight("x"), Some(0));
    assert_eq!(registry.in_flight("y"), None);
}

#[test]
fn a_swap_leaves_leased_weights_alive_and_frees_them_after() {
    let (_root, registry) = two_adapters();
    let lease = registry.load("x", "a", &LoadOptions::default()).unwrap();
    let weights = Arc::downgrade(&lease.weights);
    let new = registry.load("x", "b", &REPLACE).unwrap();
    assert_ne!(lease.id, new.id);
    assert_eq!(first_value(&lease.weights), 1.0);
    assert_eq!(first_value(&registry.lease("x").unwrap().weights), 2.0);
    assert_eq!(registry.bytes_used(), 2 * ADAPTER_BYTES);
    drop(lease);
    assert!(weights.upgrade().is_none());
    assert_eq!(registry.bytes_used(), ADAPTER_BYTES);
}

#[test]
fn unloading_leaves_leased_weights_alive_and_frees_them_after() {
    let (_root, registry) = two_adapters();
    let lease = registry.load("x", "a", &LoadOptions::default()).unwrap();
    registry.unload("x", None).unwrap();
    assert_eq!(first_value(&lease.weights), 1.0);
    drop(lease);
    assert_eq!(registry.bytes_used(), 0);
}

#[test]
fn a_taken_name_is_replaced_only_on_request() {
    let (_root, registry) = two_adapters();
    let first = registry.load("x", "a", &LoadOptions::default()).unwrap();
    for path in ["a", "b", "none"] {
        assert!(matches!(registry.load("x", path, &LoadOptions::default()), Err(AdapterError::AlreadyLoaded(_))));
    }
    assert!(Arc::ptr_eq(&first, &registry.load("x", "a", &REPLACE).unwrap()));
    assert!(!Arc::ptr_eq(&first, &registry.load("x", "b", &REPLACE).unwrap()));
}

#[test]
fn files_changed_on_disk_give_a_new_generation_and_do_not_touch_the_old() {
    let (root, registry) = two_adapters();
    let old = registry.load("x", "a", &LoadOptions::default()).unwrap();
    write_adapter(&root.path().join("a"), 5.0);
    assert_eq!(first_value(&old.weights), 1.0);
    let new = registry.load("x", "a", &REPLACE).unwrap();
    assert_eq!(first_value(&new.weights), 5.0);
    std::fs::remove_dir_all(root.path().join("a")).unwrap();
    assert_eq!(first_value(&registry.lease("x").unwrap().weights), 5.0);
}

#[test]
fn equal_content_under_two_names_is_held_once() {
    let (_root, registry) = two_adapters();
    let first = registry.load("x", "a", &LoadOptions::default()).unwrap();
    let second = registry.load("y", "a", &LoadOptions::default()).unwrap();
    assert_eq!((first.id.as_str(), second.name.as_str()), (second.id.as_str(), "y"));
    assert!(Arc::ptr_eq(&first.weights, &second.weights));
    assert_eq!(registry.bytes_used(), ADAPTER_BYTES);
}

#[test]
fn a_failed_reload_leaves_the_old_generation_serving() {
    let (root, registry) = two_adapters();
    let old = registry.load("x", "a", &LoadOptions::default()).unwrap();
    let mut damaged = Raw::new(&[TargetModule::Q]);
    damaged.tensors[1].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    damaged.write(&root.path().join("nan"));
    for path in ["nan", "none", "../a"] {
        assert!(registry.load("x", path, &REPLACE).is_err());
        assert!(Arc::ptr_eq(&old, &registry.lease("x").unwrap()));
    }
    assert_eq!(registry.bytes_used(), ADAPTER_BYTES);
}

#[test]
fn names_are_checked() {
    let (_root, registry) = two_adapters();
    let longest = "n".repeat(128);
    for good in ["x", "tools-v1.2_b:latest", longest.as_str()] {
        registry.load(good, "a", &LoadOptions::default()).unwrap();
    }
    let too_long = "n".repeat(129);
    for bad in ["", "callsmith", "a/b", "../a", "a b", "a\n", "ä", "a\0", "a%2fb", too_long.as_str()] {
        let error = registry.load(bad, "a", &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, AdapterError::Name { .. }), "{bad}: {error}");
        assert!(error.to_string().len() < 400 && !error.to_string().contains(['\n', '\0']));
    }
}

#[test]
fn without_a_root_every_path_is_forbidden() {
    let (root, _) = two_adapters();
    let registry = registry_with(None, 1 << 20);
    let inside = root.path().join("a");
    for path in ["a", "", inside.to_str().unwrap(), "/"] {
        let error = registry.load("x", path, &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, AdapterError::Forbidden { .. }));
        assert!(error.to_string().contains("--adapter-root"));
    }
}

#[test]
fn paths_inside_the_root_load_however_they_are_spelled() {
    let (root, _) = two_adapters();
    let links = tempdir().unwrap();
    let spelled = links.path().join("root");
    symlink(root.path(), &spelled).unwrap();
    symlink("a", root.path().join("link")).unwrap();
    let registry = registry_with(Some(&spelled), 1 << 20);
    let absolute = [root.path().canonicalize().unwrap().join("a"), spelled.join("a")];
    let relative = ["a", "./a", "b/../a", "a/", "link"].map(PathBuf::from);
    for path in absolute.iter().chain(&relative) {
        let loaded = registry.load("x", path.to_str().unwrap(), &REPLACE).unwrap();
        assert_eq!(first_value(&loaded.weights), 1.0, "{}", path.display());
    }
}

#[test]
fn paths_out_of_the_root_are_forbidden() {
    let (outer, _) = two_adapters();
    let root = outer.path().join("root");
    write_adapter(&root.join("mixed"), 1.0);
    std::fs::remove_file(root.join("mixed/adapter_model.safetensors")).unwrap();
    symlink("../../a/adapter_model.safetensors", root.join("mixed/adapter_model.safetensors")).unwrap();
    symlink("../a", root.join("link")).unwrap();
    write_adapter(&outer.path().join("root-and-more"), 1.0);
    let registry = registry_with(Some(&root), 1 << 20);
    let absolute = outer.path().join("a");
    for path in [
        "../a",
        "link",
        "mixed",
        "../root-and-more",
        "x/../../a",
        "..",
        "/",
        "/etc/passwd",
        "/proc/self/cwd",
        "../does-not-exist",
        absolute.to_str().unwrap(),
    ] {
        let error = registry.load("x", path, &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, AdapterError::Forbidden { .. }), "{path}: {error}");
    }
    assert_eq!(registry.bytes_used(), 0);
    assert!(registry.list().is_empty());
}

#[test]
fn absent_and_odd_paths_are_clear_errors() {
    let (root, registry) = two_adapters();
    make_pipe(&root.path().join("pipe"));
    symlink("loop", root.path().join("loop")).unwrap();
    let long = "x".repeat(100_000);
    for path in ["none", "a/none", "loop", "nul\0", long.as_str()] {
        let error = registry.load("x", path, &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, AdapterError::FileNotFound { .. }), "{error}");
        assert!(error.to_string().len() < 400);
    }
    for path in ["", "pipe", "a/adapter_config.json"] {
        assert!(matches!(registry.load("x", path, &LoadOptions::default()), Err(AdapterError::Invalid(_))), "{path}");
    }
}

#[test]
fn a_link_that_flips_during_loads_never_lets_anything_out() {
    let (outer, _) = two_adapters();
    let root = outer.path().join("root");
    write_adapter(&root.join("inside"), 9.0);
    let registry = registry_with(Some(&root), 1 << 20);
    let flip = |target: &str| {
        symlink(target, root.join("next")).unwrap();
        std::fs::rename(root.join("next"), root.join("link")).unwrap();
    };
    flip("inside");
    std::thread::scope(|scope| {
        let flipper = scope.spawn(|| (0..1000).for_each(|i| flip(["../a", "inside"][i % 2])));
        while !flipper.is_finished() {
            match registry.load("x", "link", &REPLACE) {
                Ok(loaded) => assert_eq!(first_value(&loaded.weights), 9.0),
                Err(error) => assert!(matches!(error, AdapterError::Forbidden { .. }), "{error}"),
            }
        }
    });
    assert_eq!(first_value(&registry.load("x", "link", &REPLACE).unwrap().weights), 9.0);
}

#[test]
fn the_operators_own_directories_need_no_root() {
    let (root, _) = two_adapters();
    let registry = registry_with(None, 1 << 20);
    registry.load_trusted("x", &root.path().join("a")).unwrap();
    assert!(matches!(registry.load_trusted("x", &root.path().join("b")), Err(AdapterError::AlreadyLoaded(_))));
    assert!(matches!(registry.load_trusted("y/z", &root.path().join("b")), Err(AdapterError::Name { .. })));
}

#[test]
fn the_budget_counts_what_is_published_and_what_is_still_leased() {
    let (root, _) = two_adapters();
    let registry = registry_with(Some(root.path()), ADAPTER_BYTES);
    let lease = registry.load("x", "a", &LoadOptions::default()).unwrap();
    let full = |result: Result<Lease, AdapterError>| {
        let wanted = AdapterError::Budget { needed: ADAPTER_BYTES, free: 0, budget: ADAPTER_BYTES };
        assert_eq!(result.unwrap_err().to_string(), wanted.to_string());
    };
    full(registry.load("y", "b", &LoadOptions::default()));
    full(registry.load("x", "b", &REPLACE));
    assert!(Arc::ptr_eq(&lease, &registry.load("x", "a", &REPLACE).unwrap()));
    registry.unload("x", None).unwrap();
    full(registry.load("y", "b", &LoadOptions::default()));
    drop(lease);
    registry.load("y", "b", &LoadOptions::default()).unwrap();
    assert_eq!(registry.bytes_used(), ADAPTER_BYTES);
}

/// A registry with room for two of the root's three adapters.
fn room_for_two() -> (TempDir, Registry) {
    let (root, _) = two_adapters();
    write_adapter(&root.path().join("c"), 3.0);
    let registry = registry_with(Some(root.path()), 2 * ADAPTER_BYTES);
    (root, registry)
}

#[test]
fn the_least_recently_used_idle_adapter_makes_room_and_comes_back() {
    let (_root, registry) = room_for_two();
    registry.load("a", "a", &LoadOptions::default()).unwrap();
    registry.load("other", "b", &LoadOptions::default()).unwrap();
    drop(registry.lease("a"));
    registry.load("c", "c", &LoadOptions::default()).unwrap();
    assert_eq!((names(&registry), registry.evictions()), (vec!["a".to_owned(), "c".to_owned()], 1));
    assert!(registry.lease("other").is_none() && registry.may_resolve("other"));
    assert_eq!(first_value(&registry.resolve("other").unwrap().weights), 2.0);
    assert_eq!(names(&registry), ["c", "other"]);
}

#[test]
fn pinned_adapters_and_those_in_use_are_never_evicted() {
    let (_root, registry) = room_for_two();
    registry.load("a", "a", &LoadOptions { pinned: true, ..LoadOptions::default() }).unwrap();
    let held = registry.load("b", "b", &LoadOptions::default()).unwrap();
    assert!(matches!(registry.load("c", "c", &LoadOptions::default()), Err(AdapterError::Budget { .. })));
    assert_eq!(names(&registry), ["a", "b"]);
    drop(held);
    registry.load("c", "c", &LoadOptions::default()).unwrap();
    assert_eq!(names(&registry), ["a", "c"]);
    registry.pin("a", false).unwrap();
    assert!(matches!(registry.pin("none", true), Err(AdapterError::NotFound(_))));
}

#[test]
fn a_directory_of_the_root_is_found_by_its_name_unless_it_was_unloaded() {
    let (root, registry) = two_adapters();
    assert_eq!(registry.loadable(), [("a".to_owned(), false), ("b".to_owned(), false)]);
    for name in ["nowhere", "..", ".", "../a", "a/../b", "", "a\0b"] {
        assert!(!registry.may_resolve(name), "{name:?}");
    }
    assert_eq!(first_value(&registry.resolve("b").unwrap().weights), 2.0);
    registry.unload("b", None).unwrap();
    assert!(!registry.may_resolve("b"));
    assert_eq!(registry.loadable()[1], ("b".to_owned(), true));
    registry.load("b", "b", &LoadOptions::default()).unwrap();
    drop(root);
}

#[test]
fn an_expected_generation_guards_against_lost_updates() {
    let (_root, registry) = two_adapters();
    let expecting = |id: &str| LoadOptions { expected: Some(id.to_owned()), ..REPLACE };
    assert!(matches!(registry.load("x", "a", &expecting("0")), Err(AdapterError::Generation { .. })));
    let first = registry.load("x", "a", &LoadOptions::default()).unwrap().id.clone();
    let second = registry.load("x", "b", &expecting(&first)).unwrap().id.clone();
    assert!(matches!(registry.load("x", "a", &expecting(&first)), Err(AdapterError::Generation { .. })));
    assert!(matches!(registry.unload("x", Some(&first)), Err(AdapterError::Generation { .. })));
    registry.unload("x", Some(&second)).unwrap();
}

#[test]
fn an_adapter_larger_than_the_whole_budget_is_refused() {
    let (root, _) = two_adapters();
    let registry = registry_with(Some(root.path()), ADAPTER_BYTES - 1);
    assert!(matches!(registry.load("x", "a", &LoadOptions::default()), Err(AdapterError::Budget { .. })));
    assert_eq!(registry.bytes_used(), 0);
}

#[test]
fn a_rank_above_the_limit_is_refused() {
    let (root, registry) = two_adapters();
    let mut raw = Raw::new(&[]);
    raw.set("target_modules", json!(["q_proj"]));
    raw.set("rank_pattern", json!({"layers.1.self_attn.q_proj": 9}));
    raw.push_site(0, TargetModule::Q, 2);
    raw.push_site(1, TargetModule::Q, 9);
    raw.write(&root.path().join("high"));
    let error = registry.load("x", "high", &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, AdapterError::Rank { rank: 9, most: 8 }), "{error}");
}

#[test]
fn loads_swaps_unloads_and_leases_do_not_disturb_each_other() {
    let (_root, registry) = two_adapters();
    let ids = ["a", "b"].map(|path| registry.load(path, path, &LoadOptions::default()).unwrap().id.clone());
    let check = |lease: &Lease| {
        let which = ids.iter().position(|id| *id == lease.id).expect("one of the two");
        assert_eq!(first_value(&lease.weights), which as f32 + 1.0);
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (registry, check) = (&registry, &check);
            scope.spawn(move || {
                for i in 0..60 {
                    let name = ["x", "y"][i % 2];
                    check(&registry.load(name, ["a", "b"][(i / 2 + thread) % 2], &REPLACE).unwrap());
                    registry.lease(name).iter().for_each(check);
                    if i % 3 == 0 {
                        let _ = registry.unload(name, None);
                    }
                }
            });
        }
        for _ in 0..2000 {
            registry.list().iter().for_each(|listed| check(&listed.lease));
        }
    });
    for name in names(&registry) {
        assert_eq!(registry.in_flight(&name), Some(0));
        registry.unload(&name, None).unwrap();
    }
    assert_eq!(registry.bytes_used(), 0);
}
