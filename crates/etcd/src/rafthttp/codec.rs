//! How messages stand on a stream: `message` frames, the compact `msgapp` framing, and the head of a snapshot.
//!
//! - A `message` frame is a length in eight bytes, big end first, and a message.
//! - A `msgapp` frame is one of: `00` (link heartbeat), `02` length message (an append in full), or `01` and only what
//!   the append before does not say already: the entries, each with its length, and the commit index. Both ends keep
//!   term and index of the last append; the short form stands exactly where they continue.
//!
//! Decoders take bytes in pieces of any size. What they hold is bounded by what has arrived, never by what a length
//! claims; a length beyond the limit ends the stream.

use api::raftpb::{Entry, Message, MessageType};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;

/// Longest message or entry on a stream, as in etcd.
const FRAME_MAX: u64 = 512 << 20;
/// Most entries in one short append. An append holds about a megabyte of entries of some bytes each.
const ENTRIES_MAX: u64 = 1 << 20;

/// Why a stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A length beyond the limit.
    TooLong(u64),
    /// Bytes that are no message.
    NoMessage(String),
    /// The first byte of a `msgapp` frame is none that there is.
    Kind(u8),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Malformed::TooLong(_) => f.write_str("rafthttp: error limit exceeded"),
            Malformed::NoMessage(why) => write!(f, "proto: {why}"),
            Malformed::Kind(kind) => write!(f, "failed to parse type {kind} in msgappv2 stream"),
        }
    }
}

/// The message that only shows that somebody is there.
pub(crate) fn link_heartbeat() -> Message {
    Message { r#type: Some(MessageType::MsgHeartbeat as i32), ..Message::default() }
}

/// Whether the message only shows that somebody is there.
pub(crate) fn is_link_heartbeat(message: &Message) -> bool {
    message.r#type.unwrap_or(0) == MessageType::MsgHeartbeat as i32 && message.from() == 0 && message.to() == 0
}

/// What a message costs while it waits: its bytes, about, without being encoded.
pub(crate) fn weight(message: &Message) -> usize {
    /// A message or an entry without its bytes.
    const OVERHEAD: usize = 192;
    let entries: usize = message.entries.iter().map(|entry| OVERHEAD + entry.data().len()).sum();
    let snapshot = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.data().len());
    OVERHEAD + entries + message.context().len() + snapshot
}

/// A frame of the `message` stream; also the head of a snapshot.
pub(crate) fn put_message(message: &Message, out: &mut BytesMut) {
    out.put_u64(message.encoded_len() as u64);
    message.encode(out).expect("a buffer grows");
}

/// The sending end of one stream.
#[derive(Debug)]
pub(crate) enum Encoder {
    Message,
    Append { term: u64, index: u64 },
}

impl Encoder {
    /// Appends one frame.
    pub(crate) fn put(&mut self, message: &Message, out: &mut BytesMut) {
        let Encoder::Append { term, index } = self else { return put_message(message, out) };
        if is_link_heartbeat(message) {
            out.put_u8(0);
        } else if *index == message.index() && *term == message.log_term() && *term == message.term() {
            out.put_u8(1);
            out.put_u64(message.entries.len() as u64);
            for entry in &message.entries {
                out.put_u64(entry.encoded_len() as u64);
                entry.encode(out).expect("a buffer grows");
            }
            out.put_u64(message.commit());
            *index += message.entries.len() as u64;
        } else {
            out.put_u8(2);
            put_message(message, out);
            (*term, *index) = position(message);
        }
    }
}

/// Where both ends stand after an append in full.
fn position(message: &Message) -> (u64, u64) {
    (message.term(), message.entries.last().map_or(message.index(), Entry::index))
}

/// The receiving end of one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    state: State,
    /// `None` on the `message` stream.
    append: Option<Append>,
}

/// What short appends leave out.
#[derive(Debug)]
struct Append {
    local: u64,
    remote: u64,
    term: u64,
    index: u64,
}

#[derive(Debug)]
enum State {
    /// Between two frames.
    Between,
    /// A message that begins with its length.
    Full,
    /// In a short append: entries that are still to come, those that came, and bytes so far.
    Short { left: u64, entries: Vec<Entry>, bytes: u64 },
}

impl Decoder {
    /// The end of a `message` stream.
    pub(crate) fn message() -> Decoder {
        Decoder { buffer: BytesMut::new(), state: State::Full, append: None }
    }

