//! Every flag of the server, as one table: name, YAML key, kind of value, default, and what help says of it.
//!
//! Parsing, environment names, the configuration file and the help text all come from here. Flags that etcd had
//! in older releases and has dropped stand in [`DROPPED`], each with what became of it, so that old unit files
//! keep working (COMPAT.md says so).

/// The kind of value a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`; the name alone means `true`.
    Bool,
    /// Unsigned, 64 bits.
    Uint,
    /// Unsigned, 32 bits.
    Uint32,
    /// Signed, 64 bits.
    Int,
    /// Go's form: `1h2m3.5s`.
    Duration,
    /// Anything.
    Text,
    /// URLs, separated by commas; sorted, each once.
    Urls,
    /// Texts, separated by commas.
    List,
    /// Texts, separated by commas; sorted, each once.
    UniqueList,
    /// URLs or `*`, separated by commas.
    Origins,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// `NAME=true,NAME=false`.
    Gates,
    /// The phases of the v2 store.
    V2Deprecation,
}

/// One flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// Name, without dashes.
    pub(crate) name: &'static str,
    /// Path of its key in the configuration file, dots between levels.
    pub(crate) yaml: Option<&'static str>,
    /// What it takes.
    pub(crate) kind: Kind,
    /// Its value when nothing is given, in the form it would be given in.
    pub(crate) default: &'static str,
    /// The default as help shows it.
    pub(crate) shown: &'static str,
    /// What it is for.
    pub(crate) help: &'static str,
}

/// What became of a flag that etcd dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It lives on under another name.
    Renamed(&'static str),
    /// It is a feature gate now.
    Gate(&'static str),
    /// `true` is the same as this flag with this value.
    Means(&'static str, &'static str),
    /// The value goes to the first flag, and the second becomes `true`.
    WithSwitch(&'static str, &'static str),
    /// It has no effect any more.
    Nothing,
    /// It had an effect that nothing has today unless its value is one of these.
    Refused(&'static [&'static str], &'static str),
}

/// A flag of an older release.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped {
    /// Name, without dashes.
    pub(crate) name: &'static str,
    /// Whether the name alone is enough.
    pub(crate) is_bool: bool,
    /// What became of it.
    pub(crate) fate: Fate,
}

/// The table by sections, in the order of the help text.
pub(crate) const SECTIONS: &[(&str, &[Flag])] = &[
    ("Member", MEMBER),
    ("Clustering", CLUSTERING),
    ("Security", SECURITY),
    ("Auth", AUTH),
    ("Profiling and Monitoring", MONITORING),
    ("Logging", LOGGING),
    ("Distributed tracing", TRACING),
    ("Features", FEATURES),
    ("Unsafe feature", UNSAFE),
    ("Mainstay", OWN),
];

/// The flag of that name.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// All flags of the table.
pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|(_, flags)| flags.iter()).chain(GENERAL)
}

/// The dropped flag of that name.
pub(crate) fn find_dropped(name: &str) -> Option<&'static Dropped> {
    DROPPED.iter().find(|flag| flag.name == name)
}

/// Feature gates with their stage and default.
pub(crate) const GATES: &[(&str, &str, bool)] = &[
    ("AllAlpha", "ALPHA", false),
    ("AllBeta", "BETA", false),
    ("CompactHashCheck", "ALPHA", false),
    ("FastLeaseKeepAlive", "BETA", true),
    ("InitialCorruptCheck", "ALPHA", false),
    ("LeaseCheckpoint", "ALPHA", false),
    ("LeaseCheckpointPersist", "ALPHA", false),
    ("PriorityRequest", "ALPHA", false),
    ("SetMemberLocalAddr", "ALPHA", false),
    ("StopGRPCServiceOnDefrag", "ALPHA", false),
    ("TxnModeWriteWithSharedBuffer", "BETA", true),
];

/// Names that are accepted with any value and do nothing, as in etcd since its second release.
pub(crate) const IGNORED: &[&str] = &[
    "cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config", "force",
    "max-result-buffer", "max-retry-attempts", "peer-election-timeout", "peer-heartbeat-interval",
    "retry-interval", "snapshot", "test.coverprofile", "test.outputdir", "v", "vv",
];

