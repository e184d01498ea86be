//! Names of the headers that only Littoral's own parts exchange.

/// On origin answers: the zone of the file.
pub const ZONE: &str = "littoral-zone";
/// On origin answers: the path of the file, percent-encoded.
pub const PATH: &str = "littoral-path";
/// On origin answers: the id of the file.
pub const ID: &str = "littoral-id";
/// On origin answers: the version of the file.
pub const VERSION: &str = "littoral-version";
/// On origin answers: BLAKE3 of the whole body, hexadecimal.
pub const DIGEST: &str = "littoral-digest";
/// On router answers: which node was chosen and why.
pub const ROUTE: &str = "littoral-route";
/// On requests from node to node: the node's own token, beside the client's `Authorization`.
pub const NODE_TOKEN: &str = "littoral-node-token";
/// On calls from the origin to control: the `Authorization` of the client it asks for.
pub const CLIENT_AUTHORIZATION: &str = "littoral-client-authorization";
/// What routers put into `Via`.
pub const VIA_ROUTER: &str = "1.1 littoral-router";
