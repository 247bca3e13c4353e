//! What the user asked for: flags, environment and configuration file ([`raw`]), judged as a whole ([`Config`]).
//!
//! Reading order: `flags.rs` (the table), `value.rs` (one value), `raw.rs` (all values, not yet judged), this file
//! (the judged whole), `security.rs` (what was said about TLS), `discovery.rs` (how founders find each other),
//! `help.rs`.

pub(crate) mod discovery;
pub(crate) mod flags;
pub(crate) mod help;
pub(crate) mod raw;
pub(crate) mod security;
pub(crate) mod value;

use std::path::PathBuf;
use std::time::Duration;

use discovery::Discovery;
use raw::RawConfig;
use value::Address;

/// Minutes, hours or revisions of history that automatic compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AutoCompaction {
    /// None is done.
    Off,
    /// History of this length is kept.
    Periodic(Duration),
    /// This many revisions are kept.
    Revision(i64),
}

/// The settings of a member, each checked, and checked against each other.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    /// Whether `data_dir` was made from the name because none was given.
    pub(crate) data_dir_is_default: bool,
    pub(crate) wal_dir: Option<PathBuf>,
    pub(crate) listen_peer: Vec<Address>,
    pub(crate) listen_client: Vec<Address>,
    pub(crate) listen_client_http: Vec<Address>,
    pub(crate) listen_metrics: Vec<Address>,
    pub(crate) advertise_peer: Vec<Address>,
    pub(crate) advertise_client: Vec<Address>,
    /// The founders that the flags list; empty when they are to be discovered.
    pub(crate) initial_cluster: String,
    pub(crate) initial_cluster_token: String,
    pub(crate) discovery: Discovery,
    pub(crate) is_existing: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) election: Duration,
    pub(crate) election_tick_advance: bool,
    pub(crate) pre_vote: bool,
    pub(crate) snapshot_count: u64,
    pub(crate) snapshot_catchup_entries: u64,
    pub(crate) max_wals: u64,
    pub(crate) max_snapshots: u64,
    /// Bytes; `None` when there is no quota.
    pub(crate) quota: Option<u64>,
    pub(crate) quota_is_default: bool,
    pub(crate) max_request_bytes: u64,
    pub(crate) max_txn_ops: u64,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) batch_interval: Duration,
    pub(crate) batch_limit: u64,
    pub(crate) keepalive_min_time: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_timeout: Duration,
    /// As asked for, or why that cannot be.
    pub(crate) auto_compaction: Result<AutoCompaction, String>,
    pub(crate) compaction_batch_limit: u64,
    pub(crate) compaction_sleep: Duration,
    pub(crate) watch_progress_interval: Duration,
    /// Requests that take longer at apply are logged.
    pub(crate) slow_apply: Duration,
    /// Unary calls that take longer are logged.
    pub(crate) slow_call: Duration,
    pub(crate) max_learners: u64,
    pub(crate) no_fsync: bool,
    pub(crate) reuse_port: bool,
    pub(crate) reuse_address: bool,
    pub(crate) cors: Vec<String>,
    pub(crate) host_whitelist: Vec<String>,
    /// Effective state of every gate, in the order of the table.
    pub(crate) gates: Vec<(&'static str, bool)>,
    /// The gates as given.
    pub(crate) gates_given: String,
    /// Minor version that is shown and stored: 5, 6 or 7.
    pub(crate) emulated_minor: u64,
    /// Everything as given, for the settings that are only shown.
    pub(crate) raw: RawConfig,
}

