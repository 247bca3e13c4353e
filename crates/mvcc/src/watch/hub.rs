//! Where every watcher stands.
//!
//! Invariants:
//! - the hub's revision is that of the last batch it was told of, or, after a gap, of the state it jumped to;
//! - a watcher is in exactly one state. *Synced*: sent everything up to the hub's revision. *Future*: wants only
//!   what comes later than the next revision, or at it by its own start revision. *Behind*: reads history from
//!   its position on. *Stalled*: its stream is full; its position is kept. *Dead*: compaction took what it needs;
//! - so a watcher is sent each event once, in order: live ones only when synced, history only below the hub's
//!   revision, and it changes between the two at a known position;
//! - events and progress come out of one place in one order, and progress carries the hub's revision: it cannot
//!   overtake an event;
//! - a watcher enters with all its options set.
//!
//! Limits: none of its own. The number of watchers is bounded by what clients may open, output by what the caller
//! lets come out before it says that a stream is full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::catch_up::Behind;
use super::group::{Place, Synced};
use super::slots::Slots;
use super::{CreateError, HubCounts, HubOutput, Kind, Map, Options, WHOLE_STREAM, WatchSpec};
use crate::mutant::Mutant;
use crate::{EventBatch, RangeEnd, Result, View};

/// The watchers of one thread's streams.
pub struct Hub {
    revision: i64,
    streams: Map<u64, Stream>,
    watchers: Slots<Watcher>,
    synced: Synced,
    pub(super) behind: Behind,
    future: BTreeSet<(i64, u32)>,
    stalled: usize,
    dead: usize,
    /// Counts progress ticks, to tell what was sent before one from what was sent after.
    now: u64,
    /// Streams that asked for progress when the store was ahead of the hub, and how far.
    progress_wanted: Vec<(u64, i64)>,
}

#[derive(Default)]
struct Stream {
    /// Ids in use.
    ids: BTreeMap<i64, u32>,
    /// The next id to give out.
    next_id: i64,
    synced: usize,
    is_full: bool,
    /// The last tick.
    ticked: u64,
}

pub(super) struct Watcher {
    pub(super) stream: u64,
    pub(super) id: i64,
    key: Bytes,
    end: RangeEnd,
    pub(super) options: Options,
    /// The start revision it asked for.
    start: i64,
    state: State,
    /// When history was last sent to it.
    active: u64,
}

#[derive(Clone, Copy)]
enum State {
    Synced(Place),
    Future { position: i64 },
    Behind { position: i64, number: u32 },
    Stalled { position: i64 },
    Dead,
}

impl Watcher {
    /// From where on it has to read history, if it is behind.
    pub(super) fn position(&self) -> Option<i64> {
        match self.state {
            State::Behind { position, .. } => Some(position),
            _ => None,
        }
    }
}

impl Hub {
    /// A hub without watchers that has been told of everything in the view.
    pub fn new(view: &View) -> Hub {
        Hub {
            revision: view.revision(),
            streams: Map::default(),
            watchers: Slots::new(),
            synced: Synced::new(),
            behind: Behind::new(),
            future: BTreeSet::new(),
            stalled: 0,
            dead: 0,
            now: 1,
            progress_wanted: Vec::new(),
        }
    }

    /// The revision up to which synced watchers have been sent everything.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What the hub has.
    pub fn counts(&self) -> HubCounts {
        HubCounts {
            streams: self.streams.len(),
            watchers: self.watchers.len() - self.dead,
            slow: self.behind.len() + self.stalled,
        }
    }

    /// Creates a watcher; its id comes back. Nothing comes out for it before this returns, so that the response
    /// that it was created can go first.
    ///
    /// The view must be the newest: a watcher without start revision is sent what comes after it.
    pub fn create(&mut self, spec: WatchSpec, view: &View) -> std::result::Result<i64, CreateError> {
        let mut options = Options::of(&spec);
        options.prev_kv &= !(Mutant::PrevKvMissing.is_on() && spec.start_revision == 0);
        let WatchSpec { stream, id, mut key, end, start_revision, .. } = spec;
        if key.is_empty() {
            key = Bytes::from_static(&[0]);
        }
        if start_revision < 0 {
            return Err(CreateError::Compacted);
        }
        if end.is_empty_from(&key) {
            return Err(CreateError::EmptyRange);
        }
        if id != 0 && self.streams.get(&stream).is_some_and(|stream| stream.ids.contains_key(&id)) {
            return Err(CreateError::DuplicateId);
        }
        let on = self.streams.entry(stream).or_default();
        let id = if id == 0 { on.give_id() } else { id };
        let watcher =
            Watcher { stream, id, key, end, options, start: start_revision, state: State::Dead, active: 0 };
        let number = self.watchers.insert(watcher);
        on.ids.insert(id, number);
        let now = self.revision.max(view.revision()) + 1;
        self.place(number, if start_revision == 0 { now } else { start_revision });
        Ok(id)
    }

    /// Ends a watcher and frees its id; nothing more comes out for it. False when the stream has no such id.
    pub fn cancel(&mut self, stream: u64, id: i64) -> bool {
        let Some(number) = self.streams.get_mut(&stream).and_then(|on| on.ids.remove(&id)) else {
            return false;
        };
        self.remove(number);
        true
    }

