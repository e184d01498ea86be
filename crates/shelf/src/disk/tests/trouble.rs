//! A disk that is full, dying, read-only or gone: reading goes on, nothing wrong is served, and it comes back by itself.

use std::os::unix::fs::FileExt as _;

use super::*;

fn rule(operation: Operation, failure: Failure, times: u32) -> Rule {
    Rule { operation: Some(operation), folder: None, failure, after: 0, times }
}

const ALWAYS: u32 = u32::MAX;

#[test]
fn a_failed_write_takes_the_folder_out_of_use_for_writing_until_a_probe_succeeds() {
    use Failure::{Full, Io, ReadOnly};
    use Operation::{Create, Rename, Reserve, Write};
    for (operation, failure) in [
        (Create, ReadOnly),
        (Create, Io),
        (Create, Full),
        (Write, Io),
        (Write, Full),
        (Write, ReadOnly),
        (Rename, Io),
        (Rename, Full),
        (Reserve, Io),
        (Reserve, Full),
    ] {
        let context = format!("{operation:?} {failure:?}");
        let bench = Bench::new(16 * MIB);
        let disk = bench.open();
        let old = store(&disk, &new("old"), &bytes(2 * MIB, 1)).expect("stored");
        bench.faults.add(rule(operation, failure, ALWAYS));
        for large in [false, true] {
            let result =
                if large { store(&disk, &new("new"), &bytes(2 * MIB, 2)) } else { disk.write(&new("new"), &[]) };
            assert!(matches!(result, Err(WriteError::Io(_) | WriteError::OutOfUse)), "{context}: {result:?}");
        }
        let stats = &disk.stats().folders[0];
        assert!(matches!(&stats.state, FolderState::ReadOnly(reason) if reason.contains("os error")), "{context}");
        assert!(stats.write_errors == 1 && stats.refused >= 1, "{context}");
        assert!(matches!(disk.write(&new("new"), &[]), Err(WriteError::OutOfUse)), "{context}");
        // Where it seems full, the oldest has left to make room.
        if failure != Full {
            let result = disk.replace_meta(old, Bytes::new(), [0; 32], None);
            assert!(matches!(result, Err(WriteError::OutOfUse)), "{context}");
            assert_eq!(disk.slice(old, 1).expect("reading goes on"), cut(&bytes(2 * MIB, 1))[1], "{context}");
        }
        bench.scan(&disk);
        assert_ne!(disk.stats().folders[0].state, FolderState::Ok, "{context}: the probe fails as well");
        bench.faults.clear();
        bench.scan(&disk);
        assert_eq!(disk.stats().folders[0].state, FolderState::Ok, "{context}");
        disk.write(&new("new"), &[bytes(10, 1)]).expect("stored");
        assert_eq!(disk.find(new("new").key_hash).len(), 1, "{context}");
        assert!(fs::read_dir(bench.path(0).join("new")).expect("new").next().is_none(), "{context}");
        assert_eq!(flaws(&disk), [], "{context}");
    }
}

#[test]
fn a_failed_sync_takes_the_folder_out_of_use_for_writing() {
    let bench = Bench::new(MIB);
    let disk = bench.open();
    let id = disk.write(&new("a"), &[bytes(10, 1)]).expect("stored");
    bench.faults.add(rule(Operation::Sync, Failure::Io, 2));
    disk.close();
    assert!(matches!(disk.stats().folders[0].state, FolderState::ReadOnly(_)));
    assert!(!bench.path(0).join("index").exists(), "a snapshot that could not be synced is none");
    assert_eq!(disk.slice(id, 0).expect("read"), bytes(10, 1));
    bench.scan(&disk);
    assert!(matches!(disk.stats().folders[0].state, FolderState::ReadOnly(_)), "the probe syncs too");
    bench.scan(&disk);
    assert_eq!(disk.stats().folders[0].state, FolderState::Ok);
}

#[test]
fn a_write_that_meets_a_full_file_system_makes_room_once() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    disk.write(&new("old"), &[bytes(500_000, 1)]).expect("stored");
    bench.faults.add(rule(Operation::Write, Failure::Full, 1));
    disk.write(&new("new"), &[bytes(400_000, 1)]).expect("stored after the oldest has left");
    assert!(disk.find(new("old").key_hash).is_empty());
    assert_eq!((disk.stats().folders[0].evictions, disk.stats().folders[0].state.clone()), (1, FolderState::Ok));
    let id = disk.create(&new("large"), Some(2 * MIB), 0).expect("made");
    disk.touch(id);
    bench.faults.add(rule(Operation::Reserve, Failure::Full, 1));
    assert!(matches!(disk.write_slice(id, 0, &[bytes(MIB, 1)]), Err(WriteError::Io(_))), "no space could be asked for");
}

