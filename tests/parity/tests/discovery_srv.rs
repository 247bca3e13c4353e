//! Members and endpoints that DNS names: founding and joining by both kinds, certificates of a domain, `etcdctl`, and
//! whatever a DNS server may answer instead.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{
    Authority, Binaries, Cluster, LOOPBACK, Manner, Member, Options, Output, Owner, Record, go_release, ours, with_names,
};
use serde_json::Value;

const END_LIMIT: Duration = Duration::from_secs(60);

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("scratch is writable")
}

/// Hosts `m0.x.test` and so on for the members of a cluster, and records for the service on their ports.
fn records(cluster: &Cluster, service: &str) -> Vec<Record> {
    let members = (0..cluster.len()).flat_map(|i| {
        let port = cluster.member(i).peer_url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let host = format!("m{i}.x.test");
        [Record::host(&host), Record::service(&format!("{service}.x.test"), i as u16, port, &host)]
    });
    members.collect()
}

#[test]
fn b7_members_of_both_kinds_found_and_join_a_cluster_that_dns_names() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    with_names(move |names| {
        let dir = scratch();
        let flags = ["--initial-cluster=", "--discovery-srv=x.test", "--discovery-srv-name=blue"];
        let mut cluster = Cluster::place(&[&go, &ours, &go], dir.path(), &flags);
        names.know(&records(&cluster, "etcd-server-blue"));
        cluster.launch();
        cluster.leader();
        cluster.ctl(&["put", "k", "v"]).ok();
        let list = cluster.ctl(&["member", "list"]).ok();
        for i in 0..3 {
            let port = cluster.member(i).peer_url().rsplit(':').next().expect("a port").to_string();
            assert!(list.contains(&format!("m{i}, http://m{i}.x.test:{port}, ")), "{list}");
        }
        for binaries in [&ours, &go] {
            let mut known = records(&cluster, "etcd-server-blue");
            let host = format!("m{}.x.test", cluster.len());
            let i = cluster.join_after(binaries, false, |member| {
                let port = member.peer_url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
                known.extend([Record::host(&host), Record::service("etcd-server-blue.x.test", 9, port, &host)]);
                names.know(&known);
            });
            cluster.member_mut(i).wait_until_ready();
            cluster.in_step(i);
        }
        cluster.agree();
        // Who restarts knows the others: hosts are looked up, the service is not.
        names.know(&(0..cluster.len()).map(|i| Record::host(&format!("m{i}.x.test"))).collect::<Vec<_>>());
        for i in [0, 1] {
            cluster.member_mut(i).stop();
            cluster.member_mut(i).start_again();
        }
        cluster.agree();
    });
}

/// The lines about DNS and the last one, without times and places.
fn told(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let about = lines.filter(|line| {
        let text = line["msg"].as_str().unwrap_or_default();
        ["SRV", "got bootstrap from DNS", "bootstrap failed"].iter().any(|part| text.contains(part)) || line["level"] == "fatal"
    });
    let shown = about.map(|mut line| {
        for name in ["ts", "caller", "stacktrace"] {
            line.as_object_mut().expect("lines are objects").remove(name);
        }
        without_resolver(&without_ports(&line.to_string()))
    });
    shown.collect()
}

/// The port that a question was sent from is another each time.
fn without_ports(text: &str) -> String {
    let mut parts = text.split(" udp ");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        out.push_str(" udp ");
        match part.split_once("->") {
            Some((local, rest)) => {
                out.push_str(local.rsplit_once(':').map_or(local, |(host, _)| host));
                out.push_str("->");
                out.push_str(rest);
            }
            None => out.push_str(part),
        }
    }
    out
}

/// Who was asked for an address is named by Go only: we leave that to the system.
fn without_resolver(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split("lookup ").enumerate() {
        if i > 0 {
            out.push_str("lookup ");
        }
        if i > 0 && !part.starts_with('_') {
            out.push_str(&part.replacen(" on 127.0.0.1:53", "", 1));
        } else {
            out.push_str(part);
        }
    }
    out
}

/// What the DNS server holds and does, and how a member then starts.
struct Case {
    what: &'static str,
    records: Vec<Record>,
    manner: Manner,
    server: &'static str,
    flags: Vec<&'static str>,
}

impl Case {
    fn of(what: &'static str, records: Vec<Record>) -> Case {
        Case { what, records, manner: Manner::Proper, server: "127.0.0.1", flags: vec!["--discovery-srv=x.test"] }
    }

    fn manner(self, manner: Manner) -> Case {
        Case { manner, ..self }
    }

