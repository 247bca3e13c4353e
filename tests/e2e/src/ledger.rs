//! What was asked for, what was answered, and whether the two fit what happened.
//!
//! Every value carries the number of the operation that wrote it, so that each event names its cause. An operation
//! without an answer may have happened once or not at all; one with an answer happened at exactly that revision.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::history::{Change, History};

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// One put.
    Put {
        /// The key.
        key: Bytes,
        /// The lease it is attached to, or 0.
        lease: i64,
    },
    /// Keys of a range go away.
    Delete {
        /// First key.
        key: Bytes,
        /// End, empty for one key.
        end: Bytes,
    },
    /// A transaction that goes on only while a key has not changed.
    Txn {
        /// The guarded key and the modification revision it must have.
        guard: (Bytes, i64),
        /// Keys that get a value.
        puts: Vec<Bytes>,
        /// Keys that go away afterwards.
        deletes: Vec<Bytes>,
    },
    /// A new lease.
    Grant {
        /// Its number.
        lease: i64,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// The end of a lease and of its keys.
    Revoke {
        /// Its number.
        lease: i64,
    },
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet.
    Pending,
    /// Without an answer, or with one that does not say.
    Unknown,
    /// Acknowledged: header revision, and whether it changed anything.
    Done(i64, bool),
    /// The server said that nothing happened.
    Refused,
}

#[derive(Debug)]
struct Op {
    kind: Kind,
    /// Somebody had been shown this revision before it was sent.
    after: i64,
    outcome: Outcome,
    applied: Option<i64>,
}

/// A lease as far as the answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseFate {
    /// It must be there.
    Alive,
    /// It must be gone.
    Gone,
    /// It may be there or not.
    Either,
}

/// Counts for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Operations with an acknowledgement that changed keys.
    pub acknowledged: u64,
    /// Acknowledged ones that found nothing to change.
    pub without_effect: u64,
    /// Operations without an answer.
    pub unknown: u64,
    /// Of these, found in the history.
    pub unknown_applied: u64,
    /// Operations the server refused.
    pub refused: u64,
}

/// Leases that live shorter may expire during a run.
pub const LONG_TTL: i64 = 3600;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Ledger {
    ops: Vec<Op>,
    /// Revisions up to here are explained.
    explained: i64,
    /// Operations before this one are settled and checked.
    settled: usize,
}

/// The value that operation `id` gives to its `nth` key. Lengths differ, so that records of all sizes are torn.
pub fn value_of(id: usize, nth: usize) -> Bytes {
    let len = if id.is_multiple_of(97) { 20_000 } else { id * 131 % 700 };
    let mut text = format!("op{id}.{nth}:");
    while text.len() < len {
        text.push((b'a' + (text.len() % 23) as u8) as char);
    }
    text.into()
}

fn writer_of(value: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(value).ok()?;
    let (id, rest) = text.strip_prefix("op")?.split_once('.')?;
    let (nth, _) = rest.split_once(':')?;
    Some((id.parse().ok()?, nth.parse().ok()?))
}

impl Ledger {
    /// Notes an operation before it is sent, and the newest revision that anybody has seen until then: what it does
    /// must come after that. Its number goes into its values.
    pub fn begin(&mut self, kind: Kind, after: i64) -> usize {
        self.ops.push(Op { kind, after, outcome: Outcome::Pending, applied: None });
        self.ops.len() - 1
    }

    /// Notes how it ended.
    pub fn end(&mut self, id: usize, outcome: Outcome) {
        // One that outlived its connection has been written off already.
        if self.ops[id].outcome == Outcome::Pending {
            self.ops[id].outcome = outcome;
        }
    }

    /// The server is gone: what is under way will not be answered.
    pub fn write_off(&mut self) {
        for op in &mut self.ops[self.settled..] {
            if op.outcome == Outcome::Pending {
                op.outcome = Outcome::Unknown;
            }
        }
    }

