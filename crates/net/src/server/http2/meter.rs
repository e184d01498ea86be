//! Counts what costs work and brings nothing: control frames, empty DATA, requests beyond the streams at once. Whoever asks for
//! something, or takes what was asked for, may send more of them.

use std::time::Instant;

/// Such frames that a client may send at once without asking for anything.
const FRAMES: u32 = 1_000;
/// What a request counts that is refused: its fields were unpacked.
const FRAMES_OF_REFUSED: u32 = 4;
/// Those that it earns with a request,
const FRAMES_PER_REQUEST: u32 = 2;
/// with each 1 KiB that it takes of responses,
const BYTES_PER_FRAME: usize = 1 << 10;
/// and with each second.
const FRAMES_PER_SECOND: u32 = 50;

#[derive(Debug)]
pub(crate) struct Meter {
    /// Frames that may still come.
    left: u32,
    /// Bytes written that have earned no frame yet.
    written: usize,
    /// When `left` was last filled up by time; only looked at when it is used up.
    since: Instant,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { left: FRAMES, written: 0, since: Instant::now() }
    }

    /// A frame that brings nothing. Whether it is part of a flood.
    #[must_use]
    pub(crate) fn is_flooded(&mut self) -> bool {
        self.is_flooded_by(1)
    }

    /// A request beyond the streams at once. Whether it is part of a flood.
    #[must_use]
    pub(crate) fn is_flooded_with_requests(&mut self) -> bool {
        self.is_flooded_by(FRAMES_OF_REFUSED)
    }

    fn is_flooded_by(&mut self, frames: u32) -> bool {
        if let Some(left) = self.left.checked_sub(frames) {
            self.left = left;
            return false;
        }
        let seconds = u32::try_from(self.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.since = Instant::now();
        self.earn(seconds.saturating_mul(FRAMES_PER_SECOND));
        seconds == 0
    }

    /// A request.
    pub(crate) fn asked(&mut self) {
        self.earn(FRAMES_PER_REQUEST);
    }

    /// The client has taken these bytes.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        self.earn(u32::try_from(self.written / BYTES_PER_FRAME).unwrap_or(u32::MAX));
        self.written %= BYTES_PER_FRAME;
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(FRAMES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_that_nothing_else_stands_against() {
        let mut meter = Meter::new();
        meter.asked();
        for _ in 0..FRAMES {
            assert!(!meter.is_flooded());
        }
        meter.asked();
        assert!(!meter.is_flooded() && !meter.is_flooded());
        meter.wrote(BYTES_PER_FRAME - 1);
        meter.wrote(1);
        assert!(!meter.is_flooded());
        meter.since = Instant::now();
        assert!(meter.is_flooded());
    }

    #[test]
    fn time_forgives() {
        let Some(past) = Instant::now().checked_sub(std::time::Duration::from_secs(3)) else { return };
        let mut meter = Meter { left: 0, since: past, written: 0 };
        assert!(!meter.is_flooded() && meter.left >= 3 * FRAMES_PER_SECOND);
    }
}
