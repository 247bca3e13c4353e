//! Version chains: per slot the newest record of its key, per record the one before it.
//!
//! Readers walk chains while the one writer goes on, without locks and without `unsafe`: everything shared is
//! an atomic in a chunk that never moves.
//!
//! Invariants:
//! - a record is written in full, then published by a release store of its id into the slot's head; a reader
//!   that acquires the head sees it whole, and whole every record behind it;
//! - a published record's revision, creation, version and kind never change. Only the link to the record before
//!   it does: compaction cuts it, once no reader is left that may follow it (see `reclaim.rs`);
//! - along a chain revisions descend strictly;
//! - record and slot numbers start at 1; 0 is "none".

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::KeyState;
use crate::Revision;

/// No record, or no slot.
pub(super) const NONE: u32 = 0;

/// log2 of how many chunks one middle table holds.
const TABLE_BITS: u32 = 10;

type Table<T> = Box<[OnceLock<Box<[T]>>]>;

/// An array that grows in chunks of `2^BITS` that never move, so that readers need no lock while it grows.
pub(super) struct Chunks<T, const BITS: u32> {
    tables: Box<[OnceLock<Table<T>>]>,
}

impl<T: Default, const BITS: u32> Chunks<T, BITS> {
    fn new() -> Self {
        let count = 1_usize << (u32::BITS - TABLE_BITS - BITS);
        Chunks { tables: (0..count).map(|_| OnceLock::new()).collect() }
    }

    /// Element `index`, which must have been reserved.
    fn get(&self, index: u32) -> &T {
        let chunk = index >> BITS;
        let table = self.tables[(chunk >> TABLE_BITS) as usize].get().expect("reserved before use");
        let cells = table[(chunk & ((1 << TABLE_BITS) - 1)) as usize].get().expect("reserved before use");
        &cells[(index & ((1 << BITS) - 1)) as usize]
    }

    /// Makes sure that element `index` exists.
    fn reserve(&self, index: u32) {
        let chunk = index >> BITS;
        let table = self.tables[(chunk >> TABLE_BITS) as usize]
            .get_or_init(|| (0..1 << TABLE_BITS).map(|_| OnceLock::new()).collect());
        table[(chunk & ((1 << TABLE_BITS) - 1)) as usize]
            .get_or_init(|| (0..1_usize << BITS).map(|_| T::default()).collect());
    }

    #[cfg(test)]
    fn footprint(&self) -> usize {
        let tables = self.tables.iter().filter_map(OnceLock::get);
        let chunks: usize = tables.clone().map(|t| t.iter().filter_map(OnceLock::get).count()).sum();
        size_of_val(&*self.tables)
            + tables.map(|t| size_of_val(&**t)).sum::<usize>()
            + chunks * (size_of::<T>() << BITS)
    }
}

/// One record of a chain, packed into 32 bytes.
#[derive(Default)]
struct Cell {
    main: AtomicU64,
    created: AtomicU64,
    /// Version, shifted left by [`FLAG_BITS`], below it the flags.
    version: AtomicU64,
    /// Sub-revision in the upper half, record before this one in the lower.
    link: AtomicU64,
}

const FLAG_BITS: u32 = 2;
/// The record is a tombstone.
const TOMBSTONE: u64 = 1;
/// Everything behind this record was given up by a compaction; only the writer looks at it.
const CUT: u64 = 2;
/// Largest version a record can hold.
pub(super) const MAX_VERSION: i64 = i64::MAX >> FLAG_BITS;

/// A record as values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) revision: Revision,
    pub(super) created: i64,
    pub(super) version: i64,
    pub(super) tombstone: bool,
    pub(super) previous: u32,
}

/// What readers and the writer share; see the head of this file.
pub(super) struct Slab {
    records: Chunks<Cell, 12>,
    heads: Chunks<AtomicU32, 14>,
}

impl Slab {
    pub(super) fn new() -> Slab {
        Slab { records: Chunks::new(), heads: Chunks::new() }
    }

    /// The newest record of a slot.
    pub(super) fn head(&self, slot: u32) -> u32 {
        self.heads.get(slot).load(Ordering::Acquire)
    }

    fn main(&self, record: u32) -> i64 {
        self.records.get(record).main.load(Ordering::Relaxed) as i64
    }

