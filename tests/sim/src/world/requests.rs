//! Requests of clients on their way, and their answers: checker 3, and what of 5, 6 and 7 shows in answers.

use std::sync::Arc;

use api::etcdserverpb as pb;
use bytes::Bytes;
use etcdserver::apply::request::{Envelope, Range};
use etcdserver::effect::{Identity, LeaseQuestion, LeaseTimes, Proposal, RaftInput, Renewal, ReplyTo};
use etcdserver::read;
use prost::Message;

use super::rights::{Who, caller, is_about_rights};
use super::{Event, World};
use crate::failure::{Checker, ensure, fail};
use crate::member::{Input, Told};
use crate::model::header;

/// What a client wants.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Something for the log: its field of `InternalRaftRequest`, encoded.
    Write { field: u32, body: Bytes },
    /// A range.
    Range { request: pb::RangeRequest, body: Bytes },
    /// Keepalive of a lease.
    Renew(i64),
    /// Time left of a lease.
    Times(i64),
    /// A membership change.
    Change(api::raftpb::ConfChange),
    /// A learner shall vote.
    Promote(u64),
    /// Another leader.
    Move(u64),
}

/// A request and what is known of it.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) request: Request,
    who: Option<Who>,
    /// Who that is, as the member it reached says.
    identity: Option<Arc<Identity>>,
    sent: u64,
    /// What some client knew when it was sent: an index that its effect must follow.
    must_see: u64,
    answered: bool,
    /// Refused before it was proposed: it must never be applied.
    refused: bool,
}

/// An answer on its way to the client.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Told(Told),
    /// A range, as of an applied index: the response without ids in its header.
    Range {
        applied: u64,
        response: Result<Vec<u8>, api::Status>,
    },
}

impl World {
    /// A client sends a request to a member.
    pub(super) fn request(&mut self, member: usize, request: Request) {
        let who = self.who();
        self.request_of(member, request, who);
    }

    /// The same, and it says who it is.
    pub(super) fn request_of(&mut self, member: usize, request: Request, who: Option<Who>) {
        let op = self.clients.ops.len() as u32;
        self.counts.operations += 1;
        let must_see = self.history.acknowledged;
        self.clients.ops.push(Op {
            request,
            who,
            identity: None,
            sent: self.now,
            must_see,
            answered: false,
            refused: false,
        });
        let delay = self.network.delay(self.settings.network_us * 1_000);
        self.after(delay, Event::Request { member, op });
    }

    /// It reaches the member: what the edge does with it.
    pub(super) fn request_arrived(&mut self, member: usize, op: u32) {
        let known = &self.clients.ops[op as usize];
        let identity = self.identified(member, known.who.as_ref());
        if let Err(code) = self.edge(member, &known.request, identity.as_ref()) {
            return self.reply(op, Answer::Told(Told::Refused(code.into())));
        }
        self.clients.ops[op as usize].identity.clone_from(&identity);
        let Some(run) = &self.members[member].run else { return };
        let to = ReplyTo { thread: 0, connection: 0, stream: op };
        let input = match &self.clients.ops[op as usize].request {
            Request::Write { field, body } => {
                Input::Propose(Proposal { reply_to: Some(to), identity, field: *field, body: body.clone() })
            }
            Request::Range { request, .. } if request.serializable || run.published.reads_are_local => {
                return self.serve(member, op);
            }
            Request::Range { .. } => Input::Read(to),
            Request::Renew(lease) => {
                Input::Raft(RaftInput::Renew(vec![Renewal { reply_to: to, lease: *lease }]))
            }
            Request::Times(lease) => {
                let question = LeaseQuestion { reply_to: to, lease: Some(*lease) };
                Input::Raft(RaftInput::LeaseTimes(vec![question]))
            }
            Request::Change(change) => {
                Input::Raft(RaftInput::ConfChange { reply_to: Some(to), change: change.clone() })
            }
            Request::Promote(id) => Input::Promote { reply_to: to, id: *id },
            Request::Move(id) => Input::Raft(RaftInput::TransferLeader { to: *id }),
        };
        self.arrive(member, input);
    }

    /// A range is answered from what is published now.
    fn serve(&mut self, member: usize, op: u32) {
        let Some(run) = &self.members[member].run else { return };
        let known = &self.clients.ops[op as usize];
        let Request::Range { body, .. } = &known.request else { return };
        let range = Range::parse(body).expect("clients send whole messages");
        let mut out = Vec::new();
        let served = read::range(&run.published, caller(known.identity.as_ref()), &range, &mut out);
        let response = served.map(|_| {
            let mut response = pb::RangeResponse::decode(&out[..]).expect("answers can be read");
            response.header = header(response.header.unwrap_or_default().revision);
            response.encode_to_vec()
        });
        let answer = Answer::Range { applied: run.published.applied, response };
        self.reply(op, answer);
    }

