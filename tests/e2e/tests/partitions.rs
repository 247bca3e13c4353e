//! Members that are cut off from each other, one way or both, paused and killed, under load. The command
//! `partition-loop` does it for longer, and at random.

// Trials run beside each other.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::time::Duration;

use e2e::partitions::{Fault, Plan, Report, execute, places};
use harness::{Fabric, go_release, ours, ran_in_a_namespace};

/// Longest time until a cluster with a quorum goes on: clients give up after 1.5 s, some after a member has.
const STALL_MAX: Duration = Duration::from_secs(20);

fn trial(release: Option<&str>, go: usize, members: usize, faults: &[Fault], seed: u64) -> Option<Report> {
    let gos = match release {
        Some(version) => Some(go_release(version)?),
        None => None,
    };
    let (places, flags) = places(&ours(), gos.as_ref(), go, members);
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let (path, faults) = (scratch.path().to_path_buf(), faults.to_vec());
    let plan = Plan { places, flags, faults, seed, scratch: path, verbose: false };
    let report = Fabric::with(members, move |fabric| execute(fabric, &plan))?;
    let report = report.unwrap_or_else(|what| {
        let kept = scratch.keep();
        panic!("{release:?}, {go} of {members} are Go's: {what}\nleft as it is: {}", kept.display());
    });
    println!("{release:?}, {go} of {members} are Go's: {report:#?}");
    assert!(report.counts.acknowledged > 200, "hardly any load: {report:?}");
    assert!(report.reads > 50 && report.renewals > 20, "hardly anything compared: {report:?}");
    assert!(report.leaderless > 0, "no watch was told that there is no leader: {report:?}");
    assert!(report.longest_stall < STALL_MAX, "{report:?}");
    assert!(go > 0 || report.early_with_go == 0, "{report:?}");
    Some(report)
}

/// Trials beside each other; all of them end before one that failed fails the test.
fn together(trials: Vec<Box<dyn FnOnce() + Send>>) {
    let trials: Vec<_> = trials.into_iter().map(std::thread::spawn).collect();
    let ended: Vec<_> = trials.into_iter().map(std::thread::JoinHandle::join).collect();
    assert!(ended.iter().all(Result::is_ok), "see above");
}

#[test]
fn three_and_five_members_lose_nothing() {
    if ran_in_a_namespace() {
        return;
    }
    let three = || {
        if let Some(report) = trial(None, 0, 3, Fault::ALL, 1) {
            assert!(report.snapshots > 0, "nobody was far behind: {report:?}");
        }
    };
    let faults = [
        Fault::Minority,
        Fault::LeaderAlone,
        Fault::Bridge,
        Fault::LeaderDeaf,
        Fault::LeaderKilled,
        Fault::FollowerMute,
        Fault::Shattered,
        Fault::LeaderPaused,
    ];
    let five = move || drop(trial(None, 0, 5, &faults, 2));
    together(vec![Box::new(three), Box::new(five)]);
}

/// Beside Go's members of each release, which are two of three and one of three; each leads when it is cut off.
#[test]
fn members_beside_gos_lose_nothing() {
    if ran_in_a_namespace() {
        return;
    }
    let faults = [
        Fault::LeaderAlone,
        Fault::LeaderPaused,
        Fault::LeaderKilled,
        Fault::FollowerAlone,
        Fault::LeaderDeaf,
        Fault::LeaderAlone,
        Fault::FollowerMute,
    ];
    let mut trials: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for (nth, release) in ["3.7.3", "3.6.16", "3.5.35"].into_iter().enumerate() {
        for go in [1, 2] {
            trials.push(Box::new(move || drop(trial(Some(release), go, 3, &faults, (10 * nth + go) as u64))));
        }
    }
    together(trials);
}
