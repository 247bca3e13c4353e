//! An entry that takes long to apply stops no heartbeat.

// It is watched how long a deletion takes.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use harness::{Binaries, Cluster, ours, run_with_input};

const KEYS: usize = 400_000;
const PER_TXN: usize = 20_000;

/// In one transaction each, many keys of a common prefix.
fn fill(etcdctl: &Path, endpoint: &str) {
    for first in (0..KEYS).step_by(PER_TXN) {
        let mut script = String::from("\n");
        for key in first..first + PER_TXN {
            let _ = writeln!(script, "put /many/{key:07} x");
        }
        script.push_str("\n\n");
        run_with_input(etcdctl, &[&format!("--endpoints={endpoint}"), "--command-timeout=30s", "txn"], &script).ok();
    }
}

/// Known from etcd: a deletion of a million keys is applied in one piece. Where raft waits for it, nobody hears of the
/// leader for that time, and an election follows, whose winner has the same deletion to apply.
#[test]
fn a_large_deletion_costs_nobody_the_leader() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let ours = ours();
    let releases: [&Binaries; 3] = [&ours, &ours, &ours];
    let flags = ["--max-txn-ops=100000", "--heartbeat-interval=50", "--election-timeout=400"];
    let cluster = Cluster::start(&releases, scratch.path(), &flags);
    let leader = cluster.leader();
    fill(&ours.etcdctl, &cluster.member(leader).endpoint());
    let leader = cluster.leader();
    let term = cluster.field(leader, "RaftTerm");
    let from = Instant::now();
    let deleted = cluster.ctl_on(leader, &["del", "/many/", "--prefix", "--command-timeout=60s"]).ok();
    println!("{KEYS} keys deleted in {:?}", from.elapsed());
    assert_eq!(deleted.trim(), KEYS.to_string());
    cluster.agree();
    assert_eq!(cluster.leader(), leader);
    for i in 0..3 {
        assert_eq!(cluster.field(i, "RaftTerm"), term, "member {i} saw an election");
    }
}
