//! Watchers that are behind the present, and the history they are sent.
//!
//! History is read in pieces from a view. All watchers whose position lies in a piece share it: they are sent
//! what it holds for them from their position on, and stand at its end afterwards, so that watchers once apart go
//! on together. Pieces are read in turn for the watcher nearest to the present, which is soon done, and for a
//! sweep that goes through all positions upwards and begins again: one watcher with a long way to go delays
//! nobody, and a stream of short ones does not delay it.
//!
//! Invariants:
//! - a watcher here has been sent every event before its position, and none from it on;
//! - a position is never above the hub's revision: a watcher that gets there leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::events::EventList;
use super::group::Matcher;
use super::hub::{Hub, Watcher};
use super::{HubOutput, Kind, Map, Options};
use crate::{RangeEnd, Result, View};

/// Revisions in one response at most, as in etcd.
const REVISIONS_PER_RESPONSE: usize = 1000;
/// Bytes of events in one piece of history at most, whole revisions and long values aside: what bounds one step's
/// time.
const PIECE_BYTES: usize = 256 << 10;
/// What a step counts at least, so that one that finds little is not free.
const STEP_BYTES: usize = 16 << 10;
/// Bytes sent to one stream in one call at most, one response aside; the other watchers of the stream wait.
const STREAM_BYTES: usize = 2 << 20;

/// See the head of this file.
pub(super) struct Behind {
    matcher: Matcher<BTreeSet<u32>>,
    positions: BTreeSet<(i64, u32)>,
    /// Where the sweep goes on.
    sweep: i64,
    /// Whose turn it is.
    nearest_next: bool,
}

impl Behind {
    pub(super) fn new() -> Behind {
        Behind { matcher: Matcher::new(), positions: BTreeSet::new(), sweep: 0, nearest_next: true }
    }

    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Takes a watcher in; the number under which its key or range is known comes back.
    pub(super) fn join(&mut self, watcher: u32, (key, end): (&Bytes, &RangeEnd), position: i64) -> u32 {
        let number = self.matcher.number_of(key, end);
        self.matcher.get_mut(number).insert(watcher);
        self.positions.insert((position, watcher));
        number
    }

    /// Lets a watcher go.
    pub(super) fn leave(&mut self, watcher: u32, number: u32, position: i64) {
        self.positions.remove(&(position, watcher));
        let watchers = self.matcher.get_mut(number);
        watchers.remove(&watcher);
        if watchers.is_empty() {
            self.matcher.remove(number);
        }
    }

    pub(super) fn move_to(&mut self, watcher: u32, from: i64, to: i64) {
        self.positions.remove(&(from, watcher));
        self.positions.insert((to, watcher));
    }

    /// The watchers with a position in the range.
    fn within(&self, range: Range<i64>) -> Vec<(i64, u32)> {
        self.positions.range((range.start, 0)..(range.end, 0)).copied().collect()
    }

    /// The position to read from next.
    fn pick(&mut self) -> Option<i64> {
        let nearest = self.positions.last()?.0;
        self.nearest_next = !self.nearest_next;
        if !self.nearest_next {
            return Some(nearest);
        }
        let swept = self.positions.range((self.sweep, 0)..).next().or_else(|| self.positions.first());
        swept.map(|(position, _)| *position)
    }
}

/// Bytes that may still be sent in this call, per stream.
#[derive(Default)]
struct Credits(Map<u64, usize>);

impl Credits {
    fn of(&mut self, stream: u64) -> &mut usize {
        self.0.entry(stream).or_insert(STREAM_BYTES)
    }
}

impl Hub {
    /// Sends watchers that are behind about `budget` bytes of history. True when some are still behind and can be
    /// sent more: call again, after other work. Watchers of full streams do not count.
    ///
    /// It fails when the file cannot be read. What came out until then has been sent, the rest has not.
    pub fn catch_up(&mut self, view: &View, budget: usize, out: &mut Vec<HubOutput>) -> Result<bool> {
        self.cancel_compacted(view, out);
        let mut credits = Credits::default();
        let mut left = budget.max(1);
        while left > 0 {
            let Some(from) = self.behind.pick() else { return Ok(false) };
            let (moved, bytes) = self.read_piece(view, from, left.min(PIECE_BYTES), &mut credits, out)?;
            if !moved {
                break;
            }
            left = left.saturating_sub(bytes.max(STEP_BYTES));
        }
        Ok(self.behind.len() > 0)
    }

