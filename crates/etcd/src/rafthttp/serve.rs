//! Connections that peers make: accepted here, answered by `http`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

use super::client::{BoxedIo, Timed, WRITE_TIMEOUT, prepare};
use super::transport::Inner;
use crate::http::{self, Prefixed};
use crate::member::handle::Shared;
use crate::net::io::Socket;
use crate::net::listen::{Guarded, Listener};

/// Connections that are served at one time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// Longest time without a request, as in etcd.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Pause after the system has refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one socket for as long as the runtime runs.
pub(super) async fn accept(guarded: Guarded, shared: Arc<Shared>, inner: Arc<Inner>) {
    let Guarded { listener, tls } = guarded;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let serve = async |socket: Socket| {
        let Ok(place) = places.clone().try_acquire_owned() else {
            return inner.logger.warn("too many connections of peers", &[("limit", CONNECTIONS_MAX.into())]);
        };
        let shared = shared.clone();
        let pass = match &tls {
            Some(tls) => Some((tls.clone(), tls.enter().await)),
            None => None,
        };
        tokio::spawn(async move {
            let io = match (pass, socket) {
                (Some((tls, pass)), socket) => {
                    tls.accept(pass, socket, Vec::new()).await.map(|stream| boxed(Prefixed::new(stream, Vec::new())))
                }
                (None, Socket::Tcp(socket)) => Some(boxed(socket)),
                (None, Socket::Unix(socket)) => Some(boxed(socket)),
            };
            if let Some(io) = io {
                let requests = Arc::new(AtomicUsize::new(0));
                http::serve_peer(Idle::new(io, requests.clone()), shared, requests).await;
            }
            drop(place);
        });
    };
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime has I/O");
            loop {
                match listener.accept().await {
                    Ok((socket, _)) if prepare(&socket).is_ok() => serve(Socket::Tcp(socket)).await,
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        }
        Listener::Unix(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener).expect("the runtime has I/O");
            loop {
                match listener.accept().await {
                    Ok((socket, _)) => serve(Socket::Unix(socket)).await,
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        }
    }
}

fn boxed(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> BoxedIo {
    Box::new(Timed::new(socket, WRITE_TIMEOUT))
}

/// A connection that ends when it is idle for long: between two requests, or before the first.
pub(crate) struct Idle {
    io: BoxedIo,
    /// Requests that are being answered, streams included.
    requests: Arc<AtomicUsize>,
    idle: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(io: BoxedIo, requests: Arc<AtomicUsize>) -> Idle {
        Idle { io, requests, idle: None }
    }
}

impl AsyncRead for Idle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let poll = Pin::new(&mut this.io).poll_read(cx, buf);
        if poll.is_ready() || this.requests.load(Ordering::Relaxed) > 0 {
            this.idle = None;
            return poll;
        }
        let idle = this.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + IDLE_MAX)));
        match idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Idle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
