//! Alarms raised by hand, and what they stop.

use api::ErrorCode;
use api::etcdserverpb::LeaseRevokeRequest;
use api::etcdserverpb::alarm_request::AlarmAction;
use parity::semantics::alarms::{CORRUPT, NONE, NOSPACE};
use parity::semantics::request::{Op, RangeOptions, compact, delete, grant, put, range, then};
use parity::semantics::streams::At;
use parity::semantics::{Group, Outcome, Target, same};

use crate::http::{get, line};

/// A kind of alarm that no release knows.
const UNKNOWN: i32 = 9;

pub(super) fn groups() -> Vec<Group> {
    let corrupt = Group::fresh("CORRUPT")
        .case("CM-070", cm_070)
        .case("CM-076", cm_076)
        .cases(&["CM-077"], cm_077)
        .case("CM-078", cm_078)
        .case("CM-079", cm_079)
        .case("CM-080", cm_080)
        .case("CM-095", cm_095)
        .case("CM-081", cm_081);
    let both = Group::fresh("both kinds").cases(&["CM-091", "CM-092"], both_kinds);
    let full = Group::fresh("NOSPACE")
        .case("CM-075", cm_075)
        .case("CM-093", cm_093)
        .case("CM-096", cm_096)
        .case("CM-029", cm_029);
    vec![corrupt, both, full]
}

async fn cm_070(t: &Target) -> Outcome {
    same("alarms", t.alarms(NONE).await?, vec![])
}

async fn cm_076(t: &Target) -> Outcome {
    same("raised", t.alarm(AlarmAction::Activate, 5, NONE).await?, vec![])?;
    same("alarms", t.alarms(NONE).await?, vec![])
}

async fn cm_077(t: &Target) -> Outcome {
    t.ok(grant(12, 600)).await?;
    t.ok(put("a", "1")).await?;
    t.ok(put("a", "2")).await?;
    t.raise(7, CORRUPT).await?;
    t.refused(put("a", "3"), ErrorCode::Corrupt).await?;
    t.refused(delete("a"), ErrorCode::Corrupt).await?;
    t.refused(then([put("a", "3").op()]), ErrorCode::Corrupt).await?;
    t.refused(compact(2), ErrorCode::Corrupt).await?;
    t.refused(grant(0, 60), ErrorCode::Corrupt).await?;
    t.refused(LeaseRevokeRequest { id: 12 }, ErrorCode::Corrupt).await
}

async fn cm_078(t: &Target) -> Outcome {
    same("count", t.ok(range("a")).await?.count, 1)?;
    same("count, serializable", t.ok(range("a").serializable()).await?.count, 1)?;
    same("answers", t.ok(then([range("a").op()])).await?.responses.len(), 1)
}

async fn cm_079(t: &Target) -> Outcome {
    t.kill_and_start_with_alarms().await;
    same("alarms", t.alarms(NONE).await?, vec![(7, CORRUPT)])?;
    t.refused(put("a", "3"), ErrorCode::Corrupt).await
}

async fn cm_080(t: &Target) -> Outcome {
    let (status, body) = get(t, "/health");
    same("/health", (status, body.trim_end()), (503, "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}"))?;
    let (status, body) = get(t, "/health?exclude=CORRUPT");
    same("/health?exclude=CORRUPT", (status, body.trim_end()), (200, "{\"health\":\"true\",\"reason\":\"\"}"))
}

async fn cm_095(t: &Target) -> Outcome {
    same("/livez", get(t, "/livez"), (200, "ok\n".to_string()))?;
    let (status, body) = get(t, "/readyz");
    same("status of /readyz", status, 503)?;
    line(&body, "[-]data_corruption failed: alarm activated: CORRUPT")?;
    same("/readyz without it", get(t, "/readyz?exclude=data_corruption"), (200, "ok\n".to_string()))
}

async fn cm_081(t: &Target) -> Outcome {
    t.lower(7, CORRUPT).await?;
    t.ok(put("a", "3")).await.map(drop)
}

async fn both_kinds(t: &Target) -> Outcome {
    t.raise(5, NOSPACE).await?;
    t.raise(6, CORRUPT).await?;
    t.refused(put("a", "1"), ErrorCode::Corrupt).await.at("CM-091")?;
    t.refused(then([put("a", "1").op()]), ErrorCode::Corrupt).await.at("CM-091")?;
    t.lower(6, CORRUPT).await.at("CM-092")?;
    t.refused(then([put("a", "1").op()]), ErrorCode::NoSpace).await.at("CM-092")
}

async fn cm_075(t: &Target) -> Outcome {
    t.raise(5, NOSPACE).await?;
    t.raise(5, NOSPACE).await?;
    same("alarms", t.alarms(NONE).await?, vec![(5, NOSPACE)])?;
    t.refused(put("a", "1"), ErrorCode::NoSpace).await
}

async fn cm_093(t: &Target) -> Outcome {
    t.raise(6, NOSPACE).await?;
    t.lower(5, NOSPACE).await?;
    t.refused(put("a", "1"), ErrorCode::NoSpace).await?;
    t.lower(6, NOSPACE).await?;
    t.ok(put("a", "1")).await.map(drop)
}

async fn cm_096(t: &Target) -> Outcome {
    t.raise(7, NOSPACE).await?;
    same("/livez", get(t, "/livez"), (200, "ok\n".to_string()))?;
    same("/readyz", get(t, "/readyz"), (200, "ok\n".to_string()))?;
    for path in ["/health", "/health?exclude=nospace"] {
        let (status, body) = get(t, path);
        same(path, (status, body.trim_end()), (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}"))?;
    }
    same("status without it", get(t, "/health?exclude=NOSPACE").0, 200)?;
    t.lower(7, NOSPACE).await
}

async fn cm_029(t: &Target) -> Outcome {
    t.raise(3, UNKNOWN).await?;
    same("all alarms", t.alarms(NONE).await?, vec![(3, UNKNOWN)])?;
    same("alarms of that kind", t.alarms(UNKNOWN).await?, vec![(3, UNKNOWN)])?;
    t.ok(put("a", "2")).await?;
    t.lower(3, UNKNOWN).await?;
    same("all alarms", t.alarms(NONE).await?, vec![])
}
