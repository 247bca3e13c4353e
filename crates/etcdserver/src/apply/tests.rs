//! The apply lane over a database in memory: case tables, entries that Go wrote, a dumb model, stories of bugs.

mod alarms;
mod auth;
mod determinism;
mod entries;
mod known_bugs;
mod kv;
mod leases;
mod model;
mod replay;

use std::path::Path;
use std::sync::Arc;

use api::Status;
use api::etcdserverpb as pb;
use bytes::Bytes;
use disk::Disk;
use disk::mem::MemDisk;
use prost::Message;

use super::*;

pub(crate) const LOCAL: u64 = 0x5267_fd4a_e6eb_ae02;
pub(crate) const CLUSTER: u64 = 0x88ef_9ed3_d066_172d;

pub(crate) type Answer = Result<Reply, Status>;

/// A lane with its file, fed by hand.
pub(crate) struct Lane {
    disk: Arc<dyn Disk>,
    db: bolt::Db,
    frozen: Option<bolt::Batch>,
    pub(crate) applier: Applier,
    settings: Settings,
    /// The outcome of the last entry.
    pub(crate) last: Outcome,
    pub(crate) user: (String, u64),
}

pub(crate) fn settings() -> Settings {
    Settings {
        min_lease_ttl: 2,
        max_learners: 1,
        quota: Quota::new(0),
        bcrypt_cost: 4,
        store_checkpoints: false,
        keys_only_lease: false,
    }
}

impl Lane {
    pub(crate) fn new() -> Lane {
        Lane::with(settings())
    }

    pub(crate) fn with(settings: Settings) -> Lane {
        Lane::open(Arc::new(MemDisk::new()), settings)
    }

    fn open(disk: Arc<dyn Disk>, settings: Settings) -> Lane {
        let options = bolt::Options { directory_bucket: Some(b"key"), ..bolt::Options::default() };
        let db = bolt::Db::open(&disk, Path::new("/db"), options).unwrap();
        let (store, restored) = Store::restore(db.reader().view()).unwrap();
        let cluster = Cluster::from_buckets(CLUSTER, LOCAL, |bucket| {
            store.side_iter(bucket).map(|(key, value)| (key.clone(), value.clone())).collect()
        })
        .unwrap();
        let applier = Applier::new(settings, store, restored.attachments, cluster).unwrap();
        Lane { disk, db, frozen: None, applier, settings, last: Outcome::default(), user: (String::new(), 0) }
    }

    /// All that is applied reaches the file; the process ends and starts again.
    pub(crate) fn restart(mut self) -> Lane {
        self.flush();
        let Lane { disk, db, applier, settings, user, .. } = self;
        drop(applier);
        drop(db);
        Lane { user, ..Lane::open(disk, settings) }
    }

    pub(crate) fn freeze(&mut self) {
        if self.frozen.is_none() {
            self.frozen = self.applier.store_mut().freeze_all();
        }
    }

    pub(crate) fn commit(&mut self) {
        if let Some(batch) = self.frozen.take() {
            self.db.commit(&batch).unwrap();
            self.applier.store_mut().committed(self.db.reader().view());
        }
    }

    pub(crate) fn flush(&mut self) {
        self.commit();
        self.freeze();
        self.commit();
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.applier.applied().0 + 1
    }

    /// Applies one entry of term 2.
    pub(crate) fn entry(&mut self, kind: EntryType, data: impl Into<Bytes>) {
        let entry = raftpb::Entry {
            term: Some(2),
            index: Some(self.next_index()),
            r#type: Some(kind.into()),
            data: Some(data.into()),
        };
        self.last = Outcome::default();
        let work = Committed { snapshot: None, entries: vec![entry] };
        self.applier.apply(Now::default(), work, &mut self.last).unwrap();
    }

    /// Applies a request as an entry that this member proposed, and takes its answer.
    pub(crate) fn ask(&mut self, request: pb::InternalRaftRequest) -> Answer {
        let id = (LOCAL & 0xffff) << 48 | self.next_index();
        let (username, auth_revision) = self.user.clone();
        let header = Some(pb::RequestHeader { id, username, auth_revision });
        self.entry(EntryType::EntryNormal, pb::InternalRaftRequest { header, ..request }.encode_to_vec());
        let mut replies = std::mem::take(&mut self.last.replies);
        assert_eq!(replies.len(), 1, "one answer per request");
        let (of, answer) = replies.pop().unwrap();
        assert_eq!(of, id);
        answer
    }

    pub(crate) fn put(&mut self, request: pb::PutRequest) -> Answer {
        self.ask(pb::InternalRaftRequest { put: Some(request), ..Default::default() })
    }

    /// Puts a key and returns its revision.
    pub(crate) fn p(&mut self, key: &str, value: &str) -> i64 {
        self.put(put(key, value)).unwrap().revision()
    }

    pub(crate) fn delete(&mut self, request: pb::DeleteRangeRequest) -> Answer {
        self.ask(pb::InternalRaftRequest { delete_range: Some(request), ..Default::default() })
    }

