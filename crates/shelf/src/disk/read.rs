//! Reading: every byte that leaves is verified, and what does not verify is dropped and counted.
//!
//! A reader may meet a head or a place in the slice table while it is being written by this process. So what does not
//! verify is read again under the lock that such writers hold, before it is dropped.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use thiserror::Error;

use super::files::Files;
use super::folder::{Counters, Folder};
use super::format::{FIXED_BYTES, Flaw, Header, Name, PLACE_BYTES, Place, STAMP_BYTES, blocks};
use super::index::{Record, UNSEEN, WHOLE};
use super::{Disk, EntryId};

/// The most files open for reading at once. One more is [`ReadError::Busy`].
pub const MAX_OPEN_FILES: usize = 4096;
/// Files of sliced entries that are kept open for the next read.
pub(crate) const KEPT_OPEN_FILES: u64 = 256;
/// The first read of a file, in bytes: all of a small entry.
const FIRST_READ_BYTES: usize = 4096;

/// Why there is nothing to read. Whoever asks does what it does on a miss.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The slice is not stored.
    #[error("the slice is not stored")]
    Absent,
    /// The entry is not stored any more.
    #[error("the entry is not stored any more")]
    Gone,
    /// It was damaged. It has been dropped and counted.
    #[error("damaged on disk: {0}")]
    Corrupt(Flaw),
    /// [`MAX_OPEN_FILES`] are open.
    #[error("{MAX_OPEN_FILES} files are open already")]
    Busy,
    /// The folder does not answer, and is not asked until it does. The entry stays.
    #[error("the cache folder does not answer")]
    Silent,
    /// The file system failed. The entry stays.
    #[error("cannot read from disk: {0}")]
    Io(io::Error),
}

/// What an entry says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The whole key, for the caller to compare.
    pub key: Bytes,
    /// What the caller has stored with it.
    pub meta: Bytes,
    /// The caller's stamp.
    pub stamp: [u8; STAMP_BYTES],
    /// Bytes of the body, where that is known.
    pub length: Option<u64>,
    /// When it was stored: Unix time in milliseconds, larger for every entry of a tier.
    pub stored_ms: u64,
    /// When it stops being of use: Unix time in seconds.
    pub expires_s: Option<u32>,
    /// Whether all slices are there, as far as the index knows.
    pub complete: bool,
}

/// Which slices are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    bits: Vec<u64>,
}

impl Present {
    /// Whether slice `number` is stored.
    pub fn contains(&self, number: u32) -> bool {
        self.bits.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// How many are.
    pub fn count(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).sum()
    }

    fn insert(&mut self, number: u32) {
        let at = number as usize / 64;
        if self.bits.len() <= at {
            self.bits.resize(at + 1, 0);
        }
        if let Some(word) = self.bits.get_mut(at) {
            *word |= 1 << (number % 64);
        }
    }
}

/// An open file. Whoever has it can read the entry to its end, even when it is removed meanwhile.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) file: File,
    pub(crate) header: Header,
    pub(crate) id: EntryId,
    first: Vec<u8>,
    open: Arc<AtomicUsize>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An entry that is being read. It stays readable when it is removed or evicted meanwhile. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(crate) disk: Arc<Disk>,
    pub(crate) handle: Arc<Handle>,
}

impl Reader {
    /// Which entry this is.
    pub fn id(&self) -> EntryId {
        self.handle.id
    }

    /// What the entry says about itself, as it was when it was opened.
    pub fn head(&self) -> Head {
        self.disk.head_of(&self.handle)
    }

    /// The bytes of slice `number`, exactly; blocks.
    pub fn slice(&self, number: u32) -> Result<Bytes, ReadError> {
        self.disk.slice_of(&self.handle, number)
    }

