//! Log lines: what a member says from its start to its end, and about requests that take long. Texts, levels and
//! names of fields are compared with Go's of the same run; places in the source, times and ids are each one's own.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Binaries, Member, Options, go_release, ours};
use parity::Ctl;
use serde_json::Value;

/// Ids follow from URLs: with these they are the same on both sides.
fn options(more: &[&str]) -> Options {
    let flags = ["--initial-advertise-peer-urls=http://127.0.0.1:9", "--initial-cluster=m0=http://127.0.0.1:9"];
    Options { flags: flags.iter().chain(more).map(ToString::to_string).collect(), ..Options::default() }
}

fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON"))).collect()
}

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line[key].as_str().unwrap_or_default()
}

/// Level, logger, text, names of fields in their order.
fn shape(line: &str) -> String {
    let parsed: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON"));
    let fields: Vec<&str> = keys(line).into_iter().filter(|key| !matches!(*key, "level" | "ts" | "caller" | "msg" | "logger")).collect();
    format!("{} {} {:?} {}", text(&parsed, "level"), text(&parsed, "logger"), text(&parsed, "msg"), fields.join(","))
}

/// Keys of the object itself, in the order of the line.
fn keys(line: &str) -> Vec<&str> {
    let (mut keys, mut depth, mut start, mut in_text, mut escaped) = (Vec::new(), 0, 0, false, false);
    let bytes = line.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => {
                in_text = !in_text;
                if in_text {
                    start = at + 1;
                } else if depth == 1 && bytes.get(at + 1) == Some(&b':') {
                    keys.push(&line[start..at]);
                }
            }
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth -= 1,
            _ => {}
        }
    }
    keys
}

/// What only one side says, and why.
fn is_own(line: &Value) -> bool {
    let message = text(line, "msg");
    // Another engine for the file, and another raft library, whose way to its first state is shorter.
    text(line, "logger") == "bbolt"
        || text(line, "logger") == "raft" && ["newRaft", "became follower", "switched to configuration"].iter().any(|part| message.contains(part))
        // Depends on how busy the machine is.
        || ["trace", "apply request took too long", "request stats", "slow fdatasync"].contains(&message)
        || message.contains("took too long")
        // Depends on the machine's routes.
        || message == "failed to detect default host" || message == "detected default host for advertise"
        // Go's listeners end with an error that is none.
        || message.starts_with("setting up serving from embedded etcd failed.")
        || message.contains("insecure grpc server due to error")
}

/// One start and stop: the lines that both sides must have.
fn life(binaries: &Binaries, dir: &Path) -> Vec<String> {
    let mut member = Member::start(binaries, dir, options(&[]));
    // The storage version is looked after every few seconds in Go.
    wait_for(&member, "\"new-storage-version\":\"3.7.0\"");
    member.stop();
    let log = member.log();
    log.lines().filter(|line| !is_own(&serde_json::from_str(line).expect("lines are JSON"))).map(shape).collect()
}

