//! Adapters with a chat template of their own, and adapters that are part of the program.

use super::*;
use crate::adapter::BuiltIn;

/// Refuses templates that say so.
fn judged(root: &Path) -> Registry {
    let judge = |text: &str| if text.contains("broken") { Err(format!("line 3 of {text}")) } else { Ok(()) };
    registry_with(Some(root), 1 << 20).with_judge(Box::new(judge))
}

fn write_template(root: &TempDir, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(root.path().join(name).join("chat_template.jinja"), text).unwrap();
}

fn template(registry: &Registry, name: &str) -> Option<String> {
    registry.card(name).unwrap().chat_template.map(|text| text.to_string())
}

fn message(outcome: Result<Lease, AdapterError>) -> String {
    match outcome.unwrap_err() {
        AdapterError::Invalid(reason) => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn a_template_alone_makes_another_generation_of_the_same_weights() {
    let (root, _) = two_adapters();
    let registry = judged(root.path());
    let plain = registry.load("x", "a", &LoadOptions::default()).unwrap();
    write_template(&root, "a", "one");
    let first = registry.load("x", "a", &REPLACE).unwrap();
    write_template(&root, "a", "two");
    let second = registry.load("x", "a", &REPLACE).unwrap();
    assert!(plain.id != first.id && first.id != second.id && plain.id != second.id);
    assert_eq!((plain.chat_template.as_deref(), first.chat_template.as_deref()), (None, Some("one")));
    assert_eq!(template(&registry, "x").as_deref(), Some("two"));
    assert!(Arc::ptr_eq(&plain.weights, &second.weights), "the weights are the same and in memory once");
    assert_eq!((registry.bytes_used(), registry.swaps()), (ADAPTER_BYTES, 2));
    let unchanged = registry.load("x", "a", &REPLACE).unwrap();
    assert!(Arc::ptr_eq(&unchanged, &second));
    std::fs::remove_file(root.path().join("a/chat_template.jinja")).unwrap();
    assert_eq!(registry.load("x", "a", &REPLACE).unwrap().id, plain.id);
}

#[test]
fn a_template_that_the_judge_refuses_is_named_and_the_old_generation_goes_on() {
    let (root, _) = two_adapters();
    let registry = judged(root.path());
    write_template(&root, "a", "good");
    let old = registry.load("x", "a", &LoadOptions::default()).unwrap();
    write_template(&root, "a", "broken");
    let reason = message(registry.load("x", "a", &REPLACE));
    assert_eq!(reason, "`chat_template.jinja`: line 3 of broken");
    assert!(Arc::ptr_eq(&registry.lease("x").unwrap(), &old));
    write_template(&root, "a", format!("broken{}", "x".repeat(5000)));
    assert!(message(registry.load("x", "a", &REPLACE)).len() < 1000, "a message repeats little of what it is about");
}

#[test]
fn a_template_that_is_no_short_text_of_the_root_is_refused() {
    let (root, _) = two_adapters();
    let registry = judged(root.path());
    write_template(&root, "a", b"\xff\xfe");
    assert!(message(registry.load("x", "a", &LoadOptions::default())).contains("`chat_template.jinja` is not UTF-8"));
    write_template(&root, "a", vec![b' '; (1 << 20) + 1]);
    let large = registry.load("x", "a", &LoadOptions::default());
    assert!(matches!(large, Err(AdapterError::TooLarge { .. })), "{large:?}");

    let place = root.path().join("a/chat_template.jinja");
    let outside = tempdir().unwrap();
    std::fs::write(outside.path().join("t"), "text").unwrap();
    for (target, inside) in [(outside.path().join("t"), false), (root.path().join("nothing"), true)] {
        std::fs::remove_file(&place).unwrap();
        symlink(target, &place).unwrap();
        let refused = registry.load("x", "a", &LoadOptions::default());
        match inside {
            false => assert!(matches!(refused, Err(AdapterError::Forbidden { .. })), "{refused:?}"),
            true => assert!(message(refused).contains("chat_template.jinja")),
        }
    }
    std::fs::remove_file(&place).unwrap();
    make_pipe(&place);
    assert!(message(registry.load("x", "a", &LoadOptions::default())).contains("not a regular file"));
}

#[test]
fn an_evicted_adapter_is_told_with_its_template() {
    let (root, _) = two_adapters();
    write_template(&root, "a", "own");
    let registry = registry_with(Some(root.path()), ADAPTER_BYTES);
    registry.load("first", "a", &LoadOptions::default()).unwrap();
    registry.load("second", "b", &LoadOptions::default()).unwrap();
    assert!(registry.lease("first").is_none());
    assert_eq!(template(&registry, "first").as_deref(), Some("own"));
    assert_eq!(registry.resolve("first").unwrap().chat_template.as_deref(), Some("own"));
}

/// The files of an adapter as a program holds them.
fn built_in(dir: &Path) -> BuiltIn {
    let bytes = |name: &str| -> Option<&'static [u8]> { Some(std::fs::read(dir.join(name)).ok()?.leak()) };
    let [config, weights] = ["adapter_config.json", "adapter_model.safetensors"].map(|name| bytes(name).unwrap());
    BuiltIn { config, weights, template: bytes("chat_template.jinja") }
}

#[test]
fn an_adapter_of_the_program_is_that_of_its_files_pinned_and_comes_back() {
    let (root, registry) = two_adapters();
    write_template(&root, "a", "own");
    let files = built_in(&root.path().join("a"));
    let lease = registry.load_built_in("inside", files).unwrap();
    let same = registry.load("outside", "a", &LoadOptions::default()).unwrap();
    assert_eq!((&lease.id, lease.chat_template.as_deref()), (&same.id, Some("own")));
    assert!(Arc::ptr_eq(&lease.weights, &same.weights));
    assert!(registry.list().iter().any(|listed| listed.lease.name == "inside" && listed.pinned));
    registry.unload("inside", None).unwrap();
    assert!(registry.loadable().contains(&("inside".to_owned(), true)));
    let again = registry.reload("inside").unwrap();
    assert_eq!(again.id, lease.id);
    assert!(registry.list().iter().any(|listed| listed.lease.name == "inside" && listed.pinned));
}

#[test]
fn a_broken_adapter_of_the_program_is_refused_like_a_broken_file() {
    let (root, registry) = two_adapters();
    let files = built_in(&root.path().join("a"));
    let cut = BuiltIn { weights: &files.weights[..files.weights.len() - 1], ..files };
    assert!(message(registry.load_built_in("inside", cut)).contains("adapter_model.safetensors"));
    assert!(registry.lease("inside").is_none());
}
