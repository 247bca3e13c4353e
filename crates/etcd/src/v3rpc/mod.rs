//! The services: what a call means, and who answers it.
//!
//! [`Handler`] is what the codec talks to while it reads; [`Desk`] is what a network thread keeps over turns. A call
//! is answered at once from the published state where that is right, else it becomes a row of the connection's
//! table of waiting calls and a value in the turn's batch for the member thread.
//!
//! Reading order: this file, `deliver.rs` (what comes back), `kv.rs`, `lease.rs`, `watch.rs`, `cluster.rs`, `maintenance.rs`,
//! `downgrade.rs`, `health.rs`.

mod cluster;
mod deliver;
mod downgrade;
mod health;
mod kv;
mod lease;
mod maintenance;
mod stats;
mod watch;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::error::{Code, ErrorCode};
use api::methods::{self, Method, OnLearner};
use api::Status;
use bytes::Bytes;
use etcdserver::apply::alarm;
use etcdserver::apply::reply::Reply;
use etcdserver::effect::{LeaseQuestion, Proposal, Renewal, ReplyTo};
use foldhash::fast::FixedState;
use grpc::{Metadata, PlainRequest, Replies};
use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::http;
use crate::member::handle::{Mail, MemberInput, Shared, State};
use crate::metrics;
use crate::net::client::{Calls, Client};

pub(crate) use maintenance::{Done, storage_version};
use watch::WatchDesk;

/// The connections of a thread.
pub(crate) type Clients = HashMap<u32, Box<Client>, FixedState>;

/// A call that cannot be answered yet, and what is needed to answer it.
pub(crate) enum Waiting {
    /// A linearizable read that waits for its read index: method, request, and when it came.
    Read(Method, Bytes, Instant),
    /// A compaction asked for with `physical`: its answer waits until the work up to this revision is done.
    Compaction(Result<Reply, Status>, i64),
    /// The same, before it is scheduled.
    PhysicalCompaction(i64),
    /// Time to live of a lease, with its keys if asked for.
    TimeToLive {
        /// The lease.
        id: i64,
        /// Whether its keys are wanted.
        keys: bool,
    },
    /// All leases.
    Leases,
    /// A stream of keepalives: how many of them are with the member, and whether the client has ended its side.
    KeepAlive {
        /// Renewals under way.
        outstanding: usize,
        /// The client sends no more.
        half_closed: bool,
        /// The client wants to hear when there is no leader.
        with_leader: bool,
    },
    /// A stream of watchers.
    Watch {
        /// The client wants to hear when there is no leader.
        with_leader: bool,
    },
    /// A streamed range, where it goes on when what is queued has left.
    RangeStream(Box<etcdserver::read::RangeStream>),
    /// A stream that a worker feeds: a snapshot.
    Feed(maintenance::Feed),
    /// A worker does it; nothing is kept here.
    Worker,
    /// A health watch: sends again when the state changes.
    Health,
}

/// What one turn of the loop leaves behind.
#[derive(Default)]
pub(crate) struct Turn {
    proposals: Vec<Proposal>,
    reads: Vec<ReplyTo>,
    renewals: Vec<Renewal>,
    questions: Vec<LeaseQuestion>,
    /// Connections with something to write.
    pub(crate) dirty: Vec<u32>,
    /// Connections that are over.
    pub(crate) closed: Vec<u32>,
}

impl Turn {
    /// Whether nothing is left to send or write.
    pub(crate) fn is_empty(&self) -> bool {
        self.proposals.is_empty()
            && self.reads.is_empty()
            && self.renewals.is_empty()
            && self.questions.is_empty()
            && self.dirty.is_empty()
    }
}

/// What a network thread keeps over turns, connections aside.
pub(crate) struct Desk {
    pub(crate) thread: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) turn: Turn,
    pub(crate) watch: WatchDesk,
    pub(crate) watch_wake: Rc<Notify>,
    /// Lists that wait for a turn of their own.
    pub(crate) lists: VecDeque<ReplyTo>,
    pub(crate) lists_wake: Rc<Notify>,
    /// Bytes of answers to reads in this turn.
    answered_bytes: usize,
    /// Bytes of the last answer to a list.
    list_bytes: usize,
    batch: Vec<MemberInput>,
    drained: Vec<u32>,
    /// What the client said its version is that called last, and where such calls are counted.
    client_version: (Vec<u8>, usize),
    /// End of the last read: where the next one begins, as far as times are measured.
    pub(crate) lap: Instant,
    /// Connection whose read is being answered.
    reading: u32,
    /// How long a read may take without a line about it, and a call.
    limits: (Duration, Duration),
}

