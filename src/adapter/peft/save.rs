//! Writes a PEFT directory so that a reader, or a crash at any moment, sees the old one or the new one, never a part.

use super::{CONFIG_FILE, Factor, PeftConfig, SiteSpec, TEMPLATE_FILE, WEIGHTS_FILE, invalid, tensor_name};
use crate::adapter::AdapterError;
use crate::chat::tokenizer;
use crate::model::{AdapterWeights, LoraPair, Magnitude, Site, TargetModule};
use crate::staging::{self, beside, parent};
use candle_core::{DType, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

const ALWAYS: [&str; 2] = [CONFIG_FILE, WEIGHTS_FILE];

/// The files that a tokenizer and its use may consist of.
pub fn tokenizer_files() -> impl Iterator<Item = &'static str> {
    tokenizer::FILES.into_iter().chain([tokenizer::GENERATION_FILE])
}

/// Writes a PEFT directory atomically (temporary directory beside it, then rename), tensors in f32.
///
/// An adapter directory that is already there is replaced; one that holds anything else is left alone and refused.
pub fn save(dir: &Path, config: &PeftConfig, weights: &AdapterWeights) -> Result<(), AdapterError> {
    save_with_template(dir, config, weights, None)
}

/// The same with a chat template of the adapter's own, if it has one.
pub fn save_with_template(
    dir: &Path,
    config: &PeftConfig,
    weights: &AdapterWeights,
    template: Option<&str>,
) -> Result<(), AdapterError> {
    let sites = check(config, weights)?;
    write_with(dir, &config.to_json(&sites), &named(weights), Beside::template(template))
}

