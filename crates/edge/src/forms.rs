//! Compressed forms of uploaded files, as `pull/packed.rs` has them of stored responses: begun by the first hit that sends all of
//! a file to whoever accepts the coding, and waited for by nobody.
//!
//! A file's bytes are named by their digest, and so is a form, with its coding. It lies among the slices: no purge makes one
//! wrong, a newer version has another, and they are evicted like everything else. An empty one says that it is not worth it.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use api::pull::CompressionDoc;
use api::slices::slice_count;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_cache::coding::{self, Accepted, Coding};

use crate::fetch::FetchError;
use crate::head::Head;
use crate::node::{BodyId, Node, SliceKey};
use crate::pull::joined;

/// The same that a pull zone compresses. A file whose `Cache-Control` says `no-transform` goes out as it was uploaded.
static COMPRESSED: LazyLock<CompressionDoc> = LazyLock::new(CompressionDoc::default);
/// How long nothing is compressed after memory has not taken a form, in milliseconds.
const REFUSED_MS: u64 = 10_000;

/// How a request stands to the forms of a file.
pub(crate) enum Wanted {
    /// The file has none.
    Nothing,
    /// It wants the file as it was uploaded.
    AsItIs,
    /// It has the form with this tag, which is a form of what is there.
    Has(HeaderValue),
    /// It accepts forms.
    Accepts(Accepted),
}

/// Whether a file has forms.
fn is_compressed(head: &Head) -> bool {
    head.storable.is_some()
        && COMPRESSED.has_length(head.size)
        && head.media_type.to_str().is_ok_and(|media_type| COMPRESSED.has_type(media_type))
        && !coding::forbidden(head.cache_control.iter().map(HeaderValue::as_bytes))
}

fn key(head: &Head, coding: Coding) -> SliceKey {
    (BodyId::Form(head.digest, coding), 0)
}

impl Wanted {
    pub(crate) fn of(request: &HeaderMap, head: &Head) -> Self {
        if !*head.has_forms.get_or_init(|| is_compressed(head)) {
            return Self::Nothing;
        }
        // Ranges are of the file as it was uploaded.
        if request.contains_key(header::RANGE) || coding::forbids(request) {
            return Self::AsItIs;
        }
        let accepted = Accepted::of(request);
        // Whoever has a form has the file, whether or not the form is kept here now.
        match coding::named_form(request, &accepted, &head.etag, Coding::ALL) {
            Some(tag) => Self::Has(tag),
            None => Self::Accepts(accepted),
        }
    }

    /// The conditions of a request, as they are about the file: whoever names a form means that.
    pub(crate) fn conditions<'a>(&self, request: &'a HeaderMap) -> Cow<'a, HeaderMap> {
        let own: Vec<_> = request.get_all(header::IF_MATCH).iter().filter_map(coding::own_tags).collect();
        if own.is_empty() || matches!(self, Self::Nothing) {
            return Cow::Borrowed(request);
        }
        let mut fields = request.clone();
        for line in own {
            fields.append(header::IF_MATCH, line);
        }
        Cow::Owned(fields)
    }
}

impl Node {
    /// The form that answers a request, if it is here.
    pub(crate) fn form_of_file(&self, wanted: &Wanted, head: &Head) -> Option<(Coding, Bytes)> {
        let Wanted::Accepts(accepted) = wanted else { return None };
        let has = |coding: &Coding| self.peek_slice(&key(head, *coding)).is_some_and(|form| !form.is_empty());
        let coding = accepted.best(Coding::ALL.into_iter().filter(has))?;
        Some((coding, self.stored_slice(&key(head, coding)).filter(|form| !form.is_empty())?))
    }

    /// All of a stored file is sent, in this form or as it is. Begins to make the one that would have been liked best, unless
    /// that is it, or is not worth it, or others are being made.
    pub(crate) fn pack_file(self: &Arc<Self>, wanted: &Wanted, head: &Arc<Head>, sent: Option<Coding>) {
        let Wanted::Accepts(accepted) = wanted else { return };
        let Some(coding) = accepted.best(Coding::ALL).filter(|coding| Some(*coding) != sent) else { return };
        let key = key(head, coding);
        // What is not worth it is remembered for as long as it is asked for.
        if self.stored_slice(&key).is_some() || self.now_ms() < self.pull.packing_from_ms.load(Ordering::Relaxed) {
            return;
        }
        let Ok(place) = Arc::clone(&self.pull.packing).try_acquire_owned() else { return };
        let (node, head) = (Arc::clone(self), Arc::clone(head));
        let form = async move {
            let mut slices = Vec::new();
            for index in 0..slice_count(head.size) {
                // The origin is not asked for its sake.
                let gap = || FetchError::Unusable("a part of the file is not here".to_owned());
                slices.push(node.local_slice(&head, index).await.ok_or_else(gap)?);
            }
            let form = node.compress(coding, joined(&slices), place, &head.path).await.unwrap_or_default();
            if !node.keep_slice(Some(&head.zone), key, form.clone()) {
                node.pull.packing_from_ms.store(node.now_ms() + REFUSED_MS, Ordering::Relaxed);
            }
            Ok(form)
        };
        // One at a time, which goes on by itself.
        let _ = self.slices.join(&key, 0, |_| true, || form);
    }

    /// A slice of a file that is here.
    async fn local_slice(&self, head: &Head, index: u64) -> Option<Bytes> {
        match self.peek_slice(&(BodyId::File(head.digest), index)) {
            Some(bytes) => Some(bytes),
            None => self.shelved_slice(head, index).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_of_files() {
        let with = |size: u64, media_type: &'static str, cache_control: Option<&'static str>| {
            let mut fields = http::HeaderMap::new();
            for (name, value) in [
                (api::headers::ZONE, "site"),
                (api::headers::PATH, "a.css"),
                (api::headers::ID, "00000000-0000-4000-8000-000000000001"),
                (api::headers::VERSION, "1"),
                (api::headers::DIGEST, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
                ("content-type", media_type),
            ] {
                fields.insert(name, HeaderValue::from_static(value));
            }
            fields.extend(cache_control.map(|value| (header::CACHE_CONTROL, HeaderValue::from_static(value))));
            let began = crate::marks::Began { event: 0, local: 0 };
            is_compressed(&crate::head::describe(&fields, size, Vec::new(), began, 0, |_| None).expect("a head"))
        };
        for (size, media_type, cache_control, expected) in [
            (1_024, "text/css", None, true),
            (4 << 20, "text/html; charset=utf-8", Some("max-age=60, public"), true),
            (1_023, "text/css", None, false),
            ((4 << 20) + 1, "text/css", None, false),
            (5_000, "image/png", None, false),
            (5_000, "text/css", Some("max-age=60, No-Transform"), false),
            (5_000, "text/css", Some("no-store"), false),
        ] {
            assert_eq!(with(size, media_type, cache_control), expected, "{size} {media_type} {cache_control:?}");
        }
    }
}
