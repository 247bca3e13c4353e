//! Why the store could not answer.

use crate::Revision;
use std::fmt;

/// An answer that is not a result. The first two are etcd's own and reach clients; the others are faults of the
/// file below.
#[derive(Debug)]
pub enum Error {
    /// The revision asked for is below the compact revision.
    Compacted,
    /// The revision asked for has not happened yet.
    FutureRevision,
    /// The database file could not be read.
    File(bolt::Error),
    /// The file is readable, but what it holds cannot be a store.
    Corrupt(String),
}

impl Error {
    /// A record that the index knows is not in the file.
    pub(crate) fn missing(revision: Revision) -> Error {
        Error::Corrupt(format!("revision {revision} is in the key index but not in the key bucket"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Compacted => f.write_str("mvcc: required revision has been compacted"),
            Error::FutureRevision => f.write_str("mvcc: required revision is a future revision"),
            Error::File(error) => error.fmt(f),
            Error::Corrupt(what) => {
                write!(
                    f,
                    "the database does not hold a valid store: {what}; restore it from a snapshot, or remove this \
                     member and add it anew"
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File(error) => Some(error),
            _ => None,
        }
    }
}

impl From<bolt::Error> for Error {
    fn from(error: bolt::Error) -> Error {
        Error::File(error)
    }
}

/// The result of a question to the store.
pub type Result<T> = std::result::Result<T, Error>;