    /// Which slices are stored; blocks, and reads the slice table.
    pub fn present(&self) -> Result<Present, ReadError> {
        self.disk.present_of(&self.handle)
    }
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(crate) enum Trouble {
    Flaw(Flaw),
    Io(io::Error),
}

impl From<Flaw> for Trouble {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The head of a file, and the first bytes of it.
pub(crate) fn load(files: &Files, file: &File, name: Name) -> Result<(Header, Vec<u8>), Trouble> {
    let mut first = files.read(file, FIRST_READ_BYTES, 0)?;
    let head_bytes = Header::head_bytes(first.get(..FIXED_BYTES).ok_or(Flaw::Format)?)?;
    if head_bytes > first.len() {
        first.resize(head_bytes, 0);
        if files.read_at(file, &mut first, 0)? < head_bytes {
            return Err(Flaw::Length.into());
        }
    }
    let header = Header::decode(first.get(..head_bytes).ok_or(Flaw::Head)?, name)?;
    // The size is set before a length is written into the head.
    let size = files.size(file)?;
    if header.file_bytes().is_some_and(|bytes| bytes != size) || size < header.body_at() {
        return Err(Flaw::Length.into());
    }
    Ok((header, first))
}

/// A place of the slice table: its bytes, and what they say.
pub(crate) fn read_place(files: &Files, file: &File, header: &Header, number: u32) -> io::Result<(RawPlace, Said)> {
    let mut raw = [0; PLACE_BYTES as usize];
    let got = files.read_at(file, &mut raw, header.place_at(number))?;
    let said = if got < raw.len() { Err(Flaw::Length) } else { Place::decode(&raw, header.name, number) };
    Ok((raw, said))
}

pub(crate) type RawPlace = [u8; PLACE_BYTES as usize];
pub(crate) type Said = Result<Option<Place>, Flaw>;

/// Which slices are stored, and the blocks that they take. Damaged places count as absent.
pub(crate) fn read_table(files: &Files, file: &File, header: &Header) -> io::Result<(Present, u32)> {
    let (mut present, mut taken) = (Present::default(), 0);
    for (number, said) in (0..).zip(read_places(files, file, header)?) {
        if let Ok(Some(place)) = said {
            present.insert(number);
            taken += blocks(place.bytes.into());
        }
    }
    Ok((present, taken))
}

/// What every place of the slice table says, read in one go.
pub(crate) fn read_places(files: &Files, file: &File, header: &Header) -> io::Result<Vec<Said>> {
    let mut table = vec![0; (u64::from(header.places) * PLACE_BYTES) as usize];
    files.read_at(file, &mut table, header.place_at(0))?;
    let places = (0..header.places).zip(table.chunks(PLACE_BYTES as usize));
    Ok(places.map(|(number, raw)| Place::decode(raw, header.name, number)).collect())
}

/// Tries again when the answer is a flaw, without anybody who writes heads or places meanwhile.
fn surely<T>(folder: &Folder, mut attempt: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    match attempt() {
        Err(Trouble::Flaw(_)) => {
            let _unchanging = folder.heads();
            attempt()
        }
        result => result,
    }
}

impl Disk {
    /// The file of an entry, opened and its head proved.
    pub(crate) fn handle(&self, id: EntryId) -> Result<Arc<Handle>, ReadError> {
        let folder = self.folder(id).ok_or(ReadError::Gone)?;
        if folder.is_silent() {
            return Err(ReadError::Silent);
        }
        let record = *folder.index().get(id.slot, id.nonce).ok_or(ReadError::Gone)?;
        let name = record.name();
        if let Some(handle) = self.handles.get(&name) {
            return Ok(handle);
        }
        let handle = self.open_handle(folder, id, &record, false)?;
        if handle.header.places > 0 {
            self.handles.insert(name, handle.clone(), 0);
            // A removal between the look at the index and here has not found it to take it out.
            if folder.index().get(id.slot, id.nonce).is_none() {
                self.handles.remove(&name);
            }
        }
        Ok(handle)
    }

    /// The same, past the files that are kept open; `anew` also past what the kernel has kept.
    pub(crate) fn open_handle(
        &self,
        folder: &Folder,
        id: EntryId,
        record: &Record,
        anew: bool,
    ) -> Result<Arc<Handle>, ReadError> {
        if self.open_files.fetch_add(1, Ordering::Relaxed) >= MAX_OPEN_FILES {
            self.open_files.fetch_sub(1, Ordering::Relaxed);
            return Err(ReadError::Busy);
        }
        let result = self.load_entry(folder, record.name(), anew);
        let (file, header, first) = result.map_err(|trouble| {
            self.open_files.fetch_sub(1, Ordering::Relaxed);
            match trouble {
                Trouble::Io(error) => {
                    Counters::add(&folder.counters.read_errors, 1);
                    ReadError::Io(error)
                }
                // The folder counts as empty when it is not there.
                Trouble::Flaw(Flaw::Missing) if self.has_vanished(folder) => ReadError::Gone,
                // What a closed tier misses, the process that has the folder by now has removed.
                Trouble::Flaw(Flaw::Missing) if record.flags & UNSEEN != 0 || self.stop.is_stopped() => {
                    self.forget(folder, id.slot, id.nonce);
                    ReadError::Gone
                }
                Trouble::Flaw(flaw) => self.drop_entry(folder, id, flaw),
            }
        })?;
        if header.expires_s.unwrap_or(0) != record.expires_s {
            folder.index().expire(id.slot, id.nonce, header.expires_s.unwrap_or(0));
        }
        Ok(Arc::new(Handle { file, header, id, first, open: self.open_files.clone() }))
    }

