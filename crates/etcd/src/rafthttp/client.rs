//! Requests to the peer ports of other members: dialling, one request, one answer.
//!
//! HTTP/1.1 on boxed sockets, so that plain and encrypted ones are alike here. Errors are texts in the words of Go's
//! HTTP client, because log lines show them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

use crate::config::value::Address;
use crate::start::system_words;
use crate::tls::ClientTls;

/// A connection, plain or encrypted.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// See [`Io`].
pub(crate) type BoxedIo = Box<dyn Io>;

/// Longest time that written bytes may find no room, as in etcd.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections ask the other side whether it is there after this time.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Makes connections to peers.
#[derive(Clone)]
pub(crate) struct Dialer {
    timeout: Duration,
    stall: Duration,
    tls: ClientTls,
}

impl Dialer {
    /// `timeout` bounds the time until a connection stands.
    pub(crate) fn new(timeout: Duration, tls: ClientTls) -> Dialer {
        Dialer { timeout, stall: WRITE_TIMEOUT, tls }
    }

    /// The same for connections whose other side may be busy for so long.
    pub(crate) fn patient(&self, stall: Duration) -> Dialer {
        Dialer { stall, ..self.clone() }
    }

    /// The same for members whose certificates name this host, whatever their URLs say.
    pub(crate) fn checking(&self, host: &str) -> Dialer {
        Dialer { tls: self.tls.checking(host), ..self.clone() }
    }

    /// A connection to the host of a URL.
    pub(crate) async fn connect(&self, url: &Address) -> Result<BoxedIo, String> {
        let late = |_| format!("dial tcp {}: i/o timeout", url.host);
        if url.is_unix() {
            let socket = tokio::time::timeout(self.timeout, UnixStream::connect(&url.host)).await.map_err(late)?;
            let socket = socket.map_err(|error| format!("dial unix {}: connect: {}", url.host, system_words(&error)))?;
            return self.secured(url, Timed::new(socket, self.stall)).await;
        }
        let connected = tokio::time::timeout(self.timeout, TcpStream::connect(&url.host)).await.map_err(late)?;
        let socket =
            connected.map_err(|error| format!("dial tcp {}: connect: {}", url.host, system_words(&error)))?;
        prepare(&socket).map_err(|error| format!("dial tcp {}: {}", url.host, system_words(&error)))?;
        self.secured(url, Timed::new(socket, self.stall)).await
    }

    /// The connection through TLS, where the URL wants that.
    async fn secured<S>(&self, url: &Address, io: Timed<S>) -> Result<BoxedIo, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if !url.is_secure() {
            return Ok(Box::new(io));
        }
        let host = if url.is_unix() { "localhost" } else { url.hostname() };
        Ok(Box::new(self.tls.connect(host, io).await?))
    }

    /// A connection that requests can be made on.
    pub(crate) async fn open(&self, url: &Address) -> Result<SendRequest<Body>, String> {
        let io = self.connect(url).await?;
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| words(&error))?;
        // Ends by itself when the sender and the answer are gone, or with an error that whoever waits is told of.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// One request on a connection of its own; `timeout` bounds the time until the head of the answer.
    pub(crate) async fn request(
        &self,
        url: &Address,
        request: Request<Body>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, String> {
        let mut sender = self.open(url).await?;
        answer(sender.send_request(request), timeout).await
    }
}

/// A connection that is kept from one request to the next.
#[derive(Default)]
pub(crate) struct Kept(Option<(Address, SendRequest<Body>)>);

impl Kept {
    /// One request to a URL, on the connection of the request before if that still stands; the whole answer, with a
    /// body of up to `max` bytes. `timeout` bounds the time until the head, and then until the end.
    pub(crate) async fn request(
        &mut self,
        dialer: &Dialer,
        url: &Address,
        make: impl Fn() -> Request<Body>,
        (max, timeout): (usize, Duration),
    ) -> Result<Response<Bytes>, String> {
        let again = self.0.take().filter(|(to, sender)| to == url && !sender.is_closed());
        let mut answered = None;
        if let Some((_, mut sender)) = again
            && sender.ready().await.is_ok()
        {
            // A peer closes connections that were idle for long, perhaps just now: then a new one is tried.
            answered = answer(sender.send_request(make()), timeout).await.ok().map(|response| (sender, response));
        }
        let (sender, response) = match answered {
            Some(answered) => answered,
            None => {
                let mut sender = dialer.open(url).await?;
                let response = answer(sender.send_request(make()), timeout).await?;
                (sender, response)
            }
        };
        let (head, body) = response.into_parts();
        let body = whole(body, max, timeout).await?;
        self.0 = Some((url.clone(), sender));
        Ok(Response::from_parts(head, body))
    }
}

/// Waits for the head of an answer.
pub(crate) async fn answer(
    reply: impl Future<Output = hyper::Result<Response<Incoming>>>,
    timeout: Duration,
) -> Result<Response<Incoming>, String> {
    match tokio::time::timeout(timeout, reply).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(words(&error)),
        Err(_) => Err("i/o timeout".into()),
    }
}

/// What every connection between members is set to.
pub(crate) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// A request without the headers that say who asks.
pub(crate) fn request(method: Method, url: &Address, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    let host = if url.is_unix() { "localhost" } else { &url.host };
    if let Ok(host) = HeaderValue::from_str(host) {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

/// The whole body of an answer, up to `max` bytes and within `timeout`.
pub(crate) async fn whole(body: Incoming, max: usize, timeout: Duration) -> Result<Bytes, String> {
    let limited = http_body_util::Limited::new(body, max);
    match tokio::time::timeout(timeout, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("i/o timeout".into()),
    }
}

/// The value of a header; empty when it is missing.
pub(crate) fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What went wrong, as Go would say it.
pub(crate) fn words(error: &hyper::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::UnexpectedEof => "unexpected EOF".into(),
                io::ErrorKind::TimedOut => "i/o timeout".into(),
                _ => system_words(io),
            };
        }
        source = inner.source();
    }
    if error.is_incomplete_message() {
        return "unexpected EOF".into();
    }
    error.to_string()
}

/// A connection whose writes fail once nothing could be written for a while.
pub(crate) struct Timed<S> {
    inner: S,
    limit: Duration,
    /// Runs while bytes find no room.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(crate) fn new(inner: S, limit: Duration) -> Timed<S> {
        Timed { inner, limit, stalled: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, poll)
    }
}
