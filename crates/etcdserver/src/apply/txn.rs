//! Transactions: comparisons, checks before the first write, execution.
//!
//! Invariants:
//! - Comparisons of all levels along the chosen branches are evaluated on the state before the transaction.
//! - Whatever can fail is checked on that state too, along the chosen branches, before anything is written; then
//!   execution cannot fail but for a fault of the store.
//! - All changes share one main revision; operations see the earlier writes of the same transaction.

use std::cell::Cell;

use api::error::ErrorCode;
use bytes::Bytes;
use mvcc::kv::KeyValue;
use mvcc::{RangeEnd, RangeQuery, RangeSummary, SortOrder, SortTarget, View, WriteTxn};

use super::reply::{HeaderIds, put_bytes, put_header, put_number};
use super::request::{Compare, DeleteRange, Op, Operand, Put, Range, Txn};
use super::validate::KeySet;
use super::{Failure, Shared};
use crate::auth::Need;
use crate::lease::LeasesView;
use crate::mutant::Mutant;
use crate::read::Served;

/// What ranges read: a view, or a transaction in the making.
pub(crate) enum Reader<'r, 's> {
    View(&'r View),
    Writer(&'r mut WriteTxn<'s>),
}

impl Reader<'_, '_> {
    fn range(&self, query: &RangeQuery, visit: &mut dyn FnMut(&[u8])) -> mvcc::Result<RangeSummary> {
        match self {
            Reader::View(view) => view.range(query, visit),
            Reader::Writer(txn) => txn.range(query, visit),
        }
    }

    /// The revision that reads see: a writer's is the new one as soon as something has changed.
    pub(crate) fn revision(&self) -> i64 {
        match self {
            Reader::View(view) => view.revision(),
            Reader::Writer(txn) => txn.revision(),
        }
    }

    fn compact_revision(&self) -> i64 {
        match self {
            Reader::View(view) => view.compact_revision(),
            Reader::Writer(txn) => txn.compact_revision(),
        }
    }
}

/// Calls `each` for everything the transaction needs in all its branches, until it fails. One flat list: nested
/// transactions, previous records and leases count as if they stood at the top.
pub fn for_each_need<'a>(
    txn: &Txn<'a>,
    each: &mut dyn FnMut(Need<'a>) -> Result<(), ErrorCode>,
) -> Result<(), ErrorCode> {
    for compare in &txn.compares {
        each(Need::read(compare.key, compare.end))?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(range) => each(Need::read(range.key, range.end))?,
            Op::Put(put) => put_needs(put).try_for_each(&mut *each)?,
            Op::DeleteRange(delete) => delete_needs(delete).try_for_each(&mut *each)?,
            Op::Txn(_) if Mutant::NestedUnchecked.is_on() => {}
            Op::Txn(nested) => for_each_need(nested, each)?,
            Op::Empty => {}
        }
    }
    Ok(())
}

/// What a put needs.
pub fn put_needs<'a>(put: &Put<'a>) -> impl Iterator<Item = Need<'a>> + use<'a> {
    [
        Some(Need::write(put.key, b"")),
        (put.lease != 0 && !Mutant::LeaseUnchecked.is_on()).then_some(Need::LeaseKeys(put.lease)),
        (put.prev_kv && !Mutant::PrevKvUnchecked.is_on()).then_some(Need::read(put.key, b"")),
    ]
    .into_iter()
    .flatten()
}

/// What a deletion needs.
pub fn delete_needs<'a>(delete: &DeleteRange<'a>) -> impl Iterator<Item = Need<'a>> + use<'a> {
    [Some(Need::write(delete.key, delete.end)), delete.prev_kv.then_some(Need::read(delete.key, delete.end))]
        .into_iter()
        .flatten()
}

