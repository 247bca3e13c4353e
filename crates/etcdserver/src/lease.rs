//! The lessor: which leases exist and which keys hang on them. Replicated state, no clock.
//!
//! Invariants:
//! - A key hangs on at most one lease: that of its last put, as far as that lease exists.
//! - `attached` and the key sets of the leases say the same.
//! - Only the apply lane writes. Others read through [`LeasesView`], under a lock that guards data and nothing
//!   else: it is held for one lease at a time, never over a wait.
//!
//! Deadlines live in the raft lane; it learns of changes as [`LeaseChange`](crate::effect::LeaseChange).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::error::ErrorCode;
use api::leasepb;
use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use prost::Message;

/// The largest time to live that can be asked for, in seconds.
pub const MAX_TTL: i64 = 9_000_000_000;

/// The shortest time to live in seconds: one and a half election timeouts, whole ticks, rounded up.
pub fn min_ttl(election_ticks: u64, heartbeat_ms: u64) -> i64 {
    i64::try_from((3 * election_ticks / 2 * heartbeat_ms).div_ceil(1000)).unwrap_or(MAX_TTL)
}

/// The id of a lease whose creator named none: made by the proposer from a fresh request id, never negative.
/// Zero, which one id in 2^63 gives, means that another must be drawn.
pub fn id_from_request(request: u64) -> i64 {
    i64::try_from(request & (u64::MAX >> 1)).expect("63 bits fit")
}

/// What is replicated of one lease, keys aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Granted seconds.
    pub ttl: i64,
    /// Seconds left at the last checkpoint; 0 when there was none.
    pub remaining: i64,
}

#[derive(Clone, Debug)]
struct Lease {
    info: LeaseInfo,
    keys: BTreeSet<Bytes>,
}

type Table = BTreeMap<i64, Lease>;

/// Leases and their keys for readers on any thread: always the newest state, which may be ahead of a view.
#[derive(Clone, Debug, Default)]
pub struct LeasesView {
    table: Arc<RwLock<Table>>,
}

impl LeasesView {
    /// The lease, if it exists.
    pub fn get(&self, id: i64) -> Option<LeaseInfo> {
        self.table.read().get(&id).map(|lease| lease.info)
    }

    /// The keys of the lease in byte order; none when it does not exist.
    pub fn keys(&self, id: i64) -> Vec<Bytes> {
        self.table.read().get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// Calls `each` for the keys of the lease until it fails.
    pub fn try_each_key(
        &self,
        id: i64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), ErrorCode>,
    ) -> Result<(), ErrorCode> {
        match self.table.read().get(&id) {
            Some(lease) => lease.keys.iter().try_for_each(|key| each(key)),
            None => Ok(()),
        }
    }

    /// Up to `limit` ids above `after`, ascending, with what is known of them: a long list is taken in steps.
    pub fn list(&self, after: Option<i64>, limit: usize) -> Vec<(i64, LeaseInfo)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.table.read().range((from, Unbounded)).take(limit).map(|(id, lease)| (*id, lease.info)).collect()
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Whether there is no lease.
    pub fn is_empty(&self) -> bool {
        self.table.read().is_empty()
    }
}

/// The writing side.
#[derive(Debug)]
pub struct Lessor {
    view: LeasesView,
    attached: HashMap<Bytes, i64, FixedState>,
    min_ttl: i64,
}

impl Lessor {
    /// An empty lessor; `min_ttl` in seconds comes from the election timeout ([`min_ttl`]).
    pub fn new(min_ttl: i64) -> Lessor {
        Lessor { view: LeasesView::default(), attached: HashMap::default(), min_ttl }
    }

    /// Adds a stored lease. Values below the shortest time to live are raised, as at a grant.
    pub fn restore(&mut self, value: &[u8]) -> Result<(), prost::DecodeError> {
        let stored = leasepb::Lease::decode(value)?;
        let info = LeaseInfo { ttl: stored.ttl.max(self.min_ttl), remaining: stored.remaining_ttl };
        self.view.table.write().insert(stored.id, Lease { info, keys: BTreeSet::new() });
        Ok(())
    }

