use super::*;

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

fn newest_of(output: &Path) -> (Result<Option<Checkpoint>>, Vec<String>) {
    let mut warnings = Vec::new();
    let found = newest(output, &slots(), |warning| warnings.push(warning.to_owned()));
    (found, warnings)
}

#[test]
fn a_checkpoint_reads_back_bit_for_bit_and_only_the_last_ones_are_kept() {
    let output = tempfile::tempdir().unwrap();
    for step in [5, 10, 15] {
        save(output.path(), &slots(), &checkpoint(step), 2).unwrap();
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

#[test]
fn any_flipped_byte_or_cut_is_found_and_the_previous_checkpoint_used() {
    let output = tempfile::tempdir().unwrap();
    save(output.path(), &slots(), &checkpoint(1), 2).unwrap();
    let dir = save(output.path(), &slots(), &checkpoint(2), 2).unwrap();
    for name in [VALUES, MOMENTS, STATE] {
        let path = dir.join(name);
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut flipped = good.clone();
            flipped[at] ^= 0x10;
            for bad in [&flipped, &good[..at].to_vec()] {
                fs::write(&path, bad).unwrap();
                let (found, warnings) = newest_of(output.path());
                assert_eq!(found.unwrap(), Some(checkpoint(1)), "{name} at {at}");
                assert!(warnings[0].contains(name), "{warnings:?}");
            }
        }
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn damage_to_the_manifest_is_found_too() {
    let output = tempfile::tempdir().unwrap();
    let dir = save(output.path(), &slots(), &checkpoint(2), 2).unwrap();
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
    save(output.path(), &slots(), &checkpoint(1), 1).unwrap();
    let mut bad = checkpoint(2);
    bad.moments.second[7] = f32::NAN;
    let message = save(output.path(), &slots(), &bad, 1).unwrap_err().to_string();
    assert!(message.contains("second.b.norm"), "{message}");
    assert_eq!(newest_of(output.path()).0.unwrap(), Some(checkpoint(1)));
}

#[test]
fn a_checkpoint_of_another_shape_is_refused() {
    let output = tempfile::tempdir().unwrap();
    let dir = save(output.path(), &slots(), &checkpoint(1), 1).unwrap();
    let other = Slot::layout([("a.weight".to_owned(), vec![3, 2]), ("b.norm".to_owned(), vec![4])]);
    assert!(load(&dir, &other).unwrap_err().to_string().contains("a.weight"));
}
