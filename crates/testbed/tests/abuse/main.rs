//! Clients that mean no good, many at a time, against an edge in a process of its own: what they cost it in memory and in
//! processor time, that others are served meanwhile, and how each of their connections ends.
//!
//! The bounds are several times what a build without optimisation takes on a slow machine: they tell what is bounded from
//! what is not. `docs/limits.md` has them beside what was measured.

#![cfg(test)]
#![expect(clippy::print_stderr, reason = "what was measured is shown, and the process of the edge says where it is")]

mod edge;
mod frames;
mod http1;
mod http2;
mod measure;
mod tls;
