//! What can go wrong with a log or a snapshot file.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of an operation on the log.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on the log or on a snapshot file failed.
#[derive(Debug)]
pub enum Error {
    /// The file system refused. After a failed write or sync the log is dead: see [`Error::Failed`].
    Disk(disk::Error),
    /// There is no room; nothing was changed, and the same call may be tried again later.
    NoSpace(disk::Error),
    /// An earlier write or sync failed, so what is on disk is unknown. The process must end; at the next start the
    /// log is read again.
    Failed,
    /// A log is to be created where one is.
    Exists(PathBuf),
    /// A log is to be created in a directory that holds files of somebody else.
    Foreign(PathBuf),
    /// There is no log.
    NotFound(PathBuf),
    /// No segment starts at or below the index asked for: the segments that held it are gone.
    NoSegment {
        /// The log's directory.
        dir: PathBuf,
        /// The index asked for.
        index: u64,
    },
    /// A segment in the middle is missing.
    Missing {
        /// The log's directory.
        dir: PathBuf,
        /// Sequence number of the missing one.
        sequence: u64,
    },
    /// Another process has the log open.
    Locked(PathBuf),
    /// The last write before a power cut is incomplete. Opening for writing repairs it.
    Torn {
        /// The segment.
        path: PathBuf,
        /// Where its last good record ends.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Bytes that no crash can have left behind.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
}

impl Error {
    /// Damage in a file.
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { path: path.to_path_buf(), offset, what: what.into() }
    }

    /// Whether there was no room.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::NoSpace(_)) || matches!(self, Error::Disk(error) if error.is_no_space())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Disk(error) => write!(f, "wal: {error}"),
            Error::NoSpace(error) => write!(f, "wal: no room: {error}"),
            Error::Failed => {
                f.write_str("wal: an earlier write failed, so nothing more can be made durable; start again")
            }
            Error::Exists(dir) => write!(f, "wal: {} already holds a log", dir.display()),
            Error::Foreign(path) => {
                write!(f, "wal: {} stands where the log is to be created; remove it first", path.display())
            }
            Error::NotFound(dir) => write!(f, "wal: no log in {}", dir.display()),
            Error::NoSegment { dir, index } => write!(
                f,
                "wal: no segment in {} reaches back to index {index}; restore the missing files or a backup",
                dir.display()
            ),
            Error::Missing { dir, sequence } => write!(
                f,
                "wal: segment {sequence:016x} is missing in {}; restore the missing file or a backup",
                dir.display()
            ),
            Error::Locked(path) => write!(f, "wal: {} is locked by another process", path.display()),
            Error::Torn { path, offset, what } => {
                write!(f, "wal: {}: last write incomplete at offset {offset}: {what}", path.display())
            }
            Error::Corrupt { path, offset, what } => write!(
                f,
                "wal: {}: damaged at offset {offset}: {what}; keep a copy, then restore a backup, or remove the \
                 member from its cluster and add it again empty",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Disk(error) | Error::NoSpace(error) => Some(error),
            _ => None,
        }
    }
}

impl From<disk::Error> for Error {
    fn from(error: disk::Error) -> Error {
        Error::Disk(error)
    }
}
