//! What the disk tier has counted, read from it whenever the metrics are scraped: nothing is counted twice, and a request
//! pays nothing for it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use shelf::disk::{Disk, FolderStats};

/// Which edge, and which of its folders.
type Labels = [(&'static str, String); 2];

/// What of a folder is shown.
type Gauge = fn(&FolderStats) -> f64;

/// The disk tiers of all edges of a process. The mutex covers the list only.
#[derive(Default)]
pub(crate) struct DiskMetrics(Mutex<Vec<(String, Weak<Disk>)>>);

impl DiskMetrics {
    /// From now on a tier is shown, for as long as it is there.
    pub(crate) fn show(&self, node: &str, disk: &Arc<Disk>) {
        let mut disks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        disks.retain(|(_, disk)| disk.strong_count() > 0);
        disks.push((node.to_owned(), Arc::downgrade(disk)));
    }
}

impl fmt::Debug for DiskMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskMetrics").finish_non_exhaustive()
    }
}

impl Collector for DiskMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let disks = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stats = disks.iter().filter_map(|(node, disk)| Some((node, disk.upgrade()?.stats())));
        let folders: Vec<(Labels, FolderStats)> = stats
            .flat_map(|(node, stats)| {
                let numbered = stats.folders.into_iter().enumerate();
                numbered.map(move |(number, folder)| ([("node", node.clone()), ("folder", number.to_string())], folder))
            })
            .collect();
        if folders.is_empty() {
            return Ok(());
        }
        let help = "What was found damaged on disk, dropped and fetched again, by what was wrong";
        let mut family = encoder.encode_descriptor("littoral_edge_disk_corrupt", help, None, MetricType::Counter)?;
        for (labels, folder) in &folders {
            for (flaw, count) in folder.flaws {
                let [node, number] = labels.clone();
                let labels = [node, number, ("kind", flaw.word().to_owned())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Entries that the index had after a start and the folder had not";
        let mut family = encoder.encode_descriptor("littoral_edge_disk_forgotten", help, None, MetricType::Counter)?;
        for (labels, folder) in &folders {
            ConstCounter::new(folder.forgotten).encode(family.encode_family(labels)?)?;
        }
        let gauges: [(&str, &str, Gauge); 3] = [
            ("littoral_edge_disk_entries", "Entries on disk", |folder| folder.entries as f64),
            ("littoral_edge_disk_index_bytes", "Memory of the index of the disk tier", |folder| {
                folder.index_bytes as f64
            }),
            ("littoral_edge_disk_scanned_ratio", "How much of a folder was looked at since the start", |folder| {
                f64::from(folder.scanned_permille) / 1_000.0
            }),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, folder) in &folders {
                ConstGauge::new(value(folder)).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}
