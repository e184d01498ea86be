//! Against a model: whatever is done, what is read is what was written under that key, or it is not there.

use std::collections::HashMap;

use super::*;
use proptest::prelude::{Strategy, any, prop_oneof};

#[derive(Debug, Clone)]
enum Op {
    Write { key: u8, length: u64 },
    Large { key: u8, length: u64, missing: Option<u32> },
    Refill { key: u8 },
    Meta { key: u8, length: u64 },
    Remove { key: u8 },
    Touch { key: u8 },
    Read { key: u8 },
    Fault(Rule),
    Calm,
    Damage { file: u8, at: u64, bytes: u8 },
    Swap { one: u8, other: u8 },
    Reopen { clean: bool, scan: bool },
    LookAfter,
}

fn op() -> impl Strategy<Value = Op> {
    use Operation::{Create, List, Open, Read, Remove, Rename, Reserve, Sync, Write};
    let key = || 0..6_u8;
    let operation = prop_oneof![
        proptest::sample::select(vec![Open, Create, Read, Write, Sync, Rename, Remove, Reserve, List]).prop_map(Some),
        proptest::strategy::Just(None),
    ];
    let failure = proptest::sample::select(vec![
        Failure::Full,
        Failure::ReadOnly,
        Failure::Io,
        Failure::TooManyFiles,
        Failure::Missing,
    ]);
    let fault = (operation, failure, 0..6_u32, 1..4_u32).prop_map(|(operation, failure, after, times)| {
        Op::Fault(Rule { operation, folder: None, failure, after, times })
    });
    prop_oneof![
        4 => (key(), 0..40_000_u64).prop_map(|(key, length)| Op::Write { key, length }),
        2 => (key(), MIB..3 * MIB, proptest::option::of(0..3_u32))
            .prop_map(|(key, length, missing)| Op::Large { key, length, missing }),
        1 => key().prop_map(|key| Op::Refill { key }),
        2 => (key(), 0..300_u64).prop_map(|(key, length)| Op::Meta { key, length }),
        1 => key().prop_map(|key| Op::Remove { key }),
        1 => key().prop_map(|key| Op::Touch { key }),
        6 => key().prop_map(|key| Op::Read { key }),
        2 => fault,
        2 => proptest::strategy::Just(Op::Calm),
        1 => (any::<u8>(), any::<u64>(), any::<u8>()).prop_map(|(file, at, bytes)| Op::Damage { file, at, bytes }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(one, other)| Op::Swap { one, other }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(clean, scan)| Op::Reopen { clean, scan }),
        1 => proptest::strategy::Just(Op::LookAfter),
    ]
}

/// What was ever written: by stamp, because every entry and every change of one gets its own.
#[derive(Default)]
struct Model {
    bodies: HashMap<u64, (u8, Bytes)>,
    metas: HashMap<u64, (Bytes, u64)>,
    last: u64,
}

impl Model {
    /// A stamp for a meta of an entry, whose body has the stamp `body`.
    fn stamp(&mut self, meta: Bytes, body: Option<u64>) -> [u8; STAMP_BYTES] {
        self.last += 1;
        self.metas.insert(self.last, (meta, body.unwrap_or(self.last)));
        let mut stamp = [0; STAMP_BYTES];
        stamp[..8].copy_from_slice(&self.last.to_le_bytes());
        stamp
    }

    /// What belongs to the stamp of an entry: meta, number of the body, key and body.
    fn of(&self, head: &Head) -> (&Bytes, u64, u8, &Bytes) {
        let stamp = u64::from_le_bytes(head.stamp[..8].try_into().expect("eight bytes"));
        let (meta, body) = &self.metas[&stamp];
        let (key, bytes) = &self.bodies[body];
        (meta, *body, *key, bytes)
    }
}

fn name(key: u8) -> New {
    new(&format!("key {key}"))
}

fn read(disk: &Arc<Disk>, model: &Model, key: u8) {
    for id in disk.find(name(key).key_hash) {
        let Ok(reader) = disk.reader(id) else { continue };
        let head = reader.head();
        let (meta, _, owner, body) = model.of(&head);
        assert_eq!((&head.key, &head.meta, owner), (&name(key).key, meta, key));
        assert!(head.length == Some(body.len() as u64));
        for (number, slice) in (0..).zip(cut(body)) {
            if let Ok(bytes) = reader.slice(number) {
                assert!(bytes == slice, "wrong bytes");
            }
        }
    }
}

