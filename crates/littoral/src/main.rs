//! The program. Everything is in the library.

use std::process::ExitCode;

/// It takes memory in huge pages (`.cargo/config.toml` says so to it): what a cache holds is scattered, and each look at it
/// would cost a walk through the page tables, which is longer than the look itself.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    littoral::cli::main()
}
