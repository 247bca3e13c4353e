//! From configuration to a running member, and back: one order for coming up, the reverse for going down.
//!
//! Up: listeners (a busy port fails before anything is touched), the directory, the lanes, the threads; then raft
//! elects and the member publishes itself, and only then clients are accepted and the readiness line is written.
//! Down: stop accepting, let raft finish what is committed, write it to the file, close.

mod discovery;
mod hand_over;
mod initial;
mod join;
mod lines;

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use etcdserver::apply::{Applier, Settings};
use etcdserver::bootstrap::{self, StorageOptions};
use etcdserver::membership::Member;
use etcdserver::raft::Node;
use tokio::signal::unix::{SignalKind, signal};

use crate::chores;
use crate::config::discovery::Discovery;
use crate::config::{Config, value};
use crate::http::{self, Port};
use crate::logging::{Logger, human_bytes};
use crate::member::handle::{Mail, MemberInput, Parts, Shared, State, now_since};
use crate::member::lane::Lane;
use crate::member::lines::{raft_level, say_defragmented, say_defragmenting, size_fields};
use crate::member::mailbox::ThreadMailbox;
use crate::member::{commit, corruption, forward, log, versions};
use crate::metrics::Metrics;
use crate::net::io::{Socket, Stream};
use crate::net::enter::Serves;
use crate::net::listen::{Entrance, Guarded, Listener, SocketOptions, bind, bind_clients};
use crate::net::thread::Thread;
use crate::rafthttp::{Dialer, Local, Transport};
use crate::runtime;
use crate::tls::{self, ServerTls};
use initial::Initial;
use join::Failure;

pub(crate) use lines::say_advice;

/// Stack of the threads that run lanes: they do not recurse over user data.
const LANE_STACK_BYTES: usize = 2 << 20;

/// How the system says it, as Go would: without the number.
pub(crate) fn system_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

/// Go's name of this architecture.
pub(crate) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Bound sockets, before anything is served on them.
struct Listeners {
    client: Vec<Entrance>,
    peer: Vec<Guarded>,
    metrics: Vec<Guarded>,
    /// What the line about TLS for clients says.
    client_tls: Option<String>,
    /// Makes connections to peers.
    dialer: Dialer,
}

