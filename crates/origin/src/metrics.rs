//! What an origin counts. Every name begins with `littoral_origin_`; no label ever holds a URL.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// The counters. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) uploads: Family<UploadLabels, Counter>,
    pub(crate) uploads_in_progress: Gauge,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) blobs_collected: Counter,
    pub(crate) corrupt_slices: Counter,
}

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadOutcome {
    /// A new file.
    Created,
    /// A new version.
    Updated,
    /// A problem of the client's making (4xx).
    Refused,
    /// A problem of ours (5xx).
    Failed,
    /// The client went away.
    Aborted,
}

/// The labels of `littoral_origin_uploads_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UploadLabels {
    pub(crate) outcome: &'static str,
}

impl UploadOutcome {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("littoral_origin");
        registry.register("uploads", "Uploads that ended, by how", metrics.uploads.clone());
        registry.register("uploads_in_progress", "Uploads in progress", metrics.uploads_in_progress.clone());
        registry.register_with_unit("received", "Bytes of uploads", Unit::Bytes, metrics.received.clone());
        registry.register_with_unit("sent", "Bytes of content", Unit::Bytes, metrics.sent.clone());
        registry.register("blobs_collected", "Blobs that nothing referred to", metrics.blobs_collected.clone());
        registry.register("corrupt_slices", "Reads of bytes that are wrong", metrics.corrupt_slices.clone());
        metrics
    }

    /// Counts an upload as in progress until the value returned is dropped, and then as ended.
    pub(crate) fn upload(&self) -> UploadInProgress {
        self.uploads_in_progress.inc();
        UploadInProgress { metrics: self.clone(), outcome: UploadOutcome::Aborted }
    }
}

/// An upload in progress. One that is dropped without an outcome was aborted.
pub(crate) struct UploadInProgress {
    metrics: Metrics,
    pub(crate) outcome: UploadOutcome,
}

impl Drop for UploadInProgress {
    fn drop(&mut self) {
        self.metrics.uploads_in_progress.dec();
        self.metrics.uploads.get_or_create(&UploadLabels { outcome: self.outcome.word() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fixed() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.received.inc_by(5);
        drop(metrics.upload());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        for line in [
            "littoral_origin_uploads_total{outcome=\"aborted\"} 1",
            "littoral_origin_uploads_in_progress 0",
            "littoral_origin_received_bytes_total 5",
            "littoral_origin_sent_bytes_total 0",
            "littoral_origin_blobs_collected_total 0",
            "littoral_origin_corrupt_slices_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
