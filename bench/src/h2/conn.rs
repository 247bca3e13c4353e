//! Connections and calls, and the task that moves bytes between the state and the socket.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api::methods::Method;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::{
    CONN_WINDOW, DEFAULT_WINDOW, IdMap, READ_BUF, SETTINGS, STREAM_WINDOW, State, WINDOW_UPDATE, be32,
    frame_header,
};
use super::{DEADLINE_EXCEEDED, INTERNAL, RpcError, UNAVAILABLE, hpack};

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// One HTTP/2 connection. Cheap to clone; usable on its own thread only.
#[derive(Clone)]
pub(crate) struct Conn(Rc<RefCell<State>>);

impl Conn {
    /// Starts the protocol on `io`; the connection's task runs on the current `LocalSet`.
    pub(crate) fn start(io: Box<dyn Io>, authority: &str, tls: bool) -> Conn {
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame_header(&mut out, 12, SETTINGS, 0, 0);
        for (key, value) in [(2u16, 0u32), (4, STREAM_WINDOW)] {
            out.extend_from_slice(&key.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        frame_header(&mut out, 4, WINDOW_UPDATE, 0, 0);
        out.extend_from_slice(&(CONN_WINDOW - DEFAULT_WINDOW as u32).to_be_bytes());
        let state = Rc::new(RefCell::new(State {
            authority: authority.to_string(),
            scheme: if tls { "https" } else { "http" },
            out,
            out_pos: 0,
            driver: None,
            kicked: true,
            streams: IdMap::default(),
            next_id: 1,
            encoder: hpack::Encoder::new(),
            decoder: hpack::Decoder::new(),
            block: None,
            send_window: DEFAULT_WINDOW,
            unacked: 0,
            peer_window: DEFAULT_WINDOW,
            peer_frame: 16384,
            peer_streams: usize::MAX,
            slot_waiters: VecDeque::new(),
            blocked: VecDeque::new(),
            draining: None,
            closed: None,
        }));
        let mut driver = Driver {
            io,
            state: state.clone(),
            buf: vec![0; READ_BUF].into_boxed_slice(),
            len: 0,
            yielded: false,
        };
        tokio::task::spawn_local(poll_fn(move |cx| driver.poll(cx)));
        Conn(state)
    }

    pub(crate) fn is_closed(&self) -> bool {
        let st = self.0.borrow();
        st.closed.is_some() || st.draining.is_some() || st.next_id > i32::MAX as u32
    }

    fn poll_open(&self, cx: &mut Context<'_>, method: Method, unary: bool) -> Poll<Result<u32, RpcError>> {
        let st = &mut *self.0.borrow_mut();
        if let Some(e) = st.closed.as_ref().or(st.draining.as_ref()) {
            return Poll::Ready(Err(e.clone()));
        }
        if st.next_id > i32::MAX as u32 {
            return Poll::Ready(Err(RpcError::new(UNAVAILABLE, "out of stream ids")));
        }
        if st.streams.len() >= st.peer_streams {
            st.slot_waiters.push_back(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(st.open(method, unary)))
    }

    /// A unary call; the reply message is returned undecoded.
    pub(crate) async fn call(&self, method: Method, msg: &impl Message) -> Result<Reply, RpcError> {
        let id = poll_fn(|cx| self.poll_open(cx, method, true)).await?;
        let guard = Guard { conn: self, id };
        self.0.borrow_mut().send(id, msg, true);
        let body = poll_fn(|cx| {
            let st = &mut *self.0.borrow_mut();
            let s = st.streams.get_mut(&id).expect("held by guard");
            match &s.outcome {
                None => {
                    s.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                Some(Err(e)) => Poll::Ready(Err(e.clone())),
                Some(Ok(())) => Poll::Ready(Ok(std::mem::take(&mut s.body))),
            }
        })
        .await?;
        drop(guard);
        let whole = body.len() >= 5 && body[0] == 0 && be32(&body[1..]) as usize == body.len() - 5;
        if whole { Ok(Reply(body)) } else { Err(RpcError::new(INTERNAL, "bad reply framing")) }
    }

    /// Opens a bidirectional (or server-streaming) call.
    pub(crate) async fn stream(&self, method: Method) -> Result<Streaming, RpcError> {
        let id = poll_fn(|cx| self.poll_open(cx, method, false)).await?;
        Ok(Streaming { conn: self.clone(), id })
    }

    /// Fails every unary call older than `age`.
    pub(crate) fn expire(&self, age: Duration) {
        let now = Instant::now();
        for s in self.0.borrow_mut().streams.values_mut() {
            if s.unary && now.duration_since(s.started) > age {
                s.finish(Err(RpcError::new(DEADLINE_EXCEEDED, "no reply within --timeout")));
            }
        }
    }

    pub(crate) fn close(&self) {
        self.0.borrow_mut().close(&RpcError::new(UNAVAILABLE, "closed"));
    }
}

/// A unary reply: the gRPC frame whose message `Deref` gives.
pub(crate) struct Reply(Vec<u8>);

impl std::ops::Deref for Reply {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0[5..]
    }
}

struct Guard<'a> {
    conn: &'a Conn,
    id: u32,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.conn.0.borrow_mut().forget(self.id);
    }
}

pub(crate) struct Streaming {
    conn: Conn,
    id: u32,
}

impl Streaming {
    pub(crate) fn send(&self, msg: &impl Message) {
        self.conn.0.borrow_mut().send(self.id, msg, false);
    }

