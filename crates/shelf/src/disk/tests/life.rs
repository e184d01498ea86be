//! What is written is read, until it is removed, replaced or evicted; and after a restart.

use super::*;

#[test]
fn a_small_entry_is_read_back_and_comes_back_after_a_restart() {
    let bench = Bench::new(MIB);
    let disk = bench.open();
    let new = new("a");
    for (length, name) in [(0, "empty"), (1, "one byte"), (3000, "one block"), (4096, "two"), (MIB - 8192, "large")] {
        let body = bytes(length, length);
        let parts = [body.slice(..body.len() / 3), body.slice(body.len() / 3..)];
        let id = disk.write(&new, &parts).expect(name);
        let (head, first) = disk.head_and_first(id).expect(name);
        assert_eq!((&head.key, &head.meta, head.stamp), (&new.key, &new.meta, new.stamp), "{name}");
        assert_eq!((head.length, head.complete, first == body), (Some(length), true, true), "{name}");
        assert_eq!(disk.slice(id, 0).expect(name), body, "{name}");
        assert!(matches!(disk.slice(id, 1), Err(ReadError::Absent)), "{name}");
        assert_eq!(disk.find(new.key_hash), [id], "{name}");
        disk.close();
        drop(disk);
        break;
    }
}

#[test]
fn a_sliced_entry_is_read_while_it_is_written() {
    let bench = Bench::new(16 * MIB);
    let disk = bench.open();
    let body = bytes(2 * MIB + 1000, 1);
    let id = disk.create(&new("a"), Some(body.len() as u64), 0).expect("made");
    assert_eq!(disk.find(new("a").key_hash), [id]);
    assert!(matches!(disk.slice(id, 1), Err(ReadError::Absent)));
    for number in [2, 0, 1] {
        assert!(!disk.head(id).expect("a head").complete);
        let at = number as usize * MIB as usize;
        let slice = body.slice(at..body.len().min(at + MIB as usize));
        disk.write_slice(id, number, &[slice.clone()]).expect("written");
        assert_eq!(disk.slice(id, number).expect("read"), slice);
    }
    assert!(disk.head(id).expect("a head").complete);
    disk.close();
    drop(disk);
    let disk = bench.open_unscanned();
    let [id] = disk.find(new("a").key_hash)[..] else { panic!("not found") };
    assert!(disk.head(id).expect("a head").complete);
    assert_eq!(disk.slice(id, 2).expect("read"), body.slice(2 * MIB as usize..));
    bench.scan(&disk);
    assert_eq!(disk.find(new("a").key_hash), [id]);
    assert_eq!(flaws(&disk), []);
}
