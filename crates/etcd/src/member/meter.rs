//! How long requests of the log take, on the member thread: histograms, and lines about the slow ones.
//!
//! Nothing is kept per request. Requests that arrive together are appended together, so a batch has one time of
//! arrival, and entries find it by their index.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use api::error::ErrorCode;
use etcdserver::apply::Applied;
use etcdserver::apply::policy::field;
use etcdserver::apply::reply::{HeaderIds, Reply};

use crate::logging::requests;
use crate::member::handle::Shared;

/// See the head of this file.
pub(super) struct Meter {
    /// Last index of each append under way, and when its oldest request arrived.
    appends: VecDeque<(u64, Instant)>,
    /// When the oldest request arrived that is not appended yet.
    proposed: Option<Instant>,
    /// End of the last request applied.
    lap: Instant,
    slow_apply: Duration,
    /// From here on the network thread is told; zero when it wants to know of all.
    slow_call: Duration,
    /// Calls to tell about, by request id.
    calls: Vec<(u64, CallStats)>,
}

/// What there is to say of a call that was slow, but for its client.
pub(crate) struct CallStats {
    pub(crate) start: SystemTime,
    pub(crate) took: Duration,
    pub(crate) method: &'static str,
    pub(crate) request_count: i64,
    pub(crate) request_size: i64,
    pub(crate) response_count: i64,
    pub(crate) response_size: i64,
    pub(crate) content: String,
}

impl CallStats {
    /// A call that just ended, of which nothing but this is told.
    pub(crate) fn untold(method: &'static str, took: Duration) -> CallStats {
        CallStats {
            start: SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH),
            took,
            method,
            request_count: -1,
            request_size: -1,
            response_count: -1,
            response_size: -1,
            content: String::new(),
        }
    }
}

/// Appends that may be under way; a lone member has one or two.
const APPENDS_MAX: usize = 1024;

impl Meter {
    pub(super) fn new(shared: &Shared) -> Meter {
        Meter {
            appends: VecDeque::new(),
            proposed: None,
            lap: Instant::now(),
            slow_apply: shared.config.slow_apply,
            slow_call: shared.slow_call(),
            calls: Vec::new(),
        }
    }

    /// Requests have arrived.
    pub(super) fn proposed(&mut self, at: Instant) {
        self.proposed = Some(self.proposed.map_or(at, |before| before.min(at)));
    }

    /// Everything that had arrived is being written to the log, up to this index.
    pub(super) fn appended(&mut self, last_index: u64) {
        let arrived = self.proposed.take().unwrap_or_else(Instant::now);
        if self.appends.len() == APPENDS_MAX {
            self.appends.pop_front();
        }
        self.appends.push_back((last_index, arrived));
    }

    /// A batch of entries begins.
    pub(super) fn begin(&mut self) {
        self.lap = Instant::now();
    }

    /// One request has been applied.
    pub(super) fn applied(&mut self, shared: &Shared, applied: &Applied<'_>) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.lap, now);
        let success = matches!(applied.result, Ok(_) | Err(ErrorCode::Compacted));
        let arrived = self.arrived(applied.index).filter(|_| applied.is_own);
        let whole = arrived.map(|arrived| now.saturating_duration_since(arrived));
        let lane = &shared.metrics.lane;
        lane.applied(applied.envelope.field, success, took, whole);
        match applied.result {
            Ok(Reply::LeaseGrant { ttl, .. }) => {
                lane.lease_granted.bump(1);
                lane.lease_ttl.observe(Duration::from_secs(ttl.unsigned_abs()));
            }
            Ok(Reply::LeaseRevoke { .. }) => lane.lease_revoked.bump(1),
            _ => {}
        }
        if took > self.slow_apply {
            lane.slow.bump(1);
            self.slow_line(shared, applied, took);
        }
        if !success {
            failed_line(shared, applied, took);
        }
        if let Some(whole) = whole.filter(|whole| *whole > self.slow_call) {
            self.note_call(shared, applied, whole);
        }
        // The lines are not part of the next request.
        if took > self.slow_apply || !success {
            self.lap = Instant::now();
        }
    }

    fn arrived(&mut self, index: u64) -> Option<Instant> {
        while self.appends.front().is_some_and(|(last, _)| *last < index) {
            self.appends.pop_front();
        }
        self.appends.front().map(|(_, arrived)| *arrived)
    }

