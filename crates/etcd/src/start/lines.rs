//! Log lines of start and stop, in etcd's words and order.

use std::thread;
use std::time::Duration;

use api::ids;
use etcdserver::bootstrap::Report;
use etcdserver::membership::Cluster;

use super::{go_arch, initial};
use crate::config::discovery::Discovery;
use crate::config::{AutoCompaction, Config, value};
use crate::logging::{Field, Logger, human_bytes};
use crate::member::handle::Shared;
use crate::net::listen::Guarded;

/// URLs as they were given.
pub(super) fn texts(urls: &[crate::config::value::Address]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// What the settings make a careful user do otherwise.
pub(crate) fn say_advice(config: &Config, logger: &Logger) {
    if config.listen_client_http.is_empty() {
        logger.warn("Running http and grpc server on single port. This is not recommended for production.", &[]);
    }
    if config.name == "default" {
        logger.warn(
            "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into \
             issue when multiple members have the same default name",
            &[("name", "default".into())],
        );
    }
}

/// Whether there is a directory already.
pub(super) fn say_directory(config: &Config, logger: &Logger) {
    let dir = config.data_dir.display().to_string();
    if config.data_dir_is_default {
        logger.warn("'data-dir' was empty; using default", &[("data-dir", (&dir).into())]);
    }
    for name in foreign_names(&config.data_dir) {
        let fields = [("filename", name.into()), ("data-dir", (&dir).into())];
        logger.warn("found invalid file under data directory", &fields);
    }
    let initialized = config.data_dir.join("member").exists();
    let (text, kind) = if initialized {
        ("server has already been initialized", "member")
    } else {
        ("Initialize and start etcd server", "empty")
    };
    logger.info(text, &[("data-dir", dir.into()), ("dir-type", kind.into())]);
}

/// Names in the data directory that are not those of a member, in order; `fixtures`, with certificates that it made
/// itself, is one of them, as in etcd.
fn foreign_names(data_dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(data_dir).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !matches!(name.as_str(), "member" | "proxy")).collect();
    names.sort();
    names
}

/// What bootstrap found, up to the member's own part in it.
pub(super) fn say_bootstrap(logger: &Logger, db_path: String, took: Duration, report: &Report) {
    logger.info("opened backend db", &[("path", db_path.into()), ("took", took.into())]);
    logger.info("restore consistentIndex", &[("index", report.consistent_index.into())]);
    for warning in &report.warnings {
        logger.warn(warning, &[]);
    }
    if report.snapshot_index > 0 {
        logger.info(
            "Recovering from snapshot backend",
            &[
                ("consistent-index", report.consistent_index.into()),
                ("snapshot-index", report.snapshot_index.into()),
            ],
        );
    }
    for stage in ["bootstrapping cluster", "bootstrapping storage", "bootstrapping raft"] {
        logger.info(stage, &[]);
    }
    let [member, cluster] = [
        ("local-member-id", ids::hex(report.member_id).to_string().into()),
        ("cluster-id", ids::hex(report.cluster_id).to_string().into()),
    ];
    if report.is_new {
        logger.info("starting local member", &[member, cluster]);
    } else {
        logger.info("restarting local member", &[cluster, member, ("commit-index", report.commit_index.into())]);
    }
    logger.info("bootstrap successfully", &[]);
}

/// The quota, if there is one.
pub(super) fn say_quota(config: &Config, logger: &Logger) {
    let Some(quota) = config.quota else {
        logger.info("disabled backend quota", &[("quota-name", "v3-applier".into()), ("quota-size-bytes", (-1i64).into())]);
        return;
    };
    let fields = [
        ("quota-name", "v3-applier".into()),
        ("quota-size-bytes", quota.into()),
        ("quota-size", human_bytes(quota).into()),
    ];
    if config.quota_is_default {
        logger.info("enabled backend quota with default value", &fields);
    } else {
        logger.info("enabled backend quota", &fields);
    }
}

/// The member is about to run.
pub(super) fn say_member(config: &Config, logger: &Logger, report: &Report, server: &str, cluster: &Cluster) {
    let member = ("local-member-id", ids::hex(report.member_id).to_string().into());
    let version = ("local-server-version", server.into());
    match cluster.version() {
        Some(known) => logger.info(
            "starting etcd server",
            &[
                member,
                version,
                ("cluster-id", ids::hex(report.cluster_id).to_string().into()),
                ("cluster-version", known.minor().to_string().into()),
            ],
        ),
        None => logger.info("starting etcd server", &[member, version, ("cluster-version", "to_be_decided".into())]),
    }
    logger.info(
        "now serving peer/client/metrics",
        &[
            ("local-member-id", ids::hex(report.member_id).to_string().into()),
            ("initial-advertise-peer-urls", texts(&config.advertise_peer).into()),
            ("listen-peer-urls", texts(&config.listen_peer).into()),
            ("advertise-client-urls", texts(&config.advertise_client).into()),
            ("listen-client-urls", texts(&config.listen_client).into()),
            ("listen-metrics-urls", texts(&config.listen_metrics).into()),
        ],
    );
}

