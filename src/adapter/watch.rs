//! Sees when an adapter's files change on disk, and loads what has settled.
//!
//! The files must look the same twice before they are loaded: whoever writes them in place may still be at it.

use super::AdapterError;
use super::files::{CONFIG_FILE, TEMPLATE_FILE, WEIGHTS_FILE};
use super::registry::{Lease, LoadOptions, Registry};
use super::shelf::Source;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What an adapter's files look like from outside: inode, length, and time of the last change; zeros of an absent one.
type Stamp = [(u64, u64, i64, i64); 3];

/// Watches the published adapters that came from the root.
#[derive(Default)]
pub struct Watcher {
    /// By name: what was last loaded, and what was last seen.
    seen: HashMap<String, (Stamp, Stamp)>,
}

/// An adapter whose files had changed: its name, and the new generation or why there is none.
pub type Change = (String, Result<Lease, AdapterError>);

impl Watcher {
    /// Looks at every adapter once and loads those that changed. Blocking. A failed load leaves the old generation serving
    /// and is not tried again until the files change once more.
    pub fn look(&mut self, registry: &Registry) -> Vec<Change> {
        let watched = registry.watched();
        self.seen.retain(|name, _| watched.iter().any(|(lease, _)| lease.name == *name));
        watched.into_iter().filter_map(|(lease, source)| self.look_at(registry, &lease, source)).collect()
    }

    fn look_at(&mut self, registry: &Registry, lease: &Lease, source: Source) -> Option<Change> {
        let Source::Jailed(path) = source else { return None };
        let (name, now) = (lease.name.clone(), stamp(&registry.place_of(&path))?);
        let (loaded, last) = *self.seen.entry(name.clone()).or_insert_with(|| (at_load(lease, now), now));
        let settled = now == last;
        self.seen.insert(name.clone(), (if settled { now } else { loaded }, now));
        if now == loaded || !settled {
            return None;
        }
        // Only if nobody has unloaded or replaced it meanwhile.
        let options = LoadOptions { replace: true, expected: Some(lease.id.clone()), ..LoadOptions::default() };
        let outcome = registry.load(&name, &path, &options);
        // Written anew, with the content that is served already.
        let same = outcome.as_ref().is_ok_and(|found| found.id == lease.id);
        (!same).then_some((name, outcome))
    }
}

/// What the files looked like when they were loaded, as far as that can be told: older files were loaded as they are.
fn at_load(lease: &Lease, now: Stamp) -> Stamp {
    let older = now.iter().all(|(_, _, modified, _)| u64::try_from(*modified).is_ok_and(|time| time < lease.created));
    let same_files = lease.chat_template.is_some() == (now[2] != Default::default());
    if older && same_files { now } else { Stamp::default() }
}

fn stamp(dir: &Path) -> Option<Stamp> {
    let of = |name: &str| {
        let meta = std::fs::metadata(dir.join(name)).ok()?;
        Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    Some([of(CONFIG_FILE)?, of(WEIGHTS_FILE)?, of(TEMPLATE_FILE).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{first_value, model, write_adapter};
    use super::*;
    use crate::adapter::registry::RegistryOptions;
    use candle_core::{DType, Device};

    #[test]
    fn changed_files_are_loaded_once_they_have_settled() {
        let root = tempfile::tempdir().unwrap();
        let options = RegistryOptions {
            base_name: "base".into(),
            root: Some(root.path().to_owned()),
            byte_budget: 1 << 20,
            max_rank: 8,
            packing: None,
            root_templates: true,
        };
        let registry = Registry::new(options, model(), DType::F32, Device::Cpu);
        write_adapter(&root.path().join("a"), 1.0);
        registry.load("x", "a", &LoadOptions::default()).unwrap();
        let mut watcher = Watcher::default();
        watcher.look(&registry);
        assert!(watcher.look(&registry).is_empty(), "nothing has changed");
        write_adapter(&root.path().join("a"), 5.0);
        assert!(watcher.look(&registry).is_empty(), "seen changing, not yet settled");
        let changes = watcher.look(&registry);
        assert!(changes.len() == 1 && changes[0].1.is_ok(), "{changes:?}");
        assert_eq!(first_value(&registry.lease("x").unwrap().weights), 5.0);
        std::fs::write(root.path().join("a").join(TEMPLATE_FILE), "own").unwrap();
        watcher.look(&registry);
        let changes = watcher.look(&registry);
        assert!(changes.len() == 1 && changes[0].1.is_ok(), "{changes:?}");
        assert_eq!(registry.lease("x").unwrap().chat_template.as_deref(), Some("own"));
        std::fs::write(root.path().join("a").join(WEIGHTS_FILE), b"torn").unwrap();
        watcher.look(&registry);
        let changes = watcher.look(&registry);
        assert!(changes.len() == 1 && changes[0].1.is_err(), "{changes:?}");
        assert!(watcher.look(&registry).is_empty(), "a broken file is told once");
        assert_eq!(first_value(&registry.lease("x").unwrap().weights), 5.0);
    }
}
