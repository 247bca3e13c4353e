//! From a disk to running lanes, and what is checked on the way: checkers 5 and 8, the database's half of 9.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::raftpb;
use etcdserver::apply::{Applier, Settings};
use etcdserver::auth::{AuthState, AuthStore};
use etcdserver::membership::{Cluster, V2Membership};
use etcdserver::raft::{Node, Start};
use etcdserver::read::Published;
use etcdserver::{Config, bootstrap};
use mvcc::schema::Bucket;
use mvcc::watch::Hub;
use mvcc::{RangeEnd, RangeQuery};
use prost::Message;

use super::{Died, Member, Running, Turn, shared};
use crate::failure::{Checker, ensure, fail};
use crate::model::Model;

/// What a member has told others, or itself, is durable.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Promise {
    /// Index and term of the last entry.
    pub(crate) last: Option<(u64, u64)>,
    pub(crate) term: u64,
    pub(crate) vote: u64,
}

impl Member {
    /// Starts the process. `Err` when the disk refused, which is the end of the process again.
    pub(crate) fn start(&mut self, world_ns: u64, model: &mut Model) -> Result<(), Died> {
        self.boot += 1;
        let disk = shared(&self.disk);
        self.check_log_image()?;
        let recovered = bootstrap::bootstrap(&disk, &self.config, &self.options)?;
        self.id = recovered.report.member_id;
        if !recovered.report.is_new {
            check_promise(&self.promise, &recovered.start);
        }
        let reader = recovered.db.reader();
        if let Err(violations) = bolt::check::check(&reader.view()) {
            fail(Checker::Recovery, format!("the database after a crash: {violations:?}"));
        }
        let promise = Promise {
            last: recovered.start.entries.last().map(|entry| (entry.index(), entry.term())),
            term: recovered.start.hard_state.term(),
            vote: recovered.start.hard_state.vote(),
        };
        check_attachments(&recovered.attachments, recovered.report.consistent_index, model);
        let settings = Settings::new(&self.config);
        let applier = Applier::new(settings, recovered.store, recovered.attachments, recovered.cluster)?;
        check_state(&applier, model);
        let now = self.now(world_ns);
        let node = Node::new(&self.config, recovered.start, now)?;
        let published = applier.publish();
        let applied = applier.applied();
        let cluster = applier.cluster().clone();
        let compaction_due = applier.store().is_compacting();
        let run = Running {
            hub: Hub::new(&published.view),
            node,
            applier,
            published,
            inbox: std::collections::VecDeque::new(),
            wake_at: u64::MAX,
            hub_busy_until: 0,
            wal: recovered.wal,
            db: Some(recovered.db),
            reader,
            config: self.config.clone(),
            options: self.options.clone(),
            tuning: self.tuning,
            log_jobs: std::collections::VecDeque::new(),
            log_waits: false,
            postponed: None,
            log_now: None,
            commit_now: None,
            promise,
            reads: Vec::new(),
            builds: Vec::new(),
            outcome: Default::default(),
            effects: Vec::new(),
            events: Vec::new(),
            unflushed_since: Some(now.mono_ns),
            frozen_at: applied,
            file_at: applied,
            frozen_cluster: cluster.clone(),
            durable_cluster: cluster.clone(),
            file_cluster: cluster,
            snapshot: None,
            compaction_due,
            compacted: false,
            room: Default::default(),
            is_dirty: true,
            led_term: 0,
            received: 0,
            members_may_differ: true,
            checked_auth: None,
            is_removed: false,
        };
        self.promise = promise;
        self.run = Some(Box::new(run));
        let (mut out, run) = (Vec::new(), self.run.as_mut().expect("just made"));
        let turn = Turn { now, model, seen: &mut |_, _, _| (), out: &mut out };
        run.tell_versions(&turn)?;
        run.tell_identity(&turn)
    }

    fn check_log_image(&self) -> Result<(), Died> {
        let dir = self.config.wal_path();
        if !wal::exists(&self.disk, &dir)? {
            return Ok(());
        }
        let report = wal::verify(&self.disk, &dir)?;
        if let Some(problem) = report.problems.first() {
            fail(Checker::Recovery, format!("the log after a crash: {problem:?}"));
        }
        Ok(())
    }
}

