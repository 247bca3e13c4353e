//! Every input and effect of every lane: what may be said to the core, and what the core may ask for.
//!
//! A lane is a synchronous state machine. It is given one input at a time, with the time as an argument, and
//! leaves effects behind; which thread runs it, and over which queue the values travel, is the driver's decision.

use std::sync::Arc;

use api::raftpb;
use api::version::{Minor, Version};
use bytes::Bytes;

use crate::apply::reply::Reply;
use crate::auth::TokenChange;

/// Where an answer goes: plain data, so that waiting requests are table entries and not tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyTo {
    /// Network thread.
    pub thread: u16,
    /// Connection of that thread.
    pub connection: u32,
    /// Stream (call) of that connection.
    pub stream: u32,
}

/// Who a request comes from, while auth is on. Travels in the header of the entry, because apply decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub username: String,
    /// Revision of the auth store that the edge made its check against.
    pub auth_revision: u64,
}

/// A client's request that must go through the log: the body of one field of `InternalRaftRequest`, as received.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Who waits; `None` for the member's own proposals (revokes of due leases, alarms, publishing itself).
    pub reply_to: Option<ReplyTo>,
    /// Who asks; `None` while auth is off.
    pub identity: Option<Arc<Identity>>,
    /// Field number in `InternalRaftRequest`: 4 put, 5 delete_range, 6 txn, 7 compaction, ...
    pub field: u32,
    /// The encoded request message, spliced into the entry without being decoded.
    pub body: Bytes,
}

/// What can happen to the raft lane.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "messages of peers are what there are most of; inputs are not kept"
)]
pub enum RaftInput {
    /// One heartbeat interval has passed.
    Tick,
    /// A message of a peer, already checked to come from the same cluster.
    Message(raftpb::Message),
    /// Requests of clients, one batch per turn of a network thread.
    Propose(Vec<Proposal>),
    /// A membership change, checked against the members view; the answer follows its application.
    ConfChange {
        /// Who waits.
        reply_to: Option<ReplyTo>,
        /// The change, with etcd's numbering; `id` is filled in by the lane.
        change: raftpb::ConfChange,
    },
    /// Reads that wait for a confirmed read index; the lane answers with the same ids.
    ReadIndex(Vec<ReplyTo>),
    /// Keepalives of leases.
    Renew(Vec<Renewal>),
    /// Questions about the time left of leases.
    LeaseTimes(Vec<LeaseQuestion>),
    /// The log lane has written everything up to this ready number, and synced it where that was asked for.
    Persisted {
        /// Number of the ready, as handed out in [`Append`].
        ready: u64,
    },
    /// The apply lane has applied up to `index`.
    Applied {
        /// Index of the last applied entry.
        index: u64,
        /// What that changed for leases.
        leases: Vec<LeaseChange>,
    },
    /// A membership change has been applied; raft must follow. To be given before the [`RaftInput::Applied`] that
    /// covers its index, and before the answer to whoever asked for it leaves.
    ConfApplied(ConfApplied),
    /// What members of the cluster run and what was agreed on; to be given at start and whenever it changed.
    Versions(ClusterVersions),
    /// Who revokes of due leases come from: the root user with the present auth revision while auth is on.
    OwnIdentity(Option<Arc<Identity>>),
    /// The snapshot asked for with [`RaftEffect::SnapshotDue`] is recorded in the log.
    SnapshotSaved {
        /// Its index.
        index: u64,
    },
    /// A snapshot on disk is wanted soon, however few entries there are (the cluster version went down).
    ForceSnapshot,
    /// A snapshot has been sent, or not.
    SnapshotDone {
        /// Receiver.
        to: u64,
        /// Whether it arrived.
        ok: bool,
    },
    /// A peer could not be reached.
    Unreachable(u64),
    /// Hand leadership to a member.
    TransferLeader {
        /// The member that should lead; 0 leaves the choice to the lane.
        to: u64,
    },
}

/// What the versions in a cluster are, as far as the leader needs them to agree on one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterVersions {
    /// The cluster version in force.
    pub cluster: Option<Version>,
    /// The lowest server version of all members; `None` while that of any of them is unknown.
    pub lowest_server: Option<Version>,
    /// Where a downgrade under way leads.
    pub downgrade: Option<Minor>,
}

/// One question about leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseQuestion {
    /// Who waits.
    pub reply_to: ReplyTo,
    /// The lease asked about; `None` asks for all of them.
    pub lease: Option<i64>,
}

/// The answer to a [`LeaseQuestion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseTimes {
    /// Granted seconds, and whole seconds left; left may be negative for a lease whose revoke is under way.
    One {
        /// As granted.
        granted: i64,
        /// As left.
        left: i64,
    },
    /// There is no such lease.
    None,
    /// All leases, those with the least time left first.
    All(Vec<i64>),
}

/// One keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Who waits.
    pub reply_to: ReplyTo,
    /// The lease.
    pub lease: i64,
}

