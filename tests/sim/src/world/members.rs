//! Processes: their turns, their ends, their starts.

use std::path::PathBuf;

use disk::mem::MemDisk;
use etcdserver::Config;
use etcdserver::bootstrap::{Founding, StorageOptions};
use etcdserver::membership::Member as Record;

use super::{Event, World};
use crate::failure::{Checker, fail};
use crate::member::{Died, Member, Promise, Tuning, Turn, disk_of};

/// Members that a run may have in all, gone ones included.
const MEMBERS_MAX: usize = 16;

impl World {
    /// A member that has no directory yet.
    pub(super) fn new_member(&mut self, name: &str, founders: Vec<(String, Vec<String>)>) -> Member {
        let settings = &self.settings;
        let config = Config {
            name: name.to_owned(),
            data_dir: PathBuf::from("/data"),
            initial_cluster: founders,
            advertise_peer_urls: vec![peer_url(name)],
            advertise_client_urls: vec![format!("http://{name}:2379")],
            heartbeat_ms: settings.heartbeat_ms,
            election_ms: settings.heartbeat_ms * settings.election_ticks,
            pre_vote: settings.pre_vote,
            snapshot_count: settings.snapshot_count,
            catch_up_entries: settings.catch_up,
            max_learners: settings.max_learners,
            lease_checkpoint: settings.lease_checkpoint,
            quota_bytes: settings.quota_bytes,
            seed: settings.seed,
            ..Config::default()
        };
        let mut options = StorageOptions::default();
        options.wal.segment_bytes = settings.segment_bytes;
        options.db.leaf_pages = settings.leaf_pages;
        options.db.grow_bytes = 64 << 10;
        options.db.reserve_bytes = 64 << 10;
        if settings.lazy_sync {
            options.db.sync = bolt::SyncMode::Lazy;
        }
        let tuning = Tuning {
            batch_interval_ns: settings.batch_interval_ms * 1_000_000,
            batch_ops: settings.batch_ops as usize,
            compaction_step: settings.compaction_step,
            is_migrated: settings.is_migrated,
            may_be_full: settings.fills_disks,
        };
        let disk = MemDisk::new();
        Member {
            config,
            options,
            tuning,
            id: 0,
            disk,
            run: None,
            boot: 0,
            paused_until: 0,
            is_tight: false,
            log_stalled_until: 0,
            commit_stalled_until: 0,
            mono_ahead: self.chance.below(1 << 40),
            wall_ahead: 0,
            is_gone: false,
            promise: Promise::default(),
        }
    }

    /// A member was added to the cluster: its process is set up as an operator would, and starts soon.
    pub(super) fn member_added(&mut self, record: &Record) {
        if self.by_id.contains_key(&record.id) || self.members.len() >= MEMBERS_MAX {
            return;
        }
        let name = record.peer_urls[0].trim_start_matches("http://").trim_end_matches(":2380").to_owned();
        let mut member = self.new_member(&name, Vec::new());
        member.id = record.id;
        member.config.new_cluster = false;
        let members = self.model.cluster.members().cloned().collect();
        let cluster_id = self.members[0].config.joining.as_ref().map_or_else(
            || api::ids::cluster_id(self.founders().iter().copied()),
            |joining| joining.cluster_id,
        );
        member.config.joining = Some(Founding { local_id: record.id, cluster_id, members });
        let at = self.members.len();
        self.members.push(member);
        self.by_id.insert(record.id, at);
        self.trace.note(self.now, at, "added", record.id, u64::from(record.is_learner));
        let delay = self.chance.between(1, 40) * self.tick_ns();
        self.after(delay, Event::Start { member: at });
    }

    fn founders(&self) -> Vec<u64> {
        self.members[..self.settings.members].iter().map(|member| member.id).collect()
    }

