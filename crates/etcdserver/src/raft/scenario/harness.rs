//! Members in memory, for scenarios: their lanes, a network that can lose and hold messages, a clock of their own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use api::etcdserverpb::InternalRaftRequest;
use api::raftpb::{self, MessageType};
use bytes::Bytes;
use prost::Message as _;

use crate::config::Config;
use crate::effect::{
    Append, ClusterVersions, Committed, LeaseChange, LeaseTimes, Proposal, RaftEffect, RaftInput, ReplyTo,
};
use crate::membership::{Cluster as Membership, ConfContext, Member as MemberRecord, V2Membership};
use crate::now::{MILLISECOND, Now};
use crate::raft::{Node, Start, encode_conf_change};

/// What stands for the database: what was applied, and how often it differs from nothing.
#[derive(Clone, Default)]
pub(super) struct App {
    pub(super) applied: u64,
    pub(super) term: u64,
    /// Data of every applied entry by index.
    pub(super) history: BTreeMap<u64, Bytes>,
    pub(super) members: Membership,
    pub(super) leases: BTreeMap<i64, (i64, i64)>,
}

/// What survives a crash.
#[derive(Clone, Default)]
pub(super) struct Durable {
    pub(super) log_start: (u64, u64),
    pub(super) entries: Vec<raftpb::Entry>,
    pub(super) hard_state: raftpb::HardState,
    /// State that came with a snapshot of the leader.
    snapshot: Option<App>,
    /// State of the last commit of the database.
    pub(super) db: App,
}

impl Durable {
    fn write(&mut self, append: &Append, snapshot: Option<App>) {
        if let Some(snapshot) = snapshot {
            self.log_start = (snapshot.applied, snapshot.term);
            self.entries.clear();
            self.snapshot = Some(snapshot);
        }
        for encoded in &append.entries {
            let entry = raftpb::Entry::decode(encoded.bytes.clone()).unwrap();
            assert_eq!((entry.index(), entry.term()), (encoded.index, encoded.term));
            let at = (entry.index() - self.log_start.0 - 1) as usize;
            assert!(at <= self.entries.len(), "gap in the log");
            self.entries.truncate(at);
            self.entries.push(entry);
        }
        if let Some(hard_state) = append.hard_state {
            self.hard_state = hard_state;
        }
    }
}

pub(super) struct Member {
    pub(super) id: u64,
    pub(super) node: Option<Node>,
    pub(super) app: App,
    pub(super) durable: Durable,
    pub(super) disk_held: bool,
    pub(super) apply_held: bool,
    pending_writes: VecDeque<Append>,
    pending_applies: VecDeque<Committed>,
    reads: Vec<(ReplyTo, u64)>,
    boots: u64,
}

/// Something a client was told, or an operator may see.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Role(u64, crate::effect::RoleChange),
    Reply(ReplyTo, Result<u64, String>),
    ReadOk(ReplyTo, u64),
    Renewed(ReplyTo, i64),
    LeaseTimes(ReplyTo, LeaseTimes),
    Conf(u64, Vec<u64>, Vec<u64>),
    Published(u64),
    SnapshotDue(u64, u64),
    SnapshotSent(u64, u64, u64),
    Elsewhere(u64, u64),
}

pub(super) struct Sim {
    pub(super) config: Config,
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) now: Now,
    pub(super) network: VecDeque<raftpb::Message>,
    /// Pairs that cannot reach each other, in this direction.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// Message types that are lost.
    pub(super) lost: BTreeSet<i32>,
    pub(super) told: Vec<Told>,
    pub(super) sent: Vec<raftpb::Message>,
    snapshots: BTreeMap<(u64, u64), App>,
    /// Every entry that was ever applied anywhere: all members must agree on it.
    pub(super) agreed: BTreeMap<u64, (Bytes, u64)>,
}

pub(super) fn reply_to(member: u64, stream: u32) -> ReplyTo {
    ReplyTo { thread: 0, connection: member as u32, stream }
}

pub(super) fn put(member: u64, stream: u32) -> Proposal {
    Proposal {
        reply_to: Some(reply_to(member, stream)),
        identity: None,
        field: 4,
        body: Bytes::from(vec![0x0a, 4, b'k', b'e', b'y', b'0' + (stream % 10) as u8]),
    }
}

pub(super) fn record(id: u64) -> MemberRecord {
    MemberRecord { id, peer_urls: vec![format!("http://m{id}:2380")], ..MemberRecord::default() }
}

