//! What is checked after a restart.

use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use api::mvccpb::{Event, KeyValue};
use rand::Rng;
use rand::rngs::SmallRng;
use tonic::{Code, Status};

use super::world::World;
use crate::history::{Change, History};
use crate::ledger::{LONG_TTL, LeaseFate};
use crate::rpc::Link;

/// Longest wait for something that must come.
const LIMIT: Duration = Duration::from_secs(20);
/// Leases whose keys are looked up after one restart.
const LEASES_MAX: usize = 6;
/// Old revisions that are read after one restart.
const OLD_READS: usize = 3;

/// What a server showed before anybody wrote to it.
pub(super) struct Look {
    revision: i64,
    keys: Vec<KeyValue>,
    leases: Vec<i64>,
    times: Vec<(i64, pb::LeaseTimeToLiveResponse)>,
}

fn said(what: &str, status: &Status) -> String {
    format!("{what}: {:?}: {}", status.code(), status.message())
}

async fn all_keys(link: &Link, revision: i64) -> Result<pb::RangeResponse, Status> {
    let request = pb::RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        revision,
        ..pb::RangeRequest::default()
    };
    link.call(request).await
}

/// Hash of all up to a revision (0 is now), with the revision and the compaction it stands for.
pub(super) async fn hash(link: &Link, revision: i64) -> Result<(i64, i64, u32), String> {
    let answer = link.call(pb::HashKvRequest { revision }).await.map_err(|status| said("hash", &status))?;
    Ok((answer.hash_revision, answer.compact_revision, answer.hash))
}

impl Look {
    /// Reads all; fails if the server is behind what anybody has seen.
    pub(super) async fn take(link: &Link, world: &World) -> Result<Look, String> {
        world.failure()?;
        let start = Instant::now();
        let all = loop {
            match all_keys(link, 0).await {
                Ok(all) => break all,
                Err(status) if status.code() == Code::Unavailable && start.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(status) => return Err(said("first read", &status)),
            }
        };
        let revision = all.header.as_ref().map_or(0, |header| header.revision);
        let seen = world.seen();
        if revision < seen {
            return Err(format!("the revision went back: it is {revision}, {seen} had been seen"));
        }
        let leases = link.call(pb::LeaseLeasesRequest {}).await.map_err(|status| said("leases", &status))?;
        let leases: Vec<i64> = leases.leases.iter().map(|lease| lease.id).collect();
        let mut times = Vec::new();
        for &id in leases.iter().take(LEASES_MAX) {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let answer = link.call(request).await.map_err(|status| said("time to live", &status))?;
            times.push((id, answer));
        }
        Ok(Look { revision, keys: all.kvs, leases, times })
    }

    pub(super) fn leases_seen(&self) -> u64 {
        self.times.len() as u64
    }

    fn check_leases(&self, world: &World, history: &History, cut: usize) -> Result<(), String> {
        let expected = world.ledger.lock().leases(cut);
        for (lease, (_, fate)) in &expected {
            let is_there = self.leases.contains(lease);
            match fate {
                LeaseFate::Alive if !is_there => return Err(format!("lease {lease:x} is lost")),
                LeaseFate::Gone if is_there => return Err(format!("revoked lease {lease:x} is back")),
                _ => {}
            }
        }
        if let Some(lease) = self.leases.iter().find(|lease| !expected.contains_key(lease)) {
            return Err(format!("nobody asked for lease {lease:x}"));
        }
        let gone = |kv: &&KeyValue| {
            let is_long = matches!(expected.get(&kv.lease), Some((ttl, _)) if *ttl >= LONG_TTL);
            is_long && !self.leases.contains(&kv.lease)
        };
        if let Some(kv) = self.keys.iter().find(gone) {
            return Err(format!("a key outlived its lease: {kv:?}"));
        }
        for (lease, answer) in &self.times {
            let Some((ttl, _)) = expected.get(lease) else { continue };
            if answer.ttl < 0 {
                continue; // ran out since the list was made; the list itself has been compared
            }
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            let mut keys = answer.keys.clone();
            keys.sort();
            let attached = history.attached_at(*lease, revision);
            if keys != attached || answer.granted_ttl != *ttl || answer.ttl > *ttl {
                return Err(format!("lease {lease:x} should hold {attached:?}, but: {answer:?}"));
            }
        }
        Ok(())
    }
}

/// Compares a look with everything known, while the load goes on. Operations before `cut` have ended.
pub(super) async fn compare(
    link: &Link,
    world: &World,
    look: &Look,
    cut: usize,
    rng: &mut SmallRng,
) -> Result<(), String> {
    wait_for_watch(world, look.revision).await?;
    {
        let history = world.history.lock();
        history.check_range("first read", b"\0", b"\0", look.revision, &look.keys)?;
        look.check_leases(world, &history, cut)?;
        world.ledger.lock().explain(&history, look.revision, cut)?;
    }
    let compared = world.compare_reads(look.revision)?;
    world.tallies.lock().reads += compared;
    keepalive(link, world, cut).await?;
    old_reads(link, world, look.revision, rng).await?;
    old_hashes(link, world).await?;
    second_watch(link, world, look.revision).await?;
    world.failure()
}