    /// Lets the member thread wake at `at`, if nothing wakes it before.
    pub(super) fn wake(&mut self, member: usize, at: u64) {
        let boot = self.members[member].boot;
        let Some(run) = &mut self.members[member].run else { return };
        if at < run.wake_at {
            run.wake_at = at;
            self.number += 1;
            self.queue.insert((at.max(self.now), self.number), Box::new(Event::Turn { member, boot }));
        }
    }

    pub(super) fn turn(&mut self, member: usize) {
        let slack = self.tick_ns();
        let world_ns = self.now;
        let World { members, history, model, .. } = self;
        let this = &mut members[member];
        let now = this.now(world_ns);
        let disk = disk_of(this);
        let Some(run) = this.run.as_mut().filter(|run| run.wake_at <= world_ns) else { return };
        run.wake_at = u64::MAX;
        let mut out = Vec::new();
        let mut seen = |model: &mut crate::model::Model, entry: &api::raftpb::Entry, _: bool| {
            history.seen(world_ns, slack, member, model, entry);
        };
        let was_removed = run.is_removed;
        let result = run.turn(&disk, &mut Turn { now, model, seen: &mut seen, out: &mut out });
        let is_compacting = run.is_compacting();
        let is_leaving = run.is_removed && !was_removed;
        if let Err(Died(text)) = result {
            // What left before the end has left.
            return self.died(member, &text);
        }
        self.carry_out(member, out);
        if is_leaving {
            let boot = self.members[member].boot;
            self.after(1_000_000_000, Event::Leave { member, boot });
        }
        self.notice_members();
        let mut next = self.members[member].wakeup().max(world_ns + 1_000);
        if is_compacting {
            next = next.min(world_ns + 1_000_000);
        }
        self.wake(member, next);
    }

    /// Members that the log has and nobody has set up yet.
    fn notice_members(&mut self) {
        let cluster = self.model.cluster.clone();
        if cluster.members().len() + cluster.removed().len() == self.by_id.len() {
            return;
        }
        for record in cluster.members() {
            if !self.by_id.contains_key(&record.id) {
                self.member_added(record);
            }
        }
    }

    pub(super) fn log_done(&mut self, member: usize) {
        let world_ns = self.now;
        let World { members, model, .. } = self;
        let this = &mut members[member];
        let (disk, now) = (disk_of(this), this.now(world_ns));
        let Some(run) = this.run.as_mut() else { return };
        let mut out = Vec::new();
        if let Err(Died(text)) = run.finish_log(now, &*disk, model, &mut out) {
            return self.died(member, &text);
        }
        self.carry_out(member, out);
        self.wake(member, self.now + 5_000);
        if !self.log_waits(member) {
            self.begin_log(member);
        }
    }

    pub(super) fn commit_done(&mut self, member: usize) {
        let now = self.members[member].now(self.now);
        let Some(run) = self.members[member].run.as_mut() else { return };
        let mut out = Vec::new();
        if let Err(Died(text)) = run.finish_commit(now, &mut out) {
            return self.died(member, &text);
        }
        self.carry_out(member, out);
        self.wake(member, self.now + 5_000);
    }

    pub(super) fn defragment(&mut self, member: usize) {
        let boot = self.members[member].boot;
        let Some(run) = self.members[member].run.as_mut() else { return };
        match run.defragment_step() {
            Ok(true) => self.after(2_000_000, Event::Defragment { member, boot }),
            // Some never rest.
            Ok(false) if self.settings.is_moving && !self.is_healed => {
                self.after(self.tick_ns() / 8, Event::Defragment { member, boot });
            }
            Ok(false) => {}
            Err(Died(text)) => return self.died(member, &text),
        }
        self.wake(member, self.now + 5_000);
    }

    /// A member's code could not go on. That is in order if its disk was told to fail, and a finding otherwise.
    pub(super) fn died(&mut self, member: usize, text: &str) {
        let is_planned = self.members[member].disk.clear_fault();
        if !is_planned {
            fail(Checker::Product, format!("member {member} ended: {text}"));
        }
        // What a failed sync left in the page cache cannot be trusted: the machine goes, too.
        self.crash(member, true);
    }

