//! Copying a body from the origin: into the reach of its readers as it comes, and into the store once it is whole.
//!
//! What is too large for memory goes to disk as it comes, where there is one (`spool.rs`), and else is not kept.
//!
//! A task of its own for each body. However it ends, nobody waits for ever: its end is told to the readers, and what broke off
//! or turned out too large leaves the store.

use std::sync::Arc;

use api::SLICE_BYTES;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use http_cache::{Freshness, NotStorable, update};
use net::{Body, UpstreamError};
use pages::Pool;

use crate::node::Node;
use crate::pull::by_range;
use crate::pull::fetch::HIT_FOR_MISS_MS;
use crate::pull::growing::Growing;
use crate::pull::keeping::slices_of;
use crate::pull::sliced::Sliced;
use crate::pull::spool::Spool;
use crate::pull::stored::{Content, PageKey, Part, Pass, Variant, combined};
use crate::purges::Verdict;

/// Copies a body from the origin into its readers' reach, and into the store when it is whole.
pub(crate) struct Copying {
    pub(crate) node: Arc<Node>,
    pub(crate) key: PageKey,
    pub(crate) growing: Arc<Growing>,
    pub(crate) variant: Arc<Variant>,
    /// How much of it memory may keep.
    pub(crate) most_bytes: u64,
    /// How large it may be on disk; 0: it is kept in memory or not at all.
    pub(crate) most_on_disk: u64,
    /// Take the length of a last part from its bytes where `Content-Range` says another.
    pub(crate) lenient: bool,
    /// The variant is not in the store yet.
    pub(crate) at_end: bool,
    /// Where it goes on disk, once it is too large for memory.
    pub(crate) spool: Option<Spool>,
}

/// It does not fit, or the disk does not take it.
struct NotKept;

impl Copying {
    /// Copies. Returns when the body has ended.
    pub(crate) async fn run(mut self, body: Body, begin: Vec<Bytes>) {
        match self.copy(body, begin).await {
            Ok(true) => {
                self.growing.finish();
                match self.finish_on_disk().await {
                    Ok(on_disk) => {
                        let pieces = joined(&self.node.pages, &self.growing.pieces()).await;
                        self.store(on_disk, pieces);
                    }
                    Err(NotKept) => self.forget(),
                }
            }
            Ok(false) => self.growing.fail("abandoned"),
            Err(word) => {
                self.forget();
                self.growing.fail(word);
            }
        }
    }

