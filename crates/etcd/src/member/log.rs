//! The log thread: writes and syncs the write-ahead log while the member thread goes on.
//!
//! The log itself is behind a lock, because the member thread writes inline when nothing is under way here: with
//! [`Lane::is_idle`] true nobody else holds it, so the lock never waits. The order of appends is the order of jobs.
//! A second thread zero-fills ahead of the log, so that a sync is an overwrite and not a journal commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::raftpb;
use etcdserver::effect::Append;
use etcdserver::snapshot::{self, LocalSnapshot};
use parking_lot::Mutex;

use crate::member::handle::{MemberInput, Shared};
use crate::member::lines::fields_of_end;
use crate::member::mailbox::ThreadMailbox;

/// What the log thread may be asked for.
#[allow(clippy::large_enum_variant, reason = "nearly every job is a batch: a box would be an allocation for each")]
pub(crate) enum Job {
    /// Write a batch.
    Append(Append),
    /// Record a snapshot that is durable elsewhere, and drop what only older ones needed.
    Snapshot(Box<LocalSnapshot>),
    /// End.
    Stop,
}

/// A sync that takes longer is logged, as in etcd.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// How long to wait before a batch or a snapshot that found no room is tried again.
const NO_SPACE_RETRY: Duration = Duration::from_millis(500);

/// Bytes after which a run of batches is synced although more of them wait: a sync of what a disk writes in a few
/// milliseconds, so that the first batches do not wait for the last ones.
const RUN_BYTES_MAX: u64 = 4 << 20;

/// What a run of batches wrote.
#[derive(Default)]
struct RunWritten {
    bytes: u64,
    needs_sync: bool,
}

impl RunWritten {
    fn add(&mut self, batch: &wal::Written, append: &Append) {
        self.bytes += batch.bytes;
        self.needs_sync |= batch.needs_sync || append.must_sync;
    }
}

/// A snapshot that found no room, and when to try it again.
struct Postponed {
    local: Box<LocalSnapshot>,
    due: Instant,
    /// What found none.
    what: String,
}

/// The log and its queues.
pub(crate) struct Lane {
    wal: Mutex<wal::Wal>,
    jobs: ThreadMailbox<Job>,
    /// Jobs handed in and not yet done.
    under_way: AtomicU64,
    /// Work ahead of the log; `None` ends the thread.
    ahead: ThreadMailbox<Option<wal::PrepareJob>>,
}

impl Lane {
    pub(crate) fn new(wal: wal::Wal) -> Arc<Lane> {
        Arc::new(Lane {
            wal: Mutex::new(wal),
            jobs: ThreadMailbox::default(),
            under_way: AtomicU64::new(0),
            ahead: ThreadMailbox::default(),
        })
    }