impl Config {
    /// Judges what was given. The error is the text that follows `failed to verify flags`.
    pub(crate) fn check(raw: RawConfig) -> Result<Config, String> {
        let urls = |name: &str| value::parse_urls(raw.text(name)).expect("checked when it was given");
        let duration = |name: &str| value::parse_duration(raw.text(name)).expect("checked when it was given");
        let uint = |name: &str| value::parse_uint(raw.text(name), u64::MAX).expect("checked when it was given");
        let int = |name: &str| value::parse_int(raw.text(name)).expect("checked when it was given");
        let on = |name: &str| value::parse_bool(raw.text(name)).expect("checked when it was given");
        for name in ["listen-peer-urls", "listen-client-urls", "listen-client-http-urls", "listen-metrics-urls"] {
            check_bind(&urls(name))?;
        }
        let initial_cluster = initial_cluster(&raw);
        let discovery = Discovery::check(&raw, &initial_cluster)?;
        let (heartbeat, election) = (uint("heartbeat-interval"), uint("election-timeout"));
        check_conflicts(&raw)?;
        check_timing(heartbeat, election)?;
        let quota = int("quota-backend-bytes");
        let or = |value: u64, fallback: u64| if value == 0 { fallback } else { value };
        let or_time = |value: Duration, fallback: Duration| if value.is_zero() { fallback } else { value };
        let (name, data_dir) = (raw.text("name").to_string(), raw.text("data-dir"));
        Ok(Config {
            data_dir: if data_dir.is_empty() { format!("{name}.etcd").into() } else { data_dir.into() },
            data_dir_is_default: data_dir.is_empty(),
            wal_dir: Some(raw.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            listen_peer: urls("listen-peer-urls"),
            listen_client: urls("listen-client-urls"),
            listen_client_http: urls("listen-client-http-urls"),
            listen_metrics: urls("listen-metrics-urls"),
            advertise_peer: urls("initial-advertise-peer-urls"),
            advertise_client: urls("advertise-client-urls"),
            initial_cluster,
            initial_cluster_token: raw.text("initial-cluster-token").into(),
            discovery,
            is_existing: raw.text("initial-cluster-state") == "existing",
            heartbeat: Duration::from_millis(heartbeat),
            election: Duration::from_millis(election),
            election_tick_advance: on("initial-election-tick-advance"),
            pre_vote: on("pre-vote"),
            snapshot_count: uint("snapshot-count"),
            snapshot_catchup_entries: uint("snapshot-catchup-entries"),
            max_wals: uint("max-wals"),
            max_snapshots: uint("max-snapshots"),
            quota: if quota < 0 { None } else { Some(or(quota as u64, 2 << 30)) },
            quota_is_default: quota == 0,
            max_request_bytes: uint("max-request-bytes"),
            max_txn_ops: uint("max-txn-ops"),
            max_concurrent_streams: uint("max-concurrent-streams") as u32,
            batch_interval: or_time(duration("backend-batch-interval"), Duration::from_millis(100)),
            batch_limit: or(int("backend-batch-limit").max(0) as u64, 10_000),
            keepalive_min_time: duration("grpc-keepalive-min-time"),
            keepalive_interval: duration("grpc-keepalive-interval"),
            keepalive_timeout: duration("grpc-keepalive-timeout"),
            auto_compaction: auto_compaction(&raw),
            compaction_batch_limit: or(int("compaction-batch-limit").max(0) as u64, 1000),
            compaction_sleep: or_time(duration("compaction-sleep-interval"), Duration::from_millis(10)),
            watch_progress_interval: or_time(duration("watch-progress-notify-interval"), Duration::from_secs(600))
                .max(Duration::from_millis(100)),
            slow_apply: or_time(duration("warning-apply-duration"), Duration::from_millis(100)),
            slow_call: or_time(duration("warning-unary-request-duration"), Duration::from_millis(300)),
            max_learners: int("max-learners").max(0) as u64,
            no_fsync: on("unsafe-no-fsync"),
            reuse_port: on("socket-reuse-port"),
            reuse_address: on("socket-reuse-address"),
            cors: value::parse_list(raw.text("cors")),
            host_whitelist: value::parse_list(raw.text("host-whitelist")),
            gates: gates(raw.text("feature-gates"))?,
            gates_given: raw.text("feature-gates").to_string(),
            emulated_minor: raw.text("emulated-version").trim_start_matches("3.").parse().expect("one of the choices"),
            name,
            raw,
        })
    }

    /// Whether a gate is on.
    pub(crate) fn gate(&self, name: &str) -> bool {
        self.gates.iter().any(|(gate, on)| *gate == name && *on)
    }
}

/// The founders: as given, else, if this member has a name of its own, itself alone.
fn initial_cluster(raw: &RawConfig) -> String {
    if discovery::replaces_default(raw) {
        return String::new();
    }
    let (given, name) = (raw.text("initial-cluster"), raw.text("name"));
    let is_default = |flag: &str| flags::find(flag).is_some_and(|flag| raw.text(flag.name) == flag.default);
    if !is_default("initial-cluster") || is_default("name") {
        return given.to_string();
    }
    let urls = raw.text("initial-advertise-peer-urls").split(',');
    urls.map(|url| format!("{name}={}", url.trim())).collect::<Vec<_>>().join(",")
}

/// Effective gates: what was given, else what `AllAlpha` or `AllBeta` say of the stage, else the default.
fn gates(given: &str) -> Result<Vec<(&'static str, bool)>, String> {
    let given = value::parse_gates(given)?;
    let said = |name: &str| given.iter().rev().find(|(gate, _)| gate == name).map(|(_, on)| *on);
    let gates: Vec<_> = flags::GATES
        .iter()
        .map(|(name, stage, default)| {
            let by_stage = said(if *stage == "ALPHA" { "AllAlpha" } else { "AllBeta" });
            (*name, said(name).or(by_stage).unwrap_or(*default))
        })
        .collect();
    let is_on = |name: &str| gates.iter().any(|(gate, on)| *gate == name && *on);
    if is_on("LeaseCheckpointPersist") && !is_on("LeaseCheckpoint") {
        return Err("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint".into());
    }
    Ok(gates)
}

/// The settings of log lines: looked at before there is a logger to say anything else.
pub(crate) fn check_logging(raw: &RawConfig) -> Result<(), String> {
    match raw.text("logger") {
        "zap" | "" => {}
        // The only logger that 3.4 had by default: its unit files keep working.
        "capnslog" => {}
        other => return Err(format!("unknown logger option {other:?}")),
    }
    match raw.text("log-format") {
        "json" | "console" => {}
        other => return Err(format!("unknown log format: {other}, supported values json, console")),
    }
    let mut outputs = value::parse_list(raw.text("log-outputs"));
    outputs.sort_unstable();
    outputs.dedup();
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err("multi logoutput for \"default\" is not supported yet".into());
    }
    if outputs.len() > 1 && outputs.iter().any(|output| output == "systemd/journal") {
        return Err(format!(
            "running with systemd/journal but other '--log-outputs' values ([{}]) are configured with 'default'; \
             override 'default' value with something else",
            outputs.iter().map(|output| format!("{output:?}")).collect::<Vec<_>>().join(" ")
        ));
    }
    Ok(())
}

