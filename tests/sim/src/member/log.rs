//! The log lane: one job at a time, written when it begins, synced when its time is over.

use etcdserver::effect::{Append, RaftInput};
use etcdserver::snapshot;

use super::{Counted, Died, Input, Local, Out, Running, last_of};
use crate::model::Model;

/// Log segments and snapshot files that are kept, as by etcd's flags.
const FILES_KEPT: usize = 5;

/// What the log lane may be asked for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every job is an append")]
pub(crate) enum LogJob {
    Append(Append),
    Snapshot(Local),
}

impl Running {
    pub(super) fn push_log(&mut self, job: LogJob, out: &mut Vec<Out>) {
        self.log_jobs.push_back(job);
        if self.log_now.is_none() {
            out.push(Out::Log);
        }
    }

    /// Begins the next job, if none is under way; true when there is one.
    pub(crate) fn begin_log(&mut self) -> Result<bool, Died> {
        if self.log_now.is_some() {
            return Ok(false);
        }
        let Some(job) = self.log_jobs.pop_front() else { return Ok(false) };
        if let LogJob::Append(append) = &job
            && append.snapshot.is_none()
        {
            match self.wal.write(&append.entries, append.hard_state.as_ref()) {
                Ok(_) => {}
                Err(wal::Error::NoSpace(_)) => {
                    self.inbox.push_back(Input::NoSpace);
                    self.log_jobs.push_front(job);
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.log_now = Some(job);
        Ok(true)
    }

    /// The time of the job under way is over.
    pub(crate) fn finish_log(
        &mut self,
        disk: &dyn disk::Disk,
        model: &Model,
        out: &mut Vec<Out>,
    ) -> Result<(), Died> {
        match self.log_now.take() {
            None => {}
            Some(LogJob::Append(append)) => {
                if append.snapshot.is_some() {
                    snapshot::append(disk, &self.config.snap_dir(), &mut self.wal, &append)?;
                    super::boot::check_snap_files(disk, &self.config, model);
                } else {
                    self.sync_log(&append)?;
                }
                self.promised(&append);
                self.inbox.push_back(Input::Raft(RaftInput::Persisted { ready: append.ready }));
            }
            Some(LogJob::Snapshot(local)) => {
                match snapshot::save(disk, &self.config.snap_dir(), &mut self.wal, &local) {
                    Ok(()) => {}
                    Err(wal::Error::NoSpace(_)) => {
                        self.inbox.push_back(Input::NoSpace);
                        self.log_jobs.push_back(LogJob::Snapshot(local));
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
                super::boot::check_snap_files(disk, &self.config, model);
                wal::purge(disk, &self.config.wal_path(), FILES_KEPT)?;
                wal::snap::purge(disk, &self.config.snap_dir(), FILES_KEPT)?;
                wal::snap::release_dbs(disk, &self.config.snap_dir(), local.index)?;
                out.push(Out::Count(Counted::SnapshotSaved));
                self.inbox.push_back(Input::SnapshotSaved(local.index));
            }
        }
        Ok(())
    }

    pub(crate) fn has_log_jobs(&self) -> bool {
        !self.log_jobs.is_empty()
    }

    /// Without an event: what a lone member with nothing else to do does on its own thread.
    pub(super) fn append_inline(&mut self, append: &Append) -> Result<(), Died> {
        self.wal.write(&append.entries, append.hard_state.as_ref())?;
        self.sync_log(append)?;
        self.promised(append);
        Ok(())
    }

    fn sync_log(&mut self, append: &Append) -> Result<(), Died> {
        if append.must_sync || !append.entries.is_empty() {
            self.wal.sync()?;
        }
        self.wal.cut_if_full()?;
        if let Some(job) = self.wal.prepare_next() {
            job.run()?;
        }
        Ok(())
    }

    fn promised(&mut self, append: &Append) {
        if !append.must_sync {
            return;
        }
        if let Some(last) = last_of(append) {
            self.promise.last = Some(last);
        }
        if let Some(hard_state) = &append.hard_state {
            self.promise.term = hard_state.term();
            self.promise.vote = hard_state.vote();
        }
    }
}
