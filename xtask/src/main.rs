//! The project's own chores, as `cargo xtask VERB`. It has no dependencies, so that it is there in seconds.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "chores run on the developer's machine"
)]

mod dist;
mod peers;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use shell::{Cmd, Result};

const USAGE: &str = "\
usage: cargo xtask VERB

  test             build everything and run every test
  tidy [--record]  house rules: crate graph, file heads, sizes, words; --record lowers the recorded sizes
  codegen          crates/api/proto -> crates/api/src/gen
  peers [VERSION]  build the Go releases that tests compare with, outside the tree
  bench [ARGS]     build our programs and the load generator, compare with Go etcd, write docs/bench.md;
                   with arguments (see `cargo xtask bench --help`) only what they say
  sim [ARGS]       the simulator: --seed N, --seeds A..B, --mutants, --mutant NAME --seed N
  dist             the release tarball, in target/dist
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let done = match (verb.as_str(), rest.as_slice()) {
        ("test", []) => test::run(),
        ("tidy", []) => tidy::run(false),
        ("tidy", [flag]) if flag == "--record" => tidy::run(true),
        ("codegen", []) => Cmd::cargo(["run", "--package", "codegen"]).run(),
        ("peers", versions) => peers::run(versions),
        ("bench", arguments) => bench(arguments),
        ("sim", arguments) => sim(arguments),
        ("dist", []) => dist::run(),
        ("help" | "--help" | "-h", _) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {verb}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whole clusters from seeds. Bugs on purpose are compiled in only where they are asked for.
fn sim(arguments: &[String]) -> Result<()> {
    let is_about_mutants = arguments.iter().any(|argument| argument.starts_with("--mutant"));
    let features: &[&str] = if is_about_mutants { &["--features", "mutants"] } else { &[] };
    Cmd::cargo(["run", "--profile", "sim", "--package", "sim"])
        .args(features)
        .args(["--"])
        .args(arguments)
        .run()
}

/// The comparison starts our release programs and Go's: both have to be there.
fn bench(arguments: &[String]) -> Result<()> {
    Cmd::cargo(["build", "--release", "--bins"]).run()?;
    peers::ensure("3.7.3")?;
    let compare = Cmd::cargo(["run", "--release", "--package", "bench", "--", "compare"]);
    if arguments.is_empty() {
        compare.args(["--write", "docs/bench.md"]).run()
    } else {
        compare.args(arguments).run()
    }
}
