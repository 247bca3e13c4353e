//! What is measured: plain atomics, cheap enough for the request path, read when somebody asks for `/metrics`.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use api::methods::{self, Method};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by buckets that double: `start`, twice that, and so on.
#[derive(Debug)]
pub(crate) struct Histogram {
    start_ns: u64,
    buckets: Vec<AtomicU64>,
    sum_ns: AtomicU64,
}

impl Histogram {
    fn new(start: Duration, buckets: usize) -> Histogram {
        Histogram {
            start_ns: start.as_nanos() as u64,
            buckets: (0..=buckets).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        let ns = duration.as_nanos() as u64;
        let last = self.buckets.len() - 1;
        let mut bound = self.start_ns;
        let mut at = 0;
        while at < last && ns > bound {
            bound *= 2;
            at += 1;
        }
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Appends the family in Prometheus' text form.
    pub(crate) fn write(&self, name: &str, out: &mut String) {
        writeln!(out, "# TYPE {name} histogram").expect("a string grows");
        let (mut total, mut bound) = (0, self.start_ns);
        for (at, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Ordering::Relaxed);
            let edge = if at + 1 == self.buckets.len() { "+Inf".into() } else { (bound as f64 / 1e9).to_string() };
            writeln!(out, "{name}_bucket{{le=\"{edge}\"}} {total}").expect("a string grows");
            bound = bound.saturating_mul(2);
        }
        let sum = self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
        writeln!(out, "{name}_sum {sum}\n{name}_count {total}").expect("a string grows");
    }
}

/// All that a member measures.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) client_received: Counter,
    pub(crate) client_sent: Counter,
    pub(crate) lease_renewed: Counter,
    pub(crate) proposals_failed: Counter,
    pub(crate) proposals_committed: Gauge,
    pub(crate) proposals_applied: Gauge,
    pub(crate) wal_fsync: Histogram,
    pub(crate) wal_write_bytes: Counter,
    pub(crate) backend_commit: Histogram,
    pub(crate) backend_defrag: Histogram,
    pub(crate) defrag_inflight: Gauge,
    started: Vec<Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let millisecond = Duration::from_millis(1);
        Metrics {
            client_received: Counter::default(),
            client_sent: Counter::default(),
            lease_renewed: Counter::default(),
            proposals_failed: Counter::default(),
            proposals_committed: Gauge::default(),
            proposals_applied: Gauge::default(),
            wal_fsync: Histogram::new(millisecond, 14),
            wal_write_bytes: Counter::default(),
            backend_commit: Histogram::new(millisecond, 14),
            backend_defrag: Histogram::new(Duration::from_millis(100), 13),
            defrag_inflight: Gauge::default(),
            started: methods::TABLE.iter().map(|_| Counter::default()).collect(),
        }
    }

    /// A call has begun.
    pub(crate) fn call_started(&self, method: Method, _client_api_version: Option<&[u8]>) {
        self.started[method as usize].add(1);
    }

    /// Appends calls begun, by method.
    pub(crate) fn write_calls(&self, out: &mut String) {
        out.push_str("# TYPE grpc_server_started_total counter\n");
        for (row, started) in methods::TABLE.iter().zip(&self.started) {
            let (service, name) = row.method.service_and_name();
            let kind = match row.kind {
                methods::Kind::Unary => "unary",
                methods::Kind::ServerStream => "server_stream",
                methods::Kind::BidiStream => "bidi_stream",
            };
            writeln!(
                out,
                "grpc_server_started_total{{grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"}} {}",
                started.get()
            )
            .expect("a string grows");
        }
    }

    /// How far raft and apply are.
    pub(crate) fn progress(&self, committed: u64, applied: u64) {
        self.proposals_committed.set(committed as i64);
        self.proposals_applied.set(applied as i64);
    }
}
