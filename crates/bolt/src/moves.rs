//! Online defragmentation: live pages at the end of the file move to its front, a few leaves per commit, then the
//! end is given back. Reads and other commits go on between the steps.
//!
//! Rewriting a leaf is moving it: new pages take the lowest free run. So a step is an ordinary commit of `Touch`
//! operations on the next leaves that lie above the target. No list of pages is kept between steps, only the key
//! that was reached; leaves that other commits move meanwhile are found where they are then.
//!
//! The file is cut only below what no durable meta and no pinned view reaches (`Db::cut_excess`).

use bytes::Bytes;

use crate::batch::{Batch, BucketChange, Op, Reserve};
use crate::db::Db;
use crate::error::Result;
use crate::page::{Pages, Root};
use crate::read::Bucket;
use crate::rebuild::height;

/// Leaves moved by one step: with leaves of 16 KB half a megabyte, well under a millisecond of work.
const LEAVES_PER_STEP: usize = 32;
/// References looked at by one step in search of them.
const SEARCH_PER_STEP: usize = 16 << 10;
/// Passes over the file; one is enough unless other commits undo much of it.
const ROUNDS_MAX: u32 = 4;
/// Empty commits after a pass: the first frees what the last step left, two make both metas point below the new
/// end, and in lazy mode freeing takes one more.
const SETTLE_COMMITS: u32 = 4;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Nothing is left to do, or the rest waits for views to be dropped and happens with later commits.
    pub done: bool,
    /// Pages of the leaves that were rewritten.
    pub moved_pages: u64,
}

/// A defragmentation under way.
#[derive(Debug)]
pub(crate) struct Moves {
    phase: Phase,
    /// Pages at or above this are moved.
    target: u64,
    round: u32,
    moved: u64,
    /// In this round something stayed where it is for want of room: pages freed before may have come back since.
    left: bool,
}

impl Moves {
    fn round(round: u32, target: u64) -> Moves {
        Moves { phase: Phase::Move(None), target, round, moved: 0, left: false }
    }
}

#[derive(Debug)]
enum Phase {
    /// Moving leaves; the position reached: bucket and key. `None` is the beginning.
    Move(Option<(Bytes, Bytes)>),
    /// Committing nothing, so that freed pages and lower high-water marks become durable.
    Settle(u32),
    /// Cutting the file.
    Cut,
}

/// Leaves to move, found from a position on.
#[derive(Default)]
struct Group {
    batch: Batch,
    leaves: usize,
    pages: u64,
    searched: usize,
    /// Where to go on; `None` after the last bucket.
    resume: Option<(Bytes, Bytes)>,
}

impl Group {
    fn is_full(&self) -> bool {
        self.leaves >= LEAVES_PER_STEP || self.searched >= SEARCH_PER_STEP
    }
}

impl Db {
    /// Does the next bounded piece of defragmentation, beginning one if none is under way. To be called until it is
    /// done, with other commits in between as they come.
    pub fn defragment_step(&mut self) -> Result<Progress> {
        self.check_writable()?;
        let mut moves = match self.moves.take() {
            Some(moves) => moves,
            None => Moves::round(1, self.move_target()),
        };
        // While set, every commit lowers the high-water mark as far as it can.
        self.lowering = true;
        let progress = self.advance(&mut moves);
        match &progress {
            Ok(progress) if progress.done => self.lowering = false,
            Ok(_) => self.moves = Some(moves),
            // The step changed nothing. A later call begins anew.
            Err(_) => self.lowering = false,
        }
        progress
    }

    /// Just above the pages that will be live, with a little room for rewriting.
    fn move_target(&self) -> u64 {
        let live = self.state.meta.high_water - self.free.count() - self.pending_pages;
        live + live / 64 + 16
    }

    fn advance(&mut self, moves: &mut Moves) -> Result<Progress> {
        let mut progress = Progress { done: false, moved_pages: 0 };
        match &mut moves.phase {
            Phase::Move(from) => {
                let group = self.next_group(from.take(), moves.target)?;
                self.release_pending();
                // With views pinned, freed pages do not come back: moving on would make the file longer. What counts
                // is room anywhere: a leaf longer than what is free below the target still moves down.
                let room = self.free.count() >= 2 * group.pages + 8;
                if group.leaves > 0 && room {
                    self.commit(&group.batch)?;
                    progress.moved_pages = group.pages;
                    moves.moved += group.pages;
                }
                moves.left |= group.leaves > 0 && !room;
                moves.phase = match group.resume {
                    Some(position) if room => Phase::Move(Some(position)),
                    _ => Phase::Settle(SETTLE_COMMITS),
                };
            }
            Phase::Settle(left) => {
                self.commit(&Batch { reserve: Reserve::All, ..Batch::default() })?;
                *left -= 1;
                if *left == 0 {
                    let target = self.move_target();
                    let again = self.state.meta.high_water > target
                        && (moves.moved > 0 || moves.left)
                        && moves.round < ROUNDS_MAX;
                    *moves = if again {
                        Moves::round(moves.round + 1, target)
                    } else {
                        self.force()?;
                        self.cutting = true;
                        Moves { phase: Phase::Cut, ..Moves::round(moves.round, target) }
                    };
                }
            }
            Phase::Cut => progress.done = !self.cut_excess()?,
        }
        Ok(progress)
    }

