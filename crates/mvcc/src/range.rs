//! Range: every option of a range request, in etcd's order of work.
//!
//! 1. future revision, then compacted revision
//! 2. the interval at the revision; its size is `count`, whatever follows
//! 3. the four revision filters
//! 4. order; without one the limit has been applied first, so that only `limit + 1` keys are looked at
//! 5. limit; `more` tells that something was cut
//! 6. what is shown of each key: all of it, or not its value
//!
//! The plain case (key order) streams: the index is scanned, and records are fetched a dozen behind it, so that
//! their pages are on the way while the scan goes on.

use crate::Revision;
use crate::error::{Error, Result};
use crate::key_index::{IndexView, KeyIndex, KeyState, RangeEnd};
use crate::kv::KeyValue;
use crate::records::Records;
use bytes::Bytes;
use std::cmp::Ordering;

/// In which direction results are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// Key order, or ascending if the target is not the key; the limit is applied before sorting.
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What results are sorted by. Equal ones stay in key order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The create revision.
    Create,
    /// The mod revision.
    Mod,
    /// The value.
    Value,
}

/// A range request.
#[derive(Clone, Debug)]
pub struct RangeQuery {
    /// First key.
    pub key: Bytes,
    /// Where the interval ends.
    pub end: RangeEnd,
    /// At which revision; 0 and negative for the latest.
    pub revision: i64,
    /// How many keys at most; 0 and negative for all.
    pub limit: i64,
    /// Direction of sorting.
    pub order: SortOrder,
    /// What to sort by.
    pub target: SortTarget,
    /// Leave out the value; unless sorted by value, leave out the lease too, as 3.7 does.
    pub keys_only: bool,
    /// With `keys_only`, show the lease, as versions before 3.7 do.
    pub keys_only_lease: bool,
    /// Only count.
    pub count_only: bool,
    /// Lowest mod revision; 0 for no bound, as with the other three.
    pub min_mod: i64,
    /// Highest mod revision.
    pub max_mod: i64,
    /// Lowest create revision.
    pub min_create: i64,
    /// Highest create revision.
    pub max_create: i64,
}

impl RangeQuery {
    /// All of an interval at the latest revision, in key order.
    pub fn new(key: Bytes, end: RangeEnd) -> RangeQuery {
        RangeQuery {
            key,
            end,
            revision: 0,
            limit: 0,
            order: SortOrder::None,
            target: SortTarget::Key,
            keys_only: false,
            keys_only_lease: false,
            count_only: false,
            min_mod: 0,
            max_mod: 0,
            min_create: 0,
            max_create: 0,
        }
    }

    fn is_filtered(&self) -> bool {
        self.min_mod != 0 || self.max_mod != 0 || self.min_create != 0 || self.max_create != 0
    }

    fn passes(&self, state: &KeyState) -> bool {
        let within = |value, min, max| (min == 0 || value >= min) && (max == 0 || value <= max);
        within(state.modified.main, self.min_mod, self.max_mod)
            && within(state.created, self.min_create, self.max_create)
    }

    /// Results come out of the index in this order already.
    fn is_natural(&self) -> bool {
        self.target == SortTarget::Key && self.order != SortOrder::Descend
    }

    /// The limit as a number of keys.
    fn limit(&self) -> usize {
        if self.limit <= 0 { usize::MAX } else { usize::try_from(self.limit).unwrap_or(usize::MAX) }
    }

    fn shown(&self) -> Shown {
        if !self.keys_only {
            Shown::All
        } else if self.target == SortTarget::Value || self.keys_only_lease {
            Shown::WithoutValue
        } else {
            Shown::Index
        }
    }
}

/// What a range found, beside the keys themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeSummary {
    /// Keys in the interval, before filters and limit.
    pub count: i64,
    /// Whether the limit cut something.
    pub more: bool,
    /// The store's revision when it was read.
    pub revision: i64,
}

/// What is shown of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The stored bytes.
    All,
    /// What the index knows: no value, no lease.
    Index,
    /// The stored fields but the value.
    WithoutValue,
}

