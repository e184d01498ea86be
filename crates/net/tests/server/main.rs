//! The server as its clients meet it: raw bytes and real clients over real sockets.

#![cfg(test)]

mod bodies;
mod floods;
mod http2;
mod informational;
mod kit;
mod limits;
mod pages;
mod refused;
mod responses;
mod upgrades;
