//! A client that writes and reads at random over a few keys, which all clients share, and notes how it ended.
//!
//! That reads and writes are linearizable shows in revisions: whatever has been shown to anybody before a request is
//! sent, its answer must not be older.

use std::time::Duration;

use api::etcdserverpb as pb;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use bytes::Bytes;
use client::Rpc;
use rand::Rng;
use rand::rngs::SmallRng;
use tonic::{Code, Status};

use crate::book::{Book, Read};
use crate::ledger::{Kind, LONG_TTL, Outcome, value_of};
use crate::rpc::Link;

/// Reads kept between two checks; more are not looked at.
const READS_MAX: usize = 20_000;
/// Leases beyond which one is revoked before another is granted.
const LEASES_MAX: usize = 12;

/// One client for as long as it has a connection.
#[derive(Debug)]
pub struct Client<'a> {
    /// Where it writes down what it did.
    pub book: &'a Book,
    /// Its server.
    pub link: &'a Link,
    /// Chooses operations and keys.
    pub rng: &'a mut SmallRng,
    /// How long it waits for an answer.
    pub limit: Duration,
    /// Whether a serializable read must show what anybody has seen: there is one member only.
    pub is_alone: bool,
}

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A write, or a read for which a quorum was asked.
    ByQuorum,
    /// A serializable read.
    ByOne,
    /// The server said that nothing happened.
    Refused,
    /// Nothing that says what happened.
    Not,
}

/// Errors that say that nothing happened. All others leave it open.
pub fn says_no(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::NotFound | Code::AlreadyExists
    )
}

