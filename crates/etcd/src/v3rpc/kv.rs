//! `etcdserverpb.KV`: checks, then the log or the published state.

use std::time::Instant;

use api::Status;
use api::error::{Code, ErrorCode};
use api::methods::Method;
use bytes::Bytes;
use etcdserver::apply::policy::field;
use etcdserver::apply::{alarm, quota};
use etcdserver::apply::request::{DeleteRange, Put, Range, Txn};
use etcdserver::apply::validate;
use etcdserver::auth::Caller;
use etcdserver::effect::ReplyTo;
use etcdserver::read::{self, RangeStream};
use grpc::Replies;

use super::{Clients, Desk, Handler, Waiting};
use crate::member::handle::State;
use crate::net::client::{Calls, Client};

/// Bytes queued for a streamed range beyond which no more is read until some have left.
const STREAM_QUEUE_BYTES: usize = 1 << 20;
/// Bytes of answers to reads in one turn beyond which lists wait for a turn of their own: else one connection's lists
/// would stand before everybody's gets. Reads of single keys never wait.
const TURN_ANSWER_BYTES: usize = 256 << 10;
/// Most room made ahead for the answer to a list.
const LIST_ROOM_BYTES: usize = 1 << 20;

impl Handler<'_> {
    pub(super) fn put(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let put = Put::parse(message)?;
        let cost = quota::put_cost(&put);
        self.check_room(cost)?;
        validate::put(&put)?;
        self.propose_at_cost(cost, call, field::PUT, Bytes::copy_from_slice(message))
    }

    /// Refuses what does not fit the quota before it is proposed, and raises the alarm if it is not raised yet.
    pub(super) fn check_room(&mut self, cost: u64) -> Result<(), Status> {
        let state = self.state();
        if cost == 0 || state.edge.has_room(cost) {
            return Ok(());
        }
        let member = self.desk.shared.member_id;
        if !state.edge.alarms.contains(alarm::NOSPACE, member) {
            self.desk.turn.proposals.push(alarm::no_space_proposal(member));
        }
        Err(ErrorCode::NoSpace.into())
    }

    pub(super) fn delete_range(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        validate::delete_range(&DeleteRange::parse(message)?)?;
        self.propose(call, field::DELETE_RANGE, Bytes::copy_from_slice(message))
    }

    pub(super) fn compact(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: api::etcdserverpb::CompactionRequest =
            api::wire::decode(Bytes::copy_from_slice(message))?;
        self.propose(call, field::COMPACTION, Bytes::copy_from_slice(message))?;
        if request.physical {
            self.calls.insert(call, Waiting::PhysicalCompaction(request.revision));
        }
        Ok(())
    }

    pub(super) fn range(
        &mut self,
        replies: &mut Replies,
        call: u32,
        method: Method,
        message: &[u8],
    ) -> Result<(), Status> {
        let range = Range::parse(message)?;
        if method == Method::KvRangeStream {
            validate::range_stream(&range)?;
        } else {
            validate::range(&range)?;
        }
        self.read(replies, call, method, message, range.serializable)
    }

    pub(super) fn txn(&mut self, replies: &mut Replies, call: u32, message: &[u8]) -> Result<(), Status> {
        let txn = Txn::parse(message)?;
        let cost = quota::txn_cost(&txn);
        self.check_room(cost)?;
        validate::txn(&txn, self.desk.shared.config.max_txn_ops as usize)?;
        if txn.is_read_only() {
            return self.read(replies, call, Method::KvTxn, message, txn.is_serializable());
        }
        self.propose_at_cost(cost, call, field::TXN, Bytes::copy_from_slice(message))
    }

    /// Answers a read now if the published state will do, else lets it wait for a read index.
    pub(super) fn read(
        &mut self,
        replies: &mut Replies,
        call: u32,
        method: Method,
        message: &[u8],
        serializable: bool,
    ) -> Result<(), Status> {
        let state = self.state();
        if serializable || state.edge.reads_are_local {
            let since = self.desk.lap;
            if self.desk.has_no_room(method, message) {
                let to = self.reply_to(call);
                self.calls.insert(call, Waiting::Read(method, Bytes::copy_from_slice(message), since));
                self.desk.put_off(to);
                return Ok(());
            }
            self.desk.reading = self.connection;
            return self.desk.serve_read(&state, (method, since), message, replies, call, self.calls);
        }
        let to = self.reply_to(call);
        self.desk.turn.reads.push(to);
        self.calls.insert(call, Waiting::Read(method, Bytes::copy_from_slice(message), Instant::now()));
        Ok(())
    }
}