/// The index of a view, or the writer's own in the midst of a transaction.
#[derive(Clone, Copy)]
pub(crate) enum Index<'a> {
    View(&'a IndexView),
    Writer(&'a KeyIndex),
}

impl Index<'_> {
    fn range(
        self,
        key: &[u8],
        end: &RangeEnd,
        at: i64,
        visit: &mut dyn FnMut(&[u8], KeyState) -> bool,
    ) -> bool {
        match self {
            Index::View(index) => index.range(key, end, at, visit),
            Index::Writer(index) => index.range(key, end, at, visit),
        }
    }

    fn count(self, key: &[u8], end: &RangeEnd, at: i64) -> usize {
        match self {
            Index::View(index) => index.count(key, end, at),
            Index::Writer(index) => index.count(key, end, at),
        }
    }
}

/// What a range reads.
pub(crate) struct Source<'a> {
    pub(crate) index: Index<'a>,
    pub(crate) records: Records<'a>,
    pub(crate) current: i64,
    pub(crate) compact: i64,
}

/// Called with each result, an encoded `mvccpb.KeyValue`.
pub type Visit<'a> = dyn FnMut(&[u8]) + 'a;

impl<'a> Source<'a> {
    pub(crate) fn range(&self, query: &RangeQuery, visit: &mut Visit<'_>) -> Result<RangeSummary> {
        let at = self.revision_to_read(query.revision)?;
        let (count, more) = if query.count_only {
            (self.index.count(&query.key, &query.end, at), false)
        } else if query.is_natural() {
            self.stream(query, at, visit)?
        } else {
            self.sort(query, at, visit)?
        };
        Ok(RangeSummary { count: count as i64, more, revision: self.current })
    }

    fn revision_to_read(&self, asked: i64) -> Result<i64> {
        if asked > self.current {
            return Err(Error::FutureRevision);
        }
        let at = if asked <= 0 { self.current } else { asked };
        if at < self.compact {
            return Err(Error::Compacted);
        }
        Ok(at)
    }

    /// Key order: nothing is held back but the records on their way.
    fn stream(&self, query: &RangeQuery, at: i64, visit: &mut Visit<'_>) -> Result<(usize, bool)> {
        let limit = query.limit();
        let filtered = query.is_filtered();
        let mut out = Output::new(self.records, query.shown(), visit);
        out.ahead = query.end != RangeEnd::Single;
        let (mut walked, mut sent, mut more) = (0, 0, false);
        let complete = self.index.range(&query.key, &query.end, at, &mut |key, state| {
            walked += 1;
            if filtered && !query.passes(&state) {
                return true;
            }
            if sent == limit {
                more = true;
                return false;
            }
            sent += 1;
            out.send(key, state)
        });
        out.finish()?;
        let count = if complete { walked } else { self.index.count(&query.key, &query.end, at) };
        Ok((count, more))
    }

    fn sort(&self, query: &RangeQuery, at: i64, visit: &mut Visit<'_>) -> Result<(usize, bool)> {
        let limit = query.limit();
        let shown = query.shown();
        let fetch = match query.order {
            SortOrder::None if !query.is_filtered() => limit.saturating_add(1),
            _ => usize::MAX,
        };
        let mut found = Found::default();
        let (mut walked, mut fetched) = (0, 0);
        let complete = self.index.range(&query.key, &query.end, at, &mut |key, state| {
            if fetched == fetch {
                return false;
            }
            walked += 1;
            if query.passes(&state) {
                fetched += 1;
                found.push(key, state, shown);
            }
            true
        });
        let count = if complete { walked } else { self.index.count(&query.key, &query.end, at) };
        self.order(query, &mut found)?;
        let more = found.items.len() > limit;
        let mut out = Output::new(self.records, shown, visit);
        for item in found.items.iter().take(limit) {
            if !out.send(&found.keys[item.key.0..item.key.1], item.state) {
                break;
            }
        }
        out.finish()?;
        Ok((count, more))
    }

