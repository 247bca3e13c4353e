//! Put and DeleteRange: revisions, versions, previous pairs, leases, and a store that nobody has written to.

use api::ErrorCode;
use parity::semantics::answer::{holds, keys, kv, rev, values};
use parity::semantics::request::{
    PutOptions, RangeOptions, compact, delete, delete_span, grant, put, range, span, time_to_live, with_prev,
};
use parity::semantics::{Difference, Group, Outcome, Target, same};

pub(crate) fn groups() -> Vec<Group> {
    vec![deletions(leases(refusals(puts(untouched()))))]
}

fn untouched() -> Group {
    Group::fresh("untouched")
        .case("KV-001", async |t| {
            let answer = t.ok(range("zz")).await?;
            same("count", answer.count, 0)?;
            same("keys", answer.kvs.len(), 0)?;
            same("revision", rev(&answer.header), 1)
        })
        .case("KV-002", async |t| {
            let header = t.ok(range("zz")).await?.header.ok_or(Difference::new("no header"))?;
            holds("header", header.cluster_id != 0 && header.member_id != 0 && header.raft_term >= 2, header)
        })
        .case("KV-003", async |t| {
            t.refused(range(""), ErrorCode::EmptyKey).await?;
            t.refused(put("", ""), ErrorCode::EmptyKey).await?;
            t.refused(delete(""), ErrorCode::EmptyKey).await
        })
        .case("KV-004", async |t| t.refused(span("", "\0"), ErrorCode::EmptyKey).await)
        .case("KV-050", async |t| {
            same("revision", rev(&t.ok(compact(0)).await?.header), 1)?;
            t.refused(compact(0), ErrorCode::Compacted).await?;
            t.ok(compact(1)).await?;
            t.refused(compact(2), ErrorCode::FutureRev).await
        })
}

fn puts(group: Group) -> Group {
    group
        .case("KV-051", async |t| {
            same("first", rev(&t.ok(put("k", "v1")).await?.header), 2)?;
            same("second", rev(&t.ok(put("k", "v1")).await?.header), 3)
        })
        .case("KV-052", async |t| {
            let answer = t.ok(put("k", "v2").prev()).await?;
            same("previous", answer.prev_kv.as_ref().map(kv), Some(("k=v1".into(), 2, 3, 2, 0)))?;
            same("revision", rev(&answer.header), 4)
        })
        .case("KV-054", async |t| {
            let answer = t.ok(put("k", "").ignore_value().prev()).await?;
            same("previous", answer.prev_kv.as_ref().map(kv), Some(("k=v2".into(), 2, 4, 3, 0)))?;
            same("pair", kv(&t.ok(range("k")).await?.kvs[0]), ("k=v2".into(), 2, 5, 4, 0))
        })
        .case("KV-053", async |t| same("previous", t.ok(put("k2", "v").prev()).await?.prev_kv, None))
        .case("KV-066", async |t| {
            let written = rev(&t.ok(put("e", "")).await?.header);
            let answer = t.ok(range("e")).await?;
            same("count", answer.count, 1)?;
            same("pair", kv(&answer.kvs[0]), ("e=".into(), written, written, 1, 0))
        })
}

fn refusals(group: Group) -> Group {
    group
        .case("KV-055", async |t| t.refused(put("k", "x").ignore_value(), ErrorCode::ValueProvided).await)
        .case("KV-056", async |t| {
            let before = t.revision().await?;
            t.refused(put("missing", "").ignore_value(), ErrorCode::KeyNotFound).await?;
            t.refused(put("missing", "x").ignore_lease(), ErrorCode::KeyNotFound).await?;
            same("revision", t.revision().await?, before)
        })
        .case("KV-057", async |t| {
            t.refused(put("k", "x").ignore_lease().lease(5), ErrorCode::LeaseProvided).await
        })
        .case("KV-058", async |t| {
            let both = |key: &str| put(key, "x").ignore_value().ignore_lease().lease(3);
            t.refused(both(""), ErrorCode::EmptyKey).await?;
            t.refused(both("k"), ErrorCode::ValueProvided).await
        })
        .case("KV-059", async |t| {
            t.refused(put("k", "x").lease(777), ErrorCode::LeaseNotFound).await?;
            t.refused(put("k", "x").lease(-777), ErrorCode::LeaseNotFound).await
        })
        .case("KV-060", async |t| {
            t.refused(put("missing", "").ignore_value().lease(777), ErrorCode::LeaseNotFound).await
        })
}

