//! The writer: opening, recovery, free pages, room in the file.
//!
//! Recovery is opening: of the two metas the newest valid one is the database, and the pages that its trees do not
//! reach are free. Opening for writing syncs the file first: after a kill the newest meta may exist only in the page
//! cache, and pages that only the older one needs must not be reused before the newer one is durable.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use disk::{Advice, Disk, File, LockKind, OpenMode};

use crate::alloc::{Extent, FreePages};
use crate::batch::Reserve;
use crate::bugs::Bug;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::meta::{self, Found, META_PAGE_USED, Meta, PAGE_SIZE_MAX, PAGE_SIZE_MIN};
use crate::moves::Moves;
use crate::page::{FLAG_FREELIST, FLAG_LEAF, Header, Pages};
use crate::view::{Reader, Shared, Sizes, State};
use crate::walk::Walk;

/// Addresses that are tried, largest first, for the mapping: growing within them needs no new mapping.
const MAP_BYTES: [u64; 4] = [1 << 40, 1 << 37, 1 << 34, 1 << 31];
/// Permission bits of a new database file.
pub(crate) const MODE: u32 = 0o600;
/// The least by which a file grows.
const GROW_MIN: u64 = 1 << 20;

/// When a commit's meta page becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Before the commit returns, as in Go.
    Full,
    /// With the next commit, or [`Db::force`]: one sync per commit. A crash may lose the last commit, never more.
    Lazy,
}

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Page size of a new file; an existing one keeps its own.
    pub page_size: u32,
    /// Most pages of a leaf, one huge entry aside. Go writes 1; more wastes less room at 1 KB per entry.
    pub leaf_pages: u32,
    /// When commits become durable.
    pub sync: SyncMode,
    /// Pages are written in slices of this many bytes, each waited for; 0 writes all at once.
    pub pace_bytes: u64,
    /// The file grows by up to this much at once; small files by less.
    pub grow_bytes: u64,
    /// Open for reading only; the file must exist.
    pub read_only: bool,
    /// The bucket whose leaves are kept in a directory, for [`crate::View::get_by_directory`].
    pub directory_bucket: Option<&'static [u8]>,
    /// Room held back for commits that free space ([`crate::Batch::reserve`]).
    pub reserve_bytes: u64,
    #[cfg(test)]
    pub(crate) bug: Option<Bug>,
}

impl Options {
    #[cfg(test)]
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests' version looks")]
    pub(crate) const fn has(&self, _: Bug) -> bool {
        false
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            page_size: 4096,
            leaf_pages: 4,
            sync: SyncMode::Full,
            pace_bytes: 256 << 10,
            grow_bytes: 64 << 20,
            read_only: false,
            directory_bucket: None,
            reserve_bytes: 8 << 20,
            #[cfg(test)]
            bug: None,
        }
    }
}

/// The one writer of a database file.
#[derive(Debug)]
pub struct Db {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Arc<State>,
    pub(crate) options: Options,
    /// The newest transaction whose meta is known to be durable.
    pub(crate) durable: u64,
    /// The meta page that holds the newest meta.
    pub(crate) slot: u64,
    /// High-water mark of the state before this one, which a crash may still bring back.
    pub(crate) previous_high_water: u64,
    pub(crate) free: FreePages,
    /// Pages freed by a transaction that may still be reached.
    pub(crate) pending: VecDeque<(u64, Vec<Extent>)>,
    pub(crate) pending_pages: u64,
    pub(crate) buffer: Vec<u8>,
    /// Bytes from the start of the file that are known to have blocks on the device.
    reserved: u64,
    /// The file's length.
    len: u64,
    /// What it takes on the device.
    pub(crate) allocated: u64,
    map_bytes: u64,
    pub(crate) broken: bool,
    pub(crate) moves: Option<Moves>,
    /// Commits lower the high-water mark: a defragmentation is under way.
    pub(crate) lowering: bool,
    /// The file is being cut to what it needs.
    pub(crate) cutting: bool,
}

impl Db {
    /// Opens the file, or creates it with the layout that Go gives a new one.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, options: Options) -> Result<Db> {
        let size = options.page_size;
        assert!(
            size.is_power_of_two() && (PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&size),
            "page size {size}"
        );
        let how = if options.read_only { OpenMode::Read } else { OpenMode::Create };
        let file: Arc<dyn File> = disk.open(path, how, MODE)?.into();
        if !file.try_lock(LockKind::Flock)? {
            return Err(Error::Locked { path: path.to_path_buf() });
        }
        if !options.read_only && is_unfinished(&*file, size)? {
            create(&*file, size)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            disk.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        if !options.read_only && !options.has(Bug::SkipOpenSync) {
            file.sync_data()?;
        }
        let len = file.len()?;
        let found = meta::find(&*file, path, len)?;
        Db::load(file, path, options, found, len)
    }

