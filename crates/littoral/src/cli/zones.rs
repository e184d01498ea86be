//! `zones`: shows, makes, changes and deletes zones.

use api::{Access, ErrorCode, ZoneDoc, ZoneName};
use clap::{ArgAction, Args, Subcommand};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::output::Out;
use crate::cli::session::Session;
use crate::cli::values;
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral zones
  littoral zones add docs --host docs.example.org --index index.html --ttl 1h
  littoral zones set docs --private true
  littoral zones show docs -o json";

/// The arguments of `zones`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ZonesArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the zones (what happens without a word)
    Ls,
    /// Show every setting of a zone
    Show {
        /// Its name
        name: ZoneName,
    },
    /// Make a zone
    Add {
        /// Its name
        name: ZoneName,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings of a zone; the others stay as they are
    Set {
        /// Its name
        name: ZoneName,
        #[command(flatten)]
        settings: Settings,
    },
    /// Delete a zone that holds no files
    Rm {
        /// Its name
        name: ZoneName,
    },
}

/// What can be said of a zone.
#[derive(Debug, Default, Args)]
struct Settings {
    /// A hostname that it answers for; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Whether it answers for every host that no zone names
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    catch_all: Option<bool>,
    /// Whether reading it needs a token
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    private: Option<bool>,
    /// How long a file is fresh that does not say so itself, like 1h
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    ttl: Option<u32>,
    /// How long past that it may be served while the origin is away, like 1d
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    stale_if_error: Option<u32>,
    /// What a path that ends in '/' stands for, like index.html; empty: nothing
    #[arg(long, value_name = "NAME")]
    index: Option<String>,
    /// The request header that carries the reader's place as LAT,LNG; empty: none
    #[arg(long, value_name = "HEADER")]
    place_header: Option<String>,
    /// What its URLs begin with, like https://cdn.example.org; empty: derived
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

fn seconds(text: &str) -> Result<u32, String> {
    u32::try_from(values::seconds(text)?).map_err(|_| "use at most 136 years".to_owned())
}

impl Settings {
    /// Changes `zone` where something was said.
    fn apply(self, zone: &mut ZoneDoc) {
        if !self.hosts.is_empty() {
            zone.hosts = self.hosts;
        }
        if let Some(catch_all) = self.catch_all {
            zone.catch_all = catch_all;
        }
        if let Some(private) = self.private {
            zone.access = if private { Access::Private } else { Access::Public };
        }
        zone.ttl_s = self.ttl.unwrap_or(zone.ttl_s);
        zone.stale_if_error_s = self.stale_if_error.unwrap_or(zone.stale_if_error_s);
        for (setting, said) in [
            (&mut zone.index, self.index),
            (&mut zone.place_header, self.place_header),
            (&mut zone.base_url, self.base_url),
        ] {
            if let Some(text) = said {
                *setting = (!text.is_empty()).then_some(text);
            }
        }
    }
}

/// Runs `zones`.
pub(super) async fn run(args: ZonesArgs, globals: &Globals) -> Result<(), CliError> {
    let (session, out) = (globals.session()?, globals.out());
    match args.action.unwrap_or(Action::Ls) {
        Action::Ls => list(&session, &out).await,
        Action::Show { name } => show(&out, &zone(&name, &session).await?),
        Action::Add { name, settings } => add(name, settings, &session, &out).await,
        Action::Set { name, settings } => {
            let mut zone = zone(&name, &session).await?;
            settings.apply(&mut zone);
            put(&zone, &session, &out).await
        }
        Action::Rm { name } => {
            let deleted = session.calls().delete_zone(&name).await;
            deleted.map_err(|error| session.failed(&format!("cannot delete zone '{name}'"), &error))?;
            out.note(format!("zone '{name}' is deleted"));
            Ok(())
        }
    }
}

async fn zone(name: &ZoneName, session: &Session) -> Result<ZoneDoc, CliError> {
    let zone = retry(|| session.calls().zone(name)).await;
    zone.map_err(|error| session.failed(&format!("cannot show zone '{name}'"), &error))
}

async fn list(session: &Session, out: &Out) -> Result<(), CliError> {
    let list = retry(|| session.calls().zones()).await;
    let list = list.map_err(|error| session.failed("cannot show the zones", &error))?;
    if out.is_json() {
        return out.json(&list);
    }
    let rows = list.zones.into_iter().map(|zone| {
        let mut hosts = zone.hosts;
        hosts.extend(zone.catch_all.then(|| "(all others)".to_owned()));
        let index = zone.index.unwrap_or_else(|| "-".to_owned());
        vec![zone.name.to_string(), access(zone.access).to_owned(), format!("{} s", zone.ttl_s), index, hosts.join(" ")]
    });
    out.table(&["ZONE", "ACCESS", "TTL", "INDEX", "HOSTS"], rows)
}

async fn add(name: ZoneName, settings: Settings, session: &Session, out: &Out) -> Result<(), CliError> {
    // The API replaces a zone as readily as it makes one; whoever adds one does not mean to replace another.
    match retry(|| session.calls().zone(&name)).await {
        Ok(_) => {
            return Err(CliError::failed(format!("there is a zone '{name}' already"))
                .with_hint(format!("'littoral zones set {name}' changes its settings")));
        }
        Err(error) if error.code() == Some(ErrorCode::UnknownZone) => {}
        Err(error) => return Err(session.failed(&format!("cannot make zone '{name}'"), &error)),
    }
    let mut zone = ZoneDoc::new(name);
    settings.apply(&mut zone);
    put(&zone, session, out).await
}

async fn put(zone: &ZoneDoc, session: &Session, out: &Out) -> Result<(), CliError> {
    let name = &zone.name;
    zone.validate().map_err(|why| CliError::usage(format!("zone '{name}': {why}")))?;
    let zone = session.calls().put_zone(zone).await;
    show(out, &zone.map_err(|error| session.failed(&format!("cannot set zone '{name}'"), &error))?)
}

fn show(out: &Out, zone: &ZoneDoc) -> Result<(), CliError> {
    if out.is_json() {
        return out.json(zone);
    }
    let or_none = |setting: &Option<String>| setting.clone().unwrap_or_else(|| "-".to_owned());
    for (name, value) in [
        ("zone", zone.name.to_string()),
        ("hosts", zone.hosts.join(" ")),
        ("catch all", zone.catch_all.to_string()),
        ("access", access(zone.access).to_owned()),
        ("ttl", format!("{} s", zone.ttl_s)),
        ("stale if error", format!("{} s", zone.stale_if_error_s)),
        ("index", or_none(&zone.index)),
        ("place header", or_none(&zone.place_header)),
        ("base url", or_none(&zone.base_url)),
    ] {
        out.line(format!("{name:<16}{value}").trim_end())?;
    }
    Ok(())
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Public => "public",
        Access::Private => "private",
    }
}