async fn wait_for_watch(world: &World, revision: i64) -> Result<(), String> {
    let start = Instant::now();
    loop {
        world.failure()?;
        let last = world.history.lock().last();
        if last >= revision {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            return Err(format!("watch: nothing after {last}, the server is at {revision}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A lease that must be there can be renewed.
async fn keepalive(link: &Link, world: &World, cut: usize) -> Result<(), String> {
    let expected = world.ledger.lock().leases(cut);
    let known = world.leases.lock().clone();
    let is_alive = |lease: &&i64| matches!(expected.get(*lease), Some((_, LeaseFate::Alive)));
    let Some((&id, ttl)) = known.iter().rev().find(is_alive).and_then(|id| Some((id, expected.get(id)?.0))) else {
        return Ok(());
    };
    let left = link.renew(id).await.map_err(|status| said("keepalive", &status))?;
    // It may have been revoked since.
    if left == ttl || left == 0 {
        return Ok(());
    }
    Err(format!("keepalive of {id:x}: {left} seconds of {ttl}"))
}

async fn old_reads(link: &Link, world: &World, newest: i64, rng: &mut SmallRng) -> Result<(), String> {
    let compaction = *world.compaction.lock();
    let oldest = compaction.asked.max(2);
    for _ in 0..OLD_READS {
        let revision = rng.random_range(oldest.min(newest)..=newest);
        if revision < 2 {
            continue;
        }
        let answer = all_keys(link, revision).await.map_err(|status| said("old read", &status))?;
        world.history.lock().check_range("old read", b"\0", b"\0", revision, &answer.kvs)?;
        world.tallies.lock().reads += 1;
    }
    if compaction.done > 2 {
        let revision = rng.random_range(1..compaction.done);
        match all_keys(link, revision).await {
            Err(status) if status.code() == Code::OutOfRange && status.message().contains("compacted") => {}
            Err(status) => return Err(said("read of a compacted revision", &status)),
            Ok(_) => return Err(format!("revision {revision} is readable, {} is compacted", compaction.done)),
        }
    }
    Ok(())
}

/// Hashes taken before the restart are still the same where no compaction came between.
async fn old_hashes(link: &Link, world: &World) -> Result<(), String> {
    let before: Vec<_> = world.hashes.lock().drain(..).collect();
    let asked = world.compaction.lock().asked;
    for hash in before.into_iter().filter(|hash| hash.revision > asked) {
        let request = pb::HashKvRequest { revision: hash.revision };
        let answer = link.call(request).await.map_err(|status| said("hash", &status))?;
        if answer.compact_revision == hash.compacted {
            world.tallies.lock().hashes += 1;
            if answer.hash != hash.hash {
                return Err(format!("{hash:?} before the restart, {answer:?} after it"));
            }
        }
    }
    Ok(())
}

/// A watch from the oldest revision that is left says the same as the first one did.
async fn second_watch(link: &Link, world: &World, upto: i64) -> Result<(), String> {
    let start = world.compaction.lock().asked.max(1) + 1;
    if start > upto {
        return Ok(());
    }
    let (_requests, mut answers) = link.watch_all(start).await.map_err(|status| said("second watch", &status))?;
    let mut next = start;
    let mut events: Vec<Event> = Vec::new();
    while next <= upto {
        let answer = tokio::time::timeout(LIMIT, answers.message()).await;
        let answer = answer.map_err(|_| format!("second watch: nothing from {next} on"))?;
        let answer = answer.map_err(|status| said("second watch", &status))?.ok_or("second watch: ended")?;
        if answer.canceled {
            return Err(format!("second watch from {start}: {answer:?}"));
        }
        if let Some(kv) = answer.events.last().and_then(|event| event.kv.as_ref()) {
            next = kv.mod_revision + 1;
        }
        events.extend(answer.events);
    }
    // Events after `upto` may be ahead of the first watch.
    let of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    events.retain(|event| of(event) <= upto);
    let history = world.history.lock();
    let expected = (start..=upto).flat_map(|revision| history.changes(revision).iter().map(move |c| (revision, c)));
    let mut count = 0;
    for (event, (revision, change)) in events.iter().zip(expected) {
        let Some(kv) = &event.kv else { return Err("second watch: event without key".into()) };
        let same = match change {
            Change::Put { key, value, lease } => {
                event.r#type == 0 && kv.key == key && kv.value == value && kv.lease == *lease
            }
            Change::Delete { key } => event.r#type == 1 && kv.key == key,
        };
        if !same || kv.mod_revision != revision {
            return Err(format!("second watch: {event:?}, first watch: {revision}: {change:?}"));
        }
        count += 1;
    }
    let all: usize = (start..=upto).map(|revision| history.changes(revision).len()).sum();
    if count != all || events.len() != all {
        return Err(format!("second watch: {} events, first watch: {all}", events.len()));
    }
    Ok(())
}
