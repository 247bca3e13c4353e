//! Clusters whose members are cut off from each other, paused and killed under load, and everything that must hold.
//!
//! One thread carries the load (`clients.rs`) and the watches (`watchers.rs`); the calling thread makes faults
//! (`faults.rs`), waits for what must go on meanwhile, and checks at the end (`finish.rs`). What both know is the
//! [`World`] (`world.rs`). Clients reach every member at any time: it is the members that do not reach each other.
//!
//! What must hold: with a quorum writes go on, through each member of it; without one nothing is acknowledged;
//! whatever was acknowledged is in the history, at its revision and after everything that had been seen before; every
//! watch has every revision once, whole, in order, also those that had to move to another member; no lease ends while
//! it is renewed; in the end all members hold the same.

mod clients;
mod faults;
mod finish;
mod watchers;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use harness::{Binaries, Cluster, Fabric};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use faults::Fault;
use faults::Effect;
use world::{CLIENTS_PER_MEMBER, World};

use crate::ledger::Counts;
use crate::rpc::Link;

/// One member to be.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its program.
    pub binaries: Binaries,
    /// Flags for it alone.
    pub flags: Vec<String>,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The members.
    pub places: Vec<Place>,
    /// Flags for all of them.
    pub flags: Vec<String>,
    /// What happens to them, one after the other.
    pub faults: Vec<Fault>,
    /// Chooses operations, members, moments.
    pub seed: u64,
    /// An existing folder for the data and the logs.
    pub scratch: PathBuf,
    /// Whether to say on standard error how far it is.
    pub verbose: bool,
}

/// What was done, all of it checked.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Faults, by name.
    pub faults: BTreeMap<String, u64>,
    /// Operations.
    pub counts: Counts,
    /// Requests that ended without saying what became of them, by code and text.
    pub doubts: BTreeMap<String, u64>,
    /// Revisions there were; each watch delivered them all.
    pub revisions: i64,
    /// Watches.
    pub watches: u64,
    /// How often a watch was ended because its member had no leader.
    pub leaderless: u64,
    /// Watches that went on through another member.
    pub moves: u64,
    /// Reads compared with the history.
    pub reads: u64,
    /// Renewals of leases.
    pub renewals: u64,
    /// Leases that could not be renewed in time.
    pub lapses: u64,
    /// Leases that ended early after a member of Go's was paused, which is known of Go.
    pub early_with_go: u64,
    /// Hashes of revisions compared over all members.
    pub hashes: u64,
    /// Snapshots of the database that members took from others.
    pub snapshots: u64,
    /// Faults of a follower after which another leader or another term was there.
    pub disturbed: u64,
    /// The longest time from a fault until every member with a quorum answered again.
    pub longest_stall: Duration,
    /// The longest time from the end of a fault until every member answered again.
    pub longest_heal: Duration,
    /// Time over all.
    pub elapsed: Duration,
}

/// Logs are kept short, so that members that were away for seconds need a snapshot.
const SNAPSHOT_COUNT: &str = "--snapshot-count=200";
const CATCH_UP: &str = "--snapshot-catchup-entries=50";
/// As 3.5 calls it.
const CATCH_UP_OF_3_5: &str = "--experimental-snapshot-catchup-entries=50";

/// Members of which the first `go` are of a Go release, and the flags of all. Beside 3.5 and 3.6 ours speak as those do.
pub fn places(ours: &Binaries, gos: Option<&Binaries>, go: usize, members: usize) -> (Vec<Place>, Vec<String>) {
    let release = gos.map_or("", |gos| gos.label.as_str());
    let emulated = match release.split('.').take(2).collect::<Vec<_>>().join(".") {
        minor if minor == "3.5" || minor == "3.6" => vec![format!("--emulated-version={minor}")],
        _ => Vec::new(),
    };
    let of_ours = Place { binaries: ours.clone(), flags: emulated };
    let of_go = gos.map(|gos| Place { binaries: gos.clone(), flags: Vec::new() });
    let places = (0..members).map(|i| of_go.as_ref().filter(|_| i < go).unwrap_or(&of_ours).clone()).collect();
    let catch_up = if release.starts_with("3.5") { CATCH_UP_OF_3_5 } else { CATCH_UP };
    (places, vec![SNAPSHOT_COUNT.to_owned(), catch_up.to_owned(), "--log-level=info".to_owned()])
}

/// Longest wait for what must go on, or go on again.
const LIMIT: Duration = Duration::from_secs(30);
/// How long nobody has a quorum.
const SHATTERED: Duration = Duration::from_secs(4);
/// How long the first fault lasts once the others go on: watches on members without a leader hear of it meanwhile.
const FIRST: Duration = Duration::from_secs(5);

/// Runs a plan on a network that has a room for each member.
///
/// # Errors
/// The first thing that does not fit, with the fault before it.
pub fn execute(fabric: &Fabric, plan: &Plan) -> Result<Report, String> {
    let start = Instant::now();
    let releases: Vec<&Binaries> = plan.places.iter().map(|place| &place.binaries).collect();
    let flags: Vec<&str> = plan.flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::place_on(fabric, &releases, &plan.scratch, &flags);
    for (i, place) in plan.places.iter().enumerate() {
        let flags = [cluster.flags(i), place.flags.clone()].concat();
        cluster.member_mut(i).set_flags(flags);
    }
    cluster.launch();
    let world = World::new(&cluster, &releases);
    let load = {
        let (world, seed) = (world.clone(), plan.seed);
        std::thread::spawn(move || runtime().block_on(clients::run(world, seed)))
    };
    let mut trial = Trial {
        fabric,
        plan,
        cluster,
        world: world.clone(),
        rng: SmallRng::seed_from_u64(plan.seed),
        report: Report::default(),
        last: [Duration::ZERO; 2],
        runtime: runtime(),
    };
    let result = trial.all();
    world.stop_clients();
    world.stop_watches();
    load.join().map_err(|_| "the load panicked")?;
    result.map_err(|what| format!("seed {}, faults so far {:?}: {what}", plan.seed, trial.report.faults))?;
    let mut report = trial.report;
    world.tell(&mut report);
    report.snapshots = (0..releases.len()).map(|i| trial.cluster.member(i).log().matches("applied snapshot").count() as u64).sum();
    report.elapsed = start.elapsed();
    Ok(report)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
}

