//! The peers of this member, and what passes between them and the member thread.
//!
//! Invariants:
//! - [`Transport::send`] waits for nothing: it puts a batch where the peers' thread finds it, with one lock and at most
//!   one wake-up. Beyond a bound messages are dropped.
//! - Messages that were handed to the member thread and not yet taken are bounded in bytes; beyond that they are
//!   dropped, as if the network had lost them.
//! - Messages of members that were removed, or for another member, go no further.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use api::raftpb::{Message, MessageType};
use api::version::Version;
use axum::body::Body;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};

use super::client::Dialer;
use super::codec::weight;
use super::peer::{Kind, Peer, Urls};
use super::stream::Carrier;
use super::{Identity, pipeline, probe, serve, snapshot, stream};
use crate::logging::{Logger, Value};
use crate::member::handle::{MemberInput, Shared};
use crate::member::mailbox::ThreadMailbox;
use crate::metrics;
use crate::net::listen::Guarded;
use crate::runtime;

/// Bytes of messages that the peers' thread has not looked at yet. It looks all the time.
const OUTGOING_BYTES: usize = 256 << 20;
/// Bytes of messages that the member thread has not taken yet.
const INBOUND_BYTES: usize = 64 << 20;
/// Senders that are known by their own word only.
const REMOTES_MAX: usize = 64;
/// Addresses that such a sender may give.
const REMOTE_URLS_MAX: usize = 16;
/// Databases on their way to peers at one time, as in etcd; and from peers.
const SNAPSHOTS_OUT: usize = 16;
const SNAPSHOTS_IN: usize = 4;

/// What the transport starts from.
pub(crate) struct Local {
    pub(crate) member_id: u64,
    pub(crate) cluster_id: u64,
    pub(crate) version: Version,
    pub(crate) peer_urls: Vec<String>,
    pub(crate) dialer: Dialer,
    pub(crate) logger: Logger,
    pub(crate) counts: Arc<metrics::Peers>,
    /// Where messages of peers go.
    pub(crate) member: Arc<ThreadMailbox<MemberInput>>,
}

/// What all tasks of the transport share.
pub(crate) struct Inner {
    pub(super) identity: Identity,
    pub(super) dialer: Dialer,
    pub(super) logger: Logger,
    pub(super) counts: Arc<metrics::Peers>,
    member: Arc<ThreadMailbox<MemberInput>>,
    peers: RwLock<BTreeMap<u64, Arc<Peer>>>,
    remotes: RwLock<BTreeMap<u64, Arc<Peer>>>,
    removed: RwLock<BTreeSet<u64>>,
    outgoing: Mutex<Outgoing>,
    outgoing_ready: Notify,
    inbound: AtomicUsize,
    carriers: AtomicU64,
    is_expelled: AtomicBool,
    expelled: Notify,
    pub(super) snapshots_out: Arc<Semaphore>,
    pub(super) snapshots_in: Semaphore,
    /// Indexes of databases that this process has received and perhaps not installed.
    received: Mutex<BTreeSet<u64>>,
    stop: watch::Sender<bool>,
}

/// Messages on their way to the peers' thread.
#[derive(Default)]
struct Outgoing {
    messages: Vec<Message>,
    bytes: usize,
}

