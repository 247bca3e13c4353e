//! One member: its disk, and, while its process runs, its lanes.
//!
//! This is the second driver of the lanes; the first is `crates/etcd/src/member`. It moves the same values between the
//! same lanes in the same order, and what takes time there is an event here: a sync of the log, a commit of the
//! database, the way of events to a hub. One turn of the member thread is [`Running::turn`].

mod boot;
mod file;
mod log;
mod room;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;

use api::raftpb;
use disk::mem::MemDisk;
use etcdserver::apply::Applier;
use etcdserver::auth::AuthState;
use etcdserver::bootstrap::StorageOptions;
use etcdserver::effect::{Append, LeaseTimes, Outcome, RaftEffect, RaftInput, ReplyTo};
use etcdserver::membership::Cluster;
use etcdserver::now::MILLISECOND;
use etcdserver::raft::Node;
use etcdserver::read::Published;
use etcdserver::snapshot::LocalSnapshot;
use etcdserver::{Config, Now};
use mvcc::EventBatch;
use mvcc::watch::Hub;

use crate::model::Model;

pub(crate) use boot::{Promise, check_state, disk_of};
pub(crate) use log::LogJob;
pub(crate) use room::RETRY_NS;

/// A disk refused: the process ends, as in production.
#[derive(Debug)]
pub(crate) struct Died(pub(crate) String);

impl<T: std::fmt::Display> From<T> for Died {
    fn from(error: T) -> Died {
        Died(error.to_string())
    }
}

/// What reaches a member thread.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "messages of peers are what there are most of")]
pub(crate) enum Input {
    /// For the raft lane as it is.
    Raft(RaftInput),
    /// A request of a client that must go through the log.
    Propose(etcdserver::effect::Proposal),
    /// A linearizable read, whose request the world keeps.
    Read(ReplyTo),
    /// A learner shall become a voter, if it has caught up.
    Promote { reply_to: ReplyTo, id: u64 },
    /// The log lane recorded a snapshot at this index.
    SnapshotSaved(u64),
    /// Somewhere was no room.
    NoSpace,
}

/// What a client is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// An entry was applied: its request id, and the response without ids in its header.
    Applied(u64, Result<Vec<u8>, api::Status>),
    /// A read may be answered from what is published now.
    ReadReady,
    /// A keepalive: the granted seconds, 0 for no such lease.
    Renewed(i64),
    /// Time left of leases.
    Times(LeaseTimes),
    /// Not taken.
    Refused(api::Status),
}

/// What a turn wants of the world.
#[derive(Debug)]
pub(crate) enum Out {
    Send(Vec<raftpb::Message>),
    Tell(ReplyTo, Told),
    /// The log lane has work.
    Log,
    /// The commit lane has work.
    Commit,
    /// A database to send with this message.
    Snapshot(raftpb::Message, bolt::View),
    /// For the leader.
    Forward(u64, RaftInput),
    /// For the hub.
    Events(Vec<Arc<EventBatch>>),
    /// The store was replaced.
    Replaced,
    /// A counter of the run.
    Count(Counted),
    /// For the trace.
    Note(&'static str, u64, u64),
}

/// What a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Elected { term: u64 },
    SnapshotSaved,
    SnapshotInstalled,
    MemberChanged,
}

/// What a turn may look at and report to beside its own lanes.
pub(crate) struct Turn<'a> {
    pub(crate) now: Now,
    pub(crate) model: &'a mut Model,
    pub(crate) seen: &'a mut dyn FnMut(&mut Model, &raftpb::Entry, bool),
    pub(crate) out: &'a mut Vec<Out>,
}

/// How far a snapshot on disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SnapshotStep {
    Commit,
    Committing,
    Recording,
}

/// What the commit lane is at.
#[derive(Debug)]
pub(crate) struct CommitJob {
    batch: Option<bolt::Batch>,
    force: bool,
}

/// Settings that production has in its own configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) batch_interval_ns: u64,
    pub(crate) batch_ops: usize,
    pub(crate) compaction_step: usize,
    pub(crate) is_migrated: bool,
    /// Whether its disk may be full.
    pub(crate) may_be_full: bool,
}

