//! Meta's names of tensors ↔ Hugging Face's, and how each is cut into shards.

use super::Cut;

/// One tensor of a model: both names, and its cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) meta: String,
    pub(super) hf: String,
    /// Of the embedding nothing, because that differs: see [`table_cut`].
    pub(super) cut: Option<Cut>,
}

/// Tensors of a block.
const BLOCK: [(&str, &str, Cut); 9] = [
    ("attention_norm", "input_layernorm", Cut::None),
    ("attention.wq", "self_attn.q_proj", Cut::Rows),
    ("attention.wk", "self_attn.k_proj", Cut::Rows),
    ("attention.wv", "self_attn.v_proj", Cut::Rows),
    ("attention.wo", "self_attn.o_proj", Cut::Columns),
    ("ffn_norm", "post_attention_layernorm", Cut::None),
    ("feed_forward.w1", "mlp.gate_proj", Cut::Rows),
    ("feed_forward.w2", "mlp.down_proj", Cut::Columns),
    ("feed_forward.w3", "mlp.up_proj", Cut::Rows),
];

/// The head; absent in Hugging Face where it is the embedding.
pub(super) const HEAD: (&str, &str) = ("output.weight", "lm_head.weight");
pub(super) const EMBEDDING: (&str, &str) = ("tok_embeddings.weight", "model.embed_tokens.weight");

/// All tensors of a model of `layers` blocks, the head last.
pub(super) fn all(layers: usize) -> Vec<Named> {
    let block = |layer: usize| {
        BLOCK.map(|(meta, hf, cut)| Named {
            meta: format!("layers.{layer}.{meta}.weight"),
            hf: format!("model.layers.{layer}.{hf}.weight"),
            cut: Some(cut),
        })
    };
    let outer = |(meta, hf): (&str, &str), cut| Named { meta: meta.to_owned(), hf: hf.to_owned(), cut };
    let mut all = vec![outer(EMBEDDING, None)];
    all.extend((0..layers).flat_map(block));
    all.push(outer(("norm.weight", "model.norm.weight"), Some(Cut::None)));
    all.push(outer(HEAD, Some(Cut::Rows)));
    all
}

/// Vocabularies that are larger are Llama 3's.
const LARGEST_LLAMA_2_VOCABULARY: usize = 65_536;

/// How a new checkpoint cuts the embedding `[vocab, dim]`: Llama 3 along the vocabulary, Llama 2 along the width.
pub(super) fn table_cut(vocab_size: usize) -> Cut {
    if vocab_size > LARGEST_LLAMA_2_VOCABULARY { Cut::Rows } else { Cut::Columns }
}

/// Frequencies that older checkpoints hold beside the weights; they follow from the shape.
pub(super) fn is_derived(name: &str) -> bool {
    name.ends_with("rope.freqs") || name.ends_with("rotary_emb.inv_freq")
}
