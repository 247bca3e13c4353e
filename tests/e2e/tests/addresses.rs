//! URLs that are no `http://127.0.0.1:PORT`: IPv6 and files as sockets, for clients and peers, on Go and on ours.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Binaries, Process, free_port, go_release, ours};

/// What servers say when they can be used.
const READY: &str = "ready to serve client requests";
const LIMIT: Duration = Duration::from_secs(30);

/// Client and peer URL of one member.
type Urls = (String, String);

/// Runs `etcdctl` where the sockets are: code and what it printed.
fn ctl(program: &Path, dir: &Path, endpoints: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program)
        .arg(format!("--endpoints={endpoints}"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.code(), text)
}

/// The exit code, or -1 for a signal.
trait Code {
    fn code(&self) -> i32;
}

impl Code for std::process::Output {
    fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

/// Founds a cluster on these URLs, uses it through every member, and says what was seen, a line for each thing.
fn cluster(binaries: &Binaries, etcdctl: &Path, urls: &[Urls]) -> Vec<String> {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let dir = scratch.path();
    let initial: Vec<String> = urls.iter().enumerate().map(|(i, (_, peer))| format!("m{i}={peer}")).collect();
    let mut members: Vec<Process> = Vec::new();
    for (i, (client, peer)) in urls.iter().enumerate() {
        let arguments = [
            format!("--name=m{i}"),
            format!("--data-dir=data{i}"),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", initial.join(",")),
        ];
        members.push(Process::start(&binaries.etcd, &arguments, &dir.join(format!("log{i}"))));
    }
    members.iter_mut().for_each(|member| member.wait_for(READY, LIMIT));
    let mut seen = Vec::new();
    for (i, (client, _)) in urls.iter().enumerate() {
        let (key, value) = (format!("k{i}"), format!("v{i}"));
        let start = Instant::now();
        // A member may be ready before it knows of the leader.
        let put = loop {
            let put = ctl(etcdctl, dir, client, &["put", &key, &value]);
            if put.0 == 0 || start.elapsed() > LIMIT {
                break put;
            }
        };
        seen.push(format!("put through {i}: {put:?}"));
        for (j, (other, _)) in urls.iter().enumerate() {
            seen.push(format!("get through {j}: {:?}", ctl(etcdctl, dir, other, &["get", &key])));
        }
    }
    // Ids follow from URLs, so that they are the same.
    seen.push(format!("members: {:?}", ctl(etcdctl, dir, &urls[0].0, &["member", "list"])));
    let all: Vec<&str> = urls.iter().map(|(client, _)| client.as_str()).collect();
    let (code, health) = ctl(etcdctl, dir, &all.join(","), &["endpoint", "health", "--cluster"]);
    let mut health: Vec<&str> = health.lines().map(|line| line.split(": successfully").next().unwrap_or(line)).collect();
    health.sort_unstable();
    seen.push(format!("health: {code} {health:?}"));
    let (code, status) = ctl(etcdctl, dir, &all.join(","), &["endpoint", "status"]);
    let names: Vec<&str> = status.lines().map(|line| line.split(", ").next().unwrap_or_default()).collect();
    seen.push(format!("status: {code} {names:?}"));
    seen
}

/// The same on Go and on ours, with either `etcdctl`.
fn both(urls: &[Urls]) {
    let (Some(go), ours) = (go_release("3.7.3"), ours()) else { return };
    let on_go = cluster(&go, &go.etcdctl, urls);
    println!("{on_go:#?}");
    assert!(on_go.iter().filter(|line| line.starts_with("get")).all(|line| line.contains("(0, \"k")), "{on_go:#?}");
    for (server, tool) in [(&ours, &go), (&go, &ours), (&ours, &ours)] {
        let seen = cluster(server, &tool.etcdctl, urls);
        assert_eq!(seen, on_go, "etcdctl {} on etcd {}", tool.label, server.label);
    }
}

fn ipv6(len: usize) -> Vec<Urls> {
    let url = || format!("http://[::1]:{}", free_port());
    (0..len).map(|_| (url(), url())).collect()
}

/// A file in the folder in which the server was started, as etcd names it.
fn sockets(len: usize) -> Vec<Urls> {
    (0..len).map(|i| (format!("unix://client:{i}"), format!("unix://peer:{i}"))).collect()
}

#[test]
fn one_member_on_ipv6() {
    both(&ipv6(1));
}

#[test]
fn three_members_on_ipv6() {
    both(&ipv6(3));
}

#[test]
fn one_member_on_unix_sockets() {
    both(&sockets(1));
}

#[test]
fn three_members_on_unix_sockets() {
    both(&sockets(3));
}
