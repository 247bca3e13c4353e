//! A watch that goes on over broken connections.
//!
//! Invariants:
//! - `next_revision` is one more than the newest revision delivered, so that nothing is lost or repeated on resume.
//! - After a cancel, or an error that will not pass, nothing more is delivered.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use api::ErrorCode;
use api::error::Code;
use api::etcdserverpb::watch_request::RequestUnion;
use api::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::codegen::tokio_stream::Stream;

use crate::call::{Context, next};
use crate::client::Client;
use crate::error::Error;

/// Wait before a broken stream is opened again.
const RESUME_WAIT: Duration = Duration::from_millis(100);
/// Requests that wait to be sent on a stream; more are refused, which only repeated progress requests can reach.
const OUTGOING_MAX: usize = 64;

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// The request as it is sent first; a resume changes its start revision only.
    pub create: WatchCreateRequest,
}

/// Requests on their way to the server.
pub(crate) struct Outgoing<T>(pub(crate) mpsc::Receiver<T>);

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

/// Ends a stream's requests when dropped.
struct Open {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

/// A running watch.
pub struct Watch {
    client: Client,
    options: WatchOptions,
    next_revision: i64,
    open: Option<Open>,
    /// Fragments of one answer that is not complete yet.
    fragments: VecDeque<WatchResponse>,
    progress: mpsc::Receiver<()>,
    ask: mpsc::Sender<()>,
    ended: bool,
}

impl Watch {
    /// A watch; the stream is opened by the first [`Watch::next`].
    #[must_use]
    pub fn new(client: &Client, options: WatchOptions) -> Watch {
        let (ask, progress) = mpsc::channel(OUTGOING_MAX);
        let next_revision = options.create.start_revision;
        let (client, fragments) = (client.clone(), VecDeque::new());
        Watch { client, options, next_revision, open: None, fragments, progress, ask, ended: false }
    }

    /// A handle that asks for progress. Asking while many requests wait is without effect.
    #[must_use]
    pub fn progress_handle(&self) -> mpsc::Sender<()> {
        self.ask.clone()
    }

    /// The next answer: events, progress, or the cancel that ends the watch. `None` after that.
    ///
    /// # Errors
    /// What will not pass by trying again; the watch has ended.
    pub async fn next(&mut self) -> Result<Option<WatchResponse>, Error> {
        while !self.ended {
            let received = self.receive().await;
            match received {
                Ok(Some(answer)) => {
                    if let Some(answer) = self.take(answer) {
                        return Ok(Some(answer));
                    }
                }
                Ok(None) => self.lost().await,
                Err(error) if ends(&error) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) => self.lost().await,
            }
        }
        Ok(None)
    }

    async fn lost(&mut self) {
        self.open = None;
        self.fragments.clear();
        tokio::time::sleep(RESUME_WAIT).await;
    }

    async fn receive(&mut self) -> Result<Option<WatchResponse>, Error> {
        if self.open.is_none() {
            self.open = Some(self.open().await?);
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        loop {
            tokio::select! {
                answer = next(&mut open.answers) => return answer,
                Some(()) = self.progress.recv() => {
                    let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // A full queue means that earlier requests for progress still wait: one answer serves all.
                    if open.requests.try_send(WatchRequest { request_union: Some(request) }).is_err() {
                        continue;
                    }
                }
            }
        }
    }

    async fn open(&self) -> Result<Open, Error> {
        let (requests, outgoing) = mpsc::channel(OUTGOING_MAX);
        let create = WatchCreateRequest { start_revision: self.next_revision, ..self.options.create.clone() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).map_err(|_| Error::unavailable("the request queue is full"))?;
        let context = Context::none().with_leader();
        let answers = self.client.duplex(Outgoing(outgoing), context).await?;
        Ok(Open { requests, answers })
    }

    /// Keeps the position; gives back what the caller should see.
    fn take(&mut self, mut answer: WatchResponse) -> Option<WatchResponse> {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        if answer.canceled {
            self.ended = true;
            return Some(answer);
        }
        if answer.created {
            if self.next_revision == 0 {
                self.next_revision = revision + 1;
            }
            return None;
        }
        if answer.fragment {
            self.fragments.push_back(answer);
            return None;
        }
        if !self.fragments.is_empty() {
            let mut events = Vec::new();
            for part in self.fragments.drain(..) {
                events.extend(part.events);
            }
            events.append(&mut answer.events);
            answer.events = events;
        }
        match answer.events.last().and_then(|event| event.kv.as_ref()) {
            Some(kv) => self.next_revision = kv.mod_revision + 1,
            None => self.next_revision = self.next_revision.max(revision + 1),
        }
        Some(answer)
    }
}

/// Errors that trying again does not mend.
fn ends(error: &Error) -> bool {
    error.is(ErrorCode::NoLeader) || !matches!(error.code(), Code::Unavailable | Code::Internal)
}

/// Why a cancelled watch was cancelled.
pub(crate) fn cancel_error(answer: &WatchResponse) -> Error {
    if answer.compact_revision != 0 {
        return ErrorCode::Compacted.into();
    }
    if answer.cancel_reason.is_empty() {
        return ErrorCode::FutureRev.into();
    }
    Error::of_cancel_reason(&answer.cancel_reason)
}

impl Error {
    /// Why the server cancelled a watch.
    #[must_use]
    pub fn of_canceled(answer: &WatchResponse) -> Error {
        cancel_error(answer)
    }
}
