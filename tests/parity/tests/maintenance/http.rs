//! The HTTP endpoints of a member that is well.

use std::time::Duration;

use parity::http::{port_of, request};
use parity::semantics::{Difference, Group, Outcome, Target, same};

const HEALTHY: &str = "{\"health\":\"true\",\"reason\":\"\"}";

pub(super) fn groups() -> Vec<Group> {
    let well = Group::fresh("endpoints")
        .case("CM-062", cm_062)
        .case("CM-084", cm_084)
        .case("CM-085", cm_085)
        .case("CM-087", cm_087);
    vec![well]
}

/// Status and body of any request.
fn ask(t: &Target, method: &str, path: &str) -> (u16, String) {
    let port = t.member(|member| port_of(&member.client_url()));
    let answer = request(port, method, path, &[], b"");
    (answer.status, answer.body)
}

/// Status and body of a GET.
pub(super) fn get(t: &Target, path: &str) -> (u16, String) {
    ask(t, "GET", path)
}

/// A line that has to stand in a body.
pub(super) fn line(body: &str, expected: &str) -> Outcome {
    if body.lines().any(|line| line == expected) {
        return Ok(());
    }
    Err(Difference(format!("expected a line {expected:?}, got {body:?}")))
}

async fn cm_062(t: &Target) -> Outcome {
    same("one check", get(t, "/readyz/linearizable_read"), (200, "ok\n".to_string()))?;
    for path in ["/readyz/nope", "/livez/data_corruption", "/livez/"] {
        same(path, get(t, path), (404, "404 page not found\n".to_string()))?;
    }
    for (method, path) in [("POST", "/livez"), ("HEAD", "/livez"), ("HEAD", "/health")] {
        same(&format!("{method} {path}"), ask(t, method, path).0, 405)?;
    }
    same("an unknown check left out", get(t, "/readyz?exclude=nope"), (200, "ok\n".to_string()))
}

async fn cm_084(t: &Target) -> Outcome {
    same("POST /health", ask(t, "POST", "/health").0, 405)?;
    same("GET /health", get(t, "/health"), (200, HEALTHY.to_string()))?;
    same("without a round", get(t, "/health?serializable=true"), (200, HEALTHY.to_string()))
}

async fn cm_085(t: &Target) -> Outcome {
    same("/livez", get(t, "/livez"), (200, "ok\n".to_string()))?;
    same("/readyz", get(t, "/readyz"), (200, "ok\n".to_string()))?;
    same("/livez?verbose", get(t, "/livez?verbose"), (200, "[+]serializable_read ok\nok\n".to_string()))?;
    let (status, body) = get(t, "/readyz?verbose");
    let mut lines: Vec<&str> = body.lines().collect();
    // Go lists them in any order, its closing line aside.
    let last = lines.pop();
    lines.sort_unstable();
    let checks = ["data_corruption", "linearizable_read", "non_learner", "serializable_read"];
    let expected: Vec<String> = checks.iter().map(|name| format!("[+]{name} ok")).collect();
    same("/readyz?verbose", (status, lines, last), (200, expected.iter().map(String::as_str).collect(), Some("ok")))
}

async fn cm_087(t: &Target) -> Outcome {
    let expected = "{\"etcdserver\":\"3.7.3\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}";
    let mut answer = get(t, "/version");
    // Go decides on the stored version a moment after it serves.
    for _ in 0..100 {
        if answer.1.trim_end() == expected {
            break;
        }
        t.sleep(Duration::from_millis(100)).await;
        answer = get(t, "/version");
    }
    same("/version", (answer.0, answer.1.trim_end()), (200, expected))
}
