//! A server that is killed again and again under load, and everything it must have kept.
//!
//! One thread carries the load (`writers.rs`) and the watch (`watcher.rs`); the calling thread kills, restarts and
//! checks (`verify.rs`). What both know is the [`World`] (`world.rs`).
//!
//! After every restart, before anybody writes: the revision is not behind anything that was seen, all keys, leases
//! and their keys are read. Then, while the load goes on: the watch has delivered every revision, every revision has
//! a cause, every acknowledged operation is one, reads at old revisions, hashes and a second watch agree.

mod verify;
mod watcher;
mod world;
mod writers;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Binaries, Member, Options, run};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::ledger::Counts;
use crate::rpc::Link;
use world::World;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many `kill -9`.
    pub kills: u64,
    /// Chooses operations, keys, moments.
    pub seed: u64,
    /// The program under test.
    pub ours: Binaries,
    /// Go's program, which then takes every other turn on the same directory.
    pub go: Option<Binaries>,
    /// bbolt's tool, to check the file after each kill.
    pub bbolt: Option<PathBuf>,
    /// An existing folder for the data and the log.
    pub scratch: PathBuf,
    /// Whether to say on standard error how far it is.
    pub verbose: bool,
}

/// What was done, all of it checked.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Processes ended by `kill -9`.
    pub kills: u64,
    /// Of these, while starting.
    pub kills_at_start: u64,
    /// Ended by SIGTERM.
    pub terms: u64,
    /// Paused by SIGSTOP and continued.
    pub pauses: u64,
    /// Restarts that were checked.
    pub restarts: u64,
    /// Turns of Go's program.
    pub go_turns: u64,
    /// Operations.
    pub counts: Counts,
    /// Revisions that the watch delivered.
    pub revisions: i64,
    /// Reads compared with the history.
    pub reads: u64,
    /// Hashes compared over a restart.
    pub hashes: u64,
    /// Compactions acknowledged.
    pub compactions: u64,
    /// Leases looked up after restarts.
    pub leases: u64,
    /// Defragmentations and snapshots asked for.
    pub chores: u64,
    /// Runs of `bbolt check`.
    pub file_checks: u64,
}

const FLAGS: &[&str] = &["--snapshot-count=400", "--snapshot-catchup-entries=50", "--log-level=warn"];

/// Runs a plan.
///
/// # Errors
/// The first thing that does not fit, with the number of the restart after which it was found.
pub fn execute(plan: &Plan) -> Result<Report, String> {
    let dir = plan.scratch.join("member");
    let flags = FLAGS.iter().map(ToString::to_string).collect();
    let options = Options { flags, ..Options::default() };
    let member = Member::start(&plan.ours, &dir, options.clone());
    let world = World::new();
    let load = {
        let (world, seed) = (world.clone(), plan.seed);
        std::thread::spawn(move || runtime().block_on(writers::run(world, seed)))
    };
    let mut killer = Killer {
        plan,
        options,
        member,
        world: world.clone(),
        rng: SmallRng::seed_from_u64(plan.seed),
        report: Report::default(),
    };
    let result = runtime().block_on(killer.run());
    world.finish();
    load.join().map_err(|_| "the load panicked")?;
    result.map_err(|what| format!("after restart {}, seed {}: {what}", killer.report.restarts, plan.seed))?;
    killer.report.counts = world.ledger.lock().counts();
    killer.report.revisions = world.history.lock().last();
    Ok(killer.report)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

struct Killer<'a> {
    plan: &'a Plan,
    options: Options,
    member: Member,
    world: std::sync::Arc<World>,
    rng: SmallRng,
    report: Report,
}

