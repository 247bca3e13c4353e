//! What was committed is applied, and what follows from that.

use std::time::Instant;

use api::raftpb;
use bytes::Bytes;
use etcdserver::apply::reply::Reply;
use etcdserver::effect::{ClusterVersions, Committed, ConfApplied, Outcome, RaftInput, ReplyTo};
use mvcc::schema::{self, Bucket, StorageVersion};

use super::{Lane, TASK_THREAD, pulse};

impl Lane {
    pub(super) fn apply(&mut self, committed: Committed) {
        if let Some(waiting) = &mut self.installing {
            // Bounded by the credit that raft gives apply.
            return waiting.push_back(committed);
        }
        if let Some(snapshot) = &committed.snapshot {
            let index = snapshot.metadata.as_ref().map_or(0, raftpb::SnapshotMetadata::index);
            return self.install(index, Committed { snapshot: None, entries: committed.entries });
        }
        let now = self.shared.now();
        let mut outcome = std::mem::take(&mut self.outcome);
        let last = (!self.node.reads_are_local()).then(Instant::now);
        let Lane { applier, meter, shared, log, node, later, .. } = self;
        let mut pulse = pulse::Pulse { shared, log, node, later, last };
        meter.begin();
        let applied = applier.apply_watched(
            now,
            committed,
            &mut outcome,
            &mut |applied| meter.applied(shared, &applied),
            &mut || pulse.beat(),
        );
        if let Err(error) = applied {
            self.shared.logger.fatal("failed to apply", &[("error", error.to_string().into())]);
        }
        self.is_dirty = true;
        self.unflushed_since.get_or_insert(now.mono_ns);
        for conf in outcome.conf.drain(..) {
            self.conf_applied(conf);
        }
        if outcome.cluster_changed {
            self.tell_versions();
        }
        let leases = std::mem::take(&mut outcome.leases);
        self.step(RaftInput::Applied { index: outcome.index, leases });
        self.replies(&mut outcome);
        self.meter.end();
        self.events.append(&mut outcome.events);
        if !outcome.proposals.is_empty() {
            let proposals = std::mem::take(&mut outcome.proposals);
            self.step(RaftInput::Propose(proposals));
        }
        if std::mem::take(&mut outcome.compaction_scheduled) {
            let revision = self.applier.store().compact_revision();
            self.shared.logger.info("compact tree index", &[("revision", revision.into())]);
            self.compaction_due = Some(now.mono_ns);
            self.compaction_start.get_or_insert((Instant::now(), false));
        }
        if std::mem::take(&mut outcome.force_snapshot) {
            self.step(RaftInput::ForceSnapshot);
        }
        outcome.cluster_changed = false;
        // This version hands out no tokens, so there is none to forget.
        outcome.tokens.clear();
        if std::mem::take(&mut outcome.auth_changed) {
            self.tell_identity();
        }
        self.outcome = outcome;
        self.reads_reached();
    }

    /// Answers go to who waits for them.
    fn replies(&mut self, outcome: &mut Outcome) {
        for (id, result) in outcome.replies.drain(..) {
            if let Some(to) = self.node.take_waiting(id) {
                if to.thread == TASK_THREAD {
                    self.task_answers.push((to, result));
                    continue;
                }
                let outgoing = &mut self.outgoing[usize::from(to.thread)];
                if let Some(stats) = self.meter.take_call(id) {
                    outgoing.slow.push((to, stats));
                }
                outgoing.replies.push((to, result));
            } else if let Ok(Reply::LeaseRevoke { .. }) = result {
                // Nobody asked: its time was up.
                self.shared.metrics.lane.lease_expired.bump(1);
            }
        }
    }

    fn conf_applied(&mut self, conf: ConfApplied) {
        self.shared.conf_line(&conf, self.applier.cluster());
        self.step(RaftInput::ConfApplied(conf));
    }

    /// Reads that waited for entries to be applied.
    pub(super) fn reads_reached(&mut self) {
        let applied = self.applier.applied().0;
        let mut i = 0;
        while i < self.reads.len() {
            if self.reads[i].0 <= applied {
                let (_, waiting) = self.reads.swap_remove(i);
                self.read_ready(waiting);
            } else {
                i += 1;
            }
        }
    }

    pub(super) fn read_ready(&mut self, waiting: Vec<ReplyTo>) {
        for to in waiting {
            if to.thread == TASK_THREAD {
                self.task_answers.push((to, Ok(Reply::Nothing)));
            } else {
                self.outgoing[usize::from(to.thread)].read_ready.push(to);
            }
        }
    }

    /// In whose name raft ends leases: with auth on, a revoke of nobody is refused wherever it is applied, and a lease
    /// that has keys would never end.
    pub(super) fn tell_identity(&mut self) {
        let identity = self.applier.publish().auth.own_identity();
        self.step(RaftInput::OwnIdentity(identity));
    }

    /// What raft must know to agree on a cluster version. The lowest server version of a lone member is its own.
    pub(super) fn tell_versions(&mut self) {
        let cluster = self.applier.cluster();
        let is_alone = cluster.members().len() <= 1;
        let lowest_server = if is_alone { Some(self.shared.core.version) } else { self.lowest_server };
        let versions = ClusterVersions {
            cluster: cluster.version(),
            lowest_server,
            downgrade: cluster.downgrade().target_minor(),
        };
        self.step(RaftInput::Versions(versions));
        let cluster = self.applier.cluster().clone();
        self.shared.cluster_version_lines(&cluster, self.cluster_version);
        self.cluster_version = cluster.version();
        self.migrate_storage();
    }

    /// The storage version follows the cluster version: one key, written with the next batch.
    fn migrate_storage(&mut self) {
        let Some(version) = self.cluster_version else { return };
        let target = StorageVersion::from_minor(u64::from(version.major), u64::from(version.minor));
        // A cluster of version 3.0 has just been founded by somebody older: not decided yet.
        let Some(target) = target else { return };
        let value = schema::storage_version_value(target);
        let key = Bytes::from_static(schema::STORAGE_VERSION);
        let store = self.applier.store_mut();
        let stored = store.side(Bucket::Meta, &key);
        if stored == value {
            return;
        }
        let stored = stored.map_or_else(|| "3.5.0".to_string(), |text| String::from_utf8_lossy(&text).into_owned());
        self.shared.logger.info(
            "cluster version differs from storage version.",
            &[("cluster-version", version.to_string().into()), ("storage-version", stored.into())],
        );
        store.set_side(Bucket::Meta, key, value);
        self.is_dirty = true;
        self.unflushed_since.get_or_insert(self.shared.now().mono_ns);
        self.shared
            .logger
            .info("updated storage version", &[("new-storage-version", target.to_string().into())]);
    }
}