/// Listeners bind to addresses, not to names that may mean another machine.
fn check_bind(urls: &[Address]) -> Result<(), String> {
    for url in urls.iter().filter(|url| !url.is_unix()) {
        let host = url.hostname();
        if host != "localhost" && !host.is_empty() && host.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("expected IP in URL for binding ({url})"));
        }
    }
    Ok(())
}

fn check_conflicts(raw: &RawConfig) -> Result<(), String> {
    check_compaction_mode(raw)?;
    check_tls_versions(raw)?;
    if raw.text("discovery-fallback") == "proxy" {
        return Err("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"".into());
    }
    if raw.is_set("listen-client-urls") && !raw.is_set("advertise-client-urls") {
        return Err("--advertise-client-urls is required when --listen-client-urls is set explicitly".into());
    }
    Ok(())
}

fn check_timing(heartbeat: u64, election: u64) -> Result<(), String> {
    if heartbeat == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".into());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".into());
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > 50_000 {
        return Err(format!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms"));
    }
    Ok(())
}

/// What `--auto-compaction-retention` means in a mode. etcd reads it after its flags are verified, at start.
fn auto_compaction(raw: &RawConfig) -> Result<AutoCompaction, String> {
    let retention = raw.text("auto-compaction-retention");
    let number = value::parse_int(retention).ok().filter(|number| *number >= 0).map(i64::cast_unsigned);
    let duration = || {
        value::parse_duration_signed(retention)
            .map(|nanos| nanos.max(0).cast_unsigned())
            .map_err(|_| format!("error parsing CompactionRetention: time: invalid duration {retention:?}"))
    };
    let is_periodic = raw.text("auto-compaction-mode") == "periodic";
    // A duration in the other mode is taken for its nanoseconds, which is hardly what anybody means, and etcd's way.
    let kept = match number {
        Some(hours) if is_periodic => hours.saturating_mul(3600 * 1_000_000_000),
        Some(revisions) => revisions,
        None => duration()?,
    };
    Ok(match kept {
        0 => AutoCompaction::Off,
        nanos if is_periodic => AutoCompaction::Periodic(Duration::from_nanos(nanos)),
        revisions => AutoCompaction::Revision(i64::try_from(revisions).unwrap_or(i64::MAX)),
    })
}

/// Versions of TLS are checked also where there is none.
fn check_tls_versions(raw: &RawConfig) -> Result<(), String> {
    let order = |name: &str| match raw.text(name) {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(2)),
        "TLS1.3" => Ok(Some(3)),
        other => Err(format!("unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)")),
    };
    let (min, max) = (order("tls-min-version")?, order("tls-max-version")?);
    if min == Some(3) && !raw.text("cipher-suites").is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".into());
    }
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        let (min, max) = (raw.text("tls-min-version"), raw.text("tls-max-version"));
        return Err(format!("min version ({min}) is greater than max version ({max})"));
    }
    Ok(())
}

