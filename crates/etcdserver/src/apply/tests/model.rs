//! A dumb etcd beside the lane: whole states per revision, requests as generated structs, nothing shared with the code
//! under test. Random requests must be answered with the same bytes and leave the same keys behind.

use std::collections::{BTreeMap, BTreeSet};

use api::mvccpb::KeyValue;
use pb::compare::TargetUnion;
use pb::request_op::Request as Op;
use pb::response_op::Response;
use proptest::prelude::*;

use super::*;

type Keys = BTreeMap<Bytes, KeyValue>;
type Step = Result<Vec<u8>, &'static str>;

/// See the head of this file.
pub(crate) struct Model {
    /// All keys as of every revision.
    states: BTreeMap<i64, Keys>,
    compact: i64,
    leases: BTreeMap<i64, i64>,
    alarms: BTreeSet<(i32, u64)>,
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn inside(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        end => key >= from && key < end,
    }
}

impl Model {
    pub(crate) fn new() -> Model {
        Model {
            states: BTreeMap::from([(1, Keys::new())]),
            compact: -1,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
        }
    }

    fn revision(&self) -> i64 {
        *self.states.keys().next_back().unwrap()
    }

    fn now(&self) -> &Keys {
        &self.states[&self.revision()]
    }

    /// A request's answer, encoded with an empty identity.
    pub(crate) fn step(&mut self, request: &pb::InternalRaftRequest) -> Step {
        if let Some(put) = &request.put {
            self.gates(true, true)?;
            let one = pb::TxnRequest { success: vec![op(Op::RequestPut(put.clone()))], ..Default::default() };
            // A put by itself is a transaction of one, but for the shape of its answer.
            let (mut answer, revision) = self.txn(&one)?;
            let Some(Response::ResponsePut(mut answer)) = answer.responses.pop().unwrap().response else {
                unreachable!()
            };
            answer.header = header(revision);
            return Ok(answer.encode_to_vec());
        }
        if let Some(delete) = &request.delete_range {
            self.gates(true, false)?;
            let one = pb::TxnRequest {
                success: vec![op(Op::RequestDeleteRange(delete.clone()))],
                ..Default::default()
            };
            let (mut answer, revision) = self.txn(&one)?;
            let Some(Response::ResponseDeleteRange(mut answer)) = answer.responses.pop().unwrap().response
            else {
                unreachable!()
            };
            answer.header = header(revision);
            return Ok(answer.encode_to_vec());
        }
        if let Some(txn) = &request.txn {
            self.gates(true, writes(&txn.success) || writes(&txn.failure))?;
            let (mut answer, revision) = self.txn(txn)?;
            answer.header = header(revision);
            return Ok(answer.encode_to_vec());
        }
        if let Some(range) = &request.range {
            self.gates(true, false)?;
            return Ok(self.range(self.now(), self.revision(), range)?.encode_to_vec());
        }
        if let Some(compaction) = &request.compaction {
            self.gates(true, false)?;
            if compaction.revision <= self.compact {
                return Err(COMPACTED);
            }
            if compaction.revision > self.revision() {
                return Err(FUTURE);
            }
            self.compact = compaction.revision;
            return Ok(pb::CompactionResponse { header: header(self.revision()) }.encode_to_vec());
        }
        if let Some(grant) = &request.lease_grant {
            return self.grant(grant);
        }
        if let Some(revoke) = &request.lease_revoke {
            return self.revoke(revoke.id);
        }
        let alarm = request.alarm.as_ref().unwrap();
        let key = (alarm.alarm, alarm.member_id);
        let shown = match alarm.action {
            1 if self.alarms.insert(key) || self.alarms.contains(&key) => vec![key],
            2 if self.alarms.remove(&key) => vec![key],
            0 => {
                let asked = |kind: i32| alarm.alarm == 0 || alarm.alarm == kind;
                self.alarms.iter().copied().filter(|(kind, _)| asked(*kind)).collect()
            }
            _ => vec![],
        };
        let alarms =
            shown.into_iter().map(|(alarm, member_id)| pb::AlarmMember { member_id, alarm }).collect();
        Ok(pb::AlarmResponse { header: header(self.revision()), alarms }.encode_to_vec())
    }

