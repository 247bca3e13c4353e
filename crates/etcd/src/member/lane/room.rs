//! A full disk, as the member thread sees it.
//!
//! A batch that finds no room comes back from the commit thread and is merged with what was applied meanwhile: the
//! next one holds all of it, less what deletions and compaction have made of it, so that what makes room never waits
//! behind what needs it. The file then goes from one prefix of the log to a later one, as ever.
//!
//! What a compaction takes away is no part of that prefix and may come bit by bit. If a batch does not fit with it,
//! the next one carries less of it, down to none; each piece that is in the file frees pages for the next.
//!
//! The alarm is raised by an entry of the log like any other, and is the operator's to take back. If the next batch
//! finds no room either, it is raised again.

use std::time::Duration;

use api::error::ErrorCode;
use bolt::Reserve;
use etcdserver::apply::alarm;
use etcdserver::effect::RaftInput;

use super::{Lane, SnapshotStep, UNFLUSHED_BYTES_MAX};

/// How long to wait before the next batch is tried, and how many times as long as the last one took at least: a
/// large batch is work even in vain.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_SHARE: u32 = 8;
/// By what the deletions of a compaction are divided when a batch with them does not fit.
const FEWER: usize = 8;
/// The least that is tried again once there was room without any.
const DELETES_MIN: usize = 32;
/// An alarm that has not come back from the log after this is proposed again.
const ALARM_LOST: Duration = Duration::from_secs(5);
/// More than so much that is in no batch yet, and once more for each step, is a reason to look how much room there is.
const LOOK_AT: usize = 4 << 20;
const LOOK_STEP: usize = 1 << 20;

/// What the member thread knows about room.
#[derive(Debug)]
pub(super) struct Room {
    /// A batch came back and none has reached the file since: when the next one is tried.
    retry_at: Option<u64>,
    /// When the last batch was begun, and whether it may use the reserve.
    begun: u64,
    from_reserve: bool,
    /// It was as small as it can be and had the reserve: who waits for the file would wait for the operator.
    is_stuck: bool,
    /// Deletions of a compaction in one batch.
    deletes_max: usize,
    /// When the alarm was last proposed; `None` once it was seen.
    proposed: Option<u64>,
    /// Bytes that had gathered when room was last looked at.
    looked_at: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room {
            retry_at: None,
            begun: 0,
            from_reserve: false,
            is_stuck: false,
            deletes_max: usize::MAX,
            proposed: None,
            looked_at: 0,
        }
    }
}

impl Room {
    /// When the next batch may be tried, if one came back.
    pub(super) fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// A batch is about to be made.
    pub(super) fn begin(&mut self, now_ns: u64) {
        self.begun = now_ns;
        self.looked_at = 0;
    }

    /// How much of the reserve the batch may use: what came back once may use more. Behind the alarm only deletions
    /// and compaction follow; the reserve is for them, and for the batch that stands before them.
    pub(super) fn admit(&mut self, wanted: Reserve) -> Reserve {
        let reserve = if self.retry_at.is_some() { wanted.max(Reserve::Most) } else { wanted };
        self.from_reserve = reserve != Reserve::Keep;
        reserve
    }

    /// A batch with `carried` deletions of a compaction came back; how many the next one may have.
    fn refused(&mut self, carried: usize, now_ns: u64) -> usize {
        self.is_stuck = self.from_reserve && carried == 0;
        if self.from_reserve && carried > 0 {
            self.deletes_max = carried / FEWER;
            self.retry_at = Some(now_ns);
        } else {
            let took = Duration::from_nanos(now_ns.saturating_sub(self.begun));
            self.retry_at = Some(now_ns + RETRY.max(took * RETRY_SHARE).as_nanos() as u64);
        }
        self.deletes_max
    }

    /// A batch is in the file, and deletions wait or not; how many the next one may have.
    fn committed(&mut self, some_wait: bool) -> usize {
        self.retry_at = None;
        self.deletes_max =
            if some_wait { self.deletes_max.max(DELETES_MIN / 2).saturating_mul(2) } else { usize::MAX };
        self.deletes_max
    }
}

