//! A transaction: changes that share one main revision and become visible together.
//!
//! All checks come before the first change; there is no way back. What can fail once a change was made is only
//! reading the file, and then the process cannot go on anyway.

use crate::error::{Error, Result};
use crate::event::{Event, EventBatch};
use crate::key_index::{KeyState, RangeEnd};
use crate::kv::KeyValue;
use crate::mutant::Mutant;
use crate::range::{Index, RangeQuery, RangeSummary, Source, Visit, decode};
use crate::{Counts, Revision, Store};
use bytes::Bytes;
use std::cell::Cell;
use std::sync::Arc;

/// Keys between two pulses of a long deletion: a few milliseconds.
const PULSE_KEYS: usize = 4_096;

/// See the head of this file. Must be ended.
#[must_use = "a transaction that is not ended stops the store"]
pub struct WriteTxn<'a> {
    store: &'a mut Store,
    events: Vec<Event>,
    /// What this transaction did so far; `txns` stays 0 in it.
    counts: Counts,
    /// Counted apart, because reading does not need the transaction for itself.
    ranges: Cell<u64>,
}

/// What a put did.
#[derive(Clone, Debug)]
pub struct Put {
    /// Its revision.
    pub revision: Revision,
    /// The encoded `mvccpb.KeyValue` it replaced, if asked for.
    pub previous: Option<Bytes>,
    /// Whether the key did not exist before.
    pub created: bool,
}

/// What a delete of a range did.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The keys, in order.
    pub keys: Vec<Bytes>,
    /// The encoded `mvccpb.KeyValue`s, in order, if asked for.
    pub previous: Vec<Bytes>,
}

impl Deleted {
    /// How many keys were deleted.
    pub fn count(&self) -> usize {
        self.keys.len()
    }
}

impl<'a> WriteTxn<'a> {
    pub(crate) fn new(store: &'a mut Store) -> WriteTxn<'a> {
        WriteTxn { store, events: Vec::new(), counts: Counts::default(), ranges: Cell::new(0) }
    }

    /// The revision that reads of this transaction see: the store's, and one more once something was changed.
    pub fn revision(&self) -> i64 {
        self.store.revision + i64::from(!self.events.is_empty())
    }

    /// The store's compact revision.
    pub fn compact_revision(&self) -> i64 {
        if Mutant::TxnSeesProgress.is_on() {
            return self.store.finished_compaction();
        }
        self.store.compact_revision
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.store.revision + 1, self.events.len() as i64)
    }

    /// Counts a range that is answered by other means.
    pub fn count_range(&self) {
        self.ranges.set(self.ranges.get() + 1);
    }

    /// What was done so far counts as a transaction of its own: in etcd the comparisons of a transaction read in
    /// one, and its operations are another.
    pub fn settle_counts(&mut self) {
        let (done, total) = (std::mem::take(&mut self.counts), &mut self.store.counts);
        let ranges = self.ranges.take();
        total.ranges += ranges;
        total.puts += done.puts;
        total.deletes += done.deletes;
        total.put_bytes += done.put_bytes;
        total.txns += u64::from(ranges + done.puts + done.deletes > 1);
    }

    /// Answers a range request; own changes are seen.
    pub fn range(&self, query: &RangeQuery, visit: &mut Visit<'_>) -> Result<RangeSummary> {
        self.count_range();
        let source = Source {
            index: Index::Writer(&self.store.index),
            records: self.store.records(),
            current: self.revision(),
            compact: self.store.compact_revision,
        };
        source.range(query, visit)
    }

    /// What is known of a key without reading its record; own changes are seen.
    pub fn key_state(&self, key: &[u8]) -> Option<KeyState> {
        self.store.index.get(key, self.revision())
    }

    /// How many keys an interval has; own changes are seen.
    pub fn count(&self, key: &[u8], end: &RangeEnd) -> usize {
        self.store.index.count(key, end, self.revision())
    }

    /// The key's record; own changes are seen.
    pub fn current(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        self.count_range();
        match self.key_state(key) {
            Some(state) => self.store.record(state.modified).map(Some),
            None => Ok(None),
        }
    }

