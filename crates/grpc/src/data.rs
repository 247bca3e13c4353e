//! DATA: flow control of what we receive, and gRPC's messages in it.

use crate::connection::Connection;
use crate::error::{Error, Reason};
use crate::frame::{self, Head, be32, flag};
use crate::hpack::name::Name;
use crate::limits::{PARTIAL_MAX_BYTES, PLAIN_BODY_MAX_BYTES, SPARE_STREAM_BYTES};
use crate::message::{self, GunzipError, PREFIX_BYTES, code};
use crate::sink::{PlainRequest, Sink};
use crate::stream::Kind;

impl Connection {
    #[inline]
    pub(crate) fn on_data<S: Sink>(&mut self, head: Head, payload: &[u8], sink: &mut S) -> Result<(), Error> {
        let id = head.stream;
        if id & 1 == 0 || id > self.max_stream {
            return Err(Error::Protocol("DATA on an idle stream"));
        }
        let data = frame::unpad(head, payload).ok_or(Error::Protocol("padding longer than the frame"))?;
        let end = head.has(flag::END_STREAM);
        if data.is_empty() && !end {
            self.replies.abuse.idle_frame(self.replies.now_ms)?;
        }
        self.count_received(payload.len())?;
        let Some(slot) = self.replies.streams.find(id) else { return self.late_data(id) };
        let s = self.replies.streams.at(slot);
        if s.remote_closed {
            return self.stream_error(slot, Reason::StreamClosed, sink);
        }
        s.recv_window -= payload.len() as i64;
        if s.recv_window < 0 {
            return self.stream_error(slot, Reason::FlowControl, sink);
        }
        if s.length_left != u64::MAX {
            match s.length_left.checked_sub(data.len() as u64) {
                Some(left) => s.length_left = left,
                None => return self.stream_error(slot, Reason::Protocol, sink),
            }
        }
        if end {
            // Before the message is handed on, so that a reply given at once closes the stream without RST_STREAM.
            if s.length_left != 0 && s.length_left != u64::MAX {
                return self.stream_error(slot, Reason::Protocol, sink);
            }
            s.remote_closed = true;
        }
        if s.ended {
            // Answered already; only the end of the client's side matters.
        } else if s.plain {
            self.plain_body(slot, data, sink);
        } else {
            self.messages(slot, id, data, sink);
        }
        let Some(slot) = self.replies.streams.find(id) else { return Ok(()) };
        if end {
            self.client_closed(slot, sink);
        } else {
            self.give_stream_window(slot, payload.len());
        }
        Ok(())
    }

    /// The connection's window. It is given back as data is read, not as messages complete, so that many large
    /// messages arriving in turns cannot block each other.
    fn count_received(&mut self, n: usize) -> Result<(), Error> {
        self.recv_window -= n as i64;
        if self.recv_window < 0 {
            return Err(Error::FlowControl("more data than the connection's window"));
        }
        self.recv_unacked += n as u32;
        if self.recv_unacked >= self.settings.connection_window / 2 {
            frame::put_window_update(self.replies.out.buf(), 0, self.recv_unacked);
            self.recv_window += i64::from(self.recv_unacked);
            self.recv_unacked = 0;
        }
        Ok(())
    }

    fn give_stream_window(&mut self, slot: usize, n: usize) {
        let s = self.replies.streams.at(slot);
        s.recv_unacked += n as u32;
        if s.recv_unacked >= self.settings.stream_window / 2 {
            let (id, more) = (s.id, std::mem::take(&mut s.recv_unacked));
            s.recv_window += i64::from(more);
            frame::put_window_update(self.replies.out.buf(), id, more);
        }
    }

    fn late_data(&mut self, id: u32) -> Result<(), Error> {
        if self.replies.was_reset(id) {
            return Ok(());
        }
        self.replies.reset_id(id, Reason::StreamClosed);
        self.replies.abuse.reset(self.replies.now_ms)
    }

    /// What follows the client's END_STREAM, in whichever frame it came.
    pub(crate) fn client_closed<S: Sink>(&mut self, slot: usize, sink: &mut S) {
        let s = self.replies.streams.at(slot);
        let id = s.id;
        if s.ended {
            self.replies.remove(slot);
        } else if s.plain {
            self.plain_complete(slot, sink);
        } else {
            self.end_of_messages(slot, id, sink);
        }
    }