#[test]
fn too_few_file_descriptors_are_no_fault_of_the_folder() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let body = bytes(2 * MIB, 1);
    let (a, b) = (store(&disk, &new("a"), &body).expect("a"), store(&disk, &new("b"), &body).expect("b"));
    disk.close_kept();
    disk.slice(a, 0).expect("read, and kept open");
    bench.faults.add(rule(Operation::Open, Failure::TooManyFiles, 1));
    disk.slice(b, 0).expect("read, after a's file was closed");
    bench.faults.add(rule(Operation::Create, Failure::TooManyFiles, 1));
    disk.write(&new("c"), &[]).expect("written, after b's file was closed");
    assert_eq!(disk.stats().open_files, 0);
    bench.faults.add(rule(Operation::Open, Failure::TooManyFiles, ALWAYS));
    bench.faults.add(rule(Operation::Create, Failure::TooManyFiles, ALWAYS));
    assert!(matches!(disk.slice(a, 0), Err(ReadError::Io(_))));
    assert!(matches!(disk.write(&new("d"), &[]), Err(WriteError::Io(_))));
    assert_eq!(disk.stats().folders[0].state, FolderState::Ok);
    bench.faults.clear();
    assert_eq!(disk.slice(a, 0).expect("read"), cut(&body)[0]);
    disk.write(&new("d"), &[]).expect("written");
    assert_eq!(flaws(&disk), []);
}

#[test]
fn a_bound_on_open_files_holds() {
    let bench = Bench::new(MIB);
    let disk = bench.open();
    let id = disk.write(&new("a"), &[bytes(10, 1)]).expect("stored");
    disk.open_files.store(MAX_OPEN_FILES - 1, Ordering::Relaxed);
    let last = disk.reader(id).expect("the last one");
    assert!(matches!(disk.reader(id), Err(ReadError::Busy)));
    drop(last);
    disk.reader(id).expect("open again");
    assert_eq!(disk.stats().open_files, MAX_OPEN_FILES - 1);
}

#[test]
fn a_read_that_fails_is_a_miss_and_the_entry_stays() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let small = disk.write(&new("a"), &[bytes(9000, 1)]).expect("stored");
    let large = store(&disk, &new("b"), &bytes(2 * MIB, 1)).expect("stored");
    for (operation, after) in [(Operation::Open, 0), (Operation::Read, 0), (Operation::Read, 1)] {
        for id in [small, large] {
            disk.close_kept();
            bench.faults.add(Rule { after, ..rule(operation, Failure::Io, 1) });
            assert!(matches!(disk.slice(id, 0), Err(ReadError::Io(_))), "{operation:?} {after}");
            bench.faults.clear();
            disk.slice(id, 0).expect("read");
        }
    }
    let stats = disk.stats();
    assert_eq!((stats.misses, stats.hits, stats.folders[0].read_errors), (6, 6, 6));
    assert_eq!((stats.folders[0].state.clone(), flaws(&disk)), (FolderState::Ok, vec![]));
    bench.faults.add(rule(Operation::Read, Failure::Io, ALWAYS));
    assert_eq!(disk.verify(Cursor::default(), u64::MAX).unreadable, 2);
}

#[test]
fn a_folder_that_vanishes_counts_as_empty_and_comes_back() {
    for by_reader in [true, false] {
        let bench = Bench::new(16 * MIB);
        let disk = bench.open();
        let (path, away) = (bench.path(0), bench.dir.path().join("away"));
        let id = store(&disk, &new("a"), &bytes(2 * MIB, 1)).expect("stored");
        let reader = disk.reader(id).expect("open");
        disk.write(&new("b"), &[bytes(10, 2)]).expect("stored");
        fs::rename(&path, &away).expect("moved away");
        if by_reader {
            assert!(matches!(disk.slice(disk.find(new("b").key_hash)[0], 0), Err(ReadError::Gone)));
        } else {
            let result = disk.write(&new("c"), &[]);
            assert!(matches!(result, Err(WriteError::Io(_))), "{result:?}");
        }
        let stats = &disk.stats().folders[0];
        assert!(matches!(stats.state, FolderState::Gone(_)));
        assert_eq!((stats.entries, stats.bytes, flaws(&disk)), (0, 0, vec![]));
        assert!(disk.find(new("a").key_hash).is_empty());
        assert_eq!(reader.slice(1).expect("who reads, reads on"), cut(&bytes(2 * MIB, 1))[1]);
        assert!(matches!(disk.write(&new("c"), &[]), Err(WriteError::OutOfUse)));
        fs::rename(&away, &path).expect("brought back");
        bench.scan(&disk);
        assert_eq!(disk.stats().folders[0].state, FolderState::Ok);
        let [id] = disk.find(new("a").key_hash)[..] else { panic!("found again") };
        assert_eq!(disk.slice(id, 1).expect("read"), cut(&bytes(2 * MIB, 1))[1]);
        assert_eq!(disk.find(new("b").key_hash).len(), 1);
        disk.write(&new("c"), &[]).expect("stored");
        assert_eq!(disk.stats().folders[0].entries, 3);
    }
}

