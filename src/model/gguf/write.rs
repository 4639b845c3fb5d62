//! A model → a GGUF file that llama.cpp loads, one tensor in memory at a time.

use super::super::{Family, ModelConfig, ModelError, RopeScaling, decoder, ops};
use super::{ROPE_FACTORS, file_name, interleaved_heads, metadata};
use crate::gguf::{self, Metadata, TensorPlan};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// How a file's matrices are stored; vectors are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    F32,
    F16,
    Bf16,
    /// Blocks of 32 values in 34 bytes.
    Q8_0,
    /// Blocks of 256 values in 144 bytes.
    Q4K,
}

impl Encoding {
    /// The encoding of a matrix with rows of `width` values: the next finer one where they are not whole blocks.
    pub(in crate::model) fn of_rows(self, width: usize) -> GgmlDType {
        let wanted = match self {
            Self::F32 => &[GgmlDType::F32][..],
            Self::F16 => &[GgmlDType::F16],
            Self::Bf16 => &[GgmlDType::BF16],
            Self::Q8_0 => &[GgmlDType::Q8_0, GgmlDType::F16],
            Self::Q4K => &[GgmlDType::Q4K, GgmlDType::Q8_0, GgmlDType::F16],
        };
        let fits = |encoding: &&GgmlDType| width.is_multiple_of(encoding.block_size());
        wanted.iter().find(fits).copied().unwrap_or(GgmlDType::F16)
    }

    /// llama.cpp's number for files that are mostly of this encoding.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
            Self::Q8_0 => 7,
            Self::Q4K => 14,
        }
    }
}

/// What a file says beside its tensors' values.
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    pub config: &'a ModelConfig,
    /// Shown by whoever lists the file.
    pub name: &'a str,
    pub encoding: Encoding,
    /// Entries about the tokenizer (`chat::tokenizer::gguf` makes them).
    pub tokenizer: &'a Metadata,
}

/// Writes a file, atomically. `values` gives each tensor by its Hugging Face name when its turn comes.
///
/// # Errors
/// When GGUF cannot say what the model is, a tensor is missing or has another shape, or the file cannot be written.
pub fn write(
    path: &Path,
    contents: &Contents<'_>,
    values: &mut dyn FnMut(&str) -> Result<Tensor, ModelError>,
) -> Result<(), ModelError> {
    let config = contents.config;
    let extra = rope_factors(config)?;
    let parameters = decoder::parameter_shapes(config);
    let plan = |(name, shape): &(String, Vec<usize>)| {
        let encoding = match shape.as_slice() {
            [_, width] => contents.encoding.of_rows(*width),
            _ => GgmlDType::F32,
        };
        TensorPlan { name: file_name(name), encoding, shape: shape.clone() }
    };
    let mut plans: Vec<TensorPlan> = parameters.iter().map(plan).collect();
    plans.extend(extra.as_ref().map(|factors| TensorPlan {
        name: ROPE_FACTORS.to_owned(),
        encoding: GgmlDType::F32,
        shape: vec![factors.elem_count()],
    }));
    let mut names = parameters.iter().map(|(name, _)| name);
    gguf::write(path, &entries(contents), &plans, &mut |plan| match (names.next(), &extra) {
        (Some(name), _) => encode(name, plan, config, &values(name)?),
        (None, Some(factors)) => encode(ROPE_FACTORS, plan, config, factors),
        (None, None) => Err(ModelError::MissingTensor(plan.name.clone())),
    })
    .map_err(|error| located(path, error))
}

/// Errors of the file are told with its path; those of tensors name the tensor.
fn located(path: &Path, error: ModelError) -> ModelError {
    match error {
        ModelError::Config(message) => ModelError::File { path: path.display().to_string(), message },
        other => other,
    }
}

fn entries(contents: &Contents<'_>) -> Metadata {
    let mut all = metadata::describe(contents.config);
    all.text("general.type", "model");
    all.text("general.name", contents.name);
    all.u32("general.file_type", contents.encoding.file_type());
    all.u32("general.quantization_version", 2);
    all.u32("general.alignment", 32);
    all.append(contents.tokenizer);
    all
}

/// The divisors of Llama 3's rotary frequencies, if the model has any.
fn rope_factors(config: &ModelConfig) -> Result<Option<Tensor>, ModelError> {
    match (&config.rope_scaling, config.family) {
        (RopeScaling::Llama3 { .. }, Family::Llama | Family::Mistral) => {
            let factors: Vec<f32> = ops::rope_divisors(config).into_iter().map(|factor| factor as f32).collect();
            Ok(Some(Tensor::new(factors, &Device::Cpu)?))
        }
        (RopeScaling::Llama3 { .. }, family) => {
            let message = format!("GGUF has no llama3 rope_scaling for {}", family.architecture());
            Err(ModelError::Config(message))
        }
        _ => Ok(None),
    }
}

/// The bytes of a tensor in the file's order and encoding.
fn encode(name: &str, plan: &TensorPlan, config: &ModelConfig, tensor: &Tensor) -> Result<Vec<u8>, ModelError> {
    super::super::weights::expect_shape(name, tensor.dims(), &plan.shape)?;
    let mut tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    if let Some(heads) = interleaved_heads(config, name) {
        tensor = interleaved(&tensor, heads)?;
    }
    Ok(QTensor::quantize(&tensor.contiguous()?, plan.encoding)?.data()?.into_owned())
}

/// The rows with the halves of each head as neighbouring pairs.
fn interleaved(tensor: &Tensor, heads: usize) -> Result<Tensor, ModelError> {
    let (rows, width) = tensor.dims2()?;
    let halves = tensor.reshape((heads, 2, rows / heads / 2, width))?;
    Ok(halves.transpose(1, 2)?.contiguous()?.reshape((rows, width))?)
}
