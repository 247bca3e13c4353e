//! Keeping a lease alive: a renewal every third of its time to live, over broken connections too.

use std::time::Duration;

use api::ErrorCode;
use api::error::Code;
use api::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;

use crate::call::{Context, next};
use crate::client::Client;
use crate::error::Error;
use crate::watch::Outgoing;

/// Wait before a broken stream is opened again.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// Counted as the time to live until the first answer says what it is.
const FIRST_TTL: Duration = Duration::from_secs(5);

struct Open {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

/// Renewals of one lease.
pub struct KeepAlive {
    client: Client,
    id: i64,
    open: Option<Open>,
    next_at: Instant,
    expires_at: Instant,
}

impl KeepAlive {
    /// Renewals of a lease; the first [`KeepAlive::next`] renews at once.
    #[must_use]
    pub fn new(client: &Client, id: i64) -> KeepAlive {
        let now = Instant::now();
        KeepAlive { client: client.clone(), id, open: None, next_at: now, expires_at: now + FIRST_TTL }
    }

    /// The next renewal, when it is time for it. `None` once the lease is gone, or must be counted as gone because
    /// nobody could renew it in time.
    ///
    /// # Errors
    /// What trying again does not mend.
    pub async fn next(&mut self) -> Result<Option<LeaseKeepAliveResponse>, Error> {
        loop {
            tokio::time::sleep_until(self.next_at).await;
            let Ok(renewed) = tokio::time::timeout_at(self.expires_at, self.renew()).await else {
                return Ok(None);
            };
            match renewed {
                Ok(answer) if answer.ttl <= 0 => return Ok(None),
                Ok(answer) => {
                    let ttl = Duration::from_secs(u64::try_from(answer.ttl).unwrap_or_default());
                    let now = Instant::now();
                    self.expires_at = now + ttl;
                    self.next_at = now + ttl / 3;
                    return Ok(Some(answer));
                }
                Err(error) if !matches!(error.code(), Code::Unavailable | Code::Internal) => return Err(error),
                Err(_) => {
                    self.open = None;
                    self.next_at = Instant::now() + RETRY_WAIT;
                    if self.next_at > self.expires_at {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<LeaseKeepAliveResponse, Error> {
        let request = LeaseKeepAliveRequest { id: self.id };
        let open = match &mut self.open {
            Some(open) => {
                // The stream may be gone already; then reading from it says why.
                if open.requests.try_send(request).is_err() {
                    return Err(Error::unavailable("the lease stream is closed"));
                }
                open
            }
            None => {
                let (requests, outgoing) = mpsc::channel(4);
                requests.try_send(request).map_err(|_| Error::unavailable("the request queue is full"))?;
                let answers = self.client.duplex(Outgoing(outgoing), Context::none()).await?;
                self.open.insert(Open { requests, answers })
            }
        };
        next(&mut open.answers).await?.ok_or_else(|| Error::unavailable("the lease stream ended"))
    }
}

impl Client {
    /// One renewal.
    ///
    /// # Errors
    /// The lease is gone, or the call failed.
    pub async fn keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        loop {
            match KeepAlive::new(self, id).renew().await {
                Ok(answer) if answer.ttl <= 0 => return Err(ErrorCode::LeaseNotFound.into()),
                Err(error) if error.code() == Code::Unavailable && !error.is(ErrorCode::NoLeader) => {
                    tokio::time::sleep(RETRY_WAIT).await;
                }
                result => return result,
            }
        }
    }
}
