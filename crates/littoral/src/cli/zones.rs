//! `zones`: shows, makes, changes and deletes zones.

use std::path::PathBuf;

use api::{Access, ErrorCode, Eviction, Objective, ZoneDoc, ZoneName};
use clap::{ArgAction, Args, Subcommand};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::https::HttpsArgs;
use crate::cli::output::Out;
use crate::cli::policy::PolicyArgs;
use crate::cli::policy_values::{Emptied, Ttl, eviction, objective};
use crate::cli::session::Session;
use crate::cli::{zone_file, zone_show};
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral zones
  littoral zones add docs --host docs.example.org --index index.html --ttl 1h
  littoral zones set docs --private true --eviction gdsf --objective bytes
  littoral zones add shop --host shop.example --upstream https://10.0.0.5:8443 --bypass 'cookie=session*'
  littoral zones set shop --ttl 'path=/img/*,ttl=1d' --ttl 'status=404,ttl=10s'
  littoral zones show shop -o json > shop.json
  littoral zones set shop --from-file shop.json";

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
        settings: Box<Settings>,
    },
    /// Change settings of a zone; the others stay as they are
    Set {
        /// Its name
        name: ZoneName,
        #[command(flatten)]
        settings: Box<Settings>,
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
    /// What a path of files that ends in '/' stands for, like index.html; empty: nothing
    #[arg(long, value_name = "NAME")]
    index: Option<String>,
    /// The request header that carries the reader's place as LAT,LNG; empty: none
    #[arg(long, value_name = "HEADER")]
    place_header: Option<String>,
    /// What its URLs begin with, like https://cdn.example.org; empty: derived
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Who of this zone leaves an edge's memory when room is needed: lru, lfu, s3fifo, sieve, gdsf or auto; empty: as the edge says
    #[arg(long, value_name = "POLICY", value_parser = eviction)]
    eviction: Option<Emptied<Eviction>>,
    /// What auto and gdsf aim at: requests or bytes; empty: as the edge says
    #[arg(long, value_name = "WORD", value_parser = objective)]
    objective: Option<Emptied<Objective>>,
    /// How it treats TLS
    #[command(flatten)]
    https: HttpsArgs,
    /// The whole zone, in TOML or JSON (as 'show -o json' prints it); flags go over it
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Where its content comes from, if not from uploads
    #[command(flatten)]
    policy: PolicyArgs,
}

impl Settings {
    /// Changes `zone` where something was said.
    fn apply(mut self, zone: &mut ZoneDoc) -> Result<(), CliError> {
        if let Some(file) = &self.from_file {
            let read = zone_file::read(file)?;
            if read.name != zone.name {
                return Err(CliError::usage(format!(
                    "the zone file is about zone '{}', and not about '{}'",
                    read.name, zone.name
                ))
                .with_hint("change `name` in the file, or name that zone"));
            }
            *zone = read;
        }
        if !self.hosts.is_empty() {
            zone.hosts = std::mem::take(&mut self.hosts);
        }
        if let Some(catch_all) = self.catch_all {
            zone.catch_all = catch_all;
        }
        if let Some(private) = self.private {
            zone.access = if private { Access::Private } else { Access::Public };
        }
        if let Some(eviction) = self.eviction.take() {
            zone.eviction = eviction.value();
        }
        if let Some(objective) = self.objective.take() {
            zone.objective = objective.value();
        }
        zone.tls = std::mem::take(&mut self.https).apply(zone.tls.take())?;
        let pulls = self.policy.pulls(zone.pull.is_some());
        if pulls && self.index.is_some() {
            return Err(CliError::usage("--index is about zones of files; a website has its own"));
        }
        if !pulls {
            self.take_store_settings(zone)?;
        }
        zone.pull = self.policy.apply(zone.pull.take())?;
        for (setting, said) in [
            (&mut zone.index, self.index),
            (&mut zone.place_header, self.place_header),
            (&mut zone.base_url, self.base_url),
        ] {
            if let Some(text) = said {
                *setting = (!text.is_empty()).then_some(text);
            }
        }
        Ok(())
    }

    /// The flags that mean one thing for a zone of files and another in front of a website.
    fn take_store_settings(&mut self, zone: &mut ZoneDoc) -> Result<(), CliError> {
        for said in std::mem::take(&mut self.policy.ttl) {
            zone.ttl_s = match said {
                Emptied::Value(ttl) => Ttl::plain(ttl).map_err(CliError::usage)?,
                Emptied::Empty => return Err(CliError::usage("--ttl: a zone of files needs a time, like 1h")),
            };
        }
        zone.stale_if_error_s = self.policy.stale_if_error.take().unwrap_or(zone.stale_if_error_s);
        Ok(())
    }
}

/// Runs `zones`.
pub(super) async fn run(args: ZonesArgs, globals: &Globals) -> Result<(), CliError> {
    let (session, out) = (globals.session()?, globals.out());
    match args.action.unwrap_or(Action::Ls) {
        Action::Ls => list(&session, &out).await,
        Action::Show { name } => zone_show::show(&out, &zone(&name, &session).await?),
        Action::Add { name, settings } => add(name, *settings, &session, &out).await,
        Action::Set { name, settings } => {
            let mut zone = zone(&name, &session).await?;
            settings.apply(&mut zone)?;
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
        // Of a pull zone, they mean nothing.
        let (ttl, index, from) = match &zone.pull {
            Some(pull) => ("-".to_owned(), None, zone_show::servers(pull)),
            None => (format!("{} s", zone.ttl_s), zone.index, "uploads".to_owned()),
        };
        let index = index.unwrap_or_else(|| "-".to_owned());
        vec![zone.name.to_string(), zone_show::access(zone.access).to_owned(), ttl, index, from, hosts.join(" ")]
    });
    out.table(&["ZONE", "ACCESS", "TTL", "INDEX", "CONTENT", "HOSTS"], rows)
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
    settings.apply(&mut zone)?;
    put(&zone, session, out).await
}

async fn put(zone: &ZoneDoc, session: &Session, out: &Out) -> Result<(), CliError> {
    let name = &zone.name;
    zone.validate().map_err(|why| CliError::usage(format!("zone '{name}': {why}")))?;
    let zone = session.calls().put_zone(zone).await;
    zone_show::show(out, &zone.map_err(|error| session.failed(&format!("cannot set zone '{name}'"), &error))?)
}
