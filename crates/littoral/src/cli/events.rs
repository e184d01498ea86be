//! `events`: shows the log of changes, and follows it.

use std::time::Duration;

use clap::Args;
use client::{ClientError, StreamItem};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::Out;
use crate::cli::session::Session;
use crate::connection::retry;

/// Events that are shown when nobody says from where.
const RECENT_EVENTS: u64 = 100;
/// The rest before a stream that broke is opened again, in milliseconds.
const REOPEN_PAUSE_MS: u64 = 500;

const EXAMPLES: &str = "\
Examples:
  littoral events                          the last 100
  littoral events --after 0 -o json        all that are kept, one object on each line
  littoral events --follow                 from now on, as they happen";

/// The arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EventsArgs {
    /// Only events after this number
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Go on with each event as it happens, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

/// Runs `events`.
pub(super) async fn run(args: EventsArgs, globals: &Globals) -> Result<(), CliError> {
    let (session, out) = (globals.session()?, globals.out());
    let after = match args.after {
        None if !args.follow => Some(recent(&session).await?),
        after => after,
    };
    if args.follow {
        return follow(after, &session, &out).await;
    }
    let mut last = after;
    show(&mut last, false, &session, &out).await.map_err(|end| end.into_error(&session))
}

/// The number after which the last [`RECENT_EVENTS`] come, as far as they are kept.
async fn recent(session: &Session) -> Result<u64, CliError> {
    let first = retry(|| async { session.calls().events(None, false).await?.next().await }).await;
    match first.map_err(|error| session.failed("cannot read the events", &error))? {
        Some(StreamItem::Hello(hello)) => {
            Ok(hello.head.saturating_sub(RECENT_EVENTS).max(hello.oldest.saturating_sub(1)))
        }
        _ => Err(CliError::failed("cannot read the events: the stream did not begin with its greeting")),
    }
}

/// Shows events until the API cannot be reached any more. A stream that breaks is taken up where it broke.
async fn follow(after: Option<u64>, session: &Session, out: &Out) -> Result<(), CliError> {
    let mut last = after;
    loop {
        match show(&mut last, true, session, out).await {
            // The other side ends streams when it stops; whether it is back shows in the next attempt.
            Ok(()) => {}
            Err(End::Broken(error)) => out.note(format!("opening the stream again: {error}")),
            Err(end) => return Err(end.into_error(session)),
        }
        tokio::time::sleep(Duration::from_millis(REOPEN_PAUSE_MS)).await;
    }
}

/// Why showing ended early.
enum End {
    /// The stream could not be opened.
    NotOpened(ClientError),
    /// It broke.
    Broken(ClientError),
    /// Nobody reads what is shown, or it cannot be written.
    Output(CliError),
}

impl End {
    fn into_error(self, session: &Session) -> CliError {
        match self {
            Self::NotOpened(error) | Self::Broken(error) => session.failed("cannot read the events", &error),
            Self::Output(error) => error,
        }
    }
}

/// Shows the events of one stream, keeping in `last` how far it came.
async fn show(last: &mut Option<u64>, follow: bool, session: &Session, out: &Out) -> Result<(), End> {
    let after = *last;
    let stream = retry(|| session.calls().events(after, follow)).await;
    let mut stream = stream.map_err(End::NotOpened)?;
    while let Some(item) = stream.next().await.map_err(End::Broken)? {
        match item {
            StreamItem::Event(event) => {
                *last = Some(event.seq);
                let printed = if out.is_json() { out.json(&event) } else { out.line(human::event(&event)) };
                printed.map_err(End::Output)?;
            }
            // From now on means from what was newest when the first stream began.
            StreamItem::Hello(hello) => *last = last.or(Some(hello.head)),
            StreamItem::Health(_) | StreamItem::Ping => {}
        }
    }
    Ok(())
}
