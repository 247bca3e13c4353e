//! Watchers by what they watch, and the sending of live events.
//!
//! Watchers of the same key or range form a group; those of a group that are on the same stream and want the
//! same form a member. An event is matched against groups, its bytes are put together once per group and variant,
//! and one output leaves per member, whatever the number of its watchers.
//!
//! Invariants:
//! - a group has a member, and a member has a watcher: empty ones are gone at once;
//! - every watcher here has been sent all events before the hub's next revision, and none of that one.

use std::sync::Arc;

use bytes::Bytes;

use super::events::EventList;
use super::interval::IntervalTree;
use super::slots::Slots;
use super::{HubOutput, Kind, Map, Options, VARIANTS};
use crate::{EventBatch, RangeEnd, Result, View};

/// Which watched keys and ranges hold a key; with each goes a `T`.
pub(super) struct Matcher<T> {
    exact: Map<Bytes, u32>,
    ranges: Map<(Bytes, RangeEnd), u32>,
    intervals: IntervalTree,
    watched: Slots<Watched<T>>,
}

struct Watched<T> {
    key: Bytes,
    end: RangeEnd,
    what: T,
}

fn interval_end(end: &RangeEnd) -> Option<&Bytes> {
    match end {
        RangeEnd::Before(end) => Some(end),
        RangeEnd::Unbounded => None,
        RangeEnd::Single => unreachable!("single keys are not intervals"),
    }
}

impl<T: Default> Matcher<T> {
    pub(super) fn new() -> Matcher<T> {
        Matcher {
            exact: Map::default(),
            ranges: Map::default(),
            intervals: IntervalTree::new(),
            watched: Slots::new(),
        }
    }

    pub(super) fn get(&self, number: u32) -> &T {
        &self.watched.get(number).what
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.watched.get_mut(number).what
    }

    /// The number of a key or range; it has one from now on.
    pub(super) fn number_of(&mut self, key: &Bytes, end: &RangeEnd) -> u32 {
        let known = match end {
            RangeEnd::Single => self.exact.get(key),
            _ => self.ranges.get(&(key.clone(), end.clone())),
        };
        if let Some(number) = known {
            return *number;
        }
        let watched = Watched { key: key.clone(), end: end.clone(), what: T::default() };
        let number = self.watched.insert(watched);
        if *end == RangeEnd::Single {
            self.exact.insert(key.clone(), number);
        } else {
            self.ranges.insert((key.clone(), end.clone()), number);
            self.intervals.insert(key.clone(), interval_end(end).cloned(), number);
        }
        number
    }

    pub(super) fn remove(&mut self, number: u32) {
        let Watched { key, end, .. } = self.watched.remove(number);
        let was_known = if end == RangeEnd::Single {
            self.exact.remove(&key).is_some()
        } else {
            self.intervals.remove(&key, interval_end(&end).map(|end| &end[..]))
                && self.ranges.remove(&(key, end)).is_some()
        };
        assert!(was_known, "what has a number can be found");
    }

    /// Calls `found` with the number of every watched key or range that holds `key`.
    pub(super) fn matching(&self, key: &[u8], found: &mut dyn FnMut(u32)) {
        if let Some(number) = self.exact.get(key) {
            found(*number);
        }
        self.intervals.stab(key, found);
    }

    /// Whether any holds `key`.
    pub(super) fn any(&self, key: &[u8]) -> bool {
        let mut any = false;
        self.matching(key, &mut |_| any = true);
        any
    }

    /// For every event, whatever holds its key: pairs of number and event, sorted.
    pub(super) fn hits(&self, events: &EventList<'_>) -> Vec<(u32, u32)> {
        let mut hits = Vec::new();
        for (index, event) in events.iter() {
            self.matching(&event.key, &mut |number| hits.push((number, index)));
        }
        hits.sort_unstable();
        hits
    }
}

/// What goes with a watched key or range: its members, and how many of them want previous records.
#[derive(Default)]
struct Group {
    members: Vec<u32>,
    want_previous: usize,
}

/// Watchers alike but for their ids.
struct Member {
    group: u32,
    /// Position among the group's members.
    at: usize,
    stream: u64,
    options: Options,
    ids: Vec<i64>,
    /// The watchers' numbers in the hub, beside their ids.
    watchers: Vec<u32>,
    /// The ids as last sent, until they change.
    shared_ids: Option<Arc<[i64]>>,
    /// When events were last sent, as the hub counts ticks.
    active: u64,
}

