//! What comes back after a restart: with a good snapshot, an old one, a wrong one or none.

use super::*;

/// Ends a tier as a kill does: without a snapshot.
fn kill(disk: Arc<Disk>) {
    disk.end();
    drop(disk);
}

/// Some small entries and a large one.
fn fill(disk: &Disk) -> Vec<(New, Bytes)> {
    let mut all: Vec<_> = (0..30_u64).map(|n| (new(&n.to_string()), bytes(n * 300, n))).collect();
    for (new, body) in &all {
        disk.write(new, std::slice::from_ref(body)).expect("stored");
    }
    all.push((new("large"), bytes(2 * MIB + 7, 99)));
    store(disk, &all[30].0, &all[30].1).expect("stored");
    all
}

fn check(disk: &Disk, all: &[(New, Bytes)]) {
    check_entries(disk, all);
    assert_eq!(flaws(disk), []);
}

fn check_entries(disk: &Disk, all: &[(New, Bytes)]) {
    for (new, body) in all {
        let [id] = disk.find(new.key_hash)[..] else { panic!("{:?} is not found once", new.key) };
        let head = disk.head(id).expect("a head");
        assert_eq!((&head.key, &head.meta, head.complete), (&new.key, &new.meta, true));
        for (number, slice) in (0..).zip(cut(body)) {
            assert_eq!(disk.slice(id, number).expect("read"), slice);
        }
    }
}

#[test]
fn everything_is_back_at_once_with_a_snapshot() {
    let mut bench = Bench::new(16 * MIB);
    bench.folders = 2;
    let disk = bench.open();
    let all = fill(&disk);
    let (bytes, ids) = (disk.stats().folders[0].bytes, disk.find(all[3].0.key_hash));
    disk.touch(ids[0]);
    disk.close();
    drop(disk);
    let disk = bench.open_unscanned();
    check(&disk, &all);
    let uses = |disk: &Disk| disk.list(Cursor::default(), 99).0.iter().map(|one| u32::from(one.uses)).sum::<u32>();
    assert!(uses(&disk) == 1 || ids[0].folder == 1);
    bench.scan(&disk);
    check(&disk, &all);
    let stats = disk.stats();
    assert_eq!((stats.folders[0].bytes, stats.folders[0].forgotten), (bytes, 0));
    assert_eq!(stats.folders[0].scanned_permille, 1000);
}

#[test]
fn who_asks_before_the_snapshot_is_read_is_answered_and_what_was_done_by_then_stays() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    disk.close();
    drop(disk);
    let disk = bench.open_unread();
    let (asked, gone) = (all[3].0.key_hash, all[4].0.key_hash);
    assert!(disk.find(asked).is_empty() && !disk.is_scanned(asked));
    let [id] = disk.seek(asked)[..] else { panic!("not found once") };
    assert_eq!(disk.slice(id, 0).expect("read"), all[3].1);
    assert!(disk.remove(disk.seek(gone)[0]));
    disk.write(&new("later"), &[bytes(5, 5)]).expect("stored");
    bench.recall(&disk);
    assert!(disk.find(gone).is_empty());
    assert_eq!(disk.find(asked), [id]);
    assert_eq!(disk.stats().folders[0].entries as usize, all.len());
    bench.scan(&disk);
    let rest: Vec<_> = all.iter().filter(|(new, _)| new.key_hash != gone).cloned().collect();
    check(&disk, &rest);
    let taken: u64 = entry_files(&bench.path(0)).iter().map(|path| fs::metadata(path).expect("there").len()).sum();
    let stats = &disk.stats().folders[0];
    assert_eq!((stats.entries as usize, stats.forgotten), (all.len(), 0));
    assert!(stats.bytes >= taken, "{} for {taken}", stats.bytes);
}

#[test]
fn a_tier_that_is_closed_at_once_keeps_its_snapshot() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    disk.close();
    drop(disk);
    Disk::open(bench.config()).expect("a tier").close();
    check(&bench.open_unscanned(), &all);
}

#[test]
fn what_a_closed_tier_misses_is_no_damage() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    disk.close();
    let ids: Vec<_> = all.iter().flat_map(|(new, _)| disk.find(new.key_hash)).collect();
    assert_eq!(disk.slice(ids[3], 0).expect("still read"), all[3].1);
    // As by another process, which has the folder now.
    entry_files(&bench.path(0)).iter().for_each(|path| fs::remove_file(path).expect("removed"));
    for id in &ids[..30] {
        assert!(matches!(disk.slice(*id, 0), Err(ReadError::Gone)), "{id:?}");
    }
    assert_eq!((flaws(&disk), disk.stats().folders[0].forgotten), (vec![], 30));
}

