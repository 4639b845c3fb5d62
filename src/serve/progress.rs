//! A bar on the terminal for what takes long before the server listens. Nothing where there is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Weights below this are loaded before anybody could read a bar.
const WORTH_A_BAR: usize = 20_000_000;

pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3}%")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::hidden().with_style(style).with_message(what);
        Self(bar)
    }

    /// So much of so much is done.
    pub(super) fn at(&self, done: usize, total: usize) {
        if total < WORTH_A_BAR {
            return;
        }
        if self.0.length().is_none() {
            self.0.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            self.0.set_length(total as u64);
        }
        self.0.set_position(done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
