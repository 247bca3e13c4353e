//! Whole clusters of raft lanes on one thread, without disk, store or network of their own.
//!
//! `harness` plays the driver: it carries effects to a log that may be slow or lose what was not synced, to an
//! apply lane that only remembers, and to a network that may lose anything. `text` runs scenarios written as text
//! (`testdata/raft/*.txt`); `random` makes them up and checks what must always hold.

mod bugs;
mod harness;
mod random;
mod text;
