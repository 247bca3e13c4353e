//! The peer port of a lone member: who it is, and etcd's answers to peers that it does not know.

use std::sync::Arc;

use api::version::{Minor, Version};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;

use super::{field, json, not_allowed, not_found, peer_lease, peer_raft, redirect, set, text, typed, unless_get, version};
use crate::member::handle::Shared;

/// Peers that say no version are taken for ones of the time before there were such headers.
const VERSION_UNSAID: Minor = Minor { major: 2, minor: 0 };
/// Older peers are refused.
const VERSION_MIN: Minor = Minor { major: 3, minor: 0 };
/// Subtrees, which exist without their slash too.
const SUBTREES: [&str; 2] = ["/raft/stream/", "/members/promote/"];
/// Most bytes of a question about the hash.
const HASH_BODY_MAX: usize = 64 << 10;

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
        return unless_post(&request).unwrap_or_else(|| promote(shared, &id));
    }
    match path {
        "/version" => unless_get(&request).unwrap_or_else(|| version::version(shared)),
        "/members" => unless_get(&request).unwrap_or_else(|| members(shared)),
        "/members/hashkv" => match unless_get(&request) {
            Some(refused) => refused,
            None => hash_kv(shared, request).await,
        },
        "/downgrade/enabled" => unless_get(&request).unwrap_or_else(|| downgrade(shared)),
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
        return Some("incompatible version\n");
    }
    let cluster = api::ids::hex(shared.cluster_id).to_string();
    (field(headers, "x-etcd-cluster-id") != cluster).then_some("cluster ID mismatch\n")
}

/// A body up to `max` bytes; `None` when it is longer or breaks off.
pub(super) async fn whole(body: Body, max: usize) -> Option<Vec<u8>> {
    let mut body = body;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
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
    let members: Vec<String> = state.edge.cluster.members().map(etcdserver::membership::Member::to_json).collect();
    with_cluster(shared, json(format!("[{}]\n", members.join(","))))
}

/// A lone member is a voter; nobody else is there to be promoted.
fn promote(shared: &Shared, id: &str) -> Response {
    let state = shared.published.load();
    let response = match id.parse::<u64>() {
        Err(_) => text(StatusCode::NOT_FOUND, format!("member {id} not found in cluster\n")),
        Ok(id) if state.edge.cluster.member(id).is_none() => {
            text(StatusCode::NOT_FOUND, "membership: ID not found\n")
        }
        Ok(_) => text(StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member\n"),
    };
    with_cluster(shared, response)
}

fn downgrade(shared: &Shared) -> Response {
    let enabled = shared.published.load().edge.cluster.downgrade().enabled;
    with_cluster(shared, typed(StatusCode::OK, "text/plain", enabled.to_string()))
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
    fn the_revision_asked_for_is_a_number_or_left_out() {
        assert_eq!(asked_revision(b"{\"revision\":7}"), Some(7));
        assert_eq!(asked_revision(b"{}"), Some(0));
        for wrong in [&b""[..], b"x", b"7", b"{\"revision\":\"7\"}"] {
            assert_eq!(asked_revision(wrong), None);
        }
    }
}