fn wait_for(member: &Member, part: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !member.log().contains(part) {
        assert!(Instant::now() < deadline, "{part} is never said:\n{}", member.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Lines whose order follows from what happens.
const CHAIN: &[&str] = &[
    "\"Running: \"", "\"Initialize and start etcd server\"", "\"configuring peer listeners\"", "\"configuring client listeners\"",
    "\"starting an etcd server\"", "\"opened backend db\"", "\"bootstrapping raft\"", "\"starting local member\"",
    "\"bootstrap successfully\"", "\"kvstore restored\"", "\"starting etcd server\"", "\"now serving peer/client/metrics\"",
    "is starting a new election at term 1", "became candidate at term 2", "became leader at term 2",
    "elected leader", "\"ready to serve client requests\"", "\"serving client traffic insecurely",
    "\"received signal; shutting down\"", "\"closing etcd server\"", "\"skipped leadership transfer", "\"stopped serving peer traffic\"",
    "\"closed etcd server\"",
];

#[test]
fn a_member_says_what_gos_says_from_start_to_end() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let theirs = life(&go, &scratch.path().join("go"));
    let ours = life(&ours(), &scratch.path().join("ours"));
    for lines in [&theirs, &ours] {
        let places: Vec<usize> = CHAIN
            .iter()
            .map(|part| lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part} in {lines:#?}")))
            .collect();
        assert!(places.is_sorted(), "{places:?} in {lines:#?}");
    }
    let [theirs, ours] = [theirs, ours].map(|lines| lines.into_iter().collect::<BTreeSet<String>>());
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
}

/// What collectors of logs, and etcd's own suite, want of every server.
#[test]
fn at_level_debug_every_line_is_json_and_none_is_an_error() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let ours = ours();
    let mut member = Member::start(&ours, &scratch.path().join("m"), options(&["--log-level=debug"]));
    let ctl = Ctl::new(&ours.etcdctl, &member);
    ctl.ok("put a 1");
    ctl.ok("get a");
    ctl.ok("member list");
    ctl.ok("endpoint status");
    assert_ne!(ctl.run("get a --rev=1000").code, 0);
    assert_ne!(ctl.run("put a 1 --lease=7").code, 0);
    assert_eq!(member.http("/readyz?verbose").map(|(status, _)| status), Some(200));
    member.stop();
    let lines = lines(&member.log());
    let grave: Vec<_> = lines.iter().filter(|line| !matches!(text(line, "level"), "debug" | "info" | "warn")).collect();
    assert!(grave.is_empty(), "{grave:#?}");
    let stats = |method: &str| lines.iter().any(|line| text(line, "msg") == "request stats" && text(line, "response type") == method);
    for method in ["/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.Cluster/MemberList", "/etcdserverpb.Maintenance/Status"] {
        assert!(stats(method), "no line about {method}");
    }
}

/// Lines about work on the whole database.
fn maintenance(binaries: &Binaries, ctl: &Path, scratch: &Path, name: &str) -> Vec<String> {
    let mut member = Member::start(binaries, &scratch.join(name), options(&["--snapshot-count=5"]));
    wait_for(&member, "\"new-storage-version\":\"3.7.0\"");
    let before = member.log().len();
    let ctl = Ctl::new(ctl, &member);
    for i in 0..6 {
        ctl.ok(&format!("put k{i} {i}"));
    }
    wait_for(&member, "saved snapshot to disk");
    ctl.ok("compaction 4 --physical");
    ctl.ok("compaction 6 --physical");
    let file = scratch.join(format!("{name}.snapshot"));
    ctl.run_raw(&["snapshot", "save", &file.display().to_string()]).ok();
    ctl.ok("defrag");
    wait_for(&member, "finished defragment\"");
    member.stop();
    let log = member.log();
    let lines = log[before..].lines().filter(|line| !is_own(&serde_json::from_str(line).expect("lines are JSON")));
    // Nothing of the health service changes here by a defragmentation, so nothing is said of it.
    let lines = lines.map(shape).filter(|line| !line.contains("grpc service status changed"));
    let mut lines: Vec<String> = lines.take_while(|line| !line.contains("received signal")).collect();
    // How often a snapshot is due depends on how entries come together.
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn work_on_the_database_is_told_of_in_gos_words() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let theirs = maintenance(&go, &go.etcdctl, scratch.path(), "go");
    let ours = maintenance(&ours(), &go.etcdctl, scratch.path(), "ours");
    assert_eq!(theirs, ours);
    assert!(theirs.len() > 8, "{theirs:#?}");
}

/// Requests whose lines are compared whole, but for times and ids.
fn slow_requests(ctl: &Ctl<'_>) {
    ctl.ok("put a 1");
    ctl.ok("put a 333 --prev-kv");
    ctl.ok("get a");
    ctl.run_raw(&["get", "", "--prefix", "--limit=3", "--rev=2", "--sort-by=VALUE", "--order=DESCEND"]).ok();
    ctl.ok("del a");
    ctl.ok_with("txn", "version(\"b\") = \"1\"\nvalue(\"a\") > \"1\"\n\nput b 3\ndel c\nget b\n\nput d 1\n\n");
    ctl.ok_with("txn", "version(\"b\") = \"9\"\n\nget b\n\nget c\n\n");
    ctl.ok("compaction 3");
    assert_ne!(ctl.run("compaction 3").code, 0);
    assert_ne!(ctl.run("put z 1 --lease=1234").code, 0);
    assert_ne!(ctl.run("get a --rev=1").code, 0);
    ctl.ok("alarm list");
    ctl.run_raw(&["put", "\u{1}\u{e9}", "x"]).ok();
}

/// The two kinds of lines about requests, with everything in them that is not a time or an id.
fn request_lines(binaries: &Binaries, ctl: &Path, dir: &Path) -> Vec<String> {
    let mut member =
        Member::start(binaries, dir, options(&["--warning-apply-duration=1ns", "--warning-unary-request-duration=1ns"]));
    let before = member.log().len();
    slow_requests(&Ctl::new(ctl, &member));
    member.stop();
    let log = member.log();
    let wanted = |line: &&Value| {
        matches!(text(line, "msg"), "apply request took too long" | "failed to apply request" | "request stats")
            // The harness, and each side's own calls: nothing is told of them.
            && !text(line, "request").contains("cluster_") && line["request count"] != -1
    };
    lines(&log[before..]).iter().filter(wanted).map(request_line).collect()
}

fn request_line(line: &Value) -> String {
    let mut parts = vec![text(line, "level").to_string(), text(line, "msg").to_string()];
    for key in [
        "expected-duration", "prefix", "request", "response", "error", "response type", "request count", "request size",
        "response count", "response size", "request content",
    ] {
        if let Some(value) = line.get(key) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            parts.push(format!("{key}={}", without_ids(&value.replace("  ", " "))));
        }
    }
    parts.join("|")
}

/// Request ids go, because they count from the time of the start.
fn without_ids(text: &str) -> String {
    let Some((head, rest)) = text.split_once("ID:") else { return text.to_string() };
    format!("{head}ID:N{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn slow_requests_are_told_of_in_gos_words() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut theirs = request_lines(&go, &go.etcdctl, &scratch.path().join("go"));
    let mut ours = request_lines(&ours(), &go.etcdctl, &scratch.path().join("ours"));
    // A line about apply and one about its call may change places.
    theirs.sort();
    ours.sort();
    let differ: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    let extra: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    assert!(differ.is_empty() && extra.is_empty(), "Go alone: {differ:#?}\nours alone: {extra:#?}");
    assert!(theirs.len() > 20, "{theirs:#?}");
}
