//! The peer port: connections, paths, and what other members may ask beside raft.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use api::Status;
use api::error::ErrorCode;
use api::version::{MIN_CLUSTER, Minor, Version};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use etcdserver::membership::Member;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    HEADER_TIMEOUT, Port, field, json, not_allowed, not_found, peer_lease, peer_raft, redirect, set, text, typed,
    unless_get, version,
};
use crate::logging::Value;
use crate::member::change;
use crate::member::handle::Shared;
use crate::rafthttp::VERSION_MIN;

/// Peers that say no version are taken for ones of the time before there were such headers.
const VERSION_UNSAID: Minor = Minor { major: 2, minor: 0 };
/// Subtrees, which exist without their slash too.
const SUBTREES: [&str; 2] = ["/raft/stream/", "/members/promote/"];
/// Most bytes of a question about the hash.
const HASH_BODY_MAX: usize = 64 << 10;
/// Longest silence within the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one connection of a peer; `requests` counts those that are being answered, streams included.
pub(crate) async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    shared: Arc<Shared>,
    requests: Arc<AtomicUsize>,
) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (shared, place) = (shared.clone(), Place::take(&requests));
        async move {
            let answer = super::answer(State((shared, Port::Peer)), request.map(Body::new)).await;
            Ok::<_, Infallible>(answer.map(|body| Placed { body, _place: place }))
        }
    });
    // A peer that breaks off or talks nonsense has been told what can be told.
    let _over = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(io), service)
        .await;
}

/// A request that is being answered.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(requests: &Arc<AtomicUsize>) -> Place {
        requests.fetch_add(1, Ordering::Relaxed);
        Place(requests.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, which keeps its connection from being idle.
struct Placed {
    body: Body,
    _place: Place,
}

impl hyper::body::Body for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(super) async fn answer(shared: &Arc<Shared>, request: Request) -> Response {
    if let Some(elsewhere) = redirect(&request, &SUBTREES) {
        return elsewhere;
    }
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix("/raft/stream/") {
        let rest = rest.to_string();
        return unless_get(&request).unwrap_or_else(|| peer_raft::stream(shared, &rest, request.headers()));
    }
    if let Some(id) = path.strip_prefix("/members/promote/") {
        let id = id.to_string();
        return match unless_post(&request) {
            Some(refused) => refused,
            None => promote(shared, &id).await,
        };
    }
    match path {
        "/version" => unless_get(&request).unwrap_or_else(|| version::version(shared)),
        "/members" => unless_get(&request).unwrap_or_else(|| members(shared)),
        "/members/hashkv" => match unless_get(&request) {
            Some(refused) => refused,
            None => hash_kv(shared, request).await,
        },
        "/downgrade/enabled" => match unless_get(&request) {
            Some(refused) => refused,
            None => downgrade(shared).await,
        },
        "/raft" => match unless_post(&request) {
            Some(refused) => refused,
            None => peer_raft::message(shared, request).await,
        },
        "/raft/snapshot" => match unless_post(&request) {
            Some(refused) => refused,
            None => peer_raft::snapshot(shared, request).await,
        },
        "/raft/probing" => peer_raft::probing(shared),
        "/leases" | "/leases/internal" => peer_lease::answer(shared, request).await,
        _ => not_found(),
    }
}

fn unless_post(request: &Request) -> Option<Response> {
    (request.method() != Method::POST).then(|| not_allowed("POST"))
}

/// The answer with the cluster's id in its head.
pub(super) fn with_cluster(shared: &Shared, mut response: Response) -> Response {
    set(&mut response, "x-etcd-cluster-id", &api::ids::hex(shared.cluster_id).to_string());
    response
}

/// Versions first, then the cluster, as every peer checks them.
pub(super) fn refusal(shared: &Shared, headers: &HeaderMap) -> Option<&'static str> {
    let minor = |name| field(headers, name).parse().map_or(VERSION_UNSAID, Version::minor);
    let asked = minor("x-min-cluster-version");
    if minor("x-server-version") < VERSION_MIN || asked > shared.core.version.minor() {
        say_refused(shared, headers, "failed version compatibility check", ("error", "incompatible version".into()));
        return Some("incompatible version\n");
    }
    let (cluster, theirs) = (api::ids::hex(shared.cluster_id).to_string(), field(headers, "x-etcd-cluster-id"));
    if theirs != cluster {
        say_refused(shared, headers, "request cluster ID mismatch", ("remote-peer-cluster-id", theirs.into()));
        return Some("cluster ID mismatch\n");
    }
    None
}

fn say_refused(shared: &Shared, headers: &HeaderMap, text: &str, why: (&str, Value)) {
    let theirs = |name| Value::from(field(headers, name));
    let id = |id| Value::from(api::ids::hex(id).to_string());
    shared.logger.warn(
        text,
        &[
            ("local-member-id", id(shared.member_id)),
            ("local-member-cluster-id", id(shared.cluster_id)),
            ("local-member-server-version", shared.core.version.to_string().into()),
            ("local-member-server-minimum-cluster-version", MIN_CLUSTER.to_string().into()),
            ("remote-peer-server-name", theirs("x-server-from")),
            ("remote-peer-server-version", theirs("x-server-version")),
            ("remote-peer-server-minimum-cluster-version", theirs("x-min-cluster-version")),
            why,
        ],
    );
}

/// A body up to `max` bytes; `None` when it is longer or breaks off.
pub(super) async fn whole(body: Body, max: usize) -> Option<Vec<u8>> {
    let mut body = body;
    let mut bytes = Vec::new();
    while let Some(frame) = tokio::time::timeout(BODY_TIMEOUT, body.frame()).await.ok()? {
        if let Some(data) = frame.ok()?.data_ref() {
            if bytes.len() + data.len() > max {
                return None;
            }
            bytes.extend_from_slice(data);
        }
    }
    Some(bytes)
}

