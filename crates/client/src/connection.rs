//! One connection: dialled, TLS done, and open only once the server has sent its SETTINGS, as Go's client counts it.
//!
//! Invariants:
//! - A [`Connection`] that exists has seen the first frame of an HTTP/2 server.
//! - It never dials again by itself: once closed it stays closed, and the pool makes another.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::endpoint::{Endpoint, Target, split_host_port};

/// How connections are made and kept.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) server_name: Option<String>,
    pub(crate) keepalive_time: Option<Duration>,
    pub(crate) keepalive_timeout: Duration,
}

/// gRPC clients give an attempt this long, whatever the caller's own deadline.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(20);
/// Servers punish clients that ping more often than this.
const KEEPALIVE_MIN: Duration = Duration::from_secs(10);
/// Kind of the frame that a server opens with.
const FRAME_SETTINGS: u8 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Closed(String),
}

/// A connection that has been open.
#[derive(Debug)]
pub(crate) struct Connection {
    channel: Channel,
    state: watch::Receiver<State>,
    peer: String,
}

impl Connection {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.state.borrow() == State::Open
    }

    /// Why it closed.
    pub(crate) fn closed_why(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Closed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Both ends, in the form of Go's log lines.
    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }
}

/// The words of an OS error as Go prints them.
pub(crate) fn io_text(error: &io::Error) -> String {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return pki::text::of(error);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => return "EOF".into(),
        io::ErrorKind::TimedOut => return "i/o timeout".into(),
        _ => {}
    }
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Opens a connection. The error is the text that gRPC wraps as `connection error: desc = "..."`.
pub(crate) async fn dial(endpoint: &Endpoint, dial: &Dial) -> Result<Connection, String> {
    match tokio::time::timeout(ATTEMPT_LIMIT, open(endpoint, dial)).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "transport: Error while dialing: dial tcp {}: i/o timeout",
            endpoint.authority()
        )),
    }
}

async fn open(endpoint: &Endpoint, dial: &Dial) -> Result<Connection, String> {
    let (stream, ends) = match &endpoint.target {
        Target::Tcp(address) => connect_tcp(address).await,
        Target::Unix(path) => connect_unix(path).await,
    }
    .map_err(|why| format!("transport: Error while dialing: {why}"))?;
    let stream = match &dial.tls {
        None => stream,
        Some(config) => handshake(endpoint, dial, config, stream)
            .await
            .map_err(|why| format!("transport: authentication handshake failed: {why}"))?,
    };
    let auth = if dial.tls.is_some() { "tls" } else { "insecure" };
    let (remote, local) = ends;
    let peer = format!("Peer{{Addr: '{remote}', LocalAddr: '{local}', AuthInfo: '{auth}'}}");
    let (report, mut state) = watch::channel(State::Opening);
    let channel = over(endpoint, dial, Observed { stream, head: Vec::new(), report }).await?;
    // The server's first frame, or the end of the connection.
    let end = state.wait_for(|state| *state != State::Opening).await.map(|state| state.clone());
    match end {
        Ok(State::Closed(why)) => Err(format!("error reading server preface: {why}")),
        Err(_) => Err("error reading server preface: EOF".into()),
        Ok(_) => Ok(Connection { channel, state, peer }),
    }
}

type Ends = (String, String);

async fn connect_tcp(address: &str) -> Result<(Box<dyn Stream>, Ends), String> {
    let Some((host, port)) = split_host_port(address) else {
        return Err(format!("dial tcp: address {}", address_fault(address)));
    };
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| format!("dial tcp: lookup {host}: no such host"))?
        .collect();
    let mut failure = format!("dial tcp: lookup {host}: no such host");
    for address in found {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Requests are small and wait for answers: nothing is gained by holding them back.
                let delay_off = stream.set_nodelay(true);
                let local = stream.local_addr().and_then(|local| delay_off.map(|()| local));
                let local = local.map_err(|error| format!("dial tcp {address}: {}", io_text(&error)))?;
                return Ok((Box::new(stream), (address.to_string(), local.to_string())));
            }
            Err(error) => failure = format!("dial tcp {address}: connect: {}", io_text(&error)),
        }
    }
    Err(failure)
}

/// What is wrong with an address, in Go's words.
fn address_fault(address: &str) -> String {
    match address.rsplit_once(':') {
        None => format!("{address}: missing port in address"),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            format!("{address}: too many colons in address")
        }
        Some((_, port)) => format!("{port}: invalid port"),
    }
}

async fn connect_unix(path: &std::path::Path) -> Result<(Box<dyn Stream>, Ends), String> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok((Box::new(stream), (path.display().to_string(), "@".into()))),
        Err(error) => Err(format!("dial unix {}: connect: {}", path.display(), io_text(&error))),
    }
}

async fn handshake(
    endpoint: &Endpoint,
    dial: &Dial,
    config: &Arc<ClientConfig>,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, String> {
    let name = dial.server_name.clone().unwrap_or_else(|| endpoint.server_name());
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(io_text(&error)),
    }
}

/// Lays HTTP/2 over a stream, which serves for this one connection only.
async fn over(endpoint: &Endpoint, dial: &Dial, stream: Observed) -> Result<Channel, String> {
    let scheme = if dial.tls.is_some() { "https" } else { "http" };
    let uri = match &endpoint.target {
        Target::Tcp(address) => format!("{scheme}://{address}"),
        Target::Unix(_) => format!("{scheme}://localhost"),
    };
    let uri = tonic::codegen::http::Uri::try_from(uri).map_err(|error| error.to_string())?;
    // TLS lies below already: tonic, left to dial an https address, would refuse for want of its own.
    let plain = tonic::codegen::http::Uri::from_static("http://localhost");
    let mut settings = tonic::transport::Endpoint::from(plain)
        .origin(uri)
        .initial_stream_window_size(Some(1 << 20))
        .initial_connection_window_size(Some(4 << 20))
        .http2_max_header_list_size(1 << 20);
    if let Some(time) = dial.keepalive_time {
        settings = settings
            .http2_keep_alive_interval(time.max(KEEPALIVE_MIN))
            .keep_alive_timeout(dial.keepalive_timeout)
            .keep_alive_while_idle(false);
    }
    let mut only = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let stream = only.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    settings
        .connect_with_connector(connector)
        .await
        .map_err(|error| format!("transport: {error}"))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream that reports when the server has shown itself, and when it has gone.
struct Observed {
    stream: Box<dyn Stream>,
    /// The first bytes, until there are enough of them to tell the kind of the first frame.
    head: Vec<u8>,
    report: watch::Sender<State>,
}

impl Observed {
    fn read(&mut self, new: &[u8]) -> io::Result<()> {
        if self.head.len() >= 4 {
            return Ok(());
        }
        self.head.extend_from_slice(&new[..new.len().min(4)]);
        if self.head.len() < 4 {
            return Ok(());
        }
        if self.head[3] != FRAME_SETTINGS {
            return Err(io::Error::other("http2: frame too large"));
        }
        self.report.send_replace(State::Open);
        Ok(())
    }

    fn close(&self, why: &str) {
        if !matches!(*self.report.borrow(), State::Closed(_)) {
            self.report.send_replace(State::Closed(why.to_owned()));
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.close("EOF");
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                if let Err(error) = self.read(&buf.filled()[before..]) {
                    self.close(&io_text(&error));
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Ready(Ok(())) if room > 0 => self.close("EOF"),
            Poll::Ready(Err(error)) => self.close(&io_text(error)),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
