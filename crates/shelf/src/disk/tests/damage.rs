//! What is not as it was written is never served: it is found, counted and dropped.

use std::os::unix::fs::FileExt as _;

use super::*;

fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    edit(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// Changes bytes of a large file in place.
fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all_at(bytes, at).expect("written");
}

#[test]
fn every_flipped_bit_of_a_small_entry_is_found() {
    let bench = Bench::new(4 * MIB);
    let body = bytes(300, 1);
    let disk = bench.open();
    let size = {
        disk.write(&new("a"), std::slice::from_ref(&body)).expect("stored");
        fs::metadata(&entry_files(&bench.path(0))[0]).expect("a file").len()
    };
    for at in 0..size as usize {
        disk.find(new("a").key_hash).into_iter().for_each(|id| assert!(disk.remove(id)));
        let id = disk.write(&new("a"), std::slice::from_ref(&body)).expect("stored");
        edit(&entry_files(&bench.path(0))[0], |bytes| bytes[at] ^= 1 << (at % 8));
        let before: u64 = flaws(&disk).iter().map(|(_, count)| count).sum();
        let result = disk.head_and_first(id);
        assert!(matches!(result, Err(ReadError::Corrupt(_))), "byte {at}: {result:?}");
        assert!(matches!(disk.head_and_first(id), Err(ReadError::Gone)));
        assert_eq!(flaws(&disk).iter().map(|(_, count)| count).sum::<u64>(), before + 1, "byte {at}");
        assert!(entry_files(&bench.path(0)).is_empty() && disk.stats().folders[0].bytes == 0);
    }
    let kinds: Vec<_> = flaws(&disk).into_iter().map(|(flaw, _)| flaw).collect();
    assert_eq!(kinds, [Flaw::Format, Flaw::Head, Flaw::Length, Flaw::Slice]);
}

#[test]
fn a_damaged_small_entry_is_dropped_and_counted_by_kind() {
    type Damage = fn(&Path, &Path);
    let cases: [(Damage, Flaw); 9] = [
        (|file, _| fs::remove_file(file).expect("removed"), Flaw::Missing),
        (|file, _| edit(file, |bytes| bytes.truncate(bytes.len() - 1)), Flaw::Length),
        (|file, _| edit(file, |bytes| bytes.truncate(200)), Flaw::Length),
        (|file, _| edit(file, |bytes| bytes.truncate(20)), Flaw::Format),
        (|file, _| edit(file, |bytes| bytes.push(0)), Flaw::Length),
        (|file, _| edit(file, |bytes| bytes[40] ^= 1), Flaw::Head),
        (|file, _| edit(file, |bytes| bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes())), Flaw::Head),
        (|file, _| edit(file, |bytes| bytes[7000..].fill(0)), Flaw::Slice),
        (|file, other| assert!(fs::copy(other, file).is_ok()), Flaw::Swapped),
    ];
    for (number, (damage, flaw)) in cases.into_iter().enumerate() {
        let bench = Bench::new(4 * MIB);
        let disk = bench.open();
        let a = disk.write(&new("a"), &[bytes(9000, 1)]).expect("stored");
        let file = entry_files(&bench.path(0)).remove(0);
        let b = disk.write(&new("b"), &[bytes(9000, 2)]).expect("stored");
        let other = entry_files(&bench.path(0)).into_iter().find(|path| *path != file).expect("another file");
        damage(&file, &other);
        match disk.slice(a, 0) {
            Err(ReadError::Corrupt(found)) => assert_eq!(found, flaw, "case {number}"),
            result => panic!("case {number}: {result:?}"),
        }
        assert_eq!(flaws(&disk), [(flaw, 1)], "case {number}");
        assert!(!file.exists() && disk.find(new("a").key_hash).is_empty(), "case {number}");
        assert_eq!(disk.slice(b, 0).expect("the other is as it was"), bytes(9000, 2), "case {number}");
        assert_eq!(disk.stats().folders[0].bytes, 3 * 4096, "case {number}");
    }
}

#[test]
fn a_damaged_slice_is_dropped_alone_and_can_be_written_again() {
    let body = bytes(3 * MIB - 100, 1);
    let parts = cut(&body);
    let head = u64::from(format::Header::room(&new("a").key, &new("a").meta, 3));
    let place = |number: u64| head + number * 24;
    let cases = [
        ("a bit of a slice", 12_288 + MIB + 77, vec![0x55], Flaw::Slice),
        ("a sector of a slice", 12_288 + MIB + 512, vec![0; 512], Flaw::Slice),
        ("the last slice's bytes in its place", 12_288 + MIB, body[..MIB as usize].to_vec(), Flaw::Slice),
        ("a digest", place(1), vec![1], Flaw::Table),
        ("a place's bytes", place(1) + 16, vec![1], Flaw::Table),
        ("a check", place(1) + 20, vec![1, 2, 3, 4], Flaw::Table),
        ("a place of zeros", place(1), vec![0; 24], Flaw::Table),
    ];
    for kept_open in [true, false] {
        for (name, at, damage, flaw) in &cases {
            let bench = Bench::new(16 * MIB);
            let disk = bench.open();
            let id = store(&disk, &new("a"), &body).expect("stored");
            let taken = disk.stats().folders[0].bytes;
            if !kept_open {
                disk.close_kept();
            }
            overwrite(&entry_files(&bench.path(0))[0], *at, damage);
            match disk.slice(id, 1) {
                Err(ReadError::Corrupt(found)) => assert_eq!(found, *flaw, "{name}"),
                result => panic!("{name}: {:?}", result.map(|bytes| bytes.len())),
            }
            assert!(matches!(disk.slice(id, 1), Err(ReadError::Absent)), "{name}");
            assert_eq!(flaws(&disk), [(*flaw, 1)], "{name}");
            assert!(!disk.head(id).expect("a head").complete, "{name}");
            assert_eq!(disk.stats().folders[0].bytes, taken - MIB, "{name}");
            assert_eq!(disk.slice(id, 0).expect("the others are as they were"), parts[0], "{name}");
            assert_eq!(disk.slice(id, 2).expect("the others are as they were"), parts[2], "{name}");
            disk.write_slice(id, 1, &[parts[1].clone()]).expect("written again");
            assert_eq!(disk.slice(id, 1).expect("read"), parts[1], "{name}");
            assert!(disk.head(id).expect("a head").complete, "{name}");
            assert_eq!(disk.stats().folders[0].bytes, taken, "{name}");
        }
    }
}

