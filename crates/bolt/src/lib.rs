//! bbolt's file format, and our engine for it.
//!
//! What it is: one file that Go's bbolt reads and writes just as well, changed by whole transactions. A transaction is
//! a sorted list of changes per bucket ([`Batch`]); [`Db::commit`] rebuilds the touched part of each tree in one pass
//! and writes each new page once. Readers hold a [`View`]: a pinned state, read from the mapped file without locks.
//!
//! What it must not know: revisions, what a bucket means, raft, time. It starts no thread and never waits but for the
//! disk.
//!
//! Reading order: `page.rs`, `meta.rs`, `read.rs`, `view.rs` (how a file is read); `batch.rs`, `rebuild.rs`,
//! `new_pages.rs`, `alloc.rs`, `commit.rs`, `db.rs` (how it is changed); `directory.rs` (gets without branch pages);
//! `moves.rs` (defragmentation); `walk.rs`, `check.rs` (what a valid file is); `bulk.rs` (whole files at once). The
//! bytes are in `docs/formats/bolt.md`.

mod alloc;
mod batch;
mod bugs;
pub mod bulk;
pub mod check;
mod commit;
mod db;
mod directory;
mod error;
mod meta;
mod moves;
mod new_pages;
mod page;
mod read;
mod rebuild;
mod view;
mod walk;

#[cfg(test)]
mod tests;

pub use batch::{Batch, BucketChange, Op, Reserve};
pub use commit::Committed;
pub use db::{Db, Options, SyncMode};
pub use error::{Corruption, Error, Result};
pub use moves::Progress;
pub use read::{Bucket, Cursor, Entry, Leaf, Leaves};
pub use view::{Reader, Sizes, View};
