//! What the threads of a process share: queues, the published state, ids and settings. Nothing here decides
//! anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use api::Status;
use api::ids::RequestIds;
use api::raftpb;
use arc_swap::ArcSwap;
use etcdserver::apply::reply::Reply;
use etcdserver::effect::{LeaseQuestion, LeaseTimes, Proposal, Renewal, ReplyTo, RoleChange};
use etcdserver::now::Now;
use etcdserver::read::Published;
use tokio::sync::{Notify, oneshot};

use crate::config::Config;
use crate::http::{PeerCalls, PlainAnswer};
use crate::logging::Logger;
use crate::member::ask::Tasks;
use crate::member::forward::Forward;
use crate::member::mailbox::{TaskMailbox, ThreadMailbox};
use crate::member::meter::CallStats;
use crate::metrics::Metrics;
use crate::rafthttp::Transport;
use crate::v3rpc::Done;

/// What may be said to the member thread.
pub(crate) enum MemberInput {
    /// Requests for the log, one batch per turn of a network thread, and when it left.
    Propose(Vec<Proposal>, Instant),
    /// Linearizable reads.
    Read(Vec<ReplyTo>),
    /// Keepalives.
    Renew(Vec<Renewal>),
    /// Questions about the time left of leases.
    LeaseTimes(Vec<LeaseQuestion>),
    /// The log thread wrote everything up to this ready number.
    Persisted(u64),
    /// The log thread recorded a snapshot at this index.
    SnapshotSaved(u64),
    /// The commit thread finished a batch: the file as it is now.
    Committed(crate::member::commit::Committed),
    /// Somebody needs the file to hold all that is applied now.
    CommitNow(oneshot::Sender<Result<bolt::View, Status>>),
    /// The commit thread had no room for the batch it was given, and has not written any of it; in words.
    NoRoom(String),
    /// The log, or a snapshot, found no room; in words.
    NoSpace(String),
    /// What a compaction reads next is in memory up to this record; `None`: all of it.
    ReadAhead(Option<mvcc::Revision>),
    /// A message of a peer of the same cluster.
    Peer(raftpb::Message),
    /// A snapshot of the leader, whose database is saved as `<index>.snap.db`.
    ReceivedSnapshot(raftpb::Message),
    /// A snapshot has been sent, or not.
    SnapshotDone {
        /// Receiver.
        to: u64,
        /// Whether it arrived.
        ok: bool,
    },
    /// A peer could not be reached.
    Unreachable(u64),
    /// A change of the members, checked against the published ones.
    ConfChange {
        /// Who waits.
        reply_to: Option<ReplyTo>,
        /// The change; its id is filled in later.
        change: raftpb::ConfChange,
    },
    /// Whether a learner has caught up; `None` when this member does not lead, or does not know it.
    LearnerIsReady {
        /// The learner.
        id: u64,
        /// Who asks.
        answer: oneshot::Sender<Option<bool>>,
    },
    /// The lowest version of all servers of the cluster; `None` while that of any of them is unknown.
    LowestServer(Option<api::version::Version>),
    /// As many ticks may pass at once: a start that has seen its peers does not wait a whole election timeout.
    FastForward(usize),
    /// The commit thread has put a received database in the place of the one before.
    Installed(Box<crate::member::commit::Installed>),
    /// Hand leadership to a member; 0 leaves the choice to raft.
    TransferLeader(u64),
    /// Stop: everything acknowledged is durable, what waits is told.
    Stop,
}

/// What may be said to a network thread.
pub(crate) enum Mail {
    /// Answers of the apply lane.
    Replies(Vec<(ReplyTo, Result<Reply, Status>)>),
    /// Linearizable reads that may be answered from the published state.
    ReadReady(Vec<ReplyTo>),
    /// Answers to keepalives.
    Renewed(Vec<(Renewal, i64)>),
    /// Answers about leases.
    LeaseTimes(Vec<(LeaseQuestion, LeaseTimes)>),
    /// Requests that were not taken.
    Refused(Vec<(ReplyTo, Status)>),
    /// Changes of keys, in order; the published view covers them.
    Events(Arc<Vec<Arc<mvcc::EventBatch>>>),
    /// There has been no leader for long: streams that asked for one end.
    NoLeader,
    /// The store was replaced by one received from the leader; the published view is of the new one.
    Replaced,
    /// The physical part of a compaction ended at this revision.
    CompactionFinished(i64),
    /// Work that a thread of its own did for a call.
    Done(ReplyTo, Done),
    /// Calls that took long, before their answers.
    Slow(Vec<(ReplyTo, CallStats)>),
    /// The answer to a request that is not gRPC.
    Plain(ReplyTo, PlainAnswer),
    /// Say goodbye to clients and end.
    Stop,
}

/// State for readers on all threads, replaced after every batch of applied entries.
pub(crate) struct State {
    /// What reads are answered from.
    pub(crate) edge: Arc<Published>,
    /// What raft thinks of itself.
    pub(crate) role: RoleChange,
    /// The last committed entry.
    pub(crate) committed: u64,
    /// Sizes of the database file.
    pub(crate) sizes: bolt::Sizes,
}

impl State {
    /// What etcd calls in use: the pages that something leads to, and one for the list of free pages, which Go has in
    /// the file. What the last commit freed is not in use any more, even if only the next one can have it: on a member
    /// at rest a compaction would not show otherwise.
    pub(crate) fn size_in_use(&self) -> u64 {
        let page_size = u64::from(self.edge.view.file().page_size());
        (self.sizes.live + page_size).min(self.sizes.total)
    }
}

