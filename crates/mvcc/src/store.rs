//! The store, as the apply lane owns it: one writer that never waits for a reader or for the disk.
//!
//! Invariants:
//! - what has been applied is in the file, in the frozen buffer or in the active one, and in the index
//! - at most one frozen buffer is out: from [`Store::freeze`] until [`Store::committed`], or [`Store::take_back`] when
//!   it found no room; then the next one holds all of it too, so that what the file gets is always a prefix of what was
//!   applied
//! - a batch holds whole transactions, and with them the consistent index, term and conf state that belong to
//!   them: a file is never ahead of its own index or behind it
//! - the small buckets in memory are what the file's will be once all buffers are in it

use crate::compaction::Compactor;
use crate::event::Arena;
use crate::hash::CompactionHash;
use crate::key_index::KeyIndex;
use crate::mutant::Mutant;
use crate::records::Records;
use crate::schema::{self, Bucket};
use crate::side::SideBuckets;
use crate::view::{State, View};
use crate::write_buf::{Frozen, WriteBuf};
use crate::write_txn::WriteTxn;
use bolt::Batch;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// See the head of this file.
pub struct Store {
    pub(crate) index: KeyIndex,
    pub(crate) active: WriteBuf,
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) file: bolt::View,
    pub(crate) side: Arc<SideBuckets>,
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    pub(crate) compactor: Compactor,
    pub(crate) hashes: Arc<Vec<CompactionHash>>,
    pub(crate) arena: Arena,
    /// Buckets the file lacks; created by the next batch.
    pub(crate) create: Vec<Bucket>,
    /// How many deletions of a compaction a batch may hold.
    pub(crate) deletes_max: usize,
    pub(crate) applied: Applied,
    pub(crate) counts: Counts,
}

/// What the store was asked for since it was opened, counted as etcd's metrics count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ranges by transactions, looks at previous records included.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Deletions of an interval, also those that found nothing.
    pub deletes: u64,
    /// Transactions of more than one of these.
    pub txns: u64,
    /// Bytes of keys and values put.
    pub put_bytes: u64,
    /// Records that compaction took away.
    pub compacted: u64,
}

/// The raft entry up to which everything has been applied, and whether the next batch has to say so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) changed: bool,
}

impl Store {
    /// The store as it is now. Call it between transactions, once per batch of them.
    pub fn view(&self) -> View {
        View::new(State {
            revision: self.revision,
            compact_revision: self.compact_revision,
            index: self.index.reader(),
            active: self.active.view().clone(),
            frozen: self.frozen.clone(),
            file: self.file.clone(),
            side: Arc::clone(&self.side),
            hashes: Arc::clone(&self.hashes),
        })
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The last revision a compaction was asked for; -1 before the first.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// What it was asked for so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts a range that was answered without reading: etcd reads a key where we know the answer.
    pub fn count_range(&mut self) {
        self.counts.ranges += 1;
    }

    /// Begins a transaction; it makes one new revision if it changes anything.
    pub fn write(&mut self) -> WriteTxn<'_> {
        WriteTxn::new(self)
    }

