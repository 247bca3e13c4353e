//! `/health`, `/livez`, `/readyz` and the single checks below them.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use etcdserver::apply::alarm::{CORRUPT, NONE, NOSPACE};
use mvcc::{RangeEnd, RangeQuery};

use super::query::Query;
use super::unless_get;
use crate::logging::Level;
use crate::member::handle::{Shared, State};
use crate::metrics;

/// One thing that is checked, and whether a read index comes first.
#[derive(Clone, Copy)]
struct Check {
    name: &'static str,
    is_linearizable: bool,
    check: fn(&Shared, &State) -> Result<(), String>,
}

const fn local(name: &'static str, check: fn(&Shared, &State) -> Result<(), String>) -> Check {
    Check { name, is_linearizable: false, check }
}

const LIVE: &[Check] = &[local("serializable_read", read)];
const READY: &[Check] = &[
    local("data_corruption", data_corruption),
    local("serializable_read", read),
    Check { name: "linearizable_read", is_linearizable: true, check: read },
    local("non_learner", non_learner),
];

/// The answer, if the path is one of a health check. Nothing of the request is kept while it is waited for.
pub(super) fn answer(
    shared: &Arc<Shared>,
    request: &Request,
) -> impl Future<Output = Option<Response>> + Send + use<> {
    let refused = unless_get(request);
    let query = Query::parse(request.uri().query());
    let path = request.uri().path().to_string();
    let shared = shared.clone();
    async move {
        if path == "/health" {
            return Some(match refused {
                Some(refused) => refused,
                None => health(&shared, &query).await,
            });
        }
        let (endpoint, checks, rest) = match path.strip_prefix("/livez") {
            Some(rest) => ("livez", LIVE, rest),
            None => ("readyz", READY, path.strip_prefix("/readyz")?),
        };
        let chosen: Vec<Check> = match rest.strip_prefix('/') {
            None if rest.is_empty() => checks.to_vec(),
            None => return None,
            Some(name) => vec![*checks.iter().find(|known| known.name == name)?],
        };
        Some(match refused {
            Some(refused) => refused,
            None => run(&shared, endpoint, &path, &chosen, &query).await,
        })
    }
}

/// A key is read, as etcd does it: whoever counts ranges counts this one too.
fn read(shared: &Shared, state: &State) -> Result<(), String> {
    let start = Instant::now();
    let mut query = RangeQuery::new(Bytes::new(), RangeEnd::Single);
    query.keys_only = true;
    query.limit = 1;
    let answer = state.edge.view.range(&query, &mut |_| ());
    let http = &shared.metrics.http;
    http.ranges.add(1);
    metrics::of(&http.range_seconds, answer.is_ok()).observe(start.elapsed());
    metrics::of(&http.range_requests, answer.is_ok()).observe(start.elapsed());
    answer.map(drop).map_err(|error| error.to_string())
}

fn data_corruption(_: &Shared, state: &State) -> Result<(), String> {
    if state.edge.alarms.any(CORRUPT) { Err("alarm activated: CORRUPT".into()) } else { Ok(()) }
}

fn non_learner(_: &Shared, state: &State) -> Result<(), String> {
    if state.role.is_learner { Err("not supported for learner".into()) } else { Ok(()) }
}

/// Runs checks and answers with one line for each, or with a word when all is well and nobody wants to know more.
async fn run(
    shared: &Shared,
    endpoint: &'static str,
    path: &str,
    checks: &[Check],
    query: &Query,
) -> Response {
    let (mut lines, mut failed) = (String::new(), false);
    for name in query.all("exclude") {
        if !checks.iter().any(|known| known.name == name) {
            shared.logger.warn("some health checks cannot be excluded", &[("missing-health-checks", name.into())]);
        }
    }
    for check in checks.iter().filter(|check| !query.all("exclude").any(|excluded| excluded == check.name)) {
        let index = if check.is_linearizable { read_index(shared).await } else { Ok(()) };
        let state = shared.published.load_full();
        let result = index.and_then(|()| (check.check)(shared, &state));
        shared.metrics.http.checked(endpoint, check.name, result.is_ok());
        match result {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
            Err(why) => {
                failed = true;
                lines.push_str(&format!("[-]{} failed: {why}\n", check.name));
            }
        }
    }
    let status = if failed { 503u64 } else { 200 };
    let fields = [("path", path.into()), ("reason", (&lines).into()), ("status-code", status.into())];
    if failed {
        shared.logger.error("Health check error", &fields);
        return super::text(StatusCode::SERVICE_UNAVAILABLE, lines + "\n");
    }
    shared.logger.named("", Level::Debug, "Health check OK", &fields);
    super::text(StatusCode::OK, if query.has("verbose") { lines + "ok\n" } else { "ok\n".into() })
}

async fn read_index(shared: &Shared) -> Result<(), String> {
    shared.read_index().await.map_err(|status| status.message.into_owned())
}

/// The old check: alarms, leader, a read.
async fn health(shared: &Shared, query: &Query) -> Response {
    let state = shared.published.load_full();
    let serializable = query.first("serializable") == Some("true");
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut reason = alarm_reason(shared, &state, &excluded)
        .or_else(|| (!serializable).then(|| leader_reason(shared, &state)).flatten());
    if reason.is_none() {
        let index = if serializable { Ok(()) } else { read_index(shared).await };
        let state = shared.published.load_full();
        reason = index.and_then(|()| read(shared, &state)).err().map(|error| format!("RANGE ERROR:{error}"));
    }
    let http = &shared.metrics.http;
    let Some(reason) = reason else {
        http.health_success.add(1);
        shared.logger.named("", Level::Debug, "/health OK", &[("status-code", 200u64.into())]);
        return super::plain(StatusCode::OK, "{\"health\":\"true\",\"reason\":\"\"}");
    };
    http.health_failures.add(1);
    let body = serde_json::json!({ "health": "false", "reason": reason }).to_string();
    shared.logger.warn("/health error", &[("output", (&body).into()), ("status-code", 503u64.into())]);
    super::text(StatusCode::SERVICE_UNAVAILABLE, body + "\n")
}

/// Alarms that count; `excluded` names those that do not.
fn alarm_reason(shared: &Shared, state: &State, excluded: &[&str]) -> Option<String> {
    for alarm in state.edge.alarms.list(NONE) {
        let name = match alarm.alarm {
            NOSPACE => "NOSPACE",
            CORRUPT => "CORRUPT",
            _ => "UNKNOWN",
        };
        let text = format!("memberID:{} alarm:{name}", alarm.member_id);
        if excluded.contains(&name) {
            shared.logger.named("", Level::Debug, "/health excluded alarm", &[("alarm", text.into())]);
            continue;
        }
        shared.logger.warn("serving /health false due to an alarm", &[("alarm", text.into())]);
        return Some(format!("ALARM {name}"));
    }
    None
}

fn leader_reason(shared: &Shared, state: &State) -> Option<String> {
    if state.role.leader != 0 {
        return None;
    }
    shared.logger.warn("serving /health false; no leader", &[]);
    Some("RAFT NO LEADER".into())
}
