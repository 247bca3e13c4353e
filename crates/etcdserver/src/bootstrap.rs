//! From a directory to the values that the lanes are built from: a new member, or one that was here before.
//!
//! Rules:
//! 1. A log in the directory decides: with one, the member restarts and nearly all settings about the cluster mean
//!    nothing; without one, it is new.
//! 2. The database says how far it is (consistent index). The log must reach back to there: it is opened at the
//!    newest snapshot record that the database covers. A newer record means that a database was received and not
//!    yet taken over: it is now.
//! 3. Members come from the database. Only where a release before 3.6 wrote it, they are first compared with the
//!    `.snap` file and the log after it, which were the truth then.
//! 4. Entries up to the consistent index are not applied again. Raft starts with the configuration that the members
//!    at that index give.
//! 5. A directory that cannot be trusted is refused with a sentence that says why; nothing is guessed.

mod alone;
mod founding;
mod joining;
mod reconcile;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::etcdserverpb::Metadata;
use api::version::{Minor, Version};
use api::{leasepb, raftpb, walpb};
use bolt::Db;
use bytes::Bytes;
use disk::Disk;
use mvcc::Store;
use mvcc::schema::{self, Bucket, Detected};
use prost::Message;
use wal::{Replay, Wal};

pub use founding::{Founding, check_founding};
pub use joining::{Existing, check_joining};

use crate::apply::request::Envelope;
use crate::config::Config;
use crate::membership::{Cluster, Fault};
use crate::raft::Start;

/// Everything that a member's lanes start from.
#[derive(Debug)]
pub struct Recovered {
    /// The log, open for writing; for the log lane.
    pub wal: Wal,
    /// The database's writer; for the commit lane.
    pub db: Db,
    /// The store; for the apply lane.
    pub store: Store,
    /// Keys and the leases they hang on.
    pub attachments: Vec<(i64, Bytes)>,
    /// Membership at the consistent index.
    pub cluster: Cluster,
    /// For the raft lane.
    pub start: Start,
    /// What happened, for the log.
    pub report: Report,
}

/// What bootstrap found and did, so that the process can say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the member is new.
    pub is_new: bool,
    /// This member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// Commit index that raft starts with.
    pub commit_index: u64,
    /// How far the database was.
    pub consistent_index: u64,
    /// Index of the snapshot record that the log was opened at; 0 for none.
    pub snapshot_index: u64,
    /// Index of a received database that took the place of the old one.
    pub swapped_database: Option<u64>,
    /// Whether an incomplete last write was cut off the log.
    pub log_repaired: bool,
    /// Revision of the store.
    pub current_revision: i64,
    /// Shape of the database, if it can be told.
    pub storage_version: Option<String>,
    /// Records of membership that were put right.
    pub reconciled: usize,
    /// Files of interrupted work that were removed.
    pub cleaned: Vec<String>,
    /// Uncommitted entries that were cut off, because the member goes on alone.
    pub cut_entries: usize,
    /// Things that an operator should know.
    pub warnings: Vec<String>,
}

/// How database and log are opened.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// The database.
    pub db: bolt::Options,
    /// The log.
    pub wal: wal::Options,
}

impl Default for StorageOptions {
    fn default() -> StorageOptions {
        StorageOptions {
            db: bolt::Options { directory_bucket: Some(b"key"), ..bolt::Options::default() },
            wal: wal::Options::default(),
        }
    }
}

