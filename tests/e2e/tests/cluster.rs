//! Clusters of our own members: any member serves, leaders die, members come and go.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::time::{Duration, Instant};

use harness::{Binaries, Cluster, ours};

/// Checks of data on in all of them, timing as by default.
const FLAGS: &[&str] = &["--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true"];

fn three(dir: &std::path::Path, flags: &[&str]) -> Cluster {
    let ours = ours();
    let releases: [&Binaries; 3] = [&ours, &ours, &ours];
    Cluster::start(&releases, dir, &[FLAGS, flags].concat())
}

#[test]
fn any_of_three_members_serves() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let cluster = three(scratch.path(), &[]);
    let leader = cluster.leader();
    for i in 0..3 {
        cluster.ctl_on(i, &["put", &format!("/from/{i}"), &format!("value {i}")]).ok();
        for j in 0..3 {
            let read = cluster.ctl_on(j, &["get", &format!("/from/{i}"), "--print-value-only"]).ok();
            assert_eq!(read.trim(), format!("value {i}"), "written through {i}, read through {j}");
        }
    }
    cluster.agree();
    let list = cluster.ctl_on((leader + 1) % 3, &["member", "list"]).ok();
    assert_eq!(list.matches(", started, ").count(), 3, "{list}");
    // Leases: granted, renewed and asked for through members that do not lead.
    let (a, b) = ((leader + 1) % 3, (leader + 2) % 3);
    let granted = cluster.ctl_on(a, &["lease", "grant", "5"]).ok();
    let lease = granted.split(' ').nth(1).expect("the id is the second word").to_string();
    cluster.ctl_on(b, &["put", "/leased", "x", &format!("--lease={lease}")]).ok();
    let renewed = cluster.ctl_on(b, &["lease", "keep-alive", "--once", &lease]).ok();
    assert!(renewed.contains("TTL(5)"), "{renewed}");
    let left = cluster.ctl_on(a, &["lease", "timetolive", &lease, "--keys"]).ok();
    assert!(left.contains("granted with TTL(5s)") && left.contains("/leased"), "{left}");
    assert!(cluster.ctl_on(a, &["lease", "list"]).ok().contains(&lease));
    cluster.until("the lease runs out everywhere", |cluster| {
        cluster.ctl_on(a, &["get", "/leased"]).ok().is_empty() && cluster.ctl_on(b, &["get", "/leased"]).ok().is_empty()
    });
    let table = cluster.ctl_on(0, &["endpoint", "status", "--cluster", "-w", "table"]).ok();
    assert_eq!(table.matches("3.7.3").count(), 3, "{table}");
    let hashes = cluster.ctl_on(0, &["endpoint", "hashkv", "--cluster"]).ok();
    assert_eq!(hashes.lines().count(), 3, "{hashes}");
    assert!(cluster.ctl_on(a, &["endpoint", "health", "--cluster"]).ok().contains("is healthy"));
}

