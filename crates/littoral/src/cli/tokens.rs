//! `tokens`: shows, makes and deletes tokens. The secret of a new one is printed once, and nothing else ever is.

use api::{NewToken, Scope, TokenKind};
use clap::{Args, Subcommand};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::Out;
use crate::cli::session::Session;
use crate::cli::values;
use crate::connection::retry;

const EXAMPLES: &str = "\
Examples:
  littoral tokens
  littoral tokens add deploy --scope write --scope purge --expires 30d > deploy.token
  littoral tokens add oslo --node > node.token
  littoral tokens rm ID";

/// The arguments of `tokens`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TokensArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the tokens without their secrets (what happens without a word)
    Ls,
    /// Make a token and print its secret, this once, on standard output
    Add(AddArgs),
    /// Delete a token: it opens nothing any more
    Rm {
        /// Its id, as `tokens ls` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// What it is for, in words of yours
    label: String,
    /// What it permits: read, write, purge or admin; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "node")]
    scopes: Vec<Scope>,
    /// For a node that joins, not for a person
    #[arg(long, conflicts_with = "scopes")]
    node: bool,
    /// When it ends to be valid, like 30d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = values::seconds)]
    expires: Option<u64>,
}

/// Runs `tokens`.
pub(super) async fn run(args: TokensArgs, globals: &Globals) -> Result<(), CliError> {
    let (session, out) = (globals.session()?, globals.out());
    match args.action.unwrap_or(Action::Ls) {
        Action::Ls => list(&session, &out).await,
        Action::Add(args) => add(args, &session, &out).await,
        Action::Rm { id } => rm(&id, &session, &out).await,
    }
}

async fn list(session: &Session, out: &Out) -> Result<(), CliError> {
    let list = retry(|| session.calls().tokens()).await;
    let list = list.map_err(|error| session.failed("cannot show the tokens", &error))?;
    if out.is_json() {
        return out.json(&list);
    }
    let rows = list.tokens.into_iter().map(|token| {
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.word()).collect();
        let permits = match token.kind {
            TokenKind::User => scopes.join(" "),
            TokenKind::Node => "(node)".to_owned(),
        };
        let expires = token.expires_ms.map_or_else(|| "never".to_owned(), human::time);
        vec![token.id, permits, human::time(token.created_ms), expires, human::plain(&token.label)]
    });
    out.table(&["ID", "PERMITS", "MADE", "EXPIRES", "LABEL"], rows)
}

async fn add(args: AddArgs, session: &Session, out: &Out) -> Result<(), CliError> {
    let kind = if args.node { TokenKind::Node } else { TokenKind::User };
    let token = NewToken { label: args.label, kind, scopes: args.scopes, expires_in_s: args.expires };
    let answer = session.calls().create_token(&token).await;
    let answer = answer.map_err(|error| session.failed("cannot make a token", &error))?;
    if out.is_json() {
        return out.json(&answer);
    }
    out.line(&answer.token)?;
    out.note(format!("token {} is made; what is printed above is not shown again", answer.doc.id));
    Ok(())
}

async fn rm(id: &str, session: &Session, out: &Out) -> Result<(), CliError> {
    // The id becomes part of a path of the API.
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(CliError::usage(format!("{:?} is not the id of a token", human::plain(id)))
            .with_hint("'littoral tokens' shows the ids"));
    }
    let deleted = session.calls().delete_token(id).await;
    deleted.map_err(|error| session.failed(&format!("cannot delete the token {id}"), &error))?;
    out.note(format!("the token {id} is deleted"));
    Ok(())
}
