//! What has been applied and is not in the file yet.
//!
//! The apply lane appends; any number of views read what was there when they were made, without a lock and
//! without a copy. Publishing costs two reference counts.
//!
//! Invariants:
//! - records ascend by revision, and every main revision between the first and the last has at least one: so
//!   `main - first.main` is a lower bound of a record's place
//! - a log only grows; an entry never changes once its length has been handed to a reader
//! - file < frozen < active: every record of the file is older than every record of the frozen buffer, and that
//!   older than every one of the active buffer
//! - a dead record of this buffer is never written; any other dead record is in the file, or will be once the
//!   frozen buffer is, and gets a delete
//! - what a buffer holds is bounded by the caller, who stops applying at its limit of unflushed bytes

use crate::schema::Bucket;
use crate::{Revision, revision};
use bolt::{Batch, Op};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Entries in the first segment of a log; each further one has twice as many.
const FIRST_SEGMENT: usize = 64;
/// Segments of a log: room for four billion entries.
const SEGMENTS: usize = 26;
/// What an entry costs beside its bytes: key, list entry, its share of the rebuilt page.
const ENTRY_OVERHEAD: usize = 64;

type Segment<T> = OnceLock<Box<[OnceLock<T>]>>;

/// Entries in segments that never move, so that readers need no lock while the writer appends.
#[derive(Debug)]
struct Segments<T>([Segment<T>; SEGMENTS]);

/// Segment and place in it of entry `at`.
fn place(at: usize) -> (usize, usize) {
    let segment = (at / FIRST_SEGMENT + 1).ilog2() as usize;
    (segment, at - FIRST_SEGMENT * ((1 << segment) - 1))
}

/// A log as it was at one moment. The buffer that made it goes on with the same segments.
#[derive(Debug)]
pub(crate) struct Log<T> {
    segments: Arc<Segments<T>>,
    len: usize,
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Log<T> {
        Log { segments: Arc::clone(&self.segments), len: self.len }
    }
}

impl<T> Default for Log<T> {
    fn default() -> Log<T> {
        let segments = Segments(std::array::from_fn(|_| OnceLock::new()));
        Log { segments: Arc::new(segments), len: 0 }
    }
}

impl<T> Log<T> {
    /// Only the buffer that owns the log may call this; a second writer is caught by the assertion.
    fn push(&mut self, entry: T) {
        let (segment, at) = place(self.len);
        let entries = self.segments.0[segment]
            .get_or_init(|| (0..FIRST_SEGMENT << segment).map(|_| OnceLock::new()).collect());
        assert!(entries[at].set(entry).is_ok(), "a log has one writer");
        self.len += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, at: usize) -> &T {
        assert!(at < self.len, "entry {at} of {}", self.len);
        let (segment, at) = place(at);
        self.segments.0[segment]
            .get()
            .and_then(|entries| entries[at].get())
            .expect("below the length all are set")
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        (0..self.len).map(|at| self.get(at))
    }
}

/// One applied change of a key.
#[derive(Debug)]
pub(crate) struct Record {
    main: i64,
    sub: u32,
    pub(crate) tombstone: bool,
    /// Encoded `mvccpb.KeyValue`.
    pub(crate) value: Bytes,
}

impl Record {
    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }
}

/// A buffer as a reader sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct BufView {
    pub(crate) records: Log<Record>,
    /// What compactions took away, in no order: of this buffer, of older ones, of the file.
    pub(crate) deletes: Log<DeadRecord>,
}

/// A record that a compaction takes away. Sorts by revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeadRecord {
    main: i64,
    sub: u32,
    tombstone: bool,
}

impl DeadRecord {
    pub(crate) fn new(revision: Revision, tombstone: bool) -> DeadRecord {
        DeadRecord { main: revision.main, sub: sub_of(revision), tombstone }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }
}

/// The sub revision in four bytes: a transaction has no room for more changes.
fn sub_of(revision: Revision) -> u32 {
    u32::try_from(revision.sub).expect("fewer than 2^32 changes in one transaction")
}

impl BufView {
    /// The first record's revision; `None` when there is no record.
    pub(crate) fn first(&self) -> Option<Revision> {
        (self.records.len() > 0).then(|| self.records.get(0).revision())
    }

