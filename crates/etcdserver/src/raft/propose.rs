//! Requests on their way into the log.
//!
//! Rules:
//! 1. One `MsgPropose` carries all requests of a turn. To a leader elsewhere they go in messages of bounded size.
//! 2. Without a leader, and while leadership is handed over, requests are parked, not refused, until their time is
//!    up. Their order is kept.
//! 3. Membership changes go one at a time: raft would silently replace a second one by an empty entry.
//! 4. Behind its own removal a leader proposes nothing: a member that stays, and does not know yet that the removal is
//!    committed, needs the vote of the one that leaves, and would not get it with the shorter log.
//! 5. What is over a bound is refused at once: requests too large, too many waiting, apply too far behind.
//!    The member's own proposals are exempt from the last two; they are few, and some of them are what helps.

use std::collections::VecDeque;
use std::sync::Arc;

use api::error::ErrorCode;
use api::raftpb;
use bytes::Bytes;
use prost::Message;
use raft::{GetEntriesContext, StateRole, eraftpb};

use super::announce::v2_put;
use super::convert;
use super::node::Node;
use super::waiting::Waiting;
use crate::effect::{Identity, Proposal, ReplyTo};
use crate::limits::{APPLY_GAP_MAX, CONF_QUEUE_MAX, RAFT_MESSAGE_BYTES_MAX};
use crate::mutant::Mutant;

/// Whose proposal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Somebody waits for it.
    Client,
    /// The member's own.
    Own,
    /// The member's own as a leader: worth nothing in another leader's log.
    OwnLog,
}

/// A request without a leader to take it.
#[derive(Debug)]
struct Parked {
    id: u64,
    origin: Origin,
    since_ns: u64,
    entry: eraftpb::Entry,
}

/// Requests that are on their way.
#[derive(Debug)]
pub(crate) struct Proposals {
    max_request_bytes: usize,
    pub(crate) waiting: Waiting,
    pub(crate) own_identity: Option<Arc<Identity>>,
    parked: VecDeque<Parked>,
    own_parked: usize,
    conf_queue: VecDeque<Parked>,
}

/// The member's own proposals that may be parked; further ones are left to whoever will try again.
const OWN_PARKED_MAX: usize = 4_096;

impl Proposals {
    pub(crate) fn new(max_request_bytes: u32) -> Proposals {
        Proposals {
            max_request_bytes: max_request_bytes as usize,
            waiting: Waiting::default(),
            own_identity: None,
            parked: VecDeque::new(),
            own_parked: 0,
            conf_queue: VecDeque::new(),
        }
    }
}

impl Node {
    pub(super) fn propose(&mut self, batch: Vec<Proposal>) {
        let raft_log = &self.raft.raft.raft_log;
        let behind = raft_log.committed > self.applied + APPLY_GAP_MAX;
        let now_ns = self.now.mono_ns;
        let (mut too_many, mut too_large) = (Vec::new(), Vec::new());
        for proposal in batch {
            if behind && let Some(reply_to) = proposal.reply_to {
                too_many.push(reply_to);
                continue;
            }
            let id = self.ids.next();
            let data =
                convert::encode_request(id, proposal.identity.as_deref(), proposal.field, &proposal.body);
            match proposal.reply_to {
                Some(reply_to) if data.len() > self.proposals.max_request_bytes => too_large.push(reply_to),
                Some(reply_to) if !self.proposals.waiting.has_room(data.len()) => too_many.push(reply_to),
                Some(reply_to) => {
                    self.proposals.waiting.insert(id, reply_to, now_ns, data.len());
                    self.park(id, Origin::Client, data);
                }
                None => self.park(id, Origin::Own, data),
            }
        }
        self.refuse(too_many, ErrorCode::TooManyRequests);
        self.refuse(too_large, ErrorCode::RequestTooLarge);
    }

    /// Proposes something of the member's own, and tells its request id.
    pub(super) fn propose_own(&mut self, field: u32, body: &[u8]) -> u64 {
        let id = self.ids.next();
        let data = convert::encode_request(id, None, field, body);
        self.park(id, Origin::Own, data);
        id
    }

    /// Proposes something of the member's own as a request of the v2 store, and tells its id.
    pub(super) fn propose_own_v2(&mut self, path: String, value: String) -> u64 {
        let id = self.ids.next();
        self.park(id, Origin::Own, v2_put(id, path, value).encode_to_vec().into());
        id
    }

