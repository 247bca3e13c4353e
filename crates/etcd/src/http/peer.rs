//! The peer port of a lone member: who it is, and refusals in etcd's words for peers that it does not know.

use std::sync::Arc;

use api::version::{Minor, Version};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};

use crate::member::handle::Shared;

/// Peers that say no version are taken for ones of the time before there were such headers.
const VERSION_UNSAID: Minor = Minor { major: 2, minor: 0 };
/// Older peers are refused.
const VERSION_MIN: Minor = Minor { major: 3, minor: 0 };

/// What peers are served.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/version", get(super::version::version))
        .route("/members", get(members))
        .route("/raft", post(message))
        .route("/raft/snapshot", post(message))
        .route("/raft/stream/{kind}/{id}", get(stream))
        .fallback(super::not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(shared)
}

async fn not_allowed() -> Response {
    super::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n")
}

async fn members(State(shared): State<Arc<Shared>>) -> Response {
    let state = shared.published.load();
    let members: Vec<String> = state.edge.cluster.members().map(etcdserver::membership::Member::to_json).collect();
    let mut response = super::json(format!("[{}]\n", members.join(",")));
    let id = api::ids::hex(shared.cluster_id).to_string();
    response.headers_mut().insert("x-etcd-cluster-id", id.parse().expect("hex digits are a header value"));
    response
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Versions first, then the cluster, as every peer checks them.
fn refusal(shared: &Shared, headers: &HeaderMap) -> Option<&'static str> {
    let minor = |name| header(headers, name).parse().map_or(VERSION_UNSAID, Version::minor);
    let asked = minor("x-min-cluster-version");
    let too_old = minor("x-server-version") < VERSION_MIN || asked < VERSION_MIN;
    if too_old || asked > shared.core.version.minor() {
        return Some("incompatible version\n");
    }
    let cluster = api::ids::hex(shared.cluster_id).to_string();
    (header(headers, "x-etcd-cluster-id") != cluster).then_some("cluster ID mismatch\n")
}

/// A lone member takes no messages: who sends one is no peer of its.
async fn message(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    match refusal(&shared, &headers) {
        Some(why) => super::text(StatusCode::PRECONDITION_FAILED, why),
        None => super::text(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message\n"),
    }
}

async fn stream(
    State(shared): State<Arc<Shared>>,
    Path((kind, from)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(why) = refusal(&shared, &headers) {
        return super::text(StatusCode::PRECONDITION_FAILED, why);
    }
    let why = match kind.as_str() {
        "msgapp" | "message" if api::ids::parse_hex(&from).is_err() => "invalid from\n",
        "msgapp" | "message" => "error sender not found\n",
        _ => "invalid path\n",
    };
    super::text(StatusCode::NOT_FOUND, why)
}
