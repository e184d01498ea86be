//! The tiers in the metrics. The tiers count by themselves, so this looks at them when somebody scrapes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use shelf::disk::{FolderState, FolderStats, Stats};

use crate::node::{MemoryNow, Node};

/// The edges of a process whose tiers are shown. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct TiersMetrics(Arc<Mutex<Vec<Weak<Node>>>>);

/// A number with its labels beside the node's.
type Sample<T> = (Vec<(&'static str, String)>, T);

/// What is known of an edge at a scrape.
struct Seen {
    node: Arc<Node>,
    memory: MemoryNow,
    disk: Option<Stats>,
}

impl TiersMetrics {
    /// Shows the tiers of an edge, for as long as it lives.
    pub(crate) fn show(&self, node: &Arc<Node>) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|node| node.strong_count() > 0);
        nodes.push(Arc::downgrade(node));
    }

    fn seen(&self) -> Vec<Seen> {
        let nodes: Vec<_> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let look = |node: Arc<Node>| Seen {
            memory: node.memory(),
            disk: node.disk.as_ref().map(|tier| tier.disk.stats()),
            node,
        };
        nodes.into_iter().map(look).collect()
    }
}

impl Collector for TiersMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Writer { seen: self.seen(), encoder: &mut encoder };
        memory(&mut page)?;
        disk(&mut page)
    }
}

fn memory(page: &mut Writer<'_, '_>) -> fmt::Result {
    let of = |read: fn(&MemoryNow) -> u64| move |seen: &Seen| vec![(vec![], read(&seen.memory))];
    page.gauge("memory_limit", "Bytes that the memory tier may hold", Some(Unit::Bytes), |seen| {
        vec![(vec![], seen.node.config.memory_bytes)]
    })?;
    page.counter("memory_hits", "Lookups in the memory tier that found something", of(|memory| memory.counters.hits))?;
    page.counter("memory_misses", "Lookups in the memory tier that did not", of(|memory| memory.counters.misses))?;
    page.counter("memory_admissions", "Entries put into memory", of(|memory| memory.counters.insertions))?;
    page.counter("memory_evictions", "Entries that left memory for others", of(|memory| memory.counters.evictions))?;
    page.counter("memory_expired", "Entries that left memory being of no use", of(|memory| memory.counters.expired))?;
    page.counter("memory_refused", "Entries that memory did not take", of(|memory| memory.counters.refused))?;
    page.gauge("pages", "Bytes of large bodies in memory that are sent without a copy", Some(Unit::Bytes), |seen| {
        vec![(vec![], seen.node.pages.held_bytes())]
    })?;
    page.counter("pages_no_room", "Large bodies that are copied when they are sent, for want of room", |seen| {
        vec![(vec![], seen.node.pages.no_room())]
    })?;
    page.ratio("curve_hit_ratio", "What recent requests would hit in memory, by size as a factor of its own", |seen| {
        curve(&seen.node.curve)
    })
}

fn curve(curve: &shelf::Curve) -> Vec<Sample<f64>> {
    let sample =
        |factor: f64, of: &str, value: f64| (vec![("factor", factor.to_string()), ("of", of.to_owned())], value);
    let point = |point: &shelf::CurvePoint| {
        [sample(point.factor, "requests", point.request_hit_ratio), sample(point.factor, "bytes", point.byte_hit_ratio)]
    };
    curve.ratios().iter().flat_map(point).collect()
}

