//! What `/metrics` shows: the same names, labels and types as etcd at start, and after the same operations the same
//! counts where a count says what clients did.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::collections::BTreeMap;
use std::path::Path;

use harness::{Binaries, Member, Options, go_release, ours};
use parity::Ctl;
use parity::http::{port_of, request};

const GOLDEN: &str = include_str!("../../data/golden/metrics-series.txt");

/// Ids follow from URLs: with these on both sides answers have the same length.
fn options() -> Options {
    let flags = ["--initial-advertise-peer-urls=http://127.0.0.1:9", "--initial-cluster=m0=http://127.0.0.1:9"];
    Options { flags: flags.iter().map(ToString::to_string).collect(), ..Options::default() }
}

fn page(member: &Member) -> String {
    let answer = request(port_of(&member.client_url()), "GET", "/metrics", &[], &[]);
    assert_eq!(answer.status, 200);
    answer.body
}

/// Types and series of a page in its order, without values, and with the labels of the golden file in place of those
/// that differ between members.
fn series(page: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for line in page.lines().filter(|line| !line.starts_with("# HELP")) {
        let name = if line.starts_with('#') { line } else { line.rsplit_once(' ').expect("a value").0 };
        let masked = mask(name);
        if !seen.contains(&masked) {
            seen.push(masked);
        }
    }
    seen
}

/// Puts a placeholder for ids, the Go version and gRPC codes.
fn mask(name: &str) -> String {
    let mut out = String::new();
    for (i, part) in name.split('"').enumerate() {
        let label = out.trim_end_matches('=').rsplit([',', '{']).next().unwrap_or_default().to_string();
        let replaced = match label.as_str() {
            "Local" | "Remote" | "server_id" if i % 2 == 1 => "ID",
            "server_go_version" if i % 2 == 1 => "GO",
            "grpc_code" if i % 2 == 1 => "*",
            _ => part,
        };
        if i > 0 {
            out.push('"');
        }
        out.push_str(replaced);
    }
    out
}

#[test]
fn a_fresh_member_shows_every_series_of_etcd() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let member = Member::start(&ours(), &scratch.path().join("m"), options());
    let ours = series(&page(&member));
    // Other software's runtime, and two that only show once they were used.
    let expected: Vec<&str> = GOLDEN.lines().collect();
    let missing: Vec<&&str> = expected.iter().filter(|line| !ours.iter().any(|have| have == **line)).collect();
    let extra: Vec<&String> = ours
        .iter()
        .filter(|line| !expected.contains(&line.as_str()))
        .filter(|line| !line.contains("go_threads") && !USED_BY_THE_START.iter().any(|name| line.contains(name)))
        .collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
    assert_eq!(page(&member).matches("grpc_server_handled_total{").count(), 45 * 17);
    let in_order: Vec<&str> = ours.iter().map(String::as_str).filter(|line| expected.contains(line)).collect();
    assert_eq!(in_order, expected, "families and series come in etcd's order");
}

/// The harness asks `/health` until the member serves, which reads a key.
const USED_BY_THE_START: &[&str] = &["etcd_server_range_duration_seconds", "type=\"Range\""];

/// Values by series, of those that count what was asked for.
fn counts(page: &str) -> BTreeMap<String, f64> {
    let is_wanted = |name: &str| {
        (name.starts_with("grpc_server_")
            || name.starts_with("etcd_mvcc_") && name.ends_with("_total")
            || name.starts_with("etcd_server_client_requests_total")
            || name.starts_with("etcd_network_client_grpc_")
            || name.starts_with("etcd_debugging_lease_")
            || name.starts_with("etcd_server_proposals_") && !name.contains("pending")
            || name.starts_with("etcd_server_health")
            || name.contains("_duration_seconds_count{") && name.starts_with("etcd_server_")
            || name.starts_with("etcd_mvcc_hash_") && name.ends_with("_count")
            || name.starts_with("etcd_disk_backend_defrag_duration_seconds_count")
            || matches!(
                name,
                "etcd_debugging_mvcc_events_total" | "etcd_debugging_mvcc_keys_total"
                    | "etcd_debugging_mvcc_total_put_size_in_bytes" | "etcd_debugging_mvcc_current_revision"
                    | "etcd_debugging_mvcc_compact_revision" | "etcd_debugging_mvcc_db_compaction_keys_total"
                    | "etcd_debugging_mvcc_watcher_total" | "etcd_debugging_mvcc_watch_stream_total"
            ))
            && !name.contains("_bucket")
            && !name.contains("lease_ttl_total_bucket")
    };
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(name, _)| is_wanted(name))
        .map(|(name, value)| (name.to_string(), value.parse().expect("a number")))
        .collect()
}