    /// For readers on other threads.
    pub fn view(&self) -> &LeasesView {
        &self.view
    }

    /// Whether the lease exists.
    pub fn exists(&self, id: i64) -> bool {
        self.view.table.read().contains_key(&id)
    }

    /// The lease on which the key hangs, 0 for none.
    pub fn lease_of(&self, key: &[u8]) -> i64 {
        if self.attached.is_empty() { 0 } else { self.attached.get(key).copied().unwrap_or(0) }
    }

    /// Creates a lease and returns its effective time to live. The length is checked before the id.
    pub fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, ErrorCode> {
        if id == 0 {
            return Err(ErrorCode::LeaseNotFound);
        }
        if ttl > MAX_TTL {
            return Err(ErrorCode::LeaseTtlTooLarge);
        }
        let ttl = ttl.max(self.min_ttl);
        let mut table = self.view.table.write();
        if table.contains_key(&id) {
            return Err(ErrorCode::LeaseExist);
        }
        table.insert(id, Lease { info: LeaseInfo { ttl, remaining: 0 }, keys: BTreeSet::new() });
        Ok(ttl)
    }

    /// Removes a lease and returns its keys in byte order: the order in which they must be deleted.
    pub fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, ErrorCode> {
        let lease = self.view.table.write().remove(&id).ok_or(ErrorCode::LeaseNotFound)?;
        let keys: Vec<Bytes> = lease.keys.into_iter().collect();
        for key in &keys {
            self.attached.remove(key);
        }
        Ok(keys)
    }

    /// Notes the remaining seconds of a lease; false when there is no such lease.
    pub fn checkpoint(&mut self, id: i64, remaining: i64) -> bool {
        let mut table = self.view.table.write();
        let lease = table.get_mut(&id);
        let exists = lease.is_some();
        if let Some(lease) = lease {
            lease.info.remaining = remaining;
        }
        exists
    }

    /// Hangs the key on the lease, and on no other; 0 takes it off. A lease that does not exist holds nothing:
    /// stored keys may name one.
    pub fn attach(&mut self, key: &[u8], lease: i64) {
        let before = self.lease_of(key);
        if before == lease {
            return;
        }
        let mut table = self.view.table.write();
        if before != 0 {
            let (key, _) = self.attached.remove_entry(key).expect("it was just found");
            let holder = table.get_mut(&before).expect("an attached key's lease exists");
            assert!(holder.keys.remove(&key), "lease {before:x} does not hold a key that hangs on it");
        }
        if lease != 0
            && let Some(holder) = table.get_mut(&lease)
        {
            // A copy: the key may be a slice of an entry, which must not live as long as the lease.
            let key = Bytes::copy_from_slice(key);
            holder.keys.insert(key.clone());
            self.attached.insert(key, lease);
        }
    }

    /// Takes a deleted key off its lease.
    pub fn detach(&mut self, key: &[u8]) {
        self.attach(key, 0);
    }

    /// Value of the lease bucket; `None` when there is no such lease.
    pub fn stored(&self, id: i64) -> Option<Bytes> {
        self.view.get(id).map(|info| {
            let lease = leasepb::Lease { id, ttl: info.ttl, remaining_ttl: info.remaining };
            Bytes::from(lease.encode_to_vec())
        })
    }
}

