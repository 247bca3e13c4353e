//! Transports that talk to each other, to members that answer oddly, and to nobody.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::*;
use crate::logging::Logger;
use crate::member::handle::MemberInput;
use crate::member::mailbox::ThreadMailbox;
use crate::metrics;

/// Long enough for anything on one machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A transport with its mailbox, and a peer port that knows streams and posts.
struct Node {
    id: u64,
    transport: Arc<Transport>,
    member: Arc<ThreadMailbox<MemberInput>>,
    counts: Arc<metrics::Peers>,
    url: String,
    runtime: tokio::runtime::Handle,
}

/// A runtime that runs on a thread of its own until the test process ends.
fn background() -> tokio::runtime::Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

/// Answers requests on a port of its own; gives the URL.
fn port<F>(runtime: &tokio::runtime::Handle, answer: impl Fn(hyper::Request<Incoming>) -> F + Clone + Send + 'static) -> String
where
    F: Future<Output = Response<Body>> + Send,
{
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(async move {
                drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await);
            });
        }
    });
    url
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response.headers_mut().insert("x-server-version", HeaderValue::from_static("3.7.3"));
    response
}

/// The part of the peer port that the transport needs.
async fn serve(transport: Arc<Transport>, request: hyper::Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_string();
    if let Some(rest) = path.strip_prefix("/raft/stream/") {
        let (kind, from) = rest.split_once('/').unwrap();
        let body = transport.attach(api::ids::parse_hex(from).unwrap(), Kind::of_path(kind).unwrap());
        let mut response = status(if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND });
        *response.body_mut() = body.unwrap_or_default();
        return response;
    }
    assert_eq!(path, "/raft");
    let body = client::whole(request.into_body(), 1 << 20, PATIENCE).await.unwrap();
    let message = prost::Message::decode(body).unwrap();
    status(if transport.accept(message, 1).is_ok() { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR })
}

impl Node {
    fn new(id: u64) -> Node {
        let runtime = background();
        let (member, counts) = (Arc::new(ThreadMailbox::default()), Arc::new(metrics::Peers::default()));
        let transport = Arc::new(Transport::new(Local {
            member_id: id,
            cluster_id: 7,
            version: api::version::SERVER,
            peer_urls: vec!["http://127.0.0.1:1".into()],
            dialer: Dialer::new(Duration::from_secs(1), crate::tls::ClientTls::for_tests()),
            logger: Logger::silent(),
            counts: counts.clone(),
            member: member.clone(),
        }));
        let served = transport.clone();
        let url = port(&runtime, move |request| serve(served.clone(), request));
        Node { id, transport, member, counts, url, runtime }
    }

    fn knows(&self, other: &Node) {
        self.transport.add_peer(other.id, vec![other.url.clone()]);
    }