/// See the head of this file.
pub(crate) struct Transport {
    inner: Arc<Inner>,
    runtime: tokio::runtime::Handle,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Transport {
    /// Starts the thread; there are no peers yet.
    pub(crate) fn new(local: Local) -> Transport {
        let runtime = runtime::of_one_thread();
        let handle = runtime.handle().clone();
        let inner = Arc::new(Inner {
            identity: Identity::new(local.member_id, local.cluster_id, local.version, &local.peer_urls),
            dialer: local.dialer,
            logger: local.logger,
            counts: local.counts,
            member: local.member,
            peers: RwLock::default(),
            remotes: RwLock::default(),
            removed: RwLock::default(),
            outgoing: Mutex::default(),
            outgoing_ready: Notify::new(),
            inbound: AtomicUsize::new(0),
            carriers: AtomicU64::new(0),
            is_expelled: AtomicBool::new(false),
            expelled: Notify::new(),
            snapshots_out: Arc::new(Semaphore::new(SNAPSHOTS_OUT)),
            snapshots_in: Semaphore::new(SNAPSHOTS_IN),
            received: Mutex::default(),
            stop: watch::Sender::new(false),
        });
        let for_thread = inner.clone();
        let run = move || {
            runtime.block_on(route(for_thread));
            // What still reads or writes a file ends by itself.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("peers".into()).spawn(run).expect("a thread can be started");
        Transport { inner, runtime: handle, thread: Mutex::new(Some(thread)) }
    }

    /// Accepts peers on these sockets, for as long as the transport runs.
    pub(crate) fn serve(&self, listeners: Vec<Guarded>, shared: &Arc<Shared>) {
        for listener in listeners {
            self.runtime.spawn(serve::accept(listener, shared.clone(), self.inner.clone()));
        }
        let (inner, shared) = (self.inner.clone(), shared.clone());
        self.runtime.spawn(async move {
            inner.expelled.notified().await;
            shared.say_removed();
        });
    }

    /// Sends messages, each to the peer it names. What finds no room is dropped.
    pub(crate) fn send(&self, messages: Vec<Message>) {
        let mut outgoing = self.inner.outgoing.lock();
        let was_empty = outgoing.messages.is_empty();
        let mut dropped = BTreeSet::new();
        for message in messages {
            if outgoing.bytes >= OUTGOING_BYTES {
                dropped.insert(message.to());
                continue;
            }
            outgoing.bytes += weight(&message);
            outgoing.messages.push(message);
        }
        drop(outgoing);
        if was_empty {
            self.inner.outgoing_ready.notify_one();
        }
        dropped.into_iter().for_each(|id| self.inner.unreachable(id));
    }

    /// Sends a snapshot and the database it speaks of; the member thread is told how that ended.
    pub(crate) fn send_snapshot(&self, message: Message, database: bolt::View) {
        let to = message.to();
        let permit = self.inner.snapshots_out.clone().try_acquire_owned();
        match (self.inner.known(to), permit) {
            (Some(peer), Ok(permit)) => {
                let inner = self.inner.clone();
                self.runtime.spawn(async move {
                    snapshot::send(inner, peer, message, database).await;
                    drop(permit);
                });
            }
            _ => self.inner.member.push(MemberInput::SnapshotDone { to, ok: false }),
        }
    }

    /// Follows a member from now on.
    pub(crate) fn add_peer(&self, id: u64, urls: Vec<String>) {
        let inner = &self.inner;
        if id == inner.identity.member || inner.peers.read().contains_key(&id) {
            return;
        }
        let peer = Arc::new(Peer::new(id, &urls, false, inner.counts.of(id)));
        inner.logger.info("starting remote peer", &[("remote-peer-id", peer.field())]);
        inner.logger.info("started HTTP pipelining with remote peer", &inner.both(&peer));
        inner.peers.write().insert(id, peer.clone());
        let remote = inner.remotes.write().remove(&id);
        if let Some(remote) = remote {
            remote.stop(inner);
        }
        for kind in Kind::BOTH {
            inner.logger.info("started stream writer with remote peer", &inner.both(&peer));
            self.runtime.spawn(stream::read(inner.clone(), peer.clone(), kind));
        }
        self.start_workers(&peer);
        for round_tripper in probe::ROUND_TRIPPERS {
            self.runtime.spawn(probe::run(inner.clone(), peer.clone(), round_tripper));
        }
        inner.logger.info("started remote peer", &[("remote-peer-id", peer.field())]);
        let mut fields = inner.both(&peer).to_vec();
        fields.push(("remote-peer-urls", urls.into()));
        inner.logger.info("added remote peer", &fields);
    }

    fn start_workers(&self, peer: &Arc<Peer>) {
        for _ in 0..pipeline::WORKERS {
            self.runtime.spawn(pipeline::work(self.inner.clone(), peer.clone()));
        }
    }

    /// A member has other addresses from now on.
    pub(crate) fn update_peer(&self, id: u64, urls: Vec<String>) {
        let inner = &self.inner;
        let Some(peer) = inner.peers.read().get(&id).cloned() else { return };
        *peer.urls.lock() = Urls::new(&urls);
        inner.logger.info(
            "updated remote peer",
            &[
                ("local-member-id", inner.field()),
                ("updated-remote-peer-id", peer.field()),
                ("updated-remote-peer-urls", urls.into()),
            ],
        );
    }

    /// A member is none any more: nothing of it is taken, and its streams end.
    pub(crate) fn remove_peer(&self, id: u64) {
        self.inner.removed.write().insert(id);
        self.forget(id);
    }

    fn forget(&self, id: u64) {
        let inner = &self.inner;
        let Some(peer) = inner.peers.write().remove(&id) else { return };
        peer.stop(inner);
        let fields = [("local-member-id", inner.field()), ("removed-remote-peer-id", peer.field())];
        inner.logger.info("removed remote peer", &fields);
    }

    /// Forgets all peers: another set of them follows.
    pub(crate) fn remove_all(&self) {
        let all: Vec<u64> = self.inner.peers.read().keys().copied().collect();
        all.into_iter().for_each(|id| self.forget(id));
    }

    /// Members that were removed before this start.
    pub(crate) fn set_removed(&self, ids: impl IntoIterator<Item = u64>) {
        self.inner.removed.write().extend(ids);
    }

    /// Somebody who may become a peer and must get answers until then. False when there are too many of them.
    pub(crate) fn add_remote(&self, id: u64, urls: Vec<String>) -> bool {
        let inner = &self.inner;
        if id == inner.identity.member || inner.known(id).is_some() || inner.removed.read().contains(&id) {
            return true;
        }
        let mut remotes = inner.remotes.write();
        if remotes.len() >= REMOTES_MAX || urls.len() > REMOTE_URLS_MAX {
            return false;
        }
        let peer = Arc::new(Peer::new(id, &urls, true, inner.counts.of(id)));
        remotes.insert(id, peer.clone());
        drop(remotes);
        self.start_workers(&peer);
        let mut fields = inner.both(&peer).to_vec();
        fields.push(("remote-peer-urls", urls.into()));
        inner.logger.info("added new remote peer", &fields);
        true
    }

    /// Whether the id is that of a peer, which alone may have streams.
    pub(crate) fn is_peer(&self, id: u64) -> bool {
        self.inner.peers.read().contains_key(&id)
    }

    /// The body of the answer to a peer that asks for a stream; `None` for strangers.
    pub(crate) fn attach(&self, from: u64, kind: Kind) -> Option<Body> {
        let peer = self.inner.peers.read().get(&from).cloned()?;
        Some(Body::new(Carrier::attach(&self.inner, peer, kind)))
    }

    /// A message that came by a request of its own. The error says why it goes no further.
    pub(crate) fn accept(&self, message: Message, bytes: usize) -> Result<(), &'static str> {
        self.inner.check(&message)?;
        self.inner.counts.of(message.from()).received_bytes.add(bytes as u64);
        self.inner.deliver(None, &mut vec![message]);
        Ok(())
    }

    /// What makes connections to peers.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.inner.dialer
    }