/// Key of the lease bucket.
pub fn bucket_key(id: i64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(lessor: &Lessor, id: i64) -> Vec<String> {
        lessor.view().keys(id).iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn le_002_003_006_short_times_are_raised_and_long_ones_refused() {
        let mut lessor = Lessor::new(2);
        for (id, ttl, effective) in [(1, 0, 2), (2, 1, 2), (3, -5, 2), (4, 2, 2), (123, 60, 60), (-9, 60, 60)]
        {
            assert_eq!(lessor.grant(id, ttl), Ok(effective), "{id}");
        }
        assert_eq!(lessor.grant(5, MAX_TTL), Ok(MAX_TTL));
        assert_eq!(lessor.grant(6, MAX_TTL + 1), Err(ErrorCode::LeaseTtlTooLarge));
    }

    #[test]
    fn le_004_007_the_length_is_checked_before_the_id() {
        let mut lessor = Lessor::new(2);
        assert_eq!(lessor.grant(123, 60), Ok(60));
        assert_eq!(lessor.grant(123, 60), Err(ErrorCode::LeaseExist));
        assert_eq!(lessor.grant(123, MAX_TTL + 1), Err(ErrorCode::LeaseTtlTooLarge));
        assert_eq!(lessor.grant(0, 60), Err(ErrorCode::LeaseNotFound));
    }

    #[test]
    fn le_046_the_shortest_time_follows_the_election_timeout() {
        assert_eq!(min_ttl(10, 100), 2);
        assert_eq!(min_ttl(50, 100), 8);
        assert_eq!(min_ttl(5, 100), 1);
        // Whole ticks first: three halves of 11 ticks are 16.
        assert_eq!(min_ttl(11, 1000), 16);
    }

    #[test]
    fn a_key_hangs_on_one_lease_only() {
        let mut lessor = Lessor::new(2);
        lessor.grant(1, 60).unwrap();
        lessor.grant(2, 60).unwrap();
        lessor.attach(b"k", 1);
        lessor.attach(b"j", 1);
        assert_eq!(keys(&lessor, 1), ["j", "k"]);
        lessor.attach(b"k", 2);
        assert_eq!((keys(&lessor, 1), keys(&lessor, 2)), (vec!["j".to_owned()], vec!["k".to_owned()]));
        lessor.attach(b"k", 0);
        assert_eq!(lessor.lease_of(b"k"), 0);
        assert!(keys(&lessor, 2).is_empty());
        lessor.detach(b"never attached");
        assert_eq!(lessor.revoke(1).unwrap(), ["j"]);
        assert_eq!(lessor.lease_of(b"j"), 0);
        assert_eq!(lessor.revoke(1), Err(ErrorCode::LeaseNotFound));
        assert_eq!(lessor.grant(1, 60), Ok(60));
    }

    #[test]
    fn a_key_of_a_lease_that_is_gone_hangs_on_nothing() {
        let mut lessor = Lessor::new(2);
        lessor.attach(b"k", 7);
        assert_eq!(lessor.lease_of(b"k"), 0);
    }

    #[test]
    fn stored_bytes_are_gos() {
        let mut lessor = Lessor::new(2);
        lessor.grant(1_234_567_890_123, 3600).unwrap();
        assert_eq!(bucket_key(1_234_567_890_123)[..], hex::decode("0000011f71fb04cb").unwrap());
        assert_eq!(
            lessor.stored(1_234_567_890_123).unwrap()[..],
            hex::decode("08cb89ec8ff72310901c").unwrap()
        );
        let mut other = Lessor::new(2);
        other.restore(&lessor.stored(1_234_567_890_123).unwrap()).unwrap();
        assert_eq!(other.view().get(1_234_567_890_123), Some(LeaseInfo { ttl: 3600, remaining: 0 }));
    }

    #[test]
    fn lists_are_taken_in_steps() {
        let mut lessor = Lessor::new(2);
        for id in [5, -3, 9] {
            lessor.grant(id, 10).unwrap();
        }
        let ids = |list: Vec<(i64, LeaseInfo)>| list.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(lessor.view().list(None, 2)), [-3, 5]);
        assert_eq!(ids(lessor.view().list(Some(5), 2)), [9]);
    }

    #[test]
    fn ids_made_from_requests_are_positive() {
        assert_eq!(id_from_request(u64::MAX), i64::MAX);
        assert_eq!(id_from_request(0xae02_a1fc_a534_ab01), 0x2e02_a1fc_a534_ab01);
    }
}
