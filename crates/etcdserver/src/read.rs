//! The read side: what a network thread holds, and how it answers reads without crossing to another thread.
//!
//! A [`Published`] is one consistent moment: keys, users, alarms and members as of the same applied entry. A check
//! of rights and the read that it permits therefore cannot disagree about the auth revision.

use std::cell::Cell;
use std::sync::Arc;

use api::Status;
use api::error::ErrorCode;
use mvcc::{KeyValue, RangeQuery, View};

use crate::apply::alarm::Alarms;
use crate::apply::quota::Quota;
use crate::apply::reply::{HeaderIds, put_bytes, put_header, put_number};
use crate::apply::request::{Range, Txn};
use crate::apply::txn::{Reader, Run, for_each_need, query, range_body};
use crate::apply::{Failure, Shared};
use crate::auth::{Access, AuthState, Caller};
use crate::lease::LeasesView;
use crate::membership::Cluster;

/// State as readers see it: a reference count to share, never changed.
#[derive(Clone, Debug)]
pub struct Published {
    /// Identity and term for headers.
    pub ids: HeaderIds,
    /// The keys.
    pub view: View,
    /// Index of the last applied entry.
    pub applied: u64,
    /// The alarms.
    pub alarms: Arc<Alarms>,
    /// Members, cluster version, downgrade job.
    pub cluster: Arc<Cluster>,
    /// Users, roles, permissions.
    pub auth: Arc<AuthState>,
    /// Leases and their keys: always the newest, which may be ahead of the rest.
    pub leases: LeasesView,
    /// Whether this state answers linearizable reads without a round.
    pub reads_are_local: bool,
    /// The space quota.
    pub quota: Quota,
    /// Whether a compaction is under way: what a physical compaction waits for, also one that was refused because
    /// its revision is compacted already.
    pub compacting: bool,
    /// Whether ranges without values show leases, as before 3.7.
    pub keys_only_lease: bool,
}

impl Published {
    /// Size of the database file as of the last commit.
    pub fn db_size(&self) -> u64 {
        self.view.file().sizes().total
    }

    /// The first gate of the quota, before a proposal: whether a request of this cost would find room.
    pub fn has_room(&self, cost: u64) -> bool {
        self.quota.has_room(self.db_size(), cost)
    }
}

/// What a read costs the turn in which it is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Keys in the answer.
    pub keys: u64,
    /// Keys in the interval.
    pub count: i64,
    /// Whether the limit cut something.
    pub more: bool,
}

fn status(failure: Failure) -> Status {
    match failure {
        Failure::Refused(error) => error.into(),
        Failure::Fatal(error) => Status::unknown(error.to_string()),
    }
}

/// An identity made before the last change of the auth state: the request was permitted, yet its token is stale.
fn check_not_stale(published: &Published, caller: Caller<'_>) -> Result<(), ErrorCode> {
    if caller.revision != 0 && caller.revision != published.auth.revision() {
        return Err(ErrorCode::AuthOldRevision);
    }
    Ok(())
}

/// Serves a checked range: rights, then the answer, a whole `RangeResponse`, appended to `out`. After an error
/// `out` is as it was.
pub fn range(
    published: &Published,
    caller: Caller<'_>,
    request: &Range<'_>,
    out: &mut Vec<u8>,
) -> Result<Served, Status> {
    published.auth.check_keys(caller, Access::Read, request.key, request.end)?;
    check_not_stale(published, caller)?;
    let start = out.len();
    put_header(out, &published.ids, published.view.revision());
    let query = query(Shared::Copied, request, published.keys_only_lease);
    range_body(&Reader::View(&published.view), &query, out).map_err(|failure| {
        out.truncate(start);
        status(failure)
    })
}

/// Serves a checked read-only transaction, a whole `TxnResponse`, and says how many ranges that took. After an
/// error `out` is as it was.
pub fn txn(
    published: &Published,
    caller: Caller<'_>,
    request: &Txn<'_>,
    out: &mut Vec<u8>,
) -> Result<u64, Status> {
    assert!(request.is_read_only(), "a transaction that writes goes through the log");
    for_each_need(request, &mut |need| published.auth.check(caller, need, &published.leases))?;
    check_not_stale(published, caller)?;
    let mut run = Run {
        reader: Reader::View(&published.view),
        source: Shared::Copied,
        keys_only_lease: published.keys_only_lease,
        ranges: Cell::new(0),
        pulse: &mut || (),
    };
    let mut responses = Vec::new();
    let done = run.run(request, &published.leases, Some(&mut responses)).map_err(status)?;
    put_header(out, &published.ids, done.revision);
    put_number(out, 0x10, u64::from(done.succeeded));
    out.extend_from_slice(&responses);
    Ok(run.ranges.get())
}

