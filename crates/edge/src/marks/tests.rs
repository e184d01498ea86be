//! Marks over restarts: in order, killed, damaged, and on disks that do not take them.

use std::fs::File;
use std::path::PathBuf;

use api::names::ZoneName;
use api::{ZonePage, ZonePrefix};
use proptest::prelude::{Just, Strategy, prop_oneof};
use tempfile::TempDir;

use super::log::{LOG_BYTES, path_of};
use super::*;
use crate::purges::At;

const BOOT: BootId = [1; 16];
const NOW_MS: u64 = 1_000_000;

fn open(folder: &TempDir) -> Marks {
    Marks::open_with(folder.path(), NOW_MS, BOOT, MAX_MARKS, MarksMetrics::default())
}

fn zone() -> ZoneName {
    "a".parse().expect("zone")
}

fn url(name: u8) -> String {
    format!("h/p{name}")
}

fn page(name: u8, soft: bool) -> PurgeTargets {
    PurgeTargets { pages: vec![ZonePage { zone: zone(), url: url(name) }], soft, ..PurgeTargets::default() }
}

fn event(seq: u64, targets: PurgeTargets) -> Event {
    Event { seq, at_ms: 0, change: Change::Purge(targets) }
}

fn verdict(marks: &Marks, name: u8, began: Began) -> Verdict {
    marks.verdict(Identity { at: Some((&zone(), At::Page(&url(name)))), id: None, tags: &[] }, began)
}