impl Sim {
    pub(super) fn new(config: Config, members: u64) -> Sim {
        let mut sim = Sim {
            config,
            members: BTreeMap::new(),
            now: Now { mono_ns: 1_000 * MILLISECOND, wall_ns: 1_700_000_000_000 * MILLISECOND },
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            lost: BTreeSet::new(),
            told: Vec::new(),
            sent: Vec::new(),
            snapshots: BTreeMap::new(),
            agreed: BTreeMap::new(),
        };
        let mut entries = Vec::new();
        for id in 1..=members {
            let context = ConfContext { member: record(id), is_promote: false }.to_json();
            let change =
                raftpb::ConfChange { r#type: Some(0), node_id: Some(id), context: Some(context), id: None };
            entries.push(raftpb::Entry {
                term: Some(1),
                index: Some(id),
                r#type: Some(1),
                data: Some(encode_conf_change(&change)),
            });
        }
        for id in 1..=members {
            let hard_state = raftpb::HardState { term: Some(1), vote: Some(0), commit: Some(members) };
            sim.add(id, Durable { entries: entries.clone(), hard_state, ..Durable::default() });
        }
        sim
    }

    /// A member that starts with an empty log and waits for a leader.
    pub(super) fn join(&mut self, id: u64) {
        self.add(id, Durable::default());
    }

    fn add(&mut self, id: u64, mut durable: Durable) {
        durable.db.members = Membership::new(77, id);
        let member = Member {
            id,
            node: None,
            app: App::default(),
            durable,
            disk_held: false,
            apply_held: false,
            pending_writes: VecDeque::new(),
            pending_applies: VecDeque::new(),
            reads: Vec::new(),
            boots: 0,
        };
        self.members.insert(id, member);
        self.start(id);
    }

    pub(super) fn start(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        if let Some(snapshot) = member.durable.snapshot.take_if(|s| s.applied > member.durable.db.applied) {
            member.durable.db = snapshot;
        }
        member.boots += 1;
        member.app = member.durable.db.clone();
        let leases = member.app.leases.iter().map(|(id, (ttl, left))| (*id, *ttl, *left)).collect();
        let start = Start {
            id,
            log_start: member.durable.log_start,
            entries: member.durable.entries.clone(),
            hard_state: member.durable.hard_state,
            conf_state: member.app.members.conf_state(),
            applied: member.app.applied,
            leases,
            ..Start::default()
        };
        let config = Config { name: format!("m{id}"), ..self.config.clone() };
        // Another boot is another millisecond, or request ids would come again.
        self.now = self.now.plus(MILLISECOND);
        let mut node = Node::new(&config, start, self.now).unwrap();
        let lowest_server = Some(config.version);
        let versions =
            ClusterVersions { cluster: member.app.members.version(), lowest_server, downgrade: None };
        node.step(self.now, RaftInput::Versions(versions)).unwrap();
        member.node = Some(node);
    }

    /// The process dies. Of the writes that were not reported the first `kept` survive.
    pub(super) fn crash(&mut self, id: u64, kept: usize) {
        let member = self.members.get_mut(&id).unwrap();
        member.node = None;
        for append in member.pending_writes.drain(..).collect::<Vec<_>>().iter().take(kept) {
            let snapshot = find_snapshot(&self.snapshots, id, append);
            member.durable.write(append, snapshot);
        }
        member.pending_applies.clear();
        member.reads.clear();
    }

    /// The database commits what is applied.
    pub(super) fn commit_db(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        member.durable.db = member.app.clone();
    }

    pub(super) fn node(&mut self, id: u64) -> Option<&mut Node> {
        self.members.get_mut(&id)?.node.as_mut()
    }

    pub(super) fn step(&mut self, id: u64, input: RaftInput) {
        let now = self.now;
        if let Some(node) = self.node(id) {
            node.step(now, input).unwrap_or_else(|e| panic!("member {id}: {e}"));
        }
    }

    pub(super) fn tick(&mut self, ids: &[u64], ticks: usize) {
        for _ in 0..ticks {
            self.now = self.now.plus(self.config.heartbeat_ms * MILLISECOND);
            for id in ids {
                self.step(*id, RaftInput::Tick);
            }
            self.settle();
        }
    }

    /// Does everything that can be done without time passing.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut moved = false;
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for id in &ids {
                moved |= self.drain(*id);
                moved |= self.work(*id);
            }
            while let Some(message) = self.network.pop_front() {
                moved = true;
                self.deliver(&message);
            }
            if !moved {
                return;
            }
        }
        let last = self.sent.iter().rev().take(30).map(|m| {
            format!(
                "{}->{} {} term {} {:x?}",
                m.from(),
                m.to(),
                m.r#type().as_str_name(),
                m.term(),
                m.context()
            )
        });
        panic!("the cluster does not come to rest; sent last: {:#?}", last.collect::<Vec<_>>());
    }

    fn deliver(&mut self, message: &raftpb::Message) {
        let (from, to) = (message.from(), message.to());
        if self.cut.contains(&(from, to)) || self.lost.contains(&message.r#type.unwrap_or(0)) {
            return;
        }
        let message = raftpb::Message::decode(message.encode_to_vec().as_slice()).unwrap();
        self.step(to, RaftInput::Message(message));
    }

    pub(super) fn drain(&mut self, id: u64) -> bool {
        let mut effects = Vec::new();
        if let Some(node) = self.node(id) {
            node.drain(&mut effects);
        }
        let moved = !effects.is_empty();
        for effect in effects {
            self.effect(id, effect);
        }
        moved
    }

    fn effect(&mut self, id: u64, effect: RaftEffect) {
        let member = self.members.get_mut(&id).unwrap();
        match effect {
            RaftEffect::Send(messages) => {
                for message in messages {
                    // A request to hand over leadership names the successor as its sender, and what is passed on
                    // by somebody who is no longer the leader names whoever asked.
                    let passed_on = matches!(
                        message.r#type(),
                        MessageType::MsgTransferLeader | MessageType::MsgProp | MessageType::MsgReadIndex
                    );
                    assert!(message.from() == id || passed_on, "{message:?}");
                    self.sent.push(message.clone());
                    self.network.push_back(message);
                }
            }
            RaftEffect::Append(append) => member.pending_writes.push_back(append),
            RaftEffect::Apply(committed) => member.pending_applies.push_back(committed),
            RaftEffect::ReadReady { waiting, index } => {
                member.reads.extend(waiting.into_iter().map(|read| (read, index)));
            }
            RaftEffect::Renewed(done) => {
                self.told.extend(done.into_iter().map(|(renewal, ttl)| Told::Renewed(renewal.reply_to, ttl)));
            }
            RaftEffect::LeaseTimes(done) => {
                self.told.extend(done.into_iter().map(|(q, times)| Told::LeaseTimes(q.reply_to, times)));
            }
            RaftEffect::RenewElsewhere { leader, .. } | RaftEffect::LeaseTimesElsewhere { leader, .. } => {
                self.told.push(Told::Elsewhere(id, leader));
            }
            RaftEffect::Refused(refused) => {
                for (reply_to, status) in refused {
                    self.told.push(Told::Reply(reply_to, Err(status.message.into_owned())));
                }
            }
            RaftEffect::Role(role) => self.told.push(Told::Role(id, role)),
            RaftEffect::ConfChanged(conf) => self.told.push(Told::Conf(id, conf.voters, conf.learners)),
            RaftEffect::BuildSnapshot(message) => self.send_snapshot(id, message),
            RaftEffect::SnapshotDue { applied } => self.told.push(Told::SnapshotDue(id, applied)),
            RaftEffect::Published => self.told.push(Told::Published(id)),
        }
    }

    fn send_snapshot(&mut self, id: u64, mut message: raftpb::Message) {
        let app = self.members[&id].app.clone();
        let to = message.to();
        let asked = message.snapshot.take().and_then(|s| s.metadata).unwrap();
        assert!(app.applied >= asked.index(), "a snapshot is never older than raft asked for");
        message.snapshot = Some(raftpb::Snapshot {
            data: Some(V2Membership::of(&app.members).render()),
            metadata: Some(raftpb::SnapshotMetadata {
                index: Some(app.applied),
                term: Some(app.term),
                conf_state: Some(app.members.conf_state()),
            }),
        });
        self.told.push(Told::SnapshotSent(id, to, app.applied));
        self.snapshots.insert((to, app.applied), app);
        let ok = !self.cut.contains(&(id, to)) && self.members.get(&to).is_some_and(|m| m.node.is_some());
        self.network.push_back(message);
        self.step(id, RaftInput::SnapshotDone { to, ok });
    }

    /// Log and apply lane of one member.
    fn work(&mut self, id: u64) -> bool {
        let mut moved = false;
        loop {
            let member = self.members.get_mut(&id).unwrap();
            if member.disk_held {
                break;
            }
            let Some(append) = member.pending_writes.pop_front() else { break };
            let snapshot = find_snapshot(&self.snapshots, id, &append);
            member.durable.write(&append, snapshot);
            self.step(id, RaftInput::Persisted { ready: append.ready });
            moved = true;
        }
        loop {
            let member = self.members.get_mut(&id).unwrap();
            if member.apply_held {
                break;
            }
            let Some(committed) = member.pending_applies.pop_front() else { break };
            self.apply(id, committed);
            moved = true;
        }
        moved
    }

    fn apply(&mut self, id: u64, committed: Committed) {
        let mut leases = Vec::new();
        if let Some(snapshot) = committed.snapshot {
            let metadata = snapshot.metadata.unwrap();
            let member = self.members.get_mut(&id).unwrap();
            member.app = self.snapshots[&(id, metadata.index())].clone();
            assert_eq!(member.app.members.conf_state().voters, metadata.conf_state.unwrap().voters);
            leases.push(LeaseChange::Reset);
            for (id, (ttl, left)) in &member.app.leases {
                leases.push(LeaseChange::Granted { id: *id, ttl: *ttl, remaining: *left });
            }
        }
        for entry in committed.entries {
            self.apply_entry(id, &entry, &mut leases);
        }
        let index = self.members[&id].app.applied;
        self.step(id, RaftInput::Applied { index, leases });
        let member = self.members.get_mut(&id).unwrap();
        let ready = member.reads.extract_if(.., |(_, index)| *index <= member.app.applied);
        let ready: Vec<_> = ready.map(|(read, index)| Told::ReadOk(read, index)).collect();
        self.told.extend(ready);
    }

    fn apply_entry(&mut self, id: u64, entry: &raftpb::Entry, leases: &mut Vec<LeaseChange>) {
        let member = self.members.get_mut(&id).unwrap();
        let app = &mut member.app;
        assert_eq!(entry.index(), app.applied + 1, "member {id}: entries are applied in order, each once");
        app.applied = entry.index();
        app.term = entry.term();
        let data = entry.data.clone().unwrap_or_default();
        app.history.insert(entry.index(), data.clone());
        let agreed = self.agreed.entry(entry.index()).or_insert_with(|| (data.clone(), entry.term()));
        assert_eq!(
            *agreed,
            (data.clone(), entry.term()),
            "member {id} applied another entry {}",
            entry.index()
        );
        if entry.r#type() == raftpb::EntryType::EntryConfChange {
            let change = raftpb::ConfChange::decode(data).unwrap();
            let result = app.members.apply_conf_change(&change, 1);
            let applied = app.members.conf_applied(entry.index(), &change, result.is_err());
            self.step(id, RaftInput::ConfApplied(applied));
            let result = result.map(|_| entry.index()).map_err(|e| e.message().to_owned());
            self.answer(id, change.id(), result);
        } else if !data.is_empty() {
            let request = InternalRaftRequest::decode(data).unwrap();
            let id_of_request = request.header.as_ref().unwrap().id;
            apply_request(app, request, leases);
            let cluster = app.members.version();
            let lowest_server = Some(self.config.version);
            let versions = ClusterVersions { cluster, lowest_server, downgrade: None };
            self.step(id, RaftInput::Versions(versions));
            self.answer(id, id_of_request, Ok(entry.index()));
        }
    }

    fn answer(&mut self, id: u64, request: u64, result: Result<u64, String>) {
        let Some(node) = self.node(id) else { return };
        if let Some(reply_to) = node.take_waiting(request) {
            self.told.push(Told::Reply(reply_to, result));
        }
    }

    /// Reads whose index is applied already when they are confirmed.
    pub(super) fn finish_reads(&mut self) {
        for member in self.members.values_mut() {
            let applied = member.app.applied;
            let ready = member.reads.extract_if(.., |(_, index)| *index <= applied);
            self.told.extend(ready.map(|(read, index)| Told::ReadOk(read, index)));
        }
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.members.values().filter_map(|m| m.node.as_ref().map(|n| (m.id, n.role())));
        leaders.filter(|(_, role)| role.is_leader).max_by_key(|(_, role)| role.term).map(|(id, _)| id)
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }
}

