//! The log open for writing.
//!
//! # Invariants
//!
//! 1. Everything before `offset` in the last segment is whole records; everything behind it is zeros, or the file
//!    ends. So a reader stops where the log stops.
//! 2. A batch is one contiguous write: entries, then the hard state. Its checksum, offset and last index become the
//!    log's own only after that write.
//! 3. A write never depends on luck for room: the segment's room is reserved when it is created, and growth beyond it
//!    is reserved before the write. On a full disk the next segment, if it is prepared, is taken up early. No room is
//!    an answer that leaves what was written as it was.
//! 4. After a failed write, truncation, rename or sync nothing is written any more (`Error::Failed`): what the disk
//!    holds is unknown, and asking again could make a lost write look durable.
//! 5. A cut is complete before anything is appended behind it: the old segment is truncated to its records and
//!    synced, then the new one gets checksum, metadata and hard state, is synced, renamed, and its directory synced.
//!    So every segment but the last is whole, whatever happens.
//! 6. Every segment that may still be needed is locked; `release_to` gives locks back, and only unlocked segments are
//!    purged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::raftpb::HardState;
use api::walpb;
use bytes::Bytes;
use disk::{Disk, File, OpenMode};

use crate::ahead::{Ahead, PrepareJob, Tail};
use crate::encoder::Encoder;
use crate::mutant::Mutant;
use crate::record::{self, Kind};
use crate::segment::{self, DIR_MODE, FILE_MODE, SegmentName};
use crate::{Error, Result};

/// A buffer that a large batch has grown past this is given back.
const BUFFER_KEPT: usize = 1 << 20;
/// Growth beyond the reserved room is reserved in steps of this.
const GROW: u64 = 64 << 10;
/// A frame is at most this much longer than its content: length field, tags, checksum, length, padding.
const FRAME_OVERHEAD: usize = 40;
/// A hard state is at most this long.
const STATE_MAX: usize = 3 * (1 + api::wire::VARINT_LEN_MAX);

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Length of a fresh segment; a cut follows the write that reaches it.
    pub segment_bytes: u64,
    /// Whether anything is synced at all. Without it a power cut can lose and damage everything.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64_000_000, sync: true }
    }
}

/// A log entry as it goes to disk and to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The encoded `raftpb.Entry`.
    pub bytes: Bytes,
}

/// What [`Wal::write`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes added to the log.
    pub bytes: u64,
    /// Whether a sync must follow before anybody relies on it.
    pub needs_sync: bool,
}

/// A segment held open.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    pub(crate) file: Arc<dyn File>,
}

/// The raft log, open for writing.
#[derive(Debug)]
pub struct Wal {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) metadata: Bytes,
    /// Locked segments, oldest first; the last one is written to.
    pub(crate) segments: Vec<Segment>,
    pub(crate) encoder: Encoder,
    pub(crate) offset: u64,
    /// End of the room reserved in the last segment.
    pub(crate) reserved: u64,
    /// Whether nothing stands in the last segment but what it begins with.
    pub(crate) is_fresh: bool,
    /// Index of the last entry or snapshot written.
    pub(crate) last_index: u64,
    pub(crate) hard_state: HardState,
    pub(crate) buffer: Vec<u8>,
    pub(crate) ahead: Arc<Ahead>,
}

impl Wal {
    /// Creates a log with etcd's segment length; see [`Wal::create_with`].
    ///
    /// # Errors
    /// As there.
    pub fn create(disk: &Arc<dyn Disk>, dir: &Path, metadata: &[u8]) -> Result<Wal> {
        Wal::create_with(disk, dir, metadata, Options::default())
    }

