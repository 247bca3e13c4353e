//! etcd as a pure function of its log: the dumb model that answers, events, leases and states are compared with.
//!
//! Entries are given once each, in order, when the first member applies them. Everything is kept: the state at any
//! index or revision can be asked for later. Nothing here is shared with the product but the message types, the
//! shape of an entry's envelope and the membership rules (whose agreement over restarts and snapshots is checked,
//! not their wording).

mod auth;
mod kv;
mod txn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::error::ErrorCode;
use api::{etcdserverpb as pb, membershippb as mpb, raftpb};
use bytes::Bytes;
use etcdserver::apply::request::Envelope;
use etcdserver::auth::Caller;
use etcdserver::membership::Cluster;
use prost::Message;

pub(crate) use auth::{Access, Auth, ROOT};
pub(crate) use kv::{Change, Keys, in_range};

/// An answer as its bytes, header with revision only; or the refusal.
pub(crate) type Answer = Result<Vec<u8>, ErrorCode>;

/// The state after an entry, as far as it is one number each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) revision: i64,
    pub(crate) compact: i64,
    pub(crate) leases: usize,
}

/// A lease that exists or existed.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) ttl: i64,
    pub(crate) granted_at: u64,
    pub(crate) revoked_at: Option<u64>,
}

/// An entry, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) data: Bytes,
    pub(crate) answer: Answer,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) keys: Keys,
    pub(crate) compact: i64,
    /// Every lease that was ever granted; a revoked id may be granted again, so a list each.
    pub(crate) leases: BTreeMap<i64, Vec<Lease>>,
    live_leases: usize,
    attached: BTreeMap<i64, BTreeSet<Bytes>>,
    alarms: BTreeSet<(i32, u64)>,
    /// By index, those that changed something.
    auths: Vec<(u64, Auth)>,
    pub(crate) cluster: Arc<Cluster>,
    clusters: Vec<(u64, Arc<Cluster>)>,
    /// By index; place 0 is the state before the first entry.
    points: Vec<Point>,
    /// By index; place 0 is nothing.
    entries: Vec<Entry>,
    min_ttl: i64,
    max_learners: usize,
    /// What members said the hash is, by revision and compact revision.
    pub(crate) hashes: BTreeMap<(i64, i64), u32>,
}

const NOSPACE: i32 = 1;

impl Model {
    pub(crate) fn new(min_ttl: i64, max_learners: usize) -> Model {
        let cluster = Arc::new(Cluster::default());
        let nothing = Entry { term: 0, data: Bytes::new(), answer: Ok(Vec::new()) };
        Model {
            keys: Keys::default(),
            compact: -1,
            leases: BTreeMap::new(),
            live_leases: 0,
            attached: BTreeMap::new(),
            alarms: BTreeSet::new(),
            auths: vec![(0, Auth::default())],
            clusters: vec![(0, cluster.clone())],
            cluster,
            points: vec![Point { revision: 1, compact: -1, leases: 0 }],
            entries: vec![nothing],
            min_ttl,
            max_learners,
            hashes: BTreeMap::new(),
        }
    }