/// The query of a range request. Numbers that name no order or target were refused at the edge; in an entry they
/// count as the default.
pub(crate) fn query(source: Shared<'_>, range: &Range<'_>, keys_only_lease: bool) -> RangeQuery {
    RangeQuery {
        key: source.bytes(range.key),
        end: RangeEnd::from_wire(source.bytes(range.end)),
        revision: range.revision,
        limit: range.limit,
        order: match range.order {
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            _ => SortOrder::None,
        },
        target: match range.target {
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            _ => SortTarget::Key,
        },
        keys_only: range.keys_only,
        keys_only_lease,
        count_only: range.count_only,
        min_mod: range.min_mod,
        max_mod: range.max_mod,
        min_create: range.min_create,
        max_create: range.max_create,
    }
}

/// One transaction on its way: what all steps need to know.
pub(crate) struct Run<'r, 's, 'p> {
    pub(crate) reader: Reader<'r, 's>,
    /// Where the request's slices come from.
    pub(crate) source: Shared<'r>,
    /// Whether results without values show the lease, as before 3.7.
    pub(crate) keys_only_lease: bool,
    /// Ranges so far, those of comparisons included.
    pub(crate) ranges: Cell<u64>,
    /// To be called now and then in what takes long.
    pub(crate) pulse: &'p mut dyn FnMut(),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    /// Revision after it.
    pub(crate) revision: i64,
}

