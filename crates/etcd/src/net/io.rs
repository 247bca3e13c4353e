//! A client's socket: TCP or a socket file, read and written without waiting.

use std::io;

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// One accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Waits until it can be read, or written when `also_write`.
    pub(crate) async fn ready(&self, also_write: bool) -> io::Result<()> {
        let interest = if also_write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        match self {
            Stream::Tcp(stream) => stream.ready(interest).await.map(drop),
            Stream::Unix(stream) => stream.ready(interest).await.map(drop),
        }
    }

    /// Reads what is there; `None` when nothing is.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        not_yet(match self {
            Stream::Tcp(stream) => stream.try_read(into),
            Stream::Unix(stream) => stream.try_read(into),
        })
    }

    /// Writes what fits; `None` when nothing does.
    pub(crate) fn write(&self, slices: &[io::IoSlice<'_>]) -> io::Result<Option<usize>> {
        not_yet(match self {
            Stream::Tcp(stream) => stream.try_write_vectored(slices),
            Stream::Unix(stream) => stream.try_write_vectored(slices),
        })
    }

    /// Where it comes from, for log lines.
    pub(crate) fn remote(&self) -> String {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().map_or_else(|_| String::new(), |address| address.to_string()),
            Stream::Unix(_) => "@".into(),
        }
    }
}

fn not_yet(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
