//! Connections of clients: sockets on one side, `grpc` and `v3rpc` on the other.
//!
//! Each network thread owns its connections outright and runs one current-thread runtime. What its connections ask
//! for in one turn of that runtime leaves as one batch, and what they are answered is written once per connection
//! and turn.
//!
//! Reading order: `listen.rs` (binding), `io.rs` (a socket), `client.rs` (one connection), `thread.rs` (all of a
//! thread).

pub(crate) mod client;
pub(crate) mod io;
pub(crate) mod listen;
pub(crate) mod thread;
