//! What a request must satisfy before it is proposed: the checks of the edge, with etcd's errors in etcd's order.
//!
//! Apply trusts none of this: an entry may come from another member, or from an older release.

use std::collections::{BTreeMap, BTreeSet};

use api::error::ErrorCode;

use super::request::{DeleteRange, Op, Put, Range, Txn};
use crate::auth::perm::is_open;

/// Operations in one list of a transaction, where the process gives no other number.
pub const TXN_OPS_MAX_DEFAULT: usize = 128;

/// Numbers of the sort orders that exist.
const SORT_ORDERS: std::ops::RangeInclusive<i32> = 0..=2;
/// Numbers of the sort targets that exist.
const SORT_TARGETS: std::ops::RangeInclusive<i32> = 0..=4;

/// Checks a range.
pub fn range(request: &Range<'_>) -> Result<(), ErrorCode> {
    if request.key.is_empty() {
        return Err(ErrorCode::EmptyKey);
    }
    if !SORT_ORDERS.contains(&request.order) || !SORT_TARGETS.contains(&request.target) {
        return Err(ErrorCode::InvalidSortOption);
    }
    Ok(())
}

/// Checks a streamed range: only key order, no filters.
pub fn range_stream(request: &Range<'_>) -> Result<(), ErrorCode> {
    range(request)?;
    if !request.is_in_key_order() {
        return Err(ErrorCode::RangeStreamSorted);
    }
    if request.is_filtered() {
        return Err(ErrorCode::RangeStreamFiltered);
    }
    Ok(())
}

/// Checks a put.
pub fn put(request: &Put<'_>) -> Result<(), ErrorCode> {
    if request.key.is_empty() {
        return Err(ErrorCode::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ErrorCode::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ErrorCode::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
pub fn delete_range(request: &DeleteRange<'_>) -> Result<(), ErrorCode> {
    if request.key.is_empty() { Err(ErrorCode::EmptyKey) } else { Ok(()) }
}

/// Checks a whole transaction: operations first, then overlaps, then the one pair that cannot be executed.
pub fn txn(request: &Txn<'_>, ops_max: usize) -> Result<(), ErrorCode> {
    operations(request, ops_max)?;
    written(&request.success)?;
    written(&request.failure)?;
    keeps_deleted(request)
}

/// Counts before it looks at keys; what is left of the budget goes to each nested transaction.
fn operations(request: &Txn<'_>, ops_max: usize) -> Result<(), ErrorCode> {
    let count = request.compares.len().max(request.success.len()).max(request.failure.len());
    let left = ops_max.checked_sub(count).ok_or(ErrorCode::TooManyOps)?;
    if request.compares.iter().any(|compare| compare.key.is_empty()) {
        return Err(ErrorCode::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match op {
        Op::Range(request) => range(request),
        Op::Put(request) => put(request),
        Op::DeleteRange(request) => delete_range(request),
        Op::Txn(request) => operations(request, left),
        Op::Empty => Err(ErrorCode::KeyNotFound),
    })
}

/// A set of keys as disjoint half-open intervals; `None` is no end.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet<'a> {
    /// Beginning (the flag: just behind that key) to end.
    intervals: BTreeMap<Bound<'a>, Option<Bound<'a>>>,
}

/// A place between keys: before the key, or just behind it. Ordered as the keys are.
type Bound<'a> = (&'a [u8], bool);

impl<'a> KeySet<'a> {
    fn insert(&mut self, begin: Bound<'a>, end: Option<Bound<'a>>) {
        let (mut begin, mut end) = (begin, end);
        if end.is_some_and(|end| end <= begin) {
            return;
        }
        // The one before may reach into the new one; those that begin inside are taken over.
        if let Some((from, to)) = self.intervals.range(..=begin).next_back().map(|(from, to)| (*from, *to))
            && to.is_none_or(|to| to >= begin)
        {
            begin = from;
            end = later(end, to);
        }
        while let Some((from, to)) = self.intervals.range(begin..).next().map(|(from, to)| (*from, *to)) {
            if end.is_some_and(|end| from > end) {
                break;
            }
            end = later(end, to);
            self.intervals.remove(&from);
        }
        self.intervals.insert(begin, end);
    }

    /// Adds what a deletion deletes.
    pub(crate) fn insert_range(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        match range_end {
            [] => self.insert((key, false), Some((key, true))),
            end if is_open(end) => self.insert((key, false), None),
            end => self.insert((key, false), Some((end, false))),
        }
    }

    /// Takes one key out.
    pub(crate) fn remove(&mut self, key: &'a [u8]) {
        let Some((from, to)) = self.intervals.range(..=(key, false)).next_back().map(|(f, t)| (*f, *t))
        else {
            return;
        };
        if to.is_some_and(|to| to <= (key, false)) {
            return;
        }
        self.intervals.remove(&from);
        self.insert(from, Some((key, false)));
        self.insert((key, true), to);
    }

    /// Whether the key is in it.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let before =
            self.intervals.range((std::ops::Bound::Unbounded, std::ops::Bound::Included((key, false))));
        before.last().is_some_and(|(_, to)| to.is_none_or(|to| to > (key, false)))
    }

    /// Adds all of another set.
    fn merge(&mut self, other: KeySet<'a>) {
        for (from, to) in other.intervals {
            self.insert(from, to);
        }
    }
}

fn later<'a>(a: Option<Bound<'a>>, b: Option<Bound<'a>>) -> Option<Bound<'a>> {
    Some(a?.max(b?))
}

/// Keys put and deleted by one list of operations.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: KeySet<'a>,
}

