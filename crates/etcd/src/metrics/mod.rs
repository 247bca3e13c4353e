//! What is measured: etcd's names, labels and bounds, counted where things happen at the price of a plain add.
//!
//! Each network thread owns a [`Thread`], the member thread a [`Lane`]; nobody else writes there, and a scrape adds
//! them up. No series is looked up by name while a request is served.
//!
//! Reading order: this file (what is counted), `value.rs` (counter, gauge, histogram), `families.rs` (names),
//! `peers.rs` (per peer), `page.rs` (the text form), `process.rs` (what the system knows), `scrape.rs` (from values to the page).

mod families;
mod page;
mod peers;
mod process;
mod scrape;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::methods::{self, Kind, Method};
use etcdserver::apply::policy::POLICIES;
use grpc::tally::{Event, Tally};
use parking_lot::Mutex;

pub(crate) use peers::{Peer, Peers};
pub(crate) use process::{file_limit, open_files};
pub(crate) use scrape::page;
pub(crate) use value::{CallTimes, Counter, Gauge, Histogram};

/// gRPC's status codes, by number.
pub(crate) const CODES: [&str; 17] = [
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
    "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
    "Internal", "Unavailable", "DataLoss", "Unauthenticated",
];

/// Histograms of what succeeded, and of what did not.
pub(crate) type BySuccess = [Histogram; 2];

fn by_success(make: impl Fn() -> Histogram) -> BySuccess {
    [make(), make()]
}

/// The one of the two.
pub(crate) fn of(pair: &BySuccess, success: bool) -> &Histogram {
    &pair[usize::from(!success)]
}

/// Bounds from 100 us to 52 s: times of apply and of ranges.
fn fine() -> Histogram {
    Histogram::new(Duration::from_micros(100), 20)
}

/// Versions of clients told apart; more of them count as "unknown".
const CLIENT_VERSIONS_MAX: usize = 16;

/// Calls by what the client says its version is.
#[derive(Debug, Default)]
struct ClientVersions {
    names: Mutex<Vec<Vec<u8>>>,
    /// Unary calls and streams.
    calls: [[Counter; 2]; CLIENT_VERSIONS_MAX + 1],
}

/// What one network thread counts. On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Thread {
    started: Box<[Counter]>,
    received: Box<[Counter]>,
    sent: Box<[Counter]>,
    /// By method, then by code.
    handled: Box<[[Counter; CODES.len()]]>,
    /// By method, with `--metrics=extensive`.
    handling: Option<Box<[CallTimes]>>,
    clients: ClientVersions,
    received_bytes: Counter,
    sent_bytes: Counter,
    /// Ranges answered here, those of read-only transactions included.
    pub(crate) ranges: Counter,
    /// Read-only transactions of more than one range.
    pub(crate) txns: Counter,
    pub(crate) range_seconds: BySuccess,
    pub(crate) range_requests: BySuccess,
    pub(crate) txn_requests: BySuccess,
    /// Reads that took longer than the limit for warnings.
    pub(crate) slow: Counter,
    pub(crate) events: Counter,
    pub(crate) streams: Gauge,
    pub(crate) watchers: Gauge,
    pub(crate) slow_watchers: Gauge,
    pub(crate) send_events: Histogram,
    pub(crate) send_per_event: Histogram,
    pub(crate) send_control: Histogram,
    pub(crate) send_progress: Histogram,
}

impl Thread {
    fn new(extensive: bool) -> Thread {
        let by_method = || methods::TABLE.iter().map(|_| Counter::default()).collect();
        Thread {
            started: by_method(),
            received: by_method(),
            sent: by_method(),
            handled: methods::TABLE.iter().map(|_| Default::default()).collect(),
            handling: extensive.then(|| methods::TABLE.iter().map(|_| CallTimes::default()).collect()),
            clients: ClientVersions::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            ranges: Counter::default(),
            txns: Counter::default(),
            range_seconds: by_success(fine),
            range_requests: by_success(Histogram::millis),
            txn_requests: by_success(Histogram::millis),
            slow: Counter::default(),
            events: Counter::default(),
            streams: Gauge::default(),
            watchers: Gauge::default(),
            slow_watchers: Gauge::default(),
            send_events: Histogram::millis(),
            send_per_event: Histogram::millis(),
            send_control: Histogram::millis(),
            send_progress: Histogram::millis(),
        }
    }

