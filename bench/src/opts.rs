//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Parser)]
#[command(version, about = "Load generator for the etcd v3 gRPC API")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) workload: Workload,
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Options of every load")]
pub(crate) struct Settings {
    /// host:port, http://host:port or https://host:port, comma-separated
    #[arg(long, global = true, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub(crate) endpoints: Vec<String>,
    /// Concurrent clients, each with one operation in flight
    #[arg(long, global = true, default_value_t = 16)]
    pub(crate) clients: usize,
    /// HTTP/2 connections the clients share
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) conns: usize,
    /// Generator threads; connections and clients are divided among them
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Measured operations (instead of --duration)
    #[arg(long, global = true)]
    pub(crate) total: Option<u64>,
    /// Measured seconds
    #[arg(long, global = true, default_value_t = 10.0)]
    pub(crate) duration: f64,
    /// Seconds of load before measuring
    #[arg(long, global = true, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Open loop: operations per second; latency counts from when each was due
    #[arg(long, global = true)]
    pub(crate) rate: Option<f64>,
    /// Sample CPU time, RSS and disk writes of these processes
    #[arg(long, global = true, value_delimiter = ',')]
    pub(crate) server_pid: Vec<u32>,
    /// Fail a unary call that takes longer than this many seconds
    #[arg(long, global = true, default_value_t = 30.0)]
    pub(crate) timeout: f64,
    /// Count errors and go on (reconnecting) instead of failing
    #[arg(long, global = true)]
    pub(crate) allow_errors: bool,
    /// Write the result as JSON to this file, or to stdout for "-"
    #[arg(long, global = true)]
    pub(crate) json: Option<PathBuf>,
    /// A name to carry into the JSON
    #[arg(long, global = true, default_value = "")]
    pub(crate) label: String,
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) seed: u64,
    /// CA certificate (PEM); turns TLS on
    #[arg(long, global = true)]
    pub(crate) cacert: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, global = true, requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Client key (PEM)
    #[arg(long, global = true, requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub(crate) struct Keys {
    /// What every key starts with
    #[arg(long, default_value = "/loadgen/")]
    pub(crate) prefix: String,
    /// Bytes per key (longer if the prefix and the number need more)
    #[arg(long, default_value_t = 32)]
    pub(crate) key_size: usize,
    /// Bytes per value
    #[arg(long, default_value_t = 256)]
    pub(crate) val_size: usize,
    /// Distinct keys
    #[arg(long, default_value_t = 10_000)]
    pub(crate) key_space_size: u64,
    /// Go through the key space in order instead of at random
    #[arg(long)]
    pub(crate) sequential: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Consistency {
    Linearizable,
    Serializable,
}

#[derive(Subcommand, Clone)]
pub(crate) enum Workload {
    /// Put one key per operation
    Put {
        #[command(flatten)]
        keys: Keys,
    },
    /// Put every key of the space once, several in one transaction
    Fill {
        #[command(flatten)]
        keys: Keys,
        /// Puts per transaction; the server must allow as many (--max-txn-ops)
        #[arg(long, default_value_t = 100)]
        per_txn: u64,
    },
    /// Get one key per operation
    Range {
        #[command(flatten)]
        keys: Keys,
        #[arg(long, value_enum, default_value = "linearizable")]
        consistency: Consistency,
        /// The keys are already there
        #[arg(long)]
        no_prefill: bool,
    },
    /// List a prefix of --key-space-size keys per operation
    List {
        #[command(flatten)]
        keys: Keys,
        #[arg(long, value_enum, default_value = "linearizable")]
        consistency: Consistency,
        /// Keys per page; 0 asks for all of them at once
        #[arg(long, default_value_t = 0)]
        limit: i64,
        #[arg(long)]
        keys_only: bool,
        #[arg(long)]
        count_only: bool,
        #[arg(long)]
        no_prefill: bool,
    },
    /// Kubernetes-style guarded update: if mod_revision == X then put else get
    Txn {
        #[command(flatten)]
        keys: Keys,
    },
    /// 70% guarded lease updates, 20% gets, 5% lists, 5% pod creates/deletes, with watches
    MixedK8s {
        /// Node lease objects (also the number of pods)
        #[arg(long, default_value_t = 1000)]
        nodes: u64,
        /// Open watches
        #[arg(long, default_value_t = 50)]
        watchers: usize,
        /// Keys per list page
        #[arg(long, default_value_t = 500)]
        limit: i64,
    },
    /// Put under a prefix at --rate (default 100/s) with many watchers on it
    WatchFanout {
        #[command(flatten)]
        keys: Keys,
        #[arg(long, default_value_t = 100)]
        watchers: usize,
        /// gRPC Watch streams the watchers share
        #[arg(long, default_value_t = 10)]
        streams: usize,
    },
    /// Keep leases alive, one keep-alive in flight per client
    LeaseKeepalive {
        #[arg(long, default_value_t = 1000)]
        leases: u64,
        #[arg(long, default_value_t = 600)]
        ttl: i64,
    },
    /// Grant and revoke a lease per operation
    LeaseGrant {
        #[arg(long, default_value_t = 600)]
        ttl: i64,
    },
    /// Maintenance.Status per operation: the cheapest round trip there is
    Status,
    /// Download one snapshot
    Snapshot,
    /// Defragment once
    Defrag,
    /// Compact to the current revision once
    Compact {
        /// Wait until the space is free
        #[arg(long)]
        physical: bool,
        /// Compact to this revision instead
        #[arg(long)]
        revision: Option<i64>,
    },
    /// Ask for the current revision
    Revision,
    /// Compare Go etcd with ours, row by row
    Compare(crate::compare::Options),
}

impl Workload {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Workload::Put { .. } => "put",
            Workload::Fill { .. } => "fill",
            Workload::Range { .. } => "range",
            Workload::List { .. } => "list",
            Workload::Txn { .. } => "txn",
            Workload::MixedK8s { .. } => "mixed-k8s",
            Workload::WatchFanout { .. } => "watch-fanout",
            Workload::LeaseKeepalive { .. } => "lease-keepalive",
            Workload::LeaseGrant { .. } => "lease-grant",
            Workload::Status => "status",
            Workload::Snapshot => "snapshot",
            Workload::Defrag => "defrag",
            Workload::Compact { .. } => "compact",
            Workload::Revision => "revision",
            Workload::Compare(_) => "compare",
        }
    }

    /// Workloads that are one operation, whatever --clients says.
    pub(crate) fn one_shot(&self) -> bool {
        matches!(self, Workload::Snapshot | Workload::Defrag | Workload::Compact { .. } | Workload::Revision)
    }
}
