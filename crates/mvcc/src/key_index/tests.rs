//! The index against a list of writes, under compaction, with views held, and with a reader on another thread.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::mpsc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Records told to be given up, and whether each is a tombstone.
type Told = BTreeSet<(Revision, bool)>;

/// Every write ever made. The answers come from reading all of it.
#[derive(Clone, Default)]
struct Model {
    writes: Vec<Write>,
    gone: BTreeSet<Revision>,
}

#[derive(Clone)]
struct Write {
    key: Vec<u8>,
    revision: Revision,
    tombstone: bool,
}

impl Model {
    fn get(&self, key: &[u8], at: i64) -> Option<KeyState> {
        self.replay(at, |write| write.key == key).remove(key)
    }

    fn list(&self, at: i64) -> BTreeMap<Vec<u8>, KeyState> {
        self.replay(at, |_| true)
    }

    fn replay(&self, at: i64, of: impl Fn(&Write) -> bool) -> BTreeMap<Vec<u8>, KeyState> {
        let mut live: BTreeMap<Vec<u8>, KeyState> = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.revision.main <= at && of(write)) {
            if write.tombstone {
                live.remove(&write.key);
                continue;
            }
            let fresh = KeyState { modified: write.revision, created: write.revision.main, version: 0 };
            let state = live.entry(write.key.clone()).or_insert(fresh);
            state.modified = write.revision;
            state.version += 1;
        }
        live
    }

    /// What a compaction gives up: every write that a later one, not after `at`, replaces, and every tombstone
    /// before `at`; but not the tombstone of a key that transaction `at` deleted and then created again.
    fn compact(&mut self, at: i64) -> Told {
        let mut dead = BTreeSet::new();
        for (index, write) in self.writes.iter().enumerate() {
            if write.revision.main > at || self.gone.contains(&write.revision) {
                continue;
            }
            let later: Vec<&Write> = self.writes[index + 1..]
                .iter()
                .filter(|later| later.key == write.key && later.revision.main <= at)
                .collect();
            let goes = match later[..] {
                [] => write.tombstone && write.revision.main < at,
                [only] => !(write.tombstone && write.revision.main == at && !only.tombstone),
                _ => true,
            };
            if goes {
                dead.insert((write.revision, write.tombstone));
            }
        }
        self.gone.extend(dead.iter().map(|(revision, _)| *revision));
        dead
    }

    fn kept(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(|write| !self.gone.contains(&write.revision))
    }
}