    fn flags(self, flags: &[&'static str]) -> Case {
        Case { flags: flags.to_vec(), ..self }
    }
}

/// A host that is not this member, in both services.
fn others() -> Vec<Record> {
    vec![
        Record::host("a.x.test"),
        Record::service("etcd-server.x.test", 2, 71, "a.x.test"),
        Record::service("etcd-server.x.test", 1, 72, "a.x.test"),
        Record::service("etcd-server-ssl.x.test", 1, 73, "a.x.test"),
    ]
}

/// One host in the service without TLS.
fn one(port: u16, host: &str) -> Vec<Record> {
    vec![Record::host("a.x.test"), Record::service("etcd-server.x.test", 1, port, host)]
}

fn cases() -> Vec<Case> {
    let named = &["--discovery-srv=x.test", "--discovery-srv-name=blue"];
    let mut no_server = Case::of("no DNS server", others());
    no_server.server = "127.0.0.2";
    let both_broken = [one(71, "nobody.x.test"), vec![Record::service("etcd-server-ssl.x.test", 1, 71, "a.x.test")]].concat();
    vec![
        Case::of("no records", Vec::new()),
        Case::of("records of other kinds only", vec![Record::host("_etcd-server._tcp.x.test")]),
        Case::of("a server that fails", others()).manner(Manner::Code(2)),
        Case::of("a server that refuses", others()).manner(Manner::Code(5)),
        Case::of("a server that says nothing", others()).manner(Manner::Silence),
        Case::of("a server that sends garbage", others()).manner(Manner::Garbage),
        Case::of("a server that breaks off", others()).manner(Manner::Torn),
        Case::of("answers by stream", others()).manner(Manner::Streams),
        no_server,
        Case::of("own entry missing, others numbered by service", others()),
        Case::of("wrong scheme", vec![Record::host("a.x.test"), Record::service("etcd-server-ssl.x.test", 1, 9, "a.x.test")]),
        Case::of("no target", one(9, ".")),
        Case::of("a target that nobody knows", one(9, "nobody.x.test")),
        Case::of("one known, one not", both_broken),
        Case::of("a target that is no name", one(9, "bad host.x.test")),
        Case::of("a service of another name", others()).flags(named),
        Case::of("a domain that is none", others()).flags(&["--discovery-srv=x..test"]),
        Case::of("a domain with a space", others()).flags(&["--discovery-srv=x test"]),
        Case::of("a full domain", others()).flags(&["--discovery-srv=x.test."]),
        Case::of("joining", others()).flags(&["--discovery-srv=x.test", "--initial-cluster-state=existing"]),
        Case::of("an own host that nobody knows", others())
            .flags(&["--discovery-srv=x.test", "--initial-advertise-peer-urls=http://nobody.x.test:9"]),
    ]
}

#[test]
fn b7_whatever_a_dns_server_answers_the_start_ends_in_the_same_words() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    with_names(move |names| {
        let dir = scratch();
        for (number, case) in cases().into_iter().enumerate() {
            names.know(&case.records);
            names.behave(case.manner);
            names.use_server(case.server);
            let [theirs, we] = [&go, &ours].map(|binaries| {
                let mut flags = vec!["--initial-cluster=".to_string(), "--initial-advertise-peer-urls=http://127.0.0.1:9".into()];
                flags.extend(case.flags.iter().map(ToString::to_string));
                let path = dir.path().join(number.to_string()).join(&binaries.label);
                std::fs::create_dir_all(&path).expect("scratch is writable");
                let mut member = Member::spawn(binaries, &path.join("data"), Options { flags, ..Options::default() });
                let begun = Instant::now();
                let code = member.wait(END_LIMIT);
                (code, told(&member.log()), begun.elapsed())
            });
            assert_eq!(theirs.0, Some(1), "{}: {theirs:#?}", case.what);
            assert_eq!((we.0, &we.1), (theirs.0, &theirs.1), "{}", case.what);
            assert!(we.2 < theirs.2 + Duration::from_secs(5), "{}: {:?} against {:?}", case.what, we.2, theirs.2);
        }
    });
}

#[test]
fn without_a_trusted_ca_certificates_are_those_of_the_domain() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    with_names(move |names| {
        let dir = scratch();
        let ca = Authority::new(dir.path(), "ca");
        let of_domain = ca.sign("domain", Owner { name: "x", hosts: &["x.test"], ..LOOPBACK });
        let flags = [
            "--initial-cluster=".to_string(),
            "--discovery-srv=x.test".into(),
            format!("--peer-cert-file={}", of_domain.cert),
            format!("--peer-key-file={}", of_domain.key),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut cluster = Cluster::place(&[&go, &ours, &go], &dir.path().join("c"), &flags);
        for i in 0..3 {
            let url = cluster.member(i).peer_url().replace("http:", "https:");
            let mut flags = cluster.flags(i);
            flags.extend([format!("--listen-peer-urls={url}"), format!("--initial-advertise-peer-urls={url}")]);
            let environment = vec![("SSL_CERT_FILE".to_string(), ca.cert())];
            let binaries = cluster.member(i).binaries().clone();
            cluster.member_mut(i).swap(&binaries, Options { flags, environment });
        }
        names.know(&records(&cluster, "etcd-server-ssl"));
        cluster.launch();
        cluster.leader();
        cluster.ctl(&["put", "k", "v"]).ok();
        cluster.agree();
    });
}

