//! Founders that find each other through the discovery service: each release serving, members of both founding, and
//! what is said to those who come too late, or find nothing that makes sense.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Authority, Binaries, Cluster, LOOPBACK, Member, Options, go_release, ours, run};
use serde_json::Value;

const PREFIX: &str = "/_etcd/registry";
const END_LIMIT: Duration = Duration::from_secs(60);
/// What those say that they are who are not meant to become members.
const OWN: &str = "http://127.0.0.1:9";

/// A discovery service, with Go's tool to write into it.
struct Service {
    member: Member,
    etcdctl: Binaries,
}

impl Service {
    fn start(binaries: &Binaries, etcdctl: &Binaries, dir: &Path) -> Service {
        Service { member: Member::start(binaries, dir, Options::default()), etcdctl: etcdctl.clone() }
    }

    fn ctl(&self, words: &[&str]) -> String {
        let endpoint = format!("--endpoints={}", self.member.endpoint());
        run(&self.etcdctl.etcdctl, &[&[endpoint.as_str()], words].concat()).ok()
    }

    /// Begins a new cluster of this name, of so many members.
    fn want(&self, token: &str, size: &str) {
        self.ctl(&["put", "--", &format!("{PREFIX}/{token}/_config/size"), size]);
    }

    fn register(&self, token: &str, member: &str, urls: &str) {
        self.ctl(&["put", &format!("{PREFIX}/{token}/members/{member}"), urls]);
    }

    /// Forgets a cluster.
    fn clear(&self, token: &str) {
        self.ctl(&["del", "--prefix", &format!("{PREFIX}/{token}/")]);
    }

    fn flags(&self, token: &str) -> Vec<String> {
        vec![
            "--initial-cluster=".into(),
            format!("--discovery-endpoints={}", self.member.endpoint()),
            format!("--discovery-token={token}"),
        ]
    }
}

/// Parts of the lines that a start by discovery consists of.
const ABOUT: &[&str] = &[
    "discovery", "Bootstrapping cluster", "bootstrap failed", "starting an etcd", "closing etcd", "closed etcd", "register member",
];

/// The lines about discovery, without times and places, and with words for what differs from run to run.
fn told(log: &str, ports: &[(String, &str)]) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let about = lines.filter(|line| {
        let (text, level) = (line["msg"].as_str().unwrap_or_default(), line["level"].as_str().unwrap_or_default());
        let is_about = ABOUT.iter().any(|part| text.contains(part));
        // The client's own lines name addresses of its memory.
        line["logger"].is_null() && (is_about || level == "fatal")
    });
    let shown = about.map(|mut line| {
        let fields = line.as_object_mut().expect("lines are objects");
        // Settings and places are each one's own.
        if fields.get("msg").is_some_and(|text| text == "starting an etcd server") {
            fields.retain(|name, _| name.starts_with("discovery-") || name.starts_with("initial-cluster"));
        }
        for name in ["ts", "caller", "stacktrace", "advertise-client-urls", "data-dir"] {
            fields.remove(name);
        }
        ports.iter().fold(line.to_string(), |text, (port, word)| text.replace(port, word))
    });
    shown.collect()
}

/// Starts a member that is to end by itself: its exit code, and what it told.
fn end(service: &Service, binaries: &Binaries, dir: &Path, flags: &[String]) -> (Option<i32>, Vec<String>) {
    let mut all = vec![format!("--initial-advertise-peer-urls={OWN}")];
    all.extend_from_slice(flags);
    std::fs::create_dir_all(dir).expect("scratch is writable");
    let dir = dir.join(&binaries.label);
    let mut member = Member::spawn(binaries, &dir, Options { flags: all, ..Options::default() });
    let code = member.wait(END_LIMIT);
    (code, told(&member.log(), &[(service.member.endpoint(), "SERVICE")]))
}