    /// Cuts messages out of a gRPC stream. A message that is whole in `data` is handed on from there.
    fn messages<S: Sink>(&mut self, slot: usize, id: u32, mut data: &[u8], sink: &mut S) {
        while !data.is_empty() {
            let s = self.replies.streams.at(slot);
            if s.id != id || !s.is_answerable() {
                return;
            }
            if s.body.is_empty() && data.len() >= PREFIX_BYTES {
                let len = be32(&data[1..]) as usize;
                if let Some(message) = data.get(PREFIX_BYTES..PREFIX_BYTES.saturating_add(len)) {
                    let packed = data[0];
                    data = &data[PREFIX_BYTES + len..];
                    self.message(slot, id, packed, message, sink);
                    continue;
                }
            }
            match self.collect(slot, data) {
                Collected::All => return,
                Collected::TooLarge(len) => {
                    let max = self.settings.max_message_bytes;
                    let text = format!("grpc: received message larger than max ({len} vs. {max})");
                    return self.fail_call(slot, code::RESOURCE_EXHAUSTED, &text, sink);
                }
                Collected::NoRoom => {
                    let text = "grpc: too many bytes of incomplete messages on this connection";
                    return self.fail_call(slot, code::RESOURCE_EXHAUSTED, text, sink);
                }
                Collected::Message(rest) => {
                    data = rest;
                    let body = std::mem::take(&mut self.replies.streams.at(slot).body);
                    self.replies.streams.partial -= body.len();
                    self.message(slot, id, body[0], &body[PREFIX_BYTES..], sink);
                    self.keep_body(slot, id, body);
                }
            }
        }
    }

    fn keep_body(&mut self, slot: usize, id: u32, mut body: Vec<u8>) {
        let s = self.replies.streams.at(slot);
        if s.id == id && body.capacity() <= SPARE_STREAM_BYTES {
            body.clear();
            s.body = body;
        }
    }

