//! Alarms: a replicated set of (type, member), and what it forbids.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::error::ErrorCode;
use api::etcdserverpb as pb;
use api::etcdserverpb::alarm_request::AlarmAction;
use bytes::Bytes;
use mvcc::schema::Bucket;
use prost::Message;

use super::policy::{Under, field, policy_of};
use super::reply::Reply;
use super::{Applier, Context, Failure, Turn, decode};
use crate::effect::Proposal;
use crate::side::SideChange;

/// Type of alarm: none. Asks for all, raises nothing.
pub const NONE: i32 = 0;
/// Type of alarm: no room.
pub const NOSPACE: i32 = 1;
/// Type of alarm: members differ.
pub const CORRUPT: i32 = 2;

/// All alarms. Types that nobody knows are kept and forbid nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    set: BTreeSet<(i32, u64)>,
}

impl Alarms {
    /// Reads the keys of the bucket.
    pub fn restore<'a>(keys: impl Iterator<Item = &'a Bytes>) -> Result<Alarms, Bytes> {
        let mut alarms = Alarms::default();
        for key in keys {
            let alarm = pb::AlarmMember::decode(key.clone()).map_err(|_| key.clone())?;
            alarms.set.insert((alarm.alarm, alarm.member_id));
        }
        Ok(alarms)
    }

    /// Whether somebody raised an alarm of this type. Any member's alarm binds all of them.
    pub fn any(&self, kind: i32) -> bool {
        self.set.range((kind, 0)..=(kind, u64::MAX)).next().is_some()
    }

    /// Whether exactly this alarm is on.
    pub fn contains(&self, kind: i32, member: u64) -> bool {
        self.set.contains(&(kind, member))
    }

    /// All alarms of a type, or all of them for [`NONE`].
    pub fn list(&self, kind: i32) -> Vec<pb::AlarmMember> {
        self.set
            .iter()
            .filter(|(alarm, _)| kind == NONE || *alarm == kind)
            .map(|(alarm, member_id)| pb::AlarmMember { member_id: *member_id, alarm: *alarm })
            .collect()
    }
}

fn bucket_key(alarm: pb::AlarmMember) -> Bytes {
    Bytes::from(alarm.encode_to_vec())
}

impl Applier {
    /// The first two gates: a corrupt cluster, then a full one. `cost` is asked for only when it matters.
    pub(super) fn gate(&self, request: u32, cost: impl FnOnce() -> u64) -> Result<(), Failure> {
        if self.alarms.set.is_empty() {
            return Ok(());
        }
        let policy = policy_of(request).expect("every request that is applied has a row");
        if policy.under_corrupt != Under::Passes && self.alarms.any(CORRUPT) {
            return Err(ErrorCode::Corrupt.into());
        }
        let refused = match policy.under_no_space {
            Under::Passes => false,
            Under::Refused => true,
            Under::RefusedIfItCosts => cost() > 0,
        };
        if refused && self.alarms.any(NOSPACE) { Err(ErrorCode::NoSpace.into()) } else { Ok(()) }
    }

    pub(super) fn alarm(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let request: pb::AlarmRequest = decode(at)?;
        self.gate(field::ALARM, || 0)?;
        let alarm = pb::AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let entry = (request.alarm, request.member_id);
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.alarms.list(request.alarm),
            Ok(AlarmAction::Activate) if request.alarm == NONE => Vec::new(),
            Ok(AlarmAction::Activate) => {
                if Arc::make_mut(&mut self.alarms).set.insert(entry) {
                    self.write_side([SideChange::put(Bucket::Alarm, bucket_key(alarm), Bytes::new())]);
                    out.cluster_changed = true;
                }
                vec![alarm]
            }
            Ok(AlarmAction::Deactivate) if self.alarms.set.contains(&entry) => {
                Arc::make_mut(&mut self.alarms).set.remove(&entry);
                self.write_side([SideChange::delete(Bucket::Alarm, bucket_key(alarm))]);
                out.cluster_changed = true;
                vec![alarm]
            }
            Ok(AlarmAction::Deactivate) => Vec::new(),
            // Go answers with nothing, and the server crashes on that.
            Err(_) => return Err(ErrorCode::UnknownMethod.into()),
        };
        Ok(Reply::Alarm { revision: self.store.revision(), alarms })
    }

    /// Proposes this member's NOSPACE alarm, once per batch of entries. A proposal that is lost is made again by
    /// the next write over the quota.
    pub(super) fn raise_no_space(&self, out: &mut Turn<'_>) {
        if self.alarms.contains(NOSPACE, self.cluster.local_id())
            || out.proposals.iter().any(|proposal| proposal.field == field::ALARM)
        {
            return;
        }
        out.proposals.push(no_space_proposal(self.cluster.local_id()));
    }
}

/// The proposal with which a member says that it has no room: made by apply past the quota, by the edge before it,
/// and by the commit lane when the disk is full.
pub fn no_space_proposal(member_id: u64) -> Proposal {
    let request = pb::AlarmRequest { action: AlarmAction::Activate.into(), member_id, alarm: NOSPACE };
    Proposal {
        reply_to: None,
        identity: None,
        field: field::ALARM,
        body: Bytes::from(request.encode_to_vec()),
    }
}