/// How many keys the first message of a streamed range asks for.
const FIRST_CHUNK: i64 = 10;

/// A streamed range on its way: one message per call of [`RangeStream::next`], each from the newest state but at the
/// revision of the first. No view is held in between, so a slow client does not make the file grow; a compaction
/// that passes the revision ends the stream.
#[derive(Debug)]
pub struct RangeStream {
    query: RangeQuery,
    /// Most keys to send; 0 and less for all.
    limit: i64,
    /// Keys to ask for next.
    chunk: i64,
    /// Encoded size of a message to aim at.
    target_bytes: usize,
    sent: i64,
    /// The store's revision at the first message.
    revision: Option<i64>,
    caller_revision: u64,
    done: bool,
}

impl RangeStream {
    /// Begins with a checked request; rights are checked here. `max_request_bytes` gives the size of messages.
    pub fn new(
        published: &Published,
        caller: Caller<'_>,
        request: &Range<'_>,
        max_request_bytes: usize,
    ) -> Result<RangeStream, Status> {
        published.auth.check_keys(caller, Access::Read, request.key, request.end)?;
        let limit = request.limit;
        Ok(RangeStream {
            query: query(Shared::Copied, request, published.keys_only_lease),
            limit,
            // A negative limit is none at all: everything goes into one message, as from Go.
            chunk: if limit < 0 { 0 } else { FIRST_CHUNK },
            target_bytes: max_request_bytes,
            sent: 0,
            revision: None,
            caller_revision: caller.revision,
            done: false,
        })
    }

    /// Appends the next `RangeStreamResponse`; false when there was none left, and the identity has not become stale
    /// on the way.
    pub fn next(&mut self, published: &Published, out: &mut Vec<u8>) -> Result<bool, Status> {
        if self.done {
            let caller = Caller { name: "", revision: self.caller_revision };
            return check_not_stale(published, caller).map(|()| false).map_err(Status::from);
        }
        if self.limit > 0 {
            self.query.limit = self.chunk.min(self.limit - self.sent);
        } else {
            self.query.limit = self.chunk;
        }
        let mut body = Vec::new();
        let (mut keys, mut last_key) = (0, Vec::new());
        let summary = published
            .view
            .range(&self.query, &mut |record| {
                keys += 1;
                last_key.clear();
                last_key.extend_from_slice(KeyValue::key_of(record).unwrap_or_default());
                put_bytes(&mut body, 0x12, record);
            })
            .map_err(|error| status(error.into()))?;
        let revision = *self.revision.get_or_insert(summary.revision);
        if self.query.revision <= 0 {
            self.query.revision = revision;
        }
        self.sent += keys;
        self.done = !summary.more || self.sent == self.limit;
        let mut message = Vec::with_capacity(body.len() + 64);
        if self.done {
            put_header(&mut message, &published.ids, revision);
        }
        message.extend_from_slice(&body);
        if self.done {
            put_number(&mut message, 0x18, u64::from(summary.more));
            // What was counted now begins with the keys of this message.
            put_number(&mut message, 0x20, (self.sent - keys + summary.count).cast_unsigned());
        } else {
            self.adapt(message.len());
            // The smallest key behind the last one.
            last_key.push(0);
            self.query.key = last_key.into();
        }
        out.push(0x0a);
        api::wire::put_varint(message.len() as u64, out);
        out.extend_from_slice(&message);
        Ok(true)
    }

    /// Small messages grow, large ones shrink.
    fn adapt(&mut self, message_bytes: usize) {
        if message_bytes < self.target_bytes / 2 {
            self.chunk = self.chunk.saturating_mul(2);
        } else if message_bytes > self.target_bytes.saturating_mul(2) {
            self.chunk = (self.chunk / 2).max(1);
        }
    }
}

#[cfg(test)]
#[path = "read/tests.rs"]
mod tests;
