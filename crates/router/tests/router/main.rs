//! A router on real sockets, between a control and edges that do what the test wants.

#![cfg(test)]

mod fakes;
mod proxying;
mod redirecting;
mod staying;
