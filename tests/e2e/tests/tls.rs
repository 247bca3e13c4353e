//! TLS as a user sets it up: who is let in, files that are replaced while the server runs, certificates that it makes
//! itself, ports that also serve in the clear, and connections that never finish a handshake.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Authority, CLIENT, Files, LOOPBACK, Output, Owner, Process, free_port, lone_member, ours, run};

const START_LIMIT: Duration = Duration::from_secs(60);
const READY: &str = "ready to serve client requests";
/// First bytes of a ClientHello that never gets longer.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// A lone member of ours.
struct Server {
    process: Process,
    client: u16,
    peer: u16,
}

impl Server {
    /// With `https` for clients and `http` for peers; `{client}` in a flag is the client port.
    fn start(dir: &Path, flags: &[String]) -> Server {
        Server::on(dir, "https", "http", flags)
    }

    fn on(dir: &Path, client: &str, peer: &str, flags: &[String]) -> Server {
        let (client_port, peer_port) = (free_port(), free_port());
        let [client, peer] = [(client, client_port), (peer, peer_port)].map(|(scheme, port)| {
            let urls = scheme.split('+').map(|scheme| format!("{scheme}://127.0.0.1:{port}"));
            urls.collect::<Vec<_>>().join(",")
        });
        let mut arguments = lone_member(&dir.join("data"), &client, &peer);
        arguments.extend_from_slice(flags);
        let mut process = Process::start(&ours().etcd, &arguments, &dir.join("log"));
        process.wait_for(READY, START_LIMIT);
        Server { process, client: client_port, peer: peer_port }
    }

    /// etcdctl with a certificate, or without.
    fn ctl(&self, ca: &str, own: Option<&Files>, words: &[&str]) -> Output {
        let mut arguments = vec![
            format!("--endpoints=https://127.0.0.1:{}", self.client),
            "--dial-timeout=2s".into(),
            "--command-timeout=3s".into(),
            format!("--cacert={ca}"),
        ];
        if let Some(own) = own {
            arguments.extend([format!("--cert={}", own.cert), format!("--key={}", own.key)]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(words.iter().copied()).collect();
        run(&ours().etcdctl, &arguments)
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.client)).expect("the port is open")
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("scratch is writable")
}

fn served_with(files: &Files) -> Vec<String> {
    vec![format!("--cert-file={}", files.cert), format!("--key-file={}", files.key)]
}

#[test]
fn only_clients_with_a_good_certificate_are_served() {
    let dir = scratch();
    let (ca, other) = (Authority::new(dir.path(), "ca"), Authority::new(dir.path(), "other"));
    let mut flags = served_with(&ca.sign("server", LOOPBACK));
    let crl = ca.revoke("crl", &[0x2001]);
    flags.extend([
        "--client-cert-auth".into(), format!("--trusted-ca-file={}", ca.cert()), format!("--client-crl-file={crl}"),
    ]);
    let mut server = Server::start(dir.path(), &flags);
    let good = ca.sign("client", CLIENT);
    server.ctl(&ca.cert(), Some(&good), &["put", "a", "1"]).ok();
    assert_eq!(server.ctl(&ca.cert(), Some(&good), &["get", "a"]).ok(), "a\n1\n");

    let bad = [
        (None, "tls: client didn't provide a certificate"),
        (Some(other.sign("foreign", CLIENT)), "x509: certificate signed by unknown authority"),
        (Some(ca.sign("expired", Owner { expired: true, ..CLIENT })), "x509: certificate has expired or is not yet valid"),
        (
            Some(ca.sign("server-only", Owner { server: true, client: false, ..CLIENT })),
            "x509: certificate specifies an incompatible key usage",
        ),
        (Some(ca.sign("revoked", Owner { serial: 0x2001, ..CLIENT })), "transport: certificate serial 2001 revoked"),
    ];
    for (files, why) in bad {
        let output = server.ctl(&ca.cert(), files.as_ref(), &["get", "a"]);
        assert_ne!(output.code, 0, "{files:?}: {output:?}");
        assert!(!output.stdout.contains('1'), "{output:?}");
        server.process.wait_for(why, Duration::from_secs(5));
    }
    // The client does not trust the server.
    let output = server.ctl(&other.cert(), Some(&good), &["get", "a"]);
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("x509: certificate signed by unknown authority"), "{output:?}");
    server.process.wait_for("remote error: tls: ", Duration::from_secs(5));
    assert!(server.process.log().contains("rejected connection on client endpoint"));
    server.ctl(&ca.cert(), Some(&good), &["get", "a"]).ok();
}