/// The two leases that a key moves between.
const FIRST: i64 = 101;
const SECOND: i64 = 102;

async fn lease_holds(t: &Target, lease: i64, expected: &[&str]) -> Outcome {
    let answer = t.ok(time_to_live(lease)).await?;
    let keys: Vec<String> = answer.keys.iter().map(|key| key.escape_ascii().to_string()).collect();
    same(&format!("keys of lease {lease}"), keys, expected)
}

/// Value and lease of a key.
async fn stands(t: &Target, key: &str, value: &str, lease: i64) -> Outcome {
    let answer = t.ok(range(key)).await?;
    same("value", values(&answer.kvs), [value])?;
    same("lease", answer.kvs[0].lease, lease)
}

fn leases(group: Group) -> Group {
    group
        .case("KV-061", async |t| {
            t.ok(grant(FIRST, 600)).await?;
            t.ok(put("lk", "v").lease(FIRST)).await?;
            lease_holds(t, FIRST, &["lk"]).await?;
            t.ok(put("lk", "v2")).await?;
            stands(t, "lk", "v2", 0).await?;
            lease_holds(t, FIRST, &[]).await
        })
        .case("KV-062", async |t| {
            t.ok(put("lk", "v").lease(FIRST)).await?;
            t.ok(put("lk", "v3").ignore_lease()).await?;
            stands(t, "lk", "v3", FIRST).await
        })
        .case("KV-063", async |t| {
            t.ok(grant(SECOND, 600)).await?;
            t.ok(put("lk", "v4").lease(SECOND)).await?;
            lease_holds(t, FIRST, &[]).await?;
            lease_holds(t, SECOND, &["lk"]).await
        })
        .case("KV-064", async |t| {
            let before = t.revision().await?;
            t.ok(put("lk", "").ignore_value().ignore_lease()).await?;
            stands(t, "lk", "v4", SECOND).await?;
            same("revision", t.revision().await?, before + 1)
        })
        .case("KV-065", async |t| {
            t.ok(grant(5, 600)).await?;
            t.ok(put("r0", "kept")).await?;
            t.ok(put("r0", "").ignore_value().lease(5)).await?;
            stands(t, "r0", "kept", 5).await
        })
        .case("KV-073", async |t| {
            t.ok(delete("lk")).await?;
            lease_holds(t, SECOND, &[]).await
        })
        .case("KV-074", async |t| {
            let answer = t.ok(with_prev(delete("r0"))).await?;
            same("deleted", answer.deleted, 1)?;
            same("lease", answer.prev_kvs[0].lease, 5)
        })
}

fn deletions(group: Group) -> Group {
    group
        .case("KV-067", async |t| {
            let before = t.revision().await?;
            let answer = t.ok(delete("nope")).await?;
            same("deleted", answer.deleted, 0)?;
            same("revision", rev(&answer.header), before)
        })
        .case("KV-068", async |t| {
            let answer = t.ok(with_prev(delete("k2"))).await?;
            same("deleted", answer.deleted, 1)?;
            same("previous", kv(&answer.prev_kvs[0]), ("k2=v".into(), 6, 6, 1, 0))
        })
        .case("KV-069", async |t| {
            t.ok(delete("k")).await?;
            let written = rev(&t.ok(put("k", "n")).await?.header);
            same("pair", kv(&t.ok(range("k")).await?.kvs[0]), ("k=n".into(), written, written, 1, 0))
        })
        .case("KV-070", async |t| {
            for key in ["d1", "d2", "d3"] {
                t.ok(put(key, "")).await?;
            }
            let before = t.revision().await?;
            let answer = t.ok(with_prev(delete_span("d", "e"))).await?;
            same("deleted", answer.deleted, 3)?;
            same("previous", keys(&answer.prev_kvs), ["d1", "d2", "d3"])?;
            same("revision", rev(&answer.header), before + 1)
        })
        .case("KV-071", async |t| same("deleted", t.ok(delete_span("z", "a")).await?.deleted, 0))
        .case("KV-072", async |t| {
            let before = t.revision().await? - 1;
            same("keys", keys(&t.ok(span("d", "e").at(before)).await?.kvs), ["d1", "d2", "d3"])
        })
}
