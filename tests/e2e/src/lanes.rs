//! A member's real lanes on one thread, over any disk: the same values travel between them as in the process, and
//! every failure ends where the process would end.
//!
//! Invariants, the same as those of the process:
//! - Appends are written in order; one that finds no room is tried again before any other.
//! - A batch that finds no room is taken back; the next one holds all of it, and may use the reserve.
//! - A snapshot that finds no room is tried again; everything else goes on.
//! - Any other failure of log or database ends the member: [`Ended`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::Status;
use bolt::Reserve;
use bytes::Bytes;
use disk::Disk;
use etcdserver::apply::reply::Reply;
use etcdserver::apply::{Applier, Settings, alarm};
use etcdserver::bootstrap::{self, StorageOptions};
use etcdserver::effect::{
    Append, ClusterVersions, Committed, Outcome, Proposal, RaftEffect, RaftInput, ReplyTo,
};
use etcdserver::now::{MILLISECOND, Now};
use etcdserver::raft::Node;
use etcdserver::snapshot::{self, LocalSnapshot};
use etcdserver::Config;
use mvcc::schema::{self, Bucket, StorageVersion};
use mvcc::{CompactionProgress, View};

/// Why the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended(pub String);

impl<E: std::error::Error> From<E> for Ended {
    fn from(error: E) -> Ended {
        Ended(error.to_string())
    }
}

/// Changes after which a batch goes to the file.
const FLUSH_OPS: usize = 10;
/// Revisions of one step of a compaction.
const COMPACTION_STEP: usize = 4;
/// Turns after which a call counts as unanswered.
const TURNS_MAX: u32 = 400;

/// A member.
pub struct Lanes {
    disk: Arc<dyn Disk>,
    config: Config,
    member_id: u64,
    node: Node,
    applier: Applier,
    wal: wal::Wal,
    db: bolt::Db,
    reader: bolt::Reader,
    now: Now,
    outcome: Outcome,
    appends: VecDeque<Append>,
    /// A batch found no room, and none has reached the file since.
    pub is_refused: bool,
    /// Deletions of a compaction in one batch.
    deletes_max: usize,
    /// The disk is slow: nothing is committed.
    pub commits_wait: bool,
    frozen_at: (u64, u64),
    snapshot_due: bool,
    postponed: Option<LocalSnapshot>,
    nospace_raised: bool,
    answers: BTreeMap<u32, Result<Reply, Status>>,
    calls: u32,
    /// How often something found no room.
    pub no_room: u64,
    /// Batches that left some of a compaction for later.
    pub bits: u64,
    /// Snapshots that were recorded.
    pub snapshots: u64,
}