/// Where a watcher stands among the synced ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    member: u32,
    at: usize,
}

/// The watchers that have been sent everything.
pub(super) struct Synced {
    groups: Matcher<Group>,
    members: Slots<Member>,
    by_kind: Map<(u32, u64, Options), u32>,
}

impl Synced {
    pub(super) fn new() -> Synced {
        Synced { groups: Matcher::new(), members: Slots::new(), by_kind: Map::default() }
    }

    /// Takes a watcher in.
    pub(super) fn join(
        &mut self,
        watcher: u32,
        (stream, id): (u64, i64),
        (key, end): (&Bytes, &RangeEnd),
        options: Options,
    ) -> Place {
        let group = self.groups.number_of(key, end);
        let number = match self.by_kind.get(&(group, stream, options)) {
            Some(number) => *number,
            None => self.add_member(group, stream, options),
        };
        let member = self.members.get_mut(number);
        member.ids.push(id);
        member.watchers.push(watcher);
        member.shared_ids = None;
        Place { member: number, at: member.ids.len() - 1 }
    }

    fn add_member(&mut self, group: u32, stream: u64, options: Options) -> u32 {
        let members = &mut self.groups.get_mut(group).members;
        let number = self.members.insert(Member {
            group,
            at: members.len(),
            stream,
            options,
            ids: Vec::new(),
            watchers: Vec::new(),
            shared_ids: None,
            active: 0,
        });
        members.push(number);
        self.groups.get_mut(group).want_previous += usize::from(options.prev_kv);
        self.by_kind.insert((group, stream, options), number);
        number
    }

    /// Lets a watcher go. The watcher that now stands in its place, if any, is told.
    pub(super) fn leave(&mut self, place: Place) -> Option<u32> {
        let member = self.members.get_mut(place.member);
        member.ids.swap_remove(place.at);
        member.watchers.swap_remove(place.at);
        member.shared_ids = None;
        let moved = member.watchers.get(place.at).copied();
        if member.ids.is_empty() {
            self.remove_member(place.member);
        }
        moved
    }

    fn remove_member(&mut self, number: u32) {
        let Member { group, at, stream, options, .. } = self.members.remove(number);
        self.by_kind.remove(&(group, stream, options));
        let what = self.groups.get_mut(group);
        what.want_previous -= usize::from(options.prev_kv);
        what.members.swap_remove(at);
        match what.members.get(at) {
            Some(moved) => self.members.get_mut(*moved).at = at,
            None if what.members.is_empty() => self.groups.remove(group),
            None => {}
        }
    }

    /// When events were last sent to the watchers of a place.
    pub(super) fn active(&self, place: Place) -> u64 {
        self.members.get(place.member).active
    }

    /// Sends a revision's events. Nothing has been sent if it fails.
    pub(super) fn send(
        &mut self,
        batch: &EventBatch,
        view: &View,
        now: u64,
        out: &mut Vec<HubOutput>,
    ) -> Result<()> {
        let mut events = EventList::new(std::slice::from_ref(batch));
        let hits = self.groups.hits(&events);
        for (group, index) in &hits {
            if self.groups.get(*group).want_previous > 0 {
                events.look_up(*index, view)?;
            }
        }
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            let mut lists: [Option<Arc<[Bytes]>>; VARIANTS] = Default::default();
            for number in &self.groups.get(hits[0].0).members {
                let member = self.members.get_mut(*number);
                let options = member.options;
                let list = lists[options.variant()]
                    .get_or_insert_with(|| events.select(hits.iter().map(|(_, index)| *index), options));
                if !list.is_empty() {
                    member.active = now;
                    out.push(member.output(batch.revision, Arc::clone(list)));
                }
            }
        }
        Ok(())
    }
}

impl Member {
    fn output(&mut self, revision: i64, events: Arc<[Bytes]>) -> HubOutput {
        let ids = self.shared_ids.get_or_insert_with(|| Arc::from(&self.ids[..]));
        let kind = Kind::Events { revision, events, fragment: self.options.fragment };
        HubOutput { stream: self.stream, watch_ids: Arc::clone(ids), kind }
    }
}
