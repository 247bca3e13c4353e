//! Transactions: what is refused before anything runs, in which order things happen, what nested ones see.

use api::ErrorCode;
use api::etcdserverpb::compare::CompareResult::{Equal, Greater};
use api::etcdserverpb::{RequestOp, TxnRequest, WatchRequest};
use parity::semantics::answer::{deleted_at, events, inner, keys, kv, put_at, range_at, rev, txn_at, values};
use parity::semantics::request::{
    Op, PutOptions, RangeOptions, create, delete, delete_span, put, range, span, then, value, version, watch,
    when,
};
use parity::semantics::{Group, Outcome, Target, same};

pub(crate) fn groups() -> Vec<Group> {
    vec![nested(order(duplicates(basics()))), counts(revisions(atomic()))]
}

async fn is_missing(t: &Target, key: &str) -> Outcome {
    same(&format!("keys named {key}"), t.ok(range(key)).await?.count, 0)
}

fn basics() -> Group {
    Group::fresh("transactions")
        .setup(async |t| {
            t.ok(put("a", "1")).await?;
            t.ok(put("b", "2")).await?;
            Ok(())
        })
        .case("KV-075", async |t| {
            let answer = t.ok(TxnRequest::default()).await?;
            same("succeeded", answer.succeeded, true)?;
            same("responses", answer.responses.len(), 0)?;
            same("revision", rev(&answer.header), 3)
        })
        .case("KV-076", async |t| {
            let ops = [put("x", "1").op(), range("x").op(), put("y", "2").prev().op(), span("x", "z").op()];
            let answer = t.ok(when([value("a", Equal, "1")], ops, [])).await?;
            same("revision", rev(&answer.header), 4)?;
            same("put x", &put_at(&answer, 0)?.header, &inner(4))?;
            same("range x", &range_at(&answer, 1)?.header, &inner(4))?;
            same("range x", keys(&range_at(&answer, 1)?.kvs), ["x"])?;
            same("put y", &put_at(&answer, 2)?.prev_kv, &None)?;
            same("range", keys(&range_at(&answer, 3)?.kvs), ["x", "y"])
        })
        .case("KV-077", async |t| {
            let answer =
                t.ok(when([value("a", Equal, "2")], [put("x", "9").op()], [range("a").op()])).await?;
            same("succeeded", answer.succeeded, false)?;
            same("responses", answer.responses.len(), 1)?;
            same("range", &range_at(&answer, 0)?.header, &inner(4))?;
            same("revision", rev(&answer.header), 4)
        })
        .case("KV-078", async |t| {
            let answer = t.ok(then([delete("nonexist").op()])).await?;
            same("revision", rev(&answer.header), 4)?;
            same("deletion", &deleted_at(&answer, 0)?.header, &inner(4))
        })
}

async fn duplicate<const N: usize>(t: &Target, ops: [RequestOp; N]) -> Outcome {
    t.refused(then(ops), ErrorCode::DuplicateKey).await
}

fn duplicates(group: Group) -> Group {
    let p = || put("p", "1").op();
    let q = || put("q", "1").op();
    group
        .case("KV-079", async move |t| {
            duplicate(t, [p(), delete("p").op()]).await?;
            duplicate(t, [delete("p").op(), p()]).await?;
            duplicate(t, [p(), p()]).await
        })
        .case("KV-080", async |t| {
            let answer = t.ok(then([delete_span("a", "c").op(), delete("a").op()])).await?;
            same("first", deleted_at(&answer, 0)?.deleted, 2)?;
            same("second", deleted_at(&answer, 1)?.deleted, 0)
        })
        .case("KV-081", async |t| duplicate(t, [delete_span("a", "z").op(), put("m", "1").op()]).await)
        .case("KV-082", async |t| {
            let before = t.revision().await?;
            let answer = t.ok(then([delete_span("a", "m").op(), put("m", "1").op()])).await?;
            same("deletion", &deleted_at(&answer, 0)?.header, &inner(before))?;
            same("put", &put_at(&answer, 1)?.header, &inner(before + 1))?;
            same("revision", rev(&answer.header), before + 1)
        })
        .case("KV-083", async move |t| t.refused(when([], [], [p(), p()]), ErrorCode::DuplicateKey).await)
        .case("KV-084", async move |t| same("succeeded", t.ok(when([], [p()], [p()])).await?.succeeded, true))
        .case("KV-085", async move |t| duplicate(t, [p(), then([p()]).op()]).await)
        .case("KV-086", async move |t| {
            same("succeeded", t.ok(then([when([], [q()], [q()]).op()])).await?.succeeded, true)
        })
        .case("KV-087", async move |t| duplicate(t, [then([q()]).op(), then([q()]).op()]).await)
        .case("KV-088", async move |t| {
            duplicate(t, [then([delete_span("a", "z").op()]).op(), q()]).await?;
            duplicate(t, [delete_span("a", "z").op(), then([q()]).op()]).await
        })
        .case("KV-089", async move |t| {
            let before = t.revision().await?;
            let answer = t.ok(then([then([q()]).op(), then([delete("q").op()]).op()])).await?;
            same("revision", rev(&answer.header), before + 1)?;
            is_missing(t, "q").await
        })
        .case("KV-090", async move |t| duplicate(t, [then([delete("q").op()]).op(), then([q()]).op()]).await)
}

