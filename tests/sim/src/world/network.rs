//! The ways between members, and what a turn wants carried out.

use std::sync::Arc;

use api::raftpb::{self, MessageType};
use etcdserver::effect::RaftInput;

use super::{Event, World};
use crate::member::{Counted, Input, Out, RETRY_NS, disk_of};
use crate::trace::NOBODY;

/// What one write of a received database carries.
const CHUNK: usize = 32 << 10;

impl World {
    /// Carries out what a member's lanes asked for.
    pub(super) fn carry_out(&mut self, member: usize, outs: Vec<Out>) {
        let boot = self.members[member].boot;
        for out in outs {
            // What it asked for may have been its end.
            if self.is_stale(member, boot) {
                return;
            }
            match out {
                Out::Send(messages) => messages.into_iter().for_each(|message| self.send(member, message)),
                Out::Tell(to, told) => self.tell(member, to, told),
                Out::Log => self.begin_log(member),
                Out::Commit => self.begin_commit(member),
                Out::Snapshot(message, database) => self.send_database(member, message, database),
                Out::Forward(leader, input) => self.forward(leader, input),
                Out::Events(events) => self.events(member, Some(events)),
                Out::Replaced => self.events(member, None),
                Out::Count(counted) => self.count(member, counted),
                Out::Note(what, a, b) => self.trace.note(self.now, member, what, a, b),
            }
        }
    }

