//! One member's raft: what the lane owns, one step, one drain.
//!
//! Invariants, restored at the end of every step:
//! 1. The election timeout is pinned (`timeouts.rs`).
//! 2. What others know of role, term and leader is what raft knows ([`RoleChange`] is queued when it differs).
//! 3. Requests that can be proposed have been; a read round is under way if anybody waits for one.
//! 4. Leases have deadlines if and only if this member leads and has applied an entry of its own term.
//! 5. A lone voter does not campaign while its log is not durable to the end: the crate counts its own vote and,
//!    with it, its whole log at once.

use std::collections::{BTreeMap, VecDeque};

use api::ids::RequestIds;
use raft::{RawNode, StateRole, eraftpb};

use super::announce::Announce;
use super::convert::{self, Dropped};
use super::lease_clock::LeaseClock;
use super::leases::LeaseWaiter;
use super::lines::{Line, Lines};
use super::log::Log;
use super::propose::Proposals;
use super::reads::Reads;
use super::ready::{Handover, Held};
use super::start::{Error, Role, Start, Status, build_log};
use super::timeouts::Timeouts;
use crate::config::Config;
use crate::effect::{RaftEffect, RaftInput, RoleChange};
use crate::limits;
use crate::mutant::Mutant;
use crate::now::{MILLISECOND, Now};

/// The raft lane of one member.
pub struct Node {
    pub(super) id: u64,
    pub(super) raft: RawNode<Log>,
    pub(super) now: Now,
    pub(super) heartbeat_ns: u64,
    pub(super) election_ticks: usize,
    pub(super) election_ns: u64,
    pub(super) timeout_ns: u64,
    pub(super) snapshot_count: u64,
    pub(super) catch_up_entries: u64,
    pub(super) fast_lease_keep_alive: bool,
    pub(super) ids: RequestIds,
    pub(super) timeouts: Timeouts,
    pub(super) effects: Vec<RaftEffect>,
    pub(super) lines: Lines,
    /// Readies handed to the log lane, with what waits for them.
    pub(super) held: VecDeque<Held>,
    /// The ready with the term and vote that are not durable yet.
    pub(super) promise: Option<u64>,
    pub(super) handover: Handover,
    pub(super) applied: u64,
    pub(super) proposals: Proposals,
    pub(super) reads: Reads,
    /// Read requests of followers that came before this leader's first commit.
    pub(super) early_reads: Vec<eraftpb::Message>,
    pub(super) leases: LeaseClock,
    pub(super) lease_waiters: VecDeque<LeaseWaiter>,
    pub(super) lease_sweep_ns: u64,
    pub(super) announce: Announce,
    /// Role as last told.
    pub(super) role: RoleChange,
    /// First entry of the term in which this member leads; 0 when it does not lead.
    pub(super) first_of_term: u64,
    /// Whether an entry of that term has been committed, and its consequences drawn.
    pub(super) committed_in_term: bool,
    /// The entry that takes this leader out of the cluster is in its log and not applied.
    pub(super) is_leaving: bool,
    /// When the current leader became known.
    pub(super) leader_since_ns: u64,
    pub(super) last_tick_ns: u64,
    /// Since when this leader, after a pause, does not know whether it still leads.
    pub(super) unconfirmed_since_ns: Option<u64>,
    pause_noticed_ns: u64,
    /// A lone voter elects itself without waiting, once.
    eager: bool,
    /// Index of the newest snapshot on disk, and whether another is under way or wanted out of turn.
    pub(super) disk_snapshot: u64,
    pub(super) snapshot_under_way: bool,
    pub(super) snapshot_forced: bool,
    pub(super) snapshot_wanted_at: u64,
    /// Followers that are being sent a snapshot, since when.
    pub(super) sending_snapshots: BTreeMap<u64, u64>,
    pub(super) keep_log_until_ns: u64,
    /// Messages dropped, and why the last one was.
    pub(super) dropped: (u64, Option<Dropped>),
}

