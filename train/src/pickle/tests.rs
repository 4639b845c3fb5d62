//! What is written is read back; what is hostile or damaged is refused by name, and nothing of it is run.

use super::*;
use crate::tensors::{Layout, Plan, Raw};
use safetensors::Dtype;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn raw(dtype: Dtype, shape: &[usize]) -> Raw {
    let layout = Layout { dtype, shape: shape.to_vec() };
    let bytes = (0..layout.bytes().unwrap()).map(|i| (i * 7 % 251) as u8).collect();
    Raw { layout, bytes }
}

fn model() -> Vec<(&'static str, Raw)> {
    vec![
        ("a", raw(Dtype::BF16, &[3, 5])),
        ("b.weight", raw(Dtype::F32, &[4])),
        ("scalar", raw(Dtype::F32, &[])),
        ("empty", raw(Dtype::I64, &[0, 2])),
        ("flags", raw(Dtype::U8, &[2, 1, 3])),
    ]
}

fn saved() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.pth");
    let model = model();
    let plans: Vec<Plan> = model.iter().map(|(name, raw)| Plan::new(*name, raw.layout.clone())).collect();
    let mut tensors = model.into_iter();
    write(&path, &plans, &mut |_| Ok(tensors.next().unwrap().1.bytes)).unwrap();
    (dir, path)
}