fn disk(page: &mut Writer<'_, '_>) -> fmt::Result {
    let whole = |read: fn(&Stats) -> u64| {
        move |seen: &Seen| seen.disk.iter().map(|disk| (vec![], read(disk))).collect::<Vec<_>>()
    };
    let folder = |read: fn(&FolderStats) -> u64| {
        move |seen: &Seen| each_folder(seen).map(|(label, folder)| (vec![label], read(folder))).collect::<Vec<_>>()
    };
    page.counter("disk_hits", "Reads of the disk tier that brought something", whole(|disk| disk.hits))?;
    page.counter("disk_misses", "Reads of the disk tier that did not", whole(|disk| disk.misses))?;
    let would = "What recent requests that memory did not answer would hit on disk, by size as a factor of its own";
    page.ratio("disk_curve_hit_ratio", would, |seen| {
        seen.node.disk.as_ref().map(|tier| curve(&tier.curve)).unwrap_or_default()
    })?;
    page.gauge(
        "disk_open_files",
        "Files of the disk tier open for reading",
        None,
        whole(|disk| disk.open_files as u64),
    )?;
    let up = "1 when the folder can be used, for `use` reading or writing";
    page.gauge("disk_folder_state", up, None, |seen| {
        let states = each_folder(seen).flat_map(|(label, folder)| {
            let read = !matches!(folder.state, FolderState::Gone(_) | FolderState::Silent(_));
            let write = matches!(folder.state, FolderState::Ok);
            let state = |what: &str, up: bool| (vec![label.clone(), ("use", what.to_owned())], u64::from(up));
            [state("reading", read), state("writing", write)]
        });
        states.collect()
    })?;
    page.gauge("disk", "Bytes in a folder of the disk tier", Some(Unit::Bytes), folder(|folder| folder.bytes))?;
    let limit = "Bytes that a folder may hold";
    page.gauge("disk_limit", limit, Some(Unit::Bytes), folder(|folder| folder.limit_bytes))?;
    page.gauge("disk_entries", "Entries in a folder", None, folder(|folder| folder.entries))?;
    let index = "Bytes of memory that the index of a folder takes";
    page.gauge("disk_index", index, Some(Unit::Bytes), folder(|folder| folder.index_bytes))?;
    page.ratio("disk_scanned_ratio", "How much of a folder was looked at since the start", |seen| {
        each_folder(seen).map(|(label, folder)| (vec![label], f64::from(folder.scanned_permille) / 1_000.0)).collect()
    })?;
    page.counter("disk_evictions", "Entries that left a folder for others", folder(|folder| folder.evictions))?;
    page.counter("disk_expired", "Entries that left a folder being of no use", folder(|folder| folder.expirations))?;
    page.counter("disk_refused", "Writes that a folder did not take", folder(|folder| folder.refused))?;
    page.counter("disk_writes", "Entries and slices written", folder(|folder| folder.writes))?;
    page.counter("disk_written_bytes", "Bytes of bodies written", folder(|folder| folder.written_bytes))?;
    page.counter("disk_write_errors", "Writes that the file system failed", folder(|folder| folder.write_errors))?;
    page.counter("disk_reads", "Slices read and verified", folder(|folder| folder.reads))?;
    page.counter("disk_read_bytes", "Bytes of slices read", folder(|folder| folder.read_bytes))?;
    page.counter("disk_read_errors", "Reads that the file system failed", folder(|folder| folder.read_errors))?;
    let slow = "Times that a request went on without a folder because that took too long";
    page.counter("disk_timeouts", slow, folder(|folder| folder.timeouts))?;
    page.counter("disk_corrupt", "What was found damaged, dropped and is fetched again, by kind", |seen| {
        let kinds = each_folder(seen).flat_map(|(label, folder)| {
            folder
                .flaws
                .iter()
                .map(move |(flaw, count)| (vec![label.clone(), ("kind", flaw.word().to_owned())], *count))
        });
        kinds.collect()
    })
}

fn each_folder(seen: &Seen) -> impl Iterator<Item = ((&'static str, String), &FolderStats)> {
    let folders = seen.disk.iter().flat_map(|disk| disk.folders.iter().enumerate());
    folders.map(|(number, folder)| (("folder", number.to_string()), folder))
}

/// Writes metrics of all edges.
struct Writer<'a, 'e> {
    seen: Vec<Seen>,
    encoder: &'a mut DescriptorEncoder<'e>,
}

impl Writer<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, read: impl Fn(&Seen) -> Vec<Sample<u64>>) -> fmt::Result {
        self.write(name, help, None, MetricType::Counter, read, ConstCounter::new)
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        read: impl Fn(&Seen) -> Vec<Sample<u64>>,
    ) -> fmt::Result {
        let number = |value| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        self.write(name, help, unit, MetricType::Gauge, read, number)
    }

    fn ratio(&mut self, name: &str, help: &str, read: impl Fn(&Seen) -> Vec<Sample<f64>>) -> fmt::Result {
        self.write(name, help, None, MetricType::Gauge, read, ConstGauge::new)
    }

    fn write<T, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
        read: impl Fn(&Seen) -> Vec<Sample<T>>,
        metric: impl Fn(T) -> M,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for seen in &self.seen {
            for (mut labels, value) in read(seen) {
                labels.insert(0, ("node", seen.node.config.node.name.to_string()));
                metric(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