    pub(crate) fn send_last(&self, msg: &impl Message) {
        self.conn.0.borrow_mut().send(self.id, msg, true);
    }

    /// Waits for messages and gives `f` every one that has arrived whole.
    /// Returns false once the server has ended the stream with status OK.
    pub(crate) async fn next(&self, mut f: impl FnMut(&[u8])) -> Result<bool, RpcError> {
        let (mut body, whole, ended) = poll_fn(|cx| {
            let st = &mut *self.conn.0.borrow_mut();
            let s = st.streams.get_mut(&self.id).expect("forgotten only on drop");
            let mut whole = 0;
            while let Some(h) = s.body.get(whole..whole + 5) {
                let end = whole + 5 + be32(&h[1..]) as usize;
                if end > s.body.len() {
                    break;
                }
                whole = end;
            }
            if whole > 0 {
                return Poll::Ready(Ok((std::mem::take(&mut s.body), whole, false)));
            }
            match &s.outcome {
                Some(Ok(())) => Poll::Ready(Ok((Vec::new(), 0, true))),
                Some(Err(e)) => Poll::Ready(Err(e.clone())),
                None => {
                    s.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await?;
        if ended {
            return Ok(false);
        }
        let mut at = 0;
        while at < whole {
            if body[at] != 0 {
                return Err(RpcError::new(INTERNAL, "compressed message"));
            }
            let end = at + 5 + be32(&body[at + 1..]) as usize;
            f(&body[at + 5..end]);
            at = end;
        }
        // Put the partial message back in front; nothing else ran meanwhile.
        body.drain(..whole);
        let st = &mut *self.conn.0.borrow_mut();
        if let Some(s) = st.streams.get_mut(&self.id) {
            body.extend_from_slice(&s.body);
            s.body = body;
        }
        Ok(true)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.conn.0.borrow_mut().forget(self.id);
    }
}

struct Driver {
    io: Box<dyn Io>,
    state: Rc<RefCell<State>>,
    buf: Box<[u8]>,
    len: usize,
    yielded: bool,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let r = self.poll_io(cx);
        if let Poll::Ready(e) = r {
            self.state.borrow_mut().close(&e);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<RpcError> {
        let broken = |e: std::io::Error| RpcError::new(UNAVAILABLE, e.to_string());
        let mut read_any = false;
        loop {
            let mut rb = ReadBuf::new(&mut self.buf[self.len..]);
            match Pin::new(&mut *self.io).poll_read(cx, &mut rb) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => return Poll::Ready(broken(e)),
                Poll::Ready(Ok(())) => {}
            }
            let n = rb.filled().len();
            if n == 0 {
                return Poll::Ready(RpcError::new(UNAVAILABLE, "connection closed by server"));
            }
            self.len += n;
            read_any = true;
            match self.state.borrow_mut().frames(&self.buf[..self.len]) {
                Ok(used) => {
                    self.buf.copy_within(used..self.len, 0);
                    self.len -= used;
                }
                Err(what) => return Poll::Ready(RpcError::new(UNAVAILABLE, what)),
            }
        }
        let st = &mut *self.state.borrow_mut();
        if let Some(e) = &st.closed {
            return Poll::Ready(e.clone());
        }
        match &st.driver {
            Some(w) if w.will_wake(cx.waker()) => {}
            _ => st.driver = Some(cx.waker().clone()),
        }
        // Let the callers just woken add their next requests, then write once.
        if read_any && !self.yielded {
            self.yielded = true;
            st.kicked = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        st.kicked = false;
        while st.out_pos < st.out.len() {
            match Pin::new(&mut *self.io).poll_write(cx, &st.out[st.out_pos..]) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => return Poll::Ready(broken(e)),
                Poll::Ready(Ok(n)) => st.out_pos += n,
            }
        }
        if st.out_pos == st.out.len() {
            st.out.clear();
            st.out_pos = 0;
        }
        if let Poll::Ready(Err(e)) = Pin::new(&mut *self.io).poll_flush(cx) {
            return Poll::Ready(broken(e));
        }
        Poll::Pending
    }
}
