//! What the tests of large bodies share: an edge before an origin that makes them up, and the questions asked of both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use net::Body;
use testbed::eventually;
use testbed::front::{Front, FrontSettings};
use testbed::media::Media;

/// Bytes of a slice.
pub(crate) const S: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// An edge with memory only, and its origin.
pub(crate) async fn both() -> (Front, Media) {
    let media = Media::start().await;
    (Front::start(FrontSettings::of(&media.url)).await, media)
}

/// What the origin was asked for, as `Range` or `whole`.
pub(crate) fn asked(media: &Media) -> Vec<String> {
    media.requests().iter().map(|sent| sent.range.clone().unwrap_or_else(|| "whole".to_owned())).collect()
}

/// Waits until the origin sends nothing more.
pub(crate) async fn rests(media: &Media) {
    let mut sent = 0;
    eventually("the origin rests", || {
        let before = std::mem::replace(&mut sent, media.sent());
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            before > 0 && before == sent
        }
    })
    .await;
}

/// Asks for a range until it is a hit, and returns its bytes.
pub(crate) async fn hit_range(front: &Front, target: &str, first: u64, last: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1_000 {
        let answer = front.range(target, first, last).await;
        bytes = if answer.x_cache() == "HIT" && answer.status == StatusCode::PARTIAL_CONTENT {
            answer.bytes().to_vec()
        } else {
            Vec::new()
        };
        if !bytes.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bytes
}

/// Reads so many bytes of a body, or up to its end.
pub(crate) async fn take(body: &mut Body, bytes: u64) -> Vec<u8> {
    let mut taken = Vec::new();
    while (taken.len() as u64) < bytes {
        let Some(frame) = body.frame().await else { break };
        taken.extend_from_slice(&frame.expect("bytes").into_data().unwrap_or_default());
    }
    taken
}

/// The files under a folder that are larger than so many bytes.
pub(crate) fn files_over(folder: &Path, bytes: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_over(&entry.path(), bytes)),
            Ok(_) if entry.metadata().is_ok_and(|meta| meta.len() > bytes) => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
