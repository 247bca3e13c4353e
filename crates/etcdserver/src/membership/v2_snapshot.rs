//! The members tree of the v2 store, as JSON inside `.snap` files.
//!
//! 3.4 and 3.5 take members, removed ids and cluster version at start only from here and from the entries after
//! it; 3.6 decodes it; 3.7 only writes it. So it is always written in full. What is written is `Root`,
//! `CurrentIndex` and `CurrentVersion`: every version takes the rest as empty, and a watcher hub with an empty
//! queue makes older ones panic.
//!
//! It is read only for directories with a 3.5 past: 3.5.0 to 3.5.19 never rewrote a record of the `members`
//! bucket, so promotions, new peer URLs and client URLs may be missing there and stand only here or in the log.

use std::collections::{BTreeMap, BTreeSet};

use api::ids;
use api::raftpb::ConfChange;
use api::version::Version;
use bytes::Bytes;
use serde::Deserialize;

use super::json::put_string;
use super::member::{V2Attributes, V2RaftAttributes};
use super::{Cluster, Member};
use crate::mutant::Mutant;

/// Membership as the v2 store knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Membership {
    /// Members by id.
    pub members: BTreeMap<u64, Member>,
    /// Removed ids.
    pub removed: BTreeSet<u64>,
    /// The cluster version.
    pub version: Option<Version>,
    /// Whether v2 clients left anything in the store; 3.6 refuses that, nobody serves it any more.
    pub has_user_content: bool,
}

/// The path of the v2 request with which a member up to 3.5 publishes itself.
pub fn v2_attributes_path(id: u64) -> String {
    format!("/0/members/{}/attributes", ids::hex(id))
}

/// The member whose attributes path this is.
pub fn v2_member_of_attributes_path(path: &str) -> Option<u64> {
    ids::parse_hex(path.strip_prefix("/0/members/")?.strip_suffix("/attributes")?).ok()
}

/// The path of the v2 request that sets the cluster version up to 3.5.
pub(crate) const VERSION_PATH: &str = "/0/version";

#[derive(Debug, Deserialize)]
struct Store {
    #[serde(rename = "Root")]
    root: Option<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "Value", default)]
    value: String,
    #[serde(rename = "Children", default)]
    children: Option<BTreeMap<String, Node>>,
}

impl Node {
    fn child(&self, name: &str) -> Option<&Node> {
        self.children.as_ref()?.get(name)
    }

    fn entries(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.children.iter().flatten()
    }
}

impl V2Membership {
    /// What `.snap` files and snapshots for followers carry for this membership.
    pub fn of(cluster: &Cluster) -> V2Membership {
        V2Membership {
            members: cluster.members().map(|member| (member.id, member.clone())).collect(),
            removed: cluster.removed().collect(),
            version: cluster.version(),
            has_user_content: false,
        }
    }

    /// Reads the JSON of a `.snap` file. Empty data is an empty store.
    pub fn parse(bytes: &[u8]) -> Result<V2Membership, String> {
        let mut found = V2Membership::default();
        if bytes.is_empty() {
            return Ok(found);
        }
        let store: Store = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let Some(root) = store.root else { return Ok(found) };
        found.has_user_content = root.child("1").is_some_and(|node| node.entries().next().is_some());
        let Some(cluster) = root.child("0") else { return Ok(found) };
        for (name, node) in cluster.child("members").iter().flat_map(|node| node.entries()) {
            let member = parse_member(name, node)?;
            found.members.insert(member.id, member);
        }
        for (name, _) in cluster.child("removed_members").iter().flat_map(|node| node.entries()) {
            found.removed.insert(ids::parse_hex(name).map_err(|e| format!("removed member {name:?}: {e}"))?);
        }
        if let Some(version) = cluster.child("version").filter(|node| !node.value.is_empty()) {
            found.version =
                Some(version.value.parse().map_err(|e: api::version::NotAVersion| e.to_string())?);
        }
        Ok(found)
    }

