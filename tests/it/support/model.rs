//! A model directory with random weights and a small byte-level tokenizer, and random adapters for it.

use callsmith::adapter::peft::{self, PeftConfig};
use callsmith::model::{AdapterWeights, LoraPair, Site, TargetModule, decoder, weights};
use candle_core::{Device, Tensor};
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

const CONTROL: [&str; 6] = ["<|end|>", "<|system|>", "<|user|>", "<|functions|>", "<|assistant|>", "<|tool|>"];
const HIDDEN: usize = 32;
const LAYERS: usize = 2;
const CONTEXT: usize = 4096;

/// What the tokenizer's merges are learnt from: the shapes of prompts and calls.
const CORPUS: [&str; 4] = [
    "{\"tool_uses\":[{\"recipient_name\":\"functions.get_weather\",\"parameters\":{\"city\":\"Paris\",\"unit\":\"celsius\"}}]}",
    "namespace functions { // does the thing\ntype get_weather = (_: { city: string, unit?: \"celsius\" | \"fahrenheit\", }) => any; }",
    "{\"name\":\"value\",\"number\":12,\"flag\":true,\"other\":false,\"list\":[1,2,3],\"none\":null}",
    "How warm is it in Paris? Tell me something about the weather, please.",
];

/// Writes the model into `dir` and returns it.
pub(crate) fn tiny_model(dir: &Path) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let tokenizer = tokenizer();
    std::fs::write(dir.join("tokenizer.json"), tokenizer).unwrap();
    std::fs::write(dir.join("tokenizer_config.json"), json!({"eos_token": "<|end|>"}).to_string()).unwrap();
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/embedded/chat_template.jinja");
    std::fs::copy(template, dir.join("chat_template.jinja")).unwrap();
    let end = Tokenizer::from_bytes(tokenizer).unwrap().token_to_id("<|end|>").unwrap();
    // Wider than the tokenizer, as padded checkpoints are: ids without a token must never come out.
    let width = Tokenizer::from_bytes(tokenizer).unwrap().get_vocab_size(true).next_multiple_of(64) + 64;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": width, "hidden_size": HIDDEN,
        "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": HIDDEN / 4, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT, "tie_word_embeddings": false, "torch_dtype": "float32", "eos_token_id": end,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    write_weights(dir);
    dir.to_owned()
}

fn write_weights(dir: &Path) {
    let config = weights::load_config(dir).unwrap();
    let mut random = Random(7);
    let tensors: HashMap<String, Tensor> = decoder::parameter_shapes(&config)
        .into_iter()
        .map(|(name, shape)| {
            let tensor = if name.contains("norm") {
                Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
            } else {
                random.tensor(&shape, 0.2)
            };
            (name, tensor)
        })
        .collect();
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
}

/// A `tokenizer.json`: all bytes, some merges, the control tokens of the project's template.
fn tokenizer() -> &'static [u8] {
    static JSON: OnceLock<Vec<u8>> = OnceLock::new();
    JSON.get_or_init(|| {
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(360)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(CONTROL.iter().map(|&text| AddedToken::from(text, true)).collect())
            .build();
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        tokenizer.train(&mut TrainerWrapper::from(trainer), CORPUS.iter()).unwrap();
        tokenizer.to_string(false).unwrap().into_bytes()
    })
}

/// Writes a PEFT directory whose weights depend on `seed` and are large enough to change the answers.
pub(crate) fn random_adapter(dir: &Path, seed: u64) {
    let mut random = Random(seed);
    let mut adapter = AdapterWeights::empty(LAYERS);
    for layer in 0..LAYERS {
        for (module, out) in [(TargetModule::Q, HIDDEN), (TargetModule::V, HIDDEN / 2)] {
            let (a, b) = (random.tensor(&[4, HIDDEN], 1.0), random.tensor(&[out, 4], 1.0));
            adapter.insert(Site { layer, module }, LoraPair { a, b, scale: 2.0, magnitude: None });
        }
    }
    let config = PeftConfig {
        rank: 4,
        alpha: 8.0,
        use_rslora: false,
        use_dora: false,
        dropout: 0.0,
        target_modules: vec![TargetModule::Q, TargetModule::V],
        base_model: None,
    };
    peft::save(dir, &config, &adapter).unwrap();
}

/// Writes a soft prompt as a PEFT directory, with values that depend on `seed` and are as large as embeddings.
pub(crate) fn random_prompt(dir: &Path, virtual_tokens: usize, seed: u64) {
    peft::save_prompt(dir, &Random(seed).tensor(&[virtual_tokens, HIDDEN], 1.0), None, None).unwrap();
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform values in ±`scale`.
    fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let unit = |bits: u64| (bits >> 40) as f32 / (1u64 << 24) as f32;
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (2.0 * unit(self.next()) - 1.0) * scale).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }
}
