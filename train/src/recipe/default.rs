//! Values of absent keys.

/// Share of the files' conversations that is held out.
pub(super) const EVAL_SPLIT: f64 = 0.1;
/// Conversations that are answered at an evaluation.
pub(super) const EVAL_GENERATE: usize = 8;

pub(super) fn eval_samples() -> usize {
    200
}
pub(super) fn eval_max_tokens() -> usize {
    256
}
pub(super) fn rope_theta() -> f64 {
    10_000.0
}
pub(super) fn rms_norm_eps() -> f64 {
    1e-5
}
pub(super) fn yes() -> bool {
    true
}
pub(super) fn min_lr_ratio() -> f64 {
    0.1
}
pub(super) fn betas() -> [f64; 2] {
    [0.9, 0.98]
}
pub(super) fn eps() -> f64 {
    1e-8
}
pub(super) fn momentum() -> f64 {
    0.95
}
pub(super) fn clip() -> f64 {
    1.0
}
pub(super) fn max_skipped() -> usize {
    10
}
pub(super) fn workers() -> usize {
    1
}
pub(super) fn one() -> f64 {
    1.0
}
pub(super) fn one_f32() -> f32 {
    1.0
}
pub(super) fn grow() -> f64 {
    0.8
}
pub(super) fn single() -> [usize; 2] {
    [1, 1]
}
