//! One transaction: build the new pages, write them, make them durable, then point a meta page at them.
//!
//! Invariants:
//! 1. Every page that a meta reaches was made durable before that meta was written.
//! 2. A page freed by transaction `t` is reused only when a meta of `t` or later is durable and no view older than
//!    `t` is pinned. So whatever meta a crash leaves as the newest valid one, all it reaches is intact.
//! 3. The meta of `t` is written only when the meta of `t - 1`, in the other page, is durable.
//! 4. Room for all new pages is reserved before the first byte is written: a full device changes nothing.
//! 5. After a failed write or sync nothing is known about the device, and no further commit is taken.
//! 6. Until the commit is published, nothing that readers see has changed; an error while building changes nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::alloc::Extent;
use crate::batch::{Batch, Op};
use crate::bugs::Bug;
use crate::db::{Db, SyncMode};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::meta::{META_PAGE_USED, Meta, NO_FREELIST};
use crate::new_pages::{Built, Finished, NewPages};
use crate::page::{BUCKET_HEADER, BucketValue, HEADER, Header, Page, Pages, RawPage, Root};
use crate::read::Bucket;
use crate::rebuild::{NewRoot, Rebuild};
use crate::view::{Sizes, State};

/// The buffer of a large commit is not kept: beyond this its memory goes back.
const BUFFER_KEPT: usize = 32 << 20;

/// An empty bucket's leaf, as the starting point of a new bucket.
static EMPTY_LEAF: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];

/// The outcome of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Number of the transaction. Durable in [`SyncMode::Full`]; in lazy mode, durable with the next commit or
    /// [`Db::force`].
    pub txid: u64,
    /// Sizes after it.
    pub sizes: Sizes,
}

/// What the building of a commit leads to.
struct Plan {
    root: u64,
    directory: Directory,
}

impl Db {
    /// Applies `batch` as one transaction.
    pub fn commit(&mut self, batch: &Batch) -> Result<Committed> {
        self.commit_watched(batch, &mut || ())
    }

    /// The same; `built` is called between building the new pages and writing them, for whoever measures.
    pub fn commit_watched(&mut self, batch: &Batch, built: &mut dyn FnMut()) -> Result<Committed> {
        self.check_writable()?;
        batch.check()?;
        self.release_pending();
        let state = self.state.clone();
        let free = std::mem::take(&mut self.free);
        let buffer = std::mem::take(&mut self.buffer);
        let mut new = NewPages::new(free, buffer, state.meta.high_water, state.pages.page_size);
        let plan = self.plan(&state, batch, &mut new).and_then(|plan| {
            self.reserve(new.high_water(), batch.reserve, &|| new.free_in_runs())?;
            Ok(plan)
        });
        match plan {
            Ok(plan) => {
                built();
                self.write(&state, plan, new.finish(self.lowering))
            }
            Err(error) => {
                (self.free, self.buffer) = new.abandon();
                Err(error)
            }
        }
    }

