//! `mv`: renames a file within its zone.

use api::{FilePatch, ZoneName};
use clap::Args;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::session::check_receipts;
use crate::cli::values::{self, Remote, file_id, names_zone};
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral mv draft.html index.html
  littoral mv docs:draft.html index.html    within the zone docs
  littoral mv photo.jpg archive/            keeps its name";

/// The arguments of `mv`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct MvArgs {
    /// The file: PATH, ZONE:PATH or ID
    from: String,
    /// Its new path in the same zone, or a folder that ends in '/'
    to: String,
    /// The zone [default: files]
    #[arg(long)]
    zone: Option<ZoneName>,
    /// Return once every edge has taken note
    #[arg(long)]
    wait: bool,
}

/// Runs `mv`.
pub(super) async fn run(args: MvArgs, globals: &Globals) -> Result<(), CliError> {
    let (session, out) = (globals.session()?, globals.out());
    let doing = format!("cannot rename {}", args.from);
    let failed = |error| session.failed(&doing, &error);
    let calls = session.calls();
    let file = match file_id(&args.from) {
        Some(id) => retry(|| calls.file_by_id(id)).await.map_err(failed)?,
        None => {
            let remote = Remote::parse(&args.from, args.zone.as_ref())?;
            let path = remote.path()?;
            retry(|| calls.file(&remote.zone, &path)).await.map_err(failed)?
        }
    };
    let to = Remote::parse(&args.to, args.zone.as_ref())?;
    if names_zone(&args.to, args.zone.as_ref()) && to.zone != file.zone {
        let error = CliError::usage(format!("the file is in zone '{}', and a rename cannot leave it", file.zone));
        return Err(error.with_hint("get it, put it into the other zone, and delete it here"));
    }
    let path = if to.is_folder() { to.join(values::last_segment(&file.path))? } else { to.path()? };
    let patch = FilePatch { path: Some(path), ..FilePatch::default() };
    let file = calls.patch_file(file.id, &patch, args.wait).await.map_err(failed)?;
    if out.is_json() {
        out.json(&file)?;
    } else {
        out.table(&["PATH", "URL"], [vec![file.path.to_string(), file.url.clone()]])?;
    }
    check_receipts("renamed", &file.receipts)
}
