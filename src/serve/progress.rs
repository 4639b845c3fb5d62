//! A bar on the terminal for what takes long before the server listens. Nothing where there is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Weights below this are loaded before anybody could read a bar.
const WORTH_A_BAR: usize = 20_000_000;

pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar of `total` weights.
    pub(super) fn new(what: &'static str, total: usize) -> Self {
        if total < WORTH_A_BAR {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::new(total as u64).with_style(style).with_message(what))
    }

    /// So many more are done.
    pub(super) fn advance(&self, more: usize) {
        self.0.inc(more as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
