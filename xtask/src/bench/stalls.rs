//! How often the machine itself stands still: what no server can do better than. Virtual machines lose milliseconds at a time to
//! their host.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::shell::Failed;

/// How long a core is watched before each row.
const WATCHED: Duration = Duration::from_secs(1);
/// The shortest time that counts as a stall. A timer's interrupt takes less.
const STALL: Duration = Duration::from_micros(100);

/// What was seen of a core on which nothing else ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stalls {
    pub(crate) watched: Duration,
    /// Together.
    pub(crate) stalled: Duration,
    pub(crate) longest: Duration,
}

impl Stalls {
    /// Watches the first core, which is the servers'.
    pub(crate) fn watch() -> Result<Self, Failed> {
        let watching = std::thread::spawn(|| {
            let mut first = CpuSet::new();
            first.set(0);
            sched_setaffinity(None, &first)?;
            let begun = Instant::now();
            let (mut last, mut stalls) = (begun, Self::default());
            while stalls.watched < WATCHED {
                let now = Instant::now();
                stalls.note(now - last);
                (last, stalls.watched) = (now, now - begun);
            }
            Ok(stalls)
        });
        watching.join().unwrap_or_else(|_| Err(Failed("whoever watches for stalls panicked".to_owned())))
    }

    /// So much time went by between two looks at the clock.
    fn note(&mut self, gap: Duration) {
        if gap >= STALL {
            self.stalled += gap;
            self.longest = self.longest.max(gap);
        }
    }

    /// These and those.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            watched: self.watched + more.watched,
            stalled: self.stalled + more.stalled,
            longest: self.longest.max(more.longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{STALL, Stalls, WATCHED};
    use std::time::Duration;

    #[test]
    fn only_long_gaps_count() {
        let mut stalls = Stalls::default();
        for gap in [STALL, STALL - Duration::from_nanos(1), 3 * STALL, Duration::ZERO] {
            stalls.note(gap);
        }
        assert_eq!((stalls.stalled, stalls.longest), (4 * STALL, 3 * STALL));
        let both = stalls.and(Stalls { watched: WATCHED, stalled: STALL, longest: STALL });
        assert_eq!(both, Stalls { watched: WATCHED, stalled: 5 * STALL, longest: 3 * STALL });
    }

    #[test]
    fn a_core_is_watched() {
        let stalls = Stalls::watch().unwrap();
        assert!(stalls.watched >= WATCHED && stalls.longest <= stalls.stalled && stalls.stalled <= stalls.watched);
    }
}
