//! Writing: room first, then a file under a temporary name, then its place.
//!
//! A small entry is one file, written in one call and renamed. A large one begins as a head with an empty slice table,
//! renamed into place, and then gets its slices in any order: first the bytes, then the place in the table. So whenever
//! the process is killed, what the table says is there is there; and after a power cut the digests find what is not.
//! Nothing is synced for an entry: to lose one costs a fetch.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;

use bytes::Bytes;
use thiserror::Error;

use super::files::is_full;
use super::folder::{Counters, Folder};
use super::format::{
    Flaw, Header, KeyHash, MAX_KEY_BYTES, MAX_LENGTH_BYTES, MAX_META_BYTES, Name, Place, SLICE_BYTES, STAMP_BYTES,
    blocks, slice_bytes, slices,
};
use super::index::{NoRoom, Record, WHOLE};
use super::read::{Trouble, load, read_place, read_places};
use super::{Disk, EntryId, ReadError};

/// What an entry is made of, beside its body.
#[derive(Debug, Clone)]
pub struct New {
    /// The hash of the key: keyed or otherwise evenly spread, the same for every variant.
    pub key_hash: KeyHash,
    /// The key; at most [`MAX_KEY_BYTES`].
    pub key: Bytes,
    /// Whatever the caller wants back with it; at most [`MAX_META_BYTES`].
    pub meta: Bytes,
    /// Whatever the caller wants back with it, of a fixed size.
    pub stamp: [u8; STAMP_BYTES],
    /// When it stops being of any use, stale use included: Unix time in seconds. Then it goes before all others.
    pub expires_s: Option<u32>,
}

/// Why something was not written. What was asked for is not there then, or not there any more.
#[derive(Debug, Error)]
pub enum WriteError {
    /// A bound of this module, or the folder's limit.
    #[error("{what} has {bytes} bytes; at most {most} can be stored")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        most: u64,
    },
    /// A slice does not have the bytes that its place in the body has, or there is no such place.
    #[error("slice {number} has {bytes} bytes; the body does not allow that")]
    WrongSlice {
        /// Which slice.
        number: u32,
        /// Its bytes.
        bytes: u64,
    },
    /// The body's length was given before, or the slices that are there do not agree with it. The entry was removed.
    #[error("a length of {0} bytes does not agree with what is stored")]
    WrongLength(u64),
    /// A longer meta does not fit into the head. The entry was removed: store it anew.
    #[error("the meta does not fit in place")]
    NoPlace,
    /// No folder can be written to, or the one that holds the entry cannot.
    #[error("no cache folder can be written to")]
    OutOfUse,
    /// The file system is full of what is not ours, or writes in flight hold all of the limit.
    #[error("no space is left for the cache")]
    Full,
    /// The policy would rather keep what is there.
    #[error("the eviction policy keeps what is there instead")]
    NotAdmitted,
    /// The entry is not stored any more.
    #[error("the entry is not stored any more")]
    Gone,
    /// The file system failed.
    #[error("cannot write to disk: {0}")]
    Io(#[from] io::Error),
}

impl Disk {
    /// Stores a body of at most one slice in one go. Entries of the same key stay; the caller removes what this replaces.
    /// Blocks.
    pub fn write(&self, new: &New, body: &[Bytes]) -> Result<EntryId, WriteError> {
        let length = total(body);
        check("the body", length, SLICE_BYTES)?;
        self.check(new)?;
        self.somewhere(new, |folder| {
            let header = self.header(new, Some(length), 0);
            let digest = header.name.body_digest(body.iter().map(AsRef::as_ref));
            let header = Header { body_digest: digest, ..header };
            let head = header.encode();
            let bytes = head.len() as u64 + length;
            let id = self.put(folder, &header, bytes, WHOLE, |file| {
                let chunks = std::iter::once(head.as_slice()).chain(body.iter().map(AsRef::as_ref));
                folder.files.append(file, chunks)
            })?;
            Counters::add(&folder.counters.written_bytes, length);
            Ok(id)
        })
    }

