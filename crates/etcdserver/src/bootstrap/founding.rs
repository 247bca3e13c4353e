//! Founders of a new cluster: who they are, whether the settings agree, and the entries they all write.

use std::collections::BTreeMap;

use api::etcdserverpb::Metadata;
use api::{ids, raftpb};
use bytes::{Bytes, BytesMut};
use prost::Message;
use wal::{EncodedEntry, Wal};

use super::Error;
use crate::config::Config;
use crate::membership::{ConfContext, Member};
use crate::raft::encode_conf_change;

/// The founders of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// This member.
    pub local_id: u64,
    /// The cluster.
    pub cluster_id: u64,
    /// All founders, ids ascending.
    pub members: Vec<Member>,
}

/// The members of the settings by name, each with its URLs sorted: this member is among them, and no URL is there
/// twice.
pub(super) fn by_name(config: &Config) -> Result<BTreeMap<&str, Vec<String>>, Error> {
    let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, urls) in &config.initial_cluster {
        by_name.entry(name).or_default().extend(urls.iter().cloned());
    }
    for urls in by_name.values_mut() {
        urls.sort();
    }
    if !by_name.contains_key(config.name.as_str()) {
        let name = &config.name;
        return Err(Error::Founding(format!(
            "couldn't find local name \"{name}\" in the initial cluster configuration"
        )));
    }
    let mut all: Vec<&String> = by_name.values().flatten().collect();
    all.sort();
    if all.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::Founding(format!("initial cluster {} has duplicate url", show(&by_name))));
    }
    Ok(by_name)
}

/// Checks the settings of a founder. Texts are etcd's.
pub fn check_founding(config: &Config) -> Result<Founding, Error> {
    let by_name = by_name(config)?;
    let own = &by_name[config.name.as_str()];
    check_advertised(config, own)?;
    let token = &config.initial_cluster_token;
    let mut members: Vec<Member> =
        by_name.iter().map(|(name, urls)| Member::founder(name, urls, token)).collect();
    let local_id = ids::member_id(own, token, None);
    members.sort_by_key(|member| member.id);
    if members.windows(2).any(|pair| pair[0].id == pair[1].id) || members.iter().any(|member| member.id == 0)
    {
        return Err(Error::Founding("member exists with identical ID".to_owned()));
    }
    let cluster_id = ids::cluster_id(members.iter().map(|member| member.id));
    Ok(Founding { local_id, cluster_id, members })
}

/// The peer URLs that a member says it has must be those of its entry, compared as text. Whether two host names mean
/// the same is for the process to find out (`advertise_checked`): it takes the network.
fn check_advertised(config: &Config, own: &[String]) -> Result<(), Error> {
    let mut advertised = config.advertise_peer_urls.clone();
    advertised.sort();
    if config.advertise_checked || advertised == own {
        return Ok(());
    }
    let name = &config.name;
    let missing: Vec<String> =
        own.iter().filter(|url| !advertised.contains(url)).map(|url| format!("{name}={url}")).collect();
    if let Some(first) = own.iter().find(|url| !advertised.contains(url)) {
        let other = advertised.iter().find(|url| !own.contains(url)).map_or("", String::as_str);
        return Err(Error::Founding(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} (resolved urls: \"{other}\" \
             != \"{first}\")",
            missing.join(","),
            config.advertise_peer_urls.join(","),
        )));
    }
    let missing: Vec<String> = advertised.iter().filter(|url| !own.contains(url)).cloned().collect();
    let shown: Vec<String> = advertised.iter().map(|url| format!("{name}={url}")).collect();
    Err(Error::Founding(format!(
        "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
        missing.join(","),
        shown.join(","),
    )))
}

fn show(by_name: &BTreeMap<&str, Vec<String>>) -> String {
    let mut shown: Vec<String> = Vec::new();
    for (name, urls) in by_name {
        shown.extend(urls.iter().map(|url| format!("{name}={url}")));
    }
    shown.sort();
    shown.join(",")
}

impl Founding {
    /// What the head of the log says.
    pub fn metadata(&self) -> Metadata {
        Metadata { node_id: Some(self.local_id), cluster_id: Some(self.cluster_id) }
    }

    /// Writes the entries that every founder writes for itself: one per member in the order of ids, term 1, all
    /// committed.
    pub(super) fn write(&self, wal: &mut Wal) -> Result<(Vec<raftpb::Entry>, raftpb::HardState), Error> {
        let mut entries = Vec::with_capacity(self.members.len());
        for (member, index) in self.members.iter().zip(1..) {
            let context = ConfContext { member: member.clone(), is_promote: false }.to_json();
            let change = raftpb::ConfChange {
                r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode as i32),
                node_id: Some(member.id),
                context: Some(context),
                id: None,
            };
            entries.push(raftpb::Entry {
                r#type: Some(raftpb::EntryType::EntryConfChange as i32),
                term: Some(1),
                index: Some(index),
                data: Some(encode_conf_change(&change)),
            });
        }
        let hard_state =
            raftpb::HardState { term: Some(1), vote: Some(0), commit: Some(entries.len() as u64) };
        let encoded: Vec<EncodedEntry> = entries.iter().map(encode).collect();
        wal.append(&encoded, Some(&hard_state), true)?;
        Ok((entries, hard_state))
    }
}

pub(super) fn encode(entry: &raftpb::Entry) -> EncodedEntry {
    let mut bytes = BytesMut::with_capacity(entry.encoded_len());
    entry.encode(&mut bytes).expect("a buffer that grows has room");
    EncodedEntry { index: entry.index(), term: entry.term(), bytes: Bytes::from(bytes) }
}
