//! Range: intervals, limits, counts, orders, filters, revisions.

use api::ErrorCode;
use api::etcdserverpb::RangeRequest;
use api::etcdserverpb::range_request::{SortOrder as Order, SortTarget as Sort};
use parity::semantics::answer::{keys, kv, range_at, rev, values};
use parity::semantics::request::{
    Op, PutOptions, RangeOptions, compact, compact_physical, everything, grant, put, range, span, then,
};
use parity::semantics::{Group, Outcome, Target, same};

use crate::{eight_keys, eight_keys_and_three_again};

pub(crate) fn groups() -> Vec<Group> {
    vec![intervals(), options(orders()), keys_only_and_leases()]
}

/// The keys found, the count, and whether there are more.
async fn finds(t: &Target, request: RangeRequest, found: &[&str], count: i64, more: bool) -> Outcome {
    let answer = t.ok(request).await?;
    same("keys", keys(&answer.kvs), found)?;
    same("count", answer.count, count)?;
    same("more", answer.more, more)
}

const FIVE: [&str; 5] = ["a", "ab", "abc", "b", "c"];

fn five() -> RangeRequest {
    span("a", "d")
}

fn intervals() -> Group {
    let group = Group::fresh("eight keys")
        .setup(eight_keys)
        .case("KV-005", async |t| finds(t, range("a"), &["a"], 1, false).await)
        .case("KV-006", async |t| finds(t, span("a", "b"), &["a", "ab", "abc"], 3, false).await)
        .case("KV-007", async |t| {
            finds(t, span("b", "\0"), &["b", "c", "\\xff", "\\xff\\xff"], 4, false).await
        })
        .case("KV-008", async |t| {
            let all = ["\\x00", "a", "ab", "abc", "b", "c", "\\xff", "\\xff\\xff"];
            finds(t, everything(), &all, 8, false).await
        })
        .case("KV-009", async |t| {
            for end in ["a", "b"] {
                finds(t, span("b", end), &[], 0, false).await?;
                same("revision", rev(&t.ok(span("b", end)).await?.header), 9)?;
            }
            Ok(())
        })
        .case("KV-010", async |t| finds(t, span("\0", "\0\0"), &["\\x00"], 1, false).await)
        .case("KV-011", async |t| finds(t, span("a", b"\xff"), &FIVE, 5, false).await);
    group
        .case("KV-012", async |t| finds(t, five().limit(2), &["a", "ab"], 5, true).await)
        .case("KV-013", async |t| finds(t, five().limit(5), &FIVE, 5, false).await)
        .case("KV-014", async |t| {
            finds(t, five().limit(-1), &FIVE, 5, false).await?;
            finds(t, five().limit(-5), &FIVE, 5, false).await
        })
        .case("KV-015", async |t| finds(t, five().limit(i64::MAX), &FIVE, 5, false).await)
        .case("KV-016", async |t| finds(t, five().limit(2).count_only(), &[], 5, false).await)
        .case("KV-017", async |t| finds(t, range("nope").count_only(), &[], 0, false).await)
        .case("KV-018", async |t| {
            finds(t, five().limit(2).keys_only(), &["a", "ab"], 5, true).await?;
            let answer = t.ok(five().limit(2).keys_only()).await?;
            same("first", kv(&answer.kvs[0]), ("a=".into(), 2, 2, 1, 0))?;
            same("second", kv(&answer.kvs[1]), ("ab=".into(), 3, 3, 1, 0))
        })
        .case("KV-019", async |t| {
            let request = five().count_only().keys_only().sort(Sort::Value, Order::Descend);
            finds(t, request, &[], 5, false).await
        })
}

async fn sorted(t: &Target, target: Sort, order: Order, found: [&str; 5]) -> Outcome {
    finds(t, five().sort(target, order), &found, 5, false).await
}

fn orders() -> Group {
    Group::fresh("eight keys and three again")
        .setup(eight_keys_and_three_again)
        .case("KV-020", async |t| {
            sorted(t, Sort::Key, Order::None, FIVE).await?;
            sorted(t, Sort::Key, Order::Ascend, FIVE).await?;
            sorted(t, Sort::Key, Order::Descend, ["c", "b", "abc", "ab", "a"]).await
        })
        .case("KV-021", async |t| {
            let answer = t.ok(five().sort(Sort::Version, Order::Ascend)).await?;
            let versions: Vec<i64> = answer.kvs.iter().map(|kv| kv.version).collect();
            same("versions", versions, [1, 1, 2, 2, 2])
        })
        .case("KV-022", async |t| sorted(t, Sort::Create, Order::Descend, ["c", "b", "abc", "ab", "a"]).await)
        .case("KV-023", async |t| {
            sorted(t, Sort::Mod, Order::Ascend, ["abc", "b", "c", "a", "ab"]).await?;
            sorted(t, Sort::Mod, Order::Descend, ["ab", "a", "c", "b", "abc"]).await
        })
        .case("KV-024", async |t| {
            sorted(t, Sort::Value, Order::Ascend, ["ab", "a", "abc", "b", "c"]).await?;
            sorted(t, Sort::Value, Order::Descend, ["c", "b", "abc", "a", "ab"]).await
        })
        .case("KV-025", async |t| sorted(t, Sort::Mod, Order::None, ["abc", "b", "c", "a", "ab"]).await)
        .case("KV-026", async |t| {
            finds(t, five().sort(Sort::Mod, Order::None).limit(2), &["abc", "a"], 5, true).await
        })
        .case("KV-027", async |t| {
            finds(t, five().sort(Sort::Mod, Order::Ascend).limit(2), &["abc", "b"], 5, true).await
        })
        .case("KV-028", async |t| {
            finds(t, five().sort(Sort::Key, Order::Descend).limit(2), &["c", "b"], 5, true).await
        })
        .case("KV-029", async |t| {
            let answer = t.ok(five().sort(Sort::Value, Order::Ascend).keys_only()).await?;
            same("keys", keys(&answer.kvs), ["ab", "a", "abc", "b", "c"])?;
            same("values", values(&answer.kvs), ["", "", "", "", ""])
        })
        .case("KV-030", async |t| {
            t.refused(RangeRequest { sort_order: 9, ..range("a") }, ErrorCode::InvalidSortOption).await
        })
        .case("KV-031", async |t| {
            t.refused(RangeRequest { sort_target: 9, ..range("a") }, ErrorCode::InvalidSortOption).await
        })
        .case("KV-170", async |t| {
            let wrong = |key: &str, sort_order| RangeRequest { sort_order, ..range(key) };
            t.refused(then([wrong("a", 9).op()]), ErrorCode::InvalidSortOption).await?;
            t.refused(wrong("", 9), ErrorCode::EmptyKey).await?;
            t.refused(wrong("a", -1), ErrorCode::InvalidSortOption).await
        })
}

