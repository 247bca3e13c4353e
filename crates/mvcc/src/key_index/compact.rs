//! Giving up old revisions, in bounded steps.
//!
//! A compaction at revision `at` keeps of each key every record after `at` and the newest one not after it.
//! If that one is a tombstone it is kept only when it was written in transaction `at` itself, so that a watcher
//! that starts there still learns of the deletion; otherwise it goes, and the key with it when nothing is newer.
//!
//! Where one transaction deleted a key and created it again, both records of transaction `at` stay.
//! (Go's index keeps the tombstone alone and loses the record of the key that exists.)

use super::KeyIndex;
use super::block::Block;
use super::slab::{NONE, Slab};
use crate::Revision;
use crate::mutant::Mutant;

/// How far a compaction has come.
pub struct CompactCursor {
    at: i64,
    /// The first key not yet looked at; `None` when all were.
    next_key: Option<Vec<u8>>,
    /// Where to go on in that key's chain, if a step ended in its midst.
    next_record: u32,
}

impl CompactCursor {
    /// A compaction at transaction `at` that has not begun.
    pub fn new(at: i64) -> CompactCursor {
        CompactCursor { at, next_key: Some(Vec::new()), next_record: NONE }
    }

    /// The transaction compacted at.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Whether every key has been looked at.
    pub fn is_done(&self) -> bool {
        self.next_key.is_none()
    }
}

/// The part of a chain to give up.
struct Dead {
    /// The newest record that goes.
    first: u32,
    /// The record before which it ends; none when the whole chain goes.
    keeper: Option<u32>,
}

fn dead_part(slab: &Slab, slot: u32, at: i64) -> Option<Dead> {
    let mut keeper = None;
    let mut newest = slab.head(slot);
    while newest != NONE && slab.revision(newest).main > at {
        keeper = Some(newest);
        newest = slab.previous(newest);
    }
    if newest == NONE || keeper.is_some_and(|keeper| slab.is_cut(keeper)) {
        return None;
    }
    if slab.is_tombstone(newest) && (slab.revision(newest).main < at || Mutant::TombstoneRemoved.is_on()) {
        return Some(Dead { first: newest, keeper });
    }
    let mut keeper = newest;
    let before = slab.previous(keeper);
    if !slab.is_cut(keeper) && before != NONE {
        let revision = slab.revision(before);
        if revision.main == at && slab.is_tombstone(before) {
            keeper = before;
        }
    }
    let first = slab.previous(keeper);
    (first != NONE && !slab.is_cut(keeper)).then_some(Dead { first, keeper: Some(keeper) })
}

/// Reports the records of a given-up chain from `record` on, newest first; where to go on comes back when
/// `left` is used up first. Ends where an earlier compaction cut.
fn report(slab: &Slab, record: u32, left: &mut usize, dead: &mut dyn FnMut(Revision, bool)) -> u32 {
    let mut record = record;
    while record != NONE {
        if *left == 0 {
            return record;
        }
        *left -= 1;
        dead(slab.revision(record), slab.is_tombstone(record));
        record = if slab.is_cut(record) { NONE } else { slab.previous(record) };
    }
    NONE
}

impl KeyIndex {
    /// Goes on with a compaction: looks at about `budget` keys and records, and tells `dead` of every record
    /// given up (its revision, and whether it is a tombstone), key by key, newest first. True when done.
    ///
    /// Records are told once each. Views made before keep seeing them. The store must have stopped giving out
    /// views that may be read before `at` when the first step is taken, and must not compact at an older
    /// revision afterwards.
    pub fn compact(
        &mut self,
        cursor: &mut CompactCursor,
        budget: usize,
        dead: &mut dyn FnMut(Revision, bool),
    ) -> bool {
        let mut left = budget.max(1);
        while left > 0 && !cursor.is_done() {
            self.compact_leaf(cursor, &mut left, dead);
        }
        self.records.release(budget.max(1));
        cursor.is_done()
    }

    /// Lets go of at most about `budget` given-up records that no view can see any more. Compaction steps and
    /// puts do so too; this is for an idle store. True when nothing waits.
    pub fn release(&mut self, budget: usize) -> bool {
        self.records.release(budget);
        self.records.is_idle()
    }

    /// Looks at the rest of the leaf that the cursor stands in. A leaf is finished even beyond the budget, a
    /// chain is not.
    fn compact_leaf(
        &mut self,
        cursor: &mut CompactCursor,
        left: &mut usize,
        dead: &mut dyn FnMut(Revision, bool),
    ) {
        let Some(from) = cursor.next_key.take() else { return };
        let (block, next_leaf) = self.tree.leaf(&from);
        let block = std::sync::Arc::clone(block);
        cursor.next_key = next_leaf.map(<[u8]>::to_vec);
        let mut removed = Vec::new();
        for index in block.lower_bound(&from)..block.len() {
            let slot = block.slots()[index];
            let resumed = std::mem::replace(&mut cursor.next_record, NONE);
            let Some(part) = dead_part(&self.records.slab, slot, cursor.at) else {
                *left = left.saturating_sub(1);
                continue;
            };
            let first = if resumed == NONE { part.first } else { resumed };
            let rest = report(&self.records.slab, first, left, dead);
            if rest != NONE {
                cursor.next_record = rest;
                cursor.next_key = Some(block.key(index));
                break;
            }
            match part.keeper {
                Some(keeper) => self.records.retire_behind(keeper),
                None => removed.push(index),
            }
        }
        self.remove_keys(&block, &removed);
    }

    fn remove_keys(&mut self, block: &Block, removed: &[usize]) {
        let Some(first) = removed.first() else { return };
        self.tree.remove(&block.key(*first), removed);
        for index in removed {
            self.records.retire_slot(block.slots()[*index]);
        }
    }
}
