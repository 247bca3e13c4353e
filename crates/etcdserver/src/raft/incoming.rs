//! What comes in from peers and from apply: messages, confirmed reads, membership changes, successors.

use api::raftpb;
use raft::{StateRole, eraftpb};

use super::convert::{self, Dropped};
use super::node::Node;
use super::start::Error;
use crate::effect::{ConfApplied, RaftEffect};
use crate::limits;
use crate::mutant::Mutant;

impl Node {
    pub(super) fn message(&mut self, message: raftpb::Message) -> Result<(), Error> {
        let message = match convert::message_in(self.id, message) {
            Ok(message) => message,
            Err(reason) => {
                self.drop_message(reason);
                return Ok(());
            }
        };
        let raft = &self.raft.raft;
        match message.msg_type {
            eraftpb::MessageType::MsgHeartbeat
                if message.term >= raft.term && message.commit > raft.raft_log.last_index() =>
            {
                // The leader never tells more than this member has acknowledged: the log has lost entries.
                return Err(Error::CommitOutOfRange {
                    commit: message.commit,
                    last: raft.raft_log.last_index(),
                });
            }
            eraftpb::MessageType::MsgPropose if self.is_leaving => {
                self.park_forwarded(message);
                return Ok(());
            }
            eraftpb::MessageType::MsgPropose if raft.state == StateRole::Leader => {
                let is_own_end = message.entries.iter().any(|entry| self.removes_itself(entry));
                self.raft_step(message);
                self.is_leaving |= is_own_end;
                return Ok(());
            }
            // A lone voter has no leader that could ask it to take over.
            eraftpb::MessageType::MsgTimeoutNow if self.is_lone_voter() || !self.may_campaign() => {
                return Ok(());
            }
            eraftpb::MessageType::MsgAppend
                if !message.entries.is_empty() && self.raft.store().bytes() > limits::LOG_BYTES_HARD_MAX =>
            {
                return Ok(());
            }
            eraftpb::MessageType::MsgReadIndex if raft.state == StateRole::Leader => {
                if !raft.commit_to_current_term() {
                    if self.early_reads.len() < limits::EARLY_READS_MAX {
                        self.early_reads.push(message);
                    }
                    return Ok(());
                }
                if raft.pending_read_count() >= limits::FOLLOWER_ROUNDS_MAX {
                    return Ok(());
                }
            }
            _ => {}
        }
        self.raft_step(message);
        Ok(())
    }

    fn drop_message(&mut self, reason: Dropped) {
        self.dropped.0 += 1;
        self.dropped.1 = Some(reason);
    }

    /// Errors are of no interest: a local message type, which was dropped before, an answer of somebody who is no
    /// peer (any more), or a proposal that has no leader, whose sender notices by time.
    pub(super) fn raft_step(&mut self, message: eraftpb::Message) {
        let _ = self.raft.step(message);
        self.timeouts.pin(&mut self.raft);
    }

    pub(super) fn start_reads(&mut self) {
        if self.unconfirmed_since_ns.is_some() {
            // Again and again: a round may have begun before the pause, or come to nothing.
            self.reads.want_confirmation();
        }
        let same = self.id << 48 | 1;
        let next = || if Mutant::ContextReused.is_on() { same } else { self.ids.next() };
        if let Some(context) = self.reads.start(self.now.mono_ns, next) {
            self.raft.read_index(context.to_be_bytes().to_vec());
        }
    }

    pub(super) fn ask_late_reads_again(&mut self) {
        let late = self.reads.take_late(self.now.mono_ns, self.timeout_ns);
        self.refuse(late, api::error::ErrorCode::Timeout);
        if let Some(context) = self.reads.again(self.now.mono_ns, false, || self.ids.next()) {
            self.raft.read_index(context.to_be_bytes().to_vec());
        }
    }

    /// Raft follows a membership change, and must arrive where membership is.
    pub(super) fn conf_applied(&mut self, applied: ConfApplied) {
        if applied.index < self.raft.store().first() {
            // The leader's snapshot, with a later configuration, arrived while apply was on its way here.
            self.effects.push(RaftEffect::ConfChanged(applied));
            return;
        }
        let state = match convert::conf_change_in(&applied.change) {
            Some(change) => self.raft.apply_conf_change(&change).unwrap_or_else(|error| {
                panic!("raft refuses the membership change of entry {}: {error}", applied.index)
            }),
            None => self.raft.raft.prs().conf().to_conf_state(),
        };
        let told = convert::conf_state_out(&state);
        assert!(
            told.voters == applied.voters && told.learners == applied.learners,
            "entry {}: raft has voters {:x?} and learners {:x?}, membership has {:x?} and {:x?}",
            applied.index,
            told.voters,
            told.learners,
            applied.voters,
            applied.learners,
        );
        self.lines.conf_state(&state);
        self.raft.mut_store().set_conf_state(state);
        self.effects.push(RaftEffect::ConfChanged(applied));
        self.step_down_if_removed();
    }

    /// A leader that has applied its own removal stops leading. Go's goes on until its process ends a second later;
    /// the crate cannot: it looks for its own progress at the next commit. The others are told what is committed, or
    /// they could not act on it, and the successor to hurry.
    fn step_down_if_removed(&mut self) {
        if self.raft.raft.state != StateRole::Leader || self.raft.raft.prs().get(self.id).is_some() {
            return;
        }
        self.raft.raft.ping();
        if let Some(successor) = self.best_successor() {
            self.raft.raft.send_timeout_now(successor);
        }
        let term = self.raft.raft.term;
        self.raft.raft.become_follower(term, 0);
    }

    pub(super) fn transfer_leader(&mut self, to: u64) {
        let to = if to == 0 { self.best_successor().unwrap_or(0) } else { to };
        if to != 0 {
            self.raft.transfer_leader(to);
        }
    }

    /// The voter whose log is longest among those heard of lately.
    pub(super) fn best_successor(&self) -> Option<u64> {
        let prs = self.raft.raft.prs();
        let voters = prs.conf().to_conf_state().voters;
        let mut others: Vec<u64> = voters.into_iter().filter(|id| *id != self.id).collect();
        others.sort_unstable();
        others
            .into_iter()
            .filter_map(|id| prs.get(id).filter(|progress| progress.recent_active).map(|p| (p.matched, id)))
            .max_by_key(|(matched, id)| (*matched, std::cmp::Reverse(*id)))
            .map(|(_, id)| id)
    }
}
