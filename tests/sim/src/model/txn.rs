//! Requests on keys in the model: put, range, deletion, transaction.

use api::error::ErrorCode;
use api::etcdserverpb::compare::TargetUnion;
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::response_op::Response;
use api::{etcdserverpb as pb, mvccpb};
use etcdserver::auth::Caller;
use prost::Message;

use super::kv::Changes;
use super::{Answer, Model, header};

/// The smallest and largest revision that a read may ask for, and the one it sees.
struct Bounds {
    compact: i64,
    current: i64,
}

impl Model {
    pub(super) fn put_request(&mut self, caller: Caller<'_>, request: &pb::PutRequest) -> Answer {
        if self.no_space() {
            return Err(ErrorCode::NoSpace);
        }
        self.check_put_rights(caller, request)?;
        self.check_put(request)?;
        let mut changes = self.keys.begin();
        let answer = self.put(&mut changes, request);
        self.keys.end(changes);
        Ok(answer.encode_to_vec())
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), ErrorCode> {
        if put.lease != 0 && !self.lease_exists(put.lease) {
            return Err(ErrorCode::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && self.keys.at(&put.key, i64::MAX).is_none() {
            return Err(ErrorCode::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, changes: &mut Changes, put: &pb::PutRequest) -> pb::PutResponse {
        let now = self.keys.at(&put.key, i64::MAX).cloned();
        let mut put = put.clone();
        if put.ignore_value {
            put.value = now.as_ref().map(|kv| kv.value.clone()).unwrap_or_default();
        }
        if put.ignore_lease {
            put.lease = now.as_ref().map_or(0, |kv| kv.lease);
        }
        self.attach(&put.key, now.as_ref().map_or(0, |kv| kv.lease), put.lease);
        let prev_kv = self.keys.put(changes, &put).filter(|_| put.prev_kv);
        pb::PutResponse { header: header(changes.main), prev_kv }
    }

    pub(super) fn delete_request(&mut self, caller: Caller<'_>, request: &pb::DeleteRangeRequest) -> Answer {
        self.check_delete_rights(caller, request)?;
        let mut changes = self.keys.begin();
        let answer = self.delete(&mut changes, request);
        self.keys.end(changes);
        Ok(answer.encode_to_vec())
    }

    fn delete(&mut self, changes: &mut Changes, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let found: Vec<mvccpb::KeyValue> =
            self.keys.range(&request.key, &request.range_end, i64::MAX).into_iter().cloned().collect();
        for kv in &found {
            self.attach(&kv.key, kv.lease, 0);
            self.keys.delete(changes, &kv.key);
        }
        pb::DeleteRangeResponse {
            header: header(changes.revision()),
            deleted: found.len() as i64,
            prev_kvs: if request.prev_kv { found } else { Vec::new() },
        }
    }

    /// A range as of the entry at `index`.
    pub(crate) fn range(
        &self,
        request: &pb::RangeRequest,
        index: u64,
    ) -> Result<pb::RangeResponse, ErrorCode> {
        let point = self.point(index);
        let bounds = Bounds { compact: point.compact, current: point.revision };
        self.range_within(request, &bounds)
    }

    fn range_within(
        &self,
        request: &pb::RangeRequest,
        bounds: &Bounds,
    ) -> Result<pb::RangeResponse, ErrorCode> {
        if request.revision > bounds.current {
            return Err(ErrorCode::FutureRev);
        }
        if request.revision > 0 && request.revision < bounds.compact {
            return Err(ErrorCode::Compacted);
        }
        let at = if request.revision > 0 { request.revision } else { bounds.current };
        let found = self.keys.range(&request.key, &request.range_end, at);
        let count = found.len() as i64;
        let mut response = pb::RangeResponse { header: header(bounds.current), count, ..Default::default() };
        if request.count_only {
            return Ok(response);
        }
        let mut kvs: Vec<mvccpb::KeyValue> = found.into_iter().cloned().collect();
        if request.sort_order == pb::range_request::SortOrder::Descend as i32 {
            kvs.reverse();
        }
        if request.limit > 0 && count > request.limit {
            kvs.truncate(request.limit as usize);
            response.more = true;
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = bytes::Bytes::new();
                kv.lease = 0;
            }
        }
        response.kvs = kvs;
        Ok(response)
    }

    pub(super) fn txn_request(&mut self, caller: Caller<'_>, request: &pb::TxnRequest) -> Answer {
        if self.no_space() && puts(request) {
            return Err(ErrorCode::NoSpace);
        }
        self.check_txn_rights(caller, request)?;
        let mut path = Vec::new();
        self.choose(request, &mut path);
        self.check(request, &mut path.iter())?;
        let mut changes = self.keys.begin();
        let mut answer = self.execute(&mut changes, request, &mut path.iter());
        answer.header = header(changes.revision());
        self.keys.end(changes);
        Ok(answer.encode_to_vec())
    }

    fn choose(&self, request: &pb::TxnRequest, path: &mut Vec<bool>) {
        let holds = request.compare.iter().all(|compare| self.holds(compare));
        path.push(holds);
        for op in branch(request, holds) {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                self.choose(nested, path);
            }
        }
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let found = self.keys.range(&compare.key, &compare.range_end, i64::MAX);
        if found.is_empty() {
            return compare.target != pb::compare::CompareTarget::Value as i32
                && relation(compare, &mvccpb::KeyValue::default());
        }
        found.into_iter().all(|kv| relation(compare, kv))
    }

    fn check(
        &self,
        request: &pb::TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> Result<(), ErrorCode> {
        let holds = *path.next().expect("a decision for each");
        for op in branch(request, holds) {
            match &op.request {
                Some(Request::RequestRange(range)) if range.revision > self.keys.revision => {
                    return Err(ErrorCode::FutureRev);
                }
                Some(Request::RequestRange(range))
                    if range.revision != 0 && range.revision < self.compact =>
                {
                    return Err(ErrorCode::Compacted);
                }
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestTxn(nested)) => self.check(nested, path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn execute(
        &mut self,
        changes: &mut Changes,
        request: &pb::TxnRequest,
        path: &mut std::slice::Iter<'_, bool>,
    ) -> pb::TxnResponse {
        let succeeded = *path.next().expect("a decision for each");
        let mut responses = Vec::new();
        for op in branch(request, succeeded) {
            let response = match op.request.as_ref().expect("clients send whole operations") {
                Request::RequestRange(range) => {
                    let bounds = Bounds { compact: self.compact, current: changes.revision() };
                    Response::ResponseRange(self.range_within(range, &bounds).expect("checked before"))
                }
                Request::RequestPut(put) => Response::ResponsePut(self.put(changes, put)),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(self.delete(changes, delete))
                }
                Request::RequestTxn(nested) => {
                    let mut nested = self.execute(changes, nested, path);
                    nested.header = header(0);
                    Response::ResponseTxn(nested)
                }
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        pb::TxnResponse { header: None, succeeded, responses }
    }
}

fn branch(request: &pb::TxnRequest, holds: bool) -> &[pb::RequestOp] {
    if holds { &request.success } else { &request.failure }
}

/// Whether a transaction may put anything, in whichever branch.
fn puts(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}

fn relation(compare: &pb::Compare, kv: &mvccpb::KeyValue) -> bool {
    let order = match &compare.target_union {
        Some(TargetUnion::Version(version)) => kv.version.cmp(version),
        Some(TargetUnion::CreateRevision(revision)) => kv.create_revision.cmp(revision),
        Some(TargetUnion::ModRevision(revision)) => kv.mod_revision.cmp(revision),
        Some(TargetUnion::Value(value)) => kv.value.cmp(value),
        Some(TargetUnion::Lease(lease)) => kv.lease.cmp(lease),
        None => panic!("clients send whole comparisons"),
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        _ => order.is_ne(),
    }
}