    /// Replays a membership change that this member has applied before. What was refused then (an id that was removed,
    /// a URL in use, a learner too many) is refused again, since the rules and the state are the same.
    pub fn replay_conf_change(&mut self, change: &ConfChange, max_learners: usize) {
        if change.node_id() == 0 {
            return;
        }
        let max_learners = if Mutant::ReplayUnchecked.is_on() { usize::MAX } else { max_learners };
        let mut cluster = Cluster::new(0, 0);
        cluster.reconcile(self);
        if cluster.apply_conf_change(change, max_learners).is_ok() {
            let V2Membership { members, removed, .. } = V2Membership::of(&cluster);
            (self.members, self.removed) = (members, removed);
        }
    }

    /// Replays a published name and client URLs.
    pub fn replay_attributes(&mut self, id: u64, name: &str, client_urls: &[String]) {
        if let Some(member) = self.members.get_mut(&id) {
            name.clone_into(&mut member.name);
            member.client_urls = client_urls.to_vec();
        }
    }

    /// Replays a v2 PUT; all but the two paths that 3.4 and 3.5 write themselves belong to v2 clients.
    pub fn replay_put(&mut self, path: &str, value: &str) {
        if path == VERSION_PATH {
            if let Ok(version) = value.parse() {
                self.version = Some(version);
            }
        } else if let Some(id) = v2_member_of_attributes_path(path)
            && let Ok(attributes) = serde_json::from_str::<V2Attributes>(value)
        {
            let urls = attributes.client_urls.unwrap_or_default();
            self.replay_attributes(id, &attributes.name.unwrap_or_default(), &urls);
        }
    }

    /// The JSON for `.snap` files.
    pub fn render(&self) -> Bytes {
        let mut out = Renderer { out: String::with_capacity(1024), index: 0 };
        out.open("/", 0);
        out.name("0");
        out.open("/0", 0);
        self.render_members(&mut out);
        self.render_removed(&mut out);
        if let Some(version) = self.version {
            out.name("version");
            out.file(VERSION_PATH, &version.to_string());
        }
        out.close();
        out.name("1");
        out.open("/1", 0);
        out.close();
        out.close();
        Bytes::from(format!("{{\"Root\":{},\"CurrentIndex\":{},\"CurrentVersion\":2}}", out.out, out.index))
    }

    fn render_members(&self, out: &mut Renderer) {
        if self.members.is_empty() {
            return;
        }
        out.name("members");
        out.open("/0/members", out.index + 1);
        for member in self.members.values() {
            let name = ids::hex(member.id).to_string();
            let path = format!("/0/members/{name}");
            out.name(&name);
            // Go creates the raft attributes first; in the file the names are sorted.
            out.open(&path, out.index + 1);
            let created = out.index + 1;
            out.index = created;
            if member.is_started() || !member.client_urls.is_empty() {
                out.name("attributes");
                out.file(&format!("{path}/attributes"), &member.attributes_json());
            }
            out.name("raftAttributes");
            out.file_at(&format!("{path}/raftAttributes"), &member.raft_attributes_json(), created);
            out.close();
        }
        out.close();
    }

    fn render_removed(&self, out: &mut Renderer) {
        if self.removed.is_empty() {
            return;
        }
        out.name("removed_members");
        out.open("/0/removed_members", out.index + 1);
        for id in &self.removed {
            let name = ids::hex(*id).to_string();
            out.name(&name);
            out.file(&format!("/0/removed_members/{name}"), "");
        }
        out.close();
    }
}

fn parse_member(name: &str, node: &Node) -> Result<Member, String> {
    let id = ids::parse_hex(name).map_err(|e| format!("member {name:?}: {e}"))?;
    let bad = |e: serde_json::Error| format!("member {name}: {e}");
    let raft: V2RaftAttributes = match node.child("raftAttributes") {
        Some(node) => serde_json::from_str(&node.value).map_err(bad)?,
        None => V2RaftAttributes::default(),
    };
    let own: V2Attributes = match node.child("attributes") {
        Some(node) => serde_json::from_str(&node.value).map_err(bad)?,
        None => V2Attributes::default(),
    };
    Ok(Member {
        id,
        peer_urls: raft.peer_urls.unwrap_or_default(),
        is_learner: raft.is_learner.unwrap_or(false),
        name: own.name.unwrap_or_default(),
        client_urls: own.client_urls.unwrap_or_default(),
    })
}