impl Node {
    /// A member's raft in the state that a directory holds.
    pub fn new(config: &Config, start: Start, now: Now) -> Result<Node, Error> {
        let log = build_log(&start)?;
        let lines = Lines::new(start.id);
        let raft = RawNode::new(&raft_config(config, &start), log, &lines.logger())
            .map_err(|error| Error::Settings(error.to_string()))?;
        let mut leases = LeaseClock::new(config.lease_checkpoint, config.request_timeout_ns());
        for (id, ttl, remaining) in start.leases {
            leases.change(now.mono_ns, crate::effect::LeaseChange::Granted { id, ttl, remaining });
        }
        let mut node = Node {
            id: start.id,
            raft,
            now,
            heartbeat_ns: config.heartbeat_ms * MILLISECOND,
            election_ticks: config.election_ticks(),
            election_ns: config.election_ns(),
            timeout_ns: config.request_timeout_ns(),
            snapshot_count: config.snapshot_count,
            catch_up_entries: config.catch_up_entries,
            fast_lease_keep_alive: config.fast_lease_keep_alive,
            ids: RequestIds::new(start.id, now.wall_ns / MILLISECOND),
            timeouts: Timeouts::new(config.seed, start.id, config.election_ticks()),
            effects: Vec::new(),
            lines,
            held: VecDeque::new(),
            promise: None,
            handover: Handover::default(),
            applied: start.applied,
            proposals: Proposals::new(config.max_request_bytes),
            reads: Reads::default(),
            early_reads: Vec::new(),
            leases,
            lease_waiters: VecDeque::new(),
            lease_sweep_ns: now.mono_ns,
            announce: Announce::new(config),
            role: RoleChange {
                term: 0,
                leader: 0,
                is_leader: false,
                is_learner: false,
                reads_are_local: false,
            },
            first_of_term: 0,
            committed_in_term: false,
            is_leaving: false,
            leader_since_ns: 0,
            last_tick_ns: now.mono_ns,
            unconfirmed_since_ns: None,
            pause_noticed_ns: 0,
            eager: true,
            disk_snapshot: start.disk_snapshot,
            snapshot_under_way: false,
            snapshot_forced: false,
            snapshot_wanted_at: start.snapshot_wanted_at,
            sending_snapshots: BTreeMap::new(),
            keep_log_until_ns: 0,
            dropped: (0, None),
        };
        node.lines.conf_state(&node.raft.raft.prs().conf().to_conf_state());
        node.notice_snapshot_due();
        node.settle();
        Ok(node)
    }

    /// Takes one input. What follows from it waits for [`Node::drain`]; several steps may precede one drain.
    pub fn step(&mut self, now: Now, input: RaftInput) -> Result<(), Error> {
        self.now = now;
        self.notice_pause();
        match input {
            RaftInput::Tick => self.tick(),
            RaftInput::Message(message) => self.message(message)?,
            RaftInput::Propose(batch) => self.propose(batch),
            RaftInput::ConfChange { reply_to, change } => self.propose_conf_change(reply_to, change),
            RaftInput::ReadIndex(reads) => {
                let refused = self.reads.add(reads);
                self.refuse(refused, api::error::ErrorCode::TooManyRequests);
            }
            RaftInput::Renew(renewals) => self.renew(renewals),
            RaftInput::LeaseTimes(questions) => self.lease_times(questions),
            RaftInput::Persisted { ready } => self.persisted(ready),
            RaftInput::Applied { index, leases } => self.applied_to(index, leases),
            RaftInput::ConfApplied(_) if Mutant::RaftNotTold.is_on() => {}
            RaftInput::ConfApplied(applied) => self.conf_applied(applied),
            RaftInput::Versions(versions) => self.announce.versions = versions,
            RaftInput::OwnIdentity(identity) => self.proposals.own_identity = identity,
            RaftInput::SnapshotSaved { index } => self.snapshot_saved(index),
            RaftInput::ForceSnapshot => {
                self.snapshot_forced = true;
                self.notice_snapshot_due();
            }
            RaftInput::SnapshotDone { to, ok } => self.snapshot_done(to, ok),
            RaftInput::Unreachable(id) => self.raft.report_unreachable(id),
            RaftInput::TransferLeader { to } => self.transfer_leader(to),
        }
        self.settle();
        Ok(())
    }

    /// Moves everything that follows from the steps so far into `out`, in the order in which it may be done.
    pub fn drain(&mut self, out: &mut Vec<RaftEffect>) {
        while self.raft.has_ready() {
            self.take_ready();
            self.settle();
        }
        self.hand_over();
        out.append(&mut self.effects);
    }

    /// When the next tick is due.
    pub fn next_wakeup_ns(&self) -> u64 {
        self.last_tick_ns + self.heartbeat_ns
    }

