//! Files that were written are read back; damaged and hostile ones are refused, whatever is wrong with them.

use super::*;
use candle_core::quantized::GgmlDType;
use proptest::prelude::*;

fn plan(name: &str, encoding: GgmlDType, shape: &[usize]) -> TensorPlan {
    TensorPlan { name: name.into(), encoding, shape: shape.to_vec() }
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", "llama");
    metadata.u32("a.count", 7);
    metadata.f32("a.epsilon", 1e-5);
    metadata.flag("a.flag", true);
    metadata.texts("a.texts", ["", "é", "\0"].into_iter());
    metadata.floats("a.floats", &[0.5, -1.0]);
    metadata.integers("a.integers", &[1, -1]);
    metadata
}

/// A small file with two tensors.
fn file() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.gguf");
    let plans = [plan("a", GgmlDType::F32, &[3]), plan("b", GgmlDType::Q8_0, &[2, 32])];
    let mut next = 0;
    write::<GgufError>(&path, &metadata(), &plans, &mut |plan| {
        next += 1;
        Ok(if plan.name == "a" { vec![next; 12] } else { vec![next; 68] })
    })
    .unwrap();
    std::fs::read(path).unwrap()
}

fn error(bytes: &[u8]) -> String {
    Header::parse(bytes).unwrap_err().0
}

#[test]
fn what_was_written_is_read_back() {
    let file = file();
    let header = Header::parse(&file).unwrap();
    assert_eq!(header.text("general.architecture"), Ok(Some("llama")));
    assert_eq!(header.unsigned("a.count"), Ok(Some(7)));
    assert_eq!(header.number("a.epsilon"), Ok(Some(1e-5)));
    assert_eq!(header.flag("a.flag"), Ok(Some(true)));
    assert_eq!(header.texts("a.texts"), Ok(Some(vec!["", "é", "\0"])));
    assert_eq!(header.floats("a.floats"), Ok(Some(vec![0.5, -1.0])));
    assert_eq!(header.integers("a.integers"), Ok(Some(vec![1, -1])));
    assert_eq!(header.unsigned("absent"), Ok(None));
    let (a, b) = (&header.tensors()["a"], &header.tensors()["b"]);
    assert_eq!((a.encoding, a.shape.as_slice(), &file[a.bytes.clone()]), (GgmlDType::F32, &[3][..], &[1; 12][..]));
    assert_eq!((b.encoding, b.shape.as_slice(), &file[b.bytes.clone()]), (GgmlDType::Q8_0, &[2, 32][..], &[2; 68][..]));
    assert!(a.bytes.start.is_multiple_of(32) && b.bytes.start.is_multiple_of(32));
}

#[test]
fn a_value_of_another_type_is_named() {
    let file = file();
    let header = Header::parse(&file).unwrap();
    assert_eq!(header.unsigned("a.flag").unwrap_err().0, "metadata `a.flag` must be a whole number");
    assert!(header.text("a.count").unwrap_err().0.contains("a.count"));
    assert!(header.texts("a.floats").unwrap_err().0.contains("a.floats"));
    assert!(header.floats("a.integers").unwrap_err().0.contains("a.integers"));
}