/// A key is put once, and not where the same list deletes. The order of the four steps decides what passes:
/// deletions of this list first, nested transactions in order, then the puts of this list. A from-key deletion is
/// read as an empty interval here: what it overlaps is executed in order.
fn written<'a>(ops: &'a [Op<'a>]) -> Result<Written<'a>, ErrorCode> {
    let mut all = Written::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op
            && !is_open(delete.end)
        {
            all.deletes.insert_range(delete.key, delete.end);
        }
    }
    for op in ops {
        let Op::Txn(nested) = op else { continue };
        let (then, otherwise) = (written(&nested.success)?, written(&nested.failure)?);
        // The branches exclude each other, so both may put the same key; neither may put what came before.
        if then
            .puts
            .iter()
            .chain(&otherwise.puts)
            .any(|key| all.puts.contains(key) || all.deletes.contains(key))
        {
            return Err(ErrorCode::DuplicateKey);
        }
        all.puts.extend(then.puts);
        all.puts.extend(otherwise.puts);
        all.deletes.merge(then.deletes);
        all.deletes.merge(otherwise.deletes);
    }
    for op in ops {
        let Op::Put(put) = op else { continue };
        if all.deletes.contains(put.key) || !all.puts.insert(put.key) {
            return Err(ErrorCode::DuplicateKey);
        }
    }
    Ok(all)
}

/// Refuses a put that keeps value or lease of a key that the same transaction has deleted by then. Go accepts the
/// pair, panics when it applies it, and panics again at every start; such an entry must never reach a log.
///
/// All other overlaps have been refused by now, so only deletions from a key on can have hit the key, and no put
/// of the same path can have brought it back. Behind a nested transaction a key counts as deleted when either
/// branch deletes it.
fn keeps_deleted(request: &Txn<'_>) -> Result<(), ErrorCode> {
    walk_deleted(&request.success, None)?;
    walk_deleted(&request.failure, None)?;
    Ok(())
}

/// Walks in the order of execution with the smallest key from which on all were deleted so far.
fn walk_deleted<'a>(ops: &'a [Op<'a>], mut from: Option<&'a [u8]>) -> Result<Option<&'a [u8]>, ErrorCode> {
    let lower = |a: Option<&'a [u8]>, b: Option<&'a [u8]>| a.into_iter().chain(b).min();
    for op in ops {
        match op {
            Op::DeleteRange(delete) if is_open(delete.end) => from = lower(from, Some(delete.key)),
            Op::Put(put) if put.needs_previous() && from.is_some_and(|from| from <= put.key) => {
                return Err(ErrorCode::KeyNotFound);
            }
            Op::Txn(txn) => {
                from = lower(walk_deleted(&txn.success, from)?, walk_deleted(&txn.failure, from)?);
            }
            Op::DeleteRange(_) | Op::Put(_) | Op::Range(_) | Op::Empty => {}
        }
    }
    Ok(from)
}

#[cfg(test)]
#[path = "validate/tests.rs"]
mod tests;