/// Sockets are served from now on, and the member's work begins.
pub(super) fn say_serving(shared: &Shared, peer: &[Guarded], metrics: &[Guarded]) {
    for Guarded { listener, .. } in peer {
        shared.logger.info("serving peer traffic", &[("address", listener.address().into())]);
        shared.logger.info("cmux::serve", &[("address", listener.address().into())]);
    }
    for Guarded { listener, .. } in metrics {
        shared.logger.info("serving metrics", &[("address", listener.address().into())]);
    }
    say_single_node(shared);
    say_purge(shared);
}

/// A lone member does not wait for a leader.
fn say_single_node(shared: &Shared) {
    if shared.published.load().edge.cluster.members().len() > 1 || shared.core.initial_cluster.len() > 1 {
        return;
    }
    let ticks = shared.core.election_ticks().saturating_sub(1);
    let skipped = shared.config.heartbeat * u32::try_from(ticks).unwrap_or(u32::MAX);
    shared.logger.info(
        "started as single-node; fast-forwarding election ticks",
        &[
            ("local-member-id", ids::hex(shared.member_id).to_string().into()),
            ("forward-ticks", ticks.into()),
            ("forward-duration", value::format_duration(skipped).into()),
            ("election-ticks", shared.core.election_ticks().into()),
            ("election-timeout", value::format_duration(shared.config.election).into()),
        ],
    );
}

/// Old files are looked for from now on.
fn say_purge(shared: &Shared) {
    let snap = shared.core.snap_dir().display().to_string();
    let wal = shared.core.wal_path().display().to_string();
    let (snaps, wals) = (shared.config.max_snapshots, shared.config.max_wals);
    for (dir, suffix, max) in [(&snap, "snap.db", snaps), (&snap, "snap", snaps), (&wal, "wal", wals)] {
        if max == 0 {
            continue;
        }
        shared.logger.info(
            "started to purge file",
            &[
                ("dir", dir.into()),
                ("suffix", suffix.into()),
                ("max", max.into()),
                ("interval", crate::chores::PURGE_INTERVAL.into()),
            ],
        );
    }
}

/// The line at the begin or the end of a stop.
pub(super) fn say_closing(config: &Config, logger: &Logger, text: &str) {
    logger.info(
        text,
        &[
            ("name", (&config.name).into()),
            ("data-dir", config.data_dir.display().to_string().into()),
            ("advertise-peer-urls", texts(&config.advertise_peer).into()),
            ("advertise-client-urls", texts(&config.advertise_client).into()),
        ],
    );
}

/// What a stop ends.
pub(super) fn say_stop(shared: &Shared) {
    shared.logger.info("server has stopped; stopping storage version's monitor", &[]);
    shared.logger.info("server has stopped; stopping cluster version's monitor", &[]);
}

/// The directory or the cluster is not one to start with.
pub(super) fn say_bootstrap_failed(logger: &Logger, error: &str) {
    logger.error("bootstrap failed", &[("error", error.into())]);
}

/// The discovery service had no place for this member, or was not usable.
pub(super) fn say_discovery_failed(config: &Config, logger: &Logger, error: &str) {
    if let Discovery::Service(service) = &config.discovery {
        logger.warn(
            "failed to bootstrap; discovery token was already used",
            &[
                ("discovery-token", (&service.token).into()),
                ("discovery-endpoints", service.endpoints.clone().into()),
                ("error", error.into()),
            ],
        );
    }
    logger.warn("do not reuse discovery token; generate a new one to bootstrap a cluster", &[]);
}