struct Trial<'a> {
    fabric: &'a Fabric,
    plan: &'a Plan,
    cluster: Cluster,
    world: Arc<World>,
    rng: SmallRng,
    report: Report,
    /// How long it took in the last round until those with a quorum answered again, and in the end everybody.
    last: [Duration; 2],
    runtime: tokio::runtime::Runtime,
}

impl Trial<'_> {
    fn all(&mut self) -> Result<(), String> {
        let everybody: Vec<usize> = (0..self.cluster.len()).collect();
        self.goes_on(&everybody).map_err(|what| format!("at first: {what}"))?;
        for (nth, fault) in self.plan.faults.iter().enumerate() {
            *self.report.faults.entry(format!("{fault:?}")).or_default() += 1;
            let leader = self.lead(nth);
            let term = self.cluster.field(leader, "RaftTerm");
            let effect = fault.effect(self.cluster.len(), leader, &mut self.rng);
            self.round(&effect, nth).map_err(|what| format!("{fault:?}, led by {leader}: {what}"))?;
            if fault.is_of_follower() {
                let is_same = self.cluster.leader() == leader && self.cluster.field(leader, "RaftTerm") == term;
                self.report.disturbed += u64::from(!is_same);
            }
            if self.plan.verbose {
                let (revision, last) = (self.world.book.history.lock().last(), self.last);
                eprintln!("{} of {}: {fault:?}, led by {leader}: {last:.1?}, revision {revision}", nth + 1, self.plan.faults.len());
            }
        }
        self.world.stop_clients();
        self.runtime.block_on(finish::check(&self.world, &mut self.report, &mut self.rng))
    }

    /// Has the members lead in turns, as far as that goes; says who leads.
    fn lead(&mut self, nth: usize) -> usize {
        let (leader, next) = (self.cluster.leader(), nth % self.cluster.len());
        if leader == next {
            return leader;
        }
        let id = format!("{:x}", self.cluster.id(next));
        // If not, then another time.
        drop(self.cluster.ctl(&["move-leader", &id]));
        self.cluster.leader()
    }

    fn round(&mut self, effect: &Effect, nth: usize) -> Result<(), String> {
        self.last = [Duration::ZERO; 2];
        self.fabric.cut(&effect.cuts);
        self.world.leave_alone(&effect.alone, nth + 1);
        if let Some(i) = effect.paused {
            self.world.note_pause(i);
            self.cluster.member(i).signal(libc::SIGSTOP);
        }
        if let Some(i) = effect.killed {
            self.cluster.member_mut(i).kill();
        }
        if effect.whole.is_empty() {
            std::thread::sleep(SHATTERED);
        } else {
            let stall = self.goes_on(&effect.whole).map_err(|what| format!("with a quorum: {what}"))?;
            self.last[0] = stall;
            self.report.longest_stall = self.report.longest_stall.max(stall);
            let more = Duration::from_millis(self.rng.random_range(300..2_500));
            std::thread::sleep(if nth == 0 { FIRST } else { more });
        }
        for i in &effect.alone {
            self.still_reads(*i)?;
        }
        // First they may be answered again, then they are heard.
        self.world.leave_alone(&[], 0);
        self.fabric.heal();
        if let Some(i) = effect.paused {
            self.cluster.member(i).signal(libc::SIGCONT);
        }
        if let Some(i) = effect.killed {
            self.cluster.member_mut(i).launch();
        }
        let everybody: Vec<usize> = (0..self.cluster.len()).collect();
        let heal = self.goes_on(&everybody).map_err(|what| format!("afterwards: {what}"))?;
        self.last[1] = heal;
        self.report.longest_heal = self.report.longest_heal.max(heal);
        Ok(())
    }

    /// Waits until clients of each of these members were answered by a quorum, all of whose requests began after now;
    /// how long that took.
    fn goes_on(&self, members: &[usize]) -> Result<Duration, String> {
        let start = Instant::now();
        let before: Vec<u64> = members.iter().map(|i| self.world.answers(*i)).collect();
        loop {
            self.world.book.failure()?;
            // One more than can have been under way.
            let is_back = |(i, before): (&usize, &u64)| self.world.answers(*i) > before + CLIENTS_PER_MEMBER;
            let late: Vec<usize> = members.iter().zip(&before).filter(|pair| !is_back(*pair)).map(|(i, _)| *i).collect();
            if late.is_empty() {
                return Ok(start.elapsed());
            }
            if start.elapsed() > LIMIT {
                return Err(format!("members {late:?} of {members:?} do not serve within {LIMIT:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whoever has no quorum still answers from what it has.
    fn still_reads(&self, i: usize) -> Result<(), String> {
        let request = pb::RangeRequest { key: "a/01".into(), serializable: true, ..pb::RangeRequest::default() };
        let url = self.world.urls[i].clone();
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), Link::new(&url).call(request)).await
        });
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(format!("a serializable read of {i}: {status}")),
            Err(_) => Err(format!("a serializable read of {i} is not answered")),
        }
    }
}
