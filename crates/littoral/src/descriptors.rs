//! File descriptors: as many as the process may have, and how many of them are for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for what the disk tier has open.
const DISK: usize = edge::shelf::disk::MAX_OPEN_FILES;
/// Kept for connections to origins.
const ORIGINS: usize = 1_024;
/// Kept for logs, certificates, listeners and the catalog.
const FILES: usize = 256;
/// Connections at most, where there is no limit at all.
const MAX_CONNECTIONS: usize = 1 << 20;

/// Raises the limit of open files as far as it goes, and answers for how many connections that is enough.
pub(crate) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        if let Err(error) = raised {
            tracing::warn!(%error, "cannot raise the limit of open files");
            return enough_for(limit.current);
        }
    }
    enough_for(limit.maximum)
}

/// What is left for connections of so many descriptors; at least half.
fn enough_for(descriptors: Option<u64>) -> usize {
    let Some(all) = descriptors.and_then(|all| usize::try_from(all).ok()) else { return MAX_CONNECTIONS };
    all.saturating_sub(DISK + ORIGINS + FILES).max(all / 2).clamp(1, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_descriptors_are_for_connections() {
        for (descriptors, connections) in [
            (None, MAX_CONNECTIONS),
            (Some(u64::MAX), MAX_CONNECTIONS),
            (Some(0), 1),
            (Some(1_024), 512),
            (Some(20_000), 20_000 - DISK - ORIGINS - FILES),
        ] {
            assert_eq!(enough_for(descriptors), connections, "{descriptors:?}");
        }
    }
}
