//! What arrives: one response for the events of a revision, previous pairs, fragments, long histories.

use api::etcdserverpb::WatchResponse;
use parity::semantics::answer::{holds, rev};
use parity::semantics::request::{
    Op, PutOptions, create, delete, delete_span, grant, put, then, watch,
};
use parity::semantics::streams::{WatchOptions, Watchers};
use parity::semantics::{Difference, Group, Outcome, Target, same};

/// Writes of the long history.
const LONG: usize = 2500;

pub(super) fn groups() -> Vec<Group> {
    let live = Group::shared("live events")
        .case("WA-020", wa_020)
        .case("WA-021", wa_021)
        .case("WA-022", wa_022)
        .case("WA-043", wa_043)
        .case("WA-044", wa_044)
        .case("WA-045", wa_045)
        .case("WA-047", wa_047);
    let large = Group::fresh("five large keys").setup(large_keys).case("WA-039", wa_039).case("WA-040", wa_040);
    let long = Group::fresh("a long history").setup(long_history).case("WA-041", wa_041).case("WA-042", wa_042);
    vec![long, large, live]
}

async fn wa_020(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("m", "p", 0), 0).await?;
    let r = t.revision().await?;
    t.ok(then([put("m1", "1").op(), put("n1", "2").op(), put("z", "3").op(), delete("q").op()])).await?;
    t.ok(put("p", "4")).await?;
    s.says(&format!("0 m1=1@{0} n1=2@{0} @{0}", r + 1)).await?;
    s.quiet().await
}

async fn wa_021(t: &Target) -> Outcome {
    t.ok(put("v21", "0")).await?;
    let r = t.revision().await?;
    let mut s = t.watchers();
    s.opens(watch("v21", "", 0).prev(), 0).await?;
    t.ok(put("v21", "1")).await?;
    t.ok(delete("v21")).await?;
    t.ok(put("v21", "2")).await?;
    s.says(&format!("0 v21=1@{0}v2c{r}<v21=0@{r} @{0}", r + 1)).await?;
    s.says(&format!("0 v21-@{0}<v21=1@{1}v2c{r} @{0}", r + 2, r + 1)).await?;
    s.says(&format!("0 v21=2@{0} @{0}", r + 3)).await
}

async fn wa_022(t: &Target) -> Outcome {
    for key in ["r1", "r2", "r3"] {
        t.ok(put(key, "x")).await?;
    }
    let r = t.revision().await?;
    let mut s = t.watchers();
    s.opens(watch("r", "s", 0), 0).await?;
    t.ok(delete_span("r", "s")).await?;
    s.says(&format!("0 r1-@{0} r2-@{0} r3-@{0} @{0}", r + 1)).await?;
    s.quiet().await
}

async fn wa_043(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("d43", "", 0), 0).await?;
    s.opens(watch("d43", "", 0), 1).await?;
    let r = t.revision().await? + 1;
    t.ok(put("d43", "x")).await?;
    let mut said = [s.next().await?, s.next().await?];
    said.sort();
    same("answers", said, [format!("0 d43=x@{r} @{r}"), format!("1 d43=x@{r} @{r}")])?;
    s.quiet().await
}

async fn wa_044(t: &Target) -> Outcome {
    t.ok(grant(44, 600)).await?;
    t.ok(put("le2", "2").lease(44)).await?;
    t.ok(put("le1", "1").lease(44)).await?;
    let r = t.revision().await?;
    let mut s = t.watchers();
    s.opens(watch("le", "lf", 0).prev(), 0).await?;
    t.ok(api::etcdserverpb::LeaseRevokeRequest { id: 44 }).await?;
    s.says(&format!("0 le1-@{0}<le1=1@{r}l44 le2-@{0}<le2=2@{1}l44 @{0}", r + 1, r - 1)).await?;
    s.quiet().await
}

