//! Membership, versions and attributes at apply.

use std::sync::Arc;

use api::membershippb as mpb;
use api::version::Version;
use api::{etcdserverpb as pb, raftpb};
use bytes::Bytes;
use prost::Message;

use super::policy::field;
use super::reply::Reply;
use super::{Applier, Context, Error, Failure, Turn, decode};
use crate::membership::{Cluster, ConfEffect, Member, conf_state_json};
use crate::mutant::Mutant;

/// A member as clients see it.
pub fn shown(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

/// All members as clients see them, by id.
pub fn shown_members(cluster: &Cluster) -> Vec<pb::Member> {
    cluster.members().map(shown).collect()
}

impl Applier {
    /// Entries 1300 to 1302, which members write for themselves.
    pub(super) fn cluster_request(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        match at.envelope.field {
            field::CLUSTER_VERSION_SET => {
                let request: mpb::ClusterVersionSetRequest = decode(at)?;
                self.set_cluster_version(&request.ver, at.index, out)?;
            }
            field::MEMBER_ATTR_SET => {
                let request: mpb::ClusterMemberAttrSetRequest = decode(at)?;
                let attributes = request.member_attributes.unwrap_or_default();
                self.set_attributes(request.member_id, &attributes.name, &attributes.client_urls, out);
            }
            _ => {
                let request: mpb::DowngradeInfoSetRequest = decode(at)?;
                let side = Arc::make_mut(&mut self.cluster).set_downgrade(request.enabled, &request.ver);
                self.write_side(side);
                out.cluster_changed = true;
            }
        }
        Ok(Reply::Nothing)
    }

    pub(super) fn set_cluster_version(
        &mut self,
        text: &str,
        index: u64,
        out: &mut Turn<'_>,
    ) -> Result<(), Failure> {
        let version: Version = text
            .parse()
            .map_err(|_| Error::Entry { index, reason: format!("sets the cluster version to {text:?}") })?;
        let (side, lowered) = Arc::make_mut(&mut self.cluster).set_version(version);
        self.write_side(side);
        out.cluster_changed = true;
        out.force_snapshot |= lowered;
        Ok(())
    }

    pub(super) fn set_attributes(&mut self, id: u64, name: &str, client_urls: &[String], out: &mut Turn<'_>) {
        // Go panics when the id was never a member's. Such an entry says nothing about any state here, and is
        // passed over on all members alike.
        let Ok(side) = Arc::make_mut(&mut self.cluster).update_attributes(id, name, client_urls) else {
            return;
        };
        self.write_side(side);
        out.cluster_changed = true;
    }

    /// A membership change: checked against the members, recorded, and told to raft, which gets a refused one as
    /// nothing.
    pub(super) fn conf_change(&mut self, index: u64, data: Bytes, out: &mut Turn<'_>) -> Result<(), Error> {
        let change = raftpb::ConfChange::decode(data)
            .map_err(|error| Error::Entry { index, reason: format!("is no membership change: {error}") })?;
        let applied = Arc::make_mut(&mut self.cluster).apply_conf_change(&change, self.settings.max_learners);
        let refused = applied.is_err();
        let reply = applied.map(|(effect, side)| {
            if !(Mutant::PromotionNotStored.is_on() && matches!(effect, ConfEffect::Promoted(_))) {
                self.write_side(side);
            }
            self.store.set_conf_state(conf_state_json(&self.cluster.conf_state()));
            out.cluster_changed = true;
            let added = match effect {
                ConfEffect::Added(member) => Some(shown(&member)),
                ConfEffect::Promoted(_) | ConfEffect::Updated(_) | ConfEffect::Removed(_) => None,
            };
            Reply::Members { added, members: Arc::new(shown_members(&self.cluster)) }
        });
        out.conf.push(self.cluster.conf_applied(index, &change, refused));
        // Bootstrap's changes have no id: nobody waits.
        if change.id() != 0 {
            out.replies.push((change.id(), reply.map_err(Into::into)));
        }
        Ok(())
    }
}
