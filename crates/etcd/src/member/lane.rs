//! The member thread: one loop that moves values between the raft lane, the apply lane, the log, the commit thread
//! and the network threads. It decides where work runs, never what work does.
//!
//! One turn: take all input, step raft, do what raft asks for until it asks for nothing, publish, send answers. The
//! published state is replaced before the answers of the same turn leave: whoever sees an answer sees its effect.

mod ahead;
mod apply;
mod file;
mod install;
mod measure;
mod peers;
mod pulse;
mod room;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::error::ErrorCode;
use api::version::Version;
use api::{Status, raftpb};
use etcdserver::apply::Applier;
use etcdserver::apply::reply::Reply;
use etcdserver::effect::{
    Append, Committed, LeaseQuestion, LeaseTimes, Outcome, Proposal, RaftEffect,
    RaftInput, Renewal, ReplyTo,
};
use etcdserver::membership::Cluster;
use etcdserver::raft::Node;
use mvcc::EventBatch;
use tokio::sync::oneshot;

use self::ahead::Ahead;
use crate::http::PEER_THREAD;
use crate::member::ask::TASK_THREAD;
use crate::member::commit;
use crate::member::handle::{Mail, MemberInput, Shared, State};
use crate::member::log;
use crate::member::meter::{CallStats, Meter};

/// Bytes not yet given to the commit thread at which a batch is frozen without waiting for its time. A quarter of the
/// room that the file holds in reserve (8 MiB): the batch that meets a full disk, with what gathered while the one before
/// it was written, should fit there; a larger one waits until deletions and compaction have made it smaller.
const FLUSH_BYTES: usize = 2 << 20;
/// Bytes of applied changes that are not in the file yet, beyond which the member takes no more entries. Commits
/// are far faster than this fills; a disk that stands still is what fills it.
const UNFLUSHED_BYTES_MAX: usize = 256 << 20;
/// Revisions a compaction step looks at, at most, before the turn goes on.
const COMPACTION_STEP: usize = 1000;
/// A compaction step is followed by a pause so many times as long, while there is other work.
const COMPACTION_PAUSE: u32 = 24;

/// Answers of one turn for one network thread.
#[derive(Default)]
struct Outgoing {
    replies: Vec<(ReplyTo, Result<Reply, Status>)>,
    read_ready: Vec<ReplyTo>,
    renewed: Vec<(Renewal, i64)>,
    lease_times: Vec<(LeaseQuestion, LeaseTimes)>,
    refused: Vec<(ReplyTo, Status)>,
    slow: Vec<(ReplyTo, CallStats)>,
}

/// See the head of this file.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    log: Arc<log::Lane>,
    node: Node,
    applier: Applier,
    outgoing: Vec<Outgoing>,
    /// Answers to tasks, which leave with the others.
    task_answers: Vec<(ReplyTo, Result<Reply, Status>)>,
    /// Members that the transport knows, with their URLs.
    peers: BTreeMap<u64, Vec<String>>,
    /// Followers that need a snapshot: their messages, until a batch with all that is applied is handed over, and
    /// while it is out.
    building: Vec<raftpb::Message>,
    building_in_batch: Vec<raftpb::Message>,
    /// The members as of the batch that is out.
    frozen_cluster: Arc<Cluster>,
    /// What waits while a received database takes the place of the present one.
    installing: Option<VecDeque<Committed>>,
    /// The lowest server version among all members, as last heard.
    lowest_server: Option<Version>,
    events: Vec<Arc<EventBatch>>,
    effects: Vec<RaftEffect>,
    later: pulse::Later,
    outcome: Outcome,
    meter: Meter,
    /// Leader as last seen.
    leader: u64,
    /// Records that compactions before this one took away.
    compacted_before: u64,
    /// Index of the last snapshot on disk; 0 before the first.
    snapshot_index: u64,
    /// When the compaction under way was asked for, and whether it has made a step.
    compaction_start: Option<(Instant, bool)>,
    /// Reads whose index is confirmed but not applied yet.
    reads: Vec<(u64, Vec<ReplyTo>)>,
    /// Since when something waits to be committed to the file.
    unflushed_since: Option<u64>,
    /// A batch is with the commit thread.
    batch_is_out: bool,
    /// Somebody wants the file to hold everything that is applied now: the index it must reach.
    file_waiters: Vec<(u64, oneshot::Sender<Result<bolt::View, Status>>)>,
    /// Index and term of the last entry in the batch that is out, and in the file.
    frozen_at: (u64, u64),
    file_at: (u64, u64),
    /// A snapshot on disk is due: its index, and how far its commit is.
    snapshot: Option<SnapshotStep>,
    sizes: bolt::Sizes,
    /// A compaction is under way; when its next step is due.
    compaction_due: Option<u64>,
    /// A compaction that has ended in memory: it is told of once a batch with all of it is in the file.
    compacted: Option<i64>,
    /// The same, while that batch is with the commit thread.
    compacted_in_batch: Option<i64>,
    /// What the compaction finds in memory.
    ahead: Ahead,
    /// The applied index at the last step of a compaction.
    applied_at_compaction: u64,
    room: room::Room,
    /// As last logged.
    cluster_version: Option<Version>,
    is_dirty: bool,
    stopping: bool,
}

