//! Random histories: every answer of the store equals the model's, at every moment of freeze, commit and restart.

use super::model::{Found, Model, Refused};
use super::{Member, range};
use crate::schema::Bucket;
use crate::{
    CompactionProgress, Error, EventKind, KeyValue, RangeEnd, RangeQuery, Revision, SortOrder, SortTarget,
    View,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Change {
    Put { key: u8, value: u8, lease: i64 },
    Delete { key: u8, end: Option<u8> },
}

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<Change>),
    Compact(i64),
    Step(usize),
    Freeze,
    Commit,
    /// The batch found no room.
    TakeBack,
    LimitDeletes(usize),
    /// Little room: what is out is taken back, and goes with so many deletes.
    Bit(usize),
    /// A compaction of all but the last transactions, to its end.
    Sweep(i64),
    Restart,
    Keep,
    Range(Query),
    HashKv(i64),
    History { from: i64, to: i64, budget: usize },
    Side { bucket: usize, key: u8, value: Option<u8> },
    Index,
}

/// A query whose revisions are counted back from the current one.
#[derive(Clone, Debug)]
struct Query {
    key: u8,
    end: u8,
    back: i64,
    limit: i64,
    order: u8,
    target: u8,
    flags: [bool; 3],
    filters: [i64; 4],
}

const KEYS: u8 = 7;

/// Keys that are prefixes of each other, with the two bytes at the ends.
fn key(number: u8) -> Vec<u8> {
    [&b"a"[..], b"ab", b"abc", b"b", b"\0", b"\xff", b"c"][usize::from(number % KEYS)].to_vec()
}

fn value(number: u8) -> Vec<u8> {
    vec![number % 5; usize::from(number % 30) * usize::from(number % 3)]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..KEYS, any::<u8>(), prop_oneof![Just(0), 1i64..3]).prop_map(|(key, value, lease)| Change::Put { key, value, lease }),
        1 => (0..KEYS, prop::option::of(0..KEYS + 2)).prop_map(|(key, end)| Change::Delete { key, end }),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let filter = || prop_oneof![3 => Just(0i64), 1 => -1i64..20];
    (
        (
            0..KEYS,
            0..KEYS + 3,
            prop_oneof![2 => Just(i64::MAX), 3 => -1i64..12],
            prop_oneof![Just(0i64), -2i64..6],
        ),
        (0u8..3, 0u8..5),
        prop::array::uniform3(prop::bool::weighted(0.25)),
        [filter(), filter(), filter(), filter()],
    )
        .prop_map(|((key, end, back, limit), (order, target), flags, filters)| Query {
            key,
            end,
            back,
            limit,
            order,
            target,
            flags,
            filters,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => prop::collection::vec(change(), 1..4).prop_map(Op::Write),
        2 => (-1i64..8).prop_map(Op::Compact),
        4 => (1usize..20).prop_map(Op::Step),
        3 => Just(Op::Freeze),
        3 => Just(Op::Commit),
        1 => Just(Op::TakeBack),
        1 => prop_oneof![0usize..5, Just(usize::MAX)].prop_map(Op::LimitDeletes),
        2 => (0usize..5).prop_map(Op::Bit),
        2 => (0i64..3).prop_map(Op::Sweep),
        2 => Just(Op::Restart),
        1 => Just(Op::Keep),
        8 => query().prop_map(Op::Range),
        3 => (-2i64..12).prop_map(Op::HashKv),
        2 => (0i64..14, 0i64..14, 0usize..200).prop_map(|(from, to, budget)| Op::History { from, to, budget }),
        2 => (0..Bucket::ALL.len() - 1, any::<u8>(), prop::option::of(any::<u8>())).prop_map(|(bucket, key, value)| Op::Side { bucket, key, value }),
        1 => Just(Op::Index),
    ]
}

/// What the store says, next to what the model says.
fn same<T: PartialEq + std::fmt::Debug>(store: crate::Result<T>, model: &Result<T, Refused>) {
    let store = store.map_err(|error| match error {
        Error::Compacted => Refused::Compacted,
        Error::FutureRevision => Refused::Future,
        error => panic!("{error}"),
    });
    assert_eq!(&store, model);
}

type SideModel = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

