//! The key index: which revisions each key has.
//!
//! A copy-on-write B+tree (`tree.rs`) of prefix-compressed blocks (`block.rs`) leads from a key to a slot; the
//! slot leads to the chain of the key's records, newest first (`slab.rs`). One writer, [`KeyIndex`], owned by
//! the store; any number of readers, each with an [`IndexView`].
//!
//! Invariants:
//! - isolation comes from revisions, not from the container: a reader at revision r takes of each chain the
//!   newest record not after r. What the writer adds meanwhile is after r;
//! - a deleted key stays, its newest record a tombstone, until a compaction takes it out;
//! - what a compaction gives up is used again only after every view that may see it is gone (`reclaim.rs`), so
//!   a view keeps answering for all revisions from the compact revision of its making on;
//! - the tree of a view counts the live keys as of the view's newest revision.
//!
//! Limits: four billion keys and four billion records; a record takes 32 bytes, and a key with one record about
//! 75 in all.

mod block;
mod compact;
mod range_end;
mod reclaim;
mod restore;
mod slab;
mod tree;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use block::MAX_KEYS;
pub use compact::CompactCursor;
pub use range_end::RangeEnd;
use reclaim::{Allocator, Token};
pub use restore::{RestoreError, Restorer};
use slab::{NONE, Record, Slab};
use tree::Tree;

use crate::Revision;

/// What the index knows of a key that exists at some revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The change that made the key what it is; its record in the `key` bucket has this revision.
    pub modified: Revision,
    /// Transaction that created the key (its create revision).
    pub created: i64,
    /// How many puts since then, that one included.
    pub version: i64,
}

/// What a put found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutInfo {
    /// The key's create revision.
    pub created: i64,
    /// The key's version with this put.
    pub version: i64,
    /// The record this put replaces; none when it creates the key.
    pub previous: Option<Revision>,
}

/// The writer's side of the index.
pub struct KeyIndex {
    tree: Tree,
    records: Allocator,
    last: Revision,
}

/// A snapshot of the index; cheap to make and to clone. Reading takes no lock.
///
/// It answers for every revision from the compact revision that held when it was made up to
/// [`IndexView::revision`], whatever the writer does meanwhile. Which of these may be asked is the caller's
/// rule. A view keeps given-up records from being used again: hold it no longer than the read.
#[derive(Clone)]
pub struct IndexView {
    tree: Tree,
    slab: Arc<Slab>,
    last: Revision,
    _token: Token,
}

/// The reading half, the same for the writer and for views.
#[derive(Clone, Copy)]
struct Reading<'a> {
    tree: &'a Tree,
    slab: &'a Slab,
    last: Revision,
}

