//! Groups of cases, and the runner that takes them to both servers.
//!
//! Invariants:
//! - A group of [`Group::fresh`] has a member for itself, at revision 1. Groups of [`Group::shared`] run one after
//!   the other on one member: each reads the revision it starts from and keeps to keys of its own.
//! - A case that differs, panics or takes too long ends with one line in the list, and the next case goes on.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::{Binaries, go_release, ours};
use tokio::runtime::Runtime;

use super::answer::{Difference, Outcome};
use super::target::{Side, Target};

/// Members that are in use at the same time.
const LANES: usize = 4;
/// Longest run of one case.
const CASE_LIMIT: Duration = Duration::from_secs(90);

trait Body: Send + Sync {
    fn run<'a>(&'a self, target: &'a Target) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;
}

impl<F: AsyncFn(&Target) -> Outcome + Send + Sync> Body for F {
    fn run<'a>(&'a self, target: &'a Target) -> Pin<Box<dyn Future<Output = Outcome> + 'a>> {
        Box::pin(self(target))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fixture {
    Fresh,
    Shared,
}

struct Case {
    ids: Vec<&'static str>,
    body: Box<dyn Body>,
}

/// Cases that stand on the same data, in order.
pub struct Group {
    name: &'static str,
    fixture: Fixture,
    flags: Vec<String>,
    setup: Option<Box<dyn Body>>,
    cases: Vec<Case>,
}

impl Group {
    fn new(name: &'static str, fixture: Fixture) -> Group {
        Group { name, fixture, flags: Vec::new(), setup: None, cases: Vec::new() }
    }

    /// On a member of its own.
    #[must_use]
    pub fn fresh(name: &'static str) -> Group {
        Group::new(name, Fixture::Fresh)
    }

    /// On the member that all such groups share, with keys of its own.
    #[must_use]
    pub fn shared(name: &'static str) -> Group {
        Group::new(name, Fixture::Shared)
    }

    /// More flags for the member.
    ///
    /// Panics on a shared group.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Group {
        assert!(self.fixture == Fixture::Fresh, "the shared member has no flags");
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// What comes before the cases.
    #[must_use]
    pub fn setup(mut self, body: impl AsyncFn(&Target) -> Outcome + Send + Sync + 'static) -> Group {
        self.setup = Some(Box::new(body));
        self
    }

    /// A case by its number.
    #[must_use]
    pub fn case(
        self,
        id: &'static str,
        body: impl AsyncFn(&Target) -> Outcome + Send + Sync + 'static,
    ) -> Group {
        self.cases(&[id], body)
    }

    /// Several cases that one script covers, because they share a stream.
    #[must_use]
    pub fn cases(
        mut self,
        ids: &[&'static str],
        body: impl AsyncFn(&Target) -> Outcome + Send + Sync + 'static,
    ) -> Group {
        self.cases.push(Case { ids: ids.to_vec(), body: Box::new(body) });
        self
    }

    fn ids(&self) -> impl Iterator<Item = &'static str> {
        self.cases.iter().flat_map(|case| case.ids.iter().copied())
    }
}

/// All groups of one table.
pub struct Suite {
    name: &'static str,
    groups: Vec<Group>,
}

/// What all lanes add to.
#[derive(Default)]
struct Report {
    run: [usize; 2],
    differences: Vec<String>,
    times: Vec<(Duration, String)>,
}

struct Lane<'a> {
    side: Side,
    binaries: Arc<Binaries>,
    groups: Vec<&'a Group>,
}

impl Suite {
    /// The groups of a table.
    #[must_use]
    pub fn new(name: &'static str, groups: Vec<Group>) -> Suite {
        Suite { name, groups }
    }

    /// The numbers of all its cases.
    #[must_use]
    pub fn ids(&self) -> Vec<&'static str> {
        self.groups.iter().flat_map(Group::ids).collect()
    }

    /// Runs every case on Go 3.7.3 and on ours.
    ///
    /// Panics with the list of all differences.
    pub fn run(&self) {
        let started = Instant::now();
        let lanes = Mutex::new(self.lanes());
        let report = Mutex::new(Report::default());
        std::thread::scope(|scope| {
            for _ in 0..LANES {
                scope.spawn(|| {
                    loop {
                        // Not `while let`: that would hold the lock while the lane runs.
                        let Some(lane) = locked(&lanes).pop_front() else { break };
                        run_lane(&lane, &report);
                    }
                });
            }
        });
        let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.finish(report, started.elapsed());
    }