/// A file of `torch.save`'s form with this pickle and these storages.
fn archive(pickle: &[u8], storages: &[&[u8]]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.pt");
    let mut zip = ZipWriter::new(fs::File::create(&path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut put = |name: String, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    put("hostile/data.pkl".into(), pickle);
    storages.iter().enumerate().for_each(|(key, bytes)| put(format!("hostile/data/{key}"), bytes));
    zip.finish().unwrap();
    (dir, path)
}

/// Why a pickle is refused.
fn refusal(pickle: &[u8], content: Content) -> String {
    let (_dir, path) = archive(pickle, &[]);
    let error = TorchFile::open(&path, content).unwrap_err().to_string();
    assert!(error.contains("hostile.pt"), "{error}");
    error
}

/// `{'t': tensor}`, with what describes the tensor's storage, place and shape.
fn one_tensor(storage: &str, values: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |value: &i32| [&[op::BININT][..], &value.to_le_bytes()].concat();
    let ints = |values: &[i32]| [vec![op::MARK], values.iter().flat_map(int).collect(), vec![op::TUPLE]].concat();
    let text = |text: &str| [&[op::SHORT_BINUNICODE, text.len() as u8], text.as_bytes()].concat();
    let parts = [
        vec![op::PROTO, 2, op::EMPTY_DICT],
        text("t"),
        b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(),
        vec![op::MARK, op::MARK],
        text("storage"),
        format!("ctorch\n{storage}\n").into_bytes(),
        text("0"),
        text("cpu"),
        int(&values),
        vec![op::TUPLE, op::BINPERSID],
        int(&offset),
        ints(shape),
        ints(strides),
        vec![op::NEWFALSE, op::NONE, op::TUPLE, op::REDUCE, op::SETITEM, op::STOP],
    ];
    parts.concat()
}

fn tensor_of(pickle: &[u8], storage: &[u8]) -> crate::Result<Raw> {
    let (_dir, path) = archive(pickle, &[storage]);
    let file = TorchFile::open(&path, Content::StateDict)?;
    let tensors = file.tensors(file.root())?;
    file.read(&tensors[0].1)
}

#[test]
fn tensors_of_every_shape_are_read_back() {
    let (_dir, path) = saved();
    let file = TorchFile::open(&path, Content::StateDict).unwrap();
    let read: Vec<_> = file.tensors(file.root()).unwrap();
    let read: Vec<_> = read.iter().map(|(name, tensor)| (name.as_str(), file.read(tensor).unwrap())).collect();
    assert_eq!(read, model());
}

#[test]
fn storages_begin_where_they_can_be_mapped() {
    let (_dir, path) = saved();
    let mut zip = zip::ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    assert_eq!(zip.name_for_index(0).unwrap().unwrap(), "model/data.pkl");
    for index in 0..zip.len() {
        assert_eq!(zip.by_index_raw(index).unwrap().data_start().unwrap() % 64, 0);
    }
}

#[test]
fn candle_reads_the_file_too() {
    let (_dir, path) = saved();
    let read = candle_core::pickle::read_all(&path).unwrap();
    let (_, a) = read.iter().find(|(name, _)| name == "a").unwrap();
    assert_eq!(Raw::of(a).unwrap(), model()[0].1);
}

#[test]
fn a_transposed_or_shifted_view_is_read_as_it_counts() {
    let storage: Vec<u8> = (0..8).collect();
    let transposed = tensor_of(&one_tensor("ByteStorage", 8, 1, &[3, 2], &[1, 3]), &storage).unwrap();
    assert_eq!(transposed.bytes, [1, 4, 2, 5, 3, 6]);
    let shifted = tensor_of(&one_tensor("ByteStorage", 8, 2, &[2, 3], &[3, 1]), &storage).unwrap();
    assert_eq!(shifted.bytes, [2, 3, 4, 5, 6, 7]);
}

#[test]
fn some_values_of_a_tensor_are_read_alone() {
    for (shape, strides, expected) in [([2, 3], [3, 1], [3, 4]), ([3, 2], [1, 3], [2, 5])] {
        let (_dir, path) = archive(&one_tensor("ByteStorage", 8, 1, &shape, &strides), &[&[0, 1, 2, 3, 4, 5, 6, 7]]);
        let file = TorchFile::open(&path, Content::StateDict).unwrap();
        let tensor = &file.tensors(file.root()).unwrap()[0].1;
        assert_eq!(file.read_values(tensor, 2..4).unwrap(), expected);
    }
}

#[test]
fn a_tensor_that_reaches_out_of_its_storage_is_refused_by_name() {
    let storage = [0; 8];
    let hostile = [
        one_tensor("ByteStorage", 8, 4, &[5], &[1]),
        one_tensor("ByteStorage", 8, -1, &[1], &[1]),
        one_tensor("ByteStorage", 8, 0, &[2, 2], &[7, 1]),
        one_tensor("ByteStorage", 8, 0, &[i32::MAX, i32::MAX, i32::MAX], &[1, 1, 1]),
        // One value, counted over and over: an allocation without end.
        one_tensor("ByteStorage", 8, 0, &[i32::MAX], &[0]),
        one_tensor("ByteStorage", 8, 0, &[2], &[1, 1]),
        one_tensor("ByteStorage", 8, 0, &[2, 2], &[i32::MAX, i32::MAX]),
        one_tensor("ByteStorage", 9, 0, &[1], &[1]),
        one_tensor("DoubleStorage", 2, 0, &[1], &[1]),
        one_tensor("ByteStorage", -1, 0, &[1], &[1]),
    ];
    for pickle in hostile {
        let error = tensor_of(&pickle, &storage).unwrap_err().to_string();
        assert!(error.contains("hostile.pt: `t`: it "), "{error}");
    }
    assert!(tensor_of(&one_tensor("ByteStorage", 8, 7, &[1], &[1]), &storage).is_ok());
    let empty = one_tensor("ByteStorage", 8, 0, &[0, i32::MAX, i32::MAX, i32::MAX], &[1, 1, 1, 1]);
    assert!(tensor_of(&empty, &storage).unwrap().bytes.is_empty());
}

#[test]
fn a_pickle_that_would_run_something_is_refused_by_its_name() {
    for (module, name) in [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("torch", "load")] {
        let pickle = format!("\u{2}c{module}\n{name}\n(X\u{4}\0\0\0echotR.");
        let pickle = [&[op::PROTO], pickle.as_bytes()].concat();
        for content in [Content::StateDict, Content::DeepSpeed] {
            let error = refusal(&pickle, content);
            assert!(error.contains(&format!("`{module}.{name}`")) && error.contains("nothing was run"), "{error}");
        }
    }
    // The same name made from strings on the stack.
    let pickle = [
        &[op::PROTO, 4, op::SHORT_BINUNICODE, 2],
        &b"os"[..],
        &[op::SHORT_BINUNICODE, 6],
        b"system",
        &[op::STACK_GLOBAL, op::STOP],
    ];
    assert!(refusal(&pickle.concat(), Content::StateDict).contains("`os.system`"));
}

#[test]
fn objects_of_deepspeed_are_inert_in_its_checkpoints_and_refused_elsewhere() {
    let scaler = b"\x80\x02cdeepspeed.runtime.fp16.loss_scaler\nLossScaler\n)\x81}b.";
    assert!(refusal(scaler, Content::StateDict).contains("LossScaler"));
    let (_dir, path) = archive(scaler, &[]);
    let file = TorchFile::open(&path, Content::DeepSpeed).unwrap();
    assert_eq!(file.root().to_string(), "an object of `deepspeed.runtime.fp16.loss_scaler.LossScaler`");
    let arguments = b"\x80\x02cargparse\nNamespace\n)\x81}b.";
    let error = refusal(arguments, Content::DeepSpeed);
    assert!(error.contains("an object of `argparse.Namespace`") && error.contains("client_state"), "{error}");
}

/// The same tensor with attributes of Python's beside it, as ZeRO 3 saves its masters.
fn with_attributes(tensor: &[u8]) -> Vec<u8> {
    const REBUILD: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n";
    let place = tensor.windows(REBUILD.len()).position(|bytes| bytes == REBUILD).unwrap();
    let (head, arguments) = (&tensor[..place], &tensor[place + REBUILD.len()..]);
    let arguments = arguments.strip_suffix(&[op::REDUCE, op::SETITEM, op::STOP]).unwrap();
    let end = [op::EMPTY_DICT, op::TUPLE, op::REDUCE, op::SETITEM, op::STOP];
    [head, b"ctorch._tensor\n_rebuild_from_type_v2\n(", REBUILD, b"ctorch\nTensor\n", arguments, &end].concat()
}

#[test]
fn a_tensor_with_attributes_is_read_without_them_in_checkpoints_of_deepspeed() {
    let pickle = with_attributes(&one_tensor("ByteStorage", 8, 1, &[3, 2], &[1, 3]));
    assert!(refusal(&pickle, Content::StateDict).contains("_rebuild_from_type_v2"));
    let (_dir, path) = archive(&pickle, &[&[0, 1, 2, 3, 4, 5, 6, 7]]);
    let file = TorchFile::open(&path, Content::DeepSpeed).unwrap();
    let tensors = file.tensors(file.root()).unwrap();
    assert_eq!(file.read(&tensors[0].1).unwrap().bytes, [1, 4, 2, 5, 3, 6]);
}

#[test]
fn other_instructions_and_broken_ones_are_refused() {
    let cases: [(&[u8], &str); 12] = [
        // INST, which names and calls in one.
        (b"\x80\x02(ios\nsystem\n.", "0x69"),
        (b"\x80\x02\x82\x01.", "0x82"),
        (b"\x80\x05N.", "protocol 5"),
        (b"\x80\x02h\x07.", "does not hold"),
        (b"\x80\x02.", "takes more objects"),
        (b"\x80\x02(\x85.", "takes more objects"),
        (b"\x80\x02t.", "takes more objects"),
        (b"\x80\x02NNR.", "calls what is no name"),
        (b"\x80\x02NNs.", "takes more objects"),
        (b"\x80\x02N", "ends in the middle"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "ends in the middle"),
        (b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\0\x01.", "64 bits"),
    ];
    for (pickle, expected) in cases {
        let error = refusal(pickle, Content::StateDict);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn what_doubles_or_contains_itself_costs_no_more_than_it_is_long() {
    // Each list holds the one before it twice: 2^20,000 items for who follows the references.
    let doubling = [op::BINPUT, 0, op::EMPTY_LIST, op::MARK, op::BINGET, 0, op::BINGET, 0, op::APPENDS];
    let bomb = [&[op::PROTO, 2, op::EMPTY_LIST], doubling.repeat(20_000).as_slice(), &[op::STOP]].concat();
    // Nested so deeply that a recursive reader, or destructor, runs out of stack.
    let deep = [&[op::PROTO, 2, op::NONE], [op::TUPLE1].repeat(1_000_000).as_slice(), &[op::STOP]].concat();
    let itself = [op::PROTO, 2, op::EMPTY_LIST, op::BINPUT, 0, op::BINGET, 0, op::APPEND, op::STOP];
    for pickle in [&bomb, &deep, itself.as_slice()] {
        let (_dir, path) = archive(pickle, &[]);
        let file = TorchFile::open(&path, Content::StateDict).unwrap();
        assert!(file.tensors(file.root()).unwrap_err().to_string().contains("where named tensors are expected"));
    }
    let endless = [&[op::PROTO, 2][..], &[op::NONE].repeat((1 << 23) + 1)].concat();
    assert!(refusal(&endless, Content::StateDict).contains("more than 8388608 objects"));
}

#[test]
fn no_changed_byte_of_a_pickle_does_more_than_to_be_refused() {
    let storage = 0..64;
    let records = (0..5).map(|key| (key.to_string(), storage.clone())).collect();
    let pickle = one_tensor("ByteStorage", 64, 3, &[4, 5], &[5, 1]);
    for (at, value) in (0..pickle.len()).flat_map(|at| (0..=u8::MAX).map(move |value| (at, value))) {
        let mut changed = pickle.clone();
        changed[at] = value;
        let Ok(read) = machine::run(&changed, Content::StateDict) else { continue };
        for (_, item) in read.root().entries().unwrap_or_default() {
            if let Ok(tensor) = tensor::describe(item, &records) {
                assert!(tensor.bytes.start <= tensor.bytes.end && tensor.bytes.end <= storage.end, "{at} {value}");
                assert!(tensor.values() <= 64, "{at} {value}");
            }
        }
    }
}

#[test]
fn a_truncated_or_foreign_file_is_refused_by_name() {
    let (_dir, path) = saved();
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 30], &whole[..100], &[], b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."] {
        fs::write(&path, damaged).unwrap();
        let error = TorchFile::open(&path, Content::StateDict).unwrap_err().to_string();
        assert!(error.contains("model.pth: is not a whole zip archive"), "{error}");
    }
}

fn repacked(dir: &Path, records: &[(&str, &[u8])]) -> PathBuf {
    let path = dir.join("packed.pt");
    let mut zip = ZipWriter::new(fs::File::create(&path).unwrap());
    for (name, bytes) in records {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(*name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

#[test]
fn an_archive_without_a_pickle_or_of_another_byte_order_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pickle = b"\x80\x02}.".as_slice();
    let cases = [
        ([("x/other", pickle), ("x/byteorder", b"little")], "holds no data.pkl"),
        ([("x/data.pkl", pickle), ("x/byteorder", b"big")], "big-endian"),
        ([("x/data.pkl", pickle), ("x/byteorder", b"middle")], "big-endian"),
    ];
    for (records, expected) in cases {
        let path = repacked(dir.path(), &records);
        let error = TorchFile::open(&path, Content::StateDict).unwrap_err().to_string();
        assert!(error.contains("packed.pt") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_type_that_pytorch_has_not_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let plans = [Plan::new("a", Layout { dtype: Dtype::F8_E4M3, shape: vec![1] })];
    let error = write(&dir.path().join("x.pth"), &plans, &mut |_| Ok(vec![0])).unwrap_err().to_string();
    assert!(error.contains("`a`"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
