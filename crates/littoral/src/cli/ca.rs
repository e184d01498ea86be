//! `ca`: the development authority that `up` made, for others to trust.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::authority::CA_FILE;
use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::Out;

const EXAMPLES: &str = "\
Examples:
  littoral ca export > littoral-ca.crt
  curl --cacert littoral-data/tls/ca.crt https://localhost:8605/
  sudo littoral ca trust
  littoral ca trust --dry-run";

/// Where Debian keeps authorities that were added.
const TRUSTED_FILE: &str = "/usr/local/share/ca-certificates/littoral-development.crt";
const UPDATE: &str = "update-ca-certificates";

/// The arguments of `ca`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CaArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the certificate of the authority (PEM)
    Export {
        /// Write it to a file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make the programs of this machine trust it (Debian and its relatives; as root), or say how
    Trust {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `ca`.
pub(super) fn run(args: CaArgs, globals: &Globals) -> Result<(), CliError> {
    let (out, path) = (globals.out(), globals.data_dir().join(CA_FILE));
    let pem = std::fs::read_to_string(&path).map_err(|error| {
        CliError::failed(format!("cannot read the development authority {}: {error}", human::file_name(&path)))
            .with_hint("'littoral up' makes it at its first start; name its folder with --data-dir")
    })?;
    match args.action {
        Action::Export { out: None } => out.text(&pem),
        Action::Export { out: Some(file) } => std::fs::write(&file, pem)
            .map_err(|error| CliError::failed(format!("cannot write {}: {error}", human::file_name(&file)))),
        Action::Trust { dry_run } => trust(&path, &pem, dry_run, &out),
    }
}

fn trust(path: &Path, pem: &str, dry_run: bool, out: &Out) -> Result<(), CliError> {
    let commands = commands(path);
    let folder = Path::new(TRUSTED_FILE).parent().is_some_and(Path::is_dir);
    if dry_run || !folder {
        if !folder {
            out.note("this is not a Debian: add the file to what this system trusts; on a Debian it would be");
        }
        return out.text(&commands);
    }
    if let Err(error) = std::fs::write(TRUSTED_FILE, pem) {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            out.text(&commands)?;
            return Err(CliError::failed("only root may change what this machine trusts")
                .with_hint("run 'sudo littoral ca trust' with the same --data-dir, or the commands above"));
        }
        return Err(CliError::failed(format!("cannot write {TRUSTED_FILE}: {error}")));
    }
    let updated = std::process::Command::new(UPDATE).output();
    match updated {
        Ok(output) if output.status.success() => {
            out.note("the programs of this machine trust it now; browsers that keep a list of their own (Firefox, Chromium) have to be told by 'Import' in their settings");
            Ok(())
        }
        Ok(output) => {
            Err(CliError::failed(format!("{UPDATE} failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
        }
        Err(error) => {
            Err(CliError::failed(format!("cannot run {UPDATE}: {error}"))
                .with_hint("install the package ca-certificates"))
        }
    }
}

/// What a person would type.
fn commands(path: &Path) -> String {
    format!("sudo cp {} {TRUSTED_FILE}\nsudo {UPDATE}\n", human::file_name(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_name_the_file() {
        let text = commands(Path::new("/data/tls/ca.crt"));
        assert!(text.starts_with("sudo cp /data/tls/ca.crt /usr/local/share/ca-certificates/"), "{text}");
        assert!(text.ends_with("sudo update-ca-certificates\n"), "{text}");
    }
}
