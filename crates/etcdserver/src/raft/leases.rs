//! Leases in the raft lane: keepalives, questions about the time left, revokes of due leases.
//!
//! Rules:
//! 1. Only the primary lessor answers: this member leads, has applied an entry of its term, and, if its ticks ever
//!    stood still, has confirmed with a quorum since then that it still leads.
//! 2. A revoke is appended to this member's own log, in a step in which rule 1 holds, and never passed on: when the
//!    member turns out to be deposed, it cannot commit.
//! 3. Who cannot be answered yet waits, for a bounded time, in the order of arrival.

use api::error::ErrorCode;
use api::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use prost::Message;

use super::lease_clock::Renewed;
use super::node::Node;
use crate::effect::{LeaseQuestion, LeaseTimes, RaftEffect, Renewal, ReplyTo};
use crate::limits;
use crate::mutant::Mutant;

/// Field of `InternalRaftRequest`.
const LEASE_REVOKE: u32 = 9;
/// Field of `InternalRaftRequest`.
const LEASE_CHECKPOINT: u32 = 11;

#[derive(Clone, Copy, Debug)]
enum Ask {
    Renew(Renewal),
    Times(LeaseQuestion),
}

/// Somebody who cannot be answered yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseWaiter {
    ask: Ask,
    since_ns: u64,
    /// Applied must come this far first; 0 until a primary has seen it.
    needs_applied: u64,
}

impl LeaseWaiter {
    fn reply_to(&self) -> ReplyTo {
        match self.ask {
            Ask::Renew(renewal) => renewal.reply_to,
            Ask::Times(question) => question.reply_to,
        }
    }
}

/// Answers of one pass, grouped by effect.
#[derive(Default)]
struct Answers {
    renewed: Vec<(Renewal, i64)>,
    times: Vec<(LeaseQuestion, LeaseTimes)>,
    renew_elsewhere: Vec<Renewal>,
    times_elsewhere: Vec<LeaseQuestion>,
    refused: Vec<(ReplyTo, ErrorCode)>,
}

impl Node {
    pub(super) fn renew(&mut self, renewals: Vec<Renewal>) {
        self.wait_for_leases(renewals.into_iter().map(Ask::Renew));
    }

    pub(super) fn lease_times(&mut self, questions: Vec<LeaseQuestion>) {
        self.wait_for_leases(questions.into_iter().map(Ask::Times));
    }

    /// Keepalives that waited for a revoke when leadership was lost: another leader decides about them.
    pub(super) fn park_renewals(&mut self, renewals: Vec<Renewal>) {
        self.wait_for_leases(renewals.into_iter().map(Ask::Renew));
    }

    fn wait_for_leases(&mut self, asks: impl Iterator<Item = Ask>) {
        let since_ns = self.now.mono_ns;
        let mut refused = Vec::new();
        for ask in asks {
            let waiter = LeaseWaiter { ask, since_ns, needs_applied: 0 };
            if self.lease_waiters.len() + self.leases.blocked_count() < limits::LEASE_WAITING_MAX {
                self.lease_waiters.push_back(waiter);
            } else {
                refused.push(waiter.reply_to());
            }
        }
        self.refuse(refused, ErrorCode::TooManyRequests);
    }

    /// Leases are gone: keepalives that waited for that are answered with no time.
    pub(super) fn answer_gone(&mut self, renewals: Vec<Renewal>) {
        if !renewals.is_empty() {
            self.effects
                .push(RaftEffect::Renewed(renewals.into_iter().map(|renewal| (renewal, 0)).collect()));
        }
    }

    /// Whether this member may renew and revoke now (rule 1).
    fn is_confirmed_primary(&self) -> bool {
        self.role.is_leader && self.leases.is_primary() && self.unconfirmed_since_ns.is_none()
    }

    /// A leader that has applied an entry of its term has applied all of earlier terms: deadlines begin.
    pub(super) fn promote_leases(&mut self) {
        if self.role.is_leader && self.first_of_term != 0 && self.applied >= self.first_of_term {
            self.leases.promote(self.now.mono_ns, self.election_ns);
        }
    }

    pub(super) fn work_off_lease_waiters(&mut self) {
        if self.lease_waiters.is_empty() {
            return;
        }
        let mut answers = Answers::default();
        let waiters = std::mem::take(&mut self.lease_waiters);
        for mut waiter in waiters {
            if !self.try_answer(&mut waiter, &mut answers) {
                self.lease_waiters.push_back(waiter);
            }
        }
        self.push_answers(answers);
    }

