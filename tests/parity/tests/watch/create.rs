//! Creating and cancelling watchers: ids, ranges, filters, refusals.

use std::time::Duration;

use api::ErrorCode;
use api::etcdserverpb::WatchRequest;
use api::error::Code;
use parity::semantics::answer::holds;
use parity::semantics::request::{delete, put, then, watch};
use parity::semantics::request::Op;
use parity::semantics::streams::{At, WatchOptions};
use parity::semantics::{Group, Outcome, Received, Target, same};

const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY: &str = "mvcc: watcher range is empty";

pub(super) fn groups() -> Vec<Group> {
    let past = Group::fresh("five writes")
        .setup(five_writes)
        .cases(&["WA-001", "WA-002", "WA-003", "WA-004", "WA-005", "WA-006", "WA-007", "WA-008"], ids)
        .case("WA-009", wa_009)
        .case("WA-010", wa_010)
        .case("WA-011", wa_011)
        .case("WA-012", wa_012)
        .case("WA-013", wa_013)
        .case("WA-014", wa_014)
        .case("WA-023", wa_023)
        .case("WA-015", wa_015)
        .case("WA-016", wa_016);
    let live = Group::shared("ranges and streams")
        .case("WA-017", wa_017)
        .case("WA-018", wa_018)
        .case("WA-019", wa_019)
        .case("WA-024", wa_024)
        .case("WA-025", wa_025)
        .case("WA-026", wa_026)
        .case("WA-027", wa_027)
        .case("WA-046", wa_046)
        .case("WA-051", wa_051);
    let stop = Group::fresh("end of the process").case("WA-048", wa_048);
    vec![past, live, stop]
}

/// Revisions 2 to 6.
async fn five_writes(t: &Target) -> Outcome {
    for value in ["0", "1", "2"] {
        t.ok(put("a", value)).await?;
    }
    t.ok(put("b", "x")).await?;
    let deleted = t.ok(delete("a")).await?;
    same("revision", deleted.header.map(|header| header.revision), Some(6))
}

async fn ids(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 0), "0 created @6").await.at("WA-001")?;
    s.creates(watch("a", "", 0), "1 created @6").await.at("WA-002")?;
    s.creates(watch("a", "", 0).id(7), "7 created @6").await.at("WA-003")?;
    s.refuses(watch("a", "", 0).id(7), DUPLICATE).await.at("WA-003")?;
    s.creates(watch("b", "", 0).id(2), "2 created @6").await.at("WA-004")?;
    s.creates(watch("b", "", 0), "3 created @6").await.at("WA-004")?;
    s.creates(watch("b", "", 0).id(-1), "-1 created @6").await.at("WA-005")?;
    s.refuses(watch("b", "", 0).id(-1), DUPLICATE).await.at("WA-005")?;
    s.creates(watch("b", "", 0).id(-5), "-5 created @6").await.at("WA-005")?;
    s.cancel(1);
    s.says("1 canceled @6").await.at("WA-006")?;
    s.cancel(1);
    s.cancel(99);
    s.quiet().await.at("WA-007")?;
    s.creates(watch("a", "", 0), "4 created @6").await.at("WA-008")?;
    s.creates(watch("a", "", 0).id(1), "1 created @6").await.at("WA-008")
}

async fn wa_009(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 2), "0 created @6").await?;
    s.says("0 a=0@2 a=1@3v2c2 a=2@4v3c2 a-@6 @6").await?;
    s.quiet().await
}

async fn wa_010(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 2).prev(), "0 created @6").await?;
    s.says("0 a=0@2 a=1@3v2c2<a=0@2 a=2@4v3c2<a=1@3v2c2 a-@6<a=2@4v3c2 @6").await
}

async fn wa_011(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 2).filters(&[0]), "0 created @6").await?;
    s.says("0 a-@6 @6").await
}

async fn wa_012(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 2).filters(&[1]), "0 created @6").await?;
    s.says("0 a=0@2 a=1@3v2c2 a=2@4v3c2 @6").await
}

async fn wa_013(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 2).filters(&[0, 1]), "0 created @6").await?;
    s.quiet().await
}

async fn wa_014(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 6), "0 created @6").await?;
    s.says("0 a-@6 @6").await
}

