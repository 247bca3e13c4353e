//! Compaction: history below a revision goes, in bounded steps between transactions.
//!
//! The index knows which records are dead; nothing is searched for. One job runs at a time:
//! 1. scheduled: the compact revision rises at once, for readers and in the file, and with it every answer that
//!    depends on it. What follows is invisible but for the space it frees;
//! 2. planning: the index gives up its dead records, key by key; they are gathered in sorted runs, 16 bytes each;
//! 3. sweeping: the runs are merged, so that deletes reach the file in the order of its pages. If the compaction
//!    before this one was complete, all records up to the revision are read in the same pass, for the hash;
//! 4. finished: the mark is written after the last delete, so a stop in between makes the job start again.
//!
//! A compaction asked for while one runs waits; of several that wait only the last is carried out. None of them
//! has a hash, since none follows a complete one.

use crate::error::{Error, Result};
use crate::hash::{self, CompactionHash, KvHasher};
use crate::key_index::CompactCursor;
use crate::records::Stored;
use crate::schema::{self, Bucket};
use crate::write_buf::DeadRecord;
use crate::{Revision, Store};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Bytes of records read for the hash in one step at most; a record is not split.
const STEP_BYTES: usize = 4 << 20;

/// How far compaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionProgress {
    /// There is nothing to do.
    Idle,
    /// There is more to do.
    Working,
    /// The compaction at this revision was completed by this step. Others may wait.
    Finished(i64),
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    running: Option<Job>,
    waiting: Option<i64>,
}

struct Job {
    revision: i64,
    hashing: Option<Hashing>,
    runs: Vec<Vec<DeadRecord>>,
    stage: Stage,
}

enum Stage {
    Planning(CompactCursor),
    Sweeping(Merge),
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Compactor {
    /// Whether a compaction runs or waits.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Takes a job on; `previous` is the compact revision before it, if that compaction was complete.
    pub(crate) fn add(&mut self, revision: i64, previous: Option<i64>) {
        if self.running.is_some() {
            self.waiting = Some(revision);
        } else {
            self.running = Some(Job::new(revision, previous));
        }
    }
}

impl Job {
    fn new(revision: i64, previous: Option<i64>) -> Job {
        Job {
            revision,
            hashing: previous.map(Hashing::new),
            runs: Vec::new(),
            stage: Stage::Planning(CompactCursor::new(revision)),
        }
    }
}

impl Store {
    /// Raises the compact revision to `revision` and takes the work on. The caller should see to a commit soon.
    pub fn schedule_compaction(&mut self, revision: i64) -> Result<()> {
        if revision <= self.compact_revision {
            return Err(Error::Compacted);
        }
        if revision > self.revision {
            return Err(Error::FutureRevision);
        }
        let mark = |key| self.side(Bucket::Meta, key);
        let complete = mark(schema::SCHEDULED_COMPACT_REV) == mark(schema::FINISHED_COMPACT_REV);
        self.compactor.add(revision, complete.then_some(self.compact_revision));
        self.compact_revision = revision;
        self.set_meta(schema::SCHEDULED_COMPACT_REV, schema::write_compact_rev(revision));
        Ok(())
    }

    /// Whether a compaction is under way.
    pub fn is_compacting(&self) -> bool {
        self.compactor.is_busy()
    }

    /// The record from which on the next step of the compaction reads the file; `None` when it reads nothing.
    pub fn compaction_reads_from(&self) -> Option<Revision> {
        let job = self.compactor.running.as_ref()?;
        let hashing = job.hashing.as_ref()?;
        matches!(job.stage, Stage::Sweeping(_)).then_some(hashing.next)
    }

    /// The last compaction carried out; -1 for none. Durable once a commit after its end is.
    pub fn finished_compaction(&self) -> i64 {
        let mark = self.side(Bucket::Meta, schema::FINISHED_COMPACT_REV);
        mark.and_then(|mark| schema::read_compact_rev(&mark)).unwrap_or(-1)
    }

    /// Goes on with compaction: looks at about `budget` keys or records.
    pub fn compaction_step(&mut self, budget: usize) -> Result<CompactionProgress> {
        let budget = budget.max(1);
        let Some(mut job) = self.compactor.running.take() else { return Ok(CompactionProgress::Idle) };
        let done = match self.step(&mut job, budget) {
            Ok(done) => done,
            Err(error) => {
                // Nothing has been lost: the step can be tried again, and a restart starts the job anew.
                self.compactor.running = Some(job);
                return Err(error);
            }
        };
        if !done {
            self.compactor.running = Some(job);
            return Ok(CompactionProgress::Working);
        }
        let revision = job.revision;
        self.finish(job);
        self.compactor.running = self.compactor.waiting.take().map(|revision| Job::new(revision, None));
        Ok(CompactionProgress::Finished(revision))
    }