    /// A call has begun; `client` is the place of its client's version.
    pub(crate) fn call_started(&self, method: Method, client: usize) {
        self.started[method as usize].bump(1);
        let is_stream = method.row().kind != Kind::Unary;
        // Health checks have no version of etcd's API, and etcd counts only what its own interceptor sees.
        self.clients.calls[client][usize::from(is_stream)].bump(1);
    }

    /// Whether the time of every call is wanted.
    pub(crate) fn measures_calls(&self) -> bool {
        self.handling.is_some()
    }

    /// A message has come in.
    pub(crate) fn message_received(&self, method: Method, bytes: usize) {
        self.received[method as usize].bump(1);
        self.received_bytes.bump(bytes as u64);
    }

    /// The place of a client's version in the counters. Asked when it is another than before.
    pub(crate) fn client_version(&self, version: &[u8]) -> usize {
        let mut names = self.clients.names.lock();
        if let Some(at) = names.iter().position(|name| name == version) {
            return at;
        }
        if names.len() == CLIENT_VERSIONS_MAX {
            return CLIENT_VERSIONS_MAX;
        }
        names.push(version.to_vec());
        names.len() - 1
    }

    /// Takes over what a connection's codec has counted up to now.
    pub(crate) fn take(&self, tally: &mut Tally, now_ms: impl FnOnce() -> u64) {
        if let Some(handling) = &self.handling {
            let now_ms = now_ms();
            tally.take_times(|(method, opened_ms)| handling[usize::from(method)].observe(now_ms.saturating_sub(opened_ms)));
        }
        let sent_bytes = tally.take(|row| {
            let (method, count) = (usize::from(row.method), u64::from(row.count));
            let kind = methods::TABLE[method].kind;
            match row.event {
                // One answer per unary call, also for an error: that is how etcd counts.
                Event::Sent if kind == Kind::Unary => {}
                Event::Sent => self.sent[method].bump(count),
                Event::Ended(code) => {
                    let code = usize::try_from(code).ok().filter(|code| *code < CODES.len()).unwrap_or(2);
                    self.handled[method][code].bump(count);
                    match kind {
                        Kind::Unary => self.sent[method].bump(count),
                        // The look for a message that found the end.
                        Kind::BidiStream => self.received[method].bump(count),
                        Kind::ServerStream => {}
                    }
                }
            }
        });
        self.sent_bytes.bump(sent_bytes);
    }
}

/// What the member thread counts.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Lane {
    /// By row of the policy table.
    apply: Box<[BySuccess]>,
    requests: Box<[BySuccess]>,
    pub(crate) slow: Counter,
    pub(crate) proposals_failed: Counter,
    pub(crate) proposals_committed: Gauge,
    pub(crate) proposals_applied: Gauge,
    pub(crate) proposals_pending: Gauge,
    pub(crate) leader_changes: Counter,
    pub(crate) lease_granted: Counter,
    pub(crate) lease_revoked: Counter,
    pub(crate) lease_renewed: Counter,
    pub(crate) lease_expired: Counter,
    pub(crate) lease_ttl: Histogram,
    pub(crate) ranges: Counter,
    pub(crate) puts: Counter,
    pub(crate) deletes: Counter,
    pub(crate) txns: Counter,
    pub(crate) put_bytes: Counter,
    pub(crate) compacted_keys: Counter,
    pub(crate) compaction_last: Gauge,
    /// Steps of compaction: what other work waits for.
    pub(crate) compaction_pause: Histogram,
    /// The first step, which works on the index alone.
    pub(crate) index_compaction_pause: Histogram,
    pub(crate) compaction_total: Histogram,
}

impl Lane {
    fn new() -> Lane {
        Lane {
            apply: POLICIES.iter().map(|_| by_success(fine)).collect(),
            requests: POLICIES.iter().map(|_| by_success(Histogram::millis)).collect(),
            slow: Counter::default(),
            proposals_failed: Counter::default(),
            proposals_committed: Gauge::default(),
            proposals_applied: Gauge::default(),
            proposals_pending: Gauge::default(),
            leader_changes: Counter::default(),
            lease_granted: Counter::default(),
            lease_revoked: Counter::default(),
            lease_renewed: Counter::default(),
            lease_expired: Counter::default(),
            lease_ttl: Histogram::new(Duration::from_secs(1), 24),
            ranges: Counter::default(),
            puts: Counter::default(),
            deletes: Counter::default(),
            txns: Counter::default(),
            put_bytes: Counter::default(),
            compacted_keys: Counter::default(),
            compaction_last: Gauge::default(),
            // These three count milliseconds: a "second" of theirs is one.
            compaction_pause: Histogram::new(Duration::from_secs(1), 13),
            index_compaction_pause: Histogram::new(Duration::from_millis(500), 14),
            compaction_total: Histogram::new(Duration::from_secs(100), 14),
        }
    }