fn order(group: Group) -> Group {
    group
        .case("KV-091", async |t| {
            t.ok(then([delete_span("\0", "\0").op(), put("q", "1").op()])).await?;
            same("keys", keys(&t.everything().await?.kvs), ["q"])
        })
        .case("KV-092", async |t| {
            let before = rev(&t.ok(delete("q")).await?.header);
            let answer = t.ok(then([put("r", "1").op(), delete_span("q", "\0").op()])).await?;
            same("deleted", deleted_at(&answer, 1)?.deleted, 1)?;
            same("revision", rev(&answer.header), before + 1)?;
            is_missing(t, "r").await
        })
        .case("KV-093", async |t| {
            let revision = t.revision().await?;
            same("events", seen_from(t, revision).await?, ["PUT r", "DELETE r"])
        })
        .case("KV-136", async |t| {
            t.ok(put("a", "1")).await?;
            t.ok(put("b", "1")).await?;
            let answer = t.ok(then([delete_span("a", "c").op(), put("n", "1").op()])).await?;
            same("events", seen_from(t, rev(&answer.header)).await?, ["DELETE a", "DELETE b", "PUT n"])
        })
}

/// The events of the one response that a watch from a revision gets, which must all be of that revision.
async fn seen_from(t: &Target, revision: i64) -> Result<Vec<String>, parity::semantics::Difference> {
    let mut stream = t.open::<WatchRequest>();
    stream.send(create(watch("\0", "\0", revision)));
    same("created", stream.message().await?.created, true)?;
    let answer = stream.message().await?;
    let revisions = answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
    same("revisions", revisions.filter(|at| *at != revision).count(), 0)?;
    Ok(events(&answer))
}

fn nested(group: Group) -> Group {
    let group = group
        .case("KV-094", async |t| {
            t.ok(put("n", "0")).await?;
            let inside = when([version("m1", Greater, 0)], [put("saw", "").op()], [put("notsaw", "").op()]);
            let answer = t.ok(then([put("m1", "1").op(), inside.op(), range("m1").op()])).await?;
            same("nested header", &txn_at(&answer, 1)?.header, &inner(0))?;
            same("nested succeeded", txn_at(&answer, 1)?.succeeded, false)?;
            same("range", keys(&range_at(&answer, 2)?.kvs), ["m1"])?;
            is_missing(t, "saw").await?;
            same("notsaw", t.ok(range("notsaw")).await?.count, 1)
        })
        .case("KV-095", async |t| {
            let before = t.revision().await?;
            let answer = t.ok(then([then([range("n").op()]).op()])).await?;
            same("nested header", &txn_at(&answer, 0)?.header, &inner(0))?;
            same("found", values(&range_at(txn_at(&answer, 0)?, 0)?.kvs), ["0"])?;
            same("revision", rev(&answer.header), before)
        });
    group
        .case("KV-139", async |t| {
            t.ok(put("r0", "here")).await?;
            let before = t.revision().await?;
            let inside = when([version("zz", Greater, 0)], [put("x", "").op()], [range("r0").op()]);
            let answer = t.ok(then([inside.op()])).await?;
            same("succeeded", answer.succeeded, true)?;
            same("nested succeeded", txn_at(&answer, 0)?.succeeded, false)?;
            same("found", values(&range_at(txn_at(&answer, 0)?, 0)?.kvs), ["here"])?;
            same("revision", rev(&answer.header), before)
        })
        .case("KV-138", async |t| {
            for at in 0..5 {
                t.ok(put(format!("r{at}"), "")).await?;
            }
            let ops = [delete("r1").op(), then([range("r1").op()]).op(), span("r", "s").count_only().op()];
            let answer = t.ok(then(ops)).await?;
            same("nested range", range_at(txn_at(&answer, 1)?, 0)?.count, 0)?;
            same("count", range_at(&answer, 2)?.count, 4)
        })
        .case("KV-137", async |t| {
            t.ok(put("r1", "")).await?;
            let answer = t.ok(then([span("r", "s").limit(2).op()])).await?;
            let found = range_at(&answer, 0)?;
            same("keys", keys(&found.kvs), ["r0", "r1"])?;
            same("count", found.count, 5)?;
            same("more", found.more, true)
        })
}

