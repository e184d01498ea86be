//! What is written is read, until it is removed, replaced or evicted.

use super::*;
use crate::Objective;

const KIB: u64 = 1024;

#[test]
fn a_small_entry_is_read_back_exactly() {
    let bench = Bench::new(4 * MIB);
    let disk = bench.open();
    for (length, name) in [(0, "empty"), (1, "a byte"), (3000, "a block"), (4096, "more"), (MIB, "a whole slice")] {
        let (new, body) = (new(name), bytes(length, length));
        let parts = [body.slice(..body.len() / 3), body.slice(body.len() / 3..)];
        let id = disk.write(&new, &parts).expect(name);
        let (head, first) = disk.head_and_first(id).expect(name);
        assert_eq!((&head.key, &head.meta, head.stamp), (&new.key, &new.meta, new.stamp), "{name}");
        assert_eq!((head.length, head.complete, first == body), (Some(length), true, true), "{name}");
        assert_eq!(disk.slice(id, 0).expect(name), body, "{name}");
        assert!(matches!(disk.slice(id, 1), Err(ReadError::Absent)), "{name}");
        assert_eq!(disk.find(new.key_hash), [id], "{name}");
        let files = entry_files(&bench.path(0));
        let size: u64 = files.iter().map(|file| fs::metadata(file).expect("a file").len().div_ceil(4096) * 4096).sum();
        assert_eq!(disk.stats().folders[0].bytes, size, "{name}");
    }
    assert_eq!(entry_files(&bench.path(0)).len(), 5);
    assert!(fs::read_dir(bench.path(0).join("new")).expect("new").next().is_none());
}

#[test]
fn head_and_body_of_a_small_object_share_a_block() {
    let bench = Bench::new(MIB);
    let disk = bench.open();
    let meta = Bytes::from(vec![b'm'; 600]);
    disk.write(&New { meta, ..new("https://example.org/a/path") }, &[bytes(3000, 1)]).expect("stored");
    assert_eq!(disk.stats().folders[0].bytes, 4096);
}

#[test]
fn bounds_hold_at_their_edges() {
    let bench = Bench::new(4 * MIB);
    let disk = bench.open();
    let sized = |key, meta| New { key: bytes(key, 1), meta: bytes(meta, 2), ..new("a") };
    let (key, meta) = (MAX_KEY_BYTES as u64, MAX_META_BYTES as u64);
    let id = disk.write(&sized(key, meta), &[bytes(MIB, 3)]).expect("the largest head and body");
    let (head, body) = disk.head_and_first(id).expect("read");
    assert_eq!((head.key, head.meta, body), (bytes(key, 1), bytes(meta, 2), bytes(MIB, 3)));
    let large = |result| matches!(result, Err(WriteError::TooLarge { .. }));
    assert!(large(disk.write(&sized(key + 1, 0), &[])));
    assert!(large(disk.write(&sized(0, meta + 1), &[])));
    assert!(large(disk.write(&new("a"), &[bytes(MIB, 1), Bytes::from_static(b"x")])));
    assert!(large(disk.create(&new("a"), Some(MAX_LENGTH_BYTES + 1), 0)));
    assert!(large(disk.create(&new("a"), None, MAX_LENGTH_BYTES + 1)));
    let id = disk.create(&new("b"), Some(MAX_LENGTH_BYTES), 0).expect("the longest body");
    let last = slices(MAX_LENGTH_BYTES) - 1;
    disk.write_slice(id, last, &[bytes(MIB, 9)]).expect("its last slice");
    assert_eq!(disk.slice(id, last).expect("read"), bytes(MIB, 9));
    assert!(matches!(disk.write_slice(id, last + 1, &[bytes(MIB, 9)]), Err(WriteError::WrongSlice { .. })));
    assert!(matches!(disk.write_slice(id, 0, &[bytes(MIB - 1, 9)]), Err(WriteError::WrongSlice { .. })));
}

