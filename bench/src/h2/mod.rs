//! A small gRPC-over-HTTP/2 client for one thread.
//!
//! It exists so that the load generator takes little of the CPU it shares with the server under test: no locks, no
//! per-call task, request headers of a few bytes, and all requests that become ready in one turn of the event loop leave
//! in one write. It follows the protocol where a server can tell: flow control both ways, SETTINGS, PING, GOAWAY,
//! concurrent-stream limits, HPACK with a dynamic table. It shares no code with the server's codec on purpose (only
//! the table of Huffman codes): a mistake in one would hide behind the same mistake in the other.

mod conn;
mod hpack;
mod state;

pub(crate) use conn::{Conn, Streaming};

use std::fmt;
use std::rc::Rc;

/// gRPC status codes this client makes up itself.
pub(crate) const UNKNOWN: u32 = 2;
pub(crate) const DEADLINE_EXCEEDED: u32 = 4;
pub(crate) const INTERNAL: u32 = 13;
pub(crate) const UNAVAILABLE: u32 = 14;

#[derive(Debug, Clone)]
pub(crate) struct RpcError {
    pub(crate) code: u32,
    pub(crate) message: Rc<str>,
}

impl RpcError {
    pub(crate) fn new(code: u32, message: impl Into<Rc<str>>) -> Self {
        RpcError { code, message: message.into() }
    }

    /// True when the connection, not the request, is at fault.
    pub(crate) fn is_transport(&self) -> bool {
        self.code == UNAVAILABLE
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grpc status {}: {}", self.code, self.message)
    }
}

impl From<api::wire::Malformed> for RpcError {
    fn from(_: api::wire::Malformed) -> Self {
        RpcError::new(INTERNAL, "malformed reply")
    }
}

impl From<prost::DecodeError> for RpcError {
    fn from(e: prost::DecodeError) -> Self {
        RpcError::new(INTERNAL, e.to_string())
    }
}
