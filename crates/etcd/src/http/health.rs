//! `/health`, `/livez`, `/readyz`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use etcdserver::apply::alarm::{CORRUPT, NONE, NOSPACE};

use crate::member::handle::Shared;

/// Why the member is not healthy; `exclude` names alarms that do not count.
fn reason(shared: &Shared, serializable: bool, exclude: &[&str]) -> Option<String> {
    let state = shared.published.load();
    for alarm in state.edge.alarms.list(NONE) {
        let name = match alarm.alarm {
            NOSPACE => "NOSPACE",
            CORRUPT => "CORRUPT",
            _ => "UNKNOWN",
        };
        if !exclude.contains(&name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && state.role.leader == 0 {
        return Some("RAFT NO LEADER".into());
    }
    None
}

/// Values of a query parameter.
fn values<'a>(query: &'a str, name: &str) -> Vec<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name).map(|(_, v)| v).collect()
}

/// The old check: alarms, leader, a read.
pub(super) async fn health(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let serializable = values(&query, "serializable").contains(&"true");
    match reason(&shared, serializable, &values(&query, "exclude")) {
        None => super::text(StatusCode::OK, "{\"health\":\"true\",\"reason\":\"\"}"),
        Some(reason) => super::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"),
        ),
    }
}

/// One named check and its failure.
type Check = (&'static str, Option<String>);

fn answer(checks: &[Check], query: &str) -> Response {
    let verbose = query.split('&').any(|part| part == "verbose" || part.starts_with("verbose="));
    let exclude = values(query, "exclude");
    let (mut lines, mut failed) = (String::new(), false);
    for (name, failure) in checks.iter().filter(|(name, _)| !exclude.contains(name)) {
        match failure {
            None => lines.push_str(&format!("[+]{name} ok\n")),
            Some(why) => {
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    if failed {
        return super::text(StatusCode::SERVICE_UNAVAILABLE, lines + "\n");
    }
    super::text(StatusCode::OK, if verbose { lines + "ok\n" } else { "ok\n".into() })
}

/// Whether the process should be left alive.
pub(super) async fn livez(State(_): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    answer(&[("serializable_read", None)], &query.unwrap_or_default())
}

/// Whether the member can take requests.
pub(super) async fn readyz(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let state = shared.published.load();
    let corrupt = state.edge.alarms.any(CORRUPT).then(|| "alarm activated: CORRUPT".to_string());
    let linearizable = (!state.edge.reads_are_local).then(|| "etcdserver: no leader".to_string());
    let learner = state.role.is_learner.then(|| "not supported for learner".to_string());
    let checks = [
        ("data_corruption", corrupt),
        ("serializable_read", None),
        ("linearizable_read", linearizable),
        ("non_learner", learner),
    ];
    answer(&checks, &query.unwrap_or_default())
}
