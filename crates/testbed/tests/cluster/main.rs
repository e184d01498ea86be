//! Scenarios on a whole CDN: one test binary, a module for each subject.

#![cfg(test)]

mod access;
mod bad_input;
mod caching;
mod compression;
mod failures;
mod files;
mod films;
mod https;
mod invalidation;
mod pages;
mod pulling;
mod ready;
mod routing;
mod scenarios;
mod slices;
mod slices_hard;
mod slices_unknown;
mod tiers;
mod tools;
mod wire;
