//! What has been seen of the log and of leases: checkers 1 and 6, and what checker 3 needs to know.

use std::collections::{BTreeMap, BTreeSet};

use api::raftpb;
use etcdserver::apply::request::Envelope;
use prost::Message;

use crate::failure::ensure;
use crate::model::Model;

/// Field of `InternalRaftRequest`: a lease is granted.
const GRANT: u32 = 8;
/// Field of `InternalRaftRequest`: a lease is revoked.
const REVOKE: u32 = 9;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Request id to index.
    pub(crate) by_request: BTreeMap<u64, u64>,
    /// Term to leader.
    leaders: BTreeMap<u64, u64>,
    /// Before this time the lease must not end by itself.
    keep_until: BTreeMap<i64, u64>,
    /// When leases ended by their time.
    expired: BTreeMap<i64, u64>,
    /// When a lease was last granted or revoked.
    changed: BTreeMap<i64, u64>,
    /// Leases that some client wanted revoked.
    asked: BTreeSet<i64>,
    /// Highest index that some client knows of.
    pub(crate) acknowledged: u64,
    pub(crate) expirations: u64,
}

impl History {
    /// A member applies an entry; `is_new` when it had not done so before.
    pub(crate) fn seen(
        &mut self,
        now: u64,
        slack: u64,
        member: usize,
        model: &mut Model,
        entry: &raftpb::Entry,
    ) {
        let index = entry.index();
        ensure!(
            index <= model.last() + 1,
            Agreement,
            "member {member} applies {index}, after {}",
            model.last()
        );
        if let Some(known) = model.entry(index) {
            ensure!(
                known.term == entry.term() && known.data == *entry.data(),
                Agreement,
                "member {member} applies another entry {index}: term {} {:x?}, first seen in term {} {:x?}",
                entry.term(),
                entry.data(),
                known.term,
                known.data
            );
            return;
        }
        model.apply(entry);
        let is_change = entry.r#type() == raftpb::EntryType::EntryConfChange;
        let id = if is_change {
            raftpb::ConfChange::decode(entry.data.clone().unwrap_or_default()).map_or(0, |change| change.id())
        } else {
            Envelope::parse(entry.data()).map_or(0, |envelope| envelope.id)
        };
        if id != 0 {
            let earlier = self.by_request.insert(id, index);
            ensure!(earlier.is_none(), Linearizability, "request {id:x} is entry {earlier:?} and {index}");
        }
        if !is_change {
            self.lease_entry(now, slack, model, entry, id);
        }
    }

    /// Checker 6: no lease ends early, and only the leader of an entry's term may end one by its time.
    fn lease_entry(&mut self, now: u64, slack: u64, model: &Model, entry: &raftpb::Entry, request: u64) {
        let Ok(envelope) = Envelope::parse(entry.data()) else { return };
        let took_effect = model.entry(entry.index()).is_some_and(|entry| entry.answer.is_ok());
        if envelope.field == GRANT && took_effect {
            let grant = api::etcdserverpb::LeaseGrantRequest::decode(envelope.body).unwrap_or_default();
            let ttl = model.leases[&grant.id].last().map_or(0, |lease| lease.ttl);
            self.changed.insert(grant.id, now);
            self.keep_until.insert(grant.id, now + seconds(ttl));
            self.expired.remove(&grant.id);
        }
        if envelope.field != REVOKE || !took_effect {
            return;
        }
        let revoke = api::etcdserverpb::LeaseRevokeRequest::decode(envelope.body).unwrap_or_default();
        self.changed.insert(revoke.id, now);
        if self.asked.contains(&revoke.id) {
            return;
        }
        self.expirations += 1;
        self.expired.insert(revoke.id, now);
        let leader = self.leaders.get(&entry.term()).copied().unwrap_or(0);
        ensure!(
            leader & 0xffff == request >> 48,
            Lease,
            "lease {:x} was ended in term {} by member ..{:x}, who did not lead; {leader:x} did",
            revoke.id,
            entry.term(),
            request >> 48
        );
        let until = self.keep_until.get(&revoke.id).copied().unwrap_or(0);
        ensure!(
            now + slack >= until,
            Lease,
            "lease {:x} ended {} ms early, at {} ms by entry {} of term {}",
            revoke.id,
            (until - now) / 1_000_000,
            now / 1_000_000,
            entry.index(),
            entry.term()
        );
    }

    pub(crate) fn elected(&mut self, term: u64, member: u64) {
        let before = self.leaders.insert(term, member);
        ensure!(
            before.is_none_or(|before| before == member),
            Agreement,
            "term {term} has two leaders, {before:x?} and {member:x}"
        );
    }

    /// A client is about to ask for a revoke: from now on the lease may end at any time.
    pub(crate) fn revoke_asked(&mut self, lease: i64) {
        self.asked.insert(lease);
    }

    /// A keepalive sent at `sent` was answered with `ttl` seconds.
    pub(crate) fn renewed(&mut self, lease: i64, sent: u64, ttl: i64, slack: u64) {
        let until = sent + seconds(ttl);
        if let Some(ended) = self.expired.get(&lease) {
            ensure!(
                ended + slack >= until || self.asked.contains(&lease),
                Lease,
                "lease {lease:x} ended {} ms early: its keepalive was answered",
                (until - ended) / 1_000_000
            );
        }
        let keep = self.keep_until.entry(lease).or_insert(0);
        *keep = (*keep).max(until);
    }

    /// Whether a leader must know whether the lease exists, if it is asked at `sent`. One that was replaced in the last
    /// `settled` nanoseconds, and has not noticed yet, may not: as in etcd, it answers from what it has.
    pub(crate) fn is_settled(&self, lease: i64, sent: u64, settled: u64) -> bool {
        self.changed.get(&lease).is_none_or(|at| at + settled < sent)
    }

    /// The latest time to which a lease was promised.
    pub(crate) fn kept_until(&self, lease: i64) -> u64 {
        self.keep_until.get(&lease).copied().unwrap_or(0)
    }
}

fn seconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000
}