    /// Creates a log: under the name `DIR.tmp`, renamed when it is whole. A rest of an earlier attempt is removed.
    ///
    /// # Errors
    /// There is a log already ([`Error::Exists`]), or something that is not of a log ([`Error::Foreign`]); no room;
    /// the disk refuses.
    pub fn create_with(disk: &Arc<dyn Disk>, dir: &Path, metadata: &[u8], options: Options) -> Result<Wal> {
        assert!(options.segment_bytes > 0, "a segment has room");
        let replaces = check_free(&**disk, dir)?;
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(segment::PREPARED_SUFFIX);
        let parent = dir.parent().unwrap_or(Path::new(""));
        let preliminary = parent.join(name);
        if disk.metadata(&preliminary)?.is_some() {
            disk.remove_dir_all(&preliminary)?;
        }
        disk::create_dir_durable(&**disk, &preliminary, DIR_MODE)?;

        let first = SegmentName { sequence: 0, index: 0 };
        let file = segment::create(&**disk, &preliminary.join(first.to_string()), options.segment_bytes)?;
        let mut encoder = Encoder::default();
        let mut header = Vec::new();
        encoder.put_crc(&mut header);
        encoder.put(Kind::Metadata, metadata, &mut header);
        let mut snapshot = Vec::new();
        record::put_snapshot(&walpb::Snapshot::default(), &mut snapshot);
        encoder.put(Kind::Snapshot, &snapshot, &mut header);
        file.write_all_at(&header, 0)?;
        file.sync_data()?;
        disk.sync_dir(&preliminary)?;
        if replaces {
            disk.remove_dir_all(dir)?;
        }
        disk.rename(&preliminary, dir)?;
        disk.sync_dir(parent)?;

        let offset = header.len() as u64;
        let limit = options.segment_bytes.max(offset);
        let tail = Tail { file: Arc::clone(&file), sequence: 0, offset, limit };
        Ok(Wal {
            ahead: Ahead::new(Arc::clone(disk), dir.to_path_buf(), options.segment_bytes, tail),
            disk: Arc::clone(disk),
            dir: dir.to_path_buf(),
            options,
            metadata: Bytes::copy_from_slice(metadata),
            segments: vec![Segment { name: first, file }],
            encoder,
            offset,
            reserved: limit,
            is_fresh: true,
            last_index: 0,
            hard_state: HardState::default(),
            buffer: Vec::new(),
        })
    }