/// What the codec talks to while it reads one connection.
pub(crate) struct Handler<'a> {
    pub(crate) desk: &'a mut Desk,
    pub(crate) calls: &'a mut Calls,
    pub(crate) connection: u32,
}

impl Desk {
    /// The desk of network thread `thread`.
    pub(crate) fn new(thread: u16, shared: Arc<Shared>) -> Desk {
        let watch = WatchDesk::new(&shared);
        let unknown = shared.metrics.thread(thread).client_version(b"unknown");
        let limits = (shared.config.slow_apply, shared.slow_call());
        Desk {
            client_version: (b"unknown".to_vec(), unknown),
            lap: Instant::now(),
            reading: 0,
            limits,
            thread,
            shared,
            turn: Turn::default(),
            watch,
            watch_wake: Rc::new(Notify::new()),
            lists: VecDeque::new(),
            lists_wake: Rc::new(Notify::new()),
            answered_bytes: 0,
            list_bytes: 0,
            batch: Vec::new(),
            drained: Vec::new(),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// What this thread counts.
    pub(crate) fn metrics(&self) -> &metrics::Thread {
        self.shared.metrics.thread(self.thread)
    }

    /// Takes over what a connection's codec has counted.
    pub(crate) fn count(&self, replies: &mut Replies) {
        let tally = replies.tally();
        if !tally.is_empty() {
            self.metrics().take(tally, || self.now_ms());
        }
    }

    fn call_started(&mut self, method: Method, meta: &Metadata) {
        let version = meta.client_api_version().unwrap_or(b"unknown");
        if self.client_version.0 != version {
            self.client_version = (version.to_vec(), self.metrics().client_version(version));
        }
        self.metrics().call_started(method, self.client_version.1);
    }

    /// A connection broke the rules of HTTP/2.
    pub(crate) fn broken(&self, remote: &str, error: grpc::Error) {
        self.shared.logger.warn(
            "rejected connection on client endpoint",
            &[("remote-addr", remote.into()), ("error", error.to_string().into())],
        );
    }

    /// Hands the turn's requests to the member thread: one lock, at most one wake-up.
    pub(crate) fn send_turn(&mut self) {
        self.answered_bytes = 0;
        let turn = &mut self.turn;
        if !turn.proposals.is_empty() {
            self.batch.push(MemberInput::Propose(std::mem::take(&mut turn.proposals), Instant::now()));
        }
        if !turn.reads.is_empty() {
            self.batch.push(MemberInput::Read(std::mem::take(&mut turn.reads)));
        }
        if !turn.renewals.is_empty() {
            self.batch.push(MemberInput::Renew(std::mem::take(&mut turn.renewals)));
        }
        if !turn.questions.is_empty() {
            self.batch.push(MemberInput::LeaseTimes(std::mem::take(&mut turn.questions)));
        }
        self.shared.member.push_all(&mut self.batch);
    }

    /// Streams of a connection that have room again after a write go on.
    pub(crate) fn after_flush(&mut self, number: u32, clients: &mut Clients) {
        let Some(client) = clients.get_mut(&number) else { return };
        if !client.connection.replies().has_drained() {
            return;
        }
        let mut drained = std::mem::take(&mut self.drained);
        client.connection.replies().take_drained(&mut drained);
        for call in drained.drain(..) {
            match clients.get(&number).and_then(|client| client.calls.get(&call)) {
                Some(Waiting::Watch { .. }) => {
                    self.watch.drained(number, call);
                    self.watch_wake.notify_one();
                }
                Some(Waiting::RangeStream(_)) => self.go_on_with_range(number, call, clients),
                Some(Waiting::Feed(_)) => Desk::go_on_with_feed(number, call, clients),
                _ => {}
            }
        }
        self.drained = drained;
    }
}

impl Handler<'_> {
    fn reply_to(&self, call: u32) -> ReplyTo {
        ReplyTo { thread: self.desk.thread, connection: self.connection, stream: call }
    }

    fn state(&self) -> Arc<State> {
        self.desk.shared.published.load_full()
    }

    /// What is asked of every call before its handler, in etcd's order.
    fn admit(&self, row: &methods::Row, meta: &Metadata, message: &[u8]) -> Result<(), Status> {
        let state = self.desk.shared.published.load();
        if state.role.is_learner {
            let serializable = row.on_learner == OnLearner::Serializable
                && etcdserver::apply::request::Range::parse(message).is_ok_and(|range| range.serializable);
            if row.on_learner != OnLearner::Yes && !serializable {
                return Err(ErrorCode::NotSupportedForLearner.into());
            }
        }
        if meta.client_api_version().is_some_and(|version| std::str::from_utf8(version).is_err()) {
            return Err(ErrorCode::InvalidClientApiVersion.into());
        }
        if meta.has_leader() && state.role.leader == 0 {
            return Err(ErrorCode::NoLeader.into());
        }
        // Nobody can log in to this version yet, so nobody has a right while auth is on.
        if state.edge.auth.enabled() && !is_open_to_all(row.method) {
            return Err(ErrorCode::UserEmpty.into());
        }
        if row.since.minor as u64 > self.desk.shared.config.emulated_minor {
            let (service, name) = row.method.service_and_name();
            return Err(Status::unknown_method(name, service));
        }
        Ok(())
    }

    /// As [`Handler::propose`], for a request that costs room. Under the alarm it would be refused when it is applied; it is refused
    /// here, because the room in the log is for what makes room.
    fn propose_at_cost(&mut self, cost: u64, call: u32, field: u32, body: Bytes) -> Result<(), Status> {
        let is_small = body.len() <= self.desk.shared.config.max_request_bytes as usize;
        let alarms = &self.state().edge.alarms;
        if cost > 0 && is_small && alarms.any(alarm::NOSPACE) && !alarms.any(alarm::CORRUPT) {
            return Err(ErrorCode::NoSpace.into());
        }
        self.propose(call, field, body)
    }

    /// Puts a request into the turn's batch.
    fn propose(&mut self, call: u32, field: u32, body: Bytes) -> Result<(), Status> {
        if body.len() > self.desk.shared.config.max_request_bytes as usize {
            return Err(ErrorCode::RequestTooLarge.into());
        }
        let reply_to = Some(self.reply_to(call));
        self.desk.turn.proposals.push(Proposal { reply_to, identity: None, field, body });
        Ok(())
    }

    fn unary(
        &mut self,
        replies: &mut Replies,
        call: u32,
        method: Method,
        message: &[u8],
    ) -> Result<(), Status> {
        match method {
            Method::KvRange | Method::KvRangeStream => self.range(replies, call, method, message),
            Method::KvPut => self.put(call, message),
            Method::KvDeleteRange => self.delete_range(call, message),
            Method::KvTxn => self.txn(replies, call, message),
            Method::KvCompact => self.compact(call, message),
            Method::LeaseGrant => self.lease_grant(call, message),
            Method::LeaseRevoke => self.lease_revoke(call, message),
            Method::LeaseTimeToLive => self.lease_time_to_live(call, message),
            Method::LeaseLeases => self.lease_leases(call, message),
            Method::MemberAdd => self.member_add(call, message),
            Method::MemberRemove => self.member_remove(call, message),
            Method::MemberUpdate => self.member_update(call, message),
            Method::MemberPromote => self.member_promote(call, message),
            Method::MaintenanceDowngrade => self.downgrade(call, message),
            Method::MemberList => self.member_list(replies, call, message),
            Method::MaintenanceAlarm => self.alarm(call, message),
            Method::MaintenanceStatus => self.status(replies, call, message),
            Method::MaintenanceDefragment => self.defragment(call, message),
            Method::MaintenanceHash => self.hash(call, message),
            Method::MaintenanceHashKv => self.hash_kv(call, message),
            Method::MaintenanceSnapshot => self.snapshot(replies, call, message),
            Method::MaintenanceMoveLeader => self.move_leader(replies, call, message),
            Method::HealthCheck | Method::HealthList | Method::HealthWatch => {
                self.health(replies, call, method, message)
            }
            Method::Watch | Method::LeaseKeepAlive => unreachable!("streams do not come here"),
            _ => Err(later(method)),
        }
    }
}

/// Methods that need no right: they say nothing of what is stored.
fn is_open_to_all(method: Method) -> bool {
    matches!(
        method,
        Method::HealthCheck | Method::HealthList | Method::HealthWatch | Method::Authenticate | Method::AuthStatus
    )
}

/// A method that this version does not have yet.
fn later(method: Method) -> Status {
    let (service, name) = method.service_and_name();
    Status::new(Code::Unimplemented, format!("{service}/{name} is not available in this version of Mainstay"))
}

/// The method with this number.
fn method_of(number: u16) -> Method {
    methods::TABLE[usize::from(number)].method
}

impl grpc::Sink for Handler<'_> {
    fn method(&mut self, path: &[u8]) -> Option<grpc::Method> {
        let method = Method::of_path(path)?;
        let kind = match method.row().kind {
            methods::Kind::Unary => grpc::Kind::Unary,
            methods::Kind::ServerStream => grpc::Kind::ServerStream,
            methods::Kind::BidiStream => grpc::Kind::BidiStream,
        };
        Some(grpc::Method { id: method as u16, kind })
    }

