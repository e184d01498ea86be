//! Handshakes and certificates in the metrics. They are counted where they happen; this looks when somebody scrapes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use net::{Tls, TlsState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// What of a process speaks TLS. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsMetrics(Arc<Mutex<Vec<Arc<Tls>>>>);

impl TlsMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    pub(crate) fn show(&self, tls: &Arc<Tls>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(tls));
    }
}

impl Collector for TlsMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let states: Vec<TlsState> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|tls| tls.state()).collect();
        let sum = |read: fn(&TlsState) -> u64| states.iter().map(read).sum::<u64>();
        let name = "littoral_tls_handshakes";
        let mut metric = encoder.encode_descriptor(name, "Handshakes of clients", None, MetricType::Counter)?;
        for (result, count) in [
            ("full", sum(|state| state.full_handshakes)),
            ("resumed", sum(|state| state.resumed_handshakes)),
            ("unknown_name", sum(|state| state.unknown_names)),
            // A name is counted a moment before its failure.
            ("failed", sum(|state| state.failed_handshakes.saturating_sub(state.unknown_names))),
        ] {
            ConstCounter::new(count).encode(metric.encode_family(&[("result", result)])?)?;
        }
        let name = "littoral_tls_certificate_reloads";
        let mut metric =
            encoder.encode_descriptor(name, "Exchanges of certificates while running", None, MetricType::Counter)?;
        for (result, count) in [("ok", sum(|state| state.reloads)), ("failed", sum(|state| state.reload_failures))] {
            ConstCounter::new(count).encode(metric.encode_family(&[("result", result)])?)?;
        }
        let name = "littoral_tls_certificate_end_timestamp";
        let help = "When each certificate that is served ends";
        let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (path, end_s) in states.iter().flat_map(|state| &state.certificates) {
            let labels = [("file", path.display().to_string())];
            ConstGauge::new(i64::try_from(*end_s).unwrap_or(i64::MAX)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::CertificateSources;

    #[test]
    fn certificates_and_handshakes_are_shown() {
        let folder = tempfile::tempdir().expect("folder");
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("certificate");
        std::fs::write(folder.path().join("a.crt"), made.cert.pem()).expect("written");
        std::fs::write(folder.path().join("a.key"), made.signing_key.serialize_pem()).expect("written");
        let sources = CertificateSources { default: None, folder: Some(folder.path().to_owned()) };
        let tls = Tls::open(sources).expect("certificates");
        let mut registry = Registry::default();
        TlsMetrics::new(&mut registry).show(&tls);
        std::fs::write(folder.path().join("a.crt"), "").expect("written");
        tls.reload();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
        for line in [
            "littoral_tls_handshakes_total{result=\"resumed\"} 0",
            "littoral_tls_certificate_reloads_total{result=\"failed\"} 1",
            "littoral_tls_certificate_end_timestamp_seconds{file=\"",
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }
}
