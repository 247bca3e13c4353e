//! `etcdserverpb.Watch`: streams of watchers on this thread's hub.
//!
//! The hub decides who gets which events; this file turns requests into calls of the hub and its output into
//! messages. A stream that has too much queued is full: its watchers fall back to history until it has drained.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::Status;
use api::etcdserverpb as pb;
use bytes::Bytes;
use etcdserver::apply::reply::{HeaderIds, put_header};
use foldhash::fast::FixedState;
use grpc::Replies;
use hashbrown::HashMap;
use mvcc::watch::{Hub, HubOutput, Kind, WatchSpec, fragments};
use mvcc::RangeEnd;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use prost::Message;

use super::{Clients, Desk, Handler};
use crate::member::handle::Shared;
use crate::metrics;

/// Bytes queued for a stream beyond which its watchers wait.
const STREAM_QUEUE_BYTES: usize = 4 << 20;
/// Bytes of history read in one step.
const CATCH_UP_BYTES: usize = 1 << 20;
/// Longest sleep of the watch task; it is woken when there is something to do.
const IDLE_SLEEP_MS: u64 = 60_000;

/// The watchers of a network thread.
pub(crate) struct WatchDesk {
    hub: Hub,
    outputs: Vec<HubOutput>,
    /// When the idle watchers of a stream are told of progress next.
    ticks: BTreeSet<(u64, u64)>,
    /// The time in `ticks` of every stream.
    due: HashMap<u64, u64, FixedState>,
    progress_interval_ms: u64,
    fragment_bytes: usize,
}

fn stream_of(connection: u32, call: u32) -> u64 {
    u64::from(connection) << 32 | u64::from(call)
}

fn place_of(stream: u64) -> (u32, u32) {
    ((stream >> 32) as u32, stream as u32)
}

impl WatchDesk {
    pub(super) fn new(shared: &Shared) -> WatchDesk {
        let interval = shared.config.watch_progress_interval.as_millis() as u64;
        WatchDesk {
            hub: Hub::new(&shared.published.load().edge.view),
            outputs: Vec::new(),
            ticks: BTreeSet::new(),
            due: HashMap::default(),
            progress_interval_ms: interval,
            fragment_bytes: shared.grpc.max_message_bytes,
        }
    }

    /// A connection is gone with all its streams.
    pub(crate) fn drop_connection(&mut self, connection: u32, calls: impl Iterator<Item = u32>) {
        for call in calls {
            self.drop_call(connection, call);
        }
    }

    /// A stream has begun.
    pub(super) fn open(&mut self, connection: u32, call: u32, now_ms: u64) {
        let stream = stream_of(connection, call);
        self.tick_at(now_ms + self.interval_of(stream), stream);
    }

    fn tick_at(&mut self, at: u64, stream: u64) {
        if let Some(before) = self.due.insert(stream, at) {
            self.ticks.remove(&(before, stream));
        }
        self.ticks.insert((at, stream));
    }

    /// The interval and up to a tenth more, so that streams do not all speak at once.
    fn interval_of(&self, stream: u64) -> u64 {
        let jitter = stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.progress_interval_ms + (self.progress_interval_ms / 10) * (jitter & 0xff) / 256
    }

    /// Streams whose interval is over; says whether there was one.
    fn tick(&mut self, now_ms: u64) -> bool {
        let mut any = false;
        while let Some((_, stream)) = self.ticks.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.tick_at(now_ms + self.interval_of(stream), stream);
            self.hub.progress_tick(stream, &mut self.outputs);
            any = true;
        }
        any
    }

    /// A stream is gone.
    pub(super) fn drop_call(&mut self, connection: u32, call: u32) {
        let stream = stream_of(connection, call);
        self.hub.drop_stream(stream);
        if let Some(at) = self.due.remove(&stream) {
            self.ticks.remove(&(at, stream));
        }
    }

    /// A stream has room again.
    pub(super) fn drained(&mut self, connection: u32, call: u32) {
        self.hub.stream_drained(stream_of(connection, call));
    }
}