    /// The process ends. With the power, what was not synced may be lost, in part.
    pub(super) fn crash(&mut self, member: usize, is_power: bool) {
        self.trace.note(self.now, member, if is_power { "power cut" } else { "kill" }, 0, 0);
        self.counts.crashes += 1;
        let seed = match self.chance.below(10) {
            0 => 0,
            1 => 1,
            _ => self.chance.next(),
        };
        let this = &mut self.members[member];
        // A process that ends tidies nothing up.
        this.disk.fail_from(1, std::io::ErrorKind::Other);
        if let Some(run) = this.run.take() {
            this.promise = run.promise;
        }
        this.disk.clear_fault();
        if is_power {
            this.disk = this.disk.snapshot_after_crash(seed);
        }
        this.boot += 1;
        // What it was sending breaks off: with the process go its files and their locks.
        for event in self.queue.values_mut() {
            if let Event::Transfer { from, database, .. } = &mut **event
                && *from == member
            {
                *database = None;
            }
        }
        self.watchers_lost(member);
        let delay = if self.is_healed { 1 } else { self.chance.between(1, 80) } * self.tick_ns();
        self.after(delay, Event::Start { member });
    }

    /// The process starts; the disk may fail it on its way.
    pub(super) fn start(&mut self, member: usize) {
        if self.members[member].run.is_some() || self.members[member].is_gone {
            return;
        }
        if !self.is_healed && self.chance.per_mille(100) {
            let after = self.chance.between(1, 150);
            self.members[member].disk.fail_from(after, std::io::ErrorKind::Other);
        }
        // An operator's clock is right again after a while; ids of requests count on that.
        self.members[member].wall_ahead += 1_000_000;
        let started = self.members[member].start(self.now, &mut self.model);
        if let Err(Died(text)) = started {
            let is_planned = self.members[member].disk.clear_fault();
            if self.members[member].is_tight && !is_planned {
                // Without room for the files that a start makes there is none: it is tried again.
                self.trace.note(self.now, member, "no room: start", 0, 0);
                self.members[member].boot += 1;
                return self.after(20 * self.tick_ns(), Event::Start { member });
            }
            if !is_planned {
                fail(Checker::Recovery, format!("member {member} does not start: {text}"));
            }
            return self.crash(member, true);
        }
        self.members[member].disk.clear_fault();
        let (id, applied) = {
            let run = self.members[member].run.as_ref().expect("just started");
            (self.members[member].id, run.applier.applied().0)
        };
        self.by_id.insert(id, member);
        self.trace.note(self.now, member, "start", id & 0xffff, applied);
        if self.settings.is_moving {
            let boot = self.members[member].boot;
            self.after(self.tick_ns(), Event::Defragment { member, boot });
        }
        self.wake(member, self.now + 1_000);
    }

    /// A member that has applied its own removal ends for good.
    ///
    /// The others must know by then, durably: of two voters the one that stays needs the vote of the one that leaves
    /// until it has applied the removal. That is so with every raft; an operator has to wait.
    pub(super) fn leave(&mut self, member: usize) {
        let id = self.members[member].id;
        let voters: Vec<u64> = self
            .model
            .cluster
            .members()
            .filter(|record| !record.is_learner)
            .map(|record| record.id)
            .collect();
        let knows = |id: &&u64| {
            let run = self.by_id.get(id).and_then(|at| self.members[*at].run.as_ref());
            run.is_some_and(|run| run.knows_removed(self.members[member].id))
        };
        if voters.iter().filter(knows).count() <= voters.len() / 2 {
            let boot = self.members[member].boot;
            return self.after(1_000_000_000, Event::Leave { member, boot });
        }
        self.by_id.insert(id, member);
        self.trace.note(self.now, member, "leave", 0, 0);
        self.members[member].run = None;
        self.members[member].is_gone = true;
        self.watchers_lost(member);
    }
}

/// Where other members reach the one of this name.
pub(super) fn peer_url(name: &str) -> String {
    format!("http://{name}:2380")
}
