//! The shards of a Meta checkpoint, as the whole tensors that they are parts of.

use super::names::{EMBEDDING, Named, is_derived};
use super::{Cut, MAX_SHARDS};
use crate::error::{Result, TrainError};
use crate::pickle::{Content, TorchFile, TorchTensor};
use crate::tensors::{Layout, Raw};
use callsmith::model::ModelError;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All shards of a checkpoint.
pub(super) struct Shards {
    dir: PathBuf,
    files: Vec<(TorchFile, BTreeMap<String, TorchTensor>)>,
}

/// The name of a shard.
pub(super) fn file_name(number: usize) -> String {
    format!("consolidated.{number:02}.pth")
}

impl Shards {
    /// Opens `consolidated.00.pth` and those that follow it.
    ///
    /// # Errors
    /// When the first is absent, there are too many, or one is damaged or holds anything but tensors.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let paths = (0..).map(|number| dir.join(file_name(number))).take_while(|path| path.exists());
        let paths: Vec<PathBuf> = paths.take(MAX_SHARDS + 1).collect();
        if paths.is_empty() || paths.len() > MAX_SHARDS {
            let message = format!("holds no {}, or more than {MAX_SHARDS} of such files", file_name(0));
            return Err(TrainError::input(dir, message));
        }
        let open = |path: &PathBuf| {
            let file = TorchFile::open(path, Content::StateDict)?;
            let tensors = file.tensors(file.root())?.into_iter().filter(|(name, _)| !is_derived(name)).collect();
            Ok((file, tensors))
        };
        Ok(Self { dir: dir.to_owned(), files: paths.iter().map(open).collect::<Result<_>>()? })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// All names; every shard has the same.
    ///
    /// # Errors
    /// When one has others.
    pub(super) fn names(&self) -> Result<Vec<&str>> {
        let first: Vec<&str> = self.files[0].1.keys().map(String::as_str).collect();
        for (file, tensors) in &self.files[1..] {
            if let Some(name) = tensors.keys().find(|name| !self.files[0].1.contains_key(*name)) {
                return Err(TrainError::input(file.path(), format!("holds `{name}`, which {} does not", file_name(0))));
            }
            if let Some(name) = first.iter().find(|name| !tensors.contains_key(**name)) {
                return Err(TrainError::input(file.path(), format!("lacks `{name}`, which {} holds", file_name(0))));
            }
        }
        Ok(first)
    }

    /// The parts of a tensor, all of the same layout.
    fn parts(&self, name: &str) -> Result<Vec<(&TorchFile, &TorchTensor)>> {
        let mut parts: Vec<(&TorchFile, &TorchTensor)> = Vec::new();
        for (file, tensors) in &self.files {
            let missing = || TrainError::input(file.path(), ModelError::MissingTensor(name.to_owned()).to_string());
            let tensor = tensors.get(name).ok_or_else(missing)?;
            if !tensor.layout.is_float() {
                let found = tensor.layout.dtype;
                return Err(TrainError::input(file.path(), format!("`{name}` is of type {found}, which is no float")));
            }
            if parts.first().is_some_and(|(_, first)| first.layout != tensor.layout) {
                return Err(TrainError::input(file.path(), format!("`{name}` has another shape than elsewhere")));
            }
            parts.push((file, tensor));
        }
        Ok(parts)
    }

    /// The layout of a whole tensor.
    ///
    /// # Errors
    /// When a shard has no part of it, or another than the others.
    pub(super) fn layout(&self, name: &str, cut: Cut) -> Result<Layout> {
        let parts = self.parts(name)?;
        let mut layout = parts[0].1.layout.clone();
        if let Some(size) = cut.dimension().and_then(|dimension| layout.shape.get_mut(dimension)) {
            *size *= parts.len();
        }
        Ok(layout)
    }

    /// How the embedding is cut, seen from its parts: those of Llama 3 are as wide as the model (`dim`), those of Llama 2 are not.
    ///
    /// # Errors
    /// When the shapes are neither.
    pub(super) fn embedding_cut(&self, dim: usize) -> Result<Cut> {
        let shape = &self.parts(EMBEDDING.0)?[0].1.layout.shape;
        match shape.as_slice() {
            [_, width] if *width == dim => Ok(Cut::Rows),
            [_, width] if width.checked_mul(self.count()) == Some(dim) => Ok(Cut::Columns),
            _ => {
                let message = format!("`{}` has parts of shape {shape:?}, which no `dim` of {dim} gives", EMBEDDING.0);
                Err(TrainError::input(&self.dir, message))
            }
        }
    }

    /// A whole tensor.
    ///
    /// # Errors
    /// When it cannot be read, or its copies differ.
    pub(super) fn read(&self, name: &str, cut: Cut) -> Result<Tensor> {
        let parts = self.parts(name)?.into_iter().map(|(file, tensor)| file.read(tensor));
        let parts: Vec<_> = parts.collect::<Result<_>>()?;
        match cut.dimension() {
            Some(dimension) => {
                let parts: Vec<Tensor> = parts.iter().map(Raw::tensor).collect::<Result<_>>()?;
                Ok(Tensor::cat(&parts, dimension)?)
            }
            None if parts.iter().all(|part| *part == parts[0]) => parts[0].tensor(),
            None => Err(TrainError::input(&self.dir, format!("`{name}` is not the same in all shards"))),
        }
    }

    /// Whether the head is the embedding: it is absent, or has the same values.
    ///
    /// # Errors
    /// When a part cannot be read.
    pub(super) fn is_tied(&self, embedding: &Named, head: &Named, cut: Cut) -> Result<bool> {
        if self.files.iter().all(|(_, tensors)| !tensors.contains_key(&head.meta)) {
            return Ok(true);
        }
        let head_cut = head.cut.unwrap_or(Cut::Rows);
        if self.layout(&embedding.meta, cut)? != self.layout(&head.meta, head_cut)? {
            return Ok(false);
        }
        if cut != head_cut {
            let [embedding, head] = [self.read(&embedding.meta, cut)?, self.read(&head.meta, head_cut)?];
            return Ok(Raw::of(&embedding)? == Raw::of(&head)?);
        }
        // Cut alike, they are compared part by part: those of large models are large.
        for ((file, embedding), (_, head)) in self.parts(&embedding.meta)?.into_iter().zip(self.parts(&head.meta)?) {
            if file.read(embedding)? != file.read(head)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