#[test]
fn a_sliced_entry_is_read_while_it_is_written() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let body = bytes(2 * MIB + 1000, 1);
    let parts = cut(&body);
    let id = disk.create(&new("a"), Some(body.len() as u64), 0).expect("made");
    assert_eq!(disk.find(new("a").key_hash), [id]);
    let reader = disk.reader(id).expect("open");
    for (done, number) in [(0, 2_u32), (1, 0), (2, 1)] {
        assert!(!reader.head().complete);
        assert!(matches!(reader.slice(number), Err(ReadError::Absent)));
        assert_eq!(reader.present().expect("read").count(), done);
        disk.write_slice(id, number, std::slice::from_ref(&parts[number as usize])).expect("written");
        assert_eq!(reader.slice(number).expect("read"), parts[number as usize]);
        assert!(reader.present().expect("read").contains(number));
    }
    assert!(reader.head().complete);
    disk.write_slice(id, 0, &[bytes(MIB, 77)]).expect("what is there stays");
    assert_eq!(reader.slice(0).expect("read"), parts[0]);
    // Two whole slices, one block of the last, and those of head and table with the room that a head may grow into.
    assert_eq!(disk.stats().folders[0].bytes, 2 * MIB + 4 * 4096);
}

#[test]
fn a_body_without_a_length_gets_one_at_its_end() {
    for (length, said, complete) in [
        (2 * MIB + 5, 2 * MIB + 5, Some(true)),
        (2 * MIB, 2 * MIB, Some(true)),
        (0, 0, Some(true)),
        (2 * MIB, 3 * MIB, Some(false)),
        (2 * MIB + 5, 2 * MIB + 6, None),
        (2 * MIB + 5, MIB, None),
        (MIB, 5 * MIB, None),
    ] {
        let bench = Bench::new(16 * MIB);
        let disk = bench.open();
        let body = bytes(length, 1);
        let id = disk.create(&new("a"), None, 4 * MIB).expect("made");
        for (number, slice) in (0..).zip(cut(&body)) {
            disk.write_slice(id, number, std::slice::from_ref(&slice)).expect("written");
            assert_eq!(disk.slice(id, number).expect("read before the length is known"), slice);
        }
        assert_eq!(disk.head(id).expect("a head").length, None);
        let context = format!("{length} {said}");
        match (disk.finish(id, said), complete) {
            (Ok(answer), Some(complete)) => {
                assert_eq!(answer, complete, "{context}");
                let head = disk.head(id).expect("a head");
                assert_eq!((head.length, head.complete), (Some(said), complete), "{context}");
                for (number, slice) in (0..).zip(cut(&body)) {
                    assert_eq!(disk.slice(id, number).expect("read"), slice, "{context}");
                }
                assert_eq!(disk.finish(id, said).expect("the same again"), complete);
            }
            (Err(WriteError::WrongLength(_)), None) => assert!(disk.find(new("a").key_hash).is_empty(), "{context}"),
            (other, _) => panic!("{context}: {other:?}"),
        }
    }
}

#[test]
fn a_reader_reads_on_after_a_removal() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    for large in [true, false] {
        let body = bytes(if large { 2 * MIB } else { 50_000 }, 1);
        let id =
            if large { store(&disk, &new("a"), &body) } else { disk.write(&new("a"), std::slice::from_ref(&body)) };
        let id = id.expect("stored");
        let reader = disk.reader(id).expect("open");
        assert!(disk.remove(id));
        assert!(!disk.remove(id));
        assert!(entry_files(&bench.path(0)).is_empty());
        for (number, slice) in (0..).zip(cut(&body)) {
            assert_eq!(reader.slice(number).expect("read on"), slice);
        }
        assert!(matches!(disk.slice(id, 0), Err(ReadError::Gone)));
        // The slot is used again, and the old name is not mistaken for the new entry.
        let other = disk.write(&new("b"), &[bytes(10, 2)]).expect("stored");
        assert!(matches!(disk.head(id), Err(ReadError::Gone)));
        assert!(!disk.remove(id));
        assert!(matches!(disk.write_slice(id, 0, &[bytes(MIB, 3)]), Err(WriteError::Gone)));
        assert!(disk.remove(other));
        assert_eq!(disk.stats().folders[0].bytes, 0);
    }
    assert_eq!(disk.stats().open_files, 0);
    assert_eq!(flaws(&disk), []);
}

