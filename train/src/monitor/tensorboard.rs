//! TensorBoard's event files: protobuf messages in TFRecord frames.
//!
//! The messages are the part of TensorFlow's `event.proto`, `summary.proto` and `tensor.proto` that scalars and texts need.
//! Knows no terminal.

use super::curves::{scalars, steps_done};
use super::samples;
use crate::error::{Result, TrainError};
use prost::Message;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The first record says which form the file has.
const FILE_VERSION: &str = "brain.Event:2";
const PREFIX: &str = "events.out.tfevents.";
/// The text of an evaluation's sample generations.
const SAMPLES: &str = "Validation/samples";
/// `DT_STRING` of TensorFlow's types.
const STRING: i32 = 7;
/// `DATA_CLASS_TENSOR`: values for a plug-in that reads tensors.
const TENSOR_CLASS: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Named>,
}

/// `Summary.Value`: a scalar, or a tensor for the plug-in that the metadata name.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    tag: String,
    /// Optional so that a zero is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<TensorProto>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

/// A tensor of strings without dimensions: one string.
#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    tensor_shape: Option<NoDimensions>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct NoDimensions {}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<PluginData>,
    #[prost(int32, tag = "4")]
    data_class: i32,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

impl Named {
    fn scalar(tag: String, value: f64) -> Self {
        Self { tag, simple_value: Some(value as f32), tensor: None, metadata: None }
    }