    /// A database received, as [`snapshot::receive`] does it; the member thread is told.
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The member thread has taken a message.
    pub(crate) fn taken(&self, message: &Message) {
        let weight = weight(message);
        let taken = |inbound: usize| Some(inbound.saturating_sub(weight));
        let _always = self.inner.inbound.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
    }

    /// Since when a peer is known to be there.
    pub(crate) fn active_since(&self, id: u64) -> Option<Instant> {
        self.inner.peers.read().get(&id)?.active_since()
    }

    /// Ends all connections and the thread.
    pub(crate) fn stop(&self) {
        self.remove_all();
        for remote in std::mem::take(&mut *self.inner.remotes.write()).into_values() {
            remote.stop(&self.inner);
        }
        self.inner.stop.send_replace(true);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            self.inner.logger.error("a thread ended with a panic", &[]);
        }
    }
}

/// The main task of the thread: messages of the member thread go to their peers.
async fn route(inner: Arc<Inner>) {
    let mut stop = inner.stop.subscribe();
    let mut dropped = BTreeSet::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return,
            () = inner.outgoing_ready.notified() => {}
        }
        let batch = std::mem::take(&mut *inner.outgoing.lock());
        for message in batch.messages {
            inner.route(message, &mut dropped);
        }
        std::mem::take(&mut dropped).into_iter().for_each(|id| inner.unreachable(id));
    }
}

