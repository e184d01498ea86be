//! The control role: owns the catalog, serves the API without upload bodies, and the stream of events.
//!
//! Everything lasting is in the catalog. In memory are only things that the nodes tell anew: which event each edge has
//! acknowledged ([`wait`]) and who is alive ([`health`]). So control can be killed at any time; the edges join again,
//! acknowledge again, and the monitor hands in its next verdict.
//!
//! A request goes: [`routes`] → permission ([`access`], an extractor at the head of each handler) → parsing ([`input`]) →
//! catalog → answer. Whatever goes wrong becomes a problem document in one place ([`problem`]).

mod access;
mod events;
mod files;
mod health;
mod input;
mod locate;
mod metrics;
mod node_api;
mod nodes;
mod problem;
mod purge;
mod routes;
mod tokens;
mod uploads;
mod urls;
mod wait;
mod zones;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::node::Upstream;
use api::{NewToken, Place, Scope, TokenKind, TokenSecret, ZoneDoc};
use catalog::{Catalog, CatalogError, OpenError, Settings};
use net::ServerLimits;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use health::Verdicts;
use metrics::Metrics;
use urls::PublicUrl;
use wait::Acks;

/// A clock: milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What control needs to know.
#[derive(Clone)]
pub struct ControlConfig {
    /// The file of the catalog. Made if it is not there; its folder must be.
    pub catalog: PathBuf,
    /// Events to keep for readers that are behind.
    pub events_kept: u64,
    /// What URLs of files begin with, for zones that name neither a base URL nor hosts: the router's `http://HOST:PORT`.
    pub public_url: String,
    /// Where the origin is, and where it stands.
    pub origin: Upstream,
    /// Where clients are taken to be who do not say it.
    pub default_place: Place,
    /// Where heartbeats go: the monitor's UDP address.
    pub monitor: Option<SocketAddr>,
    /// Limits of the listener.
    pub limits: ServerLimits,
    /// The time.
    pub clock: Clock,
}

impl ControlConfig {
    /// A configuration with the defaults: the origin's place also for clients, no monitor, and the system's clock.
    pub fn new(catalog: PathBuf, public_url: String, origin: Upstream) -> Self {
        Self {
            catalog,
            events_kept: catalog::EVENTS_KEPT,
            public_url,
            default_place: origin.place,
            origin,
            monitor: None,
            limits: ServerLimits::default(),
            clock: Arc::new(system_clock_ms),
        }
    }
}

/// Why control cannot start, or cannot prepare its catalog.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The catalog cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The catalog refused a first token or zone.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A URL of the configuration is none.
    #[error("{setting}: {given:?} is not of the form http://HOST:PORT")]
    Url {
        /// Which setting.
        setting: &'static str,
        /// What it says.
        given: String,
    },
}

/// Control, ready to run.
pub struct Control {
    state: Arc<State>,
    limits: ServerLimits,
}

/// What all requests share.
pub(crate) struct State {
    catalog: Catalog,
    public_url: PublicUrl,
    origin: Upstream,
    default_place: Place,
    monitor: Option<SocketAddr>,
    clock: Clock,
    acks: Acks,
    verdicts: Verdicts,
    streams: Arc<Semaphore>,
    metrics: Metrics,
    /// Ends the event streams, which would otherwise go on for ever.
    ending: CancellationToken,
}

impl Control {
    /// Opens the catalog and registers the metrics.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn open(config: ControlConfig, registry: &mut Registry) -> Result<Self, ControlError> {
        let url = |setting, given: &str| {
            PublicUrl::parse(given).ok_or_else(|| ControlError::Url { setting, given: given.to_owned() })
        };
        let public_url = url("public_url", &config.public_url)?;
        let origin_url = url("origin.url", &config.origin.url)?.as_str().to_owned();
        let settings = Settings { events_kept: config.events_kept, ..Settings::default() };
        let catalog = Catalog::open(&config.catalog, settings).await?;
        let state = State {
            catalog,
            public_url,
            origin: Upstream { url: origin_url, place: config.origin.place },
            default_place: config.default_place,
            monitor: config.monitor,
            clock: config.clock,
            acks: Acks::default(),
            verdicts: Verdicts::default(),
            streams: Arc::new(Semaphore::new(events::MAX_EVENT_STREAMS)),
            metrics: Metrics::new(registry),
            ending: CancellationToken::new(),
        };
        Ok(Self { state: Arc::new(state), limits: config.limits })
    }

    /// Sees to it that there is a token with this secret. One that is there stays as it is.
    ///
    /// # Errors
    /// The catalog failed.
    pub async fn ensure_token(
        &self,
        label: &str,
        kind: TokenKind,
        scopes: &[Scope],
        secret: &TokenSecret,
    ) -> Result<(), ControlError> {
        let catalog = &self.state.catalog;
        if catalog.token_by_hash(&secret.hash()).await?.is_some() {
            return Ok(());
        }
        let token = NewToken { label: label.to_owned(), kind, scopes: scopes.to_vec(), expires_in_s: None };
        catalog.create_token(token, secret.hash(), self.state.now_ms()).await?;
        Ok(())
    }

    /// Sees to it that there is a zone of this name. One that is there stays as it is; answers whether it is new.
    ///
    /// # Errors
    /// The catalog failed, or another zone has the hosts or catches all.
    pub async fn ensure_zone(&self, zone: &ZoneDoc) -> Result<bool, ControlError> {
        match self.state.catalog.zone(&zone.name).await {
            Ok(_) => Ok(false),
            Err(CatalogError::UnknownZone(_)) => {
                self.state.catalog.put_zone(zone.clone(), self.state.now_ms()).await?;
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The identity of the catalog.
    pub fn catalog_id(&self) -> &str {
        self.state.catalog.catalog_id()
    }

    /// Serves on `listener` until `shutdown`; then ends the event streams, finishes requests and closes the catalog.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let state = &self.state;
        let serve = net::serve(listener, routes::router(state.clone()), self.limits, shutdown.clone());
        let end_streams = async {
            shutdown.cancelled().await;
            state.ending.cancel();
        };
        tokio::join!(serve, end_streams, metrics::tally(state));
        state.catalog.close().await;
    }
}

impl State {
    fn now_ms(&self) -> u64 {
        (self.clock)()
    }
}

fn system_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
