//! Zero-filling ahead of the log, on another thread than the log's.
//!
//! A sync that only overwrites blocks written before is a flush of the device; one that touches blocks for the first
//! time is a commit of the file system's journal, which takes twice as long. So zeros are written ahead of the log, a
//! window in the segment in use and the beginning of the next one, whose room is reserved in full at once. Where
//! nobody runs the job, the log works all the same, only slower.
//!
//! # Invariants
//!
//! 1. Of the segment in use, the job writes only at or behind `zeroed_to`, and only under the lock; the log writes
//!    before `zeroed_to` without the lock, and moves `zeroed_to` behind its own write first when it must go beyond.
//!    So the two never write the same bytes at once.
//! 2. `next` is created under the lock, so there is never more than one.
//! 3. One job is out at a time, and asking for one takes the lock only when none is.
//! 4. A failed write or sync of the segment in use sets `failed`, because the kernel reports such an error once, and
//!    here it would be the job that hears it. The log refuses everything from then on. A next segment of which a
//!    write or sync failed is not used; if it was for want of room, though its room was reserved (a file system that
//!    writes elsewhere than it reserved), it is given up like one that could not be created.
//! 5. No room for the next segment is no error while the log has room without it. It is told of when little is left,
//!    early enough for the entries that make room.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use disk::{Disk, File};
use parking_lot::Mutex;

use crate::segment::{self, PREPARED_SUFFIX};
use crate::{Error, Result};

/// Zeros are kept this far ahead of the log.
const WINDOW: u64 = 16 << 20;
/// The job is worth starting when less than this is left of the window.
const WINDOW_LOW: u64 = 8 << 20;
/// After there was no room for the next segment, the log must grow by this before it is tried again: on a full disk
/// every append would try otherwise.
const RETRY: u64 = 1 << 20;
/// So much room, in the segment in use and beside it, is little: an eighth of a segment of etcd's length.
const LOW: u64 = 8 << 20;
/// Zeros written by one step.
const STEP: u64 = 256 << 10;

/// What the log and its job share.
#[derive(Debug)]
pub(crate) struct Ahead {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    offset: AtomicU64,
    zeroed_to: AtomicU64,
    failed: AtomicBool,
    job_is_out: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tail: Arc<dyn File>,
    /// End of the room reserved in the segment in use; the job stays before it.
    limit: u64,
    next_sequence: u64,
    next: Option<Prepared>,
    /// Before the log reaches this offset, no job tries to create `next`.
    retry_at: u64,
}

/// The next segment, still under its preliminary name.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    zeroed_to: u64,
}

/// The preliminary name of a segment: two in turn, as in etcd.
pub(crate) fn prepared_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{}{PREPARED_SUFFIX}", sequence % 2))
}

/// The segment in use, as the log takes it up.
pub(crate) struct Tail {
    pub(crate) file: Arc<dyn File>,
    pub(crate) sequence: u64,
    /// Where the log goes on.
    pub(crate) offset: u64,
    /// End of the reserved room.
    pub(crate) limit: u64,
}

