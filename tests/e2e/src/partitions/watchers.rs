//! Watches of all keys: one through each member, whatever becomes of it, and as many that leave a member without a
//! leader and go on through another.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::ErrorCode;
use api::etcdserverpb as pb;
use api::etcdserverpb::watch_request::RequestUnion;
use tonic::Status;

use super::world::World;
use crate::rpc::Link;

/// Pause before a watch is opened again.
const AGAIN: Duration = Duration::from_millis(20);
/// Answers after which a watch asks how far it is.
const ASK_EVERY: u32 = 16;

/// Goes on through one member until the end.
pub(super) async fn stay(world: Arc<World>, home: usize) {
    let mut over = world.watches_over.subscribe();
    let follow = async {
        let link = Link::new(&world.urls[home]);
        loop {
            if let Err(what) = follow(&world, &link, home, world.is_go(home)).await {
                return world.book.fail(format!("through member {home}: {what}"));
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = follow => {}
        _ = over.wait_for(|is_over| *is_over) => {}
    }
}

/// Goes to the next member whenever one does not serve.
pub(super) async fn roam(world: Arc<World>, first: usize) {
    let mut over = world.watches_over.subscribe();
    let len = world.urls.len();
    let follow = async {
        let mut at = first;
        loop {
            let link = Link::new(&world.urls[at]).with_leader();
            match follow(&world, &link, len + first, world.is_go(at)).await {
                Ok(end) => {
                    let is_leaderless = end.message() == ErrorCode::NoLeader.message();
                    world.tallies.leaderless.fetch_add(u64::from(is_leaderless), Ordering::SeqCst);
                    world.tallies.moves.fetch_add(1, Ordering::SeqCst);
                }
                Err(what) => return world.book.fail(format!("through member {at}, by one that moves: {what}")),
            }
            at = (at + 1) % len;
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = follow => {}
        _ = over.wait_for(|is_over| *is_over) => {}
    }
}

/// Follows one stream to its end, from where this watch is.
async fn follow(world: &World, link: &Link, which: usize, is_go: bool) -> Result<Status, String> {
    let next = world.watched[which].load(Ordering::SeqCst) + 1;
    let (requests, mut answers) = match link.watch_all(next).await {
        Ok(opened) => opened,
        Err(status) => return Ok(status),
    };
    let mut count = 0_u32;
    loop {
        match answers.message().await {
            Ok(Some(answer)) => take(world, &answer, which, is_go)?,
            Ok(None) => return Ok(Status::ok("the end")),
            Err(status) => return Ok(status),
        }
        count += 1;
        if count.is_multiple_of(ASK_EVERY) {
            let union = Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
            // A full queue means that one is on its way.
            drop(requests.try_send(pb::WatchRequest { request_union: union }));
        }
    }
}

fn take(world: &World, answer: &pb::WatchResponse, which: usize, is_go: bool) -> Result<(), String> {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if answer.canceled {
        return Err(format!("watch: cancelled: {answer:?}"));
    }
    world.book.see(revision);
    let next = world.watched[which].load(Ordering::SeqCst) + 1;
    let next = world.book.history.lock().take(next, &answer.events, is_go)?;
    let last = next - 1;
    if !answer.created && answer.events.is_empty() && revision > last {
        return Err(format!("watch: progress at {revision} overtook the events, which are at {last}"));
    }
    if !answer.events.is_empty() && revision < last {
        return Err(format!("watch: events of revision {last} in an answer of revision {revision}"));
    }
    world.watched[which].store(last, Ordering::SeqCst);
    Ok(())
}
