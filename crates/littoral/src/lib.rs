//! The `littoral` program: its command line, and the assembly of the roles.
//!
//! [`cli`] reads the command line and speaks to a running CDN over its API. [`connection`] is what it speaks through,
//! [`publish`] brings whole folders into a zone, [`progress`] shows how far long work has come, and [`sample_site`] is
//! what gets published when nobody says what. Roles meet each other only here, and even here only by their addresses.

pub mod cli;
pub mod connection;
pub mod progress;
pub mod publish;
pub mod sample_site;
