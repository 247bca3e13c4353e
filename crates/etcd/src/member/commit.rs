//! The commit thread: the one writer of the database file.
//!
//! It takes one job at a time. A defragmentation is cut into steps, and between two steps whatever waits goes first,
//! so that a commit is never delayed by more than one step. Nobody waits for a commit but a snapshot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcdserver::apply::Applier;
use etcdserver::effect::LeaseChange;
use etcdserver::bootstrap::{self, StorageOptions};
use etcdserver::install;
use etcdserver::membership::Cluster;
use tokio::sync::oneshot;

use crate::member::handle::{MemberInput, Shared};
use crate::member::lines::{fields_of_end, say_defragmented, say_defragmenting};

/// What the commit thread may be asked for.
pub(crate) enum Job {
    /// Write a batch. With `force` its meta page is durable before the answer.
    Commit {
        /// The changes.
        batch: bolt::Batch,
        /// Whether the newest state must be durable, not only the one before it.
        force: bool,
    },
    /// Make the newest state durable without writing anything.
    Force,
    /// Move pages until the file is as small as it can be.
    Defragment(oneshot::Sender<Result<(), String>>),
    /// Put the database received with a snapshot in the place of this one.
    Install {
        /// Index of the snapshot.
        index: u64,
        /// The members before it.
        before: Arc<Cluster>,
    },
    /// Close the file and end.
    Close,
}

/// A received database in use, and what the member thread goes on with.
pub(crate) struct Installed {
    /// The apply lane as the file says it is.
    pub(crate) applier: Applier,
    /// What the lease clock must forget and learn.
    pub(crate) leases: Vec<LeaseChange>,
    /// Sizes of the file.
    pub(crate) sizes: bolt::Sizes,
}

/// The file after a job.
pub(crate) struct Committed {
    /// As readers see it.
    pub(crate) view: bolt::View,
    /// Its sizes.
    pub(crate) sizes: bolt::Sizes,
    /// Whether that state is durable.
    pub(crate) forced: bool,
    /// What it answers.
    pub(crate) kind: Kind,
}

/// Which job a [`Committed`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A batch.
    Batch,
    /// A force without a batch.
    Force,
    /// Moves of a defragmentation: nobody counts them.
    Moved,
}

/// How long a step of a defragmentation waits for readers to take the view after the last one, and how it looks.
/// Readers that are there take it with their next turn, which a slow disk can hold up.
const HAND_OVER: Duration = Duration::from_millis(500);
const HAND_OVER_POLL: Duration = Duration::from_micros(100);
/// After so many waits in vain somebody means to stay, and a step waits no longer than this.
const HAND_OVERS_IN_VAIN: u32 = 4;
const HAND_OVER_SHORT: Duration = Duration::from_millis(20);

struct Committer {
    shared: Arc<Shared>,
    db: bolt::Db,
    reader: bolt::Reader,
    defragments: Vec<oneshot::Sender<Result<(), String>>>,
    defragment_start: Instant,
    /// Sizes when it began.
    before: bolt::Sizes,
    /// Since when readers are asked to go over to the newest view.
    handed_over: Instant,
    /// Steps of this defragmentation before which they did not.
    in_vain: u32,
}

/// Runs until it is told to close.
pub(crate) fn run(shared: &Arc<Shared>, db: bolt::Db) {
    let reader = db.reader();
    let before = db.sizes();
    let mut committer = Committer {
        shared: shared.clone(),
        db,
        reader,
        defragments: Vec::new(),
        defragment_start: Instant::now(),
        before,
        handed_over: Instant::now(),
        in_vain: 0,
    };
    let mut jobs = Vec::new();
    loop {
        if committer.defragments.is_empty() {
            shared.commit.take_any(&mut jobs);
        } else {
            shared.commit.take(&mut jobs);
        }
        for job in jobs.drain(..) {
            match job {
                Job::Close => return committer.close(),
                Job::Install { index, before } => committer = committer.install(index, &before),
                job => committer.run_job(job),
            }
        }
        committer.defragment_step();
    }
}

impl Committer {
    /// Does one job on the file.
    fn run_job(&mut self, job: Job) {
        match job {
            Job::Commit { batch, force } => self.commit(&batch, force),
            Job::Force => {
                self.force();
                self.tell(Kind::Force, true);
            }
            Job::Defragment(done) => {
                if self.defragments.is_empty() {
                    self.defragment_start = Instant::now();
                    // Readers may still be on their way to the view after the last commit.
                    self.handed_over = Instant::now();
                    self.in_vain = 0;
                    self.shared.metrics.defrag_inflight.set(1);
                    self.before = self.db.sizes();
                    say_defragmenting(&self.shared.logger, &self.shared.core.db_path(), self.before);
                }
                self.defragments.push(done);
            }
            Job::Install { .. } | Job::Close => unreachable!("they take the file away"),
        }
    }

