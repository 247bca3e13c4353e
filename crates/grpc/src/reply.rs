//! Answers: what a handler may do with a call, and how queued answers take turns.
//!
//! Invariants:
//! - Nothing overtakes within a stream: while its queue is not empty, everything goes through the queue.
//! - Every DATA byte written was taken from both windows first; headers and trailers need no window.
//! - At most `TURN_OUTPUT_BYTES` are moved from queues to the output before the socket takes some of it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::abuse::Abuse;
use crate::error::Reason;
use crate::frame::{self, HEAD_BYTES, flag, kind};
use crate::hpack::encode::{self, Encoder, index};
use crate::limits::{
    CRUMB_BYTES, DIRECT_MAX_BYTES, DRAINED_BYTES, ENDED_MAX, FRAME_MAX_BYTES, OUTPUT_PAUSE_BYTES,
    RESET_MEMORY, TURN_OUTPUT_BYTES,
};
use crate::message::{self, PREFIX_BYTES, code};
use crate::out::OutBuf;
use crate::stream::{Finish, Streams};
use crate::tally::Tally;

/// The answering side of a connection. Handlers get it during `receive`; between calls it is
/// [`Connection::replies`](crate::Connection::replies).
///
/// A call that is not open any more (cancelled, past its deadline, finished) ignores whatever is said about it; the
/// functions return whether it was open.
pub struct Replies {
    pub(crate) out: OutBuf,
    pub(crate) streams: Streams,
    pub(crate) encoder: Encoder,
    pub(crate) abuse: Abuse,
    /// What the client allows us to send on the connection.
    pub(crate) send_window: i64,
    /// HEADERS or DATA went out since the last ping: the keepalive policy starts afresh, as in grpc-go.
    pub(crate) ping_reset: bool,
    pub(crate) now_ms: u64,
    /// Answered calls whose client has not closed its side yet, oldest first.
    ended: VecDeque<u32>,
    /// Streams reset by us lately, in a ring.
    resets: VecDeque<u32>,
    drained: Vec<u32>,
    pub(crate) tally: Tally,
}

