//! Expiry, and what holds it off.

use std::time::{Duration, Instant};

use parity::semantics::answer::{holds, text};
use parity::semantics::request::{Op, PutOptions, RangeOptions, grant, prefix, put, range, then, time_to_live};
use parity::semantics::streams::At;
use parity::semantics::{Difference, Group, Outcome, Target, same};

/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(1500);
/// Leases that expire together.
const MANY: usize = 1500;

pub(super) fn groups() -> Vec<Group> {
    let restart = Group::fresh("leases over a restart").cases(&["LE-026", "LE-027"], restarted);
    let alone = Group::fresh("one lease").cases(&["LE-022", "LE-023", "LE-024", "LE-025"], together);
    let many = Group::fresh("many leases").case("LE-030", le_030);
    vec![restart, alone, many]
}

/// Three leases at a time, for they all wait.
async fn together(t: &Target) -> Outcome {
    let (gone, kept, cut) = tokio::join!(le_022(t), le_024(t), le_025(t));
    gone.and(kept.at("LE-024")).and(cut.at("LE-025"))
}

async fn is_there(t: &Target, key: &str) -> Result<bool, Difference> {
    Ok(t.ok(range(key).count_only()).await?.count == 1)
}

/// Waits until a key is gone; how long it has been there.
async fn gone(t: &Target, key: &str, since: Instant) -> Result<Duration, Difference> {
    while is_there(t, key).await? {
        holds("the key is gone in time", since.elapsed() < Duration::from_secs(20), key)?;
        t.sleep(Duration::from_millis(20)).await;
    }
    Ok(since.elapsed())
}

async fn le_022(t: &Target) -> Outcome {
    let since = Instant::now();
    t.ok(grant(22, 2)).await?;
    t.ok(put("exp", "x").lease(22)).await?;
    let took = gone(t, "exp", since).await.at("LE-022")?;
    let limits = Duration::from_secs(2)..Duration::from_millis(3500) + SLACK;
    holds("gone between 2.0 and 3.5 s", limits.contains(&took), took).at("LE-022")?;
    let answer = t.ok(time_to_live(22)).await?;
    same("time to live", (answer.ttl, answer.granted_ttl), (-1, 0)).at("LE-023")?;
    same("renewal", t.renew(22).await?, 0).at("LE-023")
}

async fn le_024(t: &Target) -> Outcome {
    t.ok(grant(24, 2)).await?;
    t.ok(put("kept", "x").lease(24)).await?;
    let mut s = t.open::<api::etcdserverpb::LeaseKeepAliveRequest>();
    for _ in 0..10 {
        t.sleep(Duration::from_millis(500)).await;
        same("renewal", s.renew(24).await?.ttl, 2)?;
    }
    holds("the key is there", is_there(t, "kept").await?, "no key")
}

async fn le_025(t: &Target) -> Outcome {
    t.ok(grant(25, 10)).await?;
    t.sleep(Duration::from_millis(1200)).await;
    let answer = t.ok(time_to_live(25)).await?;
    same("time to live after 1.2 s", (answer.ttl, answer.granted_ttl), (8, 10))?;
    same("renewal", t.renew(25).await?, 10)?;
    same("time to live after a renewal", t.ok(time_to_live(25)).await?.ttl, 9)
}

async fn restarted(t: &Target) -> Outcome {
    t.ok(grant(26, 20)).await?;
    t.ok(put("pers", "x").lease(26)).await?;
    t.sleep(Duration::from_secs(4)).await;
    t.kill_and_start().await;
    t.sleep(Duration::from_millis(1500)).await;
    let answer = t.ok(time_to_live(26)).await?;
    holds("18 or more of 20", answer.ttl >= 18 && answer.granted_ttl == 20, &answer).at("LE-026")?;
    let keys: Vec<String> = answer.keys.iter().map(|key| text(key)).collect();
    same("keys", keys, ["pers"]).at("LE-027")?;
    let found = t.ok(range("pers")).await?;
    same("leases", found.kvs.iter().map(|kv| kv.lease).collect::<Vec<_>>(), [26]).at("LE-027")
}

/// Leases expire in rounds of at most 500, one every half second.
async fn le_030(t: &Target) -> Outcome {
    t.flood(MANY, |number| grant(number as i64 + 1, 4)).await?;
    for hundred in 0..MANY / 100 {
        let puts = (0..100).map(|number| hundred * 100 + number);
        let ops = puts.map(|number| put(format!("many{number}"), "x").lease(number as i64 + 1).op());
        t.ok(then(ops)).await?;
    }
    let count = async || Ok::<_, Difference>(t.ok(prefix("many").count_only()).await?.count as usize);
    while count().await? == MANY {
        t.sleep(Duration::from_millis(10)).await;
    }
    let first = Instant::now();
    loop {
        let (left, since) = (count().await?, first.elapsed());
        // A round takes a moment itself; the bound is that of the rounds that can have begun by now.
        let rounds = 1 + since.as_millis() as usize / 450;
        holds(&format!("at most {rounds} rounds of 500"), MANY - left <= rounds * 500, (left, since))?;
        holds("all gone about 2 s after the first", since < Duration::from_millis(2000) + SLACK, (left, since))?;
        if left == 0 {
            return Ok(());
        }
        t.sleep(Duration::from_millis(20)).await;
    }
}