    fn gates(&self, touches: bool, stores: bool) -> Result<(), &'static str> {
        let any = |kind| self.alarms.iter().any(|(alarm, _)| *alarm == kind);
        match () {
            () if touches && any(2) => Err(CORRUPT),
            () if stores && any(1) => Err(NO_SPACE),
            () => Ok(()),
        }
    }

    fn grant(&mut self, grant: &pb::LeaseGrantRequest) -> Step {
        self.gates(true, true)?;
        if grant.id == 0 {
            return Err(LEASE_NOT_FOUND);
        }
        if self.leases.contains_key(&grant.id) {
            return Err("lease already exists");
        }
        let ttl = grant.ttl.max(2);
        self.leases.insert(grant.id, ttl);
        let header = header(self.revision());
        Ok(pb::LeaseGrantResponse { header, id: grant.id, ttl, error: String::new() }.encode_to_vec())
    }

    fn revoke(&mut self, id: i64) -> Step {
        self.gates(true, false)?;
        self.leases.remove(&id).ok_or(LEASE_NOT_FOUND)?;
        let left: Keys =
            self.now().iter().filter(|(_, kv)| kv.lease != id).map(|(k, v)| (k.clone(), v.clone())).collect();
        if left.len() < self.now().len() {
            self.states.insert(self.revision() + 1, left);
        }
        Ok(pb::LeaseRevokeResponse { header: header(self.revision()) }.encode_to_vec())
    }

    fn range(
        &self,
        now: &Keys,
        current: i64,
        r: &pb::RangeRequest,
    ) -> Result<pb::RangeResponse, &'static str> {
        if r.revision > current {
            return Err(FUTURE);
        }
        let at = if r.revision <= 0 { current } else { r.revision };
        if at < self.compact {
            return Err(COMPACTED);
        }
        let keys = if at == current { now } else { &self.states[&at] };
        let mut kvs: Vec<KeyValue> =
            keys.values().filter(|kv| inside(&kv.key, &r.key, &r.range_end)).cloned().collect();
        let mut response = pb::RangeResponse { header: header(current), ..Default::default() };
        response.count = kvs.len() as i64;
        if r.count_only {
            return Ok(response);
        }
        let filtered = [r.min_mod_revision, r.max_mod_revision, r.min_create_revision, r.max_create_revision]
            .iter()
            .any(|v| *v != 0);
        let natural = r.sort_order == 0 || (r.sort_target == 0 && r.sort_order == 1);
        if natural && !filtered && r.limit > 0 && r.limit < i64::MAX {
            kvs.truncate(usize::try_from(r.limit + 1).unwrap());
        }
        kvs.retain(|kv| {
            (r.max_mod_revision == 0 || kv.mod_revision <= r.max_mod_revision)
                && (r.min_mod_revision == 0 || kv.mod_revision >= r.min_mod_revision)
                && (r.max_create_revision == 0 || kv.create_revision <= r.max_create_revision)
                && (r.min_create_revision == 0 || kv.create_revision >= r.min_create_revision)
        });
        kvs.sort_by(|a, b| {
            let order = match r.sort_target {
                1 => a.version.cmp(&b.version),
                2 => a.create_revision.cmp(&b.create_revision),
                3 => a.mod_revision.cmp(&b.mod_revision),
                4 => a.value.cmp(&b.value),
                _ => a.key.cmp(&b.key),
            };
            if r.sort_order == 2 { order.reverse() } else { order }
        });
        if r.limit > 0 && kvs.len() as i64 > r.limit {
            kvs.truncate(usize::try_from(r.limit).unwrap());
            response.more = true;
        }
        if r.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if r.sort_target != 4 {
                    kv.lease = 0;
                }
            }
        }
        response.kvs = kvs;
        Ok(response)
    }

    /// The answer, without its header, and the revision after it.
    fn txn(&mut self, txn: &pb::TxnRequest) -> Result<(pb::TxnResponse, i64), &'static str> {
        let before = self.now().clone();
        let mut deleted = BTreeSet::new();
        self.check(&before, txn, &mut deleted)?;
        let mut work = Work { now: before.clone(), before, changed: false };
        let answer = self.execute(&mut work, txn);
        if work.changed {
            self.states.insert(self.revision() + 1, work.now);
        }
        Ok((answer, self.revision()))
    }

    fn check(
        &self,
        before: &Keys,
        txn: &pb::TxnRequest,
        deleted: &mut BTreeSet<Bytes>,
    ) -> Result<(), &'static str> {
        for op in chosen(before, txn) {
            match op.request.as_ref() {
                Some(Op::RequestRange(r)) => match r.revision {
                    0 => {}
                    at if at > self.revision() => return Err(FUTURE),
                    at if at < self.compact => return Err(COMPACTED),
                    _ => {}
                },
                Some(Op::RequestPut(p)) => {
                    if p.lease != 0 && !self.leases.contains_key(&p.lease) {
                        return Err(LEASE_NOT_FOUND);
                    }
                    let keeps = p.ignore_lease || p.ignore_value;
                    if keeps && (!before.contains_key(&p.key) || deleted.contains(&p.key)) {
                        return Err(KEY_NOT_FOUND);
                    }
                    deleted.remove(&p.key);
                }
                Some(Op::RequestDeleteRange(d)) => {
                    deleted.extend(before.keys().filter(|key| inside(key, &d.key, &d.range_end)).cloned());
                }
                Some(Op::RequestTxn(nested)) => self.check(before, nested, deleted)?,
                None => {}
            }
        }
        Ok(())
    }

    fn execute(&self, work: &mut Work, txn: &pb::TxnRequest) -> pb::TxnResponse {
        let before = work.before.clone();
        let mut responses = Vec::new();
        for op in chosen(&before, txn) {
            let response = op.request.as_ref().map(|request| match request {
                Op::RequestRange(r) => {
                    let current = self.revision() + i64::from(work.changed);
                    Response::ResponseRange(self.range(&work.now, current, r).unwrap())
                }
                Op::RequestPut(p) => Response::ResponsePut(self.put(work, p)),
                Op::RequestDeleteRange(d) => Response::ResponseDeleteRange(self.delete(work, d)),
                Op::RequestTxn(nested) => {
                    let mut answer = self.execute(work, nested);
                    answer.header = header(0);
                    Response::ResponseTxn(answer)
                }
            });
            responses.push(pb::ResponseOp { response });
        }
        pb::TxnResponse { header: None, succeeded: holds(&before, &txn.compare), responses }
    }

    fn put(&self, work: &mut Work, p: &pb::PutRequest) -> pb::PutResponse {
        let revision = self.revision() + 1;
        let prev = work.now.get(&p.key).cloned();
        let kv = KeyValue {
            key: p.key.clone(),
            value: if p.ignore_value { prev.as_ref().unwrap().value.clone() } else { p.value.clone() },
            lease: if p.ignore_lease { prev.as_ref().unwrap().lease } else { p.lease },
            create_revision: prev.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |kv| kv.version + 1),
        };
        work.now.insert(p.key.clone(), kv);
        work.changed = true;
        pb::PutResponse { header: header(revision), prev_kv: prev.filter(|_| p.prev_kv) }
    }

    fn delete(&self, work: &mut Work, d: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let gone: Vec<KeyValue> =
            work.now.values().filter(|kv| inside(&kv.key, &d.key, &d.range_end)).cloned().collect();
        for kv in &gone {
            work.now.remove(&kv.key);
        }
        work.changed |= !gone.is_empty();
        pb::DeleteRangeResponse {
            header: header(self.revision() + i64::from(work.changed)),
            deleted: gone.len() as i64,
            prev_kvs: if d.prev_kv { gone } else { vec![] },
        }
    }
}

