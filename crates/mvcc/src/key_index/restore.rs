//! Building the index at start from all records in revision order.
//!
//! Records are gathered into runs; each run is sorted by key, and its keys and records are copied out in that
//! order, so that the final merge reads every run from front to back. Slots and records are numbered in key
//! order: a later scan in key order walks memory in order.
//!
//! Invariants:
//! - within a run, and from run to run, records come in revision order; the merge takes equal keys from older
//!   runs first. So each key's chain is built oldest first;
//! - a run holds at most [`RUN_RECORDS`] records, and is closed once its keys exceed [`RUN_BYTES`].

use std::fmt;

use super::block::common_prefix;
use super::reclaim::Allocator;
use super::slab::{MAX_VERSION, NONE, Record};
use super::tree::Builder;
use super::{KeyIndex, RestoreError as Error};
use crate::Revision;

/// Records in one run: sorting stays within the processor's cache.
const RUN_RECORDS: usize = 1 << 16;
/// Bytes of keys after which a run is closed.
const RUN_BYTES: usize = 8 << 20;

/// Why a record cannot be in the index: the file that holds it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// Revisions must ascend.
    OutOfOrder {
        /// The revision that came.
        revision: Revision,
        /// The one before it.
        after: Revision,
    },
    /// A revision or a version beyond what any store can reach.
    OutOfRange(Revision),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OutOfOrder { revision, after } => write!(f, "revision {revision} comes after {after}"),
            Error::OutOfRange(revision) => write!(f, "revision {revision} or its version is out of range"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// One record in a run, without its key.
#[derive(Clone, Copy)]
struct Entry {
    main: i64,
    created: i64,
    version: i64,
    sub: u32,
    tombstone: bool,
}

/// Records in the order they came.
#[derive(Default)]
struct Gathered {
    keys: Vec<u8>,
    ends: Vec<u32>,
    entries: Vec<Entry>,
    common: usize,
}

/// Records by key; those of one key in revision order.
struct Run {
    keys: Vec<u8>,
    /// Per distinct key, where it ends in `keys` and where its records end in `entries`.
    groups: Vec<(u32, u32)>,
    entries: Vec<Entry>,
}

impl Gathered {
    fn key(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.keys[start..self.ends[index] as usize]
    }

    fn push(&mut self, key: &[u8], entry: Entry) {
        self.common = if self.entries.is_empty() {
            key.len()
        } else {
            common_prefix(self.key(0), key).min(self.common)
        };
        self.keys.extend_from_slice(key);
        self.ends.push(u32::try_from(self.keys.len()).expect("a run is closed long before"));
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= RUN_RECORDS || self.keys.len() >= RUN_BYTES
    }

    /// Sorts `order`, whose keys all begin with the same `depth` bytes, by key and then by position.
    ///
    /// Eight bytes of the keys are compared at a time, as numbers; only the groups that they leave undecided
    /// are looked at again, further in.
    fn sort(&self, order: &mut [(u64, u32)], depth: usize) {
        for (head, index) in order.iter_mut() {
            *head = head_at(self.key(*index), depth);
        }
        order.sort_unstable();
        let mut rest = order;
        while let Some((head, _)) = rest.first() {
            let head = *head;
            let count = rest.iter().take_while(|(other, _)| *other == head).count();
            let (group, later) = rest.split_at_mut(count);
            rest = later;
            if count > 1 {
                self.sort_undecided(group, depth + 8);
            }
        }
    }

    fn sort_undecided(&self, group: &mut [(u64, u32)], decided: usize) {
        let first = self.key(group[0].1);
        let mut all_equal = true;
        let mut common = first.len();
        for (_, index) in &group[1..] {
            let key = self.key(*index);
            all_equal &= key == first;
            common = common.min(common_prefix(first, key));
        }
        if all_equal {
            return;
        }
        if common < decided {
            // Some key ends here, and the zeros it was filled up with equal another key's own.
            group.sort_unstable_by(|a, b| self.key(a.1).cmp(self.key(b.1)).then(a.1.cmp(&b.1)));
        } else {
            self.sort(group, common);
        }
    }

    fn sorted(&self) -> Run {
        let mut order: Vec<(u64, u32)> = (0..self.entries.len() as u32).map(|index| (0, index)).collect();
        self.sort(&mut order, self.common);
        let mut run = Run {
            keys: Vec::with_capacity(self.keys.len()),
            groups: Vec::with_capacity(order.len()),
            entries: Vec::with_capacity(order.len()),
        };
        let mut previous: Option<&[u8]> = None;
        for (_, index) in &order {
            let key = self.key(*index);
            run.entries.push(self.entries[*index as usize]);
            let records_end = run.entries.len() as u32;
            if previous == Some(key) {
                run.groups.last_mut().expect("the previous key's").1 = records_end;
            } else {
                run.keys.extend_from_slice(key);
                run.groups.push((run.keys.len() as u32, records_end));
                previous = Some(key);
            }
        }
        run
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.entries.clear();
    }
}

/// Eight bytes of a key from `depth` on, filled up with zeros, as a number that sorts as they do.
fn head_at(key: &[u8], depth: usize) -> u64 {
    let rest = key.get(depth..).unwrap_or_default();
    if let Some(head) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    head[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(head)
}

/// Reads one run from front to back.
struct Front<'a> {
    run: &'a Run,
    next_group: usize,
    key: Option<&'a [u8]>,
    head: u64,
    entries: &'a [Entry],
}

impl<'a> Front<'a> {
    fn new(run: &'a Run, depth: usize) -> Front<'a> {
        let mut front = Front { run, next_group: 0, key: None, head: 0, entries: &[] };
        front.advance(depth);
        front
    }

    /// Steps to the next key; `depth` is how many bytes all keys of all runs begin with alike.
    fn advance(&mut self, depth: usize) {
        let index = self.next_group;
        let Some((key_end, records_end)) = self.run.groups.get(index) else {
            self.key = None;
            return;
        };
        let (key_start, records_start) = if index == 0 { (0, 0) } else { self.run.groups[index - 1] };
        let key = &self.run.keys[key_start as usize..*key_end as usize];
        self.entries = &self.run.entries[records_start as usize..*records_end as usize];
        self.head = head_at(key, depth);
        self.key = Some(key);
        self.next_group = index + 1;
    }
}

/// Merges runs: a tournament in which each inner node remembers who lost there.
struct Merge<'a> {
    fronts: Vec<Front<'a>>,
    losers: Vec<usize>,
    winner: usize,
    depth: usize,
}

impl<'a> Merge<'a> {
    fn new(runs: &'a [Run]) -> Merge<'a> {
        let depth = common_to_all(runs);
        let fronts: Vec<Front<'a>> = runs.iter().map(|run| Front::new(run, depth)).collect();
        let mut merge = Merge { losers: vec![0; fronts.len()], fronts, winner: 0, depth };
        if !merge.fronts.is_empty() {
            merge.winner = merge.play(1);
        }
        merge
    }

    fn play(&mut self, node: usize) -> usize {
        if node >= self.fronts.len() {
            return node - self.fronts.len();
        }
        let (left, right) = (self.play(2 * node), self.play(2 * node + 1));
        let (winner, loser) = if self.wins(left, right) { (left, right) } else { (right, left) };
        self.losers[node] = loser;
        winner
    }

    fn wins(&self, a: usize, b: usize) -> bool {
        let (left, right) = (&self.fronts[a], &self.fronts[b]);
        match (left.key, right.key) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(x), Some(y)) => (left.head, x, a) < (right.head, y, b),
        }
    }

    /// The lowest key's records in the oldest run that has it.
    fn next(&mut self) -> Option<(&'a [u8], &'a [Entry])> {
        let front = self.fronts.get_mut(self.winner)?;
        let found = (front.key?, front.entries);
        front.advance(self.depth);
        let mut node = (self.winner + self.fronts.len()) / 2;
        while node >= 1 {
            if self.wins(self.losers[node], self.winner) {
                std::mem::swap(&mut self.losers[node], &mut self.winner);
            }
            node /= 2;
        }
        Some(found)
    }
}

