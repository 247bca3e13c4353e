//! Records and slots given up by compaction, and when they may be used again.
//!
//! A reader holds the token of the epoch in which its view was made. What a compaction gives up waits in the
//! current epoch; it is released when no view of that epoch or an older one is left.
//!
//! Invariants:
//! - epochs are released oldest first, and each in the order in which things were given up. So when a chain is
//!   freed, whatever an older compaction cut off behind it is gone already;
//! - new views take the newest epoch's token, and an epoch with something waiting and a view alive is closed
//!   before anything is released; so a view made later never delays it;
//! - a chain that is cut behind a record waits twice. First until no view older than the compaction is left:
//!   those may still read behind the cut. Then, unlinked, until no view is left that may have followed the link
//!   just before: a view at the compacted revision still looks behind a key's first surviving record, and finds
//!   a tombstone or nothing, which means the same to it;
//! - a slot that left the tree waits once: views made later do not find it.
//!
//! Dropping a view happens before its records are used again: [`Arc::get_mut`] synchronises with the drop.

use std::collections::VecDeque;
use std::sync::Arc;

use super::slab::{NONE, Record, Slab};

/// How many things an allocation releases while anything waits, so that memory comes back without a compaction.
const RELEASE_PER_ALLOCATION: usize = 4;

/// What was given up.
enum Retired {
    /// The chain behind this record, which stays.
    Behind(u32),
    /// A chain that nothing links to any more.
    Chain(u32),
    /// A slot that is no longer in the tree, with its whole chain.
    Slot(u32),
}

/// What a view holds so that nothing it may see is used again.
pub(super) type Token = Arc<()>;

struct Epoch {
    token: Token,
    retired: VecDeque<Retired>,
}

impl Epoch {
    fn new() -> Epoch {
        Epoch { token: Arc::new(()), retired: VecDeque::new() }
    }

    fn is_held(&mut self) -> bool {
        Arc::get_mut(&mut self.token).is_none()
    }
}

/// The writer's side of the slab: hands out records and slots and takes them back.
pub(super) struct Allocator {
    pub(super) slab: Arc<Slab>,
    next_record: u32,
    free_record: u32,
    records: usize,
    next_slot: u32,
    free_slot: u32,
    epochs: VecDeque<Epoch>,
    waiting: usize,
}

impl Allocator {
    pub(super) fn new() -> Allocator {
        Allocator {
            slab: Arc::new(Slab::new()),
            next_record: 1,
            free_record: NONE,
            records: 0,
            next_slot: 1,
            free_slot: NONE,
            epochs: VecDeque::from([Epoch::new()]),
            waiting: 0,
        }
    }

    /// Records in use, given-up ones included.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Whether nothing given up waits to be used again.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    /// The token for a view made now.
    pub(super) fn token(&self) -> Token {
        Arc::clone(&self.epochs.back().expect("there is always an epoch").token)
    }

    /// A filled record that no chain holds yet.
    pub(super) fn new_record(&mut self, record: &Record) -> u32 {
        if self.waiting > 0 {
            self.release(RELEASE_PER_ALLOCATION);
        }
        let id = if self.free_record == NONE {
            let id = self.next_record;
            self.next_record = id.checked_add(1).expect("four billion records fill the memory first");
            self.slab.reserve_record(id);
            id
        } else {
            let id = self.free_record;
            self.free_record = self.slab.previous(id);
            id
        };
        self.records += 1;
        self.slab.fill(id, record);
        id
    }

    /// A slot whose newest record is `record`.
    pub(super) fn new_slot(&mut self, record: u32) -> u32 {
        let slot = if self.free_slot == NONE {
            let slot = self.next_slot;
            self.next_slot = slot.checked_add(1).expect("four billion keys fill the memory first");
            self.slab.reserve_slot(slot);
            slot
        } else {
            let slot = self.free_slot;
            self.free_slot = self.slab.head(slot);
            slot
        };
        self.slab.publish(slot, record);
        slot
    }

    /// Gives up what is behind `record`.
    pub(super) fn retire_behind(&mut self, record: u32) {
        self.slab.mark_cut(record);
        self.retire(Retired::Behind(record));
    }

    /// Gives up a slot that has just left the tree.
    pub(super) fn retire_slot(&mut self, slot: u32) {
        self.retire(Retired::Slot(slot));
    }

