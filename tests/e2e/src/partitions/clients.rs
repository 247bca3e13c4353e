//! The load: clients of every member that write and read, one that grants and revokes leases, and some that keep one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::watchers;
use super::world::{CLIENTS_PER_MEMBER, World};
use crate::load::{Answered, Client};
use crate::rpc::Link;

/// Pause of a client between two requests, in milliseconds.
const PACE: std::ops::Range<u64> = 4..16;
/// Pause after a request without an answer.
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// What most clients wait, and what some wait: longer than a member does until it gives up by itself.
const PATIENCE: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_secs(12)];
/// Leases that are kept, and for how many seconds each renewal lasts.
const KEEPERS: usize = 3;
const KEPT_TTL: i64 = 5;
/// Time between two renewals.
const RENEWAL: Duration = Duration::from_millis(600);
/// How long a renewal may take before another member is asked.
const RENEWAL_LIMIT: Duration = Duration::from_millis(1_200);

/// Runs everybody until the end.
pub(super) async fn run(world: Arc<World>, seed: u64) {
    let mut tasks = Vec::new();
    let mut nth = seed.wrapping_mul(1_000);
    let mut rng = || {
        nth += 1;
        SmallRng::seed_from_u64(nth)
    };
    for home in 0..world.urls.len() {
        for patience in PATIENCE.iter().cycle().take(CLIENTS_PER_MEMBER as usize) {
            tasks.push(tokio::spawn(Counted::new(&world).run(client(world.clone(), home, *patience, rng()))));
        }
        tasks.push(tokio::spawn(watchers::stay(world.clone(), home)));
        tasks.push(tokio::spawn(watchers::roam(world.clone(), home)));
    }
    tasks.push(tokio::spawn(Counted::new(&world).run(lessor(world.clone(), rng()))));
    for nth in 0..KEEPERS {
        tasks.push(tokio::spawn(Counted::new(&world).run(keeper(world.clone(), nth, rng()))));
    }
    for task in tasks {
        if let Err(error) = task.await {
            world.book.fail(format!("a client panicked: {error}"));
        }
    }
}

/// Says when the last client has ended.
struct Counted(Arc<World>);

impl Counted {
    fn new(world: &Arc<World>) -> Counted {
        world.clients.fetch_add(1, Ordering::SeqCst);
        Counted(world.clone())
    }

    async fn run(self, client: impl Future<Output = ()>) {
        client.await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Writes and reads through one member.
async fn client(world: Arc<World>, home: usize, limit: Duration, mut rng: SmallRng) {
    let link = Link::new(&world.urls[home]);
    while !world.clients_are_over() {
        let alone = world.alone(home);
        let mut client = Client { book: &world.book, link: &link, rng: &mut rng, limit, is_alone: false };
        let pause = match client.operation().await {
            Answered::ByQuorum => {
                world.answered(home, alone);
                Duration::from_millis(rng.random_range(PACE))
            }
            Answered::ByOne | Answered::Refused => Duration::from_millis(rng.random_range(PACE)),
            Answered::Not => AFTER_FAILURE,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Grants and revokes through whoever answers.
async fn lessor(world: Arc<World>, mut rng: SmallRng) {
    let links: Vec<Link> = world.urls.iter().map(|url| Link::new(url)).collect();
    let mut at = 0;
    while !world.clients_are_over() {
        let mut client =
            Client { book: &world.book, link: &links[at], rng: &mut rng, limit: PATIENCE[0], is_alone: false };
        if client.lease().await == Answered::Not {
            at = (at + 1) % links.len();
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

/// Keeps a lease with a key, through whoever answers.
async fn keeper(world: Arc<World>, nth: usize, mut rng: SmallRng) {
    let links: Vec<Link> = world.urls.iter().map(|url| Link::new(url)).collect();
    let mut at = nth % links.len();
    while !world.clients_are_over() {
        let sent = Instant::now();
        let mut client =
            Client { book: &world.book, link: &links[at], rng: &mut rng, limit: PATIENCE[0], is_alone: false };
        let (lease, answered) = client.grant(KEPT_TTL).await;
        if answered == Answered::ByQuorum {
            let until = sent + Duration::from_secs(KEPT_TTL as u64);
            client.put_as(format!("kept/{nth}").into(), lease).await;
            keep(&world, &links, &mut at, lease, until).await;
        } else {
            at = (at + 1) % links.len();
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

/// Renews a lease, which has been promised until some time, until it ends.
async fn keep(world: &World, links: &[Link], at: &mut usize, lease: i64, mut until: Instant) {
    while !world.clients_are_over() {
        let sent = Instant::now();
        match tokio::time::timeout(RENEWAL_LIMIT, links[*at].renew(lease)).await {
            Ok(Ok(KEPT_TTL)) => {
                until = sent + Duration::from_secs(KEPT_TTL as u64);
                world.tallies.renewals.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Ok(0)) if Instant::now() < until => return world.early_end(lease),
            Ok(Ok(0)) => {
                world.tallies.lapses.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Ok(Ok(left)) => return world.book.fail(format!("a renewal gave lease {lease:x} {left} s of {KEPT_TTL}")),
            Ok(Err(_)) | Err(_) => {
                *at = (*at + 1) % links.len();
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        }
        tokio::time::sleep(RENEWAL).await;
    }
}