#[test]
fn a_host_name_can_be_demanded_of_clients() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let mut flags = served_with(&ca.sign("server", LOOPBACK));
    flags.extend([
        "--client-cert-auth".into(), format!("--trusted-ca-file={}", ca.cert()),
        "--client-cert-allowed-hostname=one.example,two.example".into(),
    ]);
    let mut server = Server::start(dir.path(), &flags);
    let named = ca.sign("named", Owner { hosts: &["two.example"], ..CLIENT });
    server.ctl(&ca.cert(), Some(&named), &["put", "a", "1"]).ok();
    let other = ca.sign("other", Owner { hosts: &["three.example"], ..CLIENT });
    assert_ne!(server.ctl(&ca.cert(), Some(&other), &["get", "a"]).code, 0);
    server.process.wait_for(
        "\"ip-addresses\":[],\"dns-names\":[\"three.example\"],\"error\":\"client certificate authentication failed\"",
        Duration::from_secs(5),
    );
}

#[test]
fn replaced_files_are_used_without_a_restart() {
    let dir = scratch();
    let (ca, next) = (Authority::new(dir.path(), "ca"), Authority::new(dir.path(), "next"));
    let trusted = dir.path().join("trusted.pem").display().to_string();
    std::fs::copy(ca.cert(), &trusted).expect("scratch is writable");
    let mut flags = served_with(&ca.sign("server", LOOPBACK));
    let crl = ca.revoke("crl", &[]);
    flags.extend([
        "--client-cert-auth".into(), format!("--trusted-ca-file={trusted}"), format!("--client-crl-file={crl}"),
    ]);
    let mut server = Server::start(dir.path(), &flags);
    let client = ca.sign("client", CLIENT);
    server.ctl(&ca.cert(), Some(&client), &["put", "a", "1"]).ok();

    ca.sign("server", Owner { expired: true, ..LOOPBACK });
    let output = server.ctl(&ca.cert(), Some(&client), &["get", "a"]);
    assert!(output.stderr.contains("certificate has expired or is not yet valid"), "{output:?}");
    // What cannot be used does not take away what is in use.
    std::fs::write(dir.path().join("server.pem"), "garbage").expect("scratch is writable");
    assert_ne!(server.ctl(&ca.cert(), Some(&client), &["get", "a"]).code, 0);
    server.process.wait_for("failed to create peer certificate", Duration::from_secs(5));
    ca.sign("server", LOOPBACK);
    server.ctl(&ca.cert(), Some(&client), &["get", "a"]).ok();

    // A certificate is revoked while the server runs.
    ca.revoke("crl", &[CLIENT.serial]);
    assert_ne!(server.ctl(&ca.cert(), Some(&client), &["get", "a"]).code, 0);
    server.process.wait_for("transport: certificate serial 1002 revoked", Duration::from_secs(5));
    ca.revoke("crl", &[]);

    // Another authority takes over.
    let successor = next.sign("successor", Owner { serial: 7, ..CLIENT });
    assert_ne!(server.ctl(&ca.cert(), Some(&successor), &["get", "a"]).code, 0);
    std::fs::copy(next.cert(), &trusted).expect("scratch is writable");
    server.ctl(&ca.cert(), Some(&successor), &["get", "a"]).ok();
    assert_ne!(server.ctl(&ca.cert(), Some(&client), &["get", "a"]).code, 0);
}

#[test]
fn a_certificate_of_its_own_is_made_once() {
    let dir = scratch();
    let flags = ["--auto-tls".to_string(), "--peer-auto-tls".to_string()];
    let read = |side: &str| {
        ["cert.pem", "key.pem"].map(|name| {
            std::fs::read(dir.path().join("data/fixtures").join(side).join(name)).expect("the server made it")
        })
    };
    let trust_any = |server: &Server, words: &[&str]| {
        let endpoint = format!("--endpoints=https://127.0.0.1:{}", server.client);
        let words: Vec<&str> = [endpoint.as_str(), "--insecure-skip-tls-verify"].iter().chain(words).copied().collect();
        run(&ours().etcdctl, &words)
    };
    let server = Server::on(dir.path(), "https", "https", &flags);
    trust_any(&server, &["put", "a", "1"]).ok();
    let made = ["client", "peer"].map(read);
    assert!(server.process.log().contains("automatically generate certificates"));
    drop(server);
    let log = dir.path().join("log");
    std::fs::remove_file(&log).expect("the log is there");
    let server = Server::on(dir.path(), "https", "https", &flags);
    assert_eq!(trust_any(&server, &["get", "a"]).ok(), "a\n1\n");
    assert_eq!(["client", "peer"].map(read), made);
    assert!(!server.process.log().contains("automatically generate certificates"));
}

