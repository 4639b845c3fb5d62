//! Adapters for tests: a tiny decoder shape, weights with known values, and directories written by hand, right or wrong.

use super::peft::{PeftConfig, save};
use crate::model::config::RopeScaling;
use crate::model::{AdapterWeights, LoraPair, ModelConfig, Site, TargetModule};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::path::Path;

/// Every width differs from every other, so that a mix-up shows.
pub(super) fn model() -> ModelConfig {
    ModelConfig {
        vocab_size: 16,
        hidden_size: 8,
        intermediate_size: 10,
        num_layers: 2,
        num_heads: 2,
        num_kv_heads: 1,
        head_dim: 6,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_position_embeddings: 32,
        sliding_window: None,
        tie_word_embeddings: true,
        family: crate::model::Family::Llama,
        eos_token_ids: vec![0],
    }
}

/// Width of a module's input and output in [`model`].
pub(super) fn widths(module: TargetModule) -> (usize, usize) {
    match module {
        TargetModule::Q => (8, 12),
        TargetModule::K | TargetModule::V => (8, 6),
        TargetModule::O => (12, 8),
        TargetModule::Gate | TargetModule::Up => (8, 10),
        TargetModule::Down => (10, 8),
    }
}

pub(super) fn config(targets: &[TargetModule]) -> PeftConfig {
    PeftConfig {
        rank: 2,
        alpha: 6.0,
        use_rslora: false,
        use_dora: false,
        dropout: 0.25,
        target_modules: targets.to_vec(),
        base_model: Some("tiny".into()),
    }
}

/// Weights whose every value is `start`, `start + 1`, … in order.
pub(super) fn weights(config: &PeftConfig, start: f32) -> AdapterWeights {
    let mut weights = AdapterWeights::empty(2);
    let counted = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns).map(|i| start + i as f32).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    };
    for layer in 0..2 {
        for module in &config.target_modules {
            let (input, output) = widths(*module);
            let pair = LoraPair {
                a: counted(config.rank, input),
                b: counted(output, config.rank),
                scale: config.scale(),
                magnitude: None,
            };
            weights.insert(Site { layer, module: *module }, pair);
        }
    }
    weights
}

/// Saves a small adapter on q and down whose values begin with `start`.
pub(super) fn write_adapter(dir: &Path, start: f32) {
    let config = config(&[TargetModule::Q, TargetModule::Down]);
    save(dir, &config, &weights(&config, start)).unwrap();
}

/// The first value of layer 0's A on q, which [`write_adapter`] made `start`.
pub(super) fn first_value(weights: &AdapterWeights) -> f32 {
    let pair = weights.get(Site { layer: 0, module: TargetModule::Q }).unwrap();
    pair.a.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
}

/// One tensor of a hand-written file.
#[derive(Clone)]
pub(super) struct RawTensor {
    pub(super) name: String,
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

/// A directory written without any check.
#[derive(Clone)]
pub(super) struct Raw {
    pub(super) config: Value,
    pub(super) tensors: Vec<RawTensor>,
}

impl Raw {
    /// A valid rank-2 adapter on the given modules of both layers; every value is 0.5.
    pub(super) fn new(targets: &[TargetModule]) -> Self {
        let names: Vec<&str> = targets.iter().map(|module| module.peft_name()).collect();
        let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": names, "bias": "none"});
        let mut raw = Self { config, tensors: Vec::new() };
        for layer in 0..2 {
            for module in targets {
                raw.push_site(layer, *module, 2);
            }
        }
        raw
    }

    pub(super) fn push_site(&mut self, layer: usize, module: TargetModule, rank: usize) {
        let (input, output) = widths(module);
        let path = format!("base_model.model.model.layers.{layer}.{}", module.path());
        self.push(&format!("{path}.lora_A.weight"), &[rank, input]);
        self.push(&format!("{path}.lora_B.weight"), &[output, rank]);
    }

    pub(super) fn push(&mut self, name: &str, shape: &[usize]) {
        let bytes = 0.5_f32.to_le_bytes().repeat(shape.iter().product());
        self.tensors.push(RawTensor { name: name.into(), dtype: "F32", shape: shape.to_vec(), bytes });
    }

    pub(super) fn set(&mut self, field: &str, value: Value) {
        self.config[field] = value;
    }

    /// The header's JSON.
    pub(super) fn header(&self) -> String {
        let mut end = 0;
        let entries = self.tensors.iter().map(|tensor| {
            let start = end;
            end += tensor.bytes.len();
            let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]});
            format!("{}:{entry}", json!(tensor.name))
        });
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    }

    pub(super) fn data(&self) -> Vec<u8> {
        self.tensors.iter().flat_map(|tensor| tensor.bytes.clone()).collect()
    }

    pub(super) fn write(&self, dir: &Path) {
        write_files(dir, self.config.to_string().as_bytes(), &file(&self.header(), &self.data()));
    }
}

/// A safetensors file with this header and these bytes behind it.
pub(super) fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

pub(super) fn write_files(dir: &Path, config: &[u8], weights: &[u8]) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("adapter_config.json"), config).unwrap();
    std::fs::write(dir.join("adapter_model.safetensors"), weights).unwrap();
}

/// Makes a named pipe, which blocks whoever simply opens it.
pub(super) fn make_pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode};
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}