fn common_to_all(runs: &[Run]) -> usize {
    let mut firsts = runs.iter().filter_map(|run| run.keys.get(..run.groups.first()?.0 as usize));
    let Some(first) = firsts.next() else { return 0 };
    let lasts = runs.iter().filter_map(|run| {
        let start = run.groups.len().checked_sub(2).map_or(0, |index| run.groups[index].0);
        run.keys.get(start as usize..)
    });
    firsts.chain(lasts).fold(first.len(), |common, key| common.min(common_prefix(first, key)))
}

/// Takes every record of the `key` bucket in revision order and becomes an index of them.
#[derive(Default)]
pub struct Restorer {
    gathered: Gathered,
    runs: Vec<Run>,
    last: Option<Revision>,
}

impl Restorer {
    /// Without any record yet.
    pub fn new() -> Restorer {
        Restorer::default()
    }

    /// Adds the next record: a put with the create revision and version stored in it, or a tombstone.
    pub fn push(
        &mut self,
        key: &[u8],
        revision: Revision,
        created: i64,
        version: i64,
        tombstone: bool,
    ) -> Result<(), RestoreError> {
        if let Some(after) = self.last.filter(|last| *last >= revision) {
            return Err(Error::OutOfOrder { revision, after });
        }
        let sub = u32::try_from(revision.sub).map_err(|_| Error::OutOfRange(revision))?;
        if revision.main < 0 || !(0..=MAX_VERSION).contains(&version) {
            return Err(Error::OutOfRange(revision));
        }
        self.last = Some(revision);
        self.gathered.push(key, Entry { main: revision.main, created, version, sub, tombstone });
        if self.gathered.is_full() {
            self.close_run();
        }
        Ok(())
    }

    fn close_run(&mut self) {
        self.runs.push(self.gathered.sorted());
        self.gathered.clear();
    }

    /// The index of all records added.
    pub fn finish(mut self) -> KeyIndex {
        if !self.gathered.entries.is_empty() {
            self.close_run();
        }
        drop(self.gathered);
        let mut records = Allocator::new();
        let mut builder = Builder::default();
        let mut merge = Merge::new(&self.runs);
        let mut next = merge.next();
        while let Some((key, mut entries)) = next {
            let mut newest = NONE;
            let mut live = false;
            loop {
                for entry in entries {
                    newest = records.new_record(&entry.after(newest));
                    live = !entry.tombstone;
                }
                next = merge.next();
                match next {
                    Some((same, more)) if same == key => entries = more,
                    _ => break,
                }
            }
            let slot = records.new_slot(newest);
            builder.push(key, slot, live);
        }
        KeyIndex { tree: builder.finish(), records, last: self.last.unwrap_or_default() }
    }
}

impl Entry {
    fn after(&self, previous: u32) -> Record {
        Record {
            revision: Revision::new(self.main, i64::from(self.sub)),
            created: self.created,
            version: self.version,
            tombstone: self.tombstone,
            previous,
        }
    }
}
