//! HTTP/2 and gRPC server framing as a state machine: bytes in, requests out; replies in, bytes out.
//!
//! It must not know etcd's messages, sockets or runtimes. Time is an argument, in milliseconds of any clock that does
//! not go back.
//!
//! # Use
//!
//! One [`Connection`] per socket. The server implements [`Sink`] and moves bytes:
//!
//! ```text
//! let mut c = Connection::new(Settings::default(), now);
//! loop {
//!     // read, if c.wants_input(), after what was left over; the buffer has at least READ_BUFFER_MIN_BYTES
//!     let used = c.receive(now, &buffer[..filled], &mut sink)?;   // calls the sink; keep what was not used
//!     while !c.output().is_empty() {                              // moves queued replies up, a turn's share
//!         let n = write_vectored(c.output())?;                    // OutBuf: slices(), or bytes::Buf
//!         c.output().advance(n);                                  // between connections: after a write or two
//!     }
//!     if c.is_closed() { break }                                  // error, or drained after graceful_close()
//!     // after c.stopped_early(), once c.wants_input() again: receive() the leftover before reading
//!     // wait for: input, room in the socket while output is not empty, replies from elsewhere, c.next_wakeup()
//!     c.on_time(now, &mut sink)?;
//! }
//! c.abandon(&mut sink);                                           // on_cancelled for every call still open
//! ```
//!
//! A call is `u32`, the stream id. Handlers get [`Replies`] with every callback, or later by
//! [`Connection::replies`]:
//!
//! | | |
//! |---|---|
//! | `reply(call, \|out\| ..)`, `reply_bytes`, `reply_pieces` | the message of a unary call, and success |
//! | `reply_status(call, code, text)` | an error |
//! | `send(call, \|out\| ..)`, `send_bytes`, `send_pieces` | a message on a stream; returns the bytes queued for it |
//! | `finish(call, code, text)` | the end of a stream, after what is queued |
//! | `buffered(call)`, `take_drained(&mut vec)` | backpressure: stop at a bound, go on when drained |
//! | `tally()` | what became of calls since the last look, for metrics |
//! | `plain_reply`, or `plain_head`, `plain_data`, `plain_end` | answers to requests that are not gRPC |
//!
//! Everything said about a call that is over is ignored. After [`Sink::on_cancelled`] a call is over.
//!
//! # Reading order
//!
//! `sink.rs` (what comes out), `reply.rs` (what goes in), `connection.rs` (the frame loop), `request.rs` and `head.rs`
//! (HEADERS), `data.rs` (DATA, messages), `control.rs` (all other frames), `timers.rs`, `stream.rs` (the table of
//! streams), `out.rs`, `message.rs` (gRPC's texts), `hpack/`. All bounds are in [`limits`]; `abuse.rs` counts floods.

mod abuse;
mod connection;
mod control;
mod data;
mod error;
mod frame;
mod head;
mod hpack;
pub mod limits;
mod message;
mod metadata;
mod out;
mod reply;
mod request;
mod sink;
mod stream;
pub mod tally;
mod timers;

pub use connection::{Connection, Plain, Preface, Settings, preface};
pub use hpack::huffman::CODES as HUFFMAN_CODES;
pub use error::{Error, Reason};
pub use message::code;
pub use metadata::Metadata;
pub use out::OutBuf;
pub use reply::Replies;
pub use sink::{Method, PlainRequest, Sink};
pub use stream::Kind;

#[cfg(test)]
mod tests;
