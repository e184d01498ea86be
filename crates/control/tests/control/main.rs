//! Control on a real socket, asked as people, programs and nodes ask it.

#![cfg(test)]

mod access;
mod bad_requests;
mod config;
mod events;
mod files;
mod kit;
mod nodes;
mod pull_zones;