    fn order(&self, query: &RangeQuery, found: &mut Found) -> Result<()> {
        let items = &mut found.items;
        let directed =
            |order: Ordering| if query.order == SortOrder::Descend { order.reverse() } else { order };
        match query.target {
            SortTarget::Key => items.reverse(),
            SortTarget::Version => items.sort_by(|a, b| directed(a.state.version.cmp(&b.state.version))),
            SortTarget::Create => items.sort_by(|a, b| directed(a.state.created.cmp(&b.state.created))),
            SortTarget::Mod => {
                items.sort_by(|a, b| directed(a.state.modified.main.cmp(&b.state.modified.main)));
            }
            SortTarget::Value => {
                let mut values = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    let record = self.records.must_get(item.state.modified)?;
                    values.push((decode(record, item.state.modified)?.value, at));
                }
                values.sort_by(|a, b| directed(a.0.cmp(b.0)));
                *items = values.into_iter().map(|(_, at)| items[at]).collect();
            }
        }
        Ok(())
    }
}

/// Results that wait to be sorted.
#[derive(Default)]
struct Found {
    items: Vec<Item>,
    /// The keys, one behind the other; only where they are needed.
    keys: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Item {
    state: KeyState,
    key: (usize, usize),
}

impl Found {
    fn push(&mut self, key: &[u8], state: KeyState, shown: Shown) {
        let start = self.keys.len();
        if shown == Shown::Index {
            self.keys.extend_from_slice(key);
        }
        self.items.push(Item { state, key: (start, self.keys.len()) });
    }
}

/// How many records are on their way at once.
const IN_FLIGHT: usize = 12;

/// Turns revisions into results, in order.
struct Output<'a, 'v> {
    records: Records<'a>,
    shown: Shown,
    /// Whether there is anything to gain from asking for records ahead.
    ahead: bool,
    visit: &'v mut Visit<'v>,
    waiting: [Revision; IN_FLIGHT],
    sent: usize,
    delivered: usize,
    scratch: Vec<u8>,
    failed: Option<Error>,
}

impl<'a, 'v> Output<'a, 'v> {
    fn new(records: Records<'a>, shown: Shown, visit: &'v mut (dyn FnMut(&[u8]) + '_)) -> Output<'a, 'v> {
        Output {
            records,
            shown,
            ahead: true,
            visit,
            waiting: [Revision::default(); IN_FLIGHT],
            sent: 0,
            delivered: 0,
            scratch: Vec::new(),
            failed: None,
        }
    }

    /// Takes the next result; false when there is no point in going on.
    fn send(&mut self, key: &[u8], state: KeyState) -> bool {
        if self.shown == Shown::Index {
            let kv = KeyValue {
                key,
                create_revision: state.created,
                mod_revision: state.modified.main,
                version: state.version,
                ..KeyValue::default()
            };
            self.show(&kv);
            return true;
        }
        if self.sent - self.delivered == IN_FLIGHT && !self.deliver() {
            return false;
        }
        if self.ahead {
            self.records.prefetch(state.modified);
        }
        self.waiting[self.sent % IN_FLIGHT] = state.modified;
        self.sent += 1;
        true
    }

    fn deliver(&mut self) -> bool {
        let revision = self.waiting[self.delivered % IN_FLIGHT];
        self.delivered += 1;
        match self.fetch(revision) {
            Ok(()) => true,
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }

    fn fetch(&mut self, revision: Revision) -> Result<()> {
        let record = self.records.must_get(revision)?;
        if self.shown == Shown::All {
            (self.visit)(record);
        } else {
            let kv = decode(record, revision)?;
            self.show(&KeyValue { value: b"", ..kv });
        }
        Ok(())
    }

    fn show(&mut self, kv: &KeyValue<'_>) {
        self.scratch.clear();
        kv.encode(&mut self.scratch);
        (self.visit)(&self.scratch);
    }

    fn finish(mut self) -> Result<()> {
        while self.failed.is_none() && self.delivered < self.sent {
            self.deliver();
        }
        self.failed.map_or(Ok(()), Err)
    }
}

/// Reads a record; one that cannot be read is named.
pub(crate) fn decode(record: &[u8], revision: Revision) -> Result<KeyValue<'_>> {
    KeyValue::decode(record).map_err(|_| Error::Corrupt(format!("revision {revision} is not an encoded key")))
}
