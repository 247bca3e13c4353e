//! All members, and every way they change.
//!
//! Invariants:
//! 1. What the buckets hold is what is here: every change of memory is returned as a list of [`SideChange`]s, in
//!    the same call.
//! 2. A removed id never comes back.
//! 3. No two members share a peer URL, except where an older etcd stored such a state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use api::error::ErrorCode;
use api::ids;
use api::raftpb::{ConfChange, ConfChangeType, ConfState};
use api::version::{Minor, Version};
use bytes::Bytes;
use mvcc::schema::{self, Bucket};
use serde::Deserialize;

use super::json::put_string;
use super::{ConfContext, Member, conf_state};
use crate::effect::ConfApplied;
use crate::side::SideChange;

/// What a membership change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfEffect {
    /// A member came in, as voter or learner.
    Added(Member),
    /// A learner became a voter.
    Promoted(u64),
    /// A member has new peer URLs.
    Updated(u64),
    /// A member left. Its URLs are what the transport must forget.
    Removed(Member),
}

/// The downgrade job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    /// Whether one is under way.
    pub enabled: bool,
    /// Where it leads, as asked for (`3.6.0`); empty when there is none.
    pub target: String,
}

impl Downgrade {
    /// The target of a job under way.
    pub fn target_minor(&self) -> Option<Minor> {
        if self.enabled { Minor::parse_target(&self.target).ok() } else { None }
    }

    fn to_json(&self) -> String {
        let mut out = String::from("{\"target-version\":");
        put_string(&mut out, &self.target);
        out.push_str(if self.enabled { ",\"enabled\":true}" } else { ",\"enabled\":false}" });
        out
    }
}

/// A stored record of membership that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The bucket.
    pub bucket: Bucket,
    /// The key, as text.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = String::from_utf8_lossy(self.bucket.name());
        write!(f, "bucket {bucket}, key {:?}: {}", self.key, self.reason)
    }
}

/// The membership of a cluster as one member has applied it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    cluster_id: u64,
    local_id: u64,
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    version: Option<Version>,
    downgrade: Downgrade,
}

impl Cluster {
    /// Without any member.
    pub fn new(cluster_id: u64, local_id: u64) -> Cluster {
        Cluster { cluster_id, local_id, ..Cluster::default() }
    }

    /// As the small buckets hold it. `read` lists a bucket's pairs.
    pub fn from_buckets(
        cluster_id: u64,
        local_id: u64,
        mut read: impl FnMut(Bucket) -> Vec<(Bytes, Bytes)>,
    ) -> Result<Cluster, Fault> {
        let mut cluster = Cluster::new(cluster_id, local_id);
        for (key, value) in read(Bucket::Members) {
            let fault = |reason: String| fault(Bucket::Members, &key, reason);
            let id = parse_id(&key).map_err(fault)?;
            let member = Member::from_json(&value).map_err(fault)?;
            if member.id != id {
                return Err(fault(format!("the record is that of member {}", ids::hex(member.id))));
            }
            cluster.members.insert(id, member);
        }
        for (key, _) in read(Bucket::MembersRemoved) {
            let id = parse_id(&key).map_err(|reason| fault(Bucket::MembersRemoved, &key, reason))?;
            cluster.removed.insert(id);
        }
        for (key, value) in read(Bucket::Cluster) {
            if &key[..] == schema::CLUSTER_VERSION {
                cluster.version =
                    parse_version(&value).map_err(|reason| fault(Bucket::Cluster, &key, reason))?;
            } else if &key[..] == schema::DOWNGRADE {
                cluster.downgrade =
                    parse_downgrade(&value).map_err(|reason| fault(Bucket::Cluster, &key, reason))?;
            }
        }
        Ok(cluster)
    }

    /// The cluster's id.
    pub fn id(&self) -> u64 {
        self.cluster_id
    }

    /// This member's id.
    pub fn local_id(&self) -> u64 {
        self.local_id
    }

    /// This member, if it is (still) part of the cluster.
    pub fn local(&self) -> Option<&Member> {
        self.members.get(&self.local_id)
    }

    /// All members, ids ascending.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// One member.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Ids that were removed and must never come back.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// Whether the id was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// The cluster version.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The downgrade job.
    pub fn downgrade(&self) -> &Downgrade {
        &self.downgrade
    }

    /// Voters and learners for raft.
    pub fn conf_state(&self) -> ConfState {
        conf_state(self.members())
    }

