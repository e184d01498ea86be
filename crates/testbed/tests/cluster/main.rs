//! Scenarios on a whole CDN: one test binary, a module for each subject.

mod access;
mod bad_input;
mod caching;
mod failures;
mod files;
mod invalidation;
mod routing;
mod wire;
