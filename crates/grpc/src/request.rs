//! HEADERS and CONTINUATION: from a header block to a call, or to its refusal.

use crate::connection::{Connection, OpenBlock, Plain};
use crate::error::{Error, Reason};
use crate::frame::{self, Head, flag};
use crate::head::{self, Encoding, RequestHead};
use crate::hpack::name::Name;
use crate::limits::{HEADER_BLOCK_MAX_BYTES, HEADER_LIST_MAX_BYTES, OPEN_STREAMS_MAX, QUEUED_MAX_BYTES};
use crate::message::{code, go_quote};
use crate::sink::{Method, Sink};
use crate::stream::Kind;

impl Connection {
    #[inline]
    pub(crate) fn on_headers<S: Sink>(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut S,
    ) -> Result<(), Error> {
        if head.stream & 1 == 0 {
            return Err(Error::Protocol("HEADERS on a stream id that is not the client's"));
        }
        let mut block =
            frame::unpad(head, payload).ok_or(Error::Protocol("padding longer than the frame"))?;
        let mut self_dependent = false;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = block.split_at_checked(5).ok_or(Error::FrameSize("HEADERS too short"))?;
            self_dependent = frame::be32(priority) & 0x7fff_ffff == head.stream;
            block = rest;
        }
        let open = OpenBlock { stream: head.stream, end_stream: head.has(flag::END_STREAM), self_dependent };
        if head.has(flag::END_HEADERS) {
            return self.header_block(open, block, sink);
        }
        self.block.clear();
        self.block.extend_from_slice(block);
        self.open_block = Some(open);
        Ok(())
    }

    pub(crate) fn on_continuation<S: Sink>(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut S,
    ) -> Result<(), Error> {
        let open = match self.open_block {
            Some(open) if open.stream == head.stream => open,
            _ => return Err(Error::Protocol("CONTINUATION without its HEADERS")),
        };
        if payload.is_empty() {
            self.replies.abuse.idle_frame(self.replies.now_ms)?;
        }
        if self.block.len() + payload.len() > HEADER_BLOCK_MAX_BYTES {
            return Err(Error::Flood("header block too large"));
        }
        self.block.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        self.open_block = None;
        let block = std::mem::take(&mut self.block);
        self.header_block(open, &block, sink)
    }

    fn header_block<S: Sink>(&mut self, open: OpenBlock, block: &[u8], sink: &mut S) -> Result<(), Error> {
        let id = open.stream;
        if let Some(slot) = self.replies.streams.find(id) {
            return self.trailers(slot, open, block, sink);
        }
        if id <= self.max_stream {
            return self.late_headers(open, block);
        }
        self.max_stream = id;
        let mut head = RequestHead::new();
        let meta = &mut self.meta;
        meta.clear();
        self.decoder
            .decode(block, &mut |mut f| head.field(&mut f, meta, &mut |path| sink.method(path)))
            .map_err(|_| Error::Compression)?;
        head.end();
        self.request(open, &head, sink)
    }

    /// HEADERS on a stream that is over. One that we have reset may still have its trailers on the way.
    fn late_headers(&mut self, open: OpenBlock, block: &[u8]) -> Result<(), Error> {
        let mut pseudo = false;
        // The compression state must be kept even for a block that nobody wants.
        self.decoder
            .decode(block, &mut |f| pseudo |= f.name_bytes.first() == Some(&b':'))
            .map_err(|_| Error::Compression)?;
        if !self.replies.was_reset(open.stream) {
            return Err(Error::StreamClosed("HEADERS on a closed stream"));
        }
        if pseudo || !open.end_stream {
            return Err(Error::Protocol("HEADERS that are no trailers on a closed stream"));
        }
        self.replies.abuse.idle_frame(self.replies.now_ms)
    }

    /// A complete request head on a new stream.
    fn request<S: Sink>(&mut self, open: OpenBlock, head: &RequestHead, sink: &mut S) -> Result<(), Error> {
        let id = open.stream;
        let refused = if head.too_large {
            // grpc-go's choice for a header list over its limit.
            Some(Reason::FrameSize)
        } else if head.malformed || open.self_dependent {
            Some(Reason::Protocol)
        } else if self.is_full() {
            Some(Reason::Refused)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.replies.reset_id(id, reason);
            return self.replies.abuse.reset(self.replies.now_ms);
        }
        let is_plain = match self.settings.plain {
            Plain::Refused => false,
            Plain::Also => !head.is_grpc(),
            Plain::Only => true,
        };
        if is_plain {
            return self.open_plain(open, head, sink);
        }
        let method = match self.check_grpc(head, sink) {
            Ok(method) => method,
            Err((http, code, text)) => {
                self.replies.abort(id, http, code, &text, open.end_stream);
                return Ok(());
            }
        };
        self.open_call(open, head, method, sink)
    }

    /// Whether a new stream must be refused.
    fn is_full(&self) -> bool {
        let max = self.settings.max_concurrent_streams.min(OPEN_STREAMS_MAX) as usize;
        self.timers.is_draining_last()
            || self.replies.open_calls() >= max
            || self.replies.queued_bytes() > QUEUED_MAX_BYTES
    }

    /// The checks of grpc-go's server, in its order and with its texts: HTTP status, gRPC status, message.
    fn check_grpc<S: Sink>(
        &mut self,
        head: &RequestHead,
        sink: &mut S,
    ) -> Result<Method, (u16, i32, String)> {
        if head.authorities > 1 || head.hosts > 1 {
            let (a, h) = (head.authorities, head.hosts);
            let text = format!(
                "num values of :authority: {a}, num values of host: {h}, both must only have 1 value as per HTTP/2 spec"
            );
            return Err((400, code::INTERNAL, text));
        }
        if !head.is_grpc() {
            let value = self.meta.known(Name::ContentType).unwrap_or_default();
            let text = format!("invalid gRPC request content-type {}", go_quote(value));
            return Err((415, code::INVALID_ARGUMENT, text));
        }
        if let Some(Err(text)) = &head.timeout {
            return Err((400, code::INTERNAL, format!("malformed grpc-timeout: {text}")));
        }
        if let Some(text) = &head.bad_binary {
            return Err((400, code::INTERNAL, text.clone()));
        }
        if head.authorities + head.hosts == 0 {
            return Err((400, code::INTERNAL, "no host or :authority header present".into()));
        }
        if !head.post {
            let method = go_quote(self.meta.known(Name::Method).unwrap_or_default());
            let text = format!("Received a HEADERS frame with :method {method} which should be POST");
            return Err((405, code::INTERNAL, text));
        }
        if head.timeout == Some(Ok(0)) {
            return Err((200, code::DEADLINE_EXCEEDED, "context deadline exceeded".into()));
        }
        let Some(method) = head.route else {
            let path = self.meta.known(Name::Path).unwrap_or_default();
            return Err((200, code::UNIMPLEMENTED, unknown(path, sink)));
        };
        if head.encoding == Encoding::Unknown {
            let name = go_quote(self.meta.known(Name::GrpcEncoding).unwrap_or_default());
            let text = format!("grpc: Decompressor is not installed for grpc-encoding {name}");
            return Err((200, code::UNIMPLEMENTED, text));
        }
        Ok(method)
    }

    fn open_call<S: Sink>(
        &mut self,
        open: OpenBlock,
        head: &RequestHead,
        method: Method,
        sink: &mut S,
    ) -> Result<(), Error> {
        let now = self.replies.now_ms;
        let slot = self.open_stream(open, head);
        let s = self.replies.streams.at(slot);
        s.method = method.id;
        s.kind = method.kind;
        s.gzip = head.encoding == Encoding::Gzip;
        if let Some(Ok(timeout)) = head.timeout {
            s.deadline_ms = now.saturating_add(timeout);
            self.meta.set_deadline(Some(s.deadline_ms));
            self.timers.note_deadline(s.deadline_ms);
        }
        if head.content == head::Content::GrpcSubtype {
            let subtype = self.meta.known(Name::ContentType).and_then(head::subtype);
            s.subtype = subtype.map(Into::into);
        }
        if method.kind.one_request() {
            std::mem::swap(&mut s.meta, &mut self.meta);
            if open.end_stream {
                self.end_of_messages(slot, open.stream, sink);
            }
            return Ok(());
        }
        s.surfaced = true;
        sink.on_open(&mut self.replies, open.stream, method.id, &self.meta);
        if open.end_stream {
            self.end_of_messages(slot, open.stream, sink);
        }
        Ok(())
    }

    fn open_plain<S: Sink>(
        &mut self,
        open: OpenBlock,
        head: &RequestHead,
        sink: &mut S,
    ) -> Result<(), Error> {
        let slot = self.open_stream(open, head);
        let s = self.replies.streams.at(slot);
        s.plain = true;
        s.kind = Kind::Unary;
        std::mem::swap(&mut s.meta, &mut self.meta);
        if open.end_stream {
            self.plain_complete(slot, sink);
        }
        Ok(())
    }

    fn open_stream(&mut self, open: OpenBlock, head: &RequestHead) -> usize {
        let slot = self.replies.streams.insert(open.stream);
        let s = self.replies.streams.at(slot);
        s.remote_closed = open.end_stream;
        s.send_window = self.peer_stream_window;
        s.recv_window = i64::from(self.settings.stream_window);
        s.opened_ms = self.replies.now_ms;
        s.length_left = head.content_length.unwrap_or(u64::MAX);
        slot
    }

    /// A second header block on a stream: the end of the client's side, nothing else.
    fn trailers<S: Sink>(
        &mut self,
        slot: usize,
        open: OpenBlock,
        block: &[u8],
        sink: &mut S,
    ) -> Result<(), Error> {
        let (mut size, mut malformed) = (0, open.self_dependent);
        self.decoder
            .decode(block, &mut |f| {
                size += f.name_bytes.len() + f.value.len() + 32;
                malformed |=
                    f.name_bytes.first() == Some(&b':') || matches!(f.name, Name::Invalid | Name::Connection);
            })
            .map_err(|_| Error::Compression)?;
        let s = self.replies.streams.at(slot);
        if s.remote_closed {
            return self.stream_error(slot, Reason::StreamClosed, sink);
        }
        let short = s.length_left != 0 && s.length_left != u64::MAX;
        if malformed || short || size > HEADER_LIST_MAX_BYTES || !open.end_stream {
            return self.stream_error(slot, Reason::Protocol, sink);
        }
        s.remote_closed = true;
        self.client_closed(slot, sink);
        Ok(())
    }
}

/// grpc-go's text for a path without a handler.
fn unknown<S: Sink>(path: &[u8], sink: &mut S) -> String {
    let parts = path
        .strip_prefix(b"/")
        .and_then(|p| p.iter().rposition(|b| *b == b'/').map(|at| (&p[..at], &p[at + 1..])));
    let Some((service, method)) = parts else {
        return format!("malformed method name: {}", go_quote(path));
    };
    let text = String::from_utf8_lossy;
    if sink.has_service(service) {
        format!("unknown method {} for service {}", text(method), text(service))
    } else {
        format!("unknown service {}", text(service))
    }
}