impl Run<'_, '_, '_> {
    /// Evaluates, checks and executes. The answers of the operations are appended to `out`, if somebody wants them.
    pub(crate) fn run(
        &mut self,
        txn: &Txn<'_>,
        leases: &LeasesView,
        out: Option<&mut Vec<u8>>,
    ) -> Result<Outcome, Failure> {
        let mut path = Vec::new();
        self.choose(txn, &mut path)?;
        self.check(txn, leases, &mut path.iter(), &mut KeySet::default())?;
        if let Reader::Writer(txn) = &mut self.reader {
            txn.settle_counts();
        }
        self.execute(txn, &mut path.iter(), out)?;
        Ok(Outcome { succeeded: path[0], revision: self.reader.revision() })
    }

    /// Notes for this transaction and, in order, for those nested in its chosen branch whether they succeed.
    fn choose(&self, txn: &Txn<'_>, path: &mut Vec<bool>) -> Result<(), Failure> {
        let mut succeeded = true;
        for compare in &txn.compares {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        path.push(succeeded);
        for op in txn.branch(succeeded) {
            if let Op::Txn(nested) = op {
                self.choose(nested, path)?;
            }
        }
        Ok(())
    }

    /// Whether the comparison holds for every key of its interval; without any key, for a key that is not there.
    fn holds(&self, compare: &Compare<'_>) -> Result<bool, Failure> {
        let mut query = RangeQuery::new(
            self.source.bytes(compare.key),
            RangeEnd::from_wire(self.source.bytes(compare.end)),
        );
        // What stands in the index needs no record.
        query.keys_only = matches!(compare.target, target::VERSION | target::CREATE | target::MOD);
        self.ranges.set(self.ranges.get() + 1);
        let (mut any, mut all, mut broken) = (false, true, None);
        self.reader.range(&query, &mut |record| match KeyValue::decode(record) {
            Ok(kv) => {
                any = true;
                all &= relation_holds(compare, &kv);
            }
            Err(_) => broken = Some(record.to_vec()),
        })?;
        if let Some(record) = broken {
            return Err(Failure::malformed_record(&record));
        }
        if !any {
            // No way to name a value that is not there: such a comparison never holds.
            return Ok(compare.target != target::VALUE && relation_holds(compare, &KeyValue::default()));
        }
        Ok(all)
    }

    /// Checks along the chosen branches, in the order of the operations: the first fault is the answer.
    fn check<'a>(
        &self,
        txn: &'a Txn<'a>,
        leases: &LeasesView,
        path: &mut std::slice::Iter<'_, bool>,
        deleted: &mut KeySet<'a>,
    ) -> Result<(), Failure> {
        let succeeded = *path.next().expect("a decision for every transaction on the way");
        for op in txn.branch(succeeded) {
            match op {
                Op::Range(range) => self.check_revision(range.revision)?,
                Op::Put(put) => {
                    check_lease(leases, put)?;
                    if put.needs_previous() {
                        // Go looks at the old state only, and panics when the key was deleted on the way.
                        if !self.exists(put.key) || deleted.contains(put.key) {
                            return Err(ErrorCode::KeyNotFound.into());
                        }
                    }
                    deleted.remove(put.key);
                }
                Op::DeleteRange(delete) => deleted.insert_range(delete.key, delete.end),
                Op::Txn(nested) => self.check(nested, leases, path, deleted)?,
                Op::Empty => {}
            }
        }
        Ok(())
    }

    /// Unlike a plain range, one in a transaction takes a negative revision for what it is.
    fn check_revision(&self, revision: i64) -> Result<(), Failure> {
        if revision == 0 {
            Ok(())
        } else if revision > self.reader.revision() {
            Err(ErrorCode::FutureRev.into())
        } else if revision < self.reader.compact_revision() {
            Err(ErrorCode::Compacted.into())
        } else {
            Ok(())
        }
    }

    fn exists(&self, key: &[u8]) -> bool {
        match &self.reader {
            Reader::View(view) => view.key_state(key, view.revision()).is_some(),
            Reader::Writer(txn) => {
                txn.count_range();
                txn.key_state(key).is_some()
            }
        }
    }

    fn execute(
        &mut self,
        txn: &Txn<'_>,
        path: &mut std::slice::Iter<'_, bool>,
        mut out: Option<&mut Vec<u8>>,
    ) -> Result<(), Failure> {
        let succeeded = *path.next().expect("a decision for every transaction on the way");
        for op in txn.branch(succeeded) {
            (self.pulse)();
            match out.as_deref_mut() {
                None => self.execute_op(op, path, None)?,
                Some(out) => nest(out, 0x1a, |out| self.execute_op(op, path, Some(out)))?,
            }
        }
        Ok(())
    }

    /// One operation; its answer is a `ResponseOp`.
    fn execute_op(
        &mut self,
        op: &Op<'_>,
        path: &mut std::slice::Iter<'_, bool>,
        out: Option<&mut Vec<u8>>,
    ) -> Result<(), Failure> {
        match (op, out) {
            // Nobody waits for what it would find.
            (Op::Range(_), None) | (Op::Empty, _) => Ok(()),
            (Op::Range(range), Some(out)) => nest(out, 0x0a, |out| {
                let query = query(self.source, range, self.keys_only_lease);
                put_header(out, &HeaderIds::default(), self.reader.revision());
                self.range_body(&query, out)
            }),
            (Op::Put(put), out) => {
                let done = self.put(put)?;
                let Some(out) = out else { return Ok(()) };
                nest(out, 0x12, |out| {
                    put_header(out, &HeaderIds::default(), done.revision);
                    if let Some(prev) = &done.prev {
                        put_bytes(out, 0x12, prev);
                    }
                    Ok(())
                })
            }
            (Op::DeleteRange(delete), out) => {
                let (deleted, prev) = self.delete_range(delete, out.is_some())?;
                let revision = self.reader.revision();
                let Some(out) = out else { return Ok(()) };
                nest(out, 0x1a, |out| {
                    put_header(out, &HeaderIds::default(), revision);
                    put_number(out, 0x10, deleted.cast_unsigned());
                    prev.iter().for_each(|record| put_bytes(out, 0x1a, record));
                    Ok(())
                })
            }
            (Op::Txn(nested), None) => self.execute(nested, path, None),
            (Op::Txn(nested), Some(out)) => nest(out, 0x22, |out| {
                put_header(out, &HeaderIds::default(), 0);
                let succeeded =
                    *path.as_slice().first().expect("a decision for every transaction on the way");
                put_number(out, 0x10, u64::from(succeeded));
                self.execute(nested, path, Some(out))
            }),
        }
    }

    fn range_body(&self, query: &RangeQuery, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.ranges.set(self.ranges.get() + 1);
        range_body(&self.reader, query, out).map(|_| ())
    }

    fn put(&mut self, put: &Put<'_>) -> Result<PutDone, Failure> {
        let Reader::Writer(txn) = &mut self.reader else {
            panic!("a put in a transaction that was found to be read-only");
        };
        put_in(txn, put)
    }

    fn delete_range(&mut self, delete: &DeleteRange<'_>, wanted: bool) -> Result<(i64, Vec<Bytes>), Failure> {
        let Reader::Writer(txn) = &mut self.reader else {
            panic!("a deletion in a transaction that was found to be read-only");
        };
        let end = RangeEnd::from_wire(self.source.bytes(delete.end));
        let done = txn.delete_range_with(delete.key, &end, wanted && delete.prev_kv, self.pulse)?;
        Ok((done.count() as i64, done.previous))
    }
}

