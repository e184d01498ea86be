//! The tiers in numbers, for tools. The same numbers are in the metrics ([`crate::tiers_metrics`]).

use api::cache::{CacheClass, CacheStats, CurvePoint, DiskFolderState, DiskFolderStats, DiskStats, MemoryStats};
use shelf::disk::{FolderState, FolderStats};

use crate::node::Node;

/// The numbers of an edge.
pub(super) fn of(node: &Node) -> CacheStats {
    let (memory, policy) = (node.memory(), node.config.policy);
    let counters = memory.counters;
    let class = |(choice, zones): (shelf::PolicyChoice, Vec<_>)| CacheClass {
        eviction: choice.policy.to_string(),
        objective: choice.objective.to_string(),
        zones,
    };
    let disk = node.disk.as_ref().map(|tier| {
        let stats = tier.disk.stats();
        DiskStats {
            hits: stats.hits,
            misses: stats.misses,
            open_files: stats.open_files as u64,
            eviction: policy.policy.to_string(),
            objective: policy.objective.to_string(),
            curve: curve(&tier.curve),
            folders: stats.folders.into_iter().map(folder).collect(),
        }
    });
    CacheStats {
        node: node.config.node.name.clone(),
        memory: MemoryStats {
            entries: memory.entries,
            bytes: memory.bytes,
            limit_bytes: node.config.memory_bytes,
            hits: counters.hits,
            misses: counters.misses,
            admissions: counters.insertions,
            evictions: counters.evictions,
            expired: counters.expired,
            refused: counters.refused,
            eviction: policy.policy.to_string(),
            objective: policy.objective.to_string(),
            classes: node.classes.named().into_iter().map(class).collect(),
            curve: curve(&node.curve),
        },
        disk,
    }
}

fn curve(curve: &shelf::Curve) -> Vec<CurvePoint> {
    let point = |point: &shelf::CurvePoint| CurvePoint {
        factor: point.factor,
        requests: point.request_hit_ratio,
        bytes: point.byte_hit_ratio,
    };
    curve.ratios().iter().map(point).collect()
}

fn folder(stats: FolderStats) -> DiskFolderStats {
    let (state, reason) = match stats.state {
        FolderState::Ok => (DiskFolderState::Ok, None),
        FolderState::ReadOnly(why) => (DiskFolderState::ReadOnly, Some(why)),
        FolderState::Gone(why) | FolderState::Silent(why) => (DiskFolderState::Gone, Some(why)),
    };
    DiskFolderStats {
        path: stats.path.to_string_lossy().into_owned(),
        state,
        reason,
        entries: stats.entries,
        bytes: stats.bytes,
        limit_bytes: stats.limit_bytes,
        index_bytes: stats.index_bytes,
        scanned_permille: stats.scanned_permille,
        reads: stats.reads,
        read_bytes: stats.read_bytes,
        read_errors: stats.read_errors,
        writes: stats.writes,
        written_bytes: stats.written_bytes,
        write_errors: stats.write_errors,
        refused: stats.refused,
        evictions: stats.evictions,
        expired: stats.expirations,
        damaged: stats.flaws.iter().map(|(flaw, count)| (flaw.word().to_owned(), *count)).collect(),
    }
}
