//! What clients ask for: a mix from the seed.

use api::etcdserverpb as pb;
use api::etcdserverpb::compare::TargetUnion;
use api::etcdserverpb::request_op::Request as OpRequest;
use api::raftpb::{ConfChange, ConfChangeType};
use bytes::Bytes;
use etcdserver::apply::{request::Txn, validate};
use etcdserver::membership::{ConfContext, Member as Record};
use prost::Message;

use super::requests::{Op, Request};
use super::rights::Who;
use super::{Event, World, members::peer_url};
use crate::random::Random;

/// All requests so far, and what clients remember.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) ops: Vec<Op>,
    random: Random,
    /// Leases that were granted, as far as a client knows, and those kept alive.
    leases: Vec<i64>,
    next_lease: i64,
    next_value: u64,
    is_changing: bool,
    changing_since: u64,
    /// How far a lull is; 0 outside.
    lull: u8,
}

/// Makes a request, if it finds what that needs.
type Make = fn(&mut World) -> Option<Request>;

/// A kind of request and how often it comes, of a thousand.
const MIX: [(u64, Make); 12] = [
    (360, World::make_put),
    (60, World::make_delete),
    (150, World::make_txn),
    (170, World::make_range),
    (60, World::make_serializable),
    (50, World::make_old_range),
    (20, World::make_compaction),
    (25, World::make_grant),
    (10, World::make_revoke),
    (75, World::make_renewal),
    (10, World::make_times),
    (10, World::make_disarm),
];

impl Clients {
    pub(super) fn new(seed: u64) -> Clients {
        Clients {
            ops: Vec::new(),
            random: Random::new(seed, 5),
            leases: Vec::new(),
            next_lease: 1000,
            next_value: 0,
            is_changing: false,
            changing_since: 0,
            lull: 0,
        }
    }

    /// A request was answered for good.
    pub(super) fn done(&mut self, request: &Request, is_ok: bool) {
        match request {
            Request::Change(_) | Request::Promote(_) => self.is_changing = false,
            Request::Write { field: 8, body } if is_ok => {
                let grant = pb::LeaseGrantRequest::decode(&body[..]).unwrap_or_default();
                self.leases.push(grant.id);
            }
            _ => {}
        }
    }

    pub(super) fn lease_renewed(&mut self, lease: i64) {
        if !self.leases.contains(&lease) {
            self.leases.push(lease);
        }
    }
}

fn write(field: u32, message: &impl Message) -> Option<Request> {
    Some(Request::Write { field, body: message.encode_to_vec().into() })
}

fn read(request: pb::RangeRequest) -> Option<Request> {
    let body = request.encode_to_vec().into();
    Some(Request::Range { request, body })
}

impl World {
    /// Some client's next request, at some member.
    pub(super) fn client(&mut self) {
        if self.clients.lull > 0 || self.clients.random.per_mille(2) {
            let delay = self.lull();
            return self.after(delay, Event::Client);
        }
        let running = self.running();
        if !running.is_empty() {
            let member = self.clients.random.pick(&running);
            if (self.settings.quota_bytes > 0 || self.settings.fills_disks)
                && self.clients.random.per_mille(40)
                && let Some(request) = self.make_disarm()
            {
                self.request(member, request);
            }
            self.auth_client(member);
            let mut at = self.clients.random.below(1000);
            for (weight, make) in MIX {
                if at < weight {
                    if let Some(request) = make(self) {
                        self.request(member, request);
                    }
                    break;
                }
                at -= weight;
            }
        }
        let mean = self.tick_ns() * 1_000 / self.settings.request_milliticks;
        let delay = self.clients.random.between(1, mean);
        self.after(delay, Event::Client);
    }

    fn key(&mut self) -> Bytes {
        let keys = self.settings.keys;
        Bytes::from(format!("k{:03}", self.clients.random.below(keys)))
    }

