//! Reading a log at start.

use std::path::Path;
use std::sync::Arc;

use api::raftpb::{Entry, HardState};
use api::walpb;
use api::wire;
use bytes::Bytes;
use disk::{Disk, OpenMode};

use crate::ahead::{Ahead, Tail};
use crate::encoder::Encoder;
use crate::reader::{LogReader, Source, open_sources};
use crate::record::{Kind, Record};
use crate::segment::{self, PREPARED_SUFFIX};
use crate::wal::Segment;
use crate::{Error, Options, Result, Wal, repair};

/// What a log holds behind a snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Ids of member and cluster, encoded as `etcdserverpb.Metadata`.
    pub metadata: Bytes,
    /// The last one written; all zero if there was none.
    pub hard_state: HardState,
    /// Entries behind the snapshot, without gap; of several with the same index the one written last.
    pub entries: Vec<Entry>,
    /// Whether the log holds a record of the snapshot it was opened at.
    pub snapshot_found: bool,
    /// Whether an incomplete last write was cut off. (For [`read`]: whether there is one.)
    pub repaired: bool,
}

/// Collects a [`Replay`] record by record.
#[derive(Debug)]
struct Collector {
    start: u64,
    start_term: u64,
    replay: Replay,
    has_metadata: bool,
    /// Index of the last entry or snapshot in the log.
    last_index: u64,
}

impl Collector {
    fn new(start: &walpb::Snapshot) -> Collector {
        Collector {
            start: start.index.unwrap_or(0),
            start_term: start.term.unwrap_or(0),
            replay: Replay::default(),
            has_metadata: false,
            last_index: 0,
        }
    }

    /// Takes a record in; an error is a sentence about what is wrong with it.
    fn take(&mut self, record: &Record<'_>) -> std::result::Result<(), String> {
        match record.kind {
            Kind::Crc => {}
            Kind::Metadata => {
                if self.has_metadata && self.replay.metadata != record.data {
                    return Err("metadata differs from that of the log's beginning".to_owned());
                }
                self.has_metadata = true;
                self.replay.metadata = Bytes::copy_from_slice(record.data);
            }
            Kind::Entry => self.take_entry(decode(record.data, "entry")?)?,
            Kind::State => self.replay.hard_state = decode(record.data, "hard state")?,
            Kind::Snapshot => {
                let snapshot: walpb::Snapshot = decode(record.data, "snapshot record")?;
                let (index, term) = (snapshot.index.unwrap_or(0), snapshot.term.unwrap_or(0));
                if index == self.start {
                    if term != self.start_term {
                        return Err(format!(
                            "the snapshot at index {index} has term {term}, its file has {}",
                            self.start_term
                        ));
                    }
                    self.replay.snapshot_found = true;
                }
                self.last_index = self.last_index.max(index);
            }
        }
        Ok(())
    }

    fn take_entry(&mut self, entry: Entry) -> std::result::Result<(), String> {
        let index = entry.index.unwrap_or(0);
        if let Some(behind) = index.checked_sub(self.start).and_then(|distance| distance.checked_sub(1)) {
            let entries = &mut self.replay.entries;
            if behind > entries.len() as u64 {
                let last = self.start + entries.len() as u64;
                return Err(format!("entry {index} follows entry {last}: entries are missing between them"));
            }
            entries.truncate(behind as usize);
            entries.push(entry);
        }
        self.last_index = index;
        Ok(())
    }
}

fn decode<M>(bytes: &[u8], what: &str) -> std::result::Result<M, String>
where
    M: prost::Message + prost::Name + Default,
{
    wire::decode(Bytes::copy_from_slice(bytes)).map_err(|error| format!("{what}: {error}"))
}

/// What reading came to.
struct Outcome {
    collector: Collector,
    crc: u32,
    end: u64,
}

fn replay(sources: Vec<Source>, start: &walpb::Snapshot, may_be_torn: bool) -> Result<Outcome> {
    let mut reader = LogReader::new(sources)?;
    let mut collector = Collector::new(start);
    loop {
        let taken = match reader.next() {
            Ok(None) => break,
            Ok(Some((position, record))) => collector.take(&record).map_err(|what| (position.offset, what)),
            Err(Error::Torn { .. }) if may_be_torn => {
                collector.replay.repaired = true;
                break;
            }
            Err(error) => return Err(error),
        };
        if let Err((offset, what)) = taken {
            return Err(Error::corrupt(&reader.source().path, offset, what));
        }
    }
    if !collector.has_metadata {
        return Err(Error::corrupt(&reader.source().path, 0, "the log does not say whose it is"));
    }
    Ok(Outcome { collector, crc: reader.crc(), end: reader.offset() })
}

/// Reads a log behind a snapshot without locking or changing it; an incomplete last write is left out.
///
/// # Errors
/// There is none, part of it is missing, or it is damaged.
pub fn read(disk: &dyn Disk, dir: &Path, start: &walpb::Snapshot) -> Result<Replay> {
    let names = segment::needed(dir, &segment::list(disk, dir)?, start.index.unwrap_or(0))?;
    Ok(replay(open_sources(disk, dir, &names)?, start, true)?.collector.replay)
}

