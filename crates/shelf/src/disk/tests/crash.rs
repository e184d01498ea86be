//! A kill at any step leaves what was there before, or what was written, or nothing; never anything else.
//!
//! After `n` operations every further one fails: nothing changes any more, as if the process had been killed there. Then
//! the folder is opened anew.

use super::*;

/// The life that is cut short: small entries that come, change and go, a large one, one of unknown length.
fn live(disk: &Disk) {
    let _ = disk.write(&new("first"), &[bytes(5000, 1)]);
    let large = disk.create(&new("large"), Some(2 * MIB + 5), 0);
    if let Ok(id) = large {
        for (number, slice) in (0..3_u32).zip(cut(&bytes(2 * MIB + 5, 2))).rev() {
            let _ = disk.write_slice(id, number, &[slice]);
        }
    }
    for id in disk.find(new("first").key_hash) {
        let _ = disk.replace_meta(id, Bytes::from_static(b"other"), [3; STAMP_BYTES], Some(9));
    }
    if let Ok(id) = disk.create(&new("streamed"), None, 8 * MIB) {
        for (number, slice) in (0..).zip(cut(&bytes(MIB + 9, 3))) {
            let _ = disk.write_slice(id, number, &[slice]);
        }
        let _ = disk.finish(id, MIB + 9);
    }
    for id in disk.find(new("first").key_hash) {
        disk.remove(id);
    }
    let _ = disk.write(&new("last"), &[bytes(100, 4)]);
    disk.close();
}

/// What is stored under a key, if anything: right bytes, or a slice that is absent.
fn check(disk: &Disk, key: &str, body: &Bytes, context: &str) -> bool {
    let ids = disk.find(new(key).key_hash);
    assert!(ids.len() <= 1, "{context}");
    let Some(&id) = ids.first() else { return false };
    let head = disk.head(id).expect(context);
    assert_eq!(head.key, new(key).key, "{context}");
    assert!(head.meta == new(key).meta || &head.meta[..] == b"other", "{context}");
    assert!(head.length.is_none_or(|length| length == body.len() as u64), "{context}");
    let mut all = head.length.is_some();
    for (number, slice) in (0..).zip(cut(body)) {
        match disk.slice(id, number) {
            Ok(bytes) => assert!(bytes == slice, "{context}: wrong bytes"),
            Err(ReadError::Absent) => all = false,
            Err(error) => panic!("{context}: {error}"),
        }
    }
    assert_eq!(head.complete, all, "{context}");
    all
}

#[test]
fn a_kill_at_any_step_leaves_nothing_wrong() {
    let (mut after, mut complete) = (0, 0);
    loop {
        let bench = Bench::new(16 * MIB);
        let disk = bench.open();
        let rule = Rule { operation: None, folder: None, failure: Failure::Io, after, times: u32::MAX };
        bench.faults.add(rule);
        live(&disk);
        let alive = disk.stats().folders[0].state == FolderState::Ok;
        bench.faults.clear();
        drop(disk);
        let context = format!("killed after {after} operations");
        let disk = bench.open_unscanned();
        for scan in [false, true] {
            if scan {
                bench.scan(&disk);
            }
            complete = u32::from(check(&disk, "large", &bytes(2 * MIB + 5, 2), &context))
                + u32::from(check(&disk, "streamed", &bytes(MIB + 9, 3), &context))
                + u32::from(check(&disk, "last", &bytes(100, 4), &context));
            check(&disk, "first", &bytes(5000, 1), &context);
            assert_eq!(flaws(&disk), [], "{context}");
            let blocks: u64 = disk.list(Cursor::default(), 99).0.iter().map(|one| one.bytes).sum();
            assert_eq!(disk.stats().folders[0].bytes, blocks, "{context}");
        }
        assert!(fs::read_dir(bench.path(0).join("new")).expect("new").next().is_none(), "{context}");
        if alive {
            break;
        }
        after += 1;
    }
    assert!(after > 40, "there were steps to be killed at: {after}");
    assert_eq!(complete, 3, "and in the end everything is there");
}

#[test]
fn a_write_that_is_torn_is_found() {
    // What a power cut may leave of files that were renamed but not synced: less, or zeros.
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let body = bytes(20_000, 1);
    for length in [0, 100, 136, 300, 4096, 12_288, 20_000] {
        for zeros in [false, true] {
            let id = disk.write(&new("a"), std::slice::from_ref(&body)).expect("stored");
            let path = entry_files(&bench.path(0)).remove(0);
            let mut file = fs::read(&path).expect("a file");
            file[length..].fill(0);
            if !zeros {
                file.truncate(length);
            }
            fs::write(&path, file).expect("written");
            assert!(matches!(disk.head_and_first(id), Err(ReadError::Corrupt(_))), "{length} {zeros}");
            assert!(!path.exists());
        }
    }
}