async fn wa_015(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 7), "0 created @6").await?;
    t.ok(put("a", "7")).await?;
    s.says("0 a=7@7 @7").await
}

async fn wa_016(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.creates(watch("a", "", 10), "0 created @7").await?;
    for value in ["8", "9", "10", "11"] {
        t.ok(put("a", value)).await?;
    }
    s.says("0 a=10@10v4c7 @10").await?;
    s.says("0 a=11@11v5c7 @11").await?;
    s.quiet().await
}

async fn wa_017(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("", "", 0), 0).await?;
    let r = t.revision().await?;
    t.ok(put("\0", "x")).await?;
    t.ok(put("q17", "x")).await?;
    s.says(&format!("0 \\x00=x@{0} @{0}", r + 1)).await?;
    s.quiet().await
}

async fn wa_018(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("", "\0", 0), 0).await?;
    let r = t.revision().await?;
    t.ok(put("zz18", "x")).await?;
    s.says(&format!("0 zz18=x@{0} @{0}", r + 1)).await
}

async fn wa_019(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.refuses(watch("b", "a", 0), EMPTY).await?;
    s.refuses(watch("b", "b", 0), EMPTY).await?;
    // Those that failed took no id.
    s.opens(watch("b", "", 0), 0).await
}

async fn wa_023(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.refuses(watch("a", "", -1), ErrorCode::Compacted.message()).await?;
    s.creates(watch("a", "", 6), "0 created @6").await?;
    s.says("0 a-@6 @6").await
}

async fn wa_024(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("f24", "", 0).filters(&[9]), 0).await?;
    let r = t.revision().await?;
    t.ok(then([put("f24", "x").op(), delete("g24").op()])).await?;
    s.says(&format!("0 f24=x@{0} @{0}", r + 1)).await
}

async fn wa_025(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.send(WatchRequest::default());
    s.opens(watch("a25", "", 0), 0).await?;
    s.quiet().await
}

async fn wa_026(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("hc", "", 0), 0).await?;
    s.half_close();
    s.quiet().await?;
    let r = t.revision().await?;
    t.ok(put("hc", "x")).await?;
    s.says(&format!("0 hc=x@{0} @{0}", r + 1)).await
}

async fn wa_027(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("cx", "", 0), 0).await?;
    s.cancel(0);
    let r = t.revision().await?;
    s.says(&format!("0 canceled @{r}")).await?;
    t.ok(put("cx", "x")).await?;
    s.quiet().await
}

/// The status that a client sees is its own; what the server shows is that it lets go of the stream and that the
/// connection lives on.
async fn wa_046(t: &Target) -> Outcome {
    // Streams of cases before are on their way out.
    streams_are(t, 0.0).await?;
    let mut s = t.watchers();
    s.opens(watch("c46", "", 0), 0).await?;
    streams_are(t, 1.0).await?;
    drop(s);
    streams_are(t, 0.0).await?;
    t.ok(put("c46", "x")).await.map(drop)
}

/// Waits until the server counts so many streams of watchers.
async fn streams_are(t: &Target, expected: f64) -> Outcome {
    let mut count = None;
    for _ in 0..100 {
        let (status, text) = t.member(|member| member.http("/metrics")).unwrap_or_default();
        same("status of /metrics", status, 200)?;
        let line = text.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watch_stream_total "));
        count = line.and_then(|number| number.parse::<f64>().ok());
        if count == Some(expected) {
            return Ok(());
        }
        t.sleep(Duration::from_millis(20)).await;
    }
    same("streams of watchers", count, Some(expected))
}

async fn wa_048(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("a", "", 0), 0).await?;
    t.member(|member| member.signal(15));
    match s.receive(Duration::from_secs(10)).await {
        // Go closes the connection under the stream, for which this client has a code of its own.
        Received::End(status) if status.message.starts_with("h2 protocol error") => Ok(()),
        Received::End(status) => holds("Unavailable", status.code == Code::Unavailable, status),
        other => holds("the end of the stream", false, other),
    }
}

async fn wa_051(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch(b"\xff", "\0", 0), 0).await?;
    let r = t.revision().await?;
    t.ok(put(b"\xff\xff", "x")).await?;
    t.ok(put("a51", "x")).await?;
    s.says(&format!("0 \\xff\\xff=x@{0} @{0}", r + 1)).await?;
    s.quiet().await
}
