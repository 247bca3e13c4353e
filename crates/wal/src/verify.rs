//! One walk that defines a valid log.
//!
//! What it checks, beyond what every reader does (frames, checksums, types):
//! 1. sequence numbers rise by one;
//! 2. every segment begins with its checksum record, then metadata, equal in all;
//! 3. entries leave no gap, and terms do not fall from one entry to the next;
//! 4. the term of the hard state does not fall, the commit index neither, and it never exceeds what is in the log;
//! 5. the index in a segment's name is not above the next entry's.

use std::path::{Path, PathBuf};

use api::raftpb::{Entry, HardState};
use api::walpb;
use api::wire;
use bytes::Bytes;
use disk::Disk;

use crate::reader::{LogReader, open_sources};
use crate::record::{Kind, Record};
use crate::segment::{self, SegmentName};
use crate::{Error, Result};

/// What a walk over a log found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Ids of member and cluster, encoded.
    pub metadata: Bytes,
    /// Index of the first and last entry that counts.
    pub entries: Option<(u64, u64)>,
    /// All snapshot records.
    pub snapshots: Vec<walpb::Snapshot>,
    /// The last hard state.
    pub hard_state: HardState,
    /// What is incomplete at the end, if anything; opening for writing repairs it.
    pub torn: Option<String>,
    /// What is wrong; a damaged record ends the walk.
    pub problems: Vec<Problem>,
}

/// A segment as a walk saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its name.
    pub name: SegmentName,
    /// Length of the file.
    pub len: u64,
    /// Where its records end.
    pub data_end: u64,
    /// Records in it.
    pub records: u64,
}

/// Something that no log may contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The segment.
    pub path: PathBuf,
    /// Where.
    pub offset: u64,
    /// What.
    pub what: String,
}

/// Walks over a whole log without locking or changing it.
///
/// # Errors
/// There is none, or it cannot be read. What is wrong *in* it stands in the report.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Report> {
    let names = segment::list(disk, dir)?;
    if names.is_empty() {
        return Err(Error::NotFound(dir.to_path_buf()));
    }
    let mut walk = Walk::default();
    if let Err(error) = segment::contiguous(dir, &names) {
        walk.report.problems.push(Problem { path: dir.to_path_buf(), offset: 0, what: error.to_string() });
    }
    let sources = open_sources(disk, dir, &names)?;
    for source in &sources {
        let len = source.file.len()?;
        walk.report.segments.push(SegmentReport { name: source.name, len, data_end: 0, records: 0 });
    }
    let mut reader = LogReader::new(sources)?;
    loop {
        let (at, found) = match reader.next() {
            Ok(Some((position, record))) => {
                let found = walk.take(position.segment, &record);
                (position.segment, found.map_err(|what| (position.offset, what)))
            }
            Ok(None) => break,
            Err(Error::Torn { what, .. }) => {
                walk.report.torn = Some(what);
                break;
            }
            Err(Error::Corrupt { path, offset, what }) => {
                walk.report.problems.push(Problem { path, offset, what });
                break;
            }
            Err(error) => return Err(error),
        };
        if let Err((offset, what)) = found {
            walk.report.problems.push(Problem { path: reader.source().path.clone(), offset, what });
        }
        let segment = &mut walk.report.segments[at];
        segment.records += 1;
        segment.data_end = reader.offset();
    }
    Ok(walk.report)
}

#[derive(Default)]
struct Walk {
    report: Report,
    segment: Option<usize>,
    records_in_segment: u64,
    has_metadata: bool,
    /// Index and term of the last entry or snapshot.
    last: Option<(u64, u64)>,
    /// The highest index seen, which commit may not exceed.
    highest: u64,
}

type Found = std::result::Result<(), String>;

fn decode<M: prost::Message + prost::Name + Default>(record: &Record<'_>) -> std::result::Result<M, String> {
    wire::decode(Bytes::copy_from_slice(record.data)).map_err(|error| format!("{:?}: {error}", record.kind))
}

fn expect(is_right: bool, what: impl FnOnce() -> String) -> Found {
    if is_right { Ok(()) } else { Err(what()) }
}

impl Walk {
    fn take(&mut self, segment: usize, record: &Record<'_>) -> Found {
        if self.segment != Some(segment) {
            let index = self.report.segments[segment].name.index;
            if self.segment.is_none() && index > 0 {
                // The log before this segment is gone: its name says how far that went.
                self.last = Some((index - 1, 0));
                self.highest = index - 1;
            }
            self.segment = Some(segment);
            self.records_in_segment = 0;
            expect(index <= self.highest + 1, || {
                format!(
                    "the segment's name begins at index {index}, the log before it ends at {}",
                    self.highest
                )
            })?;
        }
        self.records_in_segment += 1;
        let expected = match self.records_in_segment {
            1 => Some(Kind::Crc),
            2 => Some(Kind::Metadata),
            _ => None,
        };
        expect(expected.is_none_or(|kind| kind == record.kind), || {
            format!("{:?} where a segment has {expected:?}", record.kind)
        })?;
        match record.kind {
            Kind::Crc => Ok(()),
            Kind::Metadata => self.take_metadata(record.data),
            Kind::Entry => self.take_entry(&decode(record)?),
            Kind::State => self.take_state(decode(record)?),
            Kind::Snapshot => {
                let snapshot: walpb::Snapshot = decode(record)?;
                let (index, term) = (snapshot.index.unwrap_or(0), snapshot.term.unwrap_or(0));
                self.report.snapshots.push(snapshot);
                if self.last.is_none_or(|(last, _)| index > last) {
                    // Received, not taken here: the log starts anew behind it. Entries beyond it may have been there
                    // that were overwritten since.
                    self.last = Some((index, term));
                }
                self.highest = self.highest.max(index);
                Ok(())
            }
        }
    }

    fn take_metadata(&mut self, data: &[u8]) -> Found {
        let is_same = !self.has_metadata || self.report.metadata == data;
        self.has_metadata = true;
        self.report.metadata = Bytes::copy_from_slice(data);
        expect(is_same, || "metadata differs from that of the log's beginning".to_owned())
    }

    fn take_entry(&mut self, entry: &Entry) -> Found {
        let (index, term) = (entry.index.unwrap_or(0), entry.term.unwrap_or(0));
        let before = self.last.replace((index, term));
        let first = self.report.entries.map_or(index, |(first, _)| first.min(index));
        self.report.entries = Some((first, index));
        self.highest = self.highest.max(index);
        expect(index > 0, || "an entry with index 0".to_owned())?;
        let Some((last, last_term)) = before else { return Ok(()) };
        expect(index <= last + 1, || format!("entry {index} follows entry {last}"))?;
        expect(index != last + 1 || term >= last_term, || {
            format!("entry {index} has term {term}, the one before it {last_term}")
        })
    }

    fn take_state(&mut self, state: HardState) -> Found {
        let before = std::mem::replace(&mut self.report.hard_state, state);
        let (term, commit) = (state.term.unwrap_or(0), state.commit.unwrap_or(0));
        expect(term >= before.term.unwrap_or(0), || format!("the term falls to {term}"))?;
        expect(commit >= before.commit.unwrap_or(0), || format!("the commit index falls to {commit}"))?;
        expect(commit <= self.highest || self.last.is_none(), || {
            format!("commit index {commit}, but the log ends at {}", self.highest)
        })
    }
}