    fn has_service(&mut self, service: &[u8]) -> bool {
        std::str::from_utf8(service).is_ok_and(methods::service_exists)
    }

    fn on_unary(&mut self, replies: &mut Replies, call: u32, method: u16, meta: &Metadata, message: &[u8]) {
        let method = method_of(method);
        self.desk.call_started(method, meta);
        self.desk.metrics().message_received(method, message.len());
        let answer =
            self.admit(method.row(), meta, message).and_then(|()| self.unary(replies, call, method, message));
        self.desk.note_other(self.connection, call, method);
        if let Err(status) = answer {
            replies.reply_status(call, status.code, &status.message);
        }
    }

    fn on_open(&mut self, replies: &mut Replies, call: u32, method: u16, meta: &Metadata) {
        let method = method_of(method);
        self.desk.call_started(method, meta);
        if let Err(status) = self.admit(method.row(), meta, &[]) {
            replies.finish(call, status.code, &status.message);
            return;
        }
        let with_leader = meta.has_leader();
        match method {
            Method::Watch => {
                self.calls.insert(call, Waiting::Watch { with_leader });
                let now = self.desk.now_ms();
                self.desk.watch.open(self.connection, call, now);
                self.desk.watch_wake.notify_one();
            }
            Method::LeaseKeepAlive => {
                self.calls.insert(call, Waiting::KeepAlive { outstanding: 0, half_closed: false, with_leader });
            }
            _ => {
                let status = later(method);
                replies.finish(call, status.code, &status.message);
            }
        }
    }

