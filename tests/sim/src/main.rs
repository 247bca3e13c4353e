//! The simulator's command line: `sim --seed N`, `sim --seeds A..B`, `sim --mutants`.

#![allow(clippy::disallowed_methods, reason = "how long a run takes is for whoever waits for it")]

use std::process::ExitCode;
use std::time::Instant;

use sim::{Counts, Report};

const USAGE: &str = "\
usage: sim [--mutant NAME] --seed N        one run, with the last events if a checker finds something
       sim [--mutant NAME] --seeds A..B    the runs of all seeds from A up to, not including, B
       sim --mutants [--limit N]           every bug on purpose, and within how many seeds (of N, 300) it is found
";

/// Runs of which each of these must have happened at least once.
const FLOOR_RUNS: u64 = 100;
/// Seeds in which a bug on purpose must be found.
#[cfg(feature = "mutants")]
const MUTANT_SEEDS: u64 = 300;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["--mutant", name, ..] = words[..] {
        if !choose(name) {
            eprintln!("sim: there is no mutant {name:?} (they need a build with the feature `mutants`)");
            return ExitCode::from(2);
        }
        words.drain(..2);
    }
    match words[..] {
        ["--seed", seed] => seed.parse().map_or_else(|_| usage(), one),
        ["--seeds", range] => match range.split_once("..").map(|(a, b)| (a.parse(), b.parse())) {
            Some((Ok(from), Ok(to))) => many(from, to),
            _ => usage(),
        },
        #[cfg(feature = "mutants")]
        ["--mutants"] => mutants(MUTANT_SEEDS),
        #[cfg(feature = "mutants")]
        ["--mutants", "--limit", limit] => limit.parse().map_or_else(|_| usage(), mutants),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}

#[cfg(feature = "mutants")]
fn choose(name: &str) -> bool {
    sim::choose_mutant(name)
}

#[cfg(not(feature = "mutants"))]
fn choose(_: &str) -> bool {
    false
}

fn one(seed: u64) -> ExitCode {
    println!("seed {seed}: {}", sim::Settings::of(seed));
    let began = Instant::now();
    let report = sim::run(seed);
    println!("{} ({} ms)", shown(&report.counts), began.elapsed().as_millis());
    let Some(failure) = &report.failure else { return ExitCode::SUCCESS };
    println!("{}", report.last_events);
    println!("seed {seed}: checker {}: {}", failure.checker, failure.text);
    println!("replay it with: cargo xtask sim --seed {seed}");
    ExitCode::from(failure.checker.exit_code())
}

fn many(from: u64, to: u64) -> ExitCode {
    sim::quiet();
    let began = Instant::now();
    let mut sum = Counts::default();
    let mut failed = 0;
    let mut last = ExitCode::SUCCESS;
    for seed in from..to {
        let report: Report = sim::run(seed);
        sum = sum.plus(&report.counts);
        if let Some(failure) = &report.failure {
            failed += 1;
            last = ExitCode::from(failure.checker.exit_code());
            println!("seed {seed}: checker {}: {:.600}", failure.checker, failure.text);
        }
    }
    let runs = to.saturating_sub(from);
    println!("{runs} seeds, {failed} failed, {} s: {}", began.elapsed().as_secs(), shown(&sum));
    let is_varied = [
        sum.elections,
        sum.crashes,
        sum.snapshots,
        sum.installs,
        sum.member_changes,
        sum.denied,
        sum.full_disks,
    ]
    .iter()
    .all(|count| *count > 0);
    if runs >= FLOOR_RUNS && !is_varied {
        println!("checker floor: something that must happen in {FLOOR_RUNS} runs did not");
        return ExitCode::from(sim::Checker::Floor.exit_code());
    }
    last
}

/// Runs every bug on purpose until it is found.
#[cfg(feature = "mutants")]
fn mutants(limit: u64) -> ExitCode {
    sim::quiet();
    let mut missed = 0;
    for name in sim::mutants() {
        sim::choose_mutant(name);
        let began = Instant::now();
        let found = (1..=limit).find_map(|seed| sim::run(seed).failure.map(|failure| (seed, failure)));
        let seconds = began.elapsed().as_secs();
        match found {
            Some((seed, failure)) => {
                let text: String = failure.text.chars().take(100).collect();
                println!("{name}: found within {seed} seeds by {} ({seconds} s): {text}", failure.checker);
            }
            None => {
                missed += 1;
                println!("{name}: NOT FOUND within {limit} seeds ({seconds} s)");
            }
        }
    }
    sim::choose_mutant("");
    println!("{missed} not found");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn shown(counts: &Counts) -> String {
    format!("{counts:?}").trim_start_matches("Counts ").to_owned()
}
