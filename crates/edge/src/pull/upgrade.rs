//! A connection that changes its protocol (RFC 9110 § 7.8): WebSocket and the like. From the 101 on, bytes go through as they
//! are, both ways, until one side has ended.

use http::{HeaderValue, Response, header};
use http_cache::hop;
use net::{Body, OnUpgrade, UpstreamUpgraded};

/// The 101 to the client; behind it the two connections are joined.
pub(crate) fn switch(
    response: Response<Body>,
    mut upstream: UpstreamUpgraded,
    on_upgrade: OnUpgrade,
) -> Response<Body> {
    tokio::spawn(async move {
        let mut client = match on_upgrade.upgraded().await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, "the client did not change protocols after all");
                return;
            }
        };
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
            tracing::debug!(%error, "a connection with another protocol broke off");
        }
    });
    let protocol = response.headers().get(header::UPGRADE).cloned();
    let mut response = response.map(|_| Body::empty());
    hop::strip(response.headers_mut());
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    response
}