    /// Number of records below `revision`.
    pub(crate) fn lower_bound(&self, revision: Revision) -> usize {
        let len = self.records.len();
        let Some(first) = self.first() else { return 0 };
        if revision <= first {
            return 0;
        }
        let guess = usize::try_from(revision.main - first.main).unwrap_or(usize::MAX);
        if guess >= len {
            return len;
        }
        // All before the guess are smaller; usually the guess is the place itself.
        let (mut low, mut step) = (guess, 1);
        let below = |at: usize| self.records.get(at).revision() < revision;
        while low < len && below(low) {
            let next = low + step;
            if next >= len || !below(next) {
                let (mut from, mut to) = (low + 1, next.min(len));
                while from < to {
                    let middle = usize::midpoint(from, to);
                    if below(middle) { from = middle + 1 } else { to = middle }
                }
                return from;
            }
            (low, step) = (next, step * 2);
        }
        low
    }

    /// The stored bytes at exactly `revision`.
    pub(crate) fn get(&self, revision: Revision) -> Option<&Bytes> {
        let at = self.lower_bound(revision);
        if at == self.records.len() {
            return None;
        }
        let record = self.records.get(at);
        (record.revision() == revision).then_some(&record.value)
    }
}

/// The changes since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct WriteBuf {
    view: BufView,
    side: BTreeMap<(Bucket, Bytes), Option<Bytes>>,
    bytes: usize,
    records_bytes: usize,
}

/// What is on its way to the file.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) view: BufView,
    pub(crate) bytes: usize,
    /// Of these, what records take: about so much longer the file may become.
    pub(crate) records_bytes: usize,
}

impl WriteBuf {
    pub(crate) fn append(&mut self, revision: Revision, tombstone: bool, value: Bytes) {
        let log = &self.view.records;
        if log.len() > 0 {
            let last = log.get(log.len() - 1).revision();
            assert!(last < revision && revision.main <= last.main + 1, "{revision} after {last}");
        }
        self.bytes += value.len() + ENTRY_OVERHEAD;
        self.records_bytes += value.len() + ENTRY_OVERHEAD;
        self.view.records.push(Record { main: revision.main, sub: sub_of(revision), tombstone, value });
    }

    /// Takes a record away, wherever it is.
    pub(crate) fn delete(&mut self, dead: DeadRecord) {
        self.bytes += ENTRY_OVERHEAD;
        self.view.deletes.push(dead);
    }

    pub(crate) fn set_side(&mut self, bucket: Bucket, key: Bytes, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD;
        self.side.insert((bucket, key), value);
    }