    /// A request of the log was applied; `whole` is the time since it was asked for, if that was here.
    pub(crate) fn applied(&self, field: u32, success: bool, took: Duration, whole: Option<Duration>) {
        let Ok(row) = POLICIES.binary_search_by_key(&field, |policy| policy.field) else { return };
        of(&self.apply[row], success).observe_own(took);
        if let Some(whole) = whole {
            // An error of apply is an answer, too.
            of(&self.requests[row], true).observe_own(whole);
        }
    }
}

/// A duration as histograms of milliseconds take it.
pub(crate) fn as_millis(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_millis() as u64)
}

/// The last result of a health check, and how many there were of each.
#[derive(Clone, Copy, Debug, Default)]
struct Check {
    healthy: bool,
    succeeded: u64,
    failed: u64,
}

/// What the HTTP endpoints count.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) health_success: Counter,
    pub(crate) health_failures: Counter,
    /// By endpoint and name.
    checks: Mutex<BTreeMap<(&'static str, &'static str), Check>>,
    pub(crate) scrapes: Counter,
    /// Reads made for health checks.
    pub(crate) ranges: Counter,
    pub(crate) range_seconds: BySuccess,
    pub(crate) range_requests: BySuccess,
}

impl Http {
    fn new() -> Http {
        Http {
            health_success: Counter::default(),
            health_failures: Counter::default(),
            checks: Mutex::default(),
            scrapes: Counter::default(),
            ranges: Counter::default(),
            range_seconds: by_success(fine),
            range_requests: by_success(Histogram::millis),
        }
    }

    /// One check of `/livez` or `/readyz` was made.
    pub(crate) fn checked(&self, endpoint: &'static str, name: &'static str, healthy: bool) {
        let mut checks = self.checks.lock();
        let check = checks.entry((endpoint, name)).or_default();
        check.healthy = healthy;
        if healthy { check.succeeded += 1 } else { check.failed += 1 }
    }
}

/// All that a member measures.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) threads: Box<[Thread]>,
    pub(crate) lane: Lane,
    pub(crate) http: Http,
    pub(crate) wal_fsync: Histogram,
    pub(crate) wal_write: Histogram,
    pub(crate) wal_write_bytes: Counter,
    pub(crate) backend_commit: Histogram,
    pub(crate) backend_build: Histogram,
    pub(crate) backend_write: Histogram,
    pub(crate) backend_defrag: Histogram,
    pub(crate) defrag_inflight: Gauge,
    pub(crate) backend_snapshot: Histogram,
    pub(crate) snap_fsync: Histogram,
    pub(crate) snap_save: Histogram,
    pub(crate) snap_marshal: Histogram,
    pub(crate) hash: Histogram,
    pub(crate) hash_revision: Histogram,
    pub(crate) peers: Arc<Peers>,
}

impl Metrics {
    /// The counters of so many network threads; `extensive` measures every call too.
    pub(crate) fn new(network_threads: usize, extensive: bool) -> Metrics {
        let hash = || Histogram::new(Duration::from_millis(10), 15);
        Metrics {
            threads: (0..network_threads).map(|_| Thread::new(extensive)).collect(),
            lane: Lane::new(),
            http: Http::new(),
            wal_fsync: Histogram::millis(),
            wal_write: Histogram::millis(),
            wal_write_bytes: Counter::default(),
            backend_commit: Histogram::millis(),
            backend_build: Histogram::millis(),
            backend_write: Histogram::millis(),
            backend_defrag: Histogram::new(Duration::from_millis(100), 13),
            defrag_inflight: Gauge::default(),
            backend_snapshot: Histogram::new(Duration::from_millis(10), 17),
            snap_fsync: Histogram::millis(),
            snap_save: Histogram::millis(),
            snap_marshal: Histogram::millis(),
            hash: hash(),
            hash_revision: hash(),
            peers: Arc::default(),
        }
    }

    /// What network thread `number` counts.
    pub(crate) fn thread(&self, number: u16) -> &Thread {
        &self.threads[usize::from(number)]
    }
}