    /// Makes a large entry, without slices yet. With a `length` the body has exactly that; without one
    /// [`Self::finish`] says it, and it is at most `max_length` and the limit of its folder. Blocks.
    pub fn create(&self, new: &New, length: Option<u64>, max_length: u64) -> Result<EntryId, WriteError> {
        let most = length.unwrap_or(max_length);
        check("the body", most, MAX_LENGTH_BYTES)?;
        self.check(new)?;
        self.somewhere(new, |folder| {
            // A body whose length is not known cannot be larger than its folder, and needs no larger table.
            let most = length.unwrap_or(max_length.min(folder.limit_bytes));
            let header = self.header(new, length, slices(most).max(1));
            let mut head = header.encode();
            head.extend((0..header.places).flat_map(|number| Place::encode(None, header.name, number)));
            head.resize(header.body_at() as usize, 0);
            self.put(folder, &header, header.body_at(), 0, |file| {
                folder.files.append(file, [head.as_slice()])?;
                folder.files.set_size(file, header.file_bytes().unwrap_or(header.body_at()))
            })
        })
    }

    /// Stores slice `number` of an entry that [`Self::create`] has made. One that is there already stays. Blocks.
    pub fn write_slice(&self, id: EntryId, number: u32, chunks: &[Bytes]) -> Result<(), WriteError> {
        let handle = self.handle(id)?;
        let (header, bytes) = (&handle.header, total(chunks));
        let allowed = match header.length {
            Some(length) => slice_bytes(length, number) == Some(bytes),
            None => bytes <= SLICE_BYTES && bytes > 0,
        };
        if number >= header.places || !allowed {
            return Err(WriteError::WrongSlice { number, bytes });
        }
        let folder = self.folder(id).ok_or(WriteError::Gone)?;
        if !folder.is_writable() {
            Counters::add(&folder.counters.refused, 1);
            return Err(WriteError::OutOfUse);
        }
        if matches!(read_place(&folder.files, &handle.file, header, number)?, (_, Ok(Some(_)))) {
            return Ok(());
        }
        let digest = header.name.slice_digest(number, chunks.iter().map(AsRef::as_ref));
        let place = Place { digest, bytes: bytes as u32 };
        self.reserve(folder, bytes, None)?;
        let result = self.with_room(folder, bytes, || {
            let file = self.with_files(|| folder.files.open_to_write(&folder.path_of(header.name)))?;
            folder.files.reserve(&file, header.slice_at(number), bytes)?;
            folder.files.write_at(&file, chunks.iter().map(AsRef::as_ref), header.slice_at(number))?;
            let _changing = folder.heads();
            if matches!(read_place(&folder.files, &file, header, number)?, (_, Ok(Some(_)))) {
                folder.index().unreserve(blocks(bytes));
                return Ok(true);
            }
            folder.files.write_at(
                &file,
                [&Place::encode(Some(place), header.name, number)[..]],
                header.place_at(number),
            )?;
            Ok(folder.index().grow(id.slot, id.nonce, blocks(bytes)))
        });
        match result {
            Ok(true) => {
                Counters::add(&folder.counters.writes, 1);
                Counters::add(&folder.counters.written_bytes, bytes);
                Ok(())
            }
            Ok(false) => Err(WriteError::Gone),
            Err(error) => {
                folder.index().unreserve(blocks(bytes));
                Err(self.change_failed(folder, id, "write", error))
            }
        }
    }

    /// Says how long the body of an entry is that was made without a length. Whether all of it is stored is the answer.
    /// Where the slices do not agree with the length the entry is removed. Blocks.
    pub fn finish(&self, id: EntryId, length: u64) -> Result<bool, WriteError> {
        self.change(id, |folder, file, header| {
            if header.length.is_some_and(|before| before != length) || slices(length) > header.places {
                return Err(WriteError::WrongLength(length));
            }
            let mut present = 0;
            for (number, said) in (0..).zip(read_places(&folder.files, file, header)?) {
                let expected = slice_bytes(length, number).filter(|&bytes| bytes > 0);
                match said {
                    Ok(None) => {}
                    Ok(Some(place)) if Some(u64::from(place.bytes)) == expected => present += 1,
                    // A damaged place is for whoever reads it.
                    Err(_) if expected.is_some() => {}
                    _ => return Err(WriteError::WrongLength(length)),
                }
            }
            header.length = Some(length);
            folder.files.set_size(file, header.body_at() + length)?;
            if let Some(record) = folder.index().get_mut(id.slot, id.nonce) {
                (record.length, record.present) = (length, present);
            }
            Ok(present >= slices(length))
        })
    }

    /// Gives an entry another meta, stamp and time at which it expires, as after a revalidation. An entry whose head has
    /// no room for the meta is removed. Readers that have the entry open keep what they have read. Blocks.
    pub fn replace_meta(
        &self,
        id: EntryId,
        meta: Bytes,
        stamp: [u8; STAMP_BYTES],
        expires_s: Option<u32>,
    ) -> Result<(), WriteError> {
        check("the meta", meta.len() as u64, MAX_META_BYTES as u64)?;
        self.change(id, |folder, _, header| {
            (header.meta, header.stamp, header.expires_s) = (meta, stamp, expires_s.filter(|&expires| expires != 0));
            if !header.fits() {
                return Err(WriteError::NoPlace);
            }
            folder.index().expire(id.slot, id.nonce, header.expires_s.unwrap_or(0));
            Ok(())
        })
    }

