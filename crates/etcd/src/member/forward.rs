//! Keepalives and questions about leases that only the leader can answer: passed on to its peer port, the answers sent
//! to the network threads as if they came from the member thread.
//!
//! They run beside the member thread, a bounded number at a time, each with the time that a request has. While no
//! leader answers they are tried again, as in etcd: a leader that has just been elected does not refuse them for long.

use std::sync::Arc;
use std::time::Duration;

use api::Status;
use api::error::ErrorCode;
use etcdserver::effect::{LeaseQuestion, LeaseTimes, Renewal, ReplyTo};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::http::PEER_THREAD;
use crate::member::ask::TASK_THREAD;
use crate::member::handle::{Mail, Shared};
use crate::rafthttp::call::{self, LeaseError};

/// Requests passed on at once; what waits for a place counts against its own time.
const UNDER_WAY_MAX: usize = 256;
/// Requests that may wait for a place; beyond it "too many requests".
const WAITING_MAX: usize = 1 << 14;
/// Pause before the leader is looked up and asked again.
const RETRY: Duration = Duration::from_millis(50);

/// What the leader is to be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forward {
    Renew(Renewal),
    Times(LeaseQuestion),
}

impl Forward {
    fn reply_to(&self) -> ReplyTo {
        match self {
            Forward::Renew(renewal) => renewal.reply_to,
            Forward::Times(question) => question.reply_to,
        }
    }
}

/// Takes what the member thread passes on, for as long as the process runs. To be spawned on a `LocalSet`.
pub(crate) async fn run(shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    let mut batch = Vec::new();
    loop {
        shared.forwards.waker().0.notified().await;
        shared.forwards.take(&mut batch);
        for forward in batch.drain(..) {
            // A peer that takes this member for the leader looks again by itself.
            if forward.reply_to().thread == PEER_THREAD {
                shared.peer_calls.refuse(forward.reply_to());
                continue;
            }
            let Ok(ticket) = waiting.clone().try_acquire_owned() else {
                refuse(&shared, forward, ErrorCode::TooManyRequests);
                continue;
            };
            let (shared, places) = (shared.clone(), places.clone());
            tokio::task::spawn_local(async move {
                let deadline = Instant::now() + shared.request_timeout();
                let place = tokio::time::timeout_at(deadline, places.acquire_owned()).await;
                if tokio::time::timeout_at(deadline, pass_on(&shared, forward)).await.is_err() {
                    refuse(&shared, forward, ErrorCode::Timeout);
                }
                drop((place, ticket));
            });
        }
    }
}

fn refuse(shared: &Shared, forward: Forward, why: ErrorCode) {
    let to = forward.reply_to();
    let status = Status::from(why);
    if to.thread == TASK_THREAD {
        return shared.tasks.tell(to, Err(status));
    }
    shared.networks[usize::from(to.thread)].push(Mail::Refused(vec![(to, status)]));
}

/// Asks whoever leads until there is an answer.
async fn pass_on(shared: &Shared, forward: Forward) {
    loop {
        let state = shared.published.load_full();
        let leader = state.edge.cluster.member(state.role.leader).map(|member| member.peer_urls.clone());
        if let Some(urls) = leader.filter(|_| state.role.leader != shared.member_id)
            && let Some(mail) = ask(shared, &urls, forward).await
        {
            return shared.networks[usize::from(forward.reply_to().thread)].push(mail);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The answer of the member under these URLs, if it has one.
async fn ask(shared: &Shared, urls: &[String], forward: Forward) -> Option<Mail> {
    match forward {
        Forward::Renew(renewal) => match call::renew_lease(shared, urls, renewal.lease).await {
            Ok(ttl) => Some(Mail::Renewed(vec![(renewal, ttl)])),
            Err(LeaseError::NotFound) => Some(Mail::Renewed(vec![(renewal, 0)])),
            Err(LeaseError::Other(_)) => None,
        },
        Forward::Times(question) => {
            let lease = question.lease?;
            match call::lease_times(shared, urls, lease, false).await {
                Ok(answer) => {
                    let times = LeaseTimes::One { granted: answer.granted_ttl, left: answer.ttl };
                    Some(Mail::LeaseTimes(vec![(question, times)]))
                }
                Err(LeaseError::NotFound) => Some(Mail::LeaseTimes(vec![(question, LeaseTimes::None)])),
                Err(LeaseError::Other(_)) => None,
            }
        }
    }
}