/// See the head of this file.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) logger: Logger,
    pub(crate) metrics: Metrics,
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) request_ids: RequestIds,
    pub(crate) grpc: grpc::Settings,
    /// State for readers, replaced after every batch of applied entries.
    pub(crate) published: ArcSwap<State>,
    /// Settings of the core.
    pub(crate) core: etcdserver::Config,
    pub(crate) disk: Arc<dyn disk::Disk>,
    pub(crate) member: Arc<ThreadMailbox<MemberInput>>,
    /// The way to the other members.
    pub(crate) transport: Transport,
    pub(crate) networks: Vec<TaskMailbox<Mail>>,
    pub(crate) commit: ThreadMailbox<crate::member::commit::Job>,
    /// The last revision whose compaction is physically done.
    pub(crate) compaction_finished: AtomicI64,
    /// Told when the member has published itself and may serve.
    pub(crate) ready: Notify,
    /// Calls of other members that wait for the member thread.
    pub(crate) peer_calls: PeerCalls,
    /// Tasks that wait for the member thread.
    pub(crate) tasks: Tasks,
    /// What only the leader can answer, on its way there.
    pub(crate) forwards: TaskMailbox<Forward>,
    /// The version monitor is wanted before its time.
    pub(crate) versions_wanted: Notify,
    /// The member was removed from the cluster: the process ends.
    pub(crate) removed: Notify,
    is_removed: AtomicBool,
    /// The process stops.
    pub(crate) is_stopping: AtomicBool,
    start: Instant,
}

/// The parts of [`Shared`] that are made elsewhere.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) logger: Logger,
    pub(crate) metrics: Metrics,
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) state: State,
    pub(crate) core: etcdserver::Config,
    pub(crate) disk: Arc<dyn disk::Disk>,
    pub(crate) network_threads: usize,
    pub(crate) member: Arc<ThreadMailbox<MemberInput>>,
    pub(crate) transport: Transport,
    pub(crate) start: Instant,
}

impl Shared {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Arc<Shared> {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Arc::new(Shared {
            grpc: grpc_settings(&parts.config),
            request_ids: RequestIds::new(parts.member_id, unix_ms),
            config: parts.config,
            logger: parts.logger,
            metrics: parts.metrics,
            cluster_id: parts.cluster_id,
            member_id: parts.member_id,
            published: ArcSwap::from_pointee(parts.state),
            core: parts.core,
            disk: parts.disk,
            member: parts.member,
            transport: parts.transport,
            networks: (0..parts.network_threads).map(|_| TaskMailbox::default()).collect(),
            commit: ThreadMailbox::default(),
            compaction_finished: AtomicI64::new(-1),
            ready: Notify::new(),
            peer_calls: PeerCalls::default(),
            tasks: Tasks::default(),
            forwards: TaskMailbox::default(),
            versions_wanted: Notify::new(),
            removed: Notify::new(),
            is_removed: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            start: parts.start,
        })
    }

    /// The time for one step of the core.
    pub(crate) fn now(&self) -> Now {
        now_since(self.start)
    }

    /// Milliseconds of the clock that connections use.
    pub(crate) fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// When the clock of the core shows `mono_ns`.
    pub(crate) fn instant_of(&self, mono_ns: u64) -> Instant {
        self.start + std::time::Duration::from_nanos(mono_ns)
    }

    /// Tells every network thread.
    pub(crate) fn tell_networks(&self, mail: impl Fn() -> Mail) {
        for network in &self.networks {
            network.push(mail());
        }
    }

    /// How long a unary call may take without a line about it; zero when there is one for all.
    pub(crate) fn slow_call(&self) -> std::time::Duration {
        if self.logger.admits(crate::logging::Level::Debug) { std::time::Duration::ZERO } else { self.config.slow_call }
    }

    /// This member was removed from the cluster, as its own log or its peers say: it stops.
    pub(crate) fn say_removed(&self) {
        if self.is_removed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.logger.warn(
            "server error",
            &[("error", "the member has been permanently removed from the cluster".into())],
        );
        self.logger.warn("data-dir used by this member must be removed", &[]);
        self.removed.notify_one();
    }

    /// Whether the process stops.
    pub(crate) fn stops(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Asks for a view of the file that holds everything applied by now; an error if the disk has no room for it.
    pub(crate) fn commit_now(&self) -> oneshot::Receiver<Result<bolt::View, Status>> {
        let (done, wait) = oneshot::channel();
        self.member.push(MemberInput::CommitNow(done));
        wait
    }

    /// Asks the commit thread for all moves of a defragmentation; the answer comes when they are done.
    pub(crate) fn defragment(&self) -> oneshot::Receiver<Result<(), String>> {
        let (done, wait) = oneshot::channel();
        self.commit.push(crate::member::commit::Job::Defragment(done));
        wait
    }
}

/// The clocks, counted from `start`.
pub(crate) fn now_since(start: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Now { mono_ns: start.elapsed().as_nanos() as u64, wall_ns: wall }
}

fn grpc_settings(config: &Config) -> grpc::Settings {
    let ms = |duration: std::time::Duration| duration.as_millis() as u64;
    let interval = if config.keepalive_interval.is_zero() { u64::MAX } else { ms(config.keepalive_interval) };
    let timeout = if config.keepalive_timeout.is_zero() { u64::MAX } else { ms(config.keepalive_timeout) };
    grpc::Settings {
        max_concurrent_streams: config.max_concurrent_streams,
        max_message_bytes: (config.max_request_bytes as usize).saturating_add(512 << 10),
        keepalive_min_ms: ms(config.keepalive_min_time),
        keepalive_interval_ms: interval,
        keepalive_timeout_ms: timeout,
        ..grpc::Settings::default()
    }
}
