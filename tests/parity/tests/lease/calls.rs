//! Granting, revoking, renewing, asking: answers that do not depend on time.

use api::ErrorCode;
use api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use parity::semantics::answer::{holds, kv, rev, text};
use parity::semantics::request::{Op, PutOptions, delete, grant, put, range, span, then, time_to_live};
use parity::semantics::{Difference, Group, Outcome, Status, Target, same};

pub(super) fn groups() -> Vec<Group> {
    let grants = Group::fresh("grants")
        .case("LE-001", le_001)
        .case("LE-002", le_002)
        .case("LE-003", le_003)
        .case("LE-004", le_004)
        .case("LE-005", le_005)
        .case("LE-006", le_006)
        .case("LE-007", le_007)
        .case("LE-008", le_008)
        .case("LE-009", le_009)
        .case("LE-010", le_010)
        .case("LE-013", le_013)
        .case("LE-014", le_014)
        .case("LE-015", le_015)
        .case("LE-016", le_016)
        .case("LE-017", le_017)
        .case("LE-011", le_011)
        .case("LE-012", le_012)
        .case("LE-018", le_018)
        .case("LE-019", le_019)
        .case("LE-020", le_020)
        .case("LE-021", le_021)
        .case("LE-028", le_028)
        .case("LE-029", le_029)
        .case("LE-040", le_040);
    let slow = Group::fresh("a long election timeout").flags(&["--election-timeout=5000"]).case("LE-046", le_046);
    vec![grants, slow]
}

async fn le_001(t: &Target) -> Outcome {
    let answer = t.ok(grant(0, 0)).await?;
    holds("an id above 0, time to live 2", answer.id > 0 && answer.ttl == 2, &answer)?;
    same("revision", rev(&answer.header), 1)
}

async fn le_002(t: &Target) -> Outcome {
    for ttl in [1, -5, 2] {
        same(&format!("time to live for {ttl}"), t.ok(grant(0, ttl)).await?.ttl, 2)?;
    }
    Ok(())
}

async fn le_003(t: &Target) -> Outcome {
    let answer = t.ok(grant(123, 60)).await?;
    same("lease", (answer.id, answer.ttl, rev(&answer.header)), (123, 60, 1))?;
    same("error", answer.error.as_str(), "")
}

async fn le_004(t: &Target) -> Outcome {
    t.refused(grant(123, 60), ErrorCode::LeaseExist).await
}

async fn le_005(t: &Target) -> Outcome {
    same("id", t.ok(grant(-9, 60)).await?.id, -9)
}

async fn le_006(t: &Target) -> Outcome {
    same("time to live", t.ok(grant(900, 9_000_000_000)).await?.ttl, 9_000_000_000)?;
    t.refused(grant(901, 9_000_000_001), ErrorCode::LeaseTtlTooLarge).await
}

async fn le_007(t: &Target) -> Outcome {
    t.refused(grant(123, 9_000_000_001), ErrorCode::LeaseTtlTooLarge).await
}

async fn le_008(t: &Target) -> Outcome {
    same("revision", t.revision().await?, 1)
}

async fn le_009(t: &Target) -> Outcome {
    for id in [99_999, 0] {
        let answer = t.ok(time_to_live(id)).await?;
        same("lease", (answer.id, answer.ttl, answer.granted_ttl, answer.keys.len()), (id, -1, 0, 0))?;
    }
    Ok(())
}

async fn le_010(t: &Target) -> Outcome {
    let answer = without_keys(t, 123).await?;
    holds("59 or 60 of 60", (59..=60).contains(&answer.ttl) && answer.granted_ttl == 60, &answer)?;
    same("keys", answer.keys.len(), 0)
}

async fn without_keys(t: &Target, id: i64) -> Result<LeaseTimeToLiveResponse, Difference> {
    t.ok(LeaseTimeToLiveRequest { id, keys: false }).await
}

/// The keys of a lease, sorted.
async fn keys(t: &Target, id: i64) -> Result<Vec<String>, Difference> {
    let mut keys: Vec<String> = t.ok(time_to_live(id)).await?.keys.iter().map(|key| text(key)).collect();
    keys.sort();
    Ok(keys)
}

async fn le_011(t: &Target) -> Outcome {
    t.ok(put("x", "1").lease(123)).await?;
    t.ok(put("w", "1").lease(123)).await?;
    same("keys", keys(t, 123).await?, ["w", "x"])
}

async fn le_012(t: &Target) -> Outcome {
    same("keys", without_keys(t, 123).await?.keys.len(), 0)
}

