//! Random requests, the same to both servers one by one, now and then under an alarm: every answer must be the same,
//! to the last field.
//!
//! The same goes for ours speaking as 3.5 or 3.6 and these releases, but for which of two mistakes an error names.
//! `MAINSTAY_SEED` gives another script.
//!
//! Left out: what Go cannot bear (`ignore_value` or `ignore_lease` beside deletions in one transaction ends the
//! process), and the order of keys that are equal in what they are sorted by.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::compare::TargetUnion;
use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest, LeaseGrantRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse,
};
use api::methods::Method;
use bytes::Bytes;
use client::Rpc;
use harness::{go_release, ours};
use parity::semantics::dice::Dice;
use parity::semantics::request::{Op, b, range, span, time_to_live};
use parity::semantics::{Difference, Side, Status, Target};
use prost::Message;

/// Requests to each server.
const STEPS: usize = 4000;
/// Requests after which both are killed and started again.
const LIFE: usize = 1000;
const KEYS: [&[u8]; 9] = [b"a", b"b", b"c", b"ab", b"abc", b"\0", b"\xff", b"\xff\xff", b"d"];
const ENDS: [&[u8]; 8] = [b"", b"", b"", b"\0", b"b", b"d", b"\xff", b"\0\0"];
const LEASES: [i64; 6] = [0, 0, 1, 2, 3, -9];

/// Fields that no request has: a number, bytes, a group, fixed sizes; and things that are no fields.
const UNKNOWN: [&[u8]; 9] = [
    b"\xc0\x0c\x07",
    b"\xc2\x0c\x02ab",
    b"\xc3\x0c\x08\x01\xc4\x0c",
    b"\xc5\x0c\x01\x02\x03\x04",
    b"\xc1\x0c\x01\x02\x03\x04\x05\x06\x07\x08",
    b"\x0c",
    b"\x00\x00",
    b"\x0f",
    b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
];

/// A request of any kind.
#[derive(Clone, Debug)]
enum Ask {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    Lease(i64),
    Leases,
    Hash(i64),
    Alarm(AlarmRequest),
    /// Bytes that were a request before something happened to them.
    Spoilt(Method, Bytes),
}

/// What a transaction may hold, so that Go survives it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kinds {
    WithDeletes,
    WithIgnores,
}

/// The header without what differs between members; whether these are set is kept.
fn plain(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = u64::from(header.cluster_id != 0);
        header.member_id = u64::from(header.member_id != 0);
        header.raft_term = u64::from(header.raft_term != 0);
    }
}

/// The answer in words, or the status.
async fn tell<R: Rpc>(t: &Target, request: R, plain: impl FnOnce(&mut R::Response)) -> String {
    match t.ask(request).await {
        Ok(mut answer) => {
            plain(&mut answer);
            format!("{answer:?}")
        }
        Err(status) => status.to_string(),
    }
}

/// Keys that are equal in what they are sorted by come in any order: what they are sorted by is told, then the keys.
fn sorted(answer: &mut RangeResponse, target: i32) -> String {
    let by: Vec<String> = answer
        .kvs
        .iter()
        .map(|kv| match SortTarget::try_from(target) {
            Ok(SortTarget::Version) => kv.version.to_string(),
            Ok(SortTarget::Create) => kv.create_revision.to_string(),
            Ok(SortTarget::Mod) => kv.mod_revision.to_string(),
            Ok(SortTarget::Value) => format!("{:?}", kv.value),
            _ => format!("{:?}", kv.key),
        })
        .collect();
    answer.kvs.sort_by(|a, b| a.key.cmp(&b.key));
    by.join(" ")
}

async fn tell_range(t: &Target, request: RangeRequest) -> String {
    let (target, hides_values) = (request.sort_target, request.keys_only);
    let mut by = String::new();
    let answer = tell(t, request, |answer| {
        plain(&mut answer.header);
        if target != 0 && !(hides_values && target == SortTarget::Value as i32) {
            by = sorted(answer, target);
        } else if target != 0 {
            sorted(answer, target);
        }
    });
    let answer = answer.await;
    format!("{answer} by {by}")
}

async fn tell_stream(t: &Target, request: RangeRequest) -> String {
    match t.all(request).await {
        Ok((mut messages, status)) => {
            for message in messages.iter_mut().filter_map(|message| message.range_response.as_mut()) {
                plain(&mut message.header);
            }
            format!("{messages:?} {status}")
        }
        Err(Difference(text)) => text,
    }
}

