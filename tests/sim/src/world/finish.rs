//! The second phase: no fault any more, and the cluster must come to where it should be within a bound of ticks.

use super::{Event, World};
use crate::OPERATIONS_MIN;
use crate::failure::{Checker, ensure, fail};
use crate::member::check_state;
use crate::trace::NOBODY;

/// Ticks between two looks at whether everybody is there.
const LOOK_TICKS: u64 = 20;

impl World {
    /// All faults end, everybody who is a member starts.
    pub(super) fn heal(&mut self) {
        self.trace.note(self.now, NOBODY, "heal", 0, 0);
        self.is_healed = true;
        self.cut.clear();
        for member in 0..self.members.len() {
            let this = &mut self.members[member];
            this.disk.clear_fault();
            this.paused_until = 0;
            this.log_stalled_until = 0;
            this.commit_stalled_until = 0;
            this.disk.set_capacity(None);
            this.is_tight = false;
            if this.run.is_none() {
                self.after(1_000, Event::Start { member });
            } else {
                self.wake(member, self.now + 1_000);
            }
        }
    }

    /// How long the healed cluster may take for one thing, in ticks: some elections, a request that times out, a
    /// snapshot that is sent again.
    fn bound(&self) -> u64 {
        let second = 1_000 / self.settings.heartbeat_ms;
        60 * self.settings.election_ticks + 40 * second
    }

    fn wait(&mut self, what: &str, is_there: impl Fn(&World) -> Option<String>) {
        let started = self.now;
        let bound = self.bound() * self.tick_ns();
        while let Some(why) = is_there(self) {
            if self.now > started + bound {
                fail(Checker::Liveness, format!("{} ticks after {what}: {why}", self.bound()));
            }
            self.run_until(self.now + LOOK_TICKS * self.tick_ns());
        }
    }

    /// Progress with clients, then, without them, rest; then everything is compared once more.
    pub(super) fn finish(&mut self) {
        let goal = self.model.keys.revision + 20;
        self.wait("healing", |world| {
            let revision = world.model.keys.revision;
            let no_space = !world.model.no_space_alarms().is_empty();
            (revision < goal && !no_space).then(|| format!("revision {revision}, {goal} is wanted"))
        });
        let least = 5_000 * self.tick_ns();
        if self.now < least {
            self.run_until(least);
        }
        self.wait("the time for them", |world| {
            let requests = world.counts.operations;
            (requests < OPERATIONS_MIN).then(|| format!("{requests} requests, {OPERATIONS_MIN} are wanted"))
        });
        self.queue.retain(|_, event| !matches!(**event, Event::Client | Event::Operator | Event::Fault));
        self.leave_strangers();
        self.wait("the last request", |world| world.not_together().or_else(|| world.lagging_watcher()));
        self.wait_for_leases();
        self.wait("the last lease", |world| world.not_together().or_else(|| world.lagging_watcher()));
        self.check_refused();
        self.check_everybody();
    }

    /// Why the members are not all at the end of the log, if they are not.
    fn not_together(&self) -> Option<String> {
        if self.leader().is_none() {
            return Some("there is no leader".to_owned());
        }
        for record in self.model.cluster.members() {
            let Some(&at) = self.by_id.get(&record.id) else {
                return Some(format!("member {:x} was never set up", record.id));
            };
            let Some(run) = &self.members[at].run else { return Some(format!("member {at} does not run")) };
            let status = run.node.status();
            let applied = run.applier.applied().0;
            if applied < self.model.last() || status.committed < self.model.last() || status.leader == 0 {
                return Some(format!(
                    "member {at} has applied {applied} of {}: {status:?}",
                    self.model.last()
                ));
            }
        }
        None
    }

    /// Checker 6, the other half: no lease outlives its time by more than the rule. With a leader that stays, it ends
    /// within its time, an election timeout if that leader is new, and a sweep or two.
    fn wait_for_leases(&mut self) {
        let election = self.settings.election_ticks * self.tick_ns();
        let longest =
            self.model.leases.values().filter_map(|lives| lives.last()).map(|lease| lease.ttl).max();
        let longest = longest.unwrap_or(0).unsigned_abs() * 1_000_000_000;
        let end = self.now + longest + election + 3_000_000_000 + self.tick_ns() * 20;
        self.run_until(end);
        let left = self.model.leases_at(self.model.last());
        ensure!(
            left.is_empty(),
            Lease,
            "leases {left:?} are still there at {} ms; the first was promised until {} ms",
            self.now / 1_000_000,
            left.keys().next().map_or(0, |lease| self.history.kept_until(*lease)) / 1_000_000
        );
    }

    /// Checkers 2, 5 and 9 at the end, on everybody who is a member.
    fn check_everybody(&mut self) {
        let mut hashes = Vec::new();
        for record in self.model.cluster.clone().members() {
            let at = self.by_id[&record.id];
            let run = self.members[at].run.as_ref().expect("it was seen to run");
            check_state(&run.applier, &self.model);
            let hash = run.applier.store().view().hash_kv(0);
            ensure!(hash.is_ok(), Hash, "member {at} cannot be hashed: {hash:?}");
            if let Ok(hash) = hash {
                hashes.push((at, hash));
            }
        }
        for (at, hash) in &hashes {
            ensure!(
                *hash == hashes[0].1,
                Hash,
                "member {at} has {hash:?}, member {} {:?}",
                hashes[0].0,
                hashes[0].1
            );
        }
    }
}