    fn load(file: Arc<dyn File>, path: &Path, options: Options, found: Found, len: u64) -> Result<Db> {
        let Found { meta, slot, other_high_water } = found;
        let (mapping, map_bytes) = map(&*file, len)?;
        let high_water = meta.high_water;
        let pages = Pages { mapping, page_size: meta.page_size as usize, high_water, path: path.into() };
        let walk = Walk::run(&pages, &meta, options.directory_bucket, false)?;
        let free = walk.free_pages();
        let directory = Directory::new(&walk.places);
        drop(walk);
        let used = (high_water - free.count()) * u64::from(meta.page_size);
        let sizes = Sizes {
            total: high_water * u64::from(meta.page_size),
            in_use: used,
            live: used,
            allocated: file.allocated_bytes()?,
        };
        let directory_bucket = options.directory_bucket;
        let state = Arc::new(State { meta, pages, directory_bucket, directory, sizes });
        Ok(Db {
            shared: Arc::new(Shared::new(file, state.clone())),
            state,
            options,
            durable: meta.txid,
            slot,
            previous_high_water: other_high_water,
            free,
            pending: VecDeque::new(),
            pending_pages: 0,
            buffer: Vec::new(),
            reserved: 0,
            len,
            allocated: sizes.allocated,
            map_bytes,
            broken: false,
            moves: None,
            lowering: false,
            cutting: false,
        })
    }

    /// A handle that makes views, for other threads.
    pub fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// Sizes now; exact after every commit.
    pub fn sizes(&self) -> Sizes {
        Sizes { allocated: self.allocated, ..self.state.sizes }
    }

    /// The newest transaction.
    pub fn txid(&self) -> u64 {
        self.state.meta.txid
    }

    /// Whether somebody still holds a view of an older state: pages freed since then cannot be used again.
    pub fn is_held_back(&self) -> bool {
        self.shared.oldest_pin().is_some_and(|oldest| oldest < self.txid())
    }

    /// Page size of the file.
    pub fn page_size(&self) -> u32 {
        self.state.meta.page_size
    }

    /// Makes the last commit durable and lets go of the file, as far as no view holds it.
    pub fn close(mut self) -> Result<()> {
        self.force()
    }

    pub(crate) fn sizes_of(&self, high_water: u64) -> Sizes {
        let page_size = self.state.pages.page_size as u64;
        let in_use = high_water - self.free.count();
        Sizes {
            total: high_water * page_size,
            in_use: in_use * page_size,
            live: (in_use - self.pending_pages) * page_size,
            allocated: self.allocated,
        }
    }

    /// Makes sure that `high_water` pages have blocks on the device and addresses in the mapping, and as far as the
    /// reserve may not be used, that it is there: behind them, or where the device has no more, in long runs of pages
    /// before them that stay free (`free_in_runs`).
    pub(crate) fn reserve(
        &mut self,
        high_water: u64,
        reserve: Reserve,
        free_in_runs: &dyn Fn() -> u64,
    ) -> Result<()> {
        let page_size = self.state.pages.page_size as u64;
        let needed = high_water * page_size;
        let left = reserve.left(self.options.reserve_bytes);
        let wanted = needed + left;
        if wanted > self.reserved {
            // In steps that grow with the file; near the end of the device, what is really needed.
            let step = (needed / 2)
                .next_multiple_of(GROW_MIN)
                .clamp(GROW_MIN, self.options.grow_bytes.max(GROW_MIN));
            let generous = wanted.max(needed + self.options.reserve_bytes) + step;
            if self.allocate(generous.next_multiple_of(GROW_MIN)).is_err()
                && let Err(error) = self.allocate(wanted)
            {
                let before = free_in_runs() * page_size;
                if before == 0 {
                    return Err(error);
                }
                self.allocate(needed + left.saturating_sub(before))?;
            }
        }
        self.remap(needed)
    }