#[test]
fn leaders_die_and_come_back() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &[]);
    for round in 0..3 {
        let leader = cluster.leader();
        cluster.retry(&["put", &format!("/round/{round}"), "before"]);
        cluster.member_mut(leader).kill();
        let gone = Instant::now();
        let next = cluster.leader();
        assert_ne!(next, leader);
        cluster.retry(&["put", &format!("/round/{round}"), "after"]);
        println!("round {round}: {:?} without a leader", gone.elapsed());
        cluster.member_mut(leader).start_again();
        let read = cluster.ctl_on(leader, &["get", &format!("/round/{round}"), "--print-value-only"]).ok();
        assert_eq!(read.trim(), "after");
        cluster.agree();
    }
    // Without a quorum nothing is written, and what is asked for says so.
    let leader = cluster.leader();
    for i in (0..3).filter(|i| *i != leader) {
        cluster.member_mut(i).kill();
    }
    let refused = cluster.ctl_on(leader, &["put", "/alone", "x", "--command-timeout=3s"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    cluster.until("the leader steps down", |cluster| cluster.field(leader, "Leader") == Some(0));
    for i in (0..3).filter(|i| *i != leader) {
        cluster.member_mut(i).launch();
    }
    cluster.leader();
    cluster.retry(&["put", "/together", "x"]);
    cluster.agree();
}

/// A leader that stands still is replaced, and when it wakes up it takes its place among the others.
#[test]
fn a_leader_that_stands_still_is_replaced() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let cluster = three(scratch.path(), &[]);
    for round in 0..3 {
        let leader = cluster.leader();
        let others: Vec<String> = (0..3).filter(|i| *i != leader).map(|i| cluster.member(i).endpoint()).collect();
        let others = format!("--endpoints={}", others.join(","));
        cluster.member(leader).signal(STOP);
        for n in 0..20 {
            let put = || harness::run(&ours().etcdctl, &[&others, "put", &format!("/still/{round}/{n}"), "x"]);
            let start = Instant::now();
            while put().code != 0 {
                assert!(start.elapsed() < Duration::from_secs(20), "nobody else leads");
            }
        }
        cluster.member(leader).signal(CONTINUE);
        // What it answers now, it must have asked the others about.
        let read = cluster.ctl_on(leader, &["get", &format!("/still/{round}/19"), "--print-value-only"]);
        assert!(read.code != 0 || read.stdout.trim() == "x", "a stale read: {read:?}");
        cluster.leader();
        cluster.agree();
    }
}

/// SIGSTOP and SIGCONT.
const STOP: i32 = 19;
const CONTINUE: i32 = 18;

#[test]
fn a_leader_that_stops_hands_over() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &[]);
    let leader = cluster.leader();
    let term = cluster.field(leader, "RaftTerm");
    assert_eq!(cluster.member_mut(leader).stop(), Some(0));
    let log = cluster.member(leader).log();
    assert!(log.contains("leadership transfer finished"), "{log}");
    let start = Instant::now();
    let next = cluster.leader();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(cluster.field(next, "RaftTerm"), term.map(|term| term + 1));
}

#[test]
fn leadership_moves_where_it_is_sent() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let cluster = three(scratch.path(), &[]);
    let leader = cluster.leader();
    let target = (leader + 1) % 3;
    let id = format!("{:x}", cluster.id(target));
    let refused = cluster.ctl_on(target, &["move-leader", &id]);
    assert!(refused.stderr.contains("no leader endpoint given") || refused.code != 0, "{refused:?}");
    let moved = cluster.ctl(&["move-leader", &id]).ok();
    assert!(moved.contains("Leadership transferred from"), "{moved}");
    assert_eq!(cluster.leader(), target);
    // CM-061: the server sets no limit of its own, so the client's time runs out.
    let asleep = (target + 1) % 3;
    let id = format!("{:x}", cluster.id(asleep));
    cluster.member(asleep).signal(STOP);
    let late = cluster.ctl_on(target, &["move-leader", &id, "--command-timeout=3s"]);
    cluster.member(asleep).signal(CONTINUE);
    assert!(late.code != 0 && late.stderr.contains("deadline exceeded"), "{late:?}");
    cluster.retry(&["put", "/after", "x"]);
    cluster.agree();
}