/// What lies in an adapter's directory beside settings and tensors.
#[derive(Clone, Copy)]
pub(super) enum Beside<'a> {
    Nothing,
    /// A chat template.
    Template(&'a str),
    /// The files of the tokenizer in this directory.
    Tokenizer(&'a Path),
}

impl<'a> Beside<'a> {
    pub(super) fn template(template: Option<&'a str>) -> Self {
        template.map_or(Self::Nothing, Self::Template)
    }
}

/// Puts settings, tensors and what belongs beside them in place as [`save`] says.
pub(super) fn write_with(
    dir: &Path,
    settings: &Value,
    tensors: &[(String, &Tensor)],
    beside: Beside<'_>,
) -> Result<(), AdapterError> {
    let tensors = serialize(tensors)?;
    // A link to a directory stays a link: what it points to is replaced.
    let dir = &dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let fail = |source| AdapterError::Io { path: dir.display().to_string(), source };
    if let Some(other) = foreign_entry(dir).map_err(fail)? {
        let other = other.display();
        return Err(invalid(format!("`{}` holds `{other}`, which is no part of an adapter", dir.display())));
    }
    let staging = Staging::create(dir).map_err(fail)?;
    staging.write(CONFIG_FILE, format!("{settings:#}\n").as_bytes()).map_err(fail)?;
    staging.write(WEIGHTS_FILE, &tensors).map_err(fail)?;
    staging.add(beside).map_err(fail)?;
    staging.publish(dir).map_err(fail)
}

/// What would make the directory unreadable is refused before anything is written. Gives the rank and scale of each site.
pub(super) fn check(config: &PeftConfig, weights: &AdapterWeights) -> Result<BTreeMap<Site, SiteSpec>, AdapterError> {
    let specs = weights.iter().map(|(site, pair)| Ok((site, check_pair(config, site, pair)?)));
    let specs: BTreeMap<_, _> = specs.collect::<Result<_, AdapterError>>()?;
    let found: BTreeSet<TargetModule> = specs.keys().map(|site| site.module).collect();
    if found.is_empty() || found != config.target_modules.iter().copied().collect() {
        return Err(invalid("the weights are not of exactly target_modules"));
    }
    Ok(specs)
}

fn check_pair(config: &PeftConfig, site: Site, pair: &LoraPair) -> Result<SiteSpec, AdapterError> {
    let name = format!("layer {} {}", site.layer, site.module.path());
    let (rank, other) = (pair.a.dims2()?.0, pair.b.dims2()?.1);
    if rank != other {
        return Err(invalid(format!("{name} has an A of rank {rank} and a B of rank {other}")));
    }
    let as_trained = matches!(pair.magnitude, None | Some(Magnitude::Wanted(_)));
    if pair.magnitude.is_some() != config.use_dora || !as_trained {
        return Err(invalid(format!("{name}: use_dora and a magnitude vector as trained go together")));
    }
    Ok(SiteSpec { rank, scale: pair.scale })
}

/// All factors by PEFT's names.
pub(super) fn named(weights: &AdapterWeights) -> Vec<(String, &Tensor)> {
    let factors = weights.iter().flat_map(|(site, pair)| {
        let magnitude = pair.magnitude.as_ref().map(Magnitude::tensor);
        let factors = [(Factor::A, Some(&pair.a)), (Factor::B, Some(&pair.b)), (Factor::Magnitude, magnitude)];
        factors.map(|(factor, tensor)| Some((tensor_name(site, factor), tensor?)))
    });
    factors.flatten().collect()
}

/// A safetensors file, values in f32.
fn serialize(named: &[(String, &Tensor)]) -> Result<Vec<u8>, AdapterError> {
    let mut tensors = Vec::new();
    for (name, tensor) in named {
        let bytes =
            f32_bytes(tensor)?.ok_or_else(|| invalid(format!("tensor `{name}` has a value that is not finite")))?;
        tensors.push((name, tensor.dims().to_vec(), bytes));
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(|error| invalid(error.to_string()))?;
    // Readers of the Hugging Face family refuse files without this entry.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| invalid(error.to_string()))
}

/// Little-endian values, or nothing if one is not finite.
fn f32_bytes(tensor: &Tensor) -> candle_core::Result<Option<Vec<u8>>> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let finite = values.iter().all(|value| value.is_finite());
    Ok(finite.then(|| values.iter().flat_map(|value| value.to_le_bytes()).collect()))
}

/// An entry of `dir` that replacing it would destroy.
fn foreign_entry(dir: &Path) -> io::Result<Option<OsString>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let names: Vec<OsString> = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    // A tokenizer alone is no adapter.
    let is_adapter = names.iter().any(|name| name == CONFIG_FILE);
    let known = |name: &OsString| {
        ALWAYS.into_iter().any(|known| name == known) || is_adapter && tokenizer_files().any(|known| name == known)
    };
    Ok(names.into_iter().find(|name| !known(name)))
}

/// A directory beside the target; whatever it holds at the end is removed.
struct Staging(PathBuf);

impl Staging {
    fn create(dir: &Path) -> io::Result<Self> {
        let path = beside(dir)?;
        fs::create_dir_all(parent(dir))?;
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.0.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn add(&self, beside: Beside<'_>) -> io::Result<()> {
        match beside {
            Beside::Nothing => Ok(()),
            Beside::Template(text) => self.write(TEMPLATE_FILE, text.as_bytes()),
            Beside::Tokenizer(from) => self.copy_tokenizer(from),
        }
    }

    /// Takes over those of a tokenizer's files that are there.
    fn copy_tokenizer(&self, from: &Path) -> io::Result<()> {
        tokenizer_files().try_for_each(|name| match fs::read(from.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            read => self.write(name, &read?),
        })
    }

    /// Puts the new directory in place; an old one goes when this is dropped.
    fn publish(&self, dir: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        staging::replace(&self.0, dir)?;
        File::open(parent(dir))?.sync_all()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Only files by name: nothing else can be lost, whatever now lies at this path.
        for name in ALWAYS.into_iter().chain(tokenizer_files()) {
            let _ = fs::remove_file(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}
