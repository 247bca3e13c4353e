//! Streams: endless answers over which the dialled side sends.
//!
//! This member dials every peer for both kinds and reads what the peer says ([`read`]); peers dial this member, and
//! [`Carrier`] is the body of the answer they get. A link heartbeat every third of the time limit keeps either end
//! from taking silence for death.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::raftpb::Message;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::time::{Instant, Sleep};

use super::client::{self, field};
use super::codec::{Decoder, Encoder, is_link_heartbeat, link_heartbeat};
use super::peer::{Kind, Peer};
use super::transport::Inner;

/// Longest silence on a stream, as in etcd.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two link heartbeats.
const HEARTBEAT: Duration = Duration::from_nanos(5_000_000_000 / 3);
/// Time between two attempts to dial.
const DIAL_EACH: Duration = Duration::from_millis(100);
/// Bytes of messages that are written at once.
const PIECE: usize = 1 << 20;
/// Most bytes of an answer that says why there is no stream.
const REFUSAL_MAX: usize = 4096;

/// The body of an answer that carries a stream.
pub(crate) struct Carrier {
    inner: Arc<Inner>,
    peer: Arc<Peer>,
    kind: Kind,
    number: u64,
    encoder: Encoder,
    batch: Vec<Message>,
    buffer: BytesMut,
    heartbeat: Pin<Box<Sleep>>,
}

impl Carrier {
    /// Makes the connection that asks the one that carries the peer's stream.
    pub(crate) fn attach(inner: &Arc<Inner>, peer: Arc<Peer>, kind: Kind) -> Carrier {
        let number = inner.next_carrier();
        let replaced = peer.attach(kind, number);
        let set = [("from", inner.field()), ("to", peer.field()), ("stream-type", kind.name().into())];
        inner.logger.info("set message encoder", &set);
        peer.activate(inner);
        let fields = inner.about("stream-writer-type", kind, &peer);
        if replaced {
            inner.logger.warn("closed TCP streaming connection with remote peer", &fields);
        }
        inner.logger.info("established TCP streaming connection with remote peer", &fields);
        let encoder = match kind {
            Kind::Append => Encoder::Append { term: 0, index: 0 },
            Kind::Message => Encoder::Message,
        };
        Carrier {
            inner: inner.clone(),
            peer,
            kind,
            number,
            encoder,
            batch: Vec::new(),
            buffer: BytesMut::new(),
            heartbeat: Box::pin(tokio::time::sleep(HEARTBEAT)),
        }
    }

    fn encode(&mut self) -> Bytes {
        for message in self.batch.drain(..) {
            self.encoder.put(&message, &mut self.buffer);
        }
        let bytes = self.buffer.split().freeze();
        self.peer.counts.sent_bytes.add(bytes.len() as u64);
        bytes
    }
}

impl hyper::body::Body for Carrier {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let this = &mut *self;
        if !this.peer.take(this.kind, this.number, PIECE, &mut this.batch, cx.waker()) {
            return Poll::Ready(None);
        }
        if this.batch.is_empty() {
            std::task::ready!(this.heartbeat.as_mut().poll(cx));
            this.heartbeat.as_mut().reset(Instant::now() + HEARTBEAT);
            this.batch.push(link_heartbeat());
        }
        Poll::Ready(Some(Ok(Frame::data(this.encode()))))
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let Some(lost) = self.peer.detach(self.kind, self.number) else { return };
        let fields = self.inner.about("stream-writer-type", self.kind, &self.peer);
        self.inner.logger.warn("lost TCP streaming connection with remote peer", &fields);
        self.peer.deactivate(&self.inner, self.kind.name(), "write", "connection closed");
        if lost > 0 {
            self.peer.counts.sent_failures.add(lost as u64);
            self.inner.unreachable(self.peer.id);
        }
    }
}

/// Dials the peer again and again and hands on what it sends, until the peer is stopped.
pub(crate) async fn read(inner: Arc<Inner>, peer: Arc<Peer>, kind: Kind) {
    let fields = inner.about("stream-reader-type", kind, &peer);
    inner.logger.info("started stream reader with remote peer", &fields);
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = peer.stopped() => break,
            () = tokio::time::sleep_until(next) => {}
        }
        next = Instant::now() + DIAL_EACH;
        tokio::select! {
            () = peer.stopped() => break,
            ended = connection(&inner, &peer, kind) => if let Err(Expelled) = ended { inner.expelled() },
        }
    }
    inner.logger.info("stopped stream reader with remote peer", &fields);
}

