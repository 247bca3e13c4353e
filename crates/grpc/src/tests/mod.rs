//! The codec as a whole: a server with a few methods, and a client that speaks raw frames.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::frame::{self, HEAD_BYTES, Head, PREFACE, flag, kind};
use crate::hpack::decode::Decoder;
use crate::hpack::put_int;
use crate::{Connection, Error, Kind, Metadata, Method, PlainRequest, Replies, Settings, Sink};

mod basics;
mod floods;
mod flow;
mod refusals;
mod time;
mod torn;

pub(crate) const UNARY: u16 = 1;
pub(crate) const LATER: u16 = 2;
pub(crate) const LIST: u16 = 3;
pub(crate) const BIDI: u16 = 4;

/// What the sink was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Unary(u32, u16, Vec<u8>),
    Open(u32),
    Message(u32, Vec<u8>),
    HalfClose(u32),
    Cancelled(u32),
    Plain(u32, String, Vec<u8>),
}

/// `/t.T/Unary` echoes at once, `/t.T/Later` waits for the test, `/t.T/List` sends its message's first four bytes as a
/// number of bytes, `/t.T/Bidi` echoes each message.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) told: Vec<Told>,
    pub(crate) meta: Option<Metadata>,
    pub(crate) lookups: usize,
    pub(crate) quiet: bool,
    pub(crate) plain_later: bool,
}

impl Sink for Server {
    fn method(&mut self, path: &[u8]) -> Option<Method> {
        self.lookups += 1;
        let (id, kind) = match path {
            b"/t.T/Unary" => (UNARY, Kind::Unary),
            b"/t.T/Later" => (LATER, Kind::Unary),
            b"/t.T/List" => (LIST, Kind::ServerStream),
            b"/t.T/Bidi" => (BIDI, Kind::BidiStream),
            _ => return None,
        };
        Some(Method { id, kind })
    }

    fn has_service(&mut self, service: &[u8]) -> bool {
        service == b"t.T"
    }

    fn on_unary(&mut self, replies: &mut Replies, call: u32, method: u16, meta: &Metadata, message: &[u8]) {
        self.meta = Some(meta.clone());
        if !self.quiet {
            self.told.push(Told::Unary(call, method, message.to_vec()));
        }
        match method {
            UNARY => assert!(replies.reply(call, |out| out.extend_from_slice(message))),
            LIST => {
                let n = message.get(..4).map_or(0, |n| frame::be32(n) as usize).min(64 << 20);
                replies.send_bytes(call, Bytes::from(vec![b'x'; n]));
                assert!(replies.finish(call, 0, ""));
            }
            _ => {}
        }
    }

    fn on_open(&mut self, _: &mut Replies, call: u32, _: u16, meta: &Metadata) {
        self.meta = Some(meta.clone());
        self.told.push(Told::Open(call));
    }

    fn on_message(&mut self, replies: &mut Replies, call: u32, _: u16, message: &[u8]) {
        if !self.quiet {
            self.told.push(Told::Message(call, message.to_vec()));
        }
        replies.send(call, |out| out.extend_from_slice(message));
    }

    fn on_half_close(&mut self, replies: &mut Replies, call: u32) {
        self.told.push(Told::HalfClose(call));
        replies.finish(call, 0, "");
    }

    fn on_cancelled(&mut self, replies: &mut Replies, call: u32) {
        assert!(!replies.is_open(call));
        self.told.push(Told::Cancelled(call));
    }

    fn on_plain(&mut self, replies: &mut Replies, call: u32, request: &PlainRequest<'_>) {
        let path = String::from_utf8_lossy(request.path).into_owned();
        self.told.push(Told::Plain(call, path, request.body.to_vec()));
        if self.plain_later {
            return;
        }
        replies.plain_reply(call, 200, &[("x", "y")], Bytes::copy_from_slice(request.body));
    }
}

/// What came back, per stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) headers: Vec<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<String>,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
}

impl Got {
    pub(crate) fn status(&self) -> Option<&str> {
        let all = self.trailers.iter().chain(&self.headers);
        all.filter_map(|f| f.strip_prefix("grpc-status: ")).next()
    }

    pub(crate) fn message(&self) -> &str {
        let all = self.trailers.iter().chain(&self.headers);
        all.filter_map(|f| f.strip_prefix("grpc-message: ")).next().unwrap_or_default()
    }
}