    fn retire(&mut self, what: Retired) {
        self.waiting += 1;
        self.epochs.back_mut().expect("there is always an epoch").retired.push_back(what);
    }

    /// Releases at most about `budget` of what no view can see any more.
    pub(super) fn release(&mut self, budget: usize) {
        self.close_epoch();
        self.release_oldest(budget);
        self.close_epoch();
    }

    /// Begins a new epoch if something waits for the views of this one.
    fn close_epoch(&mut self) {
        let newest = self.epochs.back_mut().expect("there is always an epoch");
        if !newest.retired.is_empty() && newest.is_held() {
            self.epochs.push_back(Epoch::new());
        }
    }

    fn release_oldest(&mut self, budget: usize) {
        let mut left = budget;
        while left > 0 {
            let oldest = self.epochs.front_mut().expect("there is always an epoch");
            if oldest.is_held() {
                return;
            }
            let Some(retired) = oldest.retired.pop_front() else {
                if self.epochs.len() == 1 {
                    return;
                }
                self.epochs.pop_front();
                continue;
            };
            self.waiting -= 1;
            left -= 1;
            match retired {
                Retired::Behind(record) => {
                    let chain = self.slab.cut(record);
                    self.retire(Retired::Chain(chain));
                }
                Retired::Chain(chain) => self.free_chain(chain, &mut left),
                Retired::Slot(slot) => {
                    let chain = self.slab.head(slot);
                    self.slab.publish(slot, self.free_slot);
                    self.free_slot = slot;
                    self.free_chain(chain, &mut left);
                }
            }
        }
    }

    fn free_chain(&mut self, chain: u32, left: &mut usize) {
        let mut record = chain;
        while record != NONE && *left > 0 {
            let previous = self.slab.relink(record, self.free_record);
            self.free_record = record;
            self.records -= 1;
            record = previous;
            *left -= 1;
        }
        if record != NONE {
            self.waiting += 1;
            let oldest = self.epochs.front_mut().expect("there is always an epoch");
            oldest.retired.push_front(Retired::Chain(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;

    /// Two records of one slot: the older, and the one that stays.
    fn two_records(records: &mut Allocator) -> (u32, u32) {
        let record = |main, previous| Record {
            revision: Revision::new(main, 0),
            created: main,
            version: 1,
            tombstone: false,
            previous,
        };
        let old = records.new_record(&record(2, NONE));
        let slot = records.new_slot(old);
        let new = records.new_record(&record(3, old));
        records.slab.publish(slot, new);
        (old, new)
    }

    #[test]
    fn a_view_older_than_the_compaction_keeps_what_is_behind_the_cut() {
        let mut records = Allocator::new();
        let view = records.token();
        let (old, keeper) = two_records(&mut records);
        records.retire_behind(keeper);
        records.release(100);
        assert_eq!((records.records(), records.slab.previous(keeper)), (2, old));
        drop(view);
        records.release(100);
        assert_eq!((records.records(), records.slab.previous(keeper)), (1, NONE));
        assert!(records.is_idle());
    }

    /// A view younger than the compaction may have read the link just before it was cut.
    #[test]
    fn what_was_behind_the_cut_waits_for_younger_views_too() {
        let mut records = Allocator::new();
        let older = records.token();
        let (_, keeper) = two_records(&mut records);
        records.retire_behind(keeper);
        records.release(100);
        let younger = records.token();
        drop(older);
        records.release(100);
        assert_eq!((records.records(), records.slab.previous(keeper)), (2, NONE), "cut, but not free");
        let youngest = records.token();
        drop(younger);
        records.release(100);
        assert_eq!(records.records(), 1);
        drop(youngest);
    }

    #[test]
    fn a_long_chain_is_freed_in_steps() {
        let mut records = Allocator::new();
        let mut newest = NONE;
        for main in 0..100 {
            let revision = Revision::new(main, 0);
            newest = records.new_record(&Record {
                revision,
                created: 0,
                version: 1,
                tombstone: false,
                previous: newest,
            });
        }
        let slot = records.new_slot(newest);
        records.retire_slot(slot);
        records.release(31);
        assert_eq!(records.records(), 70, "one for the slot, the rest for records");
        while !records.is_idle() {
            records.release(31);
        }
        assert_eq!(records.records(), 0);
        assert_eq!(two_records(&mut records).0, 1, "the last one freed is the first used again");
    }
}