    /// Explains every revision up to `upto` by an operation before `cut`, and finds every acknowledged one there.
    /// These operations must have ended or been written off, and no later one may have had its effect up to there.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn explain(&mut self, history: &History, upto: i64, cut: usize) -> Result<(), String> {
        let mut done_at = BTreeMap::new();
        for (id, op) in self.ops.iter().enumerate() {
            if let Outcome::Done(revision, true) = op.outcome
                && let Some(other) = done_at.insert(revision, id)
            {
                return Err(format!("operations {other} and {id} both were given revision {revision}"));
            }
        }
        let mut nameless = Vec::new();
        for revision in self.explained.max(1) + 1..=upto {
            match self.named_cause(history, revision, &done_at, cut)? {
                Some(id) => self.happened(id, revision)?,
                None => nameless.push(revision),
            }
        }
        for (id, revision) in self.match_deletions(history, &nameless, cut)? {
            self.happened(id, revision)?;
        }
        self.explained = upto;
        for id in self.settled..cut {
            self.check_end(history, id, upto)?;
        }
        self.settled = cut;
        Ok(())
    }

    /// Number of operations so far.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn happened(&mut self, id: usize, revision: i64) -> Result<(), String> {
        match self.ops[id].applied.replace(revision) {
            Some(before) => Err(format!("operation {id} happened at {before} and again at {revision}")),
            None => Ok(()),
        }
    }

    /// The operation that made a revision, where a value or an answer names it.
    fn named_cause(
        &self,
        history: &History,
        revision: i64,
        done_at: &BTreeMap<i64, usize>,
        cut: usize,
    ) -> Result<Option<usize>, String> {
        let changes = history.changes(revision);
        let written = changes.iter().find_map(|change| match change {
            Change::Put { value, .. } => Some(value),
            Change::Delete { .. } => None,
        });
        let id = match written {
            Some(value) => {
                let (id, _) = writer_of(value)
                    .filter(|(id, nth)| *id < self.ops.len() && value_of(*id, *nth) == *value)
                    .ok_or_else(|| format!("revision {revision} holds a value that nobody sent: {value:?}"))?;
                id
            }
            None => match done_at.get(&revision) {
                Some(id) => *id,
                None => return Ok(None),
            },
        };
        let op = &self.ops[id];
        let agrees = match op.outcome {
            Outcome::Done(at, changed) => changed && at == revision,
            Outcome::Unknown | Outcome::Pending => true,
            Outcome::Refused => false,
        };
        // A request cannot be taken up by a process that was started after it was written off.
        let is_of_its_time = (self.settled..cut).contains(&id);
        if agrees && is_of_its_time && self.makes(id, history, revision) {
            Ok(Some(id))
        } else {
            Err(format!("revision {revision} holds {changes:?}, operation {id} is {op:?}"))
        }
    }

    fn makes(&self, id: usize, history: &History, revision: i64) -> bool {
        revision > self.ops[id].after
            && expected(id, &self.ops[id].kind, history, revision).as_deref() == Some(history.changes(revision))
    }

    /// Finds an operation for each of these revisions, which only delete and which no answer names: operations
    /// without an answer, and revocations, whose answer does not say whether keys went with the lease. Several may
    /// fit one revision, so that they are matched. Revisions that are left must be leases that ran out.
    fn match_deletions(
        &self,
        history: &History,
        revisions: &[i64],
        cut: usize,
    ) -> Result<Vec<(usize, i64)>, String> {
        let may_be = |id: &usize| match self.ops[*id].outcome {
            Outcome::Unknown | Outcome::Pending => self.ops[*id].applied.is_none(),
            Outcome::Done(..) => matches!(self.ops[*id].kind, Kind::Revoke { .. }),
            Outcome::Refused => false,
        };
        let open: Vec<usize> = (self.settled..cut).filter(may_be).collect();
        let fitting = |revision: i64| -> Vec<usize> {
            open.iter().copied().filter(|id| self.makes(*id, history, revision)).collect()
        };
        let mut rows: Vec<(i64, bool, Vec<usize>)> = revisions
            .iter()
            .map(|&revision| (revision, self.is_expiry(history, revision), fitting(revision)))
            .collect();
        // Those that need an operation choose first.
        rows.sort_by_key(|row| row.1);
        let mut taken = BTreeMap::new();
        for row in 0..rows.len() {
            if !assign(&rows, row, &mut taken, &mut Vec::new()) && !rows[row].1 {
                let revision = rows[row].0;
                let (changes, fits) = (history.changes(revision), &rows[row].2);
                return Err(format!("nobody asked for revision {revision}: {changes:?}; {fits:?} are taken"));
            }
        }
        Ok(taken.into_iter().map(|(id, row)| (id, rows[row].0)).collect())
    }

    /// Whether a lease that ran out explains a revision.
    fn is_expiry(&self, history: &History, revision: i64) -> bool {
        self.ops.iter().any(|op| match op.kind {
            Kind::Grant { lease, ttl } if ttl < LONG_TTL => {
                revoked(history, lease, revision).as_deref() == Some(history.changes(revision))
            }
            _ => false,
        })
    }

    /// Checks one settled operation against the history.
    fn check_end(&self, history: &History, id: usize, upto: i64) -> Result<(), String> {
        let op = &self.ops[id];
        match op.outcome {
            Outcome::Done(revision, _) if revision > upto => {
                Err(format!("operation {id} was acknowledged at {revision}, the server is at {upto}: {op:?}"))
            }
            Outcome::Done(revision, _) if revision < op.after => {
                Err(format!("operation {id} was answered at {revision}, {} had been seen before: {op:?}", op.after))
            }
            Outcome::Done(revision, true) if op.applied != Some(revision) => {
                Err(format!("acknowledged operation {id} is lost: {op:?}"))
            }
            Outcome::Done(revision, false) => match &op.kind {
                Kind::Txn { guard: (key, modified), .. } => {
                    let found = history.at(key, revision).map_or(0, |state| state.modified);
                    if found == *modified {
                        return Err(format!("operation {id} was refused at {revision} although its guard holds: {op:?}"));
                    }
                    Ok(())
                }
                Kind::Delete { key, end } if !history.range_at(key, end, revision).is_empty() => {
                    Err(format!("operation {id} deleted nothing at {revision}, but there is something: {op:?}"))
                }
                Kind::Put { .. } => Err(format!("a put changed nothing: {op:?}")),
                _ => Ok(()),
            },
            Outcome::Refused if op.applied.is_some() => Err(format!("a refused operation happened: {op:?}")),
            _ => Ok(()),
        }
    }

    /// What must be true of every lease, with its time to live, as far as the operations before `cut` tell.
    pub fn leases(&self, cut: usize) -> BTreeMap<i64, (i64, LeaseFate)> {
        let mut leases = BTreeMap::new();
        for op in &self.ops[..cut] {
            match (&op.kind, op.outcome) {
                (Kind::Grant { lease, ttl }, Outcome::Done(..)) if *ttl >= LONG_TTL => {
                    leases.insert(*lease, (*ttl, LeaseFate::Alive));
                }
                (Kind::Grant { lease, ttl }, _) => {
                    leases.insert(*lease, (*ttl, LeaseFate::Either));
                }
                (Kind::Revoke { lease }, Outcome::Done(..)) => {
                    leases.entry(*lease).and_modify(|(_, fate)| *fate = LeaseFate::Gone);
                }
                (Kind::Revoke { lease }, Outcome::Unknown | Outcome::Pending) => {
                    leases.entry(*lease).and_modify(|(_, fate)| *fate = LeaseFate::Either);
                }
                _ => {}
            }
        }
        leases
    }

    /// Counts for the report.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for op in &self.ops {
            match op.outcome {
                Outcome::Done(_, true) => counts.acknowledged += 1,
                Outcome::Done(_, false) => counts.without_effect += 1,
                Outcome::Refused => counts.refused += 1,
                Outcome::Unknown | Outcome::Pending => {
                    counts.unknown += 1;
                    counts.unknown_applied += u64::from(op.applied.is_some());
                }
            }
        }
        counts
    }
}

