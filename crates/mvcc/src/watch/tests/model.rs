//! Random runs. The model is the list of all events; beside it stands how many of them each watcher has been sent.
//!
//! Every response is checked as it comes out, which makes these promises tests: *ordered* and *unique* (the events
//! are exactly the next ones the watcher has to get), *atomic* (a revision is never split), *bookmarkable*
//! (progress with revision R comes after every event up to R). At the end everything is drained, and everyone
//! must have been sent all there is (*reliable*), whatever revision it started from (*resumable*).

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::EventKind;

const KEYS: [&str; 6] = ["a", "a\0", "b", "c", "cc", "d"];

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<(usize, bool)>),
    Deliver(usize),
    DropQueue,
    Compact(i64),
    CompactionStep,
    Flush,
    Create { stream: u64, id: i64, key: usize, end: usize, start: i64, flags: [bool; 4] },
    Cancel(u64, i64),
    DropStream(u64),
    Full(u64),
    Drained(u64),
    CatchUp(usize),
    Progress(u64),
    Tick(u64),
}

/// Mostly the first, so that watchers alike come together.
fn often(range: std::ops::Range<usize>) -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(range.start), 1 => range]
}

fn op() -> impl Strategy<Value = Op> {
    let stream = || 0_u64..3;
    let flag = || prop::bool::weighted(0.25);
    prop_oneof![
        12 => prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.65)), 1..5).prop_map(Op::Write),
        8 => (1_usize..4).prop_map(Op::Deliver),
        1 => Just(Op::DropQueue),
        1 => (0_i64..6).prop_map(Op::Compact),
        2 => Just(Op::CompactionStep),
        1 => Just(Op::Flush),
        6 => (stream(), -1_i64..3, often(0..KEYS.len()), often(0..9), -12_i64..6, [flag(), flag(), flag(), flag()])
            .prop_map(|(stream, id, key, end, start, flags)| Op::Create { stream, id, key, end, start, flags }),
        2 => (stream(), -1_i64..6).prop_map(|(stream, id)| Op::Cancel(stream, id)),
        1 => stream().prop_map(Op::DropStream),
        2 => stream().prop_map(Op::Full),
        3 => stream().prop_map(Op::Drained),
        5 => prop_oneof![Just(1_usize), Just(100_000)].prop_map(Op::CatchUp),
        3 => stream().prop_map(Op::Progress),
        2 => stream().prop_map(Op::Tick),
    ]
}

struct Known {
    revision: i64,
    kind: EventKind,
    key: Bytes,
    /// The event as it is sent, without and with the record before it.
    plain: Bytes,
    previous: Option<Bytes>,
}

struct Expected {
    spec: WatchSpec,
    /// The first revision it is to be sent.
    from: i64,
    /// How many of all events have been looked at for it.
    passed: usize,
    dead: bool,
}

impl Expected {
    fn wants(&self, event: &Known) -> bool {
        let filtered = match event.kind {
            EventKind::Put => self.spec.no_put,
            EventKind::Delete => self.spec.no_delete,
        };
        event.revision >= self.from && self.spec.end.contains(&self.spec.key, &event.key) && !filtered
    }
}

struct Run {
    bench: Bench,
    known: Vec<Known>,
    records: BTreeMap<Bytes, Bytes>,
    watchers: BTreeMap<(u64, i64), Expected>,
    headers: BTreeMap<u64, i64>,
}

impl Run {
    fn new() -> Run {
        Run {
            bench: Bench::new(),
            known: Vec::new(),
            records: BTreeMap::new(),
            watchers: BTreeMap::new(),
            headers: BTreeMap::new(),
        }
    }

    fn write(&mut self, changes: &[(usize, bool)]) {
        // A key changes once per transaction here: what is left of a revision after compaction is then certain.
        let mut unique: BTreeMap<usize, bool> = changes.iter().copied().collect();
        let value = self.bench.store.revision().to_string();
        let changes: Vec<(&str, Option<&str>)> = std::mem::take(&mut unique)
            .into_iter()
            .map(|(key, put)| (KEYS[key], put.then_some(value.as_str())))
            .collect();
        let queued = self.bench.queued.len();
        self.bench.apply(&changes);
        for batch in &self.bench.queued[queued..] {
            for event in &batch.events {
                let previous = match event.kind {
                    EventKind::Put => self.records.insert(event.key.clone(), event.kv.clone()),
                    EventKind::Delete => self.records.remove(&event.key),
                };
                self.known.push(Known {
                    revision: batch.revision,
                    kind: event.kind,
                    key: event.key.clone(),
                    plain: event.encoded.clone(),
                    previous,
                });
            }
        }
    }

