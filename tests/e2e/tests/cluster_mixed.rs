//! Clusters of Go's members and ours: any mix serves, and members change sides one at a time on their directories,
//! under load.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Binaries, Cluster, Options, go_release, ours, run};

/// Time between two writes of the load.
const PACE: Duration = Duration::from_millis(20);

/// Writes on, whoever lives, and remembers what was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    /// Number of the last write that was acknowledged.
    acknowledged: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Load {
    fn start(etcdctl: &Path, endpoints: String) -> Load {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, last, etcdctl) = (stop.clone(), acknowledged.clone(), etcdctl.to_path_buf());
        let thread = std::thread::spawn(move || {
            let (mut number, mut failed) = (0u64, 0);
            while !stopped.load(Ordering::Acquire) {
                number += 1;
                let (key, value) = (format!("/load/{}", number % 50), number.to_string());
                let all = format!("--endpoints={endpoints}");
                let put = run(&etcdctl, &[&all, "--command-timeout=10s", "put", &key, &value]);
                if put.code == 0 {
                    last.store(number, Ordering::Release);
                } else {
                    failed += 1;
                }
                std::thread::sleep(PACE);
            }
            failed
        });
        Load { stop, acknowledged, thread: Some(thread) }
    }

    /// Ends it; says how many writes were acknowledged last, and how many failed.
    fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Release);
        let failed = self.thread.take().expect("it ends once").join().expect("the load does not panic");
        (self.acknowledged.load(Ordering::Acquire), failed)
    }
}

/// Every member, reading and writing through every other.
fn everybody_serves(cluster: &Cluster, round: &str) {
    for i in 0..cluster.len() {
        cluster.ctl_on(i, &["put", &format!("/{round}/{i}"), &format!("{round} {i}")]).ok();
        for j in 0..cluster.len() {
            let read = cluster.ctl_on(j, &["get", &format!("/{round}/{i}"), "--print-value-only"]).ok();
            assert_eq!(read.trim(), format!("{round} {i}"), "{round}: written through {i}, read through {j}");
        }
    }
    let granted = cluster.ctl_on(0, &["lease", "grant", "600"]).ok();
    let lease = granted.split(' ').nth(1).expect("the id is the second word").to_string();
    for i in 0..cluster.len() {
        let renewed = cluster.ctl_on(i, &["lease", "keep-alive", "--once", &lease]).ok();
        assert!(renewed.contains("TTL(600)"), "{round}: through {i}: {renewed}");
        let left = cluster.ctl_on(i, &["lease", "timetolive", &lease]).ok();
        assert!(left.contains("granted with TTL(600s)"), "{round}: through {i}: {left}");
    }
    cluster.agree();
}

/// Every member leads once, and every one is killed once.
fn all_lead_and_die(cluster: &mut Cluster, round: &str) {
    for i in 0..cluster.len() {
        let leader = cluster.leader();
        if leader != i {
            let id = format!("{:x}", cluster.id(i));
            cluster.ctl(&["move-leader", &id]).ok();
        }
        assert_eq!(cluster.leader(), i, "{round}");
        everybody_serves(cluster, &format!("{round}/{i}"));
        cluster.member_mut(i).kill();
        cluster.leader();
        for n in 0..20 {
            cluster.retry(&["put", &format!("/{round}/away/{i}/{n}"), "x"]);
        }
        cluster.member_mut(i).start_again();
        cluster.agree();
    }
}

fn mixed(releases: &[&Binaries]) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = Cluster::start(releases, scratch.path(), &[]);
    everybody_serves(&cluster, "first");
    all_lead_and_die(&mut cluster, "mix");
}

#[test]
fn two_of_go_3_7_and_one_of_ours() {
    let Some(go) = go_release("3.7.3") else { return };
    mixed(&[&go, &ours(), &go]);
}

#[test]
fn one_of_go_3_7_and_two_of_ours() {
    let Some(go) = go_release("3.7.3") else { return };
    mixed(&[&go, &ours(), &ours()]);
}