/// Keys of several shapes: most alike, some prefixes of others, some with zeros, one too long for company.
fn key(number: u16) -> Vec<u8> {
    match number {
        0 => vec![0],
        1 => vec![b'a'],
        2 => vec![b'a', 0],
        3 => vec![b'a', 0, 0],
        4 => vec![b'a'; 40_000],
        5 => vec![b'a'; 70_000],
        6 => vec![0xff],
        7 => vec![0xff, 0xff],
        _ => format!("/registry/pods/namespace-{:02}/deploy-{}", number % 7, number).into_bytes(),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<(u16, bool)>),
    Compact(u8),
    Step(usize),
    TakeView,
    DropView(usize),
    Check { view: usize, at: u8, low: u16, high: u16, limit: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let number = || prop_oneof![1 => 0_u16..8, 9 => 8_u16..500];
    prop_oneof![
        12 => prop::collection::vec((number(), prop::bool::weighted(0.7)), 1..40).prop_map(Op::Write),
        2 => any::<u8>().prop_map(Op::Compact),
        4 => (1_usize..300).prop_map(Op::Step),
        2 => Just(Op::TakeView),
        2 => any::<usize>().prop_map(Op::DropView),
        4 => (any::<usize>(), any::<u8>(), number(), number(), 0_usize..50)
            .prop_map(|(view, at, low, high, limit)| Op::Check { view, at, low, high, limit }),
    ]
}

struct Held {
    view: IndexView,
    oldest: i64,
    model: Model,
}

struct Bench {
    index: KeyIndex,
    model: Model,
    main: i64,
    compacted: i64,
    running: Option<(CompactCursor, Told, Told)>,
    held: Vec<Held>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            index: KeyIndex::new(),
            model: Model::default(),
            main: 1,
            compacted: 0,
            running: None,
            held: Vec::new(),
        }
    }

    fn write(&mut self, changes: &[(u16, bool)]) {
        self.main += 1;
        let mut sub = 0;
        for (number, put) in changes {
            let key = key(*number);
            let revision = Revision::new(self.main, sub);
            let before = self.model.get(&key, i64::MAX);
            if *put {
                let info = self.index.put(&key, revision);
                self.model.writes.push(Write { key: key.clone(), revision, tombstone: false });
                let after = self.model.get(&key, i64::MAX).expect("just written");
                assert_eq!(info.previous, before.map(|state| state.modified));
                assert_eq!((info.created, info.version), (after.created, after.version));
                sub += 1;
            } else {
                assert_eq!(self.index.tombstone(&key, revision), before.is_some());
                if before.is_some() {
                    self.model.writes.push(Write { key, revision, tombstone: true });
                    sub += 1;
                }
            }
        }
    }

    fn start_compaction(&mut self, back: u8) {
        if self.running.is_none() {
            self.compacted = self.compacted.max(self.main - i64::from(back % 8));
            let expected = self.model.compact(self.compacted);
            self.running = Some((CompactCursor::new(self.compacted), expected, BTreeSet::new()));
        }
    }

    fn step(&mut self, budget: usize) {
        let Some((cursor, expected, dead)) = &mut self.running else { return };
        let done = self.index.compact(cursor, budget, &mut |revision, tombstone| {
            assert!(dead.insert((revision, tombstone)), "told twice: {revision}");
        });
        if done {
            assert_eq!(dead, expected);
            self.running = None;
        }
    }

    fn take_view(&mut self) {
        let view = self.index.reader();
        self.held.push(Held { view, oldest: self.compacted, model: self.model.clone() });
    }

    fn check(&self, view: usize, at: u8, low: u16, high: u16, limit: usize) {
        let end = RangeEnd::Before(Bytes::from(key(high)));
        if self.held.is_empty() {
            let at = self.main.min(self.compacted + i64::from(at) % (self.main - self.compacted + 1));
            let live = self.model.list(at);
            let inside: Vec<_> = live.into_iter().filter(|(k, _)| end.contains(&key(low), k)).collect();
            let mut seen = Vec::new();
            self.index.range(&key(low), &end, at, &mut |key, state| {
                seen.push((key.to_vec(), state));
                true
            });
            assert_eq!(seen, inside);
            assert_eq!(self.index.count(&key(low), &end, at), inside.len());
            return;
        }
        let held = &self.held[view % self.held.len()];
        let newest = held.view.revision().max(held.oldest);
        let at = held.oldest + i64::from(at) % (newest - held.oldest + 1);
        let live = held.model.list(at);
        let inside: Vec<_> = live.iter().filter(|(k, _)| end.contains(&key(low), k)).collect();
        let mut seen = Vec::new();
        let total = held.view.range_limited(&key(low), &end, at, limit, &mut |key, state| {
            seen.push((key.to_vec(), state));
        });
        assert_eq!(total, inside.len());
        assert_eq!(seen.len(), total.min(limit));
        assert!(seen.iter().zip(&inside).all(|((key, state), (k, s))| key == *k && state == *s));
        assert_eq!(held.view.count(&key(low), &RangeEnd::Unbounded, at), live.range(key(low)..).count());
        assert_eq!(held.view.get(&key(low), at), live.get(&key(low)).copied());
        assert_eq!(
            held.view.count(&key(low), &RangeEnd::Single, at),
            usize::from(live.contains_key(&key(low)))
        );
        let mut kept = Vec::new();
        held.view.keep(at, &mut |revision| kept.push(revision));
        assert_eq!(kept, live.values().map(|state| state.modified).collect::<Vec<_>>());
    }

    fn finish(mut self) {
        while self.running.is_some() {
            self.step(1000);
        }
        self.check_structure();
        for view in 0..self.held.len() {
            for at in 0..4 {
                self.check(view, at * 60, 9, 3, 10);
            }
        }
        self.held.clear();
        while !self.index.release(100) {}
        let kept = self.model.kept().count();
        assert_eq!(self.index.records(), kept, "what was given up is free again");
        self.check_restored();
    }

    fn check_structure(&self) {
        let slab = &self.index.records.slab;
        let keys = self.index.tree.check(&|slot| slab.is_live(slot, i64::MAX));
        let expected: BTreeSet<Vec<u8>> = self.model.kept().map(|write| write.key.clone()).collect();
        assert_eq!(keys.iter().map(|(key, _)| key.clone()).collect::<BTreeSet<_>>(), expected);
        assert_eq!(self.index.live_keys(), self.model.list(i64::MAX).len());
    }

    fn check_restored(&self) {
        let mut restorer = Restorer::new();
        for write in self.model.kept() {
            let state = self.model.get(&write.key, write.revision.main).filter(|_| !write.tombstone);
            // A record replaced within its own transaction: what was stored in it does not matter here.
            let (created, version) = state.map_or((0, 0), |state| (state.created, state.version));
            restorer.push(&write.key, write.revision, created, version, write.tombstone).expect("in order");
        }
        let restored = restorer.finish();
        assert_eq!(restored.records(), self.index.records());
        let slab = &restored.records.slab;
        restored.tree.check(&|slot| slab.is_live(slot, i64::MAX));
        for at in self.compacted.max(self.main - 20)..=self.main {
            let mut seen = BTreeMap::new();
            restored.range(&[], &RangeEnd::Unbounded, at, &mut |key, state| {
                seen.insert(key.to_vec(), state);
                true
            });
            assert_eq!(seen, self.model.list(at), "at {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_a_list_of_writes(ops in prop::collection::vec(op(), 1..80)) {
        let mut bench = Bench::new();
        for op in ops {
            match op {
                Op::Write(changes) => bench.write(&changes),
                Op::Compact(back) => bench.start_compaction(back),
                Op::Step(budget) => bench.step(budget),
                Op::TakeView => bench.take_view(),
                Op::DropView(which) if !bench.held.is_empty() => {
                    let which = which % bench.held.len();
                    bench.held.remove(which);
                }
                Op::DropView(_) => {}
                Op::Check { view, at, low, high, limit } => bench.check(view, at, low, high, limit),
            }
        }
        bench.finish();
    }
}

/// One key through several lives: 2 put, 4 put, 6 deleted, 8 put, 8 deleted, 10 put, 12 put, 14 deleted.
fn several_lives() -> KeyIndex {
    let mut index = KeyIndex::new();
    index.put(b"k", Revision::new(2, 0));
    index.put(b"k", Revision::new(4, 0));
    assert!(index.tombstone(b"k", Revision::new(6, 0)));
    index.put(b"k", Revision::new(8, 0));
    assert!(index.tombstone(b"k", Revision::new(8, 1)));
    index.put(b"k", Revision::new(10, 0));
    index.put(b"k", Revision::new(12, 0));
    assert!(index.tombstone(b"k", Revision::new(14, 0)));
    index
}

/// For every compaction point, what is left of the key, by hand.
#[test]
fn each_compaction_point_keeps_what_it_should() {
    let (r2, r4, r6, r80, r81) = ((2, 0), (4, 0), (6, 0), (8, 0), (8, 1));
    let (r10, r12, r14) = ((10, 0), (12, 0), (14, 0));
    let cases: &[(i64, &[(i64, i64)])] = &[
        (1, &[r2, r4, r6, r80, r81, r10, r12, r14]),
        (2, &[r2, r4, r6, r80, r81, r10, r12, r14]),
        (3, &[r2, r4, r6, r80, r81, r10, r12, r14]),
        (4, &[r4, r6, r80, r81, r10, r12, r14]),
        (5, &[r4, r6, r80, r81, r10, r12, r14]),
        (6, &[r6, r80, r81, r10, r12, r14]),
        (7, &[r80, r81, r10, r12, r14]),
        (8, &[r81, r10, r12, r14]),
        (9, &[r10, r12, r14]),
        (10, &[r10, r12, r14]),
        (11, &[r10, r12, r14]),
        (12, &[r12, r14]),
        (13, &[r12, r14]),
        (14, &[r14]),
        (15, &[]),
    ];
    for (at, kept) in cases {
        let mut index = several_lives();
        let mut left: BTreeSet<(i64, i64)> = BTreeSet::from([r2, r4, r6, r80, r81, r10, r12, r14]);
        let mut cursor = CompactCursor::new(*at);
        while !index.compact(&mut cursor, 1, &mut |revision, tombstone| {
            assert_eq!(tombstone, matches!((revision.main, revision.sub), (6 | 14, 0) | (8, 1)));
            assert!(left.remove(&(revision.main, revision.sub)));
        }) {}
        assert_eq!(left, kept.iter().copied().collect(), "compacted at {at}");
        assert!(index.release(100), "no view holds anything");
        assert_eq!(index.records(), kept.len());
        assert_eq!(index.tree.find(b"k").is_some(), !kept.is_empty());
        for read in *at..16 {
            assert_eq!(index.get(b"k", read), several_lives().get(b"k", read), "{at} {read}");
        }
    }
}

#[test]
fn states_of_several_lives() {
    let index = several_lives();
    let state =
        |main, created, version| Some(KeyState { modified: Revision::new(main, 0), created, version });
    let expected = [
        (1, None),
        (2, state(2, 2, 1)),
        (3, state(2, 2, 1)),
        (4, state(4, 2, 2)),
        (6, None),
        (8, None),
        (10, state(10, 10, 1)),
        (13, state(12, 10, 2)),
        (14, None),
        (99, None),
    ];
    for (at, state) in expected {
        assert_eq!(index.get(b"k", at), state, "at {at}");
    }
}

/// A transaction may delete all keys and then put one of them. Compacting at exactly that revision must not
/// take the record of the key that exists.
#[test]
fn deleted_and_created_again_in_one_transaction() {
    let mut index = KeyIndex::new();
    index.put(b"q", Revision::new(2, 0));
    assert!(index.tombstone(b"q", Revision::new(3, 0)));
    index.put(b"q", Revision::new(3, 1));
    let mut dead = Vec::new();
    assert!(index.compact(&mut CompactCursor::new(3), 100, &mut |revision, _| dead.push(revision)));
    assert_eq!(dead, [Revision::new(2, 0)]);
    let state = KeyState { modified: Revision::new(3, 1), created: 3, version: 1 };
    assert_eq!(index.get(b"q", 3), Some(state));
    dead.clear();
    assert!(index.compact(&mut CompactCursor::new(4), 100, &mut |revision, _| dead.push(revision)));
    assert_eq!(dead, [Revision::new(3, 0)]);
    assert_eq!(index.get(b"q", 4), Some(state));
}

#[test]
fn a_view_made_before_a_compaction_reads_on() {
    let mut index = KeyIndex::new();
    for round in 0..5_i64 {
        for number in 0..1000_u16 {
            index.put(&key(number), Revision::new(2 + round, i64::from(number)));
        }
    }
    let before = index.reader();
    let mut dead = 0;
    assert!(index.compact(&mut CompactCursor::new(6), usize::MAX, &mut |_, _| dead += 1));
    assert_eq!(dead, 4000);
    // Everything given up waits for the view, so these take new records.
    for number in 0..1000_u16 {
        index.put(&key(number), Revision::new(7, i64::from(number)));
    }
    assert_eq!(index.records(), 6000);
    for at in 2..=6 {
        let state = before.get(&key(77), at).expect("put in every round");
        assert_eq!((state.modified.main, state.version), (at, at - 1));
    }
    assert_eq!(before.get(&key(77), 7), before.get(&key(77), 6), "what came later does not show");
    drop(before);
    while !index.release(64) {}
    assert_eq!(index.records(), 2000);
}

#[test]
fn mass_deletion_leaves_a_small_tree() {
    let mut index = KeyIndex::new();
    for number in 0..20_000_i64 {
        index.put(format!("/registry/events/{number:06}").as_bytes(), Revision::new(2 + number, 0));
    }
    let full = index.tree.footprint();
    for number in (0..20_000_i64).filter(|number| number % 100 != 0) {
        index
            .tombstone(format!("/registry/events/{number:06}").as_bytes(), Revision::new(20_002 + number, 0));
    }
    let mut cursor = CompactCursor::new(50_000);
    while !index.compact(&mut cursor, 500, &mut |_, _| {}) {}
    let slab = &index.records.slab;
    assert_eq!(index.tree.check(&|slot| slab.is_live(slot, i64::MAX)).len(), 200);
    assert!(index.tree.footprint() * 20 < full, "{} of {full} bytes left", index.tree.footprint());
    while !index.release(1000) {}
    assert_eq!(index.records(), 200);
}

fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

#[test]
fn a_key_with_one_record_takes_less_than_100_bytes() {
    let mut index = KeyIndex::new();
    let count = 60_000;
    for number in 0..count {
        let spread = spread(number) % 1_000_000;
        let key = format!("/registry/pods/namespace-{:05}/deployment-{:013}-abcde", spread % 500, number);
        index.put(key.as_bytes(), Revision::new(2 + number as i64, 0));
    }
    let bytes = (index.tree.footprint() + index.records.slab.footprint()) / count as usize;
    assert!(bytes < 100, "{bytes} bytes per key");
}

#[test]
fn restore_refuses_what_cannot_be() {
    let mut restorer = Restorer::new();
    let first = Revision::new(5, 1);
    restorer.push(b"a", first, 5, 1, false).expect("the first");
    let out_of_order = Err(RestoreError::OutOfOrder { revision: first, after: first });
    assert_eq!(restorer.push(b"b", first, 5, 1, false), out_of_order);
    let far = Revision::new(6, 1 << 40);
    assert_eq!(restorer.push(b"b", far, 5, 1, false), Err(RestoreError::OutOfRange(far)));
    let next = Revision::new(6, 0);
    assert_eq!(restorer.push(b"b", next, 5, -1, false), Err(RestoreError::OutOfRange(next)));
    restorer.push(b"b", next, 6, 1, false).expect("in order");
    let index = restorer.finish();
    assert_eq!((index.live_keys(), index.last_revision()), (2, next));
}

#[test]
fn restore_of_many_runs() {
    let mut restorer = Restorer::new();
    let mut live = KeyIndex::new();
    for number in 0..150_000_u64 {
        let revision = Revision::new(2 + number as i64, 0);
        let key = format!("/registry/{}/{:07}", spread(number) % 3, spread(number) % 40_000);
        let info = live.put(key.as_bytes(), revision);
        restorer.push(key.as_bytes(), revision, info.created, info.version, false).expect("in order");
    }
    let restored = restorer.finish();
    let all = |index: &KeyIndex, at| {
        let mut all = Vec::new();
        index.range(&[], &RangeEnd::Unbounded, at, &mut |key, state| {
            all.push((key.to_vec(), state));
            true
        });
        all
    };
    for at in [2, 70_000, 150_001] {
        assert_eq!(all(&restored, at), all(&live, at));
    }
    assert_eq!(restored.live_keys(), live.live_keys());
}

/// The writer puts, deletes and compacts while a reader on another thread checks the views it is sent, at their
/// newest and at older revisions, against lists made beside them.
#[test]
#[allow(clippy::disallowed_methods, reason = "the reader must be another thread")]
fn a_reader_on_another_thread_sees_its_own_revision() {
    type Listing = BTreeMap<Vec<u8>, i64>;
    let (sender, receiver) = mpsc::sync_channel::<(IndexView, Vec<(i64, Listing)>)>(8);
    let reader = std::thread::spawn(move || {
        let mut checked = 0_u64;
        for (view, listings) in receiver {
            for (at, listing) in listings {
                let mut seen = Listing::new();
                view.range(&[], &RangeEnd::Unbounded, at, &mut |key, state| {
                    seen.insert(key.to_vec(), state.modified.main);
                    true
                });
                assert_eq!(seen, listing, "at {at}");
                assert_eq!(view.count(&[0], &RangeEnd::Unbounded, at), listing.len());
                checked += 1;
            }
        }
        checked
    });
    let mut index = KeyIndex::new();
    let mut now = Listing::new();
    let mut recent: Vec<(i64, Listing)> = Vec::new();
    let mut compaction: Option<CompactCursor> = None;
    for main in 2..12_000_i64 {
        let number = spread(main as u64) % 700;
        let key = format!("/registry/{}/{number}", number % 5).into_bytes();
        if spread(main as u64 + 7).is_multiple_of(3) {
            index.tombstone(&key, Revision::new(main, 0));
            now.remove(&key);
        } else {
            index.put(&key, Revision::new(main, 0));
            now.insert(key, main);
        }
        if main % 40 == 0 {
            recent.push((main, now.clone()));
            recent.drain(..recent.len().saturating_sub(4));
            sender.send((index.reader(), recent.clone())).expect("the reader lives");
        }
        if main % 500 == 0 {
            let at = recent.first().expect("pushed above").0;
            compaction = Some(CompactCursor::new(at));
        }
        if let Some(cursor) = &mut compaction
            && index.compact(cursor, 100, &mut |_, _| {})
        {
            compaction = None;
        }
    }
    drop(sender);
    assert!(reader.join().expect("no assertion failed") > 1000);
    // With the last view gone everything waiting is freed.
    while !index.release(1000) {}
}