    pub(crate) fn records(&self) -> Records<'_> {
        Records {
            active: self.active.view(),
            frozen: self.frozen.as_ref().map(|frozen| &frozen.view),
            file: &self.file,
        }
    }

    /// Sets a key of a small bucket, or takes it away. A value that stands there already is not written again.
    pub fn set_side(&mut self, bucket: Bucket, key: Bytes, value: Option<Bytes>) {
        let changed = Arc::make_mut(&mut self.side).map_mut(bucket).set(key.clone(), value.clone());
        if changed {
            self.active.set_side(bucket, key, value);
        }
    }

    /// A value of a small bucket.
    pub fn side(&self, bucket: Bucket, key: &[u8]) -> Option<Bytes> {
        self.side.map(bucket).get(key).cloned()
    }

    /// All of a small bucket in key order.
    pub fn side_iter(&self, bucket: Bucket) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.side.map(bucket).iter()
    }

    /// Keys in a small bucket.
    pub fn side_len(&self, bucket: Bucket) -> usize {
        self.side.map(bucket).len()
    }

    /// Says up to which raft entry everything has been applied. It goes into the next batch; by itself it is not
    /// a reason for one. A term of 0 is not written, as in etcd.
    pub fn set_consistent_index(&mut self, index: u64, term: u64) {
        self.applied.changed |= (index, term) != (self.applied.index, self.applied.term);
        self.applied.index = index;
        self.applied.term = term;
    }

    /// The raft entry up to which everything has been applied: index and term.
    pub fn consistent_index(&self) -> (u64, u64) {
        (self.applied.index, self.applied.term)
    }

    /// Stores the conf state, as JSON.
    pub fn set_conf_state(&mut self, json: Bytes) {
        self.set_side(Bucket::Meta, Bytes::from_static(schema::CONF_STATE), Some(json));
    }

    /// Bytes that are applied and not yet in the file. At the caller's limit it must stop applying: this is what
    /// bounds the buffers.
    pub fn unflushed_bytes(&self) -> usize {
        self.active.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.bytes)
    }

    /// Of these bytes, those that are in no batch yet.
    pub fn gathered_bytes(&self) -> usize {
        self.active.bytes()
    }

    /// Changes since the last freeze.
    pub fn unflushed_ops(&self) -> usize {
        self.active.ops()
    }

    /// The size the file will have, about: what is allocated now, and what waits to be written.
    pub fn size_estimate(&self) -> u64 {
        self.file.sizes().total + self.unflushed_bytes() as u64
    }

    /// What the space quota is about: the size of the file as of the last commit, or what it will need for all that
    /// is applied, if that is more. A commit takes its time on a busy disk, and nothing may slip past the quota
    /// meanwhile.
    pub fn size_for_quota(&self) -> u64 {
        let sizes = self.file.sizes();
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.records_bytes);
        // Deletes are left out, and pages that only wait for their readers: a compaction must not look like growth.
        sizes.total.max(sizes.live + (frozen + self.active.records_bytes()) as u64)
    }

    /// Takes what has been applied as a batch for the file. Nothing if there are no changes, or if the last
    /// batch has not been committed yet. Call it between transactions.
    pub fn freeze(&mut self) -> Option<Batch> {
        let empty = self.active.ops() == 0 && self.create.is_empty();
        if empty { None } else { self.freeze_all() }
    }

    /// As [`Store::freeze`], but a consistent index that has moved is reason enough: before a raft snapshot, and
    /// before the log is released.
    pub fn freeze_all(&mut self) -> Option<Batch> {
        if self.frozen.is_some() {
            return None;
        }
        let is_apart = Mutant::IndexApart.is_on() && self.active.ops() > 0;
        if !is_apart && std::mem::take(&mut self.applied.changed) {
            let Applied { index, term, .. } = self.applied;
            self.set_meta_number(schema::CONSISTENT_INDEX, index);
            if term > 0 {
                self.set_meta_number(schema::TERM, term);
            }
        }
        if self.active.ops() == 0 && self.create.is_empty() {
            return None;
        }
        let (frozen, batch) = self.active.freeze(std::mem::take(&mut self.create), self.deletes_max);
        self.frozen = Some(Arc::new(frozen));
        Some(batch)
    }

    fn set_meta_number(&mut self, key: &'static [u8], value: u64) {
        self.set_side(Bucket::Meta, Bytes::from_static(key), Some(schema::write_u64(value)));
    }

    /// The last batch is in the file, which `file` shows.
    pub fn committed(&mut self, file: bolt::View) {
        assert!(self.frozen.take().is_some(), "a commit without a frozen batch");
        self.file = file;
    }

    /// The last batch found no room for itself: what is in it goes with the next one, less what deletions and
    /// compaction have made of it since. Returns how many deletions of a compaction were in it.
    pub fn take_back(&mut self) -> usize {
        let frozen = self.frozen.take().expect("a batch that comes back was frozen");
        if !Mutant::BatchLost.is_on() {
            self.active.take_back(&frozen);
        }
        self.create.extend(&frozen.create);
        frozen.deletes
    }

    /// From now on a batch takes away at most so many records that a compaction left behind; others wait. Each takes
    /// the room of the pages around it until it is committed, and where there is little room it is done bit by bit.
    pub fn limit_deletes(&mut self, max: usize) {
        self.deletes_max = max;
    }

    /// The file was changed without a batch: defragmentation moved its pages.
    pub fn moved(&mut self, file: bolt::View) {
        self.applied.changed &= !Mutant::IndexLostInMove.is_on();
        self.file = file;
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("revision", &self.revision)
            .field("compact_revision", &self.compact_revision)
            .field("unflushed_bytes", &self.unflushed_bytes())
            .finish_non_exhaustive()
    }
}
