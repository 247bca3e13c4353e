//! HTTP/2 written by hand, byte by byte, to send what no client library would.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Frame types.
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    /// END_STREAM.
    pub const END_STREAM: u8 = 1;
    /// ACK of SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// END_HEADERS.
    pub const END_HEADERS: u8 = 4;
}

/// What every client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame is small").to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One header field, not indexed, not compressed.
pub fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    string(&mut bytes, name.as_bytes());
    string(&mut bytes, value);
    bytes
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        out.push(text.len() as u8);
    } else {
        out.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            out.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text);
}

/// The header block of a gRPC request.
pub fn request_headers(path: &str) -> Vec<u8> {
    let fields: &[(&str, &[u8])] = &[
        (":method", b"POST"),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", b"localhost"),
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A gRPC message with its five bytes of head.
pub fn message(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&u32::try_from(body.len()).expect("a message is small").to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A connection under our own hand.
pub struct Raw {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// A TCP connection and nothing else.
    pub fn connect(endpoint: &str) -> Raw {
        let socket = TcpStream::connect(endpoint).expect("the server listens");
        socket.set_nodelay(true).expect("a socket option");
        socket.set_write_timeout(Some(Duration::from_secs(10))).expect("a socket option");
        Raw { socket, buffer: Vec::new() }
    }

    /// A connection that has said hello and was answered.
    pub fn open(endpoint: &str) -> Raw {
        let mut raw = Raw::connect(endpoint);
        let hello = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat();
        assert!(raw.send(&hello), "a new connection takes bytes");
        let settings = raw.wait_for(kind::SETTINGS, Duration::from_secs(10));
        assert!(settings.is_some(), "the server says hello");
        assert!(raw.send(&frame(kind::SETTINGS, flag::ACK, 0, &[])), "a new connection takes bytes");
        raw
    }

    /// Sends bytes; `false` when the server has closed or reads no more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// The next frame; `None` after `limit`, or when the server has closed.
    pub fn next(&mut self, limit: Duration) -> Option<Frame> {
        let end = Instant::now() + limit;
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.read(left) {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.buffer.get(..9)?.try_into().ok()?;
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = self.buffer.get(9..9 + len)?.to_vec();
        self.buffer.drain(..9 + len);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads once; `false` at the end.
    fn read(&mut self, limit: Duration) -> bool {
        self.socket.set_read_timeout(Some(limit)).expect("a socket option");
        let mut chunk = [0; 16 << 10];
        match self.socket.read(&mut chunk) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted),
        }
    }

    /// The next frame of a type; others are skipped.
    pub fn wait_for(&mut self, kind: u8, limit: Duration) -> Option<Frame> {
        let end = Instant::now() + limit;
        loop {
            let frame = self.next(end.saturating_duration_since(Instant::now()))?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Whether the server closes within `limit`.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if !self.read(end.saturating_duration_since(Instant::now())) {
                return true;
            }
            self.buffer.clear();
        }
        false
    }

    /// Sends a call with one message and waits for its end: the frame with END_STREAM.
    pub fn call(&mut self, stream: u32, path: &str, body: &[u8]) -> Option<Frame> {
        let mut bytes = frame(kind::HEADERS, flag::END_HEADERS, stream, &request_headers(path));
        bytes.extend(frame(kind::DATA, flag::END_STREAM, stream, &message(body)));
        if !self.send(&bytes) {
            return None;
        }
        self.end_of(stream, Duration::from_secs(10))
    }

    /// The frame that ends a stream, whatever it is.
    pub fn end_of(&mut self, stream: u32, limit: Duration) -> Option<Frame> {
        let end = Instant::now() + limit;
        loop {
            let frame = self.next(end.saturating_duration_since(Instant::now()))?;
            let ends = frame.kind == kind::RST_STREAM
                || matches!(frame.kind, kind::HEADERS | kind::DATA) && frame.flags & flag::END_STREAM != 0;
            if frame.stream == stream && ends {
                return Some(frame);
            }
        }
    }
}