#[test]
fn members_come_and_go() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &[]);
    for i in 0..50 {
        cluster.ctl(&["put", &format!("/k/{i}"), &"x".repeat(1000)]).ok();
    }
    // A learner follows, refuses what it must, is promoted, and serves.
    let learner = cluster.join(&ours(), true);
    cluster.in_step(learner);
    let refused = cluster.ctl_on(learner, &["put", "/x", "y"]);
    assert!(refused.stderr.contains("rpc not supported for learner"), "{refused:?}");
    let read = cluster.ctl_on(learner, &["get", "/k/1", "--consistency=s", "--print-value-only"]).ok();
    assert_eq!(read.trim().len(), 1000);
    let id = format!("{:x}", cluster.id(learner));
    let second = cluster.ctl(&["member", "add", "m9", "--peer-urls=http://127.0.0.1:1", "--learner"]);
    assert!(second.stderr.contains("too many learner members in cluster"), "{second:?}");
    let promoted = cluster.retry(&["member", "promote", &id]);
    assert!(promoted.contains("promoted in cluster"), "{promoted}");
    let again = cluster.ctl(&["member", "promote", &id]);
    assert!(again.stderr.contains("can only promote a learner member"), "{again:?}");
    cluster.member_mut(learner).wait_until_ready();
    cluster.ctl_on(learner, &["put", "/promoted", "yes"]).ok();
    cluster.agree();
    // One leaves: its process ends by itself, and the rest goes on.
    let leader = cluster.leader();
    let leaving = (leader + 1) % 4;
    let id = format!("{:x}", cluster.id(leaving));
    let removed = cluster.retry(&["member", "remove", &id]);
    assert!(removed.contains("removed from cluster"), "{removed}");
    assert_eq!(cluster.member_mut(leaving).wait(Duration::from_secs(10)), Some(0));
    assert!(cluster.member(leaving).log().contains("the member has been permanently removed from the cluster"));
    cluster.retry(&["put", "/after", "removal"]);
    cluster.agree();
    assert_eq!(cluster.ctl(&["member", "list"]).ok().lines().count(), 3);
    // The leader itself can be removed.
    let leader = cluster.leader();
    let id = format!("{:x}", cluster.id(leader));
    cluster.retry(&["member", "remove", &id]);
    assert_eq!(cluster.member_mut(leader).wait(Duration::from_secs(10)), Some(0));
    cluster.leader();
    cluster.retry(&["put", "/after", "the leader"]);
    cluster.agree();
}

#[test]
fn who_is_far_behind_gets_a_snapshot() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &["--snapshot-count=50", "--snapshot-catchup-entries=20"]);
    let leader = cluster.leader();
    let behind = (leader + 1) % 3;
    cluster.ctl(&["put", "/before", "x"]).ok();
    let granted = cluster.ctl(&["lease", "grant", "3600"]).ok();
    let lease = granted.split(' ').nth(1).expect("the id is the second word").to_string();
    cluster.member_mut(behind).kill();
    for i in 0..300 {
        cluster.ctl(&["put", &format!("/k/{}", i % 40), &format!("{i} {}", "x".repeat(2000)), &format!("--lease={lease}")]).ok();
    }
    cluster.ctl(&["compaction", "100"]).ok();
    cluster.member_mut(behind).start_again();
    cluster.agree();
    let log = cluster.member(behind).log();
    assert!(log.contains("applied snapshot"), "no snapshot was needed:\n{log}");
    let keys = cluster.ctl_on(behind, &["lease", "timetolive", &lease, "--keys"]).ok();
    assert!(keys.contains("/k/39"), "{keys}");
    // It goes on from there, also after a kill, and may lead.
    for round in 0..3 {
        cluster.ctl_on(behind, &["put", "/after", &format!("{round}")]).ok();
        cluster.member_mut(behind).kill();
        cluster.retry(&["put", "/while/away", &format!("{round}")]);
        cluster.member_mut(behind).start_again();
        cluster.agree();
    }
    let id = format!("{:x}", cluster.id(behind));
    cluster.ctl(&["move-leader", &id]).ok();
    assert_eq!(cluster.leader(), behind);
    // One that is new gets everything by snapshot too.
    let new = cluster.join(&ours(), false);
    cluster.member_mut(new).wait_until_ready();
    cluster.agree();
    assert!(cluster.member(new).log().contains("applied snapshot"));
}

/// A process that ends with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // One that has ended by itself needs no killing.
        let _gone = self.0.kill();
        self.0.wait().expect("a killed process ends");
    }
}