impl Lanes {
    /// Opens the directory and waits until the member leads.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(disk: Arc<dyn Disk>, config: Config, segment_bytes: u64) -> Result<Lanes, Ended> {
        let wal = wal::Options { segment_bytes, ..wal::Options::default() };
        Lanes::start_with(disk, config, &StorageOptions { wal, ..StorageOptions::default() })
    }

    /// As [`Lanes::start`], with all of the options.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start_with(disk: Arc<dyn Disk>, config: Config, options: &StorageOptions) -> Result<Lanes, Ended> {
        let recovered = bootstrap::bootstrap(&disk, &config, options)?;
        let now = Now { mono_ns: 1_000 * MILLISECOND, wall_ns: 1_700_000_000_000 * MILLISECOND };
        let settings = Settings::new(&config);
        let applier = Applier::new(settings, recovered.store, recovered.attachments, recovered.cluster)?;
        let node = Node::new(&config, recovered.start, now)?;
        let mut lanes = Lanes {
            member_id: recovered.report.member_id,
            frozen_at: applier.applied(),
            reader: recovered.db.reader(),
            wal: recovered.wal,
            db: recovered.db,
            disk,
            config,
            node,
            applier,
            now,
            outcome: Outcome::default(),
            appends: VecDeque::new(),
            is_refused: false,
            deletes_max: usize::MAX,
            commits_wait: false,
            snapshot_due: false,
            postponed: None,
            nospace_raised: false,
            answers: BTreeMap::new(),
            calls: 0,
            no_room: 0,
            bits: 0,
            snapshots: 0,
        };
        lanes.tell_versions()?;
        lanes.flush(true)?;
        for _ in 0..TURNS_MAX {
            if lanes.node.reads_are_local() {
                return Ok(lanes);
            }
            lanes.turn()?;
        }
        Err(Ended("no leader".into()))
    }

    /// Sends a request through the log: `field` is its number in `InternalRaftRequest`. `None` is no answer.
    ///
    /// # Errors
    /// The process ended.
    pub fn call(&mut self, field: u32, body: Vec<u8>) -> Result<Option<Result<Reply, Status>>, Ended> {
        self.calls += 1;
        let stream = self.calls;
        let reply_to = Some(ReplyTo { thread: 0, connection: 1, stream });
        let proposal = Proposal { reply_to, identity: None, field, body: body.into() };
        self.step(RaftInput::Propose(vec![proposal]))?;
        for _ in 0..TURNS_MAX {
            self.turn()?;
            if let Some(answer) = self.answers.remove(&stream) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// What readers see.
    pub fn view(&self) -> View {
        self.applier.store().view()
    }

    /// Leases that are there.
    pub fn leases(&self) -> usize {
        self.applier.leases().len()
    }

    /// Whether an alarm of this kind is raised.
    pub fn has_alarm(&self, kind: i32) -> bool {
        self.applier.publish().alarms.any(kind)
    }

    /// Whether a compaction is under way.
    pub fn is_compacting(&self) -> bool {
        self.applier.store().is_compacting()
    }

    /// Whether something is applied and not in the file.
    pub fn is_unflushed(&self) -> bool {
        self.applier.store().unflushed_ops() > 0
    }

    /// The database, for checks.
    pub fn db(&self) -> &bolt::Db {
        &self.db
    }

    /// Lets `turns` turns pass.
    ///
    /// # Errors
    /// The process ended.
    pub fn idle(&mut self, turns: u32) -> Result<(), Ended> {
        (0..turns).try_for_each(|_| self.turn())
    }

    /// Moves pages until the file is as small as it can be.
    ///
    /// # Errors
    /// The process ended.
    pub fn defragment(&mut self) -> Result<(), Ended> {
        loop {
            match self.db.defragment_step() {
                Ok(progress) => {
                    self.applier.store_mut().moved(self.reader.view());
                    if progress.done {
                        return Ok(());
                    }
                }
                Err(bolt::Error::NoSpace { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The orderly end: everything is in the file, durably.
    ///
    /// # Errors
    /// The process ended before that.
    pub fn stop(mut self) -> Result<(), Ended> {
        self.settle()?;
        self.flush(true)?;
        self.db.force()?;
        self.db.close()?;
        Ok(())
    }

    fn step(&mut self, input: RaftInput) -> Result<(), Ended> {
        Ok(self.node.step(self.now, input)?)
    }

    fn turn(&mut self) -> Result<(), Ended> {
        self.now = self.now.plus(20 * MILLISECOND);
        if self.now.mono_ns >= self.node.next_wakeup_ns() {
            self.step(RaftInput::Tick)?;
        }
        self.settle()?;
        if self.applier.store().is_compacting() {
            match self.applier.store_mut().compaction_step(COMPACTION_STEP)? {
                CompactionProgress::Finished(_) | CompactionProgress::Working | CompactionProgress::Idle => {}
            }
        }
        self.flush(false)?;
        self.record_snapshot()?;
        self.settle()
    }

    fn settle(&mut self) -> Result<(), Ended> {
        let mut effects = Vec::new();
        loop {
            self.write_appends()?;
            self.node.drain(&mut effects);
            if effects.is_empty() {
                return Ok(());
            }
            for effect in effects.drain(..) {
                self.effect(effect)?;
            }
        }
    }

    fn effect(&mut self, effect: RaftEffect) -> Result<(), Ended> {
        match effect {
            RaftEffect::Append(append) => self.appends.push_back(append),
            RaftEffect::Apply(committed) => self.apply(committed)?,
            RaftEffect::Role(role) => self.applier.set_reads_are_local(role.reads_are_local),
            RaftEffect::SnapshotDue { .. } => self.snapshot_due |= self.postponed.is_none(),
            RaftEffect::Refused(refused) => {
                self.answers.extend(refused.into_iter().map(|(to, status)| (to.stream, Err(status))));
            }
            // A lone member has nobody to talk to, and these tests neither read through raft nor renew.
            _ => {}
        }
        Ok(())
    }

    fn apply(&mut self, committed: Committed) -> Result<(), Ended> {
        let mut outcome = std::mem::take(&mut self.outcome);
        self.applier.apply(self.now, committed, &mut outcome)?;
        for conf in outcome.conf.drain(..) {
            self.step(RaftInput::ConfApplied(conf))?;
        }
        if std::mem::take(&mut outcome.cluster_changed) {
            self.tell_versions()?;
        }
        let leases = std::mem::take(&mut outcome.leases);
        self.step(RaftInput::Applied { index: outcome.index, leases })?;
        for (id, answer) in outcome.replies.drain(..) {
            if let Some(to) = self.node.take_waiting(id) {
                self.answers.insert(to.stream, answer);
            }
        }
        let proposals = std::mem::take(&mut outcome.proposals);
        if !proposals.is_empty() {
            self.step(RaftInput::Propose(proposals))?;
        }
        self.outcome = Outcome::default();
        Ok(())
    }

    fn tell_versions(&mut self) -> Result<(), Ended> {
        let cluster = self.applier.cluster();
        let versions = ClusterVersions {
            cluster: cluster.version(),
            lowest_server: Some(self.config.version),
            downgrade: cluster.downgrade().target_minor(),
        };
        self.step(RaftInput::Versions(versions))?;
        let agreed = versions.cluster;
        let target = agreed.and_then(|v| StorageVersion::from_minor(u64::from(v.major), u64::from(v.minor)));
        if let Some(target) = target {
            let key = Bytes::from_static(schema::STORAGE_VERSION);
            self.applier.store_mut().set_side(Bucket::Meta, key, schema::storage_version_value(target));
        }
        Ok(())
    }

    /// The log lane.
    fn write_appends(&mut self) -> Result<(), Ended> {
        while let Some(append) = self.appends.pop_front() {
            let written = match self.wal.write(&append.entries, append.hard_state.as_ref()) {
                Ok(written) => written,
                Err(wal::Error::NoSpace(_)) => {
                    self.appends.push_front(append);
                    return self.no_space();
                }
                Err(error) => return Err(error.into()),
            };
            if written.needs_sync || append.must_sync {
                self.wal.sync()?;
            }
            self.wal.cut_if_full()?;
            if let Some(mut job) = self.wal.prepare_next() {
                loop {
                    match job.step() {
                        Ok(true) => {}
                        Ok(false) | Err(wal::Error::NoSpace(_)) => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            self.step(RaftInput::Persisted { ready: append.ready })?;
        }
        Ok(())
    }

    /// The commit lane.
    fn flush(&mut self, now: bool) -> Result<(), Ended> {
        let store = self.applier.store_mut();
        let is_due = now || self.snapshot_due || self.is_refused || store.unflushed_ops() >= FLUSH_OPS;
        if !is_due || self.commits_wait {
            return Ok(());
        }
        store.limit_deletes(self.deletes_max);
        if let Some(mut batch) = store.freeze_all() {
            self.frozen_at = self.applier.applied();
            if self.is_refused {
                batch.reserve = batch.reserve.max(Reserve::Most);
            }
            match self.db.commit(&batch) {
                Ok(_) => self.committed(),
                Err(error @ bolt::Error::NoSpace { .. }) => return self.refused(batch.reserve, &error),
                Err(error) => return Err(error.into()),
            }
        }
        if std::mem::take(&mut self.snapshot_due) {
            self.db.force()?;
            let (index, term) = self.frozen_at;
            self.postponed = Some(LocalSnapshot::new(self.applier.cluster(), index, term));
        }
        Ok(())
    }

    fn committed(&mut self) {
        let store = self.applier.store_mut();
        store.committed(self.reader.view());
        let some_wait = self.deletes_max < usize::MAX && store.unflushed_ops() > 0;
        self.bits += u64::from(some_wait);
        self.deletes_max = if some_wait { 2 * self.deletes_max.max(8) } else { usize::MAX };
        self.is_refused = false;
        self.nospace_raised = false;
    }

    fn refused(&mut self, reserve: Reserve, error: &bolt::Error) -> Result<(), Ended> {
        let carried = self.applier.store_mut().take_back();
        if reserve != Reserve::Keep && carried > 0 {
            self.deletes_max = carried / 8;
        }
        self.is_refused = true;
        assert!(error.is_no_space(), "{error}");
        self.no_space()
    }

    fn record_snapshot(&mut self) -> Result<(), Ended> {
        let Some(local) = self.postponed.take() else { return Ok(()) };
        match snapshot::save(&*self.disk, &self.config.snap_dir(), &mut self.wal, &local) {
            Ok(()) => {
                self.snapshots += 1;
                self.step(RaftInput::SnapshotSaved { index: local.index })
            }
            Err(wal::Error::NoSpace(_)) => {
                self.postponed = Some(local);
                self.no_space()
            }
            Err(error) => Err(error.into()),
        }
    }

    fn no_space(&mut self) -> Result<(), Ended> {
        self.no_room += 1;
        if std::mem::replace(&mut self.nospace_raised, true) {
            return Ok(());
        }
        self.step(RaftInput::Propose(vec![alarm::no_space_proposal(self.member_id)]))
    }
}
