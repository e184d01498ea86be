//! One run of a command against one API: the connection, and the words for what goes wrong on it.

use api::{ErrorCode, Receipt, ReceiptState, TokenSecret};
use client::{Client, ClientError};
use net::NetError;

use crate::cli::error::CliError;
use crate::cli::output::Out;
use crate::connection::Connection;

/// Where to, as whom, and how both are known.
pub struct Session {
    connection: Connection,
    api_from: String,
    token: Option<TokenSecret>,
    token_from: String,
}

impl Session {
    /// A session with `api`. `api_from` and `token_from` say in words where both were found; without a token, the latter
    /// says where it was looked for.
    pub(crate) fn new(api: &str, api_from: String, token: Option<TokenSecret>, token_from: String) -> Self {
        Self { connection: Connection::new(api, token.as_ref()), api_from, token, token_from }
    }

    /// The way to the API.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The client for calls that are answered soon.
    pub fn calls(&self) -> &Client {
        &self.connection.calls
    }

    /// The token that is presented.
    pub fn token(&self) -> Option<&TokenSecret> {
        self.token.as_ref()
    }

    /// Where the token was found, or looked for.
    pub fn token_from(&self) -> &str {
        &self.token_from
    }

    /// A failed call as the end of a command: `doing` says what could not be done («cannot list files»).
    pub fn failed(&self, doing: &str, error: &ClientError) -> CliError {
        let failed = CliError::failed(format!("{doing}: {error}"));
        match self.hint(error) {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    }

    fn hint(&self, error: &ClientError) -> Option<String> {
        if let ClientError::Net(NetError::Connect { peer, .. }) = error {
            let from = &self.api_from;
            let is_api = self.calls().base_url().ends_with(peer);
            return is_api
                .then(|| format!("the address comes from {from}; is it right, and is 'littoral up' running?"));
        }
        let from = &self.token_from;
        let hint = match error.code()? {
            ErrorCode::Unauthorized if self.token.is_none() => {
                format!("no token was sent: looked at {from}; 'littoral up' keeps one in its data folder (--data-dir)")
            }
            ErrorCode::Unauthorized => format!("the token comes from {from}; is it one of this CDN?"),
            ErrorCode::TokenExpired => {
                format!("the token comes from {from}; an administrator makes a new one with 'littoral tokens add'")
            }
            ErrorCode::Forbidden => {
                format!("the token comes from {from}; 'littoral tokens ls' shows what each token permits")
            }
            ErrorCode::UnknownZone => "'littoral zones' lists the zones; 'littoral zones add' makes one".to_owned(),
            ErrorCode::UnknownFile => "'littoral ls' lists the files of a zone".to_owned(),
            ErrorCode::UnknownNode => "'littoral nodes' lists the edges".to_owned(),
            ErrorCode::UnknownToken => "'littoral tokens' lists the tokens".to_owned(),
            _ => return None,
        };
        Some(hint)
    }
}

/// Fails if one of the edges that were waited for has not acknowledged, and names it. `done` says what has happened all
/// the same («uploaded»).
///
/// # Errors
/// Every edge that did not, with what that means.
pub fn check_receipts(done: &str, receipts: &[Receipt]) -> Result<(), CliError> {
    let missing: Vec<String> = receipts
        .iter()
        .filter_map(|receipt| match receipt.state {
            ReceiptState::Applied => None,
            ReceiptState::Timeout => Some(format!("{} (no answer within {:.0} ms)", receipt.node, receipt.ms)),
            ReceiptState::Dead => Some(format!("{} (counted as dead, not waited for)", receipt.node)),
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(format!("{done}, but not acknowledged by {}", missing.join(", "))).with_hint(
        "an edge catches up before it serves again as fresh; 'littoral nodes' shows how far each is, 'littoral nodes rm \
         NAME' forgets one that is gone for good",
    ))
}

/// Prints what each edge answered, if somebody waited for that.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_receipts(out: &Out, receipts: &[Receipt]) -> Result<(), CliError> {
    if receipts.is_empty() {
        return Ok(());
    }
    let rows = receipts.iter().map(|receipt| {
        let state = match receipt.state {
            ReceiptState::Applied => "applied",
            ReceiptState::Timeout => "timeout",
            ReceiptState::Dead => "dead",
        };
        vec![receipt.node.to_string(), state.to_owned(), format!("{:.1} ms", receipt.ms)]
    });
    out.table(&["EDGE", "STATE", "TIME"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Problem;

    fn hint(error: ClientError, token: Option<&str>) -> String {
        let token = token.map(|text| TokenSecret::parse(text).expect("token"));
        let session = Session::new("http://x:1", "--api".into(), token, "PLACE".into());
        session.failed("cannot", &error).report(false)
    }

    #[test]
    fn failures_say_where_address_and_token_come_from() {
        let refused = NetError::Connect { peer: "x:1".into(), why: "Connection refused".into() };
        let shown = hint(refused.into(), None);
        assert!(shown.starts_with("error: cannot: cannot connect to x:1: Connection refused\nhint: "), "{shown}");
        assert!(shown.contains("--api"), "{shown}");
        let problem = |code| ClientError::from(Problem::new(code, "detail"));
        assert!(hint(problem(ErrorCode::Unauthorized), None).contains("looked at PLACE"));
        let wrong = hint(problem(ErrorCode::Unauthorized), Some("lit_secret"));
        assert!(wrong.contains("comes from PLACE") && !wrong.contains("lit_secret"), "{wrong}");
        assert_eq!(hint(problem(ErrorCode::Conflict), None), "error: cannot: detail\n");
    }

    #[test]
    fn an_edge_that_did_not_acknowledge_is_named() {
        let receipt = |node: &str, state| Receipt { node: node.parse().expect("name"), state, ms: 5_000.0 };
        let applied = receipt("a", ReceiptState::Applied);
        assert!(check_receipts("purged", std::slice::from_ref(&applied)).is_ok());
        let all = [applied, receipt("b", ReceiptState::Timeout), receipt("c", ReceiptState::Dead)];
        let error = check_receipts("purged", &all).expect_err("two are missing").to_string();
        assert_eq!(
            error,
            "purged, but not acknowledged by b (no answer within 5000 ms), c (counted as dead, not waited for)"
        );
    }
}