/// The log that is written to, and the only one, unless a snapshot could not be written.
fn newest_log(folder: &TempDir) -> PathBuf {
    let logs = std::fs::read_dir(folder.path()).expect("folder").map(|entry| entry.expect("entry").path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max_by_key(|path| path.file_name().map(|name| (name.len(), name.to_owned()))).expect("a log")
}

/// From now on nothing can be written to the log: the disk is full.
fn fill_disk(marks: &Marks) {
    let full = File::options().write(true).open("/dev/full").expect("a full disk");
    lock(&marks.journal).as_mut().and_then(|journal| journal.log.as_mut()).expect("a log").file = Arc::new(full);
}

fn retry_now(marks: &Marks) {
    lock(&marks.upkeep).retry_at = None;
}

#[test]
fn a_restart_knows_every_mark_and_numbers_go_on() {
    let folder = tempfile::tempdir().expect("folder");
    let mut marks = open(&folder);
    assert!(marks.lost() && marks.trusted());
    marks.start_over("catalog", 41);
    let (era, before) = (marks.era(), marks.began());
    assert_eq!(before.event, 41);
    marks.apply(&event(42, page(1, false)));
    let local = marks.mark(page(2, true));
    let prefix = ZonePrefix { zone: zone(), prefix: "h/p3".into() };
    marks.mark(PurgeTargets { prefixes: vec![prefix], ..PurgeTargets::default() });
    for in_order in [false, true, true] {
        if in_order {
            marks.close();
        }
        marks = open(&folder);
        assert!(!marks.lost() && marks.trusted());
        assert_eq!((marks.era(), marks.catalog_id().as_deref(), marks.applied()), (era, Some("catalog"), 42));
        assert!(marks.began().local > local + 1);
        let verdicts = [1, 2, 3, 4].map(|name| verdict(&marks, name, before));
        assert_eq!(verdicts, [Verdict::Hard, Verdict::Soft, Verdict::Hard, Verdict::Clean]);
        assert_eq!(verdict(&marks, 1, marks.began()), Verdict::Clean);
    }
}

#[test]
fn the_era_is_kept_when_marks_are_lost_and_new_when_everything_is() {
    let folder = tempfile::tempdir().expect("folder");
    let marks = open(&folder);
    let first = marks.era();
    marks.start_over("catalog", 7);
    let era = marks.era();
    assert_ne!(first, era);
    marks.sync_blocking().expect("kept");
    let known = marks.began();
    for (lost, files) in [(false, ["era.json", "none"]), (true, [SNAPSHOT_FILE, "none"])] {
        drop(files.map(|name| std::fs::remove_file(folder.path().join(name))));
        let marks = open(&folder);
        assert_eq!((marks.era(), marks.catalog_id().as_deref(), marks.lost()), (era, Some("catalog"), lost));
        assert_eq!(verdict(&marks, 1, known), if lost { Verdict::Unknown } else { Verdict::Clean });
        assert!(folder.path().join("era.json").exists());
    }
    drop(["era.json", SNAPSHOT_FILE].map(|name| std::fs::remove_file(folder.path().join(name))));
    let marks = open(&folder);
    assert_ne!(marks.era(), era);
    assert_eq!(marks.catalog_id(), None);
}

#[test]
fn numbers_are_new_even_without_marks_and_with_a_clock_that_was_set_back() {
    let folder = tempfile::tempdir().expect("folder");
    let marks = open(&folder);
    for _ in 0..100 {
        marks.mark(page(1, false));
    }
    let before = marks.began();
    std::fs::remove_file(folder.path().join(SNAPSHOT_FILE)).expect("there");
    let marks = Marks::open_with(folder.path(), 0, BOOT, MAX_MARKS, MarksMetrics::default());
    assert!(marks.began().local > before.local);
    assert_eq!(verdict(&marks, 2, before), Verdict::Unknown);
    let zone = zone();
    let file = "p".parse().expect("path");
    let file = Identity { at: Some((&zone, At::File(&file))), id: None, tags: &[] };
    assert_eq!(marks.verdict_on_file(file, before), Verdict::Unknown);
    assert_eq!(marks.verdict_on_file(file, marks.began()), Verdict::Clean);
    assert_eq!(verdict(&marks, 2, marks.began()), Verdict::Clean);
}

#[test]
fn a_machine_that_went_down_may_have_lost_marks_of_the_edges_own() {
    let unknown = BootId::default();
    for (boot, next, in_order, expected) in [
        (BOOT, BOOT, false, Verdict::Clean),
        (BOOT, [2; 16], true, Verdict::Clean),
        (BOOT, [2; 16], false, Verdict::Unknown),
        (unknown, unknown, false, Verdict::Unknown),
        (unknown, unknown, true, Verdict::Clean),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let marks = Marks::open_with(folder.path(), NOW_MS, boot, MAX_MARKS, MarksMetrics::default());
        let before = marks.began();
        if in_order {
            marks.close();
        }
        for _ in 0..2 {
            let marks = Marks::open_with(folder.path(), NOW_MS, next, MAX_MARKS, MarksMetrics::default());
            assert_eq!(verdict(&marks, 1, before), expected, "{boot:?} {next:?} {in_order}");
            assert_eq!(verdict(&marks, 1, marks.began()), Verdict::Clean);
            // Events are acknowledged when they are synced, so files are as they were.
            let zone = zone();
            let file = "p".parse().expect("path");
            let file = Identity { at: Some((&zone, At::File(&file))), id: None, tags: &[] };
            assert_eq!(marks.verdict_on_file(file, before), Verdict::Clean);
            marks.close();
        }
    }
}

#[test]
fn a_disk_that_takes_nothing_is_distrusted_until_it_takes_everything() {
    let folder = tempfile::tempdir().expect("folder");
    let metrics = MarksMetrics::default();
    let marks = Marks::open_with(folder.path(), NOW_MS, BOOT, MAX_MARKS, metrics.clone());
    let before = marks.began();
    fill_disk(&marks);
    marks.mark(page(1, false));
    assert_eq!((marks.trusted(), metrics.trusted.get(), metrics.failures.get()), (false, 0, 1));
    assert_eq!((verdict(&marks, 1, before), verdict(&marks, 2, before)), (Verdict::Hard, Verdict::Clean));
    let copied = tempfile::tempdir().expect("folder");
    for entry in std::fs::read_dir(folder.path()).expect("folder") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), copied.path().join(entry.file_name())).expect("copied");
    }
    let restarted = open(&copied);
    assert!([1, 2].iter().all(|name| verdict(&restarted, *name, before) == Verdict::Unknown));
    // The log cannot be made again: a folder is in its place. The mark is durable all the same: nothing is trusted.
    let in_the_way = folder.path().join("marks.log.new");
    std::fs::create_dir(&in_the_way).expect("made");
    marks.sync_blocking().expect("acknowledged");
    marks.mark(page(2, false));
    assert!(!marks.trusted());
    std::fs::remove_dir(&in_the_way).expect("removed");
    retry_now(&marks);
    marks.mark(page(3, false));
    marks.sync_blocking().expect("kept");
    assert_eq!((marks.trusted(), metrics.trusted.get(), metrics.failures.get()), (true, 1, 1));
    marks.mark(page(4, false));
    let marks = open(&folder);
    let verdicts = [1, 2, 3, 4, 5].map(|name| verdict(&marks, name, before));
    assert_eq!(verdicts, [Verdict::Hard, Verdict::Hard, Verdict::Hard, Verdict::Hard, Verdict::Clean]);
}

