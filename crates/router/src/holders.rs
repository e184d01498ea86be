//! Who holds a file: asked of control, remembered for a second.
//!
//! The answer only decides between edges, so a request never waits long for it and never fails without it: after
//! [`LOOKUP_MS`], with [`MAX_LOOKUPS`] under way, or for a second after control failed, nobody is known to hold the file.
//! The memory is two maps: entries are written to the younger, and when that is half the bound it becomes the older, so
//! that at most [`MAX_ENTRIES`] are held and nothing needs to be searched for. The mutex is never held across a wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::NodeName;
use api::addressing::Target;
use client::node::FileKey;
use client::{Client, ClientError};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// Files remembered.
const MAX_ENTRIES: usize = 10_000;
/// How long an answer counts, in milliseconds. Also how long control is left alone after it failed.
const KEEP_MS: u64 = 1_000;
/// How long a request waits for control, in milliseconds.
const LOOKUP_MS: u64 = 200;
/// Lookups under way at the same time.
const MAX_LOOKUPS: usize = 64;

/// Names of edges.
pub(crate) type Holders = Arc<[NodeName]>;

pub(crate) struct HolderCache {
    memory: Mutex<Memory>,
    lookups: Semaphore,
}

#[derive(Default)]
struct Memory {
    younger: HashMap<String, (Holders, Instant)>,
    older: HashMap<String, (Holders, Instant)>,
    failed_at: Option<Instant>,
}

impl HolderCache {
    pub(crate) fn new() -> Self {
        Self { memory: Mutex::default(), lookups: Semaphore::new(MAX_LOOKUPS) }
    }

    /// The edges that are known to hold the current version of a file.
    pub(crate) async fn of(&self, control: &Client, target: &Target, metrics: &Metrics) -> Holders {
        let key = target.own_path();
        if let Some(holders) = self.memory().get(&key, Instant::now()) {
            metrics.lookup("remembered");
            return holders;
        }
        let Some(_place) = self.lookups.try_acquire().ok().filter(|_| !self.memory().resting(Instant::now())) else {
            metrics.lookup("skipped");
            return Holders::default();
        };
        let file = match target {
            Target::Path { zone, path } => FileKey::Path(zone.name.clone(), path.clone()),
            Target::Id { id, .. } => FileKey::Id(*id),
        };
        let asked = tokio::time::timeout(Duration::from_millis(LOOKUP_MS), control.holders(&file)).await;
        let holders: Holders = match asked {
            Ok(Ok(holders)) => holders.nodes.into(),
            // Control answered: the file is not there, for example. The edge says so to the client.
            Ok(Err(ClientError::Problem(problem))) if problem.http_status().is_client_error() => Holders::default(),
            Ok(Err(_)) | Err(_) => {
                metrics.lookup("failed");
                self.memory().failed_at = Some(Instant::now());
                return Holders::default();
            }
        };
        metrics.lookup("asked");
        self.memory().put(key, holders.clone(), Instant::now());
        holders
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn get(&self, key: &str, now: Instant) -> Option<Holders> {
        let (holders, since) = self.younger.get(key).or_else(|| self.older.get(key))?;
        recent(*since, now).then(|| holders.clone())
    }

    fn put(&mut self, key: String, holders: Holders, now: Instant) {
        self.failed_at = None;
        if self.younger.len() >= MAX_ENTRIES / 2 {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(key, (holders, now));
    }

    fn resting(&self, now: Instant) -> bool {
        self.failed_at.is_some_and(|since| recent(since, now))
    }
}

fn recent(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < Duration::from_millis(KEEP_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_a_second_and_bounded() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let holders: Holders = vec!["a".parse().expect("name")].into();
        memory.put("x".into(), holders.clone(), start);
        assert_eq!(memory.get("x", after(KEEP_MS - 1)), Some(holders.clone()));
        assert_eq!(memory.get("x", after(KEEP_MS)), None);
        assert_eq!(memory.get("y", start), None);
        for n in 0..3 * MAX_ENTRIES {
            memory.put(n.to_string(), holders.clone(), start);
            assert!(memory.younger.len() + memory.older.len() <= MAX_ENTRIES);
        }
        let newest = 3 * MAX_ENTRIES - MAX_ENTRIES / 2;
        assert!((newest..3 * MAX_ENTRIES).all(|n| memory.get(&n.to_string(), start).is_some()));
    }

    #[test]
    fn after_a_failure_control_is_left_alone() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        assert!(!memory.resting(start));
        memory.failed_at = Some(start);
        assert!(memory.resting(start + Duration::from_millis(KEEP_MS - 1)));
        assert!(!memory.resting(start + Duration::from_millis(KEEP_MS)));
        memory.put("x".into(), Holders::default(), start);
        assert!(!memory.resting(start));
    }
}