async fn tell_spoilt(t: &Target, method: Method, bytes: Bytes) -> String {
    let answer = match t.raw(method.path(), bytes, &[]).await {
        Ok(answer) => answer,
        // Go's library puts a blank of one kind or another behind "proto:", by the build.
        Err(status) => return status.to_string().replace("\\u{a0}", " "),
    };
    let told = match method {
        Method::KvRange => RangeResponse::decode(answer).map(|mut answer| {
            plain(&mut answer.header);
            answer.kvs.sort_by(|a, b| a.key.cmp(&b.key));
            format!("{answer:?}")
        }),
        Method::KvPut => PutResponse::decode(answer).map(|mut answer| {
            plain(&mut answer.header);
            format!("{answer:?}")
        }),
        _ => DeleteRangeResponse::decode(answer).map(|mut answer| {
            plain(&mut answer.header);
            format!("{answer:?}")
        }),
    };
    told.unwrap_or_else(|error| format!("an answer that is none: {error}"))
}

fn plain_txn(answer: &mut TxnResponse) {
    plain(&mut answer.header);
    for response in answer.responses.iter_mut().filter_map(|op| op.response.as_mut()) {
        match response {
            Response::ResponseRange(answer) => plain(&mut answer.header),
            Response::ResponsePut(answer) => plain(&mut answer.header),
            Response::ResponseDeleteRange(answer) => plain(&mut answer.header),
            Response::ResponseTxn(answer) => plain_txn(answer),
        }
    }
}

impl Ask {
    /// The answer of a server, in words that both must use.
    async fn to(&self, t: &Target) -> String {
        match self.clone() {
            Ask::Range(request) => tell_range(t, request).await,
            Ask::RangeStream(request) => tell_stream(t, request).await,
            Ask::Put(request) => tell(t, request, |answer| plain(&mut answer.header)).await,
            Ask::Delete(request) => tell(t, request, |answer| plain(&mut answer.header)).await,
            Ask::Txn(request) => tell(t, request, plain_txn).await,
            Ask::Compact(request) => tell(t, request, |answer| plain(&mut answer.header)).await,
            Ask::Grant(request) => tell(t, request, |answer| plain(&mut answer.header)).await,
            Ask::Revoke(request) => tell(t, request, |answer| plain(&mut answer.header)).await,
            Ask::Lease(id) => {
                let told = tell(t, time_to_live(id), |answer| {
                    plain(&mut answer.header);
                    answer.ttl = answer.ttl.signum();
                    answer.keys.sort();
                });
                told.await
            }
            Ask::Leases => {
                let told = tell(t, LeaseLeasesRequest {}, |answer| {
                    plain(&mut answer.header);
                    answer.leases.sort_by_key(|lease| lease.id);
                });
                told.await
            }
            Ask::Spoilt(method, bytes) => tell_spoilt(t, method, bytes).await,
            Ask::Hash(revision) => tell(t, HashKvRequest { revision }, |answer| plain(&mut answer.header)).await,
            Ask::Alarm(request) => tell(t, request, |answer| plain(&mut answer.header)).await,
        }
    }
}

/// Makes requests.
struct Maker {
    dice: Dice,
    /// The revision that the last header showed.
    current: i64,
    /// Whether nonsense is asked, too: bytes that are no request, orders that nobody knows. Each release has an
    /// opinion of its own about it, and so one about which of two mistakes is named.
    is_nonsense_asked: bool,
    /// The alarm that is on: member and kind.
    alarm: Option<(u64, i32)>,
}

impl Maker {
    fn key(&mut self) -> Bytes {
        if self.dice.once_in(40) { b("") } else { b(self.dice.of(&KEYS)) }
    }

    fn end(&mut self) -> Bytes {
        b(self.dice.of(&ENDS))
    }

    /// A revision to read at: mostly the newest, else an old one, one that is to come, or nonsense.
    fn revision(&mut self) -> i64 {
        match self.dice.below(6) {
            0 => self.dice.between(self.current - 30, self.current + 1),
            1 => self.dice.between(-3, self.current + 3),
            _ => 0,
        }
    }

    /// A bound on revisions of keys; mostly none.
    fn bound(&mut self) -> i64 {
        if self.dice.once_in(12) { self.dice.between(self.current - 40, self.current + 1) } else { 0 }
    }