    /// Gives the key's decoded record to `read`; nothing when there is no such key. Own changes are seen.
    pub fn with_current<T>(&self, key: &[u8], read: impl FnOnce(&KeyValue<'_>) -> T) -> Result<Option<T>> {
        let Some(state) = self.key_state(key) else { return Ok(None) };
        let record = self.store.records().must_get(state.modified)?;
        Ok(Some(read(&decode(record, state.modified)?)))
    }

    /// The lease the key is attached to; 0 for none, and for a key that does not exist.
    pub fn lease_of(&self, key: &[u8]) -> Result<i64> {
        Ok(self.with_current(key, |kv| kv.lease)?.unwrap_or(0))
    }

    /// Writes a key. With `want_previous` what it replaced comes back.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64, want_previous: bool) -> Result<Put> {
        let previous = if want_previous { self.current(key)? } else { None };
        let revision = self.next_revision();
        self.counts.puts += 1;
        self.counts.put_bytes += (key.len() + value.len()) as u64;
        let store = &mut *self.store;
        let info = store.index.put(key, revision);
        let kv = KeyValue {
            key,
            create_revision: info.created,
            mod_revision: revision.main,
            version: info.version,
            value,
            lease,
        };
        let event = Event::put(&mut store.arena, &kv);
        store.active.append(revision, false, event.kv.clone());
        self.events.push(event);
        Ok(Put { revision, previous, created: info.previous.is_none() })
    }

    /// Deletes the keys of an interval.
    pub fn delete_range(&mut self, key: &[u8], end: &RangeEnd, want_previous: bool) -> Result<Deleted> {
        self.delete_range_with(key, end, want_previous, &mut || ())
    }

    /// The same; `pulse` is called every few thousand keys, for those who have others to look after.
    pub fn delete_range_with(
        &mut self,
        key: &[u8],
        end: &RangeEnd,
        want_previous: bool,
        pulse: &mut dyn FnMut(),
    ) -> Result<Deleted> {
        self.counts.deletes += 1;
        if want_previous {
            self.count_range();
        }
        let mut found = Vec::new();
        let arena = &mut self.store.arena;
        let at = self.store.revision + i64::from(!self.events.is_empty());
        self.store.index.range(key, end, at, &mut |key, state| {
            if found.len() % PULSE_KEYS == PULSE_KEYS - 1 {
                pulse();
            }
            found.push((arena.copy(key), state.modified));
            true
        });
        let mut previous = Vec::new();
        if want_previous {
            previous.reserve_exact(found.len());
            for part in found.chunks(PULSE_KEYS) {
                pulse();
                for (_, modified) in part {
                    previous.push(self.store.record(*modified)?);
                }
            }
        }
        let mut keys = Vec::with_capacity(found.len());
        self.events.reserve(found.len());
        for (key, _) in found {
            if keys.len() % PULSE_KEYS == PULSE_KEYS - 1 {
                pulse();
            }
            self.delete(&key);
            keys.push(key);
        }
        Ok(Deleted { keys, previous })
    }

    fn delete(&mut self, key: &[u8]) {
        let revision = self.next_revision();
        let store = &mut *self.store;
        let existed = store.index.tombstone(key, revision);
        assert!(existed, "a key found a moment ago is there");
        let (event, tombstone) = Event::delete(&mut store.arena, key, revision.main);
        store.active.append(revision, true, tombstone);
        self.events.push(event);
    }

    /// Ends the transaction: the store's revision rises if anything was changed, and the changes come back.
    pub fn end(mut self) -> Option<Arc<EventBatch>> {
        let events = std::mem::take(&mut self.events);
        if events.is_empty() {
            return None;
        }
        self.store.revision += 1;
        Some(Arc::new(EventBatch { revision: self.store.revision, events }))
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        self.settle_counts();
        // The index and the buffer hold what the revision does not show: going on would write it twice.
        assert!(
            self.events.is_empty() || std::thread::panicking(),
            "a transaction with changes was not ended"
        );
    }
}

impl Store {
    /// A record that the index knows.
    fn record(&mut self, revision: Revision) -> Result<Bytes> {
        let records = crate::records::Records {
            active: self.active.view(),
            frozen: self.frozen.as_ref().map(|frozen| &frozen.view),
            file: &self.file,
        };
        records.get_owned(revision, &mut self.arena)?.ok_or_else(|| Error::missing(revision))
    }
}
