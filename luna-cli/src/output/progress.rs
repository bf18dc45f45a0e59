//! The progress bar: on standard error, only where that is a terminal, gone when the work is done.

use indicatif::{ProgressDrawTarget, ProgressStyle};
use luna_core::Progress;

/// One line that shows how far the running call has come. Clones share the line.
#[derive(Clone)]
pub struct ProgressBar(indicatif::ProgressBar);

impl ProgressBar {
    /// A bar that appears with the first progress, or never.
    pub fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = indicatif::ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{msg:9} {wide_bar} {percent:>3} %  {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Shows how far the call of this name has come.
    pub fn show(&self, name: &'static str, Progress { done, total }: Progress) {
        if self.0.is_finished() || self.0.message() != name {
            self.0.reset();
            self.0.set_message(name);
        }
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
