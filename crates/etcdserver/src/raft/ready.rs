//! What raft has for the world, and in which order it may leave.
//!
//! Invariants:
//! 1. Readies reach the log in their order, and are reported durable to raft in that order.
//! 2. Append answers and all votes and vote requests leave only after the ready they come from, and every ready
//!    before it, is durable. Heartbeat answers and requests passed on to the leader depend on nothing written.
//!    A leader's messages leave at once, beside its own write: only what is durable counts for its own vote. That
//!    holds once its term is durable. A lone voter wins an election before that, and with the power the term would go:
//!    it would come again with other entries, which learners could not tell from those that they have.
//! 3. Entries reach apply in their order, each once, and only when durable here.
//! 4. Entries handed over and not yet applied never exceed a bound in bytes, one batch of raft's apart.

use std::collections::VecDeque;

use api::raftpb;
use bytes::BytesMut;
use raft::eraftpb::{self, MessageType};
use raft::{Ready, SnapshotStatus, StateRole};

use super::convert;
use super::node::Node;
use crate::effect::{Append, Committed, LeaseChange, RaftEffect, ReplyTo};
use crate::limits::{self, APPLY_CREDIT_BYTES, ENTRY_OVERHEAD_BYTES};
use crate::mutant::Mutant;

/// A ready that was handed to the log lane, and the messages that wait for it.
#[derive(Debug)]
pub(crate) struct Held {
    number: u64,
    /// Whether it must be reported before raft may count on it. Readies without a write only wait behind others.
    is_write: bool,
    since_ns: u64,
    messages: Vec<raftpb::Message>,
    /// A snapshot that apply gets once it is durable.
    snapshot: Option<raftpb::Snapshot>,
}

/// Committed entries on their way to apply.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    snapshot: Option<raftpb::Snapshot>,
    backlog: VecDeque<eraftpb::Entry>,
    /// Last index and bytes of each batch that apply has not reported.
    handed: VecDeque<(u64, u64)>,
    handed_bytes: u64,
}

fn cost(entry: &eraftpb::Entry) -> u64 {
    ENTRY_OVERHEAD_BYTES + (entry.data.len() + entry.context.len()) as u64
}

impl Node {
    pub(super) fn take_ready(&mut self) {
        let mut ready = self.raft.ready();
        for read in ready.take_read_states() {
            self.read_confirmed(&read.request_ctx, read.index);
        }
        let snapshot = (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone());
        if let Some(snapshot) = &snapshot {
            let metadata = snapshot.get_metadata();
            let conf_state = metadata.get_conf_state().clone();
            self.lines.conf_state(&conf_state);
            self.raft.mut_store().restore(metadata.index, metadata.term, conf_state);
        }
        let entries = ready.take_entries();
        self.raft.mut_store().append(&entries);
        if let Some(hard_state) = ready.hs() {
            let hard_state = hard_state.clone();
            let known = self.raft.store().hard_state();
            if (known.term, known.vote) != (hard_state.term, hard_state.vote)
                && !Mutant::TermBeforeSync.is_on()
            {
                self.promise = Some(ready.number());
            }
            self.raft.mut_store().set_hard_state(hard_state);
        }
        let mut messages = ready.take_messages();
        messages.append(&mut ready.take_persisted_messages());
        self.handover.backlog.extend(ready.take_committed_entries());
        let leads = self.raft.raft.state == StateRole::Leader && self.promise.is_none();
        self.write_and_send(ready, leads, &entries, snapshot, messages);
    }