    pub(crate) fn txn(&mut self, request: pb::TxnRequest) -> Answer {
        self.ask(pb::InternalRaftRequest { txn: Some(request), ..Default::default() })
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Answer {
        let compaction = Some(pb::CompactionRequest { revision, physical: false });
        self.ask(pb::InternalRaftRequest { compaction, ..Default::default() })
    }

    pub(crate) fn finish_compaction(&mut self) {
        while self.applier.store().is_compacting() {
            self.applier.store_mut().compaction_step(7).unwrap();
        }
    }

    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Answer {
        let lease_grant = Some(pb::LeaseGrantRequest { id, ttl });
        self.ask(pb::InternalRaftRequest { lease_grant, ..Default::default() })
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Answer {
        let lease_revoke = Some(pb::LeaseRevokeRequest { id });
        self.ask(pb::InternalRaftRequest { lease_revoke, ..Default::default() })
    }

    /// Keys on a lease.
    pub(crate) fn keys_of(&self, lease: i64) -> Vec<String> {
        let keys = self.applier.publish().leases.keys(lease);
        keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    /// Reads as the edge does: checks, then the published state.
    pub(crate) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let bytes = request.encode_to_vec();
        let parsed = request::Range::parse(&bytes).unwrap();
        validate::range(&parsed)?;
        let mut out = Vec::new();
        let caller = Caller { name: &self.user.0, revision: self.user.1 };
        crate::read::range(&self.applier.publish(), caller, &parsed, &mut out)?;
        Ok(pb::RangeResponse::decode(&out[..]).unwrap())
    }

    /// The key's record now.
    pub(crate) fn get(&self, key: &str) -> Option<api::mvccpb::KeyValue> {
        self.range(&get(key)).unwrap().kvs.pop()
    }

    pub(crate) fn revision(&self) -> i64 {
        self.applier.store().revision()
    }

    pub(crate) fn hash(&self) -> mvcc::HashKv {
        self.applier.store().view().hash_kv(0).unwrap()
    }
}

pub(crate) fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: b(key), ..Default::default() }
}

pub(crate) fn list(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: b(key), range_end: b(end), ..Default::default() }
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: b(key), value: b(value), ..Default::default() }
}

pub(crate) fn del(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: b(key), range_end: b(end), prev_kv: false }
}

/// Operations of transactions, spelled as in the case tables.
pub(crate) mod op {
    use api::etcdserverpb as pb;
    use pb::request_op::Request;

    use super::b;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    pub(crate) fn p(key: &str, value: &str) -> pb::RequestOp {
        put(super::put(key, value))
    }

    pub(crate) fn put(request: pb::PutRequest) -> pb::RequestOp {
        op(Request::RequestPut(request))
    }

    pub(crate) fn r(key: &str) -> pb::RequestOp {
        range(super::get(key))
    }

    pub(crate) fn range(request: pb::RangeRequest) -> pb::RequestOp {
        op(Request::RequestRange(request))
    }

    pub(crate) fn d(key: &str, end: &str) -> pb::RequestOp {
        op(Request::RequestDeleteRange(super::del(key, end)))
    }

    pub(crate) fn t(request: pb::TxnRequest) -> pb::RequestOp {
        op(Request::RequestTxn(request))
    }

    /// A transaction without comparisons.
    pub(crate) fn then(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
        pb::TxnRequest { success, ..Default::default() }
    }

    /// A transaction with all three parts.
    pub(crate) fn txn(
        compare: Vec<pb::Compare>,
        success: Vec<pb::RequestOp>,
        failure: Vec<pb::RequestOp>,
    ) -> pb::TxnRequest {
        pb::TxnRequest { compare, success, failure }
    }

    /// `relation` is one of `= > < !`.
    pub(crate) fn cmp(key: &str, end: &str, relation: char, union: pb::compare::TargetUnion) -> pb::Compare {
        use pb::compare::TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};
        let target = match union {
            Version(_) => 0,
            CreateRevision(_) => 1,
            ModRevision(_) => 2,
            Value(_) => 3,
            Lease(_) => 4,
        };
        let result = "=><!".find(relation).and_then(|at| i32::try_from(at).ok()).unwrap();
        pb::Compare { result, target, key: b(key), range_end: b(end), target_union: Some(union) }
    }
}

/// The answer as Go's message.
pub(crate) fn message<M: Message + Default>(answer: &Answer) -> M {
    let mut out = Vec::new();
    answer.as_ref().unwrap().encode(&HeaderIds::default(), &mut out);
    M::decode(&out[..]).unwrap()
}

/// The error's text without its prefix.
pub(crate) fn refused(answer: Result<impl std::fmt::Debug, Status>) -> String {
    answer.unwrap_err().message.trim_start_matches("etcdserver: ").to_owned()
}

pub(crate) const KEY_NOT_FOUND: &str = "key not found";
pub(crate) const LEASE_NOT_FOUND: &str = "requested lease not found";
pub(crate) const COMPACTED: &str = "mvcc: required revision has been compacted";
pub(crate) const FUTURE: &str = "mvcc: required revision is a future revision";
pub(crate) const NO_SPACE: &str = "mvcc: database space exceeded";
pub(crate) const CORRUPT: &str = "corrupt cluster";