    /// True: all of it has come.
    async fn copy(&mut self, body: Body, begin: Vec<Bytes>) -> Result<bool, &'static str> {
        for bytes in begin {
            if !self.push(&bytes).await {
                return Ok(false);
            }
        }
        let mut body = std::pin::pin!(body);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let word = error.downcast_ref::<UpstreamError>().map_or("closed-early", UpstreamError::word);
                tracing::warn!(url = self.key.shown(), %error, "a body from the origin broke off");
                word
            })?;
            let Ok(bytes) = frame.into_data() else { continue };
            if !bytes.is_empty() && !self.push(&bytes).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn push(&mut self, bytes: &Bytes) -> bool {
        if self.growing.joinable() && self.make_room(bytes.len() as u64).await.is_err() {
            // Too large for the store, or too much at once for this machine: who reads it already gets it at their pace,
            // and for a while nobody waits for it any more.
            self.let_go();
        }
        let wanted = self.growing.push(bytes).await;
        if self.spool.is_some() && self.growing.joinable() && self.write_out(false).await.is_err() {
            self.let_go();
        }
        wanted
    }

    fn let_go(&self) {
        // Purged, replaced or evicted while it grew: that says nothing about the next response.
        let left = self.spool.is_some() && self.variant.on_disk.entry().is_none();
        self.forget();
        self.growing.let_go();
        if left {
            return;
        }
        let pass = Pass { until_ms: self.node.now_ms() + HIT_FOR_MISS_MS, why: NotStorable::TooLarge };
        self.node.change_page(&self.key, |page| page.pass = Some(pass));
    }

    /// Makes sure that so many bytes more can be kept.
    async fn make_room(&mut self, more: u64) -> Result<(), NotKept> {
        let length = self.growing.length() + more;
        if self.spool.is_none() {
            if length <= self.most_bytes && !self.node.pull.budget.exceeded() {
                return Ok(());
            }
            let at_least = self.variant.length.unwrap_or(length);
            if self.most_on_disk == 0 || at_least <= SLICE_BYTES {
                return Err(NotKept);
            }
            let spool = Spool::open(&self.node, &self.key, &self.variant, self.most_on_disk).await.ok_or(NotKept)?;
            self.growing.spool(spool.clone());
            self.spool = Some(spool);
        }
        if length > self.most_on_disk { Err(NotKept) } else { Ok(()) }
    }

    /// Writes every slice that has come; at the end also what is left.
    async fn write_out(&self, at_end: bool) -> Result<(), NotKept> {
        let Some(spool) = &self.spool else { return Ok(()) };
        while let Some((number, pieces)) = self.growing.next_to_spool(at_end) {
            if !spool.write(number, pieces).await {
                return Err(NotKept);
            }
            self.growing.spooled();
        }
        Ok(())
    }

    /// The body as it lies on disk, if that is where it went.
    async fn finish_on_disk(&mut self) -> Result<Option<Arc<Sliced>>, NotKept> {
        let Some(spool) = self.spool.as_ref().filter(|_| self.growing.joinable()) else { return Ok(None) };
        self.write_out(true).await?;
        let length = self.growing.length();
        if !spool.finish(length).await {
            return Err(NotKept);
        }
        self.spool = None;
        let by_range = by_range::takes_ranges(&self.variant.fields, self.variant.answered_ms);
        Ok(Some(Sliced::on_disk(length, by_range, &self.variant.on_disk, |_| true)))
    }

    /// Takes everything that grows with this body out of the store.
    fn forget(&self) {
        if self.spool.is_some() {
            self.node.leave_place(&self.variant.on_disk); // also where memory has evicted its page
        }
        let ours = |stored: &Arc<Variant>| stored.grows_with(&self.variant);
        if self.node.page(&self.key).is_some_and(|page| page.variants.iter().any(ours)) {
            self.node.change_page(&self.key, |page| page.variants.retain(|stored| !ours(stored)));
        }
    }

    /// Puts the whole body in the place of the growing one: these pieces. `on_disk`: that is where it is.
    fn store(&self, on_disk: Option<Arc<Sliced>>, pieces: Vec<Bytes>) {
        if !self.growing.joinable() {
            return;
        }
        let part = Part { first: self.growing.first(), pieces };
        let bytes = on_disk.as_ref().map_or_else(|| part.length(), |body| body.length);
        let Some(announced) = &self.variant.announced else {
            let content = match on_disk {
                Some(body) => Content::Sliced(body),
                None if bytes == 0 => Content::Parts(Vec::new()),
                None => Content::Parts(vec![part]),
            };
            let done = |variant: &Variant| {
                variant.with(|variant| {
                    variant.length = Some(bytes);
                    variant.content = content.clone();
                })
            };
            let mut stored = None;
            if !self.at_end {
                // What is stored may have been confirmed meanwhile, and have newer fields.
                self.node.change_page(&self.key, |page| {
                    for variant in page.variants.iter_mut().filter(|stored| stored.grows_with(&self.variant)) {
                        *variant = done(variant);
                        stored = Some(Arc::clone(variant));
                    }
                });
            } else if self.node.verdict_on_variant(&self.key, &self.variant) != Verdict::Hard {
                let variant = done(&self.variant);
                self.node.change_page(&self.key, |page| page.put(Arc::clone(&variant)));
                stored = Some(variant);
            } else {
                self.node.leave_place(&self.variant.on_disk);
            }
            // Also where memory did not take it.
            self.node.offer(&self.key, &stored.unwrap_or_else(|| done(&self.variant)));
            return;
        };
        let total = match self.variant.length {
            Some(total) if announced.range.len() == bytes => total,
            // The last part of something whose length was told wrongly: what there is ends where the part does.
            Some(total) if self.lenient && announced.range.last + 1 == total && bytes > 0 => part.end(),
            _ => return,
        };
        let true_to_word = Some(total) == self.variant.length;
        let verdict = self.node.verdict_on_variant(&self.key, &self.variant);
        if verdict == Verdict::Hard {
            return;
        }
        self.node.change_page(&self.key, |page| {
            let same = |old: &&Arc<Variant>| {
                true_to_word
                    && self.variant.replaces(old)
                    && old.length == Some(total)
                    && old.strong_etag().is_some()
                    && old.strong_etag() == self.variant.strong_etag()
                    && self.node.verdict_on_variant(&self.key, old) == Verdict::Clean
            };
            // A whole that may be used is not given up for a part.
            let now_ms = self.node.now_ms();
            let better = |old: &&Arc<Variant>| {
                self.variant.replaces(old)
                    && old.whole()
                    && old.readable()
                    && matches!(old.terms.storable.at(old.age_s(now_ms)), Freshness::Fresh { .. })
                    && self.node.verdict_on_variant(&self.key, old) == Verdict::Clean
            };
            if page.variants.iter().any(|old| better(&old)) {
                return;
            }
            let older = page.variants.iter().find(same);
            let mut tags = self.variant.tags.clone();
            tags.extend(
                older.iter().flat_map(|old| old.tags.iter()).filter(|tag| !self.variant.tags.contains(tag)).cloned(),
            );
            let fields = older.map(|old| update::freshened(&old.fields, &self.variant.fields, &[]));
            let older = older.map(|old| match &old.content {
                Content::Parts(parts) => parts.clone(),
                Content::Growing(_) | Content::Sliced(_) => Vec::new(),
            });
            let parts = combined(&older.unwrap_or_default(), part.clone()).unwrap_or_else(|| vec![part]);
            page.put(self.variant.with(|variant| {
                variant.tags = tags;
                if let Some(fields) = fields {
                    variant.fields = fields; // RFC 9111 § 3.4
                }
                variant.status = StatusCode::OK;
                variant.length = Some(total);
                variant.announced = None;
                variant.content = Content::Parts(parts);
            }));
        });
    }
}

/// What came in small pieces in pieces of a slice: one is sent in one go then, each time.
async fn joined(pages: &Arc<Pool>, pieces: &[Bytes]) -> Vec<Bytes> {
    let mut joined = Vec::new();
    for slice in slices_of(pieces) {
        joined.push(match slice.as_slice() {
            [only] => pages.own(only.clone()),
            pieces => pages.join(pieces),
        });
        // A large body takes some milliseconds, in which others go on.
        tokio::task::yield_now().await;
    }
    joined
}

impl Drop for Copying {
    fn drop(&mut self) {
        // Nobody may wait for ever, also where this task was ended from outside. After `finish` this says nothing.
        self.growing.fail("abandoned");
        if self.spool.is_some() {
            self.node.leave_place(&self.variant.on_disk); // what is not whole is of no use to anybody
        }
    }
}