    /// Proposes something that only this member as leader may say. It goes into its own log or nowhere. With auth on,
    /// apply asks who it comes from: from the root user, as in etcd.
    pub(super) fn propose_as_leader(&mut self, field: u32, body: &[u8]) {
        assert!(self.role.is_leader, "only a leader makes such proposals");
        let id = self.ids.next();
        let data = convert::encode_request(id, self.proposals.own_identity.as_deref(), field, body);
        let origin = if Mutant::RevokePassedOn.is_on() { Origin::Own } else { Origin::OwnLog };
        self.park(id, origin, data);
    }

    fn park(&mut self, id: u64, origin: Origin, data: Bytes) {
        if origin != Origin::Client {
            if self.proposals.own_parked >= OWN_PARKED_MAX {
                return;
            }
            self.proposals.own_parked += 1;
        }
        let entry = eraftpb::Entry { data, ..eraftpb::Entry::default() };
        self.proposals.parked.push_back(Parked { id, origin, since_ns: self.now.mono_ns, entry });
    }

    pub(super) fn propose_conf_change(&mut self, reply_to: Option<ReplyTo>, mut change: raftpb::ConfChange) {
        let id = self.ids.next();
        change.id = Some(id);
        let data = convert::encode_conf_change(&change);
        if let Some(reply_to) = reply_to {
            if self.proposals.conf_queue.len() >= CONF_QUEUE_MAX
                || !self.proposals.waiting.has_room(data.len())
            {
                self.refuse(vec![reply_to], ErrorCode::TooManyRequests);
                return;
            }
            self.proposals.waiting.insert(id, reply_to, self.now.mono_ns, data.len());
        }
        let mut entry = eraftpb::Entry { context: data, ..eraftpb::Entry::default() };
        entry.set_entry_type(eraftpb::EntryType::EntryConfChange);
        let origin = if reply_to.is_some() { Origin::Client } else { Origin::Own };
        self.proposals.conf_queue.push_back(Parked { id, origin, since_ns: self.now.mono_ns, entry });
    }

    /// Gives raft what is parked, if there is a leader that takes it.
    pub(super) fn flush_proposals(&mut self) {
        if self.proposals.parked.is_empty() && self.proposals.conf_queue.is_empty() {
            return;
        }
        let raft = &self.raft.raft;
        let leads = raft.state == StateRole::Leader;
        let takes = raft.leader_id != 0
            && raft.lead_transferee.is_none()
            && matches!(raft.state, StateRole::Leader | StateRole::Follower)
            // A leader that was removed, or is about to be, takes nothing any more.
            && (!leads || (raft.prs().get(self.id).is_some() && !self.is_leaving));
        if !takes {
            return;
        }
        while !self.proposals.parked.is_empty() {
            let entries = self.next_message(leads);
            self.step_proposal(entries);
        }
        while let Some(next) = self.proposals.conf_queue.front() {
            if next.origin == Origin::Client && !self.proposals.waiting.contains(next.id) {
                self.proposals.conf_queue.pop_front();
                continue;
            }
            if leads && self.raft.raft.has_pending_conf() {
                break;
            }
            let Some(next) = self.proposals.conf_queue.pop_front() else { break };
            let is_own_end = leads && self.removes_itself(&next.entry);
            self.step_proposal(vec![next.entry]);
            if is_own_end {
                self.is_leaving = true;
                break;
            }
        }
    }

    /// Whether an entry takes this member out of the cluster.
    pub(super) fn removes_itself(&self, entry: &eraftpb::Entry) -> bool {
        entry.get_entry_type() == eraftpb::EntryType::EntryConfChange
            && raftpb::ConfChange::decode(&entry.context[..]).is_ok_and(|change| {
                change.r#type() == raftpb::ConfChangeType::ConfChangeRemoveNode && change.node_id() == self.id
            })
    }

    /// Whether the log has the removal of this member as an entry that is not applied: one that it proposed as leader
    /// before it was deposed, or before it restarted. Found by the simulator: with two voters, a leader that went on
    /// proposing behind it left the other one with a log that was too short to be elected.
    pub(super) fn own_end_is_pending(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        let entries = log.entries(log.applied + 1, None, GetEntriesContext::empty(false));
        // What is compacted away is applied.
        entries.is_ok_and(|entries| entries.iter().any(|entry| self.removes_itself(entry)))
    }