    /// Moves bytes into the stream's incomplete message.
    fn collect<'a>(&mut self, slot: usize, data: &'a [u8]) -> Collected<'a> {
        let max = self.settings.max_message_bytes;
        let streams = &mut self.replies.streams;
        let full = streams.partial + data.len() > PARTIAL_MAX_BYTES;
        let s = streams.at(slot);
        let before = s.body.len();
        let prefix = PREFIX_BYTES.saturating_sub(before).min(data.len());
        s.body.extend_from_slice(&data[..prefix]);
        let mut rest = &data[prefix..];
        if s.body.len() >= PREFIX_BYTES {
            let len = be32(&s.body[1..]) as usize;
            if len > max {
                let n = s.body.len() - before;
                streams.partial += n;
                return Collected::TooLarge(len);
            }
            let (part, after) = rest.split_at((PREFIX_BYTES + len - s.body.len()).min(rest.len()));
            if full {
                let n = s.body.len() - before;
                streams.partial += n;
                return Collected::NoRoom;
            }
            s.body.extend_from_slice(part);
            rest = after;
            if s.body.len() == PREFIX_BYTES + len {
                let n = s.body.len() - before;
                streams.partial += n;
                return Collected::Message(rest);
            }
        }
        let n = s.body.len() - before;
        streams.partial += n;
        Collected::All
    }

    /// One whole message.
    #[inline]
    fn message<S: Sink>(&mut self, slot: usize, id: u32, packed: u8, message: &[u8], sink: &mut S) {
        let max = self.settings.max_message_bytes;
        if message.len() > max {
            let text = format!("grpc: received message larger than max ({} vs. {max})", message.len());
            return self.fail_call(slot, code::RESOURCE_EXHAUSTED, &text, sink);
        }
        if packed == 0 {
            return self.deliver(slot, id, message, sink);
        }
        let gzip = self.replies.streams.at(slot).gzip;
        match packed {
            1 if gzip => match message::gunzip(message, max) {
                Ok(message) => self.deliver(slot, id, &message, sink),
                Err(GunzipError::TooLarge) => {
                    let text = format!("grpc: received message after decompression larger than max {max}");
                    self.fail_call(slot, code::RESOURCE_EXHAUSTED, &text, sink);
                }
                Err(GunzipError::Broken(text)) => {
                    self.fail_call(slot, code::INTERNAL, &text, sink);
                }
            },
            1 => {
                let text = "grpc: compressed flag set with identity or empty encoding";
                self.fail_call(slot, code::INTERNAL, text, sink);
            }
            _ => {
                let text = format!("grpc: received unexpected payload format {packed}");
                self.fail_call(slot, code::INTERNAL, &text, sink);
            }
        }
    }

    #[inline]
    fn deliver<S: Sink>(&mut self, slot: usize, id: u32, message: &[u8], sink: &mut S) {
        let s = self.replies.streams.at(slot);
        let method = s.method;
        if !s.kind.one_request() {
            return sink.on_message(&mut self.replies, id, method, message);
        }
        if s.surfaced && s.kind == Kind::Unary {
            // grpc-go has stopped reading by now.
            return;
        }
        if s.surfaced {
            let text =
                "cardinality violation: received multiple request messages for non-client-streaming RPC";
            return self.fail_call(slot, code::INTERNAL, text, sink);
        }
        s.surfaced = true;
        let meta = std::mem::take(&mut s.meta);
        sink.on_unary(&mut self.replies, id, method, &meta, message);
        // The buffers go back to the slot, whoever has it now.
        let s = self.replies.streams.at(slot);
        s.meta = meta;
        s.meta.clear();
    }

    /// The client's side of a gRPC stream is complete.
    pub(crate) fn end_of_messages<S: Sink>(&mut self, slot: usize, id: u32, sink: &mut S) {
        let s = self.replies.streams.at(slot);
        if s.id != id || !s.is_answerable() {
            return;
        }
        // The same event reaches grpc-go's handlers on two ways, with two codes.
        if s.body.len() >= PREFIX_BYTES {
            let code = if s.kind == Kind::Unary { code::UNKNOWN } else { code::INTERNAL };
            return self.fail_call(slot, code, "unexpected EOF", sink);
        }
        if s.kind == Kind::Unary && !s.surfaced {
            return self.fail_call(slot, code::UNKNOWN, "EOF", sink);
        }
        if !s.body.is_empty() && !s.kind.one_request() {
            return self.fail_call(slot, code::INTERNAL, "unexpected EOF", sink);
        }
        if !s.kind.one_request() {
            sink.on_half_close(&mut self.replies, id);
        } else if !s.surfaced {
            let text = "cardinality violation: received no request message from non-client-streaming RPC";
            self.fail_call(slot, code::INTERNAL, text, sink);
        }
    }

    /// Ends a call from the codec's side with a status.
    pub(crate) fn fail_call<S: Sink>(&mut self, slot: usize, code: i32, text: &str, sink: &mut S) {
        let s = self.replies.streams.at(slot);
        let (id, owed) = (s.id, s.surfaced && s.is_answerable());
        if owed {
            let (method, opened_ms) = (s.method, s.opened_ms);
            self.replies.tally.ended(method, code, opened_ms);
        }
        let s = self.replies.streams.at(slot);
        // Not surfaced any more, so that no END_STREAM is waited for.
        s.surfaced = false;
        self.replies.finish(id, code, text);
        if owed {
            sink.on_cancelled(&mut self.replies, id);
        }
    }

    fn plain_body<S: Sink>(&mut self, slot: usize, data: &[u8], sink: &mut S) {
        let streams = &mut self.replies.streams;
        let no_room = streams.partial + data.len() > PARTIAL_MAX_BYTES;
        let s = streams.at(slot);
        if no_room || s.body.len() + data.len() > PLAIN_BODY_MAX_BYTES {
            let id = s.id;
            let owed = s.surfaced;
            self.replies.plain_reply(
                id,
                413,
                &[("content-type", "text/plain")],
                "request body too large\n".into(),
            );
            if owed {
                sink.on_cancelled(&mut self.replies, id);
            }
            return;
        }
        s.body.extend_from_slice(data);
        streams.partial += data.len();
    }

    /// A plain request with its whole body.
    pub(crate) fn plain_complete<S: Sink>(&mut self, slot: usize, sink: &mut S) {
        let s = self.replies.streams.at(slot);
        if !s.is_answerable() {
            return;
        }
        s.surfaced = true;
        let id = s.id;
        let body = std::mem::take(&mut s.body);
        let meta = std::mem::take(&mut s.meta);
        self.replies.streams.partial -= body.len();
        let request = PlainRequest {
            method: meta.known(Name::Method).unwrap_or_default(),
            path: meta.known(Name::Path).unwrap_or_default(),
            headers: &meta,
            body: &body,
        };
        sink.on_plain(&mut self.replies, id, &request);
    }
}

enum Collected<'a> {
    /// Everything was taken, the message is not complete.
    All,
    /// The message is complete; what follows it.
    Message(&'a [u8]),
    TooLarge(usize),
    NoRoom,
}
