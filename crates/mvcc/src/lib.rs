//! Revisioned keys: index, views, transactions, compaction, hash, schema, watch hub.
//!
//! What it is: etcd's multi-version store on top of a [`bolt`] file. One [`Store`], owned by one lane, takes
//! changes; any number of [`View`]s answer questions about the state between two transactions, on any thread,
//! without a lock. A [`Revision`] names one change; an [`EventBatch`] tells what one transaction changed.
//!
//! What it must not know: raft, members, users, lease clocks, streams.
//!
//! Reading order: `revision.rs` and `kv.rs` (the bytes of a record), `schema.rs` (all that the file holds),
//! `key_index/` (which revisions each key has), `write_buf.rs` (what is not in the file yet), `records.rs` (file
//! and buffers as one), `store.rs` and `write_txn.rs` (the writer), `view.rs` and `range.rs` (the readers),
//! `event.rs` and `history.rs` (what watchers see), `watch/` (the hub), `compaction.rs`, `hash.rs`, `restore.rs`.

mod compaction;
mod error;
pub mod event;
mod hash;
mod history;
pub mod key_index;
pub mod kv;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
mod range;
mod records;
mod restore;
pub mod revision;
pub mod schema;
mod side;
mod store;
mod view;
pub mod watch;
mod write_buf;
mod write_txn;

#[cfg(test)]
mod tests;

pub use compaction::CompactionProgress;
pub use error::{Error, Result};
pub use event::{Event, EventBatch, EventKind};
pub use hash::{CompactionHash, HashKv, hash_file};
pub use history::History;
pub use key_index::{KeyState, RangeEnd};
pub use kv::KeyValue;
pub use range::{RangeQuery, RangeSummary, SortOrder, SortTarget, Visit};
pub use restore::Restored;
pub use revision::Revision;
pub use store::{Counts, Store};
pub use view::View;
pub use write_txn::{Deleted, Put, WriteTxn};
