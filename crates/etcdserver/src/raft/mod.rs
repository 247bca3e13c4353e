//! The raft lane: a [`Node`] that is stepped with inputs and drained of effects.
//!
//! Reading order: `start.rs` (what it starts from), `node.rs` (what it owns, one step, one drain), `incoming.rs` (from
//! peers and apply), `ready.rs` (what raft has for the world, and in
//! which order it may leave), `propose.rs` (requests on their way into the log), `leases.rs` and `announce.rs` (what
//! the member proposes itself); `log.rs`, `convert.rs`, `timeouts.rs` (the edge to the raft crate); `reads.rs`,
//! `waiting.rs`, `lease_clock.rs` (small machines of their own); `lines.rs` (the crate's log lines in etcd's words).

mod announce;
mod convert;
mod incoming;
mod lease_clock;
mod leases;
mod lines;
mod log;
mod node;
mod propose;
mod reads;
mod ready;
mod start;
mod timeouts;
mod waiting;

pub use convert::{Dropped, encode_conf_change};
pub use lines::{Line, LineLevel};
pub use node::Node;
pub use start::{Error, Role, Start, Status};

#[cfg(test)]
mod scenario;
