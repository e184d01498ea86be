//! Threads read, write and refill while another damages files at random: nothing wrong is read.

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::AtomicBool;

use super::*;

const KEYS: u64 = 40;

/// The body of a version of a key; every eighth key is large.
fn body(key: u64, version: u64) -> Bytes {
    bytes(if key.is_multiple_of(8) { 2 * MIB + key } else { 1000 + key * 500 }, key << 32 | version)
}

fn use_one(disk: &Arc<Disk>, random: &mut fastrand::Rng) -> u64 {
    let key = random.u64(0..KEYS);
    let new = new(&key.to_string());
    let mut right = 0;
    let ids = disk.find(new.key_hash);
    for &id in &ids {
        let Ok(reader) = disk.reader(id) else { continue };
        let head = reader.head();
        assert_eq!(head.key, new.key);
        let version = u64::from_le_bytes(head.stamp[..8].try_into().expect("eight bytes"));
        for (number, slice) in (0..).zip(cut(&body(key, version))) {
            match reader.slice(number) {
                Ok(bytes) => {
                    assert!(bytes == slice, "wrong bytes");
                    right += 1;
                }
                Err(_) => drop(disk.write_slice(id, number, &[slice])),
            }
        }
    }
    if ids.is_empty() || random.u8(0..20) == 0 {
        let version = random.u64(..);
        let mut stamp = [0; STAMP_BYTES];
        stamp[..8].copy_from_slice(&version.to_le_bytes());
        let (new, body) = (New { stamp, ..new }, body(key, version));
        let stored = if body.len() as u64 > MIB { store(disk, &new, &body) } else { disk.write(&new, &[body]) };
        if stored.is_ok() {
            ids.into_iter().for_each(|id| assert!(disk.remove(id) || disk.head(id).is_err()));
        }
    }
    right
}

/// One random fault in one random file.
fn damage(files: &[PathBuf], random: &mut fastrand::Rng) -> std::io::Result<()> {
    let path = &files[random.usize(0..files.len())];
    let file = fs::File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len().max(1);
    // Half of them where heads and tables are.
    let at = if random.bool() { random.u64(0..size.min(400)) } else { random.u64(0..size) };
    match random.u8(0..6) {
        0 | 1 => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << random.u8(0..8);
            file.write_all_at(&byte, at)
        }
        2 => file.write_all_at(&[0; 512], at / 512 * 512),
        3 => file.set_len(at),
        4 => fs::remove_file(path),
        _ => {
            let other = &files[random.usize(0..files.len())];
            if random.bool() { fs::rename(other, path) } else { fs::copy(other, path).map(|_| ()) }
        }
    }
}

fn run(faults: u64) {
    let mut bench = Bench::new(24 * MIB);
    bench.folders = 2;
    let disk = Disk::open(bench.config()).expect("a tier");
    let done = AtomicBool::new(false);
    let right: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|seed| {
                let (disk, done) = (&disk, &done);
                scope.spawn(move || {
                    let (mut random, mut right) = (fastrand::Rng::with_seed(seed), 0);
                    while !done.load(Ordering::Relaxed) {
                        right += use_one(disk, &mut random);
                    }
                    right
                })
            })
            .collect();
        let mut random = fastrand::Rng::with_seed(99);
        let mut made = 0;
        while made < faults && threads.iter().all(|thread| !thread.is_finished()) {
            let files: Vec<_> = (0..2)
                .flat_map(|folder| fs::read_dir(bench.path(folder)).into_iter().flatten().flatten())
                .flat_map(|fan| fs::read_dir(fan.path()).into_iter().flatten().flatten())
                .map(|entry| entry.path())
                .filter(|path| !path.to_string_lossy().contains("/new/"))
                .collect();
            for _ in 0..files.len().min(4) {
                made += u64::from(damage(&files, &mut random).is_ok());
            }
        }
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("nothing wrong was read")).sum()
    });
    assert!(right > 0);
    assert!(flaws(&disk).iter().map(|(_, count)| count).sum::<u64>() > 0);
    let stats = disk.stats();
    assert!(
        stats.folders.iter().all(|folder| folder.state == FolderState::Ok && folder.write_errors == 0),
        "{stats:?}"
    );
    // What was damaged and not met by anybody yet is found now; then there is nothing wrong any more.
    while !disk.verify(Cursor::default(), u64::MAX).findings.is_empty() {}
    let stats = disk.stats();
    let (list, next) = disk.list(Cursor::default(), MAX_PAGE);
    let (rest, _) = next.map(|next| disk.list(next, MAX_PAGE)).unwrap_or_default();
    let bytes: u64 = list.iter().chain(&rest).map(|one| one.bytes).sum();
    assert_eq!(bytes, stats.folders.iter().map(|folder| folder.bytes).sum::<u64>());
    disk.close();
}

#[test]
fn random_damage_under_load_is_never_served() {
    run(300);
}

#[test]
#[ignore = "takes minutes"]
fn a_hundred_thousand_faults_under_load() {
    run(100_000);
}