    /// Messages and other inputs that have arrived, until there are so many or patience ends.
    fn inputs(&self, count: usize) -> Vec<MemberInput> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        while all.len() < count && Instant::now() < deadline {
            let mut batch = Vec::new();
            self.member.take_until(deadline, &mut batch);
            all.append(&mut batch);
        }
        assert!(all.len() >= count, "{} of {count} inputs arrived", all.len());
        all
    }

    fn messages(&self, count: usize) -> Vec<Message> {
        let inputs = self.inputs(count).into_iter();
        inputs.filter_map(|input| if let MemberInput::Peer(message) = input { Some(message) } else { None }).collect()
    }

    fn message(&self, to: &Node, kind: MessageType, index: u64) -> Message {
        let entry = Entry { index: Some(index), data: Some(vec![b'x'; 100].into()), ..Entry::default() };
        let entries = if kind == MessageType::MsgApp { vec![entry] } else { Vec::new() };
        let (from, to) = (Some(self.id), Some(to.id));
        Message {
            r#type: Some(kind as i32), from, to, term: Some(2), log_term: Some(2), index: Some(index), entries,
            ..Message::default()
        }
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_transports_talk_both_ways_over_streams() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.knows(&two);
    // The other does not know this one yet: a post still arrives.
    one.transport.send(vec![one.message(&two, MessageType::MsgVote, 1)]);
    assert_eq!(two.messages(1)[0].r#type(), MessageType::MsgVote);
    two.knows(&one);
    wait("streams stand", || {
        one.transport.active_since(2).is_some() && two.transport.active_since(1).is_some()
    });
    // All four of them: the first heartbeat of each link.
    wait("link heartbeats pass", || {
        one.counts.of(2).received_bytes.get() >= 11 && two.counts.of(1).received_bytes.get() >= 11
    });
    let appends: Vec<Message> = (1..=500).map(|index| one.message(&two, MessageType::MsgApp, index)).collect();
    for batch in appends.chunks(50) {
        one.transport.send(batch.to_vec());
    }
    one.transport.send(vec![one.message(&two, MessageType::MsgHeartbeat, 0)]);
    two.transport.send(vec![two.message(&one, MessageType::MsgAppResp, 9)]);
    let (heartbeats, received): (Vec<_>, Vec<_>) =
        two.messages(501).into_iter().partition(|message| message.r#type() == MessageType::MsgHeartbeat);
    assert_eq!(heartbeats.len(), 1);
    assert!(received.iter().map(Message::index).eq(1..=500), "appends keep their order");
    assert!(received[499].entries == appends[499].entries);
    assert_eq!(one.messages(1)[0].index(), 9);
    assert!(one.counts.of(2).sent_bytes.get() > 50_000 && two.counts.of(1).received_bytes.get() > 50_000);
    two.transport.stop();
    wait("the loss is seen", || one.transport.active_since(2).is_none());
    one.transport.stop();
}

#[test]
fn messages_of_removed_members_and_for_others_go_no_further() {
    let (one, two) = (Node::new(1), Node::new(2));
    let message = two.message(&one, MessageType::MsgVote, 1);
    assert_eq!(one.transport.accept(message.clone(), 1), Ok(()));
    assert!(one.transport.accept(Message { to: Some(9), ..message.clone() }, 1).is_err());
    one.knows(&two);
    one.transport.remove_peer(2);
    assert!(one.transport.accept(message, 1).is_err());
    assert!(one.transport.attach(2, Kind::Append).is_none());
    assert!(one.transport.add_remote(2, vec![two.url.clone()]));
    one.transport.send(vec![one.message(&two, MessageType::MsgVote, 1)]);
    assert_eq!(one.inputs(1).len(), 1, "only the first message is there");
    one.transport.stop();
    two.transport.stop();
}

#[test]
fn what_a_member_thread_does_not_take_is_bounded() {
    let (one, two) = (Node::new(1), Node::new(2));
    let entry = Entry { data: Some(vec![0; 8 << 20].into()), ..Entry::default() };
    let big = Message { entries: vec![entry], ..two.message(&one, MessageType::MsgApp, 1) };
    for _ in 0..20 {
        one.transport.accept(big.clone(), 1).unwrap();
    }
    let taken = one.inputs(1);
    assert_eq!(taken.len(), 8, "64 MiB and no more");
    assert_eq!(one.counts.of(2).received_failures.get(), 12);
    one.transport.taken(&big);
    one.transport.accept(big.clone(), 1).unwrap();
    assert_eq!(one.inputs(1).len(), 1, "room that was given back is used");
    one.transport.stop();
    two.transport.stop();
}

#[test]
fn a_peer_that_is_not_there_is_reported_and_costs_nothing() {
    let (one, gone) = (Node::new(1), Node::new(2));
    one.transport.add_peer(2, vec!["http://127.0.0.1:9".into()]);
    for _ in 0..10 {
        one.transport.send((0..100).map(|index| one.message(&gone, MessageType::MsgApp, index)).collect());
    }
    assert!(one.inputs(2).iter().all(|input| matches!(input, MemberInput::Unreachable(2))));
    assert!(one.transport.active_since(2).is_none());
    // 64 wait, 4 are under way.
    wait("what does not fit is dropped", || one.counts.of(2).sent_failures.get() > 900);
    one.transport.update_peer(2, vec![gone.url.clone()]);
    gone.knows(&one);
    wait("another address is tried", || one.transport.active_since(2).is_some());
    one.transport.stop();
    gone.transport.stop();
}

#[test]
fn odd_answers_are_survived_and_an_expelled_member_learns_of_it() {
    let one = Node::new(1);
    let odd = |answer: fn() -> Response<Body>| port(&one.runtime, move |_| async move { answer() });
    let garbage = port(&one.runtime, |_| async { status(StatusCode::OK).map(|_| Body::from(vec![b'?'; 100_000])) });
    one.transport.add_peer(2, vec![garbage]);
    one.transport.add_peer(3, vec![odd(|| status(StatusCode::IM_A_TEAPOT))]);
    one.transport.add_peer(4, vec![odd(|| Response::new(Body::empty()))]);
    wait("garbage is counted", || one.counts.of(2).received_failures.get() > 2);
    std::thread::sleep(Duration::from_millis(300));
    assert!([3, 4].iter().all(|id| one.transport.active_since(*id).is_none()));
    assert!(!one.transport.inner().is_expelled());
    one.transport.add_peer(5, vec![odd(|| status(StatusCode::GONE))]);
    wait("410 is understood", || one.transport.inner().is_expelled());
    one.transport.stop();
}

#[test]
fn a_newer_connection_takes_the_stream_over() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.transport.add_peer(2, vec!["http://127.0.0.1:9".into()]);
    let open = || {
        let url = crate::config::value::parse_url(&one.url).unwrap();
        let mut request = client::request(axum::http::Method::GET, &url, "/raft/stream/message/2", Body::empty());
        one.transport.inner().identity.sign(request.headers_mut());
        one.runtime.block_on(one.transport.dialer().request(&url, request, PATIENCE)).unwrap().into_body()
    };
    let older = open();
    let mut newer = open();
    let rest = one.runtime.block_on(client::whole(older, 1 << 20, PATIENCE)).unwrap();
    assert!(rest.is_empty(), "the older one ends");
    one.transport.send(vec![one.message(&two, MessageType::MsgVote, 5)]);
    let frame = one.runtime.block_on(http_body_util::BodyExt::frame(&mut newer)).unwrap().unwrap();
    let bytes = frame.into_data().unwrap();
    assert_eq!(u64::from_be_bytes(bytes[..8].try_into().unwrap()) as usize, bytes.len() - 8);
    let frame = one.runtime.block_on(http_body_util::BodyExt::frame(&mut newer)).unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap()[..], [0, 0, 0, 0, 0, 0, 0, 2, 8, 8], "silence is broken by link heartbeats");
    one.transport.stop();
    two.transport.stop();
}

