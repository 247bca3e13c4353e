//! Every path of the ports for clients, metrics and peers, asked of Go and of ours with the same bytes: status, body
//! and the headers that somebody may look at must be the same.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::Path;

use harness::{Binaries, Member, Options, free_port, go_release, ours};
use parity::Ctl;
use parity::http::{Answer, port_of, request};

/// Headers that are compared.
const HEADERS: &[&str] = &[
    "allow", "content-type", "location", "x-content-type-options", "x-etcd-cluster-id", "x-server-version",
    "access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers", "content-encoding",
];

/// Both servers under ids of their own choice, so that answers that show ids are the same.
fn options(more: &[String]) -> Options {
    let mut flags: Vec<String> = ["--initial-advertise-peer-urls=http://127.0.0.1:9", "--initial-cluster=m0=http://127.0.0.1:9"]
        .iter()
        .map(ToString::to_string)
        .collect();
    flags.extend_from_slice(more);
    Options { flags, ..Options::default() }
}

/// What of an answer is compared.
fn seen(answer: &Answer) -> String {
    let headers: Vec<String> =
        HEADERS.iter().filter_map(|name| Some(format!("{name}: {}", answer.header(name)?))).collect();
    format!("{}\n{}\n\n{}", answer.status, headers.join("\n"), answer.body)
}

/// One request.
struct Probe {
    method: &'static str,
    path: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
}

fn get(path: &'static str) -> Probe {
    Probe { method: "GET", path, headers: Vec::new(), body: Vec::new() }
}

fn with(method: &'static str, path: &'static str) -> Probe {
    Probe { method, ..get(path) }
}

impl Probe {
    fn headers(mut self, lines: &[&str]) -> Probe {
        self.headers.extend(lines.iter().map(ToString::to_string));
        self
    }

    fn body(mut self, body: &[u8]) -> Probe {
        self.body = body.to_vec();
        self
    }

    fn ask(&self, port: u16) -> Answer {
        let headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        request(port, self.method, self.path, &headers, &self.body)
    }
}

/// Sends all probes to one port of both; `adjust` blanks what may differ.
fn compare(theirs: u16, ours: u16, probes: &[Probe], adjust: impl Fn(&str, String) -> String) {
    let mut differ = Vec::new();
    for probe in probes {
        // Go's protobuf library puts another kind of space into its errors, lest anybody compares them.
        let [go, we] = [theirs, ours].map(|port| adjust(probe.path, seen(&probe.ask(port)).replace('\u{a0}', " ")));
        if go != we {
            differ.push(format!("{} {} {:?}\n--- Go\n{go}\n--- ours\n{we}", probe.method, probe.path, probe.headers));
        }
    }
    assert!(differ.is_empty(), "{} of {} differ\n{}", differ.len(), probes.len(), differ.join("\n\n"));
}

/// Go lists the checks of `/readyz` in an order of its own each time.
fn sorted_checks(path: &str, answer: String) -> String {
    if !path.starts_with("/readyz") {
        return answer;
    }
    let (head, body) = answer.split_once("\n\n").expect("head and body");
    let mut checks: Vec<&str> = body.lines().collect();
    checks.sort_unstable();
    format!("{head}\n\n{}", checks.join("\n"))
}

fn health_probes() -> Vec<Probe> {
    [
        "/health", "/health/", "/health?exclude=NOSPACE", "/health?exclude=FOO&exclude=CORRUPT", "/health?serializable=true",
        "/health?serializable=1", "/livez", "/livez/", "/livez?verbose", "/livez?verbose=1", "/livez/serializable_read",
        "/livez/serializable_read?verbose", "/livez/foo", "/livez?exclude=serializable_read&verbose",
        "/livez?exclude=foo&verbose", "/livez?exclude=foo", "/livez?exclude=serializable%5Fread&verbose", "/livezz",
        "/readyz", "/readyz?verbose", "/readyz?exclude=linearizable_read&verbose", "/readyz/linearizable_read?verbose",
        "/readyz/data_corruption", "/readyz/non_learner", "/readyz/serializable_read", "/readyz/x", "/foo", "/", "//health",
        "/a/../livez?verbose", "/metrics/",
    ]
    .map(get)
    .into_iter()
    .chain(["HEAD", "POST", "PUT", "DELETE"].into_iter().flat_map(|method| {
        ["/health", "/livez", "/readyz", "/readyz/non_learner", "/foo", "//health"].map(|path| with(method, path))
    }))
    .collect()
}