fn run(ops: Vec<Op>) {
    let mut bench = Bench::new(6 * MIB);
    bench.folders = 2;
    let (mut disk, mut model) = (bench.open(), Model::default());
    for op in ops {
        match op {
            Op::Write { key, length } => {
                let stamp = model.stamp(name(key).meta, None);
                model.bodies.insert(model.last, (key, bytes(length, model.last)));
                let before = disk.find(name(key).key_hash);
                if disk.write(&New { stamp, ..name(key) }, &[bytes(length, model.last)]).is_ok() {
                    before.into_iter().for_each(|id| assert!(disk.remove(id) || disk.head(id).is_err()));
                }
            }
            Op::Large { key, length, missing } => {
                let stamp = model.stamp(name(key).meta, None);
                let body = bytes(length, model.last);
                model.bodies.insert(model.last, (key, body.clone()));
                if let Ok(id) = disk.create(&New { stamp, ..name(key) }, Some(length), 0) {
                    for (number, slice) in (0..).zip(cut(&body)).filter(|(number, _)| Some(*number) != missing) {
                        let _ = disk.write_slice(id, number, &[slice]);
                    }
                }
            }
            Op::Refill { key } => {
                for id in disk.find(name(key).key_hash) {
                    let Ok(head) = disk.head(id) else { continue };
                    for (number, slice) in (0..).zip(cut(model.of(&head).3)) {
                        let _ = disk.write_slice(id, number, &[slice]);
                    }
                }
            }
            Op::Meta { key, length } => {
                let Some(id) = disk.find(name(key).key_hash).pop() else { continue };
                let Ok(head) = disk.head(id) else { continue };
                let (meta, body) = (bytes(length, length), model.of(&head).1);
                let stamp = model.stamp(meta.clone(), Some(body));
                let _ = disk.replace_meta(id, meta, stamp, None);
            }
            Op::Remove { key } => {
                for id in disk.find(name(key).key_hash) {
                    disk.remove(id);
                    assert!(matches!(disk.head(id), Err(ReadError::Gone)));
                }
            }
            Op::Touch { key } => disk.find(name(key).key_hash).into_iter().for_each(|id| disk.touch(id)),
            Op::Read { key } => read(&disk, &model, key),
            Op::Fault(rule) => bench.faults.add(rule),
            Op::Calm => bench.faults.clear(),
            Op::Damage { file, at, bytes } => {
                let files = files(&bench);
                if let Some(path) = files.get(usize::from(file) % files.len().max(1)) {
                    use std::os::unix::fs::FileExt as _;
                    let size = fs::metadata(path).expect("a file").len();
                    let file = fs::File::options().write(true).open(path).expect("open");
                    file.write_all_at(&[bytes; 20], at % size.max(1)).expect("damaged");
                }
            }
            Op::Swap { one, other } => {
                let files = files(&bench);
                if files.len() > 1 {
                    let _ = fs::copy(&files[usize::from(one) % files.len()], &files[usize::from(other) % files.len()]);
                }
            }
            Op::Reopen { clean, scan } => {
                if clean {
                    disk.close();
                }
                bench.faults.clear();
                drop(disk);
                disk = bench.open_unscanned();
                if scan {
                    bench.scan(&disk);
                }
            }
            Op::LookAfter => bench.scan(&disk),
        }
        for folder in disk.stats().folders {
            assert!(folder.bytes <= bench.limit_bytes);
        }
    }
    bench.faults.clear();
    // A folder that counted as gone is found again, then scanned.
    bench.scan(&disk);
    bench.scan(&disk);
    (0..6).for_each(|key| read(&disk, &model, key));
    let stats = disk.stats();
    assert!(stats.folders.iter().all(|folder| folder.state == FolderState::Ok), "{stats:?}");
    // Nothing is counted twice, or for ever: the bytes are those of the entries.
    let (list, next) = disk.list(Cursor::default(), MAX_PAGE);
    let (rest, _) = next.map(|next| disk.list(next, MAX_PAGE)).unwrap_or_default();
    let bytes: u64 = list.iter().chain(&rest).map(|one| one.bytes).sum();
    assert_eq!(bytes, stats.folders.iter().map(|folder| folder.bytes).sum::<u64>());
}

fn files(bench: &Bench) -> Vec<PathBuf> {
    (0..bench.folders).flat_map(|folder| entry_files(&bench.path(folder))).collect()
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(24))]
    #[test]
    fn what_is_read_was_written(ops in proptest::collection::vec(op(), 0..60)) {
        run(ops);
    }
}