struct Work {
    before: Keys,
    now: Keys,
    changed: bool,
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn writes(ops: &[pb::RequestOp]) -> bool {
    ops.iter().any(|op| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(txn)) => writes(&txn.success) || writes(&txn.failure),
        _ => false,
    })
}

fn chosen<'a>(before: &Keys, txn: &'a pb::TxnRequest) -> &'a [pb::RequestOp] {
    if holds(before, &txn.compare) { &txn.success } else { &txn.failure }
}

fn holds(before: &Keys, compares: &[pb::Compare]) -> bool {
    compares.iter().all(|c| {
        let found: Vec<&KeyValue> =
            before.values().filter(|kv| inside(&kv.key, &c.key, &c.range_end)).collect();
        if found.is_empty() {
            return c.target != 3 && relation(c, &KeyValue::default());
        }
        found.into_iter().all(|kv| relation(c, kv))
    })
}

fn relation(c: &pb::Compare, kv: &KeyValue) -> bool {
    let union = c.target_union.as_ref();
    let number = |wanted: i32| match union {
        Some(TargetUnion::Version(v)) if wanted == 0 => *v,
        Some(TargetUnion::CreateRevision(v)) if wanted == 1 => *v,
        Some(TargetUnion::ModRevision(v)) if wanted == 2 => *v,
        Some(TargetUnion::Lease(v)) if wanted == 4 => *v,
        _ => 0,
    };
    let order = match c.target {
        0 => kv.version.cmp(&number(0)),
        1 => kv.create_revision.cmp(&number(1)),
        2 => kv.mod_revision.cmp(&number(2)),
        3 => match union {
            Some(TargetUnion::Value(v)) => kv.value.cmp(v),
            _ => kv.value.cmp(&Bytes::new()),
        },
        4 => kv.lease.cmp(&number(4)),
        _ => std::cmp::Ordering::Equal,
    };
    match c.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        3 => order.is_ne(),
        _ => true,
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec![&b"a"[..], b"ab", b"b", b"c", b"\0", b"\xff"]).prop_map(Bytes::from_static)
}

