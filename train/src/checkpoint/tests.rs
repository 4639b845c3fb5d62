use super::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn slots() -> Vec<Slot> {
    Slot::layout([("a.weight".to_owned(), vec![2, 3]), ("b.norm".to_owned(), vec![4])])
}

fn checkpoint(step: u64) -> Checkpoint {
    let values = |scale: f32| (0..10).map(|n| n as f32 * scale + step as f32).collect::<Vec<_>>();
    Checkpoint {
        state: State {
            step,
            updates: step - 1,
            cursor: Cursor { phase: 1, drawn: 9, per_source: vec![4, 5] },
            tokens: 1234,
            skipped: 1,
            dropped: 2,
            selection: Default::default(),
            recipe_digest: "d".into(),
        },
        values: values(0.1),
        moments: Moments { first: values(-0.2), second: values(0.3), updates: step - 1 },
    }
}

fn snapshot(checkpoint: &Checkpoint) -> Snapshot<'_> {
    Snapshot { state: &checkpoint.state, values: &checkpoint.values, moments: &checkpoint.moments }
}

fn newest_of(output: &Path) -> (Result<Option<Checkpoint>>, Vec<String>) {
    let mut warnings = Vec::new();
    let found = newest(output, &slots(), |warning| warnings.push(warning.to_owned()));
    (found, warnings)
}

#[test]
fn a_checkpoint_reads_back_bit_for_bit_and_only_the_last_ones_are_kept() {
    let output = tempfile::tempdir().unwrap();
    for step in [5, 10, 15] {
        save(output.path(), &slots(), snapshot(&checkpoint(step)), 2).unwrap();
    }
    let names: Vec<_> = list(output.path()).unwrap().iter().map(|dir| dir.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["checkpoint-15", "checkpoint-10"]);
    let (found, warnings) = newest_of(output.path());
    assert_eq!(found.unwrap(), Some(checkpoint(15)));
    assert!(warnings.is_empty());
}

#[test]
fn no_checkpoint_is_not_an_error() {
    let output = tempfile::tempdir().unwrap();
    assert_eq!(newest_of(output.path()).0.unwrap(), None);
}

/// Cuts, and as many flipped bits.
const DAMAGES: usize = 1000;

#[test]
fn every_cut_and_every_flipped_bit_is_found_and_the_previous_checkpoint_used() {
    let output = tempfile::tempdir().unwrap();
    save(output.path(), &slots(), snapshot(&checkpoint(1)), 2).unwrap();
    let dir = save(output.path(), &slots(), snapshot(&checkpoint(2)), 2).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for damage in 0..2 * DAMAGES {
        let name = [VALUES, MOMENTS, STATE, MANIFEST][random.random_range(0..4)];
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        let (mut bad, at) = (good.clone(), random.random_range(0..good.len()));
        let bit = random.random_range(0..8);
        match damage < DAMAGES {
            true => bad.truncate(at),
            false => bad[at] ^= 1 << bit,
        }
        fs::write(&path, bad).unwrap();
        let (found, warnings) = newest_of(output.path());
        assert_eq!(found.unwrap(), Some(checkpoint(1)), "{name} at {at}, bit {bit}");
        // A manifest may accuse the file whose size or sum was changed in it.
        let named = warnings[0].contains(name) || name == MANIFEST;
        assert!(named && warnings[0].contains("checkpoint-2/"), "{warnings:?}");
        fs::write(&path, good).unwrap();
    }
    assert_eq!(newest_of(output.path()).0.unwrap(), Some(checkpoint(2)));
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_that_is_saved_in_its_stead() {
    let output = tempfile::tempdir().unwrap();
    for step in [2, 4] {
        save(output.path(), &slots(), snapshot(&checkpoint(step)), 2).unwrap();
    }
    fs::write(output.path().join("checkpoint-4").join(VALUES), b"torn").unwrap();
    save(output.path(), &slots(), snapshot(&checkpoint(3)), 1).unwrap();
    let (found, warnings) = newest_of(output.path());
    assert_eq!((found.unwrap(), warnings.len()), (Some(checkpoint(3)), 0));
    assert_eq!(list(output.path()).unwrap().len(), 1);
}

#[test]
fn a_missing_part_is_damage() {
    let output = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        save(output.path(), &slots(), snapshot(&checkpoint(step)), 2).unwrap();
    }
    fs::remove_file(output.path().join("checkpoint-2").join(MOMENTS)).unwrap();
    let (found, warnings) = newest_of(output.path());
    assert_eq!((found.unwrap(), warnings.len()), (Some(checkpoint(1)), 1));
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_an_error_and_not_passed_over() {
    let output = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        save(output.path(), &slots(), snapshot(&checkpoint(step)), 2).unwrap();
    }
    for part in [VALUES, MANIFEST] {
        let path = output.path().join("checkpoint-2").join(part);
        let aside = output.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        // A link to itself cannot be read by anybody, not even by root.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let (found, warnings) = newest_of(output.path());
        let message = found.unwrap_err().to_string();
        assert!(message.contains("checkpoint-2/") && message.contains(part), "{message}");
        assert_eq!(warnings, [] as [&str; 0]);
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(newest_of(output.path()).0.unwrap(), Some(checkpoint(2)));
}

#[test]
fn damage_to_the_manifest_is_found_too() {
    let output = tempfile::tempdir().unwrap();
    let dir = save(output.path(), &slots(), snapshot(&checkpoint(2)), 2).unwrap();
    let path = dir.join(MANIFEST);
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let (found, warnings) = newest_of(output.path());
    assert!(found.unwrap_err().to_string().contains("no checkpoint here is whole"));
    assert!(warnings[0].contains("manifest.json"), "{warnings:?}");
}

#[test]
fn nothing_that_is_not_finite_is_written() {
    let output = tempfile::tempdir().unwrap();
    save(output.path(), &slots(), snapshot(&checkpoint(1)), 1).unwrap();
    let mut bad = checkpoint(2);
    bad.moments.second[7] = f32::NAN;
    let message = save(output.path(), &slots(), snapshot(&bad), 1).unwrap_err().to_string();
    assert!(message.contains("second.b.norm"), "{message}");
    assert_eq!(newest_of(output.path()).0.unwrap(), Some(checkpoint(1)));
}

#[test]
fn a_checkpoint_of_another_shape_is_refused() {
    let output = tempfile::tempdir().unwrap();
    let dir = save(output.path(), &slots(), snapshot(&checkpoint(1)), 1).unwrap();
    let other = Slot::layout([("a.weight".to_owned(), vec![3, 2]), ("b.norm".to_owned(), vec![4])]);
    assert!(load(&dir, &other).unwrap_err().to_string().contains("a.weight"));
}