    /// Ends all watchers of a stream and forgets it.
    pub fn drop_stream(&mut self, stream: u64) {
        let Some(on) = self.streams.get(&stream) else { return };
        let numbers: Vec<u32> = on.ids.values().copied().collect();
        for number in numbers {
            self.remove(number);
        }
        self.streams.remove(&stream);
        self.progress_wanted.retain(|(wanted, _)| *wanted != stream);
    }

    fn remove(&mut self, number: u32) {
        if matches!(self.watchers.get(number).state, State::Dead) {
            self.dead -= 1;
        } else {
            self.detach(number);
        }
        self.watchers.remove(number);
    }

    /// Sends a revision's events to the synced watchers. The view must be at least as new as the batch.
    ///
    /// Batches must come in order. One that was told before is passed over; after a gap all watchers read what
    /// they missed from history, so a caller may drop batches when it is far behind. It fails, with nothing sent,
    /// when the file cannot be read.
    pub fn publish(&mut self, batch: &Arc<EventBatch>, view: &View, out: &mut Vec<HubOutput>) -> Result<()> {
        if batch.revision <= self.revision {
            return Ok(());
        }
        if batch.revision > self.revision + 1 {
            self.jump(batch.revision - 1);
        }
        self.wake(batch.revision);
        self.synced.send(batch, view, self.now, out)?;
        self.revision = batch.revision;
        self.wake_without_start();
        self.answer_progress(out);
        Ok(())
    }

    /// The store was replaced by a newer one, received from another member: all watchers read what they missed
    /// from its history. One with a start revision in the future keeps it.
    pub fn replaced(&mut self, view: &View) {
        if Mutant::KeptAcrossRestore.is_on() {
            self.revision = view.revision();
        } else if view.revision() > self.revision {
            self.jump(view.revision());
        }
    }

    /// Raises the revision without events: what was synced is behind.
    fn jump(&mut self, to: i64) {
        let position = self.revision + 1;
        let is_synced = |number: &u32| matches!(self.watchers.get(*number).state, State::Synced(_));
        let numbers: Vec<u32> = self.watchers.numbers().filter(is_synced).collect();
        self.revision = to;
        for number in numbers {
            self.detach(number);
            self.settle(number, position);
        }
        self.wake(to);
        self.wake_without_start();
    }

    /// Watchers whose start revision is not above this one wait no longer.
    fn wake(&mut self, revision: i64) {
        while let Some((position, number)) = self.future.first().copied() {
            if position > revision {
                return;
            }
            self.detach(number);
            self.settle(number, position);
        }
    }

    /// Watchers created without start revision when the store was ahead of the hub are synced once the hub is
    /// there.
    fn wake_without_start(&mut self) {
        let next = self.revision + 1;
        let starting = self.future.range((next, 0)..(next + 1, 0)).map(|(_, number)| *number);
        let numbers: Vec<u32> = starting.filter(|number| self.watchers.get(*number).start == 0).collect();
        for number in numbers {
            self.detach(number);
            self.settle(number, next);
        }
    }

    /// The stream has too much to send: its watchers get nothing more until it has drained. They keep their
    /// positions and read from history what they missed.
    pub fn stream_full(&mut self, stream: u64) {
        let Some(on) = self.streams.get_mut(&stream) else { return };
        if std::mem::replace(&mut on.is_full, true) {
            return;
        }
        let numbers: Vec<u32> = on.ids.values().copied().collect();
        for number in numbers {
            let position = match self.watchers.get(number).state {
                State::Synced(_) => self.revision + 1,
                State::Behind { .. } if Mutant::VictimsDropped.is_on() => self.revision + 1,
                State::Behind { position, .. } => position,
                State::Future { .. } | State::Stalled { .. } | State::Dead => continue,
            };
            self.detach(number);
            self.settle(number, position);
        }
    }

    /// The stream can take more again.
    pub fn stream_drained(&mut self, stream: u64) {
        let Some(on) = self.streams.get_mut(&stream) else { return };
        if !std::mem::replace(&mut on.is_full, false) {
            return;
        }
        let numbers: Vec<u32> = on.ids.values().copied().collect();
        for number in numbers {
            if let State::Stalled { position } = self.watchers.get(number).state {
                self.detach(number);
                self.settle(number, position);
            }
        }
    }

    /// The stream asks how far it has come. It is told, on behalf of all its watchers, if all of them are synced;
    /// else nothing comes out, and the client asks again. If the hub has not been told of everything in the view,
    /// the answer comes once it has.
    pub fn request_progress(&mut self, stream: u64, view: &View, out: &mut Vec<HubOutput>) {
        if Mutant::ProgressOvertakes.is_on() {
            let kind = Kind::Progress { revision: view.revision() };
            out.push(HubOutput { stream, watch_ids: Arc::new([WHOLE_STREAM]), kind });
        } else if self.revision >= view.revision() {
            self.tell_progress(stream, out);
        } else if self.streams.contains_key(&stream) {
            self.progress_wanted.retain(|(wanted, _)| *wanted != stream);
            self.progress_wanted.push((stream, view.revision()));
        }
    }

