//! What commands print: data on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::error::CliError;
use crate::progress::Progress;

/// The form of the data on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: tables, sizes and times in words.
    #[default]
    Table,
    /// For programs: JSON, exact, as the API answers it.
    Json,
}

/// When to colour what is printed on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether standard error gets colours.
    pub fn on_stderr(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            // https://no-color.org: any value but the empty one.
            Self::Auto => io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }
}

/// Text between the escape sequences of a colour, or as it is.
pub fn paint(text: &str, code: &str, color: bool) -> String {
    if color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Where a command prints.
#[derive(Debug, Clone)]
pub struct Out {
    /// The form of the data.
    pub format: Format,
    /// Whether progress and summaries are left away.
    pub quiet: bool,
    /// Whether standard error gets colours.
    pub color: bool,
}

impl Out {
    /// Whether the data is for programs.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one JSON document on a line of standard output.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn json(&self, document: &impl Serialize) -> Result<(), CliError> {
        let mut text = json_line(document)?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints a line on standard output.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn line(&self, text: impl Display) -> Result<(), CliError> {
        self.text(&format!("{text}\n"))
    }

    /// Prints text as it is on standard output.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| output_error(&error))
    }

    /// Prints a table on standard output: a line of headings, then the rows.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn table(&self, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), CliError> {
        let mut table = Table::new();
        // No frame, and no wrapping at the terminal's edge: what is printed can be copied and searched.
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings.iter().copied()).add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.text(&table.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>())
    }

    /// Says something on standard error that nobody needs who asked for quiet.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            to_stderr(&format!("{text}\n"));
        }
    }

    /// Says on standard error that something is not as it should be.
    pub fn warn(&self, text: impl Display) {
        to_stderr(&format!("{} {text}\n", paint("warning:", "33;1", self.color)));
    }

    /// Names on standard error one of several things that failed.
    pub fn fault(&self, text: impl Display) {
        to_stderr(&CliError::failed(text.to_string()).report(self.color));
    }

    /// A progress bar, where one is wanted.
    pub fn progress(&self) -> Progress {
        if self.quiet { Progress::hidden() } else { Progress::on_terminal() }
    }
}

/// A document as one line of JSON.
pub(crate) fn json_line(document: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(document).map_err(|error| CliError::failed(format!("cannot write JSON: {error}")))
}

/// What a failed write to standard output means.
pub(crate) fn output_error(error: &io::Error) -> CliError {
    if error.kind() == ErrorKind::BrokenPipe {
        CliError::OutputClosed
    } else {
        CliError::failed(format!("cannot write to standard output: {error}"))
    }
}

/// Writes to standard error. Where even that fails, nobody is left to tell.
pub(crate) fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
