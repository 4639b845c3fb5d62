//! PEFT directories (`adapter_config.json`, `adapter_model.safetensors`, and maybe `chat_template.jinja`), read and written.
//!
//! Reading goes in steps, so that memory can be set aside in between: `Checked` has seen the settings and the
//! header only, `Snapshot` holds all bytes, and building makes tensors of them. Everything is checked before the
//! first tensor exists: an adapter that loads never fails later for its shape, type or values.
//! Knows nothing of names and generations (see [`super::registry`]).

mod config;
mod header;
mod prompt;
mod save;
#[cfg(test)]
mod tests;
mod tokens;

pub use config::{SiteSpec, resolve};
pub use prompt::{TENSOR as PROMPT_TENSOR, save_prompt};
pub use save::{save, save_with_template, tokenizer_files};
pub use tokens::{Table, TokenRows, save_with_tokens};

use super::files::{AdapterFiles, CONFIG_FILE, OpenFile, TEMPLATE_FILE, WEIGHTS_FILE};
use super::{AdapterError, BuiltIn, shown};
use crate::model::decoder::module_shape;
use crate::model::{AdapterWeights, Checkpoint, LoraPair, Magnitude, ModelConfig, Packing, Site, TargetModule};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use header::{Declared, Stored};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The settings of a LoRA adapter that its `adapter_config.json` holds.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    pub rank: usize,
    pub alpha: f64,
    pub use_rslora: bool,
    pub use_dora: bool,
    pub dropout: f64,
    /// Modules that are adapted in some layer.
    pub target_modules: Vec<TargetModule>,
    pub base_model: Option<String>,
}

/// An adapter read into memory and checked against a decoder's shape.
#[derive(Debug)]
pub struct LoadedAdapter {
    /// Of a LoRA adapter; a soft prompt has none.
    pub config: Option<PeftConfig>,
    pub weights: AdapterWeights,
    /// Rows of tokens, for merging; see [`Self::servable`].
    pub tokens: Option<TokenRows>,
    /// How the adapter shows conversations, where that is not as its base does: a chat template.
    pub chat_template: Option<String>,
    /// SHA-256 over all files, hexadecimal.
    pub digest: String,
}

impl LoadedAdapter {
    /// The same, unless only merging can make use of it.
    ///
    /// # Errors
    /// When it has rows of tokens, which the base's tokenizer does not know.
    pub fn servable(self) -> Result<Self, AdapterError> {
        if self.tokens.is_some() { Err(tokens::refusal()) } else { Ok(self) }
    }
}

/// Reads and checks a PEFT directory.
pub fn load(dir: &Path, model: &ModelConfig, dtype: DType, device: &Device) -> Result<LoadedAdapter, AdapterError> {
    load_files(AdapterFiles::open(dir, None, true)?, model, dtype, device)
}

/// The same of an adapter that is part of the program.
pub fn load_built_in(
    files: BuiltIn,
    model: &ModelConfig,
    dtype: DType,
    device: &Device,
) -> Result<LoadedAdapter, AdapterError> {
    load_files(AdapterFiles::built_in(files), model, dtype, device)
}

fn load_files(
    files: AdapterFiles,
    model: &ModelConfig,
    dtype: DType,
    device: &Device,
) -> Result<LoadedAdapter, AdapterError> {
    let checked = Checked::open(files, model)?;
    let chat_template = checked.template.clone();
    let snapshot = checked.read()?;
    let weights = snapshot.weights((dtype, device), largest(dtype))?;
    let tokens = snapshot.token_rows((dtype, device), largest(dtype))?;
    let digest = with_template(snapshot.digest, chat_template.as_deref());
    Ok(LoadedAdapter { config: snapshot.content.config(), weights, tokens, chat_template, digest })
}

fn invalid(reason: impl Into<String>) -> AdapterError {
    AdapterError::Invalid(reason.into())
}

/// One of the tensors of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factor {
    A,
    B,
    /// DoRA's lengths of rows.
    Magnitude,
}

impl Factor {
    /// What PEFT puts behind the path of the layer.
    fn suffix(self) -> &'static str {
        match self {
            Self::A => "lora_A.weight",
            Self::B => "lora_B.weight",
            Self::Magnitude => "lora_magnitude_vector",
        }
    }
}