    /// Whether nothing is under way, so that the caller may write itself.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Hands a job to the thread.
    pub(crate) fn push(&self, job: Job) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.jobs.push(job);
    }

    /// Writes batches and makes them durable with one sync, on the calling thread, which is the member's only while
    /// [`Lane::is_idle`]. Returns how many are done, the first at least: a run ends early at its limit in bytes, at the
    /// end of a segment, and before a batch that finds no room, so that those before it need not wait for that.
    ///
    /// A first batch without room is tried again until there is some. Any other failure ends the process: what a failed
    /// write or sync left on disk cannot be known.
    pub(crate) fn append(&self, shared: &Shared, batches: &[Append]) -> usize {
        let mut wal = self.wal.lock();
        let mut written = RunWritten::default();
        let mut done = 0;
        let start = Instant::now();
        for append in batches {
            if let Some(received) = &append.snapshot {
                received_snapshot(shared, &mut wal, received);
            }
            match wal.write(&append.entries, append.hard_state.as_ref()) {
                Ok(batch) => written.add(&batch, append),
                Err(wal::Error::NoSpace(_)) if done > 0 => break,
                Err(error @ wal::Error::NoSpace(_)) => {
                    written.add(&wait_for_room(shared, &mut wal, append, &error), append);
                }
                Err(error) => fail(shared, &error),
            }
            done += 1;
            if written.bytes >= RUN_BYTES_MAX || wal.is_full() {
                break;
            }
        }
        let written_at = Instant::now();
        shared.metrics.wal_write.observe(written_at - start);
        shared.metrics.wal_write_bytes.add(written.bytes);
        if written.needs_sync {
            if let Err(error) = wal.sync() {
                fail(shared, &error);
            }
            let took = written_at.elapsed();
            shared.metrics.wal_fsync.observe(took);
            if took > SLOW_SYNC {
                let fields = [("took", took.into()), ("expected-duration", SLOW_SYNC.into())];
                shared.logger.warn("slow fdatasync", &fields);
            }
        }
        self.cut_if_full(shared, &mut wal);
        done
    }

    fn cut_if_full(&self, shared: &Shared, wal: &mut wal::Wal) {
        match wal.cut_if_full() {
            Ok(true) => {
                let name = wal.segments().last().map(|name| name.to_string()).unwrap_or_default();
                let path = wal.dir().join(name).display().to_string();
                shared.logger.info("created a new WAL segment", &[("path", path.into())]);
            }
            Ok(false) => {}
            Err(error) => fail(shared, &error),
        }
        if let Some(job) = wal.prepare_next() {
            self.ahead.push(Some(job));
        }
    }

    /// Runs the log thread until it is told to stop.
    pub(crate) fn run(&self, shared: &Arc<Shared>) {
        let mut jobs = Vec::new();
        let mut run = Vec::new();
        let mut postponed: Option<Postponed> = None;
        loop {
            match &postponed {
                Some(snapshot) => self.jobs.take_until(snapshot.due, &mut jobs),
                None => self.jobs.take_any(&mut jobs),
            }
            let mut rest = jobs.drain(..).peekable();
            while let Some(job) = rest.next() {
                match job {
                    Job::Append(append) => {
                        run.push(append);
                        while let Some(Job::Append(append)) = rest.next_if(|job| matches!(job, Job::Append(_))) {
                            run.push(append);
                        }
                        self.append_run(shared, &mut run);
                    }
                    Job::Snapshot(local) => {
                        postponed = self.snapshot(shared, local);
                        let what = postponed.as_ref().map(|postponed| postponed.what.clone());
                        self.done(shared, what.map(MemberInput::NoSpace));
                    }
                    Job::Stop => {
                        self.done(shared, None);
                        self.ahead.push(None);
                        return;
                    }
                }
            }
            if let Some(snapshot) = postponed.take_if(|snapshot| snapshot.due <= Instant::now()) {
                postponed = self.snapshot(shared, snapshot.local);
            }
        }
    }

    /// Writes batches that gathered while the one before them was synced: they share one sync, and one report, since a
    /// report covers all before it.
    fn append_run(&self, shared: &Shared, run: &mut Vec<Append>) {
        while !run.is_empty() {
            let done = self.append(shared, run);
            let ready = run[done - 1].ready;
            run.drain(..done);
            self.under_way.fetch_sub(done as u64 - 1, Ordering::AcqRel);
            self.done(shared, Some(MemberInput::Persisted(ready)));
        }
    }

    /// A job is done; the count goes down before anybody can act on the answer.
    fn done(&self, shared: &Shared, answer: Option<MemberInput>) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        if let Some(answer) = answer {
            shared.member.push(answer);
        }
    }

    /// Records a snapshot. Without room it is to be tried again: until then the log keeps what only older ones need,
    /// and appends go on. Nothing is half done then: the file was written under another name, and the record not at
    /// all.
    fn snapshot(&self, shared: &Shared, local: Box<LocalSnapshot>) -> Option<Postponed> {
        let mut wal = self.wal.lock();
        let start = Instant::now();
        match snapshot::save(&*shared.disk, &shared.core.snap_dir(), &mut wal, &local) {
            Ok(()) => {
                // Nearly all of it is the sync of a small file.
                shared.metrics.snap_save.observe(start.elapsed());
                shared.metrics.snap_fsync.observe(start.elapsed());
                shared.member.push(MemberInput::SnapshotSaved(local.index));
                None
            }
            Err(error @ wal::Error::NoSpace(_)) => {
                Some(Postponed { local, due: Instant::now() + NO_SPACE_RETRY, what: error.to_string() })
            }
            Err(error) => fail(shared, &error),
        }
    }

    /// Runs the thread that works ahead of the log until the log thread has ended.
    pub(crate) fn run_ahead(&self, shared: &Arc<Shared>) {
        if let Some(job) = self.wal.lock().prepare_next() {
            self.ahead.push(Some(job));
        }
        let mut jobs = Vec::new();
        loop {
            self.ahead.take_any(&mut jobs);
            for job in jobs.drain(..) {
                let Some(mut job) = job else { return };
                loop {
                    match job.step() {
                        Ok(true) if shared.stops() => break,
                        Ok(true) => {}
                        Ok(false) => break,
                        // The present segment still has a little room: time to raise the alarm, not to end.
                        Err(error @ wal::Error::NoSpace(_)) => {
                            shared.member.push(MemberInput::NoSpace(error.to_string()));
                            break;
                        }
                        Err(error) => fail(shared, &error),
                    }
                }
            }
        }
    }
}

/// Tries a batch that found no room until there is some, or the process is told to stop.
fn wait_for_room(shared: &Shared, wal: &mut wal::Wal, append: &Append, error: &wal::Error) -> wal::Written {
    loop {
        shared.member.push(MemberInput::NoSpace(error.to_string()));
        std::thread::sleep(NO_SPACE_RETRY);
        match wal.write(&append.entries, append.hard_state.as_ref()) {
            Ok(written) => return written,
            Err(wal::Error::NoSpace(_)) if !shared.stops() => {}
            Err(error) => fail(shared, &error),
        }
    }
}

fn fail(shared: &Shared, error: &wal::Error) -> ! {
    if matches!(error, wal::Error::Failed) {
        // It failed on another thread, which ends the process and can say why.
        std::thread::sleep(Duration::from_secs(1));
    }
    let fields = fields_of_end(error, error.is_no_space());
    shared.logger.fatal("failed to save Raft hard state and entries", &fields)
}

/// Writes down a snapshot that the leader sent, before the entries that follow it.
fn received_snapshot(shared: &Shared, wal: &mut wal::Wal, received: &raftpb::Snapshot) {
    loop {
        match snapshot::save_received(&*shared.disk, &shared.core.snap_dir(), wal, received) {
            Ok(()) => return,
            Err(error @ wal::Error::NoSpace(_)) if !shared.stops() => {
                shared.member.push(MemberInput::NoSpace(error.to_string()));
                std::thread::sleep(NO_SPACE_RETRY);
            }
            Err(error) => fail(shared, &error),
        }
    }
}
