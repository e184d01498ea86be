//! The rows of the comparison: what is asked for, how, and of servers with how many workers.

/// The Zipf row: how many objects, how large, how skewed, and how many requests until they repeat.
pub(crate) const ZIPF_OBJECTS: usize = 10_000;
pub(crate) const ZIPF_BODY_BYTES: usize = 4_096;
pub(crate) const ZIPF_EXPONENT: f64 = 0.9;
pub(crate) const ZIPF_DRAWS: usize = 200_000;
/// Connections of the rows with small bodies.
const CONNECTIONS: usize = 64;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What the generators do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// One object, HTTP/1.1, connections kept.
    Small { bytes: usize, connections: usize },
    /// Many objects, some of them much more often than others; HTTP/1.1.
    Zipf,
    /// One object of many megabytes.
    Large { bytes: usize },
    /// One object over HTTP/2, many streams on few connections.
    Streams { bytes: usize },
    /// A connection for each request, with a full TLS handshake.
    Handshakes { bytes: usize },
    /// Another object with each request.
    Misses { bytes: usize },
    /// Connections that are kept, and ask for nothing.
    Idle,
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// As `--rows` names it.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    pub(crate) tls: bool,
    /// Workers of each server, and cores.
    pub(crate) workers: usize,
}

impl Row {
    /// Every row, in the order of the table.
    pub(crate) const ALL: [Self; 20] = [
        one("1k", "1 KiB, HTTP/1.1", Load::Small { bytes: KIB, connections: CONNECTIONS }, false),
        one("64k", "64 KiB, HTTP/1.1", Load::Small { bytes: 64 * KIB, connections: CONNECTIONS }, false),
        one("100m", "100 MiB, HTTP/1.1", Load::Large { bytes: 100 * MIB }, false),
        one("zipf", "Zipf(0.9), 10,000 × 4 KiB", Load::Zipf, false),
        one("1k-tls", "1 KiB, TLS 1.3, HTTP/1.1", Load::Small { bytes: KIB, connections: CONNECTIONS }, true),
        one("64k-tls", "64 KiB, TLS 1.3, HTTP/1.1", Load::Small { bytes: 64 * KIB, connections: CONNECTIONS }, true),
        one("h2", "1 KiB, HTTP/2 over TLS, 8 × 32 streams", Load::Streams { bytes: KIB }, true),
        one("handshake", "full TLS handshake per request", Load::Handshakes { bytes: KIB }, true),
        one("miss", "misses, 1 KiB, HTTP/1.1", Load::Misses { bytes: KIB }, false),
        one("idle", "idle connections", Load::Idle, false),
        one("idle-tls", "idle connections, TLS 1.3", Load::Idle, true),
        two("1k-2", "1 KiB, HTTP/1.1", Load::Small { bytes: KIB, connections: CONNECTIONS }, false),
        two("64k-2", "64 KiB, HTTP/1.1", Load::Small { bytes: 64 * KIB, connections: CONNECTIONS }, false),
        two("100m-2", "100 MiB, HTTP/1.1", Load::Large { bytes: 100 * MIB }, false),
        two("zipf-2", "Zipf(0.9), 10,000 × 4 KiB", Load::Zipf, false),
        two("1k-tls-2", "1 KiB, TLS 1.3, HTTP/1.1", Load::Small { bytes: KIB, connections: CONNECTIONS }, true),
        two("64k-tls-2", "64 KiB, TLS 1.3, HTTP/1.1", Load::Small { bytes: 64 * KIB, connections: CONNECTIONS }, true),
        two("h2-2", "1 KiB, HTTP/2 over TLS, 8 × 32 streams", Load::Streams { bytes: KIB }, true),
        two("handshake-2", "full TLS handshake per request", Load::Handshakes { bytes: KIB }, true),
        two("miss-2", "misses, 1 KiB, HTTP/1.1", Load::Misses { bytes: KIB }, false),
    ];

    /// Whether the edge is asked with eviction off, too: hits on two threads, which note each use for whom to let go.
    pub(crate) fn shows_eviction(&self) -> bool {
        self.workers == 2 && !self.tls && matches!(self.load, Load::Small { bytes: KIB, .. } | Load::Zipf)
    }

    /// What a cache must have before the row is measured.
    pub(crate) fn warm_paths(&self) -> Vec<(String, usize)> {
        match self.load {
            Load::Small { bytes, .. }
            | Load::Large { bytes }
            | Load::Streams { bytes }
            | Load::Handshakes { bytes } => vec![(format!("/{bytes}/hit"), bytes)],
            Load::Zipf => (1..=ZIPF_OBJECTS).map(|n| (format!("/{ZIPF_BODY_BYTES}/{n}"), ZIPF_BODY_BYTES)).collect(),
            Load::Misses { bytes } => vec![(format!("/{bytes}/warm"), bytes)],
            Load::Idle => vec![(format!("/{KIB}/hit"), KIB)],
        }
    }
}

const fn one(name: &'static str, title: &'static str, load: Load, tls: bool) -> Row {
    Row { name, title, load, tls, workers: 1 }
}

const fn two(name: &'static str, title: &'static str, load: Load, tls: bool) -> Row {
    Row { name, title, load, tls, workers: 2 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Load, Row};

    #[test]
    fn each_row_has_a_name_of_its_own_and_every_load_has_two_cores_too() {
        let names: BTreeSet<_> = Row::ALL.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), Row::ALL.len());
        for row in Row::ALL.iter().filter(|row| row.workers == 1 && row.load != Load::Idle) {
            let other = Row::ALL.iter().find(|other| other.name == format!("{}-2", row.name)).unwrap();
            assert_eq!((other.load, other.tls, other.workers), (row.load, row.tls, 2));
        }
    }
}