/// The revision of an answer.
pub fn revision_of(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

impl Client<'_> {
    /// One request of any kind.
    pub async fn operation(&mut self) -> Answered {
        match self.rng.random_range(0..100) {
            0..45 => self.put().await,
            45..56 => self.delete().await,
            56..75 => self.txn().await,
            75..93 => self.read(false).await,
            _ => self.read(true).await,
        }
    }

    /// A call that is given up after a while.
    async fn call<R: Rpc>(&self, request: R) -> Result<R::Response, Status> {
        let answer = tokio::time::timeout(self.limit, self.link.call(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("given up")));
        if let Err(status) = &answer
            && !says_no(status)
        {
            let text = format!("{:?}: {}", status.code(), status.message());
            *self.book.doubts.lock().entry(text).or_default() += 1;
        }
        answer
    }

    fn key(&mut self) -> Bytes {
        let folder = ["a", "b", "c"][self.rng.random_range(0..3)];
        format!("{folder}/{:02}", self.rng.random_range(0..24)).into()
    }

    /// Notes an operation before it is sent.
    fn begin(&self, kind: Kind) -> usize {
        let seen = self.book.seen();
        self.book.ledger.lock().begin(kind, seen)
    }

    /// Notes how an operation ended.
    fn ended(&self, id: usize, result: &Result<(i64, bool), Status>) -> Answered {
        let (outcome, answered) = match result {
            Ok((revision, changed)) => (Outcome::Done(*revision, *changed), Answered::ByQuorum),
            Err(status) if says_no(status) => (Outcome::Refused, Answered::Refused),
            Err(_) => (Outcome::Unknown, Answered::Not),
        };
        self.book.ledger.lock().end(id, outcome);
        if let Ok((revision, _)) = result {
            self.book.see(*revision);
        }
        answered
    }

    async fn put(&mut self) -> Answered {
        let key = self.key();
        let lease = if self.rng.random_ratio(1, 5) {
            let leases = self.book.leases.lock();
            if leases.is_empty() { 0 } else { leases[self.rng.random_range(0..leases.len())] }
        } else {
            0
        };
        self.put_as(key, lease).await
    }

    /// Puts a key.
    pub async fn put_as(&self, key: Bytes, lease: i64) -> Answered {
        let id = self.begin(Kind::Put { key: key.clone(), lease });
        let request = pb::PutRequest { key, value: value_of(id, 0), lease, ..pb::PutRequest::default() };
        let result = self.call(request).await;
        self.ended(id, &result.map(|answer| (revision_of(answer.header.as_ref()), true)))
    }

    async fn delete(&mut self) -> Answered {
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
        let id = self.begin(Kind::Delete { key: key.clone(), end: end.clone() });
        let request = pb::DeleteRangeRequest { key, range_end: end, prev_kv: false };
        let result = self.call(request).await;
        self.ended(id, &result.map(|answer| (revision_of(answer.header.as_ref()), answer.deleted > 0)))
    }

    async fn txn(&mut self) -> Answered {
        let key = self.key();
        let read = pb::RangeRequest { key: key.clone(), serializable: true, ..pb::RangeRequest::default() };
        let Ok(found) = self.call(read).await else { return Answered::Not };
        let modified = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let other = self.key();
        let mut deletes = vec![self.key()];
        deletes.retain(|third| *third != key && *third != other);
        let mut puts = vec![key.clone()];
        if other != key {
            puts.push(other);
        }
        let id = self.begin(Kind::Txn { guard: (key.clone(), modified), puts: puts.clone(), deletes: deletes.clone() });
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
        let result = self.call(request).await;
        self.ended(id, &result.map(|answer| (revision_of(answer.header.as_ref()), answer.succeeded)))
    }

    async fn read(&mut self, serializable: bool) -> Answered {
        let key = self.key();
        let (key, end) = if self.rng.random_ratio(1, 4) {
            (key.slice(..2), Bytes::from(client::prefix_end(&key[..2])))
        } else {
            (key, Bytes::new())
        };
        let known = self.book.seen();
        let request = pb::RangeRequest {
            key: key.clone(),
            range_end: end.clone(),
            serializable,
            ..pb::RangeRequest::default()
        };
        let Ok(answer) = self.call(request).await else { return Answered::Not };
        let revision = revision_of(answer.header.as_ref());
        // A lone member is the leader: what anybody has seen is there, even for a serializable read.
        if revision < known && (self.is_alone || !serializable) {
            self.book.fail(format!("a read at {revision} after {known} had been seen"));
        }
        self.book.see(revision);
        let what = if serializable { "serializable read" } else { "read" };
        let mut reads = self.book.reads.lock();
        if reads.len() < READS_MAX {
            reads.push(Read { what, key, end, revision, answer: answer.kvs });
        }
        if serializable { Answered::ByOne } else { Answered::ByQuorum }
    }

    /// Grants a lease, or revokes one where there are many.
    pub async fn lease(&mut self) -> Answered {
        let known: Vec<i64> = self.book.leases.lock().clone();
        if known.len() > LEASES_MAX {
            let lease = known[self.rng.random_range(0..known.len())];
            self.book.leases.lock().retain(|other| *other != lease);
            let id = self.begin(Kind::Revoke { lease });
            let answer = self.call(pb::LeaseRevokeRequest { id: lease }).await;
            // Whether keys went with it is found in the history: it is only known that it happened.
            let changed = |answer: pb::LeaseRevokeResponse| (revision_of(answer.header.as_ref()), false);
            return self.ended(id, &answer.map(changed));
        }
        let ttl = if self.rng.random_ratio(1, 4) { 2 } else { LONG_TTL };
        let (lease, answered) = self.grant(ttl).await;
        if answered == Answered::ByQuorum {
            self.book.leases.lock().push(lease);
        }
        answered
    }

    /// Grants a lease of a number that nobody else has.
    pub async fn grant(&mut self, ttl: i64) -> (i64, Answered) {
        let lease = self.rng.random_range(1..i64::MAX);
        let id = self.begin(Kind::Grant { lease, ttl });
        let answer = self.call(pb::LeaseGrantRequest { ttl, id: lease }).await;
        (lease, self.ended(id, &answer.map(|answer| (revision_of(answer.header.as_ref()), false))))
    }
}
