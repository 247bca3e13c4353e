//! Put, range, delete, transaction and compaction at apply.
//!
//! Gates come first ([`Applier::gate`]), then what each request asks for. A write past the quota is carried out
//! and answered with an error all the same: the file's size is a local matter and must not decide about state.

use std::cell::Cell;

use api::error::ErrorCode;
use api::etcdserverpb as pb;
use mvcc::RangeEnd;

use super::policy::field;
use super::quota::{put_cost, txn_cost};
use super::reply::Reply;
use super::request::{DeleteRange, Put, Range, Txn};
use super::txn::{
    Reader, Run, check_lease, delete_needs, for_each_need, put_in, put_needs, query, range_body,
};
use super::{Applier, Context, Failure, Turn, decode};
use crate::auth::Need;
use crate::mutant::Mutant;

impl Applier {
    pub(super) fn put(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let put = Put::parse(at.body()).map_err(|error| at.malformed(error))?;
        let cost = put_cost(&put);
        self.gate(field::PUT, || cost)?;
        self.require(at, put_needs(&put))?;
        let room = self.has_room(cost);
        if !room && Mutant::QuotaDecides.is_on() {
            return Err(ErrorCode::NoSpace.into());
        }
        check_lease(self.lessor.view(), &put)?;
        let mut txn = self.store.write();
        let done = put_in(&mut txn, &put)?;
        Self::finish(txn, &mut self.lessor, out);
        self.after_quota(room, out)?;
        Ok(Reply::Put { revision: done.revision, prev: done.prev })
    }

    pub(super) fn range(&mut self, at: Context<'_>) -> Result<Reply, Failure> {
        let range = Range::parse(at.body()).map_err(|error| at.malformed(error))?;
        self.gate(field::RANGE, || 0)?;
        self.require(at, [Need::read(range.key, range.end)])?;
        if !at.wanted {
            return Ok(Reply::Nothing);
        }
        let mut txn = self.store.write();
        let reader = Reader::Writer(&mut txn);
        let mut body = Vec::new();
        range_body(&reader, &query(at.source(), &range, self.settings.keys_only_lease), &mut body)?;
        Ok(Reply::Range { revision: reader.revision(), body: body.into() })
    }

    pub(super) fn delete_range(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let delete = DeleteRange::parse(at.body()).map_err(|error| at.malformed(error))?;
        self.gate(field::DELETE_RANGE, || 0)?;
        self.require(at, delete_needs(&delete))?;
        let mut txn = self.store.write();
        let end = RangeEnd::from_wire(at.source().bytes(delete.end));
        let done = txn.delete_range_with(delete.key, &end, delete.prev_kv && at.wanted, out.pulse)?;
        let revision = txn.revision();
        Self::finish(txn, &mut self.lessor, out);
        Ok(Reply::DeleteRange { revision, deleted: done.count() as i64, prev: done.previous })
    }

    pub(super) fn txn(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let request = Txn::parse(at.body()).map_err(|error| at.malformed(error))?;
        let cost = txn_cost(&request);
        self.gate(field::TXN, || cost)?;
        let (state, leases) = (self.auth.state(), self.lessor.view());
        if state.enabled() {
            for_each_need(&request, &mut |need| state.check(at.caller(), need, leases))?;
        }
        let room = self.has_room(cost);
        let mut responses = Vec::new();
        let mut txn = self.store.write();
        let mut run = Run {
            reader: Reader::Writer(&mut txn),
            source: at.source(),
            keys_only_lease: self.settings.keys_only_lease,
            ranges: Cell::new(0),
            pulse: &mut *out.pulse,
        };
        let done = match run.run(&request, self.lessor.view(), at.wanted.then_some(&mut responses)) {
            Ok(done) => done,
            Err(failure) => {
                // Refused means unchanged, and the store sees to that. A fault may leave half a transaction, which
                // nobody will see: the member ends.
                if matches!(failure, Failure::Fatal(_)) {
                    drop(txn.end());
                }
                return Err(failure);
            }
        };
        Self::finish(txn, &mut self.lessor, out);
        self.after_quota(room, out)?;
        Ok(Reply::Txn { revision: done.revision, succeeded: done.succeeded, responses: responses.into() })
    }

    pub(super) fn compaction(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let request: pb::CompactionRequest = decode(at)?;
        self.gate(field::COMPACTION, || 0)?;
        self.store.schedule_compaction(request.revision)?;
        // etcd reads a key to learn the revision.
        self.store.count_range();
        out.compaction_scheduled = true;
        Ok(Reply::Compaction { revision: self.store.revision() })
    }

    /// Whether a write of this cost still has room in the file, asked before it is carried out.
    fn has_room(&self, cost: u64) -> bool {
        self.settings.quota.has_room(self.store.size_for_quota(), cost)
    }

    /// The answer to a write that had no room: it was carried out, yet it is an error, and this member raises its
    /// alarm.
    pub(super) fn after_quota(&mut self, room: bool, out: &mut Turn<'_>) -> Result<(), Failure> {
        if room {
            return Ok(());
        }
        self.raise_no_space(out);
        Err(ErrorCode::NoSpace.into())
    }
}