impl Killer<'_> {
    async fn run(&mut self) -> Result<(), String> {
        self.served().await?;
        while self.report.kills < self.plan.kills {
            self.pause_of(20..350).await;
            if self.rng.random_ratio(3, 10) {
                self.report.pauses += 1;
                self.member.signal(libc::SIGSTOP);
                self.pause_of(30..500).await;
                // Half of the paused are killed asleep.
                if self.rng.random() {
                    self.member.signal(libc::SIGCONT);
                    self.pause_of(0..100).await;
                }
            }
            self.end_process();
            self.check_file(&self.plan.scratch.join("member"))?;
            self.choose_program();
            if self.rng.random_ratio(15, 100) && self.report.kills < self.plan.kills {
                self.member.launch();
                self.pause_of(0..120).await;
                self.member.kill();
                self.report.kills += 1;
                self.report.kills_at_start += 1;
            }
            self.member.start_again();
            self.served().await?;
            if self.plan.verbose {
                let (kills, revision) = (self.report.kills, self.world.history.lock().last());
                eprintln!("{kills} of {} kills, revision {revision}", self.plan.kills);
            }
        }
        self.pause_of(100..300).await;
        self.last_look().await
    }

    async fn pause_of(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(millis))).await;
    }

    fn end_process(&mut self) {
        if self.rng.random_ratio(1, 8) {
            self.member.signal(libc::SIGCONT);
            self.member.stop();
            self.report.terms += 1;
        } else {
            self.member.kill();
            self.report.kills += 1;
        }
        self.world.down();
    }

    fn choose_program(&mut self) {
        let Some(go) = &self.plan.go else { return };
        let next = if self.world.is_go() { &self.plan.ours } else { go };
        self.world.set_go(!self.world.is_go());
        self.report.go_turns += u64::from(self.world.is_go());
        self.member.swap(next, self.options.clone());
    }

    fn check_file(&mut self, dir: &Path) -> Result<(), String> {
        let Some(bbolt) = &self.plan.bbolt else { return Ok(()) };
        self.report.file_checks += 1;
        let output = run(bbolt, &["check", &dir.join("member/snap/db").display().to_string()]);
        if output.code == 0 && output.stdout.trim() == "OK" {
            return Ok(());
        }
        Err(format!("bbolt check: {}{}", output.stdout, output.stderr))
    }

    /// The server serves: looks at what it kept, lets the load go on, compares.
    async fn served(&mut self) -> Result<(), String> {
        self.report.restarts += 1;
        let link = Link::new(&self.member.client_url());
        let look = verify::Look::take(&link, &self.world).await?;
        let cut = self.world.up(self.member.client_url());
        self.report.leases += look.leases_seen();
        verify::compare(&link, &self.world, &look, cut, &mut self.rng).await?;
        self.world.release_compaction();
        self.collect();
        Ok(())
    }

    fn collect(&mut self) {
        let tallies = self.world.tallies();
        self.report.reads = tallies.reads;
        self.report.hashes = tallies.hashes;
        self.report.compactions = tallies.compactions;
        self.report.chores = tallies.chores;
    }

    /// The load ends; the hash of all is the same after a stop and after a kill, with either program.
    async fn last_look(&mut self) -> Result<(), String> {
        self.world.hold_compaction();
        self.world.down();
        // What was sent before still happens: this time the process lives.
        self.pause_of(300..400).await;
        let start = Instant::now();
        let link = Link::new(&self.member.client_url());
        let before = verify::hash(&link, 0).await?;
        for step in 0..4 {
            if step % 2 == 0 {
                self.member.stop();
            } else {
                self.member.kill();
            }
            self.check_file(&self.plan.scratch.join("member"))?;
            self.choose_program();
            self.member.start_again();
            let link = Link::new(&self.member.client_url());
            let after = verify::hash(&link, before.0).await?;
            if after != before {
                return Err(format!("hash (revision, compacted, hash) was {before:?}, is {after:?}"));
            }
        }
        let link = Link::new(&self.member.client_url());
        let look = verify::Look::take(&link, &self.world).await?;
        let cut = self.world.up(self.member.client_url());
        verify::compare(&link, &self.world, &look, cut, &mut self.rng).await?;
        self.collect();
        if self.plan.verbose {
            eprintln!("last look took {:?}", start.elapsed());
        }
        Ok(())
    }
}
