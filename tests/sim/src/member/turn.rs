//! One turn of the member thread: all input, then what raft asks for until it asks for nothing, then the file, then
//! what readers see, then the answers.

use std::sync::Arc;

use api::error::ErrorCode;
use etcdserver::apply::Applied;
use etcdserver::apply::policy::field;
use etcdserver::apply::reply::HeaderIds;
use etcdserver::effect::{
    Append, ClusterVersions, Committed, Proposal, RaftEffect, RaftInput, ReplyTo, RoleChange,
};
use mvcc::schema::{self, Bucket, StorageVersion};

use super::{Counted, Died, Input, LogJob, Out, Running, SnapshotStep, Told, Turn};
use crate::failure::{Checker, ensure, fail};
use crate::model::Model;

impl Running {
    /// When the thread must wake by itself, on the member's monotonic clock.
    pub(crate) fn deadline(&self) -> u64 {
        let mut next = self.node.next_wakeup_ns();
        if let Some(since) = self.unflushed_since.filter(|_| self.commit_now.is_none()) {
            let due = since + self.tuning.batch_interval_ns;
            next = next.min(self.room.retry_at.map_or(due, |at| at.max(due)));
        }
        next
    }

    /// See the head of this file.
    pub(crate) fn turn(&mut self, disk: &Arc<dyn disk::Disk>, turn: &mut Turn<'_>) -> Result<(), Died> {
        let mut proposals = Vec::new();
        let mut reads = Vec::new();
        while let Some(input) = self.inbox.pop_front() {
            match input {
                Input::Propose(proposal) => proposals.push(proposal),
                Input::Read(to) => reads.push(to),
                other => self.input(other, turn)?,
            }
        }
        if !proposals.is_empty() {
            self.step(turn, RaftInput::Propose(proposals))?;
        }
        if !reads.is_empty() {
            self.step(turn, RaftInput::ReadIndex(reads))?;
        }
        if turn.now.mono_ns >= self.node.next_wakeup_ns() {
            self.step(turn, RaftInput::Tick)?;
        }
        self.settle(disk, turn)?;
        self.compaction_step(turn)?;
        self.flush(turn);
        if self.is_dirty {
            self.publish();
            super::boot::check_auth(&self.published, &mut self.checked_auth, turn.model);
        }
        if !self.events.is_empty() {
            turn.out.push(Out::Events(std::mem::take(&mut self.events)));
        }
        self.check_raft_members();
        Ok(())
    }

    pub(super) fn step(&mut self, turn: &Turn<'_>, input: RaftInput) -> Result<(), Died> {
        Ok(self.node.step(turn.now, input)?)
    }

    fn input(&mut self, input: Input, turn: &mut Turn<'_>) -> Result<(), Died> {
        match input {
            Input::Raft(input) => self.step(turn, input),
            Input::Propose(_) | Input::Read(_) => unreachable!("gathered by the turn"),
            Input::Promote { reply_to, id } => self.promote(reply_to, id, turn),
            Input::SnapshotSaved(index) => {
                self.snapshot = None;
                self.step(turn, RaftInput::SnapshotSaved { index })
            }
            Input::NoSpace => self.no_space(turn),
        }
    }

    /// Only a leader knows whether a learner has caught up.
    fn promote(&mut self, reply_to: ReplyTo, id: u64, turn: &mut Turn<'_>) -> Result<(), Died> {
        if self.node.learner_is_ready(id) != Some(true) {
            let status = api::Status::from(api::error::ErrorCode::LearnerNotReady);
            turn.out.push(Out::Tell(reply_to, Told::Refused(status)));
            return Ok(());
        }
        let context = etcdserver::membership::ConfContext {
            member: etcdserver::membership::Member { id, ..Default::default() },
            is_promote: true,
        };
        let change = api::raftpb::ConfChange {
            id: None,
            r#type: Some(api::raftpb::ConfChangeType::ConfChangeAddNode as i32),
            node_id: Some(id),
            context: Some(context.to_json()),
        };
        self.step(turn, RaftInput::ConfChange { reply_to: Some(reply_to), change })
    }