    fn load_entry(&self, folder: &Folder, name: Name, anew: bool) -> Result<(File, Header, Vec<u8>), Trouble> {
        let path = folder.path_of(name);
        let file = match self.with_files(|| folder.files.open(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Flaw::Missing.into()),
            result => result?,
        };
        if anew {
            folder.files.forget(&file);
        }
        let (header, first) = surely(folder, || load(&folder.files, &file, name))?;
        Ok((file, header, first))
    }

    pub(crate) fn head_of(&self, handle: &Handle) -> Head {
        let header = &handle.header;
        let complete = header.places == 0
            || self.folder(handle.id).is_some_and(|folder| {
                folder.index().get(handle.id.slot, handle.id.nonce).is_some_and(Record::is_complete)
            });
        Head {
            key: header.key.clone(),
            meta: header.meta.clone(),
            stamp: header.stamp,
            length: header.length,
            stored_ms: header.stored_ms,
            expires_s: header.expires_s,
            complete,
        }
    }

    pub(crate) fn present_of(&self, handle: &Handle) -> Result<Present, ReadError> {
        let folder = self.folder(handle.id).ok_or(ReadError::Gone)?;
        if handle.header.places == 0 {
            let mut present = Present::default();
            present.insert(0);
            return Ok(present);
        }
        match read_table(&folder.files, &handle.file, &handle.header) {
            Ok((present, _)) => Ok(present),
            Err(error) => {
                Counters::add(&folder.counters.read_errors, 1);
                Err(ReadError::Io(error))
            }
        }
    }

    pub(crate) fn slice_of(&self, handle: &Handle, number: u32) -> Result<Bytes, ReadError> {
        let folder = self.folder(handle.id).ok_or(ReadError::Gone)?;
        let mut seen = None;
        if folder.is_silent() {
            return Err(ReadError::Silent);
        }
        if handle.header.length == Some(0) && number == 0 {
            return Ok(Bytes::new());
        }
        let result = surely(folder, || {
            if handle.header.places == 0 {
                return if number == 0 { read_body(folder, handle).map(Some) } else { Ok(None) };
            }
            read_slice(folder, handle, number, &mut seen)
        });
        match result {
            Ok(Some(bytes)) => {
                Counters::add(&folder.counters.reads, 1);
                Counters::add(&folder.counters.read_bytes, bytes.len() as u64);
                Ok(bytes)
            }
            Ok(None) => Err(ReadError::Absent),
            Err(Trouble::Io(error)) => {
                Counters::add(&folder.counters.read_errors, 1);
                Err(ReadError::Io(error))
            }
            Err(Trouble::Flaw(flaw)) => match seen {
                Some(raw) if handle.header.places > 0 => Err(self.drop_slice(folder, handle, number, &raw, flaw)),
                _ => Err(self.drop_entry(folder, handle.id, flaw)),
            },
        }
    }

    /// Takes an entry out that a snapshot has had and the folder has not.
    pub(crate) fn forget(&self, folder: &Folder, slot: u32, nonce: NonZeroU64) {
        if folder.index().remove(slot, nonce).is_some() {
            Counters::add(&folder.counters.forgotten, 1);
        }
    }

    /// Takes a damaged entry out and counts it, once however many readers have found it.
    pub(crate) fn drop_entry(&self, folder: &Folder, id: EntryId, flaw: Flaw) -> ReadError {
        let Some(record) = folder.index().remove(id.slot, id.nonce) else { return ReadError::Gone };
        folder.counters.flaw(flaw);
        tracing::warn!(folder = %folder.path.display(), file = record.name().file_name(), kind = flaw.word(), "dropped a damaged entry");
        self.discard(folder, &[record.name()]);
        ReadError::Corrupt(flaw)
    }

