//! One other member, as messages to it see it: which ways stand, what waits on each, whether it is there.
//!
//! Invariants:
//! - Each queue is bounded by number and by bytes. What does not fit is dropped and raft is told that the peer cannot
//!   be reached; it sends again what matters.
//! - A stream is written by at most one connection: the newest. An older one sees that it is not the one any more and
//!   ends.
//! - What waits on a stream leaves with the connection that carries it; when that ends, what still waits is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use api::raftpb::{Message, MessageType};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::codec::weight;
use super::transport::Inner;
use crate::config::value::{Address, parse_url};
use crate::logging::Value;
use crate::metrics;

/// Messages that wait on one stream, as in etcd.
const STREAM_QUEUE: usize = 4096;
/// Bytes that wait on one stream. Raft has 512 appends of a megabyte on their way at most; a peer that slow is better
/// off with fewer.
const STREAM_QUEUE_BYTES: usize = 64 << 20;
/// Messages that wait for a request of their own, as in etcd.
const PIPELINE_QUEUE: usize = 64;

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Append,
    Message,
}

impl Kind {
    pub(crate) const BOTH: [Kind; 2] = [Kind::Append, Kind::Message];

    /// As log lines call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Append => "stream MsgApp v2",
            Kind::Message => "stream Message",
        }
    }

    /// As paths call it.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Append => "msgapp",
            Kind::Message => "message",
        }
    }

    /// The one that a path names.
    pub(crate) fn of_path(path: &str) -> Option<Kind> {
        Kind::BOTH.into_iter().find(|kind| kind.path() == path)
    }
}

/// Messages that wait, with their bytes.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Queue {
    /// Takes a message, or gives it back when there is no room. One alone always fits.
    #[must_use]
    fn push(&mut self, message: Message, most: usize) -> Option<Message> {
        if self.messages.len() >= most || self.bytes >= STREAM_QUEUE_BYTES {
            return Some(message);
        }
        self.bytes += weight(&message);
        self.messages.push_back(message);
        None
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= weight(&message);
        Some(message)
    }
}

/// The sending side of a stream.
#[derive(Debug, Default)]
struct Way {
    queue: Queue,
    /// The connection that carries it; 0 when there is none.
    carrier: u64,
    /// Whom to wake when there is something to carry, or nothing any more.
    waker: Option<Waker>,
}

/// The addresses of a peer, one of them in use.
#[derive(Debug)]
pub(crate) struct Urls {
    all: Vec<Address>,
    at: usize,
}

impl Urls {
    /// Those that can be understood; members' URLs were checked when they were added.
    pub(crate) fn new(urls: &[String]) -> Urls {
        Urls { all: urls.iter().filter_map(|url| parse_url(url).ok()).collect(), at: 0 }
    }

    pub(crate) fn pick(&self) -> Option<Address> {
        self.all.get(self.at).cloned()
    }

    /// The next one's turn, if `url` still is the one in use.
    pub(crate) fn unreachable(&mut self, url: &Address) {
        if self.all.get(self.at) == Some(url) {
            self.at = (self.at + 1) % self.all.len();
        }
    }
}

/// See the head of this file.
pub(crate) struct Peer {
    pub(crate) id: u64,
    /// The id as text.
    pub(crate) hex: String,
    /// Known by its own word only: it gets requests, not streams.
    pub(crate) is_remote: bool,
    pub(crate) urls: Mutex<Urls>,
    pub(crate) counts: Arc<metrics::Peer>,
    active_since: Mutex<Option<Instant>>,
    ways: [Mutex<Way>; 2],
    pipeline: Mutex<Queue>,
    pub(crate) pipeline_ready: Notify,
    stop: watch::Sender<bool>,
}

impl Peer {
    pub(crate) fn new(id: u64, urls: &[String], is_remote: bool, counts: Arc<metrics::Peer>) -> Peer {
        Peer {
            id,
            hex: api::ids::hex(id).to_string(),
            is_remote,
            urls: Mutex::new(Urls::new(urls)),
            counts,
            active_since: Mutex::new(None),
            ways: Default::default(),
            pipeline: Mutex::default(),
            pipeline_ready: Notify::new(),
            stop: watch::Sender::new(false),
        }
    }

