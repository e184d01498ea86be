//! Health checks: a `GET` on a new connection, over and over, and what its answer says.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request};

use super::Server;
use super::config::{HealthCheck, UpstreamConfigError};
use super::connect::Target;
use super::exchange::{Waits, exchange};
use super::lease::Lease;
use super::pool::{Grant, Pool, Want};
use super::upload::Upload;
use crate::body::Body;

/// How much earlier a check may come than its interval says, as a part of it: not all zones of an edge at once.
const JITTER: f64 = 0.1;

/// A health check that can be sent.
pub(super) struct Probe {
    check: HealthCheck,
    path: PathAndQuery,
    host: Option<HeaderValue>,
}

impl Probe {
    pub(super) fn new(check: HealthCheck) -> Result<Self, UpstreamConfigError> {
        let wrong = |why: String| UpstreamConfigError::HealthCheck { why };
        let path: PathAndQuery = check.path.parse().map_err(|error| wrong(format!("{:?}: {error}", check.path)))?;
        let host = match &check.host {
            Some(host) => Some(HeaderValue::from_str(host).map_err(|error| wrong(format!("{host:?}: {error}")))?),
            None => None,
        };
        for (name, number) in [
            ("health.interval_ms", check.interval_ms),
            ("health.timeout_ms", check.timeout_ms),
            ("health.healthy_after", u64::from(check.healthy_after)),
            ("health.unhealthy_after", u64::from(check.unhealthy_after)),
        ] {
            if number == 0 {
                return Err(UpstreamConfigError::Zero { name });
            }
        }
        Ok(Self { check, path, host })
    }

    /// Asks a server again and again.
    pub(super) async fn run(&self, server: &Server) {
        loop {
            let answer = self.ask(&server.target).await;
            server.health().checked(answer, (self.check.healthy_after, self.check.unhealthy_after));
            let rest = Duration::from_millis(self.check.interval_ms);
            tokio::time::sleep(rest.mul_f64(1.0 - JITTER * fastrand::f64())).await;
        }
    }

    async fn ask(&self, target: &Target) -> Result<(), String> {
        let wait = Duration::from_millis(self.check.timeout_ms);
        let status = tokio::time::timeout(wait, self.status(target))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", self.check.timeout_ms)))?;
        let good = self.check.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status));
        if good { Ok(()) } else { Err(format!("status {status}")) }
    }

    /// A pool of its own for one connection: a full pool must not look like a sick server.
    async fn status(&self, target: &Target) -> Result<u16, String> {
        let wait = Duration::from_millis(self.check.timeout_ms);
        let pool = Pool::new(1, false);
        let slot = match pool.acquire(Want::Any, wait).await {
            Ok(Grant::Open(slot)) => slot,
            Ok(Grant::Reuse(_)) | Err(_) => return Err("no connection".to_owned()),
        };
        let (io, is_http2) = target.connect(false).await.map_err(|error| error.to_string())?;
        let lease = Lease::new(io, is_http2, slot).await.map_err(|error| error.to_string())?;
        let mut request = Request::new(());
        *request.uri_mut() = self.path.clone().into();
        if let Some(host) = &self.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        let waits = Waits { first_byte_ms: self.check.timeout_ms, idle_ms: self.check.timeout_ms };
        let upload = Upload::new(Body::empty());
        let answer = exchange(lease, target, &request.into_parts().0, &upload, waits, None).await;
        pool.close();
        answer.map(|(response, _)| response.status().as_u16()).map_err(|failure| failure.error.to_string())
    }
}

/// Starts a task for each server; they end when they are aborted with the set.
pub(super) fn start(probe: Probe, servers: &[Arc<Server>]) -> tokio::task::JoinSet<()> {
    let probe = Arc::new(probe);
    let mut tasks = tokio::task::JoinSet::new();
    for server in servers {
        let (probe, server) = (Arc::clone(&probe), Arc::clone(server));
        tasks.spawn(async move { probe.run(&server).await });
    }
    tasks
}
