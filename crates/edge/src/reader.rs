//! The body of a response: pieces of a file, slice by slice, each from the store or from a fetch.
//!
//! While one slice is being sent the next one is already on its way. A reader holds at most two slices, however large
//! the file is and however slow its client, or the compressed form of a file, which is one piece. A slice that cannot be had ends the body with an error: the client sees a
//! broken transfer, never a short success.

use std::collections::VecDeque;
use std::sync::Arc;

use api::{SLICE_BYTES, slices};
use bytes::Bytes;
use futures_util::stream;
use http_cache::{ByteRange, Piece};
use net::{Body, BodyError};

use crate::fetch::{FetchError, fetch_slice};
use crate::flights::Seat;
use crate::head::Head;
use crate::metrics::Active;
use crate::node::{BodyId, Node};

/// A slice that is there or on its way.
pub(crate) enum Arriving {
    Here(Bytes),
    Coming(Seat<Result<Bytes, FetchError>>),
}

impl Arriving {
    pub(crate) async fn bytes(self) -> Result<Bytes, FetchError> {
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::Coming(seat) => seat.result().await.unwrap_or(Err(FetchError::Overloaded)),
        }
    }
}

/// A slice of a file, from the store or fetched together with everybody else who wants it.
pub(crate) fn slice(node: &Arc<Node>, head: &Arc<Head>, index: u64) -> Arriving {
    let key = (BodyId::File(head.digest), index);
    if let Some(bytes) = node.stored_slice(&key) {
        return Arriving::Here(bytes);
    }
    // A slice is named by its digest: no purge makes one wrong, so any flight is good enough.
    let start = || fetch_slice(Arc::clone(node), Arc::clone(head), index);
    match node.slices.join(&key, 0, |_| true, start) {
        Some(seat) => Arriving::Coming(seat),
        None => Arriving::Coming(Seat::landed(Err(FetchError::Overloaded))),
    }
}

/// The slice that the first span of `pieces` begins in.
pub(crate) fn first_slice(pieces: &[Piece]) -> Option<u64> {
    pieces.iter().find_map(|piece| match piece {
        Piece::Span(range) => Some(range.first / SLICE_BYTES),
        Piece::Text(_) => None,
    })
}

/// Whether every slice that `pieces` need is in the store.
pub(crate) fn all_stored(node: &Node, head: &Head, pieces: &[Piece]) -> bool {
    pieces.iter().all(|piece| match piece {
        Piece::Text(_) => true,
        Piece::Span(range) => (range.first / SLICE_BYTES..=range.last / SLICE_BYTES)
            .all(|index| node.is_shelved(head.digest) || node.has_slice(&(BodyId::File(head.digest), index))),
    })
}

/// A body that is here.
pub(crate) fn whole(node: &Node, bytes: Bytes) -> Body {
    node.metrics.sent_bytes.inc_by(bytes.len() as u64);
    Body::full(bytes)
}

/// The body that consists of `pieces`. `first` is the slice that the first span begins in.
pub(crate) fn body(node: Arc<Node>, head: Arc<Head>, pieces: Vec<Piece>, first: Option<Bytes>) -> Body {
    if let ([Piece::Span(range)], Some(slice)) = (pieces.as_slice(), &first)
        && range.first / SLICE_BYTES == range.last / SLICE_BYTES
    {
        return whole(&node, cut(slice, *range).unwrap_or_default());
    }
    let at = first_slice(&pieces);
    let ready = at.zip(first.map(Arriving::Here));
    let active = node.metrics.begin();
    let reader = Reader { node, head, pieces: pieces.into(), ready, _active: active };
    Body::stream(stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => {
                reader.node.metrics.sent_bytes.inc_by(bytes.len() as u64);
                Some((Ok(bytes), Some(reader)))
            }
            Ok(None) => None,
            Err(error) => Some((Err(Box::new(error) as BodyError), None)),
        }
    }))
}

struct Reader {
    node: Arc<Node>,
    head: Arc<Head>,
    pieces: VecDeque<Piece>,
    /// The slice that comes next, where it has been asked for already.
    ready: Option<(u64, Arriving)>,
    /// A body that is being sent is a request in progress.
    _active: Active,
}

impl Reader {
    /// The bytes that come next, at most a slice; nothing at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let range = match self.pieces.pop_front() {
            None => return Ok(None),
            Some(Piece::Text(text)) => return Ok(Some(text.into())),
            Some(Piece::Span(range)) => range,
        };
        let index = range.first / SLICE_BYTES;
        let arriving = match self.ready.take() {
            Some((ready, arriving)) if ready == index => arriving,
            _ => slice(&self.node, &self.head, index),
        };
        let end = slices::slice_range(self.head.size, index).end;
        if range.last >= end {
            self.pieces.push_front(Piece::Span(ByteRange { first: end, last: range.last }));
            let next = end / SLICE_BYTES;
            self.ready = Some((next, slice(&self.node, &self.head, next)));
        }
        let bytes = arriving.bytes().await?;
        let missing = || FetchError::Unusable(format!("slice {index} is shorter than the file says"));
        let part = ByteRange { first: range.first, last: range.last.min(end.saturating_sub(1)) };
        cut(&bytes, part).map(Some).ok_or_else(missing)
    }
}

/// The bytes `range` of the file out of the slice that they lie in.
fn cut(slice: &Bytes, range: ByteRange) -> Option<Bytes> {
    let first = usize::try_from(range.first % SLICE_BYTES).ok()?;
    let last = usize::try_from(range.last % SLICE_BYTES).ok()?;
    (first <= last && last < slice.len()).then(|| slice.slice(first..=last))
}
