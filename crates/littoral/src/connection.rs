//! How the command line and `up` speak to the API: two clients of one address, and what may be repeated.
//!
//! Two, because their patience differs: the answer to an upload comes after its whole body, which may take hours, while
//! any other answer comes within seconds. Uploads are watched for progress instead ([`crate::publish`]).

use std::future::Future;
use std::time::Duration;

use api::{ErrorCode, TokenSecret};
use client::{Client, ClientError};
use net::{ClientLimits, HttpClient, NetError};

/// Longest time that an upload may take in all, in milliseconds: a week.
const UPLOAD_HEAD_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// How often a read that failed on its way is repeated.
const READ_RETRIES: u32 = 2;
/// The pause before the first repetition, in milliseconds; it doubles with each.
const RETRY_PAUSE_MS: u64 = 200;

/// A way to the API of one CDN. Cloning shares the connections.
#[derive(Clone)]
pub struct Connection {
    /// For everything that is answered soon.
    pub calls: Client,
    /// For requests that carry the content of files.
    pub uploads: Client,
}

impl Connection {
    /// A way to `api` (`http://host:port`), presenting `token`.
    pub fn new(api: &str, token: Option<&TokenSecret>) -> Self {
        let patient = ClientLimits { head_ms: UPLOAD_HEAD_MS, ..ClientLimits::default() };
        Self {
            calls: Client::new(HttpClient::new(ClientLimits::default()), api, token),
            uploads: Client::new(HttpClient::new(patient), api, token),
        }
    }
}

/// Calls something that changes nothing, again (at most twice) where the failure may be gone the next time: a connection
/// that broke, or a role behind the API that was away or busy. Nobody listening is not repeated: the answer would be late
/// and the same.
///
/// # Errors
/// That of the last call.
pub async fn retry<T, F, R>(mut call: F) -> Result<T, ClientError>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, ClientError>>,
{
    let mut failed = 0;
    loop {
        match call().await {
            Err(error) if failed < READ_RETRIES && may_pass(&error) => {
                tokio::time::sleep(Duration::from_millis(RETRY_PAUSE_MS << failed)).await;
                failed += 1;
            }
            answer => return answer,
        }
    }
}

fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Net(NetError::Exchange { .. }) => true,
        ClientError::Net(_) | ClientError::Unexpected { .. } => false,
        ClientError::Problem(problem) => {
            matches!(problem.code, ErrorCode::Overloaded | ErrorCode::UpstreamUnreachable | ErrorCode::UpstreamTimeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Problem;

    /// How often a call that always fails with `error` is made.
    async fn calls(error: impl Fn() -> ClientError) -> u32 {
        let mut calls = 0;
        let answer: Result<(), _> = retry(|| {
            calls += 1;
            std::future::ready(Err(error()))
        })
        .await;
        assert!(answer.is_err());
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_repeated_and_only_twice() {
        let peer = || "x:1".to_owned();
        assert_eq!(calls(|| NetError::Exchange { peer: peer(), why: "reset".into() }.into()).await, 3);
        assert_eq!(calls(|| Problem::new(ErrorCode::Overloaded, "busy").into()).await, 3);
        assert_eq!(calls(|| NetError::Connect { peer: peer(), why: "refused".into() }.into()).await, 1);
        assert_eq!(calls(|| NetError::Timeout { peer: peer(), ms: 1 }.into()).await, 1);
        assert_eq!(calls(|| Problem::new(ErrorCode::UnknownFile, "no").into()).await, 1);
    }
}