    fn on_message(&mut self, replies: &mut Replies, call: u32, method: u16, message: &[u8]) {
        self.desk.metrics().message_received(method_of(method), message.len());
        let answer = match method_of(method) {
            Method::Watch => self.watch_message(replies, call, message),
            Method::LeaseKeepAlive => self.keep_alive(call, message),
            _ => Ok(()),
        };
        if let Err(status) = answer {
            self.forget(call);
            replies.finish(call, status.code, &status.message);
        }
    }

    fn on_half_close(&mut self, replies: &mut Replies, call: u32) {
        // A watch goes on: the client may still want events.
        if let Some(Waiting::KeepAlive { outstanding, half_closed, .. }) = self.calls.get_mut(&call) {
            *half_closed = true;
            if *outstanding == 0 {
                self.calls.remove(&call);
                replies.finish(call, Code::Ok.number(), "");
            }
        }
    }

    fn on_cancelled(&mut self, _replies: &mut Replies, call: u32) {
        self.forget(call);
    }

    fn on_plain(&mut self, replies: &mut Replies, call: u32, request: &PlainRequest<'_>) {
        let Some(request) = http::plain_request(request) else {
            replies.plain_reply(call, 400, &[("content-type", "text/plain; charset=utf-8")], "400 Bad Request".into());
            return;
        };
        self.calls.insert(call, Waiting::Worker);
        let (shared, to) = (self.desk.shared.clone(), self.reply_to(call));
        tokio::task::spawn_local(async move {
            let answer = http::answer_plain(shared.clone(), request).await;
            shared.networks[usize::from(to.thread)].push(Mail::Plain(to, answer));
        });
    }
}

impl Handler<'_> {
    fn forget(&mut self, call: u32) {
        if let Some(Waiting::Watch { .. }) = self.calls.remove(&call) {
            self.desk.watch.drop_call(self.connection, call);
            // It keeps the counts that are shown.
            self.desk.watch_wake.notify_one();
        }
    }
}
