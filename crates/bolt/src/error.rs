//! What can go wrong with a database file, as values.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// A file whose bytes cannot be what the format allows: where, and what was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The database file.
    pub path: PathBuf,
    /// First byte, from the start of the file, of what is wrong.
    pub offset: u64,
    /// What was found, and what the format asks for.
    pub what: Cow<'static, str>,
}

/// Why an operation on a database did not happen.
#[derive(Debug)]
pub enum Error {
    /// The file system refused.
    Disk(Box<disk::Error>),
    /// Another process holds the file.
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// The file's bytes are not a valid database.
    Corrupt(Box<Corruption>),
    /// No room on the device for the pages of this commit. Nothing was written; reads and smaller commits go on.
    NoSpace {
        /// The database file.
        path: PathBuf,
        /// Length the file would have needed.
        needed: u64,
    },
    /// The database was opened for reading only.
    ReadOnly {
        /// The database file.
        path: PathBuf,
    },
    /// An earlier write or sync failed, so what the device holds is unknown. Only opening the file again tells.
    Broken {
        /// The database file.
        path: PathBuf,
    },
    /// A change names a bucket that does not exist and is not to be created.
    BucketMissing {
        /// Name of the bucket.
        name: Bytes,
    },
    /// A put or delete of a plain key met a nested bucket of that name.
    IncompatibleValue {
        /// The key.
        key: Bytes,
    },
    /// A key that is empty or longer than the format allows.
    KeyLength {
        /// Its length in bytes.
        len: usize,
    },
    /// Input for a whole file whose keys or bucket names do not ascend.
    Unsorted {
        /// The first key that is out of order.
        key: Bytes,
    },
    /// A value longer than the format allows.
    ValueLength {
        /// Its length in bytes.
        len: usize,
    },
}

/// The result of an operation on a database.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    #[cold]
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<Cow<'static, str>>) -> Error {
        Error::Corrupt(Box::new(Corruption { path: path.to_path_buf(), offset, what: what.into() }))
    }

    /// Whether the device has no room, whichever step found out.
    pub fn is_no_space(&self) -> bool {
        match self {
            Error::NoSpace { .. } => true,
            Error::Disk(error) => error.is_no_space(),
            _ => false,
        }
    }
}

impl From<disk::Error> for Error {
    fn from(error: disk::Error) -> Error {
        Error::Disk(Box::new(error))
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is damaged at byte {}: {}; restore it from a snapshot, or remove this member and add it anew",
            self.path.display(),
            self.offset,
            self.what
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Disk(error) => error.fmt(f),
            Error::Locked { path } => write!(f, "{} is in use by another process", path.display()),
            Error::Corrupt(corruption) => corruption.fmt(f),
            Error::NoSpace { path, needed } => {
                write!(f, "no space on the device to grow {} to {needed} bytes", path.display())
            }
            Error::ReadOnly { path } => write!(f, "{} was opened for reading only", path.display()),
            Error::Broken { path } => {
                write!(f, "an earlier write to {} failed; open it again to continue", path.display())
            }
            Error::BucketMissing { name } => write!(f, "no bucket {:?}", String::from_utf8_lossy(name)),
            Error::IncompatibleValue { key } => {
                write!(f, "{:?} is a bucket, not a plain key", String::from_utf8_lossy(key))
            }
            Error::Unsorted { key } => {
                write!(f, "{:?} does not come after the key before it", String::from_utf8_lossy(key))
            }
            Error::KeyLength { len } => {
                write!(f, "a key of {len} bytes (1 to {} are allowed)", crate::page::KEY_MAX)
            }
            Error::ValueLength { len } => {
                write!(f, "a value of {len} bytes (at most {} are allowed)", crate::page::VALUE_MAX)
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Disk(error) => Some(error),
            _ => None,
        }
    }
}
