//! Connections of clients: sockets on one side, `grpc` and `v3rpc` on the other.
//!
//! Each network thread owns its connections outright and runs one current-thread runtime. What its connections ask
//! for in one turn of that runtime leaves as one batch, and what they are answered is written once per connection
//! and turn.
//!
//! Reading order: `listen.rs` (binding), `io.rs` and `session.rs` (a socket, in the clear or through TLS), `enter.rs`
//! (what a new connection speaks), `client.rs` (one connection), `thread.rs` (all of a thread).

pub(crate) mod client;
pub(crate) mod enter;
pub(crate) mod io;
pub(crate) mod listen;
pub(crate) mod session;
pub(crate) mod thread;