    fn settle(&mut self, disk: &Arc<dyn disk::Disk>, turn: &mut Turn<'_>) -> Result<(), Died> {
        loop {
            let mut effects = std::mem::take(&mut self.effects);
            self.node.drain(&mut effects);
            if effects.is_empty() {
                self.effects = effects;
                self.node.take_lines();
                return Ok(());
            }
            for effect in effects.drain(..) {
                self.effect(disk, effect, turn)?;
            }
            self.effects = effects;
        }
    }

    fn effect(
        &mut self,
        disk: &Arc<dyn disk::Disk>,
        effect: RaftEffect,
        turn: &mut Turn<'_>,
    ) -> Result<(), Died> {
        match effect {
            RaftEffect::Send(messages) => turn.out.push(Out::Send(messages)),
            RaftEffect::Append(append) => self.append(append, turn)?,
            RaftEffect::Apply(mut committed) => {
                self.take_snapshot(disk, &mut committed, turn)?;
                self.apply(committed, turn)?;
            }
            RaftEffect::ReadReady { waiting, index } => {
                if index <= self.applier.applied().0 {
                    read_ready(waiting, turn);
                } else {
                    self.reads.push((index, waiting));
                }
            }
            RaftEffect::Renewed(rows) => turn
                .out
                .extend(rows.into_iter().map(|(row, ttl)| Out::Tell(row.reply_to, Told::Renewed(ttl)))),
            RaftEffect::LeaseTimes(rows) => turn
                .out
                .extend(rows.into_iter().map(|(row, times)| Out::Tell(row.reply_to, Told::Times(times)))),
            RaftEffect::RenewElsewhere { leader, renewals } => {
                turn.out.push(Out::Forward(leader, RaftInput::Renew(renewals)));
            }
            RaftEffect::LeaseTimesElsewhere { leader, questions } => {
                turn.out.push(Out::Forward(leader, RaftInput::LeaseTimes(questions)));
            }
            RaftEffect::Refused(rows) => {
                turn.out.extend(rows.into_iter().map(|(to, status)| Out::Tell(to, Told::Refused(status))));
            }
            RaftEffect::Role(role) => self.role(role, turn),
            RaftEffect::ConfChanged(conf) => {
                self.members_may_differ = true;
                self.is_dirty = true;
                if conf.change.node_id() != 0 {
                    turn.out.push(Out::Count(Counted::MemberChanged));
                }
            }
            RaftEffect::BuildSnapshot(message) => self.builds.push((self.applier.applied().0, message)),
            RaftEffect::SnapshotDue { .. } => {
                if self.snapshot.is_none() {
                    self.snapshot = Some(SnapshotStep::Commit);
                }
            }
            RaftEffect::Published => {}
        }
        Ok(())
    }

    fn role(&mut self, role: RoleChange, turn: &mut Turn<'_>) {
        self.applier.set_reads_are_local(role.reads_are_local);
        self.is_dirty = true;
        turn.out.push(Out::Note("role", role.term, role.leader & 0xffff | u64::from(role.is_leader) << 16));
        if role.is_leader && role.term != self.led_term {
            self.led_term = role.term;
            turn.out.push(Out::Count(Counted::Elected { term: role.term }));
        }
    }