#[test]
fn the_client_port_answers_as_gos() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let [theirs, ours] = start_both(&go, scratch.path(), |_| options(&[]));
    let mut probes = health_probes();
    probes.extend(
        [
            "/version", "/version/", "/version?x=1", "/debug", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap",
            "/debug/requests", "/config/local/log", "//version", "/a/../version", "/a/./../../version/", "/v2/keys", "/v3",
            "/v3beta", "/v3alpha/kv/range", "/v2/stats/self", "//v3?a=1&b=2",
        ]
        .map(get),
    );
    for (method, path) in [
        ("HEAD", "/version"), ("POST", "/version"), ("POST", "/debug/vars"), ("PUT", "/config/local/log"),
        ("OPTIONS", "/version"), ("OPTIONS", "/foo"), ("OPTIONS", "*"), ("POST", "/foo"), ("HEAD", "/metrics"),
        ("POST", "//version"),
    ] {
        probes.push(with(method, path));
    }
    for line in ["Origin: http://a.example", "Host: evil.example", "Host:", "Authorization: x"] {
        probes.push(get("/version").headers(&[line]));
    }
    compare(port_of(&theirs.client_url()), port_of(&ours.client_url()), &probes, sorted_checks);
    for member in [&theirs, &ours] {
        let port = port_of(&member.client_url());
        let packed = request(port, "GET", "/metrics", &["Accept-Encoding: gzip"], &[]);
        assert_eq!((packed.status, packed.header("content-encoding")), (200, Some("gzip")));
        let vars = request(port, "GET", "/debug/vars", &[], &[]);
        assert_eq!(vars.header("content-type"), Some("application/json; charset=utf-8"));
        for part in ["\"cmdline\": [", "\"file_descriptor_limit\": ", "\"raftState\":\"StateLeader\"", "\"leadtransferee\":\"0\""] {
            assert!(vars.body.contains(part), "{part} is missing in {}", vars.body);
        }
    }
}

fn start_both(go: &Binaries, scratch: &Path, options: impl Fn(&str) -> Options) -> [Member; 2] {
    [(go.clone(), "go"), (ours(), "ours")].map(|(binaries, name)| {
        let member = Member::start(&binaries, &scratch.join(name), options(name));
        // The version of the cluster is agreed on, and the storage version raised, after the start.
        let version = || request(port_of(&member.client_url()), "GET", "/version", &[], &[]).body;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !version().contains("\"3.7.0\",\"storage\":\"3.7.0\"") {
            assert!(std::time::Instant::now() < deadline, "{name} says {}", version());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        member
    })
}

#[test]
fn hosts_and_origins_are_checked_as_in_go() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let ports = [free_port(), free_port()];
    let [theirs, ours] = [(go, 0), (ours(), 1)].map(|(binaries, at)| {
        let flags = [
            "--cors=http://a.example:80,http://b.example:81".to_string(),
            // The harness asks under this name whether the member serves.
            "--host-whitelist=good.example,localhost".to_string(),
            format!("--listen-metrics-urls=http://127.0.0.1:{}", ports[at]),
        ];
        Member::start(&binaries, &scratch.path().join(at.to_string()), options(&flags))
    });
    let mut probes = Vec::new();
    for host in ["good.example", "good.example:99", "evil.example", "localhost:2379", "[::1]:1", "10.0.0.1", ""] {
        for origin in ["http://a.example:80", "http://b.example:81", "http://c.example", ""] {
            let lines = [format!("Host: {host}"), format!("Origin: {origin}")];
            let lines: Vec<&str> = lines.iter().map(String::as_str).take(if origin.is_empty() { 1 } else { 2 }).collect();
            probes.push(get("/health").headers(&lines));
            probes.push(with("OPTIONS", "/foo").headers(&lines));
            probes.push(get("/foo").headers(&lines));
        }
    }
    compare(port_of(&theirs.client_url()), port_of(&ours.client_url()), &probes, sorted_checks);
    let mut probes = health_probes();
    for path in ["/version", "/debug/vars", "/v3/kv/range", "/health", "/metrics/"] {
        probes.push(get(path).headers(&["Host: evil.example", "Origin: http://a.example:80"]));
        probes.push(with("OPTIONS", path));
    }
    compare(ports[0], ports[1], &probes, sorted_checks);
}