/// All settings, as they are in force. Members and token mean nothing to a member that has a log.
pub(super) fn say_start(config: &Config, logger: &Logger, core: &etcdserver::Config, has_log: bool) {
    let raw = &config.raw;
    let (members, token) = match has_log {
        true => (String::new(), String::new()),
        false => (initial::show(&core.initial_cluster), core.initial_cluster_token.clone()),
    };
    let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let duration = |name: &str| value::parse_duration(raw.text(name)).unwrap_or_default();
    let (mode, retention) = compaction_settings(config);
    let wal_dir = raw.text("wal-dir");
    let mut fields: Vec<Field<'_>> = vec![
        ("etcd-version", core.version.to_string().into()),
        ("git-sha", option_env!("MAINSTAY_GIT_SHA").unwrap_or("unknown").into()),
        ("go-version", "none".into()),
        ("go-os", std::env::consts::OS.into()),
        ("go-arch", go_arch().into()),
        ("max-cpu-set", cpus.into()),
        ("max-cpu-available", cpus.into()),
        ("member-initialized", config.data_dir.join("member").exists().into()),
        ("name", (&config.name).into()),
        ("data-dir", config.data_dir.display().to_string().into()),
        ("wal-dir", wal_dir.into()),
        ("wal-dir-dedicated", wal_dir.into()),
        ("member-dir", core.member_dir().display().to_string().into()),
        ("force-new-cluster", core.force_new_cluster.into()),
        ("heartbeat-interval", config.heartbeat.into()),
        ("election-timeout", config.election.into()),
        ("initial-election-tick-advance", config.election_tick_advance.into()),
        ("snapshot-count", config.snapshot_count.into()),
        ("max-wals", config.max_wals.into()),
        ("max-snapshots", config.max_snapshots.into()),
        ("snapshot-catchup-entries", config.snapshot_catchup_entries.into()),
        ("initial-advertise-peer-urls", texts(&config.advertise_peer).into()),
        ("listen-peer-urls", texts(&config.listen_peer).into()),
        ("advertise-client-urls", texts(&config.advertise_client).into()),
        ("listen-client-urls", texts(&config.listen_client).into()),
        ("listen-metrics-urls", texts(&config.listen_metrics).into()),
        ("local-address", "".into()),
        ("cors", config.cors.clone().into()),
        ("host-whitelist", config.host_whitelist.clone().into()),
        ("initial-cluster", members.into()),
        ("initial-cluster-state", if config.is_existing { "existing" } else { "new" }.into()),
        ("initial-cluster-token", token.into()),
        ("quota-backend-bytes", config.quota.map_or(-1, |quota| quota as i64).into()),
        ("max-request-bytes", config.max_request_bytes.into()),
        ("max-concurrent-streams", config.max_concurrent_streams.into()),
        ("pre-vote", config.pre_vote.into()),
        ("feature-gates", (&config.gates_given).into()),
        ("initial-corrupt-check", config.gate("InitialCorruptCheck").into()),
        ("corrupt-check-time-interval", duration("corrupt-check-time").into()),
        ("compact-check-time-interval", duration("compact-hash-check-time").into()),
        ("auto-compaction-mode", mode.into()),
        ("auto-compaction-retention", retention.into()),
        ("auto-compaction-interval", retention.into()),
    ];
    fields.extend(discovery_fields(config));
    fields.extend([
        ("downgrade-check-interval", duration("downgrade-check-time").into()),
        ("max-learners", config.max_learners.into()),
        ("v2-deprecation", "write-only".into()),
    ]);
    logger.info("starting an etcd server", &fields);
    if has_log && core.discovery {
        logger.warn(
            "discovery token is ignored since cluster already initialized; valid logs are found",
            &[("wal-dir", core.wal_path().display().to_string().into())],
        );
    }
}

fn discovery_fields(config: &Config) -> Vec<Field<'_>> {
    let raw = &config.raw;
    let duration = |name: &str| value::parse_duration(raw.text(name)).unwrap_or_default();
    let endpoints = match &config.discovery {
        Discovery::Service(service) => service.endpoints.join(","),
        _ => String::new(),
    };
    vec![
        ("discovery-token", raw.text("discovery-token").into()),
        ("discovery-endpoints", endpoints.into()),
        ("discovery-dial-timeout", duration("discovery-dial-timeout").into()),
        ("discovery-request-timeout", duration("discovery-request-timeout").into()),
        ("discovery-keepalive-time", duration("discovery-keepalive-time").into()),
        ("discovery-keepalive-timeout", duration("discovery-keepalive-timeout").into()),
        ("discovery-insecure-transport", (raw.text("discovery-insecure-transport") == "true").into()),
        ("discovery-insecure-skip-tls-verify", (raw.text("discovery-insecure-skip-tls-verify") == "true").into()),
        ("discovery-cert", raw.text("discovery-cert").into()),
        ("discovery-key", raw.text("discovery-key").into()),
        ("discovery-cacert", raw.text("discovery-cacert").into()),
        ("discovery-user", raw.text("discovery-user").into()),
    ]
}

fn compaction_settings(config: &Config) -> (&str, Duration) {
    match config.auto_compaction {
        Ok(AutoCompaction::Off) | Err(_) => (config.raw.text("auto-compaction-mode"), Duration::ZERO),
        Ok(AutoCompaction::Periodic(period)) => ("periodic", period),
        Ok(AutoCompaction::Revision(revisions)) => ("revision", Duration::from_nanos(revisions as u64)),
    }
}
