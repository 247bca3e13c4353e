//! Databases between members: `POST /raft/snapshot`, a message with its length, then the file to the end of the body.
//!
//! Neither side holds more than a few pieces of the file. The receiver writes under a preliminary name; only a body
//! that came in full gets the name that makes the file count, durably, before raft hears of the snapshot.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api::raftpb::{Message, MessageType};
use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use disk::Disk;
use http_body_util::BodyExt;
use hyper::body::Frame;
use prost::Message as _;
use tokio::sync::mpsc;

use super::client::{self, field};
use super::codec::{self, snapshot_head};
use super::peer::Peer;
use super::pipeline;
use super::transport::{Inner, kind_name};
use crate::logging::{Field, human_bytes};

/// Bytes of the file in one piece.
const PIECE: usize = 256 << 10;
/// Pieces that wait between the file and the connection.
const PIECES: usize = 4;
/// Most bytes that the message at the head may say it has, as in etcd.
const HEAD_MAX: u64 = 64 << 20;
/// Received databases that may wait to be installed; none of them is removed before. A member whose log has no room, or
/// that is busy for long, is sent another one now and then.
pub(super) const RECEIVED_MAX: usize = 16;
/// Longest time that a sender or receiver may make no progress: its disk may be busy.
const STALL: Duration = Duration::from_secs(60);
/// Longest wait for the answer, beside a second for each mebibyte that is sent before: the receiver syncs the file.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait for the body of the answer, as in etcd, and its most bytes.
const ANSWER_BODY_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_MAX: usize = 64 << 10;

/// The body of a request whose pieces another thread reads.
struct Pieces(mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }
}

/// Sends one and tells the member thread how that went.
pub(super) async fn send(inner: Arc<Inner>, peer: Arc<Peer>, message: Message, database: bolt::View) {
    let start = Instant::now();
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let index = metadata.map_or(0, api::raftpb::SnapshotMetadata::index);
    let bytes = message.encoded_len() as u64 + database.stream_len();
    let mut fields: Vec<Field<'static>> = vec![
        ("snapshot-index", index.into()),
        ("remote-peer-id", peer.field()),
        ("bytes", bytes.into()),
        ("size", human_bytes(bytes).into()),
    ];
    inner.logger.info("sending database snapshot", &fields);
    let counts = &peer.counts.snapshots_sent;
    counts.inflight.add(1);
    let sent = tokio::select! {
        () = peer.stopped() => Err("context canceled".to_string()),
        sent = post(&inner, &peer, &message, database) => sent,
    };
    counts.inflight.add(-1);
    counts.ended(sent.is_ok(), start.elapsed());
    match sent {
        Ok(()) => {
            peer.activate(&inner);
            peer.counts.sent_bytes.add(bytes);
            inner.logger.info("sent database snapshot", &fields);
            inner.snapshot_done(peer.id, true);
        }
        Err(why) => {
            fields.push(("error", (&why).into()));
            inner.logger.warn("failed to send database snapshot", &fields);
            peer.deactivate(&inner, "sendMsgSnap", "post", &why);
            peer.counts.sent_failures.add(1);
            inner.unreachable(peer.id);
            inner.snapshot_done(peer.id, false);
        }
    }
}

async fn post(inner: &Arc<Inner>, peer: &Peer, message: &Message, database: bolt::View) -> Result<(), String> {
    let url = peer.urls.lock().pick().ok_or("the peer has no address")?;
    let (tell, pieces) = mpsc::channel(PIECES);
    let timeout = ANSWER_TIMEOUT + Duration::from_secs(database.stream_len() >> 20);
    let mut head = BytesMut::new();
    codec::put_message(message, &mut head);
    let head = head.freeze();
    // Ends when the receiver of the channel is gone.
    drop(tokio::task::spawn_blocking(move || read(&database, head, &tell)));
    let mut request = client::request(Method::POST, &url, "/raft/snapshot", Body::new(Pieces(pieces)));
    inner.identity.sign(request.headers_mut());
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let answered = async {
        let response = inner.dialer.patient(STALL).request(&url, request, timeout).await?;
        let (head, body) = response.into_parts();
        let text = client::whole(body, ANSWER_MAX, ANSWER_BODY_TIMEOUT).await?;
        pipeline::check(inner, peer, head.status, field(&head.headers, "x-etcd-cluster-id"), &text)
    };
    let answered = answered.await;
    if answered.is_err() {
        peer.urls.lock().unreachable(&url);
    }
    answered
}