    fn append(&mut self, append: Append, turn: &mut Turn<'_>) -> Result<(), Died> {
        if let Some(metadata) = append.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) {
            self.received = metadata.index();
            self.members_may_differ = true;
        }
        let is_idle = self.log_now.is_none() && self.log_jobs.is_empty() && self.inbox.is_empty();
        // Only a lone member's thread may stand still for a sync: nobody waits for its heartbeats.
        if is_idle
            && append.snapshot.is_none()
            && self.is_alone()
            && append.ready.is_multiple_of(2)
            && self.append_inline(&append)?
        {
            return self.step(turn, RaftInput::Persisted { ready: append.ready });
        }
        self.push_log(LogJob::Append(append), turn.out);
        Ok(())
    }

    fn is_alone(&self) -> bool {
        let members = self.applier.cluster().members();
        members.len() == 1 && self.applier.cluster().local().is_some()
    }

    fn apply(&mut self, committed: Committed, turn: &mut Turn<'_>) -> Result<(), Died> {
        let before = self.applier.applied().0;
        self.members_may_differ = true;
        for entry in &committed.entries {
            (turn.seen)(turn.model, entry, entry.index() > before);
        }
        let revision = self.applier.store().revision();
        let mut outcome = std::mem::take(&mut self.outcome);
        let (model, may_be_full) = (&*turn.model, self.config.quota_bytes > 0 || self.tuning.may_be_full);
        let mut watch = |applied: Applied<'_>| check_verdict(model, &applied, may_be_full);
        self.applier.apply_watched(turn.now, committed, &mut outcome, &mut watch, &mut || ())?;
        let (applied, _) = self.applier.applied();
        turn.out.push(Out::Note("applied", applied, self.applier.store().revision().cast_unsigned()));
        self.is_dirty = true;
        self.unflushed_since.get_or_insert(turn.now.mono_ns);
        for conf in outcome.conf.drain(..) {
            if conf.change.r#type() == api::raftpb::ConfChangeType::ConfChangeRemoveNode
                && conf.change.node_id() == self.applier.cluster().local_id()
            {
                self.is_removed = true;
            }
            let kind = conf.change.r#type.unwrap_or(0).unsigned_abs();
            turn.out.push(Out::Note(
                "conf change",
                conf.index,
                conf.change.node_id() & 0xffff | u64::from(kind) << 16,
            ));
            self.step(turn, RaftInput::ConfApplied(conf))?;
        }
        if outcome.cluster_changed {
            self.tell_versions(turn)?;
        }
        if outcome.auth_changed {
            self.tell_identity(turn)?;
        }
        let leases = std::mem::take(&mut outcome.leases);
        self.step(turn, RaftInput::Applied { index: outcome.index.max(before), leases })?;
        for (id, result) in outcome.replies.drain(..) {
            if let Some(to) = self.node.take_waiting(id) {
                let bytes = result.map(|reply| {
                    let mut bytes = Vec::new();
                    reply.encode(&HeaderIds::default(), &mut bytes);
                    bytes
                });
                turn.out.push(Out::Tell(to, Told::Applied(id, bytes)));
            }
        }
        self.events.append(&mut outcome.events);
        if !outcome.proposals.is_empty() {
            let proposals: Vec<Proposal> = std::mem::take(&mut outcome.proposals);
            self.step(turn, RaftInput::Propose(proposals))?;
        }
        if std::mem::take(&mut outcome.compaction_scheduled) {
            self.compaction_due = true;
        }
        if std::mem::take(&mut outcome.force_snapshot) {
            self.step(turn, RaftInput::ForceSnapshot)?;
        }
        outcome.cluster_changed = false;
        outcome.auth_changed = false;
        outcome.tokens.clear();
        outcome.index = 0;
        self.outcome = outcome;
        super::boot::check_point(&self.applier, turn.model);
        super::boot::check_hashes(&self.applier, turn.model, revision);
        self.reads_reached(turn);
        Ok(())
    }

    pub(super) fn reads_reached(&mut self, turn: &mut Turn<'_>) {
        let applied = self.applier.applied().0;
        for (index, waiting) in std::mem::take(&mut self.reads) {
            if index <= applied {
                read_ready(waiting, turn);
            } else {
                self.reads.push((index, waiting));
            }
        }
    }

    /// With auth on, leases are ended in the name of the root user.
    pub(super) fn tell_identity(&mut self, turn: &Turn<'_>) -> Result<(), Died> {
        let identity = self.applier.publish().auth.own_identity();
        self.step(turn, RaftInput::OwnIdentity(identity))
    }

    /// All members of a run speak one version.
    pub(super) fn tell_versions(&mut self, turn: &Turn<'_>) -> Result<(), Died> {
        let cluster = self.applier.cluster();
        let versions = ClusterVersions {
            cluster: cluster.version(),
            lowest_server: Some(self.config.version),
            downgrade: cluster.downgrade().target_minor(),
        };
        self.step(turn, RaftInput::Versions(versions))?;
        self.migrate_storage(turn);
        Ok(())
    }

    /// The storage version follows the cluster version. Without it a directory counts as one of 3.5, whose members
    /// are compared with the log at each start: some runs are to see that, too.
    fn migrate_storage(&mut self, turn: &Turn<'_>) {
        let Some(version) = self.applier.cluster().version().filter(|_| self.tuning.is_migrated) else {
            return;
        };
        let target = StorageVersion::from_minor(u64::from(version.major), u64::from(version.minor));
        let Some(target) = target else { return };
        let value = schema::storage_version_value(target);
        let key = bytes::Bytes::from_static(schema::STORAGE_VERSION);
        let store = self.applier.store_mut();
        if store.side(Bucket::Meta, &key) != value {
            store.set_side(Bucket::Meta, key, value);
            self.is_dirty = true;
            self.unflushed_since.get_or_insert(turn.now.mono_ns);
        }
    }

    pub(crate) fn publish(&mut self) {
        self.is_dirty = false;
        self.published = self.applier.publish();
    }

    /// Checker 9, the half that concerns raft: once it has followed all that is applied, it has the same members.
    fn check_raft_members(&mut self) {
        // Both change by entries, by conf changes that raft takes, and by snapshots.
        if !std::mem::take(&mut self.members_may_differ) {
            return;
        }
        let status = self.node.status();
        if status.applied != self.applier.applied().0 || status.applied < self.received {
            self.members_may_differ = true;
            return;
        }
        let members = self.applier.cluster().conf_state();
        ensure!(
            status.voters == members.voters && status.learners == members.learners,
            Membership,
            "at index {} raft has voters {:x?} and learners {:x?}, the members say {:x?} and {:x?}",
            status.applied,
            status.voters,
            status.learners,
            members.voters,
            members.learners
        );
    }
}

