//! What cannot wait for the end of a long apply: ticks, messages of the other members, the log.
//!
//! A deletion of a million keys takes a second, in which the leader's followers must hear of it and a follower must
//! answer. So apply calls back every few milliseconds, and raft gets its turn here: it is stepped, its messages leave,
//! its writes go to the log thread. Everything else that arrives, and everything else that raft asks for, waits for the
//! end of the apply, in its order.
//!
//! Bounds: what raft hands to apply is bounded by its credit, and inputs where they are made, as in the mailbox that
//! they would wait in otherwise.

use std::time::{Duration, Instant};

use etcdserver::effect::{RaftEffect, RaftInput};
use etcdserver::raft::Node;

use crate::member::handle::{MemberInput, Shared};
use crate::member::log;

/// Time between two turns of raft: a small part of the shortest heartbeat that makes sense.
const PULSE: Duration = Duration::from_millis(5);

/// What waits for the end of an apply.
#[derive(Default)]
pub(super) struct Later {
    pub(super) inputs: Vec<MemberInput>,
    pub(super) effects: Vec<RaftEffect>,
}

/// Raft's turns beside one apply.
pub(super) struct Pulse<'a> {
    pub(super) shared: &'a Shared,
    pub(super) log: &'a log::Lane,
    pub(super) node: &'a mut Node,
    pub(super) later: &'a mut Later,
    /// When the last turn was; `None` for a member that has nobody to talk to.
    pub(super) last: Option<Instant>,
}

impl Pulse<'_> {
    /// Gives raft its turn, if one is due.
    pub(super) fn beat(&mut self) {
        let Some(last) = self.last else { return };
        if last.elapsed() < PULSE {
            return;
        }
        let mut batch = Vec::new();
        self.shared.member.take(&mut batch);
        for input in batch {
            match input {
                MemberInput::Peer(message) => {
                    self.shared.transport.taken(&message);
                    self.step(RaftInput::Message(message));
                }
                MemberInput::Persisted(ready) => self.step(RaftInput::Persisted { ready }),
                MemberInput::SnapshotDone { to, ok } => self.step(RaftInput::SnapshotDone { to, ok }),
                MemberInput::Unreachable(id) => self.step(RaftInput::Unreachable(id)),
                other => self.later.inputs.push(other),
            }
        }
        if self.shared.now().mono_ns >= self.node.next_wakeup_ns() {
            self.step(RaftInput::Tick);
        }
        let mut effects = Vec::new();
        self.node.drain(&mut effects);
        for effect in effects {
            match effect {
                RaftEffect::Send(messages) => self.shared.transport.send(messages),
                RaftEffect::Append(append) => self.log.push(log::Job::Append(append)),
                other => self.later.effects.push(other),
            }
        }
        self.last = Some(Instant::now());
    }

    fn step(&mut self, input: RaftInput) {
        step(self.node, self.shared, input);
    }
}

/// Steps raft. That it cannot go on ends the process.
pub(super) fn step(node: &mut Node, shared: &Shared, input: RaftInput) {
    if let Err(error) = node.step(shared.now(), input) {
        shared.logger.fatal("raft cannot go on", &[("error", error.to_string().into())]);
    }
}
