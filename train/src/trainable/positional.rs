//! Initial q and k biases that make heads look at positions, whatever stands there: the first head of a layer at the
//! token before, the next three at near tokens, within about 4, 16 and 64.
//!
//! A bias is turned by the rotary embedding like the rest, so that q and k biases of size a in a pair of frequency f add
//! a² cos(f·distance) to the score. Over many frequencies in geometric steps that falls like the logarithm of the distance
//! beyond the reach (one frequency alone would come back with its period). What ALiBi (Press et al. 2022) fixes, training
//! can change here. Knows no weights.

use callsmith::model::ModelConfig;

/// How much more the token before scores than the token itself.
const CONTRAST: f64 = 4.0;
/// What each frequency adds to the score of the nearest token, for the near-sighted heads.
const STRENGTH: f64 = 1.5;
/// Distances within which those look.
const REACHES: [f64; 3] = [4.0, 16.0, 64.0];

/// Bias of all query heads.
pub(super) fn queries(config: &ModelConfig) -> Vec<f32> {
    let group = config.num_heads / config.num_kv_heads;
    (0..config.num_heads).flat_map(|head| pattern(config, head / group, 0.0)).collect()
}

/// Bias of all key heads.
pub(super) fn keys(config: &ModelConfig) -> Vec<f32> {
    (0..config.num_kv_heads).flat_map(|head| pattern(config, head, 1.0)).collect()
}

/// One head's bias; `shift` turns it ahead by so many positions where the head looks at the token before.
fn pattern(config: &ModelConfig, kv_head: usize, shift: f64) -> Vec<f32> {
    let half = config.head_dim / 2;
    let frequency = |pair: usize| config.rope_theta.powf(-(pair as f64) / half as f64);
    let mut bias = vec![0.0; config.head_dim];
    // The pair (i, i + half) turns with frequency i.
    let mut set = |pair: usize, size: f64, angle: f64| {
        bias[pair] = (size * angle.cos()) as f32;
        bias[pair + half] = (size * angle.sin()) as f32;
    };
    let scale = (config.head_dim as f64).sqrt();
    match kv_head {
        0 => {
            // How much less the token itself scores than the one before, per unit of a².
            let contrast: f64 = (0..half).map(|pair| 1.0 - frequency(pair).cos()).sum();
            let size = (CONTRAST * scale / contrast).sqrt();
            (0..half).for_each(|pair| set(pair, size, shift * frequency(pair)));
        }
        near if near <= REACHES.len() => {
            let fastest = std::f64::consts::PI / REACHES[near - 1];
            let slow = (0..half).filter(|&pair| frequency(pair) <= fastest);
            slow.for_each(|pair| set(pair, (STRENGTH * scale).sqrt(), 0.0));
        }
        _ => {}
    }
    bias
}

#[cfg(test)]
mod tests {
    use super::*;
    use callsmith::model::config::{Family, RopeScaling};

    fn config() -> ModelConfig {
        ModelConfig {
            family: Family::Qwen2,
            vocab_size: 10,
            hidden_size: 192,
            intermediate_size: 64,
            num_layers: 1,
            num_heads: 6,
            num_kv_heads: 6,
            head_dim: 32,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            max_position_embeddings: 512,
            sliding_window: None,
            tie_word_embeddings: true,
            eos_token_ids: vec![],
        }
    }

    /// The score that the biases alone give a key `distance` tokens back.
    fn score(head: usize, distance: usize) -> f64 {
        let config = config();
        let (q, k) = (queries(&config), keys(&config));
        let (q, k) = (&q[head * 32..][..32], &k[head * 32..][..32]);
        let pair = |i: usize| {
            let angle = -(distance as f64) * config.rope_theta.powf(-(i as f64) / 16.0);
            let (x, y) = (f64::from(k[i]), f64::from(k[i + 16]));
            let turned = (x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos());
            f64::from(q[i]) * turned.0 + f64::from(q[i + 16]) * turned.1
        };
        (0..16).map(pair).sum::<f64>() / 32f64.sqrt()
    }

    #[test]
    fn the_first_head_looks_at_the_token_before() {
        let best = score(0, 1);
        assert!((0..400).filter(|&distance| distance != 1).all(|distance| score(0, distance) < best - 1.0));
        assert!(score(0, 0) < best - 3.9);
    }

    #[test]
    fn near_sighted_heads_look_within_their_reach_and_hardly_beyond() {
        for (head, reach) in [(1, 4), (2, 16), (3, 64)] {
            let weight = |distance| score(head, distance).exp();
            let total: f64 = (0..500).map(weight).sum();
            let within: f64 = (0..2 * reach).map(weight).sum();
            assert!(within > 0.85 * total, "{head}: {}", within / total);
            assert!(weight(reach / 2) > 0.1 * weight(0), "{head}");
        }
    }

    #[test]
    fn the_other_heads_look_at_content_alone() {
        assert!((4..6).all(|head| (0..50).all(|distance| score(head, distance) == 0.0)));
    }
}