#[test]
fn what_nobody_said_the_length_of_is_removed_and_its_place_given_back() {
    for with_snapshot in [false, true] {
        let bench = Bench::new(16 * MIB);
        let disk = bench.open();
        let all = fill(&disk);
        let before = disk.stats().folders[0].bytes;
        let id = disk.create(&new("growing"), None, 8 * MIB).expect("made");
        disk.write_slice(id, 0, &[bytes(MIB, 1)]).expect("written");
        if with_snapshot {
            disk.close();
            drop(disk);
        } else {
            kill(disk);
        }
        bench.pass_s(10);
        let disk = bench.open_unscanned();
        bench.scan(&disk);
        check(&disk, &all);
        assert_eq!(disk.find(new("growing").key_hash), []);
        assert_eq!((disk.stats().folders[0].bytes, entry_files(&bench.path(0)).len()), (before, all.len()));
    }
}

#[test]
fn everything_is_back_after_the_scan_without_a_snapshot() {
    let mut bench = Bench::new(16 * MIB);
    bench.folders = 2;
    let disk = bench.open();
    let all = fill(&disk);
    let bytes: Vec<_> = disk.stats().folders.iter().map(|folder| folder.bytes).collect();
    kill(disk);
    let disk = bench.open_unscanned();
    assert!(disk.find(all[3].0.key_hash).is_empty() && !disk.is_scanned(all[3].0.key_hash));
    assert_eq!(disk.seek(all[3].0.key_hash).len(), 1, "who asks before the scan is answered");
    assert!(disk.seek(new("nothing").key_hash).is_empty());
    assert_eq!(disk.stats().folders.iter().map(|folder| folder.entries).sum::<u64>(), 1);
    bench.scan(&disk);
    assert!(disk.is_scanned(all[3].0.key_hash));
    check(&disk, &all);
    assert_eq!(disk.stats().folders.iter().map(|folder| folder.bytes).collect::<Vec<_>>(), bytes);
}

#[test]
fn threads_scan_and_a_closed_tier_can_be_opened_again() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    kill(disk);
    for _ in 0..2 {
        let disk = Disk::open(bench.config()).expect("a tier");
        let done = |disk: &Disk| disk.stats().folders[0].scanned_permille == 1000;
        while !done(&disk) {
            std::thread::yield_now();
        }
        check(&disk, &all);
        disk.close();
        assert!(bench.path(0).join("index").exists());
    }
}

