//! Real server processes under hard conditions: kills under load, foreign clients, hostile networks, full disks.
//!
//! What it is: the parts that the tests of this package and the command `kill-loop` share. Nothing here is shipped.
//!
//! Reading order: `rpc.rs` (one connection), `raw.rs` (the same, byte by byte), `history.rs` (what the watch stream
//! says happened), `ledger.rs` (what was asked for and what was answered), `book.rs` (both, and what clients share),
//! `load.rs` (a client), then `kill_loop.rs` with its writers and its checks, and `partitions.rs`, clusters whose
//! members are cut off from each other, paused and killed. Apart from these: `lanes.rs`, a whole member on one thread, over `faulty_disk.rs`.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

pub mod book;
pub mod faulty_disk;
pub mod history;
pub mod kill_loop;
pub mod lanes;
pub mod ledger;
pub mod load;
pub mod partitions;
pub mod process;
pub mod raw;
pub mod rpc;