async fn le_013(t: &Target) -> Outcome {
    for (id, ttl) in [(1301, 500), (1302, 300), (1303, 8_000_000), (1304, 100)] {
        t.ok(grant(id, ttl)).await?;
    }
    let answer = t.ok(LeaseLeasesRequest {}).await?;
    let ids: Vec<i64> = answer.leases.iter().map(|lease| lease.id).collect();
    // Those with two seconds may be there or not: they expire about now.
    let long: Vec<i64> = ids.iter().copied().filter(|id| *id < 10_000).collect();
    let is_60 = |id: &i64| [123, -9].contains(id);
    same("ids by time left", long.iter().copied().filter(|id| !is_60(id)).collect::<Vec<_>>(), [1304, 1302, 1301, 1303, 900])?;
    holds("the shortest first", long.iter().take(2).all(is_60), &long)?;
    same("revision", rev(&answer.header), 1)
}

async fn le_014(t: &Target) -> Outcome {
    same("time to live", t.renew(123).await?, 60)
}

async fn le_015(t: &Target) -> Outcome {
    let mut s = t.open::<LeaseKeepAliveRequest>();
    for id in [4242, 0] {
        let answer = s.renew(id).await?;
        same("answer", (answer.id, answer.ttl, rev(&answer.header)), (id, 0, 1))?;
    }
    Ok(())
}

async fn le_016(t: &Target) -> Outcome {
    t.ok(grant(500, 70)).await?;
    let mut s = t.open::<LeaseKeepAliveRequest>();
    for id in [123, 4242, 500] {
        s.send(LeaseKeepAliveRequest { id });
    }
    for expected in [(123, 60), (4242, 0), (500, 70)] {
        let answer = s.message().await?;
        same("answer", (answer.id, answer.ttl), expected)?;
    }
    Ok(())
}

async fn le_017(t: &Target) -> Outcome {
    let mut s = t.open::<LeaseKeepAliveRequest>();
    s.renew(123).await?;
    s.half_close();
    same("end", s.end().await?, Status::ok())?;
    // Requests on their way are answered first.
    let mut s = t.open::<LeaseKeepAliveRequest>();
    s.send(LeaseKeepAliveRequest { id: 123 });
    s.send(LeaseKeepAliveRequest { id: 4242 });
    s.half_close();
    let (answers, end) = s.rest().await?;
    let ids: Vec<i64> = answers.iter().map(|answer| answer.id).collect();
    same("answers and end", (ids, end), (vec![123, 4242], Status::ok()))
}

async fn le_018(t: &Target) -> Outcome {
    same("revision before", t.revision().await?, 3)?;
    let answer = t.ok(LeaseRevokeRequest { id: 123 }).await?;
    same("revision", rev(&answer.header), 4)?;
    same("keys left", t.ok(span("w", "y")).await?.count, 0)
}

async fn le_019(t: &Target) -> Outcome {
    for id in [123, 888, 0] {
        t.refused(LeaseRevokeRequest { id }, ErrorCode::LeaseNotFound).await?;
    }
    Ok(())
}

async fn le_020(t: &Target) -> Outcome {
    t.ok(grant(20, 60)).await?;
    let answer = t.ok(LeaseRevokeRequest { id: 20 }).await?;
    same("revision", rev(&answer.header), 4)?;
    same("revision", t.revision().await?, 4)
}

async fn le_021(t: &Target) -> Outcome {
    same("id", t.ok(grant(123, 60)).await?.id, 123)?;
    same("keys", keys(t, 123).await?.len(), 0)
}

async fn le_028(t: &Target) -> Outcome {
    t.ok(grant(777, 60)).await?;
    t.ok(then([put("tl", "1").lease(777).op()])).await?;
    same("keys", keys(t, 777).await?, ["tl"])?;
    t.ok(delete("tl")).await?;
    same("keys", keys(t, 777).await?.len(), 0)?;
    let answer = t.ok(put("tl", "2")).await?;
    let r = rev(&answer.header);
    same("keys", keys(t, 777).await?.len(), 0)?;
    let found = t.ok(range("tl")).await?;
    same("pairs", found.kvs.iter().map(kv).collect::<Vec<_>>(), vec![("tl=2".to_string(), r, r, 1, 0)])
}

async fn le_029(t: &Target) -> Outcome {
    let r = t.revision().await?;
    same("revision", rev(&t.ok(LeaseRevokeRequest { id: 777 }).await?.header), r)?;
    same("keys left", t.ok(range("tl")).await?.count, 1)
}

async fn le_040(t: &Target) -> Outcome {
    let r = t.revision().await?;
    same("revision", rev(&t.ok(time_to_live(5)).await?.header), r)
}

async fn le_046(t: &Target) -> Outcome {
    same("time to live", t.ok(grant(0, 1)).await?.ttl, 8)
}