    /// Markdown for the text plug-in.
    fn text(tag: &str, text: String) -> Self {
        let plugin_data = Some(PluginData { plugin_name: "text".to_owned() });
        let tensor =
            TensorProto { dtype: STRING, tensor_shape: Some(NoDimensions {}), string_val: vec![text.into_bytes()] };
        let metadata = Metadata { plugin_data, data_class: TENSOR_CLASS };
        Self { tag: tag.to_owned(), simple_value: None, tensor: Some(tensor), metadata: Some(metadata) }
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
struct SessionLog {
    #[prost(enumeration = "SessionStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum SessionStatus {
    Unspecified = 0,
    Start = 1,
}

/// An event file, open for more scalars.
pub(super) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Creates the file of a process that begins at `wall_time` (seconds since 1970) after `done` steps.
    ///
    /// Its session starts at the next step, which tells TensorBoard to forget what earlier files hold from there on.
    pub(super) fn create(directory: &Path, done: u64, wall_time: f64) -> Result<Self> {
        fs::create_dir_all(directory).map_err(TrainError::io(directory))?;
        let path = directory.join(name(directory, wall_time)?);
        let file = File::create_new(&path).map_err(TrainError::io(&path))?;
        let mut events = Self { file, path };
        let version = What::FileVersion(FILE_VERSION.to_owned());
        let session = What::SessionLog(SessionLog { status: SessionStatus::Start.into() });
        events.append(&Event { wall_time, step: 0, what: Some(version) })?;
        events.append(&Event { wall_time, step: step(done + 1), what: Some(session) })?;
        Ok(events)
    }

    /// Appends the scalars and samples of a line of the log, if it has any. Readers see them at once.
    pub(super) fn write(&mut self, line: &Value, wall_time: f64) -> Result<()> {
        let mut value: Vec<Named> = scalars(line).into_iter().map(|(tag, value)| Named::scalar(tag, value)).collect();
        let samples = samples::of(line);
        if !samples.is_empty() {
            value.push(Named::text(SAMPLES, samples::markdown(&samples)));
        }
        match steps_done(line) {
            Some(done) if !value.is_empty() => {
                self.append(&Event { wall_time, step: step(done), what: Some(What::Summary(Summary { value })) })
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        self.file.write_all(&frame(&event.encode_to_vec())).map_err(TrainError::io(&self.path))
    }
}

fn step(done: u64) -> i64 {
    i64::try_from(done).unwrap_or(i64::MAX)
}

/// A name that comes after those of all earlier processes, because TensorBoard reads files in the order of their names.
fn name(directory: &Path, wall_time: f64) -> Result<String> {
    let mut second = wall_time as u64;
    for entry in fs::read_dir(directory).map_err(TrainError::io(directory))?.flatten() {
        let earlier = entry.file_name().to_string_lossy().strip_prefix(PREFIX).and_then(|rest| {
            let (second, _) = rest.split_once('.')?;
            second.parse::<u64>().ok()
        });
        second = second.max(earlier.map_or(0, |earlier| earlier + 1));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().replace('/', "-");
    Ok(format!("{PREFIX}{second:010}.{host}.{}", std::process::id()))
}

/// A TFRecord: length, its sum, the bytes, their sum; all little-endian.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), bytes, &masked_crc(bytes)].concat()
}

/// CRC-32C, turned and shifted as TFRecord wants it, so that a sum over data with sums in it still says something.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// CRC-32C a bit at a time, as RFC 3720 defines it.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
        })
    }

    fn number(bytes: &[u8]) -> u32 {
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    fn checked<'a>(bytes: &'a [u8], sum: &[u8]) -> &'a [u8] {
        assert_eq!(number(sum).wrapping_sub(0xa282_ead8).rotate_left(15), crc(bytes));
        bytes
    }

    /// The records of a file, with both of their sums checked.
    fn events(path: &Path) -> Vec<Event> {
        let (text, mut events) = (fs::read(path).unwrap(), Vec::new());
        let mut rest = &text[..];
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(12);
            let length = number(&checked(&head[..8], &head[8..])[..4]) as usize;
            events.push(Event::decode(checked(&tail[..length], &tail[length..length + 4])).unwrap());
            rest = &tail[length + 4..];
        }
        events
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn the_sums_are_those_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn every_record_is_sound_and_holds_the_scalars_that_were_written() {
        let root = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(root.path(), 0, 1000.5).unwrap();
        file.write(&json!({"event": "start", "step": 0}), 1001.0).unwrap();
        file.write(&json!({"event": "step", "step": 4, "loss": 0.0, "lr": 2e-4, "gradient_noise": null}), 1002.0)
            .unwrap();
        file.write(&json!({"event": "eval", "step": 5, "held_out": {"loss": 1.5}}), 1003.0).unwrap();

        let [path] = &files(root.path())[..] else { panic!("one file") };
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents.0000001000."), "{name}");
        assert!(name.ends_with(&format!(".{}", std::process::id())), "{name}");
        let summary = |wall_time, step, values: &[(&str, f32)]| {
            let scalar = |&(tag, value): &(&str, f32)| Named::scalar(tag.to_owned(), f64::from(value));
            let value = values.iter().map(scalar).collect();
            Event { wall_time, step, what: Some(What::Summary(Summary { value })) }
        };
        let session = What::SessionLog(SessionLog { status: 1 });
        assert_eq!(
            events(path),
            [
                Event { wall_time: 1000.5, step: 0, what: Some(What::FileVersion("brain.Event:2".to_owned())) },
                Event { wall_time: 1000.5, step: 1, what: Some(session) },
                summary(1002.0, 5, &[("Train/loss", 0.0), ("Train/lr", 2e-4), ("Train/perplexity", 1.0)]),
                summary(1003.0, 5, &[("Validation/loss", 1.5), ("Validation/perplexity", 1.5f64.exp() as f32)]),
            ]
        );
    }

    #[test]
    fn samples_are_a_text_of_the_text_plug_in() {
        let root = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(root.path(), 0, 1000.5).unwrap();
        let samples = json!([{"prompt": "p", "wanted": "w", "got": "g", "right": false}]);
        file.write(&json!({"event": "eval", "step": 5, "held_out": {"loss": 1.5}, "samples": samples}), 1003.0)
            .unwrap();
        let written = events(&files(root.path())[0]).pop().unwrap();
        let Some(What::Summary(Summary { value })) = written.what else { panic!("a summary") };
        let text = value.last().unwrap();
        assert_eq!((text.tag.as_str(), text.simple_value), ("Validation/samples", None));
        let tensor = text.tensor.as_ref().unwrap();
        assert!(String::from_utf8_lossy(&tensor.string_val[0]).starts_with("### 1: wrong\n"), "{tensor:?}");
        assert_eq!(text.metadata.as_ref().unwrap().plugin_data.as_ref().unwrap().plugin_name, "text");
    }

    #[test]
    fn a_resumed_run_writes_a_later_file_that_purges_what_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        EventFile::create(root.path(), 0, 1000.5).unwrap();
        EventFile::create(root.path(), 40, 1000.9).unwrap();
        let files = files(root.path());
        assert_eq!(files.len(), 2);
        let begun = &events(&files[1])[1];
        assert_eq!((begun.step, begun.what.clone()), (41, Some(What::SessionLog(SessionLog { status: 1 }))));
    }
}