    /// Ends the watchers that need what compaction has taken.
    fn cancel_compacted(&mut self, view: &View, out: &mut Vec<HubOutput>) {
        let compact_revision = view.compact_revision();
        for (_, number) in self.behind.within(i64::MIN..compact_revision) {
            self.kill(number);
            let Watcher { stream, id, .. } = self.watcher(number);
            let kind = Kind::Compacted { compact_revision };
            out.push(HubOutput { stream: *stream, watch_ids: Arc::new([*id]), kind });
        }
    }

    /// Reads a piece of history and sends it to the watchers in it. Says whether any went forward, and how many
    /// bytes were sent or read, whichever is more.
    fn read_piece(
        &mut self,
        view: &View,
        from: i64,
        budget: usize,
        credits: &mut Credits,
        out: &mut Vec<HubOutput>,
    ) -> Result<(bool, usize)> {
        let matcher = &self.behind.matcher;
        let piece = view.history(from, self.revision(), budget, &mut |key| matcher.any(key))?;
        let mut events = EventList::new(&piece.batches);
        let hits = matcher.hits(&events);
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            if matcher.get(hits[0].0).iter().any(|watcher| self.watcher(*watcher).options.prev_kv) {
                for (_, index) in hits {
                    events.look_up(*index, view)?;
                }
            }
        }
        let mut sending =
            Sending { events: &events, revision: self.revision(), lists: BTreeMap::new(), bytes: 0 };
        let mut waiting = BTreeSet::new();
        let mut active = Vec::new();
        for hits in hits.chunk_by(|a, b| a.0 == b.0) {
            sending.lists.clear();
            for number in matcher.get(hits[0].0) {
                let watcher = self.watcher(*number);
                let position = watcher.position().expect("it is behind");
                if position < from || position >= piece.next {
                    continue;
                }
                let credit = credits.of(watcher.stream);
                if *credit == 0 {
                    waiting.insert(*number);
                } else if sending.send(watcher, position, hits, credit, out) {
                    active.push(*number);
                }
            }
        }
        let bytes = sending.bytes.max(piece.batches.iter().map(crate::EventBatch::encoded_len).sum());
        for number in active {
            self.mark_active(number);
        }
        let mut moved = false;
        for (position, number) in self.behind.within(from..piece.next) {
            if !waiting.contains(&number) {
                self.advance(number, position, piece.next);
                moved = true;
            }
        }
        self.behind.sweep = piece.next;
        Ok((moved, bytes))
    }
}

/// Responses put together for a group's watchers, shared by those that want the same from the same event on.
struct Sending<'a, 'b> {
    events: &'b EventList<'a>,
    revision: i64,
    lists: BTreeMap<(usize, usize), Vec<Arc<[Bytes]>>>,
    bytes: usize,
}

impl Sending<'_, '_> {
    /// Sends a watcher what it wants among the group's events; whether that was anything.
    fn send(
        &mut self,
        watcher: &Watcher,
        position: i64,
        hits: &[(u32, u32)],
        credit: &mut usize,
        out: &mut Vec<HubOutput>,
    ) -> bool {
        let options = watcher.options;
        let first = hits.partition_point(|(_, index)| self.events.revision(*index) < position);
        let key = (first, options.variant());
        let lists = self.lists.entry(key).or_insert_with(|| responses(self.events, &hits[first..], options));
        for events in lists.iter() {
            let bytes: usize = events.iter().map(Bytes::len).sum();
            *credit = credit.saturating_sub(bytes);
            self.bytes += bytes;
            out.push(HubOutput {
                stream: watcher.stream,
                watch_ids: Arc::new([watcher.id]),
                kind: Kind::Events {
                    revision: self.revision,
                    events: Arc::clone(events),
                    fragment: options.fragment,
                },
            });
        }
        !lists.is_empty()
    }
}

/// Events cut into responses of at most so many revisions, those that are left out not counted.
fn responses(events: &EventList<'_>, hits: &[(u32, u32)], options: Options) -> Vec<Arc<[Bytes]>> {
    let wanted: Vec<u32> =
        hits.iter().map(|(_, index)| *index).filter(|index| events.passes(*index, options)).collect();
    let revisions: Vec<&[u32]> = wanted.chunk_by(|a, b| events.revision(*a) == events.revision(*b)).collect();
    let response = |revisions: &[&[u32]]| {
        events.select(revisions.iter().flat_map(|indexes| indexes.iter().copied()), options)
    };
    revisions.chunks(REVISIONS_PER_RESPONSE).map(response).collect()
}
