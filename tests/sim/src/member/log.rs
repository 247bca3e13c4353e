//! The log lane: one job at a time, written when it begins, synced when its time is over.

use etcdserver::effect::{Append, RaftInput};
use etcdserver::{Now, snapshot};

use super::{Counted, Died, Input, Local, Out, RETRY_NS, Running, last_of};
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

    /// Begins the next job, if none is under way; true when there is one. Without room it stays the next one.
    pub(crate) fn begin_log(&mut self, now: Now) -> Result<bool, Died> {
        if self.log_now.is_some() || self.log_waits {
            return Ok(false);
        }
        if let Some((_, local)) = self.postponed.take_if(|(due, _)| *due <= now.mono_ns) {
            self.log_jobs.push_back(LogJob::Snapshot(local));
        }
        let Some(job) = self.log_jobs.pop_front() else { return Ok(false) };
        if let LogJob::Append(append) = &job
            && append.snapshot.is_none()
        {
            match self.wal.write(&append.entries, append.hard_state.as_ref()) {
                Ok(_) => {}
                Err(wal::Error::NoSpace(_)) => {
                    self.wait_for_room(job);
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.log_now = Some(job);
        Ok(true)
    }

    /// Nothing can be written before this job: it is tried again after a while.
    fn wait_for_room(&mut self, job: LogJob) {
        self.inbox.push_back(Input::NoSpace);
        self.log_jobs.push_front(job);
        self.log_waits = true;
    }

    /// The time of the job under way is over.
    pub(crate) fn finish_log(
        &mut self,
        now: Now,
        disk: &dyn disk::Disk,
        model: &Model,
        out: &mut Vec<Out>,
    ) -> Result<(), Died> {
        self.log_waits = false;
        match self.log_now.take() {
            None => {}
            Some(LogJob::Append(append)) => self.finish_append(disk, model, append)?,
            Some(LogJob::Snapshot(local)) => {
                match snapshot::save(disk, &self.config.snap_dir(), &mut self.wal, &local) {
                    Ok(()) => {}
                    Err(wal::Error::NoSpace(_)) => {
                        // Appends go on meanwhile.
                        self.inbox.push_back(Input::NoSpace);
                        self.postponed = Some((now.mono_ns + RETRY_NS, local));
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
                super::boot::check_snap_files(disk, &self.config, model);
                wal::purge(disk, &self.config.wal_path(), FILES_KEPT)?;
                wal::snap::purge(disk, &self.config.snap_dir(), FILES_KEPT, local.index)?;
                wal::snap::release_dbs(disk, &self.config.snap_dir(), local.index)?;
                out.push(Out::Count(Counted::SnapshotSaved));
                self.inbox.push_back(Input::SnapshotSaved(local.index));
            }
        }
        Ok(())
    }

    fn finish_append(
        &mut self,
        disk: &dyn disk::Disk,
        model: &Model,
        mut append: Append,
    ) -> Result<(), Died> {
        let (ready, last) = (append.ready, last_of(&append));
        if let Some(received) = &append.snapshot {
            match snapshot::save_received(disk, &self.config.snap_dir(), &mut self.wal, received) {
                Ok(()) => {}
                Err(wal::Error::NoSpace(_)) => {
                    self.wait_for_room(LogJob::Append(append));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            super::boot::check_snap_files(disk, &self.config, model);
            match self.wal.append(&append.entries, append.hard_state.as_ref(), append.must_sync) {
                Ok(()) => {}
                Err(wal::Error::NoSpace(_)) => {
                    append.snapshot = None;
                    self.wait_for_room(LogJob::Append(append));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            self.sync_log(&append)?;
        }
        self.promised(&append, last);
        self.inbox.push_back(Input::Raft(RaftInput::Persisted { ready }));
        Ok(())
    }

    /// Without an event: what a lone member with nothing else to do does on its own thread. False without room.
    pub(super) fn append_inline(&mut self, append: &Append) -> Result<bool, Died> {
        match self.wal.write(&append.entries, append.hard_state.as_ref()) {
            Ok(_) => {}
            Err(wal::Error::NoSpace(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.sync_log(append)?;
        self.promised(append, last_of(append));
        Ok(true)
    }

    fn sync_log(&mut self, append: &Append) -> Result<(), Died> {
        if append.must_sync || !append.entries.is_empty() {
            self.wal.sync()?;
        }
        self.wal.cut_if_full()?;
        match self.wal.prepare_next().map(wal::PrepareJob::run) {
            // The present segment still has a little room: time to raise the alarm, not to end.
            Some(Err(wal::Error::NoSpace(_))) => self.inbox.push_back(Input::NoSpace),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(())) | None => {}
        }
        Ok(())
    }

    fn promised(&mut self, append: &Append, last: Option<(u64, u64)>) {
        if !append.must_sync {
            return;
        }
        if last.is_some() {
            self.promise.last = last;
        }
        if let Some(hard_state) = &append.hard_state {
            self.promise.term = hard_state.term();
            self.promise.vote = hard_state.vote();
        }
    }
}