    /// Removes an entry. Readers that have it open read on. Blocks.
    pub fn remove(&self, id: EntryId) -> bool {
        let Some(folder) = self.folder(id) else { return false };
        let Some(record) = folder.index().remove(id.slot, id.nonce) else { return false };
        self.discard(folder, &[record.name()]);
        true
    }

    /// Files whose entries are gone from the index go.
    pub(crate) fn discard(&self, folder: &Folder, names: &[Name]) {
        for name in names {
            self.handles.remove(name);
        }
        folder.unlink(names);
    }

    fn check(&self, new: &New) -> Result<(), WriteError> {
        check("the key", new.key.len() as u64, MAX_KEY_BYTES as u64)?;
        check("the meta", new.meta.len() as u64, MAX_META_BYTES as u64)
    }

    fn header(&self, new: &New, length: Option<u64>, places: u32) -> Header {
        // A clock that was set back does not make a new entry older than an old one.
        let newest = |folder: &Folder| folder.index().find(new.key_hash).map(|(_, record)| record.stored_ms).max();
        let newest = self.folders.iter().filter_map(newest).max().unwrap_or(0);
        Header {
            name: Name { key_hash: new.key_hash, nonce: fastrand::u64(1..) },
            length,
            stored_ms: self.next_ms().max(newest.saturating_add(1)),
            expires_s: new.expires_s.filter(|&expires| expires != 0),
            places,
            stamp: new.stamp,
            body_digest: 0,
            key: new.key.clone(),
            meta: new.meta.clone(),
            head_bytes: Header::room(&new.key, &new.meta, places),
        }
    }

    /// Tries the folders that can be written to, the best for the key first.
    fn somewhere(
        &self,
        new: &New,
        mut write: impl FnMut(&Folder) -> Result<EntryId, WriteError>,
    ) -> Result<EntryId, WriteError> {
        let mut result = Err(WriteError::OutOfUse);
        for folder in self.placement(new.key_hash) {
            if !folder.is_writable() {
                Counters::add(&folder.counters.refused, 1);
                continue;
            }
            result = write(folder);
            if !matches!(result, Err(WriteError::Io(_) | WriteError::Full | WriteError::TooLarge { .. })) {
                break;
            }
        }
        result
    }

    /// Makes a file of `bytes`, filled by `fill`, and its entry.
    fn put(
        &self,
        folder: &Folder,
        header: &Header,
        bytes: u64,
        flags: u8,
        mut fill: impl FnMut(&File) -> io::Result<()>,
    ) -> Result<EntryId, WriteError> {
        // A name is drawn for each file, so this only says what the type wants to hear.
        let nonce = NonZeroU64::new(header.name.nonce).ok_or(WriteError::Gone)?;
        let in_the_end = header.length.map_or(bytes, |length| header.body_at() + length);
        self.reserve(folder, bytes, Some((header.name.key_hash, in_the_end)))?;
        let result = self.with_room(folder, bytes, || {
            let temporary = folder.temporary();
            let result = self.fill(folder, &temporary, header.name, &mut fill);
            if result.is_err() {
                let _ = folder.files.remove(&temporary);
            }
            result
        });
        if let Err(error) = result {
            folder.index().unreserve(blocks(bytes));
            return Err(self.write_failed(folder, "write", error));
        }
        Counters::add(&folder.counters.writes, 1);
        let record = Record {
            key_hash: Record::split(header.name.key_hash),
            nonce,
            stored_ms: header.stored_ms,
            length: header.length.unwrap_or(u64::MAX),
            used_s: self.now_s(),
            expires_s: header.expires_s.unwrap_or(0),
            blocks: blocks(bytes),
            present: u32::from(flags & WHOLE != 0),
            uses: 0,
            flags,
        };
        let (slot, victims) = folder.index().insert(record, true);
        self.discard(folder, &victims);
        Ok(EntryId { slot, folder: folder.number as u16, nonce })
    }