fn options(group: Group) -> Group {
    revisions(filters(group))
}

fn filters(group: Group) -> Group {
    group
        .case("KV-032", async |t| {
            let request = RangeRequest { min_mod_revision: 10, ..five() };
            finds(t, request, &["a", "ab", "c"], 5, false).await
        })
        .case("KV-033", async |t| {
            let request = RangeRequest { max_mod_revision: 6, ..five() };
            finds(t, request.limit(1), &["abc"], 5, true).await
        })
        .case("KV-034", async |t| {
            let request = RangeRequest { min_create_revision: 4, max_create_revision: 5, ..five() };
            finds(t, request, &["abc", "b"], 5, false).await
        })
        .case("KV-035", async |t| {
            finds(t, RangeRequest { min_mod_revision: 999, ..five() }, &[], 5, false).await
        })
        .case("KV-036", async |t| {
            finds(t, RangeRequest { min_mod_revision: 10, ..five() }.count_only(), &[], 5, false).await
        })
        .case("KV-037", async |t| {
            finds(t, RangeRequest { min_mod_revision: -5, ..five() }, &FIVE, 5, false).await?;
            finds(t, RangeRequest { max_mod_revision: -5, ..five() }, &[], 5, false).await
        })
}

fn revisions(group: Group) -> Group {
    let group = group
        .case("KV-038", async |t| {
            let answer = t.ok(range("a").at(3)).await?;
            same("pair", kv(&answer.kvs[0]), ("a=v0".into(), 2, 2, 1, 0))?;
            same("revision", rev(&answer.header), 12)
        })
        .case("KV-039", async |t| {
            finds(t, range("a").at(1), &[], 0, false).await?;
            same("revision", rev(&t.ok(range("a").at(1)).await?.header), 12)
        })
        .case("KV-040", async |t| {
            t.refused(range("a").at(13), ErrorCode::FutureRev).await?;
            t.refused(range("missing").at(13), ErrorCode::FutureRev).await?;
            t.refused(range("a").at(13).serializable(), ErrorCode::FutureRev).await
        })
        .case("KV-041", async |t| {
            for revision in [-1, -5] {
                same("values", values(&t.ok(range("a").at(revision)).await?.kvs), ["mm"])?;
            }
            Ok(())
        })
        .case("KV-042", async |t| {
            same("revision", rev(&t.ok(compact(5)).await?.header), 12)?;
            t.refused(range("a").at(4), ErrorCode::Compacted).await
        })
        .case("KV-043", async |t| same("values", values(&t.ok(range("a").at(5)).await?.kvs), ["v0"]));
    group
        .case("KV-044", async |t| {
            t.refused(range("q").at(4), ErrorCode::Compacted).await?;
            t.refused(range("a").at(2).count_only(), ErrorCode::Compacted).await
        })
        .case("KV-045", async |t| {
            for revision in [5, 4, 0, -1] {
                t.refused(compact(revision), ErrorCode::Compacted).await?;
            }
            Ok(())
        })
        .case("KV-046", async |t| t.refused(compact(62), ErrorCode::FutureRev).await)
        .case("KV-047", async |t| {
            let before = t.everything().await?.kvs;
            t.ok(compact_physical(12)).await?;
            let after = t.everything().await?.kvs;
            same("keys", after.len(), 8)?;
            same("pairs", after, before)
        })
        .case("KV-048", async |t| {
            same("values", values(&t.ok(range("a").at(12)).await?.kvs), ["mm"])?;
            t.refused(range("a").at(11), ErrorCode::Compacted).await
        })
        .case("KV-049", async |t| t.refused(compact_physical(12), ErrorCode::Compacted).await)
}

fn keys_only_and_leases() -> Group {
    Group::fresh("a on lease 5")
        .setup(async |t| {
            t.ok(grant(5, 600)).await?;
            t.ok(put("a", "1").lease(5)).await?;
            Ok(())
        })
        .case("KV-134", async |t| {
            same("pair", kv(&t.ok(range("a").keys_only()).await?.kvs[0]), ("a=".into(), 2, 2, 1, 0))
        })
        .case("KV-171", async |t| {
            let answer = t.ok(then([range("a").keys_only().op()])).await?;
            same("pair", kv(&range_at(&answer, 0)?.kvs[0]), ("a=".into(), 2, 2, 1, 0))
        })
        .case("KV-135", async |t| {
            let request = range("a").keys_only().sort(Sort::Value, Order::Ascend);
            same("pair", kv(&t.ok(request).await?.kvs[0]), ("a=".into(), 2, 2, 1, 5))
        })
}