/// Three Go members become ours one at a time, and Go again, on their directories and under load.
fn swap(go: &Binaries, our_flags: &[&str]) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = Cluster::start(&[go, go, go], scratch.path(), &[]);
    let ours = ours();
    everybody_serves(&cluster, "before");
    let load = Load::start(&go.etcdctl, cluster.endpoints());
    let version = version_of(&cluster, 0);
    for to_ours in [true, false] {
        for i in 0..3 {
            // Some leave in an orderly way, some do not.
            if i == 1 {
                cluster.member_mut(i).kill();
            } else {
                cluster.member_mut(i).stop();
            }
            let mut flags = cluster.flags(i);
            if to_ours {
                flags.extend(our_flags.iter().map(ToString::to_string));
            }
            let binaries = if to_ours { &ours } else { go };
            cluster.member_mut(i).swap(binaries, Options { flags, ..Options::default() });
            cluster.member_mut(i).start_again();
            let began = Instant::now();
            cluster.until("the member is back in step", |cluster| {
                let applied = |j| cluster.field(j, "RaftAppliedIndex");
                let leader = cluster.leader();
                applied(i) >= applied(leader).map(|index| index.saturating_sub(20))
            });
            println!("{}: member {i} is {} again after {:?}", go.label, binaries.label, began.elapsed());
            assert_eq!(version_of(&cluster, i), version, "no version is skipped or raised");
            // The load goes on meanwhile.
            let (from, began) = (load.acknowledged.load(Ordering::Acquire), Instant::now());
            while load.acknowledged.load(Ordering::Acquire) < from + 20 {
                assert!(began.elapsed() < Duration::from_secs(30), "no write is acknowledged any more");
                std::thread::sleep(PACE);
            }
            // A different member leads each time.
            let id = format!("{:x}", cluster.id(i));
            if cluster.leader() != i {
                cluster.retry(&["move-leader", &id]);
            }
        }
    }
    let (last, failed) = load.stop();
    let (hash, revision) = cluster.agree();
    println!("{}: {last} writes, {failed} failed, hash {hash} at {revision} on all", go.label);
    assert!(last > 100, "hardly any load");
    let newest = (0..50).filter_map(|n| {
        let read = cluster.ctl(&["get", &format!("/load/{n}"), "--print-value-only"]).ok();
        read.trim().parse::<u64>().ok()
    });
    assert!(newest.max() >= Some(last), "an acknowledged write is lost");
    everybody_serves(&cluster, "after");
}

/// The cluster version as a member shows it.
fn version_of(cluster: &Cluster, i: usize) -> String {
    let (_, body) = cluster.member(i).http("/version").expect("a member that serves says its version");
    let at = body.find("\"etcdcluster\":").expect("it says the cluster's too");
    body[at..].chars().take(22).collect()
}

#[test]
fn three_members_of_3_7_change_to_ours_and_back_under_load() {
    let Some(go) = go_release("3.7.3") else { return };
    swap(&go, &[]);
}

#[test]
fn three_members_of_3_6_change_to_ours_and_back_under_load() {
    let Some(go) = go_release("3.6.16") else { return };
    swap(&go, &["--emulated-version=3.6"]);
}

#[test]
fn three_members_of_3_5_change_to_ours_and_back_under_load() {
    let Some(go) = go_release("3.5.35") else { return };
    swap(&go, &["--emulated-version=3.5"]);
}

/// Snapshots in both directions: a member that joins late gets one from a leader of the other kind.
fn joins_by_snapshot(cluster_of: &Binaries, joiner: &Binaries, flags: &[&str]) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut cluster = Cluster::start(&[cluster_of], scratch.path(), flags);
    for n in 0..300 {
        cluster.ctl(&["put", &format!("/k/{}", n % 60), &format!("{n} {}", "y".repeat(500))]).ok();
    }
    let granted = cluster.ctl(&["lease", "grant", "600"]).ok();
    let lease = granted.split(' ').nth(1).expect("the id is the second word").to_string();
    cluster.ctl(&["put", "/leased", "x", &format!("--lease={lease}")]).ok();
    cluster.ctl(&["compaction", "150"]).ok();
    let learner = cluster.join(joiner, true);
    cluster.in_step(learner);
    let id = format!("{:x}", cluster.id(learner));
    cluster.retry(&["member", "promote", &id]);
    cluster.member_mut(learner).wait_until_ready();
    everybody_serves(&cluster, "two");
    cluster.retry(&["move-leader", &id]);
    assert_eq!(cluster.leader(), learner);
    everybody_serves(&cluster, "led by the new one");
    let keys = cluster.ctl_on(learner, &["lease", "timetolive", &lease, "--keys"]).ok();
    assert!(keys.contains("/leased"), "{keys}");
    let names: Vec<String> = std::fs::read_dir(cluster.member(learner).data_dir().join("member/snap"))
        .expect("the directory is there")
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    assert!(names.iter().any(|name| name.ends_with(".snap")), "it came by snapshot: {names:?}");
    let back = format!("{:x}", cluster.id(0));
    cluster.retry(&["move-leader", &back]);
    cluster.agree();
}

/// A small log, so that a joiner needs a snapshot. 3.5 knows the second flag by its old name.
const SMALL_LOG: &[&str] = &["--snapshot-count=50", "--snapshot-catchup-entries=10"];

#[test]
fn our_learner_joins_go_by_snapshot_is_promoted_and_leads() {
    let Some(go) = go_release("3.7.3") else { return };
    joins_by_snapshot(&go, &ours(), SMALL_LOG);
}

#[test]
fn gos_learner_joins_ours_by_snapshot_is_promoted_and_leads() {
    let Some(go) = go_release("3.7.3") else { return };
    joins_by_snapshot(&ours(), &go, SMALL_LOG);
}