/// Founds a cluster of both kinds by a service of one kind.
fn found_by(service: &Binaries, go: &Binaries) {
    let ours = ours();
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let service = Service::start(service, go, &scratch.path().join("service"));
    service.want("t1", "3");
    let flags = service.flags("t1");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start(&[go, &ours, go], &scratch.path().join("c"), &flags);
    let registered = service.ctl(&["get", "--prefix", &format!("{PREFIX}/t1/members/")]);
    for i in 0..3 {
        let key = format!("{PREFIX}/t1/members/{:x}", cluster.id(i));
        let expected = format!("{key}\nm{i}={}\n", cluster.member(i).peer_url());
        assert!(registered.contains(&expected), "{registered}\nlacks\n{expected}");
    }
    cluster.leader();
    cluster.ctl(&["put", "k", "v"]).ok();
    cluster.agree();
    // Who comes too late is told so in the same lines, and nothing of him stays.
    let [theirs, we] = [go, &ours].map(|late| end(&service, late, scratch.path(), &service.flags("t1")));
    assert_eq!((theirs.0, &theirs.1), (Some(1), &we.1));
    assert_eq!(we.0, Some(1));
    let last = &we.1[we.1.len() - 2..];
    assert!(last[0].contains("failed to join discovery cluster (discovery: cluster is full)"), "{last:?}");
    assert!(last[1].contains("do not reuse discovery token; generate a new one to bootstrap a cluster"), "{last:?}");
    assert_eq!(service.ctl(&["get", "--prefix", &format!("{PREFIX}/t1/members/")]), registered);
    // A restart needs no service.
    let endpoint = service.member.endpoint();
    drop(service);
    let restarted = [0, 1].map(|i| {
        cluster.member_mut(i).stop();
        cluster.member_mut(i).start_again();
        let member = cluster.member(i);
        let words = [(endpoint.clone(), "SERVICE"), (member.data_dir().display().to_string(), "DIR")];
        told(&member.log(), &words).pop()
    });
    assert_eq!(restarted[0], restarted[1]);
    assert!(restarted[0].as_ref().is_some_and(|line| line.contains("discovery token is ignored")), "{restarted:?}");
    cluster.leader();
    cluster.agree();
}

#[test]
fn b32_members_of_both_kinds_found_a_cluster_by_a_service_of_go() {
    let Some(go) = go_release("3.7.3") else { return };
    found_by(&go, &go);
}

#[test]
fn b32_members_of_both_kinds_found_a_cluster_by_a_service_of_ours() {
    let Some(go) = go_release("3.7.3") else { return };
    found_by(&ours(), &go);
}

#[test]
fn what_makes_no_sense_ends_the_start_in_the_same_words() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let service = Service::start(&go, &go, &scratch.path().join("service"));
    // What the service holds: the size, another member. Then further flags.
    let cases = [
        ("", "", ""),
        ("x", "", ""),
        ("0", "", ""),
        ("-1", "", ""),
        ("3 ", "", ""),
        ("1", "b=http://127.0.0.1:8", ""),
        ("1", "nonsense", "--discovery-request-timeout=3s --initial-cluster-state=existing"),
        ("2", "b=nonsense", ""),
        ("2", "b=http://127.0.0.1:9", ""),
        ("", "", "--discovery-cacert=/no/such"),
        ("", "", "--discovery-cert=/no/such"),
        ("", "", "--discovery-key=/no/such"),
        ("", "", "--discovery-cert=/no/such --discovery-key=/no/such"),
        ("", "", "--discovery-user=u"),
        ("", "", "--discovery-user=u --discovery-password=p"),
        ("", "", "--discovery-password=p"),
    ];
    for (number, (size, other, more)) in cases.into_iter().enumerate() {
        let [theirs, we] = [&go, &ours].map(|binaries| {
            service.clear("t");
            if !size.is_empty() {
                service.want("t", size);
            }
            if !other.is_empty() {
                service.register("t", "1", other);
            }
            let mut flags = service.flags("t");
            flags.extend(more.split(' ').filter(|flag| !flag.is_empty()).map(str::to_string));
            end(&service, binaries, &scratch.path().join(number.to_string()), &flags)
        });
        assert_eq!(theirs.0, Some(1), "{theirs:#?}");
        assert_eq!(we, theirs, "{size:?} {other:?} {more:?}");
        assert!(!we.1.is_empty());
    }
}

