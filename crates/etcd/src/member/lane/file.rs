//! The member thread's side of the database file: compaction steps, batches on their way to the commit thread, and
//! what comes back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etcdserver::now::{MILLISECOND, Now};
use etcdserver::snapshot::LocalSnapshot;
use mvcc::CompactionProgress;

use super::{COMPACTION_PAUSE, COMPACTION_STEP, FLUSH_BYTES, Lane, SnapshotStep};
use crate::member::handle::Mail;
use crate::member::{commit, log};

impl Lane {
    /// One bounded step of a compaction, when it is due.
    pub(super) fn compaction_step(&mut self, now: Now) {
        let is_due = self.compaction_due.is_some_and(|due| due <= now.mono_ns);
        if !is_due || self.is_behind() || !self.is_read_ahead() {
            return;
        }
        let limit = (self.shared.config.compaction_batch_limit as usize).min(COMPACTION_STEP);
        let start = Instant::now();
        let asked = self.compaction_start.map_or(start, |(asked, _)| asked);
        let progress = self.applier.store_mut().compaction_step(limit);
        let next = self.shared.now().mono_ns + self.compaction_pause_ns(start.elapsed());
        self.measure_compaction(start, matches!(progress, Ok(CompactionProgress::Finished(_))));
        match progress {
            Ok(CompactionProgress::Finished(revision)) => {
                self.compaction_due = self.applier.store().is_compacting().then_some(next);
                self.compacted = Some(revision);
                self.compaction_line(revision, asked);
            }
            Ok(CompactionProgress::Working) => self.compaction_due = Some(next),
            Ok(CompactionProgress::Idle) => self.compaction_due = None,
            Err(error) => {
                self.shared.logger.fatal("failed to compact", &[("error", error.to_string().into())]);
            }
        }
        self.is_dirty = true;
        self.unflushed_since.get_or_insert(now.mono_ns);
    }

    /// Go pauses because a step holds a lock; ours only takes turns, so an unset flag means: the next step at once
    /// when nothing else waits, and a small share of the thread when something does.
    fn compaction_pause_ns(&mut self, step: Duration) -> u64 {
        let applied = self.applier.applied().0;
        let is_busy = std::mem::replace(&mut self.applied_at_compaction, applied) != applied;
        let pause = if self.shared.config.raw.is_set("compaction-sleep-interval") {
            self.shared.config.compaction_sleep
        } else if is_busy {
            (step * COMPACTION_PAUSE).min(self.shared.config.compaction_sleep)
        } else {
            Duration::from_nanos(MILLISECOND / 10)
        };
        pause.as_nanos() as u64
    }

    /// Gives the commit thread what has gathered, when it is time or somebody waits for it.
    pub(super) fn flush(&mut self, now: Now) {
        if self.batch_is_out {
            return self.look_for_room();
        }
        if self.installing.is_some() || self.room.retry_at().is_some_and(|at| now.mono_ns < at) {
            return;
        }
        let store = self.applier.store();
        let is_due = self.unflushed_since.is_some_and(|since| {
            now.mono_ns >= since + self.shared.config.batch_interval.as_nanos() as u64
                || store.unflushed_bytes() >= FLUSH_BYTES
                || store.unflushed_ops() as u64 >= self.shared.config.batch_limit
        });
        let records = self.snapshot == Some(SnapshotStep::Commit);
        // What is sent to a follower must hold its own index.
        let force = records || !self.building.is_empty();
        let is_awaited = !self.file_waiters.is_empty() || self.compacted.is_some();
        if !is_due && !force && !is_awaited {
            return;
        }
        if records {
            self.snapshot = Some(SnapshotStep::Committing);
        }
        self.hand_batch(force);
    }

    /// Freezes what has gathered and hands it to the commit thread. With `force` the consistent index goes along
    /// even if nothing else does.
    ///
    /// None while a received database takes the place of the present one: it would come behind the exchange, and
    /// write the past into it.
    pub(super) fn hand_batch(&mut self, force: bool) {
        if self.installing.is_some() {
            return;
        }
        let now = self.shared.now().mono_ns;
        self.room.begin(now);
        let store = self.applier.store_mut();
        let batch = if force { store.freeze_all() } else { store.freeze() };
        // Deletions of a compaction may be left, when there is little room.
        let is_whole = store.unflushed_ops() == 0;
        self.unflushed_since = (!is_whole).then_some(now);
        let is_awaited = !self.file_waiters.is_empty() || self.compacted.is_some();
        if batch.is_none() && !force && !is_awaited {
            return;
        }
        self.frozen_at = self.applier.applied();
        self.frozen_cluster = self.applier.cluster().clone();
        self.building_in_batch = std::mem::take(&mut self.building);
        self.compacted_in_batch = self.compacted.take_if(|_| is_whole);
        self.batch_is_out = true;
        self.is_dirty = true;
        self.shared.commit.push(match batch {
            Some(mut batch) => {
                batch.reserve = self.room.admit(batch.reserve);
                commit::Job::Commit { batch, force }
            }
            None => commit::Job::Force,
        });
    }

    pub(super) fn committed(&mut self, committed: commit::Committed) {
        self.sizes = committed.sizes;
        self.is_dirty = true;
        match committed.kind {
            commit::Kind::Moved => return self.applier.store_mut().moved(committed.view),
            commit::Kind::Batch => {
                self.applier.store_mut().committed(committed.view.clone());
                self.batch_fitted();
            }
            commit::Kind::Force => self.applier.store_mut().moved(committed.view.clone()),
        }
        self.batch_is_out = false;
        self.file_at = self.frozen_at;
        if let Some(revision) = self.compacted_in_batch.take() {
            self.shared.compaction_finished.store(revision, Ordering::Release);
            self.shared.tell_networks(|| Mail::CompactionFinished(revision));
        }
        let reached = self.file_at.0;
        for (index, done) in std::mem::take(&mut self.file_waiters) {
            if index > reached {
                self.file_waiters.push((index, done));
            } else {
                // A waiter that is gone does not need the answer.
                let _gone = done.send(Ok(committed.view.clone()));
            }
        }
        self.send_snapshots(&committed.view);
        if self.snapshot == Some(SnapshotStep::Committing) && committed.forced {
            self.snapshot = Some(SnapshotStep::Recording);
            let (index, term) = self.file_at;
            let start = Instant::now();
            let local = LocalSnapshot::new(&self.frozen_cluster, index, term);
            self.shared.metrics.snap_marshal.observe(start.elapsed());
            self.log.push(log::Job::Snapshot(Box::new(local)));
        }
    }
}
