//! How far long work has come: one bar on standard error, with rate and time left, and only on a terminal.

use std::borrow::Cow;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, or nothing at all. Cloning shares it.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shows nothing.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// Shows a bar on standard error if that is a terminal, and nothing otherwise.
    pub fn on_terminal() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        Self { bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()) }
    }

    /// Begins a stretch of work on `total` bytes; `None`: nobody knows how many.
    pub fn begin_bytes(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} [{bar:28}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        self.begin(what, total, template);
    }

    /// Begins a stretch of work on `total` files; `None`: nobody knows how many.
    pub fn begin_files(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} [{bar:28}] {pos}/{len} files {per_sec}, {eta} left",
            None => "{msg} {spinner} {pos} files",
        };
        self.begin(what, total, template);
    }

    fn begin(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>, template: &str) {
        // The templates are ours; one with a mistake in it would only look plain.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.progress_chars("=> "));
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(what);
        self.bar.reset();
    }

    /// `amount` more bytes or files are done.
    pub fn done(&self, amount: u64) {
        self.bar.inc(amount);
    }

    /// Runs `write`, which prints to the terminal, without the bar getting in its way. Never to be called within itself.
    pub fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
