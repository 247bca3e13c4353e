//! The load: several clients that write, read, lease, compact and hash at the same time, over the same few keys.

use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb as pb;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::watcher;
use super::world::{Hash, Turns, World};
use crate::load::{Answered, Client};

const CLIENTS: u64 = 6;
/// Hashes kept to be compared after the next restart.
const HASHES_MAX: usize = 8;
/// Clients wait until the server answers or goes down.
const UNLIMITED: Duration = Duration::MAX;

#[derive(Clone, Copy)]
enum Role {
    Client,
    Lessor,
    Compactor,
    Hasher,
    Chores,
}

/// Runs everybody until the end.
pub(super) async fn run(world: Arc<World>, seed: u64) {
    let roles = std::iter::repeat_n(Role::Client, CLIENTS as usize);
    let roles = roles.chain([Role::Lessor, Role::Compactor, Role::Hasher, Role::Chores]);
    let mut tasks = vec![tokio::spawn(watcher::run(world.clone()))];
    for (nth, role) in roles.enumerate() {
        let rng = SmallRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(nth as u64));
        tasks.push(tokio::spawn(work(world.clone(), role, rng)));
    }
    for task in tasks {
        if let Err(error) = task.await {
            world.fail(format!("a client panicked: {error}"));
        }
    }
}

async fn work(world: Arc<World>, role: Role, mut rng: SmallRng) {
    let mut turns = Turns::new(&world);
    while let Some(turn) = turns.next().await {
        let client = Client { book: &world, link: &turn.link, rng: &mut rng, limit: UNLIMITED, is_alone: true };
        let worker = Worker { world: &world, client };
        tokio::select! {
            biased;
            () = turns.down() => {}
            () = worker.repeat(role) => {}
        }
    }
}

struct Worker<'a> {
    world: &'a World,
    client: Client<'a>,
}

impl Worker<'_> {
    async fn repeat(mut self, role: Role) {
        loop {
            let (went_well, pause) = match role {
                Role::Client => (self.client.operation().await != Answered::Not, 0),
                Role::Lessor => (self.client.lease().await != Answered::Not, 15),
                Role::Compactor => (self.compact().await, 60),
                Role::Hasher => (self.hash().await, 15),
                Role::Chores => (self.chore().await, 200),
            };
            let pause = if went_well { pause } else { pause.max(5) };
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    async fn compact(&mut self) -> bool {
        let last = self.world.history.lock().last();
        let revision = last - self.client.rng.random_range(15..120);
        {
            let mut compaction = self.world.compaction.lock();
            if compaction.is_held || revision <= compaction.asked.max(1) {
                return true;
            }
            compaction.asked = revision;
        }
        let physical = self.client.rng.random_ratio(1, 3);
        if self.client.link.call(pb::CompactionRequest { revision, physical }).await.is_err() {
            return false;
        }
        self.world.compaction.lock().done = revision;
        self.world.tallies.lock().compactions += 1;
        true
    }

    async fn hash(&mut self) -> bool {
        let revision = self.world.history.lock().last() - self.client.rng.random_range(0..10);
        if revision <= self.world.compaction.lock().asked.max(1) {
            return true;
        }
        let Ok(answer) = self.client.link.call(pb::HashKvRequest { revision }).await else { return false };
        let hash = Hash { revision, compacted: answer.compact_revision, hash: answer.hash };
        let mut hashes = self.world.hashes.lock();
        hashes.push_back(hash);
        if hashes.len() > HASHES_MAX {
            hashes.pop_front();
        }
        true
    }

    async fn chore(&mut self) -> bool {
        let went_well = match self.client.rng.random_range(0..4) {
            0 => self.client.link.call(pb::DefragmentRequest {}).await.is_ok(),
            1 => match self.client.link.stream(pb::SnapshotRequest {}).await {
                Ok(mut pieces) => loop {
                    match pieces.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                },
                Err(_) => false,
            },
            _ => return self.client.link.call(pb::StatusRequest {}).await.is_ok(),
        };
        self.world.tallies.lock().chores += u64::from(went_well);
        went_well
    }
}