/// Gives a row one of its operations, moving other rows to another of theirs where needed.
fn assign(
    rows: &[(i64, bool, Vec<usize>)],
    row: usize,
    taken: &mut BTreeMap<usize, usize>,
    tried: &mut Vec<usize>,
) -> bool {
    for &id in &rows[row].2 {
        if tried.contains(&id) {
            continue;
        }
        tried.push(id);
        let holder = taken.get(&id).copied();
        if holder.is_none_or(|holder| assign(rows, holder, taken, tried)) {
            taken.insert(id, row);
            return true;
        }
    }
    false
}

/// The changes that an operation makes when it is applied as `revision`; `None` if it makes none.
fn expected(id: usize, kind: &Kind, history: &History, revision: i64) -> Option<Vec<Change>> {
    let before = revision - 1;
    let changes: Vec<Change> = match kind {
        Kind::Put { key, lease } => vec![Change::Put { key: key.clone(), value: value_of(id, 0), lease: *lease }],
        Kind::Delete { key, end } => {
            let found = history.range_at(key, end, before);
            found.into_iter().map(|(key, _)| Change::Delete { key: key.clone() }).collect()
        }
        Kind::Txn { guard: (key, modified), puts, deletes } => {
            if history.at(key, before).map_or(0, |state| state.modified) != *modified {
                return None;
            }
            let puts = puts.iter().enumerate();
            let put = puts.map(|(nth, key)| Change::Put { key: key.clone(), value: value_of(id, nth), lease: 0 });
            let gone = deletes.iter().filter(|key| history.at(key, before).is_some());
            put.chain(gone.map(|key| Change::Delete { key: key.clone() })).collect()
        }
        Kind::Grant { .. } => return None,
        Kind::Revoke { lease } => return revoked(history, *lease, revision),
    };
    (!changes.is_empty()).then_some(changes)
}

