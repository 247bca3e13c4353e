//! The raft log on disk: etcd's segments, records and checksums, its `.snap` files, and their repair.
//!
//! What it is: [`Wal`], the log open for writing, and what [`Wal::open`] read from it; [`PrepareJob`], which zero-fills
//! ahead of the log on another thread; [`snapshot_records`], [`read`] and [`verify`](verify()) for those who only look;
//! [`snap`] for the snapshot files beside the log. The bytes are described in `docs/formats/wal.md` and
//! `docs/formats/snap.md`.
//!
//! What it must not know: what an entry means, the database, peers, what time it is.
//!
//! Reading order: `record.rs`, `encoder.rs`, `decoder.rs` (bytes only, the rules for torn writes), `reader.rs`,
//! `segment.rs`, `ahead.rs`, `wal.rs`, `open.rs`, `repair.rs`; then `snap.rs`, `verify.rs`, `version.rs`.

mod ahead;
pub mod decoder;
pub mod encoder;
mod error;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
mod open;
mod reader;
pub mod record;
mod repair;
pub mod segment;
pub mod snap;
mod verify;
mod version;
mod wal;

pub use ahead::PrepareJob;
pub use error::{Error, Result};
pub use open::{Replay, read, snapshot_records};
pub use segment::{exists, purge};
pub use verify::{Problem, Report, SegmentReport, verify};
pub use version::minimal_version;
pub use wal::{EncodedEntry, Options, Wal, Written};

#[cfg(test)]
mod tests;