    fn fill(
        &self,
        folder: &Folder,
        temporary: &Path,
        name: Name,
        fill: &mut impl FnMut(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = self.with_files(|| folder.files.create(temporary))?;
        fill(&file)?;
        folder.place(temporary, name)
    }

    /// Reserves `bytes` in the folder's limit and makes sure that the file system has them.
    fn reserve(&self, folder: &Folder, bytes: u64, newcomer: Option<(KeyHash, u64)>) -> Result<(), WriteError> {
        let (wanted, now_s) = (blocks(bytes), self.now_s());
        let mut victims = Vec::new();
        let reserved = folder.index().reserve(wanted, newcomer, now_s, &mut victims);
        self.discard(folder, &victims);
        reserved.map_err(|no_room| {
            Counters::add(&folder.counters.refused, 1);
            match no_room {
                NoRoom::NotAdmitted => WriteError::NotAdmitted,
                NoRoom::Full if bytes <= folder.limit_bytes => WriteError::Full,
                NoRoom::Full => WriteError::TooLarge { what: "the file", bytes, most: folder.limit_bytes },
            }
        })?;
        let mut space = folder.has_space(bytes);
        if matches!(space, Ok(false)) {
            let victims = folder.shed(bytes, now_s);
            self.discard(folder, &victims);
            space = folder.has_space(bytes);
        }
        match space {
            Ok(true) => Ok(()),
            Ok(false) => {
                folder.index().unreserve(wanted);
                Counters::add(&folder.counters.refused, 1);
                Err(WriteError::Full)
            }
            Err(error) => {
                folder.index().unreserve(wanted);
                Err(self.write_failed(folder, "reserve", error))
            }
        }
    }

    /// Writes; where the file system turns out to be full (a quota, or somebody was faster), once more after entries that
    /// take as much have left.
    fn with_room<T>(&self, folder: &Folder, bytes: u64, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if is_full(&error) => {
                let victims = folder.shed(bytes, self.now_s());
                self.discard(folder, &victims);
                if victims.is_empty() { Err(error) } else { write() }
            }
            result => result,
        }
    }

    /// Changes the head of an entry in place; removes the entry where `change` refuses.
    fn change<T>(
        &self,
        id: EntryId,
        change: impl FnOnce(&Folder, &File, &mut Header) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let folder = self.folder(id).ok_or(WriteError::Gone)?;
        let name = folder.index().get(id.slot, id.nonce).ok_or(WriteError::Gone)?.name();
        if !folder.is_writable() {
            Counters::add(&folder.counters.refused, 1);
            return Err(WriteError::OutOfUse);
        }
        let result = (|| {
            let file = self.with_files(|| folder.files.open_to_write(&folder.path_of(name)))?;
            let _changing = folder.heads();
            let mut header = match load(&folder.files, &file, name) {
                Err(Trouble::Flaw(flaw)) => {
                    self.drop_entry(folder, id, flaw);
                    return Err(WriteError::Gone);
                }
                Err(Trouble::Io(error)) => return Err(error.into()),
                Ok((header, _)) => header,
            };
            let answer = change(folder, &file, &mut header)?;
            folder.files.write_at(&file, [header.encode().as_slice()], 0)?;
            self.handles.remove(&name);
            Ok(answer)
        })();
        match result {
            Err(WriteError::Io(error)) => Err(self.change_failed(folder, id, "write a head", error)),
            Err(error) => {
                self.remove(id);
                Err(error)
            }
            Ok(answer) => Ok(answer),
        }
    }

    /// What has failed is counted, and the folder goes out of use for writing.
    fn write_failed(&self, folder: &Folder, what: &str, error: io::Error) -> WriteError {
        if error.kind() != io::ErrorKind::NotFound || !self.has_vanished(folder) {
            folder.failed(what, &error);
        }
        WriteError::Io(error)
    }

    /// The same for an entry that was there: one whose file was removed meanwhile is no failure, and one whose file is
    /// missing goes.
    fn change_failed(&self, folder: &Folder, id: EntryId, what: &str, error: io::Error) -> WriteError {
        if error.kind() == io::ErrorKind::NotFound && !self.has_vanished(folder) {
            self.drop_entry(folder, id, Flaw::Missing);
            return WriteError::Gone;
        }
        self.write_failed(folder, what, error)
    }
}

impl From<ReadError> for WriteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            ReadError::Busy | ReadError::Silent => Self::OutOfUse,
            ReadError::Absent | ReadError::Gone | ReadError::Corrupt(_) => Self::Gone,
        }
    }
}

fn total(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

fn check(what: &'static str, bytes: u64, most: u64) -> Result<(), WriteError> {
    if bytes > most { Err(WriteError::TooLarge { what, bytes, most }) } else { Ok(()) }
}
