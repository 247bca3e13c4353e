//! One connection: frames in, calls out. This file has the frame loop, setup and end; its neighbours have the rest:
//! `request.rs` HEADERS, `data.rs` DATA and messages, `control.rs` everything that is not about one request,
//! `timers.rs` what happens as time passes.

use crate::error::Error;
use crate::frame::{self, HEAD_BYTES, Head, PREFACE, flag, kind, setting};
use crate::hpack::decode::Decoder;
use crate::limits::{FRAME_MAX_BYTES, HEADER_LIST_MAX_BYTES, OPEN_STREAMS_MAX, OUTPUT_PAUSE_BYTES, TURN_REPLIES_BYTES};
use crate::message::code;
use crate::metadata::Metadata;
use crate::out::OutBuf;
use crate::reply::Replies;
use crate::sink::Sink;
use crate::timers::Timers;

/// What a connection is allowed and how it behaves. The default is etcd's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--max-concurrent-streams`. Never more than [`OPEN_STREAMS_MAX`](crate::limits::OPEN_STREAMS_MAX).
    pub max_concurrent_streams: u32,
    /// Largest request message.
    pub max_message_bytes: usize,
    /// `--grpc-keepalive-min-time`: pings closer together are strikes.
    pub keepalive_min_ms: u64,
    /// Whether pings without open streams are fine.
    pub permit_without_stream: bool,
    /// `--grpc-keepalive-interval`: we ping after this long without input. `u64::MAX` for never.
    pub keepalive_interval_ms: u64,
    /// `--grpc-keepalive-timeout`: how long the answer may take.
    pub keepalive_timeout_ms: u64,
    /// What becomes of requests without gRPC's content type.
    pub plain: Plain,
    /// Flow-control window of a stream, both for requests and for plain bodies.
    pub stream_window: u32,
    /// Flow-control window of the connection.
    pub connection_window: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_concurrent_streams: u32::MAX,
            max_message_bytes: 2 * 1024 * 1024,
            keepalive_min_ms: 5_000,
            permit_without_stream: false,
            keepalive_interval_ms: 2 * 60 * 60 * 1000,
            keepalive_timeout_ms: 20_000,
            plain: Plain::Refused,
            stream_window: 1024 * 1024,
            connection_window: 8 * 1024 * 1024,
        }
    }
}

/// Requests without gRPC's content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Answered with 415.
    Refused,
    /// Handed to `on_plain`.
    Also,
    /// Every request is handed to `on_plain`: there is no gRPC here.
    Only,
}

/// What the first bytes of a connection say, for servers with HTTP/1.1 on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// HTTP/2; give all bytes to [`Connection::receive`].
    Http2,
    /// Something else.
    Other,
    /// Too few bytes to tell.
    Incomplete,
}

/// Looks at the first bytes of a connection.
pub fn preface(first: &[u8]) -> Preface {
    let n = first.len().min(PREFACE.len());
    match first[..n] == PREFACE[..n] {
        false => Preface::Other,
        true if n == PREFACE.len() => Preface::Http2,
        true => Preface::Incomplete,
    }
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Preface,
    FirstSettings,
    Open,
    /// An error has ended it.
    Dead,
}

/// A header block whose CONTINUATION frames are still to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenBlock {
    pub(crate) stream: u32,
    pub(crate) end_stream: bool,
    pub(crate) self_dependent: bool,
}

/// The server side of one HTTP/2 connection.
pub struct Connection {
    pub(crate) settings: Settings,
    pub(crate) replies: Replies,
    pub(crate) decoder: Decoder,
    pub(crate) stage: Stage,
    pub(crate) timers: Timers,
    /// Fields of the request being decoded.
    pub(crate) meta: Metadata,
    /// Collects a header block that came in more than one frame.
    pub(crate) block: Vec<u8>,
    pub(crate) open_block: Option<OpenBlock>,
    /// Highest stream the client has used.
    pub(crate) max_stream: u32,
    /// Input was left over because of too much output, not because a frame is incomplete.
    stopped_early: bool,
    /// The client's SETTINGS_INITIAL_WINDOW_SIZE.
    pub(crate) peer_stream_window: i64,
    pub(crate) recv_window: i64,
    pub(crate) recv_unacked: u32,
}

