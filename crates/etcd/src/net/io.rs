//! A client's connection: TCP or a socket file, in the clear or through TLS, read and written without waiting.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::net::session::Session;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Waits until it can be read or written, whichever is wanted.
    pub(crate) async fn ready(&self, reads: bool, writes: bool) -> io::Result<()> {
        let interest = match (reads, writes) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            (_, false) => Interest::READABLE,
        };
        match self {
            Socket::Tcp(stream) => stream.ready(interest).await.map(drop),
            Socket::Unix(stream) => stream.ready(interest).await.map(drop),
        }
    }

    /// Reads what is there; `None` when nothing is.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        not_yet(match self {
            Socket::Tcp(stream) => stream.try_read(into),
            Socket::Unix(stream) => stream.try_read(into),
        })
    }

    /// Writes what fits; `None` when nothing does.
    pub(crate) fn write(&self, slices: &[io::IoSlice<'_>]) -> io::Result<Option<usize>> {
        not_yet(match self {
            Socket::Tcp(stream) => stream.try_write_vectored(slices),
            Socket::Unix(stream) => stream.try_write_vectored(slices),
        })
    }

    /// Where it comes from, for log lines.
    pub(crate) fn remote(&self) -> String {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().map_or_else(|_| String::new(), |address| address.to_string()),
            Socket::Unix(_) => "@".into(),
        }
    }

    /// The address it comes from, where it has one.
    pub(crate) fn remote_address(&self) -> Option<std::net::IpAddr> {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Socket::Unix(_) => None,
        }
    }

    /// Ends our side of the connection.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        let result = match self {
            Socket::Tcp(stream) => socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write),
            Socket::Unix(stream) => socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write),
        };
        // The other side may have been faster.
        result.or_else(|error| if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) })
    }

    fn poll_ready(&self, cx: &mut Context<'_>, writes: bool) -> Poll<io::Result<()>> {
        match (self, writes) {
            (Socket::Tcp(stream), false) => stream.poll_read_ready(cx),
            (Socket::Tcp(stream), true) => stream.poll_write_ready(cx),
            (Socket::Unix(stream), false) => stream.poll_read_ready(cx),
            (Socket::Unix(stream), true) => stream.poll_write_ready(cx),
        }
    }
}

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    session: Option<Box<RefCell<Session>>>,
}

impl Stream {
    /// In the clear.
    pub(crate) fn plain(socket: Socket) -> Stream {
        Stream { socket, session: None }
    }

    /// Through TLS, after the handshake.
    pub(crate) fn secure(socket: Socket, session: Session) -> Stream {
        Stream { socket, session: Some(Box::new(RefCell::new(session))) }
    }

    /// Waits until it can be read or written, whichever is wanted.
    pub(crate) async fn ready(&self, reads: bool, writes: bool) -> io::Result<()> {
        if reads && self.session.as_ref().is_some_and(|session| session.borrow().has_input()) {
            return Ok(());
        }
        self.socket.ready(reads, writes).await
    }

    /// The same for tasks that poll.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, writes: bool) -> Poll<io::Result<()>> {
        self.socket.poll_ready(cx, writes)
    }

    /// Reads what is there; `None` when nothing is.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match &self.session {
            None => self.socket.read(into),
            Some(session) => session.borrow_mut().read(&self.socket, into),
        }
    }

    /// Writes what fits; `None` when nothing does. Through TLS some of it may have to be flushed.
    pub(crate) fn write(&self, slices: &[io::IoSlice<'_>]) -> io::Result<Option<usize>> {
        match &self.session {
            None => self.socket.write(slices),
            Some(session) => session.borrow_mut().write(&self.socket, slices),
        }
    }

    /// Writes what was taken and has not left yet; whether all of it has left now.
    pub(crate) fn flush(&self) -> io::Result<bool> {
        match &self.session {
            None => Ok(true),
            Some(session) => session.borrow_mut().flush(&self.socket),
        }
    }

    /// Tells the other side that nothing more comes, where the protocol can say so; does not wait.
    pub(crate) fn say_goodbye(&self) {
        if let Some(session) = &self.session {
            session.borrow_mut().say_goodbye(&self.socket);
        }
    }

    /// Ends our side of the connection.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        self.socket.shut_down()
    }

    /// Whether it goes through TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// The common name of the certificate that the client has shown.
    pub(crate) fn common_name(&self) -> Option<String> {
        self.session.as_ref().and_then(|session| session.borrow().common_name().map(str::to_string))
    }

    /// Whether both sides have agreed on HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.borrow().is_http2())
    }

    /// Where it comes from, for log lines.
    pub(crate) fn remote(&self) -> String {
        self.socket.remote()
    }
}

fn not_yet(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
