//! The one watch of all keys that goes on over every restart.

use std::sync::Arc;

use api::etcdserverpb as pb;
use api::etcdserverpb::watch_request::RequestUnion;

use super::world::{Turns, World};
use crate::rpc::Link;

/// Feeds the history until the end.
pub(super) async fn run(world: Arc<World>) {
    let mut turns = Turns::new(&world);
    while let Some(turn) = turns.next().await {
        tokio::select! {
            biased;
            () = turns.down() => {}
            () = follow(&world, &turn.link) => {}
        }
    }
}

async fn follow(world: &World, link: &Link) {
    loop {
        let next = world.history.lock().last() + 1;
        // A server that has just gone answers nothing; the next turn begins where this one ended.
        if let Ok((requests, mut answers)) = link.watch_all(next).await {
            let mut count = 0_u32;
            while let Ok(Some(answer)) = answers.message().await {
                if let Err(what) = take(world, &answer) {
                    return world.fail(what);
                }
                count += 1;
                if count.is_multiple_of(16) {
                    let union = Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
                    // A full queue means that one is on its way.
                    drop(requests.try_send(pb::WatchRequest { request_union: union }));
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn take(world: &World, answer: &pb::WatchResponse) -> Result<(), String> {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if answer.canceled {
        return Err(format!("watch: cancelled: {answer:?}"));
    }
    world.see(revision);
    let mut history = world.history.lock();
    history.push(&answer.events, world.is_go())?;
    let last = history.last();
    if !answer.created && answer.events.is_empty() && revision > last {
        return Err(format!("watch: progress at {revision} overtook the events, which are at {last}"));
    }
    if !answer.events.is_empty() && revision < last {
        return Err(format!("watch: events of revision {last} in an answer of revision {revision}"));
    }
    Ok(())
}
