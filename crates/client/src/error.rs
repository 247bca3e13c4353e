//! What can go wrong with a call, printed as Go's client prints it.

use std::fmt;

use api::ErrorCode;
use api::error::{Code, Status};

/// Why a call, or the client itself, failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The server's answer, or what stands for it when the connection broke.
    Status(Status),
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// Something given to the client makes no sense: an endpoint, a file.
    Config(String),
    /// The server ended a watch, for a reason that the table does not have.
    Canceled(String),
    /// A lease that a session lived on is gone.
    SessionExpired,
    /// The key of a campaign was deleted by someone else.
    NotLeader,
}

impl Error {
    /// The gRPC code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Error::Status(status) => Code::of(status.code),
            Error::DeadlineExceeded => Code::DeadlineExceeded,
            Error::Config(_) => Code::InvalidArgument,
            Error::Canceled(_) => Code::FailedPrecondition,
            Error::SessionExpired | Error::NotLeader => Code::Aborted,
        }
    }

    /// Is it this error of the table? Texts are compared, as codes differ between releases.
    #[must_use]
    pub fn is(&self, error: ErrorCode) -> bool {
        matches!(self, Error::Status(status) if status.message == error.message())
    }

    /// A cancelled watch's reason becomes an error of the table where its text is known.
    #[must_use]
    pub fn of_cancel_reason(reason: &str) -> Error {
        match ErrorCode::of_message(reason) {
            Some(error) => error.into(),
            None => Error::Canceled(reason.to_owned()),
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Error {
        Error::Status(Status::new(Code::Unavailable, message.into()))
    }
}

/// Errors of etcd's table show their text alone, others the form of gRPC.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Status(status) if is_of_etcd(&status.message) => f.write_str(&status.message),
            Error::Status(status) => write!(f, "{status}"),
            Error::DeadlineExceeded => f.write_str("context deadline exceeded"),
            Error::Config(text) | Error::Canceled(text) => f.write_str(text),
            Error::SessionExpired => f.write_str("session expired"),
            Error::NotLeader => f.write_str("election: not leader"),
        }
    }
}

fn is_of_etcd(message: &str) -> bool {
    message.starts_with("etcdserver: ") && ErrorCode::of_message(message).is_some()
}

impl std::error::Error for Error {}

impl From<ErrorCode> for Error {
    fn from(error: ErrorCode) -> Error {
        Error::Status(error.into())
    }
}