/// Runs a member until it is told to stop.
pub(crate) fn run(config: &Config, logger: &Logger) -> ExitCode {
    let failure = match start(config, logger) {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    lines::say_closing(config, logger, "closing etcd server");
    lines::say_closing(config, logger, "closed etcd server");
    match failure {
        // The words are etcd's for every failure at start, whatever it was.
        Failure::Start(error) => logger.fatal("discovery failed", &[("error", error.into())]),
        Failure::Discovery(error) => {
            lines::say_discovery_failed(config, logger, &error);
            ExitCode::FAILURE
        }
    }
}

fn start(config: &Config, logger: &Logger) -> Result<ExitCode, Failure> {
    let start = Instant::now();
    refuse_later(config)?;
    lines::say_directory(config, logger);
    lines::say_advice(config, logger);
    let mut listeners = listen(config, logger)?;
    let disk: Arc<dyn disk::Disk> = Arc::new(disk::os::OsDisk::new());
    let (core, remotes) = prepare(config, logger, &*disk, &mut listeners.dialer)?;
    let lanes = open(&disk, &core, config, logger, &listeners.dialer, start)?;
    let metrics = Metrics::new(network_threads(), config.raw.text("metrics") == "extensive");
    let member = Arc::new(ThreadMailbox::default());
    let transport = Transport::new(Local {
        member_id: lanes.member_id,
        cluster_id: lanes.cluster_id,
        version: core.version,
        peer_urls: core.advertise_peer_urls.clone(),
        dialer: listeners.dialer.clone(),
        logger: logger.clone(),
        counts: metrics.peers.clone(),
        member: member.clone(),
    });
    for known in &remotes {
        transport.add_remote(known.id, known.peer_urls.clone());
    }
    let shared = Shared::new(Parts {
        config: config.clone(),
        logger: logger.clone(),
        metrics,
        member,
        transport,
        cluster_id: lanes.cluster_id,
        member_id: lanes.member_id,
        state: State {
            edge: lanes.applier.publish(),
            role: lanes.node.role(),
            committed: lanes.node.status().committed,
            sizes: lanes.db.sizes(),
        },
        core,
        disk,
        network_threads: network_threads(),
        start,
    });
    // Before the lanes run, which have lines of their own.
    lines::say_serving(&shared, &listeners.peer, &listeners.metrics);
    if let Some(info) = &listeners.client_tls {
        tls::say_starting("starting with client TLS", info, config, logger);
    }
    let threads = spawn_lanes(&shared, lanes);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let local = tokio::task::LocalSet::new();
    let code = local.block_on(&runtime, serve(shared.clone(), listeners));
    for thread in threads {
        if thread.join().is_err() {
            logger.error("a thread ended with a panic", &[]);
        }
    }
    lines::say_closing(config, logger, "closed etcd server");
    Ok(code)
}

/// The settings of the core, with the members of the cluster as far as they can be known; and the members of a cluster
/// that runs already.
fn prepare(
    config: &Config,
    logger: &Logger,
    disk: &dyn disk::Disk,
    dialer: &mut Dialer,
) -> Result<(etcdserver::Config, Vec<Member>), Failure> {
    let mut core = core_config(config)?;
    let has_log = wal::exists(disk, &core.wal_path()).map_err(|error| error.to_string())?;
    let initial = Initial::of(config, has_log, logger)?;
    (core.initial_cluster, core.initial_cluster_token) = (initial.members, initial.token);
    if let Some(name) = initial.server_name {
        *dialer = dialer.checking(&name);
    }
    config.auto_compaction.clone().map(drop)?;
    lines::say_start(config, logger, &core, has_log);
    if has_log {
        return Ok((core, Vec::new()));
    }
    let prepared = join::before_first_start(config, dialer, logger, &mut core);
    let remotes = prepared.inspect_err(|failure| lines::say_bootstrap_failed(logger, failure.text()))?;
    Ok((core, remotes))
}

/// What the lanes start from.
struct Lanes {
    cluster_id: u64,
    member_id: u64,
    applier: Applier,
    node: Node,
    wal: wal::Wal,
    db: bolt::Db,
    /// Index of the newest snapshot on disk.
    snapshot_index: u64,
}

/// Opens the directory and builds the lanes.
fn open(
    disk: &Arc<dyn disk::Disk>,
    core: &etcdserver::Config,
    config: &Config,
    logger: &Logger,
    dialer: &Dialer,
    start: Instant,
) -> Result<Lanes, String> {
    let options = StorageOptions {
        wal: wal::Options { sync: !config.no_fsync, ..wal::Options::default() },
        ..StorageOptions::default()
    };
    let began = Instant::now();
    make_directory(&config.data_dir)?;
    let recovered = bootstrap::bootstrap(disk, core, &options).map_err(|error| error.to_string());
    let mut recovered = recovered.inspect_err(|error| lines::say_bootstrap_failed(logger, error))?;
    defragment_at_start(config, logger, &core.db_path(), &mut recovered)?;
    let report = &recovered.report;
    lines::say_bootstrap(logger, core.db_path().display().to_string(), began.elapsed(), report);
    let (member_id, cluster_id) = (report.member_id, report.cluster_id);
    let applier =
        Applier::new(Settings::new(core), recovered.store, recovered.attachments, recovered.cluster)
            .map_err(|error| error.to_string())?;
    let mut node = Node::new(core, recovered.start, now_since(start)).map_err(|error| error.to_string())?;
    for line in node.take_lines() {
        logger.named("raft", raft_level(&line), &line.text, &[]);
    }
    logger.warn("simple token is not cryptographically signed", &[]);
    logger.info("kvstore restored", &[("current-rev", recovered.report.current_revision.into())]);
    lines::say_quota(config, logger);
    if config.gate("InitialCorruptCheck") && !recovered.report.is_new && applier.cluster().members().len() > 1 {
        check_initially(dialer, logger, &applier, Duration::from_nanos(core.request_timeout_ns()))?;
    }
    let version = core.version.to_string();
    lines::say_member(config, logger, &recovered.report, &version, applier.cluster());
    let snapshot_index = recovered.report.snapshot_index;
    Ok(Lanes { cluster_id, member_id, applier, node, wal: recovered.wal, db: recovered.db, snapshot_index })
}

/// Compares the keys with those of the peers that can be reached.
fn check_initially(
    dialer: &Dialer,
    logger: &Logger,
    applier: &Applier,
    timeout: Duration,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let view = applier.store().view();
    let checked = corruption::check_initially(dialer, logger, applier.cluster(), &view, timeout);
    runtime.block_on(checked).inspect_err(|error| {
        logger.error("checkInitialHashKV failed", &[("error", error.into())]);
    })
}

/// The directory, for nobody but its owner.
fn make_directory(path: &Path) -> Result<(), String> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| {
        format!("cannot access data directory: mkdir {}: {}", path.display(), system_words(&error))
    })
}

