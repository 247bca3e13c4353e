//! The simulator's command line: `sim --seed N`, `sim --seeds A..B`.

#![allow(clippy::disallowed_methods, reason = "how long a run takes is for whoever waits for it")]

use std::process::ExitCode;
use std::time::Instant;

use sim::{Counts, Report};

const USAGE: &str = "\
usage: sim --seed N          one run
       sim --seeds A..B      the runs of all seeds from A up to, not including, B
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--seed", seed] => match seed.parse() {
            Ok(seed) => one(seed),
            Err(_) => usage(),
        },
        ["--seeds", range] => match range.split_once("..").map(|(a, b)| (a.parse(), b.parse())) {
            Some((Ok(from), Ok(to))) => many(from, to),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}

fn one(seed: u64) -> ExitCode {
    println!("settings: {}", sim::Settings::of(seed));
    let began = Instant::now();
    let report = sim::run(seed);
    println!("{} ({} ms)", shown(&report.counts), began.elapsed().as_millis());
    finding(&report)
}

fn finding(report: &Report) -> ExitCode {
    let Some(failure) = &report.failure else { return ExitCode::SUCCESS };
    println!("{}", report.last_events);
    println!("seed {}: checker {}: {}", report.settings.seed, failure.checker, failure.text);
    println!("settings: {}", report.settings);
    ExitCode::from(failure.checker.exit_code())
}

fn many(from: u64, to: u64) -> ExitCode {
    sim::quiet();
    let began = Instant::now();
    let mut sum = Counts::default();
    let mut failed = 0;
    for seed in from..to {
        let report = sim::run(seed);
        sum = sum.plus(&report.counts);
        if let Some(failure) = &report.failure {
            failed += 1;
            println!("seed {seed}: checker {}: {:.600}", failure.checker, failure.text);
        }
    }
    println!("{} seeds, {failed} failed, {} s: {}", to.saturating_sub(from), began.elapsed().as_secs(), shown(&sum));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn shown(counts: &Counts) -> String {
    format!("{counts:?}").trim_start_matches("Counts ").to_owned()
}