#[test]
fn one_port_serves_in_the_clear_and_through_tls() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let server = Server::on(dir.path(), "http+https", "http", &served_with(&ca.sign("server", LOOPBACK)));
    server.ctl(&ca.cert(), None, &["put", "a", "1"]).ok();
    let clear = format!("--endpoints=http://127.0.0.1:{}", server.client);
    assert_eq!(run(&ours().etcdctl, &[&clear, "get", "a"]).ok(), "a\n1\n");
    let mut stream = server.connect();
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let log = server.process.log();
    assert!(log.contains("serving client traffic securely") && log.contains("serving client traffic insecurely"));
}

#[test]
fn large_values_pass_through_tls() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let server = Server::start(dir.path(), &served_with(&ca.sign("server", LOOPBACK)));
    let value = "0123456789abcdef".repeat(64 << 10);
    for key in ["a", "b", "c"] {
        let endpoint = format!("--endpoints=https://127.0.0.1:{}", server.client);
        let cacert = format!("--cacert={}", ca.cert());
        harness::run_with_input(&ours().etcdctl, &[&endpoint, &cacert, "put", key], &value).ok();
    }
    let all = server.ctl(&ca.cert(), None, &["get", "", "--prefix", "--print-value-only"]).ok();
    assert_eq!(all.len(), 3 * (value.len() + 1));
    assert!(all.lines().all(|line| line == value));
}

/// curl, without which HTTP/2 cannot be asked for here.
///
/// `None`, said loudly, where it is missing; under CI (`CI=true`) that is a failure.
fn curl(words: &[&str]) -> Option<String> {
    let path = Path::new("/usr/bin/curl");
    if !path.exists() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "curl is missing");
        eprintln!("SKIPPED: there is no curl");
        return None;
    }
    Some(run(path, &[&["-sS", "--max-time", "10", "-w", " HTTP/%{http_version} %{http_code}"], words].concat()).stdout)
}

#[test]
fn http_and_metrics_have_listeners_of_their_own() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let (http, metrics) = (free_port(), free_port());
    let mut flags = served_with(&ca.sign("server", LOOPBACK));
    flags.extend([
        format!("--listen-client-http-urls=https://127.0.0.1:{http}"), format!("--listen-metrics-urls=https://127.0.0.1:{metrics}"),
    ]);
    let server = Server::start(dir.path(), &flags);
    server.ctl(&ca.cert(), None, &["put", "a", "1"]).ok();
    let cacert = ca.cert();
    let ask = |port: u16, words: &[&str], path: &str| {
        let url = format!("https://127.0.0.1:{port}{path}");
        curl(&[&["--cacert", &cacert, &url][..], words].concat())
    };
    let Some(answer) = ask(http, &["--http2"], "/health") else { return };
    assert_eq!(answer, "{\"health\":\"true\",\"reason\":\"\"} HTTP/2 200");
    assert!(ask(http, &["--http1.1"], "/version").is_some_and(|answer| answer.ends_with("HTTP/1.1 200")));
    assert!(ask(metrics, &[], "/metrics").is_some_and(|answer| answer.contains("\netcd_server_has_leader 1\n")));
    // There is no gRPC on the port for HTTP, and nothing else on the port for gRPC.
    let grpc = ["--http2", "-H", "content-type: application/grpc", "-d", "x"];
    assert!(ask(http, &grpc, "/etcdserverpb.KV/Range").is_some_and(|answer| answer.ends_with("HTTP/2 404")));
    assert!(ask(server.client, &["--http2"], "/health").is_some_and(|answer| answer.ends_with("HTTP/2 415")));
    assert!(ask(server.client, &["--http1.1"], "/health").is_some_and(|answer| answer.ends_with("HTTP/0 000")));
}

