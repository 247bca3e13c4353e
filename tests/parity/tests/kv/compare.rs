//! The compares of a transaction.

use api::etcdserverpb::Compare;
use api::etcdserverpb::compare::CompareResult::{Equal, Greater, Less, NotEqual};
use api::etcdserverpb::compare::{CompareResult, TargetUnion};
use parity::semantics::answer::rev;
use parity::semantics::request::{
    Op, PutOptions, RangeOptions, created, grant, leased, modified, put, range, then, until, value, version,
    when,
};
use parity::semantics::{Group, Outcome, Target, same};

pub(crate) fn groups() -> Vec<Group> {
    vec![odd_ones(plain())]
}

/// Each of the compares alone, and what it must come to.
async fn come_to(t: &Target, compares: &[(Compare, bool)]) -> Outcome {
    for (compare, expected) in compares {
        let answer = t.ok(when([compare.clone()], [], [])).await?;
        same(&format!("{compare:?}"), answer.succeeded, *expected)?;
    }
    Ok(())
}

async fn all_hold(t: &Target, compares: &[Compare]) -> Outcome {
    let compares: Vec<(Compare, bool)> = compares.iter().map(|compare| (compare.clone(), true)).collect();
    come_to(t, &compares).await
}

const LEASE: i64 = 77;

fn plain() -> Group {
    let group = Group::fresh("three keys to compare").setup(async |t| {
        for (key, value) in [("a", "1"), ("b", "2"), ("b", "2")] {
            t.ok(put(key, value)).await?;
        }
        t.ok(grant(LEASE, 600)).await?;
        same("revision", rev(&t.ok(put("c", "3").lease(LEASE)).await?.header), 5)
    });
    group
        .case("KV-112", async |t| {
            let a = |result, with| value("a", result, with);
            let compares = [
                (a(Equal, "1"), true),
                (a(NotEqual, "1"), false),
                (a(Greater, "0"), true),
                (a(Less, "2"), true),
            ];
            come_to(t, &compares).await
        })
        .case("KV-113", async |t| {
            let missing = |result, with| (value("zz", result, with), false);
            let compares =
                [missing(Equal, ""), missing(NotEqual, "x"), missing(Less, "x"), missing(Greater, "")];
            come_to(t, &compares).await
        })
        .case("KV-114", async |t| {
            let compares = [
                version("zz", Equal, 0),
                created("zz", Equal, 0),
                modified("zz", Equal, 0),
                leased("zz", Equal, 0),
                version("zz", Less, 1),
            ];
            all_hold(t, &compares).await
        })
        .case("KV-115", async |t| {
            let b = |result, with| version("b", result, with);
            let compares =
                [(b(Equal, 2), true), (b(Greater, 1), true), (b(Less, 2), false), (b(NotEqual, 2), false)];
            come_to(t, &compares).await
        })
        .case("KV-116", async |t| {
            all_hold(t, &[created("b", Equal, 3), modified("b", Equal, 4), modified("b", Greater, 3)]).await
        })
        .case("KV-117", async |t| {
            all_hold(t, &[leased("c", Equal, LEASE), leased("c", NotEqual, 0), leased("a", Equal, 0)]).await
        })
}

fn odd_ones(group: Group) -> Group {
    ranges(group)
        .case("KV-118", async |t| {
            let unset = |key| Compare { target_union: None, ..version(key, Equal, 0) };
            come_to(t, &[(unset("zz"), true), (unset("a"), false)]).await
        })
        .case("KV-119", async |t| {
            let bytes = TargetUnion::Value("x".into());
            let with_bytes = Compare { target_union: Some(bytes), ..version("zz", Equal, 0) };
            let other = TargetUnion::ModRevision(99);
            let with_other = Compare { target_union: Some(other), ..version("b", Greater, 0) };
            all_hold(t, &[with_bytes, with_other]).await
        })
        .case("KV-122", async |t| {
            let both = [value("a", Equal, "1"), value("b", Equal, "X")];
            same("succeeded", t.ok(when(both, [], [])).await?.succeeded, false)
        })
        .case("KV-123", async |t| {
            let unknown_result = Compare { result: 9, ..value("a", Equal, "no") };
            let unknown_target = |result: CompareResult| Compare { target: 9, ..version("a", result, 1) };
            let compares = [
                (unknown_result, true),
                (unknown_target(Equal), true),
                (unknown_target(Greater), false),
                (unknown_target(NotEqual), false),
            ];
            come_to(t, &compares).await
        })
        .case("KV-125", async |t| {
            let answer = t.ok(then([range("a").serializable().op()])).await?;
            same("succeeded", answer.succeeded, true)
        })
        .case("KV-124", async |t| {
            for at in 0..5 {
                t.ok(put(format!("r{at}"), "")).await?;
            }
            all_hold(t, &[until(leased("r", Equal, 0), "s")]).await
        })
}

fn ranges(group: Group) -> Group {
    group
        .case("KV-120", async |t| {
            let keys = |result, with| until(version("a", result, with), "d");
            let none = |result, with| until(version("x", result, with), "z");
            let compares = [
                (keys(Greater, 0), true),
                (keys(Greater, 1), false),
                (none(Equal, 0), true),
                (none(Greater, 0), false),
                (until(value("x", Equal, ""), "z"), false),
            ];
            come_to(t, &compares).await
        })
        .case("KV-121", async |t| {
            let compares = [until(modified("b", Greater, 2), "\0"), until(value("\0", NotEqual, "9"), "\0")];
            all_hold(t, &compares).await
        })
}