#[test]
fn an_old_snapshot_is_put_right() {
    let bench = Bench::new(64 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    let growing = disk.create(&new("growing"), Some(3 * MIB), 0).expect("made");
    disk.write_slice(growing, 0, &[bytes(MIB, 1)]).expect("written");
    scan::save(&disk.folders[0]);
    // After the snapshot: one goes, one comes, one grows, one gets another meta and expiry.
    disk.remove(disk.find(all[0].0.key_hash)[0]);
    disk.write(&new("later"), &[bytes(5, 5)]).expect("stored");
    disk.write_slice(growing, 2, &[bytes(MIB, 3)]).expect("written");
    let changed = disk.find(all[1].0.key_hash)[0];
    disk.replace_meta(changed, Bytes::from_static(b"m"), [1; STAMP_BYTES], Some(5)).expect("replaced");
    let (entries, bytes_taken) = (disk.stats().folders[0].entries, disk.stats().folders[0].bytes);
    kill(disk);
    for scan_first in [true, false] {
        let disk = bench.open_unscanned();
        if scan_first {
            bench.scan(&disk);
        }
        for id in disk.find(all[0].0.key_hash) {
            assert!(matches!(disk.slice(id, 0), Err(ReadError::Gone)), "not scanned yet, and not there");
        }
        let growing = disk.find(new("growing").key_hash)[0];
        assert_eq!(disk.slice(growing, 2).expect("read"), bytes(MIB, 3));
        assert_eq!(disk.present(growing).expect("read").count(), 2);
        assert!(!disk.head(growing).expect("a head").complete);
        let head = disk.head(disk.find(all[1].0.key_hash)[0]).expect("a head");
        assert_eq!((&head.meta[..], head.expires_s), (&b"m"[..], Some(5)));
        bench.scan(&disk);
        assert_eq!(disk.find(new("later").key_hash).len(), 1);
        let stats = &disk.stats().folders[0];
        assert_eq!((stats.entries, stats.bytes, stats.forgotten), (entries, bytes_taken, 1));
        check(&disk, &all[2..]);
        kill(disk);
    }
}

#[test]
fn a_damaged_or_foreign_snapshot_counts_as_none() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    disk.close();
    drop(disk);
    let path = bench.path(0).join("index");
    let good = fs::read(&path).expect("a snapshot");
    let change = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let other = Bench::new(16 * MIB);
    let disk = other.open();
    disk.write(&new("elsewhere"), &[]).expect("stored");
    disk.close();
    let foreign = fs::read(other.path(0).join("index")).expect("a snapshot");
    for (name, bytes, known) in [
        ("a flipped bit", change(good.len() / 2, good[good.len() / 2] ^ 4), 0),
        ("another version", change(8, 2), 0),
        ("more records than there are", change(16, 200), 0),
        ("cut", good[..good.len() - 64].to_vec(), 0),
        ("cut to nothing", vec![], 0),
        ("garbage", vec![0xaa; 3000], 0),
        ("another folder's", foreign, 1),
        ("the right one", good.clone(), all.len() as u64),
    ] {
        fs::write(&path, bytes).expect("written");
        let disk = bench.open_unscanned();
        assert_eq!(disk.stats().folders[0].entries, known, "{name}");
        bench.scan(&disk);
        check_entries(&disk, &all);
        let damaged: &[(Flaw, u64)] = if known == 0 { &[(Flaw::Index, 1)] } else { &[] };
        assert_eq!(flaws(&disk), damaged, "{name}");
        assert_eq!(disk.stats().folders[0].entries, all.len() as u64, "{name}");
        assert!(disk.find(new("elsewhere").key_hash).is_empty(), "{name}");
        kill(disk);
    }
}

#[test]
fn what_a_former_life_was_writing_is_removed() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    kill(disk);
    let temporary = bench.path(0).join("new").join("0000000000000001-5");
    fs::write(&temporary, "half a file").expect("written");
    let disk = bench.open();
    assert!(!temporary.exists());
    check(&disk, &all);
}

#[test]
fn a_lower_limit_is_kept_to_from_the_start() {
    for with_snapshot in [false, true] {
        let mut bench = Bench::new(16 * MIB);
        let disk = bench.open();
        let all = fill(&disk);
        if with_snapshot {
            disk.close();
            drop(disk);
        } else {
            kill(disk);
        }
        bench.limit_bytes = 64 << 10;
        let disk = bench.open_unscanned();
        assert!(disk.stats().folders[0].bytes <= 64 << 10);
        if with_snapshot {
            // What was stored last, but for what is larger than all the room.
            assert!(disk.find(all[29].0.key_hash).len() == 1 && disk.find(all[0].0.key_hash).is_empty());
        }
        bench.scan(&disk);
        let stats = &disk.stats().folders[0];
        assert!(stats.bytes <= 64 << 10 && stats.bytes > 48 << 10, "{}", stats.bytes);
        assert_eq!(entry_files(&bench.path(0)).len() as u64, stats.entries);
        assert!(disk.find(all[30].0.key_hash).is_empty());
        assert_eq!(flaws(&disk), []);
    }
}

#[test]
fn a_snapshot_has_a_largest_size() {
    let least = snapshot::max_bytes(0);
    assert_eq!((least, snapshot::max_bytes(1 << 36)), ((1 << 30) + 40, least));
    assert_eq!(snapshot::max_bytes((1 << 36) + 4096), least + 64);
}

#[test]
fn a_removal_during_the_scan_is_not_undone_by_it() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let all = fill(&disk);
    kill(disk);
    let disk = bench.open_unscanned();
    let key_hash = all[4].0.key_hash;
    let names: Vec<_> = entry_files(&bench.path(0));
    let id = disk.seek(key_hash)[0];
    let name = disk.folders[0].index().get(id.slot, id.nonce).expect("a record").name();
    let path = disk.folders[0].path_of(name);
    let copy = fs::read(&path).expect("a file");
    assert!(disk.remove(id));
    // As if the scan had listed the name just before the file went.
    fs::write(&path, copy).expect("written");
    bench.scan(&disk);
    assert!(disk.find(key_hash).is_empty());
    assert_eq!(disk.stats().folders[0].entries as usize, names.len() - 1);
}