/// How far a snapshot on disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SnapshotStep {
    /// Everything up to here must be in the file, durably.
    Commit,
    /// The commit thread has it.
    Committing,
    /// The log thread writes it down.
    Recording,
}

impl Lane {
    /// Puts the thread together; sizes are those of the file just opened, and the newest snapshot is at the index.
    pub(crate) fn new(
        shared: Arc<Shared>,
        log: Arc<log::Lane>,
        node: Node,
        applier: Applier,
        (sizes, snapshot_index): (bolt::Sizes, u64),
    ) -> Lane {
        let outgoing = shared.networks.iter().map(|_| Outgoing::default()).collect();
        let compaction_due = applier.store().is_compacting().then_some(0);
        let file_at = applier.applied();
        let cluster_version = applier.cluster().version();
        let meter = Meter::new(&shared);
        let frozen_cluster = applier.cluster().clone();
        Lane {
            meter,
            task_answers: Vec::new(),
            peers: BTreeMap::new(),
            building: Vec::new(),
            building_in_batch: Vec::new(),
            frozen_cluster,
            installing: None,
            lowest_server: None,
            leader: 0,
            compaction_start: None,
            snapshot_index,
            compacted_before: 0,
            shared,
            log,
            node,
            applier,
            outgoing,
            events: Vec::new(),
            effects: Vec::new(),
            later: pulse::Later::default(),
            outcome: Outcome::default(),
            reads: Vec::new(),
            unflushed_since: None,
            batch_is_out: false,
            file_waiters: Vec::new(),
            frozen_at: file_at,
            file_at,
            snapshot: None,
            sizes,
            compaction_due,
            ahead: Ahead::default(),
            compacted: None,
            compacted_in_batch: None,
            applied_at_compaction: 0,
            room: room::Room::default(),
            cluster_version,
            is_dirty: true,
            stopping: false,
        }
    }

    /// Runs until told to stop; then everything applied is in the file, durably.
    pub(crate) fn run(mut self) {
        self.tell_versions();
        self.tell_identity();
        self.shared.transport.set_removed(self.applier.cluster().removed());
        self.follow_members();
        // A fresh file gets its buckets before anything else, as in etcd.
        self.hand_batch(false);
        let mut batch = Vec::new();
        while !self.stopping {
            let later = std::mem::take(&mut self.later.inputs);
            let deadline = if later.is_empty() { self.deadline() } else { Instant::now() };
            self.shared.member.take_until(deadline, &mut batch);
            for input in later.into_iter().chain(batch.drain(..)) {
                self.input(input);
            }
            let now = self.shared.now();
            if now.mono_ns >= self.node.next_wakeup_ns() {
                self.step(RaftInput::Tick);
            }
            self.settle();
            self.compaction_step(now);
            self.flush(now);
            self.publish_and_send();
        }
        self.finish();
    }

    fn deadline(&self) -> Instant {
        let mut next = self.node.next_wakeup_ns();
        if let Some(since) = self.unflushed_since.filter(|_| !self.batch_is_out) {
            let due = since + self.shared.config.batch_interval.as_nanos() as u64;
            next = next.min(due.max(self.room.retry_at().unwrap_or(0)));
        }
        if let Some(due) = self.compaction_due {
            next = next.min(due);
        }
        self.shared.instant_of(next)
    }

    fn step(&mut self, input: RaftInput) {
        pulse::step(&mut self.node, &self.shared, input);
    }

