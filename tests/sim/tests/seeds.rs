//! The simulator in every test run: seeds that stay, a few that are new each time, and the same run twice.
#![allow(clippy::disallowed_methods, reason = "new seeds come from the clock; what they lead to does not")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Seeds that once failed, each with its story. What a seed leads to changes with the product's behaviour: the rule
/// that a story is about has a test or a mutant of its own.
const STORIES: &[(u64, &str)] = &[
    (
        4,
        "reconciling a directory with a 3.5 past replayed membership changes without the rules: a learner that had \
         been refused, one too many, was a member after the restart",
    ),
    (
        9,
        "a revoke that waited for a leadership transfer to end was still there when the member led again, two terms \
         later, and ended a lease that had been renewed meanwhile",
    ),
    (
        17,
        "verify took the head of a log whose first segments were purged for damage: commit index behind the end",
    ),
    (
        110,
        "the leader of two removed itself with more entries in its log than the other, and stepped down before the \
         other knew that the removal was committed: it needed a vote that it could not get any more",
    ),
    (143, "after a failed sync the page cache holds what the disk does not: the machine has to go, too"),
    (212, "the same with a segment in between: the chain of checksums broke"),
    (
        3,
        "with a full log, and with the power going before a bare commit index was synced, the database was ahead of the \
         commit index in the log: the snapshot record written after the next start did not count, and those that did \
         were purged with their segments",
    ),
    (
        229,
        "a lone voter with a learner led a term that was not durable, and sent entries of it; after a power cut it led \
         the same term once more, with other entries, which the learner took for those that it had",
    ),
    (
        1715,
        "a member whose log waited for room had taken a snapshot and was sent several more; the purge removed the database \
         of the one it had taken",
    ),
    (9038, "a leader elected again with its own removal still uncommitted went on proposing behind it"),
];

/// Settings that others do not have: one member, seven, no faults, no pre-vote, directories of 3.5.
const FIXED: &[u64] = &[1, 2, 6, 29, 50];

/// New seeds of each run.
const NEW: u64 = 2;

fn check(seeds: impl Iterator<Item = u64>) {
    sim::quiet();
    let mut sum = sim::Counts::default();
    for seed in seeds {
        let report = sim::run(seed);
        if let Some(failure) = &report.failure {
            // The hook is quiet: say it here.
            eprintln!("{}", report.last_events);
            eprintln!("seed {seed}: checker {}: {}", failure.checker, failure.text);
            eprintln!("replay it with: cargo xtask sim --seed {seed}");
            std::process::exit(i32::from(failure.checker.exit_code()));
        }
        sum = sum.plus(&report.counts);
    }
    println!("{sum:?}");
}

#[test]
fn seeds_with_a_story_stay_clean() {
    check(STORIES.iter().map(|(seed, _)| *seed));
}

#[test]
fn fixed_seeds_are_clean() {
    check(FIXED.iter().copied());
}

#[test]
fn new_seeds_are_clean() {
    let from = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    check(from..from + NEW);
}

/// Everything that happens is part of the hash, with its time.
#[test]
fn the_same_seed_is_the_same_run() {
    sim::quiet();
    let [first, again] = [(); 2].map(|()| sim::run(5));
    assert_eq!(first.counts, again.counts);
    assert_ne!(first.counts.trace, sim::run(6).counts.trace);
}