/// Makes the file small before anything is served, if that gains as much as the user wants it to.
fn defragment_at_start(
    config: &Config,
    logger: &Logger,
    path: &Path,
    recovered: &mut bootstrap::Recovered,
) -> Result<(), String> {
    let megabytes = value::parse_uint(config.raw.text("bootstrap-defrag-threshold-megabytes"), u64::MAX).unwrap_or(0);
    if megabytes == 0 {
        return Ok(());
    }
    let (sizes, threshold) = (recovered.db.sizes(), megabytes.saturating_mul(1 << 20));
    if sizes.total.saturating_sub(sizes.in_use) < threshold {
        let mut fields = size_fields(sizes).to_vec();
        fields.push(("bootstrap-defrag-threshold-bytes", threshold.into()));
        fields.push(("bootstrap-defrag-threshold", human_bytes(threshold).into()));
        logger.info("Skipping defragmentation", &fields);
        return Ok(());
    }
    let began = Instant::now();
    say_defragmenting(logger, path, sizes);
    loop {
        let progress = recovered.db.defragment_step().map_err(|error| error.to_string())?;
        // The store's view of the file would hold back what the next step needs.
        recovered.store.moved(recovered.db.reader().view());
        if progress.done {
            break;
        }
    }
    say_defragmented(logger, path, sizes, recovered.db.sizes(), began.elapsed());
    Ok(())
}

/// One network thread on up to two cores, else half of the cores.
fn network_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Starts the threads of the lanes; they end by themselves after [`MemberInput::Stop`].
fn spawn_lanes(shared: &Arc<Shared>, lanes: Lanes) -> Vec<thread::JoinHandle<()>> {
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let builder = thread::Builder::new().name(name.into()).stack_size(LANE_STACK_BYTES);
        builder.spawn(run).expect("a thread can be started")
    };
    let log = log::Lane::new(lanes.wal);
    let sizes = lanes.db.sizes();
    let lane = Lane::new(shared.clone(), log.clone(), lanes.node, lanes.applier, (sizes, lanes.snapshot_index));
    let (for_log, for_commit, db) = (shared.clone(), shared.clone(), lanes.db);
    let (ahead, for_ahead) = (log.clone(), shared.clone());
    vec![
        spawn("log-ahead", Box::new(move || ahead.run_ahead(&for_ahead))),
        spawn("log", Box::new(move || log.run(&for_log))),
        spawn("commit", Box::new(move || commit::run(&for_commit, db))),
        spawn("member", Box::new(move || lane.run())),
    ]
}

/// Why a member stops.
enum End {
    Signal(&'static str),
    /// It is no member any more.
    Removed,
}

/// How long a member goes on after its own removal, as in etcd.
const REMOVED_DELAY: Duration = Duration::from_secs(1);

/// Time to connect to a peer, before the election timeout is added.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The life of the process once its lanes run: waits until the member is ready, serves, waits for a signal, stops.
async fn serve(shared: Arc<Shared>, listeners: Listeners) -> ExitCode {
    let logger = &shared.logger;
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be awaited");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be awaited");
    let peers: Vec<String> = listeners.peer.iter().map(|guarded| guarded.listener.address()).collect();
    shared.transport.serve(listeners.peer, &shared);
    for listener in listeners.metrics {
        tokio::task::spawn_local(accept_http(listener, shared.clone(), Port::Metrics));
    }
    tokio::task::spawn_local(chores::purge(shared.clone()));
    tokio::task::spawn_local(chores::compact(shared.clone()));
    tokio::task::spawn_local(chores::watch_files(shared.clone()));
    tokio::task::spawn_local(chores::advance_ticks(shared.clone()));
    tokio::task::spawn_local(chores::watch_leader(shared.clone()));
    tokio::task::spawn_local(versions::watch(shared.clone()));
    tokio::task::spawn_local(versions::end_downgrade(shared.clone()));
    tokio::task::spawn_local(corruption::check_periodically(shared.clone()));
    tokio::task::spawn_local(corruption::check_compactions(shared.clone()));
    tokio::task::spawn_local(forward::run(shared.clone()));
    let mut end = tokio::select! {
        () = shared.ready.notified() => None,
        _ = terminate.recv() => Some(End::Signal("terminated")),
        _ = interrupt.recv() => Some(End::Signal("interrupt")),
        () = shared.removed.notified() => Some(End::Removed),
    };
    let mut networks = Vec::new();
    if end.is_none() {
        networks = serve_clients(&shared, listeners.client);
        end = Some(tokio::select! {
            _ = terminate.recv() => End::Signal("terminated"),
            _ = interrupt.recv() => End::Signal("interrupt"),
            () = shared.removed.notified() => End::Removed,
        });
    }
    match end {
        Some(End::Signal(name)) => {
            logger.info("received signal; shutting down", &[("signal", name.into())]);
            lines::say_closing(&shared.config, logger, "closing etcd server");
        }
        // The others must still hear from here that the removal is committed.
        Some(End::Removed) | None => tokio::time::sleep(REMOVED_DELAY).await,
    }
    shared.is_stopping.store(true, Ordering::Release);
    shared.tell_networks(|| Mail::Stop);
    let joined = tokio::task::spawn_blocking(move || {
        networks.into_iter().all(|network: thread::JoinHandle<()>| network.join().is_ok())
    });
    if !joined.await.unwrap_or(false) {
        logger.error("a network thread ended with a panic", &[]);
    }
    hand_over::hand_over(&shared).await;
    lines::say_stop(&shared);
    shared.transport.stop();
    for address in &peers {
        logger.info("stopping serving peer traffic", &[("address", address.into())]);
        logger.info("stopped serving peer traffic", &[("address", address.into())]);
    }
    shared.member.push(MemberInput::Stop);
    ExitCode::SUCCESS
}