/// A body that a test writes.
struct Written(mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl hyper::body::Body for Written {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }
}

#[test]
fn a_snapshot_counts_only_when_it_came_in_full() {
    let one = Node::new(1);
    let disk: Arc<dyn disk::Disk> = Arc::new(disk::mem::MemDisk::new());
    let dir = PathBuf::from("/snap");
    disk.create_dir_all(&dir, 0o700).unwrap();
    let metadata = SnapshotMetadata { index: Some(0x9e), term: Some(3), ..SnapshotMetadata::default() };
    let message = Message {
        r#type: Some(MessageType::MsgSnap as i32), from: Some(2), to: Some(1), term: Some(3),
        snapshot: Some(Snapshot { data: None, metadata: Some(metadata) }),
        ..Message::default()
    };
    let mut bytes = BytesMut::new();
    codec::put_message(&message, &mut bytes);
    bytes.extend_from_slice(&[b'd'; 1000]);
    let bytes = bytes.freeze();
    let send = |pieces: Vec<Result<Bytes, std::io::Error>>| {
        let (tell, written) = mpsc::channel(pieces.len() + 1);
        pieces.into_iter().for_each(|piece| tell.try_send(piece).unwrap());
        drop(tell);
        let place = snapshot::Place { disk: disk.clone(), dir: dir.clone(), applied: 0 };
        one.runtime.block_on(snapshot::receive(one.transport.inner(), place, Body::new(Written(written))))
    };
    let cut = || Err(std::io::ErrorKind::ConnectionReset.into());
    for at in [0, 3, 8, 20, bytes.len() - 1000, bytes.len() - 1, bytes.len()] {
        let refused = send(vec![Ok(bytes.slice(..at)), cut()]).unwrap_err();
        let in_head = at < bytes.len() - 1000;
        assert_eq!(refused.0, if in_head { StatusCode::BAD_REQUEST } else { StatusCode::INTERNAL_SERVER_ERROR }, "{at}: {}", refused.1);
        assert!(disk.read_dir(&dir).unwrap().is_empty(), "cut at {at}: nothing is left");
    }
    assert_eq!(one.counts.of(2).snapshots_received.failed.get(), 3);
    send(bytes.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()).unwrap();
    assert_eq!(disk.read_dir(&dir).unwrap(), ["000000000000009e.snap.db"]);
    assert!(matches!(&one.inputs(1)[..], [MemberInput::ReceivedSnapshot(received)] if *received == message));
    let mut other = BytesMut::new();
    codec::put_message(&Message { r#type: Some(8), ..message.clone() }, &mut other);
    assert_eq!(send(vec![Ok(other.freeze())]).unwrap_err(), (StatusCode::BAD_REQUEST, "wrong raft message type\n".into()));
    let mut elsewhere = BytesMut::new();
    codec::put_message(&Message { to: Some(9), ..message }, &mut elsewhere);
    assert_eq!(send(vec![Ok(elsewhere.freeze())]).unwrap_err().0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(disk.read_dir(&dir).unwrap().len(), 1);
    one.transport.stop();
}