    fn way(&self, kind: Kind) -> &Mutex<Way> {
        &self.ways[usize::from(kind == Kind::Message)]
    }

    /// Since when it is known to be there.
    pub(crate) fn active_since(&self) -> Option<Instant> {
        *self.active_since.lock()
    }

    /// Puts a message on its way; gives it back when there is no room, with the name of the way.
    #[must_use]
    pub(crate) fn send(&self, message: Message) -> Option<(Message, &'static str)> {
        let append = message.r#type.unwrap_or(0) == MessageType::MsgApp as i32;
        let kinds = if append { &Kind::BOTH[..] } else { &Kind::BOTH[1..] };
        for kind in kinds.iter().filter(|_| !self.is_remote) {
            let mut way = self.way(*kind).lock();
            if way.carrier == 0 {
                continue;
            }
            let name = if *kind == Kind::Append { "streamMsgAppV2" } else { "streamMsg" };
            let refused = way.queue.push(message, STREAM_QUEUE);
            let waker = way.waker.take();
            drop(way);
            if let Some(waker) = waker {
                waker.wake();
            }
            return refused.map(|message| (message, name));
        }
        let refused = self.pipeline.lock().push(message, PIPELINE_QUEUE);
        self.pipeline_ready.notify_one();
        refused.map(|message| (message, "pipeline"))
    }

    /// The next message for a request of its own.
    pub(crate) fn next_post(&self) -> Option<Message> {
        self.pipeline.lock().pop()
    }

    /// A new connection carries a stream from now on; says whether one was replaced.
    pub(crate) fn attach(&self, kind: Kind, carrier: u64) -> bool {
        let mut way = self.way(kind).lock();
        let replaced = way.carrier != 0;
        way.carrier = carrier;
        if let Some(waker) = way.waker.take() {
            waker.wake();
        }
        replaced
    }

    /// A connection that carried a stream has ended. Gives the number of messages lost with it; `None` when another
    /// one carries the stream.
    pub(crate) fn detach(&self, kind: Kind, carrier: u64) -> Option<usize> {
        let mut way = self.way(kind).lock();
        if way.carrier != carrier {
            return None;
        }
        way.carrier = 0;
        way.waker = None;
        Some(std::mem::take(&mut way.queue).messages.len())
    }

    /// What a connection is to write now: messages of up to about `bytes`, into an empty vector. With nothing to write
    /// the waker is kept. False when it does not carry the stream any more.
    pub(crate) fn take(&self, kind: Kind, carrier: u64, bytes: usize, into: &mut Vec<Message>, waker: &Waker) -> bool {
        let mut way = self.way(kind).lock();
        if way.carrier != carrier {
            return false;
        }
        let mut taken = 0;
        while taken < bytes
            && let Some(message) = way.queue.pop()
        {
            taken += weight(&message);
            into.push(message);
        }
        if into.is_empty() {
            way.waker = Some(waker.clone());
        }
        true
    }

    /// Ends everything that is done for this peer.
    pub(crate) fn stop(&self, inner: &Inner) {
        self.stop.send_replace(true);
        if self.is_remote {
            return;
        }
        inner.logger.info("stopping remote peer", &[("remote-peer-id", self.field())]);
        for kind in Kind::BOTH {
            let mut way = self.way(kind).lock();
            let (carrier, waker) = (std::mem::take(&mut way.carrier), way.waker.take());
            way.queue = Queue::default();
            drop(way);
            if let Some(waker) = waker {
                waker.wake();
            }
            let fields = [("stream-writer-type", kind.name().into()), ("remote-peer-id", self.field())];
            if carrier != 0 {
                inner.logger.warn("closed TCP streaming connection with remote peer", &fields);
            }
            inner.logger.info("stopped TCP streaming connection with remote peer", &fields);
        }
        inner.logger.info("stopped HTTP pipelining with remote peer", &inner.both(self));
        if self.active_since.lock().take().is_some() {
            self.counts.disconnected.add(1);
        }
        inner.logger.info("stopped remote peer", &[("remote-peer-id", self.field())]);
    }

    /// Resolves when nothing more is to be done for this peer.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as this peer.
        let _told = stop.wait_for(|stopped| *stopped).await;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// The id as a field of a line.
    pub(crate) fn field(&self) -> Value {
        (&self.hex).into()
    }

