//! One connection and its calls, without any retry: whoever counts acknowledged writes must see every failure.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use client::{Rpc, StreamRpc};
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longest answer that is taken.
const ANSWER_MAX: usize = 1 << 30;

/// A connection; clones share it. It is made with the first call.
#[derive(Clone, Debug)]
pub struct Link {
    channel: Channel,
}

/// Requests of a stream, as a queue gives them.
pub struct Requests<T>(pub mpsc::Receiver<T>);

impl<T> Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

impl Link {
    /// To `http://HOST:PORT`. Needs a runtime.
    pub fn new(url: &str) -> Link {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL made by a test is valid");
        Link { channel: endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy() }
    }

    fn grpc(&self) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// A call with one answer.
    ///
    /// # Errors
    /// What the server answered, or what the transport made of its silence.
    pub async fn call<R: Rpc>(&self, request: R) -> Result<R::Response, Status> {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(R::METHOD.path());
        let codec = ProstCodec::<R, R::Response>::default();
        Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }

    /// A call with a stream of answers.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub async fn stream<R: StreamRpc>(&self, request: R) -> Result<Streaming<R::Response>, Status> {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(R::METHOD.path());
        let codec = ProstCodec::<R, R::Response>::default();
        Ok(grpc.server_streaming(Request::new(request), path, codec).await?.into_inner())
    }

    /// A call with streams both ways.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub async fn duplex<R: StreamRpc>(
        &self,
        requests: mpsc::Receiver<R>,
    ) -> Result<Streaming<R::Response>, Status> {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(R::METHOD.path());
        let codec = ProstCodec::<R, R::Response>::default();
        Ok(grpc.streaming(Request::new(Requests(requests)), path, codec).await?.into_inner())
    }
}
