//! HTTP/1.1 on the ports of clients, peers and metrics: hyper on sockets whose first bytes were read already.
//!
//! Paths are matched as Go's multiplexer matches them, which its users see: an unclean path is redirected, a path of
//! which only a longer one with a slash is known too, and what is left is `404 page not found`.
//!
//! Reading order: this file (sockets, ports, paths, answers), `client.rs`, `health.rs`, `version.rs`, `metrics.rs`,
//! `debug.rs`, `peer.rs`, `peer_raft.rs`, `peer_lease.rs`.

mod client;
mod debug;
mod health;
mod io;
mod metrics;
mod plain;
mod peer;
mod peer_lease;
mod peer_raft;
mod query;
mod version;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use crate::member::handle::Shared;
use crate::net::io::Stream;
pub(crate) use io::Prefixed;

pub(crate) use peer::serve as serve_peer;
pub(crate) use plain::{PlainAnswer, answer as answer_plain, request as plain_request};
pub(crate) use peer_lease::{PEER_THREAD, PeerCalls};

/// Longest wait for the headers of a request.
const HEADER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Client,
    /// The same through TLS: a browser has looked at the certificate, so that the host needs no check.
    SecureClient,
    Peer,
    Metrics,
}

/// Serves one connection of a client that does not speak HTTP/2.
pub(crate) async fn serve_client(stream: Stream, first: Vec<u8>, shared: Arc<Shared>) {
    let port = if stream.is_secure() { Port::SecureClient } else { Port::Client };
    serve(Prefixed::new(stream, first), shared, port).await;
}

/// Serves one connection of a peer or of a metrics listener.
pub(crate) async fn serve_other(stream: Stream, shared: Arc<Shared>, port: Port) {
    serve(Prefixed::new(stream, Vec::new()), shared, port).await;
}

async fn serve(stream: Prefixed, shared: Arc<Shared>, port: Port) {
    let router = Router::new().fallback(answer).with_state((shared, port));
    let service = TowerToHyperService::new(router);
    // A client that breaks off or talks nonsense has been told what can be told.
    let _over = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(State((shared, port)): State<(Arc<Shared>, Port)>, request: Request) -> Response {
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
        let mut refused = plain(StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header");
        set(&mut refused, "connection", "close");
        return refused;
    }
    if !request.uri().path().starts_with('/') && request.uri().path() != "*" {
        let mut refused = plain(StatusCode::BAD_REQUEST, "400 Bad Request");
        set(&mut refused, "connection", "close");
        return refused;
    }
    match port {
        Port::Client => client::answer(&shared, request, false).await,
        Port::SecureClient => client::answer(&shared, request, true).await,
        Port::Peer => peer::answer(&shared, request).await,
        Port::Metrics => metrics_port(&shared, request).await,
    }
}

/// The listeners for metrics: no check of the host, no CORS, nothing else.
async fn metrics_port(shared: &Arc<Shared>, request: Request) -> Response {
    if let Some(elsewhere) = redirect(&request, &[]) {
        return elsewhere;
    }
    measured(shared, request).await.unwrap_or_else(not_found)
}

/// Health and metrics, which clients are served too.
async fn measured(shared: &Arc<Shared>, request: Request) -> Option<Response> {
    if request.uri().path() == "/metrics" {
        return Some(metrics::metrics(shared, request.headers()));
    }
    let answer = health::answer(shared, &request);
    answer.await
}

/// The answer to a method that a path does not have.
fn not_allowed(allow: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Whether the method is another than `GET`, and the answer to that.
fn unless_get(request: &Request) -> Option<Response> {
    (request.method() != Method::GET).then(|| not_allowed("GET"))
}

fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Where an unclean path leads, or one that lacks the slash of a known subtree.
fn redirect(request: &Request, subtrees: &[&str]) -> Option<Response> {
    let path = request.uri().path();
    let mut target = clean(path);
    if subtrees.iter().any(|subtree| subtree.strip_suffix('/') == Some(target.as_str())) {
        target.push('/');
    }
    if target == path || !path.starts_with('/') {
        return None;
    }
    if let Some(query) = request.uri().query() {
        target = format!("{target}?{query}");
    }
    let location = HeaderValue::from_str(&target).ok()?;
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let escaped = target.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
        *response.body_mut() = format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n").into();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    Some(response)
}

/// A path without `.`, `..` and doubled slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut cleaned = format!("/{}", parts.join("/"));
    if path.ends_with('/') && cleaned != "/" {
        cleaned.push('/');
    }
    cleaned
}

/// A plain text answer with the headers that Go's `http.Error` sets.
fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = plain(status, body);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A plain text answer whose type Go guesses from its content.
fn plain(status: StatusCode, body: impl Into<Body>) -> Response {
    typed(status, "text/plain; charset=utf-8", body)
}

/// A JSON answer.
fn json(body: impl Into<Body>) -> Response {
    typed(StatusCode::OK, "application/json", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

/// The value of a header field; empty when it is missing.
fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Adds a header field whose value is made of plain characters.
fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, cleaned) in
            [("/", "/"), ("//version", "/version"), ("/a/../version", "/version"), ("/a/./b/", "/a/b/"), ("/../..", "/")]
        {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn a_subtree_without_its_slash_is_redirected() {
        let request = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
        let location = |path: &str| {
            let response = redirect(&request(path), &["/v3/"])?;
            Some(response.headers()[header::LOCATION].to_str().unwrap().to_string())
        };
        assert_eq!(location("/v3").as_deref(), Some("/v3/"));
        assert_eq!(location("//x?y=1").as_deref(), Some("/x?y=1"));
        assert_eq!(location("/v3/kv"), None);
    }
}