impl Connection {
    /// A fresh connection; its own SETTINGS are in the output already.
    pub fn new(settings: Settings, now_ms: u64) -> Connection {
        assert!((65_535..=0x7fff_ffff).contains(&settings.stream_window), "stream window out of range");
        assert!(
            (65_535..=0x7fff_ffff).contains(&settings.connection_window),
            "connection window out of range"
        );
        let mut replies = Replies::new(now_ms);
        let out = replies.out.buf();
        let mut ours = vec![
            (setting::INITIAL_WINDOW_SIZE, settings.stream_window),
            (setting::MAX_HEADER_LIST_SIZE, HEADER_LIST_MAX_BYTES as u32),
        ];
        // As in Go, "no limit" is not announced; the bound behind it is meant for nobody who behaves.
        if settings.max_concurrent_streams < OPEN_STREAMS_MAX {
            ours.push((setting::MAX_CONCURRENT_STREAMS, settings.max_concurrent_streams));
        }
        frame::put_settings(out, &ours);
        let more = settings.connection_window - 65_535;
        if more > 0 {
            frame::put_window_update(out, 0, more);
        }
        Connection {
            timers: Timers::new(now_ms),
            recv_window: i64::from(settings.connection_window),
            settings,
            replies,
            decoder: Decoder::new(),
            stage: Stage::Preface,
            meta: Metadata::default(),
            block: Vec::new(),
            open_block: None,
            max_stream: 0,
            peer_stream_window: 65_535,
            recv_unacked: 0,
            stopped_early: false,
        }
    }

    /// Parses input and calls the sink for what is complete. Returns how many bytes were used; the rest (less than
    /// [`READ_BUFFER_MIN_BYTES`](crate::limits::READ_BUFFER_MIN_BYTES) unless it
    /// [`stopped_early`](Connection::stopped_early)) must be given again, with what follows it.
    ///
    /// After an error the output holds what the peer should still be told; more input is swallowed.
    pub fn receive<S: Sink>(&mut self, now_ms: u64, input: &[u8], sink: &mut S) -> Result<usize, Error> {
        self.replies.now_ms = now_ms;
        if self.stage == Stage::Dead {
            return Ok(input.len());
        }
        if !input.is_empty() {
            self.timers.read(now_ms);
        }
        let result = self.frames(input, sink);
        if let Err(error) = result {
            self.fail(error);
        }
        self.replies.streams.trim();
        result
    }

    fn frames<S: Sink>(&mut self, input: &[u8], sink: &mut S) -> Result<usize, Error> {
        let mut at = 0;
        if self.stage == Stage::Preface {
            match preface(input) {
                Preface::Other => return Err(Error::Preface),
                Preface::Incomplete => return Ok(0),
                Preface::Http2 => at = PREFACE.len(),
            }
            self.stage = Stage::FirstSettings;
        }
        self.stopped_early = true;
        let made = |replies: &Replies| replies.out.len() + replies.queued_bytes();
        let before = made(&self.replies);
        while self.wants_input() && made(&self.replies) <= before + TURN_REPLIES_BYTES {
            let Some(head) = input.get(at..at + HEAD_BYTES) else { return self.all_used(at) };
            let head = Head::parse(head.try_into().expect("nine bytes"));
            if head.len > FRAME_MAX_BYTES {
                return Err(Error::FrameSize("frame larger than SETTINGS_MAX_FRAME_SIZE"));
            }
            let Some(payload) = input.get(at + HEAD_BYTES..at + HEAD_BYTES + head.len) else {
                return self.all_used(at);
            };
            at += HEAD_BYTES + head.len;
            self.frame(head, payload, sink)?;
        }
        self.replies.abuse.check()?;
        Ok(at)
    }

    /// Every whole frame has been taken.
    fn all_used(&mut self, at: usize) -> Result<usize, Error> {
        self.stopped_early = false;
        self.replies.abuse.check()?;
        Ok(at)
    }