impl Running {
    /// Whether a removal is applied, and will still be after a power cut.
    pub(crate) fn knows_removed(&self, id: u64) -> bool {
        self.durable_cluster.is_removed(id)
    }

    pub(crate) fn is_compacting(&self) -> bool {
        self.compaction_due
    }
}

/// Checker 5: terms, votes and entries that others count on are there.
fn check_promise(promise: &Promise, start: &Start) {
    let (term, vote) = (start.hard_state.term(), start.hard_state.vote());
    ensure!(term >= promise.term, Durability, "term {term} after a crash, {} before", promise.term);
    ensure!(
        term > promise.term || promise.vote == 0 || vote == promise.vote,
        Durability,
        "in term {term} the member voted for {:x} before the crash, for {vote:x} after it",
        promise.vote
    );
    let Some((index, term)) = promise.last else { return };
    let kept = start.log_start.0 >= index
        || start.entries.iter().any(|entry| {
            (entry.index() == index && entry.term() == term)
                || (entry.index() <= index && entry.term() > term)
        });
    ensure!(
        kept,
        Durability,
        "entry {index} of term {term} was durable before the crash; after it the log holds {:?} to {:?}",
        start.log_start,
        start.entries.last().map(|entry| (entry.index(), entry.term()))
    );
}

fn check_attachments(found: &[(i64, bytes::Bytes)], index: u64, model: &Model) {
    ensure!(index <= model.last(), Agreement, "the database is at {index}, nobody applied that yet");
    let revision = model.point(index).revision;
    let expected = model.keys.range(b"", &[0], revision);
    let expected: Vec<(i64, &[u8])> =
        expected.into_iter().filter(|kv| kv.lease != 0).map(|kv| (kv.lease, &kv.key[..])).collect();
    let found: Vec<(i64, &[u8])> = found.iter().map(|(lease, key)| (*lease, &key[..])).collect();
    ensure!(found == expected, Recovery, "at {index} keys hang on leases {found:?}, should be {expected:?}");
}

/// Checker 8 and 2: numbers of the state are those of the model, after every batch of entries.
pub(super) fn check_point(applier: &Applier, model: &Model) {
    let (index, _) = applier.applied();
    ensure!(index <= model.last(), Agreement, "applied {index}, the model is at {}", model.last());
    let point = model.point(index);
    let store = applier.store();
    ensure!(
        (store.revision(), store.compact_revision()) == (point.revision, point.compact),
        Hash,
        "after entry {index}: revision {} compacted {}, the model has {point:?}",
        store.revision(),
        store.compact_revision()
    );
    let leases = store.side_len(Bucket::Lease);
    ensure!(
        leases == point.leases,
        Hash,
        "after entry {index}: {leases} leases, the model has {}",
        point.leases
    );
}

/// Revisions between two that are hashed.
const HASH_EVERY: i64 = 50;

/// Checker 2: members that hash a revision, compacted equally far, agree, whatever of a compaction they have done.
pub(super) fn check_hashes(applier: &Applier, model: &mut Model, before: i64) {
    let store = applier.store();
    let revision = store.revision() / HASH_EVERY * HASH_EVERY;
    if revision <= before.max(store.compact_revision()) {
        return;
    }
    match store.view().hash_kv(revision) {
        Ok(hash) => {
            let known = *model.hashes.entry((revision, hash.compact_revision)).or_insert(hash.hash);
            ensure!(
                known == hash.hash,
                Hash,
                "member {:x} has {hash:?}, another one {known}",
                applier.cluster().local_id()
            );
        }
        Err(error) => fail(Checker::Hash, format!("revision {revision} cannot be hashed: {error}")),
    }
}

