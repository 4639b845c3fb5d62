//! `callsmith bench make-model`: a model directory of any shape with random weights, for measuring without downloading.
//!
//! The directory appears at the end and as a whole. Knows no server.

use super::BenchError;
use super::random_weights::{self, RandomTensor, normal};
use crate::adapter::peft::{self, PeftConfig};
use crate::chat::template::PLAIN_TEMPLATE;
use crate::chat::tokenizer::{self, ChatTokenizer};
use crate::cli::{DtypeName, EncodingName, FamilyName, MakeModelArgs};
use crate::model::decoder::module_shape;
use crate::model::gguf::{self, Contents, Encoding};
use crate::model::{AdapterWeights, Checkpoint, Family, LoraPair, ModelConfig, RopeScaling, Site, TargetModule};
use crate::staging::parent;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::{Dtype, View};
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// Vocabularies are padded to a multiple of this, as those of published models are.
const VOCABULARY_UNIT: usize = 128;

/// Writes the directory and says what is in it.
pub(super) fn run(args: &MakeModelArgs) -> Result<(), BenchError> {
    let config = config(args)?;
    let staging = Staging::beside(&args.dir)?;
    let dir = staging.0.path();
    copy_tokenizer(&args.tokenizer, dir)?;
    write_weights(&dir.join("model.safetensors"), random_weights::tensors(&config, args.seed), args.dtype)?;
    for number in 1..=args.adapters {
        write_adapter(&dir.join(format!("adapters/a{number}")), &config, args, number)?;
    }
    let mut json = config.to_json();
    json["torch_dtype"] = json!(storage(args.dtype).1);
    write(&dir.join("config.json"), format!("{json:#}\n").as_bytes())?;
    staging.publish(&args.dir)?;
    if let Some(path) = &args.gguf {
        write_gguf(path, args)?;
    }
    let (parameters, vocabulary) = (config.parameters(), config.vocab_size);
    let bytes = parameters * storage(args.dtype).0.bitsize() / 8;
    super::print(&format!(
        "wrote {}: {:.1} M parameters, {:.1} MB, vocabulary {vocabulary}, adapters: {}\n",
        args.dir.display(),
        parameters as f64 / 1e6,
        bytes as f64 / 1e6,
        args.adapters,
    ));
    Ok(())
}

/// The same weights in one file.
fn write_gguf(path: &Path, args: &MakeModelArgs) -> Result<(), BenchError> {
    let checkpoint = Checkpoint::open(&args.dir)?;
    let tokenizer = tokenizer::gguf::metadata_of(&args.dir, checkpoint.config().vocab_size)?;
    let name = args.dir.file_name().unwrap_or_default().to_string_lossy();
    let encoding = match args.gguf_encoding {
        EncodingName::F32 => Encoding::F32,
        EncodingName::F16 => Encoding::F16,
        EncodingName::Bf16 => Encoding::Bf16,
        EncodingName::Q8 => Encoding::Q8_0,
        EncodingName::Q4 => Encoding::Q4K,
    };
    let contents = Contents { config: checkpoint.config(), name: &name, encoding, tokenizer: &tokenizer };
    Ok(gguf::write(path, &contents, &mut |tensor| checkpoint.tensor(tensor))?)
}

/// The shape, refused before anything is written if no decoder could have it.
fn config(args: &MakeModelArgs) -> Result<ModelConfig, BenchError> {
    let vocab_size = ChatTokenizer::vocabulary_size(&args.tokenizer)?.next_multiple_of(VOCABULARY_UNIT);
    let eos_token_ids = ChatTokenizer::load(&args.tokenizer, vocab_size)?.eos_token_ids().to_vec();
    let config = ModelConfig {
        family: match args.family {
            FamilyName::Llama => Family::Llama,
            FamilyName::Mistral => Family::Mistral,
            FamilyName::Qwen2 => Family::Qwen2,
            FamilyName::Qwen3 => Family::Qwen3,
        },
        vocab_size,
        hidden_size: args.hidden as usize,
        intermediate_size: args.intermediate as usize,
        num_layers: args.layers as usize,
        num_heads: args.heads as usize,
        num_kv_heads: args.kv_heads as usize,
        head_dim: args.head_dim.unwrap_or(args.hidden / args.heads) as usize,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: args.context as usize,
        sliding_window: None,
        tie_word_embeddings: !args.untied,
        eos_token_ids,
    };
    Ok(ModelConfig::from_json(&config.to_json())?)
}