/// Runs `etcdctl` with a trusted authority, as the system's own would be.
fn ctl(binaries: &Binaries, ca: &str, command: &str) -> Output {
    let output = Command::new(&binaries.etcdctl)
        .args(command.split(' '))
        .env_remove("ETCDCTL_ENDPOINTS")
        .env("SSL_CERT_FILE", ca)
        .output()
        .expect("the tool runs");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What two runs have in common: times, and addresses of memory, are each one's own.
fn shown(output: &Output) -> (i32, String, Vec<String>) {
    let known = |line: &&str| !line.starts_with('{');
    let lines = output.stderr.lines().filter(known).map(|line| without_ports(&without_times(line)));
    (output.code, without_times(&output.stdout), lines.collect())
}

fn without_times(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.split(": took = ").next().unwrap_or(line).trim_end().to_string() + "\n").collect()
}

#[test]
fn etcdctl_finds_its_endpoints_in_dns() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    with_names(move |names| {
        let dir = scratch();
        let plain = Member::start(&go, &dir.path().join("plain"), Options::default());
        let ca = Authority::new(dir.path(), "ca");
        let files = ca.sign("domain", Owner { name: "x", hosts: &["w.x.test", "s.x.test"], ..LOOPBACK });
        let secure = secure_member(&go, &dir.path().join("secure"), &files.cert, &files.key);
        let port = |url: &str| -> u16 { url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port") };
        let (plain_port, secure_port) = (port(&plain.client_url()), secure.1);
        names.know(&[
            Record::host("p.x.test"),
            Record::host("s.x.test"),
            Record::service("etcd-client.x.test", 1, plain_port, "p.x.test"),
            Record::service("etcd-client-blue.x.test", 1, plain_port, "p.x.test"),
            Record::service("etcd-client-ssl.y.test", 1, secure_port, "s.x.test"),
            Record::service("etcd-client-ssl.x.test", 1, secure_port, "s.x.test"),
            Record::service("etcd-client.z.test", 1, plain_port, "p.x.test"),
            // A host that its certificate does not name, in a domain that it does.
            Record::host("t.x.test"),
            Record::service("etcd-client-ssl.w.x.test", 1, secure_port, "t.x.test"),
            Record::service("etcd-client-ssl.nobody.test", 1, 9, "nobody.x.test"),
        ]);
        let given = format!("--endpoints=http://127.0.0.1:{plain_port}");
        let commands = [
            "put a b -d z.test".to_string(),
            "get a --discovery-srv=x.test --discovery-srv-name=blue".into(),
            "get a --discovery-srv=y.test".into(),
            "get a --discovery-srv=y.test --insecure-discovery=false --command-timeout=1s".into(),
            "get a --discovery-srv=x.test --insecure-discovery=false".into(),
            "get a --discovery-srv=w.x.test --insecure-discovery=false --command-timeout=1s".into(),
            format!("get a --discovery-srv=z.test --insecure-discovery=false {given}"),
            format!("get a --discovery-srv= {given}"),
            "get a --discovery-srv=none.test".into(),
            "get a --discovery-srv=x..test".into(),
            "endpoint health --discovery-srv=none.test".into(),
            "get a --discovery-srv=nobody.test --command-timeout=1s".into(),
            "get a --discovery-srv=z.test --discovery-srv-name=red".into(),
            "version --discovery-srv=none.test".into(),
        ];
        for command in &commands {
            let [theirs, we] = [&go, &ours].map(|binaries| shown(&ctl(binaries, &ca.cert(), command)));
            assert_eq!(we, theirs, "{command}");
        }
        // Go's looks the endpoints up for this command too, and then takes those of the flag.
        let healthy = shown(&ctl(&ours, &ca.cert(), "endpoint health --discovery-srv=z.test"));
        assert_eq!((healthy.0, healthy.1.as_str()), (0, format!("http://p.x.test.:{plain_port} is healthy: successfully committed proposal\n").as_str()));
        for manner in [Manner::Silence, Manner::Garbage, Manner::Torn, Manner::Code(2)] {
            names.behave(manner);
            let [theirs, we] = [&go, &ours].map(|binaries| shown(&ctl(binaries, &ca.cert(), "get a -d z.test")));
            assert_eq!(we, theirs, "{manner:?}");
            assert_eq!(we.0, 1);
        }
        drop(secure);
    });
}

/// A member whose clients talk TLS, and its port.
fn secure_member(binaries: &Binaries, dir: &Path, cert: &str, key: &str) -> (Member, u16) {
    let port = harness::free_port();
    let url = format!("https://127.0.0.1:{port}");
    let flags = vec![
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--cert-file={cert}"),
        format!("--key-file={key}"),
    ];
    let member = Member::spawn(binaries, dir, Options { flags, ..Options::default() });
    let deadline = Instant::now() + END_LIMIT;
    while !member.log().contains("ready to serve client requests") {
        assert!(Instant::now() < deadline, "it does not come up:\n{}", member.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    (member, port)
}