/// Numbers of the compare targets.
mod target {
    pub(super) const VERSION: i32 = 0;
    pub(super) const CREATE: i32 = 1;
    pub(super) const MOD: i32 = 2;
    pub(super) const VALUE: i32 = 3;
    pub(super) const LEASE: i32 = 4;
}

/// Whether one key stands in the relation. An operand of another kind than the target counts as 0 or as no bytes,
/// an unknown target compares equal, an unknown relation holds.
fn relation_holds(compare: &Compare<'_>, kv: &KeyValue<'_>) -> bool {
    let operand = compare.operand;
    let order = match compare.target {
        target::VERSION => kv.version.cmp(&if let Operand::Version(v) = operand { v } else { 0 }),
        target::CREATE => kv.create_revision.cmp(&if let Operand::Create(v) = operand { v } else { 0 }),
        target::MOD => kv.mod_revision.cmp(&if let Operand::Mod(v) = operand { v } else { 0 }),
        target::VALUE => kv.value.cmp(if let Operand::Value(v) = operand { v } else { b"" }),
        target::LEASE => kv.lease.cmp(&if let Operand::Lease(v) = operand { v } else { 0 }),
        _ => std::cmp::Ordering::Equal,
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        3 => order.is_ne(),
        _ => true,
    }
}

/// A put's lease must exist.
pub(crate) fn check_lease(leases: &LeasesView, put: &Put<'_>) -> Result<(), Failure> {
    if put.lease != 0 && leases.get(put.lease).is_none() {
        Err(ErrorCode::LeaseNotFound.into())
    } else {
        Ok(())
    }
}

/// What a put did.
pub(crate) struct PutDone {
    pub(crate) revision: i64,
    pub(crate) prev: Option<Bytes>,
}

/// Carries out a put. One that keeps value or lease needs the key; nothing has changed when it is not there.
pub(crate) fn put_in(txn: &mut WriteTxn<'_>, put: &Put<'_>) -> Result<PutDone, Failure> {
    if !put.needs_previous() {
        let done = txn.put(put.key, put.value, put.lease, put.prev_kv)?;
        return Ok(PutDone { revision: done.revision.main, prev: done.previous });
    }
    let before = txn.current(put.key)?.ok_or(ErrorCode::KeyNotFound)?;
    let kv = KeyValue::decode(&before).map_err(|_| Failure::malformed_record(&before))?;
    let value = if put.ignore_value { kv.value } else { put.value };
    let lease = if put.ignore_lease { kv.lease } else { put.lease };
    let done = txn.put(put.key, value, lease, false)?;
    Ok(PutDone { revision: done.revision.main, prev: put.prev_kv.then(|| before.clone()) })
}

/// Appends everything of a `RangeResponse` behind its header.
pub(crate) fn range_body(
    reader: &Reader<'_, '_>,
    query: &RangeQuery,
    out: &mut Vec<u8>,
) -> Result<Served, Failure> {
    let mut keys = 0;
    let RangeSummary { count, more, .. } = reader.range(query, &mut |record| {
        keys += 1;
        put_bytes(out, 0x12, record);
    })?;
    put_number(out, 0x18, u64::from(more));
    put_number(out, 0x20, count.cast_unsigned());
    Ok(Served { keys, count, more })
}

/// Appends an embedded message that `build` writes in place; its length is put in front afterwards.
fn nest(
    out: &mut Vec<u8>,
    tag: u8,
    build: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let start = out.len();
    build(out)?;
    let len = out.len() - start;
    let head_at = out.len();
    out.push(tag);
    api::wire::put_varint(len as u64, out);
    let head = out.len() - head_at;
    out[start..].rotate_right(head);
    Ok(())
}
