//! One connection and its calls, without any retry: whoever counts acknowledged writes must see every failure.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use api::etcdserverpb as pb;
use api::etcdserverpb::watch_request::RequestUnion;
use client::{Rpc, StreamRpc};
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longest answer that is taken.
const ANSWER_MAX: usize = 1 << 30;

/// A connection; clones share it. It is made with the first call.
#[derive(Clone, Debug)]
pub struct Link {
    channel: Channel,
    /// Whether requests go to a member only while it knows a leader.
    wants_leader: bool,
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
        let channel = endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy();
        Link { channel, wants_leader: false }
    }

    /// The same connection for requests and streams that the member ends when it knows no leader.
    pub fn with_leader(&self) -> Link {
        Link { channel: self.channel.clone(), wants_leader: true }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self.wants_leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        request
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
        Ok(grpc.unary(self.request(request), path, codec).await?.into_inner())
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
        Ok(grpc.server_streaming(self.request(request), path, codec).await?.into_inner())
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
        Ok(grpc.streaming(self.request(Requests(requests)), path, codec).await?.into_inner())
    }

    /// Opens a watch of all keys from a revision on. The sender keeps it open.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub async fn watch_all(
        &self,
        start_revision: i64,
    ) -> Result<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>), Status> {
        let (requests, queue) = mpsc::channel(4);
        let create = pb::WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            start_revision,
            prev_kv: true,
            progress_notify: true,
            ..pb::WatchCreateRequest::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(request).map_err(|_| Status::internal("a new queue has room"))?;
        Ok((requests, self.duplex(queue).await?))
    }

    /// Renews a lease: the seconds it has now, 0 when there is no such lease.
    ///
    /// # Errors
    /// As [`Link::call`], and when the stream ends or answers for another lease.
    pub async fn renew(&self, id: i64) -> Result<i64, Status> {
        let (requests, queue) = mpsc::channel(1);
        requests.try_send(pb::LeaseKeepAliveRequest { id }).map_err(|_| Status::internal("a new queue has room"))?;
        let answer = self.duplex(queue).await?.message().await?;
        let answer = answer.filter(|answer| answer.id == id).ok_or_else(|| Status::internal("no answer for the lease"))?;
        Ok(answer.ttl)
    }
}
