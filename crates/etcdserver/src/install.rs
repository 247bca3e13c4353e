//! Taking over a snapshot that the leader sent, while the member runs.
//!
//! Order, each step durable before the next:
//!
//! 1. The database lies complete under `<index>.snap.db`, before raft sees the message.
//! 2. The log lane writes the `.snap` file and the snapshot record ([`crate::snapshot::append`]).
//! 3. The commit lane, with nothing else under way, puts the file in the place of its own: [`take_over`].
//! 4. The apply lane is built anew from the file: [`rebuild`]. Nothing of the old one lives on but what hubs and
//!    readers hold, which is pinned in the old file.
//!
//! A crash after step 2 is finished by `bootstrap.rs`, which does the same from the directory.

use std::sync::Arc;

use bolt::Db;
use disk::Disk;
use mvcc::Store;

use crate::Config;
use crate::apply::{Applier, Settings};
use crate::bootstrap::Error;
use crate::effect::LeaseChange;
use crate::membership::Cluster;

/// Puts the database received with the snapshot at `index` in the place of the one in use.
///
/// # Errors
/// The file is not there or not readable, or the disk refuses. The member must end: its log says that it has the
/// snapshot.
pub fn take_over(
    disk: &Arc<dyn Disk>,
    config: &Config,
    options: &bolt::Options,
    old: Db,
    index: u64,
) -> Result<Db, Error> {
    let Some(received) = wal::snap::received_db(&**disk, &config.snap_dir(), index)? else {
        return Err(Error::SnapshotDatabase { snapshot: index, consistent: 0 });
    };
    old.close()?;
    disk.rename(&received, &config.db_path())?;
    disk.sync_dir(&config.snap_dir())?;
    Ok(Db::open(disk, &config.db_path(), options.clone())?)
}

/// The apply lane as the file says it is, and what the lease clock must forget and learn.
///
/// # Errors
/// The file cannot be read, or is older than the snapshot that it came with.
pub fn rebuild(
    file: bolt::View,
    config: &Config,
    before: &Cluster,
    index: u64,
) -> Result<(Applier, Vec<LeaseChange>), Error> {
    let (store, restored) = Store::restore(file)?;
    if restored.consistent_index < index {
        return Err(Error::SnapshotMismatch {
            path: config.db_path(),
            consistent: restored.consistent_index,
            snapshot: index,
        });
    }
    let cluster = Cluster::from_buckets(before.id(), before.local_id(), |bucket| {
        store.side_iter(bucket).map(|(key, value)| (key.clone(), value.clone())).collect()
    })?;
    let applier = Applier::new(Settings::new(config), store, restored.attachments, cluster)
        .map_err(|error| Error::Directory(error.to_string()))?;
    let mut leases = vec![LeaseChange::Reset];
    leases.extend(applier.leases());
    Ok((applier, leases))
}