fn find_snapshot(snapshots: &BTreeMap<(u64, u64), App>, id: u64, append: &Append) -> Option<App> {
    let metadata = append.snapshot.as_ref()?.metadata.as_ref()?;
    Some(snapshots[&(id, metadata.index())].clone())
}

fn apply_request(app: &mut App, request: InternalRaftRequest, leases: &mut Vec<LeaseChange>) {
    if let Some(grant) = request.lease_grant {
        app.leases.insert(grant.id, (grant.ttl, 0));
        leases.push(LeaseChange::Granted { id: grant.id, ttl: grant.ttl, remaining: 0 });
    }
    if let Some(revoke) = request.lease_revoke
        && app.leases.remove(&revoke.id).is_some()
    {
        leases.push(LeaseChange::Revoked { id: revoke.id });
    }
    for checkpoint in request.lease_checkpoint.into_iter().flat_map(|c| c.checkpoints) {
        if let Some(lease) = app.leases.get_mut(&checkpoint.id) {
            lease.1 = checkpoint.remaining_ttl;
            leases.push(LeaseChange::Checkpointed { id: checkpoint.id, remaining: checkpoint.remaining_ttl });
        }
    }
    if let Some(set) = request.cluster_version_set {
        app.members.set_version(set.ver.parse().unwrap());
    }
    if let Some(set) = request.cluster_member_attr_set {
        let attributes = set.member_attributes.unwrap_or_default();
        let _ = app.members.update_attributes(set.member_id, &attributes.name, &attributes.client_urls);
    }
}