impl Ahead {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64, tail: Tail) -> Arc<Ahead> {
        let state = State {
            tail: tail.file,
            limit: tail.limit,
            next_sequence: tail.sequence + 1,
            next: None,
            retry_at: 0,
        };
        Arc::new(Ahead {
            disk,
            dir,
            segment_bytes,
            offset: AtomicU64::new(tail.offset),
            zeroed_to: AtomicU64::new(tail.offset),
            failed: AtomicBool::new(false),
            job_is_out: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Before the log writes up to `end` in the segment in use.
    pub(crate) fn claim(&self, end: u64) {
        if end > self.zeroed_to.load(Ordering::Acquire) {
            let _no_step_now = self.state.lock();
            self.zeroed_to.fetch_max(end, Ordering::AcqRel);
        }
    }

    /// After the log has written up to `end`.
    pub(crate) fn written(&self, end: u64) {
        self.offset.store(end, Ordering::Release);
    }

    /// The reserved room of the segment in use has grown.
    pub(crate) fn grown(&self, limit: u64) {
        self.state.lock().limit = limit;
    }

    /// Puts the next segment in the place of the one in use, creating it now if no job has; the log is going to write
    /// `header` bytes at its beginning. Nothing changes when there is no room.
    pub(crate) fn switch(&self, header: u64) -> Result<Prepared> {
        let mut state = self.state.lock();
        let prepared = match state.next.take() {
            Some(prepared) => prepared,
            None => self.create(state.next_sequence)?,
        };
        state.tail = Arc::clone(&prepared.file);
        state.limit = self.segment_bytes;
        state.next_sequence += 1;
        state.retry_at = 0;
        self.offset.store(header, Ordering::Release);
        self.zeroed_to.store(prepared.zeroed_to.max(header), Ordering::Release);
        Ok(prepared)
    }

    fn create(&self, sequence: u64) -> Result<Prepared> {
        let path = prepared_path(&self.dir, sequence);
        let file = segment::create(&*self.disk, &path, self.segment_bytes)?;
        Ok(Prepared { file, path, zeroed_to: 0 })
    }

    /// A job, when there is work and no job is out.
    pub(crate) fn job(self: &Arc<Ahead>) -> Option<PrepareJob> {
        if self.has_failed() || self.job_is_out.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state.lock();
        let is_low = self.zeroed_to.load(Ordering::Acquire)
            < state.limit.min(self.offset.load(Ordering::Acquire) + WINDOW_LOW);
        let first_window = WINDOW.min(self.segment_bytes);
        let wants_next = match &state.next {
            Some(next) => next.zeroed_to < first_window,
            None => self.offset.load(Ordering::Acquire) >= state.retry_at,
        };
        if !is_low && !wants_next {
            return None;
        }
        self.job_is_out.store(true, Ordering::Release);
        Some(PrepareJob { ahead: Arc::clone(self), zeros: vec![0; STEP as usize], unsynced: Vec::new() })
    }

    /// A write or sync of this file failed, and the kernel will not say so again. Returns what is to be told of it.
    fn heard_error(&self, file: &Arc<dyn File>, error: disk::Error) -> Result<()> {
        let mut state = self.state.lock();
        let Some(next) = state.next.take_if(|next| Arc::ptr_eq(&next.file, file)) else {
            self.fail();
            return Err(Error::Disk(error));
        };
        if !error.is_no_space() {
            return Err(Error::Disk(error));
        }
        // What it takes may be what the log needs.
        self.disk.remove_file(&next.path)?;
        self.without_next(&mut state, error)
    }

    /// There is no room for the next segment: an error only if little is left without it.
    fn without_next(&self, state: &mut State, error: disk::Error) -> Result<()> {
        let offset = self.offset.load(Ordering::Acquire);
        state.retry_at = offset + RETRY.min(self.segment_bytes / 64);
        let beside = self.disk.free_bytes(&self.dir)?;
        let left = state.limit.saturating_sub(offset).saturating_add(beside);
        if left < LOW.min(self.segment_bytes / 8) { Err(Error::NoSpace(error)) } else { Ok(()) }
    }
}

/// Zeros written by one step.
struct Step {
    file: Arc<dyn File>,
    offset: u64,
    len: u64,
    written: disk::Result<()>,
}

/// Work on the bytes ahead of the log, for a thread that may wait for the disk. One is out at a time; dropping it
/// early loses nothing.
#[derive(Debug)]
pub struct PrepareJob {
    ahead: Arc<Ahead>,
    zeros: Vec<u8>,
    unsynced: Vec<Arc<dyn File>>,
}

impl PrepareJob {
    /// Does a bounded piece of it, a write of 256 KiB or a sync; `true` while there is more.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: there is no room for the next segment, and little in the present one and beside it. The log
    /// goes on as long as that lasts; ask for a job again later. Anything else: if it was about the segment in use, the log is dead.
    pub fn step(&mut self) -> Result<bool> {
        if self.ahead.has_failed() {
            return Err(Error::Failed);
        }
        if let Some(Step { file, offset, len, written }) = self.write_zeros()? {
            let done = written.and_then(|()| file.start_write_back(offset, len));
            if let Err(error) = done {
                return self.heard_error(&file, error);
            }
            if !self.unsynced.iter().any(|known| Arc::ptr_eq(known, &file)) {
                self.unsynced.push(file);
            }
            return Ok(true);
        }
        if let Some(file) = self.unsynced.pop() {
            if let Err(error) = file.sync_data() {
                return self.heard_error(&file, error);
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Does all of it.
    ///
    /// # Errors
    /// As [`PrepareJob::step`].
    pub fn run(mut self) -> Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// `true`, since there may be more to do, if the log is as well without this file.
    fn heard_error(&mut self, file: &Arc<dyn File>, error: disk::Error) -> Result<bool> {
        self.ahead.heard_error(file, error)?;
        self.unsynced.retain(|known| !Arc::ptr_eq(known, file));
        Ok(true)
    }

    /// Writes one step of zeros where they are needed first; `None` when they are everywhere.
    fn write_zeros(&mut self) -> Result<Option<Step>> {
        let ahead = &self.ahead;
        let mut state = ahead.state.lock();
        let at = ahead.zeroed_to.load(Ordering::Acquire);
        let end = state.limit.min(ahead.offset.load(Ordering::Acquire) + WINDOW);
        if at < end {
            let len = STEP.min(end - at);
            let written = state.tail.write_all_at(&self.zeros[..len as usize], at);
            ahead.zeroed_to.store(at + len, Ordering::Release);
            return Ok(Some(Step { file: Arc::clone(&state.tail), offset: at, len, written }));
        }
        if state.next.is_none() {
            let offset = ahead.offset.load(Ordering::Acquire);
            if offset < state.retry_at {
                return Ok(None);
            }
            match ahead.create(state.next_sequence) {
                Ok(next) => state.next = Some(next),
                Err(Error::NoSpace(error)) => return ahead.without_next(&mut state, error).map(|()| None),
                Err(error) => return Err(error),
            }
        }
        let end = WINDOW.min(ahead.segment_bytes);
        let Some(next) = state.next.as_mut().filter(|next| next.zeroed_to < end) else { return Ok(None) };
        let (at, len) = (next.zeroed_to, STEP.min(end - next.zeroed_to));
        let written = next.file.write_all_at(&self.zeros[..len as usize], at);
        next.zeroed_to += len;
        Ok(Some(Step { file: Arc::clone(&next.file), offset: at, len, written }))
    }
}

impl Drop for PrepareJob {
    fn drop(&mut self) {
        self.ahead.job_is_out.store(false, Ordering::Release);
    }
}
