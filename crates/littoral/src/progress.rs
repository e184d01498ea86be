//! How far long work has come: one bar on standard error, with rate and time left, and only on a terminal.

use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{msg}"));
        Self { bar }
    }

    /// Begins a stretch of work on `total` bytes; `None`: nobody knows how many.
    pub fn begin_bytes(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
            None => "{msg} {spinner} {bytes} {bytes_per_sec}",
        };
        self.begin(what, total, template);
    }

    /// Begins a stretch of work on `total` files; `None`: nobody knows how many.
    pub fn begin_files(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg} [{wide_bar}] {pos}/{len} files {rate}, {eta} left",
            None => "{msg} {spinner} {pos} files",
        };
        self.begin(what, total, template);
    }

    fn begin(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>, template: &str) {
        self.bar.set_message(what);
        self.bar.set_style(style(template));
        match total {
            Some(total) => self.bar.set_length(total),
            None => self.bar.unset_length(),
        }
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

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; one with a mistake in it would only look plain.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ").with_key("rate", |state: &ProgressState, to: &mut dyn fmt::Write| {
        // A bar that cannot be drawn is not worth an error.
        let _ = write!(to, "{:.0}/s", state.per_sec());
    })
}