/// The head, then the file piece by piece, as fast as the connection takes them.
fn read(database: &bolt::View, head: Bytes, tell: &mpsc::Sender<Result<Bytes, std::io::Error>>) {
    if tell.blocking_send(Ok(head)).is_err() {
        return;
    }
    let mut offset = 0;
    while offset < database.stream_len() {
        let mut piece = vec![0; PIECE];
        let read = database.read_chunk(offset, &mut piece).map_err(|error| std::io::Error::other(error.to_string()));
        let piece = read.map(|len| {
            piece.truncate(len);
            offset += len as u64;
            Bytes::from(piece)
        });
        let failed = piece.is_err();
        if tell.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}

/// Why a snapshot was not taken: the answer to its sender.
pub(crate) type Refusal = (StatusCode, String);

/// Where received databases go.
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    /// What this member has applied.
    pub(crate) applied: u64,
}

/// Takes a snapshot from the body of a request: saves the database, then hands the message to the member thread.
pub(crate) async fn receive(inner: &Inner, place: Place, mut body: Body) -> Result<(), Refusal> {
    let start = Instant::now();
    let mut buffer = BytesMut::new();
    let message = match head(&mut body, &mut buffer).await {
        Ok(message) => message,
        Err(why) => {
            let nobody = ("remote-snapshot-sender-id", "0".into());
            let fields = [("local-member-id", inner.field()), nobody, ("error", (&why).into())];
            inner.logger.warn("failed to decode Raft message", &fields);
            inner.counts.of(0).snapshots_received.failed.add(1);
            return Err((StatusCode::BAD_REQUEST, format!("failed to decode raft message ({why})\n")));
        }
    };
    let counts = inner.counts.of(message.from());
    let received = &counts.snapshots_received;
    let sender = api::ids::hex(message.from()).to_string();
    let who = [("local-member-id", inner.field()), ("remote-snapshot-sender-id", (&sender).into())];
    if message.r#type.unwrap_or(0) != MessageType::MsgSnap as i32 {
        let mut fields = who.to_vec();
        fields.push(("message-type", kind_name(&message).into()));
        inner.logger.warn("unexpected Raft message type", &fields);
        received.failed.add(1);
        return Err((StatusCode::BAD_REQUEST, "wrong raft message type\n".into()));
    }
    received.inflight.add(1);
    let taken = take(inner, place, &who, message, (body, buffer), start).await;
    received.inflight.add(-1);
    received.ended(taken.is_ok(), start.elapsed());
    taken
}

