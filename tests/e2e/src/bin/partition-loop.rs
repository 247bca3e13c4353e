//! `partition-loop [--members N] [--go N] [--release V] [--rounds N] [--seed N]`: see `e2e::partitions`.

use std::process::ExitCode;

use e2e::partitions::{Fault, Plan, Report, execute, places};
use harness::{Fabric, go_release, ours};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut members, mut go, mut rounds, mut seed) = (3, 0, 50, 1);
    let mut release = "3.7.3".to_owned();
    while let Some(argument) = arguments.next() {
        let Some(value) = arguments.next() else { return usage() };
        let number = match argument.as_str() {
            "--release" => {
                release = value;
                continue;
            }
            "--members" => &mut members,
            "--go" => &mut go,
            "--rounds" => &mut rounds,
            "--seed" => &mut seed,
            _ => return usage(),
        };
        match value.parse() {
            Ok(value) => *number = value,
            Err(_) => return usage(),
        }
    }
    if members < 3 || go > members {
        return usage();
    }
    let gos = if go == 0 { None } else { go_release(&release) };
    if go > 0 && gos.is_none() {
        return ExitCode::FAILURE;
    }
    let mut rng = SmallRng::seed_from_u64(seed as u64);
    let faults = (0..rounds).map(|_| Fault::ALL[rng.random_range(0..Fault::ALL.len())]).collect();
    let (places, flags) = places(&ours(), gos.as_ref(), go, members);
    let scratch = tempfile::tempdir().expect("scratch is writable").keep();
    let plan = Plan { places, flags, faults, seed: seed as u64, scratch: scratch.clone(), verbose: true };
    let result: Option<Result<Report, String>> = Fabric::with(members, move |fabric| execute(fabric, &plan));
    match result {
        Some(Ok(report)) => {
            println!("{report:#?}");
            std::fs::remove_dir_all(&scratch).expect("scratch can be removed");
            ExitCode::SUCCESS
        }
        Some(Err(what)) => {
            println!("{what}\nleft as it is: {}", scratch.display());
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: partition-loop [--members N] [--go N] [--release V] [--rounds N] [--seed N]");
    ExitCode::from(2)
}
