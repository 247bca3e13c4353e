//! What a cluster guards itself against: data that differs, members that do not fit, versions that go down.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::Path;
use std::time::Duration;

use harness::{Cluster, Member, Options, go_release, ours};

/// A value that stands in the file as it is.
const VALUE: &str = "a-value-that-is-found-in-the-file-1";

fn three(dir: &Path, flags: &[&str]) -> Cluster {
    let ours = ours();
    Cluster::start(&[&ours, &ours, &ours], dir, flags)
}

/// A cluster whose second member holds something else than the others, which it does not know.
fn with_a_wrong_member(dir: &Path, flags: &[&str]) -> (Cluster, usize) {
    let mut cluster = three(dir, flags);
    let wrong = (cluster.leader() + 1) % 3;
    cluster.ctl(&["put", "/k", VALUE]).ok();
    cluster.agree();
    assert_eq!(cluster.member_mut(wrong).stop(), Some(0));
    cluster.member(wrong).alter_stored(VALUE);
    (cluster, wrong)
}

#[test]
fn cm_089_a_member_that_differs_does_not_start() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let (mut cluster, wrong) = with_a_wrong_member(scratch.path(), &["--feature-gates=InitialCorruptCheck=true"]);
    cluster.member_mut(wrong).launch();
    assert_eq!(cluster.member_mut(wrong).wait(Duration::from_secs(20)), Some(1));
    let log = cluster.member(wrong).log();
    assert!(log.contains("checkInitialHashKV failed"), "{log}");
    assert!(log.contains("found data inconsistency with peers"), "{log}");
}

#[test]
fn cm_094_a_member_that_differs_is_found_while_it_runs() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let (mut cluster, wrong) = with_a_wrong_member(scratch.path(), &["--corrupt-check-time=2s"]);
    cluster.member_mut(wrong).start_again_with_alarms();
    let id = cluster.id(wrong);
    let alarm = format!("memberID:{id}  alarm:CORRUPT");
    cluster.until("the alarm is raised", |cluster| cluster.ctl(&["alarm", "list"]).stdout.contains(&alarm));
    let refused = cluster.ctl(&["put", "/x", "y"]);
    assert!(refused.stderr.contains("etcdserver: corrupt cluster"), "{refused:?}");
}

#[test]
fn cm_090_a_member_that_differs_is_found_by_a_compaction() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let flags = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=2s"];
    let (mut cluster, wrong) = with_a_wrong_member(scratch.path(), &flags);
    cluster.member_mut(wrong).start_again_with_alarms();
    for i in 0..10 {
        cluster.retry(&["put", "/other", &i.to_string()]);
    }
    cluster.retry(&["compaction", "8"]);
    let alarm = format!("memberID:{}  alarm:CORRUPT", cluster.id(wrong));
    cluster.until("the alarm is raised", |cluster| cluster.ctl(&["alarm", "list"]).stdout.contains(&alarm));
}

/// B8 to B11 and B29, as a new user meets them.
#[test]
fn who_does_not_fit_is_told_why() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &[]);
    let try_it = |name: &str, initial: &str, state: &str| -> String {
        let flags = vec![
            format!("--name={name}"),
            format!("--initial-cluster={initial}"),
            format!("--initial-cluster-state={state}"),
        ];
        let options = Options { flags, ..Options::default() };
        let dir = scratch.path().join(format!("try-{name}-{state}"));
        let mut member = Member::place(&ours(), &dir, options.clone());
        let flags = options.flags.iter().map(|flag| flag.replace("OWN", &member.peer_url())).collect();
        member.set_flags(flags);
        member.launch();
        assert_eq!(member.wait(Duration::from_secs(20)), Some(1), "{name} {state}");
        member.log()
    };
    let known = cluster.initial_cluster();
    for (name, initial, state, text) in [
        ("x", known.clone(), "existing", "couldn't find local name \\\"x\\\" in the initial cluster configuration"),
        ("x", format!("{known},x=OWN"), "existing", "member count is unequal"),
        (
            "x",
            "x=OWN".to_string(),
            "existing",
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
        (
            "x",
            known.replace("m2=", "x=OWN,ignored=").split(",ignored").next().unwrap_or_default().to_string(),
            "existing",
            "no match found for existing member",
        ),
    ] {
        let log = try_it(name, &initial, state);
        assert!(log.contains(text), "{text}:\n{log}");
    }
    // A founder that lost its directory must not found again.
    cluster.member_mut(1).stop();
    std::fs::remove_dir_all(cluster.member(1).data_dir()).expect("the directory can be removed");
    cluster.member_mut(1).launch();
    assert_eq!(cluster.member_mut(1).wait(Duration::from_secs(20)), Some(1));
    assert!(cluster.member(1).log().contains("has already been bootstrapped"));
}

#[test]
fn a_cluster_goes_down_to_3_6_and_its_members_to_go() {
    let Some(go) = go_release("3.6.16") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = three(scratch.path(), &[]);
    cluster.ctl(&["put", "/k", "v"]).ok();
    let version = |cluster: &Cluster, i: usize| cluster.member(i).http("/version").map_or_else(String::new, |(_, body)| body);
    cluster.until("the cluster is at 3.7", |cluster| version(cluster, 0).contains("\"etcdcluster\":\"3.7.0\""));
    let refused = cluster.ctl(&["downgrade", "validate", "3.5"]);
    assert!(refused.stderr.contains("invalid downgrade target version"), "{refused:?}");
    cluster.ctl(&["downgrade", "validate", "3.6"]).ok();
    cluster.ctl(&["downgrade", "enable", "3.6"]).ok();
    let again = cluster.ctl(&["downgrade", "enable", "3.6"]);
    assert!(again.stderr.contains("downgrade"), "{again:?}");
    cluster.until("all members are at 3.6", |cluster| {
        (0..3).all(|i| version(cluster, i).contains("\"etcdcluster\":\"3.6.0\",\"storage\":\"3.6.0\""))
    });
    for i in 0..3 {
        cluster.member_mut(i).stop();
        let flags = cluster.flags(i);
        cluster.member_mut(i).swap(&go, Options { flags, ..Options::default() });
        cluster.member_mut(i).start_again();
        cluster.retry(&["put", &format!("/swapped/{i}"), "v"]);
    }
    cluster.until("the job has ended", |cluster| {
        cluster.ctl(&["endpoint", "status", "-w", "json"]).stdout.matches("\"downgradeInfo\":{}").count() == 3
            || cluster.member(0).peer_http("/downgrade/enabled").is_some_and(|(_, body)| body.contains("false"))
    });
    cluster.agree();
}