#[test]
fn variants_are_found_newest_first_and_are_bounded() {
    let bench = Bench::new(4 * MIB);
    let disk = bench.open();
    let ids: Vec<_> = (0..MAX_VARIANTS as u64 + 2)
        .map(|n| {
            // A clock that is set back makes no difference.
            bench.now_ms.fetch_sub(1000, Ordering::Relaxed);
            disk.write(&new("a"), &[bytes(n, n)]).expect("stored")
        })
        .collect();
    let expected: Vec<_> = ids[2..].iter().rev().copied().collect();
    assert_eq!(disk.find(new("a").key_hash), expected);
    assert!(disk.find(new("b").key_hash).is_empty());
    assert_eq!(entry_files(&bench.path(0)).len(), MAX_VARIANTS);
    assert_eq!(disk.stats().folders[0].evictions, 2);
}

#[test]
fn a_meta_is_replaced_in_place_or_the_entry_goes() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    for large in [true, false] {
        let body = bytes(if large { 2 * MIB } else { 50_000 }, 1);
        let id =
            if large { store(&disk, &new("a"), &body) } else { disk.write(&new("a"), std::slice::from_ref(&body)) };
        let id = id.expect("stored");
        let before = disk.reader(id).expect("open");
        let longer = Bytes::from(format!("{} and a little more", "meta of a"));
        disk.replace_meta(id, longer.clone(), [9; STAMP_BYTES], Some(77)).expect("replaced");
        let (head, first) = disk.head_and_first(id).expect("read");
        assert_eq!((head.meta, head.stamp, head.expires_s), (longer, [9; STAMP_BYTES], Some(77)));
        assert!(head.complete);
        assert_eq!(first, cut(&body)[0]);
        assert_eq!(before.slice(0).expect("the reader reads on"), first);
        assert_eq!(before.head().meta, new("a").meta);
        if large {
            // Exactly what there is room for.
            let most = Bytes::from(vec![1; new("a").meta.len() + format::LARGE_SPARE_BYTES]);
            disk.replace_meta(id, most.clone(), [9; STAMP_BYTES], Some(77)).expect("replaced");
            assert_eq!(
                disk.head_and_first(id).expect("read"),
                (Head { meta: most, ..disk.head(id).expect("head") }, first)
            );
        }
        let far_longer = Bytes::from(vec![1; new("a").meta.len() + format::LARGE_SPARE_BYTES + 8]);
        assert!(matches!(disk.replace_meta(id, far_longer, [0; STAMP_BYTES], None), Err(WriteError::NoPlace)));
        assert!(disk.find(new("a").key_hash).is_empty());
        assert!(entry_files(&bench.path(0)).is_empty());
    }
}

#[test]
fn what_was_used_least_recently_leaves_and_what_has_expired_before_it() {
    let bench = Bench::new(64 * KIB);
    let disk = bench.open();
    let expires = |key: &str, after_s: u64| New {
        expires_s: Some((bench.now_ms.load(Ordering::Relaxed) / 1000 + after_s) as u32),
        ..new(key)
    };
    let there = |key: &str| !disk.find(new(key).key_hash).is_empty();
    // Sixteen blocks: four entries of four.
    let body = [bytes(15_000, 1)];
    let first = disk.write(&new("first"), &body).expect("stored");
    disk.write(&expires("second", 100), &body).expect("stored");
    disk.write(&expires("third", 50), &body).expect("stored");
    disk.write(&new("fourth"), &body).expect("stored");
    assert_eq!(disk.stats().folders[0].bytes, 64 * KIB);
    disk.touch(first);
    disk.write(&new("fifth"), &body).expect("stored");
    assert!(there("first") && !there("second") && there("third"), "the oldest of those not used");
    bench.pass_s(49);
    disk.write(&new("sixth"), &body).expect("stored");
    assert!(!there("third"), "not expired yet, but the oldest");
    disk.write(&expires("seventh", 1), &body).expect("stored");
    assert!(!there("fourth"));
    bench.pass_s(1);
    disk.write(&new("eighth"), &body).expect("stored");
    assert!(there("first") && there("fifth") && there("sixth") && !there("seventh"), "expired: before all others");
    let stats = &disk.stats().folders[0];
    assert_eq!((stats.evictions, stats.expirations, stats.entries, stats.bytes), (3, 1, 4, 64 * KIB));
    assert_eq!(entry_files(&bench.path(0)).len(), 4);
}