/// The changes that the end of a lease makes.
fn revoked(history: &History, lease: i64, revision: i64) -> Option<Vec<Change>> {
    let keys = history.attached_at(lease, revision - 1);
    (!keys.is_empty()).then(|| keys.into_iter().map(|key| Change::Delete { key }).collect())
}

#[cfg(test)]
mod tests {
    use api::mvccpb::event::EventType;
    use api::mvccpb::{Event, KeyValue};

    use super::*;

    fn history(writers: &[usize]) -> History {
        let mut history = History::default();
        for (nth, &id) in writers.iter().enumerate() {
            let revision = nth as i64 + 2;
            let kv = KeyValue {
                key: "k".into(),
                value: value_of(id, 0),
                mod_revision: revision,
                create_revision: 2,
                version: nth as i64 + 1,
                lease: 0,
            };
            history.push(&[Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: None }], true).unwrap();
        }
        history
    }

    fn ledger(outcomes: &[Outcome]) -> Ledger {
        let mut ledger = Ledger::default();
        for outcome in outcomes {
            let id = ledger.begin(Kind::Put { key: "k".into(), lease: 0 }, 0);
            ledger.end(id, *outcome);
        }
        ledger
    }

    #[test]
    fn acknowledged_and_unknown_operations_explain_a_history() {
        let mut ledger = ledger(&[Outcome::Done(2, true), Outcome::Unknown, Outcome::Done(3, true), Outcome::Unknown]);
        ledger.explain(&history(&[0, 2, 1]), 4, 4).unwrap();
        let counts = ledger.counts();
        assert_eq!((counts.acknowledged, counts.unknown, counts.unknown_applied), (2, 2, 1));
    }

    #[test]
    fn a_lost_write_is_seen() {
        let mut lost = ledger(&[Outcome::Done(2, true), Outcome::Done(3, true)]);
        assert!(lost.explain(&history(&[0]), 2, 2).is_err(), "beyond the end");
        let mut lost = ledger(&[Outcome::Done(2, true), Outcome::Unknown]);
        assert!(lost.explain(&history(&[1]), 2, 2).is_err(), "another one in its place");
    }

    #[test]
    fn deletions_without_an_answer_are_matched() {
        let mut history = history(&[0]);
        let delete = |revision| {
            let kv = KeyValue { key: "k".into(), mod_revision: revision, ..KeyValue::default() };
            [Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None }]
        };
        history.push(&delete(3), true).unwrap();
        let mut ledger = ledger(&[Outcome::Done(2, true)]);
        for end in ["", "l"] {
            ledger.begin(Kind::Delete { key: "k".into(), end: end.into() }, 0);
        }
        ledger.write_off();
        ledger.explain(&history, 3, 3).unwrap();
        assert_eq!(ledger.counts().unknown_applied, 1, "either of them, not both");
        let rows = [(3, false, vec![1, 2]), (4, false, vec![1])];
        let mut taken = BTreeMap::new();
        assert!((0..2).all(|row| assign(&rows, row, &mut taken, &mut Vec::new())));
        assert_eq!(taken, BTreeMap::from([(1, 1), (2, 0)]), "the first gives way");
        assert!(!assign(&[(3, false, vec![1]), (4, false, vec![1])], 1, &mut BTreeMap::from([(1, 0)]), &mut Vec::new()));
    }

    #[test]
    fn doubled_refused_and_foreign_writes_are_seen() {
        assert!(ledger(&[Outcome::Unknown]).explain(&history(&[0, 0]), 3, 1).is_err(), "twice");
        assert!(ledger(&[Outcome::Refused]).explain(&history(&[0]), 2, 1).is_err(), "refused");
        assert!(ledger(&[Outcome::Unknown]).explain(&history(&[7]), 2, 1).is_err(), "never sent");
        let mut late = Ledger::default();
        late.begin(Kind::Put { key: "k".into(), lease: 0 }, 2);
        late.write_off();
        assert!(late.explain(&history(&[0]), 2, 1).is_err(), "before what had been seen");
        let mut same = ledger(&[Outcome::Done(2, true), Outcome::Done(2, true)]);
        assert!(same.explain(&history(&[0]), 2, 2).is_err(), "one revision for two");
    }
}
