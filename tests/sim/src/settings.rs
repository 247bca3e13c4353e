//! What a seed picks before a run begins.

use std::fmt;

use crate::random::Random;

/// Everything that is fixed for a run. Times in milliseconds unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What everything else follows from.
    pub seed: u64,
    /// Founders.
    pub members: usize,
    /// Time between two ticks.
    pub heartbeat_ms: u64,
    /// Ticks in an election timeout.
    pub election_ticks: u64,
    /// Whether campaigns ask first.
    pub pre_vote: bool,
    /// Entries between snapshots on disk.
    pub snapshot_count: u64,
    /// Entries kept for followers that lag.
    pub catch_up: u64,
    /// Most learners.
    pub max_learners: usize,
    /// Longest time that applied entries wait for the file.
    pub batch_interval_ms: u64,
    /// Changes that make a batch.
    pub batch_ops: u64,
    /// Records a compaction step looks at.
    pub compaction_step: usize,
    /// Length of a log segment.
    pub segment_bytes: u64,
    /// Pages in a leaf of the database.
    pub leaf_pages: u32,
    /// Whether a commit's meta page waits for the next commit.
    pub lazy_sync: bool,
    /// Space quota of the database; 0 for none to speak of.
    pub quota_bytes: i64,
    /// Whether disks are full now and then.
    pub fills_disks: bool,
    /// Typical way of a message, microseconds.
    pub network_us: u64,
    /// Messages lost, of a thousand.
    pub loss: u64,
    /// Messages that come twice, of a thousand.
    pub duplicates: u64,
    /// Typical sync of the log, microseconds.
    pub sync_us: u64,
    /// Typical commit of the database, microseconds.
    pub commit_us: u64,
    /// Typical way of events to a hub, microseconds.
    pub hub_us: u64,
    /// Ticks between two faults, about; 0 for none.
    pub fault_ticks: u64,
    /// Ticks between two requests of all clients together, thousandths.
    pub request_milliticks: u64,
    /// Ticks between two membership changes, about; 0 for none.
    pub member_ticks: u64,
    /// Watchers at one time.
    pub watchers: usize,
    /// Messages a slow reader has waiting before its stream counts as full.
    pub stream_room: usize,
    /// Keys in use.
    pub keys: u64,
    /// Ticks of the first phase.
    pub safety_ticks: u64,
    /// Whether checkpoints of leases are written.
    pub lease_checkpoint: bool,
    /// Whether members write down the storage version; without it their directories count as those of 3.5.
    pub is_migrated: bool,
    /// Changes of users, roles and rights beside a thousand requests; 0: auth is never on.
    pub auth_per_mille: u64,
    /// Whether one defragmentation follows the other.
    pub is_moving: bool,
}

impl Settings {
    /// What the seed says.
    pub fn of(seed: u64) -> Settings {
        let r = &mut Random::new(seed, 1);
        let heartbeat_ms = r.pick(&[10, 20, 50, 100]);
        let calm = r.per_mille(150);
        let quota_bytes = if r.per_mille(120) { r.pick(&[48 << 10, 80 << 10, 128 << 10]) } else { 0 };
        Settings {
            seed,
            members: r.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 7]),
            heartbeat_ms,
            election_ticks: r.pick(&[5, 8, 10, 10, 20]),
            pre_vote: !r.per_mille(150),
            snapshot_count: r.pick(&[10, 50, 200, 200, 1_000]),
            catch_up: r.pick(&[1, 10, 100, 500]),
            max_learners: r.pick(&[1, 1, 2]),
            batch_interval_ms: r.pick(&[5, 50, 100, 500]),
            batch_ops: r.pick(&[5, 50, 1_000]),
            compaction_step: r.pick(&[2, 10, 100]),
            segment_bytes: r.pick(&[16 << 10, 64 << 10, 256 << 10]),
            leaf_pages: r.pick(&[1, 4]),
            lazy_sync: r.per_mille(400),
            quota_bytes,
            network_us: r.pick(&[100, 500, 2_000, heartbeat_ms * 300]),
            loss: if calm { 0 } else { r.pick(&[0, 5, 20, 100]) },
            duplicates: if calm { 0 } else { r.pick(&[0, 10, 50]) },
            sync_us: r.pick(&[100, 1_000, heartbeat_ms * 200]),
            commit_us: r.pick(&[500, 5_000, heartbeat_ms * 1_000]),
            hub_us: r.pick(&[50, 2_000, heartbeat_ms * 2_000]),
            fault_ticks: if calm { 0 } else { r.pick(&[40, 100, 100, 200]) },
            request_milliticks: r.pick(&[300, 500, 1_000]),
            member_ticks: if r.per_mille(200) { 0 } else { r.pick(&[60, 150, 300]) },
            watchers: r.pick(&[2, 6, 12]),
            stream_room: r.pick(&[1, 4, 40]),
            keys: r.pick(&[3, 12, 40, 150]),
            safety_ticks: 4_500,
            lease_checkpoint: r.per_mille(300),
            is_migrated: !r.per_mille(150),
            is_moving: r.per_mille(if quota_bytes > 0 { 600 } else { 150 }),
            auth_per_mille: if r.per_mille(350) { r.pick(&[10, 40, 100]) } else { 0 },
            fills_disks: r.per_mille(150),
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{self:?}");
        f.write_str(text.trim_start_matches("Settings ").trim_matches(|c| c == '{' || c == '}').trim())
    }
}
