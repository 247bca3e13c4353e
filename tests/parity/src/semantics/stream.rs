//! A streaming call: requests sent and answers read one by one, each read with a limit of time.

use std::time::Duration;

use client::StreamRpc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::answer::{Difference, Outcome, Status};
use super::target::{ANSWER_LIMIT, Metadata, grpc};

/// What a read found.
#[derive(Clone, Debug, PartialEq)]
pub enum Received<T> {
    /// A message.
    Message(T),
    /// The end of the stream; [`Status::ok`] for the regular one.
    End(Status),
    /// Nothing within the time.
    Silence,
}

/// A call that is open in both directions. Dropping it cancels the call.
pub struct Stream<R: StreamRpc> {
    requests: Option<UnboundedSender<R>>,
    answers: UnboundedReceiver<Result<R::Response, Status>>,
    ended: Option<Status>,
    task: JoinHandle<()>,
}

impl<R: StreamRpc> Stream<R> {
    /// Opens the call. Nothing is waited for: Go sends its response headers with the first message.
    #[must_use]
    pub fn open(channel: Channel, metadata: &Metadata<'_>) -> Stream<R> {
        let (requests, outgoing) = unbounded_channel();
        let (report, answers) = unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
        metadata.add_to(request.metadata_mut());
        let task = tokio::spawn(async move {
            let mut grpc = grpc(channel);
            let path = PathAndQuery::from_static(R::METHOD.path());
            let opened = match grpc.ready().await {
                Ok(()) => grpc.streaming(request, path, ProstCodec::default()).await,
                Err(error) => Err(tonic::Status::from_error(Box::new(error))),
            };
            // Nobody listens any more when a send fails: the call ends with this task.
            let mut incoming = match opened {
                Ok(response) => response.into_inner(),
                Err(status) => return drop(report.send(Err(status.into()))),
            };
            loop {
                let (answer, last) = match incoming.message().await {
                    Ok(Some(message)) => (Ok(message), false),
                    Ok(None) => (Err(Status::ok()), true),
                    Err(status) => (Err(status.into()), true),
                };
                if report.send(answer).is_err() || last {
                    return;
                }
            }
        });
        Stream { requests: Some(requests), answers, ended: None, task }
    }

    /// Sends a request.
    ///
    /// Panics after [`Stream::half_close`].
    pub fn send(&self, request: R) {
        let requests = self.requests.as_ref().expect("this side is still open");
        // A stream that the server has ended takes no more requests; the next read tells why.
        drop(requests.send(request));
    }

    /// Ends this side's requests.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next thing that arrives, or silence after `within`.
    pub async fn receive(&mut self, within: Duration) -> Received<R::Response> {
        if let Some(status) = &self.ended {
            return Received::End(status.clone());
        }
        match tokio::time::timeout(within, self.answers.recv()).await {
            Err(_) => Received::Silence,
            Ok(Some(Ok(message))) => Received::Message(message),
            Ok(Some(Err(status))) => {
                self.ended = Some(status.clone());
                Received::End(status)
            }
            Ok(None) => Received::End(Status::new(api::error::Code::Unknown, "the call's task is gone")),
        }
    }

    /// The next message, which must come soon.
    ///
    /// # Errors
    /// When the stream ends or is silent.
    pub async fn message(&mut self) -> Result<R::Response, Difference> {
        match self.receive(ANSWER_LIMIT).await {
            Received::Message(message) => Ok(message),
            Received::End(status) => {
                Err(Difference(format!("expected a message, the stream ended with {status}")))
            }
            Received::Silence => Err(Difference::new("expected a message, nothing came")),
        }
    }

    /// Nothing may come for this long.
    ///
    /// # Errors
    /// When something does.
    pub async fn silent(&mut self, during: Duration) -> Outcome {
        match self.receive(during).await {
            Received::Silence => Ok(()),
            other => Err(Difference(format!("expected silence, got {other:?}"))),
        }
    }

    /// The end of the stream, which must come soon and before any message.
    ///
    /// # Errors
    /// When a message or nothing comes.
    pub async fn end(&mut self) -> Result<Status, Difference> {
        match self.receive(ANSWER_LIMIT).await {
            Received::End(status) => Ok(status),
            other => Err(Difference(format!("expected the end of the stream, got {other:?}"))),
        }
    }

    /// All messages up to the end of the stream, and how it ended.
    ///
    /// # Errors
    /// When it falls silent before.
    pub async fn rest(&mut self) -> Result<(Vec<R::Response>, Status), Difference> {
        let mut messages = Vec::new();
        loop {
            match self.receive(ANSWER_LIMIT).await {
                Received::Message(message) => messages.push(message),
                Received::End(status) => return Ok((messages, status)),
                Received::Silence => {
                    let count = messages.len();
                    return Err(Difference(format!("silence after {count} messages, expected the end")));
                }
            }
        }
    }
}

impl<R: StreamRpc> Drop for Stream<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
