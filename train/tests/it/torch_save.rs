//! Files as `torch.save` writes them of Python objects, for tests of what reads them: protocol 2, a memo, storages beside it.

use safetensors::Dtype;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A Python object.
#[derive(Clone)]
pub(crate) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Tuple(Vec<Self>),
    Dict(Vec<(Self, Self)>),
    OrderedDict(Vec<(Self, Self)>),
    Size(Vec<usize>),
    /// Contiguous, with a storage of its own.
    Tensor {
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Vec<u8>,
    },
    /// `module.name(arguments)`
    Call(&'static str, Vec<Self>),
    /// An object of the class `module.name` with these attributes.
    Instance(&'static str, Vec<(Self, Self)>),
}

impl Object {
    /// A tensor of f32 values.
    pub(crate) fn floats(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::Tensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }
}

pub(crate) fn text(text: &str) -> Object {
    Object::Text(text.to_owned())
}

/// Entries of a dict under these names.
pub(crate) fn named<const N: usize>(entries: [(&str, Object); N]) -> Vec<(Object, Object)> {
    entries.map(|(name, object)| (text(name), object)).into()
}

/// Writes an object to a file.
pub(crate) fn save(path: &Path, object: &Object) {
    let mut writer = Writer { pickle: vec![0x80, 2], storages: Vec::new(), memo: 0 };
    writer.put(object);
    writer.pickle.push(b'.');
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
    let mut record = |name: String, bytes: &[u8]| {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    record("data.pkl".into(), &writer.pickle);
    record("byteorder".into(), b"little");
    writer.storages.iter().enumerate().for_each(|(key, bytes)| record(format!("data/{key}"), bytes));
    record("version".into(), b"3\n");
    zip.finish().unwrap();
}

struct Writer {
    pickle: Vec<u8>,
    storages: Vec<Vec<u8>>,
    memo: u8,
}

impl Writer {
    fn put(&mut self, object: &Object) {
        match object {
            Object::None => self.pickle.push(b'N'),
            Object::Bool(value) => self.pickle.push(if *value { 0x88 } else { 0x89 }),
            Object::Int(value) => self.int(*value),
            Object::Float(value) => {
                self.pickle.push(b'G');
                self.pickle.extend(value.to_be_bytes());
            }
            Object::Text(text) => self.text(text),
            Object::List(items) => {
                self.pickle.push(b']');
                self.remember();
                self.marked(items, b'e');
            }
            Object::Tuple(items) => self.marked(items, b't'),
            Object::Dict(entries) => {
                self.pickle.push(b'}');
                self.remember();
                self.entries(entries);
            }
            Object::OrderedDict(entries) => {
                self.put(&Object::Call("collections.OrderedDict", Vec::new()));
                self.entries(entries);
            }
            Object::Size(sizes) => {
                let sizes = sizes.iter().map(|size| Object::Int(*size as i64)).collect();
                self.put(&Object::Call("torch.Size", vec![Object::Tuple(sizes)]));
            }
            Object::Tensor { dtype, shape, bytes } => self.tensor(*dtype, shape, bytes),
            Object::Call(name, arguments) => {
                self.global(name);
                self.marked(arguments, b't');
                self.pickle.push(b'R');
                self.remember();
            }
            Object::Instance(name, attributes) => {
                self.global(name);
                self.pickle.extend([b')', 0x81]);
                self.put(&Object::Dict(attributes.clone()));
                self.pickle.push(b'b');
            }
        }
    }

    fn tensor(&mut self, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        let class = match dtype {
            Dtype::F32 => "torch.FloatStorage",
            Dtype::BF16 => "torch.BFloat16Storage",
            Dtype::I64 => "torch.LongStorage",
            other => panic!("no storage of {other}"),
        };
        let sizes = |sizes: &[usize]| Object::Tuple(sizes.iter().map(|size| Object::Int(*size as i64)).collect());
        let strides: Vec<usize> = (1..=shape.len()).map(|first| shape[first..].iter().product()).collect();
        self.global("torch._utils._rebuild_tensor_v2");
        self.pickle.extend(*b"((");
        self.text("storage");
        self.global(class);
        self.text(&self.storages.len().to_string());
        self.text("cuda:0");
        self.int((bytes.len() * 8 / dtype.bitsize()) as i64);
        self.pickle.extend(*b"tQ");
        self.int(0);
        self.put(&sizes(shape));
        self.put(&sizes(&strides));
        self.put(&Object::Bool(false));
        self.put(&Object::OrderedDict(Vec::new()));
        self.pickle.extend(*b"tR");
        self.storages.push(bytes.to_vec());
    }

    fn int(&mut self, value: i64) {
        match i32::try_from(value) {
            Ok(value) => {
                self.pickle.push(b'J');
                self.pickle.extend(value.to_le_bytes());
            }
            Err(_) => {
                self.pickle.extend([0x8a, 8]);
                self.pickle.extend(value.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.pickle.push(b'X');
        self.pickle.extend((text.len() as u32).to_le_bytes());
        self.pickle.extend(text.as_bytes());
        self.remember();
    }

    fn global(&mut self, name: &str) {
        let (module, name) = name.rsplit_once('.').unwrap();
        self.pickle.extend(format!("c{module}\n{name}\n").as_bytes());
        self.remember();
    }

    fn marked(&mut self, items: &[Object], end: u8) {
        self.pickle.push(b'(');
        items.iter().for_each(|item| self.put(item));
        self.pickle.push(end);
    }

    fn entries(&mut self, entries: &[(Object, Object)]) {
        self.pickle.push(b'(');
        for (key, value) in entries {
            self.put(key);
            self.put(value);
        }
        self.pickle.push(b'u');
    }

    fn remember(&mut self) {
        self.pickle.extend([b'q', self.memo]);
        self.memo = self.memo.wrapping_add(1);
    }
}
