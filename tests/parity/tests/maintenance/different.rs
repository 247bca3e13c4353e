//! CM-089, 090, 094: a member of three holds something else than the others, which it does not know; on Go's members
//! and on ours.

use std::path::Path;
use std::time::Duration;

use harness::{Binaries, Cluster, go_release, ours};

/// A value that stands in the file as it is.
const VALUE: &str = "a-value-that-is-found-in-the-file-1";

/// A cluster and its member that is stopped and altered.
fn with_a_wrong_member(binaries: &Binaries, dir: &Path, flags: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::start(&[binaries, binaries, binaries], dir, flags);
    let wrong = (cluster.leader() + 1) % 3;
    cluster.ctl(&["put", "/k", VALUE]).ok();
    cluster.agree();
    cluster.member_mut(wrong).stop();
    cluster.member(wrong).alter_stored(VALUE);
    (cluster, wrong)
}

/// CM-089: it does not start.
fn at_start(binaries: &Binaries, dir: &Path) {
    let (mut cluster, wrong) = with_a_wrong_member(binaries, dir, &["--feature-gates=InitialCorruptCheck=true"]);
    cluster.member_mut(wrong).launch();
    assert_eq!(cluster.member_mut(wrong).wait(Duration::from_secs(20)), Some(1), "CM-089");
    let log = cluster.member(wrong).log();
    assert!(log.contains("checkInitialHashKV failed"), "CM-089: {log}");
    // Without the gate it starts.
    let flags = [cluster.flags(wrong), vec!["--feature-gates=InitialCorruptCheck=false".to_owned()]].concat();
    cluster.member_mut(wrong).set_flags(flags);
    cluster.member_mut(wrong).start_again();
}

/// The alarm names the member; every member answers with it.
fn is_named(cluster: &Cluster, wrong: usize, case: &str) {
    let alarm = format!("memberID:{}  alarm:CORRUPT", cluster.id(wrong));
    cluster.until(&format!("{case}: the alarm is raised"), |cluster| cluster.ctl(&["alarm", "list"]).stdout.contains(&alarm));
    for i in 0..cluster.len() {
        let refused = cluster.ctl_on(i, &["put", "/x", "y"]);
        assert!(refused.stderr.contains("etcdserver: corrupt cluster"), "{case}, member {i}: {refused:?}");
        let status = |path: &str| cluster.member(i).http(path).map(|(status, _)| status);
        assert_eq!((status("/readyz"), status("/livez")), (Some(503), Some(200)), "{case}, member {i}");
    }
}

/// CM-090: a compaction shows it.
fn by_compaction(binaries: &Binaries, dir: &Path) {
    let flags = ["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=2s"];
    let (mut cluster, wrong) = with_a_wrong_member(binaries, dir, &flags);
    cluster.member_mut(wrong).start_again_with_alarms();
    for i in 0..10 {
        cluster.retry(&["put", "/other", &i.to_string()]);
    }
    cluster.retry(&["compaction", "8"]);
    is_named(&cluster, wrong, "CM-090");
}

/// CM-094: the check that is made every so often shows it.
fn by_time(binaries: &Binaries, dir: &Path) {
    let (mut cluster, wrong) = with_a_wrong_member(binaries, dir, &["--corrupt-check-time=3s"]);
    cluster.member_mut(wrong).start_again_with_alarms();
    is_named(&cluster, wrong, "CM-094");
}

fn all(binaries: &Binaries) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    at_start(binaries, &scratch.path().join("a"));
    by_compaction(binaries, &scratch.path().join("b"));
    by_time(binaries, &scratch.path().join("c"));
}

#[test]
fn a_member_of_ours_that_differs_is_found() {
    all(&ours());
}

#[test]
fn a_member_of_go_that_differs_is_found() {
    if let Some(go) = go_release("3.7.3") {
        all(&go);
    }
}
