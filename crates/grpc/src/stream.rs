//! The open streams of a connection, and what waits to be sent on each.
//!
//! Invariants of [`Streams`]:
//! - `index` holds exactly the streams in use; `slots[index[id]].id == id`. A slot in `free` has id 0.
//! - `queued` is the sum of the streams' queue lengths, `partial` that of their incomplete messages.
//! - A stream with something to send that its window allows is in `ready`; an entry of `ready` whose slot has
//!   another id by now is stale and skipped.

use std::collections::VecDeque;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::limits::{SPARE_STREAM_BYTES, SPARE_STREAMS_MAX};
use crate::metadata::Metadata;
use crate::out::OutBuf;

/// How a method exchanges messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One message each way.
    Unary,
    /// One request, a stream of replies.
    ServerStream,
    /// A stream of requests, one reply.
    ClientStream,
    /// Streams both ways.
    BidiStream,
}

impl Kind {
    /// Whether the client sends exactly one message.
    pub(crate) fn one_request(self) -> bool {
        matches!(self, Kind::Unary | Kind::ServerStream)
    }
}

/// How a stream ends once its queue is empty.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Trailers with status 0.
    Ok,
    /// Trailers with another status.
    Status(i32, Box<str>),
    /// END_STREAM on the last DATA frame.
    Plain,
}

/// A part of a stream's queue.
#[derive(Debug)]
enum Piece {
    /// Copied bytes; the number says how many have been sent.
    Own(Vec<u8>, usize),
    Shared(Bytes),
}

/// Bytes of DATA frames not yet cut into frames.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

impl SendQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push_copy(&mut self, data: &[u8]) {
        self.bytes += data.len();
        match self.pieces.back_mut() {
            Some(Piece::Own(v, _)) if v.len() + data.len() <= 64 * 1024 => v.extend_from_slice(data),
            _ => self.pieces.push_back(Piece::Own(data.to_vec(), 0)),
        }
    }

    pub(crate) fn push_shared(&mut self, data: Bytes) {
        if data.len() < SPARE_STREAM_BYTES {
            self.push_copy(&data);
        } else {
            self.bytes += data.len();
            self.pieces.push_back(Piece::Shared(data));
        }
    }

    /// Moves the first `n` bytes to the output.
    pub(crate) fn take(&mut self, mut n: usize, out: &mut OutBuf) {
        self.bytes -= n;
        while n > 0 {
            match self.pieces.front_mut().expect("length was checked") {
                Piece::Own(v, sent) => {
                    let step = n.min(v.len() - *sent);
                    out.buf().extend_from_slice(&v[*sent..*sent + step]);
                    *sent += step;
                    n -= step;
                    if *sent == v.len() {
                        self.pieces.pop_front();
                    }
                }
                Piece::Shared(b) => {
                    let step = n.min(b.len());
                    out.push(b.split_to(step));
                    n -= step;
                    if b.is_empty() {
                        self.pieces.pop_front();
                    }
                }
            }
        }
    }

    fn clear(&mut self) {
        self.bytes = 0;
        self.pieces = VecDeque::new();
    }
}

/// One open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) method: u16,
    pub(crate) kind: Kind,
    /// A request that is not gRPC.
    pub(crate) plain: bool,
    /// The handler knows of this call.
    pub(crate) surfaced: bool,
    /// The client has sent END_STREAM.
    pub(crate) remote_closed: bool,
    /// Response headers are out.
    pub(crate) headers_sent: bool,
    /// We have sent END_STREAM and only wait for the client's.
    pub(crate) ended: bool,
    pub(crate) in_ready: bool,
    /// More than `DRAINED_BYTES` were queued; report when they are not any more.
    pub(crate) was_full: bool,
    pub(crate) gzip: bool,
    pub(crate) send_window: i64,
    pub(crate) recv_window: i64,
    pub(crate) recv_unacked: u32,
    pub(crate) opened_ms: u64,
    /// `u64::MAX` without a deadline.
    pub(crate) deadline_ms: u64,
    /// What `content-length` still promises; `u64::MAX` without one.
    pub(crate) length_left: u64,
    /// A message, or a plain body, that is not complete yet.
    pub(crate) body: Vec<u8>,
    pub(crate) meta: Metadata,
    pub(crate) subtype: Option<Box<[u8]>>,
    pub(crate) queue: SendQueue,
    pub(crate) finish: Option<Finish>,
}

