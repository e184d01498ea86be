//! Uploads, stage by stage: head → begin at control → body to a staging object → blob in place → commit → answer.
//!
//! Until the commit nothing has changed for anybody: whatever goes wrong before it (a bad head, a client that goes away,
//! a wrong digest, a full disk) ends with the staging object removed. From the moment that the body has arrived whole
//! the rest runs as a task of its own, so that a client that goes away then cannot stop it halfway.
//!
//! A blob may be collected between being placed and being committed. Control knows: it refuses such a commit, and the
//! blob is placed again from the staging object, which is kept until a commit is answered. See [`crate::collector`].

use std::sync::Arc;
use std::time::Duration;

use api::names::{FileId, FilePath, ZoneName};
use api::node::{Committed, UploadBegin, UploadCommit, UploadTarget};
use api::{ErrorCode, Problem};
use client::ClientError;
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderValue, Response, StatusCode, request};
use http_body_util::BodyExt;
use net::{Body, Incoming, NetError, ReadError};
use objects::Staged;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::Shared;
use crate::media;
use crate::metrics::UploadOutcome;
use crate::respond::{blob_problem, problem, set};
use crate::upload_head::UploadHead;

/// Commits of one upload, at most, while its blob is being collected.
const MAX_COMMITS: u32 = 50;
/// Between two of them, in milliseconds.
const COMMIT_PAUSE_MS: u64 = 100;
/// What is read of a body that was refused, so that its sender gets to read why, in bytes and milliseconds.
const MAX_DRAIN_BYTES: u64 = 64 << 20;
const MAX_DRAIN_MS: u64 = 5_000;

/// Where an upload goes, as its address says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Destination {
    Path(ZoneName, FilePath),
    Id(FileId),
    Generated(ZoneName),
}

/// Takes an upload. A destination that could not be read is refused here too, so that the body is treated alike.
pub(crate) async fn upload(
    shared: &Arc<Shared>,
    head: request::Parts,
    body: Incoming,
    destination: Result<Destination, Problem>,
) -> Response<Body> {
    let mut progress = shared.metrics.upload();
    let idle = Duration::from_millis(shared.limits.body_idle_ms);
    let mut body = Body::wrap(body).with_idle_timeout(idle);
    let result = match destination {
        Ok(destination) => run(shared, &head, &mut body, destination).await,
        Err(error) => Err(Refusal::Problem(error)),
    };
    let (outcome, response) = match result {
        Ok(committed) if committed.created => (UploadOutcome::Created, answer(&committed)),
        Ok(committed) => (UploadOutcome::Updated, answer(&committed)),
        Err(Refusal::Broken(error)) => (UploadOutcome::Aborted, problem(&error)),
        Err(Refusal::Problem(error)) => {
            tokio::spawn(drain(body));
            let ours = error.http_status().is_server_error();
            (if ours { UploadOutcome::Failed } else { UploadOutcome::Refused }, problem(&error))
        }
    };
    progress.outcome = outcome;
    response
}

/// Why an upload was not taken.
enum Refusal {
    /// There is something wrong with it, or with us.
    Problem(Problem),
    /// The body broke off: perhaps nobody reads the answer.
    Broken(Problem),
}

impl<E: Into<Problem>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

async fn run(
    shared: &Arc<Shared>,
    head: &request::Parts,
    body: &mut Body,
    destination: Destination,
) -> Result<Committed, Refusal> {
    let generated = matches!(destination, Destination::Generated(_));
    let head = UploadHead::parse(&head.headers, head.uri.query(), generated)?;
    let permit = shared.upload_permit()?;
    let begin = UploadBegin {
        authorization: head.authorization.clone(),
        target: target(destination, &head)?,
        conditions: head.conditions.clone(),
    };
    let ready = shared.control.upload_begin(&begin).await.map_err(ClientError::into_problem)?;
    let staged = receive(shared, body, &head).await?;
    let commit = UploadCommit {
        target: begin.target.clone(),
        conditions: begin.conditions.clone(),
        digest: staged.digest,
        size: staged.size,
        sweep: ready.sweep,
        media_type: head.media_type.or_else(|| media::guess(&ready.path)),
        cache_control: head.cache_control,
        tags: head.tags,
        wait: head.wait,
    };
    let shared_with_task = Arc::clone(shared);
    let task = shared.tasks.spawn(async move {
        let _until_the_end = permit;
        publish(&shared_with_task, staged, begin, commit).await
    });
    let ended = task.await.map_err(|_| Problem::new(ErrorCode::Internal, "the upload was cut off by a fault of ours"));
    Ok(ended??)
}

fn target(destination: Destination, head: &UploadHead) -> Result<UploadTarget, Problem> {
    Ok(match destination {
        Destination::Path(zone, path) => UploadTarget::Path { zone, path },
        Destination::Id(id) => UploadTarget::Id { id },
        Destination::Generated(zone) => {
            let path = format!("{}{}", Uuid::now_v7(), head.suffix());
            UploadTarget::Path { zone, path: path.parse()? }
        }
    })
}

