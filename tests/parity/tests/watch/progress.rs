//! Progress, asked for and periodic.

use std::time::{Duration, Instant};

use parity::semantics::answer::holds;
use parity::semantics::request::{put, watch};
use parity::semantics::streams::{At, WatchOptions};
use parity::semantics::{Group, Outcome, Received, Target, same};

const EVERY_SECOND: &[&str] = &["--watch-progress-notify-interval=1s"];
/// Longer than two intervals with all that is added to them.
const TWO_TICKS: Duration = Duration::from_millis(2500);

pub(super) fn groups() -> Vec<Group> {
    let busy = Group::fresh("periodic progress")
        .flags(EVERY_SECOND)
        .cases(&["WA-034", "WA-035", "WA-036"], periodic);
    let idle = Group::fresh("a start that is not reached yet")
        .flags(EVERY_SECOND)
        .case("WA-067", wa_067)
        .case("WA-070", wa_070);
    let asked = Group::shared("progress asked for")
        .case("WA-037", wa_037)
        .case("WA-038", wa_038)
        .case("WA-066", wa_066);
    vec![busy, idle, asked]
}

/// Three streams at a time, for they all wait.
async fn periodic(t: &Target) -> Outcome {
    let (told, not_told, busy) = tokio::join!(wa_034(t), wa_035(t), wa_036(t));
    told.at("WA-034").and(not_told.at("WA-035")).and(busy.at("WA-036"))
}

async fn wa_034(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("other", "", 0).notify(), 0).await?;
    let mut last = Instant::now();
    for _ in 0..3 {
        let answer = s.message().await?;
        let is_progress = !answer.created && !answer.canceled && answer.events.is_empty() && answer.watch_id == 0;
        holds("progress of watcher 0", is_progress, &answer)?;
        let took = last.elapsed();
        last += took;
        // 1.0 to 1.1 s, and what a busy machine adds or the one before was late.
        holds("an interval", took > Duration::from_millis(800) && took < Duration::from_millis(1800), took)?;
    }
    Ok(())
}

async fn wa_035(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("other", "", 0), 0).await?;
    s.silent(TWO_TICKS).await
}

async fn wa_036(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("k", "", 0).notify(), 0).await?;
    for value in 0..16 {
        t.ok(put("k", value.to_string())).await?;
        let answer = s.message().await?;
        holds("only events", answer.events.len() == 1, &answer)?;
        if let Received::Message(answer) = s.receive(Duration::from_millis(250)).await {
            return holds("only events", false, &answer);
        }
    }
    Ok(())
}

async fn wa_037(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.ask_progress();
    s.quiet().await?;
    // The stream is there all the same.
    s.opens(watch("p37", "", 0), 0).await
}

async fn wa_038(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("p38", "", 0), 0).await?;
    s.opens(watch("q38", "q39", 0), 1).await?;
    s.ask_progress();
    let r = t.revision().await?;
    s.says(&format!("-1 @{r}")).await?;
    s.quiet().await
}

async fn wa_066(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("p66", "", 0), 0).await?;
    let r = t.revision().await?;
    s.opens(watch("q66", "", r + 100), 1).await?;
    s.ask_progress();
    s.quiet().await?;
    s.cancel(1);
    s.says(&format!("1 canceled @{r}")).await?;
    s.ask_progress();
    s.says(&format!("-1 @{r}")).await
}

async fn wa_067(t: &Target) -> Outcome {
    let mut s = t.watchers();
    let r = t.revision().await?;
    s.opens(watch("w67", "", r + 2).notify(), 0).await?;
    s.silent(TWO_TICKS).await?;
    t.ok(put("x67", "1")).await?;
    t.ok(put("x67", "2")).await?;
    let since = Instant::now();
    s.says(&format!("0 @{}", r + 2)).await?;
    holds("progress with the next tick", since.elapsed() < Duration::from_millis(1800), since.elapsed())
}

async fn wa_070(t: &Target) -> Outcome {
    let mut s = t.watchers();
    let r = t.revision().await?;
    s.opens(watch("w70", "", r + 1).notify(), 0).await?;
    s.ask_progress();
    s.silent(TWO_TICKS).await?;
    s.ask_progress();
    s.quiet().await?;
    t.ok(put("x70", "1")).await?;
    s.ask_progress();
    // A tick may come between.
    let mut said = s.next().await?;
    if said == format!("0 @{}", r + 1) {
        said = s.next().await?;
    }
    same("progress asked for", said, format!("-1 @{}", r + 1))?;
    s.says(&format!("0 @{}", r + 1)).await
}
