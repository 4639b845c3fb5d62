//! A slow, plain decoder in f64, written from the papers and the Hugging Face layout alone: the yardstick.

use crate::model::{Family, ModelConfig, RopeScaling};
use std::collections::HashMap;

/// One vector for each head.
type Heads = Vec<Vec<f64>>;

pub(super) type Weights = HashMap<String, (Vec<usize>, Vec<f64>)>;

/// Row vector times the transpose of a `[out, in]` matrix.
fn linear(weights: &Weights, name: &str, x: &[f64]) -> Vec<f64> {
    let (shape, w) = &weights[&format!("{name}.weight")];
    let mut y: Vec<f64> =
        (0..shape[0]).map(|o| (0..shape[1]).map(|i| w[o * shape[1] + i] * x[i]).sum::<f64>()).collect();
    if let Some((_, bias)) = weights.get(&format!("{name}.bias")) {
        y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
    y
}

fn rms_norm(weights: &Weights, name: &str, x: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let w = &weights[&format!("{name}.weight")].1;
    x.iter().zip(w).map(|(v, w)| v / (mean + eps).sqrt() * w).collect()
}

fn frequency(config: &ModelConfig, pair: usize) -> f64 {
    let f = 1.0 / config.rope_theta.powf(2.0 * pair as f64 / config.head_dim as f64);
    match config.rope_scaling {
        RopeScaling::None => f,
        RopeScaling::Linear { factor } => f / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
            let wavelength = 2.0 * std::f64::consts::PI / f;
            if wavelength < original_max_position / high_freq_factor {
                f
            } else if wavelength > original_max_position / low_freq_factor {
                f / factor
            } else {
                let smooth =
                    (original_max_position / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * f / factor + smooth * f
            }
        }
    }
}

fn rotate(config: &ModelConfig, head: &[f64], position: usize) -> Vec<f64> {
    let half = config.head_dim / 2;
    let mut out = head.to_vec();
    for i in 0..half {
        let angle = position as f64 * frequency(config, i);
        out[i] = head[i] * angle.cos() - head[half + i] * angle.sin();
        out[half + i] = head[half + i] * angle.cos() + head[i] * angle.sin();
    }
    out
}

/// Projects, splits into heads, normalises (Qwen 3) and rotates.
fn heads(config: &ModelConfig, weights: &Weights, (prefix, which): (&str, &str), x: &[f64], position: usize) -> Heads {
    let flat = linear(weights, &format!("{prefix}.self_attn.{which}_proj"), x);
    let per_head = flat.chunks(config.head_dim).map(|head| {
        if which == "v" {
            return head.to_vec();
        }
        let head = match config.family {
            Family::Qwen3 => rms_norm(weights, &format!("{prefix}.self_attn.{which}_norm"), head, config.rms_norm_eps),
            _ => head.to_vec(),
        };
        rotate(config, &head, position)
    });
    per_head.collect()
}

fn attend(config: &ModelConfig, q: &[Vec<f64>], past: &[(Heads, Heads)]) -> Vec<f64> {
    let group = config.num_heads / config.num_kv_heads;
    let first = config.sliding_window.map_or(0, |w| past.len().saturating_sub(w));
    let mut out = Vec::new();
    for (h, q) in q.iter().enumerate() {
        let score =
            |k: &Heads| q.iter().zip(&k[h / group]).map(|(a, b)| a * b).sum::<f64>() / (config.head_dim as f64).sqrt();
        let weights: Vec<f64> = past[first..].iter().map(|(k, _)| score(k).exp()).collect();
        let total: f64 = weights.iter().sum();
        for d in 0..config.head_dim {
            out.push(weights.iter().zip(&past[first..]).map(|(w, (_, v))| w / total * v[h / group][d]).sum());
        }
    }
    out
}

/// Logits of every position.
pub(super) fn logits(config: &ModelConfig, weights: &Weights, tokens: &[u32]) -> Vec<Vec<f64>> {
    let table = &weights["model.embed_tokens.weight"].1;
    let hidden = config.hidden_size;
    let mut xs: Vec<Vec<f64>> =
        tokens.iter().map(|t| table[*t as usize * hidden..(*t as usize + 1) * hidden].to_vec()).collect();
    for layer in 0..config.num_layers {
        let prefix = format!("model.layers.{layer}");
        let mut past = Vec::new();
        for (position, x) in xs.iter_mut().enumerate() {
            let normed = rms_norm(weights, &format!("{prefix}.input_layernorm"), x, config.rms_norm_eps);
            let project = |which| heads(config, weights, (&prefix, which), &normed, position);
            past.push((project("k"), project("v")));
            let attended = attend(config, &project("q"), &past);
            let out = linear(weights, &format!("{prefix}.self_attn.o_proj"), &attended);
            x.iter_mut().zip(out).for_each(|(x, o)| *x += o);
            let normed = rms_norm(weights, &format!("{prefix}.post_attention_layernorm"), x, config.rms_norm_eps);
            let gate = linear(weights, &format!("{prefix}.mlp.gate_proj"), &normed);
            let up = linear(weights, &format!("{prefix}.mlp.up_proj"), &normed);
            let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let out = linear(weights, &format!("{prefix}.mlp.down_proj"), &inner);
            x.iter_mut().zip(out).for_each(|(x, o)| *x += o);
        }
    }
    let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
    xs.iter().map(|x| linear(weights, head, &rms_norm(weights, "model.norm", x, config.rms_norm_eps))).collect()
}