impl Stream {
    fn vacant() -> Stream {
        Stream {
            id: 0,
            method: 0,
            kind: Kind::Unary,
            plain: false,
            surfaced: false,
            remote_closed: false,
            headers_sent: false,
            ended: false,
            in_ready: false,
            was_full: false,
            gzip: false,
            send_window: 0,
            recv_window: 0,
            recv_unacked: 0,
            opened_ms: 0,
            deadline_ms: u64::MAX,
            length_left: u64::MAX,
            body: Vec::new(),
            meta: Metadata::default(),
            subtype: None,
            queue: SendQueue::default(),
            finish: None,
        }
    }

    #[cfg(test)]
    fn pieces_len(&self) -> usize {
        let len = |p: &Piece| match p {
            Piece::Own(v, sent) => v.len() - sent,
            Piece::Shared(b) => b.len(),
        };
        self.queue.pieces.iter().map(len).sum()
    }

    /// Whether the handler may still say something on this stream.
    pub(crate) fn is_answerable(&self) -> bool {
        !self.ended && self.finish.is_none()
    }

    /// Whether the next frame of this stream can be written as far as its own window goes.
    pub(crate) fn can_send(&self) -> bool {
        if self.queue.bytes > 0 { self.send_window > 0 } else { self.finish.is_some() && !self.ended }
    }
}

#[derive(Default)]
pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    index: HashMap<u32, u32, FixedState>,
    /// The stream looked up last: HEADERS and DATA of one call usually follow each other.
    last: (u32, u32),
    pub(crate) ready: VecDeque<(u32, u32)>,
    pub(crate) queued: usize,
    pub(crate) partial: usize,
}

impl Streams {
    /// The slot of an open stream.
    #[inline]
    pub(crate) fn find(&mut self, id: u32) -> Option<usize> {
        if self.last.0 == id && id != 0 {
            return Some(self.last.1 as usize);
        }
        let slot = *self.index.get(&id)?;
        self.last = (id, slot);
        Some(slot as usize)
    }

    #[inline]
    pub(crate) fn at(&mut self, slot: usize) -> &mut Stream {
        &mut self.slots[slot]
    }

    pub(crate) fn open(&self) -> usize {
        self.index.len()
    }