impl Replies {
    pub(crate) fn new(now_ms: u64) -> Replies {
        Replies {
            out: OutBuf::default(),
            streams: Streams::default(),
            encoder: Encoder::new(),
            abuse: Abuse::new(now_ms),
            send_window: 65_535,
            ping_reset: false,
            now_ms,
            ended: VecDeque::new(),
            resets: VecDeque::new(),
            drained: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Whether the call still waits for an answer.
    pub fn is_open(&mut self, call: u32) -> bool {
        self.answerable(call).is_some()
    }

    /// Answers a unary call: `encode` appends the message. A message that fits one frame and the windows is encoded
    /// where it is sent from.
    #[inline]
    pub fn reply(&mut self, call: u32, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(slot) = self.answerable(call) else { return false };
        self.write_message(slot, encode);
        self.finish_slot(slot, Finish::Ok);
        true
    }

    /// Answers a unary call with a message that is already encoded; it is not copied if it is large.
    pub fn reply_bytes(&mut self, call: u32, message: Bytes) -> bool {
        self.reply_pieces(call, [message])
    }

    /// Answers a unary call with a message whose encoding is the concatenation of the pieces.
    pub fn reply_pieces(&mut self, call: u32, pieces: impl IntoIterator<Item = Bytes>) -> bool {
        let Some(slot) = self.answerable(call) else { return false };
        self.write_pieces(slot, pieces);
        self.finish_slot(slot, Finish::Ok);
        true
    }

    /// Ends a call with a status; without a message before it, headers and trailers are one frame.
    pub fn reply_status(&mut self, call: u32, code: i32, message: &str) -> bool {
        self.finish(call, code, message)
    }

    /// Sends one message on a stream. Returns how much is queued for it afterwards, 0 for a call that is not open.
    pub fn send(&mut self, call: u32, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        let Some(slot) = self.answerable(call) else { return 0 };
        self.write_message(slot, encode);
        self.streams.at(slot).queue.len()
    }

    /// As [`send`](Replies::send), for a message that is already encoded.
    pub fn send_bytes(&mut self, call: u32, message: Bytes) -> usize {
        self.send_pieces(call, [message])
    }

    /// As [`send`](Replies::send), for a message whose encoding is the concatenation of the pieces.
    pub fn send_pieces(&mut self, call: u32, pieces: impl IntoIterator<Item = Bytes>) -> usize {
        let Some(slot) = self.answerable(call) else { return 0 };
        self.write_pieces(slot, pieces);
        self.streams.at(slot).queue.len()
    }

    /// Sends the response headers of a stream before there is a message for it.
    pub fn send_headers(&mut self, call: u32) -> bool {
        let Some(slot) = self.answerable(call) else { return false };
        self.write_grpc_head(slot);
        true
    }

    /// Ends a call after what is queued for it. Code 0 is success.
    pub fn finish(&mut self, call: u32, code: i32, message: &str) -> bool {
        let Some(slot) = self.answerable(call) else { return false };
        let finish = if code == code::OK { Finish::Ok } else { Finish::Status(code, message.into()) };
        self.finish_slot(slot, finish);
        true
    }

    /// Bytes queued for a stream: given to the codec, not yet allowed by the client or not yet taken by the socket.
    pub fn buffered(&mut self, call: u32) -> usize {
        self.streams.find(call).map_or(0, |slot| self.streams.at(slot).queue.len())
    }

    /// Moves out the streams that have drained to 16 KiB or less since they held more.
    pub fn take_drained(&mut self, into: &mut Vec<u32>) {
        into.append(&mut self.drained);
    }

    /// Whether [`take_drained`](Replies::take_drained) has something.
    pub fn has_drained(&self) -> bool {
        !self.drained.is_empty()
    }

    /// What became of calls since the last look.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Streams open on this connection, those included that only wait for the client to close them.
    pub fn open_calls(&self) -> usize {
        self.streams.open()
    }

    /// Bytes queued on all streams.
    pub fn queued_bytes(&self) -> usize {
        self.streams.queued
    }

    /// Starts the answer to a plain request.
    pub fn plain_head(&mut self, call: u32, status: u16, headers: &[(&str, &str)]) -> bool {
        let Some(slot) = self.answerable(call) else { return false };
        if self.streams.at(slot).headers_sent {
            return false;
        }
        self.streams.at(slot).headers_sent = true;
        let at = self.open_headers(call);
        encode::http_status(self.out.buf(), status);
        for (name, value) in headers {
            encode::literal(self.out.buf(), 0, name.to_ascii_lowercase().as_bytes(), value.as_bytes());
        }
        self.close_headers(at, call, 0);
        true
    }

    /// Sends a part of the body of a plain answer; returns how much is queued.
    pub fn plain_data(&mut self, call: u32, data: Bytes) -> usize {
        let Some(slot) = self.answerable(call) else { return 0 };
        self.streams.queued += data.len();
        self.streams.at(slot).queue.push_shared(data);
        self.queued_more(slot);
        self.streams.at(slot).queue.len()
    }

    /// Ends a plain answer.
    pub fn plain_end(&mut self, call: u32) -> bool {
        let Some(slot) = self.answerable(call) else { return false };
        self.finish_slot(slot, Finish::Plain);
        true
    }

    /// A whole plain answer.
    pub fn plain_reply(&mut self, call: u32, status: u16, headers: &[(&str, &str)], body: Bytes) -> bool {
        if !self.plain_head(call, status, headers) {
            return false;
        }
        if !body.is_empty() {
            self.plain_data(call, body);
        }
        self.plain_end(call)
    }

    /// Breaks a call off with RST_STREAM.
    pub fn reset(&mut self, call: u32, reason: Reason) -> bool {
        let Some(slot) = self.answerable(call) else { return false };
        self.reset_slot(slot, reason);
        true
    }

    // ---- below: the codec's own side

    #[inline]
    fn answerable(&mut self, call: u32) -> Option<usize> {
        let slot = self.streams.find(call)?;
        self.streams.at(slot).is_answerable().then_some(slot)
    }

    /// Whether a frame of any size may go straight into the output.
    fn may_write(&self, n: usize) -> bool {
        self.out.len() < if n <= DIRECT_MAX_BYTES { OUTPUT_PAUSE_BYTES } else { TURN_OUTPUT_BYTES }
    }

    #[inline]
    fn write_message(&mut self, slot: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        self.write_grpc_head(slot);
        let s = self.streams.at(slot);
        if s.gzip || s.queue.len() > 0 || s.send_window <= PREFIX_BYTES as i64 {
            let mut message = Vec::new();
            encode(&mut message);
            let method = s.method;
            self.tally.sent(method, message.len());
            return self.queue_message(slot, message);
        }
        let (id, method, stream_window) = (s.id, s.method, s.send_window);
        let room = stream_window.min(self.send_window).min(FRAME_MAX_BYTES as i64);
        let may_write = self.may_write(0);
        let buf = self.out.buf();
        let at = buf.len();
        frame::put_head(buf, 0, kind::DATA, 0, id);
        buf.extend_from_slice(&[0; PREFIX_BYTES]);
        let start = buf.len();
        encode(buf);
        let n = buf.len() - start;
        self.tally.sent(method, n);
        if (n + PREFIX_BYTES) as i64 <= room && may_write {
            frame::patch_len(buf, at, n + PREFIX_BYTES);
            buf[start - 4..start].copy_from_slice(&(n as u32).to_be_bytes());
            self.send_window -= (n + PREFIX_BYTES) as i64;
            self.streams.at(slot).send_window -= (n + PREFIX_BYTES) as i64;
            self.ping_reset = true;
        } else {
            let message = buf.split_off(start);
            buf.truncate(at);
            self.queue_message(slot, message);
        }
    }

    fn queue_message(&mut self, slot: usize, message: Vec<u8>) {
        let s = self.streams.at(slot);
        // As grpc-go: an empty message is not compressed.
        if s.gzip && !message.is_empty() {
            let packed = message::gzip(&message);
            self.queue_framed(slot, 1, packed.len(), [packed.into()]);
        } else {
            self.queue_framed(slot, 0, message.len(), [message.into()]);
        }
    }

    fn write_pieces(&mut self, slot: usize, pieces: impl IntoIterator<Item = Bytes>) {
        if self.streams.at(slot).gzip {
            return self
                .write_message(slot, |out| pieces.into_iter().for_each(|p| out.extend_from_slice(&p)));
        }
        self.write_grpc_head(slot);
        let pieces: Vec<Bytes> = pieces.into_iter().collect();
        let n = pieces.iter().map(Bytes::len).sum();
        if n <= FRAME_MAX_BYTES - PREFIX_BYTES {
            return self.write_message(slot, |out| pieces.iter().for_each(|p| out.extend_from_slice(p)));
        }
        let method = self.streams.at(slot).method;
        self.tally.sent(method, n);
        self.queue_framed(slot, 0, n, pieces);
    }

    fn queue_framed(&mut self, slot: usize, packed: u8, len: usize, pieces: impl IntoIterator<Item = Bytes>) {
        if len > i32::MAX as usize {
            let text = format!("grpc: trying to send message larger than max ({len} vs. {})", i32::MAX);
            return self.finish_slot(slot, Finish::Status(code::RESOURCE_EXHAUSTED, text.into()));
        }
        let s = self.streams.at(slot);
        let mut prefix = [packed, 0, 0, 0, 0];
        prefix[1..].copy_from_slice(&(len as u32).to_be_bytes());
        s.queue.push_copy(&prefix);
        pieces.into_iter().for_each(|p| s.queue.push_shared(p));
        self.streams.queued += len + PREFIX_BYTES;
        self.queued_more(slot);
    }

    fn queued_more(&mut self, slot: usize) {
        let s = self.streams.at(slot);
        s.was_full |= s.queue.len() > DRAINED_BYTES;
        self.streams.make_ready(slot);
    }

    fn finish_slot(&mut self, slot: usize, finish: Finish) {
        let s = self.streams.at(slot);
        // A reply that turned out too large has finished the stream already.
        if s.finish.is_some() || s.ended {
            return;
        }
        let idle = s.queue.len() == 0;
        let code = match &finish {
            Finish::Ok => Some(code::OK),
            Finish::Status(code, _) => Some(*code),
            Finish::Plain => None,
        };
        if let Some(code) = code.filter(|_| s.surfaced) {
            self.tally.ended(s.method, code, s.opened_ms);
        }
        s.finish = Some(finish);
        if idle {
            self.write_end(slot);
        } else {
            self.streams.make_ready(slot);
        }
    }

    /// Response headers, once.
    #[inline]
    fn write_grpc_head(&mut self, slot: usize) {
        let s = self.streams.at(slot);
        if s.headers_sent {
            return;
        }
        s.headers_sent = true;
        self.ping_reset = true;
        let id = s.id;
        if self.encoder.is_warm() && !s.gzip && s.subtype.is_none() {
            let n = id.to_be_bytes();
            let head = [0, 0, 2, kind::HEADERS, flag::END_HEADERS, n[0], n[1], n[2], n[3], 0x88, 0xbf];
            return self.out.buf().extend_from_slice(&head);
        }
        let at = self.open_headers(id);
        self.put_grpc_head(slot);
        if self.streams.at(slot).gzip {
            encode::literal(self.out.buf(), 0, b"grpc-encoding", b"gzip");
        }
        self.close_headers(at, id, 0);
    }

    fn put_grpc_head(&mut self, slot: usize) {
        let buf = self.out.buf();
        match &self.streams.at(slot).subtype {
            None => self.encoder.grpc_head(buf),
            Some(subtype) => {
                encode::http_status(buf, 200);
                let mut value = b"application/grpc+".to_vec();
                value.extend_from_slice(subtype);
                encode::literal(buf, index::CONTENT_TYPE, b"", &value);
            }
        }
    }

    /// Trailers, or END_STREAM where there are none, and what closing the stream takes.
    #[inline]
    fn write_end(&mut self, slot: usize) {
        let s = self.streams.at(slot);
        let (id, headers_sent) = (s.id, s.headers_sent);
        let finish = s.finish.take().expect("only called with an end to write");
        match finish {
            Finish::Ok if headers_sent && self.encoder.is_warm() => {
                let n = id.to_be_bytes();
                let flags = flag::END_HEADERS | flag::END_STREAM;
                self.out.buf().extend_from_slice(&[
                    0,
                    0,
                    1,
                    kind::HEADERS,
                    flags,
                    n[0],
                    n[1],
                    n[2],
                    n[3],
                    0xbe,
                ]);
            }
            Finish::Plain => {
                frame::put_head(self.out.buf(), 0, kind::DATA, flag::END_STREAM, id);
            }
            Finish::Ok | Finish::Status(..) => {
                let at = self.open_headers(id);
                if !headers_sent {
                    self.put_grpc_head(slot);
                }
                match &finish {
                    Finish::Status(code, message) => put_status(self.out.buf(), *code, message),
                    _ => self.encoder.status_ok(self.out.buf()),
                }
                self.close_headers(at, id, flag::END_STREAM);
            }
        }
        self.ping_reset = true;
        self.sent_end(slot);
    }

    fn sent_end(&mut self, slot: usize) {
        let s = self.streams.at(slot);
        s.finish = None;
        s.headers_sent = true;
        let id = s.id;
        if s.remote_closed {
            self.streams.remove(slot);
        } else if s.kind.one_request() && s.surfaced && !s.plain {
            // The message was whole; END_STREAM is usually in the very next frame and needs no RST_STREAM.
            s.ended = true;
            s.deadline_ms = u64::MAX;
            self.ended.push_back(id);
            if self.ended.len() > ENDED_MAX {
                self.reset_oldest_ended();
            }
        } else {
            self.reset_slot(slot, Reason::NoError);
        }
    }

    fn reset_oldest_ended(&mut self) {
        while let Some(id) = self.ended.pop_front() {
            if let Some(slot) = self.streams.find(id) {
                self.reset_slot(slot, Reason::NoError);
                return;
            }
        }
    }

    /// Forgets a stream that the client has closed too.
    pub(crate) fn remove(&mut self, slot: usize) {
        if self.streams.at(slot).ended {
            let id = self.streams.at(slot).id;
            // Nearly always the newest.
            if let Some(i) = self.ended.iter().rposition(|e| *e == id) {
                self.ended.remove(i);
            }
        }
        self.streams.remove(slot);
    }

    /// RST_STREAM for an open stream.
    pub(crate) fn reset_slot(&mut self, slot: usize, reason: Reason) {
        let id = self.streams.at(slot).id;
        self.remove(slot);
        self.reset_id(id, reason);
    }

    /// RST_STREAM for a stream that is not in the table.
    pub(crate) fn reset_id(&mut self, id: u32, reason: Reason) {
        frame::put_rst(self.out.buf(), id, reason);
        if self.resets.len() == RESET_MEMORY {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
    }

    /// Open streams without those that are answered and only wait for the client to close them.
    pub(crate) fn active(&self) -> usize {
        self.streams.open() - self.ended.len()
    }

    pub(crate) fn was_reset(&self, id: u32) -> bool {
        self.resets.contains(&id)
    }

    /// The client has closed the stream too: nothing of it can be on the way any more.
    pub(crate) fn forget_reset(&mut self, id: u32) {
        self.resets.retain(|r| *r != id);
    }

    /// An answer to a request that never became a call: headers with everything, as grpc-go's early abort.
    pub(crate) fn abort(&mut self, id: u32, http: u16, code: i32, message: &str, client_done: bool) {
        let at = self.open_headers(id);
        let buf = self.out.buf();
        if http == 200 {
            self.encoder.grpc_head(buf);
        } else {
            encode::http_status(buf, http);
            encode::literal(buf, index::CONTENT_TYPE, b"", b"application/grpc");
        }
        put_status(self.out.buf(), code, message);
        self.close_headers(at, id, flag::END_STREAM);
        self.ping_reset = true;
        if !client_done {
            self.reset_id(id, Reason::NoError);
        }
    }

    fn open_headers(&mut self, id: u32) -> usize {
        let buf = self.out.buf();
        let at = buf.len();
        frame::put_head(buf, 0, kind::HEADERS, flag::END_HEADERS, id);
        self.encoder.begin(buf);
        at
    }

    /// Sets the length of a header block, and cuts it into CONTINUATION frames if it needs that.
    fn close_headers(&mut self, at: usize, id: u32, flags: u8) {
        let buf = self.out.buf();
        let len = buf.len() - at - HEAD_BYTES;
        if len <= FRAME_MAX_BYTES {
            frame::patch_len(buf, at, len);
            buf[at + 4] |= flags;
            return;
        }
        let block = buf.split_off(at + HEAD_BYTES);
        buf.truncate(at);
        let last = block.len().div_ceil(FRAME_MAX_BYTES) - 1;
        for (i, part) in block.chunks(FRAME_MAX_BYTES).enumerate() {
            let kind = if i == 0 { kind::HEADERS } else { kind::CONTINUATION };
            let end = if i == last { flag::END_HEADERS } else { 0 };
            frame::put_head(buf, part.len(), kind, end | if i == 0 { flags } else { 0 }, id);
            buf.extend_from_slice(part);
        }
    }

    /// Moves queued data into the output, a frame per stream and round, as far as windows and the turn's share allow.
    pub(crate) fn pump(&mut self) {
        while self.out.len() < TURN_OUTPUT_BYTES {
            let Some(slot) = self.streams.next_ready() else { return };
            let s = self.streams.at(slot);
            let (id, queued) = (s.id, s.queue.len());
            let n = (queued.min(FRAME_MAX_BYTES) as i64).min(s.send_window).min(self.send_window) as usize;
            if queued > 0 && self.send_window <= 0 {
                // Keeps its place for when the connection's window opens.
                s.in_ready = true;
                self.streams.ready.push_front((slot as u32, id));
                return;
            }
            if n > 0 {
                let ends = n == queued && matches!(s.finish, Some(Finish::Plain));
                let flags = if ends { flag::END_STREAM } else { 0 };
                frame::put_head(self.out.buf(), n, kind::DATA, flags, id);
                s.queue.take(n, &mut self.out);
                s.send_window -= n as i64;
                self.send_window -= n as i64;
                self.streams.queued -= n;
                self.ping_reset = true;
                if n < CRUMB_BYTES && n < queued {
                    self.abuse.crumb(self.now_ms);
                }
                self.note_drained(slot);
                if ends {
                    self.sent_end(slot);
                    continue;
                }
            }
            let s = self.streams.at(slot);
            if s.queue.len() == 0 && s.finish.is_some() {
                self.write_end(slot);
            } else {
                self.streams.make_ready(slot);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        self.out.footprint()
            + self.streams.footprint()
            + (self.ended.capacity() + self.resets.capacity() + self.drained.capacity()) * 4
    }

    fn note_drained(&mut self, slot: usize) {
        let s = self.streams.at(slot);
        if s.was_full && s.queue.len() <= DRAINED_BYTES {
            s.was_full = false;
            if s.finish.is_none() {
                self.drained.push(s.id);
            }
        }
    }
}

/// `grpc-status` and `grpc-message`.
fn put_status(buf: &mut Vec<u8>, code: i32, message: &str) {
    encode::literal(buf, 0, b"grpc-status", code.to_string().as_bytes());
    if !message.is_empty() {
        let mut text = Vec::with_capacity(message.len());
        message::percent_encode(&mut text, message);
        encode::literal(buf, 0, b"grpc-message", &text);
    }
}