/// Starts the network threads and says that the member serves.
fn serve_clients(shared: &Arc<Shared>, entrances: Vec<Entrance>) -> Vec<thread::JoinHandle<()>> {
    let logger = &shared.logger;
    logger.info("ready to serve client requests", &[]);
    let addresses: Vec<(String, Serves, bool, bool)> = entrances
        .iter()
        .map(|Entrance { listener, way }| (listener.address(), way.serves, way.in_clear, way.tls.is_some()))
        .collect();
    let count = shared.networks.len();
    let mut shares: Vec<Vec<Entrance>> = (0..count).map(|_| Vec::new()).collect();
    for entrance in entrances {
        // Every thread accepts on every socket: the kernel spreads connections over those that wait.
        for share in shares.iter_mut().skip(1) {
            match entrance.duplicate() {
                Ok(copy) => share.push(copy),
                Err(error) => logger.warn("cannot share a listener", &[("error", error.to_string().into())]),
            }
        }
        shares[0].push(entrance);
    }
    let networks = shares.into_iter().enumerate().map(|(number, share)| {
        let shared = shared.clone();
        thread::Builder::new()
            .name(format!("net-{number}"))
            .spawn(move || network(number as u16, shared, share))
            .expect("a thread can be started")
    });
    let networks = networks.collect();
    notify_init(logger);
    logger.info("grpc service status changed", &[("service", "".into()), ("status", "SERVING".into())]);
    for (address, serves, in_clear, is_secure) in addresses {
        let traffic = match serves {
            Serves::GrpcAndHttp => "grpc+http",
            Serves::GrpcOnly => "grpc",
            Serves::HttpOnly => "http",
        };
        let fields = [("traffic", traffic.into()), ("address", address.into())];
        if in_clear {
            logger.info("serving client traffic insecurely; this is strongly discouraged!", &fields);
        }
        if is_secure {
            logger.info("serving client traffic securely", &fields);
        }
    }
    networks
}

fn network(number: u16, shared: Arc<Shared>, entrances: Vec<Entrance>) {
    let runtime = runtime::of_one_thread();
    runtime.block_on(Thread::new(number, shared).run(entrances));
    // Workers of calls that are over may still read the file; they end by themselves.
    runtime.shutdown_background();
}

fn notify_init(logger: &Logger) {
    logger.info("notifying init daemon", &[]);
    match sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        Ok(()) => logger.info("successfully notified init daemon", &[]),
        Err(error) => logger.error("failed to notify systemd for readiness", &[("error", error.to_string().into())]),
    }
}

async fn accept_http(guarded: Guarded, shared: Arc<Shared>, port: Port) {
    let Guarded { listener, tls } = guarded;
    let serve = async |socket: Socket| {
        let shared = shared.clone();
        let pass = match &tls {
            Some(tls) => Some((tls.clone(), tls.enter().await)),
            None => None,
        };
        tokio::task::spawn_local(async move {
            let stream = match pass {
                Some((tls, pass)) => tls.accept(pass, socket, Vec::new()).await,
                None => Some(Stream::plain(socket)),
            };
            if let Some(stream) = stream {
                http::serve_other(stream, shared, port).await;
            }
        });
    };
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime has I/O");
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => serve(Socket::Tcp(stream)).await,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
        Listener::Unix(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener).expect("the runtime has I/O");
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => serve(Socket::Unix(stream)).await,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
    }
}