#[test]
fn http_has_its_own_port_if_that_is_asked_for() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    for binaries in [go.clone(), ours()] {
        let port = free_port();
        let flags = options(&[format!("--listen-client-http-urls=http://127.0.0.1:{port}")]);
        let member = Member::spawn(&binaries, &scratch.path().join(&binaries.label), flags);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while request(port, "GET", "/health", &[], &[]).status != 200 {
            assert!(std::time::Instant::now() < deadline, "{}: {}", binaries.label, member.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(request(port, "GET", "/version", &[], &[]).status, 200);
        // The other one speaks gRPC, and nothing else.
        assert_eq!(request(port_of(&member.client_url()), "GET", "/health", &[], &[]).status, 0);
        assert_eq!(Ctl::new(&go.etcdctl, &member).ok("put a 1"), "OK\n");
    }
}

#[test]
fn an_alarm_shows_in_health_as_in_go() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let [theirs, ours] = start_both(&go, scratch.path(), |_| options(&["--quota-backend-bytes=16777216".to_string()]));
    let value = "x".repeat(120_000);
    for member in [&theirs, &ours] {
        let ctl = Ctl::new(&go.etcdctl, member);
        let full = (0..400).any(|i| ctl.run_raw(&["put", &format!("k{i}"), &value]).code != 0);
        assert!(full, "the quota is never reached");
    }
    let probes: Vec<Probe> =
        ["/health", "/health?exclude=NOSPACE", "/health?serializable=true", "/livez?verbose", "/readyz?verbose"].map(get).into();
    compare(port_of(&theirs.client_url()), port_of(&ours.client_url()), &probes, sorted_checks);
}

#[test]
fn what_is_not_there_yet_says_so() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let member = Member::start(&ours(), &scratch.path().join("m"), options(&["--enable-pprof".to_string()]));
    let port = port_of(&member.client_url());
    for path in ["/v3/kv/range", "/v3/", "/v3beta/watch"] {
        let answer = request(port, "POST", path, &[], b"{}");
        assert_eq!((answer.status, answer.header("content-type")), (501, Some("application/json")));
        assert!(answer.body.contains("gateway is not available"), "{}", answer.body);
    }
    let answer = request(port, "GET", "/debug/pprof/heap", &[], &[]);
    assert_eq!(answer.status, 501);
    assert!(answer.body.contains("not available"), "{}", answer.body);
}