/// The peer says that this member was removed.
struct Expelled;

/// One attempt, and what comes over it.
async fn connection(inner: &Arc<Inner>, peer: &Arc<Peer>, kind: Kind) -> Result<(), Expelled> {
    let body = match dial(inner, peer, kind).await {
        Ok(body) => body,
        Err(Refusal { why, expelled }) => {
            peer.deactivate(inner, kind.name(), "dial", &why);
            return if expelled { Err(Expelled) } else { Ok(()) };
        }
    };
    peer.activate(inner);
    let mut fields = inner.about("stream-reader-type", kind, peer).to_vec();
    inner.logger.info("established TCP streaming connection with remote peer", &fields);
    let why = receive(inner, peer, kind, body).await;
    fields.push(("error", (&why).into()));
    inner.logger.warn("lost TCP streaming connection with remote peer", &fields);
    if why != "EOF" {
        peer.deactivate(inner, kind.name(), "read", &why);
    }
    Ok(())
}

/// Why there is no stream.
struct Refusal {
    why: String,
    expelled: bool,
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal { why, expelled: false }
    }
}

/// Asks for a stream, at the address whose turn it is.
async fn dial(inner: &Inner, peer: &Peer, kind: Kind) -> Result<Incoming, Refusal> {
    let url = peer.urls.lock().pick().ok_or_else(|| String::from("the peer has no address"))?;
    let dialled = ask(inner, peer, kind, &url).await;
    if dialled.is_err() {
        peer.urls.lock().unreachable(&url);
    }
    dialled
}

async fn ask(inner: &Inner, peer: &Peer, kind: Kind, url: &crate::config::value::Address) -> Result<Incoming, Refusal> {
    let path = format!("/raft/stream/{}/{}", kind.path(), inner.identity.hex);
    let mut request = client::request(Method::GET, url, &path, Body::empty());
    inner.identity.sign(request.headers_mut());
    inner.identity.address(request.headers_mut(), &peer.hex);
    let response = inner.dialer.request(url, request, READ_TIMEOUT).await?;
    // A release that this one does not know of is newer; older ones down to 3.0 have both streams.
    let theirs = field(response.headers(), "x-server-version").parse::<api::version::Version>();
    if theirs.map_or(true, |version| version.minor() < super::VERSION_MIN) {
        return Err(String::from("unsupported stream type").into());
    }
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        StatusCode::GONE => Err(Refusal { why: super::REMOVED.into(), expelled: true }),
        StatusCode::NOT_FOUND => {
            Err(format!("peer {} failed to find local node {}", peer.hex, inner.identity.hex).into())
        }
        StatusCode::PRECONDITION_FAILED => {
            let cluster = field(response.headers(), "x-etcd-cluster-id").to_string();
            let body = client::whole(response.into_body(), REFUSAL_MAX, READ_TIMEOUT).await?;
            let why = String::from_utf8_lossy(&body).trim_end_matches('\n').to_string();
            Err(inner.say_refused(peer, &cluster, why).into())
        }
        other => Err(format!("unhandled http status {}", other.as_u16()).into()),
    }
}

/// Hands on messages until the stream ends; gives the reason.
async fn receive(inner: &Arc<Inner>, peer: &Arc<Peer>, kind: Kind, mut body: Incoming) -> String {
    let mut decoder = match kind {
        Kind::Append => Decoder::append(inner.identity.member, peer.id),
        Kind::Message => Decoder::message(),
    };
    let mut batch = Vec::new();
    loop {
        let frame = match tokio::time::timeout(READ_TIMEOUT, body.frame()).await {
            Err(_) => return "i/o timeout".into(),
            Ok(None) => return if decoder.is_between() { "EOF".into() } else { "unexpected EOF".into() },
            Ok(Some(Err(error))) => return client::words(&error),
            Ok(Some(Ok(frame))) => frame,
        };
        let Some(data) = frame.data_ref() else { continue };
        peer.counts.received_bytes.add(data.len() as u64);
        decoder.feed(data);
        let malformed = loop {
            match decoder.next() {
                Ok(Some(message)) if is_link_heartbeat(&message) => {}
                Ok(Some(message)) => batch.push(message),
                Ok(None) => break None,
                Err(malformed) => break Some(malformed),
            }
        };
        inner.deliver(Some(peer), &mut batch);
        if let Some(malformed) = malformed {
            peer.counts.received_failures.add(1);
            return malformed.to_string();
        }
    }
}