    fn count(&mut self, member: usize, counted: Counted) {
        match counted {
            Counted::Elected { term } => {
                self.counts.elections += 1;
                self.history.elected(term, self.members[member].id);
            }
            Counted::SnapshotSaved => self.counts.snapshots += 1,
            Counted::SnapshotInstalled => self.counts.installs += 1,
            Counted::MemberChanged => self.counts.member_changes += 1,
        }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    fn send(&mut self, from: usize, message: raftpb::Message) {
        let Some(&to) = self.by_id.get(&message.to()) else { return };
        let kind = message.r#type();
        if self.members[to].is_gone || self.members[to].run.is_none() || self.is_cut(from, to) {
            // A connection that is refused or stands still is noticed sometimes.
            if self.network.per_mille(200) {
                let input = RaftInput::Unreachable(message.to());
                self.after(
                    self.settings.network_us * 1_000,
                    Event::Arrive { member: from, input: Input::Raft(input) },
                );
            }
            return;
        }
        let lost = if self.is_healed { 0 } else { self.settings.loss };
        if self.network.per_mille(lost) {
            return;
        }
        // Streams lose and reorder between connections, but do not carry a proposal twice.
        if kind != MessageType::MsgProp && self.network.per_mille(self.settings.duplicates) {
            let late = self.network.pick(&[1, 20, 100]);
            self.deliver(to, message.clone(), late);
        }
        self.deliver(to, message, 1);
    }

    fn deliver(&mut self, to: usize, message: raftpb::Message, late: u64) {
        let delay = self.network.delay(self.settings.network_us * 1_000 * late);
        let input = Input::Raft(RaftInput::Message(message));
        self.after(delay, Event::Arrive { member: to, input });
    }

    /// A message or request is there: into the inbox, unless the sender is known to be no member any more.
    pub(super) fn arrive(&mut self, member: usize, input: Input) {
        if let Input::Raft(RaftInput::Message(message)) = &input {
            let from = self.by_id.get(&message.from()).copied().unwrap_or(NOBODY);
            if from != NOBODY && self.is_cut(from, member) {
                return;
            }
            let kind = message.r#type() as u64;
            self.trace.note(
                self.now,
                member,
                "message",
                message.from() & 0xffff,
                kind << 48 | message.index(),
            );
        }
        let Some(run) = &mut self.members[member].run else { return };
        if let Input::Raft(RaftInput::Message(message)) = &input
            && run.applier.cluster().is_removed(message.from())
        {
            // Who was removed is told so, and ends.
            if let Some(&from) = self.by_id.get(&message.from()) {
                let boot = self.members[from].boot;
                self.after(self.settings.network_us * 1_000, Event::Leave { member: from, boot });
            }
            return;
        }
        run.inbox.push_back(input);
        let delay = self.timing.between(1_000, 40_000);
        self.wake(member, self.now + delay);
    }

    /// Keepalives and questions that another member must answer travel as calls of their own.
    fn forward(&mut self, leader: u64, input: RaftInput) {
        let Some(&to) = self.by_id.get(&leader) else { return };
        let delay = self.network.delay(self.settings.network_us * 1_000);
        self.after(delay, Event::Arrive { member: to, input: Input::Raft(input) });
    }

    fn send_database(&mut self, from: usize, message: raftpb::Message, database: bolt::View) {
        let boot = self.members[from].boot;
        let index = snapshot_index(&message);
        self.trace.note(self.now, from, "send database", message.to() & 0xffff, index);
        let delay = self.network.delay(self.settings.network_us * 20_000);
        self.after(delay, Event::Transfer { from, boot, message, database: Some(database) });
    }

    /// The database has arrived, or not: parts of it may be there.
    pub(super) fn transfer(
        &mut self,
        from: usize,
        boot: u32,
        message: raftpb::Message,
        database: Option<&bolt::View>,
    ) {
        let to_id = message.to();
        let to = self.by_id.get(&to_id).copied();
        let reached = to.filter(|to| !self.is_cut(from, *to) && self.members[*to].run.is_some());
        let is_stale = self.is_stale(from, boot);
        let is_whole = self.is_healed || !self.network.per_mille(100);
        let mut ok = false;
        if let Some(to) = reached.filter(|_| !is_stale)
            && let Some(database) = database
        {
            ok = self.receive_database((from, to), &message, database, is_whole);
            if ok {
                self.arrive(to, Input::Raft(RaftInput::Message(message)));
            }
        }
        if !self.is_stale(from, boot) {
            let input = Input::Raft(RaftInput::SnapshotDone { to: to_id, ok });
            self.after(self.settings.network_us * 1_000, Event::Arrive { member: from, input });
        }
    }

    fn receive_database(
        &mut self,
        (from, to): (usize, usize),
        message: &raftpb::Message,
        database: &bolt::View,
        is_whole: bool,
    ) -> bool {
        let index = snapshot_index(message);
        let disk = disk_of(&self.members[to]);
        let dir = self.members[to].config.snap_dir();
        let length = database.stream_len();
        let end = if is_whole { length } else { self.network.below(length) };
        match write_database(&disk, &dir, database, end, is_whole.then_some(index)) {
            Ok(()) => is_whole,
            Err(Broken::Sender(error)) => {
                self.died(from, &error.to_string());
                false
            }
            Err(Broken::Receiver(error)) if error.is_no_space() => false,
            Err(Broken::Receiver(error)) => {
                self.died(to, &error.to_string());
                false
            }
        }
    }

    pub(super) fn begin_log(&mut self, member: usize) {
        let stalled = self.members[member].log_stalled_until.saturating_sub(self.now);
        let (boot, now) = (self.members[member].boot, self.members[member].now(self.now));
        let Some(run) = &mut self.members[member].run else { return };
        if run.log_waits {
            return;
        }
        match run.begin_log(now) {
            Ok(false) => _ = self.log_waits(member),
            Ok(true) => {
                let delay = stalled + self.timing.delay(self.settings.sync_us * 1_000);
                self.after(delay, Event::Log { member, boot });
            }
            Err(died) => self.died(member, &died.0),
        }
    }

    /// Whether the log lane has just found no room: then it is tried again.
    pub(super) fn log_waits(&mut self, member: usize) -> bool {
        let boot = self.members[member].boot;
        let waits = self.members[member].run.as_ref().is_some_and(|run| run.log_waits);
        if waits {
            self.trace.note(self.now, member, "no room: log", 0, 0);
            self.after(RETRY_NS, Event::Log { member, boot });
            self.wake(member, self.now + 1_000);
        }
        waits
    }

    pub(super) fn begin_commit(&mut self, member: usize) {
        let stalled = self.members[member].commit_stalled_until.saturating_sub(self.now);
        let boot = self.members[member].boot;
        let delay = stalled + self.timing.delay(self.settings.commit_us * 1_000);
        self.after(delay, Event::Commit { member, boot });
    }
}

/// Index of the snapshot that a message carries.
fn snapshot_index(message: &raftpb::Message) -> u64 {
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    metadata.map_or(0, raftpb::SnapshotMetadata::index)
}

/// Whose disk refused.
enum Broken {
    Sender(bolt::Error),
    Receiver(wal::Error),
}

impl From<wal::Error> for Broken {
    fn from(error: wal::Error) -> Broken {
        Broken::Receiver(error)
    }
}

fn write_database(
    disk: &Arc<dyn disk::Disk>,
    dir: &std::path::Path,
    database: &bolt::View,
    end: u64,
    name: Option<u64>,
) -> Result<(), Broken> {
    let mut received = wal::snap::ReceivedDb::create(&**disk, dir)?;
    let mut buffer = vec![0; CHUNK];
    while received.len() < end {
        let room = CHUNK.min((end - received.len()) as usize);
        let read = database.read_chunk(received.len(), &mut buffer[..room]).map_err(Broken::Sender)?;
        received.write(&buffer[..read])?;
    }
    if let Some(index) = name {
        received.finish(index)?;
    }
    Ok(())
}
