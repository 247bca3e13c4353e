//! The peer port of a lone member: who it is, and refusals in etcd's words for peers that it does not know.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use crate::member::handle::Shared;

/// What peers are served.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/version", get(super::version::version))
        .route("/members", get(members))
        .route("/raft/stream/{kind}/{id}", get(stream))
        .fallback(super::not_found)
        .with_state(shared)
}

async fn members(State(shared): State<Arc<Shared>>) -> Response {
    let state = shared.published.load();
    let members: Vec<String> = state.edge.cluster.members().map(etcdserver::membership::Member::to_json).collect();
    let mut response = super::json(format!("[{}]\n", members.join(",")));
    let id = api::ids::hex(shared.cluster_id).to_string();
    response.headers_mut().insert("x-etcd-cluster-id", id.parse().expect("hex digits are a header value"));
    response
}

async fn stream(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let cluster = headers.get("x-etcd-cluster-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    if cluster != api::ids::hex(shared.cluster_id).to_string() {
        return super::text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
    }
    super::text(StatusCode::NOT_FOUND, "error sender not found\n")
}