/// Writes nodes of the v2 store; `index` counts the writes that Go would have made.
struct Renderer {
    out: String,
    index: u64,
}

impl Renderer {
    fn head(&mut self, path: &str, index: u64, value: &str) {
        self.out.push_str("{\"Path\":");
        put_string(&mut self.out, path);
        self.out.push_str(&format!(
            ",\"CreatedIndex\":{index},\"ModifiedIndex\":{index},\"ExpireTime\":\"0001-01-01T00:00:00Z\",\"Value\":"
        ));
        put_string(&mut self.out, value);
        self.out.push_str(",\"Children\":");
    }

    fn open(&mut self, path: &str, index: u64) {
        self.head(path, index, "");
        self.out.push('{');
    }

    fn close(&mut self) {
        self.out.push_str("}}");
    }

    fn name(&mut self, name: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        put_string(&mut self.out, name);
        self.out.push(':');
    }

    fn file(&mut self, path: &str, value: &str) {
        self.index += 1;
        self.file_at(path, value, self.index);
    }

    fn file_at(&mut self, path: &str, value: &str, index: u64) {
        self.head(path, index, value);
        self.out.push_str("null}");
    }
}

#[cfg(test)]
mod tests {
    use api::raftpb::ConfChangeType;

    use super::*;
    use crate::membership::ConfContext;

    fn sample() -> V2Membership {
        let id = 0x5267_fd4a_e6eb_ae02;
        let member = Member {
            id,
            peer_urls: vec!["http://127.0.0.1:13380".to_owned()],
            name: "server".to_owned(),
            client_urls: vec!["http://127.0.0.1:13379".to_owned()],
            ..Member::default()
        };
        V2Membership {
            members: [(id, member)].into(),
            removed: [0x2c1d_73a6_896a_aa2b].into(),
            version: Some("3.7.0".parse().unwrap()),
            has_user_content: false,
        }
    }

    /// `Root` of the last `.snap` of `datadir-single-3.7.1`, byte for byte.
    const GO_ROOT: &str = r#"{"Root":{"Path":"/","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{"0":{"Path":"/0","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{"members":{"Path":"/0/members","CreatedIndex":1,"ModifiedIndex":1,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{"5267fd4ae6ebae02":{"Path":"/0/members/5267fd4ae6ebae02","CreatedIndex":1,"ModifiedIndex":1,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{"attributes":{"Path":"/0/members/5267fd4ae6ebae02/attributes","CreatedIndex":2,"ModifiedIndex":2,"ExpireTime":"0001-01-01T00:00:00Z","Value":"{\"name\":\"server\",\"clientURLs\":[\"http://127.0.0.1:13379\"]}","Children":null},"raftAttributes":{"Path":"/0/members/5267fd4ae6ebae02/raftAttributes","CreatedIndex":1,"ModifiedIndex":1,"ExpireTime":"0001-01-01T00:00:00Z","Value":"{\"peerURLs\":[\"http://127.0.0.1:13380\"]}","Children":null}}}}},"removed_members":{"Path":"/0/removed_members","CreatedIndex":3,"ModifiedIndex":3,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{"2c1d73a6896aaa2b":{"Path":"/0/removed_members/2c1d73a6896aaa2b","CreatedIndex":3,"ModifiedIndex":3,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":null}}},"version":{"Path":"/0/version","CreatedIndex":4,"ModifiedIndex":4,"ExpireTime":"0001-01-01T00:00:00Z","Value":"3.7.0","Children":null}}},"1":{"Path":"/1","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{}}}},"#;

    #[test]
    fn the_tree_is_gos_byte_for_byte() {
        let rendered = sample().render();
        let expected = format!("{GO_ROOT}\"CurrentIndex\":4,\"CurrentVersion\":2}}");
        assert_eq!(std::str::from_utf8(&rendered).unwrap(), expected);
        assert_eq!(V2Membership::parse(&rendered).unwrap(), sample());
    }

