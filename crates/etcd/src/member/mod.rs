//! The member: threads around the lanes of `etcdserver`, and the queues between them.
//!
//! | thread | runs | file |
//! |---|---|---|
//! | member | raft lane and apply lane; a sole voter's log inline when nothing else waits | `lane.rs` |
//! | log | the log: always in a cluster, otherwise when batches overlap | `log.rs` |
//! | commit | the database file, also its exchange for one from the leader | `commit.rs` |
//! | network | connections, watch hubs, reads | `crate::net` |
//! | peers | streams, messages and snapshots between members | `crate::rafthttp` |
//! | main | chores, and tasks that ask other members | `chores.rs`, `forward.rs`, `versions.rs`, `corruption.rs` |
//!
//! Reading order: `mailbox.rs` (the queue), `handle.rs` (what threads share), `lane.rs`, `log.rs`, `commit.rs`,
//! `meter.rs` (how long requests take), `ask.rs` (tasks that ask the member thread), `forward.rs` (what only the leader
//! can answer), `change.rs` (changes of the members), `versions.rs` and `corruption.rs` (what a leader compares).

pub(crate) mod ask;
pub(crate) mod change;
pub(crate) mod commit;
pub(crate) mod corruption;
pub(crate) mod forward;
pub(crate) mod handle;
pub(crate) mod lane;
pub(crate) mod lines;
pub(crate) mod log;
pub(crate) mod mailbox;
pub(crate) mod meter;
pub(crate) mod versions;