/// Checkers 3 and 7: each member, not only the one that is asked, does with a request what the model does. Only a
/// member that is full may say so of what it carries out all the same.
fn check_verdict(model: &Model, applied: &Applied<'_>, may_be_full: bool) {
    let expected = &model.entry(applied.index).expect("it was seen before").answer;
    let same = match (&applied.result, expected) {
        (Ok(_), Ok(_)) => true,
        (Err(ErrorCode::NoSpace), Ok(_)) => may_be_full,
        (Err(found), Err(expected)) => found == expected,
        _ => false,
    };
    if same {
        return;
    }
    let is_auth = |error: Option<&ErrorCode>| {
        use ErrorCode::{AuthOldRevision, PermissionDenied, UserEmpty, UserNotFound};
        error.is_some_and(|e| matches!(e, UserEmpty | UserNotFound | PermissionDenied | AuthOldRevision))
    };
    let found = applied.result.as_ref().map(|_| ()).map_err(|error| *error);
    let is_auth = is_auth(found.as_ref().err()) || is_auth(expected.as_ref().err());
    let checker = if is_auth || applied.envelope.field >= field::AUTH_ENABLE {
        Checker::Auth
    } else {
        Checker::Linearizability
    };
    let expected = expected.as_ref().map(|_| ());
    let (index, caller) = (applied.index, applied.envelope.caller);
    let (kind, body) = (applied.envelope.field, applied.envelope.body);
    fail(
        checker,
        format!(
            "entry {index} of {caller:?}, {kind} {body:x?}: a member says {found:?}, the model {expected:?}"
        ),
    );
}

fn read_ready(waiting: Vec<ReplyTo>, turn: &mut Turn<'_>) {
    turn.out.extend(waiting.into_iter().map(|to| Out::Tell(to, Told::ReadReady)));
}
