//! Why a connection ends, and HTTP/2's error codes.

use std::fmt;

/// Error codes of RST_STREAM and GOAWAY (RFC 9113 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Not an error.
    NoError = 0,
    /// The peer broke a rule that has no code of its own.
    Protocol = 1,
    /// Our own fault.
    Internal = 2,
    /// More data than the window allowed, or a window that grew too large.
    FlowControl = 3,
    /// SETTINGS were not acknowledged.
    SettingsTimeout = 4,
    /// A frame for a stream that is half closed or closed.
    StreamClosed = 5,
    /// A frame of the wrong size.
    FrameSize = 6,
    /// The stream was not looked at; the client may try again.
    Refused = 7,
    /// The stream is not needed any more.
    Cancel = 8,
    /// The header compression state is lost.
    Compression = 9,
    /// A CONNECT tunnel failed.
    Connect = 10,
    /// The peer causes more work than it should.
    EnhanceYourCalm = 11,
    /// The transport is not safe enough.
    InadequateSecurity = 12,
    /// HTTP/1.1 is asked for.
    Http11Required = 13,
}

/// The end of a connection. GOAWAY is already in the output where the peer should learn of it: flush what can be
/// flushed, call `Connection::abandon`, close the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are not HTTP/2's preface.
    Preface,
    /// A rule of HTTP/2 was broken.
    Protocol(&'static str),
    /// Flow control was not respected.
    FlowControl(&'static str),
    /// A frame on a stream that is closed.
    StreamClosed(&'static str),
    /// A frame of a wrong size.
    FrameSize(&'static str),
    /// A header block could not be decompressed.
    Compression,
    /// A flood.
    Flood(&'static str),
    /// Keepalive pings against the policy.
    TooManyPings,
    /// A keepalive ping of ours was not answered.
    KeepaliveTimeout,
    /// The preface or the first SETTINGS did not arrive.
    HandshakeTimeout,
}

impl Error {
    /// The code that GOAWAY carries.
    pub fn reason(self) -> Reason {
        match self {
            Error::Preface | Error::Protocol(_) => Reason::Protocol,
            Error::FlowControl(_) => Reason::FlowControl,
            Error::StreamClosed(_) => Reason::StreamClosed,
            Error::FrameSize(_) => Reason::FrameSize,
            Error::Compression => Reason::Compression,
            Error::Flood(_) | Error::TooManyPings => Reason::EnhanceYourCalm,
            Error::KeepaliveTimeout => Reason::NoError,
            Error::HandshakeTimeout => Reason::SettingsTimeout,
        }
    }

    /// The text, which GOAWAY carries as debug data.
    pub fn text(self) -> &'static str {
        match self {
            Error::Preface => "bad connection preface",
            Error::Protocol(t)
            | Error::FlowControl(t)
            | Error::StreamClosed(t)
            | Error::FrameSize(t)
            | Error::Flood(t) => t,
            Error::Compression => "bad header compression",
            // grpc-go's clients look for exactly this word and slow their pings down.
            Error::TooManyPings => "too_many_pings",
            Error::KeepaliveTimeout => "keepalive ping not acknowledged in time",
            Error::HandshakeTimeout => "no preface and settings in time",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http2: {} ({:?})", self.text(), self.reason())
    }
}

impl std::error::Error for Error {}