    /// Leadership is lost: what only this member as leader could say is void, also if it should lead again. A revoke
    /// that waited for a transfer to end would meet a lease that was renewed meanwhile.
    pub(super) fn forget_own_log(&mut self) {
        let before = self.proposals.parked.len();
        self.proposals.parked.retain(|parked| parked.origin != Origin::OwnLog);
        self.proposals.own_parked -= before - self.proposals.parked.len();
    }

    /// Keeps requests of followers for the next leader, as far as there is room; without, their senders notice by
    /// time.
    pub(super) fn park_forwarded(&mut self, message: eraftpb::Message) {
        for entry in message.entries {
            if entry.get_entry_type() == eraftpb::EntryType::EntryNormal
                && self.proposals.own_parked < OWN_PARKED_MAX
            {
                self.proposals.own_parked += 1;
                let parked = Parked { id: 0, origin: Origin::Own, since_ns: self.now.mono_ns, entry };
                self.proposals.parked.push_back(parked);
            }
        }
    }

    /// Entries for one message. Requests that nobody waits for any more are left out, and, on their way to another
    /// leader, what only this member as leader could have said.
    fn next_message(&mut self, leads: bool) -> Vec<eraftpb::Entry> {
        let bytes_max = if leads { u64::MAX } else { RAFT_MESSAGE_BYTES_MAX };
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.proposals.parked.front() {
            let size = next.entry.data.len() as u64;
            if !entries.is_empty() && bytes + size > bytes_max {
                break;
            }
            let Some(next) = self.proposals.parked.pop_front() else { break };
            self.proposals.own_parked -= usize::from(next.origin != Origin::Client);
            let wanted = match next.origin {
                Origin::Client => self.proposals.waiting.contains(next.id),
                Origin::Own => true,
                Origin::OwnLog => leads,
            };
            if !wanted {
                continue;
            }
            bytes += size;
            entries.push(next.entry);
        }
        entries
    }

    fn step_proposal(&mut self, entries: Vec<eraftpb::Entry>) {
        if entries.is_empty() {
            return;
        }
        let mut message = eraftpb::Message { from: self.id, ..eraftpb::Message::default() };
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.set_entries(entries.into());
        self.raft_step(message);
    }

    /// Answers requests whose entry was not applied in time. What waited for a leader all the while, and has none now,
    /// is told of its time alone, as in etcd.
    pub(super) fn take_late_requests(&mut self) {
        let now_ns = self.now.mono_ns;
        let late = self.proposals.waiting.take_late(now_ns, self.timeout_ns);
        let lost_ns = self.leader_since_ns.saturating_sub(2 * self.election_ns);
        let (mut failed, mut timed_out, mut never_sent) = (Vec::new(), Vec::new(), Vec::new());
        let mut parked: Vec<u64> = match self.role.leader {
            0 if !late.is_empty() => self.proposals.parked.iter().map(|parked| parked.id).collect(),
            _ => Vec::new(),
        };
        parked.sort_unstable();
        for (id, reply_to, since_ns) in late {
            if parked.binary_search(&id).is_ok() {
                never_sent.push(reply_to);
            } else if since_ns > lost_ns && since_ns < self.leader_since_ns {
                failed.push(reply_to);
            } else {
                timed_out.push(reply_to);
            }
        }
        self.refuse(failed, ErrorCode::TimeoutDueToLeaderFail);
        self.refuse(timed_out, ErrorCode::Timeout);
        self.refuse(never_sent, ErrorCode::ContextDeadlineExceeded);
        let timeout_ns = self.timeout_ns;
        let mut own_gone = 0;
        let waiting = &self.proposals.waiting;
        let keep = |parked: &Parked| match parked.origin {
            Origin::Client => waiting.contains(parked.id),
            Origin::Own | Origin::OwnLog => now_ns.saturating_sub(parked.since_ns) < timeout_ns,
        };
        self.proposals.conf_queue.retain(keep);
        self.proposals.parked.retain(|parked| {
            let keep = keep(parked);
            own_gone += usize::from(!keep && parked.origin != Origin::Client);
            keep
        });
        self.proposals.own_parked -= own_gone;
    }
}