    /// What it holds, and what it goes on with; a clone of it is what a reader sees from now on.
    pub(crate) fn view(&self) -> &BufView {
        &self.view
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of these, what records take.
    pub(crate) fn records_bytes(&self) -> usize {
        self.records_bytes
    }

    /// Number of changes.
    pub(crate) fn ops(&self) -> usize {
        self.view.records.len() + self.view.deletes.len() + self.side.len()
    }

    /// Empties the buffer into what readers keep seeing and what the file is to be changed by.
    pub(crate) fn freeze(&mut self, create: &[Bucket]) -> (Frozen, Batch) {
        let WriteBuf { view, side, bytes, records_bytes } = std::mem::take(self);
        // Room held back may be used by what makes room: compaction, deletions, and the marks beside them.
        let use_reserve = view.records.iter().all(|record| record.tombstone)
            && !side.iter().any(|((bucket, _), value)| *bucket == Bucket::Lease && value.is_some());
        let mut batch = Batch { use_reserve, ..Batch::default() };
        for bucket in create {
            batch.bucket(bucket.name()).create = true;
        }
        if view.records.len() + view.deletes.len() > 0 {
            batch.bucket(Bucket::Key.name()).changes = key_changes(&view);
        }
        for ((bucket, key), value) in side {
            batch.bucket(bucket.name()).changes.push((key, value.map_or(Op::Delete, Op::Put)));
        }
        (Frozen { view, bytes, records_bytes }, batch)
    }
}

/// The changes of the key bucket, sorted: deletes are of older records than the buffer's own, so they come first.
fn key_changes(view: &BufView) -> Vec<(Bytes, Op)> {
    let mut dead: Vec<DeadRecord> = view.deletes.iter().copied().collect();
    dead.sort_unstable();
    dead.dedup();
    let older = view.first().map_or(dead.len(), |first| dead.partition_point(|dead| dead.revision() < first));
    let (deletes, unwritten) = dead.split_at(older);
    let mut keys = BytesMut::with_capacity((older + view.records.len()) * revision::TOMBSTONE_KEY_LEN);
    let mut key = |revision: Revision, tombstone: bool| {
        if tombstone {
            keys.put_slice(&revision.tombstone_key());
        } else {
            keys.put_slice(&revision.key());
        }
        keys.split().freeze()
    };
    let mut changes = Vec::with_capacity(older + view.records.len() - unwritten.len());
    for dead in deletes {
        changes.push((key(dead.revision(), dead.tombstone), Op::Delete));
    }
    let mut unwritten = unwritten.iter().peekable();
    for record in view.records.iter() {
        if unwritten.next_if(|dead| dead.revision() == record.revision()).is_none() {
            changes.push((key(record.revision(), record.tombstone), Op::Put(record.value.clone())));
        }
    }
    assert!(unwritten.next().is_none(), "a dead record that is nowhere");
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_fill_segments_one_after_the_other() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(FIRST_SEGMENT - 1), (0, FIRST_SEGMENT - 1));
        assert_eq!(place(FIRST_SEGMENT), (1, 0));
        assert_eq!(place(3 * FIRST_SEGMENT - 1), (1, 2 * FIRST_SEGMENT - 1));
        assert_eq!(place(3 * FIRST_SEGMENT), (2, 0));
    }

    #[test]
    fn a_reader_does_not_see_what_came_after_it() {
        let mut buf = WriteBuf::default();
        buf.append(Revision::new(2, 0), false, Bytes::from_static(b"a"));
        let before = buf.view().clone();
        for main in 3..1000 {
            buf.append(Revision::new(main, 0), false, Bytes::from_static(b"b"));
        }
        assert_eq!(before.records.len(), 1);
        assert_eq!(before.get(Revision::new(2, 0)).unwrap(), "a");
        assert_eq!(before.get(Revision::new(3, 0)), None);
        assert_eq!(buf.view().get(Revision::new(999, 0)).unwrap(), "b");
    }

    #[test]
    fn what_is_dropped_before_it_was_written_never_is() {
        let mut buf = WriteBuf::default();
        for main in 5..9 {
            buf.append(Revision::new(main, 0), main == 7, Bytes::from_static(b"v"));
        }
        buf.delete(DeadRecord::new(Revision::new(6, 0), false));
        buf.delete(DeadRecord::new(Revision::new(3, 1), true));
        buf.delete(DeadRecord::new(Revision::new(2, 0), false));
        buf.set_side(Bucket::Meta, Bytes::from_static(b"term"), Some(Bytes::from_static(b"1")));
        buf.set_side(Bucket::Lease, Bytes::from_static(b"l"), None);
        assert_eq!(buf.ops(), 9);
        let (_, batch) = buf.freeze(&[Bucket::Auth]);
        assert_eq!((buf.ops(), buf.bytes()), (0, 0));
        let names: Vec<&[u8]> = batch.buckets.keys().map(|name| &name[..]).collect();
        assert_eq!(names, [&b"auth"[..], b"key", b"lease", b"meta"]);
        assert!(batch.buckets[&b"auth"[..]].create && !batch.buckets[&b"key"[..]].create);
        let keys: Vec<(Vec<u8>, bool)> = batch.buckets[&b"key"[..]]
            .changes
            .iter()
            .map(|(key, op)| (key.to_vec(), matches!(op, Op::Put(_))))
            .collect();
        let plain = |main, sub| Revision::new(main, sub).key().to_vec();
        let expected = vec![
            (plain(2, 0), false),
            (Revision::new(3, 1).tombstone_key().to_vec(), false),
            (plain(5, 0), true),
            (Revision::new(7, 0).tombstone_key().to_vec(), true),
            (plain(8, 0), true),
        ];
        assert_eq!(keys, expected);
        assert!(keys.is_sorted());
    }

    proptest! {
        #[test]
        fn lower_bound_equals_a_count(
            transactions in prop::collection::vec(1u32..6, 0..120),
            probes in prop::collection::vec((0i64..140, 0i64..7), 1..40),
        ) {
            let mut buf = WriteBuf::default();
            for (main, changes) in (10..).zip(&transactions) {
                for sub in 0..i64::from(*changes) {
                    buf.append(Revision::new(main, sub), false, Bytes::copy_from_slice(&[main as u8, sub as u8]));
                }
            }
            let view = buf.view();
            for (main, sub) in probes {
                let probe = Revision::new(main, sub);
                let below = view.records.iter().filter(|record| record.revision() < probe).count();
                prop_assert_eq!(view.lower_bound(probe), below);
                let found = view.records.iter().find(|record| record.revision() == probe).map(|r| r.value.clone());
                prop_assert_eq!(view.get(probe).cloned(), found);
            }
        }
    }
}
