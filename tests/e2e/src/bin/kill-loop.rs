//! `kill-loop [--kills N] [--seed N] [--with-go]`: see `e2e::kill_loop`.

use std::process::ExitCode;

use e2e::kill_loop::{Plan, execute};
use harness::{go_release, ours};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut kills, mut seed, mut with_go) = (100, 1, false);
    while let Some(argument) = arguments.next() {
        let number = match argument.as_str() {
            "--with-go" => {
                with_go = true;
                continue;
            }
            "--kills" => &mut kills,
            "--seed" => &mut seed,
            _ => return usage(),
        };
        match arguments.next().and_then(|value| value.parse().ok()) {
            Some(value) => *number = value,
            None => return usage(),
        }
    }
    let released = go_release("3.7.3");
    let bbolt = released.as_ref().and_then(|go| go.bbolt.clone());
    let go = if with_go { released } else { None };
    if with_go && go.is_none() {
        return ExitCode::FAILURE;
    }
    let scratch = tempfile::tempdir().expect("scratch is writable").keep();
    let plan = Plan { kills, seed, ours: ours(), go, bbolt, scratch: scratch.clone(), verbose: true };
    match execute(&plan) {
        Ok(report) => {
            println!("{report:#?}");
            std::fs::remove_dir_all(&scratch).expect("scratch can be removed");
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("{what}\nleft as it is: {}", scratch.display());
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: kill-loop [--kills N] [--seed N] [--with-go]");
    ExitCode::from(2)
}
