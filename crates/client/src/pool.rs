//! Which connection a call goes to: all endpoints are dialled at once, calls go round the open ones.
//!
//! Invariants:
//! - At most one attempt per endpoint is under way.
//! - A failed endpoint is not dialled again before its backoff ends.
//! - The lock is held for plain bookkeeping only, never across a wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::error::{Code, Status};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Error;
use crate::connection::{Connection, Dial, dial};
use crate::endpoint::Endpoint;

/// Waits between attempts grow from the first to the second, by [`BACKOFF_FACTOR`].
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
const BACKOFF_FACTOR: f64 = 1.6;

#[derive(Debug)]
enum State {
    Idle,
    Connecting,
    Open(Arc<Connection>),
    Failed { why: String, until: Instant },
}

#[derive(Debug)]
struct Slot {
    endpoint: Endpoint,
    state: State,
    wait: Duration,
}

/// The endpoints of one client.
#[derive(Debug)]
pub(crate) struct Pool {
    slots: Mutex<Vec<Slot>>,
    dial: Dial,
    next: AtomicUsize,
    changed: Notify,
}

impl Pool {
    pub(crate) fn new(endpoints: Vec<Endpoint>, dial: Dial) -> Arc<Pool> {
        let slots = endpoints
            .into_iter()
            .map(|endpoint| Slot { endpoint, state: State::Idle, wait: BACKOFF.0 })
            .collect();
        Arc::new(Pool { slots: Mutex::new(slots), dial, next: AtomicUsize::new(0), changed: Notify::new() })
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection; waits for one until the deadline.
    pub(crate) async fn pick(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Arc<Connection>, Error> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that a change in between is not missed.
            changed.as_mut().enable();
            let (open, retry_at) = self.look();
            if !open.is_empty() {
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                return Ok(Arc::clone(&open[turn % open.len()]));
            }
            let until = match (deadline, retry_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            match until {
                None => changed.await,
                Some(until) => {
                    tokio::select! {
                        () = &mut changed => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(self.too_late());
            }
        }
    }

    /// Starts attempts that are due; the open connections and when the next attempt is due.
    fn look(self: &Arc<Self>) -> (Vec<Arc<Connection>>, Option<Instant>) {
        let now = Instant::now();
        let (mut open, mut retry_at) = (Vec::new(), None::<Instant>);
        let mut slots = self.slots();
        for (at, slot) in slots.iter_mut().enumerate() {
            match &slot.state {
                State::Open(connection) if connection.is_open() => {
                    open.push(Arc::clone(connection));
                    continue;
                }
                State::Connecting => continue,
                State::Failed { until, .. } if *until > now => {
                    retry_at = Some(retry_at.map_or(*until, |earliest| earliest.min(*until)));
                    continue;
                }
                _ => {}
            }
            slot.state = State::Connecting;
            let (pool, endpoint) = (Arc::clone(self), slot.endpoint.clone());
            tokio::spawn(async move {
                let result = dial(&endpoint, &pool.dial).await;
                pool.dialled(at, result);
            });
        }
        (open, retry_at)
    }

    fn dialled(&self, at: usize, result: Result<Connection, String>) {
        {
            let mut slots = self.slots();
            let slot = &mut slots[at];
            match result {
                Ok(connection) => {
                    slot.state = State::Open(Arc::new(connection));
                    slot.wait = BACKOFF.0;
                }
                Err(why) => {
                    slot.state = State::Failed { why, until: Instant::now() + slot.wait };
                    slot.wait = slot.wait.mul_f64(BACKOFF_FACTOR).min(BACKOFF.1);
                }
            }
        }
        self.changed.notify_waiters();
    }

    /// What gRPC says when no connection came up in time.
    fn too_late(&self) -> Error {
        let slots = self.slots();
        let last = slots.iter().rev().find_map(|slot| match &slot.state {
            State::Failed { why, .. } => Some(why.clone()),
            _ => None,
        });
        let message = match last {
            Some(why) => format!("latest balancer error: connection error: desc = {why:?}"),
            None => "context deadline exceeded while waiting for connections to become ready".into(),
        };
        Error::Status(Status::new(Code::DeadlineExceeded, message))
    }

    pub(crate) fn count(&self) -> usize {
        self.slots().len()
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.slots().iter().map(|slot| slot.endpoint.clone()).collect()
    }
}