    /// Makes the last commit durable, if it is not yet.
    pub fn force(&mut self) -> Result<()> {
        if self.options.read_only {
            return Ok(());
        }
        self.check_writable()?;
        if self.durable == self.state.meta.txid {
            return Ok(());
        }
        self.sync()?;
        self.durable = self.state.meta.txid;
        Ok(())
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        let path = || self.state.pages.path.to_path_buf();
        if self.options.read_only {
            return Err(Error::ReadOnly { path: path() });
        }
        if self.broken {
            return Err(Error::Broken { path: path() });
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.shared.file.sync_data().inspect_err(|_| self.broken = true)?;
        Ok(())
    }

    /// Gives pages back to the allocator that nothing can reach any more (invariant 2).
    pub(crate) fn release_pending(&mut self) {
        let mut oldest = self.shared.oldest_pin().unwrap_or(u64::MAX);
        if self.options.has(Bug::IgnorePins) {
            oldest = u64::MAX;
        }
        let durable = if self.options.has(Bug::ReuseEarly) { u64::MAX } else { self.durable };
        while let Some((txid, _)) = self.pending.front()
            && *txid <= oldest.min(durable)
        {
            let (_, extents) = self.pending.pop_front().expect("looked at it");
            for extent in extents {
                self.pending_pages -= extent.pages;
                self.free.release(extent);
            }
        }
    }

    /// Builds all pages of the commit: the changed buckets, then the bucket of buckets.
    fn plan(&self, state: &State, batch: &Batch, new: &mut NewPages) -> Result<Plan> {
        let pages = &state.pages;
        let empty =
            RawPage { pages, offset: 0, header: Header::decode(&EMPTY_LEAF), bytes: &EMPTY_LEAF }.check()?;
        let empty = BucketValue { root: Root::Inline(empty), sequence: 0 };
        let top = Bucket::top(pages, state.meta.root, state.meta.sequence);
        let mut directory = None;
        let mut roots: Vec<(Bytes, Op)> = Vec::new();
        for (name, change) in &batch.buckets {
            let mut old = top.bucket(name)?;
            let is_directory = self.options.directory_bucket.is_some_and(|bucket| bucket == name);
            if change.delete
                && let Some(bucket) = old.take()
            {
                free_bucket(pages, bucket.value().root, new)?;
                if is_directory {
                    directory = Some(Directory::default());
                }
                if !change.create {
                    roots.push((name.clone(), Op::Delete));
                }
            }
            let value = match old {
                Some(_) if change.changes.is_empty() => continue,
                Some(bucket) => bucket.value(),
                None if change.create => empty,
                None if change.changes.is_empty() => continue,
                None => return Err(Error::BucketMissing { name: name.clone() }),
            };
            let rebuild = Rebuild::new(pages, new, self.options.leaf_pages, false);
            let (root, leaves) = rebuild.run(value.root, &change.changes, true)?;
            if is_directory {
                let before = directory.as_ref().unwrap_or(&state.directory);
                directory = Some(before.apply(&leaves, pages)?);
            }
            roots.push((name.clone(), Op::Put(bucket_value(root, value.sequence))));
        }
        let mut root = state.meta.root;
        if !roots.is_empty() {
            let rebuild = Rebuild::new(pages, new, 1, true);
            match rebuild.run(Root::Tree(root), &roots, false)?.0 {
                NewRoot::Tree(id) => root = id,
                NewRoot::Inline(_) => unreachable!("asked for a tree"),
            }
        }
        if state.meta.freelist != NO_FREELIST {
            let (header, _) = pages.extent(state.meta.freelist)?;
            new.free(Extent { start: header.id, pages: u64::from(header.overflow) + 1 });
        }
        Ok(Plan { root, directory: directory.unwrap_or_else(|| state.directory.clone()) })
    }

    fn write(&mut self, state: &State, plan: Plan, finished: Finished) -> Result<Committed> {
        let Finished { free, high_water, buffer, built, mut freed } = finished;
        if self.options.has(Bug::LosePages) {
            freed.pop();
        }
        let meta =
            Meta { root: plan.root, freelist: NO_FREELIST, high_water, txid: self.next_txid(), ..state.meta };
        assert!((2..high_water).contains(&meta.root), "root {} of {high_water} pages", meta.root);
        self.free = free;
        self.write_pages(&buffer, built).inspect_err(|_| self.broken = true)?;
        if !self.options.has(Bug::SkipDataSync) {
            self.sync()?;
        }
        // The sync covered the last meta too: it was written before.
        self.durable = state.meta.txid;
        self.write_meta(&meta)?;
        if self.options.sync == SyncMode::Full {
            self.sync()?;
            self.durable = meta.txid;
        }
        self.pending_pages += freed.iter().map(|extent| extent.pages).sum::<u64>();
        self.pending.push_back((meta.txid, freed));
        self.previous_high_water = state.meta.high_water;
        self.slot = meta.slot();
        self.buffer = buffer;
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
        self.publish(meta, plan.directory)
    }

    /// Transaction `n` goes to page `n mod 2`; a number is skipped where that would overwrite the newest meta.
    fn next_txid(&self) -> u64 {
        let next = self.state.meta.txid + 1;
        if next % 2 == self.slot { next + 1 } else { next }
    }

    fn publish(&mut self, meta: Meta, directory: Directory) -> Result<Committed> {
        self.measure()?;
        let sizes = self.sizes_of(meta.high_water);
        let pages = Pages { high_water: meta.high_water, ..self.state.pages.clone() };
        let directory_bucket = self.options.directory_bucket;
        let state = Arc::new(State { meta, pages, directory_bucket, directory, sizes });
        self.state = state.clone();
        self.shared.publish(state);
        self.cut_excess()?;
        Ok(Committed { txid: meta.txid, sizes: self.sizes() })
    }

    fn write_meta(&mut self, meta: &Meta) -> Result<()> {
        let page: [u8; META_PAGE_USED] = meta.encode(meta.slot());
        let offset = meta.slot() * u64::from(meta.page_size);
        self.shared.file.write_all_at(&page, offset).inspect_err(|_| self.broken = true)?;
        Ok(())
    }

    /// Writes pages in file order, neighbours together, in slices that are waited for: a long queue at the device
    /// would delay the log's syncs.
    fn write_pages(&self, buffer: &[u8], mut built: Vec<Built>) -> Result<()> {
        let page_size = self.state.pages.page_size;
        let pace = self.options.pace_bytes as usize;
        let slice = if pace == 0 { usize::MAX } else { pace.next_multiple_of(page_size) };
        built.sort_unstable_by_key(|page| page.extent.start);
        let mut rest = built.as_slice();
        while let Some((first, mut tail)) = rest.split_first() {
            let (mut next, mut end) =
                (first.extent.end(), first.at + first.extent.pages as usize * page_size);
            while let Some((page, after)) = tail.split_first()
                && page.extent.start == next
                && page.at == end
            {
                (next, end) = (page.extent.end(), end + page.extent.pages as usize * page_size);
                tail = after;
            }
            rest = tail;
            let mut offset = first.extent.start * page_size as u64;
            for piece in buffer[first.at..end].chunks(slice) {
                self.shared.file.write_all_at(piece, offset)?;
                if pace != 0 {
                    self.shared.file.start_write_back(offset, piece.len() as u64)?;
                }
                offset += piece.len() as u64;
            }
        }
        Ok(())
    }
}

/// The value of a bucket element.
pub(crate) fn bucket_value(root: NewRoot, sequence: u64) -> Bytes {
    let (mut value, root) = match root {
        NewRoot::Inline(value) => (value, 0),
        NewRoot::Tree(root) => (vec![0; BUCKET_HEADER], root),
    };
    value[..8].copy_from_slice(&root.to_le_bytes());
    value[8..BUCKET_HEADER].copy_from_slice(&sequence.to_le_bytes());
    value.into()
}

/// Frees all pages of a bucket and of the buckets in it. The walk at opening saw each of them once.
fn free_bucket(pages: &Pages, root: Root<'_>, new: &mut NewPages) -> Result<()> {
    let mut waiting: Vec<u64> = Vec::new();
    if let Root::Tree(id) = root {
        waiting.push(id);
    }
    while let Some(id) = waiting.pop() {
        let page: Page<'_> = pages.page(id)?;
        new.free(Extent { start: id, pages: page.span() });
        for i in 0..page.count() {
            if !page.is_leaf() {
                waiting.push(page.child(i)?.1);
            } else if page.element(i)?.bucket
                && let Root::Tree(nested) = page.bucket(i)?.root
            {
                waiting.push(nested);
            }
        }
    }
    Ok(())
}
