//! Who takes the requests: the trait a server implements, and what it is told.

use crate::metadata::Metadata;
use crate::reply::Replies;
use crate::stream::Kind;

/// A method as the server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The server's own number for it, handed back with each call.
    pub id: u16,
    /// How it exchanges messages.
    pub kind: Kind,
}

impl Method {
    /// What a lookup gave, in 32 bits that are never 0.
    pub(crate) fn to_memo(found: Option<Method>) -> u32 {
        match found {
            None => 1,
            Some(m) => u32::from(m.id) << 16 | (m.kind as u32) << 2 | 3,
        }
    }

    /// The outer `None`: no lookup has been made.
    pub(crate) fn from_memo(memo: u32) -> Option<Option<Method>> {
        let kind = match memo >> 2 & 3 {
            0 => Kind::Unary,
            1 => Kind::ServerStream,
            2 => Kind::ClientStream,
            _ => Kind::BidiStream,
        };
        match memo & 3 {
            0 => None,
            3 => Some(Some(Method { id: (memo >> 16) as u16, kind })),
            _ => Some(None),
        }
    }
}

/// A request without gRPC's content type.
#[derive(Debug)]
pub struct PlainRequest<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
    /// All header fields, pseudo-headers included.
    pub headers: &'a Metadata,
    /// The whole body.
    pub body: &'a [u8],
}

/// Takes what arrives on a connection. `call` is the stream id: unique on its connection, never used again. Every
/// function may answer at once through `replies`, or keep `call` and answer later.
pub trait Sink {
    /// Looks a method up by its path, `/etcdserverpb.KV/Range`. Asked about once per connection and path.
    fn method(&mut self, path: &[u8]) -> Option<Method>;

    /// Whether a service exists, to tell an unknown method from an unknown service.
    fn has_service(&mut self, service: &[u8]) -> bool;

    /// The one request message of a `Unary` or `ServerStream` method. `message` is borrowed from the input where it
    /// arrived in one DATA frame.
    fn on_unary(&mut self, replies: &mut Replies, call: u32, method: u16, meta: &Metadata, message: &[u8]);

    /// A `ClientStream` or `BidiStream` call has begun.
    fn on_open(&mut self, replies: &mut Replies, call: u32, method: u16, meta: &Metadata);

    /// A message on such a call.
    fn on_message(&mut self, replies: &mut Replies, call: u32, method: u16, message: &[u8]);

    /// The client will send no more on such a call; it may still want answers.
    fn on_half_close(&mut self, replies: &mut Replies, call: u32);

    /// A call that the sink has been told of is over without its answer: cancelled by the client, past its deadline,
    /// broken framing, or the connection is gone. Nothing can be sent on it any more.
    fn on_cancelled(&mut self, replies: &mut Replies, call: u32);

    /// A request that is not gRPC. Only called with [`Settings::plain`](crate::Settings::plain).
    fn on_plain(&mut self, replies: &mut Replies, call: u32, request: &PlainRequest<'_>);
}