fn end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(b"\0")),
        2 => prop::sample::select(vec![&b"b"[..], b"c", b"a", b"\xff", b"ab"]).prop_map(Bytes::from_static),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0i64), 3 => 1i64..4, 1 => Just(-3i64)]
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0i64), 3 => 1i64..20, 1 => -3i64..0]
}

fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let bound = || prop_oneof![6 => Just(0i64), 2 => 1i64..12, 1 => Just(-2i64)];
    let sorted = (0i32..3, 0i32..5);
    let flags = (any::<bool>(), prop::bool::weighted(0.15));
    (key(), end(), revision(), -1i64..4, sorted, flags, [bound(), bound(), bound(), bound()]).prop_map(
        |(key, range_end, revision, limit, (sort_order, sort_target), (keys_only, count_only), bounds)| {
            let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
            pb::RangeRequest {
                key,
                range_end,
                revision,
                limit,
                sort_order,
                sort_target,
                keys_only,
                count_only,
                min_mod_revision,
                max_mod_revision,
                min_create_revision,
                max_create_revision,
                serializable: false,
            }
        },
    )
}

fn put_request() -> impl Strategy<Value = pb::PutRequest> {
    let flag = || prop::bool::weighted(0.2);
    (key(), 0u8..4, lease(), any::<bool>(), flag(), flag()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| pb::PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { Bytes::from(vec![b'v'; usize::from(value)]) },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete_request() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let union = prop_oneof![
        (0i64..4).prop_map(TargetUnion::Version),
        (0i64..12).prop_map(TargetUnion::CreateRevision),
        (0i64..12).prop_map(TargetUnion::ModRevision),
        (0usize..4).prop_map(|n| TargetUnion::Value(Bytes::from(vec![b'v'; n]))),
        lease().prop_map(TargetUnion::Lease),
    ];
    (0i32..5, 0i32..6, key(), end(), prop::option::weighted(0.9, union)).prop_map(
        |(result, target, key, range_end, target_union)| pb::Compare {
            result,
            target,
            key,
            range_end,
            target_union,
        },
    )
}

fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    let leaf = prop_oneof![
        3 => range().prop_map(|r| op(Op::RequestRange(r))),
        4 => put_request().prop_map(|p| op(Op::RequestPut(p))),
        3 => delete_request().prop_map(|d| op(Op::RequestDeleteRange(d))),
        1 => Just(pb::RequestOp { request: None }),
    ];
    let ops = leaf.prop_recursive(3, 12, 3, |inner| {
        let list = || prop::collection::vec(inner.clone(), 0..3);
        (prop::collection::vec(compare(), 0..2), list(), list()).prop_map(|(compare, success, failure)| {
            op(Op::RequestTxn(pb::TxnRequest { compare, success, failure }))
        })
    });
    let list = || prop::collection::vec(ops.clone(), 0..4);
    (prop::collection::vec(compare(), 0..3), list(), list())
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
}

