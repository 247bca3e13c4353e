//! All members, the network, clients and faults, in one loop: events in the order of (time, number).
//!
//! Invariants:
//! - nothing happens but by an event, and all chance comes from the seed's streams: equal seeds are equal runs;
//! - an event for a process that has ended since (another boot) is nothing; one for a process that is paused waits;
//! - of a process that ends, only its disk is left.

mod clients;
mod faults;
mod finish;
mod history;
mod members;
mod network;
mod requests;
mod rights;
mod run;
mod watchers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::raftpb;
use mvcc::EventBatch;

use crate::member::{Input, Member};
use crate::model::Model;
use crate::random::Random;
use crate::settings::Settings;
use crate::trace::Trace;

use clients::Clients;
use history::History;
use rights::Rights;
use watchers::Watchers;

pub(crate) use requests::Answer;

/// Something that happens at its time.
#[derive(Debug)]
pub(crate) enum Event {
    /// The member thread wakes; only the newest wake-up counts.
    Turn { member: usize, boot: u32 },
    /// Something arrives at a member, whichever process runs there then.
    Arrive { member: usize, input: Input },
    /// The job under way in the log lane is done.
    Log { member: usize, boot: u32 },
    /// The job under way in the commit lane is done.
    Commit { member: usize, boot: u32 },
    /// One step of a defragmentation.
    Defragment { member: usize, boot: u32 },
    /// Events reach the hub; `None`: the store was replaced.
    Hub { member: usize, boot: u32, events: Option<Vec<Arc<EventBatch>>> },
    /// The hub reads history.
    CatchUp { member: usize, boot: u32 },
    /// A database has been sent; `None`: its sender has ended.
    Transfer { from: usize, boot: u32, message: raftpb::Message, database: Option<bolt::View> },
    /// A client's request reaches a member.
    Request { member: usize, op: u32 },
    /// The answer reaches the client.
    Answer { op: u32, answer: Answer },
    /// The next request of some client.
    Client,
    /// The next membership change.
    Operator,
    /// A watcher's reader takes what waits.
    Read { watcher: usize },
    /// A watcher finds a member to watch on.
    Connect { watcher: usize },
    /// The next fault.
    Fault,
    /// A partition ends.
    Join,
    /// A disk that was full has room again.
    Room { member: usize },
    /// A process that ended starts again.
    Start { member: usize },
    /// A member that was removed ends.
    Leave { member: usize, boot: u32 },
}

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of clients.
    pub operations: u64,
    /// Those that were answered, refusals included.
    pub answered: u64,
    /// Ticks of simulated time.
    pub ticks: u64,
    /// Leaders elected.
    pub elections: u64,
    /// Ends of processes: power cuts, kills, failing disks.
    pub crashes: u64,
    /// Snapshots written to disk.
    pub snapshots: u64,
    /// Snapshots received and taken over.
    pub installs: u64,
    /// Membership changes that took effect, as entries.
    pub member_changes: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Revisions.
    pub revisions: u64,
    /// Events that watchers were sent.
    pub events: u64,
    /// Leases that ended by their time.
    pub expired: u64,
    /// Changes of users, roles, rights and the switch.
    pub auth_changes: u64,
    /// Answers that said that somebody lacks a right.
    pub denied: u64,
    /// Disks that something else filled.
    pub full_disks: u64,
    /// Everything that happened, as a hash.
    pub trace: u64,
    /// How many things that were.
    pub notes: u64,
}

impl Counts {
    /// Of two runs together; the traces are joined in order.
    #[must_use]
    pub fn plus(&self, other: &Counts) -> Counts {
        Counts {
            operations: self.operations + other.operations,
            answered: self.answered + other.answered,
            ticks: self.ticks + other.ticks,
            elections: self.elections + other.elections,
            crashes: self.crashes + other.crashes,
            snapshots: self.snapshots + other.snapshots,
            installs: self.installs + other.installs,
            member_changes: self.member_changes + other.member_changes,
            entries: self.entries + other.entries,
            revisions: self.revisions + other.revisions,
            events: self.events + other.events,
            expired: self.expired + other.expired,
            auth_changes: self.auth_changes + other.auth_changes,
            denied: self.denied + other.denied,
            full_disks: self.full_disks + other.full_disks,
            trace: self.trace.rotate_left(1) ^ other.trace,
            notes: self.notes + other.notes,
        }
    }
}

/// See the head of this file.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) now: u64,
    number: u64,
    queue: BTreeMap<(u64, u64), Box<Event>>,
    pub(crate) members: Vec<Member>,
    by_id: BTreeMap<u64, usize>,
    pub(crate) model: Model,
    pub(crate) history: History,
    clients: Clients,
    rights: Rights,
    watchers: Watchers,
    /// Directed ways that are cut.
    cut: BTreeSet<(usize, usize)>,
    network: Random,
    timing: Random,
    chance: Random,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    /// The second phase: no faults any more.
    is_healed: bool,
    next_member: usize,
}

impl World {
    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.number += 1;
        self.queue.insert((self.now + delay, self.number), Box::new(event));
    }

    pub(super) fn tick_ns(&self) -> u64 {
        self.settings.heartbeat_ms * 1_000_000
    }

    /// The process that an event is for, if it still runs.
    fn is_stale(&self, member: usize, boot: u32) -> bool {
        self.members[member].run.is_none() || self.members[member].boot != boot
    }

    /// Members that are running now.
    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|m| self.members[*m].run.is_some()).collect()
    }

    /// The leader with the highest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let roles = self.members.iter().enumerate().filter_map(|(m, member)| {
            let role = member.run.as_ref()?.node.role();
            role.is_leader.then_some((role.term, m))
        });
        roles.max().map(|(_, m)| m)
    }
}