impl Desk {
    /// Whether a read has to wait for a later turn.
    pub(super) fn has_no_room(&self, method: Method, request: &[u8]) -> bool {
        self.answered_bytes > TURN_ANSWER_BYTES
            && match method {
                Method::KvRange => Range::parse(request).is_ok_and(|range| !range.end.is_empty()),
                method => method == Method::KvTxn,
            }
    }

    /// Puts a read off to a turn of its own.
    pub(super) fn put_off(&mut self, to: ReplyTo) {
        self.lists.push_back(to);
        self.lists_wake.notify_one();
    }

    /// Answers one read that was put off; says whether there was one.
    pub(crate) fn next_list(&mut self, clients: &mut Clients) -> bool {
        let Some(to) = self.lists.pop_front() else { return false };
        self.answered_bytes = 0;
        self.deliver_read(to, clients);
        true
    }

    /// Answers a read from the published state, and measures it; `since` is when it came.
    pub(super) fn serve_read(
        &mut self,
        state: &State,
        (method, since): (Method, Instant),
        request: &[u8],
        replies: &mut Replies,
        call: u32,
        calls: &mut Calls,
    ) -> Result<(), Status> {
        let caller = Caller::default();
        match method {
            Method::KvRange => {
                let range = Range::parse(request)?;
                // As long as the last list: growing to it would copy it once more.
                let room = if range.end.is_empty() { 0 } else { self.list_bytes.min(LIST_ROOM_BYTES) };
                let mut answer = Vec::with_capacity(room);
                let served = read::range(&state.edge, caller, &range, &mut answer);
                self.range_served(since, (call, &range), request.len(), &served, &answer);
                served?;
                self.answered_bytes += answer.len();
                if !range.end.is_empty() {
                    self.list_bytes = answer.len();
                }
                replies.reply_bytes(call, answer.into());
            }
            Method::KvTxn => {
                let txn = Txn::parse(request)?;
                let mut answer = Vec::new();
                let served = read::txn(&state.edge, caller, &txn, &mut answer);
                self.txn_served(since, (call, &txn), request, &served, &answer);
                served?;
                self.answered_bytes += answer.len();
                replies.reply_bytes(call, answer.into());
            }
            Method::KvRangeStream => {
                let bytes = self.shared.config.max_request_bytes as usize;
                let mut stream = RangeStream::new(&state.edge, caller, &Range::parse(request)?, bytes)?;
                if !feed_range(state, &mut stream, replies, call)? {
                    calls.insert(call, Waiting::RangeStream(Box::new(stream)));
                }
            }
            Method::MemberList => {
                replies.reply(call, |out| super::cluster::encode_members(&state.edge, out));
            }
            _ => unreachable!("only reads wait for a read index"),
        }
        Ok(())
    }

    /// A streamed range whose queue has room again reads on.
    pub(super) fn go_on_with_range(&mut self, connection: u32, call: u32, clients: &mut Clients) {
        let Some(client) = clients.get_mut(&connection) else { return };
        let state = self.shared.published.load_full();
        let Client { connection: codec, calls, .. } = &mut **client;
        let Some(Waiting::RangeStream(stream)) = calls.get_mut(&call) else { return };
        let replies = codec.replies();
        match feed_range(&state, stream, replies, call) {
            Ok(false) => {}
            Ok(true) => {
                calls.remove(&call);
            }
            Err(status) => {
                calls.remove(&call);
                replies.finish(call, status.code, &status.message);
            }
        }
        self.touch(connection, client);
    }
}

/// Sends messages until enough is queued or all is sent; says whether all is.
fn feed_range(
    state: &State,
    stream: &mut RangeStream,
    replies: &mut Replies,
    call: u32,
) -> Result<bool, Status> {
    loop {
        let mut message = Vec::new();
        if !stream.next(&state.edge, &mut message)? {
            replies.finish(call, Code::Ok.number(), "");
            return Ok(true);
        }
        if replies.send_bytes(call, message.into()) > STREAM_QUEUE_BYTES {
            return Ok(false);
        }
    }
}