/// Takes the body in, and checks it against what was declared.
async fn receive(shared: &Arc<Shared>, body: &mut Body, head: &UploadHead) -> Result<Staged, Refusal> {
    let mut staging = shared.blobs.stage(head.digests.as_ref().map(|digests| digests.wanted()).unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                let detail = match error.downcast_ref::<ReadError>() {
                    Some(idle @ ReadError::Idle { .. }) => format!("{idle} of the body; send it without such pauses"),
                    _ => format!("the body ended after {} bytes, before its declared end", staging.size()),
                };
                clean(staging.abort().await);
                return Err(Refusal::Broken(Problem::new(ErrorCode::BodyMismatch, detail)));
            }
        };
        // What is no data are trailers, of which none matters.
        let Ok(bytes) = frame.into_data() else { continue };
        shared.metrics.received.inc_by(bytes.len() as u64);
        if let Err(error) = staging.write(bytes).await {
            clean(staging.abort().await);
            return Err(blob_problem(&error).into());
        }
    }
    let staged = staging.finish().await.map_err(|error| blob_problem(&error))?;
    if let Some(digests) = &head.digests
        && let Err(mismatch) = digests.verify(&staged)
    {
        clean(shared.blobs.discard(staged).await);
        return Err(mismatch.into());
    }
    Ok(staged)
}

/// Puts the blob in place and commits it, and removes the staging object whatever came of it.
async fn publish(
    shared: &Arc<Shared>,
    staged: Staged,
    begin: UploadBegin,
    commit: UploadCommit,
) -> Result<Committed, Problem> {
    let committed = place_and_commit(shared, &staged, &begin, commit).await;
    clean(shared.blobs.discard(staged).await);
    committed
}

async fn place_and_commit(
    shared: &Arc<Shared>,
    staged: &Staged,
    begin: &UploadBegin,
    mut commit: UploadCommit,
) -> Result<Committed, Problem> {
    let give_up = Instant::now() + Duration::from_millis(shared.limits.condemned_ms);
    for _ in 0..MAX_COMMITS {
        shared.blobs.place(staged).await.map_err(|error| blob_problem(&error))?;
        match shared.control.upload_commit(&commit).await {
            Err(error) if error.code() == Some(ErrorCode::BlobCondemned) => {}
            other => return other.map_err(commit_problem),
        }
        let pause = Duration::from_millis(COMMIT_PAUSE_MS);
        if Instant::now() + pause > give_up {
            break;
        }
        sleep(pause).await;
        // Asked before the blob is placed again: the number tells control what may have been collected since.
        commit.sweep = shared.control.upload_begin(begin).await.map_err(ClientError::into_problem)?.sweep;
    }
    Err(Problem::new(
        ErrorCode::Overloaded,
        "the same content is being removed from the storage right now; nothing was changed, upload it again in a moment",
    ))
}

/// What to say of a commit that failed. Where control may have acted, nothing is undone: the blob stays, and if nothing
/// refers to it, it is collected.
fn commit_problem(error: ClientError) -> Problem {
    match error {
        ClientError::Problem(problem) => problem,
        ClientError::Net(error @ NetError::Connect { .. }) => Problem::new(
            ErrorCode::UpstreamUnreachable,
            format!("control cannot be reached: {error}; nothing was changed"),
        ),
        error => Problem::new(
            ErrorCode::UpstreamUnreachable,
            format!(
                "the connection to control broke while it was told of the file, so it is not known whether the upload \
                 took effect; it may safely be repeated ({error})"
            ),
        ),
    }
}

fn answer(committed: &Committed) -> Response<Body> {
    let Ok(json) = serde_json::to_vec(&committed.file) else {
        return problem(&Problem::new(ErrorCode::Internal, "the answer cannot be written; the upload took effect"));
    };
    let mut response = Response::new(Body::full(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set(headers, ETAG, &committed.file.digest.etag());
    if committed.created {
        set(headers, LOCATION, &committed.file.url);
        *response.status_mut() = StatusCode::CREATED;
    }
    response
}

/// Reads the rest of a body that nobody wants, within bounds: a connection that is closed with unread bytes is reset, and
/// the sender may never see the answer.
async fn drain(mut body: Body) {
    let read = async {
        let mut left = MAX_DRAIN_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |bytes| bytes.len() as u64));
            if left == 0 {
                break;
            }
        }
    };
    // Running out of time is as good an end as any.
    let _ = timeout(Duration::from_millis(MAX_DRAIN_MS), read).await;
}

/// A staging object that cannot be removed is swept later, and no reason to fail an upload.
fn clean(removed: Result<(), objects::BlobError>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "a staging object stays behind until it is swept");
    }
}