impl Handler<'_> {
    /// A message on a stream: create, cancel or progress. Anything else is passed over, as in etcd.
    pub(super) fn watch_message(
        &mut self,
        replies: &mut Replies,
        call: u32,
        message: &[u8],
    ) -> Result<(), Status> {
        let request: pb::WatchRequest = api::wire::decode(Bytes::copy_from_slice(message))?;
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create_watch(replies, call, create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel_watch(replies, call, cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                let stream = stream_of(self.connection, call);
                let view = self.state().edge.view.clone();
                let watch = &mut self.desk.watch;
                watch.hub.request_progress(stream, &view, &mut watch.outputs);
                self.desk.watch_wake.notify_one();
            }
            None => {}
        }
        Ok(())
    }

    fn create_watch(&mut self, replies: &mut Replies, call: u32, create: pb::WatchCreateRequest) {
        let state = self.state();
        let filters = create.filters;
        let has = |filter: FilterType| filters.contains(&(filter as i32));
        let spec = WatchSpec {
            stream: stream_of(self.connection, call),
            id: create.watch_id,
            end: RangeEnd::from_wire(create.range_end),
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            key: create.key,
            start_revision: create.start_revision,
            prev_kv: create.prev_kv,
            progress_notify: create.progress_notify,
            fragment: create.fragment,
        };
        let created = self.desk.watch.hub.create(spec, &state.edge.view);
        let edge = &state.edge;
        let response = pb::WatchResponse {
            header: Some(pb::ResponseHeader {
                cluster_id: edge.ids.cluster_id,
                member_id: edge.ids.member_id,
                revision: edge.view.revision(),
                raft_term: edge.ids.raft_term,
            }),
            created: true,
            ..Default::default()
        };
        let response = match created {
            Ok(id) => pb::WatchResponse { watch_id: id, ..response },
            Err(error) => pb::WatchResponse {
                watch_id: -1,
                canceled: true,
                cancel_reason: error.message().into(),
                ..response
            },
        };
        let start = Instant::now();
        replies.send(call, |out| response.encode(out).expect("a vector grows"));
        self.desk.metrics().send_control.observe(start.elapsed());
        self.desk.measure_watchers();
        self.desk.watch_wake.notify_one();
    }

    fn cancel_watch(&mut self, replies: &mut Replies, call: u32, id: i64) {
        if !self.desk.watch.hub.cancel(stream_of(self.connection, call), id) {
            return;
        }
        let state = self.state();
        replies.send(call, |out| {
            put_header(out, &state.edge.ids, state.edge.view.revision());
            api::wire::put_int(2, id, out);
            api::wire::put_bool(4, true, out);
        });
    }
}

impl Desk {
    /// Changes of keys: watchers that are up to date are sent them at once.
    pub(super) fn deliver_events(&mut self, batches: &[std::sync::Arc<mvcc::EventBatch>], clients: &mut Clients) {
        let state = self.shared.published.load_full();
        for batch in batches {
            let watch = &mut self.watch;
            if let Err(error) = watch.hub.publish(batch, &state.edge.view, &mut watch.outputs) {
                self.unreadable(&error);
            }
        }
        self.send_outputs(&state.edge.ids, clients);
        // Those that are behind may go on.
        self.watch_wake.notify_one();
    }

    /// The store was replaced by one that the leader sent: watchers read from it what they missed. Compactions that
    /// somebody waits for are part of it.
    pub(super) fn store_replaced(&mut self, clients: &mut Clients) {
        let state = self.shared.published.load_full();
        self.watch.hub.replaced(&state.edge.view);
        self.watch_wake.notify_one();
        self.deliver_compaction(state.edge.view.compact_revision(), clients);
    }

    /// One bounded step for watchers that are behind. Says whether there is more to do at once, and how long to
    /// sleep otherwise.
    pub(crate) fn watch_step(&mut self, clients: &mut Clients) -> (bool, Duration) {
        let state = self.shared.published.load_full();
        let watch = &mut self.watch;
        let more = match watch.hub.catch_up(&state.edge.view, CATCH_UP_BYTES, &mut watch.outputs) {
            Ok(more) => more,
            Err(error) => self.unreadable(&error),
        };
        let now = self.shared.now_ms();
        let ticks = Instant::now();
        if self.watch.tick(now) {
            self.metrics().send_progress.observe(ticks.elapsed());
        }
        self.send_outputs(&state.edge.ids, clients);
        let next = self.watch.ticks.first().map_or(u64::MAX, |(at, _)| *at);
        (more, Duration::from_millis(next.saturating_sub(now).clamp(1, IDLE_SLEEP_MS)))
    }