    /// Queues messages that may leave, the write, and what has to wait for it.
    fn write_and_send(
        &mut self,
        ready: Ready,
        leads: bool,
        entries: &[eraftpb::Entry],
        snapshot: Option<eraftpb::Snapshot>,
        messages: Vec<eraftpb::Message>,
    ) {
        let number = ready.number();
        let must_sync = ready.must_sync();
        let hard_state = ready.hs().map(convert::hard_state_out);
        let is_write = !entries.is_empty() || hard_state.is_some() || snapshot.is_some();
        let snapshot = snapshot.map(convert::snapshot_out);
        let (now, later) = self.sort_messages(messages, leads);
        if !now.is_empty() {
            self.effects.push(RaftEffect::Send(now));
        }
        if is_write {
            let mut buffer = BytesMut::new();
            let encoded = entries.iter().map(|entry| wal::EncodedEntry {
                index: entry.index,
                term: entry.term,
                bytes: convert::encode_entry(entry, &mut buffer),
            });
            self.effects.push(RaftEffect::Append(Append {
                ready: number,
                snapshot: snapshot.clone(),
                entries: encoded.collect(),
                hard_state,
                must_sync,
            }));
        }
        self.raft.advance_append_async(ready);
        if Mutant::OwnVoteBeforeSync.is_on() {
            self.raft.on_persist_ready(number);
        }
        if must_sync || !self.held.is_empty() {
            let since_ns = self.now.mono_ns;
            self.held.push_back(Held { number, is_write: must_sync, since_ns, messages: later, snapshot });
        } else {
            // Nothing that could be lost: a bare commit index may be written whenever the log lane comes to it.
            self.raft.on_persist_ready(number);
            if !later.is_empty() {
                self.effects.push(RaftEffect::Send(later));
            }
        }
    }

    /// Parts messages into those that may leave at once and those that wait for the write; snapshots are asked for.
    fn sort_messages(
        &mut self,
        messages: Vec<eraftpb::Message>,
        leads: bool,
    ) -> (Vec<raftpb::Message>, Vec<raftpb::Message>) {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for message in messages {
            let at_once = leads
                || Mutant::AckBeforeSync.is_on()
                || matches!(
                    message.msg_type,
                    MessageType::MsgHeartbeatResponse
                        | MessageType::MsgPropose
                        | MessageType::MsgReadIndex
                        | MessageType::MsgTransferLeader
                );
            if message.msg_type == MessageType::MsgSnapshot {
                self.sending_snapshots.insert(message.to, self.now.mono_ns);
                self.effects.push(RaftEffect::BuildSnapshot(convert::message_out(message)));
            } else if at_once {
                now.push(convert::message_out(message));
            } else {
                later.push(convert::message_out(message));
            }
        }
        (now, later)
    }

    /// The log lane has made everything up to this ready durable.
    pub(super) fn persisted(&mut self, number: u64) {
        let mut last = None;
        let mut messages = Vec::new();
        while let Some(front) = self.held.front() {
            if front.number > number && (front.is_write || last.is_none()) {
                break;
            }
            let Some(held) = self.held.pop_front() else { break };
            last = Some(held.number);
            messages.extend(held.messages);
            if let Some(snapshot) = held.snapshot {
                // What is committed before the snapshot is part of it.
                self.handover.backlog.clear();
                self.handover.snapshot = Some(snapshot);
            }
        }
        if let Some(last) = last {
            self.promise.take_if(|promise| *promise <= last);
            self.raft.on_persist_ready(last);
        }
        if !messages.is_empty() {
            self.effects.push(RaftEffect::Send(messages));
        }
    }

    /// Gives apply what is committed, as far as its credit goes.
    pub(super) fn hand_over(&mut self) {
        let mut committed = Committed { snapshot: self.handover.snapshot.take(), entries: Vec::new() };
        let mut bytes = 0;
        while self.handover.handed_bytes + bytes < APPLY_CREDIT_BYTES {
            let Some(entry) = self.handover.backlog.pop_front() else { break };
            bytes += cost(&entry);
            committed.entries.push(convert::entry_out(entry));
        }
        let snapshot_index = committed
            .snapshot
            .as_ref()
            .and_then(|s| s.metadata.as_ref())
            .map(raftpb::SnapshotMetadata::index);
        if let Some(last) = committed.entries.last().map(raftpb::Entry::index).or(snapshot_index) {
            self.handover.handed.push_back((last, bytes));
            self.handover.handed_bytes += bytes;
            self.effects.push(RaftEffect::Apply(committed));
        }
    }