#[tokio::test]
async fn nothing_is_acknowledged_while_a_restart_would_trust_too_much() {
    let folder = tempfile::tempdir().expect("folder");
    let marks = Arc::new(open(&folder));
    marks.sync().await.expect("nothing to do");
    // A snapshot that cannot be removed, and logs that cannot be written, neither the old one nor a new one.
    let snapshot = folder.path().join(SNAPSHOT_FILE);
    std::fs::remove_file(&snapshot).expect("removed");
    std::fs::create_dir_all(snapshot.join("x")).expect("made");
    std::fs::create_dir(folder.path().join("marks.log.new")).expect("made");
    let read_only = Arc::new(File::open(newest_log(&folder)).expect("the log"));
    lock(&marks.journal).as_mut().expect("a journal").last = Some(Arc::clone(&read_only));
    lock(&marks.journal).as_mut().and_then(|journal| journal.log.as_mut()).expect("a log").file = read_only;
    marks.apply(&event(1, page(1, false)));
    assert!(!marks.trusted());
    let error = marks.sync().await.expect_err("exposed").to_string();
    assert!(error.contains("cannot be removed"), "{error}");
    marks.sync().await.expect_err("still");
    std::fs::remove_dir_all(&snapshot).expect("removed");
    marks.sync().await.expect("a restart knows nothing now");
    std::fs::remove_dir(folder.path().join("marks.log.new")).expect("removed");
    retry_now(&marks);
    marks.sync().await.expect("kept");
    assert!(marks.trusted());
}

#[test]
fn a_sync_that_fails_is_not_tried_again_but_everything_written_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let metrics = MarksMetrics::default();
    let marks = Marks::open_with(folder.path(), NOW_MS, BOOT, MAX_MARKS, metrics.clone());
    let (before, log) = (marks.began(), newest_log(&folder));
    marks.mark(page(1, false));
    let unsyncable = Arc::new(File::options().write(true).open("/dev/full").expect("a device"));
    unsyncable.sync_data().expect_err("no file");
    lock(&marks.journal).as_mut().expect("a journal").unsynced = vec![unsyncable];
    marks.sync_blocking().expect("kept");
    assert_eq!((marks.trusted(), metrics.failures.get()), (true, 1));
    assert!(!log.exists() && newest_log(&folder) != log);
    assert_eq!(verdict(&open(&folder), 1, before), Verdict::Hard);
}