fn members(shared: &Shared) -> Response {
    let state = shared.published.load();
    with_cluster(shared, json(format!("{}\n", member_list(state.edge.cluster.members()))))
}

fn member_list<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let members: Vec<String> = members.map(Member::to_json).collect();
    format!("[{}]", members.join(","))
}

async fn promote(shared: &Arc<Shared>, id: &str) -> Response {
    let response = match id.parse::<u64>() {
        Err(_) => text(StatusCode::NOT_FOUND, format!("member {id} not found in cluster\n")),
        Ok(id) => match change::promote(shared, id).await {
            Ok(members) => json(format!("{}\n", member_list(members.iter()))),
            Err(status) => promote_refused(shared, id, &status),
        },
    };
    with_cluster(shared, response)
}

/// A refusal with the words that etcd has for it between members.
fn promote_refused(shared: &Shared, id: u64, status: &Status) -> Response {
    let is = |code: ErrorCode| *status == code.into();
    let cluster = shared.published.load().edge.cluster.clone();
    let is_voter = cluster.member(id).is_some_and(|member| !member.is_learner);
    if is(ErrorCode::MemberNotFound) {
        return text(StatusCode::NOT_FOUND, "membership: ID not found\n");
    }
    if is(ErrorCode::MemberNotLearner) || is_voter {
        return text(StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member\n");
    }
    if is(ErrorCode::LearnerNotReady) {
        return text(StatusCode::PRECONDITION_FAILED, format!("{}\n", status.message));
    }
    let error = Value::from(status.message.to_string());
    let id = Value::from(api::ids::hex(id).to_string());
    shared.logger.warn("failed to promote a member", &[("member-id", id), ("error", error)]);
    if is(ErrorCode::Timeout) || is(ErrorCode::TimeoutWaitAppliedIndex) {
        return text(StatusCode::REQUEST_TIMEOUT, format!("{}\n", status.message));
    }
    internal_error()
}

/// What etcd says when it has no better words.
fn internal_error() -> Response {
    let mut response = json("{\"message\":\"Internal Server Error\"}");
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// What was agreed on by now, not what this member may happen to know.
async fn downgrade(shared: &Shared) -> Response {
    let response = match shared.read_index().await {
        Ok(()) => {
            let enabled = shared.published.load().edge.cluster.downgrade().enabled;
            typed(StatusCode::OK, "text/plain", enabled.to_string())
        }
        Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", status.message)),
    };
    with_cluster(shared, response)
}

async fn hash_kv(shared: &Arc<Shared>, request: Request) -> Response {
    let given = field(request.headers(), "x-etcd-cluster-id").to_string();
    if !given.is_empty() && given != api::ids::hex(shared.cluster_id).to_string() {
        return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
    }
    let body = whole(request.into_body(), HASH_BODY_MAX).await.unwrap_or_default();
    let Some(revision) = asked_revision(&body) else {
        return text(StatusCode::BAD_REQUEST, "error unmarshalling request\n");
    };
    let state = shared.published.load_full();
    let view = state.edge.view.clone();
    let (reader, for_hash) = (shared.clone(), revision);
    let hash = tokio::task::spawn_blocking(move || {
        let start = std::time::Instant::now();
        let hash = view.hash_kv(for_hash);
        reader.metrics.hash_revision.observe(start.elapsed());
        hash
    });
    let hash = match hash.await {
        Ok(Ok(hash)) => hash,
        Ok(Err(error)) => {
            let words = match error {
                mvcc::Error::Compacted => "mvcc: required revision has been compacted\n".to_string(),
                mvcc::Error::FutureRevision => "mvcc: required revision is a future revision\n".to_string(),
                other => format!("{other}\n"),
            };
            return text(StatusCode::BAD_REQUEST, words);
        }
        Err(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, "etcdserver: server stopped\n"),
    };
    let mut parts = vec![format!("\"header\":{{\"revision\":{}}}", state.edge.view.revision())];
    let rows = [
        ("hash", i64::from(hash.hash)),
        ("compact_revision", hash.compact_revision),
        ("hash_revision", if shared.config.emulated_minor >= 6 { hash.revision } else { 0 }),
    ];
    parts.extend(rows.iter().filter(|(_, value)| *value != 0).map(|(name, value)| format!("\"{name}\":{value}")));
    with_cluster(shared, json(format!("{{{}}}", parts.join(","))))
}

/// The revision in `{"revision":N}`, 0 when it is left out; `None` when that is no JSON object.
fn asked_revision(body: &[u8]) -> Option<i64> {
    let asked: serde_json::Value = serde_json::from_slice(body).ok()?;
    match asked.as_object()?.get("revision") {
        None | Some(serde_json::Value::Null) => Some(0),
        Some(revision) => revision.as_i64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_taken_up_to_a_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let take = |len: usize, max| runtime.block_on(whole(Body::from(vec![b'x'; len]), max));
        assert_eq!(take(100, 100).map(|body| body.len()), Some(100));
        assert_eq!(take(101, 100), None);
        assert_eq!(take(0, 0), Some(Vec::new()));
    }

    #[test]
    fn the_revision_asked_for_is_a_number_or_left_out() {
        assert_eq!(asked_revision(b"{\"revision\":7}"), Some(7));
        assert_eq!(asked_revision(b"{}"), Some(0));
        for wrong in [&b""[..], b"x", b"7", b"{\"revision\":\"7\"}"] {
            assert_eq!(asked_revision(wrong), None);
        }
    }
}
