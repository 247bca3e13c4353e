//! What the member thread counts and says of its own work.

use std::time::Instant;

use super::{Lane, SnapshotStep};
use crate::member::lines::size_fields;
use crate::metrics;

impl Lane {
    /// A compaction has ended.
    pub(super) fn compaction_line(&mut self, revision: i64, asked: Instant) {
        let store = self.applier.store();
        let (taken, view) = (store.counts().compacted, store.view());
        let hash = view.compaction_hashes().iter().rev().find(|hash| hash.revision == revision);
        let keys = taken - std::mem::replace(&mut self.compacted_before, taken);
        let mut fields = vec![
            ("compact-revision", revision.into()),
            ("took", asked.elapsed().into()),
            ("number-of-keys-compacted", keys.into()),
        ];
        if let Some(hash) = hash {
            fields.push(("hash", hash.hash.into()));
        }
        fields.extend(size_fields(self.sizes));
        self.shared.logger.info("finished scheduled compaction", &fields);
        if let Some(hash) = hash {
            self.shared.logger.info(
                "storing new hash",
                &[
                    ("hash", hash.hash.into()),
                    ("revision", hash.revision.into()),
                    ("compact-revision", hash.compact_revision.into()),
                ],
            );
        }
    }

    /// One step of a compaction is over.
    pub(super) fn measure_compaction(&mut self, step: Instant, is_last: bool) {
        let lane = &self.shared.metrics.lane;
        let (start, has_begun) = self.compaction_start.unwrap_or((step, false));
        let pause = metrics::as_millis(step.elapsed());
        // The first step is of the index alone, the others take records away.
        if has_begun { lane.compaction_pause.observe(pause) } else { lane.index_compaction_pause.observe(pause) }
        self.compaction_start = Some((start, true));
        if is_last {
            lane.compaction_total.observe(metrics::as_millis(start.elapsed()));
            lane.compaction_last.set((self.shared.now().wall_ns / 1_000_000_000) as i64);
            self.compaction_start = None;
        }
    }

    /// Takes over what the lanes count themselves.
    pub(super) fn measure(&self, committed: u64) {
        let (lane, counts) = (&self.shared.metrics.lane, self.applier.store().counts());
        lane.proposals_committed.set(committed.cast_signed());
        lane.proposals_applied.set(self.applier.applied().0.cast_signed());
        lane.proposals_pending.set(self.node.waiting() as i64);
        lane.ranges.set(counts.ranges);
        lane.puts.set(counts.puts);
        lane.deletes.set(counts.deletes);
        lane.txns.set(counts.txns);
        lane.put_bytes.set(counts.put_bytes);
        lane.compacted_keys.set(counts.compacted);
    }

    pub(super) fn snapshot_due(&mut self, applied: u64) {
        if self.snapshot.is_none() {
            self.snapshot = Some(SnapshotStep::Commit);
            self.shared.logger.info(
                "triggering snapshot",
                &[
                    ("local-member-id", api::ids::hex(self.shared.member_id).to_string().into()),
                    ("local-member-applied-index", applied.into()),
                    ("local-member-snapshot-index", self.snapshot_index.into()),
                    ("local-member-snapshot-count", self.shared.config.snapshot_count.into()),
                    ("snapshot-forced", false.into()),
                ],
            );
        }
    }
}
