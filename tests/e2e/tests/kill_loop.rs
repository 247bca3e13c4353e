//! Ten `kill -9` under load, and two more programs on one directory. The command `kill-loop` does it for longer.

use e2e::kill_loop::{Plan, Report, execute};
use harness::{go_release, ours};

fn ten_kills(seed: u64, with_go: bool) -> Option<Report> {
    let go = go_release("3.7.3");
    if with_go && go.is_none() {
        return None;
    }
    let bbolt = go.as_ref().and_then(|go| go.bbolt.clone());
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let go = if with_go { go } else { None };
    let plan =
        Plan { kills: 10, seed, ours: ours(), go, bbolt, scratch: scratch.path().into(), verbose: false };
    let report = execute(&plan).unwrap_or_else(|what| {
        let kept = scratch.keep();
        panic!("{what}\nleft as it is: {}", kept.display());
    });
    println!("{report:#?}");
    assert!(report.counts.acknowledged > 100, "hardly any load: {report:?}");
    assert!(report.reads > 20 && report.compactions > 0, "hardly anything compared: {report:?}");
    Some(report)
}

#[test]
fn ten_kills_lose_nothing() {
    ten_kills(1, false);
}

#[test]
fn ten_kills_with_go_in_turns_lose_nothing() {
    if let Some(report) = ten_kills(2, true) {
        assert!(report.go_turns > 2, "{report:?}");
    }
}
