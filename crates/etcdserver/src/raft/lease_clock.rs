//! Deadlines of leases, which only a leader has.
//!
//! Invariants:
//! 1. Deadlines mean something only while `primary`: between the first applied entry of a term in which this member
//!    leads, and the loss of that leadership. Without it every lease lasts for ever.
//! 2. Nothing is removed here because its time has come. A due lease becomes a revoke in the leader's own log, and
//!    disappears when that is applied; a deposed leader's revoke cannot commit.
//! 3. Every lease has exactly one valid place in the queue while primary: the one equal to its `queued_ns`, at or
//!    before its deadline. A renewal only moves the deadline; the place is corrected when it comes to the front.
//! 4. The order of the queue is (time, id), so that it does not depend on the order of the table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::effect::{LeaseChange, Renewal};
use crate::limits::{LEASE_CHECKPOINT_NS, LEASE_SPREAD_FROM, LEASE_SPREAD_PER_SECOND};
use crate::mutant::Mutant;
use crate::now::SECOND;

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: i64,
    /// Seconds left at the last checkpoint; 0 when there was none.
    remaining: i64,
    deadline_ns: u64,
    queued_ns: u64,
    /// When its next checkpoint is due; 0 when it has none.
    checkpoint_ns: u64,
}

impl Lease {
    fn left_at_start(&self) -> i64 {
        if Mutant::LeaseEndsEarly.is_on() {
            return self.ttl / 2;
        }
        if self.remaining > 0 { self.remaining } else { self.ttl }
    }
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// It lasts this many seconds from now. `clear` asks for an entry that takes its checkpoint back.
    For { ttl: i64, clear: bool },
    /// There is no such lease.
    Unknown,
    /// Its time is up and its revoke is under way: the answer must wait for that.
    Expired,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    leases: HashMap<i64, Lease, FixedState>,
    queue: BinaryHeap<Reverse<(u64, i64)>>,
    checkpoints: BinaryHeap<Reverse<(u64, i64)>>,
    with_checkpoints: bool,
    retry_ns: u64,
    primary: bool,
    /// Renewals of leases whose revoke is under way.
    blocked: BTreeMap<i64, Vec<Renewal>>,
    blocked_count: usize,
}

fn seconds(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0).saturating_mul(SECOND)
}

impl LeaseClock {
    /// Without leases. A revoke that has not been applied after `retry_ns` is proposed again.
    pub(crate) fn new(with_checkpoints: bool, retry_ns: u64) -> LeaseClock {
        LeaseClock { with_checkpoints, retry_ns, ..LeaseClock::default() }
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.primary
    }

    pub(crate) fn blocked_count(&self) -> usize {
        self.blocked_count
    }