#[derive(Clone, Default)]
struct State {
    model: Model,
    side: SideModel,
    index: u64,
}

struct Run {
    member: Member,
    now: State,
    frozen: Option<State>,
    durable: State,
    kept: Vec<(View, State)>,
}

fn range_query(query: &Query, current: i64) -> RangeQuery {
    let end = match query.end {
        end if end < KEYS => RangeEnd::Before(Bytes::from(key(end))),
        end if end == KEYS => RangeEnd::Single,
        _ => RangeEnd::Unbounded,
    };
    let [keys_only, keys_only_lease, count_only] = query.flags;
    let [min_mod, max_mod, min_create, max_create] = query.filters;
    RangeQuery {
        key: Bytes::from(key(query.key)),
        end,
        revision: if query.back == i64::MAX { 0 } else { current - query.back },
        limit: query.limit,
        order: [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][usize::from(query.order)],
        target: [
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ][usize::from(query.target)],
        keys_only,
        keys_only_lease,
        count_only,
        min_mod,
        max_mod,
        min_create,
        max_create,
    }
}

fn check_range(view: &View, model: &Model, query: &RangeQuery) {
    let found = range(view, query).map(|(found, summary)| -> Found {
        assert_eq!(summary.revision, model.revision);
        (found, summary.count, summary.more)
    });
    same(found, &model.range(query));
}

/// One event, in a form that compares.
type Seen = (i64, EventKind, Vec<u8>, Vec<u8>);

fn check_history(view: &View, model: &Model, from: i64, to: i64, budget: usize) {
    let mut seen: Vec<Seen> = Vec::new();
    let mut next = from;
    while next <= to.min(model.revision) {
        let piece = match view.history(next, to, budget, &mut |_| true) {
            Err(Error::Compacted) => {
                assert!(next == from && from < model.compact);
                return;
            }
            piece => piece.unwrap(),
        };
        assert!(piece.next > next, "no progress");
        for batch in &piece.batches {
            assert!((next..piece.next).contains(&batch.revision));
            seen.extend(batch.events.iter().map(|event| {
                let value = KeyValue::decode(&event.kv).unwrap();
                assert_eq!((value.key, value.mod_revision), (&event.key[..], batch.revision));
                (batch.revision, event.kind, event.key.to_vec(), value.value.to_vec())
            }));
        }
        next = piece.next;
    }
    let expected: Vec<Seen> = model
        .physical
        .iter()
        .filter(|write| (from..=to).contains(&write.revision.main))
        .map(|write| match &write.record {
            Some(record) => {
                let value = KeyValue::decode(record).unwrap().value.to_vec();
                (write.revision.main, EventKind::Put, write.key.clone(), value)
            }
            None => (write.revision.main, EventKind::Delete, write.key.clone(), Vec::new()),
        })
        .collect();
    // Of the compact revision itself, what is dead may still show: it depends on what has reached the file.
    let above = |events: &[Seen]| events.iter().filter(|e| e.0 > model.compact).cloned().collect::<Vec<_>>();
    assert_eq!(above(&seen), above(&expected));
    let mut shown = seen.iter();
    assert!(
        expected.iter().all(|event| shown.any(|seen| seen == event)),
        "{seen:?} lacks some of {expected:?}"
    );
}

impl Run {
    fn new() -> Run {
        let member = Member::fresh();
        Run { member, now: State::default(), frozen: None, durable: State::default(), kept: Vec::new() }
    }