    /// It has shown that it is there.
    pub(crate) fn activate(&self, inner: &Inner) {
        let mut since = self.active_since.lock();
        if since.is_none() && !self.is_stopped() {
            *since = Some(Instant::now());
            self.counts.connected.add(1);
            drop(since);
            inner.logger.info("peer became active", &[("peer-id", self.field())]);
        }
    }

    /// Something that needs it has failed.
    pub(crate) fn deactivate(&self, inner: &Inner, source: &str, action: &str, why: &str) {
        let was_active = self.active_since.lock().take().is_some();
        let error = || format!("failed to {action} {} on {source} ({why})", self.hex);
        if was_active {
            self.counts.disconnected.add(1);
            let fields = [("peer-id", self.field()), ("error", error().into())];
            inner.logger.warn("peer became inactive (message send to peer failed)", &fields);
        } else if inner.logger.admits(crate::logging::Level::Debug) {
            let fields = [("peer-id", self.field()), ("error", error().into())];
            inner.logger.named("", crate::logging::Level::Debug, "peer deactivated again", &fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn peer() -> Peer {
        Peer::new(7, &["http://a:1".into(), "nonsense".into(), "http://b:2".into()], false, metrics::Peers::default().of(7))
    }

    fn message(kind: MessageType, bytes: usize) -> Message {
        let entry = api::raftpb::Entry { data: Some(vec![0; bytes].into()), ..Default::default() };
        Message { r#type: Some(kind as i32), entries: vec![entry], ..Message::default() }
    }

    #[test]
    fn addresses_take_turns_when_one_fails() {
        let peer = peer();
        let mut urls = peer.urls.lock();
        let first = urls.pick().unwrap();
        urls.unreachable(&first);
        let second = urls.pick().unwrap();
        assert_eq!((first.host.as_str(), second.host.as_str()), ("a:1", "b:2"));
        urls.unreachable(&first);
        assert_eq!(urls.pick().unwrap(), second, "a late report about the one before changes nothing");
        urls.unreachable(&second);
        assert_eq!(urls.pick().unwrap(), first);
    }

    #[test]
    fn appends_prefer_their_stream_and_fall_back() {
        let peer = peer();
        let count = |kind: Kind| peer.way(kind).lock().queue.messages.len();
        assert!(peer.send(message(MessageType::MsgApp, 1)).is_none());
        assert!(peer.next_post().is_some(), "no stream stands");
        peer.attach(Kind::Message, 1);
        assert!(peer.send(message(MessageType::MsgApp, 1)).is_none());
        peer.attach(Kind::Append, 2);
        assert!(peer.send(message(MessageType::MsgApp, 1)).is_none());
        assert!(peer.send(message(MessageType::MsgHeartbeat, 1)).is_none());
        assert_eq!((count(Kind::Append), count(Kind::Message)), (1, 2));
        assert!(peer.attach(Kind::Append, 3), "a newer connection replaces the older");
        let mut taken = Vec::new();
        assert!(!peer.take(Kind::Append, 2, 1000, &mut taken, Waker::noop()));
        assert!(peer.take(Kind::Append, 3, 1000, &mut taken, Waker::noop()));
        assert_eq!(taken.len(), 1, "what waited goes over the newer one");
        assert_eq!(peer.detach(Kind::Append, 2), None);
        assert_eq!(peer.detach(Kind::Message, 1), Some(2));
    }

    #[test]
    fn a_slow_peer_costs_bounded_memory() {
        let peer = peer();
        peer.attach(Kind::Append, 1);
        let big = message(MessageType::MsgApp, 1 << 20);
        let taken = (0..1000).take_while(|_| peer.send(big.clone()).is_none()).count();
        assert!((60..=64).contains(&taken), "{taken} messages of a megabyte");
        peer.attach(Kind::Message, 1);
        let small = message(MessageType::MsgHeartbeat, 1);
        let taken = (0..10_000).take_while(|_| peer.send(small.clone()).is_none()).count();
        assert_eq!(taken, STREAM_QUEUE);
        assert_eq!(peer.detach(Kind::Message, 1), Some(STREAM_QUEUE));
        let taken = (0..10_000).take_while(|_| peer.send(small.clone()).is_none()).count();
        assert_eq!(taken, PIPELINE_QUEUE);
    }
}