#[test]
fn a_service_with_users_and_one_with_tls_are_talked_to() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let service = Service::start(&go, &go, &scratch.path().join("service"));
    service.ctl(&["user", "add", "root:secret"]);
    service.ctl(&["user", "grant-role", "root", "root"]);
    service.ctl(&["auth", "enable"]);
    let users = ["--discovery-user=root --discovery-password=secret", "--discovery-user=root --discovery-password=wrong"];
    for (number, more) in users.into_iter().enumerate() {
        let [theirs, we] = [&go, &ours].map(|binaries| {
            let mut flags = service.flags("t");
            flags.extend(more.split(' ').map(str::to_string));
            end(&service, binaries, &scratch.path().join(number.to_string()), &flags)
        });
        assert_eq!(we, theirs, "{more}");
        let words = if number == 0 { "discovery: size key not found" } else { "authentication failed, invalid user ID or password" };
        assert!(we.1.iter().any(|line| line.contains(words)), "{we:#?}");
    }
    drop(service);
    let ca = Authority::new(scratch.path(), "ca");
    let files = ca.sign("node", LOOPBACK);
    let port = harness::free_port();
    let url = format!("https://127.0.0.1:{port}");
    let flags = vec![
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--cert-file={}", files.cert),
        format!("--key-file={}", files.key),
        format!("--trusted-ca-file={}", ca.cert()),
    ];
    let mut member = Member::spawn(&go, &scratch.path().join("secure"), Options { flags, ..Options::default() });
    wait_for(&member, "ready to serve client requests");
    let tls = [
        format!("--discovery-cacert={} --discovery-cert={} --discovery-key={}", ca.cert(), files.cert, files.key),
        format!("--discovery-insecure-skip-tls-verify --discovery-cert={} --discovery-key={}", files.cert, files.key),
    ];
    for (number, more) in tls.into_iter().enumerate() {
        for endpoint in [url.clone(), format!("127.0.0.1:{port}")] {
            let [theirs, we] = [&go, &ours].map(|binaries| {
                let dir = scratch.path().join(format!("tls{number}{}", endpoint.len()));
                std::fs::create_dir_all(&dir).expect("scratch is writable");
                let mut flags: Vec<String> = more.split(' ').map(str::to_string).collect();
                flags.extend(["--initial-cluster=".into(), format!("--discovery-endpoints={endpoint}"), "--discovery-token=t".into()]);
                flags.push(format!("--initial-advertise-peer-urls={OWN}"));
                let mut late = Member::spawn(binaries, &dir.join(&binaries.label), Options { flags, ..Options::default() });
                (late.wait(END_LIMIT), told(&late.log(), &[]))
            });
            assert_eq!(we, theirs, "{more}");
            assert!(we.1.iter().any(|line| line.contains("discovery: size key not found")), "{we:#?}");
        }
    }
    member.kill();
}

fn wait_for(member: &Member, text: &str) {
    let deadline = Instant::now() + END_LIMIT;
    while !member.log().contains(text) {
        assert!(Instant::now() < deadline, "{text} is never said:\n{}", member.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The address of something that is no etcd at all. It ends with the test process.
fn serve_garbage() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever hangs up early is right.
            drop(stream.write_all(&b"\0\0\xff\x07 garbage ".repeat(200)));
        }
    });
    address
}

#[test]
fn whoever_must_wait_is_asked_to_and_can_be_ended() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let nobody = format!("127.0.0.1:{}", harness::free_port());
    let garbage = serve_garbage();
    let service = Service::start(&go, &go, &scratch.path().join("service"));
    let [theirs, we] = [&go, &ours].map(|binaries| {
        service.clear("t");
        service.want("t", "2");
        let start = |name: &str, endpoint: &str| {
            let flags = vec![
                "--initial-cluster=".into(),
                format!("--discovery-endpoints={endpoint}"),
                "--discovery-token=t".into(),
                "--discovery-request-timeout=500ms".into(),
                format!("--initial-advertise-peer-urls={OWN}"),
            ];
            let dir = scratch.path().join(format!("{name}-{}", binaries.label));
            Member::spawn(binaries, &dir, Options { flags, ..Options::default() })
        };
        let endpoint = service.member.endpoint();
        let again = "\"backoff\":\"4s\"";
        let ends = [
            ("waiting", endpoint.as_str(), "waiting for peers"),
            ("lost", nobody.as_str(), again),
            ("fooled", garbage.as_str(), again),
        ];
        ends.map(|(name, endpoint, text)| {
            let mut member = start(name, endpoint);
            wait_for(&member, text);
            let code = member.stop();
            (code, told(&member.log(), &[(endpoint.to_string(), "SERVICE")]))
        })
    });
    assert_eq!(we, theirs);
}