/// The snapshot records that count, oldest first: those that the last commit index covers. A record beyond it may
/// belong to a snapshot that was received but never taken over.
///
/// # Errors
/// There is no log, or it is damaged.
pub fn snapshot_records(disk: &dyn Disk, dir: &Path) -> Result<Vec<walpb::Snapshot>> {
    let names = segment::list(disk, dir)?;
    if names.is_empty() {
        return Err(Error::NotFound(dir.to_path_buf()));
    }
    let mut reader = LogReader::new(open_sources(disk, dir, &names)?)?;
    let mut snapshots: Vec<walpb::Snapshot> = Vec::new();
    let mut commit = 0;
    loop {
        let decoded = match reader.next() {
            Ok(None) | Err(Error::Torn { .. }) => break,
            Ok(Some((position, record))) => match record.kind {
                Kind::Snapshot => decode(record.data, "snapshot record").map(|found| snapshots.push(found)),
                Kind::State => decode(record.data, "hard state")
                    .map(|state: HardState| commit = state.commit.unwrap_or(0)),
                Kind::Crc | Kind::Metadata | Kind::Entry => Ok(()),
            }
            .map_err(|what| (position.offset, what)),
            Err(error) => return Err(error),
        };
        if let Err((offset, what)) = decoded {
            return Err(Error::corrupt(&reader.source().path, offset, what));
        }
    }
    snapshots.retain(|snapshot| snapshot.index.unwrap_or(0) <= commit);
    Ok(snapshots)
}

impl Wal {
    /// Opens a log with etcd's segment length; see [`Wal::open_with`].
    ///
    /// # Errors
    /// As there.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path, start: &walpb::Snapshot) -> Result<(Wal, Replay)> {
        Wal::open_with(disk, dir, start, Options::default())
    }

    /// Opens a log for writing and reads what it holds behind a snapshot. Locks the segments, repairs an incomplete
    /// last write (once), makes sure that only zeros follow the last record, and syncs: what it returns is durable,
    /// also where the process before this one had not synced it yet.
    ///
    /// # Errors
    /// There is no log, part of it is missing, somebody else has it open, it is damaged, or the disk refuses.
    pub fn open_with(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        start: &walpb::Snapshot,
        options: Options,
    ) -> Result<(Wal, Replay)> {
        let names = segment::needed(dir, &segment::list(&**disk, dir)?, start.index.unwrap_or(0))?;
        let mut sources = Vec::with_capacity(names.len());
        for name in names {
            let path = dir.join(name.to_string());
            let file = segment::open_locked(&**disk, &path, OpenMode::ReadWrite)?;
            sources.push(Source { name, path, file });
        }
        let mut repaired = false;
        let outcome = match replay(sources.clone(), start, false) {
            Err(Error::Torn { path, offset, .. }) => {
                let last = sources.last().expect("a log has a segment");
                repair::cut_torn_tail(&**disk, &path, &*last.file, offset)?;
                repaired = true;
                replay(sources.clone(), start, false)?
            }
            outcome => outcome?,
        };
        remove_prepared(&**disk, dir)?;

        let tail = sources.last().expect("a log has a segment");
        let reserved = zero_tail(tail, outcome.end, options.segment_bytes)?;
        if options.sync {
            tail.file.sync_data()?;
            // The name of the last segment may not be durable either.
            disk.sync_dir(dir)?;
        }
        let state = Tail {
            file: Arc::clone(&tail.file),
            sequence: tail.name.sequence,
            offset: outcome.end,
            limit: reserved,
        };
        let Collector { mut replay, last_index, .. } = outcome.collector;
        replay.repaired = repaired;
        let mut wal = Wal {
            ahead: Ahead::new(Arc::clone(disk), dir.to_path_buf(), options.segment_bytes, state),
            disk: Arc::clone(disk),
            dir: dir.to_path_buf(),
            options,
            metadata: replay.metadata.clone(),
            segments: sources.into_iter().map(|s| Segment { name: s.name, file: s.file }).collect(),
            encoder: Encoder::new(outcome.crc),
            offset: outcome.end,
            reserved,
            is_fresh: outcome.end == 0,
            // Without a record of the snapshot (see `snapshot_found`) the log may end before it.
            last_index: last_index.max(start.index.unwrap_or(0)),
            hard_state: replay.hard_state,
            buffer: Vec::new(),
        };
        if wal.offset == 0 {
            wal.begin_segment()?;
        }
        Ok((wal, replay))
    }
}

/// Compares with a constant, which is many times faster than asking every byte.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

/// Removes what a process before this one had prepared: nobody knows what stands in it.
fn remove_prepared(disk: &dyn Disk, dir: &Path) -> Result<()> {
    for name in disk.read_dir(dir)? {
        if name.ends_with(PREPARED_SUFFIX) {
            disk.remove_file(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Overwrites everything behind `end` that is not zero, and reserves room up to a segment's length if there is any.
/// Returns where the reserved room ends. The zeros are written only where they must be, because rewriting in place
/// keeps the blocks, and a reader of a hole costs no disk.
fn zero_tail(tail: &Source, end: u64, segment_bytes: u64) -> Result<u64> {
    const STEP: usize = 1 << 20;
    let mut len = tail.file.len()?;
    let mut buffer = vec![0; STEP.min((len - end) as usize)];
    let mut at = end;
    while at < len {
        let step = (len - at).min(STEP as u64) as usize;
        tail.file.read_exact_at(&mut buffer[..step], at)?;
        if !is_zero(&buffer[..step]) {
            buffer[..step].fill(0);
            tail.file.write_all_at(&buffer[..step], at)?;
        }
        at += step as u64;
    }
    if len < segment_bytes {
        match tail.file.allocate(len, segment_bytes - len) {
            Ok(()) => len = segment_bytes,
            // Nothing has to be written now; the first write that needs the room will say so.
            Err(error) if error.is_no_space() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(len)
}