    /// Who waits for the entry with this request id; asked once per answer of apply. Drain afterwards: the entry may
    /// be one that this member itself waits for.
    pub fn take_waiting(&mut self, id: u64) -> Option<crate::effect::ReplyTo> {
        if self.announce.applied(id) {
            self.effects.push(RaftEffect::Published);
        }
        self.proposals.waiting.take(id)
    }

    /// How many requests wait for their entry to be applied.
    pub fn waiting(&self) -> usize {
        self.proposals.waiting.len()
    }

    /// A fresh request id, for proposals that carry one inside (lease ids).
    pub fn ids(&self) -> &RequestIds {
        &self.ids
    }

    /// What raft knows.
    pub fn status(&self) -> Status {
        let raft = &self.raft.raft;
        let conf = convert::conf_state_out(&raft.prs().conf().to_conf_state());
        Status {
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            term: raft.term,
            leader: raft.leader_id,
            committed: raft.raft_log.committed,
            applied: self.applied,
            last_index: raft.raft_log.last_index(),
            voters: conf.voters,
            learners: conf.learners,
        }
    }

    /// The role as it was last told with [`RaftEffect::Role`].
    pub fn role(&self) -> RoleChange {
        self.role
    }

    /// Whether linearizable reads need no round: see [`RoleChange::reads_are_local`].
    pub fn reads_are_local(&self) -> bool {
        let raft = &self.raft.raft;
        raft.state == StateRole::Leader
            && self.is_lone_voter()
            && self.first_of_term != 0
            && self.applied >= self.first_of_term
    }

    /// Whether a learner has caught up enough to become a voter: nine tenths of the leader's own log. Only a leader
    /// knows; `None` when this member is none, or the learner unknown.
    pub fn learner_is_ready(&self, id: u64) -> Option<bool> {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader {
            return None;
        }
        let own = raft.prs().get(self.id)?.matched;
        let matched = raft.prs().get(id)?.matched;
        Some(matched as f64 >= own as f64 * 0.9)
    }

    /// Lines of the raft library since the last call, in etcd's words.
    pub fn take_lines(&mut self) -> Vec<Line> {
        self.lines.take()
    }

    /// How many messages were dropped since the start, and why the last one was.
    pub fn dropped(&self) -> (u64, Option<Dropped>) {
        self.dropped
    }

    /// Lets ticks pass at once, so that a member that has just connected to its peers does not wait its whole
    /// election timeout. Never as many as would start a campaign.
    pub fn fast_forward(&mut self, ticks: usize) {
        for _ in 0..ticks.min(self.election_ticks.saturating_sub(1)) {
            self.raft_tick();
        }
        self.settle();
    }

    pub(super) fn is_lone_voter(&self) -> bool {
        let raft = &self.raft.raft;
        raft.promotable() && raft.prs().is_singleton()
    }

    fn is_durable_to_the_end(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        log.persisted == log.last_index()
    }

    fn tick(&mut self) {
        self.last_tick_ns = self.now.mono_ns;
        self.raft_tick();
        self.take_late_requests();
        self.ask_late_reads_again();
        self.sweep_leases();
        self.check_log_stall();
    }

    fn raft_tick(&mut self) {
        if !self.may_campaign() {
            return;
        }
        self.timeouts.before_tick(&self.raft);
        self.raft.tick();
        self.timeouts.pin(&mut self.raft);
    }

    /// Whether the crate may start a campaign now. It looks through the entries that are not applied, which are gone
    /// while a snapshot waits to be applied; and a lone voter wins at once, with a log it takes for durable.
    pub(super) fn may_campaign(&self) -> bool {
        let raft = &self.raft.raft;
        raft.state == StateRole::Leader
            || (raft.raft_log.applied + 1 >= self.raft.store().first()
                && (!self.is_lone_voter() || self.is_durable_to_the_end()))
    }

    /// Elects a lone voter at once: there is nobody whose heartbeat it could have missed.
    fn elect_lone_voter(&mut self) {
        let raft = &self.raft.raft;
        if !self.eager
            || raft.state != StateRole::Follower
            || !self.is_lone_voter()
            || !self.is_durable_to_the_end()
            || raft.raft_log.applied < raft.raft_log.committed
        {
            return;
        }
        self.eager = false;
        for _ in 0..2 * self.election_ticks {
            self.raft_tick();
            if self.raft.raft.state == StateRole::Leader {
                break;
            }
        }
    }

