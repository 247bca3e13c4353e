//! A connection whose first bytes were read already, as hyper reads connections.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::io::Stream;

/// See the head of this file.
pub(crate) struct Prefixed {
    stream: Stream,
    first: Vec<u8>,
    at: usize,
}

impl Prefixed {
    pub(crate) fn new(stream: Stream, first: Vec<u8>) -> Prefixed {
        Prefixed { stream, first, at: 0 }
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.at < self.first.len() {
            let n = (self.first.len() - self.at).min(buf.remaining());
            buf.put_slice(&self.first[self.at..self.at + n]);
            self.at += n;
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(read) = self.stream.read(buf.initialize_unfilled())? {
                buf.advance(read);
                return Poll::Ready(Ok(()));
            }
            ready!(self.stream.poll_ready(cx, false))?;
        }
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(written) = self.stream.write(slices)? {
                return Poll::Ready(Ok(written));
            }
            ready!(self.stream.poll_ready(cx, true))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.stream.flush()? {
            ready!(self.stream.poll_ready(cx, true))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.stream.say_goodbye();
        Poll::Ready(self.stream.shut_down())
    }
}