    fn write(&mut self, changes: &[Change]) {
        let model = &mut self.now.model;
        let mut expected = Vec::new();
        let batch = self.member.transaction_with_events(|txn| {
            for change in changes {
                let sub = expected.len() as i64;
                match change {
                    Change::Put { key: k, value: v, lease } => {
                        let (key, value) = (key(*k), value(*v));
                        let old = model.state(i64::MAX).get(&key).cloned();
                        let put = txn.put(&key, &value, *lease, true).unwrap();
                        assert_eq!(put.previous.map(|record| record.to_vec()), old);
                        assert_eq!(put.created, old.is_none());
                        model.put(sub, &key, &value, *lease);
                        expected.push((EventKind::Put, key));
                    }
                    Change::Delete { key: k, end } => {
                        let from = key(*k);
                        let end = match end {
                            None => RangeEnd::Single,
                            Some(end) if *end < KEYS => RangeEnd::Before(Bytes::from(key(*end))),
                            Some(_) => RangeEnd::Unbounded,
                        };
                        let before = model.state(i64::MAX);
                        let gone = model.delete(sub, &from, &end);
                        let deleted = txn.delete_range(&from, &end, true).unwrap();
                        assert_eq!(deleted.keys, gone);
                        let previous: Vec<&Vec<u8>> = gone.iter().map(|key| &before[key]).collect();
                        assert_eq!(deleted.previous.iter().map(Bytes::as_ref).collect::<Vec<_>>(), previous);
                        expected.extend(gone.into_iter().map(|key| (EventKind::Delete, key)));
                    }
                }
                let all = RangeQuery::new(Bytes::from_static(b"\0"), RangeEnd::Unbounded);
                let mut seen = Vec::new();
                let summary = txn.range(&all, &mut |record| seen.push(record.to_vec())).unwrap();
                assert_eq!(seen, model.state(i64::MAX).into_values().collect::<Vec<_>>());
                assert_eq!(summary.count, seen.len() as i64);
                assert_eq!(txn.revision(), model.revision + i64::from(!expected.is_empty()));
            }
        });
        model.revision += i64::from(!expected.is_empty());
        match batch {
            None => assert!(expected.is_empty()),
            Some(batch) => {
                assert_eq!(batch.revision, model.revision);
                let events: Vec<_> = batch.events.iter().map(|e| (e.kind, e.key.to_vec())).collect();
                assert_eq!(events, expected);
            }
        }
    }

    fn apply(&mut self, op: Op) {
        let current = self.now.model.revision;
        match op {
            Op::Write(changes) => self.write(&changes),
            Op::Compact(back) => {
                same(
                    self.member.store.schedule_compaction(current - back),
                    &self.now.model.schedule(current - back),
                );
            }
            Op::Step(budget) => self.step(budget),
            Op::Sweep(back) => {
                self.apply(Op::Compact(back));
                while self.member.store.is_compacting() {
                    self.step(9);
                }
            }
            Op::Freeze => {
                if self.frozen.is_none() && self.member.freeze() {
                    self.frozen = Some(self.as_frozen());
                }
            }
            Op::Commit => self.commit(),
            Op::TakeBack => {
                if self.member.out.take().is_some() {
                    self.frozen = None;
                    self.member.store.take_back();
                }
            }
            Op::Bit(max) => {
                for op in [Op::TakeBack, Op::LimitDeletes(max), Op::Freeze, Op::Commit, Op::LimitDeletes(usize::MAX)] {
                    self.apply(op);
                }
            }
            Op::LimitDeletes(max) => self.member.store.limit_deletes(max),
            Op::Restart => self.restart(),
            Op::Keep => {
                if self.kept.len() == 3 {
                    self.kept.remove(0);
                }
                self.kept.push((self.member.store.view(), self.now.clone()));
            }
            Op::Range(query) => {
                check_range(&self.member.store.view(), &self.now.model, &range_query(&query, current));
                for (view, state) in &self.kept {
                    check_range(view, &state.model, &range_query(&query, state.model.revision));
                }
            }
            Op::HashKv(back) => self.check_hash(current - back),
            Op::History { from, to, budget } => {
                let (from, to) = (current - from, current - to);
                check_history(&self.member.store.view(), &self.now.model, from.max(1), to, budget);
            }
            Op::Side { bucket, key, value } => {
                let bucket = Bucket::ALL[bucket + 1];
                if bucket != Bucket::Meta {
                    let value = value.map(|value| vec![value]);
                    self.member.store.set_side(
                        bucket,
                        Bytes::from(vec![key]),
                        value.clone().map(Bytes::from),
                    );
                    match value {
                        Some(value) => self.now.side.insert((bucket, vec![key]), value),
                        None => self.now.side.remove(&(bucket, vec![key])),
                    };
                }
            }
            Op::Index => {
                self.now.index += 1;
                self.member.store.set_consistent_index(self.now.index, 3);
            }
        }
    }

    fn step(&mut self, budget: usize) {
        if let CompactionProgress::Finished(at) = self.member.store.compaction_step(budget).unwrap() {
            self.now.model.finished(at);
        }
    }