async fn wa_045(t: &Target) -> Outcome {
    t.ok(put("sv", "1")).await?;
    let r = t.revision().await?;
    let mut s = t.watchers();
    s.opens(watch("sv", "", 0), 0).await?;
    t.ok(put("sv", "1")).await?;
    s.says(&format!("0 sv=1@{0}v2c{r} @{0}", r + 1)).await
}

async fn wa_047(t: &Target) -> Outcome {
    const WATCHERS: i64 = 1000;
    let mut s = t.watchers();
    for _ in 0..WATCHERS {
        s.send(create(watch("w47", "", 0)));
    }
    for id in 0..WATCHERS {
        let answer = s.message().await?;
        holds("the created answers in order", answer.created && answer.watch_id == id, answer)?;
    }
    let r = t.revision().await? + 1;
    t.ok(put("w47", "x")).await?;
    let mut ids = Vec::new();
    for _ in 0..WATCHERS {
        let answer = s.message().await?;
        same("answer", parity::semantics::streams::response(&answer), format!("{} w47=x@{r} @{r}", answer.watch_id))?;
        ids.push(answer.watch_id);
    }
    ids.sort_unstable();
    same("ids", ids, (0..WATCHERS).collect::<Vec<_>>())?;
    s.quiet().await
}

/// Revisions 2 to 6, of 700 kB each.
async fn large_keys(t: &Target) -> Outcome {
    for number in 0..5 {
        t.ok(put(format!("big{number}"), vec![b'x'; 700_000])).await?;
    }
    Ok(())
}

/// How many events each response has, whether it is a fragment, and its revision.
fn parts(answers: &[WatchResponse]) -> Vec<(usize, bool, i64)> {
    answers.iter().map(|answer| (answer.events.len(), answer.fragment, rev(&answer.header))).collect()
}

async fn wa_039(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("big", "bih", 2).fragments(), 0).await?;
    let answers = [s.message().await?, s.message().await?, s.message().await?];
    same("parts", parts(&answers), vec![(2, true, 6), (2, true, 6), (1, false, 6)])?;
    let ids: Vec<i64> = answers.iter().map(|answer| answer.watch_id).collect();
    same("ids", ids, vec![0, 0, 0])?;
    s.quiet().await
}

async fn wa_040(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.opens(watch("big", "bih", 2), 0).await?;
    same("parts", parts(&[s.message().await?]), vec![(5, false, 6)])?;
    s.quiet().await
}

/// Revisions 2 to 2501, all of one key.
async fn long_history(t: &Target) -> Outcome {
    t.flood(LONG, |number| put("bt", number.to_string())).await
}

async fn wa_041(t: &Target) -> Outcome {
    let current = LONG as i64 + 1;
    let mut s = t.watchers();
    s.creates(watch("bt", "", 2), &format!("0 created @{current}")).await?;
    let answers = [s.message().await?, s.message().await?, s.message().await?];
    same("parts", parts(&answers), vec![(1000, false, current), (1000, false, current), (500, false, current)])?;
    let revisions: Vec<i64> = answers.iter().flat_map(mod_revisions).collect();
    same("revisions", revisions, (2..=current).collect::<Vec<_>>())?;
    s.quiet().await
}

fn mod_revisions(answer: &WatchResponse) -> impl Iterator<Item = i64> {
    answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision)
}

async fn wa_042(t: &Target) -> Outcome {
    let mut s = t.watchers();
    s.send(create(watch("bt", "", 2)));
    s.ask_progress();
    let created = s.message().await?;
    holds("created first", created.created, &created)?;
    all_before_progress(&mut s).await
}

async fn all_before_progress(s: &mut Watchers) -> Outcome {
    let mut events = 0;
    while events < LONG {
        let answer = s.message().await?;
        if answer.events.is_empty() {
            return Err(Difference(format!("progress @{} after {events} events", rev(&answer.header))));
        }
        events += answer.events.len();
    }
    if let parity::semantics::Received::Message(answer) = s.receive(parity::semantics::streams::QUIET).await {
        let said = parity::semantics::streams::response(&answer);
        same("progress after all events", said, format!("-1 @{}", LONG + 1))?;
    }
    Ok(())
}
