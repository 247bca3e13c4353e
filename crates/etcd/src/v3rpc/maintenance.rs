//! `etcdserverpb.Maintenance`: status from the published state, alarms through the log, hashes, snapshots and
//! defragmentation by workers of their own.

use std::sync::Arc;
use std::time::Instant;

use api::Status;
use api::error::{Code, ErrorCode};
use api::etcdserverpb as pb;
use bytes::Bytes;
use etcdserver::apply::policy::field;
use etcdserver::apply::reply::put_header;
use etcdserver::effect::ReplyTo;
use grpc::Replies;
use mvcc::schema::StorageVersion;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{Clients, Desk, Handler, Waiting};
use crate::logging::human_bytes;
use crate::member::handle::{Mail, Shared, State};

/// Bytes of the file in one message of a snapshot, as in etcd.
const SNAPSHOT_CHUNK_BYTES: usize = 32 << 10;
/// Messages of a snapshot that may be between the reader and the client's socket.
const SNAPSHOT_CHUNKS_AHEAD: usize = 64;
/// Bytes queued for a snapshot beyond which the reader waits.
const SNAPSHOT_QUEUE_BYTES: usize = 1 << 20;

/// What a worker did for a call.
pub(crate) enum Done {
    /// The answer, or why there is none.
    Answer(Result<Bytes, Status>),
    /// The next message of a stream.
    Chunk(Bytes),
    /// The end of a stream.
    End(Result<(), Status>),
}

/// A stream that a worker feeds: how many more messages the worker may send.
pub(crate) struct Feed {
    permits: Arc<Semaphore>,
    /// Messages delivered while too much was queued: their permits come back when it has drained.
    held: usize,
}

impl Handler<'_> {
    pub(super) fn alarm(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let _checked: pb::AlarmRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        self.propose(call, field::ALARM, Bytes::copy_from_slice(message))
    }

    pub(super) fn status(&mut self, replies: &mut Replies, call: u32, message: &[u8]) -> Result<(), Status> {
        let _checked: pb::StatusRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let state = self.state();
        let status = status_of(&self.desk.shared, &state);
        replies.reply(call, |out| {
            put_header(out, &state.edge.ids, state.edge.view.revision());
            status.encode(out).expect("a vector grows");
        });
        Ok(())
    }

    /// Runs `work` on a thread of its own and answers with what it returns.
    fn work(&mut self, call: u32, work: impl FnOnce(&Shared, &State) -> Result<Bytes, Status> + Send + 'static) {
        let (shared, state, to) = (self.desk.shared.clone(), self.state(), self.reply_to(call));
        self.calls.insert(call, Waiting::Worker);
        tokio::task::spawn_blocking(move || {
            let answer = work(&shared, &state);
            shared.networks[usize::from(to.thread)].push(Mail::Done(to, Done::Answer(answer)));
        });
    }

    pub(super) fn hash(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let _checked: pb::HashRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let wait = self.desk.shared.commit_now();
        self.work(call, move |shared, state| {
            // What is applied and not yet in the file counts too.
            let file = wait.blocking_recv().unwrap_or_else(|_| Err(ErrorCode::Stopped.into()))?;
            let version = StorageVersion::from_minor(3, shared.config.emulated_minor).expect("one of the choices");
            let leave_out = mvcc::schema::hash_leaves_out(version);
            let start = Instant::now();
            let hash =
                mvcc::hash_file(&file, leave_out).map_err(|error| Status::unknown(error.to_string()))?;
            shared.metrics.hash.observe(start.elapsed());
            let mut out = Vec::new();
            put_header(&mut out, &state.edge.ids, state.edge.view.revision());
            api::wire::put_uint(2, u64::from(hash), &mut out);
            Ok(out.into())
        });
        Ok(())
    }

    pub(super) fn hash_kv(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let request: pb::HashKvRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        self.work(call, move |shared, state| {
            let view = &state.edge.view;
            let start = Instant::now();
            let hash = view.hash_kv(request.revision);
            shared.metrics.hash_revision.observe(start.elapsed());
            let hash = hash.map_err(|error| match error {
                mvcc::Error::Compacted => ErrorCode::Compacted.into(),
                mvcc::Error::FutureRevision => ErrorCode::FutureRev.into(),
                other => Status::unknown(other.to_string()),
            })?;
            let mut out = Vec::new();
            put_header(&mut out, &state.edge.ids, view.revision());
            api::wire::put_uint(2, u64::from(hash.hash), &mut out);
            api::wire::put_int(3, hash.compact_revision, &mut out);
            if shared.config.emulated_minor >= 6 {
                api::wire::put_int(4, hash.revision, &mut out);
            }
            Ok(out.into())
        });
        Ok(())
    }

    pub(super) fn defragment(&mut self, call: u32, message: &[u8]) -> Result<(), Status> {
        let _checked: pb::DefragmentRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let (shared, to) = (self.desk.shared.clone(), self.reply_to(call));
        self.calls.insert(call, Waiting::Worker);
        tokio::task::spawn_local(async move {
            // What is deleted and compacted must be so in the file, too, to be gained here, unless there is no room for
            // that: then this may make some. The view would hold its pages back.
            drop(shared.commit_now().await);
            shared.logger.info("starting defragment", &[]);
            let answer = match shared.defragment().await {
                // No header in this answer, as in etcd.
                Ok(Ok(())) => {
                    shared.logger.info("finished defragment", &[]);
                    Ok(Bytes::new())
                }
                Ok(Err(text)) => {
                    shared.logger.warn("failed to defragment", &[("error", (&text).into())]);
                    Err(Status::unknown(text))
                }
                Err(_) => Err(ErrorCode::Stopped.into()),
            };
            shared.networks[usize::from(to.thread)].push(Mail::Done(to, Done::Answer(answer)));
        });
        Ok(())
    }

    pub(super) fn snapshot(&mut self, replies: &mut Replies, call: u32, message: &[u8]) -> Result<(), Status> {
        let _checked: pb::SnapshotRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        let _headers_with_the_first_message = replies;
        let permits = Arc::new(Semaphore::new(SNAPSHOT_CHUNKS_AHEAD));
        self.calls.insert(call, Waiting::Feed(Feed { permits: permits.clone(), held: 0 }));
        let (shared, to) = (self.desk.shared.clone(), self.reply_to(call));
        tokio::task::spawn_local(async move {
            // The file must hold all that was acknowledged before the call.
            let view = match shared.commit_now().await.unwrap_or_else(|_| Err(ErrorCode::Stopped.into())) {
                Ok(view) => view,
                Err(status) => {
                    let end = Done::End(Err(status));
                    return shared.networks[usize::from(to.thread)].push(Mail::Done(to, end));
                }
            };
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || send_snapshot(&shared, &view, to, &permits, &runtime));
        });
        Ok(())
    }
}