    /// The same whether a compaction is under way or has ended.
    fn check_hash(&mut self, asked: i64) {
        let hash = self.member.store.view().hash_kv(asked);
        same(hash.map(|h| (h.hash, h.compact_revision, h.revision)), &self.now.model.hash_kv(asked));
    }

    /// Reading ahead piece by piece comes to every record of the file and to its end.
    fn check_read_ahead(&self) {
        let view = self.member.store.view();
        let (mut from, mut seen) = (Some(Revision::default()), Vec::new());
        while let Some(at) = from {
            from = view.read_ahead(at, 1).unwrap();
            assert!(from.is_none_or(|next| next > at), "{from:?} after {at:?}");
            seen.extend(from);
        }
        let Some(bucket) = view.file().bucket(Bucket::Key.name()).unwrap() else { return };
        let (mut cursor, mut stored) = (bucket.cursor(), Vec::new());
        while let Some((key, _)) = cursor.next().unwrap() {
            stored.push(Revision::from_key(key).unwrap().0);
        }
        assert_eq!(seen[..], stored[stored.len().min(1)..]);
    }

    /// What a file with the batch just frozen says: a compaction some of whose deletes wait is not finished.
    fn as_frozen(&self) -> State {
        let mut state = self.now.clone();
        if self.member.store.unflushed_ops() > 0 && state.model.jobs.is_empty() {
            state.model.jobs.push((state.model.compact, None));
        }
        state
    }

    fn commit(&mut self) {
        if self.member.commit() {
            self.durable = self.frozen.take().expect("a batch was out");
        }
    }

    fn restart(&mut self) {
        self.kept.clear();
        self.frozen = None;
        let member = std::mem::replace(&mut self.member, Member::fresh());
        self.member = member.reopen();
        self.durable.model.restarted();
        self.now = self.durable.clone();
        let (restored, model) = (&self.member.restored, &self.now.model);
        assert_eq!(restored.current_revision, model.revision);
        assert_eq!(restored.scheduled, model.jobs.last().map(|job| job.0));
        assert_eq!(self.member.store.compact_revision(), model.compact);
        assert_eq!(restored.consistent_index, self.now.index);
        let attachments: Vec<_> = restored.attachments.iter().map(|(l, key)| (*l, key.to_vec())).collect();
        assert_eq!(attachments, model.attachments());
        self.check_side();
    }

    fn check_side(&self) {
        let view = self.member.store.view();
        for bucket in &Bucket::ALL[1..Bucket::ALL.len() - 1] {
            let found: Vec<_> = view.side_iter(*bucket).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            let expected = self.now.side.iter().filter(|((b, _), _)| b == bucket);
            assert_eq!(found, expected.map(|((_, k), v)| (k.clone(), v.clone())).collect::<Vec<_>>());
        }
    }

    fn end(mut self) {
        self.check_side();
        self.check_read_ahead();
        while let CompactionProgress::Working | CompactionProgress::Finished(_) = {
            let progress = self.member.store.compaction_step(5).unwrap();
            if let CompactionProgress::Finished(at) = progress {
                self.now.model.finished(at);
            }
            progress
        } {}
        for asked in 0..=self.now.model.revision {
            self.check_hash(asked);
        }
        self.member.store.limit_deletes(usize::MAX);
        self.member.flush();
        self.frozen = None;
        self.durable = self.now.clone();
        for asked in 0..=self.now.model.revision {
            self.check_hash(asked);
        }
        let keys: Vec<Vec<u8>> =
            self.now.model.physical.iter().map(super::model::Write::bucket_key).collect();
        assert_eq!(self.member.file_keys(), keys);
        let compactions = self.member.store.view().compaction_hashes().len();
        assert_eq!(compactions, self.now.model.hashes.len());
        self.restart();
        let query = RangeQuery::new(Bytes::from_static(b"\0"), RangeEnd::Unbounded);
        check_range(&self.member.store.view(), &self.now.model, &query);
        bolt::check::check(&self.member.db.reader().view()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_store_equals_the_model(ops in prop::collection::vec(op(), 1..90)) {
        let mut run = Run::new();
        for op in ops {
            run.apply(op);
        }
        run.end();
    }
}