const PREFIX: &str = "base_model.model.model.layers.";

/// PEFT's name of a tensor.
pub fn tensor_name(site: Site, factor: Factor) -> String {
    format!("{PREFIX}{}.{}.{}", site.layer, site.module.path(), factor.suffix())
}

/// The reverse of [`tensor_name`]; also reads names that kept the adapter name `default`.
pub fn parse_tensor_name(name: &str) -> Option<(Site, Factor)> {
    let (layer, rest) = name.strip_prefix(PREFIX)?.split_once('.')?;
    let (path, factor) = rest.split_once(".lora_")?;
    let factor = match factor {
        "A.weight" | "A.default.weight" => Factor::A,
        "B.weight" | "B.default.weight" => Factor::B,
        "magnitude_vector" | "magnitude_vector.weight" | "magnitude_vector.default.weight" => Factor::Magnitude,
        _ => return None,
    };
    let module = TargetModule::ALL.into_iter().find(|module| module.path() == path)?;
    let number: usize = layer.parse().ok()?;
    (number.to_string() == layer).then_some((Site { layer: number, module }, factor))
}

/// Where the tensors of a site lie in the file, and the factor on their product.
struct Plan {
    a: Declared,
    b: Declared,
    magnitude: Option<Declared>,
    scale: f64,
}

/// What the files hold, and where.
enum Content {
    Lora { config: PeftConfig, plans: BTreeMap<Site, Plan>, tokens: Option<tokens::Plan> },
    Prompt(Declared),
}

impl Content {
    fn config(&self) -> Option<PeftConfig> {
        match self {
            Self::Lora { config, .. } => Some(config.clone()),
            Self::Prompt(_) => None,
        }
    }

    /// Memory that its tensors will take, packed or of this type.
    fn bytes(&self, dtype: DType, packing: Option<Packing>) -> usize {
        let elements = |tensor: &Declared| tensor.bytes.len() / tensor.stored.size();
        let of_pair = |plan: &Plan| {
            let magnitude = plan.magnitude.as_ref().map_or(0, elements);
            match packing {
                Some(packing) => packing.bytes(&plan.a.shape, &plan.b.shape) + magnitude * size_of::<f32>(),
                None => (elements(&plan.a) + elements(&plan.b) + magnitude) * dtype.size_in_bytes(),
            }
        };
        match self {
            Self::Lora { plans, .. } => plans.values().map(of_pair).sum(),
            Self::Prompt(table) => elements(table) * dtype.size_in_bytes(),
        }
    }
}

/// Settings and header are right for the model; no tensor was read.
pub(super) struct Checked {
    content: Content,
    layers: usize,
    /// Largest rank of any site; 0 of a soft prompt.
    pub(super) rank: usize,
    pub(super) template: Option<String>,
    head: Vec<u8>,
    config_bytes: Vec<u8>,
    files: AdapterFiles,
}

impl Checked {
    pub(super) fn open(mut files: AdapterFiles, model: &ModelConfig) -> Result<Self, AdapterError> {
        let config_bytes = files.config.read(files.config.len as usize)?;
        files.config.check_unchanged()?;
        let settings = config::read(&config_bytes)?;
        let mut header = || {
            read_header(&mut files.weights).map_err(|error| match error {
                AdapterError::Invalid(reason) => invalid(format!("{WEIGHTS_FILE}: {reason}")),
                other => other,
            })
        };
        let (head, content, rank) = if prompt::is_meant(&settings) {
            let shape = prompt::shape(&settings, model)?;
            let (head, declared) = header()?;
            (head, Content::Prompt(prompt::find(declared, &shape)?), 0)
        } else {
            let (config, specs) = resolve(&settings, model.num_layers)?;
            let tokens = tokens::Wanted::of(&settings, model)?;
            let (head, mut declared) = header()?;
            let rank = specs.values().map(|spec| spec.rank).max().unwrap_or(config.rank);
            let tokens = tokens.map(|wanted| wanted.find(&mut declared, model)).transpose()?;
            (head, Content::Lora { plans: plan(declared, &specs, config.use_dora, model)?, config, tokens }, rank)
        };
        let template = files.template()?;
        Ok(Self { content, layers: model.num_layers, rank, template, head, config_bytes, files })
    }

