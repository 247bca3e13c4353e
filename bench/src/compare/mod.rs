//! Go etcd and ours, side by side: each workload on both in turn, round by round, each server started afresh with the
//! same command line and syncing to the same disk. What counts is the ratio within one run.
//!
//! Reading order: `rows` (what is measured and what it must show), `server` (processes and single loads), `store`
//! (memory, start, compaction, defragmentation), `report` (the table).

mod report;
mod rows;
mod server;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::rows::{ROWS, Row};
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
    let mut pairs: Vec<Pair> = ROWS
        .iter()
        .filter(|row| options.wants(row.name))
        .map(|row| Pair { row, sides: [Vec::new(), Vec::new()] })
        .collect();
    for round in 1..=options.rounds {
        for (side, binaries) in binaries.iter().enumerate() {
            if pairs.is_empty() || !options.measures(side) {
                continue;
            }
            let server = Server::start(binaries, &options.data)?;
            for pair in &mut pairs {
                let measured = server.load(pair.row.load, options.seconds)?;
                eprintln!("round {round} {:>6} {:<16} {}", binaries.label, pair.row.name, measured);
                pair.sides[side].push(measured);
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
    let text = report::write(options, &pairs, &stores);
    print!("{text}");
    match &options.write {
        Some(path) => std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display())),
        None => Ok(()),
    }
}