#[test]
fn a_growing_entry_stays_within_the_limit() {
    let bench = Bench::new(3 * MIB);
    let disk = bench.open();
    disk.write(&new("b"), &[bytes(10, 1)]).expect("stored");
    let id = disk.create(&new("a"), Some(8 * MIB), 0).expect("made");
    let mut written = 0;
    let end = (0..8).find_map(|number| {
        let result = disk.write_slice(id, number, &[bytes(MIB, 1)]);
        written += u32::from(result.is_ok());
        assert!(disk.stats().folders[0].bytes <= 3 * MIB);
        result.err()
    });
    assert_eq!(written, 2, "two slices and a head fit into three MiB");
    assert!(matches!(end, Some(WriteError::Gone)), "{end:?}");
    assert!(entry_files(&bench.path(0)).is_empty(), "the oldest went first, then the one that needs more than all");
    assert_eq!(disk.stats().folders[0].bytes, 0);
    assert!(disk.create(&new("c"), Some(60 << 30), 0).is_ok(), "a huge body may be stored in part");
}

#[test]
fn a_file_larger_than_the_folder_is_refused() {
    let bench = Bench::new(64 * KIB);
    let disk = bench.open();
    assert!(matches!(disk.write(&new("a"), &[bytes(64 * KIB, 1)]), Err(WriteError::TooLarge { .. })));
    let most = 64 * KIB - format::Header::room(&new("a").key, &new("a").meta, 0) as u64;
    assert!(matches!(disk.write(&new("a"), &[bytes(most + 1, 1)]), Err(WriteError::TooLarge { .. })));
    disk.write(&new("b"), &[bytes(10, 1)]).expect("stored");
    disk.write(&new("a"), &[bytes(most, 1)]).expect("exactly the limit");
    assert_eq!((disk.stats().folders[0].bytes, disk.stats().folders[0].entries), (64 * KIB, 1));
}

#[test]
fn folders_get_keys_by_their_share_of_the_bytes() {
    let mut bench = Bench::new(MIB);
    bench.folders = 3;
    let mut config = bench.config();
    config.folders[2].limit_bytes = 2 * MIB;
    let disk = Arc::new(Disk::load(config).expect("a tier"));
    let mut counts = [0_u32; 3];
    for n in 0..8_000_u32 {
        counts[disk.placement(new(&n.to_string()).key_hash)[0].number] += 1;
    }
    for (folder, part) in [(0, 2_000_u32), (1, 2_000), (2, 4_000)] {
        assert!(counts[folder].abs_diff(part) < 250, "{counts:?}");
    }
    let ids: Vec<_> = (0..5).map(|n| disk.write(&new("a"), &[bytes(n, n)]).expect("stored")).collect();
    assert!(ids.iter().all(|id| id.folder == ids[0].folder), "variants stay together");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let bench = Bench::new(MIB);
    let with = |change: &dyn Fn(&mut DiskConfig)| {
        let mut config = bench.config();
        change(&mut config);
        Disk::load(config).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(with(&|config| config.folders.clear()).contains("1 to 16"));
    assert!(with(&|config| config.folders[0].limit_bytes = MIN_LIMIT_BYTES - 1).contains("at least 65536"));
    assert!(with(&|config| config.folders.push(config.folders[0].clone())).contains("twice"));
    assert_eq!(with(&|config| config.folders[0].limit_bytes = MIN_LIMIT_BYTES), "");
    let _open = bench.open();
    assert!(with(&|_| ()).contains("in use by another process"));
}

#[test]
fn a_listing_shows_each_entry_once() {
    let mut bench = Bench::new(MIB);
    bench.folders = 2;
    let disk = bench.open();
    for n in 0..50_u64 {
        let id = disk.write(&new(&n.to_string()), &[bytes(n, n)]).expect("stored");
        (0..n % 3).for_each(|_| disk.touch(id));
    }
    let (mut seen, mut at) = (Vec::new(), Some(Cursor::default()));
    while let Some(cursor) = at {
        let (page, next) = disk.list(cursor, 7);
        assert!(page.len() <= 7);
        seen.extend(page);
        at = next;
    }
    assert_eq!(seen.len(), 50);
    for n in 0..50_u64 {
        let one: Vec<_> = seen.iter().filter(|one| one.key_hash == new(&n.to_string()).key_hash).collect();
        assert_eq!(one.len(), 1);
        assert_eq!((one[0].length, one[0].uses, one[0].complete), (Some(n), (n % 3) as u16, true));
        assert_eq!(disk.find(one[0].key_hash), [one[0].id]);
    }
}

#[test]
fn threads_read_what_others_write_replace_and_remove() {
    let bench = Bench::new(6 * MIB);
    let disk = bench.open();
    let body = |key: u64| bytes(if key == 0 { 2 * MIB + 10 } else { key * 10_000 }, key);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let disk = &disk;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for round in 0..150_u64 {
                    let key = random.u64(0..6);
                    let (new, body) = (new(&key.to_string()), body(key));
                    let ids = disk.find(new.key_hash);
                    match (random.u8(0..10), ids.first()) {
                        (0, Some(&id)) => assert!(disk.remove(id) || disk.head(id).is_err()),
                        (1, Some(&id)) => {
                            let _ = disk.replace_meta(id, Bytes::from(round.to_string()), [0; STAMP_BYTES], None);
                        }
                        (2.., Some(&id)) => {
                            if let Ok(reader) = disk.reader(id) {
                                for (number, slice) in (0..).zip(cut(&body)) {
                                    match reader.slice(number) {
                                        Ok(bytes) => assert!(bytes == slice, "wrong bytes"),
                                        Err(ReadError::Absent) => {}
                                        Err(error) => panic!("{error}"),
                                    }
                                }
                            }
                        }
                        _ if key == 0 => drop(store(disk, &new, &body)),
                        _ => drop(disk.write(&new, &[body])),
                    }
                }
            });
        }
    });
    assert_eq!(flaws(&disk), []);
    let stats = disk.stats();
    assert_eq!((stats.folders[0].write_errors, stats.folders[0].read_errors), (0, 0));
    let files = entry_files(&bench.path(0));
    assert_eq!(files.len() as u64, stats.folders[0].entries);
}