/// What is on the disks of edges that run has to be understood by the next version, or to get another format number.
#[test]
fn the_formats_are_those_that_were_written_before() {
    let seal: Seal = std::array::from_fn(|n| n as u8);
    let names = state::names_of(&seal);
    let named = names.of(&Change::Purge(PurgeTargets {
        prefixes: vec![ZonePrefix { zone: zone(), prefix: "h/p".into() }],
        ..page(1, true)
    }));
    let hashes: Vec<u64> = named.iter().map(|named| named.hash).collect();
    let mut state = State::new(5, names, MAX_MARKS);
    state.take(&Record::StartedOver { era: 6, number: 7, catalog_id: "catalog".to_owned() });
    state.take(&Record::Opened { boot: BOOT, start: 8 });
    state.take(&Record::Event { number: 9, named: named.clone().split_off(1) });
    state.take(&Record::Local { number: 10, named: named[..1].to_vec() });
    let snapshot = state.encode(&seal, 3);
    let folder = tempfile::tempdir().expect("folder");
    let mut log = Log::create(folder.path(), seal, 3).expect("log");
    log.append(&Record::Event { number: 11, named }).expect("appended");
    let log = std::fs::read(path_of(folder.path(), 3)).expect("read");
    let sums = [snapshot.as_slice(), &log[..128]].map(|bytes| blake3::hash(bytes).to_hex()[..16].to_owned());
    assert_eq!(hashes, [13_116_101_114_040_337_168, 16_587_269_870_006_328_034]);
    assert_eq!((snapshot.len(), sums), (229, ["85f38e7a76c006c3", "051f1265cefa4ebe"].map(str::to_owned)));
    let (read, _, generation) = State::decode(&snapshot, MAX_MARKS).expect("understood");
    assert_eq!((read.encode(&seal, 3), generation), (snapshot, 3));
}

#[test]
fn a_full_log_is_replaced_and_a_snapshot_that_cannot_be_written_costs_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let marks = open(&folder);
    let before = marks.began();
    let first = newest_log(&folder);
    let used = |marks: &Marks| lock(&marks.journal).as_ref().and_then(|j| j.log.as_ref()).expect("a log").end;
    while used(&marks) <= FULL_LOG_BYTES {
        marks.mark(page(1, false));
    }
    let in_the_way = folder.path().join(format!("{SNAPSHOT_FILE}.new"));
    std::fs::create_dir(&in_the_way).expect("made");
    marks.sync_blocking().expect("kept");
    assert!(first.exists() && newest_log(&folder) != first, "the old log and a new one, and the old snapshot");
    marks.mark(page(2, false));
    for _ in 0..2 {
        let marks = open(&folder);
        assert!(marks.trusted());
        let verdicts = [1, 2, 3].map(|name| verdict(&marks, name, before));
        assert_eq!(verdicts, [Verdict::Hard, Verdict::Hard, Verdict::Clean]);
    }
    // A log that is missing where the one before is continued.
    std::fs::remove_dir(&in_the_way).expect("removed");
    std::fs::remove_file(newest_log(&folder)).expect("removed");
    let marks = open(&folder);
    assert!(marks.lost() && marks.trusted());
    // A log that is full before anybody has come to replace it.
    let fits = (0..LOG_BYTES).take_while(|_| {
        marks.mark(page(1, false));
        marks.trusted()
    });
    assert!(fits.count() > LOG_BYTES / 64);
    assert!(!marks.trusted());
    marks.sync_blocking().expect("kept");
    assert!(marks.trusted());
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 3, "era, snapshot and log");
}

/// What happens to an edge in the properties below.
#[derive(Debug, Clone)]
enum Step {
    Event(u8, bool),
    Local(u8, bool),
    Fetch(u8),
    /// Events up to here were not seen.
    Skip,
    Settle,
    FullDisk,
    Kill,
    Close,
    Damage(Damage),
}

#[derive(Debug, Clone)]
enum Damage {
    CutLog(usize),
    FlipLog(usize),
    RemoveLog,
    RemoveSnapshot,
    CutSnapshot(usize),
    FlipSnapshot(usize),
}

