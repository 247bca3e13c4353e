//! The member thread's side of the database file, and the commit lane.

use std::sync::Arc;

use etcdserver::Now;
use etcdserver::effect::{Committed, RaftInput};
use etcdserver::install;
use etcdserver::snapshot::{LocalSnapshot, contents};
use mvcc::CompactionProgress;

use super::room::Room;
use super::{CommitJob, Counted, Died, LogJob, Out, Running, SnapshotStep, Turn};

impl Running {
    /// One bounded step of a compaction.
    pub(super) fn compaction_step(&mut self, turn: &Turn<'_>) -> Result<(), Died> {
        if !self.compaction_due {
            return Ok(());
        }
        match self.applier.store_mut().compaction_step(self.tuning.compaction_step)? {
            CompactionProgress::Finished(_) => {
                self.compaction_due = self.applier.store().is_compacting();
                self.compacted = true;
            }
            CompactionProgress::Working => {}
            CompactionProgress::Idle => self.compaction_due = false,
        }
        self.is_dirty = true;
        self.unflushed_since.get_or_insert(turn.now.mono_ns);
        Ok(())
    }

    /// Gives the commit lane what has gathered, when it is time or somebody waits for it.
    pub(super) fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.commit_now.is_some() || self.room.retry_at.is_some_and(|at| turn.now.mono_ns < at) {
            return;
        }
        let store = self.applier.store();
        let is_due = self.unflushed_since.is_some_and(|since| {
            turn.now.mono_ns >= since + self.tuning.batch_interval_ns
                || store.unflushed_ops() >= self.tuning.batch_ops
        });
        let force = self.snapshot == Some(SnapshotStep::Commit);
        let is_awaited = !self.builds.is_empty() || self.compacted;
        if !is_due && !force && !is_awaited {
            return;
        }
        if force {
            self.snapshot = Some(SnapshotStep::Committing);
        }
        self.hand_batch(force, turn);
    }

    fn hand_batch(&mut self, force: bool, turn: &mut Turn<'_>) {
        let is_awaited = force || self.compacted || !self.builds.is_empty();
        let store = self.applier.store_mut();
        // What is awaited must say how far it is, or the file would be taken for older than it is.
        let mut batch = if is_awaited { store.freeze_all() } else { store.freeze() };
        if let Some(batch) = &mut batch {
            batch.reserve = self.room.admit(batch.reserve);
        }
        // Deletions of a compaction may be left, when there is little room.
        self.unflushed_since = (store.unflushed_ops() > 0).then_some(turn.now.mono_ns);
        if batch.is_none() && !is_awaited {
            return;
        }
        self.compacted = false;
        self.frozen_at = self.applier.applied();
        self.frozen_cluster = self.applier.cluster().clone();
        self.is_dirty = true;
        self.commit_now = Some(CommitJob { batch, force });
        turn.out.push(Out::Commit);
    }

    /// The time of the job of the commit lane is over. Without room the batch comes back.
    pub(crate) fn finish_commit(&mut self, now: Now, out: &mut Vec<Out>) -> Result<(), Died> {
        let Some(job) = self.commit_now.take() else { return Ok(()) };
        let db = self.db.as_mut().expect("a running member has its database");
        if let Some(batch) = &job.batch {
            match db.commit(batch) {
                Ok(_) => {}
                Err(error) if error.is_no_space() => {
                    out.push(Out::Note("no room: batch", self.frozen_at.0, 0));
                    self.batch_refused(now.mono_ns);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if job.force || job.batch.is_none() {
            db.force()?;
        }
        let view = self.reader.view();
        if job.batch.is_some() {
            self.applier.store_mut().committed(view.clone());
            self.batch_fitted();
        } else {
            self.applier.store_mut().moved(view.clone());
        }
        self.is_dirty = true;
        self.file_at = self.frozen_at;
        let before = std::mem::replace(&mut self.file_cluster, self.frozen_cluster.clone());
        self.durable_cluster = if job.force { self.file_cluster.clone() } else { before };
        out.push(Out::Note("committed", self.file_at.0, u64::from(job.force)));
        self.send_snapshots(&view, out);
        if self.snapshot == Some(SnapshotStep::Committing) && job.force {
            self.snapshot = Some(SnapshotStep::Recording);
            let local = LocalSnapshot::new(&self.file_cluster, self.file_at.0, self.file_at.1);
            self.push_log(LogJob::Snapshot(Box::new(local)), out);
        }
        Ok(())
    }

    /// Followers that wait for a database that is as new as the file is now.
    fn send_snapshots(&mut self, view: &bolt::View, out: &mut Vec<Out>) {
        for (index, mut message) in std::mem::take(&mut self.builds) {
            if index > self.file_at.0 {
                self.builds.push((index, message));
            } else {
                message.snapshot = Some(contents(&self.file_cluster, self.file_at.0, self.file_at.1));
                out.push(Out::Snapshot(message, view.clone()));
            }
        }
    }

    /// One step of a defragmentation, while the commit lane has nothing else to do; true when there is more.
    pub(crate) fn defragment_step(&mut self) -> Result<bool, Died> {
        if self.commit_now.is_some() {
            return Ok(true);
        }
        let Some(db) = self.db.as_mut() else { return Ok(false) };
        let progress = match db.defragment_step() {
            Ok(progress) => progress,
            Err(error) if error.is_no_space() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        self.applier.store_mut().moved(self.reader.view());
        self.is_dirty = true;
        Ok(!progress.done)
    }

    /// A snapshot of the leader replaces all state. The log has it, and its database lies beside ours.
    pub(super) fn install(
        &mut self,
        disk: &Arc<dyn disk::Disk>,
        snapshot: &api::raftpb::Snapshot,
        turn: &mut Turn<'_>,
    ) -> Result<(), Died> {
        let index = snapshot.metadata.as_ref().map_or(0, api::raftpb::SnapshotMetadata::index);
        // What the commit lane is at is as good as done: the batch goes with the file.
        self.commit_now = None;
        let old = self.db.take().expect("a running member has its database");
        let db = install::take_over(disk, &self.config, &self.options.db, old, index)?;
        self.reader = db.reader();
        self.db = Some(db);
        let view = self.reader.view();
        let (applier, leases) = install::rebuild(view, &self.config, self.applier.cluster(), index)?;
        self.applier = applier;
        self.members_may_differ = true;
        self.file_at = self.applier.applied();
        self.frozen_at = self.file_at;
        self.file_cluster = self.applier.cluster().clone();
        self.frozen_cluster = self.file_cluster.clone();
        self.unflushed_since = None;
        self.room = Room::default();
        self.compacted = false;
        self.compaction_due = self.applier.store().is_compacting();
        if self.snapshot.is_some_and(|step| step != SnapshotStep::Recording) {
            self.snapshot = Some(SnapshotStep::Commit);
        }
        self.is_dirty = true;
        turn.out.push(Out::Count(Counted::SnapshotInstalled));
        turn.out.push(Out::Note("installed", index, self.file_at.0));
        super::boot::check_state(&self.applier, turn.model);
        self.step(turn, RaftInput::Applied { index: self.file_at.0, leases })?;
        self.tell_versions(turn)?;
        self.tell_identity(turn)?;
        self.publish();
        turn.out.push(Out::Replaced);
        self.reads_reached(turn);
        Ok(())
    }

    pub(super) fn take_snapshot(
        &mut self,
        disk: &Arc<dyn disk::Disk>,
        committed: &mut Committed,
        turn: &mut Turn<'_>,
    ) -> Result<(), Died> {
        match committed.snapshot.take() {
            Some(snapshot) => self.install(disk, &snapshot, turn),
            None => Ok(()),
        }
    }
}
