//! What requests cost against the space quota. The quota is local: it decides about answers, never about state.

use super::request::{Op, Put, Txn};

/// Charged for a record beside its key and value.
const RECORD_OVERHEAD: u64 = 256;
/// Charged for a lease.
pub const LEASE_COST: u64 = 64;
/// The quota when none is configured.
pub const QUOTA_DEFAULT: u64 = 2 << 30;

/// The limit on the size of the database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes; `None` when it is off.
    limit: Option<u64>,
}

impl Quota {
    /// From the flag: 0 is the default, negative is off.
    pub fn new(configured: i64) -> Quota {
        let limit = match configured {
            0 => Some(QUOTA_DEFAULT),
            _ => u64::try_from(configured).ok(),
        };
        Quota { limit }
    }

    /// Bytes, as `Status` shows them; 0 when it is off.
    pub fn limit(self) -> u64 {
        self.limit.unwrap_or(0)
    }

    /// Whether a request of this cost goes through while the file has `size` bytes. What costs nothing always does.
    pub fn has_room(self, size: u64, cost: u64) -> bool {
        cost == 0 || self.limit.is_none_or(|limit| size.saturating_add(cost) < limit)
    }
}

/// Cost of a put.
pub fn put_cost(put: &Put<'_>) -> u64 {
    RECORD_OVERHEAD + (put.key.len() + put.value.len()) as u64
}

/// Cost of a transaction: that of its dearer branch, nested transactions included. Not counting those let a
/// transaction past the quota once.
pub fn txn_cost(txn: &Txn<'_>) -> u64 {
    branch_cost(&txn.success).max(branch_cost(&txn.failure))
}

fn branch_cost(ops: &[Op<'_>]) -> u64 {
    ops.iter()
        .map(|op| match op {
            Op::Put(put) => put_cost(put),
            Op::Txn(txn) => txn_cost(txn),
            Op::Range(_) | Op::DeleteRange(_) | Op::Empty => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static [u8]) -> Op<'static> {
        Op::Put(Put { key: b"key", value, ..Put::default() })
    }

    #[test]
    fn cost_txn_req_counts_nested_transactions() {
        // costTxnReq: puts inside nested transactions were free, so a full store could be filled further.
        let inner = Txn { failure: vec![put(b"12345")], ..Txn::default() };
        let txn = Txn { success: vec![put(b""), Op::Txn(inner)], failure: vec![put(b"")], ..Txn::default() };
        assert_eq!(txn_cost(&txn), (256 + 3) + (256 + 8));
        assert_eq!(txn_cost(&Txn { success: vec![Op::Empty], ..Txn::default() }), 0);
    }

    #[test]
    fn the_limit_itself_is_already_too_much() {
        let quota = Quota::new(1000);
        assert!(quota.has_room(740, 259));
        assert!(!quota.has_room(741, 259));
        assert!(quota.has_room(5000, 0));
        assert!(Quota::new(-1).has_room(u64::MAX, u64::MAX));
        assert_eq!(Quota::new(0).limit(), 2_147_483_648);
    }
}