/// `POST /raft` and its kin, with headers that fit the cluster.
fn raft(method: &'static str, path: &'static str, cluster: &str) -> Probe {
    with(method, path).headers(&[
        "X-Server-From: 1234",
        "X-Server-Version: 3.7.3",
        "X-Min-Cluster-Version: 3.0.0",
        &format!("X-Etcd-Cluster-ID: {cluster}"),
    ])
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A heartbeat's answer from member 0x1234 to `to`.
fn heartbeat_answer(to: u64) -> Vec<u8> {
    let mut out = vec![0x08, 0x09, 0x10];
    out.extend(varint(to));
    out.extend([0x18, 0xb4, 0x24, 0x20, 0x01]);
    out
}

fn peer_probes(cluster: &str, member: u64) -> Vec<Probe> {
    let raft = |method, path| raft(method, path, cluster);
    let said = |version: &str, min: &str, cluster: &str| {
        with("POST", "/raft").headers(&[
            &format!("X-Server-Version: {version}"),
            &format!("X-Min-Cluster-Version: {min}"),
            &format!("X-Etcd-Cluster-ID: {cluster}"),
        ])
    };
    let mut probes = vec![
        raft("GET", "/raft"), raft("PUT", "/raft"), with("POST", "/raft"), raft("POST", "/raft/"),
        said("2.3.0", "3.0.0", cluster), said("3.7.3", "3.9.0", cluster), said("3.7.3", "3.0.0", "deadbeef"),
        said("4.0.0", "3.0.0", cluster).body(&heartbeat_answer(member)), said("3.7.3", "3.7.0", cluster),
        raft("POST", "/raft"), raft("POST", "/raft").body(&[0xff; 3]), raft("POST", "/raft").body(&heartbeat_answer(999)),
        raft("POST", "/raft").body(&heartbeat_answer(member)),
        raft("POST", "/raft/stream/message/1234"), with("GET", "/raft/stream/message/1234"),
        with("GET", "/raft/stream/message/1234").headers(&["X-Server-Version: 3.7.3", "X-Min-Cluster-Version: 3.0.0"]),
        raft("GET", "/raft/stream/msgapp/1234").headers(&["X-Raft-To: 77"]),
        raft("GET", "/raft/snapshot"), with("POST", "/raft/snapshot"), raft("POST", "/raft/snapshot"),
        raft("POST", "/raft/snapshot").body(&[0, 0, 0, 0, 0, 0, 0, 2, 8, 8]),
        raft("POST", "/raft/snapshot").body(&[0, 0, 0, 1, 0, 0, 0, 0]),
        raft("POST", "/raft/snapshot").body(&[0, 0, 0, 0, 0, 0, 0, 9, 8]),
        raft("POST", "/raft/snapshot").body(&[0, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff]),
        raft("POST", "/raft/snapshot").body(&[0, 0, 0]),
        with("POST", "/raft/probing"), get("/raft/probing"), get("/raft/foo"),
    ];
    for path in [
        "/raft/stream/msgapp/1234", "/raft/stream/message/1234", "/raft/stream/foo/1234", "/raft/stream/msgapp/zzzz",
        "/raft/stream/msgapp/", "/raft/stream/msgapp", "/raft/stream/", "/raft/stream",
    ] {
        probes.push(raft("GET", path));
    }
    for path in ["/members", "/members/", "/members?x=1", "/members/x", "/version", "/health", "/metrics", "/", "//members"] {
        probes.push(get(path));
    }
    for path in ["/members", "/version", "/members/hashkv", "/downgrade/enabled", "/leases/foo"] {
        probes.push(with("POST", path));
        probes.push(with("HEAD", path));
        probes.push(with("OPTIONS", path));
    }
    for path in ["/members/promote/", "/members/promote/abc", "/members/promote/1", "/members/promote"] {
        probes.push(with("POST", path));
        probes.push(get(path));
    }
    probes.extend(["/leases", "/leases/internal", "/members/hashkv/", "/downgrade/enabled", "/downgrade/enabled/"].map(get));
    let malformed: &[u8] = &[0xff, 0xff];
    for (path, unknown) in [("/leases", &[8, 7][..]), ("/leases/internal", &[10, 2, 8, 7])] {
        probes.push(with("POST", path).body(unknown));
        probes.push(with("POST", path).body(malformed));
    }
    probes.push(with("POST", "/leases"));
    for body in ["{\"revision\":0}", "{\"revision\":1}", "{\"revision\":100}", "x", "", "{}", "{\"revision\":\"1\"}"] {
        probes.push(with_length("/members/hashkv", body));
    }
    probes.push(with_length("/members/hashkv", "{\"revision\":0}").headers(&["X-Etcd-Cluster-ID: deadbeef"]));
    probes
}

fn with_length(path: &'static str, body: &str) -> Probe {
    get(path).body(body.as_bytes())
}

#[test]
fn the_peer_port_answers_strangers_as_gos() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let [theirs, ours] = start_both(&go, scratch.path(), |_| options(&[]));
    let [their_port, our_port] = [&theirs, &ours].map(|member| port_of(&member.peer_url()));
    let members = request(their_port, "GET", "/members", &[], &[]);
    let cluster = members.header("x-etcd-cluster-id").expect("who asks learns the cluster").to_string();
    let member: u64 = members
        .body
        .trim_start_matches("[{\"id\":")
        .split(',')
        .next()
        .and_then(|id| id.parse().ok())
        .expect("the list begins with an id");
    let ports = [theirs.client_url(), ours.client_url()];
    compare(their_port, our_port, &peer_probes(&cluster, member), |path, answer| match path {
        // Clocks go on, and client URLs are each member's own.
        "/raft/probing" => answer.split("\"Now\":").next().unwrap_or_default().to_string(),
        _ => ports.iter().fold(answer, |answer, url| answer.replace(url.as_str(), "CLIENT")),
    });
}

#[test]
fn leases_are_renewed_and_looked_up_for_peers() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let [theirs, ours] = start_both(&go, scratch.path(), |_| options(&[]));
    let answers = [&theirs, &ours].map(|member| {
        let ctl = Ctl::new(&go.etcdctl, member);
        let granted = ctl.ok("lease grant 100");
        let id = u64::from_str_radix(granted.split(' ').nth(1).expect("the id is second"), 16).expect("hex");
        ctl.ok(&format!("put leased x --lease={id:x}"));
        let mut question = vec![8];
        question.extend(varint(id));
        let port = port_of(&member.peer_url());
        let renewed = request(port, "POST", "/leases", &[], &question);
        question.extend([16, 1]);
        let mut inner = vec![10, question.len() as u8];
        inner.append(&mut question);
        let looked_up = request(port, "POST", "/leases/internal", &[], &inner);
        // All but the id, which is each server's own.
        [renewed, looked_up].map(|answer| {
            let rest = answer.body.chars().rev().take(if answer.body.ends_with("leased") { 11 } else { 2 }).collect::<String>();
            (answer.status, answer.header("content-type").map(str::to_string), rest)
        })
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][0].0, 200);
}
