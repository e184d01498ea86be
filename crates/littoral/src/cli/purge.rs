//! `purge`: makes the edges forget what they have cached.

use api::{PurgeRequest, Tag, ZoneName};
use clap::Args;

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::session::{check_receipts, print_receipts};
use crate::cli::values::{Remote, url_path};

const EXAMPLES: &str = "\
Examples:
  littoral purge img/photo.jpg --wait              a path of the zone files; shows what each edge answered
  littoral purge https://cdn.example/a.css         a URL
  littoral purge --prefix img/ --soft              revalidate everything below img/ at its next use
  littoral purge --tag product-42                  whatever carries the tag, in every zone
  littoral purge --host www.shop.example           everything of a host in front of a website
  littoral purge --all-of-zone docs                a whole zone

In front of a website a query is part of the URL: name URLs with ? or % in them whole.";

/// The arguments of `purge`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PurgeArgs {
    /// What: http://HOST/PATH, or PATH of a zone
    #[arg(value_name = "URL|PATH")]
    urls: Vec<String>,
    /// Everything whose URL begins so: http://HOST/PREFIX, or PREFIX of a zone; may be repeated
    #[arg(long = "prefix", value_name = "URL|PREFIX")]
    prefixes: Vec<String>,
    /// Everything with this tag; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Everything of this host of a zone in front of a website; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// The zone that paths, tags and hosts are meant in [default: files for paths, every zone for tags]
    #[arg(long)]
    zone: Option<ZoneName>,
    /// Everything of this zone; may be repeated
    #[arg(long = "all-of-zone", value_name = "ZONE")]
    zones: Vec<ZoneName>,
    /// Mark as stale instead of forgetting: revalidated at the next use
    #[arg(long)]
    soft: bool,
    /// Return once every edge has taken note
    #[arg(long)]
    wait: bool,
}

/// Runs `purge`.
pub(super) async fn run(args: PurgeArgs, globals: &Globals) -> Result<(), CliError> {
    let request = request(&args)?;
    let (session, out) = (globals.session()?, globals.out());
    let answer = session.calls().purge(&request).await;
    let answer = answer.map_err(|error| session.failed("cannot purge", &error))?;
    if out.is_json() {
        out.json(&answer)?;
    } else {
        print_receipts(&out, &answer.receipts)?;
    }
    out.note(format!("purged with event {}", answer.event));
    check_receipts("purged", &answer.receipts)
}

fn request(args: &PurgeArgs) -> Result<PurgeRequest, CliError> {
    if [&args.urls, &args.prefixes, &args.hosts].iter().all(|named| named.is_empty())
        && args.tags.is_empty()
        && args.zones.is_empty()
    {
        return Err(CliError::usage("nothing to purge is named")
            .with_hint("name paths or URLs, or use --prefix, --tag, --host or --all-of-zone"));
    }
    let mut zone = args.zone.clone();
    let urls = targets(&args.urls, args, &mut zone)?;
    let prefixes = targets(&args.prefixes, args, &mut zone)?;
    if !(args.tags.is_empty() && args.hosts.is_empty()) && args.zone != zone {
        return Err(CliError::usage("paths together with tags or hosts leave open in which zone those are meant")
            .with_hint("say --zone, or purge the tags and hosts on their own"));
    }
    Ok(PurgeRequest {
        zone,
        urls,
        prefixes,
        tags: args.tags.clone(),
        hosts: args.hosts.clone(),
        zones: args.zones.clone(),
        soft: args.soft,
        wait: args.wait,
    })
}

/// URLs as they are, and paths as they stand in a URL. All paths have to be of one `zone`, which becomes known here.
fn targets(texts: &[String], args: &PurgeArgs, zone: &mut Option<ZoneName>) -> Result<Vec<String>, CliError> {
    let mut targets = Vec::new();
    for text in texts {
        if text.starts_with("http://") || text.starts_with("https://") {
            targets.push(text.clone());
            continue;
        }
        let remote = Remote::parse(text, args.zone.as_ref())?;
        if zone.as_ref().is_some_and(|known| *known != remote.zone) {
            return Err(CliError::usage("paths of several zones cannot be purged at once")
                .with_hint("purge one zone after the other, or name full URLs"));
        }
        *zone = Some(remote.zone);
        targets.push(url_path(&remote.text));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: PurgeArgs,
    }

    /// What is asked for, without what is at its default; or the error.
    fn check(line: &str, expected: &str) {
        let line = Line::parse_from(std::iter::once("purge").chain(line.split_whitespace()));
        let shown = match request(&line.args) {
            Ok(request) => serde_json::to_string(&request).expect("JSON").replace("[]", ""),
            Err(error) => error.to_string(),
        };
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn from_arguments_to_what_is_purged() {
        check("a.css img/b%.png", r#""zone":"files","urls":["/a.css","/img/b%25.png"]"#);
        check("docs:a --prefix docs:v1/", r#""zone":"docs","urls":["/a"],"prefixes":["/v1/"]"#);
        check("x:a --zone docs", r#""zone":"docs","urls":["/x:a"]"#);
        check("http://h/a --tag t", r#"{"urls":["http://h/a"],"prefixes":,"tags":["t"]"#);
        check("--tag t --zone docs a", r#""zone":"docs","urls":["/a"],"prefixes":,"tags":["t"]"#);
        check("--all-of-zone docs --soft --wait", r#""zones":["docs"],"soft":true,"wait":true"#);
        check("", "nothing to purge");
        check("--soft", "nothing to purge");
        check("a docs:b", "several zones");
        check("--host Shop.example --soft", r#""hosts":["Shop.example"]"#);
        check("a --host h", "in which zone");
        check("a --tag t", "in which zone");
        check("Bad:a", "zone name");
    }
}
