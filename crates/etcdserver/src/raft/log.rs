//! The raft log in memory: what the raft crate reads entries from.
//!
//! Invariants:
//! 1. Entries are contiguous: `entries[i]` has index `first + i`.
//! 2. `previous` is index and term of the entry before `first`; the crate needs its term to match followers.
//! 3. Nothing above the applied index is ever cut, so entries that apply may still need are always here.
//! 4. What is here may not be durable yet. The crate counts an entry only after the log lane has reported it.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::limits::{ENTRY_OVERHEAD_BYTES, LOG_CUT_STEP};

/// The log of one member.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    first: u64,
    previous_term: u64,
    bytes: u64,
    hard_state: HardState,
    conf_state: ConfState,
    /// Index up to which apply has come: where a snapshot for a follower would be taken.
    applied: u64,
}

impl Log {
    /// A log that starts after the snapshot (`index`, `term`).
    pub(crate) fn new(index: u64, term: u64, hard_state: HardState, conf_state: ConfState) -> Log {
        Log {
            entries: VecDeque::new(),
            first: index + 1,
            previous_term: term,
            bytes: 0,
            hard_state,
            conf_state,
            applied: index,
        }
    }

    /// Index of the last entry, or of the snapshot the log starts after.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Index of the first entry kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Bytes of all entries, with an estimate of what they cost beside their data.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds entries; those with an index that is already taken replace it and all that follows.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(start) = entries.first().map(|entry| entry.index) else { return };
        assert!(
            start >= self.first,
            "raft log: entry {start} lies before the log, which starts at {}",
            self.first
        );
        assert!(start <= self.last() + 1, "raft log: gap between {} and {start}", self.last());
        while self.last() >= start {
            let entry = self.entries.pop_back().expect("an entry at or above start");
            self.bytes -= cost(&entry);
        }
        for entry in entries {
            assert_eq!(entry.index, self.last() + 1, "raft log: entries must follow one another");
            self.bytes += cost(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Starts anew after a snapshot that the leader sent.
    pub(crate) fn restore(&mut self, index: u64, term: u64, conf_state: ConfState) {
        assert!(index >= self.first - 1, "raft log: snapshot {index} is older than the log");
        self.entries.clear();
        self.bytes = 0;
        self.first = index + 1;
        self.previous_term = term;
        self.conf_state = conf_state;
        self.applied = index;
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    pub(crate) fn set_applied(&mut self, applied: u64) {
        assert!(applied <= self.last(), "raft log: {applied} is applied, {} is the last", self.last());
        // After `restore` apply may still report entries that it had before the snapshot.
        self.applied = self.applied.max(applied);
    }

    /// Forgets applied entries: all but the last `catch_up`, and more when they cost above `bytes_max`.
    pub(crate) fn cut(&mut self, catch_up: u64, bytes_max: u64) {
        let by_count = self.applied.saturating_sub(catch_up);
        if by_count >= self.first - 1 + LOG_CUT_STEP {
            self.cut_to(by_count);
        }
        while self.bytes > bytes_max && self.first <= self.applied {
            self.cut_to(self.first);
        }
    }

    fn cut_to(&mut self, index: u64) {
        while self.first <= index {
            let entry = self.entries.pop_front().expect("an applied entry is in the log");
            self.bytes -= cost(&entry);
            self.previous_term = entry.term;
            self.first += 1;
        }
    }

    /// Term of the entry at `index`, if it is known here.
    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index + 1 == self.first {
            return Some(self.previous_term);
        }
        let position = index.checked_sub(self.first)?;
        self.entries.get(position as usize).map(|entry| entry.term)
    }
}

fn cost(entry: &Entry) -> u64 {
    ENTRY_OVERHEAD_BYTES + (entry.data.len() + entry.context.len()) as u64
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last() + 1,
            "raft log: entries up to {high} asked for, {} is the last",
            self.last()
        );
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let (from, to) = ((low - self.first) as usize, (high - self.first) as usize);
        let mut size = 0u64;
        let mut found = Vec::new();
        for entry in self.entries.range(from..to) {
            // The same measure as the crate's own limit, near enough: data decides, the rest is a few bytes.
            size = size.saturating_add((entry.data.len() + entry.context.len()) as u64 + 16);
            if size > max_size && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index + 1 < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_of(index).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Only says where a snapshot would stand. The lane turns the message that carries it into a request to
    /// build the real one, at or above this index.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied < request_index || self.applied == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let Some(term) = self.term_of(self.applied) else {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied;
        metadata.term = term;
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, size: usize) -> Entry {
        Entry { index, term, data: vec![0; size].into(), ..Entry::default() }
    }

    fn log(entries: &[Entry]) -> Log {
        let mut log = Log::new(10, 2, HardState::default(), ConfState::default());
        log.append(entries);
        log
    }

    fn terms(log: &Log) -> Vec<(u64, u64)> {
        log.entries.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    #[test]
    fn later_entries_replace_what_they_overlap() {
        let mut log = log(&[entry(11, 2, 1), entry(12, 2, 1), entry(13, 2, 1)]);
        log.append(&[entry(12, 3, 5)]);
        assert_eq!(terms(&log), [(11, 2), (12, 3)]);
        assert_eq!(log.bytes(), 2 * ENTRY_OVERHEAD_BYTES + 6);
        assert_eq!(log.term(10).unwrap(), 2);
        assert!(matches!(log.term(9), Err(Error::Store(StorageError::Compacted))));
        assert!(matches!(log.term(13), Err(Error::Store(StorageError::Unavailable))));
    }

    #[test]
    #[should_panic(expected = "gap between")]
    fn a_gap_is_refused() {
        log(&[entry(11, 2, 1)]).append(&[entry(13, 2, 1)]);
    }

    #[test]
    fn cutting_keeps_catch_up_entries_and_never_passes_applied() {
        let entries: Vec<Entry> = (11..=411).map(|index| entry(index, 2, 10)).collect();
        let mut log = log(&entries);
        log.set_applied(110);
        log.cut(50, u64::MAX);
        assert_eq!(log.first(), 11, "fewer than a step of entries is not worth a cut");
        log.set_applied(300);
        log.cut(50, u64::MAX);
        assert_eq!(log.first(), 251);
        assert_eq!(log.term(250).unwrap(), 2);
        log.cut(50, 0);
        assert_eq!(log.first(), 301, "the byte bound cuts catch-up entries, but nothing that is not applied");
        assert_eq!(log.bytes(), 111 * (ENTRY_OVERHEAD_BYTES + 10));
    }

    #[test]
    fn entries_respect_the_size_limit_but_never_come_back_empty() {
        let log = log(&[entry(11, 2, 100), entry(12, 2, 100), entry(13, 2, 100)]);
        let context = || GetEntriesContext::empty(false);
        assert_eq!(log.entries(11, 14, None, context()).unwrap().len(), 3);
        assert_eq!(log.entries(11, 14, 1, context()).unwrap().len(), 1);
        assert_eq!(log.entries(11, 14, 250, context()).unwrap().len(), 2);
        assert!(matches!(log.entries(10, 14, None, context()), Err(Error::Store(StorageError::Compacted))));
    }

    #[test]
    fn a_snapshot_stands_at_the_applied_index() {
        let mut log = log(&[entry(11, 3, 1), entry(12, 4, 1)]);
        log.set_applied(12);
        let snapshot = log.snapshot(0, 7).unwrap();
        assert_eq!((snapshot.get_metadata().index, snapshot.get_metadata().term), (12, 4));
        assert!(log.snapshot(13, 7).is_err());
        log.restore(40, 6, ConfState::default());
        assert_eq!((log.first(), log.last(), log.term(40).unwrap(), log.bytes()), (41, 40, 6, 0));
    }
}