    /// The log's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Index of the last entry or snapshot written.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Where the next record goes in the last segment.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Names of the segments held open, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.segments.iter().map(|segment| segment.name)
    }

    fn tail(&self) -> &Segment {
        self.segments.last().expect("a log has a segment")
    }

    fn check_alive(&self) -> Result<()> {
        if self.ahead.has_failed() { Err(Error::Failed) } else { Ok(()) }
    }

    /// Passes a result on; an error kills the log first.
    fn or_fail<T>(&self, done: disk::Result<T>) -> Result<T> {
        done.map_err(|error| {
            self.ahead.fail();
            Error::Disk(error)
        })
    }

    /// Writes a batch, syncs it if it must be durable (entries, a new term or vote, or `must_sync`), and cuts the
    /// segment if it is full.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing was written. Otherwise the log is dead.
    pub fn append(
        &mut self,
        entries: &[EncodedEntry],
        hard_state: Option<&HardState>,
        must_sync: bool,
    ) -> Result<()> {
        let written = self.write(entries, hard_state)?;
        if written.needs_sync || must_sync {
            self.sync()?;
        }
        self.cut_if_full()?;
        Ok(())
    }

    /// The first third of [`Wal::append`], for those who measure: writes a batch without a sync.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn write(&mut self, entries: &[EncodedEntry], hard_state: Option<&HardState>) -> Result<Written> {
        self.check_alive()?;
        let hard_state = hard_state.filter(|state| !record::is_empty(state));
        if entries.is_empty() && hard_state.is_none() {
            return Ok(Written::default());
        }
        for pair in entries.windows(2) {
            assert_eq!(pair[0].index + 1, pair[1].index, "entries of a batch follow each other");
        }
        if let Some(first) = entries.first() {
            assert!(
                first.index <= self.last_index + 1,
                "entry {} after {} would leave a gap",
                first.index,
                self.last_index
            );
        }
        let content: usize = entries.iter().map(|entry| entry.bytes.len() + FRAME_OVERHEAD).sum();
        self.make_room((content + STATE_MAX + FRAME_OVERHEAD) as u64)?;
        let mut encoder = self.encoder;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for entry in entries {
            encoder.put(Kind::Entry, &entry.bytes, &mut buffer);
        }
        if let Some(state) = hard_state {
            let mut data = Vec::with_capacity(STATE_MAX);
            record::put_hard_state(state, &mut data);
            encoder.put(Kind::State, &data, &mut buffer);
        }
        let bytes = buffer.len() as u64;
        let done = self.write_frames(&buffer, encoder);
        self.buffer = buffer;
        self.buffer.shrink_to(BUFFER_KEPT);
        done?;

        let is_promise = hard_state.is_some_and(|state| record::differs_in_promise(state, &self.hard_state));
        if let Some(last) = entries.last() {
            self.last_index = last.index;
        }
        if let Some(state) = hard_state {
            self.hard_state = *state;
        }
        Ok(Written { bytes, needs_sync: !entries.is_empty() || is_promise })
    }

    /// One write behind the last record, for which there is room.
    fn write_frames(&mut self, frames: &[u8], encoder: Encoder) -> Result<()> {
        let end = self.offset + frames.len() as u64;
        assert!(end <= self.reserved, "room was made for {end}, reserved is {}", self.reserved);
        self.ahead.claim(end);
        self.or_fail(self.tail().file.write_all_at(frames, self.offset))?;
        self.ahead.written(end);
        self.is_fresh = false;
        self.offset = end;
        self.encoder = encoder;
        Ok(())
    }

    /// Sees to it that the next `bytes` can be written: in the present segment, grown if need be, else in the next.
    fn make_room(&mut self, bytes: u64) -> Result<()> {
        loop {
            let end = self.offset + bytes;
            if end <= self.reserved {
                return Ok(());
            }
            let grown = end.next_multiple_of(GROW);
            match self.tail().file.allocate(self.reserved, grown - self.reserved) {
                Ok(()) => {
                    self.reserved = grown;
                    self.ahead.grown(grown);
                    return Ok(());
                }
                Err(error) if Mutant::NoRoomIsFatal.is_on() => return self.or_fail(Err(error)),
                // Nothing is in the segment yet: another one would not be larger.
                Err(error) if error.is_no_space() && self.is_fresh => return Err(Error::NoSpace(error)),
                Err(error) if error.is_no_space() => self.cut_or_fail()?,
                Err(error) => return self.or_fail(Err(error)),
            }
        }
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The log is dead.
    pub fn sync(&mut self) -> Result<()> {
        self.check_alive()?;
        if !self.options.sync || Mutant::SyncSkipped.is_on() {
            return Ok(());
        }
        self.or_fail(self.tail().file.sync_data())
    }

    /// Whether the present segment has reached its size, so that [`Wal::cut_if_full`] would go over to the next.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.offset >= self.options.segment_bytes
    }

    /// Goes over to the next segment if the present one is full; `true` if it did. Without room for another, the
    /// present one grows on, and the next call tries again.
    ///
    /// # Errors
    /// The log is dead.
    pub fn cut_if_full(&mut self) -> Result<bool> {
        self.check_alive()?;
        if !self.is_full() {
            return Ok(false);
        }
        match self.cut_or_fail() {
            Ok(()) => Ok(true),
            Err(Error::NoSpace(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// [`Error::NoSpace`] leaves the log as it was; any other error kills it.
    fn cut_or_fail(&mut self) -> Result<()> {
        let done = self.cut();
        if !matches!(done, Ok(()) | Err(Error::NoSpace(_))) {
            self.ahead.fail();
        }
        done
    }

    fn cut(&mut self) -> Result<()> {
        let (header, encoder) = self.header();
        let name = SegmentName { sequence: self.tail().name.sequence + 1, index: self.last_index + 1 };
        let next = self.ahead.switch(header.len() as u64)?;

        let old = &self.tail().file;
        old.set_len(self.offset)?;
        if !Mutant::CutUnsynced.is_on() {
            old.sync_data()?;
        }
        next.file.write_all_at(&header, 0)?;
        next.file.sync_data()?;
        self.disk.rename(&next.path, &self.dir.join(name.to_string()))?;
        self.disk.sync_dir(&self.dir)?;

        self.segments.push(Segment { name, file: next.file });
        self.encoder = encoder;
        self.offset = header.len() as u64;
        self.reserved = self.options.segment_bytes.max(self.offset);
        self.is_fresh = true;
        Ok(())
    }

    /// What every segment but the first begins with.
    fn header(&self) -> (Vec<u8>, Encoder) {
        let mut encoder = self.encoder;
        let mut header = Vec::new();
        encoder.put_crc(&mut header);
        encoder.put(Kind::Metadata, &self.metadata, &mut header);
        if !record::is_empty(&self.hard_state) {
            let mut data = Vec::new();
            record::put_hard_state(&self.hard_state, &mut data);
            encoder.put(Kind::State, &data, &mut header);
        }
        (header, encoder)
    }

    /// Writes the beginning of a segment that has none. A cut makes it durable before the segment gets its name, so
    /// this is for file systems that lose what was synced; without it, the segment could not be read by itself.
    pub(crate) fn begin_segment(&mut self) -> Result<()> {
        let (header, encoder) = self.header();
        self.make_room(header.len() as u64)?;
        self.write_frames(&header, encoder)?;
        self.is_fresh = true;
        self.sync()
    }

    /// Sees to it that the commit index in the log is at least `index`, whose entry is known to be committed. A snapshot
    /// record counts from there on only; see [`crate::snapshot_records`].
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn raise_commit(&mut self, index: u64) -> Result<()> {
        if self.hard_state.commit() < index {
            let raised = HardState { commit: Some(index), ..self.hard_state };
            self.write(&[], Some(&raised))?;
        }
        Ok(())
    }

    /// Records that a snapshot was taken or received, durably. Its file must be durable already.
    ///
    /// # Errors
    /// As [`Wal::append`].
    pub fn save_snapshot(&mut self, snapshot: &walpb::Snapshot) -> Result<()> {
        self.check_alive()?;
        let index = snapshot.index.unwrap_or(0);
        assert!(
            index == 0 || snapshot.conf_state.is_some(),
            "snapshot {index}: Go refuses a record without configuration"
        );
        let mut data = Vec::new();
        record::put_snapshot(snapshot, &mut data);
        self.make_room((data.len() + FRAME_OVERHEAD) as u64)?;
        let mut encoder = self.encoder;
        let mut frame = Vec::new();
        encoder.put(Kind::Snapshot, &data, &mut frame);
        self.write_frames(&frame, encoder)?;
        self.last_index = self.last_index.max(index);
        self.sync()
    }

    /// Gives back the locks of segments that a start at this index does not need, so that [`segment::purge`] may
    /// remove them.
    pub fn release_to(&mut self, index: u64) {
        // The last segment that begins below the index may still hold the entry behind it.
        let kept = match self.segments.iter().position(|segment| segment.name.index >= index) {
            Some(at) => at.saturating_sub(1),
            None => self.segments.len() - 1,
        };
        self.segments.drain(..kept);
    }

    /// Work for another thread on the bytes ahead of the log; `None` when there is none, or somebody is at it. Cheap
    /// enough to ask after every append.
    pub fn prepare_next(&self) -> Option<PrepareJob> {
        self.ahead.job()
    }
}

/// Whether `dir` is there and must be replaced; an error if it may not be.
fn check_free(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let Some(found) = disk.metadata(dir)? else { return Ok(false) };
    if !found.is_dir {
        return Err(Error::Foreign(dir.to_path_buf()));
    }
    if segment::exists(disk, dir)? {
        return Err(Error::Exists(dir.to_path_buf()));
    }
    for name in disk.read_dir(dir)? {
        if ![segment::PREPARED_SUFFIX, segment::BROKEN_SUFFIX].iter().any(|suffix| name.ends_with(suffix)) {
            return Err(Error::Foreign(dir.join(name)));
        }
    }
    Ok(true)
}

/// Copies a file's first `len` bytes to a new name, durably.
pub(crate) fn copy(disk: &dyn Disk, from: &dyn File, len: u64, to: &Path) -> Result<()> {
    const STEP: u64 = 1 << 20;
    let copy = disk.open(to, OpenMode::Truncate, FILE_MODE)?;
    let mut buffer = vec![0; STEP.min(len) as usize];
    let mut at = 0;
    while at < len {
        let step = STEP.min(len - at) as usize;
        from.read_exact_at(&mut buffer[..step], at)?;
        copy.write_all_at(&buffer[..step], at)?;
        at += step as u64;
    }
    copy.sync_data()?;
    Ok(())
}