    /// Fails for what only merging can make use of.
    pub(super) fn check_servable(&self) -> Result<(), AdapterError> {
        match &self.content {
            Content::Lora { tokens: Some(_), .. } => Err(tokens::refusal()),
            _ => Ok(()),
        }
    }

    /// Memory the adapter will take, packed or as tensors of this type.
    pub(super) fn bytes(&self, dtype: DType, packing: Option<Packing>) -> u64 {
        self.content.bytes(dtype, packing) as u64
    }

    /// Reads the rest into memory: the file may then change or vanish.
    pub(super) fn read(mut self) -> Result<Snapshot, AdapterError> {
        let data = self.files.weights.read(self.files.weights.len as usize - self.head.len())?;
        self.files.weights.check_unchanged()?;
        let digest = digest(&self.config_bytes, &self.head, &data);
        Ok(Snapshot { content: self.content, layers: self.layers, data, digest })
    }
}

/// The length field and the header as they stand in the file, and what the header declares.
fn read_header(file: &mut OpenFile) -> Result<(Vec<u8>, BTreeMap<String, Declared>), AdapterError> {
    const LENGTH_BYTES: u64 = 8;
    let behind = file.len.checked_sub(LENGTH_BYTES).ok_or_else(|| invalid("is too short for a safetensors file"))?;
    let mut head = file.read(LENGTH_BYTES as usize)?;
    let length = u64::from_le_bytes(std::array::from_fn(|i| head[i]));
    if length > behind || length > header::MAX_HEADER_BYTES {
        let most = behind.min(header::MAX_HEADER_BYTES);
        return Err(invalid(format!("is not a safetensors file: header of {length} bytes, at most {most} possible")));
    }
    let json = file.read(length as usize)?;
    let declared = header::parse(&json, behind - length).map_err(invalid)?;
    head.extend(json);
    Ok((head, declared))
}

/// Matches what the file declares with what the settings and the model demand; neither may have more.
fn plan(
    declared: BTreeMap<String, Declared>,
    specs: &BTreeMap<Site, SiteSpec>,
    use_dora: bool,
    model: &ModelConfig,
) -> Result<BTreeMap<Site, Plan>, AdapterError> {
    let mut found = BTreeMap::new();
    for (name, tensor) in declared {
        let key = parse_tensor_name(&name).ok_or_else(|| invalid(format!("tensor `{}` is not known", shown(&name))))?;
        if found.insert(key, tensor).is_some() {
            return Err(invalid(format!("tensor `{}` occurs twice", shown(&name))));
        }
    }
    let mut plans = BTreeMap::new();
    for (site, spec) in specs {
        let (output, input) = module_shape(model, site.module);
        let a = take(&mut found, (*site, Factor::A), &[spec.rank, input])?;
        let b = take(&mut found, (*site, Factor::B), &[output, spec.rank])?;
        let magnitude = use_dora.then(|| take(&mut found, (*site, Factor::Magnitude), &[output])).transpose()?;
        plans.insert(*site, Plan { a, b, magnitude, scale: spec.scale });
    }
    match found.keys().next() {
        None => Ok(plans),
        Some((site, factor)) => {
            let name = tensor_name(*site, *factor);
            Err(invalid(format!("tensor `{name}` is not selected by the settings, or the model has no such layer")))
        }
    }
}

fn take(
    found: &mut BTreeMap<(Site, Factor), Declared>,
    key: (Site, Factor),
    shape: &[usize],
) -> Result<Declared, AdapterError> {
    let name = tensor_name(key.0, key.1);
    let tensor = found.remove(&key).ok_or_else(|| invalid(format!("tensor `{name}` is missing")))?;
    if tensor.shape != shape {
        return Err(invalid(format!("tensor `{name}` has shape {:?}, expected {shape:?}", tensor.shape)));
    }
    Ok(tensor)
}

fn digest(config: &[u8], head: &[u8], data: &[u8]) -> String {
    let mut hash = Sha256::new();
    // The length keeps bytes from moving between the two files unnoticed.
    hash.update((config.len() as u64).to_le_bytes());
    for part in [config, head, data] {
        hash.update(part);
    }
    hexadecimal(hash)
}

