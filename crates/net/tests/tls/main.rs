//! TLS towards clients and the PROXY protocol, over real sockets: handshakes, certificates and their exchange, and what is
//! refused.

#![cfg(test)]

mod certificates;
mod files;
mod handshakes;
mod kit;
mod proxies;