    /// Apply has come to `index`.
    pub(super) fn applied_to(&mut self, index: u64, leases: Vec<LeaseChange>) {
        let mut freed = Vec::new();
        for change in leases {
            freed.extend(self.leases.change(self.now.mono_ns, change));
        }
        self.answer_gone(freed);
        if index <= self.applied {
            return;
        }
        self.applied = index;
        while let Some((last, bytes)) = self.handover.handed.front().copied() {
            if last > index {
                break;
            }
            self.handover.handed.pop_front();
            self.handover.handed_bytes -= bytes;
        }
        self.raft.advance_apply_to(index);
        self.raft.mut_store().set_applied(index);
        self.cut_log();
        self.notice_snapshot_due();
    }

    fn cut_log(&mut self) {
        let now_ns = self.now.mono_ns;
        let limit = limits::SNAPSHOT_RELEASE_DELAY_NS;
        self.sending_snapshots.retain(|_, since_ns| now_ns.saturating_sub(*since_ns) < 10 * limit);
        if self.sending_snapshots.is_empty() && now_ns >= self.keep_log_until_ns {
            let catch_up = self.catch_up_entries;
            self.raft.mut_store().cut(catch_up, limits::LOG_BYTES_MAX);
        } else if self.raft.store().bytes() > limits::LOG_BYTES_HARD_MAX {
            let catch_up = self.catch_up_entries;
            self.raft.mut_store().cut(catch_up, limits::LOG_BYTES_HARD_MAX);
        }
    }

    pub(super) fn notice_snapshot_due(&mut self) {
        let due = self.applied.saturating_sub(self.disk_snapshot) > self.snapshot_count;
        let forced = (self.snapshot_forced && self.applied > self.disk_snapshot)
            || (self.snapshot_wanted_at > self.disk_snapshot && self.applied >= self.snapshot_wanted_at);
        if (due || forced) && !self.snapshot_under_way {
            self.snapshot_under_way = true;
            self.snapshot_forced = false;
            self.effects.push(RaftEffect::SnapshotDue { applied: self.applied });
        }
    }

    pub(super) fn snapshot_saved(&mut self, index: u64) {
        self.snapshot_under_way = false;
        self.disk_snapshot = self.disk_snapshot.max(index);
        self.notice_snapshot_due();
    }

    pub(super) fn snapshot_done(&mut self, to: u64, ok: bool) {
        self.sending_snapshots.remove(&to);
        self.keep_log_until_ns = self.now.mono_ns + limits::SNAPSHOT_RELEASE_DELAY_NS;
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raft.report_snapshot(to, status);
    }

    fn read_confirmed(&mut self, context: &[u8], index: u64) {
        let Some(confirmed) = self.reads.confirmed(context, index) else { return };
        if self.unconfirmed_since_ns.is_some_and(|since_ns| confirmed.started_ns >= since_ns) {
            self.unconfirmed_since_ns = None;
        }
        if !confirmed.reads.is_empty() {
            self.effects.push(RaftEffect::ReadReady { waiting: confirmed.reads, index });
        }
    }

    /// A leader whose log lane does not come back hands leadership away: it could not commit anything anyway.
    pub(super) fn check_log_stall(&mut self) {
        let limit = limits::STALL_ELECTIONS * self.election_ns;
        let stalled =
            self.held.front().is_some_and(|held| self.now.mono_ns.saturating_sub(held.since_ns) > limit);
        if stalled
            && self.role.is_leader
            && !self.is_lone_voter()
            && self.raft.raft.lead_transferee.is_none()
            && let Some(to) = self.best_successor()
        {
            self.raft.transfer_leader(to);
        }
    }

    pub(super) fn refuse(&mut self, who: Vec<ReplyTo>, why: api::error::ErrorCode) {
        if !who.is_empty() {
            let status = api::Status::from(why);
            self.effects.push(RaftEffect::Refused(who.into_iter().map(|to| (to, status.clone())).collect()));
        }
    }
}