fn steps(damage: bool) -> impl Strategy<Value = Vec<Step>> {
    let at = || proptest::num::usize::ANY;
    let name = || 0_u8..4;
    let flag = || proptest::bool::ANY;
    // Most bytes of a log are zeros behind its end: half of the damage is to where the records are.
    let in_log = || prop_oneof![0..300_usize, 0..LOG_BYTES];
    let damages = prop_oneof![
        in_log().prop_map(Damage::CutLog),
        in_log().prop_map(Damage::FlipLog),
        Just(Damage::RemoveLog),
        Just(Damage::RemoveSnapshot),
        at().prop_map(Damage::CutSnapshot),
        at().prop_map(Damage::FlipSnapshot),
    ];
    let step = prop_oneof![
        6 => (name(), flag()).prop_map(|(name, soft)| Step::Event(name, soft)),
        6 => (name(), flag()).prop_map(|(name, soft)| Step::Local(name, soft)),
        6 => name().prop_map(Step::Fetch),
        1 => Just(Step::Settle),
        2 => Just(Step::Kill),
        1 => Just(Step::Close),
        u32::from(damage) => Just(Step::Skip),
        u32::from(damage) => Just(Step::FullDisk),
        2 * u32::from(damage) => damages.prop_map(Step::Damage),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What everybody knows who has seen everything.
#[derive(Default)]
struct Model {
    /// For each name and series of numbers: newest hard, newest soft.
    marks: std::collections::HashMap<(u8, bool), (u64, u64)>,
    /// What was fetched, when, and whether something has made that doubtful since.
    stored: Vec<(u8, Began, bool)>,
    head: u64,
}

impl Model {
    fn mark(&mut self, name: u8, local: bool, number: u64, soft: bool) {
        let mark = self.marks.entry((name, local)).or_default();
        *if soft { &mut mark.1 } else { &mut mark.0 } = number;
    }

    fn verdict(&self, name: u8, began: Began) -> Verdict {
        let of = |local: bool, began: u64| match self.marks.get(&(name, local)) {
            Some((hard, _)) if *hard > began => Verdict::Hard,
            Some((_, soft)) if *soft > began => Verdict::Soft,
            _ => Verdict::Clean,
        };
        of(false, began.event).max(of(true, began.local))
    }

    /// Everything that is stored may be used at most as the model says, and exactly so where nothing went wrong.
    fn check(&self, marks: &Marks, exact: bool) -> Result<(), proptest::test_runner::TestCaseError> {
        for (name, began, doubtful) in &self.stored {
            let (got, expected) = (verdict(marks, *name, *began), self.verdict(*name, *began));
            if *doubtful {
                proptest::prop_assert!(got >= Verdict::Unknown, "{got:?} of {name} at {began:?}");
            } else if exact {
                proptest::prop_assert_eq!(got, expected, "{} at {:?}", name, began);
            } else {
                // A table that is full no longer knows who was meant, only when.
                let least = expected.min(Verdict::Unknown);
                proptest::prop_assert!(got >= least, "{got:?}, not {expected:?}, of {name} at {began:?}");
            }
        }
        Ok(())
    }
}

fn damage(folder: &TempDir, damage: &Damage) {
    let (log, snapshot) = (newest_log(folder), folder.path().join(SNAPSHOT_FILE));
    let change = |path: &PathBuf, change: &dyn Fn(&mut Vec<u8>)| {
        // What is removed already, as distrusted, cannot be damaged more.
        let Ok(mut bytes) = std::fs::read(path) else { return };
        change(&mut bytes);
        std::fs::write(path, bytes).expect("written");
    };
    match damage {
        Damage::CutLog(at) => change(&log, &|bytes| bytes.truncate(*at)),
        Damage::FlipLog(at) => change(&log, &|bytes| bytes[*at] ^= 4),
        Damage::RemoveLog => std::fs::remove_file(log).expect("removed"),
        Damage::RemoveSnapshot => drop(std::fs::remove_file(snapshot)),
        Damage::CutSnapshot(at) => change(&snapshot, &|bytes| bytes.truncate(*at % bytes.len())),
        Damage::FlipSnapshot(at) => change(&snapshot, &|bytes| {
            let at = *at % bytes.len();
            bytes[at] ^= 4;
        }),
    }
}

fn live(steps: &[Step], capacity: usize) -> Result<(), proptest::test_runner::TestCaseError> {
    let folder = tempfile::tempdir().expect("folder");
    let open = || Marks::open_with(folder.path(), NOW_MS, BOOT, capacity, MarksMetrics::default());
    let mut marks = open();
    marks.start_over("catalog", 0);
    marks.sync_blocking().expect("kept");
    let (era, mut model, exact) = (marks.era(), Model::default(), capacity == MAX_MARKS);
    for step in steps {
        match step {
            Step::Event(name, soft) => {
                model.head += 1;
                marks.apply(&event(model.head, page(*name, *soft)));
                model.mark(*name, false, model.head, *soft);
            }
            Step::Local(name, soft) => {
                let number = marks.mark(page(*name, *soft));
                model.mark(*name, true, number, *soft);
            }
            Step::Fetch(name) => model.stored.push((*name, marks.began(), false)),
            Step::Skip => {
                model.head += 5;
                marks.skip_to(model.head);
                model.stored.iter_mut().for_each(|(_, _, doubtful)| *doubtful = true);
            }
            Step::Settle => {
                retry_now(&marks);
                marks.settle(LONG_LOG_BYTES).expect("kept");
            }
            Step::FullDisk => {
                if marks.trusted() {
                    fill_disk(&marks);
                }
            }
            Step::Kill | Step::Close | Step::Damage(_) => {
                if matches!(step, Step::Close) {
                    marks.close();
                }
                let mut lost = !marks.trusted();
                drop(marks);
                if let Step::Damage(how) = step {
                    damage(&folder, how);
                    lost = true;
                }
                marks = open();
                proptest::prop_assert_eq!(marks.lost(), lost);
                proptest::prop_assert_eq!(marks.era(), era, "neither was era.json damaged, nor is the catalog another");
                if lost {
                    model.stored.iter_mut().for_each(|(_, _, doubtful)| *doubtful = true);
                    // What an old configuration says, and what control sends after that.
                    marks.skip_to(model.head / 2);
                    for number in model.head / 2 + 1..=model.head {
                        marks.apply(&event(number, PurgeTargets::default()));
                    }
                }
                proptest::prop_assert_eq!(marks.applied(), model.head);
            }
        }
        model.check(&marks, exact)?;
    }
    Ok(())
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    /// Killed or ended in order, as often as one likes: the same verdicts as if nothing had happened.
    #[test]
    fn restarts_change_nothing(steps in steps(false)) {
        live(&steps, MAX_MARKS)?;
    }

    /// Whatever happens to the files: never a better verdict than that of one who has seen everything.
    #[test]
    fn damage_never_makes_a_verdict_better(steps in steps(true)) {
        live(&steps, MAX_MARKS)?;
    }

    /// The same with a table that is too small for what is purged.
    #[test]
    fn nor_does_a_full_table(steps in steps(true), capacity in 1_usize..4) {
        live(&steps, capacity)?;
    }
}

/// Every length that a log can be cut to, and every byte of what is in it.
#[test]
fn wherever_a_log_ends_nothing_is_clean_that_was_purged() {
    let folder = tempfile::tempdir().expect("folder");
    let marks = open(&folder);
    let before = marks.began();
    marks.apply(&event(1, page(1, false)));
    marks.mark(page(2, false));
    let end = lock(&marks.journal).as_ref().and_then(|journal| journal.log.as_ref()).expect("a log").end;
    drop(marks);
    let (log, kept) = (newest_log(&folder), std::fs::read(newest_log(&folder)).expect("read"));
    let snapshot = std::fs::read(folder.path().join(SNAPSHOT_FILE)).expect("read");
    assert_eq!(log, path_of(folder.path(), 1));
    for at in (0..end + 8).step_by(3).chain([end, end - 1, LOG_BYTES - 1]) {
        for cut in [true, false] {
            let mut bytes = kept.clone();
            if cut {
                bytes.truncate(at)
            } else {
                bytes[at] ^= 1
            }
            std::fs::write(&log, &bytes).expect("written");
            std::fs::write(folder.path().join(SNAPSHOT_FILE), &snapshot).expect("written");
            let marks = open(&folder);
            assert!(marks.lost(), "byte {at}, cut: {cut}");
            assert!([1, 2, 3].iter().all(|name| verdict(&marks, *name, before) == Verdict::Unknown));
        }
    }
}