    fn range(&mut self, in_txn: bool) -> RangeRequest {
        let dice = &mut self.dice;
        let is_sorted = dice.once_in(3);
        let sort_target = if is_sorted && !in_txn { dice.between(0, 5) } else { 0 } as i32;
        let sort_order = if is_sorted { dice.between(0, 3) } else { 0 } as i32;
        let odd = self.is_nonsense_asked && dice.once_in(60);
        let limit = if dice.once_in(2) && sort_target == 0 { dice.between(-1, 6) } else { 0 };
        let (serializable, keys_only, count_only) = (dice.once_in(3), dice.once_in(4), dice.once_in(8));
        RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit,
            revision: self.revision(),
            sort_order: if odd { 9 } else { sort_order },
            sort_target,
            serializable,
            keys_only,
            count_only,
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn put(&mut self, with_ignores: bool) -> PutRequest {
        let ignore_value = with_ignores && self.dice.once_in(4);
        let ignore_lease = with_ignores && self.dice.once_in(4);
        let has_value = !ignore_value || self.dice.once_in(8);
        let has_lease = self.dice.once_in(3) && (!ignore_lease || self.dice.once_in(8));
        PutRequest {
            key: self.key(),
            value: if has_value { b(self.dice.below(50).to_string()) } else { b("") },
            lease: if has_lease { self.dice.of(&LEASES) } else { 0 },
            prev_kv: self.dice.once_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        // Everything goes only now and then, so that there is something to read.
        let range_end = if self.dice.once_in(4) { self.end() } else { b("") };
        DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.dice.once_in(2) }
    }

    fn compare(&mut self) -> Compare {
        let number = if self.dice.once_in(2) { self.dice.between(0, 4) } else { self.revision() };
        let target = self.dice.between(0, 5);
        let arm = if self.dice.once_in(10) { self.dice.between(0, 6) } else { target };
        let target_union = match arm {
            0 => Some(TargetUnion::Version(number)),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(b(number.to_string()))),
            4 => Some(TargetUnion::Lease(number)),
            _ => None,
        };
        Compare {
            result: if self.dice.once_in(30) { 7 } else { self.dice.between(0, 4) } as i32,
            target: if self.dice.once_in(30) { 7 } else { target } as i32,
            key: self.key(),
            range_end: if self.dice.once_in(4) { self.end() } else { b("") },
            target_union,
        }
    }

    fn op(&mut self, kinds: Kinds, depth: u32) -> RequestOp {
        match self.dice.below(12) {
            0..=3 => self.range(true).op(),
            4..=6 => self.put(kinds == Kinds::WithIgnores).op(),
            7..=8 if kinds == Kinds::WithDeletes => self.delete().op(),
            9..=10 if depth > 0 => self.txn(kinds, depth - 1).op(),
            11 if self.dice.once_in(20) => RequestOp { request: None },
            _ => self.range(true).op(),
        }
    }

    fn txn(&mut self, kinds: Kinds, depth: u32) -> TxnRequest {
        let (compares, success, failure) = (self.dice.below(3), self.dice.below(5), self.dice.below(4));
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..success).map(|_| self.op(kinds, depth)).collect(),
            failure: (0..failure).map(|_| self.op(kinds, depth)).collect(),
        }
    }

    /// A request to which something has happened on the way.
    fn spoilt(&mut self) -> Ask {
        let (method, bytes) = match self.dice.below(3) {
            0 => (Method::KvRange, RangeRequest { limit: 0, ..self.range(true) }.encode_to_vec()),
            1 => (Method::KvPut, self.put(true).encode_to_vec()),
            _ => (Method::KvDeleteRange, self.delete().encode_to_vec()),
        };
        let mut bytes = bytes;
        for _ in 0..=self.dice.below(2) {
            let at = self.dice.below(bytes.len() as u64 + 1) as usize;
            match self.dice.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.dice.below(256) as u8),
                2 => bytes.extend_from_within(at..),
                3 => bytes.extend_from_slice(self.dice.of(&UNKNOWN)),
                _ if at < bytes.len() => bytes[at] ^= 1 << self.dice.below(8),
                _ => {}
            }
        }
        // A limit on keys that are equal in what they are sorted by would cut at random.
        let cuts = RangeRequest::decode(bytes.as_slice())
            .is_ok_and(|range| range.limit > 0 && range.sort_target > 0);
        if method == Method::KvRange && cuts { Ask::Hash(0) } else { Ask::Spoilt(method, bytes.into()) }
    }

    /// Now and then an alarm is raised, soon lowered again: little works while it is on.
    fn alarm(&mut self) -> Option<Ask> {
        let (action, (member_id, alarm)) = match self.alarm {
            Some(alarm) if self.dice.once_in(8) => {
                self.alarm = None;
                (AlarmAction::Deactivate, alarm)
            }
            Some(alarm) if self.dice.once_in(20) => (AlarmAction::Get, alarm),
            None if self.dice.once_in(120) => {
                let alarm = (1 + self.dice.below(2), self.dice.between(1, 3) as i32);
                self.alarm = Some(alarm);
                (AlarmAction::Activate, alarm)
            }
            _ => return None,
        };
        Some(Ask::Alarm(AlarmRequest { action: action as i32, member_id, alarm }))
    }

    fn next(&mut self) -> Ask {
        if let Some(ask) = self.alarm() {
            return ask;
        }
        match self.dice.below(100) {
            0..=19 => Ask::Range(self.range(false)),
            20..=27 if self.is_nonsense_asked => self.spoilt(),
            20..=32 => Ask::RangeStream(self.range(false)),
            33..=54 => Ask::Put(self.put(true)),
            55..=61 => Ask::Delete(self.delete()),
            62..=86 => {
                let kinds = self.dice.of(&[Kinds::WithDeletes, Kinds::WithIgnores]);
                Ask::Txn(self.txn(kinds, 2))
            }
            87 => Ask::Compact(CompactionRequest {
                revision: self.dice.between(self.current - 60, self.current + 2).max(1),
                physical: true,
            }),
            88..=90 => {
                let ttl = if self.dice.once_in(6) { 9_000_000_001 } else { 3600 };
                Ask::Grant(LeaseGrantRequest { ttl, id: self.dice.of(&LEASES[2..]) })
            }
            91..=92 => Ask::Revoke(LeaseRevokeRequest { id: self.dice.of(&LEASES[2..]) }),
            93..=94 => Ask::Lease(self.dice.of(&LEASES[2..])),
            95 => Ask::Leases,
            96 => Ask::Hash(self.revision()),
            97 => Ask::Range(RangeRequest { revision: self.revision(), ..span("\0", "\0") }),
            _ => Ask::Range(RangeRequest { sort_order: SortOrder::Descend as i32, ..span("\0", "\0") }),
        }
    }
}