/// Settings whose capability this version does not have: said at once, in one sentence, before anything is touched.
fn refuse_later(config: &Config) -> Result<(), String> {
    let raw = &config.raw;
    let given = |name: &str| raw.is_set(name) && !matches!(raw.text(name), "" | "false");
    let later = [("enable-distributed-tracing", "distributed tracing")];
    if let Some((name, what)) = later.iter().find(|(name, _)| given(name)) {
        return Err(format!("--{name} is not available in this version of Mainstay: it does not have {what} yet"));
    }
    if value::parse_int(raw.text("max-learners")).is_ok_and(|learners| learners < 0) {
        return Err("membership: too many learner members in cluster".into());
    }
    let jwt = raw.text("auth-token");
    if !matches!(jwt.split(',').next(), Some("simple" | "jwt" | "")) {
        return Err("auth: invalid auth options".into());
    }
    if !matches!(jwt, "simple" | "") {
        return Err(format!("--auth-token={jwt} is not available in this version of Mainstay: it does not have logins yet"));
    }
    Ok(())
}

fn listen(config: &Config, logger: &Logger) -> Result<Listeners, String> {
    let options = SocketOptions { reuse_port: config.reuse_port, reuse_address: config.reuse_address };
    logger.info("configuring peer listeners", &[("listen-peer-urls", lines::texts(&config.listen_peer).into())]);
    let peer_tls = tls::for_peers(config, logger)?;
    let guard = |urls: &[value::Address], tls: &Option<ServerTls>| -> Result<Vec<Guarded>, String> {
        let guard = |url: &value::Address| {
            let tls = tls.as_ref().filter(|_| url.is_secure()).map(ServerTls::for_another);
            Ok(Guarded { listener: bind(url, options)?, tls })
        };
        urls.iter().map(guard).collect()
    };
    let peer = guard(&config.listen_peer, &peer_tls.listening)?;
    logger.info("configuring client listeners", &[("listen-client-urls", lines::texts(&config.listen_client).into())]);
    let client_tls = tls::for_clients(config, logger)?;
    let client = bind_clients(config, options, &client_tls)?;
    let metrics = guard(&config.listen_metrics, &client_tls.metrics)?;
    let dialer = Dialer::new(DIAL_TIMEOUT + config.election, peer_tls.dialling);
    Ok(Listeners { client, peer, metrics, client_tls: client_tls.info, dialer })
}

/// The settings as the core takes them, but for the members of the cluster.
fn core_config(config: &Config) -> Result<etcdserver::Config, String> {
    let spoken = api::version::RELEASES.iter().find(|release| u64::from(release.minor) == config.emulated_minor);
    let version = *spoken.expect("the flag's choices are the releases");
    let mut seed = [0u8; 8];
    fill_seed(&mut seed)?;
    Ok(etcdserver::Config {
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        initial_cluster: Vec::new(),
        initial_cluster_token: String::new(),
        new_cluster: !config.is_existing,
        joining: None,
        force_new_cluster: value::parse_bool(config.raw.text("force-new-cluster")) == Some(true),
        discovery: matches!(config.discovery, Discovery::Service(_)),
        advertise_peer_urls: lines::texts(&config.advertise_peer),
        advertise_client_urls: lines::texts(&config.advertise_client),
        advertise_checked: false,
        heartbeat_ms: config.heartbeat.as_millis() as u64,
        election_ms: config.election.as_millis() as u64,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        catch_up_entries: config.snapshot_catchup_entries,
        max_request_bytes: config.max_request_bytes.min(u64::from(u32::MAX)) as u32,
        max_learners: config.max_learners as usize,
        version,
        lease_checkpoint: config.gate("LeaseCheckpoint"),
        lease_checkpoint_persist: config.gate("LeaseCheckpointPersist"),
        quota_bytes: config.quota.map_or(-1, |quota| quota as i64),
        bcrypt_cost: value::parse_uint(config.raw.text("bcrypt-cost"), 31).ok().filter(|cost| *cost >= 4).unwrap_or(10) as u32,
        fast_lease_keep_alive: config.gate("FastLeaseKeepAlive"),
        seed: u64::from_le_bytes(seed),
    })
}

/// Random bytes of the system.
fn fill_seed(seed: &mut [u8]) -> Result<(), String> {
    use std::io::Read;
    let mut source = std::fs::File::open("/dev/urandom").map_err(|error| format!("open /dev/urandom: {error}"))?;
    source.read_exact(seed).map_err(|error| format!("read /dev/urandom: {error}"))
}