#[test]
fn a_damaged_large_entry_goes_as_a_whole() {
    type Damage = fn(&Path, &Path);
    let cases: [(Damage, Flaw); 5] = [
        (|file, _| fs::remove_file(file).expect("removed"), Flaw::Missing),
        (|file, _| fs::File::options().write(true).open(file).expect("open").set_len(MIB).expect("cut"), Flaw::Length),
        (
            |file, _| fs::File::options().write(true).open(file).expect("open").set_len(9 * MIB).expect("cut"),
            Flaw::Length,
        ),
        (|file, _| overwrite(file, 141, b"!"), Flaw::Head),
        (|file, other| fs::rename(other, file).expect("renamed"), Flaw::Swapped),
    ];
    for (number, (damage, flaw)) in cases.into_iter().enumerate() {
        let bench = Bench::new(16 * MIB);
        let disk = bench.open();
        let body = bytes(2 * MIB + 9, 1);
        let a = store(&disk, &new("a"), &body).expect("stored");
        let file = entry_files(&bench.path(0)).remove(0);
        store(&disk, &new("b"), &body).expect("stored");
        let other = entry_files(&bench.path(0)).into_iter().find(|path| *path != file).expect("another file");
        disk.close_kept();
        damage(&file, &other);
        match disk.slice(a, 0) {
            Err(ReadError::Corrupt(found)) => assert_eq!(found, flaw, "case {number}"),
            result => panic!("case {number}: {:?}", result.map(|bytes| bytes.len())),
        }
        assert_eq!(flaws(&disk), [(flaw, 1)], "case {number}");
        assert!(!file.exists() && disk.find(new("a").key_hash).is_empty(), "case {number}");
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_read_ends_that_read() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let body = bytes(2 * MIB, 1);
    let id = store(&disk, &new("a"), &body).expect("stored");
    let reader = disk.reader(id).expect("open");
    let file = fs::File::options().write(true).open(&entry_files(&bench.path(0))[0]).expect("open");
    file.set_len(MIB + 13_000).expect("cut");
    assert_eq!(reader.slice(0).expect("still there"), cut(&body)[0]);
    assert!(matches!(reader.slice(1), Err(ReadError::Corrupt(Flaw::Length))));
    disk.close_kept();
    assert!(matches!(disk.slice(id, 0), Err(ReadError::Corrupt(Flaw::Length))), "its length is wrong");
    assert_eq!(flaws(&disk), [(Flaw::Length, 2)]);
}

#[test]
fn verify_reads_everything_and_drops_what_is_bad() {
    let mut bench = Bench::new(16 * MIB);
    bench.folders = 2;
    let disk = bench.open();
    for n in 0..40_u64 {
        disk.write(&new(&n.to_string()), &[bytes(n * 100, n)]).expect("stored");
    }
    let large = store(&disk, &new("large"), &bytes(3 * MIB, 1)).expect("stored");
    let mut files: Vec<_> = (0..2).flat_map(|folder| entry_files(&bench.path(folder))).collect();
    let at = files.iter().position(|file| fs::metadata(file).expect("a file").len() > MIB).expect("the large one");
    overwrite(&files.remove(at), 12_288 + MIB, b"xyz");
    for file in &files[..5] {
        edit(file, |bytes| bytes[140] ^= 1);
    }
    let (mut at, mut entries, mut found, mut steps) = (Some(Cursor::default()), 0, Vec::new(), 0);
    while let Some(cursor) = at {
        let step = disk.verify(cursor, 4096);
        (at, entries, steps) = (step.next, entries + step.entries, steps + 1);
        assert!(step.entries > 0 && step.unreadable == 0);
        found.extend(step.findings);
    }
    assert_eq!((entries, found.len()), (41, 6));
    assert!(steps > 5, "a step reads about as much as it was told");
    let sliced: Vec<_> = found.iter().filter(|one| one.slice.is_some()).collect();
    assert_eq!(sliced.len(), 1);
    assert_eq!((sliced[0].slice, sliced[0].flaw, sliced[0].key_hash), (Some(1), Flaw::Slice, new("large").key_hash));
    assert_eq!(flaws(&disk), [(Flaw::Head, 5), (Flaw::Slice, 1)]);
    assert!(disk.head(large).is_ok());
    assert_eq!(disk.stats().folders.iter().map(|folder| folder.entries).sum::<u64>(), 36);
}