    #[test]
    fn learners_and_unpublished_members_survive() {
        let mut tree = sample();
        let learner =
            Member { id: 9, peer_urls: vec!["http://c:1".to_owned()], is_learner: true, ..Member::default() };
        tree.members.insert(9, learner);
        tree.version = None;
        tree.removed.clear();
        let rendered = tree.render();
        assert_eq!(V2Membership::parse(&rendered).unwrap(), tree);
        assert!(std::str::from_utf8(&rendered).unwrap().contains(r#"\"isLearner\":true"#));
        assert_eq!(V2Membership::parse(&V2Membership::default().render()).unwrap(), V2Membership::default());
    }

    #[test]
    fn user_content_is_noticed_and_nonsense_refused() {
        let with = r#"{"Root":{"Children":{"1":{"Children":{"foo":{"Value":"bar"}}}}}}"#;
        assert!(V2Membership::parse(with.as_bytes()).unwrap().has_user_content);
        assert_eq!(V2Membership::parse(b"").unwrap(), V2Membership::default());
        assert!(V2Membership::parse(b"{").is_err());
        let bad = r#"{"Root":{"Children":{"0":{"Children":{"members":{"Children":{"xyz":{}}}}}}}}"#;
        assert!(V2Membership::parse(bad.as_bytes()).unwrap_err().contains("xyz"));
    }

    #[test]
    fn replay_follows_the_log() {
        let mut tree = V2Membership::default();
        let member = Member { id: 5, peer_urls: vec!["http://a:1".to_owned()], ..Member::default() };
        let change = |kind: ConfChangeType, context: &ConfContext| ConfChange {
            r#type: Some(kind as i32),
            node_id: Some(context.member.id),
            context: Some(context.to_json()),
            id: None,
        };
        let mut context = ConfContext { member, is_promote: false };
        tree.replay_conf_change(&change(ConfChangeType::ConfChangeAddLearnerNode, &context), 1);
        assert!(tree.members[&5].is_learner);
        tree.replay_put("/0/members/5/attributes", r#"{"name":"five","clientURLs":["http://a:2"]}"#);
        tree.replay_put("/0/version", "3.5.0");
        tree.replay_put("/1/foo", "bar");
        context.member.peer_urls = vec!["http://b:1".to_owned()];
        tree.replay_conf_change(&change(ConfChangeType::ConfChangeUpdateNode, &context), 1);
        context.is_promote = true;
        tree.replay_conf_change(&change(ConfChangeType::ConfChangeAddNode, &context), 1);
        let five = &tree.members[&5];
        assert_eq!(
            (five.is_learner, five.name.as_str(), &five.peer_urls[0][..]),
            (false, "five", "http://b:1")
        );
        for (id, kept) in [(6, true), (7, false)] {
            let member = Member { id, peer_urls: vec![format!("http://c:{id}")], ..Member::default() };
            let learner = ConfContext { member, is_promote: false };
            tree.replay_conf_change(&change(ConfChangeType::ConfChangeAddLearnerNode, &learner), 1);
            assert_eq!(tree.members.contains_key(&id), kept, "what was refused once is refused again");
        }
        let six = ConfContext { member: tree.members[&6].clone(), is_promote: true };
        tree.replay_conf_change(&change(ConfChangeType::ConfChangeAddNode, &six), 1);
        tree.replay_conf_change(&change(ConfChangeType::ConfChangeRemoveNode, &context), 1);
        context.is_promote = false;
        tree.replay_conf_change(&change(ConfChangeType::ConfChangeAddNode, &context), 1);
        assert!(!tree.members.contains_key(&5) && tree.removed.contains(&5), "a removed id stays away");
        assert_eq!(tree.version, Some("3.5.0".parse().unwrap()));
        assert_eq!(v2_member_of_attributes_path(&v2_attributes_path(5)), Some(5));
    }
}