    fn input(&mut self, input: MemberInput) {
        match input {
            MemberInput::Propose(batch, at) => self.propose(batch, at),
            MemberInput::Read(batch) => self.step(RaftInput::ReadIndex(batch)),
            MemberInput::Renew(batch) => self.step(RaftInput::Renew(batch)),
            MemberInput::LeaseTimes(batch) => self.step(RaftInput::LeaseTimes(batch)),
            MemberInput::Persisted(ready) => self.step(RaftInput::Persisted { ready }),
            MemberInput::SnapshotSaved(index) => {
                self.snapshot = None;
                self.snapshot_index = index;
                self.shared.logger.info("saved snapshot to disk", &[("snapshot-index", index.into())]);
                self.step(RaftInput::SnapshotSaved { index });
            }
            MemberInput::Committed(committed) => self.committed(committed),
            MemberInput::CommitNow(done) => self.file_waiters.push((self.applier.applied().0, done)),
            MemberInput::ReadAhead(to) => self.read_ahead(to),
            MemberInput::NoRoom(what) => self.batch_refused(&what),
            MemberInput::NoSpace(what) => self.no_space(&what),
            MemberInput::Peer(message) => {
                self.shared.transport.taken(&message);
                self.step(RaftInput::Message(message));
            }
            MemberInput::ReceivedSnapshot(message) => self.step(RaftInput::Message(message)),
            MemberInput::SnapshotDone { to, ok } => self.step(RaftInput::SnapshotDone { to, ok }),
            MemberInput::Unreachable(id) => self.step(RaftInput::Unreachable(id)),
            MemberInput::LearnerIsReady { id, answer } => {
                // Whoever has gone needs no answer.
                let _gone = answer.send(self.node.learner_is_ready(id));
            }
            MemberInput::LowestServer(version) => {
                self.lowest_server = version;
                self.tell_versions();
            }
            MemberInput::FastForward(ticks) => self.node.fast_forward(ticks),
            MemberInput::Installed(installed) => self.installed(*installed),
            MemberInput::ConfChange { reply_to, change } => self.step(RaftInput::ConfChange { reply_to, change }),
            MemberInput::TransferLeader(to) => self.step(RaftInput::TransferLeader { to }),
            MemberInput::Stop => self.stopping = true,
        }
    }

    /// Takes requests, unless the disk is so far behind that the buffers have reached their bound.
    fn propose(&mut self, batch: Vec<Proposal>, at: Instant) {
        self.meter.proposed(at);
        if !self.is_behind() {
            return self.step(RaftInput::Propose(batch));
        }
        let status = Status::from(ErrorCode::TooManyRequests);
        let waiting = batch.into_iter().filter_map(|proposal| proposal.reply_to);
        self.refused(waiting.map(|to| (to, status.clone())).collect());
    }