/// The digest of the other files and the chat template; without one, of the other files alone.
pub(super) fn with_template(digest: String, template: Option<&str>) -> String {
    let Some(template) = template else { return digest };
    hexadecimal(Sha256::new().chain_update(digest).chain_update(template))
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The largest value of a type.
fn largest(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::MAX.to_f32(),
        DType::BF16 => bf16::MAX.to_f32(),
        _ => f32::MAX,
    }
}

/// All bytes of a checked adapter's weights, in memory.
pub(super) struct Snapshot {
    content: Content,
    layers: usize,
    data: Vec<u8>,
    /// Of settings and weights.
    pub(super) digest: String,
}

impl Snapshot {
    /// The adapter for serving beside this base, packed if need be.
    pub(super) fn serve(
        &self,
        (dtype, device): (DType, &Device),
        packing: Option<Packing>,
        base: Option<&Checkpoint<'_>>,
    ) -> Result<AdapterWeights, AdapterError> {
        let largest = largest(dtype).min(packing.map_or(f32::MAX, Packing::largest));
        let weights = self.weights((dtype, device), largest)?;
        let dora = matches!(&self.content, Content::Lora { config, .. } if config.use_dora);
        let weights = match (dora, base) {
            (false, _) => weights,
            (true, Some(base)) => weights.beside(base).map_err(|error| invalid(error.to_string()))?,
            (true, None) => return Err(invalid("`use_dora` needs the base weights, which are not at hand")),
        };
        Ok(match packing {
            Some(packing) => weights.into_packed(packing)?,
            None => weights,
        })
    }

    /// The tensors; refuses values that are not finite or larger than `largest`.
    fn weights(&self, (dtype, device): (DType, &Device), largest: f32) -> Result<AdapterWeights, AdapterError> {
        let tensor = |declared: &Declared, name: &str| self.tensor((declared, name), (dtype, device), largest);
        let mut weights = AdapterWeights::empty(self.layers);
        let plans = match &self.content {
            Content::Lora { plans, .. } => plans,
            Content::Prompt(table) => return Ok(weights.with_prompt(tensor(table, PROMPT_TENSOR)?)),
        };
        for (site, plan) in plans {
            let tensor = |declared: &Declared, factor| tensor(declared, &tensor_name(*site, factor));
            let magnitude = plan.magnitude.as_ref().map(|declared| tensor(declared, Factor::Magnitude)).transpose()?;
            let (a, b) = (tensor(&plan.a, Factor::A)?, tensor(&plan.b, Factor::B)?);
            weights.insert(*site, LoraPair { a, b, scale: plan.scale, magnitude: magnitude.map(Magnitude::Wanted) });
        }
        Ok(weights)
    }

    /// The rows of tokens, checked likewise.
    fn token_rows(&self, target: (DType, &Device), largest: f32) -> Result<Option<TokenRows>, AdapterError> {
        let Content::Lora { tokens: Some(plan), .. } = &self.content else { return Ok(None) };
        let tensor = |declared, table: Table| self.tensor((declared, table.rows_name()), target, largest);
        let embedding = tensor(&plan.embedding, Table::Embedding)?;
        let head = plan.head.as_ref().map(|declared| tensor(declared, Table::Head)).transpose()?;
        Ok(Some(TokenRows { ids: plan.ids.clone(), embedding, head }))
    }

    fn tensor(
        &self,
        (declared, name): (&Declared, &str),
        (dtype, device): (DType, &Device),
        largest: f32,
    ) -> Result<Tensor, AdapterError> {
        let values = self.values(declared, largest).ok_or_else(|| {
            invalid(format!("tensor `{name}` has a value that is NaN, infinite or larger than {largest}"))
        })?;
        Ok(Tensor::from_vec(values, declared.shape.as_slice(), device)?.to_dtype(dtype)?)
    }

    fn values(&self, tensor: &Declared, largest: f32) -> Option<Vec<f32>> {
        let bytes = &self.data[tensor.bytes.clone()];
        let values: Vec<f32> = match tensor.stored {
            Stored::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Stored::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Stored::BF16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        };
        // Without an early end: all of them are looked at, several at a time.
        values.iter().fold(true, |fine, value| fine & (value.abs() <= largest)).then_some(values)
    }
}