/// etcd issue 15271: a watch on a member that was cut off, and got a snapshot when it came back, goes on where it was:
/// every event once, in order.
#[test]
fn issue_15271_a_watch_goes_on_over_a_snapshot() {
    const EVENTS: usize = 300;
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let cluster = three(scratch.path(), &["--snapshot-count=50", "--snapshot-catchup-entries=20"]);
    let leader = cluster.leader();
    let asleep = (leader + 1) % 3;
    let seen = scratch.path().join("seen");
    let file = std::fs::File::create(&seen).expect("scratch is writable");
    let endpoint = format!("--endpoints={}", cluster.member(asleep).endpoint());
    let watch = std::process::Command::new(&ours().etcdctl)
        .args([&endpoint, "watch", "/w/", "--prefix"])
        .stdin(std::process::Stdio::null())
        .stdout(file)
        .spawn()
        .expect("the program starts");
    let _watch = Killed(watch);
    let events = || {
        let text = std::fs::read_to_string(&seen).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("/w/")).map(str::to_string).collect::<Vec<_>>()
    };
    // The watch stands once an event has come.
    let mut first = 0;
    while events().is_empty() {
        cluster.ctl_on(leader, &["put", &format!("/w/first/{first}"), "x"]).ok();
        first += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.member(asleep).signal(STOP);
    // More than sockets hold.
    let value = "x".repeat(50_000);
    for n in 0..EVENTS {
        cluster.ctl_on(leader, &["put", &format!("/w/{n:04}"), &value]).ok();
    }
    // Until its connections are given up.
    std::thread::sleep(Duration::from_secs(6));
    cluster.member(asleep).signal(CONTINUE);
    cluster.agree();
    assert!(cluster.member(asleep).log().contains("applied snapshot"), "no snapshot was needed");
    cluster.ctl_on(leader, &["put", "/w/last", "x"]).ok();
    cluster.until("the last event", |_| events().iter().any(|key| key == "/w/last"));
    let seen: Vec<String> = events().into_iter().filter(|key| !key.starts_with("/w/first")).collect();
    let mut expected: Vec<String> = (0..EVENTS).map(|n| format!("/w/{n:04}")).collect();
    expected.push("/w/last".to_string());
    assert_eq!(seen, expected);
}

/// A member that was removed while it was down hears of it from the others when it starts, and ends.
#[test]
fn b30_a_member_that_was_removed_while_away_ends() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &[]);
    let away = (cluster.leader() + 1) % 3;
    let id = format!("{:x}", cluster.id(away));
    cluster.member_mut(away).kill();
    cluster.retry(&["member", "remove", &id]);
    cluster.member_mut(away).launch();
    assert_eq!(cluster.member_mut(away).wait(Duration::from_secs(20)), Some(0));
    assert!(cluster.member(away).log().contains("the member has been permanently removed from the cluster"));
    cluster.retry(&["put", "/after", "x"]);
    cluster.agree();
}

#[test]
fn a_member_of_a_lost_cluster_goes_on_alone() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &[]);
    cluster.ctl(&["put", "/kept", "yes"]).ok();
    cluster.agree();
    for i in 0..3 {
        cluster.member_mut(i).kill();
    }
    let mut flags = vec!["--name=m1".to_string(), format!("--initial-cluster={}", cluster.initial_cluster())];
    flags.push("--force-new-cluster".to_string());
    cluster.member_mut(1).set_flags(flags.clone());
    cluster.member_mut(1).start_again();
    assert_eq!(cluster.ctl_on(1, &["get", "/kept", "--print-value-only"]).ok().trim(), "yes");
    assert_eq!(cluster.ctl_on(1, &["member", "list"]).ok().lines().count(), 1);
    cluster.member_mut(1).kill();
    flags.pop();
    cluster.member_mut(1).set_flags(flags);
    cluster.member_mut(1).start_again();
    cluster.ctl_on(1, &["put", "/new", "yes"]).ok();
    // Others join it anew.
    let new = cluster.len();
    let joined = cluster.ctl_on(1, &["member", "list"]).ok();
    assert!(joined.contains("started"), "{joined} {new}");
}