#[rustfmt::skip]
const GENERAL: &[Flag] = &[
    Flag { name: "config-file", yaml: None, kind: Kind::Text, default: "", shown: "", help: "" },
    Flag { name: "version", yaml: None, kind: Kind::Bool, default: "false", shown: "", help: "" },
];

#[rustfmt::skip]
const OWN: &[Flag] = &[
    Flag { name: "emulated-version", yaml: Some("emulated-version"), kind: Kind::Choice(&["3.5", "3.6", "3.7"]), default: "3.7", shown: "'3.7'", help: "Speak, report and store as this release of etcd would, so that its binaries can take the data directory back." },
];

#[rustfmt::skip]
const MEMBER: &[Flag] = &[
    Flag { name: "name", yaml: Some("name"), kind: Kind::Text, default: "default", shown: "'default'", help: "Name of this member, for people." },
    Flag { name: "data-dir", yaml: Some("data-dir"), kind: Kind::Text, default: "", shown: "'${name}.etcd'", help: "Directory that holds all data of this member." },
    Flag { name: "wal-dir", yaml: Some("wal-dir"), kind: Kind::Text, default: "", shown: "''", help: "Directory for the write-ahead log, if it is not to be in the data directory." },
    Flag { name: "snapshot-count", yaml: Some("snapshot-count"), kind: Kind::Uint, default: "10000", shown: "'10000'", help: "Number of applied entries after which a raft snapshot is written." },
    Flag { name: "heartbeat-interval", yaml: Some("heartbeat-interval"), kind: Kind::Uint, default: "100", shown: "'100'", help: "Milliseconds between two heartbeats." },
    Flag { name: "election-timeout", yaml: Some("election-timeout"), kind: Kind::Uint, default: "1000", shown: "'1000'", help: "Milliseconds without a leader after which an election starts." },
    Flag { name: "initial-election-tick-advance", yaml: Some("initial-election-tick-advance"), kind: Kind::Bool, default: "true", shown: "'true'", help: "Skip most of the first election timeout at start, so that a leader is found sooner." },
    Flag { name: "listen-peer-urls", yaml: Some("listen-peer-urls"), kind: Kind::Urls, default: "http://localhost:2380", shown: "'http://localhost:2380'", help: "URLs on which other members are served." },
    Flag { name: "listen-client-urls", yaml: Some("listen-client-urls"), kind: Kind::Urls, default: "http://localhost:2379", shown: "'http://localhost:2379'", help: "URLs on which clients are served: gRPC, and HTTP unless --listen-client-http-urls is given." },
    Flag { name: "listen-client-http-urls", yaml: Some("listen-client-http-urls"), kind: Kind::Urls, default: "", shown: "''", help: "URLs for HTTP alone; with it --listen-client-urls serves only gRPC." },
    Flag { name: "max-snapshots", yaml: Some("max-snapshots"), kind: Kind::Uint, default: "5", shown: "'5'", help: "Number of snapshot files that are kept (0: all). Deprecated since 3.6." },
    Flag { name: "max-wals", yaml: Some("max-wals"), kind: Kind::Uint, default: "5", shown: "'5'", help: "Number of log files that are kept (0: all)." },
    Flag { name: "memory-mlock", yaml: Some("memory-mlock"), kind: Kind::Bool, default: "false", shown: "", help: "Keep the database file in memory." },
    Flag { name: "quota-backend-bytes", yaml: Some("quota-backend-bytes"), kind: Kind::Int, default: "0", shown: "'0'", help: "Size of the database in bytes that raises the NOSPACE alarm (0: 2 GiB; below 0: no quota)." },
    Flag { name: "backend-bbolt-freelist-type", yaml: Some("backend-bbolt-freelist-type"), kind: Kind::Text, default: "", shown: "'map'", help: "Accepted for compatibility: array or map." },
    Flag { name: "backend-batch-interval", yaml: Some("backend-batch-interval"), kind: Kind::Duration, default: "0s", shown: "''", help: "Longest time between two commits of the database." },
    Flag { name: "backend-batch-limit", yaml: Some("backend-batch-limit"), kind: Kind::Int, default: "0", shown: "'0'", help: "Most changes between two commits of the database." },
    Flag { name: "max-txn-ops", yaml: Some("max-txn-ops"), kind: Kind::Uint, default: "128", shown: "'128'", help: "Most operations in one transaction." },
    Flag { name: "max-request-bytes", yaml: Some("max-request-bytes"), kind: Kind::Uint, default: "1572864", shown: "'1572864'", help: "Largest request of a client in bytes." },
    Flag { name: "max-concurrent-streams", yaml: Some("max-concurrent-streams"), kind: Kind::Uint32, default: "4294967295", shown: "'math.MaxUint32'", help: "Most calls that one client connection may have open." },
    Flag { name: "grpc-keepalive-min-time", yaml: Some("grpc-keepalive-min-time"), kind: Kind::Duration, default: "5s", shown: "'5s'", help: "Shortest time between two pings of a client." },
    Flag { name: "grpc-keepalive-interval", yaml: Some("grpc-keepalive-interval"), kind: Kind::Duration, default: "2h0m0s", shown: "'2h'", help: "Time between two pings to a silent client (0: none)." },
    Flag { name: "grpc-keepalive-timeout", yaml: Some("grpc-keepalive-timeout"), kind: Kind::Duration, default: "20s", shown: "'20s'", help: "Time that a pinged client has to answer (0: no limit)." },
    Flag { name: "socket-reuse-port", yaml: Some("socket-options.reuse-port"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Set SO_REUSEPORT on listeners." },
    Flag { name: "socket-reuse-address", yaml: Some("socket-options.reuse-address"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Set SO_REUSEADDR on listeners." },
    Flag { name: "enable-grpc-gateway", yaml: Some("enable-grpc-gateway"), kind: Kind::Bool, default: "true", shown: "", help: "Serve the JSON gateway." },
    Flag { name: "raft-read-timeout", yaml: None, kind: Kind::Duration, default: "5s", shown: "'5s'", help: "Read time-out of connections between members." },
    Flag { name: "raft-write-timeout", yaml: None, kind: Kind::Duration, default: "5s", shown: "'5s'", help: "Write time-out of connections between members." },
    Flag { name: "feature-gates", yaml: Some("feature-gates"), kind: Kind::Gates, default: "", shown: "''", help: "Features to switch on or off, as NAME=true,NAME=false. The gates are:" },
];

#[rustfmt::skip]
const CLUSTERING: &[Flag] = &[
    Flag { name: "initial-advertise-peer-urls", yaml: Some("initial-advertise-peer-urls"), kind: Kind::Urls, default: "http://localhost:2380", shown: "'http://localhost:2380'", help: "Peer URLs of this member as the others shall know them." },
    Flag { name: "initial-cluster", yaml: Some("initial-cluster"), kind: Kind::Text, default: "default=http://localhost:2380", shown: "'default=http://localhost:2380'", help: "Members of a new cluster, as name=URL,name=URL." },
    Flag { name: "initial-cluster-state", yaml: Some("initial-cluster-state"), kind: Kind::Choice(&["new", "existing"]), default: "new", shown: "'new'", help: "'new' for a new cluster, 'existing' to join one that runs. Read only at the first start." },
    Flag { name: "initial-cluster-token", yaml: Some("initial-cluster-token"), kind: Kind::Text, default: "etcd-cluster", shown: "'etcd-cluster'", help: "Text that keeps clusters with equal URLs apart." },
    Flag { name: "advertise-client-urls", yaml: Some("advertise-client-urls"), kind: Kind::Urls, default: "http://localhost:2379", shown: "'http://localhost:2379'", help: "Client URLs of this member as clients shall know them." },
    Flag { name: "discovery-token", yaml: Some("discovery-config.token"), kind: Kind::Text, default: "", shown: "''", help: "Token of the cluster at the discovery service." },
    Flag { name: "discovery-endpoints", yaml: Some("discovery-config.client.endpoints"), kind: Kind::UniqueList, default: "", shown: "''", help: "Endpoints of the discovery service." },
    Flag { name: "discovery-dial-timeout", yaml: Some("discovery-config.client.dial-timeout"), kind: Kind::Duration, default: "2s", shown: "'2s'", help: "Time-out for connecting to the discovery service." },
    Flag { name: "discovery-request-timeout", yaml: Some("discovery-config.client.request-timeout"), kind: Kind::Duration, default: "5s", shown: "'5s'", help: "Time-out for a request to the discovery service." },
    Flag { name: "discovery-keepalive-time", yaml: Some("discovery-config.client.keepalive-time"), kind: Kind::Duration, default: "2s", shown: "'2s'", help: "Time between two pings to the discovery service." },
    Flag { name: "discovery-keepalive-timeout", yaml: Some("discovery-config.client.keepalive-timeout"), kind: Kind::Duration, default: "6s", shown: "'6s'", help: "Time that the discovery service has to answer a ping." },
    Flag { name: "discovery-insecure-transport", yaml: Some("discovery-config.client.secure.insecure-transport"), kind: Kind::Bool, default: "true", shown: "'true'", help: "Talk to the discovery service without TLS." },
    Flag { name: "discovery-insecure-skip-tls-verify", yaml: Some("discovery-config.client.secure.insecure-skip-tls-verify"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Do not check the certificate of the discovery service (tests only)." },
    Flag { name: "discovery-cert", yaml: Some("discovery-config.client.secure.cert"), kind: Kind::Text, default: "", shown: "''", help: "Client certificate for the discovery service." },
    Flag { name: "discovery-key", yaml: Some("discovery-config.client.secure.key"), kind: Kind::Text, default: "", shown: "''", help: "Key of that certificate." },
    Flag { name: "discovery-cacert", yaml: Some("discovery-config.client.secure.cacert"), kind: Kind::Text, default: "", shown: "''", help: "CA bundle that the certificate of the discovery service is checked against." },
    Flag { name: "discovery-user", yaml: Some("discovery-config.client.auth.username"), kind: Kind::Text, default: "", shown: "''", help: "User at the discovery service; only together with a password." },
    Flag { name: "discovery-password", yaml: Some("discovery-config.client.auth.password"), kind: Kind::Text, default: "", shown: "''", help: "Password of that user." },
    Flag { name: "discovery-fallback", yaml: None, kind: Kind::Choice(&["exit", "proxy"]), default: "exit", shown: "'exit'", help: "What to do when discovery fails; only 'exit' is left." },
    Flag { name: "discovery-srv", yaml: Some("discovery-srv"), kind: Kind::Text, default: "", shown: "''", help: "DNS domain whose SRV records name the members." },
    Flag { name: "discovery-srv-name", yaml: Some("discovery-srv-name"), kind: Kind::Text, default: "", shown: "''", help: "Suffix of the SRV service name." },
    Flag { name: "strict-reconfig-check", yaml: Some("strict-reconfig-check"), kind: Kind::Bool, default: "true", shown: "'true'", help: "Refuse membership changes that would lose the quorum." },
    Flag { name: "pre-vote", yaml: Some("pre-vote"), kind: Kind::Bool, default: "true", shown: "'true'", help: "Ask for votes without raising the term first." },
    Flag { name: "auto-compaction-retention", yaml: Some("auto-compaction-retention"), kind: Kind::Text, default: "0", shown: "'0'", help: "How much history automatic compaction keeps (0: no automatic compaction)." },
    Flag { name: "auto-compaction-mode", yaml: Some("auto-compaction-mode"), kind: Kind::Text, default: "periodic", shown: "'periodic'", help: "What the retention counts: 'periodic' time, or 'revision' numbers." },
    Flag { name: "v2-deprecation", yaml: Some("v2-deprecation"), kind: Kind::V2Deprecation, default: "", shown: "'write-only'", help: "Phase of the v2 store; always write-only." },
];

#[rustfmt::skip]
const SECURITY: &[Flag] = &[
    Flag { name: "cert-file", yaml: Some("client-transport-security.cert-file"), kind: Kind::Text, default: "", shown: "''", help: "Certificate of the client listeners." },
    Flag { name: "key-file", yaml: Some("client-transport-security.key-file"), kind: Kind::Text, default: "", shown: "''", help: "Key of that certificate." },
    Flag { name: "client-cert-auth", yaml: Some("client-transport-security.client-cert-auth"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Demand a valid certificate of every client." },
    Flag { name: "client-cert-file", yaml: Some("client-transport-security.client-cert-file"), kind: Kind::Text, default: "", shown: "''", help: "Certificate for connections of this process to itself; else --cert-file." },
    Flag { name: "client-key-file", yaml: Some("client-transport-security.client-key-file"), kind: Kind::Text, default: "", shown: "''", help: "Key of that certificate." },
    Flag { name: "client-crl-file", yaml: None, kind: Kind::Text, default: "", shown: "''", help: "Revoked client certificates." },
    Flag { name: "client-cert-allowed-hostname", yaml: Some("client-transport-security.allowed-hostname"), kind: Kind::List, default: "", shown: "''", help: "Host names, one of which a client certificate must carry." },
    Flag { name: "trusted-ca-file", yaml: Some("client-transport-security.trusted-ca-file"), kind: Kind::Text, default: "", shown: "''", help: "CA bundle that client certificates are checked against." },
    Flag { name: "auto-tls", yaml: Some("client-transport-security.auto-tls"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Serve clients with a self-signed certificate." },
    Flag { name: "peer-cert-file", yaml: Some("peer-transport-security.cert-file"), kind: Kind::Text, default: "", shown: "''", help: "Certificate of the peer listeners." },
    Flag { name: "peer-key-file", yaml: Some("peer-transport-security.key-file"), kind: Kind::Text, default: "", shown: "''", help: "Key of that certificate." },
    Flag { name: "peer-client-cert-auth", yaml: Some("peer-transport-security.client-cert-auth"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Demand a valid certificate of every peer." },
    Flag { name: "peer-client-cert-file", yaml: Some("peer-transport-security.client-cert-file"), kind: Kind::Text, default: "", shown: "''", help: "Certificate for connections to peers; else --peer-cert-file." },
    Flag { name: "peer-client-key-file", yaml: Some("peer-transport-security.client-key-file"), kind: Kind::Text, default: "", shown: "''", help: "Key of that certificate." },
    Flag { name: "peer-trusted-ca-file", yaml: Some("peer-transport-security.trusted-ca-file"), kind: Kind::Text, default: "", shown: "''", help: "CA bundle that peer certificates are checked against." },
    Flag { name: "peer-cert-allowed-cn", yaml: Some("peer-transport-security.allowed-cn"), kind: Kind::List, default: "", shown: "''", help: "Common names, one of which a peer certificate must carry." },
    Flag { name: "peer-cert-allowed-hostname", yaml: Some("peer-transport-security.allowed-hostname"), kind: Kind::List, default: "", shown: "''", help: "Host names, one of which a peer certificate must carry." },
    Flag { name: "peer-auto-tls", yaml: Some("peer-transport-security.auto-tls"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Serve peers with a self-signed certificate." },
    Flag { name: "self-signed-cert-validity", yaml: Some("self-signed-cert-validity"), kind: Kind::Uint, default: "1", shown: "'1'", help: "Years for which self-signed certificates are valid." },
    Flag { name: "peer-crl-file", yaml: None, kind: Kind::Text, default: "", shown: "''", help: "Revoked peer certificates." },
    Flag { name: "cipher-suites", yaml: Some("cipher-suites"), kind: Kind::List, default: "", shown: "''", help: "TLS cipher suites that are offered (empty: a sound choice)." },
    Flag { name: "cors", yaml: Some("cors"), kind: Kind::Origins, default: "*", shown: "'*'", help: "Origins that browsers may call from, or *." },
    Flag { name: "host-whitelist", yaml: Some("host-whitelist"), kind: Kind::UniqueList, default: "*", shown: "'*'", help: "Host names that plain HTTP requests may use, or *." },
    Flag { name: "tls-min-version", yaml: Some("tls-min-version"), kind: Kind::Text, default: "TLS1.2", shown: "'TLS1.2'", help: "Lowest TLS version: TLS1.2 or TLS1.3." },
    Flag { name: "tls-max-version", yaml: Some("tls-max-version"), kind: Kind::Text, default: "", shown: "''", help: "Highest TLS version (empty: the newest)." },
];

#[rustfmt::skip]
const AUTH: &[Flag] = &[
    Flag { name: "auth-token", yaml: Some("auth-token"), kind: Kind::Text, default: "simple", shown: "'simple'", help: "Kind of token: 'simple', or 'jwt' with its options." },
    Flag { name: "bcrypt-cost", yaml: Some("bcrypt-cost"), kind: Kind::Uint, default: "10", shown: "10", help: "Cost of password hashing, from 4 to 31." },
    Flag { name: "auth-token-ttl", yaml: Some("auth-token-ttl"), kind: Kind::Uint, default: "300", shown: "300", help: "Seconds for which a token is valid." },
];

#[rustfmt::skip]
const MONITORING: &[Flag] = &[
    Flag { name: "enable-pprof", yaml: Some("enable-pprof"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Serve profiles below /debug/pprof." },
    Flag { name: "metrics", yaml: Some("metrics"), kind: Kind::Text, default: "basic", shown: "'basic'", help: "How much is measured: 'basic', or 'extensive' with histograms." },
    Flag { name: "listen-metrics-urls", yaml: Some("listen-metrics-urls"), kind: Kind::Urls, default: "", shown: "''", help: "More URLs on which /metrics and the health checks are served." },
];

#[rustfmt::skip]
const LOGGING: &[Flag] = &[
    Flag { name: "logger", yaml: Some("logger"), kind: Kind::Text, default: "zap", shown: "'zap'", help: "Kind of logger; only 'zap', structured lines." },
    Flag { name: "log-outputs", yaml: Some("log-outputs"), kind: Kind::UniqueList, default: "default", shown: "'default'", help: "Where log lines go: 'default' (standard error), 'stdout', 'stderr', 'systemd/journal', or files." },
    Flag { name: "log-level", yaml: Some("log-level"), kind: Kind::Text, default: "info", shown: "'info'", help: "Lowest level that is logged: debug, info, warn, error, dpanic, panic or fatal." },
    Flag { name: "log-format", yaml: Some("log-format"), kind: Kind::Text, default: "json", shown: "'json'", help: "Form of log lines: 'json' or 'console'." },
    Flag { name: "enable-log-rotation", yaml: Some("enable-log-rotation"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Rotate the one log file that --log-outputs names." },
    Flag { name: "log-rotation-config-json", yaml: Some("log-rotation-config-json"), kind: Kind::Text, default: "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", shown: "'{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}'", help: "How it is rotated: maxsize in megabytes, maxage in days, maxbackups, localtime, compress." },
    Flag { name: "warning-unary-request-duration", yaml: Some("warning-unary-request-duration"), kind: Kind::Duration, default: "300ms", shown: "'300ms'", help: "Requests that take longer are logged." },
];

#[rustfmt::skip]
const TRACING: &[Flag] = &[
    Flag { name: "enable-distributed-tracing", yaml: Some("enable-distributed-tracing"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Send OpenTelemetry traces." },
    Flag { name: "distributed-tracing-address", yaml: Some("distributed-tracing-address"), kind: Kind::Text, default: "localhost:4317", shown: "'localhost:4317'", help: "Collector of traces." },
    Flag { name: "distributed-tracing-service-name", yaml: Some("distributed-tracing-service-name"), kind: Kind::Text, default: "etcd", shown: "'etcd'", help: "Service name in traces, the same for all members." },
    Flag { name: "distributed-tracing-instance-id", yaml: Some("distributed-tracing-instance-id"), kind: Kind::Text, default: "", shown: "''", help: "Instance name in traces, different for each member." },
    Flag { name: "distributed-tracing-sampling-rate", yaml: Some("distributed-tracing-sampling-rate"), kind: Kind::Int, default: "0", shown: "'0'", help: "Spans kept of a million." },
];

#[rustfmt::skip]
const FEATURES: &[Flag] = &[
    Flag { name: "corrupt-check-time", yaml: Some("corrupt-check-time"), kind: Kind::Duration, default: "0s", shown: "'0s'", help: "Time between two comparisons of the data of all members (0: none)." },
    Flag { name: "compact-hash-check-time", yaml: Some("compact-hash-check-time"), kind: Kind::Duration, default: "1m0s", shown: "'1m'", help: "Time between two comparisons of compaction hashes." },
    Flag { name: "compaction-batch-limit", yaml: Some("compaction-batch-limit"), kind: Kind::Int, default: "0", shown: "1000", help: "Most revisions deleted in one step of a compaction." },
    Flag { name: "peer-skip-client-san-verification", yaml: Some("peer-transport-security.skip-client-san-verification"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Do not compare the addresses in peer certificates." },
    Flag { name: "watch-progress-notify-interval", yaml: Some("watch-progress-notify-interval"), kind: Kind::Duration, default: "0s", shown: "'10m'", help: "Time between two progress notifications of an idle watcher." },
    Flag { name: "warning-apply-duration", yaml: Some("warning-apply-duration"), kind: Kind::Duration, default: "100ms", shown: "'100ms'", help: "Requests that take longer to apply are logged." },
    Flag { name: "bootstrap-defrag-threshold-megabytes", yaml: Some("bootstrap-defrag-threshold-megabytes"), kind: Kind::Uint, default: "0", shown: "", help: "Defragment at start when this many megabytes would come free (0: never)." },
    Flag { name: "max-learners", yaml: Some("max-learners"), kind: Kind::Int, default: "1", shown: "'1'", help: "Most learners in the cluster." },
    Flag { name: "compaction-sleep-interval", yaml: Some("compaction-sleep-interval"), kind: Kind::Duration, default: "0s", shown: "", help: "Pause between two steps of a compaction." },
    Flag { name: "downgrade-check-time", yaml: Some("downgrade-check-time"), kind: Kind::Duration, default: "5s", shown: "", help: "Time between two looks at a downgrade under way." },
    Flag { name: "snapshot-catchup-entries", yaml: Some("snapshot-catchup-entries"), kind: Kind::Uint, default: "5000", shown: "", help: "Entries kept after a snapshot for slow followers." },
];

#[rustfmt::skip]
const UNSAFE: &[Flag] = &[
    Flag { name: "force-new-cluster", yaml: Some("force-new-cluster"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Start a new cluster of this one member with the data that is here." },
    Flag { name: "unsafe-no-fsync", yaml: Some("unsafe-no-fsync"), kind: Kind::Bool, default: "false", shown: "'false'", help: "Do not sync to disk. A power cut then loses data." },
];

/// Flags of etcd 3.3 to 3.6 that 3.7 refuses.
#[rustfmt::skip]
pub(crate) const DROPPED: &[Dropped] = &[
    Dropped { name: "ca-file", is_bool: false, fate: Fate::WithSwitch("trusted-ca-file", "client-cert-auth") },
    Dropped { name: "peer-ca-file", is_bool: false, fate: Fate::WithSwitch("peer-trusted-ca-file", "peer-client-cert-auth") },
    Dropped { name: "debug", is_bool: true, fate: Fate::Means("log-level", "debug") },
    Dropped { name: "log-output", is_bool: false, fate: Fate::Renamed("log-outputs") },
    Dropped { name: "log-package-levels", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "next-cluster-version-compatible", is_bool: true, fate: Fate::Nothing },
    Dropped { name: "experimental-backend-bbolt-freelist-type", is_bool: false, fate: Fate::Renamed("backend-bbolt-freelist-type") },
    Dropped { name: "enable-v2", is_bool: true, fate: Fate::Nothing },
    Dropped { name: "experimental-enable-v2v3", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "proxy", is_bool: false, fate: Fate::Refused(&["off"], "the v2 proxy is gone; use 'etcd gateway' or 'etcd grpc-proxy'") },
    Dropped { name: "proxy-failure-wait", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "proxy-refresh-interval", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "proxy-dial-timeout", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "proxy-write-timeout", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "proxy-read-timeout", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "discovery", is_bool: false, fate: Fate::Refused(&[""], "v2 discovery is gone; use --discovery-token and --discovery-endpoints") },
    Dropped { name: "discovery-proxy", is_bool: false, fate: Fate::Nothing },
    Dropped { name: "experimental-initial-corrupt-check", is_bool: true, fate: Fate::Gate("InitialCorruptCheck") },
    Dropped { name: "experimental-corrupt-check-time", is_bool: false, fate: Fate::Renamed("corrupt-check-time") },
    Dropped { name: "experimental-compact-hash-check-enabled", is_bool: true, fate: Fate::Gate("CompactHashCheck") },
    Dropped { name: "experimental-compact-hash-check-time", is_bool: false, fate: Fate::Renamed("compact-hash-check-time") },
    Dropped { name: "experimental-enable-lease-checkpoint", is_bool: true, fate: Fate::Gate("LeaseCheckpoint") },
    Dropped { name: "experimental-enable-lease-checkpoint-persist", is_bool: true, fate: Fate::Gate("LeaseCheckpointPersist") },
    Dropped { name: "experimental-compaction-batch-limit", is_bool: false, fate: Fate::Renamed("compaction-batch-limit") },
    Dropped { name: "experimental-compaction-sleep-interval", is_bool: false, fate: Fate::Renamed("compaction-sleep-interval") },
    Dropped { name: "experimental-watch-progress-notify-interval", is_bool: false, fate: Fate::Renamed("watch-progress-notify-interval") },
    Dropped { name: "experimental-warning-apply-duration", is_bool: false, fate: Fate::Renamed("warning-apply-duration") },
    Dropped { name: "experimental-warning-unary-request-duration", is_bool: false, fate: Fate::Renamed("warning-unary-request-duration") },
    Dropped { name: "experimental-downgrade-check-time", is_bool: false, fate: Fate::Renamed("downgrade-check-time") },
    Dropped { name: "experimental-memory-mlock", is_bool: true, fate: Fate::Renamed("memory-mlock") },
    Dropped { name: "experimental-txn-mode-write-with-shared-buffer", is_bool: true, fate: Fate::Gate("TxnModeWriteWithSharedBuffer") },
    Dropped { name: "experimental-stop-grpc-service-on-defrag", is_bool: true, fate: Fate::Gate("StopGRPCServiceOnDefrag") },
    Dropped { name: "experimental-bootstrap-defrag-threshold-megabytes", is_bool: false, fate: Fate::Renamed("bootstrap-defrag-threshold-megabytes") },
    Dropped { name: "experimental-snapshot-catchup-entries", is_bool: false, fate: Fate::Renamed("snapshot-catchup-entries") },
    Dropped { name: "experimental-enable-distributed-tracing", is_bool: true, fate: Fate::Renamed("enable-distributed-tracing") },
    Dropped { name: "experimental-distributed-tracing-address", is_bool: false, fate: Fate::Renamed("distributed-tracing-address") },
    Dropped { name: "experimental-distributed-tracing-service-name", is_bool: false, fate: Fate::Renamed("distributed-tracing-service-name") },
    Dropped { name: "experimental-distributed-tracing-instance-id", is_bool: false, fate: Fate::Renamed("distributed-tracing-instance-id") },
    Dropped { name: "experimental-distributed-tracing-sampling-rate", is_bool: false, fate: Fate::Renamed("distributed-tracing-sampling-rate") },
    Dropped { name: "experimental-peer-skip-client-san-verification", is_bool: true, fate: Fate::Renamed("peer-skip-client-san-verification") },
];