/// A client that has its answer leaves its stream: whether that is an end or a break is a race.
fn is_chance(name: &str) -> bool {
    name.starts_with("grpc_server_handled_total") && name.contains("LeaseKeepAlive")
}

/// Twenty operations, some of which fail.
fn work(ctl: &Ctl<'_>) {
    ctl.ok("put a 1");
    ctl.ok("put b 22");
    ctl.ok("put a 333 --prev-kv");
    ctl.ok("get a");
    ctl.ok("get a --consistency=s");
    ctl.ok("get a --prefix --keys-only --limit=1");
    ctl.ok("del a --prev-kv");
    ctl.ok("del nothing");
    ctl.ok_with("txn", "version(\"b\") = \"1\"\nmod(\"b\") > \"0\"\n\nput b 3\nput c 4\nget b\n\nput d 1\n\n");
    ctl.ok_with("txn", "version(\"b\") = \"9\"\n\nget b\n\nget c\nget d\n\n");
    ctl.ok("lease grant 60");
    // Ids differ between the servers, so one is chosen here: 7b is 123.
    let lease = ctl.ok("lease grant 77").split(' ').nth(1).expect("etcdctl prints the id second").to_string();
    ctl.ok(&format!("lease keep-alive --once {lease}"));
    ctl.ok(&format!("put k v --lease={lease}"));
    ctl.ok(&format!("lease revoke {lease}"));
    assert_ne!(ctl.run("put k v --lease=77").code, 0);
    assert_ne!(ctl.run("get a --rev=1000").code, 0);
    ctl.ok("compaction 4");
    assert_ne!(ctl.run("compaction 4").code, 0);
    ctl.ok("member list");
    ctl.ok("endpoint hashkv");
    ctl.ok("endpoint health");
    ctl.ok("defrag");
}

/// Counts once they have stood still for a while.
fn settled(member: &Member) -> BTreeMap<String, f64> {
    let mut last = counts(&page(member));
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let next = counts(&page(member));
        if next == last {
            break;
        }
        last = next;
    }
    last
}

/// What changed by the operations.
fn difference(binaries: &Binaries, ctl: &Path, dir: &Path) -> BTreeMap<String, f64> {
    let member = Member::start(binaries, dir, options());
    // The version of the cluster is agreed on after the start.
    let before = settled(&member);
    work(&Ctl::new(ctl, &member));
    // A compaction ends, and streams are noticed to be gone, a moment after the answers.
    let after = settled(&member);
    let change = |(name, value): (String, f64)| {
        let was = before.get(&name).copied().unwrap_or(0.0);
        (name, value - was)
    };
    after.into_iter().map(change).filter(|(_, change)| *change != 0.0).collect()
}

#[test]
fn extensive_metrics_measure_every_call() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let [theirs, ours] = [(&go, "go"), (&ours(), "ours")].map(|(binaries, name)| {
        let mut options = options();
        options.flags.push("--metrics=extensive".into());
        let member = Member::start(binaries, &scratch.path().join(name), options);
        let ctl = Ctl::new(&go.etcdctl, &member);
        ctl.ok("put a 1");
        ctl.ok("get a");
        ctl.ok("get a");
        let page = page(&member);
        let lines = page.lines().filter(|line| line.contains("grpc_server_handling_seconds") && !line.starts_with("# HELP"));
        // Bounds and counts are the same; how long it took, and so the buckets, are not.
        let lines = lines.map(|line| if line.contains("_count{") { line } else { line.rsplit_once(' ').unwrap_or_default().0 });
        lines.map(str::to_string).collect::<Vec<_>>()
    });
    assert_eq!(theirs, ours);
    assert!(ours.iter().any(|line| line.contains("_count{grpc_method=\"Range\"") && line.ends_with(" 2")), "{ours:#?}");
}

#[test]
fn the_same_operations_are_counted_alike() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let theirs = difference(&go, &go.etcdctl, &scratch.path().join("go"));
    let ours = difference(&ours(), &go.etcdctl, &scratch.path().join("ours"));
    let names: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differ: Vec<String> = names
        .into_iter()
        .filter(|name| !is_chance(name))
        .filter(|name| {
            // Ids of leases are drawn, and differ in length by a byte.
            let slack = if name.contains("_grpc_") && name.ends_with("_bytes_total") { 4.0 } else { 0.0 };
            let value = |counts: &BTreeMap<String, f64>| counts.get(*name).copied().unwrap_or(0.0);
            (value(&theirs) - value(&ours)).abs() > slack
        })
        .map(|name| format!("{name}: Go {:?}, ours {:?}", theirs.get(name), ours.get(name)))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(theirs.len() > 80, "only {} series moved", theirs.len());
}
