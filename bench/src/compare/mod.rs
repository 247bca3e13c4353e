//! Go etcd and ours, side by side: each workload on both in turn, round by round, each server started afresh with the
//! same command line and syncing to the same disk. What counts is the ratio within one run.
//!
//! Reading order: `rows` (what is measured and what it must show), `server` (processes and single loads), `store`
//! (memory, start, compaction, defragmentation), `cluster` (three members), `report` (the table).

mod cluster;
mod report;
mod rows;
mod server;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use harness::Binaries;

use self::cluster::Three;
use self::rows::{CLUSTER_ROWS, ROWS, Row};
use self::server::{Measured, Result, Server};

/// How to compare.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Rounds: each row is run so often on each server, and medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds per row and round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only rows whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only this server: go or ours
    #[arg(long)]
    side: Option<String>,
    /// Leave out the rows about a large store
    #[arg(long)]
    no_store: bool,
    /// How often the leader of three members is killed
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Keys in the large store
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Seconds before memory is read
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// Where data directories go; on the disk that is to be measured
    #[arg(long, default_value = "target/bench-data")]
    data: PathBuf,
    /// Write the report to this file too
    #[arg(long)]
    write: Option<PathBuf>,
}

impl Options {
    fn measures(&self, side: usize) -> bool {
        self.side.as_ref().is_none_or(|wanted| wanted == ["go", "ours"][side])
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

/// What was measured of one row: first Go, then ours, one value per round.
struct Pair {
    row: &'static Row,
    sides: [Vec<Measured>; 2],
}

pub(crate) fn run(options: &Options) -> ExitCode {
    match compare(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<()> {
    let go = harness::go_release("3.7.3").ok_or("Go etcd 3.7.3 is missing: run `cargo xtask peers`")?;
    let binaries = [go, harness::ours()];
    let pairs = measure_rows(options, &binaries, ROWS, |binaries| {
        let server = Server::start(binaries, &options.data)?;
        Ok(move |load: &str| server.load(load, options.seconds))
    })?;
    let cluster_pairs = measure_rows(options, &binaries, CLUSTER_ROWS, |binaries| {
        let three = Three::start(binaries, options)?;
        Ok(move |load: &str| three.load(load, options.seconds))
    })?;
    let mut leaderless = Vec::new();
    if options.wants("leaderless") {
        for (side, server) in binaries.iter().enumerate() {
            if options.measures(side) {
                // The same client asks both.
                let passed = Three::start(server, options)?.leaderless(options.kills, &binaries[1])?;
                eprintln!("leaderless {:>6} {passed:.0?} ms", server.label);
                leaderless.push(passed);
            }
        }
    }
    let mut stores = Vec::new();
    if !options.no_store && options.wants("store") {
        for (side, binaries) in binaries.iter().enumerate() {
            if options.measures(side) {
                stores.push(store::measure(binaries, options)?);
            }
        }
    }
    let text = report::write(options, &pairs, &stores, &cluster_pairs, &leaderless);
    print!("{text}");
    match &options.write {
        Some(path) => std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display())),
        None => Ok(()),
    }
}

/// All rows that are wanted, round by round, on both in turn. `start` gives what runs a load on a server just started,
/// which ends with it.
fn measure_rows<F: Fn(&str) -> Result<Measured>>(
    options: &Options,
    binaries: &[Binaries],
    rows: &'static [Row],
    start: impl Fn(&Binaries) -> Result<F>,
) -> Result<Vec<Pair>> {
    let wanted = rows.iter().filter(|row| options.wants(row.name));
    let mut pairs: Vec<Pair> = wanted.map(|row| Pair { row, sides: [Vec::new(), Vec::new()] }).collect();
    for round in 1..=options.rounds {
        for (side, binaries) in binaries.iter().enumerate() {
            if pairs.is_empty() || !options.measures(side) {
                continue;
            }
            let load = start(binaries)?;
            for pair in &mut pairs {
                let measured = load(pair.row.load)?;
                eprintln!("round {round} {:>6} {:<16} {}", binaries.label, pair.row.name, measured);
                pair.sides[side].push(measured);
            }
        }
    }
    Ok(pairs)
}