impl Reading<'_> {
    fn get(self, key: &[u8], at: i64) -> Option<KeyState> {
        let slot = self.tree.find(key)?;
        self.slab.visible(self.slab.head(slot), at)
    }

    fn range(
        self,
        key: &[u8],
        end: &RangeEnd,
        at: i64,
        visit: &mut dyn FnMut(&[u8], KeyState) -> bool,
    ) -> bool {
        if end.is_empty_from(key) {
            return true;
        }
        let end = match end {
            RangeEnd::Single => return self.get(key, at).is_none_or(|state| visit(key, state)),
            RangeEnd::Before(end) => Some(&end[..]),
            RangeEnd::Unbounded => None,
        };
        let mut scratch = Vec::new();
        self.tree.visit(key, end, &mut |block, range| {
            let prefix_len = block.prefix().len();
            scratch.clear();
            scratch.extend_from_slice(block.prefix());
            // All heads first: these loads do not wait for each other.
            let mut heads = [NONE; MAX_KEYS];
            for (head, slot) in heads.iter_mut().zip(&block.slots()[range.clone()]) {
                *head = self.slab.head(*slot);
            }
            range.zip(heads).all(|(index, head)| match self.slab.visible(head, at) {
                Some(state) => {
                    scratch.truncate(prefix_len);
                    scratch.extend_from_slice(block.suffix(index));
                    visit(&scratch, state)
                }
                None => true,
            })
        })
    }

    fn count(self, key: &[u8], end: &RangeEnd, at: i64) -> usize {
        if end.is_empty_from(key) {
            return 0;
        }
        let end = match end {
            RangeEnd::Single => return usize::from(self.get(key, at).is_some()),
            RangeEnd::Before(end) => Some(&end[..]),
            RangeEnd::Unbounded => None,
        };
        // The counts hold for this snapshot's own revision, while heads may already be newer.
        let newest = at.min(self.last.main);
        let live = |slots: &[u32]| slots.iter().filter(|slot| self.slab.is_live(**slot, newest)).count();
        if at >= self.last.main {
            return self.tree.count(key, end, &|block, range| live(&block.slots()[range]));
        }
        let mut count = 0;
        self.tree.visit(key, end, &mut |block, range| {
            count += live(&block.slots()[range]);
            true
        });
        count
    }

    fn range_limited(
        self,
        key: &[u8],
        end: &RangeEnd,
        at: i64,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], KeyState),
    ) -> usize {
        let mut visited = 0;
        if limit > 0 {
            let complete = self.range(key, end, at, &mut |key, state| {
                if visited == limit {
                    return false;
                }
                visited += 1;
                visit(key, state);
                true
            });
            if complete {
                return visited;
            }
        }
        self.count(key, end, at)
    }

    fn keep(self, at: i64, visit: &mut dyn FnMut(Revision)) {
        self.range(&[], &RangeEnd::Unbounded, at, &mut |_, state| {
            visit(state.modified);
            true
        });
    }
}

impl KeyIndex {
    /// An index without keys.
    pub fn new() -> KeyIndex {
        KeyIndex { tree: Tree::new(), records: Allocator::new(), last: Revision::default() }
    }

    /// A snapshot of what has been written so far. Take it between transactions: a view made in the midst of
    /// one would count its first half.
    pub fn reader(&self) -> IndexView {
        IndexView {
            tree: self.tree.clone(),
            slab: Arc::clone(&self.records.slab),
            last: self.last,
            _token: self.records.token(),
        }
    }