impl Inner {
    /// Whether one more database may be received, and that it is, when this member has applied so much.
    pub(super) fn has_room_for(&self, index: u64, applied: u64) -> bool {
        let mut received = self.received.lock();
        received.retain(|received| *received > applied);
        let has_room = received.len() < snapshot::RECEIVED_MAX || received.contains(&index);
        if has_room && index > applied {
            received.insert(index);
        }
        has_room
    }

    /// A peer, or else a remote.
    pub(super) fn known(&self, id: u64) -> Option<Arc<Peer>> {
        let peer = self.peers.read().get(&id).cloned();
        peer.or_else(|| self.remotes.read().get(&id).cloned())
    }

    fn route(&self, message: Message, dropped: &mut BTreeSet<u64>) {
        let to = message.to();
        let Some(peer) = self.known(to) else { return };
        if let Some((message, way)) = peer.send(message) {
            peer.counts.sent_failures.add(1);
            dropped.insert(to);
            self.logger.warn(
                "dropped internal Raft message since sending buffer is full",
                &[
                    ("message-type", kind_name(&message).into()),
                    ("local-member-id", self.field()),
                    ("from", api::ids::hex(message.from()).to_string().into()),
                    ("remote-peer-id", peer.field()),
                    ("remote-peer-name", way.into()),
                    ("remote-peer-active", peer.active_since().is_some().into()),
                ],
            );
        }
    }

    /// Raft is told that a peer did not get what it was sent.
    pub(super) fn unreachable(&self, id: u64) {
        self.member.push(MemberInput::Unreachable(id));
    }

    /// The member thread is told how a snapshot fared.
    pub(super) fn snapshot_done(&self, to: u64, ok: bool) {
        self.member.push(MemberInput::SnapshotDone { to, ok });
    }

    /// A snapshot has arrived, its database is saved.
    pub(super) fn snapshot_received(&self, message: Message) {
        self.member.push(MemberInput::ReceivedSnapshot(message));
    }

