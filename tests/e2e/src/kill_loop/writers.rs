//! The load: several clients that write, read, lease, compact and hash at the same time, over the same few keys.

use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb as pb;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tonic::{Code, Status};

use super::watcher;
use super::world::{Hash, Read, Turns, World};
use crate::ledger::{Kind, LONG_TTL, Outcome, value_of};
use crate::rpc::Link;

const CLIENTS: u64 = 6;
/// Hashes kept to be compared after the next restart.
const HASHES_MAX: usize = 8;
/// Reads kept between two checks; more are not looked at.
const READS_MAX: usize = 20_000;

#[derive(Clone, Copy)]
enum Role {
    Client,
    Lessor,
    Compactor,
    Hasher,
    Chores,
}

/// Runs everybody until the end.
pub(super) async fn run(world: Arc<World>, seed: u64) {
    let roles = std::iter::repeat_n(Role::Client, CLIENTS as usize);
    let roles = roles.chain([Role::Lessor, Role::Compactor, Role::Hasher, Role::Chores]);
    let mut tasks = vec![tokio::spawn(watcher::run(world.clone()))];
    for (nth, role) in roles.enumerate() {
        let rng = SmallRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(nth as u64));
        tasks.push(tokio::spawn(work(world.clone(), role, rng)));
    }
    for task in tasks {
        if let Err(error) = task.await {
            world.fail(format!("a client panicked: {error}"));
        }
    }
}

async fn work(world: Arc<World>, role: Role, mut rng: SmallRng) {
    let mut turns = Turns::new(&world);
    while let Some(turn) = turns.next().await {
        let client = Client { world: &world, link: &turn.link, rng: &mut rng };
        tokio::select! {
            biased;
            () = turns.down() => {}
            () = client.repeat(role) => {}
        }
    }
}

struct Client<'a> {
    world: &'a World,
    link: &'a Link,
    rng: &'a mut SmallRng,
}

/// Errors that say that nothing happened. All others leave it open.
fn says_no(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::NotFound | Code::AlreadyExists
    )
}