/// Why a member does not start.
#[derive(Debug)]
pub enum Error {
    /// The file system refused.
    Disk(disk::Error),
    /// The log.
    Wal(wal::Error),
    /// The database file.
    Database(bolt::Error),
    /// What the database holds.
    Store(mvcc::Error),
    /// A record of membership.
    Membership(Fault),
    /// Another record of the database.
    Record {
        /// Its bucket.
        bucket: Bucket,
        /// Its key, as text.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The log does not say whose it is.
    Metadata(PathBuf),
    /// Settings about the cluster do not fit together.
    Founding(String),
    /// The directory holds something else than a member.
    Directory(String),
    /// A database with applied entries, but no log beside it.
    DatabaseWithoutLog {
        /// The database.
        path: PathBuf,
        /// Its consistent index.
        index: u64,
        /// Where the log should be.
        wal_dir: PathBuf,
    },
    /// The log has a snapshot that the database does not cover, and the database that came with it is gone.
    SnapshotDatabase {
        /// Index of the snapshot.
        snapshot: u64,
        /// How far the database is.
        consistent: u64,
    },
    /// The database that came with a snapshot is older than the snapshot.
    SnapshotMismatch {
        /// The database.
        path: PathBuf,
        /// How far it is.
        consistent: u64,
        /// Index of the snapshot.
        snapshot: u64,
    },
    /// The database is of a newer release.
    StorageVersion(String),
    /// The cluster is of a newer release.
    LowerThanCluster {
        /// What this member speaks.
        server: Minor,
        /// What the cluster has agreed on.
        cluster: Minor,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Disk(error) => error.fmt(f),
            Error::Wal(error) => error.fmt(f),
            Error::Database(error) => error.fmt(f),
            Error::Store(error) => error.fmt(f),
            Error::Membership(fault) => write!(f, "the database holds a record that cannot be read: {fault}"),
            Error::Record { bucket, key, reason } => {
                let bucket = String::from_utf8_lossy(bucket.name());
                write!(
                    f,
                    "the database holds a record that cannot be read: bucket {bucket}, key {key}: {reason}"
                )
            }
            Error::Metadata(dir) => {
                write!(f, "the log in {} does not say which member of which cluster wrote it", dir.display())
            }
            Error::Founding(text) | Error::Directory(text) => f.write_str(text),
            Error::DatabaseWithoutLog { path, index, wal_dir } => write!(
                f,
                "the database {} holds applied entries (up to index {index}), but there is no log in {}; put the log \
                 back, or move the data directory away and restore it from a snapshot",
                path.display(),
                wal_dir.display()
            ),
            Error::SnapshotDatabase { snapshot, consistent } => write!(
                f,
                "failed to recover v3 backend from snapshot: failed to find database snapshot file (snap: snapshot \
                 file doesn't exist): the log begins at snapshot {snapshot}, the database is at index {consistent}"
            ),
            Error::SnapshotMismatch { path, consistent, snapshot } => write!(
                f,
                "database file ({} index {consistent}) does not match with snapshot (index {snapshot})",
                path.display()
            ),
            Error::StorageVersion(text) => write!(f, "version {text:?} is not supported"),
            Error::LowerThanCluster { server, cluster } => write!(
                f,
                "invalid downgrade; server version is lower than determined cluster version: server {server}, \
                 cluster {cluster}"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl From<disk::Error> for Error {
    fn from(error: disk::Error) -> Error {
        Error::Disk(error)
    }
}

impl From<wal::Error> for Error {
    fn from(error: wal::Error) -> Error {
        Error::Wal(error)
    }
}

impl From<bolt::Error> for Error {
    fn from(error: bolt::Error) -> Error {
        Error::Database(error)
    }
}

impl From<mvcc::Error> for Error {
    fn from(error: mvcc::Error) -> Error {
        Error::Store(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        Error::Membership(fault)
    }
}

const DIR_MODE: u32 = 0o700;

/// Starts a member from its directory, new or not.
pub fn bootstrap(
    disk: &Arc<dyn Disk>,
    config: &Config,
    options: &StorageOptions,
) -> Result<Recovered, Error> {
    if wal::exists(&**disk, &config.wal_path())? {
        recover(disk, config, options)
    } else {
        create(disk, config, options)
    }
}

/// A member that was not here before.
pub fn create(disk: &Arc<dyn Disk>, config: &Config, options: &StorageOptions) -> Result<Recovered, Error> {
    let founding = match &config.joining {
        Some(joining) => joining.clone(),
        None if config.new_cluster => check_founding(config)?,
        None => {
            let text = "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs";
            return Err(Error::Founding(text.to_owned()));
        }
    };
    let cleaned = prepare_directories(&**disk, config)?;
    let db = Db::open(disk, &config.db_path(), options.db.clone())?;
    let (store, restored) = Store::restore(db.reader().view())?;
    if restored.consistent_index > 0 {
        return Err(Error::DatabaseWithoutLog {
            path: config.db_path(),
            index: restored.consistent_index,
            wal_dir: config.wal_path(),
        });
    }
    let metadata = founding.metadata();
    let mut wal = Wal::create_with(disk, &config.wal_path(), &metadata.encode_to_vec(), options.wal)?;
    // Who joins has nothing but its name: all it will ever hold comes from the leader.
    let (entries, hard_state) =
        if config.joining.is_some() { <_>::default() } else { founding.write(&mut wal)? };
    let start = Start {
        id: founding.local_id,
        entries,
        hard_state,
        conf_state: raftpb::ConfState::default(),
        ..Start::default()
    };
    let report = Report {
        is_new: true,
        member_id: founding.local_id,
        cluster_id: founding.cluster_id,
        commit_index: start.hard_state.commit(),
        current_revision: restored.current_revision,
        cleaned,
        ..Report::default()
    };
    let cluster = Cluster::new(founding.cluster_id, founding.local_id);
    Ok(Recovered { wal, db, store, attachments: restored.attachments, cluster, start, report })
}

/// A member that was here before.
pub fn recover(disk: &Arc<dyn Disk>, config: &Config, options: &StorageOptions) -> Result<Recovered, Error> {
    let cleaned = prepare_directories(&**disk, config)?;
    let mut report = Report { cleaned, ..Report::default() };
    let records = wal::snapshot_records(&**disk, &config.wal_path())?;
    let db = open_database(disk, config, options, &records, &mut report)?;
    let (mut store, restored) = Store::restore(db.reader().view())?;
    report.consistent_index = restored.consistent_index;
    report.current_revision = restored.current_revision;
    let was_3_5 = check_storage_version(&store, config.version, &mut report)?;

    let from = newest_covered(&records, restored.consistent_index);
    report.snapshot_index = from.index();
    let (mut wal, mut replay) = Wal::open_with(disk, &config.wal_path(), &from, options.wal)?;
    report.log_repaired = replay.repaired;
    let metadata = Metadata::decode(replay.metadata.clone()).unwrap_or_default();
    let (member_id, cluster_id) = (metadata.node_id(), metadata.cluster_id());
    if member_id == 0 || cluster_id == 0 {
        return Err(Error::Metadata(config.wal_path()));
    }
    (report.member_id, report.cluster_id) = (member_id, cluster_id);
    finish_founding(config, &mut wal, &mut replay, &metadata, &restored)?;

    let mut cluster = Cluster::from_buckets(cluster_id, member_id, |bucket| {
        store.side_iter(bucket).map(|(key, value)| (key.clone(), value.clone())).collect()
    })?;
    if was_3_5 {
        let covered =
            reconcile::Log { disk, config, records: &records, from: &from, entries: &replay.entries };
        let changes = covered.reconcile(&mut cluster, restored.consistent_index, &mut report);
        report.reconciled = changes.len();
        for change in changes {
            store.set_side(change.bucket, change.key, change.value);
        }
    }
    check_cluster_version(config.version, &cluster)?;
    if config.force_new_cluster {
        let at = (from.index(), restored.consistent_index);
        report.cut_entries = alone::stand_alone(&mut wal, &mut replay, &cluster, at)?;
    }
    let start = start_of(&store, &cluster, &from, replay, restored.consistent_index)?;
    report.commit_index = start.hard_state.commit().max(start.applied);
    Ok(Recovered { wal, db, store, attachments: restored.attachments, cluster, start, report })
}

/// Makes sure that the directories are there, are a member's, and hold nothing of interrupted work.
fn prepare_directories(disk: &dyn Disk, config: &Config) -> Result<Vec<String>, Error> {
    let proxy = config.data_dir.join("proxy");
    if disk.metadata(&proxy)?.is_some() {
        return Err(Error::Directory(format!(
            "{} is the data directory of a v2 proxy, which no longer exists; use another data directory",
            config.data_dir.display()
        )));
    }
    for dir in [config.data_dir.clone(), config.member_dir(), config.snap_dir()] {
        disk::create_dir_durable(disk, &dir, DIR_MODE)?;
    }
    Ok(wal::snap::clean(disk, &config.snap_dir())?)
}

/// Opens the database; if the log has a snapshot that it does not cover, first puts the received one in its place.
fn open_database(
    disk: &Arc<dyn Disk>,
    config: &Config,
    options: &StorageOptions,
    records: &[walpb::Snapshot],
    report: &mut Report,
) -> Result<Db, Error> {
    let path = config.db_path();
    let db = Db::open(disk, &path, options.db.clone())?;
    let consistent = consistent_index(&db)?;
    let newest = records.iter().map(walpb::Snapshot::index).max().unwrap_or(0);
    if newest <= consistent {
        return Ok(db);
    }
    let Some(received) = wal::snap::received_db(&**disk, &config.snap_dir(), newest)? else {
        return Err(Error::SnapshotDatabase { snapshot: newest, consistent });
    };
    db.close()?;
    disk.rename(&received, &path)?;
    disk.sync_dir(&config.snap_dir())?;
    report.swapped_database = Some(newest);
    let db = Db::open(disk, &path, options.db.clone())?;
    let consistent = consistent_index(&db)?;
    if consistent < newest {
        return Err(Error::SnapshotMismatch { path, consistent, snapshot: newest });
    }
    Ok(db)
}

fn consistent_index(db: &Db) -> Result<u64, Error> {
    let view = db.reader().view();
    let Some(meta) = view.bucket(Bucket::Meta.name())? else { return Ok(0) };
    let value = meta.get(schema::CONSISTENT_INDEX)?;
    Ok(value.and_then(schema::read_u64).unwrap_or(0))
}

fn newest_covered(records: &[walpb::Snapshot], consistent_index: u64) -> walpb::Snapshot {
    let covered = records.iter().filter(|record| record.index() <= consistent_index);
    covered.max_by_key(|record| record.index()).cloned().unwrap_or_default()
}

/// Whether a release before 3.6 was the last to write the database.
fn check_storage_version(store: &Store, server: Version, report: &mut Report) -> Result<bool, Error> {
    match schema::detect(&|key| store.side(Bucket::Meta, key)) {
        Detected::Newer(text) => Err(Error::StorageVersion(text)),
        Detected::Known(version) => {
            let text = version.text();
            let known: Version = text.parse().map_err(|_| Error::StorageVersion(text.to_owned()))?;
            if known.minor() > server.minor() {
                return Err(Error::StorageVersion(text.to_owned()));
            }
            report.storage_version = Some(text.to_owned());
            Ok(known.minor() < Minor::new(3, 6))
        }
        Detected::Unknown => {
            report.warnings.push("cannot detect storage schema version: missing term information".to_owned());
            Ok(true)
        }
    }
}

fn check_cluster_version(server: Version, cluster: &Cluster) -> Result<(), Error> {
    match cluster.version().map(Version::minor) {
        Some(agreed) if server.minor() < agreed => {
            Err(Error::LowerThanCluster { server: server.minor(), cluster: agreed })
        }
        _ => Ok(()),
    }
}

/// A founder that crashed between creating its log and writing the founding entries writes them now.
fn finish_founding(
    config: &Config,
    wal: &mut Wal,
    replay: &mut Replay,
    metadata: &Metadata,
    restored: &mvcc::Restored,
) -> Result<(), Error> {
    let is_blank = replay.entries.is_empty()
        && replay.hard_state.commit() == 0
        && restored.consistent_index == 0
        && wal.last_index() == 0;
    if !is_blank || !config.new_cluster {
        return Ok(());
    }
    if config.discovery || config.initial_cluster.is_empty() {
        // Nobody is asked again who the others were.
        return Err(Error::Directory(format!(
            "the first start with {} was interrupted before anything was in its log; remove it and start again",
            config.data_dir.display()
        )));
    }
    let founding = check_founding(config)?;
    if founding.metadata() != *metadata {
        return Ok(());
    }
    let (entries, hard_state) = founding.write(wal)?;
    replay.entries = entries;
    replay.hard_state = hard_state;
    Ok(())
}

fn start_of(
    store: &Store,
    cluster: &Cluster,
    from: &walpb::Snapshot,
    replay: Replay,
    applied: u64,
) -> Result<Start, Error> {
    let mut leases = Vec::new();
    for (key, value) in store.side_iter(Bucket::Lease) {
        let lease = leasepb::Lease::decode(value.clone()).map_err(|error| Error::Record {
            bucket: Bucket::Lease,
            key: format!("{key:?}"),
            reason: error.to_string(),
        })?;
        leases.push((lease.id, lease.ttl, lease.remaining_ttl));
    }
    Ok(Start {
        id: cluster.local_id(),
        log_start: (from.index(), from.term()),
        snapshot_wanted_at: last_v2_entry(&replay.entries),
        entries: replay.entries,
        hard_state: replay.hard_state,
        conf_state: cluster.conf_state(),
        applied,
        leases,
        disk_snapshot: from.index(),
    })
}

/// Entries of the v2 store cannot be replayed by 3.6 and 3.7, so a snapshot must cover them before such a release
/// may have the directory again. 0 if there are none.
fn last_v2_entry(entries: &[raftpb::Entry]) -> u64 {
    let is_v2 = |entry: &&raftpb::Entry| {
        entry.r#type() == raftpb::EntryType::EntryNormal
            && !entry.data().is_empty()
            && Envelope::parse(entry.data()).is_ok_and(|envelope| envelope.bare_v2)
    };
    entries.iter().rev().find(is_v2).map_or(0, raftpb::Entry::index)
}

/// The directory that holds the database, for those who look at it from outside.
pub fn database_path(data_dir: &Path) -> PathBuf {
    data_dir.join("member").join("snap").join("db")
}

#[cfg(test)]
mod tests;