#[test]
fn a_socket_file_can_be_served_through_tls() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let (name, peer) = (format!("localhost:{}", free_port()), free_port());
    let mut arguments = lone_member(&dir.path().join("data"), &format!("unixs://{name}"), &format!("http://127.0.0.1:{peer}"));
    arguments.extend(served_with(&ca.sign("server", LOOPBACK)));
    let mut process = Process::start(&ours().etcd, &arguments, &dir.path().join("log"));
    process.wait_for(READY, START_LIMIT);
    let socket = dir.path().join(&name).display().to_string();
    let words = ["--cacert", &ca.cert(), "--unix-socket", &socket, "https://localhost/health"];
    let Some(answer) = curl(&words) else { return };
    assert!(answer.ends_with("HTTP/2 200"), "{answer}");
}

/// Resident memory in bytes.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).expect("a number") << 10
}

#[test]
fn handshakes_that_never_end_keep_nobody_out() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let mut server = Server::start(dir.path(), &served_with(&ca.sign("server", LOOPBACK)));
    server.ctl(&ca.cert(), None, &["put", "a", "1"]).ok();
    let before = memory(server.process.pid());
    let mut stalled = Vec::new();
    for number in 0..1000 {
        let mut stream = server.connect();
        if number % 2 == 0 {
            stream.write_all(HALF_A_HELLO).expect("it is open");
        }
        stalled.push(stream);
    }
    let begun = Instant::now();
    for _ in 0..3 {
        server.ctl(&ca.cert(), None, &["get", "a"]).ok();
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let grown = memory(server.process.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for a thousand connections");
    server.process.wait_for("tls: too many handshakes under way", Duration::from_secs(5));
    // Those that were let in are closed when their time is up.
    let mut last = stalled.pop().expect("there were a thousand");
    last.set_read_timeout(Some(Duration::from_secs(20))).expect("a time can be set");
    assert_eq!(last.read(&mut [0; 64]).expect("it is closed, not cut off"), 0);
    server.process.wait_for("tls: handshake timeout", Duration::from_secs(5));
    server.ctl(&ca.cert(), None, &["get", "a"]).ok();
}

#[test]
fn garbage_on_a_tls_port_is_closed_and_said() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let files = ca.sign("server", LOOPBACK);
    let mut flags = served_with(&files);
    flags.extend([format!("--peer-cert-file={}", files.cert), format!("--peer-key-file={}", files.key)]);
    let mut server = Server::on(dir.path(), "https", "https", &flags);
    let record = [&b"\x16\x03\x01\x40\x00"[..], &[0xa5; 0x4000]].concat();
    let inputs: [&[u8]; 5] = [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0", &record, HALF_A_HELLO];
    for port in [server.client, server.peer] {
        for input in inputs {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time can be set");
            // The server may have closed it before all is written.
            let _cut_off = stream.write_all(input);
            let _ended = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            // At most an alert.
            let _reset = stream.read_to_end(&mut answer);
            assert!(answer.len() <= 7, "{answer:?}");
        }
    }
    for text in [
        "rejected connection on client endpoint", "rejected connection on peer endpoint",
        "tls: first record does not look like a TLS handshake", "unexpected EOF",
    ] {
        server.process.wait_for(text, Duration::from_secs(5));
    }
    server.ctl(&ca.cert(), None, &["put", "a", "1"]).ok();
    assert!(!server.process.log().contains("panic"));
}

/// The flags of a well-known guide to clusters of two.
#[test]
fn two_nodes_form_a_cluster_over_tls() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let node = ca.sign("node", LOOPBACK);
    let ports: Vec<(u16, u16)> = (0..2).map(|_| (free_port(), free_port())).collect();
    let founders: Vec<String> =
        ports.iter().enumerate().map(|(i, (_, peer))| format!("controller-{i}=https://127.0.0.1:{peer}")).collect();
    let start = |i: usize| {
        let (client, peer) = ports[i];
        let arguments: Vec<String> = [
            ("--name", format!("controller-{i}")),
            ("--cert-file", node.cert.clone()),
            ("--key-file", node.key.clone()),
            ("--peer-cert-file", node.cert.clone()),
            ("--peer-key-file", node.key.clone()),
            ("--trusted-ca-file", ca.cert()),
            ("--peer-trusted-ca-file", ca.cert()),
            ("--peer-client-cert-auth", String::new()),
            ("--client-cert-auth", String::new()),
            ("--initial-advertise-peer-urls", format!("https://127.0.0.1:{peer}")),
            ("--listen-peer-urls", format!("https://127.0.0.1:{peer}")),
            ("--listen-client-urls", format!("https://127.0.0.1:{client}")),
            ("--advertise-client-urls", format!("https://127.0.0.1:{client}")),
            ("--initial-cluster-token", "etcd-cluster-0".into()),
            ("--initial-cluster", founders.join(",")),
            ("--initial-cluster-state", "new".into()),
            ("--data-dir", dir.path().join(format!("node{i}")).display().to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| {
            let is_switch = value.is_empty();
            std::iter::once(name.to_string()).chain((!is_switch).then_some(value))
        })
        .collect();
        Process::start(&ours().etcd, &arguments, &dir.path().join(format!("log{i}")))
    };
    let mut nodes: Vec<Process> = (0..2).map(start).collect();
    for node in &mut nodes {
        node.wait_for(READY, START_LIMIT);
    }
    let endpoints = format!("--endpoints=https://127.0.0.1:{},https://127.0.0.1:{}", ports[0].0, ports[1].0);
    let [cacert, cert, key] =
        [("cacert", &ca.cert()), ("cert", &node.cert), ("key", &node.key)].map(|(name, path)| format!("--{name}={path}"));
    let all = [endpoints.as_str(), &cacert, &cert, &key];
    let ctl = |words: &[&str]| run(&ours().etcdctl, &[&all[..], words].concat());
    let members = ctl(&["member", "list"]).ok();
    assert_eq!(members.lines().filter(|line| line.contains(", started, controller-")).count(), 2, "{members}");
    ctl(&["put", "a", "1"]).ok();
    assert_eq!(ctl(&["get", "a"]).ok(), "a\n1\n");
    // Nothing for those without a certificate, on either port.
    let refused = run(&ours().etcdctl, &[&endpoints, &cacert, "--dial-timeout=1s", "--command-timeout=2s", "get", "a"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    nodes[0].wait_for("tls: client didn't provide a certificate", Duration::from_secs(5));
    // A node comes back to the other.
    nodes.remove(1);
    std::fs::remove_file(dir.path().join("log1")).expect("the log is there");
    nodes.push(start(1));
    nodes[1].wait_for(READY, START_LIMIT);
    ctl(&["put", "a", "2"]).ok();
    assert_eq!(ctl(&["get", "a"]).ok(), "a\n2\n");
}

/// Members of a cluster on loopback whose peers speak TLS with `files`, and trust `trusted`.
struct Peers<'a> {
    dir: &'a Path,
    files: &'a Files,
    trusted: &'a str,
    ports: Vec<(u16, u16)>,
}

impl Peers<'_> {
    fn start(&self, i: usize, founders: usize, more: &[&str]) -> Process {
        let (client, peer) = self.ports[i];
        let name = format!("m{i}");
        let urls = [format!("https://127.0.0.1:{client}"), format!("https://127.0.0.1:{peer}")];
        let mut arguments = lone_member(&self.dir.join(&name), &urls[0], &urls[1]);
        let founders: Vec<String> =
            self.ports[..founders].iter().enumerate().map(|(i, (_, peer))| format!("m{i}=https://127.0.0.1:{peer}")).collect();
        arguments.extend([format!("--name={name}"), format!("--initial-cluster={}", founders.join(","))]);
        for side in ["", "peer-"] {
            arguments.extend([
                format!("--{side}cert-file={}", self.files.cert), format!("--{side}key-file={}", self.files.key),
                format!("--{side}trusted-ca-file={}", self.trusted), format!("--{side}client-cert-auth"),
            ]);
        }
        arguments.extend(more.iter().map(ToString::to_string));
        let log = self.dir.join(format!("{name}.log"));
        let _none_yet = std::fs::remove_file(&log);
        Process::start(&ours().etcd, &arguments, &log)
    }

    fn ctl(&self, ca: &str, members: &[usize], words: &[&str]) -> Output {
        let endpoints: Vec<String> = members.iter().map(|i| format!("https://127.0.0.1:{}", self.ports[*i].0)).collect();
        let all = [
            format!("--endpoints={}", endpoints.join(",")), format!("--cacert={ca}"), format!("--cert={}", self.files.cert),
            format!("--key={}", self.files.key),
        ];
        let words: Vec<&str> = all.iter().map(String::as_str).chain(words.iter().copied()).collect();
        run(&ours().etcdctl, &words)
    }

    /// The same until it works, for half a minute.
    fn retry(&self, ca: &str, members: &[usize], words: &[&str]) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let output = self.ctl(ca, members, words);
            if output.code == 0 || Instant::now() > deadline {
                return output.ok();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn peers_take_replaced_certificates() {
    let dir = scratch();
    let (ca, next) = (Authority::new(dir.path(), "ca"), Authority::new(dir.path(), "next"));
    let trusted = dir.path().join("trusted.pem").display().to_string();
    std::fs::copy(ca.cert(), &trusted).expect("scratch is writable");
    let files = ca.sign("node", LOOPBACK);
    let ports = (0..2).map(|_| (free_port(), free_port())).collect();
    let peers = Peers { dir: dir.path(), files: &files, trusted: &trusted, ports };
    let mut nodes: Vec<Process> = (0..2).map(|i| peers.start(i, 2, &[])).collect();
    nodes.iter_mut().for_each(|node| node.wait_for(READY, START_LIMIT));
    peers.retry(&ca.cert(), &[0, 1], &["put", "a", "1"]);
    // First both authorities are trusted, then certificates of the new one take their place.
    let both = [std::fs::read(ca.cert()), std::fs::read(next.cert())].map(|read| read.expect("it is there")).concat();
    std::fs::write(&trusted, both).expect("scratch is writable");
    next.sign("node", LOOPBACK);
    nodes.remove(1);
    nodes.push(peers.start(1, 2, &[]));
    nodes[1].wait_for(READY, START_LIMIT);
    peers.retry(&next.cert(), &[0, 1], &["put", "a", "2"]);
    assert_eq!(peers.retry(&next.cert(), &[0], &["get", "a"]), "a\n2\n");
    // A node that comes with an expired one is not let in, and says why it lets nobody in.
    next.sign("node", Owner { expired: true, ..LOOPBACK });
    nodes.remove(1);
    nodes.push(peers.start(1, 2, &[]));
    nodes[0].wait_for("rejected connection on peer endpoint", START_LIMIT);
    nodes[0].wait_for("certificate has expired or is not yet valid", START_LIMIT);
    next.sign("node", LOOPBACK);
    nodes[1].wait_for(READY, START_LIMIT);
    peers.retry(&next.cert(), &[0, 1], &["put", "a", "3"]);
}

#[test]
fn a_member_joins_by_a_snapshot_through_tls() {
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let files = ca.sign("node", LOOPBACK);
    let trusted = ca.cert();
    let ports = (0..3).map(|_| (free_port(), free_port())).collect();
    let peers = Peers { dir: dir.path(), files: &files, trusted: &trusted, ports };
    let few = ["--snapshot-count=10", "--snapshot-catchup-entries=5"];
    let mut nodes: Vec<Process> = (0..2).map(|i| peers.start(i, 2, &few)).collect();
    nodes.iter_mut().for_each(|node| node.wait_for(READY, START_LIMIT));
    let value = "0123456789abcdef".repeat(32 << 10);
    // The log gives up entries in hundreds.
    for number in 0..150 {
        let value = if number < 20 { value.as_str() } else { "small" };
        let endpoint = format!("--endpoints=https://127.0.0.1:{}", peers.ports[0].0);
        let [cacert, cert, key] =
            [("cacert", &trusted), ("cert", &files.cert), ("key", &files.key)].map(|(name, path)| format!("--{name}={path}"));
        let name = format!("key{number}");
        harness::run_with_input(&ours().etcdctl, &[&endpoint, &cacert, &cert, &key, "put", &name], value).ok();
    }
    let url = format!("--peer-urls=https://127.0.0.1:{}", peers.ports[2].1);
    peers.retry(&trusted, &[0, 1], &["member", "add", "m2", &url]);
    let mut joined = peers.start(2, 3, &["--initial-cluster-state=existing"]);
    joined.wait_for(READY, START_LIMIT);
    joined.wait_for("received and saved database snapshot", START_LIMIT);
    let count = peers.retry(&trusted, &[2], &["get", "", "--prefix", "--count-only", "--consistency=s", "-w", "fields"]);
    assert!(count.contains("\"Count\" : 150"), "{count}");
}