/// Client and server in one place.
pub(crate) struct Pair {
    pub(crate) server: Server,
    pub(crate) c: Connection,
    pub(crate) now: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    decoder: Decoder,
    pub(crate) got: BTreeMap<u32, Got>,
    /// Frames that are not about one stream's content: kind, flags, payload.
    pub(crate) control: Vec<(u8, u8, Vec<u8>)>,
    pub(crate) frames: usize,
}

impl Pair {
    pub(crate) fn new(settings: Settings) -> Pair {
        let mut pair = Pair::raw(settings);
        pair.send(PREFACE);
        pair.frame(kind::SETTINGS, 0, 0, &[]);
        pair.flush();
        pair.control.clear();
        pair
    }

    /// Before the handshake.
    pub(crate) fn raw(settings: Settings) -> Pair {
        Pair {
            server: Server::default(),
            c: Connection::new(settings, 1000),
            now: 1000,
            input: Vec::new(),
            output: Vec::new(),
            decoder: Decoder::new(),
            got: BTreeMap::new(),
            control: Vec::new(),
            frames: 0,
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.input.extend_from_slice(bytes);
        let used = self.c.receive(self.now, &self.input, &mut self.server)?;
        self.input.drain(..used);
        Ok(())
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_frame(kind, flags, stream, payload).unwrap();
    }

    pub(crate) fn try_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> Result<(), Error> {
        self.try_send(&raw_frame(kind, flags, stream, payload))
    }

    /// HEADERS of a gRPC request with more fields.
    pub(crate) fn head(&mut self, call: u32, path: &str, more: &[(&str, &str)], end: bool) {
        let block = grpc_block(path, more);
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        self.frame(kind::HEADERS, flags, call, &block);
    }

    pub(crate) fn message(&mut self, call: u32, message: &[u8], end: bool) {
        self.frame(kind::DATA, u8::from(end), call, &prefixed(message));
    }

    pub(crate) fn call(&mut self, call: u32, path: &str, message: &[u8]) {
        self.head(call, path, &[], false);
        self.message(call, message, true);
    }

    /// Takes what the server has written until it has no more.
    pub(crate) fn flush(&mut self) {
        loop {
            let bytes = self.c.output().take_all();
            if bytes.is_empty() {
                return;
            }
            self.output.extend_from_slice(&bytes);
            self.parse();
            if self.c.wants_input() {
                self.send(&[]);
            }
        }
    }

    fn parse(&mut self) {
        while self.output.len() >= HEAD_BYTES {
            let head = Head::parse(self.output[..HEAD_BYTES].try_into().unwrap());
            if self.output.len() < HEAD_BYTES + head.len {
                return;
            }
            let frame: Vec<u8> = self.output.drain(..HEAD_BYTES + head.len).collect();
            self.on_frame(head, &frame[HEAD_BYTES..]);
        }
    }

    fn on_frame(&mut self, head: Head, payload: &[u8]) {
        self.frames += 1;
        match head.kind {
            kind::HEADERS => {
                assert!(head.has(flag::END_HEADERS));
                let mut fields = Vec::new();
                self.decoder
                    .decode(payload, &mut |f| {
                        let (n, v) =
                            (String::from_utf8_lossy(f.name_bytes), String::from_utf8_lossy(f.value));
                        fields.push(format!("{n}: {v}"));
                    })
                    .unwrap();
                let got = self.got.entry(head.stream).or_default();
                assert!(!got.ended);
                if got.headers.is_empty() {
                    got.headers = fields;
                } else {
                    got.trailers = fields;
                }
                got.ended = head.has(flag::END_STREAM);
            }
            kind::DATA => {
                let got = self.got.entry(head.stream).or_default();
                assert!(!got.ended && !got.headers.is_empty());
                got.data.extend_from_slice(payload);
                got.ended = head.has(flag::END_STREAM);
            }
            kind::RST_STREAM => self.got.entry(head.stream).or_default().reset = Some(frame::be32(payload)),
            _ => self.control.push((head.kind, head.flags, payload.to_vec())),
        }
    }

    /// The stream's answer; the call must be over.
    pub(crate) fn take(&mut self, call: u32) -> Got {
        self.flush();
        self.got.remove(&call).unwrap_or_default()
    }
}

pub(crate) fn raw_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_head(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

pub(crate) fn prefixed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// A header block of literals that touch no table.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        put_int(&mut out, 0, 7, name.len());
        out.extend_from_slice(name.as_bytes());
        put_int(&mut out, 0, 7, value.len());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

pub(crate) fn grpc_block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.extend_from_slice(more);
    block(&fields)
}
