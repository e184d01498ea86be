//! Files of format version 1, as they were once written, must be read for ever; and the format's small parts.

use super::format::{Header, Name, Place};
use super::*;
use proptest::prelude::any;

/// A body that follows its head, and one behind a slice table.
const FIXTURES: [(&str, &[u8]); 2] = [
    ("c0ffee00112233445566778899aabbcc-0000000000000001", include_bytes!("../../../fixtures/disk_v1_whole.bin")),
    ("c0ffee00112233445566778899aabbcc-0000000000000002", include_bytes!("../../../fixtures/disk_v1_sliced.bin")),
];
const BODY: &[u8] = b"The tide comes in, the tide goes out.";

fn header(number: usize) -> Header {
    let name = Name::parse(FIXTURES[number].0).expect("a name");
    Header {
        name,
        length: Some(BODY.len() as u64),
        stored_ms: 1_800_000_000_123 + number as u64,
        expires_s: Some(1_900_000_000),
        places: number as u32,
        stamp: *b"0123456789abcdef0123456789ABCDEF",
        body_digest: if number == 0 { name.body_digest([BODY]) } else { 0 },
        key: Bytes::from_static(b"https://example.org/tide"),
        meta: Bytes::from_static(b"200 text/plain"),
        head_bytes: Header::room(b"https://example.org/tide", b"200 text/plain", 0),
    }
}

#[test]
fn version_one_is_written_as_it_was() {
    for (number, (text, expected)) in FIXTURES.into_iter().enumerate() {
        let header = header(number);
        let mut file = header.encode();
        if number == 1 {
            let place = Place { digest: header.name.slice_digest(0, [BODY]), bytes: BODY.len() as u32 };
            file.extend(Place::encode(Some(place), header.name, 0));
            file.resize(header.body_at() as usize, 0);
        }
        file.extend(BODY);
        if std::env::var_os("LITTORAL_BLESS").is_some() {
            let path = ["fixtures/disk_v1_whole.bin", "fixtures/disk_v1_sliced.bin"][number];
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &file).expect("written");
        }
        assert!(file == expected, "{text}");
    }
}

#[test]
fn version_one_is_read() {
    let bench = Bench::new(MIB);
    for (name, bytes) in FIXTURES {
        fs::create_dir_all(bench.path(0).join("c0f")).expect("a folder");
        fs::write(bench.path(0).join("c0f").join(name), bytes).expect("a file");
    }
    let disk = bench.open();
    let ids = disk.find(KeyHash(0xc0ff_ee00_1122_3344_5566_7788_99aa_bbcc));
    assert_eq!(ids.len(), 2);
    for (id, number) in ids.into_iter().zip([1, 0]) {
        let (head, body) = disk.head_and_first(id).expect("read");
        let header = header(number);
        assert_eq!((head.key, head.meta, head.stamp, head.complete), (header.key, header.meta, header.stamp, true));
        assert_eq!((head.length, head.stored_ms), (header.length, header.stored_ms));
        assert_eq!((head.expires_s, &body[..]), (header.expires_s, BODY));
    }
    assert_eq!(flaws(&disk), []);
}

#[test]
fn another_version_and_garbage_are_left_out_and_counted() {
    let (_, whole) = FIXTURES[0];
    let mut other_version = whole.to_vec();
    other_version[8] = 2;
    for (name, bytes) in [("another version", &other_version[..]), ("empty", b""), ("garbage", &[0x5a; 5000][..])] {
        let bench = Bench::new(MIB);
        let path = bench.path(0).join("c0f").join(FIXTURES[0].0);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        fs::write(path.with_file_name("README"), bytes).expect("somebody else's file");
        let disk = bench.open();
        assert_eq!(disk.stats().folders[0].entries, 0, "{name}");
        assert_eq!(flaws(&disk), [(Flaw::Format, 1)], "{name}");
        assert!(!path.exists() && path.with_file_name("README").exists(), "{name}");
    }
}

