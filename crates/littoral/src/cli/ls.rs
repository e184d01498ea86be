//! `ls`: lists files, page after page.

use std::fmt::Write as _;

use api::{FileDoc, ZoneName};
use clap::Args;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::json_line;
use crate::cli::values::Remote;
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral ls
  littoral ls img/ --long
  littoral ls docs:v2/ -o json | jq -r .digest";

/// The arguments of `ls`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LsArgs {
    /// Only paths that begin so: PREFIX or ZONE:PREFIX
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// The zone [default: files]
    #[arg(long)]
    zone: Option<ZoneName>,
    /// Size, time, version and media type, too
    #[arg(short, long)]
    long: bool,
}

/// Runs `ls`.
pub(super) async fn run(args: LsArgs, globals: &Globals) -> Result<(), CliError> {
    let from = Remote::parse(&args.prefix, args.zone.as_ref())?;
    let (session, out) = (globals.session()?, globals.out());
    let (mut files, mut bytes, mut cursor) = (0_u64, 0_u64, None::<String>);
    loop {
        let calls = session.calls();
        let page = retry(|| calls.files(&from.zone, &from.text, api::MAX_PAGE_FILES, cursor.as_deref())).await;
        let page =
            page.map_err(|error| session.failed(&format!("cannot list the files of zone '{}'", from.zone), &error))?;
        let mut text = String::new();
        for file in &page.files {
            files += 1;
            bytes += file.size;
            // Writing to a String cannot fail.
            let _ = match (out.is_json(), args.long) {
                (true, _) => writeln!(text, "{}", json_line(file)?),
                (false, true) => writeln!(text, "{}", long(file)),
                (false, false) => writeln!(text, "{}", file.path),
            };
        }
        out.text(&text)?;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    out.note(format!("{}, {}", human::count(files, "file"), human::size(bytes)));
    Ok(())
}

/// A line in columns of fixed width: a listing may be too long to measure all of it first.
fn long(file: &FileDoc) -> String {
    let (size, time) = (human::size(file.size), human::time(file.modified_ms));
    format!("{size:>10}  {time}  v{:<5}  {:<30}  {}", file.version, human::plain(&file.media_type), file.path)
}