    /// Whether a message may go to the member thread.
    pub(super) fn check(&self, message: &Message) -> Result<(), &'static str> {
        if self.removed.read().contains(&message.from()) {
            let removed = api::ids::hex(message.from()).to_string();
            let fields = [("local-member-id", self.field()), ("removed-member-id", removed.into())];
            self.logger.warn("rejected Raft message from removed member", &fields);
            return Err("cannot process message from removed member");
        }
        if message.to() != self.identity.member {
            let meant = api::ids::hex(message.to()).to_string();
            let fields = [("local-member-id", self.field()), ("mismatch-member-id", meant.into())];
            self.logger.warn("rejected Raft message to mismatch member", &fields);
            return Err("cannot process message to mismatch member");
        }
        Ok(())
    }

    /// Hands messages to the member thread, as far as they may go there and find room; `from` is whose stream they
    /// came over.
    pub(super) fn deliver(&self, from: Option<&Peer>, batch: &mut Vec<Message>) {
        let mut inputs = Vec::with_capacity(batch.len());
        for message in batch.drain(..) {
            if let Err(why) = self.check(&message) {
                self.logger.warn("failed to process Raft message", &[("error", why.into())]);
                continue;
            }
            if self.inbound.load(Ordering::Relaxed) >= INBOUND_BYTES {
                self.say_overloaded(&message, from);
                continue;
            }
            self.inbound.fetch_add(weight(&message), Ordering::Relaxed);
            inputs.push(MemberInput::Peer(message));
        }
        self.member.push_all(&mut inputs);
    }

    fn say_overloaded(&self, message: &Message, from: Option<&Peer>) {
        self.counts.of(message.from()).received_failures.add(1);
        let sender = api::ids::hex(message.from()).to_string();
        self.logger.warn(
            "dropped internal Raft message since receiving buffer is full (overloaded network)",
            &[
                ("message-type", kind_name(message).into()),
                ("local-member-id", self.field()),
                ("from", (&sender).into()),
                ("remote-peer-id", from.map_or_else(|| sender.into(), Peer::field)),
                ("remote-peer-active", from.is_some_and(|peer| peer.active_since().is_some()).into()),
            ],
        );
    }

    /// A peer says that this member was removed: it stops.
    pub(super) fn expelled(&self) {
        if !self.is_expelled.swap(true, Ordering::AcqRel) {
            self.expelled.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn is_expelled(&self) -> bool {
        self.is_expelled.load(Ordering::Acquire)
    }

    /// A number that no connection before had.
    pub(super) fn next_carrier(&self) -> u64 {
        self.carriers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// This member as a field of a line.
    pub(super) fn field(&self) -> Value {
        (&self.identity.hex).into()
    }

    /// Both members as fields of a line.
    pub(super) fn both(&self, peer: &Peer) -> [(&'static str, Value); 2] {
        [("local-member-id", self.field()), ("remote-peer-id", peer.field())]
    }

    /// A stream and both members.
    pub(super) fn about(&self, end: &'static str, kind: Kind, peer: &Peer) -> [(&'static str, Value); 3] {
        let [local, remote] = self.both(peer);
        [(end, kind.name().into()), local, remote]
    }

    /// A peer refuses a stream for the reason it gives; gives the reason as it is kept.
    pub(super) fn say_refused(&self, peer: &Peer, cluster: &str, why: String) -> String {
        let error = ("error", Value::from(&why));
        match why.as_str() {
            "incompatible version" => {
                let [local, remote] = self.both(peer);
                let text = "request sent was ignored by remote peer due to server version incompatibility";
                self.logger.warn(text, &[local, remote, error]);
                why
            }
            "cluster ID mismatch" => {
                let fields = [
                    ("remote-peer-id", peer.field()),
                    ("remote-peer-cluster-id", cluster.into()),
                    ("local-member-id", self.field()),
                    ("local-member-cluster-id", (&self.identity.cluster).into()),
                    error,
                ];
                self.logger.warn("request sent was ignored by remote peer due to cluster ID mismatch", &fields);
                why
            }
            _ => format!("unhandled error {why:?} when precondition failed"),
        }
    }

    /// The same for a post.
    pub(super) fn say_ignored(&self, peer: &Peer, cluster: &str, why: String) -> String {
        match why.as_str() {
            "incompatible version" => {
                self.logger.error("request sent was ignored by peer", &[("remote-peer-id", peer.field())]);
                why
            }
            "cluster ID mismatch" => {
                let fields = [
                    ("remote-peer-id", peer.field()),
                    ("remote-peer-cluster-id", cluster.into()),
                    ("local-member-cluster-id", (&self.identity.cluster).into()),
                ];
                self.logger.error("request sent was ignored due to cluster ID mismatch", &fields);
                why
            }
            _ => format!("unhandled error {why:?} when precondition failed"),
        }
    }
}

/// The name of a message's type, for log lines.
pub(super) fn kind_name(message: &Message) -> String {
    let number = message.r#type.unwrap_or(0);
    MessageType::try_from(number).map_or_else(|_| number.to_string(), |kind| kind.as_str_name().into())
}