    /// What is to run: the shared members first, for they take longest; then both servers in turn.
    fn lanes(&self) -> VecDeque<Lane<'_>> {
        let only = std::env::var("MAINSTAY_CASES").unwrap_or_default();
        let only: Vec<&str> = only.split(',').filter(|id| !id.is_empty()).collect();
        let wanted = |group: &&Group| only.is_empty() || group.ids().any(|id| only.contains(&id));
        let groups: Vec<&Group> = self.groups.iter().filter(wanted).collect();
        let servers = servers();
        let mut lanes = VecDeque::new();
        let shared: Vec<&Group> =
            groups.iter().copied().filter(|group| group.fixture == Fixture::Shared).collect();
        if !shared.is_empty() {
            for (side, binaries) in &servers {
                lanes.push_back(Lane { side: *side, binaries: Arc::clone(binaries), groups: shared.clone() });
            }
        }
        for group in groups.into_iter().filter(|group| group.fixture == Fixture::Fresh) {
            for (side, binaries) in &servers {
                lanes.push_back(Lane { side: *side, binaries: Arc::clone(binaries), groups: vec![group] });
            }
        }
        lanes
    }

    fn finish(&self, mut report: Report, took: Duration) {
        let [go, ours] = report.run;
        let differ = report.differences.len();
        println!(
            "{}: {go} cases on go, {ours} on ours, {differ} differ, {:.1} s",
            self.name,
            took.as_secs_f64()
        );
        if std::env::var_os("MAINSTAY_TIMES").is_some() {
            report.times.sort();
            for (took, what) in report.times.iter().rev() {
                println!("  {:6.2} s {what}", took.as_secs_f64());
            }
        }
        report.differences.sort();
        assert!(report.differences.is_empty(), "{}:\n{}", self.name, report.differences.join("\n"));
    }
}

fn servers() -> Vec<(Side, Arc<Binaries>)> {
    let only = std::env::var("MAINSTAY_SERVER").unwrap_or_default();
    let mut servers = Vec::new();
    if only != "ours" {
        servers.extend(go_release("3.7.3").map(|binaries| (Side::Go, Arc::new(binaries))));
    }
    if only != "go" {
        servers.push((Side::Ours, Arc::new(ours())));
    }
    servers
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs groups on one member. A member that does not start is one line for each group.
fn run_lane(lane: &Lane<'_>, report: &Mutex<Report>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let flags = lane.groups.first().map(|group| group.flags.as_slice()).unwrap_or_default();
    let started =
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(Target::start(lane.side, &lane.binaries, flags))));
    match started {
        Ok(target) => lane.groups.iter().for_each(|group| run_group(group, &target, &runtime, report)),
        Err(panic) => {
            let why = panic_text(panic.as_ref());
            let lines = lane.groups.iter().map(|group| format!("{} {}: {why}", group.name, lane.side));
            locked(report).differences.extend(lines);
        }
    }
}

fn run_group(group: &Group, target: &Target, runtime: &Runtime, report: &Mutex<Report>) {
    let started = Instant::now();
    let side = target.side();
    let setup = group.setup.as_ref().map_or(Ok(()), |body| run_body(body.as_ref(), target, runtime));
    if let Err(difference) = setup {
        locked(report).differences.push(format!("{} {side}, set-up: {difference}", group.name));
        return;
    }
    for case in &group.cases {
        let outcome = run_body(case.body.as_ref(), target, runtime);
        let mut report = locked(report);
        report.run[side as usize] += case.ids.len();
        if let Err(difference) = outcome {
            report.differences.push(format!("{} {side}: {difference}", case.ids.join("+")));
        }
    }
    locked(report).times.push((started.elapsed(), format!("{} {side}", group.name)));
}

fn run_body(body: &dyn Body, target: &Target, runtime: &Runtime) -> Outcome {
    let run = || runtime.block_on(async { tokio::time::timeout(CASE_LIMIT, body.run(target)).await });
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Difference(format!("not done after {CASE_LIMIT:?}"))),
        Err(panic) => Err(Difference(format!("panicked: {}", panic_text(panic.as_ref())))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "without words".into())
}

/// Checks that a suite covers a table: every number of the table is either a case, or stands in `not_here` with the
/// reason, and no number stands twice.
///
/// Panics with the numbers for which this is not so.
pub fn covers(suite: &Suite, table: &str, not_here: &[(&str, &str)]) {
    let table: BTreeSet<&str> = table.split_whitespace().collect();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    let ids = suite.ids();
    let all = ids.iter().copied().chain(not_here.iter().map(|(id, _)| *id));
    for id in all {
        if !seen.insert(id) {
            wrong.push(format!("{id} stands twice"));
        }
        if !table.contains(id) {
            wrong.push(format!("{id} is not in the table"));
        }
    }
    wrong.extend(table.difference(&seen).map(|id| format!("{id} is neither a case nor excused")));
    assert!(wrong.is_empty(), "{}:\n{}", suite.name, wrong.join("\n"));
}