/// A header with one entry or tensor that is spelt byte by byte.
fn spelt(tensors: u64, entries: u64, rest: &[&[u8]]) -> Vec<u8> {
    let head = [&b"GGUF"[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &entries.to_le_bytes()];
    [head.concat(), rest.concat()].concat()
}

fn tensor(name: &[u8], shape: &[u64], encoding: u32, offset: u64) -> Vec<u8> {
    let shape: Vec<u8> = [(shape.len() as u32).to_le_bytes().to_vec()]
        .into_iter()
        .chain(shape.iter().map(|size| size.to_le_bytes().to_vec()))
        .flatten()
        .collect();
    [&(name.len() as u64).to_le_bytes()[..], name, &shape, &encoding.to_le_bytes(), &offset.to_le_bytes()].concat()
}

#[test]
fn hostile_headers_are_refused_by_what_is_wrong() {
    let long = u64::MAX.to_le_bytes();
    let key = [&1u64.to_le_bytes()[..], b"k"].concat();
    let array = |kind: u32| [&key[..], &9u32.to_le_bytes(), &kind.to_le_bytes(), &long].concat();
    let nested = [&key[..], &9u32.to_le_bytes(), &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].repeat(1000)].concat();
    let alignment = [&17u64.to_le_bytes()[..], b"general.alignment", &4u32.to_le_bytes(), &0u32.to_le_bytes()].concat();
    let twice = [tensor(b"t", &[1], 0, 0), tensor(b"t", &[1], 0, 0), vec![0; 64]].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "begin with `GGUF`"),
        (b"PK\x03\x04".to_vec(), "begin with `GGUF`"),
        (b"GGUF\x01\0\0\0".to_vec(), "version 1"),
        (spelt(u64::MAX, 0, &[]), "ends within its header"),
        (spelt(0, u64::MAX, &[]), "ends within its header"),
        (spelt(0, 1, &[&long]), "ends within its header"),
        (spelt(0, 1, &[&1u64.to_le_bytes(), &[0xff]]), "not UTF-8"),
        (spelt(0, 1, &[&key, &99u32.to_le_bytes()]), "type 99"),
        (spelt(0, 1, &[&array(8)]), "ends within its header"),
        (spelt(0, 1, &[&array(10)]), "ends within its header"),
        (spelt(0, 1, &[&array(77)]), "array of type 77"),
        (spelt(0, 1, &[&nested]), "array of type 9"),
        (spelt(0, 1, &[&alignment]), "general.alignment"),
        (spelt(1, 0, &[&tensor(b"t", &[], 0, 0)]), "0 dimensions"),
        (spelt(1, 0, &[&tensor(b"t", &[1; 5], 0, 0)]), "5 dimensions"),
        (spelt(1, 0, &[&tensor(b"t", &[u64::MAX, 2], 0, 0)]), "shape"),
        (spelt(1, 0, &[&tensor(b"t", &[0], 0, 0)]), "shape"),
        (spelt(1, 0, &[&tensor(b"t", &[33], 8, 0)]), "shape"),
        (spelt(1, 0, &[&tensor(b"t", &[32], 20, 0)]), "`t` is stored as IQ4_NL"),
        (spelt(1, 0, &[&tensor(b"t", &[32], 1000, 0)]), "`t` is stored as type 1000"),
        (spelt(1, 0, &[&tensor(b"t", &[1 << 40], 0, 0)]), "`t` lies beyond the end"),
        (spelt(1, 0, &[&tensor(b"t", &[1], 0, u64::MAX - 8)]), "`t` lies beyond the end"),
        (spelt(1, 0, &[&tensor(b"t", &[1], 0, 4), &[0; 64]]), "not aligned"),
        (spelt(2, 0, &[&twice]), "`t` is there twice"),
    ];
    for (bytes, expected) in cases {
        assert!(error(&bytes).contains(expected), "{expected}: {}", error(&bytes));
    }
}

#[test]
fn every_cut_of_a_file_is_refused() {
    let file = file();
    // What follows the last tensor is padding.
    let end = Header::parse(&file).unwrap().tensors()["b"].bytes.end;
    for length in 0..end {
        assert!(Header::parse(&file[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.gguf");
    std::fs::write(&path, "old").unwrap();
    let plans = [plan("a", GgmlDType::F32, &[3])];
    let short = write::<GgufError>(&path, &metadata(), &plans, &mut |_| Ok(vec![0; 11]));
    assert_eq!(short.unwrap_err().0, "tensor `a` has 11 bytes, not 12");
    let failed = write(&path, &metadata(), &plans, &mut |_| Err(GgufError("no such tensor".into())));
    assert_eq!(failed.unwrap_err().0, "no such tensor");
    let odd = write::<GgufError>(&path, &metadata(), &[plan("a", GgmlDType::Q8_0, &[3])], &mut |_| Ok(vec![]));
    assert!(odd.unwrap_err().0.contains("`a`"));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_damaged_file_is_read_within_its_bytes_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = file();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() / 2 + length.index(bytes.len() / 2 + 1));
        let Ok(header) = Header::parse(&bytes) else { return Ok(()) };
        for info in header.tensors().values() {
            prop_assert!(info.bytes.end <= bytes.len() && info.bytes.start.is_multiple_of(8));
        }
        for key in ["general.architecture", "a.texts", "a.floats", "a.integers", "a.epsilon"] {
            let _ = (header.text(key), header.texts(key), header.floats(key), header.integers(key), header.number(key));
        }
    }
}
