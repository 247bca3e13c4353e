//! A full disk, as the member thread of production sees it: a batch without room comes back and is merged with what
//! was applied meanwhile, the next one has more of the reserve and fewer deletions of a compaction, and the alarm is
//! raised by an entry of the log.

use bolt::Reserve;
use etcdserver::apply::alarm;
use etcdserver::effect::RaftInput;
use etcdserver::now::MILLISECOND;

use super::{Died, Running, SnapshotStep, Turn};

/// How long to wait before what found no room is tried again.
pub(crate) const RETRY_NS: u64 = 500 * MILLISECOND;
/// By what the deletions of a compaction are divided when a batch with them does not fit.
const FEWER: usize = 8;
/// The least that is tried again once there was room without any.
const DELETES_MIN: usize = 32;
/// An alarm that has not come back from the log after this is proposed again.
const ALARM_LOST_NS: u64 = 5_000 * MILLISECOND;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Room {
    /// A batch came back and none has reached the file since: when the next one is tried.
    pub(super) retry_at: Option<u64>,
    from_reserve: bool,
    deletes_max: usize,
    /// When the alarm was last proposed; `None` once it was seen.
    proposed: Option<u64>,
}

impl Default for Room {
    fn default() -> Room {
        Room { retry_at: None, from_reserve: false, deletes_max: usize::MAX, proposed: None }
    }
}

impl Room {
    /// How much of the reserve the next batch may use.
    pub(super) fn admit(&mut self, wanted: Reserve) -> Reserve {
        let reserve = if self.retry_at.is_some() { wanted.max(Reserve::Most) } else { wanted };
        self.from_reserve = reserve != Reserve::Keep;
        reserve
    }

    fn refused(&mut self, carried: usize, now_ns: u64) -> usize {
        if self.from_reserve && carried > 0 {
            self.deletes_max = carried / FEWER;
            self.retry_at = Some(now_ns);
        } else {
            self.retry_at = Some(now_ns + RETRY_NS);
        }
        self.deletes_max
    }
}

impl Running {
    /// The batch that was out found no room.
    pub(super) fn batch_refused(&mut self, now_ns: u64) {
        let store = self.applier.store_mut();
        let carried = store.take_back();
        store.limit_deletes(self.room.refused(carried, now_ns));
        self.unflushed_since.get_or_insert(now_ns);
        if self.snapshot == Some(SnapshotStep::Committing) {
            self.snapshot = Some(SnapshotStep::Commit);
        }
        self.is_dirty = true;
        self.inbox.push_back(super::Input::NoSpace);
    }

    /// The batch that was out is in the file.
    pub(super) fn batch_fitted(&mut self) {
        self.room.retry_at = None;
        let some_wait = self.room.deletes_max < usize::MAX && self.applier.store().unflushed_ops() > 0;
        let more = self.room.deletes_max.max(DELETES_MIN / 2).saturating_mul(2);
        self.room.deletes_max = if some_wait { more } else { usize::MAX };
        self.applier.store_mut().limit_deletes(self.room.deletes_max);
    }

    /// Something found no room. The alarm is raised unless it is on.
    pub(super) fn no_space(&mut self, turn: &mut Turn<'_>) -> Result<(), Died> {
        let id = self.applier.cluster().local_id();
        if self.published.alarms.contains(alarm::NOSPACE, id) {
            self.room.proposed = None;
            return Ok(());
        }
        let now = turn.now.mono_ns;
        if self.room.proposed.is_some_and(|at| now < at + ALARM_LOST_NS) {
            return Ok(());
        }
        self.room.proposed = Some(now);
        self.step(turn, RaftInput::Propose(vec![alarm::no_space_proposal(id)]))
    }
}