    fn answer_progress(&mut self, out: &mut Vec<HubOutput>) {
        if self.progress_wanted.is_empty() {
            return;
        }
        let revision = self.revision;
        let (due, waiting) = std::mem::take(&mut self.progress_wanted)
            .into_iter()
            .partition(|(_, wanted)| *wanted <= revision);
        self.progress_wanted = waiting;
        let due: Vec<(u64, i64)> = due;
        for (stream, _) in due {
            self.tell_progress(stream, out);
        }
    }

    fn tell_progress(&self, stream: u64, out: &mut Vec<HubOutput>) {
        let Some(on) = self.streams.get(&stream) else { return };
        if on.synced > 0 && on.synced == on.ids.len() {
            let kind = Kind::Progress { revision: self.revision };
            out.push(HubOutput { stream, watch_ids: Arc::new([WHOLE_STREAM]), kind });
        }
    }

    /// The stream's progress interval is over: its synced watchers that asked for it, and that were sent no
    /// events since the last time, are told the revision.
    pub fn progress_tick(&mut self, stream: u64, out: &mut Vec<HubOutput>) {
        let Some(on) = self.streams.get_mut(&stream) else { return };
        self.now += 1;
        let before = std::mem::replace(&mut on.ticked, self.now);
        let mut idle = Vec::new();
        for (id, number) in &on.ids {
            let watcher = self.watchers.get(*number);
            if let State::Synced(place) = watcher.state
                && watcher.options.progress_notify
                && watcher.active.max(self.synced.active(place)) < before.max(1)
            {
                idle.push(*id);
            }
        }
        if !idle.is_empty() {
            let kind = Kind::Progress { revision: self.revision };
            out.push(HubOutput { stream, watch_ids: idle.into(), kind });
        }
    }

    pub(super) fn watcher(&self, number: u32) -> &Watcher {
        self.watchers.get(number)
    }

    /// A watcher that is behind has been sent history.
    pub(super) fn mark_active(&mut self, number: u32) {
        self.watchers.get_mut(number).active = self.now;
    }

    /// A watcher that is behind has been sent everything before `to`.
    pub(super) fn advance(&mut self, number: u32, from: i64, to: i64) {
        let to = if Mutant::EventsTwice.is_on() && to > from + 1 { to - 1 } else { to };
        if to > self.revision {
            self.detach(number);
            self.settle(number, to);
        } else if let State::Behind { position, .. } = &mut self.watchers.get_mut(number).state {
            *position = to;
            self.behind.move_to(number, from, to);
        }
    }

    /// A watcher needs what compaction has taken.
    pub(super) fn kill(&mut self, number: u32) {
        self.detach(number);
        self.dead += 1;
    }

    /// Finds a watcher that is nowhere its place, to be sent events from `position` on.
    fn place(&mut self, number: u32, position: i64) {
        let next = self.revision + 1;
        if Mutant::FutureStartIgnored.is_on() {
            return self.settle(number, position.min(next));
        }
        // A watcher that asks for the very next revision is not told of progress before that revision is there.
        if position > next || (position == next && self.watchers.get(number).start == position) {
            self.future.insert((position, number));
            self.watchers.get_mut(number).state = State::Future { position };
        } else {
            self.settle(number, position);
        }
    }

    /// As [`Hub::place`], for one that need not wait for a revision.
    fn settle(&mut self, number: u32, position: i64) {
        let watcher = self.watchers.get_mut(number);
        let on = self.streams.get_mut(&watcher.stream).expect("a watcher's stream is known");
        let watched = (&watcher.key, &watcher.end);
        watcher.state = if on.is_full {
            self.stalled += 1;
            State::Stalled { position }
        } else if position > self.revision {
            on.synced += 1;
            State::Synced(self.synced.join(number, (watcher.stream, watcher.id), watched, watcher.options))
        } else {
            State::Behind { position, number: self.behind.join(number, watched, position) }
        };
    }

    /// Takes a watcher out of where it stands; it is nowhere then.
    fn detach(&mut self, number: u32) {
        let watcher = self.watchers.get_mut(number);
        match std::mem::replace(&mut watcher.state, State::Dead) {
            State::Synced(place) => {
                let on = self.streams.get_mut(&watcher.stream).expect("a watcher's stream is known");
                on.synced -= 1;
                if let Some(moved) = self.synced.leave(place) {
                    self.watchers.get_mut(moved).state = State::Synced(place);
                }
            }
            State::Future { position } => {
                self.future.remove(&(position, number));
            }
            State::Behind { position, number: known_as } => self.behind.leave(number, known_as, position),
            State::Stalled { .. } => self.stalled -= 1,
            State::Dead => {}
        }
    }
}

#[cfg(test)]
impl Hub {
    /// From where on a watcher has to read history, if it is behind.
    pub(super) fn position_of(&self, stream: u64, id: i64) -> Option<i64> {
        self.watchers.get(*self.streams.get(&stream)?.ids.get(&id)?).position()
    }
}

impl Stream {
    fn give_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}