#[test]
fn a_folder_that_was_emptied_is_used_again() {
    let bench = Bench::new(MIB);
    let disk = bench.open();
    disk.write(&new("a"), &[bytes(10, 1)]).expect("stored");
    fs::remove_dir_all(bench.path(0)).expect("removed");
    bench.scan(&disk);
    assert!(matches!(disk.stats().folders[0].state, FolderState::Gone(_)));
    bench.scan(&disk);
    assert_eq!(disk.stats().folders[0].state, FolderState::Ok);
    disk.write(&new("a"), &[bytes(10, 1)]).expect("stored");
    assert_eq!(entry_files(&bench.path(0)).len(), 1);
}

#[test]
fn one_dead_folder_does_not_stop_the_others() {
    let mut bench = Bench::new(16 * MIB);
    bench.folders = 2;
    fs::write(bench.path(0), "a file is where the first folder should be").expect("written");
    let disk = bench.open();
    assert!(matches!(disk.stats().folders[0].state, FolderState::Gone(_)));
    assert_eq!(disk.stats().folders[1].state, FolderState::Ok);
    for n in 0..20_u64 {
        let id = disk.write(&new(&n.to_string()), &[bytes(n, n)]).expect("stored");
        assert_eq!(disk.slice(id, 0).expect("read"), bytes(n, n));
    }
    fs::remove_file(bench.path(0)).expect("removed");
    bench.scan(&disk);
    assert_eq!(disk.stats().folders[0].state, FolderState::Ok);
    bench.faults.add(Rule { folder: Some(1), ..rule(Operation::Write, Failure::Io, ALWAYS) });
    for n in 20..40_u64 {
        let id = disk.write(&new(&n.to_string()), &[bytes(n, n)]).expect("stored in the other");
        assert_eq!(id.folder, 0);
    }
    assert_eq!(disk.stats().folders[1].write_errors, 1);
    for n in 0..40_u64 {
        let [id] = disk.find(new(&n.to_string()).key_hash)[..] else { panic!("{n}") };
        assert_eq!(disk.slice(id, 0).expect("read"), bytes(n, n));
    }
}

#[test]
fn a_file_that_cannot_be_removed_takes_the_folder_out_of_use() {
    let bench = Bench::new(MIB);
    let disk = bench.open();
    let id = disk.write(&new("a"), &[bytes(10, 1)]).expect("stored");
    bench.faults.add(rule(Operation::Remove, Failure::ReadOnly, 1));
    assert!(disk.remove(id));
    assert!(disk.find(new("a").key_hash).is_empty());
    assert!(matches!(disk.stats().folders[0].state, FolderState::ReadOnly(_)));
}

#[test]
fn a_damaged_slice_on_a_read_only_file_system_takes_its_entry_with_it() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let id = store(&disk, &new("a"), &bytes(2 * MIB, 1)).expect("stored");
    let file = fs::File::options().write(true).open(&entry_files(&bench.path(0))[0]).expect("open");
    file.write_all_at(b"xyz", 12_288 + MIB).expect("damaged");
    bench.faults.add(rule(Operation::Write, Failure::ReadOnly, ALWAYS));
    bench.faults.add(rule(Operation::Remove, Failure::ReadOnly, ALWAYS));
    assert!(matches!(disk.slice(id, 1), Err(ReadError::Corrupt(Flaw::Slice))));
    assert!(disk.find(new("a").key_hash).is_empty());
    assert_eq!(flaws(&disk), [(Flaw::Slice, 1)]);
}

#[test]
fn an_entry_whose_file_is_missing_goes_when_it_is_written_to() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    for change in [true, false] {
        let id = disk.create(&new("a"), Some(2 * MIB), 0).expect("made");
        disk.write_slice(id, 0, &[bytes(MIB, 1)]).expect("written, and its file kept open");
        disk.slice(id, 0).expect("read");
        fs::remove_file(&entry_files(&bench.path(0))[0]).expect("removed");
        let result = match change {
            true => disk.replace_meta(id, Bytes::new(), [0; STAMP_BYTES], None),
            false => disk.write_slice(id, 1, &[bytes(MIB, 1)]),
        };
        assert!(matches!(result, Err(WriteError::Gone)), "{result:?}");
        assert!(disk.find(new("a").key_hash).is_empty());
    }
    assert_eq!(flaws(&disk), [(Flaw::Missing, 2)]);
    assert_eq!(disk.stats().folders[0].state, FolderState::Ok);
}

