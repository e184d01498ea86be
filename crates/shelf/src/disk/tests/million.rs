//! A million entries, measured. Run with `cargo test -p shelf --release million -- --ignored --nocapture --test-threads 1`.

use std::io::Write as _;
use std::time::Instant;

use super::index::{Index, Record, WHOLE};
use super::*;

const ENTRIES: u64 = 1_000_000;
/// What an entry may cost in memory in all, in bytes.
const MOST_BYTES: u64 = 200;

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("said");
}

/// Memory that this process has, in bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("statm");
    statm.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") * 4096
}

fn record(n: u64) -> Record {
    Record {
        key_hash: Record::split(new(&n.to_string()).key_hash),
        nonce: NonZeroU64::new(n + 1).expect("not zero"),
        stored_ms: 1_800_000_000_000 + n,
        length: 3000,
        used_s: 1_800_000_000 + n as u32 / 1000,
        expires_s: 1_900_000_000 + (n * 7 % 100_000) as u32,
        blocks: 1,
        present: 1,
        uses: 1,
        flags: WHOLE,
    }
}

#[test]
#[ignore = "a measurement"]
fn million_records_in_memory() {
    for policy in PolicyName::ALL {
        let before = resident();
        let mut index = Index::new(ENTRIES * 4096, PolicyChoice { policy, ..PolicyChoice::default() });
        for n in 0..ENTRIES {
            index.insert(record(n), false);
        }
        for n in (0..ENTRIES).step_by(3) {
            let slot = index.slot_of(record(n).name()).expect("a slot");
            index.touch(slot, record(n).nonce, 1_800_000_000);
        }
        let (heap, grown) = (index.heap_bytes() as u64 / ENTRIES, (resident() - before) / ENTRIES);
        say(&format!("{}: {heap} bytes allocated, {grown} resident for each entry", policy.as_str()));
        assert!(heap <= MOST_BYTES && grown <= MOST_BYTES);
    }
}

#[test]
#[ignore = "a measurement"]
fn million_records_in_a_snapshot() {
    let bench = Bench::new(ENTRIES * 4096);
    let disk = bench.open_unscanned();
    (0..ENTRIES).for_each(|n| drop(disk.folders[0].index().insert(record(n), false)));
    let began = Instant::now();
    scan::save(&disk.folders[0]);
    say(&format!("saved in {:?}", began.elapsed()));
    drop(disk);
    let (began, before) = (Instant::now(), resident());
    let disk = bench.open_unscanned();
    say(&format!("opened in {:?}", began.elapsed()));
    assert_eq!(disk.stats().folders[0].entries, ENTRIES);
    let stats = disk.stats().folders[0].index_bytes / ENTRIES;
    say(&format!("{stats} bytes allocated, {} resident for each entry", (resident() - before) / ENTRIES));
    let began = Instant::now();
    for n in 0..ENTRIES {
        assert_eq!(disk.find(record(n).name().key_hash).len(), 1);
    }
    say(&format!("a lookup takes {:?}", began.elapsed() / ENTRIES as u32));
}

/// Four gigabytes of files in the folder for temporary files (`TMPDIR`).
#[test]
#[ignore = "a measurement"]
fn million_files() {
    let bench = Bench::new(ENTRIES * 8192);
    let disk = bench.open();
    let began = Instant::now();
    let body = bytes(3000, 1);
    for n in 0..ENTRIES {
        disk.write(&new(&n.to_string()), std::slice::from_ref(&body)).expect("stored");
    }
    say(&format!("written in {:?}", began.elapsed()));
    let began = Instant::now();
    for n in (0..ENTRIES).step_by(10) {
        let id = disk.find(new(&n.to_string()).key_hash)[0];
        assert_eq!(disk.head_and_first(id).expect("read").1.len(), 3000);
    }
    say(&format!("a small entry is read in {:?}", began.elapsed() / (ENTRIES / 10) as u32));
    disk.close();
    drop(disk);
    for clean in [true, false] {
        if !clean {
            fs::remove_file(bench.path(0).join("index")).expect("removed");
        }
        let began = Instant::now();
        let disk = Disk::open(bench.config()).expect("a tier");
        let opened = began.elapsed();
        let found = disk.seek(new("777777").key_hash).len();
        say(&format!("snapshot {clean}: opened in {opened:?}, first hit after {:?} ({found})", began.elapsed()));
        while disk.stats().folders[0].scanned_permille < 1000 {
            std::thread::yield_now();
        }
        let entries = disk.stats().folders[0].entries;
        say(&format!("snapshot {clean}: {entries} entries, scanned in {:?}", began.elapsed()));
        assert_eq!(entries, ENTRIES);
        disk.end();
    }
}

/// How fast slices come from the page cache, verified.
#[test]
#[ignore = "a measurement"]
fn million_kilobytes_read() {
    let bench = Bench::new(2 << 30);
    let disk = bench.open();
    let id = store(&disk, &new("a"), &bytes(1000 * MIB, 1)).expect("stored");
    for round in 0..3 {
        let began = Instant::now();
        for number in 0..1000 {
            assert_eq!(disk.slice(id, number).expect("read").len() as u64, MIB);
        }
        say(&format!("round {round}: a slice of 1 MiB takes {:?}", began.elapsed() / 1000));
    }
}