    /// Does what raft asks for, until it asks for nothing.
    fn settle(&mut self) {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            effects.append(&mut self.later.effects);
            self.node.drain(&mut effects);
            if effects.is_empty() {
                self.effects = effects;
                break;
            }
            // What raft has to say comes before what it leads to.
            for line in self.node.take_lines() {
                self.shared.raft_line(&line);
            }
            for effect in effects.drain(..) {
                self.effect(effect);
            }
            self.effects = effects;
        }
        for line in self.node.take_lines() {
            self.shared.raft_line(&line);
        }
    }

    fn effect(&mut self, effect: RaftEffect) {
        match effect {
            RaftEffect::Append(append) => self.append(append),
            RaftEffect::Apply(committed) => self.apply(committed),
            RaftEffect::ReadReady { waiting, index } => {
                if index <= self.applier.applied().0 {
                    self.read_ready(waiting);
                } else {
                    self.reads.push((index, waiting));
                }
            }
            RaftEffect::Renewed(renewed) => self.renewed(renewed),
            RaftEffect::LeaseTimes(answers) => self.lease_times(answers),
            RaftEffect::Refused(refused) => self.refused(refused),
            RaftEffect::Role(role) => {
                self.applier.set_reads_are_local(role.reads_are_local);
                self.role_changed(role);
            }
            RaftEffect::ConfChanged(_) => {
                self.is_dirty = true;
                self.follow_members();
            }
            RaftEffect::SnapshotDue { applied } => self.snapshot_due(applied),
            RaftEffect::Published => self.shared.published_itself(),
            RaftEffect::Send(messages) => self.send(messages),
            RaftEffect::BuildSnapshot(message) => self.building.push(message),
            RaftEffect::RenewElsewhere { renewals, .. } => self.renew_elsewhere(renewals),
            RaftEffect::LeaseTimesElsewhere { questions, .. } => self.lease_times_elsewhere(questions),
        }
    }

    fn refused(&mut self, refused: Vec<(ReplyTo, Status)>) {
        self.shared.metrics.lane.proposals_failed.bump(refused.len() as u64);
        for row in refused {
            if row.0.thread == PEER_THREAD {
                self.shared.peer_calls.refuse(row.0);
                continue;
            }
            if row.0.thread == TASK_THREAD {
                self.task_answers.push((row.0, Err(row.1)));
                continue;
            }
            self.outgoing[usize::from(row.0.thread)].refused.push(row);
        }
    }

    /// A sole voter writes inline when nothing else waits: two crossings saved. Otherwise the log thread takes over
    /// and requests that arrive meanwhile become the next batch; in a cluster always, so that a slow disk holds up no
    /// heartbeat.
    fn append(&mut self, append: Append) {
        if let Some(last) = append.entries.last() {
            self.meter.appended(last.index);
        }
        if self.node.reads_are_local() && self.log.is_idle() && self.shared.member.is_empty() {
            let ready = append.ready;
            self.log.append(&self.shared, std::slice::from_ref(&append));
            self.step(RaftInput::Persisted { ready });
        } else {
            self.log.push(log::Job::Append(append));
        }
    }

    /// Replaces the published state if anything changed, then lets events and answers leave.
    fn publish_and_send(&mut self) {
        if std::mem::take(&mut self.is_dirty) {
            let status = self.node.status();
            self.shared.published.store(Arc::new(State {
                edge: self.applier.publish(),
                role: self.node.role(),
                committed: status.committed,
                sizes: self.sizes,
            }));
            self.measure(status.committed);
        }
        if !self.events.is_empty() {
            let events = Arc::new(std::mem::take(&mut self.events));
            self.shared.tell_networks(|| Mail::Events(events.clone()));
        }
        for (to, answer) in self.task_answers.drain(..) {
            self.shared.tasks.tell(to, answer);
        }
        for (network, outgoing) in self.shared.networks.iter().zip(&mut self.outgoing) {
            let mut mail = Vec::new();
            post(&mut mail, &mut outgoing.slow, Mail::Slow);
            post(&mut mail, &mut outgoing.replies, Mail::Replies);
            post(&mut mail, &mut outgoing.read_ready, Mail::ReadReady);
            post(&mut mail, &mut outgoing.renewed, Mail::Renewed);
            post(&mut mail, &mut outgoing.lease_times, Mail::LeaseTimes);
            post(&mut mail, &mut outgoing.refused, Mail::Refused);
            network.push_all(&mut mail);
        }
    }

    /// The end: what is committed is applied, what is applied goes into the file, durably.
    fn finish(mut self) {
        self.log.push(log::Job::Stop);
        while !self.log.is_idle() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut rest = Vec::new();
        self.shared.member.take(&mut rest);
        for input in std::mem::take(&mut self.later.inputs).into_iter().chain(rest) {
            match input {
                MemberInput::Persisted(_)
                | MemberInput::Committed(_)
                | MemberInput::NoRoom(_)
                | MemberInput::SnapshotSaved(_) => self.input(input),
                MemberInput::Propose(batch, _) => {
                    let stopped = Status::from(ErrorCode::Stopped);
                    let waiting = batch.into_iter().filter_map(|proposal| proposal.reply_to);
                    self.refused(waiting.map(|to| (to, stopped.clone())).collect());
                }
                _ => {}
            }
        }
        self.settle();
        self.publish_and_send();
        self.wait_for_batch();
        self.hand_batch(true);
        self.wait_for_batch();
        self.shared.commit.push(commit::Job::Close);
    }

    fn wait_for_batch(&mut self) {
        let mut batch = Vec::new();
        while self.batch_is_out {
            self.shared.member.take_any(&mut batch);
            for input in batch.drain(..) {
                match input {
                    // On a full disk the log has what the file lacks.
                    MemberInput::Committed(_) | MemberInput::NoRoom(_) => self.input(input),
                    _ => {}
                }
            }
        }
    }
}

/// Puts the rows, if there are some, into the mail as one piece.
fn post<T>(mail: &mut Vec<Mail>, rows: &mut Vec<T>, piece: fn(Vec<T>) -> Mail) {
    if !rows.is_empty() {
        mail.push(piece(std::mem::take(rows)));
    }
}
