//! The range of addresses that blocks lie in, and the blocks.
//!
//! The range is mapped when the first block is taken, and stays for as long as the process. It is private memory without a
//! file, of which only what was written has pages, so its size costs nothing. It is several times as large as any memory
//! tier, against fragmentation: what is free is given back to the kernel and costs nothing either.
//!
//! The mutex covers the list of what is free, for one look or one change of it; it is whole after each, so a lock that was
//! poisoned by a panic elsewhere is used on.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::pool::Pool;
use crate::ranges::Ranges;

/// The size of the range as a power of two, in bytes: the largest that the machine gives is taken.
const RANGE_BITS: std::ops::RangeInclusive<u32> = 34..=40;

static ARENA: OnceLock<Option<Arena>> = OnceLock::new();

/// Whether `bytes` lie in a block.
pub fn holds(bytes: &[u8]) -> bool {
    ARENA.get().and_then(Option::as_ref).is_some_and(|arena| {
        let at = bytes.as_ptr().addr().wrapping_sub(arena.base().addr());
        at < arena.bytes
    })
}

struct Arena {
    /// Its first byte. Never changes; atomic only because that makes a pointer one that threads may share.
    base: AtomicPtr<u8>,
    bytes: usize,
    page_bytes: usize,
    free: Mutex<Ranges>,
}

impl Arena {
    fn get() -> Option<&'static Self> {
        ARENA.get_or_init(|| RANGE_BITS.rev().find_map(|bits| Self::map(1_usize.checked_shl(bits)?))).as_ref()
    }

    fn map(bytes: usize) -> Option<Self> {
        let page_bytes = rustix::param::page_size();
        let pages = u32::try_from(bytes / page_bytes).ok()?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        #[expect(unsafe_code, reason = "the kernel makes the memory that this crate is about")]
        // SAFETY: A new mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) }.ok()?;
        #[expect(unsafe_code, reason = "the kernel is told about the memory")]
        // SAFETY: The whole of the mapping that was just made. This advice changes no contents.
        // Of a huge page nothing is given back before all of it is. Where there are none this fails, and is not needed.
        let _ = unsafe { madvise(base, bytes, Advice::LinuxNoHugepage) };
        let base = AtomicPtr::new(base.cast());
        Some(Self { base, bytes, page_bytes, free: Mutex::new(Ranges::new(pages)) })
    }

    fn base(&self) -> *mut u8 {
        self.base.load(Ordering::Relaxed)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Ranges> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many bytes, which nobody else sees. Its pages go back to the kernel with it.
pub(crate) struct Block {
    arena: &'static Arena,
    first: u32,
    pages: NonZeroU32,
    length: usize,
    /// What it counts against.
    pool: Arc<Pool>,
}

impl Block {
    /// A block of `length` bytes, all zero. Nothing: it has no room in the pool, or the machine has no such memory.
    pub(crate) fn take(pool: &Arc<Pool>, length: usize) -> Option<Self> {
        let arena = Arena::get()?;
        let pages = NonZeroU32::new(u32::try_from(length.div_ceil(arena.page_bytes)).ok()?)?;
        let bytes = pages.get() as usize * arena.page_bytes;
        if !pool.reserve(bytes as u64) {
            return None;
        }
        let Some(first) = arena.free().take(pages.get()) else {
            pool.release(bytes as u64);
            return None;
        };
        let block = Self { arena, first, pages, length, pool: Arc::clone(pool) };
        #[expect(unsafe_code, reason = "the kernel is told about the memory")]
        // SAFETY: The pages of this block, which is in the mapping and nobody else's. This advice changes no contents.
        // All pages at once, which costs less than a fault for each. An older kernel does not know it, and takes the faults.
        let _ = unsafe { madvise(block.start().cast(), bytes, Advice::LinuxPopulateWrite) };
        Some(block)
    }

    fn start(&self) -> *mut u8 {
        self.arena.base().wrapping_add(self.first as usize * self.arena.page_bytes)
    }

    fn taken_bytes(&self) -> usize {
        self.pages.get() as usize * self.arena.page_bytes
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        #[expect(unsafe_code, reason = "a block is seen as a slice")]
        // SAFETY: `length` bytes from `start` on are in the mapping, which stays mapped for reading and writing; they have
        // values, at first zeros. The range belongs to this block alone until it is dropped, and `self` is borrowed alone.
        unsafe {
            std::slice::from_raw_parts_mut(self.start(), self.length)
        }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        #[expect(unsafe_code, reason = "a block is seen as a slice")]
        // SAFETY: As in `as_mut`; who writes has to borrow it alone.
        unsafe {
            std::slice::from_raw_parts(self.start(), self.length)
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = self.taken_bytes();
        #[expect(unsafe_code, reason = "the kernel gets the memory back")]
        // SAFETY: The pages of this block, which nobody refers to any more: it is being dropped. They stay mapped, and are
        // zero for whoever gets them next. Sockets that still send them have references of their own to the pages.
        let gone = unsafe { madvise(self.start().cast(), bytes, Advice::LinuxDontNeed) };
        // Where the kernel has kept the pages (memory that was locked, for example) nobody may write them: what is in flight
        // would change. They count as taken for ever.
        if gone.is_ok() {
            self.arena.free().give_back(self.first, self.pages.get());
            self.pool.release(bytes as u64);
        }
    }
}