    fn reply(&mut self, op: u32, answer: Answer) {
        let delay = self.network.delay(self.settings.network_us * 1_000);
        self.after(delay, Event::Answer { op, answer });
    }

    /// A lane answers somebody.
    pub(super) fn tell(&mut self, member: usize, to: ReplyTo, told: Told) {
        match told {
            Told::ReadReady => self.serve(member, to.stream),
            told => self.reply(to.stream, Answer::Told(told)),
        }
    }

    /// The answer reaches the client.
    pub(super) fn answered(&mut self, op: u32, answer: Answer) {
        let slack = self.tick_ns();
        let known = &mut self.clients.ops[op as usize];
        ensure!(!known.answered, Linearizability, "request {op} is answered twice, now with {answer:?}");
        known.answered = true;
        self.counts.answered += 1;
        self.trace.note(self.now, crate::trace::NOBODY, "answer", u64::from(op), 0);
        let (sent, must_see) = (known.sent, known.must_see);
        match (known.request.clone(), answer) {
            (request, Answer::Told(Told::Applied(id, result))) => {
                self.check_applied(op, &request, must_see, id, &result);
            }
            (Request::Range { request, .. }, Answer::Range { applied, response }) => {
                self.check_range(op, &request, must_see, applied, &response);
            }
            (Request::Renew(lease), Answer::Told(Told::Renewed(ttl))) if ttl > 0 => {
                self.trace.note(
                    sent,
                    crate::trace::NOBODY,
                    "renewed at",
                    lease.cast_unsigned(),
                    self.now / 1_000_000,
                );
                self.history.renewed(lease, sent, ttl, slack);
                self.clients.lease_renewed(lease);
            }
            (Request::Renew(lease), Answer::Told(Told::Renewed(_))) => {
                self.check_no_lease(lease, must_see, sent);
            }
            (Request::Times(lease), Answer::Told(Told::Times(times))) => {
                self.check_times(lease, must_see, sent, &times);
            }
            (request, Answer::Told(Told::Refused(status))) => self.refused(op, &request, &status),
            (request, answer) => {
                fail(Checker::Linearizability, format!("request {op} {request:?} got {answer:?}"));
            }
        }
    }

    /// Checker 3 for what goes through the log: the entry is the request, the answer is the model's, and it comes
    /// after everything that was known when it was sent.
    fn check_applied(
        &mut self,
        op: u32,
        request: &Request,
        must_see: u64,
        id: u64,
        result: &Result<Vec<u8>, api::Status>,
    ) {
        let Some(&index) = self.history.by_request.get(&id) else {
            fail(Checker::Linearizability, format!("request {op} was answered, and is no entry"));
        };
        ensure!(
            index > must_see,
            Linearizability,
            "request {op} is entry {index}, though {must_see} was known when it was sent"
        );
        self.history.acknowledged = self.history.acknowledged.max(index);
        let entry = self.model.entry(index).expect("what has an index has been seen");
        if let Request::Write { field, body } = request {
            let envelope = Envelope::parse(&entry.data).expect("entries are requests");
            ensure!(
                (envelope.field, envelope.body) == (*field, &body[..]),
                Linearizability,
                "request {op} was answered for entry {index}, which is another request"
            );
            let own = caller(self.clients.ops[op as usize].identity.as_ref());
            ensure!(
                envelope.caller == own,
                Auth,
                "request {op} of {own:?} is entry {index} of {:?}",
                envelope.caller
            );
        }
        let is_full = matches!(result, Err(status) if is_no_space(status));
        let same = match (result, &entry.answer) {
            (Ok(bytes), Ok(expected)) => bytes == expected || !matches!(request, Request::Write { .. }),
            (Err(status), Err(code)) => status.message == code.message(),
            // What passes the quota is carried out and answered with an error all the same.
            (Err(_), Ok(_)) => is_full && (self.settings.quota_bytes > 0 || self.settings.fills_disks),
            (Ok(_), Err(_)) => false,
        };
        ensure!(
            same,
            Linearizability,
            "request {op} {request:?}, entry {index}, was answered {result:x?}; the model says {:x?}",
            entry.answer
        );
        self.count_rights(result.as_ref().err());
        let is_ok = result.is_ok();
        self.clients.done(request, is_ok);
    }

