//! Revisioned keys: index, views, transactions, compaction, hash, schema, watch hub.
//!
//! What it is: etcd's multi-version store on top of a [`bolt`] file. A [`Revision`] names one change.
//!
//! What it must not know: raft, members, users, lease clocks, streams.

pub mod revision;

pub use revision::Revision;
