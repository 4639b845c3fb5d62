//! Logits → token.
