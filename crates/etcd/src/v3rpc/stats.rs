//! How long reads take on a network thread, and lines about calls that took long.
//!
//! A read is measured from the end of the one before it in the same batch of input: one look at the clock per read.

use std::time::{Duration, Instant, SystemTime};

use api::Status;
use api::methods::Method;
use etcdserver::apply::request::{Range, Txn};
use etcdserver::effect::ReplyTo;
use etcdserver::read::Served;

use super::Desk;
use crate::logging::{Level, requests};
use crate::member::handle::{Mail, Shared};
use crate::member::meter::CallStats;
use crate::metrics;

impl Desk {
    /// Input has arrived: reads begin now.
    pub(crate) fn begin_reads(&mut self) {
        self.lap = Instant::now();
    }

    /// A read is over: how long it took, and how long since the request came.
    fn end_read(&mut self, since: Instant) -> (Duration, Duration) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.lap, now);
        (took, now.saturating_duration_since(since).max(took))
    }

    pub(super) fn range_served(
        &mut self,
        since: Instant,
        (call, request): (u32, &Range<'_>),
        request_bytes: usize,
        served: &Result<Served, Status>,
        answer: &[u8],
    ) {
        let (took, whole) = self.end_read(since);
        let metrics = self.metrics();
        metrics.ranges.bump(1);
        metrics::of(&metrics.range_seconds, served.is_ok()).observe_own(took);
        metrics::of(&metrics.range_requests, served.is_ok()).observe_own(whole);
        if took <= self.limits.0 && whole <= self.limits.1 {
            return;
        }
        let keys = served.as_ref().map_or(0, |served| served.keys);
        if took > self.limits.0 {
            let response = match served {
                Ok(_) => format!("range_response_count:{keys} size:{}", bare_len(answer)),
                Err(_) => String::new(),
            };
            self.slow_read("read-only range ", requests::range(request), response, served.as_ref().err(), took);
        }
        if whole > self.limits.1 {
            self.tell(call, CallStats {
                request_count: 0,
                request_size: request_bytes as i64,
                response_count: keys as i64,
                response_size: answer.len() as i64,
                content: requests::range(request),
                ..CallStats::untold("/etcdserverpb.KV/Range", whole)
            });
        }
        self.lap = Instant::now();
    }

    pub(super) fn txn_served(
        &mut self,
        since: Instant,
        (call, request): (u32, &Txn<'_>),
        encoded: &[u8],
        served: &Result<u64, Status>,
        answer: &[u8],
    ) {
        let (took, whole) = self.end_read(since);
        let metrics = self.metrics();
        let ranges = *served.as_ref().unwrap_or(&0);
        metrics.ranges.bump(ranges);
        metrics.txns.bump(u64::from(ranges > 1));
        metrics::of(&metrics.txn_requests, served.is_ok()).observe_own(whole);
        if took > self.limits.0 {
            let response = if served.is_ok() { txn_response(answer) } else { String::new() };
            self.slow_read("read-only txn ", requests::txn(request), response, served.as_ref().err(), took);
            self.lap = Instant::now();
        }
        if whole > self.limits.1 {
            let (request_count, request_size) = requests::branch(encoded, succeeded(answer));
            self.tell(call, CallStats {
                request_count,
                request_size,
                response_count: 0,
                response_size: answer.len() as i64,
                content: requests::txn(request),
                ..CallStats::untold("/etcdserverpb.KV/Txn", whole)
            });
        }
    }

    /// A call that is answered elsewhere in this crate, where all calls are told of: nothing is known but its name.
    pub(super) fn note_other(&mut self, connection: u32, call: u32, method: Method) {
        let is_told = matches!(
            method,
            Method::KvRange | Method::KvPut | Method::KvDeleteRange | Method::KvTxn | Method::KvCompact
                | Method::LeaseGrant | Method::LeaseRevoke | Method::MaintenanceAlarm
        );
        if self.limits.1.is_zero() && !is_told {
            self.reading = connection;
            self.tell(call, CallStats::untold(method.path(), self.lap.elapsed()));
        }
    }

    /// The line needs the client's address, which is at hand when mail is delivered.
    fn tell(&self, call: u32, stats: CallStats) {
        let to = ReplyTo { thread: self.thread, connection: self.reading, stream: call };
        self.shared.networks[usize::from(self.thread)].push(Mail::Slow(vec![(to, stats)]));
    }

    fn slow_read(
        &self,
        prefix: &str,
        request: String,
        response: String,
        error: Option<&Status>,
        took: Duration,
    ) {
        self.metrics().slow.bump(1);
        let mut fields = vec![
            ("took", took.into()),
            ("expected-duration", self.limits.0.into()),
            ("prefix", prefix.into()),
            ("request", request.into()),
            ("response", response.into()),
        ];
        if let Some(error) = error {
            let text = error.message.strip_prefix("etcdserver: ").unwrap_or(&error.message);
            fields.push(("error", text.into()));
        }
        self.shared.logger.warn("apply request took too long", &fields);
    }
}

/// The answers of a read-only transaction in short: how many keys each of its ranges found.
fn txn_response(answer: &[u8]) -> String {
    use api::etcdserverpb::{TxnResponse, response_op::Response};
    use prost::Message;
    let Ok(response) = TxnResponse::decode(answer) else { return String::new() };
    let parts: Vec<String> = response
        .responses
        .iter()
        .map(|op| match &op.response {
            Some(Response::ResponseRange(range)) => format!("range_response_count:{}", range.kvs.len()),
            _ => String::new(),
        })
        .collect();
    format!("responses:<{}> size:{}", parts.join(" "), bare_len(answer))
}

/// Length of an answer as it is before ids and term are put into its header: where etcd measures it.
fn bare_len(answer: &[u8]) -> usize {
    use api::wire::{Fields, Value};
    let Some(Ok(header)) = Fields::new(answer).next() else { return answer.len() };
    let Value::Bytes(header) = header.value else { return answer.len() };
    let revision = Fields::new(header).filter_map(Result::ok).find(|field| field.number == 3);
    let kept = match revision.map(|field| field.value) {
        Some(Value::Varint(revision)) => 1 + api::wire::varint_len(revision),
        _ => 0,
    };
    // Tag and length of a header take two bytes, whatever is in it.
    answer.len() - header.len() + kept
}

/// Whether the comparisons of an answered transaction held.
fn succeeded(answer: &[u8]) -> bool {
    use api::wire::{Fields, Value};
    let field = Fields::new(answer).filter_map(Result::ok).find(|field| field.number == 2);
    field.is_some_and(|field| matches!(field.value, Value::Varint(1)))
}

/// The line about a call that took long, or about any call at level debug.
pub(super) fn line(shared: &Shared, remote: &str, stats: CallStats) {
    let level = if shared.logger.admits(Level::Debug) { Level::Debug } else { Level::Warn };
    let start = stats.start.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let fields = [
        ("start time", shared.logger.time(start).into()),
        ("time spent", stats.took.into()),
        ("remote", remote.into()),
        ("response type", stats.method.into()),
        ("request count", stats.request_count.into()),
        ("request size", stats.request_size.into()),
        ("response count", stats.response_count.into()),
        ("response size", stats.response_size.into()),
        ("request content", stats.content.into()),
    ];
    shared.logger.named("", level, "request stats", &fields);
}
