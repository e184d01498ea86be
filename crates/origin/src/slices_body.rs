//! Content as a response body: slice by slice, each verified before its first byte is sent.
//!
//! At most [`READ_AHEAD_SLICES`] slices are at hand while the connection takes one. The first slice is read before the
//! head of the response is sent, so that a blob that is bad from the start is a problem and not a broken transfer.

use std::sync::Arc;

use api::slices::slice_range;
use api::{Digest, SLICE_BYTES};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_cache::Piece;
use net::{Body, BodyError};
use objects::BlobError;
use tokio::sync::OwnedSemaphorePermit;

use crate::Shared;

/// Slices of one response that are read at the same time.
const READ_AHEAD_SLICES: usize = 2;

/// One thing to send.
enum Part {
    Text(String),
    /// Bytes `from..to` of the slice `index`.
    Slice {
        index: u64,
        from: usize,
        to: usize,
    },
}

/// A body of these pieces of the blob `digest` of `size` bytes. `permit` is held until the body has been sent.
pub(crate) async fn body(
    shared: &Arc<Shared>,
    digest: Digest,
    size: u64,
    pieces: Vec<Piece>,
    permit: OwnedSemaphorePermit,
) -> Result<Body, BlobError> {
    // Of several ranges, the framing of the first comes before its bytes.
    let first_slice = if matches!(pieces.first(), Some(Piece::Text(_))) { 2 } else { 1 };
    let reader = Arc::clone(shared);
    let read = move |part| {
        let shared = Arc::clone(&reader);
        async move {
            match part {
                Part::Text(text) => Ok(Bytes::from(text)),
                Part::Slice { index, from, to } => {
                    let slice = shared.blobs.slice(digest, size, index).await;
                    // `slice` is as long as the range that `from..to` was cut from.
                    slice.map(|bytes| bytes.slice(from..to)).inspect_err(|error| shared.note_read_error(error))
                }
            }
        }
    };
    let parts = pieces.into_iter().flat_map(move |piece| parts(piece, size));
    let mut bytes = Box::pin(stream::iter(parts).map(read).buffered(READ_AHEAD_SLICES));

    let mut ready = Vec::with_capacity(first_slice);
    while ready.len() < first_slice {
        let Some(next) = bytes.next().await else { break };
        ready.push(next?);
    }
    let sent = shared.metrics.sent.clone();
    let all = stream::iter(ready.into_iter().map(Ok)).chain(bytes).map(move |next| {
        let _until_the_end = &permit;
        sent.inc_by(next.as_ref().map_or(0, Bytes::len) as u64);
        next.map_err(BodyError::from)
    });
    Ok(Body::stream(all))
}

/// Cuts a piece where slices end.
fn parts(piece: Piece, size: u64) -> impl Iterator<Item = Part> + Send {
    let (text, span) = match piece {
        Piece::Text(text) => (Some(Part::Text(text)), None),
        Piece::Span(span) => (None, Some(span)),
    };
    let slices = span.into_iter().flat_map(move |span| {
        (span.first / SLICE_BYTES..=span.last / SLICE_BYTES).map(move |index| {
            let slice = slice_range(size, index);
            // Both are positions within one slice.
            let from = span.first.max(slice.start) - slice.start;
            let to = span.last.saturating_add(1).min(slice.end) - slice.start;
            Part::Slice { index, from: from as usize, to: to as usize }
        })
    });
    text.into_iter().chain(slices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_cache::ByteRange;

    #[test]
    fn spans_are_cut_where_slices_end() {
        let s = SLICE_BYTES;
        let size = 3 * s + 10;
        for (first, last, expected) in [
            (0, 0, vec![(0, 0, 1)]),
            (0, s - 1, vec![(0, 0, s)]),
            (s - 1, s, vec![(0, s - 1, s), (1, 0, 1)]),
            (5, size - 1, vec![(0, 5, s), (1, 0, s), (2, 0, s), (3, 0, 10)]),
            (3 * s + 9, 3 * s + 9, vec![(3, 9, 10)]),
        ] {
            let found: Vec<_> = parts(Piece::Span(ByteRange { first, last }), size)
                .map(|part| match part {
                    Part::Slice { index, from, to } => (index, from as u64, to as u64),
                    Part::Text(text) => panic!("{text}"),
                })
                .collect();
            assert_eq!(found, expected, "{first}-{last}");
        }
    }
}
