//! Auth that was turned on through Go's members, in a cluster in which ours lead.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use harness::{Cluster, go_release, ours};

const ROOT: &str = "--user=root:secret";

/// Found by the simulator: a leader of ours ended leases in nobody's name. With auth on every member then refused the
/// revoke of a lease that had keys, and the lease never ended.
#[test]
fn leases_end_under_a_leader_of_ours() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = Cluster::start(&[&go, &ours(), &go], scratch.path(), &[]);
    let leader = cluster.leader();
    let id = cluster.id(1);
    if leader != 1 {
        cluster.ctl_on(leader, &["move-leader", &format!("{id:x}")]).ok();
    }
    let rights = [["user", "add", "root:secret"].as_slice(), &["user", "grant-role", "root", "root"], &["auth", "enable"]];
    for arguments in rights {
        cluster.ctl_on(0, arguments).ok();
    }
    let a_lease_ends = |cluster: &Cluster, key: &str| {
        let granted = cluster.ctl_on(0, &[ROOT, "lease", "grant", "3"]).ok();
        let lease = granted.split(' ').nth(1).expect("the id is the second word");
        cluster.ctl_on(0, &[ROOT, "put", key, "v", &format!("--lease={lease}")]).ok();
        cluster.until("the lease ends", |cluster| {
            let left = cluster.ctl_on(2, &[ROOT, "get", key, "--count-only", "--write-out=fields"]).ok();
            left.contains("\"Count\" : 0")
        });
        let status = cluster.ctl_on(0, &[ROOT, "endpoint", "status", "--write-out=fields"]).ok();
        assert!(status.contains(&format!("\"Leader\" : {id}\n")), "it is ours that leads: {status}");
    };
    a_lease_ends(&cluster, "first");
    // What it knows from its log and its database.
    cluster.member_mut(1).kill();
    cluster.member_mut(1).start_again();
    cluster.until("ours leads again", |cluster| {
        [0, 2].iter().any(|i| cluster.ctl_on(*i, &[ROOT, "move-leader", &format!("{id:x}")]).code == 0)
    });
    a_lease_ends(&cluster, "second");
}