    /// Answers one who waits, or says that it must go on waiting.
    fn try_answer(&mut self, waiter: &mut LeaseWaiter, answers: &mut Answers) -> bool {
        let age_ns = self.now.mono_ns.saturating_sub(waiter.since_ns);
        if !self.role.is_leader && self.role.leader != 0 {
            match waiter.ask {
                Ask::Renew(renewal) => answers.renew_elsewhere.push(renewal),
                Ask::Times(question) => answers.times_elsewhere.push(question),
            }
            return true;
        }
        if !self.is_confirmed_primary() {
            if age_ns >= self.timeout_ns {
                let why = if self.role.leader == 0 { ErrorCode::NoLeader } else { ErrorCode::Timeout };
                answers.refused.push((waiter.reply_to(), why));
            }
            return age_ns >= self.timeout_ns;
        }
        if waiter.needs_applied == 0 {
            waiter.needs_applied = self.raft.raft.raft_log.committed;
        }
        let is_current = self.applied >= waiter.needs_applied;
        if self.answer_as_primary(waiter.ask, is_current, answers) {
            return true;
        }
        if age_ns >= limits::LEASE_APPLY_WAIT_NS {
            answers.refused.push((waiter.reply_to(), ErrorCode::TimeoutWaitAppliedIndex));
            return true;
        }
        false
    }

    /// `is_current`: everything committed when the question came is applied, so what is unknown does not exist.
    fn answer_as_primary(&mut self, ask: Ask, is_current: bool, answers: &mut Answers) -> bool {
        let now_ns = self.now.mono_ns;
        match ask {
            Ask::Times(_) if !is_current => false,
            Ask::Times(question) => {
                let times = match question.lease {
                    None => LeaseTimes::All(self.leases.all()),
                    Some(id) => match self.leases.times(now_ns, id) {
                        Some((granted, left)) => LeaseTimes::One { granted, left },
                        None => LeaseTimes::None,
                    },
                };
                answers.times.push((question, times));
                true
            }
            Ask::Renew(_) if !is_current && !self.fast_lease_keep_alive => false,
            Ask::Renew(renewal) => match self.leases.renew(now_ns, renewal.lease) {
                Renewed::For { ttl, clear } => {
                    if clear {
                        self.propose_checkpoints(&[(renewal.lease, 0)]);
                    }
                    answers.renewed.push((renewal, ttl));
                    true
                }
                Renewed::Unknown if is_current => {
                    answers.renewed.push((renewal, 0));
                    true
                }
                Renewed::Unknown => false,
                Renewed::Expired => {
                    self.leases.block(renewal);
                    true
                }
            },
        }
    }

    fn push_answers(&mut self, answers: Answers) {
        let leader = self.role.leader;
        if !answers.renewed.is_empty() {
            self.effects.push(RaftEffect::Renewed(answers.renewed));
        }
        if !answers.times.is_empty() {
            self.effects.push(RaftEffect::LeaseTimes(answers.times));
        }
        if !answers.renew_elsewhere.is_empty() {
            let renewals = answers.renew_elsewhere;
            self.effects.push(RaftEffect::RenewElsewhere { leader, renewals });
        }
        if !answers.times_elsewhere.is_empty() {
            let questions = answers.times_elsewhere;
            self.effects.push(RaftEffect::LeaseTimesElsewhere { leader, questions });
        }
        if !answers.refused.is_empty() {
            let refused = answers.refused.into_iter().map(|(to, why)| (to, api::Status::from(why))).collect();
            self.effects.push(RaftEffect::Refused(refused));
        }
    }

    /// Looks for leases whose time is up, and for those whose time left should be written down.
    pub(super) fn sweep_leases(&mut self) {
        let now_ns = self.now.mono_ns;
        if now_ns.saturating_sub(self.lease_sweep_ns) < limits::LEASE_SWEEP_NS {
            return;
        }
        self.lease_sweep_ns = now_ns;
        if !self.is_confirmed_primary() || Mutant::LeaseNeverEnds.is_on() {
            return;
        }
        for id in self.leases.due(now_ns, limits::LEASE_REVOKES_PER_SWEEP) {
            self.propose_as_leader(LEASE_REVOKE, &LeaseRevokeRequest { id }.encode_to_vec());
        }
        for _ in 0..LEASE_CHECKPOINT_ENTRIES_PER_SWEEP {
            let due = self.leases.due_checkpoints(now_ns, limits::LEASE_CHECKPOINT_BATCH);
            if due.is_empty() {
                break;
            }
            self.propose_checkpoints(&due);
        }
    }

    fn propose_checkpoints(&mut self, checkpoints: &[(i64, i64)]) {
        let checkpoints =
            checkpoints.iter().map(|(id, left)| LeaseCheckpoint { id: *id, remaining_ttl: *left }).collect();
        self.propose_as_leader(LEASE_CHECKPOINT, &LeaseCheckpointRequest { checkpoints }.encode_to_vec());
    }
}

/// Entries of checkpoints per sweep; each holds many leases.
const LEASE_CHECKPOINT_ENTRIES_PER_SWEEP: usize = 500;
