//! What a member tells the cluster about itself, and what a leader makes the cluster agree on.
//!
//! - Name and client URLs, after every start, again and again until they have been applied. Only then is the member
//!   ready.
//! - The cluster version, by the leader: at the first commit of its term and every few seconds.

use api::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use prost::Message;

use super::node::Node;
use crate::config::Config;
use crate::effect::ClusterVersions;
use crate::limits::VERSION_CHECK_NS;
use crate::version::next_cluster_version;

/// Field of `InternalRaftRequest`.
const CLUSTER_VERSION_SET: u32 = 1300;
/// Field of `InternalRaftRequest`.
const CLUSTER_MEMBER_ATTR_SET: u32 = 1301;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Announce {
    attributes: Attributes,
    published: bool,
    /// Request id of the last attempt, and when the next is due.
    publish_id: u64,
    publish_again_ns: u64,
    pub(crate) versions: ClusterVersions,
    check_version_ns: u64,
}

impl Announce {
    pub(crate) fn new(config: &Config) -> Announce {
        Announce {
            attributes: Attributes {
                name: config.name.clone(),
                client_urls: config.advertise_client_urls.clone(),
            },
            published: false,
            publish_id: 0,
            publish_again_ns: 0,
            versions: ClusterVersions::default(),
            check_version_ns: 0,
        }
    }

    /// An entry with this id was applied; true if it was the one that publishes this member.
    pub(crate) fn applied(&mut self, id: u64) -> bool {
        let this = id == self.publish_id && id != 0;
        if this {
            self.published = true;
            self.publish_id = 0;
        }
        this
    }

    pub(crate) fn check_version_now(&mut self) {
        self.check_version_ns = 0;
    }
}

impl Node {
    pub(super) fn announce(&mut self) {
        self.publish();
        self.agree_on_version();
    }

    fn publish(&mut self) {
        let now_ns = self.now.mono_ns;
        if self.announce.published || self.role.leader == 0 || now_ns < self.announce.publish_again_ns {
            return;
        }
        let request = ClusterMemberAttrSetRequest {
            member_id: self.id,
            member_attributes: Some(self.announce.attributes.clone()),
        };
        self.announce.publish_id = self.propose_own(CLUSTER_MEMBER_ATTR_SET, &request.encode_to_vec());
        self.announce.publish_again_ns = now_ns + self.timeout_ns;
    }

    /// The leader raises the cluster version to what all members understand, and lowers it for a downgrade.
    fn agree_on_version(&mut self) {
        let now_ns = self.now.mono_ns;
        if !self.role.is_leader || !self.committed_in_term || now_ns < self.announce.check_version_ns {
            return;
        }
        let Some(version) = next_cluster_version(&self.announce.versions) else { return };
        self.announce.check_version_ns = now_ns + VERSION_CHECK_NS;
        let request = ClusterVersionSetRequest { ver: version.to_string() };
        self.propose_own(CLUSTER_VERSION_SET, &request.encode_to_vec());
    }
}