    /// What the raft lane must be told after the change at `index`; a refused change is nothing to raft.
    pub fn conf_applied(&self, index: u64, change: &ConfChange, refused: bool) -> ConfApplied {
        let mut change = change.clone();
        if refused {
            change.node_id = Some(0);
        }
        let state = self.conf_state();
        ConfApplied { index, change, voters: state.voters, learners: state.learners }
    }

    /// Applies a membership change. A refused one changes nothing.
    pub fn apply_conf_change(
        &mut self,
        change: &ConfChange,
        max_learners: usize,
    ) -> Result<(ConfEffect, Vec<SideChange>), ErrorCode> {
        let id = change.node_id();
        if self.removed.contains(&id) {
            return Err(ErrorCode::MemberNotFound);
        }
        // An unknown type is nothing that any etcd proposes, and must not be taken for type 0.
        let kind =
            ConfChangeType::try_from(change.r#type.unwrap_or(0)).map_err(|_| ErrorCode::MemberNotFound)?;
        if kind == ConfChangeType::ConfChangeRemoveNode {
            return self.remove(id);
        }
        let context = ConfContext::from_json(change.context()).map_err(|_| ErrorCode::MemberBadUrls)?;
        if context.member.id != id {
            return Err(ErrorCode::MemberBadUrls);
        }
        match kind {
            ConfChangeType::ConfChangeUpdateNode => self.update(id, context.member.peer_urls),
            _ if context.is_promote => self.promote(id),
            _ => {
                let mut member = context.member;
                member.is_learner = kind == ConfChangeType::ConfChangeAddLearnerNode;
                self.add(member, max_learners)
            }
        }
    }

    fn add(
        &mut self,
        member: Member,
        max_learners: usize,
    ) -> Result<(ConfEffect, Vec<SideChange>), ErrorCode> {
        if self.members.contains_key(&member.id) {
            return Err(ErrorCode::MemberExist);
        }
        if member.peer_urls.iter().any(|url| self.owner_of(url).is_some()) {
            return Err(ErrorCode::PeerUrlExist);
        }
        if member.is_learner && self.members().filter(|m| m.is_learner).count() >= max_learners {
            return Err(ErrorCode::TooManyLearners);
        }
        let changes = vec![put_member(&member)];
        self.members.insert(member.id, member.clone());
        Ok((ConfEffect::Added(member), changes))
    }

    fn promote(&mut self, id: u64) -> Result<(ConfEffect, Vec<SideChange>), ErrorCode> {
        let member = self.members.get_mut(&id).ok_or(ErrorCode::MemberNotFound)?;
        if !member.is_learner {
            return Err(ErrorCode::MemberNotLearner);
        }
        member.is_learner = false;
        Ok((ConfEffect::Promoted(id), vec![put_member(member)]))
    }

    fn update(
        &mut self,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<(ConfEffect, Vec<SideChange>), ErrorCode> {
        if !self.members.contains_key(&id) {
            return Err(ErrorCode::MemberNotFound);
        }
        if peer_urls.iter().any(|url| self.owner_of(url).is_some_and(|owner| owner != id)) {
            return Err(ErrorCode::PeerUrlExist);
        }
        let member = self.members.get_mut(&id).ok_or(ErrorCode::MemberNotFound)?;
        member.peer_urls = peer_urls;
        Ok((ConfEffect::Updated(id), vec![put_member(member)]))
    }

    fn remove(&mut self, id: u64) -> Result<(ConfEffect, Vec<SideChange>), ErrorCode> {
        let member = self.members.get(&id).ok_or(ErrorCode::MemberNotFound)?;
        // Raft cannot be without voters. Go checks this before it proposes, if asked to, and panics here otherwise;
        // so no Go member can be alive behind such an entry, and refusing it makes nobody differ.
        if !member.is_learner && self.members().filter(|member| !member.is_learner).count() == 1 {
            return Err(ErrorCode::MemberNotEnoughStarted);
        }
        let member = self.members.remove(&id).ok_or(ErrorCode::MemberNotFound)?;
        self.removed.insert(id);
        let key = Bytes::from(ids::hex(id).to_string());
        let changes = vec![
            SideChange::delete(Bucket::Members, key.clone()),
            SideChange::put(Bucket::MembersRemoved, key, schema::REMOVED),
        ];
        Ok((ConfEffect::Removed(member), changes))
    }

    fn owner_of(&self, peer_url: &str) -> Option<u64> {
        self.members()
            .find(|member| member.peer_urls.iter().any(|url| url == peer_url))
            .map(|member| member.id)
    }

    /// A member published its name and client URLs. One that was removed meanwhile changes nothing.
    pub fn update_attributes(
        &mut self,
        id: u64,
        name: &str,
        client_urls: &[String],
    ) -> Result<Vec<SideChange>, ErrorCode> {
        let Some(member) = self.members.get_mut(&id) else {
            return if self.removed.contains(&id) { Ok(Vec::new()) } else { Err(ErrorCode::MemberNotFound) };
        };
        name.clone_into(&mut member.name);
        member.client_urls = client_urls.to_vec();
        Ok(vec![put_member(member)])
    }

    /// The cluster agreed on a version. Also tells whether it went down, which asks for a snapshot at once.
    pub fn set_version(&mut self, version: Version) -> (Vec<SideChange>, bool) {
        let lowered = self.version.is_some_and(|old| version < old);
        self.version = Some(version);
        (vec![SideChange::put(Bucket::Cluster, schema::CLUSTER_VERSION, version.to_string())], lowered)
    }

    /// A downgrade job starts or ends; its end clears the target.
    pub fn set_downgrade(&mut self, enabled: bool, target: &str) -> Vec<SideChange> {
        let target = if enabled { target.to_owned() } else { String::new() };
        self.downgrade = Downgrade { enabled, target };
        vec![SideChange::put(Bucket::Cluster, schema::DOWNGRADE, self.downgrade.to_json())]
    }

    /// Makes members, removed ids and version those of `truth`, and tells what the buckets need for it. Used once,
    /// when a directory with a 3.5 past is opened: see `v2_snapshot.rs`.
    pub fn reconcile(&mut self, truth: &super::V2Membership) -> Vec<SideChange> {
        let mut changes = Vec::new();
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            if !truth.members.contains_key(&id) {
                self.members.remove(&id);
                changes.push(SideChange::delete(Bucket::Members, ids::hex(id).to_string()));
            }
        }
        for (id, member) in &truth.members {
            if self.members.get(id) != Some(member) {
                changes.push(put_member(member));
                self.members.insert(*id, member.clone());
            }
        }
        for id in &truth.removed {
            if self.removed.insert(*id) {
                changes.push(SideChange::put(
                    Bucket::MembersRemoved,
                    ids::hex(*id).to_string(),
                    schema::REMOVED,
                ));
            }
        }
        if let Some(version) = truth.version.filter(|version| self.version != Some(*version)) {
            changes.extend(self.set_version(version).0);
        }
        changes
    }

    /// Strict reconfiguration: whether enough voters have started that one more may be added.
    pub fn may_add_voter(&self) -> bool {
        let (started, voters) = self.started_voters(None);
        // A cluster of one may always grow, or it never could.
        (started == 1 && voters == 1) || started > voters.div_ceil(2)
    }

    /// Strict reconfiguration: whether the rest still has a quorum of started voters.
    pub fn may_remove_voter(&self, id: u64) -> bool {
        let (started, voters) = self.started_voters(Some(id));
        voters > 0 && started > voters / 2
    }

    /// Strict reconfiguration: whether a learner may become a voter; it counts as started.
    pub fn may_promote(&self) -> bool {
        let (started, voters) = self.started_voters(None);
        started + 1 > voters.div_ceil(2)
    }

    fn started_voters(&self, without: Option<u64>) -> (usize, usize) {
        let voters = || self.members().filter(|m| !m.is_learner && Some(m.id) != without);
        (voters().filter(|m| m.is_started()).count(), voters().count())
    }
}

fn put_member(member: &Member) -> SideChange {
    SideChange::put(Bucket::Members, ids::hex(member.id).to_string(), member.to_json())
}

fn fault(bucket: Bucket, key: &[u8], reason: String) -> Fault {
    Fault { bucket, key: String::from_utf8_lossy(key).into_owned(), reason }
}

fn parse_id(key: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(key).map_err(|_| "the key is not text".to_owned())?;
    ids::parse_hex(text).map_err(|e| format!("the key is not a member id: {e}"))
}

fn parse_version(value: &[u8]) -> Result<Option<Version>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).map_err(|_| "the version is not text".to_owned())?;
    text.parse().map(Some).map_err(|e: api::version::NotAVersion| e.to_string())
}

fn parse_downgrade(value: &[u8]) -> Result<Downgrade, String> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(rename = "target-version")]
        target: Option<String>,
        enabled: Option<bool>,
    }
    let raw: Raw = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    Ok(Downgrade { enabled: raw.enabled.unwrap_or(false), target: raw.target.unwrap_or_default() })
}

#[cfg(test)]
mod tests;