fn revision_of(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

impl Client<'_> {
    async fn repeat(mut self, role: Role) {
        loop {
            let (went_well, pause) = match role {
                Role::Client => (self.operation().await, 0),
                Role::Lessor => (self.lease().await, 15),
                Role::Compactor => (self.compact().await, 60),
                Role::Hasher => (self.hash().await, 15),
                Role::Chores => (self.chore().await, 200),
            };
            let pause = if went_well { pause } else { pause.max(5) };
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    fn key(&mut self) -> Bytes {
        let folder = ["a", "b", "c"][self.rng.random_range(0..3)];
        format!("{folder}/{:02}", self.rng.random_range(0..24)).into()
    }

    async fn operation(&mut self) -> bool {
        match self.rng.random_range(0..100) {
            0..45 => self.put().await,
            45..56 => self.delete().await,
            56..75 => self.txn().await,
            75..93 => self.read(false).await,
            _ => self.read(true).await,
        }
    }

    /// Notes how an operation ended; says whether there was an answer.
    fn ended(&self, id: usize, result: &Result<(i64, bool), Status>) -> bool {
        let outcome = match result {
            Ok((revision, changed)) => Outcome::Done(*revision, *changed),
            Err(status) if says_no(status) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        self.world.ledger.lock().end(id, outcome);
        if let Ok((revision, _)) = result {
            self.world.see(*revision);
        }
        matches!(outcome, Outcome::Done(..) | Outcome::Refused)
    }

    async fn put(&mut self) -> bool {
        let key = self.key();
        let lease = if self.rng.random_ratio(1, 5) {
            let leases = self.world.leases.lock();
            if leases.is_empty() { 0 } else { leases[self.rng.random_range(0..leases.len())] }
        } else {
            0
        };
        let id = self.world.ledger.lock().begin(Kind::Put { key: key.clone(), lease });
        let request = pb::PutRequest { key, value: value_of(id, 0), lease, ..pb::PutRequest::default() };
        let result = self.link.call(request).await;
        self.ended(id, &result.map(|answer| (revision_of(answer.header.as_ref()), true)))
    }

    async fn delete(&mut self) -> bool {
        let key = self.key();
        let end = match self.rng.random_range(0..10) {
            0 => Bytes::from(client::prefix_end(&key[..2])),
            1..4 => Bytes::from(client::prefix_end(&key[..3])),
            _ => Bytes::new(),
        };
        let key = match end.len() {
            0 => key,
            len => key.slice(..len),
        };
        let id = self.world.ledger.lock().begin(Kind::Delete { key: key.clone(), end: end.clone() });
        let request = pb::DeleteRangeRequest { key, range_end: end, prev_kv: false };
        let result = self.link.call(request).await;
        self.ended(id, &result.map(|answer| (revision_of(answer.header.as_ref()), answer.deleted > 0)))
    }

    async fn txn(&mut self) -> bool {
        let key = self.key();
        let read = pb::RangeRequest { key: key.clone(), serializable: true, ..pb::RangeRequest::default() };
        let Ok(found) = self.link.call(read).await else { return false };
        let modified = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let other = self.key();
        let mut deletes = vec![self.key()];
        deletes.retain(|third| *third != key && *third != other);
        let mut puts = vec![key.clone()];
        if other != key {
            puts.push(other);
        }
        let kind = Kind::Txn { guard: (key.clone(), modified), puts: puts.clone(), deletes: deletes.clone() };
        let id = self.world.ledger.lock().begin(kind);
        let compare = pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key,
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(modified)),
        };
        let put = |(nth, key)| {
            Request::RequestPut(pb::PutRequest { key, value: value_of(id, nth), ..pb::PutRequest::default() })
        };
        let delete = |key| {
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() })
        };
        let success = puts.into_iter().enumerate().map(put).chain(deletes.into_iter().map(delete));
        let success = success.map(|request| pb::RequestOp { request: Some(request) }).collect();
        let request = pb::TxnRequest { compare: vec![compare], success, failure: Vec::new() };
        let result = self.link.call(request).await;
        self.ended(id, &result.map(|answer| (revision_of(answer.header.as_ref()), answer.succeeded)))
    }

    async fn read(&mut self, serializable: bool) -> bool {
        let key = self.key();
        let (key, end) = if self.rng.random_ratio(1, 4) {
            (key.slice(..2), Bytes::from(client::prefix_end(&key[..2])))
        } else {
            (key, Bytes::new())
        };
        let known = self.world.seen();
        let request = pb::RangeRequest {
            key: key.clone(),
            range_end: end.clone(),
            serializable,
            ..pb::RangeRequest::default()
        };
        let Ok(answer) = self.link.call(request).await else { return false };
        let revision = revision_of(answer.header.as_ref());
        // The only member is the leader: what anybody has seen is there, even for a serializable read.
        if revision < known {
            self.world.fail(format!("a read at {revision} after {known} had been seen"));
        }
        self.world.see(revision);
        let what = if serializable { "serializable read" } else { "read" };
        let mut reads = self.world.reads.lock();
        if reads.len() < READS_MAX {
            reads.push(Read { what, key, end, revision, answer: answer.kvs });
        }
        true
    }

    async fn lease(&mut self) -> bool {
        let known: Vec<i64> = self.world.leases.lock().clone();
        if known.len() > 12 {
            let lease = known[self.rng.random_range(0..known.len())];
            self.world.leases.lock().retain(|other| *other != lease);
            let id = self.world.ledger.lock().begin(Kind::Revoke { lease });
            let answer = self.link.call(pb::LeaseRevokeRequest { id: lease }).await;
            // Whether keys went with it is found in the history: it is only known that it happened.
            let changed = |answer: pb::LeaseRevokeResponse| (revision_of(answer.header.as_ref()), false);
            return self.ended(id, &answer.map(changed));
        }
        let lease = self.rng.random_range(1..i64::MAX);
        let ttl = if self.rng.random_ratio(1, 4) { 2 } else { LONG_TTL };
        let id = self.world.ledger.lock().begin(Kind::Grant { lease, ttl });
        let answer = self.link.call(pb::LeaseGrantRequest { ttl, id: lease }).await;
        if answer.is_ok() {
            self.world.leases.lock().push(lease);
        }
        self.ended(id, &answer.map(|answer| (revision_of(answer.header.as_ref()), false)))
    }

    async fn compact(&mut self) -> bool {
        let last = self.world.history.lock().last();
        let revision = last - self.rng.random_range(15..120);
        {
            let mut compaction = self.world.compaction.lock();
            if compaction.is_held || revision <= compaction.asked.max(1) {
                return true;
            }
            compaction.asked = revision;
        }
        let physical = self.rng.random_ratio(1, 3);
        if self.link.call(pb::CompactionRequest { revision, physical }).await.is_err() {
            return false;
        }
        self.world.compaction.lock().done = revision;
        self.world.tallies.lock().compactions += 1;
        true
    }

    async fn hash(&mut self) -> bool {
        let revision = self.world.history.lock().last() - self.rng.random_range(0..10);
        if revision <= self.world.compaction.lock().asked.max(1) {
            return true;
        }
        let Ok(answer) = self.link.call(pb::HashKvRequest { revision }).await else { return false };
        let hash = Hash { revision, compacted: answer.compact_revision, hash: answer.hash };
        let mut hashes = self.world.hashes.lock();
        hashes.push_back(hash);
        if hashes.len() > HASHES_MAX {
            hashes.pop_front();
        }
        true
    }

    async fn chore(&mut self) -> bool {
        let went_well = match self.rng.random_range(0..4) {
            0 => self.link.call(pb::DefragmentRequest {}).await.is_ok(),
            1 => match self.link.stream(pb::SnapshotRequest {}).await {
                Ok(mut pieces) => loop {
                    match pieces.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                },
                Err(_) => false,
            },
            _ => return self.link.call(pb::StatusRequest {}).await.is_ok(),
        };
        self.world.tallies.lock().chores += u64::from(went_well);
        went_well
    }
}
