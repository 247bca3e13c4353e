//! Settings of one member as its core needs them: plain values, already parsed and checked by the process.

use std::path::{Path, PathBuf};

use api::version::{SERVER, Version};

use crate::bootstrap::Founding;
use crate::limits;
use crate::now::{MILLISECOND, SECOND};

/// Settings of one member.
#[derive(Clone, Debug)]
pub struct Config {
    /// The member's name.
    pub name: String,
    /// Directory that holds `member/`.
    pub data_dir: PathBuf,
    /// Directory of the log, when it is not `member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// Founders by name, each with its peer URLs.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// Enters the ids of founders.
    pub initial_cluster_token: String,
    /// Whether a member without a log founds a cluster; otherwise it joins one.
    pub new_cluster: bool,
    /// The running cluster that a member without a log joins, and which of its members it is.
    pub joining: Option<Founding>,
    /// Whether to start alone with what is in the log.
    pub force_new_cluster: bool,
    /// Whether the initial members come from a discovery service.
    pub discovery: bool,
    /// Peer URLs that this member says it has.
    pub advertise_peer_urls: Vec<String>,
    /// Whether the process has compared those with the member's entry among the founders, host names resolved.
    pub advertise_checked: bool,
    /// Client URLs that it publishes.
    pub advertise_client_urls: Vec<String>,
    /// Time between two ticks, in milliseconds.
    pub heartbeat_ms: u64,
    /// Election timeout in milliseconds.
    pub election_ms: u64,
    /// Whether a campaign first asks whether it could win.
    pub pre_vote: bool,
    /// Entries between two snapshots on disk.
    pub snapshot_count: u64,
    /// Entries kept for followers that lag.
    pub catch_up_entries: u64,
    /// Largest encoded request.
    pub max_request_bytes: u32,
    /// Learners that a cluster may have at one time.
    pub max_learners: usize,
    /// The version that this member speaks, reports and stores as: our own, or an older minor that it emulates.
    pub version: Version,
    /// Whether the time left of long leases is written down now and then (gate LeaseCheckpoint).
    pub lease_checkpoint: bool,
    /// Whether those times are stored below cluster version 3.6 too (gate LeaseCheckpointPersist).
    pub lease_checkpoint_persist: bool,
    /// Space quota of the database file in bytes; 0 is the default, negative is off.
    pub quota_bytes: i64,
    /// Cost of hashing a password that stands in the clear in an entry of 3.4.
    pub bcrypt_cost: u32,
    /// Whether a known lease is renewed without waiting for applied to reach committed (gate FastLeaseKeepAlive).
    pub fast_lease_keep_alive: bool,
    /// What every choice of this member's lanes follows from.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "default".to_owned(),
            data_dir: PathBuf::from("default.etcd"),
            wal_dir: None,
            initial_cluster: vec![("default".to_owned(), vec!["http://localhost:2380".to_owned()])],
            initial_cluster_token: "etcd-cluster".to_owned(),
            new_cluster: true,
            joining: None,
            force_new_cluster: false,
            discovery: false,
            advertise_peer_urls: vec!["http://localhost:2380".to_owned()],
            advertise_checked: false,
            advertise_client_urls: vec!["http://localhost:2379".to_owned()],
            heartbeat_ms: 100,
            election_ms: 1_000,
            pre_vote: true,
            snapshot_count: limits::SNAPSHOT_COUNT_DEFAULT,
            catch_up_entries: limits::CATCH_UP_ENTRIES_DEFAULT,
            max_request_bytes: limits::REQUEST_BYTES_DEFAULT,
            max_learners: limits::MAX_LEARNERS_DEFAULT,
            version: SERVER,
            lease_checkpoint: false,
            lease_checkpoint_persist: false,
            quota_bytes: 0,
            bcrypt_cost: 10,
            fast_lease_keep_alive: true,
            seed: 0,
        }
    }
}

impl Config {
    /// Ticks in an election timeout.
    pub fn election_ticks(&self) -> usize {
        (self.election_ms / self.heartbeat_ms.max(1)) as usize
    }

    /// Election timeout in nanoseconds, as whole ticks.
    pub fn election_ns(&self) -> u64 {
        self.election_ticks() as u64 * self.heartbeat_ms * MILLISECOND
    }

    /// How long a request may take: 5 s and two election timeouts.
    pub fn request_timeout_ns(&self) -> u64 {
        limits::REQUEST_TIMEOUT_BASE_NS + 2 * self.election_ns()
    }

    /// `DATA/member`.
    pub fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    /// Where `.snap` files and the database are.
    pub fn snap_dir(&self) -> PathBuf {
        self.member_dir().join("snap")
    }

    /// Where the log is.
    pub fn wal_path(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.member_dir().join("wal"))
    }

    /// The database file.
    pub fn db_path(&self) -> PathBuf {
        Path::join(&self.snap_dir(), "db")
    }
}

const _: () = assert!(limits::LEASE_APPLY_WAIT_NS < 5 * SECOND);