    fn create(&mut self, op: &Op) {
        let Op::Create { stream, id, key, end, start, flags } = op else { unreachable!() };
        let current = self.bench.store.revision();
        let end = match end {
            0..=2 => RangeEnd::Single,
            3 => RangeEnd::Unbounded,
            other => before(["b", "c", "cc", "d", "e"][other - 4]),
        };
        let [no_put, no_delete, prev_kv, progress_notify] = *flags;
        // One in five or so is without start revision; of the others some lie in the past, some in the future.
        let start_revision = if *start == 5 || *start < -9 { 0 } else { (current + start).max(1) };
        let no_put = no_put && no_delete;
        let spec = WatchSpec {
            id: *id,
            end,
            start_revision,
            no_put,
            no_delete: no_delete && !no_put,
            prev_kv,
            progress_notify,
            ..spec(*stream, KEYS[*key])
        };
        match self.bench.create(spec.clone()) {
            Ok(given) => {
                assert!(*id == 0 || given == *id);
                let from = if start_revision == 0 { current + 1 } else { start_revision };
                let passed = self.known.partition_point(|event| event.revision < from);
                let expected = Expected { spec, from, passed, dead: false };
                assert!(self.watchers.insert((*stream, given), expected).is_none());
            }
            Err(CreateError::EmptyRange) => assert!(spec.end.is_empty_from(&spec.key)),
            Err(CreateError::DuplicateId) => assert!(self.watchers.contains_key(&(*stream, *id))),
            Err(CreateError::Compacted) => panic!("no negative start was asked for"),
        }
    }

    /// Looks at all that has come out.
    fn check(&mut self) {
        for output in std::mem::take(&mut self.bench.out) {
            let HubOutput { stream, watch_ids, kind } = output;
            match kind {
                Kind::Events { revision, events, .. } => {
                    self.check_header(stream, revision);
                    for id in watch_ids.iter() {
                        self.check_events((stream, *id), revision, &events);
                    }
                }
                Kind::Compacted { compact_revision } => {
                    assert_eq!(compact_revision, self.bench.store.compact_revision());
                    for id in watch_ids.iter() {
                        let watcher = self.watchers.get_mut(&(stream, *id)).expect("a known watcher");
                        assert!(!std::mem::replace(&mut watcher.dead, true));
                        assert!(watcher.from < compact_revision);
                    }
                }
                Kind::Progress { revision } => {
                    self.check_header(stream, revision);
                    assert!(revision <= self.bench.store.revision());
                    let whole = watch_ids[..] == [WHOLE_STREAM]
                        && self.watchers.get(&(stream, -1)).is_none_or(|one| !one.spec.progress_notify);
                    if whole {
                        self.check_progress_of_all(stream, revision);
                    } else {
                        watch_ids.iter().for_each(|id| self.check_progress((stream, *id), revision));
                    }
                }
            }
        }
    }

    fn check_header(&mut self, stream: u64, revision: i64) {
        let last = self.headers.entry(stream).or_default();
        assert!(*last <= revision, "headers of stream {stream} went back from {last} to {revision}");
        *last = revision;
    }

    fn check_events(&mut self, name: (u64, i64), header: i64, events: &[Bytes]) {
        let compact = self.bench.store.compact_revision();
        let watcher = self.watchers.get_mut(&name).expect("a known watcher");
        assert!(!watcher.dead && !events.is_empty());
        let mut last = 0;
        for event in events {
            let next = self.known[watcher.passed..].iter().position(|known| watcher.wants(known));
            watcher.passed += next.expect("no more events than there are") + 1;
            let known = &self.known[watcher.passed - 1];
            let shows_previous = watcher.spec.prev_kv && known.revision > compact;
            match &known.previous {
                Some(record) if shows_previous => {
                    let mut decoded = api::mvccpb::Event::decode(known.plain.clone()).unwrap();
                    decoded.prev_kv = Some(api::mvccpb::KeyValue::decode(record.clone()).unwrap());
                    assert_eq!(*event, decoded.encode_to_vec());
                }
                _ => assert_eq!(*event, known.plain),
            }
            last = known.revision;
        }
        assert!(last <= header);
        let rest = self.known[watcher.passed..].iter().find(|known| watcher.wants(known));
        assert!(rest.is_none_or(|known| known.revision > last), "revision {last} was split");
    }