/// A process.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) applier: Applier,
    pub(crate) hub: Hub,
    pub(crate) published: Arc<Published>,
    pub(crate) inbox: VecDeque<Input>,
    /// When its thread wakes next, as scheduled.
    pub(crate) wake_at: u64,
    /// When the last events that were sent to the hub arrive.
    pub(crate) hub_busy_until: u64,
    wal: wal::Wal,
    db: Option<bolt::Db>,
    reader: bolt::Reader,
    config: Config,
    options: StorageOptions,
    tuning: Tuning,
    log_jobs: VecDeque<LogJob>,
    /// The next job of the log lane found no room.
    pub(crate) log_waits: bool,
    /// A snapshot that found none, and when it is tried again.
    postponed: Option<(u64, Local)>,
    pub(crate) log_now: Option<LogJob>,
    pub(crate) commit_now: Option<CommitJob>,
    pub(crate) promise: Promise,
    reads: Vec<(u64, Vec<ReplyTo>)>,
    /// Snapshots asked for by followers: at which applied index.
    builds: Vec<(u64, raftpb::Message)>,
    outcome: Outcome,
    effects: Vec<RaftEffect>,
    events: Vec<Arc<EventBatch>>,
    unflushed_since: Option<u64>,
    frozen_at: (u64, u64),
    file_at: (u64, u64),
    /// Membership at `frozen_at` and `file_at`.
    frozen_cluster: Arc<Cluster>,
    file_cluster: Arc<Cluster>,
    /// Membership that a power cut leaves at least: with lazy syncs that of the commit before the last.
    durable_cluster: Arc<Cluster>,
    snapshot: Option<SnapshotStep>,
    compaction_due: bool,
    compacted: bool,
    room: room::Room,
    is_dirty: bool,
    led_term: u64,
    /// Index of the last snapshot that raft has taken: its members are ahead of those applied until that is.
    received: u64,
    /// Members of the log, of memory or of raft may have changed since they were compared.
    members_may_differ: bool,
    /// Users and rights as they were when they were last compared.
    checked_auth: Option<Arc<AuthState>>,
    /// Set once the member has applied its own removal.
    pub(crate) is_removed: bool,
}

/// A member, running or not.
pub(crate) struct Member {
    pub(crate) config: Config,
    pub(crate) options: StorageOptions,
    pub(crate) tuning: Tuning,
    pub(crate) id: u64,
    pub(crate) disk: MemDisk,
    pub(crate) run: Option<Box<Running>>,
    pub(crate) boot: u32,
    pub(crate) paused_until: u64,
    /// Its disk has a limit for now.
    pub(crate) is_tight: bool,
    pub(crate) log_stalled_until: u64,
    pub(crate) commit_stalled_until: u64,
    /// Nanoseconds that its monotonic clock is ahead of the world's.
    pub(crate) mono_ahead: u64,
    /// Nanoseconds that its wall clock is ahead.
    pub(crate) wall_ahead: u64,
    /// It has left the cluster for good.
    pub(crate) is_gone: bool,
    /// What it said was durable before its last end.
    pub(crate) promise: Promise,
}

/// What the wall clock shows when a run begins.
const WALL_START_NS: u64 = 1_700_000_000_000 * MILLISECOND;

impl Member {
    /// What its clocks show.
    pub(crate) fn now(&self, world_ns: u64) -> Now {
        Now { mono_ns: world_ns + self.mono_ahead, wall_ns: WALL_START_NS + world_ns + self.wall_ahead }
    }

    /// When its thread must wake by itself, in the world's time.
    pub(crate) fn wakeup(&self) -> u64 {
        self.run.as_ref().map_or(u64::MAX, |run| run.deadline().saturating_sub(self.mono_ahead))
    }
}

/// The disk as the lanes take it.
pub(crate) fn shared(disk: &MemDisk) -> Arc<dyn disk::Disk> {
    Arc::new(disk.clone())
}

/// An append whose entries were written: what is promised once it is synced.
fn last_of(append: &Append) -> Option<(u64, u64)> {
    let received = append.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let received = received.map(|metadata| (metadata.index(), metadata.term()));
    append.entries.last().map(|entry| (entry.index, entry.term)).or(received)
}

/// A snapshot that the log lane writes down, and where.
type Local = Box<LocalSnapshot>;
