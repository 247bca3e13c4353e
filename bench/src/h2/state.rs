//! What one connection knows: its streams, windows and headers; frames in, frames out.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::Waker;
use std::time::Instant;

use api::methods::Method;
use prost::Message;

use super::{INTERNAL, RpcError, UNAVAILABLE, UNKNOWN, hpack};

pub(super) const STREAM_WINDOW: u32 = 16 << 20;
pub(super) const CONN_WINDOW: u32 = 64 << 20;
pub(super) const READ_BUF: usize = 256 << 10;
pub(super) const DEFAULT_WINDOW: i64 = 65535;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITY: u8 = 0x20;

#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!()
    }
    fn write_u32(&mut self, v: u32) {
        self.0 = (v as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) type IdMap<T> = HashMap<u32, T, BuildHasherDefault<IdHasher>>;

pub(super) struct Stream {
    pub(super) started: Instant,
    pub(super) unary: bool,
    pub(super) body: Vec<u8>,
    /// Request bytes that flow control has not let out yet.
    pub(super) pending: VecDeque<u8>,
    pub(super) finish_after_pending: bool,
    pub(super) sent_end: bool,
    pub(super) send_window: i64,
    pub(super) unacked: u32,
    pub(super) http_ok: bool,
    pub(super) status: Option<u32>,
    pub(super) message: String,
    pub(super) outcome: Option<Result<(), RpcError>>,
    pub(super) waker: Option<Waker>,
}

impl Stream {
    pub(super) fn finish(&mut self, r: Result<(), RpcError>) {
        if self.outcome.is_none() {
            self.outcome = Some(r);
        }
        self.wake();
    }

    pub(super) fn wake(&mut self) {
        if let Some(w) = self.waker.take() {
            w.wake();
        }
    }
}

pub(super) struct State {
    pub(super) authority: String,
    pub(super) scheme: &'static str,
    pub(super) out: Vec<u8>,
    pub(super) out_pos: usize,
    pub(super) driver: Option<Waker>,
    pub(super) kicked: bool,
    pub(super) streams: IdMap<Stream>,
    pub(super) next_id: u32,
    pub(super) encoder: hpack::Encoder,
    pub(super) decoder: hpack::Decoder,
    /// A header block under way: stream, END_STREAM, bytes so far.
    pub(super) block: Option<(u32, bool, Vec<u8>)>,
    pub(super) send_window: i64,
    pub(super) unacked: u32,
    pub(super) peer_window: i64,
    pub(super) peer_frame: usize,
    pub(super) peer_streams: usize,
    pub(super) slot_waiters: VecDeque<Waker>,
    pub(super) blocked: VecDeque<u32>,
    /// Set by GOAWAY: calls under way may finish, new ones may not start.
    pub(super) draining: Option<RpcError>,
    pub(super) closed: Option<RpcError>,
}

pub(super) fn frame_header(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, id: u32) {
    let n = (len as u32).to_be_bytes();
    out.extend_from_slice(&[n[1], n[2], n[3], kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
}

pub(super) fn be32(b: &[u8]) -> u32 {
    u32::from_be_bytes([b[0], b[1], b[2], b[3]])
}

impl State {
    fn kick(&mut self) {
        if !self.kicked {
            self.kicked = true;
            if let Some(w) = &self.driver {
                w.wake_by_ref();
            }
        }
    }

    pub(super) fn close(&mut self, e: &RpcError) {
        if self.closed.is_none() {
            self.closed = Some(e.clone());
        }
        for s in self.streams.values_mut() {
            s.finish(Err(e.clone()));
        }
        self.slot_waiters.drain(..).for_each(Waker::wake);
        if let Some(w) = &self.driver {
            w.wake_by_ref();
        }
    }

    pub(super) fn open(&mut self, method: Method, unary: bool) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 9]);
        let fields = [
            (":method", "POST"),
            (":scheme", self.scheme),
            (":path", method.path()),
            (":authority", &self.authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", concat!("loadgen/", env!("CARGO_PKG_VERSION"))),
        ];
        self.encoder.encode(&fields, &mut self.out);
        let n = (self.out.len() - at - 9) as u32;
        self.out[at..at + 3].copy_from_slice(&n.to_be_bytes()[1..]);
        self.out[at + 3] = HEADERS;
        self.out[at + 4] = END_HEADERS;
        self.out[at + 5..at + 9].copy_from_slice(&id.to_be_bytes());
        self.streams.insert(
            id,
            Stream {
                started: Instant::now(),
                unary,
                body: Vec::new(),
                pending: VecDeque::new(),
                finish_after_pending: false,
                sent_end: false,
                send_window: self.peer_window,
                unacked: 0,
                http_ok: false,
                status: None,
                message: String::new(),
                outcome: None,
                waker: None,
            },
        );
        self.kick();
        id
    }

    pub(super) fn send(&mut self, id: u32, msg: &impl Message, end: bool) {
        let Some(s) = self.streams.get_mut(&id) else { return };
        let body = msg.encoded_len();
        let len = body + 5;
        let fits = s.pending.is_empty()
            && len <= self.peer_frame
            && len as i64 <= s.send_window.min(self.send_window);
        if fits {
            s.send_window -= len as i64;
            self.send_window -= len as i64;
            s.sent_end |= end;
            let flags = if end { END_STREAM } else { 0 };
            frame_header(&mut self.out, len, DATA, flags, id);
            self.out.push(0);
            self.out.extend_from_slice(&(body as u32).to_be_bytes());
            msg.encode(&mut self.out).expect("a Vec has room");
        } else {
            if s.pending.is_empty() {
                self.blocked.push_back(id);
            }
            s.pending.push_back(0);
            s.pending.extend((body as u32).to_be_bytes());
            s.pending.extend(msg.encode_to_vec());
            s.finish_after_pending = end;
            self.pump();
        }
        self.kick();
    }

    /// Sends what flow control now allows of the requests it held back.
    fn pump(&mut self) {
        for _ in 0..self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else { break };
            let Some(s) = self.streams.get_mut(&id) else { continue };
            while !s.pending.is_empty() {
                let allowed = s.send_window.min(self.send_window).max(0) as usize;
                let n = s.pending.len().min(self.peer_frame).min(allowed);
                if n == 0 {
                    break;
                }
                s.send_window -= n as i64;
                self.send_window -= n as i64;
                let last = n == s.pending.len() && s.finish_after_pending;
                s.sent_end |= last;
                frame_header(&mut self.out, n, DATA, if last { END_STREAM } else { 0 }, id);
                self.out.extend(s.pending.drain(..n));
            }
            if !s.pending.is_empty() {
                self.blocked.push_back(id);
            }
        }
        if self.out.len() > self.out_pos {
            self.kick();
        }
    }

    pub(super) fn forget(&mut self, id: u32) {
        let Some(s) = self.streams.remove(&id) else { return };
        if s.outcome.is_none() || !s.sent_end {
            frame_header(&mut self.out, 4, RST_STREAM, 0, id);
            self.out.extend_from_slice(&8u32.to_be_bytes());
            self.kick();
        }
        if let Some(w) = self.slot_waiters.pop_front() {
            w.wake();
        }
    }

    /// Takes whole frames off the front of `b`; returns how many bytes.
    pub(super) fn frames(&mut self, b: &[u8]) -> Result<usize, &'static str> {
        let mut at = 0;
        while b.len() - at >= 9 {
            let h = &b[at..at + 9];
            let len = (h[0] as usize) << 16 | (h[1] as usize) << 8 | h[2] as usize;
            if len > 16384 {
                return Err("frame larger than SETTINGS_MAX_FRAME_SIZE");
            }
            if b.len() - at < 9 + len {
                break;
            }
            let (kind, flags, id) = (h[3], h[4], be32(&h[5..]) & 0x7fff_ffff);
            self.frame(kind, flags, id, &b[at + 9..at + 9 + len])?;
            at += 9 + len;
        }
        Ok(at)
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, mut p: &[u8]) -> Result<(), &'static str> {
        if self.block.is_some() && kind != CONTINUATION {
            return Err("header block interrupted");
        }
        let whole = p.len() as u32;
        if matches!(kind, DATA | HEADERS) && flags & PADDED != 0 {
            let (&pad, rest) = p.split_first().ok_or("padding missing")?;
            p = rest.get(..rest.len().wrapping_sub(pad as usize)).ok_or("padding too long")?;
        }
        match kind {
            DATA => self.data(flags & END_STREAM != 0, id, p, whole),
            HEADERS | CONTINUATION => self.header_piece(kind, flags, id, p)?,
            RST_STREAM => {
                let code = p.get(..4).map(be32).ok_or("short RST_STREAM")?;
                if let Some(s) = self.streams.get_mut(&id) {
                    let code_of = if code == 7 { UNAVAILABLE } else { INTERNAL };
                    s.finish(Err(RpcError::new(code_of, format!("RST_STREAM code {code}"))));
                }
            }
            SETTINGS if flags & ACK == 0 => {
                for s in p.chunks_exact(6) {
                    self.setting(u16::from_be_bytes([s[0], s[1]]), be32(&s[2..]));
                }
                frame_header(&mut self.out, 0, SETTINGS, ACK, 0);
                self.pump();
                self.kick();
            }
            PUSH_PROMISE => return Err("PUSH_PROMISE"),
            PING if flags & ACK == 0 => {
                frame_header(&mut self.out, p.len(), PING, ACK, 0);
                self.out.extend_from_slice(p);
                self.kick();
            }
            GOAWAY => {
                let code = p.get(4..8).map(be32).ok_or("short GOAWAY")?;
                let debug = String::from_utf8_lossy(&p[8..]);
                let e = RpcError::new(UNAVAILABLE, format!("GOAWAY code {code} {debug}"));
                if code != 0 {
                    self.close(&e);
                }
                self.draining = Some(e);
                self.slot_waiters.drain(..).for_each(Waker::wake);
            }
            WINDOW_UPDATE => self.window(id, p.get(..4).map(be32).ok_or("short WINDOW_UPDATE")?),
            // Acknowledgements, and kinds that a client may ignore.
            _ => {}
        }
        Ok(())
    }

    /// `whole` counts padding too: flow control does.
    fn data(&mut self, end: bool, id: u32, p: &[u8], whole: u32) {
        self.unacked += whole;
        if self.unacked > CONN_WINDOW / 2 {
            frame_header(&mut self.out, 4, WINDOW_UPDATE, 0, 0);
            self.out.extend_from_slice(&self.unacked.to_be_bytes());
            self.unacked = 0;
        }
        let Some(s) = self.streams.get_mut(&id) else { return };
        s.body.extend_from_slice(p);
        s.unacked += whole;
        if end {
            s.finish(Err(RpcError::new(INTERNAL, "stream ended without trailers")));
            return;
        }
        if s.unacked > STREAM_WINDOW / 2 {
            frame_header(&mut self.out, 4, WINDOW_UPDATE, 0, id);
            self.out.extend_from_slice(&s.unacked.to_be_bytes());
            s.unacked = 0;
        }
        if !s.unary {
            s.wake();
        }
    }

    fn header_piece(&mut self, kind: u8, flags: u8, id: u32, mut p: &[u8]) -> Result<(), &'static str> {
        let (end, block) = if kind == CONTINUATION {
            let (of, end, mut block) = self.block.take().ok_or("stray CONTINUATION")?;
            if of != id {
                return Err("CONTINUATION on another stream");
            }
            block.extend_from_slice(p);
            (end, block)
        } else {
            if flags & PRIORITY != 0 {
                p = p.get(5..).ok_or("short HEADERS")?;
            }
            let end = flags & END_STREAM != 0;
            if flags & END_HEADERS != 0 {
                return self.headers(id, end, p);
            }
            (end, p.to_vec())
        };
        if flags & END_HEADERS != 0 {
            return self.headers(id, end, &block);
        }
        self.block = Some((id, end, block));
        Ok(())
    }

    fn window(&mut self, id: u32, n: u32) {
        if id == 0 {
            self.send_window += i64::from(n);
        } else if let Some(s) = self.streams.get_mut(&id) {
            s.send_window += i64::from(n);
        }
        if !self.blocked.is_empty() {
            self.pump();
        }
    }

    fn setting(&mut self, key: u16, value: u32) {
        match key {
            1 => self.encoder.peer_table_size(value),
            3 => {
                self.peer_streams = value as usize;
                self.slot_waiters.drain(..).for_each(Waker::wake);
            }
            4 => {
                let delta = value as i64 - self.peer_window;
                self.peer_window = value as i64;
                for s in self.streams.values_mut() {
                    s.send_window += delta;
                }
            }
            5 => self.peer_frame = value as usize,
            _ => {}
        }
    }

    fn headers(&mut self, id: u32, end: bool, block: &[u8]) -> Result<(), &'static str> {
        let mut stream = self.streams.get_mut(&id);
        let decoded = self.decoder.decode(block, |name, value| {
            let Some(s) = stream.as_deref_mut() else { return };
            match name {
                ":status" => s.http_ok = value == "200",
                "grpc-status" => s.status = Some(value.parse().unwrap_or(UNKNOWN)),
                "grpc-message" => value.clone_into(&mut s.message),
                _ => {}
            }
        });
        decoded.map_err(|_| "HPACK")?;
        if let Some(s) = stream
            && end
        {
            let r = match s.status {
                Some(0) if s.http_ok => Ok(()),
                Some(code) => Err(RpcError::new(code, &*s.message)),
                None => Err(RpcError::new(UNKNOWN, "no grpc-status")),
            };
            s.finish(r);
        }
        Ok(())
    }
}
