//! Watchers and their readers: checker 4.
//!
//! A watcher is a client that wants all events of an interval from some revision on. It holds one stream on one member
//! at a time; when that ends it goes on elsewhere, from where it stands. Whatever it is sent is compared with what the
//! model says happened: nothing missing, nothing twice, whole revisions in order, previous values right.

use std::collections::VecDeque;
use std::sync::Arc;

use api::mvccpb;
use bytes::Bytes;
use mvcc::watch::{HubOutput, Kind, WHOLE_STREAM, WatchSpec};
use mvcc::{EventBatch, RangeEnd};
use prost::Message;

use super::{Event, World};
use crate::failure::{ensure, fail};
use crate::model::in_range;
use crate::random::Random;

/// Bytes of history that a hub reads in one go.
const CATCH_UP_BYTES: usize = 4 << 10;

/// Somebody who watches.
#[derive(Debug)]
struct Watcher {
    key: Bytes,
    end: Bytes,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    /// The first revision it has not seen; 0 while it has asked for whatever comes next.
    next: i64,
    /// Member, its boot, stream, id.
    on: Option<(usize, u32, u64, i64)>,
    waiting: VecDeque<HubOutput>,
    is_full: bool,
    is_reading: bool,
    /// How long its reader takes.
    pace_ns: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Watchers {
    all: Vec<Watcher>,
    random: Random,
    next_stream: u64,
}

/// Events in one short line each: what, key, revision.
fn shown(events: &[mvccpb::Event]) -> String {
    let kv = |event: &mvccpb::Event| event.kv.clone().unwrap_or_default();
    let line =
        |event: &mvccpb::Event| format!("{} {:?} {}", event.r#type, kv(event).key, kv(event).mod_revision);
    events.iter().map(line).collect::<Vec<_>>().join(", ")
}

impl Watchers {
    pub(super) fn new(seed: u64) -> Watchers {
        Watchers { all: Vec::new(), random: Random::new(seed, 6), next_stream: 1 }
    }
}

impl World {
    /// The watchers of a run, each about to connect.
    pub(super) fn make_watchers(&mut self) {
        for number in 0..self.settings.watchers {
            let r = &mut self.watchers.random;
            let first = r.below(self.settings.keys);
            let key = Bytes::from(format!("k{first:03}"));
            let end = match r.below(4) {
                0 => Bytes::new(),
                1 => Bytes::from(format!("k{:03}", first + 1 + r.below(20))),
                _ => Bytes::from_static(&[0]),
            };
            let next = r.pick(&[0, 0, 1, 2, 40, 300]);
            let watcher = Watcher {
                key: if r.per_mille(500) { Bytes::from_static(b"\0") } else { key },
                end,
                no_put: r.per_mille(100),
                no_delete: r.per_mille(100),
                prev_kv: r.per_mille(500),
                next,
                on: None,
                waiting: VecDeque::new(),
                is_full: false,
                is_reading: false,
                pace_ns: r.pick(&[10_000, 1_000_000, self.settings.heartbeat_ms * 3_000_000]),
            };
            self.watchers.all.push(watcher);
            let delay = self.watchers.random.below(self.tick_ns() * 300);
            self.after(delay, Event::Connect { watcher: number });
        }
    }

    /// The watcher asks some member for a stream.
    pub(super) fn connect(&mut self, number: usize) {
        if self.watchers.all[number].on.is_some() {
            return;
        }
        let mut running = self.running();
        running.retain(|member| {
            !self.is_healed || self.model.cluster.member(self.members[*member].id).is_some()
        });
        if running.is_empty() {
            return self.after(self.tick_ns() * 5, Event::Connect { watcher: number });
        }
        let member = self.watchers.random.pick(&running);
        let stream = self.watchers.next_stream;
        self.watchers.next_stream += 1;
        let boot = self.members[member].boot;
        let watcher = &mut self.watchers.all[number];
        let run = self.members[member].run.as_mut().expect("it runs");
        let spec = WatchSpec {
            stream,
            id: 0,
            key: watcher.key.clone(),
            end: RangeEnd::from_wire(watcher.end.clone()),
            start_revision: watcher.next,
            no_put: watcher.no_put,
            no_delete: watcher.no_delete,
            prev_kv: watcher.prev_kv,
            progress_notify: true,
            fragment: false,
        };
        if watcher.next == 0 {
            watcher.next = run.hub.revision().max(run.published.view.revision()) + 1;
        }
        match run.hub.create(spec, &run.published.view) {
            Ok(id) => watcher.on = Some((member, boot, stream, id)),
            // An interval that is empty: nothing to watch.
            Err(mvcc::watch::CreateError::EmptyRange) => return,
            Err(error) => fail(crate::failure::Checker::Watch, format!("watcher {number}: {error}")),
        }
        self.after(1_000, Event::CatchUp { member, boot });
    }

    /// The streams of a process that ended.
    pub(super) fn watchers_lost(&mut self, member: usize) {
        for number in 0..self.watchers.all.len() {
            let watcher = &mut self.watchers.all[number];
            if watcher.on.is_some_and(|(on, ..)| on == member) {
                watcher.on = None;
                watcher.waiting.clear();
                watcher.is_full = false;
                let delay = self.watchers.random.between(1, 20) * self.tick_ns();
                self.after(delay, Event::Connect { watcher: number });
            }
        }
    }

    /// Events are on their way to a hub.
    pub(super) fn events(&mut self, member: usize, events: Option<Vec<Arc<EventBatch>>>) {
        let boot = self.members[member].boot;
        let run = self.members[member].run.as_mut().expect("it has just had a turn");
        // One queue leads to a hub: what was sent before arrives before.
        let delay = self.timing.delay(self.settings.hub_us * 1_000);
        let at = (self.now + delay).max(run.hub_busy_until + 1);
        run.hub_busy_until = at;
        self.after(at - self.now, Event::Hub { member, boot, events });
    }

    /// Events are there.
    pub(super) fn hub(&mut self, member: usize, events: Option<&[Arc<EventBatch>]>) {
        let Some(run) = self.members[member].run.as_mut() else { return };
        let view = run.published.view.clone();
        let mut out = Vec::new();
        let published: mvcc::Result<()> = match events {
            None => {
                run.hub.replaced(&view);
                Ok(())
            }
            Some(events) => events.iter().try_for_each(|batch| run.hub.publish(batch, &view, &mut out)),
        };
        ensure!(published.is_ok(), Watch, "member {member}: the hub cannot read: {published:?}");
        self.hub_output(member, out);
        self.catch_up(member);
    }

    /// The hub reads history for watchers that are behind, a little at a time.
    pub(super) fn catch_up(&mut self, member: usize) {
        let boot = self.members[member].boot;
        let asked = self.watchers.random.per_mille(50);
        let streams: Vec<u64> = self.streams_on(member).map(|(stream, _)| stream).collect();
        let Some(run) = self.members[member].run.as_mut() else { return };
        let view = run.published.view.clone();
        let mut out = Vec::new();
        let more = run.hub.catch_up(&view, CATCH_UP_BYTES, &mut out);
        for stream in streams.iter().filter(|_| asked) {
            run.hub.request_progress(*stream, &view, &mut out);
            run.hub.progress_tick(*stream, &mut out);
        }
        self.hub_output(member, out);
        match more {
            Ok(true) => self.after(500_000, Event::CatchUp { member, boot }),
            Ok(false) => {}
            Err(error) => fail(crate::failure::Checker::Watch, format!("member {member}: history: {error}")),
        }
    }

    fn streams_on(&self, member: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.watchers.all.iter().enumerate().filter_map(move |(number, watcher)| match watcher.on {
            Some((on, _, stream, _)) if on == member => Some((stream, number)),
            _ => None,
        })
    }

    fn hub_output(&mut self, member: usize, out: Vec<HubOutput>) {
        for output in out {
            let Some((_, number)) = self.streams_on(member).find(|(stream, _)| *stream == output.stream)
            else {
                continue;
            };
            let room = self.settings.stream_room;
            let watcher = &mut self.watchers.all[number];
            watcher.waiting.push_back(output);
            if watcher.waiting.len() >= room && !watcher.is_full {
                watcher.is_full = true;
                let run = self.members[member].run.as_mut().expect("its hub has just spoken");
                run.hub.stream_full(watcher.waiting[0].stream);
            }
            let pace = watcher.pace_ns;
            if !std::mem::replace(&mut watcher.is_reading, true) {
                self.after(pace, Event::Read { watcher: number });
            }
        }
    }

    /// The reader takes the next message.
    pub(super) fn read(&mut self, number: usize) {
        let watcher = &mut self.watchers.all[number];
        watcher.is_reading = false;
        let Some(output) = watcher.waiting.pop_front() else { return };
        self.check_output(number, &output);
        let watcher = &mut self.watchers.all[number];
        let pace = watcher.pace_ns;
        if !watcher.waiting.is_empty() {
            watcher.is_reading = true;
            self.after(pace, Event::Read { watcher: number });
        } else if let Some((member, boot, stream, _)) = watcher.on
            && std::mem::take(&mut watcher.is_full)
            && let Some(run) = self.members[member].run.as_mut()
        {
            run.hub.stream_drained(stream);
            self.after(10_000, Event::CatchUp { member, boot });
        }
        // Clients come and go.
        if !self.is_healed && self.watchers.random.per_mille(5) {
            self.hang_up(number);
        }
    }

    /// Clients leave processes that are no members any more, whether those know it or not.
    pub(super) fn leave_strangers(&mut self) {
        for number in 0..self.watchers.all.len() {
            let on = self.watchers.all[number].on;
            if on.is_some_and(|(at, ..)| self.model.cluster.member(self.members[at].id).is_none()) {
                self.hang_up(number);
            }
        }
    }

    fn hang_up(&mut self, number: usize) {
        let Some((member, _, stream, id)) = self.watchers.all[number].on.take() else { return };
        self.watchers.all[number].waiting.clear();
        self.watchers.all[number].is_full = false;
        if let Some(run) = self.members[member].run.as_mut() {
            if self.watchers.random.per_mille(500) {
                let known = run.hub.cancel(stream, id);
                ensure!(known, Watch, "watcher {number} is not known to its hub");
            }
            run.hub.drop_stream(stream);
        }
        let delay = self.watchers.random.between(1, 100) * self.tick_ns();
        self.after(delay, Event::Connect { watcher: number });
    }

    fn check_output(&mut self, number: usize, output: &HubOutput) {
        let Some((_, _, stream, id)) = self.watchers.all[number].on else { return };
        let for_this = *output.watch_ids == [id] || *output.watch_ids == [WHOLE_STREAM];
        ensure!(
            output.stream == stream && for_this,
            Watch,
            "watcher {number} got what is not for it: {output:?}"
        );
        match &output.kind {
            Kind::Events { revision, events, .. } => self.check_events(number, *revision, events),
            Kind::Progress { revision } => {
                let next = self.watchers.all[number].next;
                ensure!(
                    *revision <= self.model.keys.revision,
                    Watch,
                    "watcher {number}: progress to {revision}, which is not there"
                );
                let missing = (next..=*revision).find(|at| self.has_events(number, *at));
                ensure!(
                    missing.is_none(),
                    Watch,
                    "watcher {number}: progress to {revision} came before the events of {missing:?}"
                );
                ensure!(*revision + 1 >= next, Watch, "watcher {number} at {next}: progress to {revision}");
                self.watchers.all[number].next = *revision + 1;
            }
            Kind::Compacted { compact_revision } => {
                let next = self.watchers.all[number].next;
                ensure!(
                    next < *compact_revision && *compact_revision <= self.model.compact,
                    Watch,
                    "watcher {number} at {next} is told that {compact_revision} is compacted; the log says {}",
                    self.model.compact
                );
                self.watchers.all[number].next = *compact_revision;
                self.hang_up(number);
            }
        }
    }

    /// What a revision has for a watcher.
    fn expected(&self, number: usize, revision: i64) -> Vec<&crate::model::Change> {
        let watcher = &self.watchers.all[number];
        let wanted = |change: &&crate::model::Change| {
            let is_put = change.kind == mvccpb::event::EventType::Put;
            in_range(&change.kv.key, &watcher.key, &watcher.end)
                && !(is_put && watcher.no_put)
                && (is_put || !watcher.no_delete)
        };
        self.model.keys.events_of(revision).iter().filter(wanted).collect()
    }

    fn has_events(&self, number: usize, revision: i64) -> bool {
        self.expected(number, revision).iter().any(|change| !self.may_be_gone(revision, change))
    }

    /// A put that the same transaction undid: once its revision is compacted, in etcd too, only the deletion is left.
    fn may_be_gone(&self, revision: i64, change: &crate::model::Change) -> bool {
        let is_put = change.kind == mvccpb::event::EventType::Put;
        let last =
            self.model.keys.events_of(revision).iter().rev().find(|other| other.kv.key == change.kv.key);
        is_put && revision <= self.model.compact && last.is_some_and(|last| last.kind != change.kind)
    }

    fn check_events(&mut self, number: usize, header: i64, events: &[Bytes]) {
        self.counts.events += events.len() as u64;
        let prev_kv = self.watchers.all[number].prev_kv;
        let events: Vec<mvccpb::Event> = events
            .iter()
            .map(|bytes| mvccpb::Event::decode(bytes.clone()).expect("events can be read"))
            .collect();
        let of = |event: &mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let last = events.last().map_or(0, of);
        ensure!(last <= header, Watch, "watcher {number}: events up to {last} under a header of {header}");
        let first = events.first().map_or(0, of);
        let from = self.watchers.all[number].next;
        ensure!(
            first >= from,
            Watch,
            "watcher {number} at {from} is sent events of {first} (again, or too early)"
        );
        let mut at = 0;
        for revision in from..=last {
            for change in self.expected(number, revision) {
                let is_this = |event: &&mvccpb::Event| event.kv.as_ref() == Some(&change.kv);
                if !events.get(at).is_some_and(|event| is_this(&event)) && self.may_be_gone(revision, change)
                {
                    continue;
                }
                let Some(event) = events.get(at) else {
                    fail(
                        crate::failure::Checker::Watch,
                        format!("watcher {number}: revision {revision} is cut"),
                    );
                };
                ensure!(
                    event.r#type == change.kind as i32 && event.kv.as_ref() == Some(&change.kv),
                    Watch,
                    "watcher {number} at {from}: event {at} is {event:?}, should be {change:?}; all are {}",
                    shown(&events)
                );
                // What the key was may be compacted by now.
                let is_gone = event.prev_kv.is_none() && revision <= self.model.compact;
                let before = change.before.as_ref().filter(|_| prev_kv && !is_gone);
                ensure!(
                    event.prev_kv.as_ref() == before,
                    Watch,
                    "watcher {number}: {event:?} should say that the key was {before:?}"
                );
                at += 1;
            }
        }
        ensure!(
            at == events.len(),
            Watch,
            "watcher {number} at {from}: {} events, {at} expected",
            events.len()
        );
        self.watchers.all[number].next = last + 1;
    }

    /// The first watcher that has not been sent everything, and what it lacks.
    pub(super) fn lagging_watcher(&self) -> Option<String> {
        let revision = self.model.keys.revision;
        (0..self.watchers.all.len()).find_map(|number| {
            let watcher = &self.watchers.all[number];
            let missing = (watcher.next..=revision).find(|at| self.has_events(number, *at));
            let is_watching =
                watcher.next > 0 && !RangeEnd::from_wire(watcher.end.clone()).is_empty_from(&watcher.key);
            missing
                .filter(|_| is_watching)
                .map(|at| format!("watcher {number} lacks revision {at} of {revision}: {watcher:?}"))
        })
    }
}