    fn step(&mut self, job: &mut Job, budget: usize) -> Result<bool> {
        let merge = match &mut job.stage {
            Stage::Planning(cursor) => {
                let mut run = Vec::new();
                let planned = self.index.compact(cursor, budget, &mut |revision, tombstone| {
                    run.push(DeadRecord::new(revision, tombstone));
                });
                run.sort_unstable();
                if !run.is_empty() {
                    job.runs.push(run);
                }
                if planned {
                    if let Some(hashing) = &mut job.hashing {
                        hashing.gone = hash::taken_away(self.records());
                    }
                    job.stage = Stage::Sweeping(Merge::new(std::mem::take(&mut job.runs)));
                }
                return Ok(false);
            }
            Stage::Sweeping(merge) => merge,
        };
        let swept = match &mut job.hashing {
            // A file that cannot be read stops the step before anything is taken from the merge.
            Some(hashing) => hashing.sweep(self.records(), job.revision, budget, merge)?,
            None => Swept { dead: merge.by_ref().take(budget).collect(), done: merge.is_empty() },
        };
        self.counts.compacted += swept.dead.len() as u64;
        for dead in swept.dead {
            self.active.delete(dead);
        }
        Ok(swept.done)
    }

    fn finish(&mut self, job: Job) {
        self.set_meta(schema::FINISHED_COMPACT_REV, schema::write_compact_rev(job.revision));
        let Some(hashing) = job.hashing else { return };
        let hashes = Arc::make_mut(&mut self.hashes);
        hashes.push(CompactionHash {
            hash: hashing.finish(),
            compact_revision: hashing.previous,
            revision: job.revision,
        });
        let surplus = hashes.len().saturating_sub(hash::REMEMBERED);
        hashes.drain(..surplus);
    }

    fn set_meta(&mut self, key: &'static [u8], value: Bytes) {
        self.set_side(Bucket::Meta, Bytes::from_static(key), Some(value));
    }
}

/// The compaction hash under way.
struct Hashing {
    /// The compact revision before this compaction.
    previous: i64,
    /// Taken away by the compaction before, perhaps not yet out of the file.
    gone: Vec<Revision>,
    /// Where to go on.
    next: Revision,
    hash: KvHasher,
    /// The hash if this compaction keeps nothing; not carried on once it has kept something.
    hash_if_none_kept: Option<KvHasher>,
}

struct Swept {
    dead: Vec<DeadRecord>,
    done: bool,
}

impl Hashing {
    fn new(previous: i64) -> Hashing {
        Hashing {
            previous,
            gone: Vec::new(),
            next: Revision::default(),
            hash: KvHasher::new(),
            hash_if_none_kept: Some(KvHasher::new()),
        }
    }

    fn finish(&self) -> u32 {
        self.hash_if_none_kept.unwrap_or(self.hash).finish()
    }

    /// Reads about `budget` records and finds the dead ones among them.
    fn sweep(
        &mut self,
        records: crate::records::Records<'_>,
        revision: i64,
        budget: usize,
        merge: &mut Merge,
    ) -> Result<Swept> {
        let (mut seen, mut bytes, mut last) = (0, 0, None);
        let mut read = Vec::with_capacity(budget.min(4096));
        records.walk(self.next, &mut |stored| {
            if stored.revision.main > revision || seen == budget || bytes > STEP_BYTES {
                last = Some(stored.revision);
                return false;
            }
            seen += 1;
            bytes += stored.value.len();
            read.push(stored);
            true
        })?;
        let mut dead = Vec::new();
        for stored in &read {
            // The index gives each dead record once, and each is here or, if the file was changed by other hands,
            // nowhere.
            while let Some(missing) = merge.next_if(|dead| dead.revision() < stored.revision) {
                dead.push(missing);
            }
            let found = merge.next_if(|dead| dead.revision() == stored.revision);
            self.add(stored, found.is_none());
            dead.extend(found);
        }
        let done = last.is_none_or(|last| last.main > revision);
        if done {
            dead.extend(merge);
        } else if let Some(last) = last {
            self.next = last;
        }
        Ok(Swept { dead, done })
    }

    fn add(&mut self, stored: &Stored<'_>, kept: bool) {
        let old = stored.revision.main <= self.previous;
        if old && self.gone.binary_search(&stored.revision).is_ok() {
            return;
        }
        if kept {
            self.hash_if_none_kept = None;
        }
        if hash::is_compacted_tombstone(stored, self.previous) {
            return;
        }
        if let Some(hash) = &mut self.hash_if_none_kept {
            hash.add(stored);
        }
        if !old || kept {
            self.hash.add(stored);
        }
    }
}

/// Sorted runs of dead records as one sorted whole.
struct Merge {
    runs: Vec<std::vec::IntoIter<DeadRecord>>,
    heads: BinaryHeap<Reverse<(DeadRecord, usize)>>,
}

impl Merge {
    fn new(runs: Vec<Vec<DeadRecord>>) -> Merge {
        let mut runs: Vec<_> = runs.into_iter().map(Vec::into_iter).collect();
        let heads =
            runs.iter_mut().enumerate().filter_map(|(at, run)| Some(Reverse((run.next()?, at)))).collect();
        Merge { runs, heads }
    }

    fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    fn next_if(&mut self, wanted: impl FnOnce(&DeadRecord) -> bool) -> Option<DeadRecord> {
        let Reverse((first, _)) = self.heads.peek()?;
        if wanted(first) { self.next() } else { None }
    }
}

impl Iterator for Merge {
    type Item = DeadRecord;

    fn next(&mut self) -> Option<DeadRecord> {
        let mut top = self.heads.peek_mut()?;
        let Reverse((first, run)) = *top;
        match self.runs[run].next() {
            Some(next) => *top = Reverse((next, run)),
            None => {
                std::collections::binary_heap::PeekMut::pop(top);
            }
        }
        Some(first)
    }
}