fn copy_tokenizer(from: &Path, to: &Path) -> Result<(), BenchError> {
    for name in tokenizer::FILES {
        let (source, copy) = (from.join(name), to.join(name));
        match fs::read(&source) {
            Ok(bytes) => write(&copy, &bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(BenchError::io(&source)(error)),
        }
    }
    let [template, ..] = ChatTokenizer::prompt_files(from)?;
    match template {
        Some(_) => Ok(()),
        None => write(&to.join("chat_template.jinja"), PLAIN_TEMPLATE.as_bytes()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BenchError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(BenchError::io(path))
}

/// The element type in files, and its name in `config.json`.
fn storage(dtype: DtypeName) -> (Dtype, &'static str) {
    match dtype {
        DtypeName::F32 => (Dtype::F32, "float32"),
        DtypeName::F16 => (Dtype::F16, "float16"),
        DtypeName::Bf16 => (Dtype::BF16, "bfloat16"),
    }
}

/// A tensor whose bytes exist only while they are written.
struct Streamed<'a> {
    tensor: RandomTensor,
    dtype: DtypeName,
    bar: &'a ProgressBar,
}

impl View for Streamed<'_> {
    fn dtype(&self) -> Dtype {
        storage(self.dtype).0
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.tensor.values();
        let bytes = match self.dtype {
            DtypeName::F32 => values.into_iter().flat_map(f32::to_le_bytes).collect(),
            DtypeName::F16 => values.into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
            DtypeName::Bf16 => values.into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        };
        self.bar.inc(self.data_len() as u64);
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.len() * self.dtype().bitsize() / 8
    }
}

fn write_weights(path: &Path, tensors: Vec<RandomTensor>, dtype: DtypeName) -> Result<(), BenchError> {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("weights {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let views = tensors.into_iter().map(|tensor| (tensor.name.clone(), Streamed { tensor, dtype, bar: &bar }));
    let views: Vec<_> = views.collect();
    bar.set_length(views.iter().map(|(_, view)| view.data_len() as u64).sum());
    // Readers of the Hugging Face family refuse files without this entry.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let written = safetensors::serialize_to_file(views, Some(metadata), path).map_err(std::io::Error::other);
    bar.finish_and_clear();
    // The library makes files that only their owner can read.
    let settled = written.and_then(|()| {
        fs::set_permissions(path, Permissions::from_mode(0o644))?;
        File::open(path)?.sync_all()
    });
    settled.map_err(BenchError::io(path))
}

/// A random adapter on every linear layer, with the scale 2 that most recipes use.
fn write_adapter(dir: &Path, config: &ModelConfig, args: &MakeModelArgs, number: u32) -> Result<(), BenchError> {
    let rank = args.rank as usize;
    // Streams of the seed that no tensor of the model has.
    let mut index = u64::from(number) << 20;
    let mut random = |shape: (usize, usize), deviation: f32| {
        index += 1;
        let values = normal(shape.0 * shape.1, deviation, (args.seed, index));
        Tensor::from_vec(values, shape, &Device::Cpu)
    };
    let mut weights = AdapterWeights::empty(config.num_layers);
    for layer in 0..config.num_layers {
        for module in TargetModule::ALL {
            let (out, input) = module_shape(config, module);
            let a = random((rank, input), (input as f32).powf(-0.5)).map_err(crate::adapter::AdapterError::from)?;
            let b = random((out, rank), 0.01).map_err(crate::adapter::AdapterError::from)?;
            weights.insert(Site { layer, module }, LoraPair { a, b, scale: 2.0, magnitude: None });
        }
    }
    let settings = PeftConfig {
        rank,
        alpha: 2.0 * rank as f64,
        use_rslora: false,
        use_dora: false,
        dropout: 0.0,
        target_modules: TargetModule::ALL.to_vec(),
        base_model: None,
    };
    Ok(peft::save(dir, &settings, &weights)?)
}

/// A directory beside the wanted one; what it holds vanishes unless it is published.
struct Staging(TempDir);

impl Staging {
    fn beside(dir: &Path) -> Result<Self, BenchError> {
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            let message = format!("{}: is there and not empty; remove it or name another", dir.display());
            return Err(BenchError::Usage(message));
        }
        let no_name = || BenchError::Usage(format!("{}: a directory needs a name", dir.display()));
        let name = dir.file_name().ok_or_else(no_name)?.to_string_lossy();
        let parent = parent(dir);
        fs::create_dir_all(parent).map_err(BenchError::io(parent))?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{name}.tmp-");
        let staging = builder.prefix(&prefix).permissions(Permissions::from_mode(0o755)).tempdir_in(parent);
        Ok(Self(staging.map_err(BenchError::io(parent))?))
    }

    fn publish(self, dir: &Path) -> Result<(), BenchError> {
        let published = File::open(self.0.path()).and_then(|opened| {
            opened.sync_all()?;
            fs::rename(self.0.path(), dir)?;
            File::open(parent(dir))?.sync_all()
        });
        published.map_err(BenchError::io(dir))?;
        // It is no longer there to be removed.
        drop(self.0.keep());
        Ok(())
    }
}