#[test]
fn slices_of_a_body() {
    for (length, count, last) in [(0, 0, 0), (1, 1, 1), (MIB, 1, MIB), (MIB + 1, 2, 1), (3 * MIB, 3, MIB)] {
        assert_eq!(slices(length), count, "{length}");
        assert_eq!(slice_bytes(length, count.max(1) - 1), Some(last), "{length}");
        assert_eq!(slice_bytes(length, count.max(1)), None, "{length}");
    }
    assert_eq!(slices(u64::MAX), 65_536);
    assert_eq!(slice_bytes(u64::MAX, u32::MAX), Some(MIB));
}

#[test]
fn names_of_files() {
    let name = Name { key_hash: KeyHash(0xabc << 116 | 5), nonce: 7 };
    assert_eq!(name.file_name(), "abc00000000000000000000000000005-0000000000000007");
    assert_eq!(Name::parse(&name.file_name()), Some(name));
    for bad in [
        "",
        "-",
        "abc00000000000000000000000000005",
        "ABC00000000000000000000000000005-0000000000000007",
        "+bc00000000000000000000000000005-0000000000000007",
        "abc00000000000000000000000000005-000000000000007",
        "abc00000000000000000000000000005-0000000000000007x",
        "abc0000000000000000000000000000é-0000000000000007",
    ] {
        assert_eq!(Name::parse(bad), None, "{bad}");
    }
}

#[test]
fn digests_belong_to_one_place_of_one_file() {
    let name = Name { key_hash: KeyHash(1), nonce: 1 };
    let (other_key, other_file) = (Name { key_hash: KeyHash(2), ..name }, Name { nonce: 2, ..name });
    let digests = [
        name.slice_digest(0, [BODY]),
        name.slice_digest(1, [BODY]),
        name.body_digest([BODY]),
        other_key.slice_digest(0, [BODY]),
        other_file.slice_digest(0, [BODY]),
    ];
    assert_eq!(digests.iter().collect::<HashSet<_>>().len(), digests.len());
    assert_eq!(name.slice_digest(0, [&BODY[..5], &BODY[5..]]), digests[0]);
    let place = Place { digest: 9, bytes: 9 };
    for wanted in [Some(place), None] {
        let raw = Place::encode(wanted, name, 3);
        assert_eq!(Place::decode(&raw, name, 3), Ok(wanted));
        assert_eq!(Place::decode(&raw, name, 4), Err(Flaw::Table));
        assert_eq!(Place::decode(&raw, other_file, 3), Err(Flaw::Table));
        assert_eq!(Place::decode(&raw[..23], name, 3), Err(Flaw::Table));
    }
    assert_eq!(Place::decode(&[0; 24], name, 3), Err(Flaw::Table), "zeros are no absent slice");
    let too_large = Place { digest: 9, bytes: MIB as u32 + 1 };
    assert_eq!(Place::decode(&Place::encode(Some(too_large), name, 3), name, 3), Err(Flaw::Table));
}

proptest::proptest! {
    #[test]
    fn a_head_reads_as_it_was_written(
        key in proptest::collection::vec(any::<u8>(), 0..200),
        meta in proptest::collection::vec(any::<u8>(), 0..400),
        length in proptest::option::of(0..=MAX_LENGTH_BYTES),
        stamp in any::<[u8; STAMP_BYTES]>(),
        expires_s in proptest::option::of(1..u32::MAX),
        flip in any::<proptest::sample::Index>(),
    ) {
        let places = slices(length.unwrap_or(MAX_LENGTH_BYTES)).max(1);
        let head_bytes = Header::room(&key, &meta, 0);
        let (key, meta) = (key.into(), meta.into());
        let header = Header { length, expires_s, places, stamp, key, meta, head_bytes, ..header(1) };
        let mut head = header.encode();
        assert_eq!(head.len(), head_bytes as usize);
        assert_eq!(Header::decode(&head, header.name), Ok(header.clone()));
        let at = flip.index(head.len());
        head[at] ^= 1 << (at % 8);
        assert!(Header::decode(&head, header.name).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 12 {
            bytes[..12].copy_from_slice(b"LITSHELF\x01\0\0\0");
        }
        let _ = Header::head_bytes(&bytes);
        assert!(Header::decode(&bytes, header(0).name).is_err());
    }
}