    fn slow_line(&self, shared: &Shared, applied: &Applied<'_>, took: Duration) {
        let mut fields = vec![
            ("took", took.into()),
            ("expected-duration", self.slow_apply.into()),
            ("prefix", "".into()),
            ("request", requests::entry(&applied.envelope).into()),
            ("response", response(shared, applied.result).into()),
        ];
        if let Err(error) = applied.result {
            fields.push(("error", inner_text(error).into()));
        }
        shared.logger.warn("apply request took too long", &fields);
    }

    fn note_call(&mut self, shared: &Shared, applied: &Applied<'_>, took: Duration) {
        let (method, told) = match applied.envelope.field {
            field::PUT => ("/etcdserverpb.KV/Put", true),
            field::DELETE_RANGE => ("/etcdserverpb.KV/DeleteRange", true),
            field::TXN => ("/etcdserverpb.KV/Txn", true),
            field::COMPACTION => ("/etcdserverpb.KV/Compact", false),
            field::LEASE_GRANT => ("/etcdserverpb.Lease/LeaseGrant", false),
            field::LEASE_REVOKE => ("/etcdserverpb.Lease/LeaseRevoke", false),
            field::ALARM => ("/etcdserverpb.Maintenance/Alarm", false),
            _ => return,
        };
        let mut stats = CallStats::untold(method, took);
        if told {
            let ids = shared.published.load().edge.ids;
            let deleted = match applied.result {
                Ok(Reply::DeleteRange { deleted, .. }) => *deleted,
                _ => 0,
            };
            stats.request_count = i64::from(applied.envelope.field != field::DELETE_RANGE);
            stats.request_size = applied.envelope.body.len() as i64;
            if let (field::TXN, Ok(Reply::Txn { succeeded, .. })) = (applied.envelope.field, applied.result) {
                (stats.request_count, stats.request_size) = requests::branch(applied.envelope.body, *succeeded);
            }
            stats.response_count = deleted;
            stats.response_size = applied.result.map_or(0, |reply| encoded_len(reply, &ids));
            stats.content = requests::content(applied.envelope.field, applied.envelope.body);
        }
        self.calls.push((applied.envelope.id, stats));
    }

    /// What there is to say of the call with this request id, if it was slow.
    pub(super) fn take_call(&mut self, id: u64) -> Option<CallStats> {
        let at = self.calls.iter().position(|(call, _)| *call == id)?;
        Some(self.calls.swap_remove(at).1)
    }

    /// Forgets calls that nobody waits for any more.
    pub(super) fn end(&mut self) {
        self.calls.clear();
    }
}

fn failed_line(shared: &Shared, applied: &Applied<'_>, took: Duration) {
    let Err(error) = applied.result else { return };
    let fields = [
        ("took", took.into()),
        ("request", requests::entry(&applied.envelope).into()),
        ("response", "".into()),
        ("error", inner_text(error).into()),
    ];
    shared.logger.warn("failed to apply request", &fields);
}

fn encoded_len(reply: &Reply, ids: &HeaderIds) -> i64 {
    let mut out = Vec::new();
    reply.encode(ids, &mut out);
    out.len() as i64
}

/// An answer is measured as apply has it: some have their whole header by then, some a revision, some none.
fn response(shared: &Shared, result: Result<&Reply, ErrorCode>) -> String {
    let Ok(reply) = result else { return String::new() };
    let size = match reply {
        Reply::Nothing | Reply::Members { .. } => return String::new(),
        Reply::Put { .. } | Reply::Range { .. } | Reply::DeleteRange { .. } | Reply::Txn { .. } | Reply::Compaction { .. } => {
            encoded_len(reply, &HeaderIds::default())
        }
        Reply::Alarm { alarms, .. } => encoded_len(&Reply::Alarm { revision: 0, alarms: alarms.clone() }, &HeaderIds::default()) - 2,
        _ => encoded_len(reply, &shared.published.load().edge.ids),
    };
    format!("size:{size}")
}

/// The text of an error below the API, where it has no prefix.
pub(crate) fn inner_text(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::LeaseNotFound => "lease not found",
        other => other.message().strip_prefix("etcdserver: ").unwrap_or(other.message()),
    }
}