    fn check_progress(&self, name: (u64, i64), revision: i64) {
        let watcher = &self.watchers[&name];
        assert!(!watcher.dead);
        assert!(watcher.spec.start_revision <= revision, "told of progress before its start");
        let rest = self.known[watcher.passed..].iter().find(|known| watcher.wants(known));
        assert!(rest.is_none_or(|known| known.revision > revision), "progress overtook an event");
    }

    fn check_progress_of_all(&self, stream: u64, revision: i64) {
        let all: Vec<_> = self.watchers.range((stream, i64::MIN)..=(stream, i64::MAX)).collect();
        assert!(!all.is_empty());
        for (name, _) in all {
            self.check_progress(*name, revision);
        }
    }

    fn step(&mut self, op: &Op) {
        let view = self.bench.view();
        match op {
            Op::Write(changes) => self.write(changes),
            Op::Deliver(count) => {
                for batch in self.bench.queued.drain(..(*count).min(self.bench.queued.len())) {
                    self.bench.hub.publish(&batch, &view, &mut self.bench.out).unwrap();
                }
            }
            Op::DropQueue => self.bench.queued.clear(),
            Op::Compact(back) => {
                let at = self.bench.store.revision() - back;
                if at > self.bench.store.compact_revision() {
                    self.bench.store.schedule_compaction(at).unwrap();
                }
            }
            Op::CompactionStep => {
                self.bench.store.compaction_step(3).unwrap();
            }
            Op::Flush => self.bench.flush(),
            Op::Create { .. } => self.create(op),
            Op::Cancel(stream, id) => {
                let known = self.watchers.remove(&(*stream, *id)).is_some();
                assert_eq!(self.bench.hub.cancel(*stream, *id), known);
            }
            Op::DropStream(stream) => {
                self.bench.hub.drop_stream(*stream);
                self.watchers.retain(|(on, _), _| on != stream);
                self.headers.remove(stream);
            }
            Op::Full(stream) => self.bench.hub.stream_full(*stream),
            Op::Drained(stream) => self.bench.hub.stream_drained(*stream),
            Op::CatchUp(budget) => self.catch_up(*budget),
            Op::Progress(stream) => self.bench.hub.request_progress(*stream, &view, &mut self.bench.out),
            Op::Tick(stream) => self.bench.hub.progress_tick(*stream, &mut self.bench.out),
        }
        self.check();
    }

    /// Compaction ends exactly the watchers that are behind it.
    fn catch_up(&mut self, budget: usize) {
        let view = self.bench.view();
        let hub = &self.bench.hub;
        let is_lost = |name: &&(u64, i64)| {
            hub.position_of(name.0, name.1).is_some_and(|position| position < view.compact_revision())
        };
        let lost: Vec<(u64, i64)> = self.watchers.keys().filter(is_lost).copied().collect();
        let before = self.watchers.values().filter(|watcher| watcher.dead).count();
        self.bench.hub.catch_up(&view, budget, &mut self.bench.out).unwrap();
        self.check();
        assert!(lost.iter().all(|name| self.watchers[name].dead));
        let after = self.watchers.values().filter(|watcher| watcher.dead).count();
        assert_eq!(after, before + lost.len());
    }

    /// Everything is drained: now everyone has everything, and every stream that can says so.
    fn finish(mut self) {
        for stream in 0..3 {
            self.bench.hub.stream_drained(stream);
        }
        // A last write shows the hub any gap.
        self.step(&Op::Write(vec![(0, true)]));
        self.bench.deliver();
        self.bench.catch_up();
        self.check();
        let current = self.bench.store.revision();
        for (name, watcher) in &self.watchers {
            let rest = self.known[watcher.passed..].iter().filter(|known| watcher.wants(known)).count();
            assert!(rest == 0 || watcher.dead, "{name:?} was not sent {rest} events");
        }
        for stream in 0..3 {
            let mut all = self.watchers.range((stream, i64::MIN)..=(stream, i64::MAX)).peekable();
            let able = all.peek().is_some() && all.all(|(_, w)| !w.dead && w.spec.start_revision <= current);
            self.bench.ask_progress(stream);
            assert_eq!(self.bench.out.len(), usize::from(able));
            self.check();
        }
        let alive = self.watchers.values().filter(|watcher| !watcher.dead).count();
        assert_eq!(self.bench.hub.counts().watchers, alive);
        assert_eq!(self.bench.hub.counts().slow, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn everyone_is_sent_everything_once_and_in_order(ops in prop::collection::vec(op(), 1..120)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
        }
        run.finish();
    }
}