fn check_compaction_mode(raw: &RawConfig) -> Result<(), String> {
    match raw.text("auto-compaction-mode") {
        "periodic" | "revision" => Ok(()),
        other => Err(format!("unknown auto-compaction-mode {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<Config, String> {
        let mut raw = RawConfig::default();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        raw.read_arguments(&arguments).unwrap();
        Config::check(raw)
    }

    #[test]
    fn the_default_is_a_lone_member() {
        let config = check(&[]).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.initial_cluster, "default=http://localhost:2380");
        assert_eq!((config.quota, config.batch_limit, config.snapshot_count), (Some(2 << 30), 10_000, 10_000));
        assert!(config.gate("FastLeaseKeepAlive") && !config.gate("LeaseCheckpoint"));
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_in_etcds_words() {
        for (arguments, text) in [
            (vec!["--listen-peer-urls=http://example.com:2380"], "expected IP in URL for binding (http://example.com:2380)"),
            (
                vec!["--heartbeat-interval=300"],
                "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
            ),
            (
                vec!["--election-timeout=50001"],
                "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
            ),
            (
                vec!["--listen-client-urls=http://127.0.0.1:1"],
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            (vec!["--auto-compaction-mode=foo"], "unknown auto-compaction-mode \"foo\""),
            (vec!["--tls-min-version=x"], "unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)"),
        ] {
            assert_eq!(check(&arguments).unwrap_err(), text);
        }
        assert!(check(&["--feature-gates=LeaseCheckpointPersist=true"]).is_err());
    }

    #[test]
    fn retention_counts_hours_durations_or_revisions() {
        let mode = |mode: &str, keep: &str| {
            check(&[&format!("--auto-compaction-mode={mode}"), &format!("--auto-compaction-retention={keep}")])
                .and_then(|config| config.auto_compaction)
        };
        assert_eq!(mode("periodic", "2"), Ok(AutoCompaction::Periodic(Duration::from_secs(7200))));
        assert_eq!(mode("periodic", "5m"), Ok(AutoCompaction::Periodic(Duration::from_secs(300))));
        assert_eq!(mode("revision", "1000"), Ok(AutoCompaction::Revision(1000)));
        assert_eq!(mode("revision", "0"), Ok(AutoCompaction::Off));
        assert_eq!(mode("revision", "1us"), Ok(AutoCompaction::Revision(1000)));
        assert!(mode("revision", "x").is_err() && mode("periodic", "-1x").is_err());
    }
}
