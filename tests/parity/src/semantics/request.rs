//! Short forms of requests: `range("a").end("d").limit(2)` and the like.

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchRequest,
};
use bytes::Bytes;

/// Bytes of a text or of bytes.
pub fn b(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// One key.
pub fn range(key: impl AsRef<[u8]>) -> RangeRequest {
    RangeRequest { key: b(key), ..Default::default() }
}

/// The keys from `key` to before `end`; the end `"\0"` is no end.
pub fn span(key: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> RangeRequest {
    RangeRequest { key: b(key), range_end: b(end), ..Default::default() }
}

/// All keys.
#[must_use]
pub fn everything() -> RangeRequest {
    span("\0", "\0")
}

/// The keys that start with `prefix`.
pub fn prefix(prefix: impl AsRef<[u8]>) -> RangeRequest {
    let (key, end) = client::prefix_range(prefix.as_ref());
    span(key, end)
}

/// Options of a range, to be chained.
pub trait RangeOptions {
    /// Sets the limit.
    #[must_use]
    fn limit(self, limit: i64) -> Self;
    /// Sets the revision.
    #[must_use]
    fn at(self, revision: i64) -> Self;
    /// Sets order and target.
    #[must_use]
    fn sort(self, target: SortTarget, order: SortOrder) -> Self;
    /// Asks for no values.
    #[must_use]
    fn keys_only(self) -> Self;
    /// Asks for the count only.
    #[must_use]
    fn count_only(self) -> Self;
    /// Asks for a local read.
    #[must_use]
    fn serializable(self) -> Self;
}

impl RangeOptions for RangeRequest {
    fn limit(self, limit: i64) -> Self {
        RangeRequest { limit, ..self }
    }
    fn at(self, revision: i64) -> Self {
        RangeRequest { revision, ..self }
    }
    fn sort(self, target: SortTarget, order: SortOrder) -> Self {
        RangeRequest { sort_target: target as i32, sort_order: order as i32, ..self }
    }
    fn keys_only(self) -> Self {
        RangeRequest { keys_only: true, ..self }
    }
    fn count_only(self) -> Self {
        RangeRequest { count_only: true, ..self }
    }
    fn serializable(self) -> Self {
        RangeRequest { serializable: true, ..self }
    }
}

/// A plain put.
pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> PutRequest {
    PutRequest { key: b(key), value: b(value), ..Default::default() }
}

/// Options of a put, to be chained.
pub trait PutOptions {
    /// Attaches the key to a lease.
    #[must_use]
    fn lease(self, lease: i64) -> Self;
    /// Asks for the previous pair.
    #[must_use]
    fn prev(self) -> Self;
    /// Keeps the value.
    #[must_use]
    fn ignore_value(self) -> Self;
    /// Keeps the lease.
    #[must_use]
    fn ignore_lease(self) -> Self;
}

impl PutOptions for PutRequest {
    fn lease(self, lease: i64) -> Self {
        PutRequest { lease, ..self }
    }
    fn prev(self) -> Self {
        PutRequest { prev_kv: true, ..self }
    }
    fn ignore_value(self) -> Self {
        PutRequest { ignore_value: true, ..self }
    }
    fn ignore_lease(self) -> Self {
        PutRequest { ignore_lease: true, ..self }
    }
}

/// Deletes one key.
pub fn delete(key: impl AsRef<[u8]>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: b(key), ..Default::default() }
}

/// Deletes the keys from `key` to before `end`.
pub fn delete_span(key: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: b(key), range_end: b(end), ..Default::default() }
}

/// The same, with the pairs that were deleted in the answer.
#[must_use]
pub fn with_prev(request: DeleteRangeRequest) -> DeleteRangeRequest {
    DeleteRangeRequest { prev_kv: true, ..request }
}

/// A compaction that does not wait.
#[must_use]
pub fn compact(revision: i64) -> CompactionRequest {
    CompactionRequest { revision, physical: false }
}

/// A compaction that is answered when its work is done.
#[must_use]
pub fn compact_physical(revision: i64) -> CompactionRequest {
    CompactionRequest { revision, physical: true }
}

/// A lease; id 0 lets the server choose.
#[must_use]
pub fn grant(id: i64, ttl: i64) -> LeaseGrantRequest {
    LeaseGrantRequest { ttl, id }
}

/// Time to live of a lease, with its keys.
#[must_use]
pub fn time_to_live(id: i64) -> LeaseTimeToLiveRequest {
    LeaseTimeToLiveRequest { id, keys: true }
}

/// What can stand in a transaction.
pub trait Op {
    /// As an operation.
    fn op(self) -> RequestOp;
}

macro_rules! ops {
    ($($request:ident = $arm:ident;)*) => {$(
        impl Op for $request {
            fn op(self) -> RequestOp {
                RequestOp { request: Some(Request::$arm(self)) }
            }
        }
    )*};
}

ops! {
    RangeRequest = RequestRange;
    PutRequest = RequestPut;
    DeleteRangeRequest = RequestDeleteRange;
    TxnRequest = RequestTxn;
}

/// A transaction that always takes its first branch: `then([put("a", "1").op(), ...])`.
pub fn then(ops: impl IntoIterator<Item = RequestOp>) -> TxnRequest {
    TxnRequest { success: ops.into_iter().collect(), ..Default::default() }
}

/// A transaction with compares and both branches.
pub fn when(
    compares: impl IntoIterator<Item = Compare>,
    then: impl IntoIterator<Item = RequestOp>,
    otherwise: impl IntoIterator<Item = RequestOp>,
) -> TxnRequest {
    TxnRequest {
        compare: compares.into_iter().collect(),
        success: then.into_iter().collect(),
        failure: otherwise.into_iter().collect(),
    }
}

fn compare(
    key: impl AsRef<[u8]>,
    target: CompareTarget,
    result: CompareResult,
    union: TargetUnion,
) -> Compare {
    Compare {
        result: result as i32,
        target: target as i32,
        key: b(key),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

/// Compares a value.
pub fn value(key: impl AsRef<[u8]>, result: CompareResult, value: impl AsRef<[u8]>) -> Compare {
    compare(key, CompareTarget::Value, result, TargetUnion::Value(b(value)))
}

/// Compares a version.
pub fn version(key: impl AsRef<[u8]>, result: CompareResult, version: i64) -> Compare {
    compare(key, CompareTarget::Version, result, TargetUnion::Version(version))
}

/// Compares a create revision.
pub fn created(key: impl AsRef<[u8]>, result: CompareResult, revision: i64) -> Compare {
    compare(key, CompareTarget::Create, result, TargetUnion::CreateRevision(revision))
}

/// Compares a modification revision.
pub fn modified(key: impl AsRef<[u8]>, result: CompareResult, revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, result, TargetUnion::ModRevision(revision))
}

/// Compares a lease.
pub fn leased(key: impl AsRef<[u8]>, result: CompareResult, lease: i64) -> Compare {
    compare(key, CompareTarget::Lease, result, TargetUnion::Lease(lease))
}

/// The same compare for all keys up to `end`.
pub fn until(compare: Compare, end: impl AsRef<[u8]>) -> Compare {
    Compare { range_end: b(end), ..compare }
}

/// The create request of a watch; see [`create`].
pub fn watch(key: impl AsRef<[u8]>, end: impl AsRef<[u8]>, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: b(key), range_end: b(end), start_revision, ..Default::default() }
}

/// As a message of the stream.
#[must_use]
pub fn create(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
}

/// Cancels a watch.
#[must_use]
pub fn cancel(watch_id: i64) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })) }
}

/// Asks for progress.
#[must_use]
pub fn progress() -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) }
}
