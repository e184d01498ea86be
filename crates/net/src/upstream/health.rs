//! Whether a server is used: by the failures of requests, and by the answers to health checks. Pure; time is an argument.
//!
//! Requests: [`EJECT_AFTER`] failures in a row take a server out for [`EJECT_FIRST_MS`]; each further failure after its
//! return doubles that, up to [`EJECT_MAX_MS`]; a success forgets everything. Health checks: a server is out after so
//! many bad answers in a row, and back after so many good ones. Each of the two alone is enough to take it out.

use std::time::Duration;

use tokio::time::Instant;

/// Failures of requests in a row that take a server out.
pub(super) const EJECT_AFTER: u32 = 3;
/// How long a server is out for the first time, in milliseconds.
pub(super) const EJECT_FIRST_MS: u64 = 1_000;
/// The longest that a server is out before it is tried again, in milliseconds.
pub(super) const EJECT_MAX_MS: u64 = 60_000;

/// What is known of one server.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures_in_row: u32,
    ejections_in_row: u32,
    out_until: Option<Instant>,
    /// Why it was taken out last.
    why: String,
    /// Answers to health checks in a row that speak against the present verdict.
    contrary: u32,
    checked_out: bool,
}

impl Health {
    /// A request was answered.
    pub(super) fn succeeded(&mut self) {
        self.failures_in_row = 0;
        self.ejections_in_row = 0;
        self.out_until = None;
    }

    /// A request failed through the server's fault.
    pub(super) fn failed(&mut self, now: Instant, why: &str) {
        // Requests that were under way when it was taken out say nothing new.
        if self.is_ejected(now) {
            return;
        }
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        if self.failures_in_row < EJECT_AFTER {
            return;
        }
        let out_ms = EJECT_FIRST_MS.saturating_mul(1 << self.ejections_in_row.min(20)).min(EJECT_MAX_MS);
        self.ejections_in_row = self.ejections_in_row.saturating_add(1);
        self.out_until = Some(now + Duration::from_millis(out_ms));
        why.clone_into(&mut self.why);
    }

    /// A health check was answered (`Ok`), or not (why). `after` are the good and the bad answers in a row that count.
    pub(super) fn checked(&mut self, answer: Result<(), String>, (healthy_after, unhealthy_after): (u32, u32)) {
        if answer.is_ok() != self.checked_out {
            self.contrary = 0;
            return;
        }
        self.contrary = self.contrary.saturating_add(1);
        let needed = if self.checked_out { healthy_after } else { unhealthy_after };
        if self.contrary < needed {
            return;
        }
        self.contrary = 0;
        self.checked_out = !self.checked_out;
        match answer {
            // It is well again: what happened to requests before is past.
            Ok(()) => self.succeeded(),
            Err(why) => self.why = why,
        }
    }

    /// Whether requests should go to it, and in words why or why not.
    pub(super) fn verdict(&self, now: Instant) -> (bool, String) {
        match (self.checked_out, self.is_ejected(now)) {
            (true, _) => (false, format!("health check failed: {}", self.why)),
            (false, true) => (false, format!("{} failures in a row: {}", self.failures_in_row, self.why)),
            (false, false) if self.failures_in_row > 0 => (true, format!("{} failures in a row", self.failures_in_row)),
            (false, false) => (true, "well".to_owned()),
        }
    }

    /// Whether requests should go to it.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        !self.checked_out && !self.is_ejected(now)
    }

    /// Failures of requests in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures_in_row
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(health: &mut Health, now: Instant, times: u32) {
        for _ in 0..times {
            health.failed(now, "refused");
        }
    }

    #[test]
    fn failures_in_a_row_eject_for_a_growing_bounded_time() {
        let mut now = Instant::now();
        let mut health = Health::default();
        fail(&mut health, now, EJECT_AFTER - 1);
        health.succeeded();
        fail(&mut health, now, EJECT_AFTER - 1);
        assert!(health.is_usable(now), "a success in between starts the row anew");
        fail(&mut health, now, 1);
        let mut expected_ms = EJECT_FIRST_MS;
        for _ in 0..10 {
            assert!(!health.is_usable(now + Duration::from_millis(expected_ms - 1)), "{expected_ms}");
            // What was under way does not make it longer.
            fail(&mut health, now, 5);
            now += Duration::from_millis(expected_ms);
            assert!(health.is_usable(now), "{expected_ms}");
            fail(&mut health, now, 1);
            expected_ms = (expected_ms * 2).min(EJECT_MAX_MS);
        }
        assert_eq!(expected_ms, EJECT_MAX_MS);
        health.succeeded();
        assert_eq!(health.verdict(now), (true, "well".to_owned()));
        fail(&mut health, now, EJECT_AFTER);
        assert!(health.is_usable(now + Duration::from_millis(EJECT_FIRST_MS)), "short again");
    }

    #[test]
    fn health_checks_need_several_answers_in_a_row() {
        let now = Instant::now();
        let mut health = Health::default();
        let bad = || Err("503".to_owned());
        for (answer, usable) in [
            (bad(), true),
            (Ok(()), true),
            (bad(), true),
            (bad(), false),
            (Ok(()), false),
            (bad(), false),
            (Ok(()), false),
            (Ok(()), false),
            (Ok(()), true),
        ] {
            health.checked(answer.clone(), (3, 2));
            assert_eq!(health.is_usable(now), usable, "{answer:?}");
        }
    }
}