/// What follows the head.
async fn take(
    inner: &Inner,
    place: Place,
    who: &[Field<'static>],
    message: Message,
    rest: (Body, BytesMut),
    start: Instant,
) -> Result<(), Refusal> {
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let index = metadata.map_or(0, api::raftpb::SnapshotMetadata::index);
    let size = message.encoded_len() as u64;
    let mut fields = who.to_vec();
    fields.push(("incoming-snapshot-index", index.into()));
    let mut begun = fields.clone();
    begun.push(("incoming-snapshot-message-size-bytes", size.into()));
    begun.push(("incoming-snapshot-message-size", human_bytes(size).into()));
    inner.logger.info("receiving database snapshot", &begun);
    if let Err(why) = inner.check(&message) {
        fields.push(("error", why.into()));
        inner.logger.warn("failed to process Raft message", &fields);
        return Err((StatusCode::INTERNAL_SERVER_ERROR, format!("failed to process raft message ({why})\n")));
    }
    let saved = match index {
        0 => Err("the snapshot says no index".to_string()),
        _ => match inner.snapshots_in.try_acquire() {
            Ok(_permit) if inner.has_room_for(index, place.applied) => save(inner, place, index, rest).await,
            Ok(_) => Err(format!("{RECEIVED_MAX} received databases wait to be installed")),
            Err(_) => Err("too many snapshots at a time".to_string()),
        },
    };
    let bytes = match saved {
        Ok(bytes) => bytes,
        Err(why) => {
            fields.push(("error", (&why).into()));
            inner.logger.warn("failed to save incoming database snapshot", &fields);
            return Err((StatusCode::INTERNAL_SERVER_ERROR, format!("failed to save KV snapshot ({why})\n")));
        }
    };
    let took = crate::config::value::format_duration(start.elapsed());
    fields.push(("incoming-snapshot-size-bytes", bytes.into()));
    fields.push(("incoming-snapshot-size", human_bytes(bytes).into()));
    fields.push(("download-took", took.into()));
    inner.logger.info("received and saved database snapshot", &fields);
    inner.counts.of(message.from()).received_bytes.add(size + bytes);
    inner.snapshot_received(message);
    Ok(())
}

/// Reads up to the end of the head; what lies beyond it stays in the buffer.
async fn head(body: &mut Body, buffer: &mut BytesMut) -> Result<Message, String> {
    loop {
        if let Some(message) = snapshot_head(buffer, HEAD_MAX).map_err(|malformed| malformed.to_string())? {
            return Ok(message);
        }
        match next(body).await {
            Ok(Some(bytes)) => buffer.extend_from_slice(&bytes),
            _ if buffer.is_empty() => return Err("EOF".into()),
            _ => return Err("unexpected EOF".into()),
        }
    }
}

/// The next bytes; `None` at the proper end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, String> {
    loop {
        match tokio::time::timeout(STALL, body.frame()).await {
            Err(_) => return Err("i/o timeout".into()),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err("unexpected EOF".into()),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// A part of the file on its way to the thread that writes it. Without the last one the file is worth nothing.
enum Part {
    Bytes(Bytes),
    End,
}

async fn save(inner: &Inner, place: Place, index: u64, (mut body, buffer): (Body, BytesMut)) -> Result<u64, String> {
    let (tell, parts) = mpsc::channel(PIECES);
    let (logger, counts) = (inner.logger.clone(), inner.counts.clone());
    let writer = tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        let (path, bytes, fsync) = write(&place, index, parts)?;
        counts.db_fsync.observe(fsync);
        counts.db_save.observe(start.elapsed());
        let path = path.display().to_string();
        let fields = [("path", path.into()), ("bytes", bytes.into()), ("size", human_bytes(bytes).into())];
        logger.info("saved database snapshot to disk", &fields);
        Ok(bytes)
    });
    let mut piece = Some(buffer.freeze());
    let mut broken = None;
    while let Some(bytes) = piece.take() {
        if tell.send(Part::Bytes(bytes)).await.is_err() {
            break;
        }
        match next(&mut body).await {
            Ok(more) => piece = more,
            Err(why) => broken = Some(why),
        }
    }
    if broken.is_none() {
        // Refused only when the writer has failed, which says so itself.
        let _gone = tell.send(Part::End).await;
    }
    drop(tell);
    let written = writer.await.map_err(|_| "the writer ended early".to_string())?;
    broken.map_or(written, Err)
}

/// Writes what comes; gives path, length and the time of the sync.
fn write(place: &Place, index: u64, mut parts: mpsc::Receiver<Part>) -> Result<(PathBuf, u64, Duration), String> {
    let mut file = wal::snap::ReceivedDb::create(&*place.disk, &place.dir).map_err(|error| error.to_string())?;
    loop {
        match parts.blocking_recv() {
            Some(Part::Bytes(bytes)) => file.write(&bytes).map_err(|error| error.to_string())?,
            Some(Part::End) => break,
            None => return Err("unexpected EOF".into()),
        }
    }
    let (bytes, start) = (file.len(), Instant::now());
    let path = file.finish(index).map_err(|error| error.to_string())?;
    Ok((path, bytes, start.elapsed()))
}