    /// A leader whose ticks stood still cannot know whether it was replaced meanwhile.
    fn notice_pause(&mut self) {
        // Once per stretch without a tick: else every step in it would ask for another confirmation.
        let known_ns = self.last_tick_ns.max(self.pause_noticed_ns);
        let late = self.now.mono_ns.saturating_sub(known_ns) > limits::LATE_TICKS * self.heartbeat_ns;
        if late && !Mutant::PauseUnnoticed.is_on() && self.role.is_leader && !self.is_lone_voter() {
            self.pause_noticed_ns = self.now.mono_ns;
            self.unconfirmed_since_ns = Some(self.now.mono_ns);
        }
    }

    /// Restores the invariants at the head of this file.
    pub(super) fn settle(&mut self) {
        self.timeouts.pin(&mut self.raft);
        self.elect_lone_voter();
        self.notice_role();
        self.notice_first_commit();
        self.promote_leases();
        self.is_leaving &= self.role.is_leader && self.raft.raft.has_pending_conf();
        self.announce();
        self.flush_proposals();
        self.start_reads();
        self.work_off_lease_waiters();
    }

    fn notice_role(&mut self) {
        let raft = &self.raft.raft;
        let role = RoleChange {
            term: raft.term,
            leader: raft.leader_id,
            is_leader: raft.state == StateRole::Leader,
            is_learner: raft.prs().conf().learners().contains(&self.id),
            reads_are_local: self.reads_are_local(),
        };
        if role == self.role {
            return;
        }
        let before = std::mem::replace(&mut self.role, role);
        self.effects.push(RaftEffect::Role(role));
        if role.leader != before.leader {
            self.lines.leader_changed(before.leader, role.leader, role.term);
        }
        let new_leader = role.leader != 0 && (role.leader != before.leader || role.term != before.term);
        if new_leader {
            self.leader_since_ns = self.now.mono_ns;
            let failed = self.reads.leader_changed();
            self.refuse(failed, api::error::ErrorCode::LeaderChanged);
        }
        let leads_anew = role.is_leader && (!before.is_leader || role.term != before.term);
        if leads_anew {
            // The crate has just appended the empty entry of its term, and nothing else could follow it yet.
            self.first_of_term = self.raft.raft.raft_log.last_index();
            self.committed_in_term = false;
            self.unconfirmed_since_ns = None;
            self.is_leaving = self.own_end_is_pending();
        }
        if before.is_leader && (!role.is_leader || leads_anew) {
            self.depose();
        }
        if !role.is_leader {
            self.first_of_term = 0;
            self.committed_in_term = false;
            self.unconfirmed_since_ns = None;
            self.early_reads.clear();
        }
        if self.role.reads_are_local != self.reads_are_local() {
            self.role.reads_are_local = self.reads_are_local();
            self.effects.push(RaftEffect::Role(self.role));
        }
    }

    fn depose(&mut self) {
        self.forget_own_log();
        let blocked = self.leases.demote();
        self.park_renewals(blocked);
        self.sending_snapshots.clear();
    }

    /// From the first commit of its term on a leader may answer reads: those that waited for it go again.
    fn notice_first_commit(&mut self) {
        if self.first_of_term == 0 || self.committed_in_term || !self.raft.raft.commit_to_current_term() {
            return;
        }
        self.committed_in_term = true;
        self.announce.check_version_now();
        for message in std::mem::take(&mut self.early_reads) {
            self.raft_step(message);
        }
        if let Some(context) = self.reads.again(self.now.mono_ns, true, || self.ids.next()) {
            self.raft.read_index(context.to_be_bytes().to_vec());
        }
    }
}

/// etcd's settings of raft. What the crate has beyond them stays off.
fn raft_config(config: &Config, start: &Start) -> raft::Config {
    raft::Config {
        id: start.id,
        election_tick: config.election_ticks(),
        heartbeat_tick: 1,
        applied: start.applied,
        max_size_per_msg: limits::RAFT_MESSAGE_BYTES_MAX,
        max_inflight_msgs: limits::RAFT_INFLIGHT_MAX,
        check_quorum: true,
        pre_vote: config.pre_vote,
        max_committed_size_per_ready: limits::RAFT_MESSAGE_BYTES_MAX,
        ..raft::Config::default()
    }
}