/// Reads the file from its pinned view and hands it over a message at a time.
fn send_snapshot(
    shared: &Shared,
    view: &bolt::View,
    to: ReplyTo,
    permits: &Semaphore,
    runtime: &tokio::runtime::Handle,
) {
    let tell = |done| shared.networks[usize::from(to.thread)].push(Mail::Done(to, done));
    let total = view.stream_len();
    let version = format!("3.{}.0", shared.config.emulated_minor);
    let start = Instant::now();
    let (mut offset, mut digest) = (0u64, Sha256::new());
    let mut buffer = vec![0; SNAPSHOT_CHUNK_BYTES];
    let send = |blob: &[u8], remaining: u64| {
        let mut message = Vec::with_capacity(blob.len() + 64);
        api::wire::put_uint(2, remaining, &mut message);
        api::wire::put_bytes(3, blob, &mut message);
        if shared.config.emulated_minor >= 6 {
            api::wire::put_bytes(4, version.as_bytes(), &mut message);
        }
        match runtime.block_on(permits.acquire()) {
            Ok(permit) => {
                permit.forget();
                tell(Done::Chunk(message.into()));
                true
            }
            // The client is gone.
            Err(_) => false,
        }
    };
    let sizes = || [("total-bytes", total.into()), ("size", human_bytes(total).into())];
    let mut fields = sizes().to_vec();
    fields.push(("storage-version", (&version).into()));
    shared.logger.info("sending database snapshot to client", &fields);
    while offset < total {
        let want = SNAPSHOT_CHUNK_BYTES.min((total - offset) as usize);
        if let Err(error) = view.read_chunk(offset, &mut buffer[..want]) {
            return tell(Done::End(Err(Status::unknown(error.to_string()))));
        }
        digest.update(&buffer[..want]);
        offset += want as u64;
        if !send(&buffer[..want], total - offset) {
            return;
        }
    }
    shared.metrics.backend_snapshot.observe(start.elapsed());
    let checksum = digest.finalize();
    let fields = [("total-bytes", total.into()), ("checksum-size", checksum.len().into())];
    shared.logger.info("sending database sha256 checksum to client", &fields);
    if send(&checksum, 0) {
        let mut fields = sizes().to_vec();
        fields.extend([("took", start.elapsed().into()), ("storage-version", (&version).into())]);
        shared.logger.info("successfully sent database snapshot to client", &fields);
        tell(Done::End(Ok(())));
    }
}