    /// Index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.entries.len() as u64 - 1
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(index as usize)
    }

    /// The state after the entry at `index`.
    pub(crate) fn point(&self, index: u64) -> Point {
        self.points[index as usize]
    }

    pub(crate) fn cluster_at(&self, index: u64) -> &Arc<Cluster> {
        let after = self.clusters.partition_point(|(at, _)| *at <= index);
        &self.clusters[after - 1].1
    }

    /// Leases that exist after the entry at `index`, with their times to live.
    pub(crate) fn leases_at(&self, index: u64) -> BTreeMap<i64, i64> {
        let alive = |lease: &&Lease| {
            lease.granted_at <= index && lease.revoked_at.is_none_or(|revoked| revoked > index)
        };
        self.leases
            .iter()
            .filter_map(|(id, lives)| lives.iter().find(alive).map(|lease| (*id, lease.ttl)))
            .collect()
    }

    pub(crate) fn lease_exists(&self, id: i64) -> bool {
        self.leases.get(&id).and_then(|lives| lives.last()).is_some_and(|lease| lease.revoked_at.is_none())
    }

    /// Takes the next entry.
    pub(crate) fn apply(&mut self, entry: &raftpb::Entry) -> &Entry {
        let index = entry.index();
        assert_eq!(index, self.last() + 1, "the model takes entries in order");
        let data = entry.data.clone().unwrap_or_default();
        let before = self.keys.revision;
        let answer = if entry.r#type() == raftpb::EntryType::EntryConfChange {
            self.conf_change(index, &data)
        } else if data.is_empty() {
            Ok(Vec::new())
        } else {
            let envelope = Envelope::parse(&data).expect("entries are requests");
            self.request(index, &envelope)
        };
        assert!(self.keys.revision <= before + 1, "an entry makes one revision at most");
        self.entries.push(Entry { term: entry.term(), data, answer });
        let (revision, compact, leases) = (self.keys.revision, self.compact, self.live_leases);
        self.points.push(Point { revision, compact, leases });
        self.entries.last().expect("just pushed")
    }

    fn request(&mut self, index: u64, envelope: &Envelope<'_>) -> Answer {
        let Envelope { field, body, caller, .. } = *envelope;
        match field {
            4 => self.put_request(caller, &decode(body)),
            5 => self.delete_request(caller, &decode(body)),
            6 => self.txn_request(caller, &decode(body)),
            7 => self.compaction(&decode(body)),
            8 => self.grant(index, &decode(body)),
            9 => self.revoke(index, caller, &decode(body)),
            10 => self.alarm(&decode(body)),
            11 => Ok(pb::LeaseCheckpointResponse { header: self.header() }.encode_to_vec()),
            1300 => {
                let request: mpb::ClusterVersionSetRequest = decode(body);
                let version = request.ver.parse().expect("members write versions");
                self.change_cluster(index, |cluster| _ = cluster.set_version(version));
                Ok(Vec::new())
            }
            1301 => {
                let request: mpb::ClusterMemberAttrSetRequest = decode(body);
                let attributes = request.member_attributes.unwrap_or_default();
                self.change_cluster(index, |cluster| {
                    // One that was removed meanwhile changes nothing.
                    let _ = cluster.update_attributes(
                        request.member_id,
                        &attributes.name,
                        &attributes.client_urls,
                    );
                });
                Ok(Vec::new())
            }
            1000..1300 => self.auth_request(index, field, caller, body),
            other => panic!("entry {index}: nobody here proposes requests of kind {other}"),
        }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        header(self.keys.revision)
    }

    fn change_cluster<T>(&mut self, index: u64, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let changed = change(Arc::make_mut(&mut self.cluster));
        self.clusters.push((index, self.cluster.clone()));
        changed
    }

    fn conf_change(&mut self, index: u64, data: &Bytes) -> Answer {
        let change = raftpb::ConfChange::decode(data.clone()).expect("entries are membership changes");
        let max_learners = self.max_learners;
        self.change_cluster(index, |cluster| cluster.apply_conf_change(&change, max_learners))
            .map(|_| Vec::new())
    }

    fn no_space(&self) -> bool {
        self.alarms.iter().any(|(kind, _)| *kind == NOSPACE)
    }

    fn attach(&mut self, key: &Bytes, from: i64, to: i64) {
        if let Some(keys) = self.attached.get_mut(&from) {
            keys.remove(key);
        }
        if to != 0 {
            self.attached.entry(to).or_default().insert(key.clone());
        }
    }

    fn compaction(&mut self, request: &pb::CompactionRequest) -> Answer {
        if request.revision <= self.compact {
            return Err(ErrorCode::Compacted);
        }
        if request.revision > self.keys.revision {
            return Err(ErrorCode::FutureRev);
        }
        self.compact = request.revision;
        Ok(pb::CompactionResponse { header: self.header() }.encode_to_vec())
    }

    fn grant(&mut self, index: u64, request: &pb::LeaseGrantRequest) -> Answer {
        if self.no_space() {
            return Err(ErrorCode::NoSpace);
        }
        let id = request.id;
        if id == 0 {
            return Err(ErrorCode::LeaseNotFound);
        }
        if self.lease_exists(id) {
            return Err(ErrorCode::LeaseExist);
        }
        let ttl = request.ttl.max(self.min_ttl);
        self.leases.entry(id).or_default().push(Lease { ttl, granted_at: index, revoked_at: None });
        self.live_leases += 1;
        let answer = pb::LeaseGrantResponse { header: self.header(), id, ttl, ..Default::default() };
        Ok(answer.encode_to_vec())
    }

    fn revoke(&mut self, index: u64, caller: Caller<'_>, request: &pb::LeaseRevokeRequest) -> Answer {
        let id = request.id;
        self.auth().check_lease(caller, Access::Write, self.keys_of(id))?;
        if !self.lease_exists(id) {
            return Err(ErrorCode::LeaseNotFound);
        }
        let keys = self.attached.remove(&id).unwrap_or_default();
        let mut changes = self.keys.begin();
        for key in &keys {
            self.keys.delete(&mut changes, key);
        }
        self.keys.end(changes);
        let lives = self.leases.get_mut(&id).expect("it exists");
        lives.last_mut().expect("it exists").revoked_at = Some(index);
        self.live_leases -= 1;
        Ok(pb::LeaseRevokeResponse { header: self.header() }.encode_to_vec())
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> Answer {
        let entry = (request.alarm, request.member_id);
        let shown = pb::AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let alarms = match request.action {
            1 => {
                self.alarms.insert(entry);
                vec![shown]
            }
            2 if self.alarms.remove(&entry) => vec![shown],
            2 => Vec::new(),
            _ => self
                .alarms
                .iter()
                .filter(|(kind, _)| request.alarm == 0 || *kind == request.alarm)
                .map(|(alarm, member_id)| pb::AlarmMember { member_id: *member_id, alarm: *alarm })
                .collect(),
        };
        Ok(pb::AlarmResponse { header: self.header(), alarms }.encode_to_vec())
    }

    /// Members with an alarm about room.
    pub(crate) fn no_space_alarms(&self) -> Vec<u64> {
        self.alarms.iter().filter(|(kind, _)| *kind == NOSPACE).map(|(_, member)| *member).collect()
    }
}

/// A header that names only the revision.
pub(crate) fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn decode<M: Message + Default>(body: &[u8]) -> M {
    M::decode(body).expect("clients of the simulator send whole messages")
}