    pub(super) fn revision(&self, record: u32) -> Revision {
        let cell = self.records.get(record);
        let sub = cell.link.load(Ordering::Relaxed) >> 32;
        Revision::new(cell.main.load(Ordering::Relaxed) as i64, sub as i64)
    }

    pub(super) fn is_tombstone(&self, record: u32) -> bool {
        self.records.get(record).version.load(Ordering::Relaxed) & TOMBSTONE != 0
    }

    pub(super) fn is_cut(&self, record: u32) -> bool {
        self.records.get(record).version.load(Ordering::Relaxed) & CUT != 0
    }

    pub(super) fn previous(&self, record: u32) -> u32 {
        self.records.get(record).link.load(Ordering::Relaxed) as u32
    }

    pub(super) fn record(&self, record: u32) -> Record {
        let cell = self.records.get(record);
        let version = cell.version.load(Ordering::Relaxed);
        Record {
            revision: self.revision(record),
            created: cell.created.load(Ordering::Relaxed) as i64,
            version: (version >> FLAG_BITS) as i64,
            tombstone: version & TOMBSTONE != 0,
            previous: self.previous(record),
        }
    }

    /// The newest record of the chain from `head` on whose transaction is not after `at`.
    pub(super) fn newest(&self, head: u32, at: i64) -> u32 {
        let mut record = head;
        while record != NONE && self.main(record) > at {
            record = self.previous(record);
        }
        record
    }

    /// What a reader at revision `at` sees of the chain from `head` on.
    pub(super) fn visible(&self, head: u32, at: i64) -> Option<KeyState> {
        let record = self.newest(head, at);
        if record == NONE || self.is_tombstone(record) {
            return None;
        }
        let Record { revision, created, version, .. } = self.record(record);
        Some(KeyState { modified: revision, created, version })
    }

    /// Whether a reader at revision `at` sees the key of `slot`.
    pub(super) fn is_live(&self, slot: u32, at: i64) -> bool {
        let record = self.newest(self.head(slot), at);
        record != NONE && !self.is_tombstone(record)
    }

    // The writer's side: only the owner of the index calls what follows.

    pub(super) fn reserve_record(&self, record: u32) {
        self.records.reserve(record);
    }

    pub(super) fn reserve_slot(&self, slot: u32) {
        self.heads.reserve(slot);
    }

    /// Fills a record that no chain holds yet.
    pub(super) fn fill(&self, id: u32, record: &Record) {
        let sub = u32::try_from(record.revision.sub).expect("changes of one transaction are limited");
        assert!((0..=MAX_VERSION).contains(&record.version), "versions count puts");
        let cell = self.records.get(id);
        cell.main.store(record.revision.main as u64, Ordering::Relaxed);
        cell.created.store(record.created as u64, Ordering::Relaxed);
        let flags = if record.tombstone { TOMBSTONE } else { 0 };
        cell.version.store((record.version as u64) << FLAG_BITS | flags, Ordering::Relaxed);
        cell.link.store(u64::from(sub) << 32 | u64::from(record.previous), Ordering::Relaxed);
    }

    /// Makes a filled record the newest of its slot.
    pub(super) fn publish(&self, slot: u32, record: u32) {
        self.heads.get(slot).store(record, Ordering::Release);
    }

    /// Marks that everything behind the record is given up.
    pub(super) fn mark_cut(&self, record: u32) {
        let version = &self.records.get(record).version;
        version.store(version.load(Ordering::Relaxed) | CUT, Ordering::Relaxed);
    }

    /// Ends the chain at this record; what was behind it comes back. Only when no reader may follow the link.
    pub(super) fn cut(&self, record: u32) -> u32 {
        let cell = self.records.get(record);
        cell.version.store(cell.version.load(Ordering::Relaxed) & !CUT, Ordering::Relaxed);
        self.relink(record, NONE)
    }

    /// Lets the record's link point elsewhere; where it pointed comes back.
    pub(super) fn relink(&self, record: u32, previous: u32) -> u32 {
        let link = &self.records.get(record).link;
        let old = link.load(Ordering::Relaxed);
        link.store(old & !u64::from(u32::MAX) | u64::from(previous), Ordering::Relaxed);
        old as u32
    }

    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        self.records.footprint() + self.heads.footprint()
    }
}
