//! Leases while an alarm is on.

use std::time::Duration;

use api::ErrorCode;
use api::etcdserverpb::LeaseRevokeRequest;
use parity::semantics::alarms::{CORRUPT, NOSPACE};
use parity::semantics::request::{PutOptions, grant, put, range};
use parity::semantics::{Difference, Group, Outcome, Target, same};

pub(super) fn groups() -> Vec<Group> {
    let full = Group::fresh("leases under NOSPACE")
        .setup(under_nospace)
        .case("LE-042", le_042)
        .case("LE-043", le_043)
        .case("LE-047", le_047);
    let corrupt = Group::fresh("leases under CORRUPT").case("LE-041", le_041);
    vec![full, corrupt]
}

async fn under_nospace(t: &Target) -> Outcome {
    t.ok(grant(43, 600)).await?;
    t.ok(put("held", "x").lease(43)).await?;
    t.ok(grant(47, 2)).await?;
    t.ok(put("brief", "x").lease(47)).await?;
    t.raise(7, NOSPACE).await
}

async fn count(t: &Target, key: &str) -> Result<i64, Difference> {
    Ok(t.ok(range(key)).await?.count)
}

async fn le_042(t: &Target) -> Outcome {
    t.refused(grant(0, 60), ErrorCode::NoSpace).await?;
    // The alarm comes before everything that is wrong with the request.
    t.refused(grant(0, 9_000_000_001), ErrorCode::NoSpace).await
}

async fn le_043(t: &Target) -> Outcome {
    t.ok(LeaseRevokeRequest { id: 43 }).await?;
    same("keys left", count(t, "held").await?, 0)
}

async fn le_047(t: &Target) -> Outcome {
    for _ in 0..100 {
        if count(t, "brief").await? == 0 {
            return Ok(());
        }
        t.sleep(Duration::from_millis(100)).await;
    }
    Err(Difference::new("the key outlives its lease by far"))
}

async fn le_041(t: &Target) -> Outcome {
    t.ok(grant(41, 600)).await?;
    t.raise(7, CORRUPT).await?;
    t.refused(grant(0, 60), ErrorCode::Corrupt).await?;
    t.refused(grant(0, 9_000_000_001), ErrorCode::Corrupt).await?;
    t.refused(LeaseRevokeRequest { id: 41 }, ErrorCode::Corrupt).await
}
