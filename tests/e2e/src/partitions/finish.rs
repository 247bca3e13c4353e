//! What is checked in the end, when all members hear each other again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use client::Rpc;
use rand::Rng;
use rand::rngs::SmallRng;

use super::Report;
use super::world::World;
use crate::ledger::LeaseFate;
use crate::load::revision_of;
use crate::rpc::Link;

/// Longest wait for something that must come.
const LIMIT: Duration = Duration::from_secs(20);
/// Revisions whose hashes are compared over the members.
const HASHES: u64 = 8;

/// All that a member may say of itself instead of an answer. What connections say of themselves is not looked at.
const TEXTS: &[&str] = &[
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    "etcdserver: leader changed",
    "etcdserver: no leader",
    "etcdserver: server stopped",
];

pub(super) async fn check(world: &World, report: &mut Report, rng: &mut SmallRng) -> Result<(), String> {
    let links: Vec<Link> = world.urls.iter().map(|url| Link::new(url)).collect();
    until(world, "the clients end", || world.clients.load(Ordering::SeqCst) == 0).await?;
    // What is under way between members ends too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let everything = |revision: i64| pb::RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        revision,
        ..pb::RangeRequest::default()
    };
    let last = revision_of(ask(&links[0], everything(0)).await?.header.as_ref());
    if last < world.book.seen() {
        return Err(format!("the revision went back: it is {last}, {} had been seen", world.book.seen()));
    }
    let all_watched = || world.watched.iter().all(|at| at.load(Ordering::SeqCst) >= last);
    until(world, "every watch has everything", all_watched).await?;
    let cut = {
        let history = world.book.history.lock();
        let mut ledger = world.book.ledger.lock();
        let cut = ledger.len();
        ledger.explain(&history, last, cut)?;
        cut
    };
    let compared = world.book.compare_reads(last)?;
    world.tallies.reads.fetch_add(compared, Ordering::SeqCst);
    for (i, link) in links.iter().enumerate() {
        let answer = ask(link, everything(last)).await?;
        world.book.history.lock().check_range("last read", b"\0", b"\0", last, &answer.kvs).map_err(|what| format!("member {i}: {what}"))?;
    }
    hashes(&links, last, report, rng).await?;
    let mut lists = Vec::new();
    for link in &links {
        lists.push(ask(link, pb::MemberListRequest { linearizable: true }).await?.members);
    }
    if lists.iter().any(|list| *list != lists[0]) {
        return Err(format!("lists of members differ: {lists:?}"));
    }
    leases(world, &links, cut).await?;
    texts(world)?;
    world.book.failure()
}

async fn ask<R: Rpc>(link: &Link, request: R) -> Result<R::Response, String> {
    let answer = tokio::time::timeout(LIMIT, link.call(request)).await;
    let answer = answer.map_err(|_| format!("{}: no answer", R::METHOD.path()))?;
    answer.map_err(|status| format!("{}: {status}", R::METHOD.path()))
}

async fn until(world: &World, what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
    let start = Instant::now();
    while !holds() {
        world.book.failure()?;
        if start.elapsed() > LIMIT {
            let watched: Vec<i64> = world.watched.iter().map(|at| at.load(Ordering::SeqCst)).collect();
            return Err(format!("not within {LIMIT:?}: {what}; watches are at {watched:?}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// All members have the same hash at the same revisions.
async fn hashes(links: &[Link], last: i64, report: &mut Report, rng: &mut SmallRng) -> Result<(), String> {
    for nth in 0..HASHES {
        let revision = if nth == 0 { last } else { rng.random_range(1..=last) };
        let mut seen = Vec::new();
        for link in links {
            let answer = ask(link, pb::HashKvRequest { revision }).await?;
            seen.push((answer.hash, answer.compact_revision));
        }
        if seen.iter().any(|hash| *hash != seen[0]) {
            return Err(format!("hashes and compactions differ at revision {revision}: {seen:?}"));
        }
        report.hashes += 1;
    }
    Ok(())
}

/// Every member has the leases that must be there, and none that must not.
async fn leases(world: &World, links: &[Link], cut: usize) -> Result<(), String> {
    let expected = world.book.ledger.lock().leases(cut);
    for (i, link) in links.iter().enumerate() {
        let there: Vec<i64> = ask(link, pb::LeaseLeasesRequest {}).await?.leases.iter().map(|lease| lease.id).collect();
        for (lease, (_, fate)) in &expected {
            match fate {
                LeaseFate::Alive if !there.contains(lease) => return Err(format!("member {i} lost lease {lease:x}")),
                LeaseFate::Gone if there.contains(lease) => return Err(format!("member {i} kept lease {lease:x}")),
                _ => {}
            }
        }
        if let Some(lease) = there.iter().find(|lease| !expected.contains_key(lease)) {
            return Err(format!("member {i}: nobody asked for lease {lease:x}"));
        }
    }
    Ok(())
}

fn texts(world: &World) -> Result<(), String> {
    for text in world.book.doubts.lock().keys() {
        let (_, words) = text.split_once(": ").unwrap_or_default();
        if words.starts_with("etcdserver:") && !TEXTS.contains(&words) {
            return Err(format!("an answer that etcd does not give here: {text}"));
        }
    }
    Ok(())
}