    /// Marks a damaged slice as absent, so that it can be written again; the entry goes where that cannot be done.
    fn drop_slice(&self, folder: &Folder, handle: &Handle, number: u32, raw: &RawPlace, flaw: Flaw) -> ReadError {
        let (header, id) = (&handle.header, handle.id);
        let marked = (|| {
            let file = folder.files.open_to_write(&folder.path_of(header.name))?;
            let _changing = folder.heads();
            let (now, said) = read_place(&folder.files, &file, header, number)?;
            if now != *raw {
                return Ok(false);
            }
            folder.files.write_at(&file, [&Place::encode(None, header.name, number)[..]], header.place_at(number))?;
            let bytes = header.slice_bytes(number).or(said.ok().flatten().map(|place| place.bytes.into()));
            folder.files.release(&file, header.slice_at(number), bytes.unwrap_or(0));
            let (present, taken) = read_table(&folder.files, &file, header)?;
            let length = header.length.unwrap_or(u64::MAX);
            let blocks = blocks(header.body_at()) + taken;
            folder.index().correct(id.slot, id.nonce, length, present.count(), blocks);
            Ok::<_, io::Error>(true)
        })();
        match marked {
            Ok(true) => {
                folder.counters.flaw(flaw);
                let file = header.name.file_name();
                tracing::warn!(folder = %folder.path.display(), file, slice = number, kind = flaw.word(), "dropped a damaged slice");
                ReadError::Corrupt(flaw)
            }
            Ok(false) => {
                // It was mended meanwhile, or the file is another one by now.
                self.handles.remove(&header.name);
                ReadError::Corrupt(flaw)
            }
            Err(_) => self.drop_entry(folder, id, flaw),
        }
    }
}

fn read_body(folder: &Folder, handle: &Handle) -> Result<Bytes, Trouble> {
    let (header, at) = (&handle.header, handle.header.head_bytes as usize);
    let length = header.length.unwrap_or(0) as usize;
    // What the first read has brought is used once: if it does not verify, the file is read.
    let body = match handle.first.get(at..at + length) {
        Some(body) if header.name.body_digest([body]) == header.body_digest => return Ok(Bytes::copy_from_slice(body)),
        _ => {
            let body = folder.files.read(&handle.file, length, header.body_at())?;
            if body.len() < length {
                return Err(Flaw::Length.into());
            }
            body
        }
    };
    if header.name.body_digest([body.as_slice()]) != header.body_digest {
        return Err(Flaw::Slice.into());
    }
    Ok(body.into())
}

fn read_slice(
    folder: &Folder,
    handle: &Handle,
    number: u32,
    seen: &mut Option<RawPlace>,
) -> Result<Option<Bytes>, Trouble> {
    let header = &handle.header;
    if number >= header.places {
        return Ok(None);
    }
    let (raw, said) = read_place(&folder.files, &handle.file, header, number)?;
    *seen = Some(raw);
    let Some(place) = said? else { return Ok(None) };
    if header.length.is_some() && header.slice_bytes(number) != Some(place.bytes.into()) {
        return Err(Flaw::Table.into());
    }
    let slice = folder.files.read(&handle.file, place.bytes as usize, header.slice_at(number))?;
    if slice.len() < place.bytes as usize {
        return Err(Flaw::Length.into());
    }
    if header.name.slice_digest(number, [slice.as_slice()]) != place.digest {
        return Err(Flaw::Slice.into());
    }
    Ok(Some(slice.into()))
}

/// What the index is to know of a file; `None` where it is not there any more.
pub(crate) fn record_of(
    folder: &Folder,
    name: Name,
    open: impl FnOnce(&Path) -> io::Result<File>,
) -> Result<Option<Record>, Trouble> {
    let files = &folder.files;
    let Some(nonce) = NonZeroU64::new(name.nonce) else { return Err(Flaw::Format.into()) };
    let file = match open(&folder.path_of(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let (header, _) = load(files, &file, name)?;
    let (present, taken) = match header.places {
        0 => (1, blocks(header.length.unwrap_or(0) + u64::from(header.head_bytes))),
        _ => {
            let (present, taken) = read_table(files, &file, &header)?;
            (present.count(), blocks(header.body_at()) + taken)
        }
    };
    Ok(Some(Record {
        key_hash: Record::split(name.key_hash),
        nonce,
        stored_ms: header.stored_ms,
        length: header.length.unwrap_or(u64::MAX),
        used_s: (header.stored_ms / 1000) as u32,
        expires_s: header.expires_s.unwrap_or(0),
        blocks: taken,
        present,
        uses: 0,
        flags: if header.places == 0 { WHOLE } else { 0 },
    }))
}