#[test]
fn the_folder_for_what_is_new_is_made_again() {
    let bench = Bench::new(MIB);
    let disk = bench.open();
    fs::remove_dir_all(bench.path(0).join("new")).expect("removed");
    assert!(matches!(disk.write(&new("a"), &[]), Err(WriteError::Io(_))));
    assert!(matches!(disk.stats().folders[0].state, FolderState::ReadOnly(_)));
    bench.scan(&disk);
    disk.write(&new("a"), &[]).expect("stored");
}

/// Run with `TMPDIR` on a file system of some ten megabytes.
#[test]
#[ignore = "needs a small file system"]
fn a_limit_beyond_what_the_file_system_has_ends_at_its_reserve() {
    let bench = Bench::new(1 << 40);
    let disk = bench.open();
    for n in 0..200_u64 {
        let stored = disk.write(&new(&n.to_string()), &[bytes(600_000, n)]);
        let id = stored.unwrap_or_else(|error| panic!("{n}: {error}"));
        assert_eq!(disk.slice(id, 0).expect("read"), bytes(600_000, n));
        let large = store(&disk, &new(&format!("large {n}")), &bytes(2 * MIB, n));
        assert!(matches!(large, Ok(_) | Err(WriteError::Gone)), "{large:?}");
    }
    let stats = &disk.stats().folders[0];
    assert!(stats.evictions > 100 && stats.write_errors == 0 && stats.state == FolderState::Ok, "{stats:?}");
    // Somebody else takes the rest; what is stored is still read, and it goes on when the space is free again.
    let ballast = bench.dir.path().join("ballast");
    let file = fs::File::create(&ballast).expect("a file");
    let mut random = 0;
    while file.write_all_at(&bytes(100_000, 1), random).is_ok() {
        random += 100_000;
    }
    let ids: Vec<_> = disk.list(Cursor::default(), 5).0.into_iter().map(|one| one.id).collect();
    assert!(ids.iter().all(|&id| disk.slice(id, 0).is_ok()));
    let stored = disk.write(&new("now"), &[bytes(600_000, 1)]);
    assert!(matches!(stored, Ok(_) | Err(WriteError::Full)), "{stored:?}");
    fs::remove_file(&ballast).expect("removed");
    disk.write(&new("then"), &[bytes(600_000, 1)]).expect("stored");
}

#[test]
fn a_folder_that_does_not_answer_is_not_asked_until_it_does() {
    let mut bench = Bench::new(16 * MIB);
    bench.folders = 2;
    let disk = bench.open();
    let all: Vec<_> = (0..20_u64)
        .map(|n| disk.write(&new(&n.to_string()), &[bytes(9_000, n)]).expect("stored"))
        .chain([store(&disk, &new("large"), &bytes(2 * MIB, 99)).expect("stored")])
        .collect();
    let (silent, other): (Vec<EntryId>, Vec<_>) = all.iter().partition(|id| id.folder == 0);
    let hang = Rule { folder: Some(0), ..rule(Operation::Open, Failure::Hang, ALWAYS) };
    let open = disk.reader(silent[0]).expect("open");
    bench.faults.add(hang);
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| disk.slice(silent[1], 0));
        while disk.folders[0].files.counts().0 == disk.folders[0].files.counts().1 {
            std::thread::yield_now();
        }
        disk.gave_up();
        disk.gave_up();
        // Something came to an end meanwhile: it is only slow.
        open.slice(0).expect("read");
        disk.gave_up();
        disk.gave_up();
        assert_eq!(disk.stats().folders[0].state, FolderState::Ok);
        disk.gave_up();
        let state = disk.stats().folders[0].state.clone();
        assert!(matches!(state, FolderState::Silent(_)), "{state:?}");
        assert!(matches!(disk.slice(silent[2], 0), Err(ReadError::Silent)));
        assert!(matches!(open.slice(0), Err(ReadError::Silent)), "also where the file is open");
        assert!(disk.find(disk.summary(silent[2]).expect("known").key_hash).is_empty());
        assert!(disk.remove(silent[3]), "without waiting for it");
        other.iter().for_each(|id| drop(disk.slice(*id, 0).expect("the other folder is in use")));
        let new = disk.write(&new("new"), &[bytes(10, 1)]).expect("stored in the other folder");
        assert_eq!(new.folder, 1);
        bench.faults.clear();
        let late = stuck.join().expect("it has ended");
        assert!(matches!(late, Ok(_) | Err(ReadError::Silent)), "{late:?}");
    });
    let files = entry_files(&bench.path(0)).len();
    bench.scan(&disk);
    let stats = disk.stats();
    assert_eq!(
        (&stats.folders[0].state, stats.folders[0].timeouts, stats.folders[1].timeouts),
        (&FolderState::Ok, 5, 0)
    );
    assert_eq!(entry_files(&bench.path(0)).len(), files - 1, "what was removed meanwhile is gone");
    assert_eq!(disk.slice(silent[2], 0).expect("read").len(), 9_000);
}
