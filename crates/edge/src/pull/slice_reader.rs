//! A reader of a body in slices: each slice from the store, else from the run that brings it, else from a run of its own.
//!
//! A run asks with `If-Range`: what has changed at the origin is never mixed with what is stored, but ends the transfer.

use std::ops::Range;
use std::sync::Arc;

use api::SLICE_BYTES;
use bytes::Bytes;

use crate::disk::Opened;
use crate::pull::by_range::Origin;
use crate::pull::growing::{self, Growing};
use crate::pull::runs::Seat;
use crate::pull::sliced::{CHANGED, Sliced};

/// A reader of a span of a body in slices.
pub(crate) struct SliceReader {
    origin: Origin,
    sliced: Arc<Sliced>,
    seat: Option<Seat>,
    now: Option<growing::Reader>,
    /// A stored slice that is being read.
    here: Option<(u64, Bytes)>,
    opened: Opened,
    failures: u32,
}

/// Bytes of a stored slice that are handed on at a time.
const PIECE_BYTES: u64 = 128 << 10;
/// Slices that one exchange with the origin brings at most.
const MAX_RUN_SLICES: u64 = 1_024;
/// How often in a row a reader may be let down before its transfer breaks.
const MAX_FAILURES: u32 = 3;

impl SliceReader {
    /// A reader that asks `origin` for what is missing.
    pub(crate) fn new(origin: Origin, sliced: Arc<Sliced>) -> Self {
        Self { origin, sliced, seat: None, now: None, here: None, opened: Opened::default(), failures: 0 }
    }

    /// Some of the bytes from `at` on, which are wanted up to `end`.
    ///
    /// # Errors
    /// The word for why they cannot be had.
    pub(crate) async fn next(&mut self, at: u64, end: u64) -> Result<Bytes, &'static str> {
        loop {
            let index = at / SLICE_BYTES;
            let slice = self.sliced.bytes_of(index);
            let most = slice.end.min(end).saturating_sub(at);
            let failed = if let Some(reader) = &mut self.now {
                match reader.next(most).await {
                    Ok(Some(bytes)) => {
                        self.failures = 0;
                        if at + bytes.len() as u64 >= slice.end.min(end) {
                            self.now = None;
                        }
                        return Ok(bytes);
                    }
                    Ok(None) => "closed-early",
                    Err(word) => word,
                }
            } else if let Some(bytes) = self.stored(index, at, most).await {
                self.failures = 0;
                return Ok(bytes);
            } else {
                match self.coming(at, end).await {
                    Ok(growing) => {
                        self.now = growing.read(at - slice.start);
                        continue;
                    }
                    Err(word) => word,
                }
            };
            (self.now, self.seat) = (None, None);
            self.failures += 1;
            if failed == CHANGED || self.failures >= MAX_FAILURES {
                return Err(failed);
            }
        }
    }

    /// At most `most` bytes from `at` on, out of a stored slice.
    async fn stored(&mut self, index: u64, at: u64, most: u64) -> Option<Bytes> {
        if let Some(seat) = &self.seat
            && seat.run.has_for_reader(index)
        {
            return None; // the run holds it for its readers
        }
        let bytes = match self.here.take().filter(|(before, _)| *before == index) {
            Some((_, bytes)) => bytes,
            None => self.sliced.read(&self.origin.node, &mut self.opened, index).await?,
        };
        self.seat = None;
        let from = usize::try_from(at - self.sliced.bytes_of(index).start).ok()?;
        let to = from.checked_add(usize::try_from(most.min(PIECE_BYTES)).ok()?)?;
        let piece = (from < to && to <= bytes.len()).then(|| bytes.slice(from..to));
        self.here = Some((index, bytes));
        piece
    }

    /// The slice with the byte `at`, as it comes, with a seat in the run that brings it.
    async fn coming(&mut self, at: u64, end: u64) -> Result<Arc<Growing>, &'static str> {
        let index = at / SLICE_BYTES;
        match &self.seat {
            Some(seat) if seat.run.has_for_reader(index) => seat.move_to(index),
            _ => {
                let (seat, begun) = self.sliced.join(index, self.missing(at, end));
                self.seat = Some(seat);
                if let Some(begun) = begun {
                    self.origin.fetch(begun);
                }
            }
        }
        match &self.seat {
            Some(seat) => seat.run.slice(index).await,
            None => Err("abandoned"),
        }
    }

    /// The bytes to ask for: from the slice of `at` up to one that is stored already, or to the end of what is wanted, and then
    /// to the end of its slice where that costs the origin no more than one slice in all.
    fn missing(&self, at: u64, end: u64) -> Range<u64> {
        let sliced = &self.sliced;
        if !sliced.by_range {
            return 0..sliced.length;
        }
        let (index, last) = (at / SLICE_BYTES, end.saturating_sub(1) / SLICE_BYTES);
        let most = index.saturating_add(MAX_RUN_SLICES);
        let stop =
            (index + 1..=last).take_while(|index| *index < most).find(|index| sliced.has(&self.origin.node, *index));
        let start = sliced.bytes_of(index).start;
        match stop {
            Some(stop) => start..sliced.bytes_of(stop).start,
            None if last >= most => start..sliced.bytes_of(most).start,
            None => {
                let whole = sliced.bytes_of(last).end;
                start..if (at - start) + (whole - end) <= SLICE_BYTES { whole } else { end }
            }
        }
    }
}