    /// The next leaves at or above `target`, as a batch that rewrites them.
    fn next_group(&self, from: Option<(Bytes, Bytes)>, target: u64) -> Result<Group> {
        let pages = &self.state.pages;
        let meta = &self.state.meta;
        let top = Bucket::top(pages, meta.root, meta.sequence);
        let mut group = Group::default();
        group.batch.reserve = Reserve::All;
        let (start, mut after) = match from {
            Some((bucket, key)) => (bucket, Some(key)),
            None => (Bytes::new(), None),
        };
        let mut cursor = top.cursor();
        let mut entry = cursor.seek(&start)?;
        while let Some((name, _)) = entry {
            // A bucket that was deleted in between is not the one the position is in.
            let from = after.take().filter(|_| name == start);
            if let Some(bucket) = top.bucket(name)? {
                let mut change = BucketChange::default();
                if let Root::Tree(root) = bucket.value().root {
                    let stopped = high_leaves(pages, root, from.as_deref(), target, &mut group, &mut change)?;
                    group.resume = stopped.map(|key| (Bytes::copy_from_slice(name), key));
                } else if group.leaves == 0 && meta.root >= target && name == first_name(&top)? {
                    // Any change rewrites the page that holds the inline buckets.
                    touch(pages, &[], meta.root, &mut group, &mut change)?;
                }
                if !change.changes.is_empty() {
                    group.batch.buckets.insert(Bytes::copy_from_slice(name), change);
                }
                if group.resume.is_some() {
                    return Ok(group);
                }
            }
            entry = cursor.next()?;
        }
        Ok(group)
    }
}

fn first_name<'v>(top: &Bucket<'v>) -> Result<&'v [u8]> {
    Ok(top.cursor().first()?.map_or(&[], |entry| entry.0))
}

/// Adds to `change` a touch for each leaf of the tree at or above `target`, from the leaf that covers `from` on,
/// until the group is full; then the key to go on with is returned.
fn high_leaves(
    pages: &Pages,
    root: u64,
    from: Option<&[u8]>,
    target: u64,
    group: &mut Group,
    change: &mut BucketChange,
) -> Result<Option<Bytes>> {
    let levels = height(pages, root)?;
    if levels == 0 {
        group.searched += 1;
        if root >= target {
            touch(pages, &[], root, group, change)?;
        }
        return Ok(None);
    }
    search(pages, root, levels, from, target, group, change)
}

fn touch(pages: &Pages, key: &[u8], leaf: u64, group: &mut Group, change: &mut BucketChange) -> Result<()> {
    if change.changes.last().is_some_and(|last| last.0 == key) {
        return Ok(());
    }
    group.leaves += 1;
    group.pages += pages.page(leaf)?.span();
    change.changes.push((Bytes::copy_from_slice(key), Op::Touch));
    Ok(())
}

/// `high_leaves` below one branch page `levels` above the leaves.
fn search(
    pages: &Pages,
    id: u64,
    levels: usize,
    from: Option<&[u8]>,
    target: u64,
    group: &mut Group,
    change: &mut BucketChange,
) -> Result<Option<Bytes>> {
    let page = pages.page(id)?;
    if page.is_leaf() {
        return Err(pages.corrupt(page.offset(), format!("page {id}: leaves at different depths")));
    }
    let start = from.map_or(Ok(0), |key| page.child_for(key))?;
    for i in start..page.count() {
        let (key, child) = page.child(i)?;
        if group.is_full() {
            return Ok(Some(Bytes::copy_from_slice(key)));
        }
        let from = from.filter(|_| i == start);
        if levels > 1 {
            let stopped = search(pages, child, levels - 1, from, target, group, change)?;
            if stopped.is_some() {
                return Ok(stopped);
            }
            continue;
        }
        group.searched += 1;
        // A branch moves with any of its leaves; the first one is touched when only the branch is high.
        if child >= target || (i == 0 && id >= target) {
            touch(pages, key, child, group, change)?;
        }
    }
    Ok(None)
}