    /// The file holds something that cannot be read: to go on would leave events out.
    fn unreadable(&self, error: &mvcc::Error) -> ! {
        self.shared.logger.fatal("failed to read history", &[("error", error.to_string().into())])
    }

    /// Turns what the hub has to say into messages.
    fn send_outputs(&mut self, ids: &HeaderIds, clients: &mut Clients) {
        self.measure_watchers();
        let mut outputs = std::mem::take(&mut self.watch.outputs);
        if outputs.is_empty() {
            self.watch.outputs = outputs;
            return;
        }
        let (start, mut sent) = (Instant::now(), Sent::default());
        for output in outputs.drain(..) {
            let (connection, call) = place_of(output.stream);
            let Some(client) = clients.get_mut(&connection) else { continue };
            let replies = client.connection.replies();
            let queued = send_output(&output, ids, self.watch.fragment_bytes, replies, call);
            sent.add(&output);
            if queued > STREAM_QUEUE_BYTES {
                self.watch.hub.stream_full(output.stream);
            }
            self.touch(connection, client);
        }
        self.watch.outputs = outputs;
        sent.measure(self.metrics(), start.elapsed());
    }

    fn measure_watchers(&self) {
        let (metrics, counts) = (self.metrics(), self.watch.hub.counts());
        metrics.streams.set(self.watch.ticks.len() as i64);
        metrics.watchers.set(counts.watchers as i64);
        metrics.slow_watchers.set(counts.slow as i64);
    }
}

/// What was sent together.
#[derive(Default)]
struct Sent {
    responses: u64,
    events: u64,
    control: u64,
}

impl Sent {
    fn add(&mut self, output: &HubOutput) {
        let receivers = output.watch_ids.len() as u64;
        match &output.kind {
            Kind::Events { events, .. } => {
                self.responses += receivers;
                self.events += receivers * events.len() as u64;
            }
            Kind::Progress { .. } | Kind::Compacted { .. } => self.control += receivers,
        }
    }

    /// All of it took this long; each response its part.
    fn measure(&self, metrics: &metrics::Thread, took: Duration) {
        let part = |of: u64| took / u32::try_from(of.max(1)).unwrap_or(u32::MAX);
        if self.responses > 0 {
            metrics.events.bump(self.events);
            metrics.send_events.observe_many(part(self.responses + self.control), self.responses);
            metrics.send_per_event.observe_many(part(self.events), self.responses);
        }
        if self.control > 0 {
            metrics.send_control.observe_many(part(self.responses + self.control), self.control);
        }
    }
}

/// Sends one output to all its watchers; says how much is queued for the stream.
fn send_output(
    output: &HubOutput,
    ids: &HeaderIds,
    fragment_bytes: usize,
    replies: &mut Replies,
    call: u32,
) -> usize {
    let mut queued = 0;
    match &output.kind {
        Kind::Events { revision, events, fragment } => {
            let mut head = Vec::with_capacity(64);
            put_header(&mut head, ids, *revision);
            let whole = std::iter::once(0..events.len()).collect();
            let parts = if *fragment { fragments(events, head.len() + 12, fragment_bytes) } else { whole };
            for (number, part) in parts.iter().enumerate() {
                let is_last = number + 1 == parts.len();
                let mut body = Vec::with_capacity(events[part.clone()].iter().map(|e| e.len() + 6).sum());
                events[part.clone()].iter().for_each(|event| api::wire::put_bytes(11, event, &mut body));
                for id in output.watch_ids.iter() {
                    queued = replies.send(call, |out| {
                        out.extend_from_slice(&head);
                        api::wire::put_int(2, *id, out);
                        api::wire::put_bool(7, !is_last, out);
                        out.extend_from_slice(&body);
                    });
                }
            }
        }
        Kind::Compacted { compact_revision } => {
            for id in output.watch_ids.iter() {
                queued = replies.send(call, |out| {
                    put_header(out, ids, 0);
                    api::wire::put_int(2, *id, out);
                    api::wire::put_bool(4, true, out);
                    api::wire::put_int(5, *compact_revision, out);
                });
            }
        }
        Kind::Progress { revision } => {
            for id in output.watch_ids.iter() {
                queued = replies.send(call, |out| {
                    put_header(out, ids, *revision);
                    api::wire::put_int(2, *id, out);
                });
            }
        }
    }
    queued
}
