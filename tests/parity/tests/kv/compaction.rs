//! Compaction, alone and across restarts, and what a killed member must not have lost.

use std::time::{Duration, Instant};

use api::ErrorCode;
use parity::semantics::answer::{holds, kv, rev, values};
use parity::semantics::request::{
    RangeOptions, compact, compact_physical, delete, delete_span, everything, put, range, span,
};
use parity::semantics::target::ask_on;
use parity::semantics::{Difference, Group, Outcome, Status, Target, same};

pub(crate) fn groups() -> Vec<Group> {
    vec![slow_compaction(), restarts(), tombstones()]
}

fn tombstones() -> Group {
    Group::fresh("compaction")
        .case("KV-140", async |t| {
            let written = rev(&t.ok(put("cd", "v")).await?.header);
            let deleted = rev(&t.ok(delete("cd")).await?.header);
            t.ok(compact(written)).await?;
            same("values", values(&t.ok(range("cd").at(written)).await?.kvs), ["v"])?;
            same("count", t.ok(range("cd").at(deleted)).await?.count, 0)
        })
        .case("KV-141", async |t| {
            t.ok(put("v", "1")).await?;
            t.ok(put("v", "2")).await?;
            let deleted = rev(&t.ok(delete("v")).await?.header);
            t.ok(compact_physical(deleted)).await?;
            same("count", t.ok(range("v").at(deleted)).await?.count, 0)
        })
        .case("KV-145", async |t| {
            for at in 0..5 {
                t.ok(put("again", at.to_string())).await?;
            }
            let current = t.revision().await?;
            t.ok(compact(current - 2)).await?;
            t.ok(compact_physical(current - 1)).await?;
            Ok(())
        })
}

/// What must be the same after a restart.
async fn state(t: &Target) -> Result<(i64, Vec<(String, i64, i64, i64, i64)>), Difference> {
    let answer = t.ok(everything()).await?;
    Ok((rev(&answer.header), answer.kvs.iter().map(kv).collect()))
}

fn restarts() -> Group {
    Group::fresh("restarts")
        .case("KV-142", async |t| {
            for at in 0..20 {
                t.ok(put(format!("k{}", at % 5), at.to_string())).await?;
            }
            t.ok(delete("k3")).await?;
            t.ok(compact(10)).await?;
            let before = state(t).await?;
            let old = t.ok(span("k", "l").at(10)).await?.kvs;
            t.stop_and_start().await;
            same("state", state(t).await?, before)?;
            same("at revision 10", t.ok(span("k", "l").at(10)).await?.kvs, old)?;
            t.refused(range("k0").at(9), ErrorCode::Compacted).await
        })
        .case("KV-143", async |t| {
            let deleted = rev(&t.ok(delete_span("\0", "\0")).await?.header);
            t.ok(compact_physical(deleted)).await?;
            t.kill_and_start().await;
            let answer = t.ok(everything()).await?;
            same("count", answer.count, 0)?;
            same("revision", rev(&answer.header), deleted)
        })
        .case("KV-144", async |t| {
            let mut last = 0;
            for at in 0..200 {
                last = rev(&t.ok(put("acknowledged", at.to_string())).await?.header);
            }
            t.kill_and_start().await;
            let answer = t.ok(range("acknowledged")).await?;
            same("value", values(&answer.kvs), ["199"])?;
            same("revision", (rev(&answer.header), answer.kvs[0].mod_revision), (last, last))
        })
}

/// Two clients compact the same revision; the second is refused, and only after the first has ended.
async fn second_waits(t: &Target) -> Outcome {
    let current = t.revision().await?;
    let (first, second) = (t.connection().await, t.connection().await);
    let begin = Instant::now();
    let first = async {
        let answer = ask_on(&first, compact_physical(current)).await;
        (answer.map(|_| ()), begin.elapsed())
    };
    let second = async {
        t.sleep(Duration::from_millis(200)).await;
        let at_once = ask_on(&second, compact(current)).await;
        let refused_after = begin.elapsed();
        (
            at_once.map(|_| ()),
            refused_after,
            ask_on(&second, compact_physical(current)).await.map(|_| ()),
            begin.elapsed(),
        )
    };
    let ((done, done_after), (at_once, refused_after, waited, waited_until)) = tokio::join!(first, second);
    same("first", done, Ok(()))?;
    same("without waiting", at_once, Err(Status::from(ErrorCode::Compacted)))?;
    same("physical", waited, Err(Status::from(ErrorCode::Compacted)))?;
    let times = (done_after, refused_after, waited_until);
    holds("the first takes its time", done_after > Duration::from_millis(800), times)?;
    let at_once = done_after.saturating_sub(Duration::from_millis(300));
    holds("the plain one is refused at once", refused_after < at_once, times)?;
    // Both are told by the same event, in any order.
    holds("the physical one waits", waited_until + Duration::from_millis(100) > done_after, times)
}

fn slow_compaction() -> Group {
    Group::fresh("slow compaction")
        .flags(&["--compaction-batch-limit=100", "--compaction-sleep-interval=100ms"])
        .setup(async |t| {
            for at in 0..20 {
                let ops = (0..100).map(|key| {
                    use parity::semantics::request::Op;
                    put(format!("{key:02}"), at.to_string()).op()
                });
                t.ok(parity::semantics::request::then(ops)).await?;
            }
            Ok(())
        })
        .case("KV-168", second_waits)
}