    fn check_range(
        &mut self,
        op: u32,
        request: &pb::RangeRequest,
        must_see: u64,
        applied: u64,
        response: &Result<Vec<u8>, api::Status>,
    ) {
        if !request.serializable {
            ensure!(
                applied >= must_see,
                Linearizability,
                "read {op} was served at {applied}, though {must_see} was known when it was sent"
            );
            self.history.acknowledged = self.history.acknowledged.max(applied);
        }
        let own = caller(self.clients.ops[op as usize].identity.as_ref());
        let permitted = self.model.auth_at(applied).check_read(own, request);
        ensure!(
            permitted.is_ok() || response.is_err(),
            Auth,
            "read {op} {request:?} of {own:?} at {applied} was answered, should be {permitted:?}"
        );
        let expected = permitted.and_then(|()| self.model.range(request, applied));
        let same = match (response, &expected) {
            (Ok(bytes), Ok(expected)) => *bytes == expected.encode_to_vec(),
            (Err(status), Err(code)) => status.message == code.message(),
            _ => false,
        };
        ensure!(
            same,
            Linearizability,
            "read {op} {request:?} at {applied} gave {:?}, the model {expected:?}",
            response.as_ref().map(|bytes| pb::RangeResponse::decode(&bytes[..]))
        );
        self.count_rights(response.as_ref().err());
    }

    fn count_rights(&mut self, error: Option<&api::Status>) {
        self.counts.denied += u64::from(error.is_some_and(|status| is_about_rights(&status.message)));
    }

    /// A lease is said not to exist: it must not have existed all the time.
    fn check_no_lease(&self, lease: i64, must_see: u64, sent: u64) {
        if !self.history.is_settled(lease, sent, self.stale_ns()) {
            return;
        }
        let lives = self.model.leases.get(&lease).and_then(|lives| lives.last());
        let existed = lives.is_some_and(|lease| lease.granted_at <= must_see && lease.revoked_at.is_none());
        ensure!(
            !existed,
            Lease,
            "lease {lease:x} is said not to exist, and does: {lives:?}; {must_see} was known, the log is at {}",
            self.model.last()
        );
    }

    /// How long a leader that was replaced may believe that it still leads, and some more.
    fn stale_ns(&self) -> u64 {
        3 * self.settings.election_ticks * self.tick_ns()
    }

    fn check_times(&self, lease: i64, must_see: u64, sent: u64, times: &LeaseTimes) {
        let is_settled = self.history.is_settled(lease, sent, self.stale_ns());
        match times {
            LeaseTimes::None => self.check_no_lease(lease, must_see, sent),
            LeaseTimes::One { granted, left } => {
                let known = self.model.leases.get(&lease).and_then(|lives| lives.last());
                let is_right = !is_settled
                    || known.is_some_and(|lease| {
                        lease.ttl == *granted && lease.revoked_at.is_none_or(|revoked| revoked > must_see)
                    });
                // A new leader gives up to an election timeout, and the rest of a second, on top.
                let most =
                    granted + (self.settings.election_ticks * self.settings.heartbeat_ms / 1000) as i64 + 1;
                ensure!(
                    is_right && *left <= most,
                    Lease,
                    "lease {lease:x} has {left} of {granted} seconds left; the log says {known:?}"
                );
            }
            LeaseTimes::All(_) => fail(Checker::Lease, "nobody asked for all leases".to_owned()),
        }
    }

    fn refused(&mut self, op: u32, request: &Request, status: &api::Status) {
        let is_definite = status.message == api::error::ErrorCode::TooManyRequests.message()
            || status.message == api::error::ErrorCode::RequestTooLarge.message();
        self.clients.ops[op as usize].refused = is_definite;
        self.count_rights(Some(status));
        self.clients.done(request, false);
    }

    /// Requests that were refused before they were proposed are in no entry.
    pub(super) fn check_refused(&self) {
        for (number, op) in self.clients.ops.iter().enumerate().filter(|(_, op)| op.refused) {
            // Puts have values of their own; other requests may be made twice.
            let Request::Write { field: 4, body } = &op.request else { continue };
            if pb::PutRequest::decode(&body[..]).is_ok_and(|put| put.ignore_value) {
                continue;
            }
            let found = (1..=self.model.last()).find(|index| {
                let entry = self.model.entry(*index).expect("within the log");
                Envelope::parse(&entry.data).is_ok_and(|envelope| envelope.body == &body[..])
            });
            ensure!(found.is_none(), Linearizability, "request {number} was refused, and is entry {found:?}");
        }
    }
}

fn is_no_space(status: &api::Status) -> bool {
    status.message == api::error::ErrorCode::NoSpace.message()
}
