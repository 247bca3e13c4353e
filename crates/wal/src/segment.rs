//! Segments: their names, which of them a start needs, which may go.
//!
//! A name is `SSSSSSSSSSSSSSSS-IIIIIIIIIIIIIIII.wal`: sequence number and the index that the first new entry in it has,
//! both in 16 digits of hex. Names that do not parse are ignored, as etcd ignores them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use disk::{Disk, File, LockKind, OpenMode};

use crate::{Error, Result};

/// Permission bits of segments.
pub(crate) const FILE_MODE: u32 = 0o600;
/// Permission bits of the log's directory.
pub(crate) const DIR_MODE: u32 = 0o700;
const SUFFIX: &str = ".wal";
/// Suffix of segments that are being prepared.
pub(crate) const PREPARED_SUFFIX: &str = ".tmp";
/// Suffix of what repair puts aside.
pub(crate) const BROKEN_SUFFIX: &str = ".broken";

/// Name of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Rises by one from segment to segment.
    pub sequence: u64,
    /// Entries below this index stand in earlier segments only.
    pub index: u64,
}

impl SegmentName {
    /// Reads a file name.
    pub fn parse(name: &str) -> Option<SegmentName> {
        let (sequence, index) = parse_pair(name.strip_suffix(SUFFIX)?)?;
        Some(SegmentName { sequence, index })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}{SUFFIX}", self.sequence, self.index)
    }
}

/// Two numbers of 16 lower-case digits of hex.
pub(crate) fn parse_pair(text: &str) -> Option<(u64, u64)> {
    let (first, second) = text.split_once('-')?;
    Some((parse_hex(first)?, parse_hex(second)?))
}

/// A number of 16 lower-case digits of hex.
pub(crate) fn parse_hex(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 16 || !is_digits {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// The segments of a log, oldest first.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentName>> {
    if disk.metadata(dir)?.is_none() {
        return Ok(Vec::new());
    }
    let mut names: Vec<SegmentName> =
        disk.read_dir(dir)?.iter().filter_map(|name| SegmentName::parse(name)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Whether there is a log: a file whose name ends in `.wal`, readable or not.
///
/// # Errors
/// The directory cannot be listed.
pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    match disk.metadata(dir)? {
        Some(found) if found.is_dir => Ok(disk.read_dir(dir)?.iter().any(|name| name.ends_with(SUFFIX))),
        _ => Ok(false),
    }
}

/// The segments that a start at this index needs: the newest one that begins at or below it, and all after.
pub(crate) fn needed(dir: &Path, names: &[SegmentName], index: u64) -> Result<Vec<SegmentName>> {
    if names.is_empty() {
        return Err(Error::NotFound(dir.to_path_buf()));
    }
    let Some(first) = names.iter().rposition(|name| name.index <= index) else {
        return Err(Error::NoSegment { dir: dir.to_path_buf(), index });
    };
    let names = &names[first..];
    contiguous(dir, names)?;
    Ok(names.to_vec())
}

/// Checks that no segment is missing in the middle.
pub(crate) fn contiguous(dir: &Path, names: &[SegmentName]) -> Result<()> {
    for pair in names.windows(2) {
        if pair[1].sequence != pair[0].sequence + 1 {
            return Err(Error::Missing { dir: dir.to_path_buf(), sequence: pair[0].sequence + 1 });
        }
    }
    Ok(())
}

/// Opens a file and locks it against other processes, of ours and of Go.
pub(crate) fn open_locked(disk: &dyn Disk, path: &Path, how: OpenMode) -> Result<Arc<dyn File>> {
    let file = disk.open(path, how, FILE_MODE)?;
    if !file.try_lock(LockKind::OpenFileDescription)? {
        return Err(Error::Locked(path.to_path_buf()));
    }
    Ok(Arc::from(file))
}

/// Creates an empty segment of full length under a preliminary name, locked, its room reserved.
pub(crate) fn create(disk: &dyn Disk, path: &Path, len: u64) -> Result<Arc<dyn File>> {
    let file = match open_locked(disk, path, OpenMode::Truncate) {
        // Not even room for the name.
        Err(Error::Disk(error)) if error.is_no_space() => return Err(Error::NoSpace(error)),
        opened => opened?,
    };
    match file.allocate(0, len) {
        Ok(()) => Ok(file),
        Err(error) if error.is_no_space() => {
            disk.remove_file(path)?;
            Err(Error::NoSpace(error))
        }
        Err(error) => Err(Error::Disk(error)),
    }
}

/// Removes the oldest segments until `max` are left (0: keeps all), but none that is locked: [`crate::Wal::release_to`]
/// says which are not needed any more. Returns the names removed.
///
/// # Errors
/// The directory cannot be listed, or a file not be removed.
pub fn purge(disk: &dyn Disk, dir: &Path, max: usize) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let names = list(disk, dir)?;
    if max == 0 {
        return Ok(removed);
    }
    for name in &names[..names.len().saturating_sub(max)] {
        let path = dir.join(name.to_string());
        match open_locked(disk, &path, OpenMode::ReadWrite) {
            Ok(_lock) => disk.remove_file(&path)?,
            Err(Error::Locked(_)) => break,
            Err(error) => return Err(error),
        }
        removed.push(name.to_string());
    }
    if !removed.is_empty() {
        disk.sync_dir(dir)?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = SegmentName { sequence: 1, index: 0x47 };
        assert_eq!(name.to_string(), "0000000000000001-0000000000000047.wal");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        for other in [
            "0.tmp",
            "0000000000000001-0000000000000047.wal.broken",
            "0000000000000001-000000000000004G.wal",
            "0000000000000001-+00000000000047.wal",
            "1-47.wal",
            "0000000000000001-000000000000004A.wal",
            "0000000000000001.wal",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn which_segments_a_start_needs() {
        let dir = Path::new("wal");
        let name = |sequence, index| SegmentName { sequence, index };
        let all = [name(2, 10), name(3, 20), name(4, 20), name(5, 30)];
        assert_eq!(needed(dir, &all, 25).unwrap(), all[2..]);
        assert_eq!(needed(dir, &all, 10).unwrap(), all);
        assert_eq!(needed(dir, &all, 1000).unwrap(), all[3..]);
        assert!(matches!(needed(dir, &all, 9), Err(Error::NoSegment { index: 9, .. })));
        assert!(matches!(needed(dir, &[], 9), Err(Error::NotFound(_))));
        let gap = [name(2, 10), name(4, 20)];
        assert!(matches!(needed(dir, &gap, 10), Err(Error::Missing { sequence: 3, .. })));
        assert_eq!(needed(dir, &gap, 20).unwrap(), gap[1..], "what is not needed may be missing");
    }
}