    /// Reserves blocks for the first `target` bytes. Holes that another program left are filled the first time.
    fn allocate(&mut self, target: u64) -> Result<()> {
        let target = target.max(if self.reserved == 0 { self.len } else { self.reserved });
        match self.shared.file.allocate(self.reserved, target - self.reserved) {
            Ok(()) => {
                self.reserved = target;
                self.len = self.len.max(target);
                Ok(())
            }
            Err(error) if error.is_no_space() => {
                Err(Error::NoSpace { path: self.state.pages.path.to_path_buf(), needed: target })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A mapping with more addresses when the file outgrows the one there is; older views keep theirs.
    fn remap(&mut self, needed: u64) -> Result<()> {
        if needed <= self.map_bytes {
            return Ok(());
        }
        let (mapping, map_bytes) = map(&*self.shared.file, needed)?;
        self.map_bytes = map_bytes;
        let old = &self.state;
        self.state = Arc::new(State {
            meta: old.meta,
            pages: Pages { mapping, ..old.pages.clone() },
            directory_bucket: old.directory_bucket,
            directory: old.directory.clone(),
            sizes: old.sizes,
        });
        Ok(())
    }

    /// While the file is being cut: gives the end of it back to the file system, one slice per call, down to what
    /// no meta that a crash may bring back and no pinned view reaches. Returns whether there is more to cut now.
    /// Slices, because cutting holds the file's lock in the kernel.
    pub(crate) fn cut_excess(&mut self) -> Result<bool> {
        const SLICE: u64 = 8 << 20;
        const ROUND: u64 = 64 << 10;
        let early = self.options.has(Bug::CutEarly) && self.lowering;
        if !self.cutting && !early {
            return Ok(false);
        }
        let metas = if early { 0 } else { self.previous_high_water }.max(self.state.meta.high_water);
        let keep = |pages: u64| {
            let needed = pages * self.state.pages.page_size as u64 + self.options.reserve_bytes;
            needed.next_multiple_of(ROUND)
        };
        let (floor, now) = (keep(metas), keep(metas.max(self.shared.pinned_high_water())));
        if self.len <= now {
            // What pinned views still hold back is cut with a later commit.
            self.cutting = self.len > floor;
            return Ok(false);
        }
        let target = now.max(self.len.saturating_sub(SLICE));
        self.shared.file.set_len(target).inspect_err(|_| self.broken = true)?;
        self.len = target;
        self.reserved = self.reserved.min(target);
        self.measure()?;
        Ok(true)
    }
}

impl Db {
    /// Asks the file system what the file takes on the device.
    pub(crate) fn measure(&mut self) -> Result<()> {
        self.allocated = self.shared.file.allocated_bytes().inspect_err(|_| self.broken = true)?;
        Ok(())
    }
}

fn map(file: &dyn File, len: u64) -> Result<(Arc<dyn disk::Mapping>, u64)> {
    let mut last = None;
    for reserve in MAP_BYTES {
        // Twice the file at least, unless even the largest is too small: then exactly what is needed.
        let reserve = reserve.max(len.next_power_of_two() * 2);
        match file.map(reserve) {
            Ok(mapping) => {
                mapping.advise(0, reserve, Advice::Random);
                return Ok((mapping, reserve));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("at least one size was tried").into())
}

/// Pages of a new file: two metas, an empty free list, an empty root.
const NEW_PAGES: u64 = 4;

fn new_meta(page_size: u32, txid: u64) -> Meta {
    Meta { page_size, flags: 0, root: 3, sequence: 0, freelist: 2, high_water: NEW_PAGES, txid }
}

/// Whether the file is empty, or its creation was interrupted: it is no longer than a new one, and has of each meta
/// nothing or a part, and of none the whole.
fn is_unfinished(file: &dyn File, page_size: u32) -> Result<bool> {
    let len = file.len()?;
    if len == 0 {
        return Ok(true);
    }
    if len > NEW_PAGES * u64::from(page_size) {
        return Ok(false);
    }
    for slot in 0..2 {
        let mut head = [0; META_PAGE_USED];
        file.read_at(&mut head, slot * u64::from(page_size))?;
        let whole = new_meta(page_size, slot).encode(slot);
        let same = head.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        if same == META_PAGE_USED || head[same..].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes a new database: the pages first, the metas when those are durable, so that an interrupted creation leaves
/// no valid meta.
fn create(file: &dyn File, page_size: u32) -> Result<()> {
    let size = page_size as usize;
    let mut body = vec![0; 2 * size];
    let freelist = Header { id: 2, flags: FLAG_FREELIST, count: 0, overflow: 0 };
    let root = Header { id: 3, flags: FLAG_LEAF, count: 0, overflow: 0 };
    body[..16].copy_from_slice(&freelist.encode());
    body[size..size + 16].copy_from_slice(&root.encode());
    file.write_all_at(&body, 2 * u64::from(page_size))?;
    file.sync_all()?;
    for txid in 0..2 {
        file.write_all_at(&new_meta(page_size, txid).encode(txid), txid * u64::from(page_size))?;
    }
    file.sync_all()?;
    Ok(())
}