    /// Goes over to a database that the leader sent. Reading it into memory takes long with many keys: that is why it
    /// is done here, while the member thread ticks.
    fn install(mut self, index: u64, before: &Cluster) -> Committer {
        let start = Instant::now();
        for done in self.defragments.drain(..) {
            let _gone = done.send(Err("the database was replaced by a snapshot of the leader".into()));
        }
        let shared = self.shared.clone();
        let fail = |error: bootstrap::Error| -> ! {
            shared.logger.fatal("failed to open snapshot backend", &[("error", error.to_string().into())])
        };
        let (disk, core) = (&shared.disk, &shared.core);
        let db = match install::take_over(disk, core, &StorageOptions::default().db, self.db, index) {
            Ok(db) => db,
            Err(error) => fail(error),
        };
        let reader = db.reader();
        let (applier, leases) = match install::rebuild(reader.view(), core, before, index) {
            Ok(rebuilt) => rebuilt,
            Err(error) => fail(error),
        };
        let sizes = db.sizes();
        shared.logger.info(
            "restored from a snapshot of the leader",
            &[("snapshot-index", index.into()), ("took", start.elapsed().into())],
        );
        shared.member.push(MemberInput::Installed(Box::new(Installed { applier, leases, sizes })));
        Committer { shared, db, reader, defragments: Vec::new(), before: sizes, in_vain: 0, ..self }
    }

    /// Writes a batch. Without room nothing is written, and the member is told: it raises the alarm and makes another
    /// batch of it, with what was applied since. Any other failure ends the process: what a failed write or sync left
    /// behind cannot be known.
    fn commit(&mut self, batch: &bolt::Batch, force: bool) {
        let start = Instant::now();
        let mut built_at = start;
        match self.db.commit_watched(batch, &mut || built_at = Instant::now()) {
            Ok(_) => {
                self.shared.metrics.backend_build.observe(built_at - start);
                self.shared.metrics.backend_write.observe(built_at.elapsed());
            }
            Err(error @ bolt::Error::NoSpace { .. }) => {
                return self.shared.member.push(MemberInput::NoRoom(error.to_string()));
            }
            Err(error) => self.fail("failed to commit backend", &error),
        }
        if force {
            self.force();
        }
        self.shared.metrics.backend_commit.observe(start.elapsed());
        self.tell(Kind::Batch, force);
    }

    fn force(&mut self) {
        if let Err(error) = self.db.force() {
            self.fail("failed to sync backend", &error);
        }
    }

    fn tell(&self, kind: Kind, forced: bool) {
        let committed =
            Committed { view: self.reader.view(), sizes: self.db.sizes(), forced, kind };
        self.shared.member.push(MemberInput::Committed(committed));
    }

    /// One step, once readers have let go of the pages that the last one left: only then is there room to move
    /// others to, and an end of the file to cut. A view that stays (a snapshot under way) is waited for only briefly;
    /// what it holds back is cut with later commits.
    fn defragment_step(&mut self) {
        if self.defragments.is_empty() {
            return;
        }
        if self.db.is_held_back() {
            let patience = if self.in_vain < HAND_OVERS_IN_VAIN { HAND_OVER } else { HAND_OVER_SHORT };
            if self.handed_over.elapsed() < patience {
                std::thread::sleep(HAND_OVER_POLL);
                return;
            }
            self.in_vain += 1;
        }
        let result = match self.db.defragment_step() {
            Ok(progress) if progress.done => Ok(()),
            Ok(_) => {
                self.handed_over = Instant::now();
                return self.tell(Kind::Moved, false);
            }
            Err(error @ bolt::Error::NoSpace { .. }) => Err(error.to_string()),
            Err(error) => self.fail("failed to defragment backend", &error),
        };
        self.shared.metrics.defrag_inflight.set(0);
        let took = self.defragment_start.elapsed();
        self.shared.metrics.backend_defrag.observe(took);
        let (path, after) = (self.shared.core.db_path(), self.db.sizes());
        say_defragmented(&self.shared.logger, &path, self.before, after, took);
        self.tell(Kind::Moved, false);
        for done in self.defragments.drain(..) {
            // A client that is gone does not need the answer.
            let _gone = done.send(result.clone());
        }
    }

    fn close(mut self) {
        self.force();
        for done in self.defragments.drain(..) {
            let _gone = done.send(Err("etcdserver: server stopped".into()));
        }
        if let Err(error) = self.db.close() {
            self.shared.logger.error("failed to close backend", &[("error", error.to_string().into())]);
        }
    }

    fn fail(&self, what: &str, error: &bolt::Error) -> ! {
        self.shared.logger.fatal(what, &fields_of_end(error, error.is_no_space()))
    }
}
