//! The client port: who may ask at all, headers for browsers, then the paths.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{debug, field, measured, not_found, redirect, set, text, typed, unless_get, version};
use crate::member::handle::Shared;

/// Subtrees of the JSON gateway.
const GATEWAY: [&str; 2] = ["/v3/", "/v3beta/"];

pub(super) async fn answer(shared: &Arc<Shared>, request: Request, is_secure: bool) -> Response {
    // The whole server is asked, not a path of it.
    if request.method() == Method::OPTIONS && request.uri().path() == "*" {
        return StatusCode::OK.into_response();
    }
    let host = hostname(field(request.headers(), "host"));
    if !is_secure && !is_welcome(&shared.config.host_whitelist, host) {
        return text(StatusCode::MISDIRECTED_REQUEST, misdirected(host));
    }
    let allowed = allowed_origin(&shared.config.cors, field(request.headers(), "origin")).map(str::to_string);
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => route(shared, request).await,
    };
    if let Some(origin) = allowed {
        set(&mut response, "access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE");
        set(&mut response, "access-control-allow-origin", &origin);
        set(&mut response, "access-control-allow-headers", "accept, content-type, authorization");
    }
    response
}

async fn route(shared: &Arc<Shared>, request: Request) -> Response {
    let gateway: &[&str] = if shared.config.raw.text("enable-grpc-gateway") == "true" { &GATEWAY } else { &[] };
    let pprof: &[&str] = if debug::has_profiles(shared) { &["/debug/pprof/"] } else { &[] };
    // Only the newer one is known without its slash.
    let subtrees: Vec<&str> = gateway.iter().take(1).chain(pprof).copied().collect();
    if let Some(elsewhere) = redirect(&request, &subtrees) {
        return elsewhere;
    }
    let path = request.uri().path();
    match path {
        "/version" => return unless_get(&request).unwrap_or_else(|| version::version(shared)),
        "/debug/vars" => return unless_get(&request).unwrap_or_else(|| debug::vars(shared)),
        _ if gateway.iter().any(|subtree| path.starts_with(subtree)) => return no_gateway(),
        _ if pprof.iter().any(|subtree| path.starts_with(subtree)) => return debug::no_profiles(),
        _ => {}
    }
    measured(shared, request).await.unwrap_or_else(not_found)
}

fn no_gateway() -> Response {
    let body = "{\"code\":12, \"message\":\"the JSON gateway is not available in this version of Mainstay; use gRPC on the \
                same port\"}";
    typed(StatusCode::NOT_IMPLEMENTED, "application/json", body)
}

/// A host without its port and brackets.
fn hostname(host: &str) -> &str {
    let has_port = host.rsplit_once(':').is_some_and(|(name, _)| !name.contains(':') || name.ends_with(']'));
    let name = if has_port { host.rsplit_once(':').map_or(host, |(name, _)| name) } else { host };
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

/// Names that a browser was made to believe are ours are refused, if the user has said which are.
fn is_welcome(whitelist: &[String], host: &str) -> bool {
    whitelist.is_empty() || whitelist.iter().any(|known| known == "*" || known == host)
}

fn misdirected(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n\n"
    )
}

/// What to answer a page of this origin; `None` when it may not read the answer.
fn allowed_origin<'a>(cors: &'a [String], origin: &'a str) -> Option<&'a str> {
    if cors.iter().any(|known| known == "*") {
        return Some("*");
    }
    cors.iter().any(|known| known == origin).then_some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_brackets_are_no_part_of_a_name() {
        for (host, name) in [
            ("a.example", "a.example"), ("a.example:99", "a.example"), ("[::1]:1", "::1"), ("[::1]", "::1"), ("", ""),
            ("10.0.0.1:2379", "10.0.0.1"),
        ] {
            assert_eq!(hostname(host), name);
        }
    }

    #[test]
    fn only_named_hosts_and_origins_pass() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(is_welcome(&list(&["*"]), "x") && is_welcome(&[], "x") && is_welcome(&list(&["x"]), "x"));
        assert!(!is_welcome(&list(&["y"]), "x"));
        assert_eq!(allowed_origin(&list(&["*"]), "http://x:1"), Some("*"));
        assert_eq!(allowed_origin(&list(&["http://x:1"]), "http://x:1"), Some("http://x:1"));
        assert_eq!(allowed_origin(&list(&["http://x:1"]), ""), None);
    }
}
