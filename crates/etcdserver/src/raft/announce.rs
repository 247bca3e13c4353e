//! What a member tells the cluster about itself, and what a leader makes the cluster agree on.
//!
//! - Name and client URLs, after every start, again and again until they have been applied. Only then is the member
//!   ready.
//! - The cluster version, by the leader: at the first commit of its term and every few seconds.
//!
//! Releases up to 3.5 say both in requests of the v2 store, and 3.4 ends on anything else: whoever emulates 3.5 does as
//! those do, for one of 3.4 may be beside it.

use api::etcdserverpb as pb;
use api::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use prost::Message;

use super::node::Node;
use crate::config::Config;
use crate::effect::ClusterVersions;
use crate::limits::VERSION_CHECK_NS;
use crate::membership::{Member, VERSION_PATH, v2_attributes_path};
use crate::version::next_cluster_version;

/// Field of `InternalRaftRequest`.
const CLUSTER_VERSION_SET: u32 = 1300;
/// Field of `InternalRaftRequest`.
const CLUSTER_MEMBER_ATTR_SET: u32 = 1301;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Announce {
    attributes: Attributes,
    /// See the module's text.
    as_v2: bool,
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
            as_v2: (config.version.major, config.version.minor) <= (3, 5),
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
        let Attributes { name, client_urls } = self.announce.attributes.clone();
        self.announce.publish_id = if self.announce.as_v2 {
            let attributes = Member { name, client_urls, ..Member::default() }.attributes_json();
            self.propose_own_v2(v2_attributes_path(self.id), attributes)
        } else {
            let member_attributes = Some(Attributes { name, client_urls });
            let request = ClusterMemberAttrSetRequest { member_id: self.id, member_attributes };
            self.propose_own(CLUSTER_MEMBER_ATTR_SET, &request.encode_to_vec())
        };
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
        if self.announce.as_v2 {
            self.propose_own_v2(VERSION_PATH.to_owned(), version.to_string());
        } else {
            let request = ClusterVersionSetRequest { ver: version.to_string() };
            self.propose_own(CLUSTER_VERSION_SET, &request.encode_to_vec());
        }
    }
}

/// A write to the v2 store. Whatever is not said, Go writes as nothing.
pub(super) fn v2_put(id: u64, path: String, value: String) -> pb::Request {
    pb::Request {
        id: Some(id),
        method: Some("PUT".to_owned()),
        path: Some(path),
        val: Some(value),
        dir: Some(false),
        prev_value: Some(String::new()),
        prev_index: Some(0),
        prev_exist: None,
        expiration: Some(0),
        wait: Some(false),
        since: Some(0),
        recursive: Some(false),
        sorted: Some(false),
        quorum: Some(false),
        time: Some(0),
        stream: Some(false),
        refresh: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the log of a member of 3.5.35.
    #[test]
    fn a_write_to_the_v2_store_has_gos_bytes() {
        let gos = b"\x08\x82\xba\xdf\xd9\x91\xc0\xe8\xf8\xdd\x01\x12\x03PUT\x1a\n/0/version\"\x053.4.0(\x002\x008\x00H\x00P\x00X\x00`\x00h\x00p\x00x\x00\x80\x01\x00";
        let ours = v2_put(0xddf1_a201_1b37_dd02, VERSION_PATH.to_owned(), "3.4.0".to_owned());
        assert_eq!(pb::Request::decode(&gos[..]), Ok(ours.clone()));
        assert_eq!(ours.encode_to_vec(), gos);
    }
}
