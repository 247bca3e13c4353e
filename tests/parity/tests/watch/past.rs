//! Watchers whose start is compacted, at the edge of a compaction, or older than the process.

use parity::semantics::request::{compact, compact_physical, delete, put, watch};
use parity::semantics::streams::{At, WatchOptions};
use parity::semantics::{Group, Outcome, Target, same};

const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";

pub(super) fn groups() -> Vec<Group> {
    let compacted = Group::fresh("compacted at 6")
        .setup(ten_writes)
        .cases(&["WA-028", "WA-029"], killed)
        .case("WA-030", wa_030)
        .case("WA-031", wa_031)
        .case("WA-032", wa_032)
        .case("WA-033", wa_033);
    let tombstones = Group::fresh("compacted at a tombstone").case("WA-049", wa_049).case("WA-050", wa_050);
    let restarts = Group::fresh("over a restart").case("WA-052", wa_052).case("WA-053", wa_053);
    vec![restarts, compacted, tombstones]
}

/// Revisions 2 to 11 of one key, compacted at 6.
async fn ten_writes(t: &Target) -> Outcome {
    for value in 0..10 {
        t.ok(put("k", value.to_string())).await?;
    }
    t.ok(compact(6)).await.map(drop)
}

async fn killed(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("k", "", 5), "0 created @11").await.at("WA-028")?;
    s.says("0 canceled compacted 6 @0").await.at("WA-028")?;
    s.quiet().await.at("WA-028")?;
    s.cancel(0);
    s.says("0 canceled @11").await.at("WA-029")
}

async fn wa_030(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("k", "", 5).id(9), "9 created @11").await?;
    s.says("9 canceled compacted 6 @0").await?;
    s.refuses(watch("k", "", 0).id(9), DUPLICATE).await?;
    s.cancel(9);
    s.says("9 canceled @11").await?;
    s.creates(watch("k", "", 0).id(9), "9 created @11").await
}

async fn wa_031(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("k", "", 6), "0 created @11").await?;
    s.says("0 k=4@6v5c2 k=5@7v6c2 k=6@8v7c2 k=7@9v8c2 k=8@10v9c2 k=9@11v10c2 @11").await
}

async fn wa_032(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("k", "", 6).prev().filters(&[1]), "0 created @11").await?;
    let expected = "0 k=4@6v5c2 k=5@7v6c2<k=4@6v5c2 k=6@8v7c2<k=5@7v6c2 k=7@9v8c2<k=6@8v7c2 \
                    k=8@10v9c2<k=7@9v8c2 k=9@11v10c2<k=8@10v9c2 @11";
    s.says(expected).await
}

async fn wa_033(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("k", "", 5), "0 created @11").await?;
    s.says("0 canceled compacted 6 @0").await?;
    s.ask_progress();
    s.quiet().await?;
    s.cancel(0);
    s.says("0 canceled @11").await
}

async fn wa_049(t: &Target) -> Outcome {
    t.ok(put("wt", "x")).await?;
    t.ok(delete("wt")).await?;
    t.ok(compact_physical(3)).await?;
    let mut s = t.watchers();
    s.creates(watch("wt", "", 3), "0 created @3").await?;
    s.says("0 wt-@3 @3").await
}

async fn wa_050(t: &Target) -> Outcome {
    t.ok(put("cd", "x")).await?;
    t.ok(delete("cd")).await?;
    t.ok(compact_physical(4)).await?;
    let mut s = t.watchers();
    s.creates(watch("cd", "", 4), "0 created @5").await?;
    s.says("0 cd=x@4 cd-@5 @5").await
}

async fn wa_052(t: &Target) -> Outcome {
    for value in 0..12 {
        t.ok(put("k0", value.to_string())).await?;
    }
    t.ok(delete("k0")).await?;
    let history = "0 k0=8@10v9c2 k0=9@11v10c2 k0=10@12v11c2 k0=11@13v12c2 k0-@14 @14";
    let mut s = t.watchers();
    s.creates(watch("k0", "", 10), "0 created @14").await?;
    s.says(history).await?;
    drop(s);
    t.kill_and_start().await;
    let mut s = t.watchers();
    s.creates(watch("k0", "", 10), "0 created @14").await?;
    s.says(history).await
}

async fn wa_053(t: &Target) -> Outcome {
    t.ok(compact_physical(6)).await?;
    t.stop_and_start().await;
    let mut s = t.watchers();
    s.creates(watch("k0", "", 5), "0 created @14").await?;
    s.says("0 canceled compacted 6 @0").await?;
    same("revision", t.revision().await?, 14)
}
