//! From settings to a running cluster, and the loop.

use std::collections::{BTreeMap, BTreeSet};

use super::clients::Clients;
use super::history::History;
use super::members::peer_url;
use super::rights::Rights;
use super::watchers::Watchers;
use super::{Counts, Event, World};
use crate::model::Model;
use crate::random::Random;
use crate::settings::Settings;
use crate::trace::Trace;

/// Notes kept for whoever reads a failure.
const NOTES_KEPT: usize = 40000;

impl World {
    pub(crate) fn new(settings: Settings) -> World {
        let seed = settings.seed;
        let min_ttl = etcdserver::lease::min_ttl(settings.election_ticks, settings.heartbeat_ms);
        let mut world = World {
            model: Model::new(min_ttl, settings.max_learners),
            now: 0,
            number: 0,
            queue: BTreeMap::new(),
            members: Vec::new(),
            by_id: BTreeMap::new(),
            history: History::default(),
            clients: Clients::new(seed),
            rights: Rights::new(seed),
            watchers: Watchers::new(seed),
            cut: BTreeSet::new(),
            network: Random::new(seed, 2),
            timing: Random::new(seed, 3),
            chance: Random::new(seed, 4),
            trace: Trace::new(NOTES_KEPT),
            counts: Counts::default(),
            is_healed: false,
            next_member: 0,
            settings,
        };
        world.found();
        world
    }

    fn found(&mut self) {
        let names: Vec<String> = (0..self.settings.members).map(|m| format!("m{m}")).collect();
        let founders: Vec<(String, Vec<String>)> =
            names.iter().map(|name| (name.clone(), vec![peer_url(name)])).collect();
        for (at, name) in names.iter().enumerate() {
            let mut member = self.new_member(name, founders.clone());
            member.id = api::ids::member_id(&[peer_url(name)], &member.config.initial_cluster_token, None);
            self.by_id.insert(member.id, at);
            self.members.push(member);
            let delay = self.chance.below(self.tick_ns() * 5);
            self.after(delay, Event::Start { member: at });
        }
        let tick = self.tick_ns();
        self.after(tick * 10, Event::Client);
        if self.settings.member_ticks > 0 {
            self.after(tick * 60, Event::Operator);
        }
        self.after(tick * 30, Event::Fault);
        self.make_watchers();
    }

    /// Both phases.
    pub(crate) fn run(&mut self) {
        let end = self.settings.safety_ticks * self.tick_ns();
        self.run_until(end);
        self.heal();
        self.finish();
        self.counts.ticks = self.now / self.tick_ns();
        self.counts.entries = self.model.last();
        self.counts.revisions = self.model.keys.revision.cast_unsigned();
        self.counts.auth_changes = self.model.auth_changes();
        self.counts.expired = self.history.expirations;
        self.counts.trace = self.trace.hash();
        self.counts.notes = self.trace.count();
    }

    /// Everything that happens before `end`.
    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at >= end {
                break;
            }
            let event = entry.remove();
            self.now = at;
            self.event(event);
        }
        self.now = end;
    }

    fn event(&mut self, event: Box<Event>) {
        if let Some(member) = event.process() {
            let until = self.members[member].paused_until;
            if until > self.now {
                // A process that wakes up takes clients and peers, and its own timers, in no order of arrival.
                let late = matches!(*event, Event::Arrive { .. });
                let after = if late { self.timing.below(5_000_000) } else { 0 };
                self.number += 1;
                self.queue.insert((until + after, self.number), event);
                return;
            }
        }
        if let Some((member, boot)) = event.boot()
            && self.is_stale(member, boot)
        {
            return;
        }
        match *event {
            Event::Turn { member, .. } => self.turn(member),
            Event::Arrive { member, input } => self.arrive(member, input),
            Event::Log { member, .. } => self.log_done(member),
            Event::Commit { member, .. } => self.commit_done(member),
            Event::Defragment { member, .. } => self.defragment(member),
            Event::Hub { member, events, .. } => self.hub(member, events.as_deref()),
            Event::CatchUp { member, .. } => self.catch_up(member),
            Event::Transfer { from, boot, message, database } => {
                self.transfer(from, boot, message, database.as_ref());
            }
            Event::Request { member, op } => self.request_arrived(member, op),
            Event::Answer { op, answer } => self.answered(op, answer),
            Event::Client => self.client(),
            Event::Operator => self.operator(),
            Event::Read { watcher } => self.read(watcher),
            Event::Connect { watcher } => self.connect(watcher),
            Event::Fault => self.fault(),
            Event::Join => self.join(),
            Event::Room { member } => self.room(member),
            Event::Start { member } => self.start(member),
            Event::Leave { member, .. } => self.leave(member),
        }
    }
}

impl Event {
    /// The process that it happens in: while that is paused, it waits.
    fn process(&self) -> Option<usize> {
        match self {
            Event::Turn { member, .. }
            | Event::Arrive { member, .. }
            | Event::Log { member, .. }
            | Event::Commit { member, .. }
            | Event::Defragment { member, .. }
            | Event::Hub { member, .. }
            | Event::CatchUp { member, .. }
            | Event::Request { member, .. } => Some(*member),
            _ => None,
        }
    }

    /// The life of a process that it belongs to.
    fn boot(&self) -> Option<(usize, u32)> {
        match self {
            Event::Turn { member, boot }
            | Event::Log { member, boot }
            | Event::Commit { member, boot }
            | Event::Defragment { member, boot }
            | Event::Hub { member, boot, .. }
            | Event::CatchUp { member, boot }
            | Event::Leave { member, boot } => Some((*member, *boot)),
            _ => None,
        }
    }
}
