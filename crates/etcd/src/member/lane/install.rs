//! A snapshot that the leader sent takes the place of all state.
//!
//! Its database lies beside the present one, and the log has a record of it. The commit thread finishes what it has,
//! changes the files over and reads the new one into memory; meanwhile raft goes on here, and what it hands to apply
//! waits. Readers keep what they have, which is pinned, until the new state is published.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use etcdserver::effect::{Committed, RaftInput};

use super::room::Room;
use super::{Lane, SnapshotStep};
use crate::member::commit::{self, Installed};
use crate::member::handle::Mail;

impl Lane {
    /// Begins; `rest` follows the snapshot.
    pub(super) fn install(&mut self, index: u64, rest: Committed) {
        self.shared.logger.info(
            "applying snapshot",
            &[
                ("current-snapshot-index", self.snapshot_index.into()),
                ("current-applied-index", self.applier.applied().0.into()),
                ("incoming-leader-snapshot-index", index.into()),
            ],
        );
        self.installing = Some(VecDeque::from([rest]));
        self.compaction_due = None;
        // What is not in the file yet is part of the snapshot.
        self.unflushed_since = None;
        let before = self.applier.cluster().clone();
        self.shared.commit.push(commit::Job::Install { index, before });
    }

    /// The new state is there: it counts from now on.
    pub(super) fn installed(&mut self, installed: Installed) {
        let Installed { mut applier, leases, sizes } = installed;
        applier.set_reads_are_local(self.node.reads_are_local());
        self.applier = applier;
        let (index, _) = self.applier.applied();
        self.sizes = sizes;
        self.file_at = self.applier.applied();
        self.frozen_at = self.file_at;
        self.frozen_cluster = self.applier.cluster().clone();
        self.unflushed_since = None;
        self.room = Room::default();
        self.compacted = None;
        self.compacted_in_batch = None;
        self.compaction_due = self.applier.store().is_compacting().then_some(0);
        self.compacted_before = self.applier.store().counts().compacted;
        self.shared.compaction_finished.store(self.applier.store().compact_revision(), Ordering::Release);
        // Snapshots for others are made from what is here now.
        self.building.append(&mut self.building_in_batch);
        if matches!(self.snapshot, Some(SnapshotStep::Commit | SnapshotStep::Committing)) {
            self.snapshot = None;
        }
        self.snapshot_index = index;
        // Events that were not sent yet are history of the new store.
        self.events.clear();
        // First: else so many entries at once would ask for another one.
        self.step(RaftInput::SnapshotSaved { index });
        self.step(RaftInput::Applied { index, leases });
        self.tell_versions();
        self.tell_identity();
        self.follow_members();
        self.is_dirty = true;
        self.publish_and_send();
        self.shared.tell_networks(|| Mail::Replaced);
        self.reads_reached();
        self.shared.logger.info(
            "applied snapshot",
            &[
                ("current-snapshot-index", index.into()),
                ("current-applied-index", index.into()),
                ("incoming-leader-snapshot-index", index.into()),
            ],
        );
        for committed in self.installing.take().unwrap_or_default() {
            self.apply(committed);
        }
    }
}