/// Both servers, asked the same.
struct Both {
    go: Target,
    ours: Target,
    told: Vec<String>,
    /// Whether errors must be the same ones.
    is_exact: bool,
}

impl Both {
    async fn ask(&mut self, ask: &Ask) {
        let (go, ours) = tokio::join!(ask.to(&self.go), ask.to(&self.ours));
        let are_errors = is_error(&go) && is_error(&ours);
        if go != ours && (self.is_exact || !are_errors) {
            let before = self.told[self.told.len().saturating_sub(12)..].join("\n");
            panic!("after\n{before}\nto {}\n  go:   {go}\n  ours: {ours}", shown(ask));
        }
        self.told.push(format!("{}\n      -> {go}", shown(ask)));
    }

    async fn revision(&self) -> Result<i64, Status> {
        let answer = self.go.ask(range("a")).await?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }
}

fn is_error(told: &str) -> bool {
    told.contains("\"etcdserver: ")
        || told.contains("\"RangeStream does not")
        || told.contains("\"unknown method")
}

fn shown(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn seed() -> u64 {
    std::env::var("MAINSTAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Asks a Go release and ours, which may speak as an older one.
async fn run(version: &str, our_flags: &[&str]) {
    let Some(go) = go_release(version) else { return };
    let flags =
        |more: &[&str]| ["--unsafe-no-fsync"].iter().chain(more).map(ToString::to_string).collect::<Vec<_>>();
    let (go, ours) = (Arc::new(go), Arc::new(ours()));
    let is_exact = our_flags.is_empty();
    let mut both = Both {
        go: Target::start(Side::Go, &go, &flags(&[])).await,
        ours: Target::start(Side::Ours, &ours, &flags(our_flags)).await,
        told: Vec::new(),
        is_exact,
    };
    let mut maker = Maker { dice: Dice::new(seed()), current: 1, is_nonsense_asked: is_exact, alarm: None };
    for step in 1..=STEPS {
        maker.current = both.revision().await.expect("Go answers a range");
        let ask = maker.next();
        both.ask(&ask).await;
        if step % LIFE == 0 {
            both.ours.kill_and_start_with_alarms().await;
            // Go 3.5 and 3.6 have been seen one revision further after a kill than before it, unless all was in the
            // file by then.
            both.go.sleep(Duration::from_millis(300)).await;
            both.go.kill_and_start_with_alarms().await;
            both.ask(&Ask::Leases).await;
        }
        if step % 100 == 0 {
            both.ask(&Ask::Hash(0)).await;
        }
    }
}

fn alike(version: &str, our_flags: &[&str]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(run(version, our_flags));
}

#[test]
fn random_requests_are_answered_alike() {
    alike("3.7.3", &[]);
}

#[test]
fn random_requests_are_answered_as_by_3_6() {
    alike("3.6.16", &["--emulated-version=3.6"]);
}

#[test]
fn random_requests_are_answered_as_by_3_5() {
    alike("3.5.35", &["--emulated-version=3.5"]);
}
