//! What has been applied and is not in the file yet.
//!
//! The apply lane appends; any number of views read what was there when they were made, without a lock and
//! without a copy. Publishing costs two reference counts.
//!
//! Invariants:
//! - records ascend by revision, and every main revision between the first and the last has at least one, so that
//!   `main - first.main` is a lower bound of a record's place; not so in a buffer that was taken back and put down
//!   dead records, which says so (`has_gaps`)
//! - a log only grows; an entry never changes once its length has been handed to a reader
//! - file < frozen < active: every record of the file is older than every record of the frozen buffer, and that
//!   older than every one of the active buffer
//! - a dead record of this buffer is never written; any other dead record is in the file, or will be once the
//!   frozen buffer is, and gets a delete
//! - deletes of older records may wait for a later batch, the newest of them, for nothing is wrong with a dead record
//!   that is still in the file; but until the last record of a key is out of it, so must the tombstone be in it that
//!   ends the key. The mark that says that a compaction is complete waits with them
//! - what a buffer holds is bounded by the caller, who stops applying at its limit of unflushed bytes

use crate::mutant::Mutant;
use crate::schema::{self, Bucket};
use crate::{Revision, revision};
use bolt::{Batch, Op, Reserve};
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
#[derive(Clone, Debug)]
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
    /// Whether main revisions between the first and the last record may be missing.
    has_gaps: bool,
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
        let guess = match self.has_gaps {
            false => usize::try_from(revision.main - first.main).unwrap_or(usize::MAX),
            true => 0,
        };
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

/// Changes of small buckets: the last one of each key.
type Side = BTreeMap<(Bucket, Bytes), Option<Bytes>>;

/// The changes since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct WriteBuf {
    view: BufView,
    side: Side,
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
    /// Deletes of older records in its batch.
    pub(crate) deletes: usize,
    side: Side,
    pub(crate) create: Vec<Bucket>,
}

impl WriteBuf {
    pub(crate) fn append(&mut self, revision: Revision, tombstone: bool, value: Bytes) {
        let log = &self.view.records;
        if log.len() > 0 {
            let last = log.get(log.len() - 1).revision();
            let follows = self.view.has_gaps || revision.main <= last.main + 1;
            assert!(last < revision && follows, "{revision} after {last}");
        }
        self.push(Record { main: revision.main, sub: sub_of(revision), tombstone, value });
    }

