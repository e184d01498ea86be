//! The `littoral` program: its command line, and the assembly of the roles.
//!
//! Speaking to a CDN: [`cli`] reads the command line, [`connection`] is what it speaks through, [`publish`] brings whole
//! folders into a zone, [`progress`] shows how far long work has come.
//!
//! Being one: [`up`], [`roles`] and [`front`] (an edge in front of a website) are the commands that start roles, [`config`] reads their file, [`assembly`] starts
//! them, [`local`] is a whole CDN in one process, [`datadir`] its folder, [`doors`] its
//! listeners with their certificates, [`authority`] what signs those of `up`, [`handover`] how a new process takes the place of an old one, [`admin`] its admin listener, and [`sample_site`]
//! what it publishes when nobody says what. Roles meet each other only here, and even here only by their addresses.

pub mod admin;
pub mod assembly;
pub mod authority;
pub mod cli;
pub mod config;
pub mod connection;
pub mod datadir;
mod descriptors;
pub mod doors;
pub mod front;
pub mod handover;
pub mod local;
pub mod logging;
mod notify;
pub mod progress;
pub mod publish;
pub mod roles;
pub mod sample_site;
pub mod tiers;
mod tls_metrics;
pub mod up;
