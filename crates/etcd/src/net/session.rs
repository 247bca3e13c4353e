//! The TLS side of a connection: a rustls session between a socket and whoever reads and writes plain bytes.
//!
//! - Every byte read from the socket is in the session, or in `pending`, which is only filled when the caller's buffer
//!   is full.
//! - Plain bytes are handed out before more is read: the session never holds more than one read gives.
//! - Plain bytes are taken only once everything taken before has left for the socket: one write's worth waits at most.

use std::io::{self, IoSlice, Read, Write};

use rustls::ServerConnection;

use crate::net::io::Socket;

/// Bytes read from the socket at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// Plain bytes taken in one write.
const WRITE_BYTES: usize = 256 << 10;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Session {
    tls: ServerConnection,
    pending: Vec<u8>,
    /// The common name of the other side's certificate.
    common_name: Option<String>,
    /// The last read ended because the caller's buffer was full.
    was_full: bool,
}

impl Session {
    /// A session whose handshake is done; `pending` has been read from the socket after it.
    pub(crate) fn new(mut tls: ServerConnection, pending: Vec<u8>, common_name: Option<String>) -> Session {
        tls.set_buffer_limit(Some(WRITE_BYTES));
        // The first request may have come with the end of the handshake.
        Session { tls, pending, common_name, was_full: true }
    }

    /// Whether there may be something to read without the socket.
    pub(crate) fn has_input(&self) -> bool {
        self.was_full
    }

    pub(crate) fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.tls.alpn_protocol() == Some(b"h2")
    }

    /// Reads plain bytes; `None` when there are none yet.
    pub(crate) fn read(&mut self, socket: &Socket, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.was_full = false;
        let mut filled = 0;
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let pending = std::mem::take(&mut self.pending);
            let mut rest = &pending[..];
            let ended = self.feed(socket, &mut rest, into, &mut filled)?;
            self.pending = rest.to_vec();
            if ended || filled == into.len() {
                self.was_full = filled > 0;
                return Ok(Some(filled));
            }
            match socket.read(&mut chunk) {
                Ok(None) => return Ok((filled > 0).then_some(filled)),
                // What came before the end is handed out first.
                Ok(Some(0)) => return Ok(Some(filled)),
                Ok(Some(read)) => self.pending.extend_from_slice(&chunk[..read]),
                Err(_) if filled > 0 => return Ok(Some(filled)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Decrypts `bytes` until they are used or `into` is full; whether the other side has ended its stream.
    fn feed(&mut self, socket: &Socket, bytes: &mut &[u8], into: &mut [u8], filled: &mut usize) -> io::Result<bool> {
        loop {
            while *filled < into.len() {
                match self.tls.reader().read(&mut into[*filled..]) {
                    Ok(0) => return Ok(true),
                    Ok(read) => *filled += read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if bytes.is_empty() || *filled == into.len() {
                return Ok(false);
            }
            self.tls.read_tls(bytes)?;
            if let Err(error) = self.tls.process_new_packets() {
                // The other side is told why, if its socket takes it at once.
                let _told = self.flush(socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    /// Takes plain bytes; `None` while what was taken before is still here.
    pub(crate) fn write(&mut self, socket: &Socket, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        if !self.flush(socket)? {
            return Ok(None);
        }
        let taken = self.tls.writer().write_vectored(slices)?;
        self.flush(socket)?;
        Ok((taken > 0 || slices.iter().all(|slice| slice.is_empty())).then_some(taken))
    }

    /// Writes what is encrypted; whether all of it has left.
    pub(crate) fn flush(&mut self, socket: &Socket) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Sink(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub(crate) fn say_goodbye(&mut self, socket: &Socket) {
        self.tls.send_close_notify();
        let _gone_or_not = self.flush(socket);
    }
}

/// The socket as rustls writes to it.
pub(crate) struct Sink<'a>(pub(crate) &'a Socket);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0.write(slices)? {
            Some(written) => Ok(written),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