    fn push(&mut self, record: Record) {
        self.bytes += record.value.len() + ENTRY_OVERHEAD;
        self.records_bytes += record.value.len() + ENTRY_OVERHEAD;
        self.view.records.push(record);
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

    /// Empties the buffer into what readers keep seeing and what the file is to be changed by: of older records at
    /// most `deletes_max` go, the others wait in the buffer.
    pub(crate) fn freeze(&mut self, create: Vec<Bucket>, deletes_max: usize) -> (Frozen, Batch) {
        let WriteBuf { view, mut side, bytes, records_bytes } = std::mem::take(self);
        // Room held back may be used by what makes room: compaction, deletions, and the marks beside them.
        let makes_room = view.records.iter().all(|record| record.tombstone)
            && !side.iter().any(|((bucket, _), value)| *bucket == Bucket::Lease && value.is_some());
        let reserve = if makes_room { Reserve::All } else { Reserve::Keep };
        let mut batch = Batch { reserve, ..Batch::default() };
        for bucket in &create {
            batch.bucket(bucket.name()).create = true;
        }
        let mut deletes = 0;
        if view.records.len() + view.deletes.len() > 0 {
            let Dead { now, later, unwritten } = Dead::of(&view, deletes_max);
            batch.bucket(Bucket::Key.name()).changes = key_changes(&view, &now, &unwritten);
            deletes = now.len();
            later.iter().for_each(|dead| self.delete(*dead));
            let mark = (Bucket::Meta, Bytes::from_static(schema::FINISHED_COMPACT_REV));
            if !later.is_empty()
                && let Some(value) = side.remove(&mark)
            {
                self.set_side(mark.0, mark.1, value);
            }
        }
        for ((bucket, key), value) in &side {
            let op = value.clone().map_or(Op::Delete, Op::Put);
            batch.bucket(bucket.name()).changes.push((key.clone(), op));
        }
        (Frozen { view, bytes, records_bytes, deletes, side, create }, batch)
    }

    /// Puts a frozen buffer, which did not reach the file, before what has come since. Puts of both that are dead
    /// by now are put down: the file will never have had them. A tombstone may yet be needed there.
    pub(crate) fn take_back(&mut self, frozen: &Frozen) {
        let newer = std::mem::take(self);
        self.view.has_gaps = frozen.view.has_gaps || newer.view.has_gaps;
        let mut dead: Vec<DeadRecord> =
            frozen.view.deletes.iter().chain(newer.view.deletes.iter()).copied().collect();
        dead.sort_unstable();
        dead.dedup();
        let mut dead = dead.into_iter().peekable();
        for record in frozen.view.records.iter().chain(newer.view.records.iter()) {
            while let Some(older) = dead.next_if(|dead| dead.revision() < record.revision()) {
                self.delete(older);
            }
            match dead.next_if(|dead| dead.revision() == record.revision()) {
                Some(dead) if dead.tombstone => self.delete(dead),
                Some(_) => {
                    self.view.has_gaps = true;
                    continue;
                }
                None => {}
            }
            self.push(record.clone());
        }
        dead.for_each(|older| self.delete(older));
        let side = frozen.side.iter().filter(|_| !Mutant::SideLost.is_on());
        for (place, value) in side.map(|(place, value)| (place.clone(), value.clone())).chain(newer.side) {
            self.set_side(place.0, place.1, value);
        }
    }
}

/// What compactions took away, as a buffer is frozen; each sorted.
struct Dead {
    /// Taken out of the file by this batch.
    now: Vec<DeadRecord>,
    /// By a later one.
    later: Vec<DeadRecord>,
    /// Of this buffer, and not written at all.
    unwritten: Vec<DeadRecord>,
}

impl Dead {
    fn of(view: &BufView, deletes_max: usize) -> Dead {
        let mut now: Vec<DeadRecord> = view.deletes.iter().copied().collect();
        now.sort_unstable();
        now.dedup();
        let own = view.first().map_or(now.len(), |first| now.partition_point(|dead| dead.revision() < first));
        let mut unwritten = now.split_off(own);
        let mut later = now.split_off(own.min(deletes_max));
        if !later.is_empty() {
            later.extend(unwritten.extract_if(.., |dead| dead.tombstone));
        }
        Dead { now, later, unwritten }
    }
}

/// The changes of the key bucket, sorted: deletes are of older records than the buffer's own, so they come first.
fn key_changes(view: &BufView, deletes: &[DeadRecord], unwritten: &[DeadRecord]) -> Vec<(Bytes, Op)> {
    let entries = deletes.len() + view.records.len();
    let mut keys = BytesMut::with_capacity(entries * revision::TOMBSTONE_KEY_LEN);
    let mut key = |revision: Revision, tombstone: bool| {
        if tombstone {
            keys.put_slice(&revision.tombstone_key());
        } else {
            keys.put_slice(&revision.key());
        }
        keys.split().freeze()
    };
    let mut changes = Vec::with_capacity(entries - unwritten.len());
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
        let (_, batch) = buf.freeze(vec![Bucket::Auth], usize::MAX);
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

    /// What a batch does to a file of keys.
    fn change(file: &mut BTreeMap<Bytes, Bytes>, batch: &Batch) {
        for change in batch.buckets.values() {
            for (key, op) in &change.changes {
                match op {
                    Op::Put(value) => file.insert(key.clone(), value.clone()),
                    Op::Delete | Op::Touch => file.remove(key),
                };
            }
        }
    }

    proptest! {
        /// Two buffers, one taken back before the other: one batch, or several where deletes wait, that lead where
        /// the two one after the other lead.
        #[test]
        fn what_is_taken_back_is_as_if_both_were_written(
            changes in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..120),
            cut in any::<prop::sample::Index>(),
            deletes_max in 0usize..6,
        ) {
            let old: Vec<Revision> = (2..20).map(|main| Revision::new(main, 0)).collect();
            let mut file: BTreeMap<Bytes, Bytes> =
                old.iter().map(|old| (Bytes::copy_from_slice(&old.key()), Bytes::from_static(b"old"))).collect();
            let (mut first, mut one_by_one) = (WriteBuf::default(), file.clone());
            let mut alive: Vec<(Revision, bool)> = old.iter().map(|old| (*old, false)).collect();
            let mut buf = WriteBuf::default();
            let next = Revision::new(20 + changes.len() as i64, 0);
            let cut = cut.index(changes.len() + 1);
            for (at, (kind, which)) in changes.into_iter().enumerate() {
                if at == cut {
                    first = std::mem::take(&mut buf);
                }
                let revision = Revision::new(20 + at as i64, 0);
                let value = Bytes::from(format!("v{at}"));
                let side = Bytes::copy_from_slice(&[which.index(5) as u8]);
                buf.append(revision, kind == 3, value);
                match kind {
                    0 => buf.set_side(Bucket::Lease, side, (at % 3 > 0).then(|| Bytes::from(format!("s{at}")))),
                    1 if !alive.is_empty() => {
                        let (dead, tombstone) = alive.swap_remove(which.index(alive.len()));
                        buf.delete(DeadRecord::new(dead, tombstone));
                    }
                    _ => {}
                }
                alive.push((revision, kind == 3));
            }
            if cut > 0 && first.ops() == 0 {
                first = std::mem::take(&mut buf);
            }
            let (frozen, batch) = first.freeze(Vec::new(), usize::MAX);
            let (before, side, bytes) = (buf.view().clone(), buf.side.clone(), buf.bytes());
            change(&mut one_by_one, &batch);
            buf.take_back(&frozen);
            prop_assert!(buf.bytes() <= bytes + frozen.bytes);
            for (revision, tombstone) in &alive {
                let found = buf.view().get(*revision);
                let expected = frozen.view.get(*revision).or_else(|| before.get(*revision));
                prop_assert_eq!(found, expected, "{} {}", revision, tombstone);
            }
            // The batch after it may come before all deletes are out.
            buf.append(next, false, Bytes::from_static(b"more"));
            for _ in 0..200 {
                let (frozen, batch) = buf.freeze(Vec::new(), deletes_max.max(1));
                prop_assert!(frozen.deletes <= deletes_max.max(1));
                change(&mut file, &batch);
                if buf.ops() == 0 {
                    break;
                }
            }
            prop_assert_eq!(buf.ops(), 0);
            one_by_one.insert(Bytes::copy_from_slice(&next.key()), Bytes::from_static(b"more"));
            let mut second = WriteBuf { side, ..WriteBuf::default() };
            for record in before.records.iter() {
                second.push(record.clone());
            }
            second.view.has_gaps = true;
            for dead in before.deletes.iter() {
                second.delete(*dead);
            }
            let (_, batch) = second.freeze(Vec::new(), usize::MAX);
            change(&mut one_by_one, &batch);
            prop_assert_eq!(file, one_by_one);
        }

        #[test]
        fn lower_bound_equals_a_count(
            gaps in any::<bool>(),
            transactions in prop::collection::vec(1u32..6, 0..120),
            probes in prop::collection::vec((0i64..140, 0i64..7), 1..40),
        ) {
            let mut buf = WriteBuf::default();
            buf.view.has_gaps = gaps;
            for (main, changes) in (10..).zip(&transactions).filter(|(main, _)| !gaps || main % 3 > 0) {
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
