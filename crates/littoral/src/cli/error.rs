//! How a command ends that did not succeed: a sentence, perhaps a hint, and the exit code.

use crate::cli::output::paint;

/// Why a command failed. The sentence says what was wrong; the hint, what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was asked for cannot be meant. Nothing was tried. Exit code 2.
    #[error("{message}")]
    Usage {
        /// What is wrong with it.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// It was tried and it failed. Exit code 1.
    #[error("{message}")]
    Failed {
        /// What failed, and why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Whoever reads standard output has had enough (`| head`). Nothing is said about it. Exit code 0.
    #[error("nobody reads the output any more")]
    OutputClosed,
}

impl CliError {
    /// Something that cannot be meant.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// Something that failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, text: impl Into<String>) -> Self {
        let text = Some(text.into());
        match self {
            Self::Usage { message, .. } => Self::Usage { message, hint: text },
            Self::Failed { message, .. } => Self::Failed { message, hint: text },
            Self::OutputClosed => Self::OutputClosed,
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed { .. } => 1,
            Self::Usage { .. } => 2,
        }
    }

    /// What is printed on standard error, with a line break at the end; nothing for [`CliError::OutputClosed`].
    pub fn report(&self, color: bool) -> String {
        let (Self::Usage { message, hint } | Self::Failed { message, hint }) = self else {
            return String::new();
        };
        let mut text = format!("{} {message}\n", paint("error:", "31;1", color));
        if let Some(hint) = hint {
            text.push_str(&format!("{} {hint}\n", paint("hint:", "36;1", color)));
        }
        text
    }
}

impl From<api::InvalidName> for CliError {
    fn from(error: api::InvalidName) -> Self {
        Self::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_and_exit_codes() {
        let usage = CliError::usage("bad").with_hint("good");
        assert_eq!((usage.exit_code(), usage.report(false).as_str()), (2, "error: bad\nhint: good\n"));
        let failed = CliError::failed("bad");
        assert_eq!((failed.exit_code(), failed.report(false).as_str()), (1, "error: bad\n"));
        assert_eq!(failed.report(true), "\u{1b}[31;1merror:\u{1b}[0m bad\n");
        assert_eq!((CliError::OutputClosed.exit_code(), CliError::OutputClosed.report(true).as_str()), (0, ""));
    }
}
