//! Members of 3.4 and of ours that speak as 3.5: one cluster, in which the old ones are replaced one by one.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use harness::{Binaries, Cluster, Options, go_release, ours};

/// What a member says of itself and of the cluster.
fn version(cluster: &Cluster, i: usize) -> String {
    cluster.member(i).http("/version").map_or_else(String::new, |(_, body)| body)
}

/// Every member writes, reads what the others wrote, and renews a lease.
fn everybody_serves(cluster: &Cluster, round: &str) {
    let granted = cluster.retry(&["lease", "grant", "600"]);
    let lease = granted.split(' ').nth(1).expect("the id is the second word").to_string();
    for i in 0..cluster.len() {
        cluster.until("it writes", |cluster| cluster.ctl_on(i, &["put", &format!("/{round}/{i}"), round]).code == 0);
        for j in 0..cluster.len() {
            let read = cluster.ctl_on(j, &["get", &format!("/{round}/{i}"), "--print-value-only"]).ok();
            assert_eq!(read.trim(), round, "written through {i}, read through {j}");
        }
        let renewed = cluster.ctl_on(i, &["lease", "keep-alive", "--once", &lease]).ok();
        assert!(renewed.contains("TTL(600)"), "{round}: through {i}: {renewed}");
    }
    cluster.agree();
}

/// Every member leads once.
fn all_lead(cluster: &Cluster, round: &str) {
    for i in 0..cluster.len() {
        if cluster.leader() != i {
            cluster.retry(&["move-leader", &format!("{:x}", cluster.id(i))]);
        }
        everybody_serves(cluster, &format!("{round}/{i}"));
    }
}

/// From 3.4 to the next release, member by member: until the last one is replaced the cluster stays at 3.4.
fn upgrade(old: &Binaries, new: &Binaries, tool: &Binaries, flags: &[&str]) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = Cluster::start(&[old, old, old], scratch.path(), &[]);
    cluster.use_etcdctl(tool);
    everybody_serves(&cluster, "before");
    for i in 0..3 {
        cluster.member_mut(i).stop();
        let mut own = cluster.flags(i);
        own.extend(flags.iter().map(ToString::to_string));
        cluster.member_mut(i).swap(new, Options { flags: own, ..Options::default() });
        cluster.member_mut(i).start_again();
        let expected = if i < 2 { "\"etcdcluster\":\"3.4.0\"" } else { "\"etcdcluster\":\"3.5.0\"" };
        cluster.until("the version is what all understand", |cluster| version(cluster, i).contains(expected));
        all_lead(&cluster, &format!("replaced/{i}"));
    }
    for i in 0..3 {
        let seen = version(&cluster, i);
        assert!(seen.starts_with("{\"etcdserver\":\"3.5.35\",\"etcdcluster\":\"3.5.0\""), "{seen}");
    }
    let list = cluster.ctl(&["member", "list"]).ok();
    assert_eq!(list.matches(", started, ").count(), 3, "{list}");
}

#[test]
fn members_of_3_4_change_to_gos_3_5() {
    let (Some(old), Some(new)) = (go_release("3.4.23"), go_release("3.5.35")) else { return };
    upgrade(&old, &new, &new, &[]);
}

/// Seen with one of ours beside two of 3.4: it said who it is in an entry that came with 3.5, as Go's 3.5 does not,
/// and all members of 3.4 ended with `panic: not implemented`, at every start again.
#[test]
fn members_of_3_4_change_to_ours() {
    let (Some(old), Some(tool)) = (go_release("3.4.23"), go_release("3.5.35")) else { return };
    upgrade(&old, &ours(), &tool, &["--emulated-version=3.5"]);
}

/// The same for a cluster that is founded together.
#[test]
fn ours_and_members_of_3_4_found_a_cluster() {
    let (Some(old), Some(tool)) = (go_release("3.4.23"), go_release("3.5.35")) else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = Cluster::place(&[&old, &ours(), &old], scratch.path(), &[]);
    cluster.use_etcdctl(&tool);
    let mut flags = cluster.flags(1);
    flags.push("--emulated-version=3.5".to_owned());
    cluster.member_mut(1).set_flags(flags);
    cluster.launch();
    all_lead(&cluster, "mixed");
    for i in 0..3 {
        cluster.member_mut(i).kill();
        cluster.retry(&["put", "/away", &i.to_string()]);
        cluster.member_mut(i).start_again();
        cluster.agree();
    }
    cluster.until("the version is what all understand", |cluster| version(cluster, 1).contains("\"etcdcluster\":\"3.4.0\""));
}