    /// A change that apply made. A revoke gives back the keepalives that waited for it.
    pub(crate) fn change(&mut self, now_ns: u64, change: LeaseChange) -> Vec<Renewal> {
        match change {
            LeaseChange::Reset => {
                let freed = self.demote();
                self.leases.clear();
                freed
            }
            LeaseChange::Granted { id, ttl, remaining } => {
                let lease =
                    Lease { ttl, remaining, deadline_ns: u64::MAX, queued_ns: u64::MAX, checkpoint_ns: 0 };
                self.leases.insert(id, lease);
                if self.primary {
                    self.set_deadline(now_ns, id, 0);
                }
                Vec::new()
            }
            LeaseChange::Revoked { id } => {
                self.leases.remove(&id);
                let freed = self.blocked.remove(&id).unwrap_or_default();
                self.blocked_count -= freed.len();
                freed
            }
            LeaseChange::Checkpointed { id, remaining } => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.remaining = remaining;
                    if self.primary {
                        self.schedule_checkpoint(now_ns, id);
                    }
                }
                Vec::new()
            }
        }
    }

    /// This member leads and has applied everything of earlier terms: every lease gets its time (what was left at
    /// its last checkpoint, else all of it) and `extend_ns` on top, because nobody counted since the last leader.
    pub(crate) fn promote(&mut self, now_ns: u64, extend_ns: u64) {
        if self.primary {
            return;
        }
        self.primary = true;
        self.queue.clear();
        self.checkpoints.clear();
        let ids: Vec<i64> = self.leases.keys().copied().collect();
        for id in &ids {
            self.set_deadline(now_ns, *id, extend_ns);
        }
        if ids.len() >= LEASE_SPREAD_FROM {
            self.spread();
        }
    }

    /// Lets no more than a bounded number of leases end within any second, by giving the later ones more time: else
    /// all leases granted before the change of leader would end at once and use up the rate of revokes.
    fn spread(&mut self) {
        let mut order: Vec<(u64, i64)> =
            self.leases.iter().map(|(id, lease)| (lease.deadline_ns, *id)).collect();
        order.sort_unstable();
        for i in LEASE_SPREAD_PER_SECOND..order.len() {
            let earliest = order[i - LEASE_SPREAD_PER_SECOND].0.saturating_add(SECOND);
            order[i].0 = order[i].0.max(earliest);
        }
        self.queue.clear();
        for (deadline_ns, id) in order {
            let lease = self.leases.get_mut(&id).expect("listed above");
            lease.deadline_ns = deadline_ns;
            lease.queued_ns = deadline_ns;
            self.queue.push(Reverse((deadline_ns, id)));
        }
    }

    /// Leadership is lost: no deadline counts. Gives back the keepalives that waited for a revoke.
    pub(crate) fn demote(&mut self) -> Vec<Renewal> {
        self.primary = false;
        self.queue.clear();
        self.checkpoints.clear();
        self.blocked_count = 0;
        std::mem::take(&mut self.blocked).into_values().flatten().collect()
    }

    fn set_deadline(&mut self, now_ns: u64, id: i64, extend_ns: u64) {
        let lease = self.leases.get_mut(&id).expect("the caller has looked");
        let deadline_ns = now_ns.saturating_add(seconds(lease.left_at_start())).saturating_add(extend_ns);
        lease.deadline_ns = deadline_ns;
        lease.queued_ns = deadline_ns;
        self.queue.push(Reverse((deadline_ns, id)));
        self.schedule_checkpoint(now_ns, id);
    }

    fn schedule_checkpoint(&mut self, now_ns: u64, id: i64) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if self.with_checkpoints && seconds(lease.left_at_start()) > LEASE_CHECKPOINT_NS {
            lease.checkpoint_ns = now_ns.saturating_add(LEASE_CHECKPOINT_NS);
            self.checkpoints.push(Reverse((lease.checkpoint_ns, id)));
        }
    }

    /// Renews a lease. Only for a primary.
    pub(crate) fn renew(&mut self, now_ns: u64, id: i64) -> Renewed {
        assert!(self.primary, "leases are renewed by the primary lessor only");
        let Some(lease) = self.leases.get_mut(&id) else { return Renewed::Unknown };
        if lease.deadline_ns <= now_ns {
            return Renewed::Expired;
        }
        let clear = lease.remaining > 0;
        lease.remaining = 0;
        lease.deadline_ns = now_ns.saturating_add(seconds(lease.ttl));
        let ttl = lease.ttl;
        if lease.deadline_ns < lease.queued_ns {
            // A lease that got extra time from a change of leader ends earlier now: its place must move forward.
            lease.queued_ns = lease.deadline_ns;
            self.queue.push(Reverse((lease.queued_ns, id)));
        }
        if lease.checkpoint_ns == 0 {
            self.schedule_checkpoint(now_ns, id);
        }
        Renewed::For { ttl, clear }
    }

    /// Keeps a renewal until the revoke of its lease is applied or leadership is lost.
    pub(crate) fn block(&mut self, renewal: Renewal) {
        self.blocked.entry(renewal.lease).or_default().push(renewal);
        self.blocked_count += 1;
    }

    /// Granted seconds and whole seconds left, negative when overdue. Only for a primary.
    pub(crate) fn times(&self, now_ns: u64, id: i64) -> Option<(i64, i64)> {
        let lease = self.leases.get(&id)?;
        let left = if lease.deadline_ns >= now_ns {
            i64::try_from((lease.deadline_ns - now_ns) / SECOND).unwrap_or(i64::MAX)
        } else {
            -i64::try_from((now_ns - lease.deadline_ns) / SECOND).unwrap_or(i64::MAX)
        };
        Some((lease.ttl, left))
    }

    /// All leases, least time left first; by id when no deadline counts.
    pub(crate) fn all(&self) -> Vec<i64> {
        let mut all: Vec<(u64, i64)> = self
            .leases
            .iter()
            .map(|(id, lease)| (if self.primary { lease.deadline_ns } else { 0 }, *id))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes up to `max` leases whose time is up. Each comes again later unless it is revoked until then.
    pub(crate) fn due(&mut self, now_ns: u64, max: usize) -> Vec<i64> {
        let mut due = Vec::new();
        while self.primary && due.len() < max {
            let Some(Reverse((queued_ns, id))) = self.queue.peek().copied() else { break };
            if queued_ns > now_ns {
                break;
            }
            self.queue.pop();
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.queued_ns == queued_ns) else {
                continue;
            };
            if lease.deadline_ns <= now_ns {
                due.push(id);
                lease.queued_ns = now_ns.saturating_add(self.retry_ns);
            } else {
                lease.queued_ns = lease.deadline_ns;
            }
            self.queue.push(Reverse((lease.queued_ns, id)));
        }
        due
    }

    /// Takes up to `max` leases whose time left should be written down, with that time in seconds.
    pub(crate) fn due_checkpoints(&mut self, now_ns: u64, max: usize) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        while self.primary && due.len() < max {
            let Some(Reverse((at_ns, id))) = self.checkpoints.peek().copied() else { break };
            if at_ns > now_ns {
                break;
            }
            self.checkpoints.pop();
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.checkpoint_ns == at_ns) else {
                continue;
            };
            lease.checkpoint_ns = 0;
            if lease.deadline_ns <= now_ns {
                continue;
            }
            let left = i64::try_from((lease.deadline_ns - now_ns).div_ceil(SECOND)).unwrap_or(i64::MAX);
            if left < lease.ttl {
                due.push((id, left));
            } else {
                // Renewed a moment ago: nothing to write down, look again one interval on.
                self.schedule_checkpoint(now_ns, id);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests;