    fn reading(&self) -> Reading<'_> {
        Reading { tree: &self.tree, slab: &self.records.slab, last: self.last }
    }

    fn advance(&mut self, revision: Revision) {
        assert!(revision > self.last, "revision {revision} is not after {}", self.last);
        self.last = revision;
    }

    /// Records a put. Revisions must ascend over all calls.
    pub fn put(&mut self, key: &[u8], revision: Revision) -> PutInfo {
        self.advance(revision);
        let mut record =
            Record { revision, created: revision.main, version: 1, tombstone: false, previous: NONE };
        let Some(slot) = self.tree.find(key) else {
            let id = self.records.new_record(&record);
            let slot = self.records.new_slot(id);
            let slab = &self.records.slab;
            self.tree.insert(key, slot, &|slot| slab.is_live(slot, i64::MAX));
            return PutInfo { created: record.created, version: 1, previous: None };
        };
        record.previous = self.records.slab.head(slot);
        let old = self.records.slab.record(record.previous);
        if old.tombstone {
            self.tree.set_live(key, true);
        } else {
            record.created = old.created;
            record.version = old.version + 1;
        }
        let id = self.records.new_record(&record);
        self.records.slab.publish(slot, id);
        let previous = (!old.tombstone).then_some(old.revision);
        PutInfo { created: record.created, version: record.version, previous }
    }

    /// Records a deletion; false, and nothing recorded, when the key does not exist.
    pub fn tombstone(&mut self, key: &[u8], revision: Revision) -> bool {
        let Some(slot) = self.tree.find(key) else { return false };
        let previous = self.records.slab.head(slot);
        if self.records.slab.is_tombstone(previous) {
            return false;
        }
        self.advance(revision);
        let record = Record { revision, created: 0, version: 0, tombstone: true, previous };
        let id = self.records.new_record(&record);
        self.records.slab.publish(slot, id);
        self.tree.set_live(key, false);
        true
    }

    /// The key as of transaction `at`.
    pub fn get(&self, key: &[u8], at: i64) -> Option<KeyState> {
        self.reading().get(key, at)
    }

    /// Visits the keys of a range as of transaction `at`, in key order, until the visitor says false. Says
    /// whether it came to the end. To go on later, start again at the last key with a zero byte appended.
    pub fn range(
        &self,
        key: &[u8],
        end: &RangeEnd,
        at: i64,
        visit: &mut dyn FnMut(&[u8], KeyState) -> bool,
    ) -> bool {
        self.reading().range(key, end, at, visit)
    }

    /// How many keys a range has as of transaction `at`: at the newest by the counts in the tree, else by
    /// walking the range.
    pub fn count(&self, key: &[u8], end: &RangeEnd, at: i64) -> usize {
        self.reading().count(key, end, at)
    }

    /// Visits the first `limit` keys of a range and tells how many it has in all.
    pub fn range_limited(
        &self,
        key: &[u8],
        end: &RangeEnd,
        at: i64,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], KeyState),
    ) -> usize {
        self.reading().range_limited(key, end, at, limit, visit)
    }

    /// Visits, in key order, the revision that each key existing as of `at` was last changed in: what a
    /// compaction at `at` keeps, without tombstones.
    pub fn keep(&self, at: i64, visit: &mut dyn FnMut(Revision)) {
        self.reading().keep(at, visit);
    }

    /// Keys that exist at the newest revision.
    pub fn live_keys(&self) -> usize {
        self.tree.live()
    }

    /// Records held: puts and deletions that no compaction has given up, and given-up ones that a view may
    /// still see.
    pub fn records(&self) -> usize {
        self.records.records()
    }

    /// The newest revision recorded.
    pub fn last_revision(&self) -> Revision {
        self.last
    }
}

impl Default for KeyIndex {
    fn default() -> Self {
        KeyIndex::new()
    }
}

impl IndexView {
    fn reading(&self) -> Reading<'_> {
        Reading { tree: &self.tree, slab: &self.slab, last: self.last }
    }

    /// The newest transaction this view has. A transaction that changed nothing in the index does not count.
    pub fn revision(&self) -> i64 {
        self.last.main
    }

    /// Keys that exist at the view's newest revision.
    pub fn live_keys(&self) -> usize {
        self.tree.live()
    }

    /// As [`KeyIndex::get`]; `at` beyond the view's newest revision means that one.
    pub fn get(&self, key: &[u8], at: i64) -> Option<KeyState> {
        self.reading().get(key, self.cap(at))
    }

    /// As [`KeyIndex::range`]; `at` beyond the view's newest revision means that one.
    pub fn range(
        &self,
        key: &[u8],
        end: &RangeEnd,
        at: i64,
        visit: &mut dyn FnMut(&[u8], KeyState) -> bool,
    ) -> bool {
        self.reading().range(key, end, self.cap(at), visit)
    }

    /// As [`KeyIndex::count`]; `at` beyond the view's newest revision means that one.
    pub fn count(&self, key: &[u8], end: &RangeEnd, at: i64) -> usize {
        self.reading().count(key, end, self.cap(at))
    }

    /// As [`KeyIndex::range_limited`]; `at` beyond the view's newest revision means that one.
    pub fn range_limited(
        &self,
        key: &[u8],
        end: &RangeEnd,
        at: i64,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], KeyState),
    ) -> usize {
        self.reading().range_limited(key, end, self.cap(at), limit, visit)
    }

    /// As [`KeyIndex::keep`].
    pub fn keep(&self, at: i64, visit: &mut dyn FnMut(Revision)) {
        self.reading().keep(self.cap(at), visit);
    }

    /// The writer goes on while this view lives; what it adds must not show.
    fn cap(&self, at: i64) -> i64 {
        at.min(self.last.main)
    }
}
