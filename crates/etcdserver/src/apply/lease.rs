//! Leases at apply: grant, revoke with its keys, checkpoints.

use api::etcdserverpb as pb;
use api::version::Minor;
use bytes::Bytes;
use mvcc::RangeEnd;
use mvcc::schema::{Bucket, lease_key};

use super::policy::field;
use super::quota::LEASE_COST;
use super::reply::Reply;
use super::{Applier, Context, Failure, PULSE_KEYS, Turn, decode};
use crate::auth::Need;
use crate::effect::LeaseChange;
use crate::side::SideChange;

/// From this cluster version on every member stores checkpoints.
const CHECKPOINTS_SINCE: Minor = Minor::new(3, 6);

impl Applier {
    pub(super) fn lease_grant(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let request: pb::LeaseGrantRequest = decode(at)?;
        self.gate(field::LEASE_GRANT, || LEASE_COST)?;
        let room = self.settings.quota.has_room(self.store.size_for_quota(), LEASE_COST);
        let id = request.id;
        let ttl = self.lessor.grant(id, request.ttl)?;
        self.store_lease(id);
        out.leases.push(LeaseChange::Granted { id, ttl, remaining: 0 });
        self.after_quota(room, out)?;
        Ok(Reply::LeaseGrant { revision: self.store.revision(), id, ttl })
    }

    /// The lease goes, and with it its keys, in byte order under one revision.
    pub(super) fn lease_revoke(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let request: pb::LeaseRevokeRequest = decode(at)?;
        self.gate(field::LEASE_REVOKE, || 0)?;
        self.require(at, [Need::LeaseKeys(request.id)])?;
        let keys = self.lessor.revoke(request.id)?;
        let mut txn = self.store.write();
        for part in keys.chunks(PULSE_KEYS) {
            (out.pulse)();
            for key in part {
                txn.delete_range(key, &RangeEnd::Single, false)?;
            }
        }
        Self::finish(txn, &mut self.lessor, out);
        self.write_side([SideChange::delete(Bucket::Lease, Bytes::copy_from_slice(&lease_key(request.id)))]);
        out.leases.push(LeaseChange::Revoked { id: request.id });
        Ok(Reply::LeaseRevoke { revision: self.store.revision() })
    }

    /// Notes how much time is left; leases that are gone by now are passed over.
    pub(super) fn lease_checkpoint(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let request: pb::LeaseCheckpointRequest = decode(at)?;
        self.gate(field::LEASE_CHECKPOINT, || 0)?;
        let stored = self.settings.store_checkpoints
            || self.cluster.version().is_some_and(|version| version.minor() >= CHECKPOINTS_SINCE);
        for checkpoint in &request.checkpoints {
            let (id, remaining) = (checkpoint.id, checkpoint.remaining_ttl);
            if !self.lessor.checkpoint(id, remaining) {
                continue;
            }
            if stored {
                self.store_lease(id);
            }
            out.leases.push(LeaseChange::Checkpointed { id, remaining });
        }
        Ok(Reply::LeaseCheckpoint { revision: self.store.revision() })
    }

    fn store_lease(&mut self, id: i64) {
        let value = self.lessor.stored(id).expect("the lease was just written");
        self.write_side([SideChange::put(Bucket::Lease, Bytes::copy_from_slice(&lease_key(id)), value)]);
    }
}