#[test]
fn every_policy_keeps_to_the_limit_and_what_it_refuses_leaves_nothing_behind() {
    for policy in PolicyName::ALL {
        for objective in [Objective::Requests, Objective::Bytes] {
            let mut bench = Bench::new(512 * KIB);
            bench.choice = PolicyChoice { policy, objective };
            let disk = bench.open();
            let (mut random, mut refused) = (fastrand::Rng::with_seed(1), 0);
            for round in 0..600_u64 {
                // Small ones are asked for again and again, large ones hardly.
                let (key, length) = match random.u64(0..4) {
                    0 => (1000 + round, random.u64(0..300 * KIB)),
                    _ => (random.u64(0..40), 9_000),
                };
                let new = new(&key.to_string());
                if let Some(&id) = disk.find(new.key_hash).first() {
                    assert_eq!(disk.slice(id, 0).expect("read").len() as u64, length);
                    disk.touch(id);
                    continue;
                }
                match disk.write(&new, &[bytes(length, key)]) {
                    Ok(_) => {}
                    Err(WriteError::NotAdmitted) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                let stats = &disk.stats().folders[0];
                assert!(stats.bytes <= 512 * KIB, "{policy:?}");
            }
            let stats = &disk.stats().folders[0];
            assert_eq!(stats.refused, refused);
            assert!(stats.evictions + refused > 20, "{policy:?}: there was too little room");
            let files = entry_files(&bench.path(0));
            let size: u64 =
                files.iter().map(|file| fs::metadata(file).expect("a file").len().div_ceil(4096) * 4096).sum();
            assert_eq!((files.len() as u64, size), (stats.entries, stats.bytes), "{policy:?}");
            // A growing entry finds room under every policy, or is told that it is gone.
            for number in 0..8 {
                if let Ok(id) = disk.create(&self::new(&format!("growing{number}")), None, 8 * MIB) {
                    let written = disk.write_slice(id, 0, &[bytes(100 * KIB, 1)]);
                    assert!(matches!(written, Ok(()) | Err(WriteError::Gone)), "{policy:?}: {written:?}");
                    let beyond = disk.write_slice(id, 1, &[bytes(1, 1)]);
                    assert!(matches!(beyond, Err(WriteError::WrongSlice { .. } | WriteError::Gone)), "{beyond:?}");
                }
            }
            assert!(disk.stats().folders[0].bytes <= 512 * KIB);
        }
    }
}