    /// The end of a `msgapp` stream from `remote` to this member.
    pub(crate) fn append(local: u64, remote: u64) -> Decoder {
        let append = Append { local, remote, term: 0, index: 0 };
        Decoder { buffer: BytesMut::new(), state: State::Between, append: Some(append) }
    }

    /// Takes what has arrived.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the stream may end here.
    pub(crate) fn is_between(&self) -> bool {
        self.buffer.is_empty() && !matches!((&self.state, &self.append), (State::Full, Some(_)) | (State::Short { .. }, _))
    }

    /// The next message that is complete, link heartbeats included.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Malformed> {
        loop {
            match &mut self.state {
                State::Between => {
                    if self.buffer.is_empty() {
                        return Ok(None);
                    }
                    match self.buffer[0] {
                        0 => {
                            self.buffer.advance(1);
                            return Ok(Some(link_heartbeat()));
                        }
                        1 => {
                            let Some(left) = length(&self.buffer[1..], ENTRIES_MAX)? else { return Ok(None) };
                            self.buffer.advance(9);
                            self.state = State::Short { left, entries: Vec::new(), bytes: 0 };
                        }
                        2 => {
                            self.buffer.advance(1);
                            self.state = State::Full;
                        }
                        kind => return Err(Malformed::Kind(kind)),
                    }
                }
                State::Full => {
                    let Some(bytes) = piece(&mut self.buffer)? else { return Ok(None) };
                    let message: Message = parse(bytes)?;
                    if let Some(append) = &mut self.append {
                        self.state = State::Between;
                        (append.term, append.index) = position(&message);
                    }
                    return Ok(Some(message));
                }
                State::Short { left: 0, entries, .. } => {
                    if self.buffer.len() < 8 {
                        return Ok(None);
                    }
                    let commit = self.buffer.get_u64();
                    let entries = std::mem::take(entries);
                    self.state = State::Between;
                    let append = self.append.as_mut().expect("only msgapp streams have short frames");
                    return Ok(Some(append.complete(entries, commit)));
                }
                State::Short { left, entries, bytes } => {
                    let Some(piece) = piece(&mut self.buffer)? else { return Ok(None) };
                    *bytes += 8 + piece.len() as u64;
                    if *bytes > FRAME_MAX {
                        return Err(Malformed::TooLong(*bytes));
                    }
                    entries.push(parse(piece)?);
                    *left -= 1;
                }
            }
        }
    }
}

impl Append {
    fn complete(&mut self, entries: Vec<Entry>, commit: u64) -> Message {
        let index = self.index;
        self.index += entries.len() as u64;
        Message {
            r#type: Some(MessageType::MsgApp as i32),
            from: Some(self.remote),
            to: Some(self.local),
            term: Some(self.term),
            log_term: Some(self.term),
            index: Some(index),
            entries,
            commit: Some(commit),
            ..Message::default()
        }
    }
}

/// A number in eight bytes, once they are there.
fn length(bytes: &[u8], max: u64) -> Result<Option<u64>, Malformed> {
    let Some(bytes) = bytes.first_chunk::<8>() else { return Ok(None) };
    let length = u64::from_be_bytes(*bytes);
    if length > max { Err(Malformed::TooLong(length)) } else { Ok(Some(length)) }
}

/// A length and so many bytes, once they are there.
fn piece(buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let Some(len) = length(buffer, FRAME_MAX)? else { return Ok(None) };
    let len = len as usize;
    if buffer.len() - 8 < len {
        return Ok(None);
    }
    buffer.advance(8);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// The head of a snapshot: a length and a message. `None` while bytes are missing; what follows it stays in `buffer`.
pub(crate) fn snapshot_head(buffer: &mut BytesMut, max: u64) -> Result<Option<Message>, Malformed> {
    let Some(len) = length(buffer, max)? else { return Ok(None) };
    if buffer.len() - 8 < len as usize {
        return Ok(None);
    }
    let bytes = piece(buffer)?.expect("all of it is there");
    parse(bytes).map(Some)
}

/// A message or an entry, as Go reads it: a field of another wire type than it should have counts as unknown. That is
/// looked at only when the fast way fails.
pub(crate) fn parse<M: prost::Message + prost::Name + Default>(bytes: Bytes) -> Result<M, Malformed> {
    M::decode(bytes.clone())
        .or_else(|_| api::wire::decode(bytes))
        .map_err(|_| Malformed::NoMessage("cannot parse invalid wire-format data".into()))
}

#[cfg(test)]
mod tests;