impl Desk {
    pub(super) fn deliver_done(&mut self, to: ReplyTo, done: Done, clients: &mut Clients) {
        let Some(client) = clients.get_mut(&to.connection) else { return };
        let replies = client.connection.replies();
        match done {
            Done::Answer(answer) => {
                client.calls.remove(&to.stream);
                match answer {
                    Ok(message) => replies.reply_bytes(to.stream, message),
                    Err(status) => replies.reply_status(to.stream, status.code, &status.message),
                };
            }
            Done::Chunk(message) => {
                let Some(Waiting::Feed(feed)) = client.calls.get_mut(&to.stream) else { return };
                if replies.send_bytes(to.stream, message) > SNAPSHOT_QUEUE_BYTES {
                    feed.held += 1;
                } else {
                    feed.permits.add_permits(1);
                }
            }
            Done::End(end) => {
                client.calls.remove(&to.stream);
                let status = end.err().unwrap_or(Status { code: Code::Ok.number(), message: "".into() });
                replies.finish(to.stream, status.code, &status.message);
            }
        }
        self.touch(to.connection, client);
    }

    /// A stream that a worker feeds has room again.
    pub(super) fn go_on_with_feed(connection: u32, call: u32, clients: &mut Clients) {
        let Some(client) = clients.get_mut(&connection) else { return };
        if let Some(Waiting::Feed(feed)) = client.calls.get_mut(&call) {
            feed.permits.add_permits(std::mem::take(&mut feed.held));
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The worker must not wait for a client that is gone.
        self.permits.close();
    }
}

/// Everything of `StatusResponse` but its header.
fn status_of(shared: &Shared, state: &State) -> pb::StatusResponse {
    let (edge, role) = (&state.edge, state.role);
    let mut status = pb::StatusResponse {
        header: None,
        version: shared.core.version.to_string(),
        db_size: state.sizes.total as i64,
        leader: role.leader,
        raft_index: state.committed,
        raft_term: role.term,
        raft_applied_index: edge.applied,
        db_size_in_use: state.size_in_use() as i64,
        is_learner: role.is_learner,
        ..Default::default()
    };
    if role.leader == 0 {
        status.errors.push(ErrorCode::NoLeader.message().into());
    }
    for alarm in edge.alarms.list(etcdserver::apply::alarm::NONE) {
        // A message of Go as it prints itself.
        let name = match alarm.alarm {
            etcdserver::apply::alarm::NOSPACE => "NOSPACE".to_string(),
            etcdserver::apply::alarm::CORRUPT => "CORRUPT".to_string(),
            other => other.to_string(),
        };
        status.errors.push(format!("memberID:{} alarm:{name}", alarm.member_id));
    }
    if shared.config.emulated_minor >= 6 {
        let downgrade = edge.cluster.downgrade();
        status.storage_version = storage_version(shared, edge);
        status.db_size_quota = edge.quota.limit() as i64;
        status.downgrade_info =
            Some(pb::DowngradeInfo { enabled: downgrade.enabled, target_version: downgrade.target.clone() });
    }
    status
}

/// The version of the stored form: what the file says, and 3.5 where it is silent.
pub(crate) fn storage_version(shared: &Shared, edge: &etcdserver::read::Published) -> String {
    let stored = edge.view.side(mvcc::schema::Bucket::Meta, mvcc::schema::STORAGE_VERSION);
    match stored {
        Some(text) => String::from_utf8_lossy(&text).into_owned(),
        None if shared.config.emulated_minor >= 6 => "3.5.0".into(),
        None => String::new(),
    }
}