fn revisions(group: Group) -> Group {
    group
        .case("KV-096", async |t| {
            let answer = t.ok(then([put("z1", "").op(), range("n").at(2).op()])).await?;
            same("pair", kv(&range_at(&answer, 1)?.kvs[0]), ("n=0".into(), 2, 2, 1, 0))
        })
        .case("KV-097", async |t| {
            let next = t.revision().await? + 1;
            t.refused(then([put("z2", "").op(), range("n").at(next).op()]), ErrorCode::FutureRev).await?;
            is_missing(t, "z2").await
        })
        .case("KV-098", async |t| {
            let next = t.revision().await? + 1;
            t.refused(then([range("n").at(next).op()]), ErrorCode::FutureRev).await
        })
        .case("KV-099", async |t| {
            let answer = t.ok(then([range("n").at(-1).op()])).await?;
            same("values", values(&range_at(&answer, 0)?.kvs), ["1"])?;
            t.refused(then([range("n").at(-2).op()]), ErrorCode::Compacted).await
        })
        .case("KV-100", async |t| {
            let future = t.revision().await? + 99;
            let answer = t.ok(when([], [range("n").op()], [range("n").at(future).op()])).await?;
            same("values", values(&range_at(&answer, 0)?.kvs), ["1"])
        })
        .case("KV-165", async |t| {
            let future = t.revision().await? + 99;
            let ops = [range("n").at(future).op(), put("x", "").lease(999).op()];
            t.refused(then(ops), ErrorCode::FutureRev).await
        })
}

fn atomic() -> Group {
    Group::fresh("all or nothing")
        .setup(async |t| {
            t.ok(put("n", "0")).await?;
            t.ok(put("n", "1")).await?;
            Ok(())
        })
        .case("KV-101", async |t| {
            let ops = [put("new1", "1").op(), put("new2", "").ignore_value().op()];
            t.refused(then(ops), ErrorCode::KeyNotFound).await?;
            is_missing(t, "new1").await
        })
        .case("KV-102", async |t| {
            let ops = [put("l1", "").op(), put("l2", "").lease(999).op()];
            t.refused(then(ops), ErrorCode::LeaseNotFound).await?;
            is_missing(t, "l1").await
        })
        .case("KV-103", async |t| {
            let request = when([], [put("l1", "").op()], [put("l2", "").lease(999).op()]);
            same("succeeded", t.ok(request).await?.succeeded, true)
        })
        .case("KV-104", async |t| {
            t.refused(then([RequestOp { request: None }]), ErrorCode::KeyNotFound).await
        })
        .case("KV-105", async |t| {
            t.refused(then([put("", "").op()]), ErrorCode::EmptyKey).await?;
            t.refused(when([version("", Equal, 0)], [], []), ErrorCode::EmptyKey).await?;
            t.refused(when([], [], [put("", "").op()]), ErrorCode::EmptyKey).await
        })
        .case("KV-106", async |t| {
            t.refused(then([put("a", "1").ignore_value().op()]), ErrorCode::ValueProvided).await
        })
}

fn puts(count: usize) -> Vec<RequestOp> {
    (0..count).map(|at| put(format!("many/{at}"), "").op()).collect()
}

/// So many puts, and a nested transaction with so many more.
fn puts_and_nested(count: usize, inside: usize) -> TxnRequest {
    let inside: Vec<RequestOp> = (0..inside).map(|at| put(format!("inside/{at}"), "").op()).collect();
    then(puts(count).into_iter().chain([then(inside).op()]))
}

fn counts(group: Group) -> Group {
    group
        .case("KV-107", async |t| {
            t.refused(then(puts(129)), ErrorCode::TooManyOps).await?;
            let compares = (0..129).map(|at| version(format!("many/{at}"), Equal, 0));
            t.refused(when(compares, [], []), ErrorCode::TooManyOps).await?;
            t.refused(then((0..129).map(|_| put("", "").op())), ErrorCode::TooManyOps).await
        })
        .case("KV-108", async |t| same("answers", t.ok(then(puts(128))).await?.responses.len(), 128))
        .case("KV-109", async |t| t.refused(puts_and_nested(126, 2), ErrorCode::TooManyOps).await)
        .case("KV-110", async |t| {
            t.ok(puts_and_nested(126, 1)).await?;
            t.ok(puts_and_nested(127, 0)).await?;
            Ok(())
        })
        .case("KV-111", async |t| {
            let before = t.revision().await?;
            let inside = |outer| then((0..64).map(move |at| put(format!("deep/{outer}/{at}"), "").op()));
            let answer = t.ok(then((0..64).map(|outer| inside(outer).op()))).await?;
            same("revision", rev(&answer.header), before + 1)?;
            same("count", t.ok(span("deep/", "deep0").count_only()).await?.count, 64 * 64)
        })
}