    /// A slot for a new stream, everything but the id as in a vacant one.
    pub(crate) fn insert(&mut self, id: u32) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Stream::vacant());
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize].id = id;
        self.index.insert(id, slot);
        self.last = (id, slot);
        slot as usize
    }

    pub(crate) fn remove(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        self.index.remove(&s.id);
        if self.last.0 == s.id {
            self.last = (0, 0);
        }
        self.queued -= s.queue.bytes;
        self.partial -= s.body.len();
        let left_in_line = s.in_ready;
        s.id = 0;
        s.plain = false;
        s.surfaced = false;
        s.remote_closed = false;
        s.headers_sent = false;
        s.ended = false;
        s.in_ready = false;
        s.was_full = false;
        s.gzip = false;
        s.recv_unacked = 0;
        s.deadline_ms = u64::MAX;
        s.length_left = u64::MAX;
        s.meta.clear();
        s.body.clear();
        if s.body.capacity() > SPARE_STREAM_BYTES {
            s.body = Vec::new();
        }
        s.subtype = None;
        s.finish = None;
        if s.queue.bytes > 0 || s.queue.pieces.capacity() > 0 {
            s.queue.clear();
        }
        self.free.push(slot as u32);
        // Stale entries leave when their turn comes; without a turn (no window) they must not pile up.
        if left_in_line && self.ready.len() > 2 * self.index.len() + 64 {
            let slots = &self.slots;
            self.ready.retain(|(slot, id)| slots[*slot as usize].id == *id);
        }
    }

    /// Puts a stream in line if it has something to send.
    pub(crate) fn make_ready(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        if !s.in_ready && s.can_send() {
            s.in_ready = true;
            self.ready.push_back((slot as u32, s.id));
        }
    }

    /// The next stream in line that still wants to send.
    pub(crate) fn next_ready(&mut self) -> Option<usize> {
        while let Some((slot, id)) = self.ready.pop_front() {
            let s = &mut self.slots[slot as usize];
            if s.id == id {
                s.in_ready = false;
                if s.can_send() {
                    return Some(slot as usize);
                }
            }
        }
        None
    }

    /// Slots of all open streams.
    pub(crate) fn open_slots(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().enumerate().filter(|(_, s)| s.id != 0).map(|(i, _)| i)
    }

    /// The invariants at the head of this file.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.queued, self.slots.iter().map(|s| s.queue.bytes).sum::<usize>());
        assert_eq!(self.partial, self.slots.iter().map(|s| s.body.len()).sum::<usize>());
        for (id, slot) in &self.index {
            assert_eq!(self.slots[*slot as usize].id, *id);
        }
        assert_eq!(self.slots.iter().filter(|s| s.id != 0).count(), self.index.len());
        assert_eq!(self.index.len() + self.free.len(), self.slots.len());
        for (i, s) in self.slots.iter().enumerate().filter(|(_, s)| s.id != 0) {
            let sent = s.pieces_len();
            assert_eq!(sent, s.queue.bytes);
            let in_line = self.ready.contains(&(i as u32, s.id));
            assert!(in_line || !s.can_send(), "stream {} is not in line", s.id);
        }
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        let of_streams: usize =
            self.slots.iter().map(|s| s.body.capacity() + s.meta.footprint() + s.queue.bytes).sum();
        self.slots.capacity() * size_of::<Stream>()
            + of_streams
            + (self.free.capacity() + 2 * self.ready.capacity()) * 4
            + self.index.capacity() * 9
    }

    /// Gives memory of a burst back once no stream is open.
    pub(crate) fn trim(&mut self) {
        if self.index.is_empty() && self.slots.len() > SPARE_STREAMS_MAX {
            let ready = std::mem::take(&mut self.ready);
            assert!(ready.iter().all(|(slot, id)| self.slots[*slot as usize].id != *id || *id == 0));
            *self = Streams::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_stale_entries_skipped() {
        let mut s = Streams::default();
        let a = s.insert(1);
        s.at(a).finish = Some(Finish::Ok);
        s.make_ready(a);
        s.remove(a);
        let b = s.insert(3);
        assert_eq!(a, b);
        assert_eq!((s.find(1), s.find(3)), (None, Some(b)));
        assert_eq!(s.next_ready(), None);
        s.at(b).finish = Some(Finish::Ok);
        s.make_ready(b);
        s.make_ready(b);
        assert_eq!(s.next_ready(), Some(b));
        assert_eq!(s.next_ready(), None);
        assert_eq!(s.open(), 1);
    }

    #[test]
    fn queue_keeps_order_over_copied_and_shared_pieces() {
        let mut q = SendQueue::default();
        let mut all = Vec::new();
        for i in 0..40u8 {
            let piece = vec![i; usize::from(i) * 400];
            all.extend_from_slice(&piece);
            q.push_shared(piece.into());
        }
        let mut out = OutBuf::default();
        let mut left = q.len();
        while left > 0 {
            let n = left.min(5000);
            q.take(n, &mut out);
            left -= n;
            assert_eq!(q.len(), left);
        }
        assert_eq!(out.take_all(), all);
    }
}
