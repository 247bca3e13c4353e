//! HTTP/1.1 on the ports of clients and peers: a router behind hyper, on sockets whose first bytes were read already.
//!
//! Reading order: this file (sockets and routers), `health.rs`, `version.rs`, `metrics.rs`, `peer.rs`.

mod health;
mod io;
mod metrics;
mod peer;
mod version;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use crate::member::handle::Shared;
use crate::net::io::Stream;
use io::Prefixed;

/// Longest wait for the headers of a request.
const HEADER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

/// What clients are served.
pub(crate) fn client_router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/version", get(version::version))
        .merge(metrics_routes())
        .fallback(not_found)
        .with_state(shared)
}

/// What the listeners for metrics serve.
pub(crate) fn metrics_router(shared: Arc<Shared>) -> Router {
    metrics_routes().fallback(not_found).with_state(shared)
}

fn metrics_routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
}

/// Serves one connection of a client that does not speak HTTP/2.
pub(crate) async fn serve_client(stream: Stream, first: Vec<u8>, shared: Arc<Shared>) {
    serve(Prefixed::new(stream, first), client_router(shared)).await;
}

/// Serves one connection of a peer.
pub(crate) async fn serve_peer(stream: Stream, shared: Arc<Shared>) {
    serve(Prefixed::new(stream, Vec::new()), peer::router(shared)).await;
}

/// Serves one connection of a metrics listener.
pub(crate) async fn serve_metrics(stream: Stream, shared: Arc<Shared>) {
    serve(Prefixed::new(stream, Vec::new()), metrics_router(shared)).await;
}

async fn serve(stream: Prefixed, router: Router) {
    let service = TowerToHyperService::new(router);
    // A client that breaks off or talks nonsense has been told what can be told.
    let _over = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A plain text answer with the headers that Go's `http.Error` sets.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Response {
    let headers =
        [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")];
    (status, headers, body.into()).into_response()
}

/// A JSON answer.
pub(crate) fn json(body: String) -> Response {
    (StatusCode::OK, [("content-type", "application/json")], body).into_response()
}

async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