    #[inline]
    fn frame<S: Sink>(&mut self, head: Head, payload: &[u8], sink: &mut S) -> Result<(), Error> {
        if self.open_block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Error::Protocol("header block interrupted"));
        }
        if self.stage == Stage::FirstSettings {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(Error::Protocol("first frame is not SETTINGS"));
            }
            self.stage = Stage::Open;
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload, sink),
            kind::HEADERS => self.on_headers(head, payload, sink),
            kind::CONTINUATION => self.on_continuation(head, payload, sink),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload, sink),
            kind::RST_STREAM => self.on_rst_stream(head, payload, sink),
            kind::PING => self.on_ping(head, payload),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::PRIORITY => self.on_priority(head, payload),
            kind::GOAWAY => self.on_goaway(head, payload),
            kind::PUSH_PROMISE => Err(Error::Protocol("PUSH_PROMISE from a client")),
            _ => self.replies.abuse.idle_frame(self.replies.now_ms),
        }
    }

    /// Whether input should be read: false while too much output waits for the socket. Ask again after writing some;
    /// if it [`stopped_early`](Connection::stopped_early), the bytes left over must then be given to
    /// [`receive`](Connection::receive) even if no new ones came.
    pub fn wants_input(&self) -> bool {
        self.replies.out.len() <= OUTPUT_PAUSE_BYTES
    }

    /// Whether what [`receive`](Connection::receive) left over may hold whole frames: it stopped for want of room in the
    /// output, or because it has made enough answers for one turn. Otherwise giving it the same bytes again, without new ones, does nothing.
    pub fn stopped_early(&self) -> bool {
        self.stopped_early
    }

    /// What is to be written now, queued replies included up to a turn's share. Write, `advance`, ask again.
    pub fn output(&mut self) -> &mut OutBuf {
        if self.stage != Stage::Dead {
            self.replies.pump();
        }
        &mut self.replies.out
    }

    /// The answering side.
    pub fn replies(&mut self) -> &mut Replies {
        &mut self.replies
    }

    /// Whether nothing more will come of this connection: after an error, or drained after
    /// [`graceful_close`](Connection::graceful_close). Write what [`output`](Connection::output) has, then close.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Dead || (self.timers.is_draining_last() && self.replies.active() == 0)
    }

    /// The connection is gone: tells the sink about every call that still waits. Call it once, at the end.
    pub fn abandon<S: Sink>(&mut self, sink: &mut S) {
        self.stage = Stage::Dead;
        let slots: Vec<usize> = self.replies.streams.open_slots().collect();
        for slot in slots {
            self.drop_stream(slot, sink);
        }
    }

    /// Removes a stream; the handler learns of it if it still owed an answer.
    pub(crate) fn drop_stream<S: Sink>(&mut self, slot: usize, sink: &mut S) {
        let s = self.replies.streams.at(slot);
        let (id, owed) = (s.id, s.surfaced && s.is_answerable());
        let began = (!s.plain).then_some((s.method, s.opened_ms));
        self.replies.remove(slot);
        if owed {
            if let Some((method, opened_ms)) = began {
                self.replies.tally.ended(method, code::CANCELED, opened_ms);
            }
            sink.on_cancelled(&mut self.replies, id);
        }
    }

    /// Ends an open stream for an error of the client on it.
    pub(crate) fn stream_error<S: Sink>(
        &mut self,
        slot: usize,
        reason: crate::Reason,
        sink: &mut S,
    ) -> Result<(), Error> {
        let id = self.replies.streams.at(slot).id;
        self.drop_stream(slot, sink);
        self.replies.reset_id(id, reason);
        self.replies.abuse.reset(self.replies.now_ms)
    }

    /// Ends the connection; GOAWAY says why.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.stage == Stage::Dead {
            return;
        }
        self.stage = Stage::Dead;
        frame::put_goaway(self.replies.out.buf(), self.max_stream, error.reason(), error.text().as_bytes());
    }

    /// Bytes of memory held, as far as they depend on what peers do.
    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        self.replies.footprint() + self.decoder.footprint() + self.block.capacity() + self.meta.footprint()
    }
}
