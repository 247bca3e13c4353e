//! `/leases` and `/leases/internal`: questions about leases that other members pass on to the leader.

use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb as pb;
use api::lease_http as internal;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use etcdserver::effect::{LeaseQuestion, LeaseTimes, Renewal, ReplyTo};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;

use super::peer::whole;
use super::{set, text, typed};
use crate::member::handle::{MemberInput, Shared};

/// The "network thread" of calls that come from peers.
pub(crate) const PEER_THREAD: u16 = u16::MAX;
/// Most bytes of a question, as in etcd.
const BODY_MAX: usize = 64 << 10;
/// Longest wait for the member thread.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Calls that may wait at once.
const WAITING_MAX: usize = 4096;

/// Calls of peers that wait for the member thread.
#[derive(Debug, Default)]
pub(crate) struct PeerCalls(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Result<Told, Refusal>>, FixedState>,
}

/// What the member thread says of a lease: seconds granted, and left or given anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    granted: i64,
    left: i64,
}

impl PeerCalls {
    fn open(&self) -> Option<(ReplyTo, oneshot::Receiver<Result<Told, Refusal>>)> {
        let mut table = self.0.lock();
        if table.waiting.len() >= WAITING_MAX {
            return None;
        }
        table.next = table.next.wrapping_add(1);
        let (number, (tell, wait)) = (table.next, oneshot::channel());
        table.waiting.insert(number, tell);
        Some((ReplyTo { thread: PEER_THREAD, connection: number, stream: 0 }, wait))
    }

    fn tell(&self, to: ReplyTo, told: Result<Told, Refusal>) {
        if let Some(waiting) = self.0.lock().waiting.remove(&to.connection) {
            // Whoever has gone needs no answer.
            let _gone = waiting.send(told);
        }
    }

    /// A keepalive was answered; 0 seconds when there is no such lease.
    pub(crate) fn renewed(&self, renewal: Renewal, ttl: i64) {
        self.tell(renewal.reply_to, if ttl > 0 { Ok(Told { granted: ttl, left: ttl }) } else { Err(UNKNOWN) });
    }

    /// A question was answered.
    pub(crate) fn times(&self, question: LeaseQuestion, times: &LeaseTimes) {
        let told = match times {
            LeaseTimes::One { granted, left } => Ok(Told { granted: *granted, left: *left }),
            LeaseTimes::None | LeaseTimes::All(_) => Err(UNKNOWN),
        };
        self.tell(question.reply_to, told);
    }

    /// A call that cannot be answered here: another member leads.
    pub(crate) fn refuse(&self, to: ReplyTo) {
        self.tell(to, Err(NOT_LEADING));
    }
}

pub(super) async fn answer(shared: &Arc<Shared>, request: Request) -> Response {
    if request.method() != Method::POST {
        // Unlike everywhere else etcd does not say here what is allowed.
        return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    let is_internal = request.uri().path() == "/leases/internal";
    let Some(body) = whole(request.into_body(), BODY_MAX).await else {
        let mut refused = text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large\n");
        set(&mut refused, "connection", "close");
        return refused;
    };
    let answer = if is_internal { time_to_live(shared, &body).await } else { keep_alive(shared, &body).await };
    match answer {
        // The two paths have different words for the same.
        Err((_, why)) if is_internal && why == NOT_LEADING.1 => text(StatusCode::INTERNAL_SERVER_ERROR, why),
        Ok(bytes) => typed(StatusCode::OK, "application/protobuf", bytes),
        Err((status, why)) => text(status, why),
    }
}

/// Why there is no answer.
type Refusal = (StatusCode, &'static str);

const MALFORMED: Refusal = (StatusCode::BAD_REQUEST, "error unmarshalling request\n");
const UNKNOWN: Refusal = (StatusCode::NOT_FOUND, "lease not found\n");
const NOT_LEADING: Refusal = (StatusCode::BAD_REQUEST, "not a primary lessor\n");
const LATE: Refusal =
    (StatusCode::REQUEST_TIMEOUT, "waiting for node to catch up its applied index has timed out\n");

async fn ask(shared: &Shared, input: impl FnOnce(ReplyTo) -> MemberInput) -> Result<Told, Refusal> {
    let (to, wait) = shared.peer_calls.open().ok_or(LATE)?;
    shared.member.push(input(to));
    match tokio::time::timeout(WAIT_MAX, wait).await {
        Ok(Ok(told)) => told,
        Ok(Err(_)) | Err(_) => {
            shared.peer_calls.refuse(to);
            Err(LATE)
        }
    }
}

async fn keep_alive(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request = pb::LeaseKeepAliveRequest::decode(body).map_err(|_| MALFORMED)?;
    let lease = request.id;
    let told = ask(shared, |reply_to| MemberInput::Renew(vec![Renewal { reply_to, lease }])).await?;
    Ok(pb::LeaseKeepAliveResponse { header: None, id: lease, ttl: told.left }.encode_to_vec())
}

async fn time_to_live(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request = internal::LeaseInternalRequest::decode(body).map_err(|_| MALFORMED)?;
    // Go crashes on an empty question, and the connection with it; ours is no question either.
    let asked = request.lease_time_to_live_request.ok_or(MALFORMED)?;
    let lease = Some(asked.id);
    let told = ask(shared, |reply_to| MemberInput::LeaseTimes(vec![LeaseQuestion { reply_to, lease }])).await?;
    let keys = if asked.keys { shared.published.load().edge.leases.keys(asked.id) } else { Vec::new() };
    let response = pb::LeaseTimeToLiveResponse {
        header: Some(pb::ResponseHeader::default()),
        id: asked.id,
        ttl: told.left,
        granted_ttl: told.granted,
        keys,
    };
    Ok(internal::LeaseInternalResponse { lease_time_to_live_response: Some(response) }.encode_to_vec())
}