/// What the raft lane asks for.
#[derive(Debug)]
pub enum RaftEffect {
    /// Send messages to peers, in this order.
    Send(Vec<raftpb::Message>),
    /// Write to the log, and report with [`RaftInput::Persisted`].
    Append(Append),
    /// Apply committed entries. They are durable here already, so the order between this and an [`Append`] beside
    /// it is free.
    Apply(Committed),
    /// These reads may be answered once the applied index has reached `index`.
    ReadReady {
        /// The reads.
        waiting: Vec<ReplyTo>,
        /// What must be applied first.
        index: u64,
    },
    /// Answers to keepalives: the granted time in seconds, 0 when there is no such lease.
    Renewed(Vec<(Renewal, i64)>),
    /// Answers to questions about leases.
    LeaseTimes(Vec<(LeaseQuestion, LeaseTimes)>),
    /// Keepalives that the leader must answer; this member only passes them on.
    RenewElsewhere {
        /// The leader.
        leader: u64,
        /// The keepalives.
        renewals: Vec<Renewal>,
    },
    /// Questions about leases that the leader must answer.
    LeaseTimesElsewhere {
        /// The leader.
        leader: u64,
        /// The questions.
        questions: Vec<LeaseQuestion>,
    },
    /// Requests that were not taken, each with the reason.
    Refused(Vec<(ReplyTo, api::Status)>),
    /// Leadership or term changed, or reads became local or ceased to be.
    Role(RoleChange),
    /// Raft follows a membership change; whoever asked for it may be answered, the transport must follow.
    ConfChanged(ConfApplied),
    /// A follower is too far behind. Build a snapshot at the applied index, put it into this message in place of
    /// the snapshot it carries (which only says where raft stands), send it, report [`RaftInput::SnapshotDone`].
    BuildSnapshot(raftpb::Message),
    /// Enough was applied since the last snapshot on disk: see [`crate::snapshot`].
    SnapshotDue {
        /// Applied index at this moment; a later one is as good.
        applied: u64,
    },
    /// Name and client URLs of this member have been applied: it may call itself ready.
    Published,
}

/// One write to the log: all of it, then at most one sync.
#[derive(Debug)]
pub struct Append {
    /// Number to report back.
    pub ready: u64,
    /// A snapshot received from the leader that must be written first.
    pub snapshot: Option<raftpb::Snapshot>,
    /// Entries as encoded for the log.
    pub entries: Vec<wal::EncodedEntry>,
    /// Term, vote and commit when they changed.
    pub hard_state: Option<raftpb::HardState>,
    /// Whether the write must be durable before it is reported. Messages that depend on it stay in the lane until
    /// then: were they to leave from the log lane, an answer could arrive before the report.
    pub must_sync: bool,
}

/// Committed entries on their way to the apply lane.
#[derive(Debug, Default)]
pub struct Committed {
    /// A snapshot that replaces all state, before the entries.
    pub snapshot: Option<raftpb::Snapshot>,
    /// Entries in order.
    pub entries: Vec<raftpb::Entry>,
}

/// What raft thinks of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// Current term.
    pub term: u64,
    /// Leader, 0 when none is known.
    pub leader: u64,
    /// Whether this member leads.
    pub is_leader: bool,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// Whether a linearizable read may be answered from the published view without asking anybody: a sole voter
    /// that leads and has applied an entry of its own term.
    pub reads_are_local: bool,
}

/// A change to what the lease clock must watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// A snapshot replaced all state: no lease is left but those granted after this.
    Reset,
    /// A lease exists from now on, with its time to live in seconds.
    Granted {
        /// The lease.
        id: i64,
        /// Seconds.
        ttl: i64,
        /// Seconds left at the last checkpoint; 0 when there was none.
        remaining: i64,
    },
    /// A lease is gone.
    Revoked {
        /// The lease.
        id: i64,
    },
    /// The leader wrote down how much time is left.
    Checkpointed {
        /// The lease.
        id: i64,
        /// Seconds.
        remaining: i64,
    },
}

/// A membership change after its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfApplied {
    /// Index of its entry.
    pub index: u64,
    /// The change; `node_id` 0 when membership refused it.
    pub change: raftpb::ConfChange,
    /// Voters and learners as membership has them now; raft must arrive at the same.
    pub voters: Vec<u64>,
    /// Learners, sorted.
    pub learners: Vec<u64>,
}

/// What applying a batch of entries left behind.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Last applied index, 0 when nothing was applied.
    pub index: u64,
    /// Answers, by the request id of the entry. `Node::take_waiting` knows who waits. An answer to a membership
    /// change leaves only after the raft lane has taken `conf`, or a client could act on a change that raft does
    /// not know yet.
    pub replies: Vec<(u64, Result<Reply, api::Status>)>,
    /// Changes of keys, one batch per revision, in order.
    pub events: Vec<Arc<mvcc::EventBatch>>,
    /// Changes of leases.
    pub leases: Vec<LeaseChange>,
    /// Membership changes, in order.
    pub conf: Vec<ConfApplied>,
    /// What happened to the tokens that members keep in memory, in order.
    pub tokens: Vec<TokenChange>,
    /// What the member itself must propose now (an alarm when the quota is passed).
    pub proposals: Vec<Proposal>,
    /// A compaction was scheduled: the maintenance work can start.
    pub compaction_scheduled: bool,
    /// Members, cluster version or alarms changed: whoever shows them must take a new copy.
    pub cluster_changed: bool,
    /// Users, roles or the switch changed: whoever makes identities must take a new copy.
    pub auth_changed: bool,
    /// The cluster version went down: a snapshot on disk must follow soon ([`RaftInput::ForceSnapshot`]).
    pub force_snapshot: bool,
}
