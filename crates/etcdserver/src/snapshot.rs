//! Snapshots on disk, and the order in which their parts must become durable.
//!
//! A snapshot at index i says: everything up to i is in the database, so the log before it is not needed. Hence:
//!
//! 1. The database commits a state at or above i, durably (a forced commit of everything that is applied).
//! 2. The `.snap` file is written and synced. Without a record it counts for nothing.
//! 3. The record goes into the log, synced. From here on a restart begins at i.
//! 4. Locks of segments before i are given back; what purges old files may have them.
//!
//! For a snapshot that the leader sent, step 1 is that its database file is durable under its preliminary name
//! (`<index>.snap.db`) before raft sees the message; steps 2 and 3 precede the entries of the same write, and only
//! afterwards the file takes the place of the database. A crash in between is finished by `bootstrap.rs`.
//!
//! The functions here are called by the log lane. [`RaftEffect::SnapshotDue`](crate::effect::RaftEffect) starts the
//! procedure, [`RaftInput::SnapshotSaved`](crate::effect::RaftInput) ends it; one is under way at a time.

use std::path::Path;

use api::{raftpb, walpb};
use disk::Disk;
use wal::Wal;

use crate::effect::Append;
use crate::membership::{Cluster, V2Membership};
use crate::mutant::Mutant;

/// A snapshot to be written, as values: apply makes it when it freezes its buffers, the log lane writes it after the
/// commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSnapshot {
    /// The consistent index of the frozen state.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Membership at that index, in the form of the v2 store.
    file: raftpb::Snapshot,
}

impl LocalSnapshot {
    /// The snapshot of a member that has applied `index` of `term` and has this membership.
    pub fn new(cluster: &Cluster, index: u64, term: u64) -> LocalSnapshot {
        assert!(index > 0, "nothing is applied yet");
        let index = index + u64::from(Mutant::RecordAhead.is_on());
        LocalSnapshot { index, term, file: contents(cluster, index, term) }
    }
}

/// What `.snap` files hold, and what a snapshot message to a follower carries beside the database.
pub fn contents(cluster: &Cluster, index: u64, term: u64) -> raftpb::Snapshot {
    raftpb::Snapshot {
        data: Some(V2Membership::of(cluster).render()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(cluster.conf_state()),
            index: Some(index),
            term: Some(term),
        }),
    }
}

/// Steps 2 to 4. Step 1 has happened: the database durably holds `snapshot.index`.
pub fn save(
    disk: &dyn Disk,
    snap_dir: &Path,
    wal: &mut Wal,
    snapshot: &LocalSnapshot,
) -> Result<(), wal::Error> {
    wal::snap::save(disk, snap_dir, &snapshot.file)?;
    // What is applied is committed, but the log need not say so yet: commit indexes alone are not synced, and wait
    // behind whatever finds no room. Found by the simulator: without it the record did not count, and the records that
    // did were purged.
    wal.raise_commit(snapshot.index)?;
    wal.save_snapshot(&record(&snapshot.file))?;
    wal.release_to(snapshot.index);
    Ok(())
}

/// Steps 2 and 3 for a snapshot that the leader sent: its database lies complete under its preliminary name.
pub fn save_received(
    disk: &dyn Disk,
    snap_dir: &Path,
    wal: &mut Wal,
    snapshot: &raftpb::Snapshot,
) -> Result<(), wal::Error> {
    wal::snap::save(disk, snap_dir, snapshot)?;
    // Nothing is released: the record counts once the hard state that follows it is there.
    wal.save_snapshot(&record(snapshot))
}

/// Carries out an [`Append`]: a received snapshot first, then entries and hard state, then one sync if asked for.
pub fn append(disk: &dyn Disk, snap_dir: &Path, wal: &mut Wal, append: &Append) -> Result<(), wal::Error> {
    if let Some(snapshot) = &append.snapshot {
        save_received(disk, snap_dir, wal, snapshot)?;
    }
    wal.append(&append.entries, append.hard_state.as_ref(), append.must_sync)
}

fn record(snapshot: &raftpb::Snapshot) -> walpb::Snapshot {
    let metadata = snapshot.metadata.as_ref();
    walpb::Snapshot {
        index: Some(metadata.map_or(0, raftpb::SnapshotMetadata::index)),
        term: Some(metadata.map_or(0, raftpb::SnapshotMetadata::term)),
        conf_state: Some(metadata.and_then(|m| m.conf_state.clone()).unwrap_or_default()),
    }
}