/// Any request about keys, leases and alarms.
pub(crate) fn request() -> impl Strategy<Value = pb::InternalRaftRequest> {
    type R = pb::InternalRaftRequest;
    let grant = (lease(), -1i64..5).prop_map(|(id, ttl)| pb::LeaseGrantRequest { id, ttl });
    let alarm =
        (0i32..3, 1i32..3).prop_map(|(action, alarm)| pb::AlarmRequest { action, member_id: 7, alarm });
    // Alarms go again most of the time, or nothing else would happen.
    let alarm =
        prop_oneof![alarm, (1i32..3).prop_map(|alarm| pb::AlarmRequest { action: 2, member_id: 7, alarm })];
    prop_oneof![
        8 => put_request().prop_map(|put| R { put: Some(put), ..R::default() }),
        3 => delete_request().prop_map(|d| R { delete_range: Some(d), ..R::default() }),
        8 => txn().prop_map(|txn| R { txn: Some(txn), ..R::default() }),
        2 => range().prop_map(|range| R { range: Some(range), ..R::default() }),
        1 => (-1i64..15).prop_map(|revision| R {
            compaction: Some(pb::CompactionRequest { revision, physical: false }),
            ..R::default()
        }),
        3 => grant.prop_map(|grant| R { lease_grant: Some(grant), ..R::default() }),
        1 => lease().prop_map(|id| R { lease_revoke: Some(pb::LeaseRevokeRequest { id }), ..R::default() }),
        1 => alarm.prop_map(|alarm| R { alarm: Some(alarm), ..R::default() }),
    ]
}

fn all(revision: i64) -> pb::RangeRequest {
    let everything = Bytes::from_static(b"\0");
    pb::RangeRequest { key: everything.clone(), range_end: everything, revision, ..Default::default() }
}

/// What the lane holds at every revision that can still be read is what the model holds.
fn same_state(lane: &Lane, model: &Model) {
    for (revision, keys) in model.states.range(model.compact.max(1)..) {
        let found = lane.range(&all(*revision)).unwrap();
        assert_eq!(found.kvs, keys.values().cloned().collect::<Vec<_>>(), "revision {revision}");
    }
    for id in model.leases.keys() {
        let on_it: Vec<_> =
            model.now().values().filter(|kv| kv.lease == *id).map(|kv| kv.key.clone()).collect();
        assert_eq!(lane.applier.publish().leases.keys(*id), on_it, "lease {id}");
    }
    assert_eq!(lane.applier.leases().len(), model.leases.len());
}

fn answer_bytes(answer: Answer) -> Result<Vec<u8>, String> {
    match answer {
        Ok(reply) => {
            let mut out = Vec::new();
            reply.encode(&HeaderIds::default(), &mut out);
            Ok(out)
        }
        Err(status) => Err(status.message.trim_start_matches("etcdserver: ").to_owned()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_lane_answers_as_the_model_does(
        requests in prop::collection::vec((request(), 0u8..12), 1..40),
    ) {
        let mut lane = Lane::new();
        let mut model = Model::new();
        for (request, chore) in requests {
            let expected = model.step(&request).map_err(str::to_owned);
            let answer = answer_bytes(lane.ask(request.clone()));
            prop_assert_eq!(answer, expected, "{:?}", request);
            prop_assert_eq!(lane.revision(), model.revision());
            match chore {
                0 => lane.freeze(),
                1 => lane.commit(),
                2 => lane.finish_compaction(),
                _ => {}
            }
        }
        same_state(&lane, &model);
        same_state(&lane.restart(), &model);
    }

    #[test]
    fn read_only_transactions_on_a_view_are_those_of_the_log(
        setup in prop::collection::vec(put_request(), 0..10),
        reads in prop::collection::vec(range(), 0..4),
        compares in prop::collection::vec(compare(), 0..3),
    ) {
        let mut lane = Lane::new();
        for put in setup {
            let put = pb::PutRequest { lease: 0, ..put };
            let _ = lane.put(put);
        }
        let ops: Vec<_> = reads.into_iter().map(|r| op(Op::RequestRange(r))).collect();
        let request = pb::TxnRequest { compare: compares, success: ops.clone(), failure: ops };
        let bytes = request.encode_to_vec();
        let mut out = Vec::new();
        let parsed = request::Txn::parse(&bytes).unwrap();
        let published = Published { ids: HeaderIds::default(), ..(*lane.applier.publish()).clone() };
        let on_view = crate::read::txn(&published, Caller::default(), &parsed, &mut out)
            .map(|_| out)
            .map_err(|status| status.message.trim_start_matches("etcdserver: ").to_owned());
        prop_assert_eq!(answer_bytes(lane.txn(request)), on_view);
    }
}
