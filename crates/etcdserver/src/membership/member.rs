//! One member and its JSON, which stands in the `members` bucket and in the context of membership changes.

use api::ids;
use bytes::Bytes;
use serde::Deserialize;

use super::json::{put_string, put_strings};

/// One member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// URLs that other members reach it under.
    pub peer_urls: Vec<String>,
    /// Whether it does not vote.
    pub is_learner: bool,
    /// Its name; empty until it has started and published itself.
    pub name: String,
    /// URLs that clients reach it under; empty until published.
    pub client_urls: Vec<String>,
}

impl Member {
    /// A founder: its id follows from peer URLs and cluster token.
    pub fn founder(name: &str, peer_urls: &[String], token: &str) -> Member {
        let mut peer_urls = peer_urls.to_vec();
        peer_urls.sort();
        Member {
            id: ids::member_id(&peer_urls, token, None),
            peer_urls,
            name: name.to_owned(),
            ..Member::default()
        }
    }

    /// Whether it has published itself.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// The stored JSON: Go's field order, empty fields left out, `null` for no peer URLs.
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(160);
        self.put_fields(&mut out);
        out.push('}');
        out
    }

    fn put_fields(&self, out: &mut String) {
        out.push_str("{\"id\":");
        out.push_str(&self.id.to_string());
        out.push(',');
        self.put_raft_attributes(out);
        if !self.name.is_empty() {
            out.push_str(",\"name\":");
            put_string(out, &self.name);
        }
        if !self.client_urls.is_empty() {
            out.push_str(",\"clientURLs\":");
            put_strings(out, &self.client_urls);
        }
    }

    fn put_raft_attributes(&self, out: &mut String) {
        out.push_str("\"peerURLs\":");
        if self.peer_urls.is_empty() {
            out.push_str("null");
        } else {
            put_strings(out, &self.peer_urls);
        }
        if self.is_learner {
            out.push_str(",\"isLearner\":true");
        }
    }

    /// The JSON of the v2 file `raftAttributes`.
    pub(crate) fn raft_attributes_json(&self) -> String {
        let mut out = String::from("{");
        self.put_raft_attributes(&mut out);
        out.push('}');
        out
    }

    /// The JSON of the v2 file `attributes`.
    pub(crate) fn attributes_json(&self) -> String {
        let mut out = String::from("{");
        if !self.name.is_empty() {
            out.push_str("\"name\":");
            put_string(&mut out, &self.name);
        }
        if !self.client_urls.is_empty() {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str("\"clientURLs\":");
            put_strings(&mut out, &self.client_urls);
        }
        out.push('}');
        out
    }

    /// Reads the stored JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Member, String> {
        let raw: RawMember = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(raw.into_member())
    }
}

/// The context of a membership change: a member, and whether it is a promotion of a learner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfContext {
    /// The member as it shall be; a promotion carries only the id, an update only id and peer URLs.
    pub member: Member,
    /// Whether an existing learner becomes a voter.
    pub is_promote: bool,
}

impl ConfContext {
    /// The bytes for the change. The key `isPromote` occurs in promotions only.
    pub fn to_json(&self) -> Bytes {
        let mut out = String::with_capacity(160);
        self.member.put_fields(&mut out);
        if self.is_promote {
            out.push_str(",\"isPromote\":true");
        }
        out.push('}');
        Bytes::from(out)
    }

    /// Reads the bytes of a change.
    pub fn from_json(bytes: &[u8]) -> Result<ConfContext, String> {
        let raw: RawContext = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Ok(ConfContext { member: raw.member.into_member(), is_promote: raw.is_promote.unwrap_or(false) })
    }
}

#[derive(Deserialize)]
struct RawMember {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner")]
    is_learner: Option<bool>,
    name: Option<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}

impl RawMember {
    fn into_member(self) -> Member {
        Member {
            id: self.id,
            peer_urls: self.peer_urls.unwrap_or_default(),
            is_learner: self.is_learner.unwrap_or(false),
            name: self.name.unwrap_or_default(),
            client_urls: self.client_urls.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct RawContext {
    #[serde(flatten)]
    member: RawMember,
    #[serde(rename = "isPromote")]
    is_promote: Option<bool>,
}

/// The two v2 files of a member; both are optional in old snapshots.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct V2RaftAttributes {
    #[serde(rename = "peerURLs")]
    pub(crate) peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner")]
    pub(crate) is_learner: Option<bool>,
}

/// See [`V2RaftAttributes`].
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct V2Attributes {
    pub(crate) name: Option<String>,
    #[serde(rename = "clientURLs")]
    pub(crate) client_urls: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learner() -> Member {
        Member {
            id: 0x5267_fd4a_e6eb_ae02,
            peer_urls: vec!["http://127.0.0.1:13380".to_owned()],
            is_learner: true,
            name: "server".to_owned(),
            client_urls: vec!["http://127.0.0.1:13379".to_owned()],
        }
    }

    #[test]
    fn the_stored_json_has_gos_fields_and_order() {
        let full = r#"{"id":5937993131854900738,"peerURLs":["http://127.0.0.1:13380"],"isLearner":true,"name":"server","clientURLs":["http://127.0.0.1:13379"]}"#;
        assert_eq!(learner().to_json(), full);
        assert_eq!(Member::from_json(full.as_bytes()).unwrap(), learner());
        let empty = Member { id: 7, ..Member::default() };
        assert_eq!(empty.to_json(), r#"{"id":7,"peerURLs":null}"#);
        assert_eq!(Member::from_json(empty.to_json().as_bytes()).unwrap(), empty);
        assert!(Member::from_json(b"{\"peerURLs\":[]}").is_err(), "an id is needed");
        assert!(Member::from_json(b"not json").is_err());
    }

    #[test]
    fn r7_a_promotion_carries_the_id_alone() {
        let promotion = ConfContext {
            member: Member { id: 16_406_174_669_101_452_084, ..Member::default() },
            is_promote: true,
        };
        let bytes = promotion.to_json();
        assert_eq!(&bytes[..], br#"{"id":16406174669101452084,"peerURLs":null,"isPromote":true}"#);
        assert_eq!(ConfContext::from_json(&bytes).unwrap(), promotion);
    }

    #[test]
    fn founders_have_gos_ids() {
        let founder = Member::founder("server", &["http://127.0.0.1:2380".to_owned()], "etcd-cluster-0");
        assert_eq!(format!("{:x}", founder.id), "6702b0a34e2cfd39");
        let urls = ["http://127.0.0.1:7001".to_owned(), "http://10.0.1.10:2380".to_owned()];
        let founder = Member::founder("infra0", &urls, "etcd-cluster-1");
        assert_eq!(format!("{:x}", founder.id), "50714e56bfe0e601");
        assert_eq!(founder.peer_urls[0], "http://10.0.1.10:2380", "URLs are kept sorted");
    }
}