impl Lane {
    /// The batch that was out found no room.
    pub(super) fn batch_refused(&mut self, what: &str) {
        let now = self.shared.now().mono_ns;
        self.batch_is_out = false;
        let store = self.applier.store_mut();
        let carried = store.take_back();
        store.limit_deletes(self.room.refused(carried, now));
        self.unflushed_since.get_or_insert(now);
        // The next batch holds the end of a compaction too, and what snapshots wait for.
        self.building.append(&mut self.building_in_batch);
        self.compacted = self.compacted.or(self.compacted_in_batch.take());
        if self.snapshot == Some(SnapshotStep::Committing) {
            self.snapshot = Some(SnapshotStep::Commit);
        }
        if self.room.is_stuck {
            for (_, done) in std::mem::take(&mut self.file_waiters) {
                // A waiter that is gone does not need the answer.
                let _gone = done.send(Err(ErrorCode::NoSpace.into()));
            }
        }
        self.is_dirty = true;
        self.no_space(what);
    }

    /// The batch that was out is in the file.
    pub(super) fn batch_fitted(&mut self) {
        let store = self.applier.store_mut();
        let limit = self.room.committed(self.room.deletes_max < usize::MAX && store.unflushed_ops() > 0);
        store.limit_deletes(limit);
    }

    /// Something found no room. The alarm is raised unless it is on; deletes and compaction go on and free it.
    pub(super) fn no_space(&mut self, what: &str) {
        if self.has_no_space_alarm() {
            self.room.proposed = None;
            return;
        }
        let now = self.shared.now().mono_ns;
        let is_lost = |at: u64| now >= at + ALARM_LOST.as_nanos() as u64;
        if self.room.proposed.is_none_or(is_lost) {
            self.room.proposed = Some(now);
            self.shared.logger.error("no space left on the disk; raising alarm", &[("error", what.to_owned().into())]);
            self.step(RaftInput::Propose(vec![alarm::no_space_proposal(self.shared.member_id)]));
        }
    }

    fn has_no_space_alarm(&self) -> bool {
        self.shared.published.load().edge.alarms.contains(alarm::NOSPACE, self.shared.member_id)
    }

    /// Whether so much is applied and not in the file that nothing more may be. Where room is what lacks, and the
    /// alarm keeps out what needs more, nothing is refused: it would be what makes room. What may gather then is
    /// bounded by what there is to delete.
    pub(super) fn is_behind(&self) -> bool {
        self.applier.store().unflushed_bytes() > UNFLUSHED_BYTES_MAX
            && !(self.room.retry_at.is_some() && self.has_no_space_alarm())
    }

    /// While a batch is out, more may gather than there is room for. The alarm then comes before all of it is there:
    /// what is small enough for the reserve can always be written, and deletions behind it.
    pub(super) fn look_for_room(&mut self) {
        let gathered = self.applier.store().gathered_bytes();
        if gathered < LOOK_AT.max(self.room.looked_at + LOOK_STEP) {
            return;
        }
        self.room.looked_at = gathered;
        // A disk that does not say is found to be full when it is.
        let dir = self.shared.core.snap_dir();
        let Ok(free) = self.shared.disk.free_bytes(&dir) else { return };
        let sizes = self.sizes;
        let in_file = sizes.allocated.max(sizes.total).saturating_sub(sizes.in_use);
        if free.saturating_add(in_file) < gathered as u64 + gathered as u64 / 4 {
            self.no_space(&format!("{gathered} bytes wait for {} and may not find room", self.shared.core.db_path().display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletions_of_a_compaction_become_fewer_until_there_is_room_and_then_more() {
        let mut room = Room::default();
        room.begin(0);
        assert_eq!(room.admit(Reserve::Keep), Reserve::Keep);
        assert_eq!(room.refused(1_000, 10), usize::MAX, "it had no reserve yet");
        assert_eq!(room.retry_at(), Some(10 + RETRY.as_nanos() as u64));
        for (carried, next) in [(1_000, 125), (125, 15), (15, 1), (1, 0)] {
            assert_eq!(room.admit(Reserve::Keep), Reserve::Most);
            assert_eq!(room.refused(carried, 20), next);
            assert_eq!(room.retry_at(), Some(20), "at once");
        }
        assert_eq!(room.admit(Reserve::All), Reserve::All);
        assert!(!room.is_stuck);
        assert_eq!(room.refused(0, 1_000_000_000), 0);
        assert!(room.is_stuck);
        assert_eq!(room.retry_at(), Some(9_000_000_000), "a long try is not repeated soon");
        assert_eq!(room.committed(true), 32);
        assert_eq!(room.retry_at(), None);
        assert_eq!(room.admit(Reserve::Keep), Reserve::Keep);
        assert_eq!(room.committed(true), 64);
        assert_eq!(room.committed(false), usize::MAX);
    }
}