    /// The end of an interval from the key: mostly none.
    fn end(&mut self, key: &Bytes) -> Bytes {
        match self.clients.random.below(10) {
            0 => Bytes::from_static(&[0]),
            1..=3 => {
                let mut end = key.to_vec();
                *end.last_mut().expect("keys are not empty") += 1 + self.clients.random.below(4) as u8;
                end.into()
            }
            _ => Bytes::new(),
        }
    }

    fn value(&mut self) -> Bytes {
        self.clients.next_value += 1;
        let length = match self.clients.random.below(100) {
            0 => 9_000,
            1..=10 => 700,
            _ => self.clients.random.below(60) as usize,
        };
        let mut value = format!("v{}.", self.clients.next_value).into_bytes();
        value.resize(value.len() + length, b'.');
        value.into()
    }

    fn put(&mut self) -> pb::PutRequest {
        let r = &mut self.clients.random;
        let lease = if r.per_mille(150) && !self.clients.leases.is_empty() {
            let at = r.below(self.clients.leases.len() as u64) as usize;
            self.clients.leases[at]
        } else {
            0
        };
        let (prev_kv, ignore_value, ignore_lease) =
            (r.per_mille(200), r.per_mille(30), lease == 0 && r.per_mille(30));
        let value = if ignore_value { Bytes::new() } else { self.value() };
        pb::PutRequest { key: self.key(), value, lease, prev_kv, ignore_value, ignore_lease }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let key = self.key();
        let range_end = self.end(&key);
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.clients.random.per_mille(300) }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let key = self.key();
        let range_end = self.end(&key);
        let r = &mut self.clients.random;
        let mut range = pb::RangeRequest { key, range_end, ..Default::default() };
        match r.below(10) {
            0 => range.count_only = true,
            1 => range.keys_only = true,
            2 | 3 => range.limit = r.between(1, 5) as i64,
            4 => range.sort_order = pb::range_request::SortOrder::Descend as i32,
            _ => {}
        }
        range
    }

    fn make_put(&mut self) -> Option<Request> {
        let put = self.put();
        write(4, &put)
    }

    fn make_delete(&mut self) -> Option<Request> {
        let delete = self.delete();
        write(5, &delete)
    }

    fn make_txn(&mut self) -> Option<Request> {
        let txn = self.transaction(2);
        let body = txn.encode_to_vec();
        let parsed = Txn::parse(&body).expect("a whole message");
        let is_valid = validate::txn(&parsed, validate::TXN_OPS_MAX_DEFAULT).is_ok();
        // One that only reads is answered from a view, which ranges are enough for.
        (is_valid && !parsed.is_read_only()).then(|| Request::Write { field: 6, body: body.into() })
    }

    fn transaction(&mut self, depth: u64) -> pb::TxnRequest {
        let compares = self.clients.random.below(3);
        let compare = (0..compares).map(|_| self.compare()).collect();
        let (then, otherwise) = (self.clients.random.between(1, 3), self.clients.random.below(3));
        let success = (0..then).map(|_| self.operation(depth)).collect();
        let failure = (0..otherwise).map(|_| self.operation(depth)).collect();
        pb::TxnRequest { compare, success, failure }
    }

    fn operation(&mut self, depth: u64) -> pb::RequestOp {
        let request = match self.clients.random.below(10) {
            0..=4 => OpRequest::RequestPut(self.put()),
            5 | 6 => {
                let mut range = self.range();
                if self.clients.random.per_mille(300) {
                    range.revision = self.old_revision();
                }
                OpRequest::RequestRange(range)
            }
            7 | 8 => OpRequest::RequestDeleteRange(self.delete()),
            _ if depth > 0 => OpRequest::RequestTxn(self.transaction(depth - 1)),
            _ => OpRequest::RequestPut(self.put()),
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&mut self) -> pb::Compare {
        let key = self.key();
        let range_end = if self.clients.random.per_mille(200) { self.end(&key) } else { Bytes::new() };
        let revision = self.model.keys.revision;
        let known = self.model.keys.at(&key, revision).cloned().unwrap_or_default();
        let r = &mut self.clients.random;
        let is_near = r.per_mille(700);
        let (target, union) = match r.below(5) {
            0 => (0, TargetUnion::Version(if is_near { known.version } else { r.below(5) as i64 })),
            1 => (1, TargetUnion::CreateRevision(if is_near { known.create_revision } else { revision / 2 })),
            2 => (2, TargetUnion::ModRevision(if is_near { known.mod_revision } else { revision / 2 })),
            3 => (3, TargetUnion::Value(if is_near { known.value } else { Bytes::from_static(b"v5") })),
            _ => (4, TargetUnion::Lease(known.lease)),
        };
        let result = r.below(4) as i32;
        pb::Compare { result, target, key, range_end, target_union: Some(union) }
    }

    fn make_range(&mut self) -> Option<Request> {
        read(self.range())
    }

    fn make_serializable(&mut self) -> Option<Request> {
        read(pb::RangeRequest { serializable: true, ..self.range() })
    }

    /// Just compacted, or just not, or somewhere in history, or not there yet.
    fn old_revision(&mut self) -> i64 {
        let (compact, revision) = (self.model.compact.max(1), self.model.keys.revision);
        let r = &mut self.clients.random;
        match r.below(6) {
            0 => (compact - 1).max(1),
            1 => compact,
            2 => revision + 1,
            _ => r.between(compact as u64, revision as u64) as i64,
        }
    }

    fn make_old_range(&mut self) -> Option<Request> {
        let revision = self.old_revision();
        let serializable = self.clients.random.per_mille(500);
        read(pb::RangeRequest { revision, serializable, ..self.range() })
    }

    /// Everything is deleted and compacted away, then clients are silent for a while: what is left on disk says little
    /// about how far the store had come. Often the power goes just then.
    fn lull(&mut self) -> u64 {
        let tick = self.tick_ns();
        let running = self.running();
        if running.is_empty() {
            return tick;
        }
        let member = self.clients.random.pick(&running);
        self.clients.lull += 1;
        let request = match self.clients.lull {
            1 => write(
                5,
                &pb::DeleteRangeRequest {
                    key: Bytes::from_static(b"\0"),
                    range_end: Bytes::from_static(&[0]),
                    prev_kv: false,
                },
            ),
            2 => write(7, &pb::CompactionRequest { revision: self.model.keys.revision, physical: false }),
            _ => None,
        };
        if let Some(request) = request {
            self.request_of(member, request, Some(Who::root()));
            return 6 * tick;
        }
        self.clients.lull = 0;
        if self.settings.fault_ticks > 0 && !self.is_healed && self.clients.random.per_mille(600) {
            for member in running {
                self.crash(member, true);
            }
        }
        40 * tick
    }

    fn make_compaction(&mut self) -> Option<Request> {
        let (compact, revision) = (self.model.compact.max(1), self.model.keys.revision);
        let r = &mut self.clients.random;
        let at = match r.below(6) {
            0 => revision,
            1 => compact,
            2 => revision + 2,
            _ => r.between(compact as u64, revision as u64) as i64,
        };
        write(7, &pb::CompactionRequest { revision: at, physical: false })
    }

    fn make_grant(&mut self) -> Option<Request> {
        self.clients.next_lease += 1;
        let again = self.clients.random.per_mille(100) && !self.clients.leases.is_empty();
        let id = if again { self.clients.leases[0] } else { self.clients.next_lease };
        let ttl = self.clients.random.between(1, 8) as i64;
        write(8, &pb::LeaseGrantRequest { ttl, id })
    }

    fn some_lease(&mut self) -> Option<i64> {
        if self.clients.leases.is_empty() {
            return None;
        }
        // Old ones are let go: their time must really end.
        if self.clients.leases.len() > 12 {
            self.clients.leases.remove(0);
        }
        let at = self.clients.random.below(self.clients.leases.len() as u64) as usize;
        Some(self.clients.leases[at])
    }

    fn make_revoke(&mut self) -> Option<Request> {
        let id = self.some_lease()?;
        self.history.revoke_asked(id);
        write(9, &pb::LeaseRevokeRequest { id })
    }

    fn make_renewal(&mut self) -> Option<Request> {
        self.some_lease().map(Request::Renew)
    }

    fn make_times(&mut self) -> Option<Request> {
        self.some_lease().map(Request::Times)
    }

    fn make_disarm(&mut self) -> Option<Request> {
        let member_id = self.model.no_space_alarms().first().copied()?;
        write(10, &pb::AlarmRequest { action: 2, member_id, alarm: 1 })
    }

    /// The operator's next step: one membership change at a time, or another leader.
    pub(super) fn operator(&mut self) {
        if self.clients.is_changing && self.now > self.clients.changing_since + 60 * self.tick_ns() {
            self.clients.is_changing = false;
        }
        let running = self.running();
        if !self.clients.is_changing && !running.is_empty() {
            let member = self.clients.random.pick(&running);
            if let Some((member, request)) = self.make_change(member) {
                self.clients.is_changing = !matches!(request, Request::Move(_));
                self.clients.changing_since = self.now;
                self.request(member, request);
            }
        }
        let ticks = self.settings.member_ticks;
        if ticks > 0 && !self.is_healed {
            let delay = self.clients.random.between(ticks / 2, ticks * 3 / 2) * self.tick_ns();
            self.after(delay, Event::Operator);
        }
    }

    fn make_change(&mut self, member: usize) -> Option<(usize, Request)> {
        let cluster = self.members[member].run.as_ref()?.applier.cluster().clone();
        let records: Vec<Record> = cluster.members().cloned().collect();
        if records.is_empty() {
            return None;
        }
        let voters = records.iter().filter(|record| !record.is_learner).count();
        let learner = records.iter().find(|record| record.is_learner).map(|record| record.id);
        match self.clients.random.below(10) {
            0 | 1 if records.len() < 7 && self.members.len() < 14 => {
                Some((member, self.make_add(ConfChangeType::ConfChangeAddLearnerNode)))
            }
            2 if records.len() < 7 && self.members.len() < 14 && cluster.may_add_voter() => {
                Some((member, self.make_add(ConfChangeType::ConfChangeAddNode)))
            }
            0..=5 => Some((self.leader()?, Request::Promote(learner?))),
            6 | 7 if voters > 1 => {
                let at = self.clients.random.below(records.len() as u64) as usize;
                let id = records[at].id;
                let allowed = records[at].is_learner || cluster.may_remove_voter(id);
                allowed.then(|| {
                    (member, Request::Change(change(ConfChangeType::ConfChangeRemoveNode, id, None)))
                })
            }
            8 => {
                let at = self.clients.random.below(records.len() as u64) as usize;
                let record = Record {
                    id: records[at].id,
                    peer_urls: records[at].peer_urls.clone(),
                    ..Record::default()
                };
                let context = ConfContext { member: record, is_promote: false };
                Some((
                    member,
                    Request::Change(change(
                        ConfChangeType::ConfChangeUpdateNode,
                        records[at].id,
                        Some(&context),
                    )),
                ))
            }
            _ => {
                let to = records.iter().rfind(|record| !record.is_learner)?.id;
                Some((self.leader()?, Request::Move(if self.clients.random.per_mille(500) { to } else { 0 })))
            }
        }
    }

    fn make_add(&mut self, kind: ConfChangeType) -> Request {
        self.next_member += 1;
        let peer_urls = vec![peer_url(&format!("n{}", self.next_member))];
        let id = api::ids::member_id(&peer_urls, "", Some((self.now / 1_000_000_000) as i64));
        let member = Record {
            id,
            peer_urls,
            is_learner: kind == ConfChangeType::ConfChangeAddLearnerNode,
            ..Record::default()
        };
        Request::Change(change(kind, id, Some(&ConfContext { member, is_promote: false })))
    }
}

fn change(kind: ConfChangeType, id: u64, context: Option<&ConfContext>) -> ConfChange {
    ConfChange {
        id: None,
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: context.map(ConfContext::to_json),
    }
}
