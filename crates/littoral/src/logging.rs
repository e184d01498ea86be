//! The log of the roles: lines on standard error, as many as `LITTORAL_LOG` asks for.
//!
//! `LITTORAL_LOG` is a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or a list like `warn,edge=debug`. The default is
//! `warn`. Secrets never reach the log: tokens print as `TokenSecret(…)`, and no request's headers are logged.

use std::io::stderr;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::cli::error::CliError;

/// The environment variable.
const ENV_LOG: &str = "LITTORAL_LOG";
/// What is logged if it is not set.
const DEFAULT: &str = "warn";

/// Starts logging. Called once, by the commands that start roles.
///
/// # Errors
/// `LITTORAL_LOG` cannot be understood.
pub fn start(color: bool) -> Result<(), CliError> {
    let wanted = std::env::var(ENV_LOG).unwrap_or_else(|_| DEFAULT.to_owned());
    let targets = filter(&wanted)?;
    let lines = fmt::layer().with_writer(stderr).with_ansi(color).with_filter(targets);
    // Somebody else may have set a subscriber already (a test): then theirs is used.
    let _ = tracing_subscriber::registry().with(lines).try_init();
    Ok(())
}

fn filter(wanted: &str) -> Result<Targets, CliError> {
    wanted.parse().map_err(|error| {
        CliError::usage(format!("{ENV_LOG}: {wanted:?} cannot be understood: {error}"))
            .with_hint("use error, warn, info, debug, trace or off, or a list like warn,edge=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists() {
        for good in [DEFAULT, "off", "debug", "warn,edge=debug"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let error = filter("edge=loud").expect_err("no level").report(false);
        assert!(error.contains(ENV_LOG) && error.contains("warn,edge=debug"), "{error}");
    }
}
