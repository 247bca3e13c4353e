//! A whole cluster in one loop from one seed: the production lanes of every member, a disk that loses what was not
//! synced, a network that loses, delays, doubles and parts, clients, watchers and an operator, and checkers that
//! compare all of it with a pure model.
//!
//! Reading order: `settings.rs` (what a seed picks), `world.rs` and `world/run.rs` (the loop), `member.rs` and
//! `member/turn.rs` (one member's lanes), `model.rs` (what should happen), `world/requests.rs`, `world/watchers.rs`,
//! `world/history.rs`, `world/finish.rs` (checkers), `docs/simulator.md` (how to use it).

mod failure;
mod member;
mod model;
mod random;
mod settings;
mod trace;
mod world;

use std::panic::{self, AssertUnwindSafe};

pub use failure::{Checker, Failure};
pub use settings::Settings;
pub use world::Counts;

/// A tenth of the time goes into memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the seed picked.
    pub settings: Settings,
    /// What happened.
    pub counts: Counts,
    /// What a checker found, if any did.
    pub failure: Option<Failure>,
    /// The last events, if a checker found something.
    pub last_events: String,
}

/// Requests of clients that a run must have made to count.
pub const OPERATIONS_MIN: u64 = 2_000;
/// Ticks that it must have lasted.
pub const TICKS_MIN: u64 = 5_000;

/// Runs a seed to its end, or to the first finding.
pub fn run(seed: u64) -> Report {
    run_with(Settings::of(seed))
}

/// As [`run`], with other settings than the seed's own.
pub fn run_with(settings: Settings) -> Report {
    let mut world = world::World::new(settings.clone());
    let ended = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut failure = ended.err().map(|payload| match payload.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Failure { checker: Checker::Product, text: text.unwrap_or_default() }
        }
    });
    let counts = world.counts;
    if failure.is_none() && (counts.operations < OPERATIONS_MIN || counts.ticks < TICKS_MIN) {
        let text = format!("{} requests in {} ticks are too few", counts.operations, counts.ticks);
        failure = Some(Failure { checker: Checker::Floor, text });
    }
    let last_events = if failure.is_some() { world.trace.lines() } else { String::new() };
    Report { settings, counts, failure, last_events }
}

/// All bugs on purpose, by name.
#[cfg(feature = "mutants")]
pub fn mutants() -> Vec<&'static str> {
    [etcdserver::mutant::NAMES, mvcc::mutant::NAMES, wal::mutant::NAMES].concat()
}

/// Turns one of them on, for the whole process; false when there is none of that name. An empty name turns all off.
#[cfg(feature = "mutants")]
pub fn choose_mutant(name: &str) -> bool {
    etcdserver::mutant::choose(name);
    mvcc::mutant::choose(name);
    wal::mutant::choose(name);
    name.is_empty() || mutants().contains(&name)
}

/// Keeps the product's assertions from printing themselves: they are reported with their seed.
pub fn quiet() {
    panic::set_hook(Box::new(|_| ()));
}
