//! Records of a row of segments, read in steps: memory is bounded by the longest record, not by the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{Disk, File, OpenMode};

use crate::decoder::{Decoder, Fault, Frame};
use crate::record::Record;
use crate::segment::SegmentName;
use crate::{Error, Result};

/// Bytes asked for at once.
const STEP: u64 = 256 * 1024;

/// A segment open for reading.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: SegmentName,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
}

/// Opens segments for reading only.
pub(crate) fn open_sources(disk: &dyn Disk, dir: &Path, names: &[SegmentName]) -> Result<Vec<Source>> {
    let mut sources = Vec::with_capacity(names.len());
    for &name in names {
        let path = dir.join(name.to_string());
        let file = Arc::from(disk.open(&path, OpenMode::Read, 0)?);
        sources.push(Source { name, path, file });
    }
    Ok(sources)
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Number of the segment in the row.
    pub(crate) segment: usize,
    /// Where the frame begins in it.
    pub(crate) offset: u64,
}

/// Reads the records of a row of segments.
#[derive(Debug)]
pub(crate) struct LogReader {
    sources: Vec<Source>,
    at: usize,
    decoder: Decoder,
    file_len: u64,
    buffer: Vec<u8>,
    /// Where the buffer stands in the file.
    start: u64,
}

impl LogReader {
    /// At the first record of the first segment.
    pub(crate) fn new(sources: Vec<Source>) -> Result<LogReader> {
        assert!(!sources.is_empty(), "a log has a segment");
        let mut reader = LogReader {
            sources,
            at: 0,
            decoder: Decoder::new(0, 0, false),
            file_len: 0,
            buffer: Vec::new(),
            start: 0,
        };
        reader.enter(0)?;
        Ok(reader)
    }

    fn enter(&mut self, at: usize) -> Result<()> {
        self.at = at;
        self.file_len = self.sources[at].file.len()?;
        self.decoder = Decoder::new(self.decoder.crc(), self.file_len, at + 1 == self.sources.len());
        self.buffer.clear();
        self.start = 0;
        Ok(())
    }

    /// The running checksum.
    pub(crate) fn crc(&self) -> u32 {
        self.decoder.crc()
    }

    /// Where the last good record of the present segment ends.
    pub(crate) fn offset(&self) -> u64 {
        self.decoder.offset()
    }

    /// The segment that is being read.
    pub(crate) fn source(&self) -> &Source {
        &self.sources[self.at]
    }

    fn error(&self, fault: Fault) -> Error {
        let (path, offset) = (self.source().path.clone(), self.decoder.offset());
        match fault {
            Fault::Torn(what) => Error::Torn { path, offset, what },
            Fault::Corrupt(what) => Error::Corrupt { path, offset, what },
        }
    }

    /// The next record; `None` behind the last one.
    pub(crate) fn next(&mut self) -> Result<Option<(Position, Record<'_>)>> {
        let Some((record_len, frame_len)) = self.next_frame()? else { return Ok(None) };
        let position = Position { segment: self.at, offset: self.decoder.offset() };
        let at = (self.decoder.offset() - self.start) as usize;
        match self.decoder.take(&self.buffer[at..at + frame_len], record_len) {
            Ok(record) => Ok(Some((position, record))),
            Err(fault) => Err(self.error(fault)),
        }
    }

    /// Makes sure that the next whole frame is in the buffer, in the next segment if need be.
    fn next_frame(&mut self) -> Result<Option<(usize, usize)>> {
        loop {
            let at = (self.decoder.offset() - self.start) as usize;
            match self.decoder.frame(&self.buffer[at..]) {
                Ok(Frame::Whole { record, len }) => return Ok(Some((record, len))),
                Ok(Frame::More(bytes)) => self.fill(bytes)?,
                Ok(Frame::End) if self.at + 1 < self.sources.len() => self.enter(self.at + 1)?,
                Ok(Frame::End) => return Ok(None),
                Err(fault) => return Err(self.error(fault)),
            }
        }
    }

    /// Reads so that at least `bytes` are there from the offset on; the decoder never asks beyond the file's end.
    fn fill(&mut self, bytes: u64) -> Result<()> {
        let offset = self.decoder.offset();
        self.buffer.drain(..(offset - self.start) as usize);
        self.start = offset;
        let there = self.buffer.len();
        let wanted = bytes.max(STEP).min(self.file_len - offset) as usize;
        self.buffer.resize(wanted, 0);
        self.sources[self.at].file.read_exact_at(&mut self.buffer[there..], offset + there as u64)?;
        Ok(())
    }
}