/// The whole state is that of the model: keys, leases, members.
pub(crate) fn check_state(applier: &Applier, model: &Model) {
    check_point(applier, model);
    let (index, _) = applier.applied();
    let view = applier.store().view();
    let everything = RangeQuery::new(bytes::Bytes::from_static(b"\0"), RangeEnd::Unbounded);
    let expected = model.keys.range(b"", &[0], model.point(index).revision);
    let mut at = 0;
    let summary = view.range(&everything, &mut |record| {
        let same = expected.get(at).is_some_and(|kv| kv.encode_to_vec() == record);
        ensure!(same, Hash, "after entry {index}: key {at} is {record:x?}, should be {:?}", expected.get(at));
        at += 1;
    });
    ensure!(summary.is_ok(), Recovery, "after entry {index} the keys cannot be read: {summary:?}");
    ensure!(at == expected.len(), Hash, "after entry {index}: {at} keys, the model has {}", expected.len());
    let mut leases = BTreeMap::new();
    for (key, value) in applier.store().side_iter(Bucket::Lease) {
        match api::leasepb::Lease::decode(value.clone()) {
            Ok(lease) => _ = leases.insert(lease.id, lease.ttl),
            Err(error) => fail(Checker::Recovery, format!("lease {key:x?}: {error}")),
        }
    }
    let expected = model.leases_at(index);
    ensure!(leases == expected, Hash, "after entry {index}: leases {leases:?}, should be {expected:?}");
    check_auth(&applier.publish(), &mut None, model);
    let pairs = [Bucket::Auth, Bucket::AuthUsers, Bucket::AuthRoles].into_iter().flat_map(|bucket| {
        applier.store().side_iter(bucket).map(move |(key, value)| (bucket, key.clone(), value.clone()))
    });
    match AuthStore::restore(pairs, 0) {
        Ok((stored, _)) => check_auth_state(index, stored.state(), model),
        Err(error) => fail(Checker::Recovery, format!("after entry {index}: {error:?}")),
    }
    check_members(applier, model);
}

/// Checker 7: users, roles and rights are those of the model, looked at when they have changed.
pub(super) fn check_auth(published: &Published, checked: &mut Option<Arc<AuthState>>, model: &Model) {
    if checked.as_ref().is_some_and(|checked| Arc::ptr_eq(checked, &published.auth)) {
        return;
    }
    check_auth_state(published.applied, &published.auth, model);
    *checked = Some(published.auth.clone());
}

fn check_auth_state(index: u64, state: &AuthState, model: &Model) {
    if let Some(difference) = model.auth_at(index).difference(state) {
        fail(Checker::Auth, format!("after entry {index}: {difference}"));
    }
}

/// Checker 9, the half that concerns the database: bucket and memory are what the log says.
pub(crate) fn check_members(applier: &Applier, model: &Model) {
    let (index, _) = applier.applied();
    let (own, expected) = (applier.cluster(), model.cluster_at(index));
    let stored = Cluster::from_buckets(own.id(), own.local_id(), |bucket| {
        applier.store().side_iter(bucket).map(|(key, value)| (key.clone(), value.clone())).collect()
    });
    ensure!(
        stored.as_ref().is_ok_and(|stored| *stored == **own),
        Membership,
        "at {index} the buckets hold {stored:?}, memory {own:?}"
    );
    check_same(index, &V2Membership::of(own), expected);
}

fn check_same(index: u64, found: &V2Membership, expected: &Cluster) {
    let expected = V2Membership::of(expected);
    ensure!(
        *found == expected,
        Membership,
        "at {index} the members are {found:?}, the log says {expected:?}"
    );
}

/// Checker 9, the files: what `.snap` files say of the members is what the log says at their index.
pub(super) fn check_snap_files(disk: &dyn disk::Disk, config: &Config, model: &Model) {
    let Ok(names) = disk.read_dir(&config.snap_dir()) else { return };
    let newest = names.iter().rfind(|name| wal::snap::parse_file_name(name).is_some());
    let Some(name) = newest else { return };
    // A disk that refuses ends the member elsewhere.
    let Ok(snapshot) = wal::snap::load(disk, &config.snap_dir().join(name)) else { return };
    let metadata = snapshot.metadata.clone().unwrap_or_default();
    let index = metadata.index();
    ensure!(index <= model.last(), Membership, "{name} is ahead of everything applied");
    let expected = model.cluster_at(index);
    match V2Membership::parse(snapshot.data()) {
        Ok(found) => check_same(index, &found, expected),
        Err(error) => fail(Checker::Membership, format!("{name}: {error}")),
    }
    let conf_state = metadata.conf_state.unwrap_or_default();
    let of = |state: &raftpb::ConfState| (state.voters.clone(), state.learners.clone());
    ensure!(
        of(&conf_state) == of(&expected.conf_state()),
        Membership,
        "{name} has the conf state {conf_state:?}, the log says {:?}",
        expected.conf_state()
    );
}

/// A handle that production code takes.
pub(crate) fn disk_of(member: &Member) -> Arc<dyn disk::Disk> {
    shared(&member.disk)
}
