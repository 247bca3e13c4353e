//! Every input and effect of every lane: what may be said to the core, and what the core may ask for.
//!
//! A lane is a synchronous state machine. It is given one input at a time, with the time as an argument, and
//! leaves effects behind; which thread runs it, and over which queue the values travel, is the driver's decision.

use std::sync::Arc;

use api::raftpb;
use bytes::Bytes;

use crate::apply::reply::Reply;

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

/// A client's request that must go through the log: the body of one field of `InternalRaftRequest`, as received.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Who waits; `None` for the member's own proposals (revokes of due leases, alarms, publishing itself).
    pub reply_to: Option<ReplyTo>,
    /// Field number in `InternalRaftRequest`: 4 put, 5 delete_range, 6 txn, 7 compaction, ...
    pub field: u32,
    /// The encoded request message, spliced into the entry without being decoded.
    pub body: Bytes,
}

/// What can happen to the raft lane.
#[derive(Debug)]
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
    /// The log lane made everything up to this ready number durable.
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
    /// A membership change has been applied; raft must follow.
    ConfApplied(ConfApplied),
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
        /// The member that should lead.
        to: u64,
    },
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
    /// Apply committed entries.
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
    /// Requests that were not taken, each with the reason.
    Refused(Vec<(ReplyTo, api::Status)>),
    /// Leadership, term or vote changed.
    Role(RoleChange),
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
    /// Whether the write must be durable before it is reported.
    pub must_sync: bool,
    /// Messages that may leave only after this write is durable.
    pub messages_after: Vec<raftpb::Message>,
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
}

/// A change to what the lease clock must watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
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
    /// Answers, by the request id of the entry. The driver knows who waits.
    pub replies: Vec<(u64, Result<Reply, api::Status>)>,
    /// Changes of keys, one batch per revision, in order.
    pub events: Vec<Arc<mvcc::EventBatch>>,
    /// Changes of leases.
    pub leases: Vec<LeaseChange>,
    /// Membership changes, in order.
    pub conf: Vec<ConfApplied>,
    /// What the member itself must propose now (an alarm when the quota is passed).
    pub proposals: Vec<Proposal>,
    /// A compaction was scheduled: the maintenance work can start.
    pub compaction_scheduled: bool,
    /// Members, cluster version or alarms changed: whoever shows them must take a new copy.
    pub cluster_changed: bool,
}
