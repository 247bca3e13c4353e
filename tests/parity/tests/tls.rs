//! TLS on Go and on ours, compared: settings that cannot be, connections that are refused and what is logged of them,
//! answers over HTTP/1.1 and HTTP/2, each other's tools, each other's self-signed certificates, and a cluster of both.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Authority, Binaries, CLIENT, Files, LOOPBACK, Owner, Process, free_port, go_release, lone_member, ours, run};
use serde_json::Value;

const START_LIMIT: Duration = Duration::from_secs(60);
const READY: &str = "ready to serve client requests";

/// A lone member of either kind.
struct Server {
    process: Process,
    client: u16,
    peer: u16,
}

impl Server {
    fn start(binaries: &Binaries, dir: &Path, [client, peer]: [&str; 2], flags: &[String]) -> Server {
        let (client_port, peer_port) = (free_port(), free_port());
        let (client, peer) = (format!("{client}://127.0.0.1:{client_port}"), format!("{peer}://127.0.0.1:{peer_port}"));
        let mut arguments = lone_member(&dir.join("data"), &client, &peer);
        arguments.extend_from_slice(flags);
        let log = dir.join(format!("{}.log", binaries.label));
        let mut process = Process::start(&binaries.etcd, &arguments, &log);
        process.wait_for(READY, START_LIMIT);
        Server { process, client: client_port, peer: peer_port }
    }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("scratch is writable")
}

/// curl, without which nothing can be compared here.
///
/// `None`, said loudly, where it is missing; under CI (`CI=true`) that is a failure.
fn curl() -> Option<&'static Path> {
    let path = Path::new("/usr/bin/curl");
    if !path.exists() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "curl is missing");
        eprintln!("SKIPPED: there is no curl");
        return None;
    }
    Some(path)
}

/// Level, text and error of the last line that ends a start.
fn why(log: &str) -> String {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = lines.rfind(|line| line["level"] == "fatal" || line["msg"] == "failed to verify flags");
    last.map(|line| format!("{} {}: {}", line["level"], line["msg"], line["error"])).unwrap_or_default()
}

#[test]
fn settings_that_cannot_be_are_refused_in_gos_words() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    ca.sign("a", LOOPBACK);
    ca.sign("b", LOOPBACK);
    std::fs::write(dir.path().join("garbage"), "garbage\n").expect("scratch is writable");
    // Of each: schemes for clients and peers, then flags; `@` stands for the folder of the files.
    let cases = [
        "https http",
        "http https",
        "https http --client-cert-auth",
        "https http --cert-file=@/a.pem",
        "https http --key-file=@/a.key",
        "https http --cert-file=@/no --key-file=@/a.key",
        "https http --cert-file=@/a.pem --key-file=@/no",
        "https http --cert-file=@/a.pem --key-file=@/b.key",
        "https http --cert-file=@/garbage --key-file=@/a.key",
        "https http --cert-file=@/a.pem --key-file=@/garbage",
        "https http --cert-file=@/a.key --key-file=@/a.pem",
        "https http --cert-file=@/a.pem --key-file=@/a.pem",
        "https http --cert-file=@ --key-file=@/a.key",
        "https http --cert-file=@/a.pem --key-file=@/a.key --trusted-ca-file=@/no",
        "https http --cert-file=@/a.pem --key-file=@/a.key --trusted-ca-file=@/a.key",
        "https http --cert-file=@/a.pem --key-file=@/a.key --client-cert-file=@/a.pem",
        "https http --cert-file=@/a.pem --key-file=@/a.key --client-key-file=@/a.key",
        "https http --cert-file=@/a.pem --key-file=@/a.key --client-cert-file=@/a.pem --client-key-file=@/b.key",
        "https http --cert-file=@/a.pem --key-file=@/a.key --cipher-suites=NOPE",
        "https http --cert-file=@/a.pem --key-file=@/a.key --cipher-suites=TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        "https http --cert-file=@/a.pem --key-file=@/a.key --cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA",
        "https http --tls-min-version=TLS1.3 --cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "https http --auto-tls --self-signed-cert-validity=0",
        "http https --peer-cert-file=@/a.pem",
        "http https --peer-cert-file=@/no --peer-key-file=@/a.key",
        "http http --peer-cert-file=@/no --peer-key-file=@/a.key",
        "http https --peer-cert-file=@/a.pem --peer-key-file=@/a.key --peer-trusted-ca-file=@/no",
        "http https --peer-cert-file=@/a.pem --peer-key-file=@/a.key --peer-client-cert-file=@/a.pem",
        "http https --peer-cert-file=@/a.pem --peer-key-file=@/a.key --peer-cert-allowed-cn=x --peer-cert-allowed-hostname=y,z",
        "http https --peer-auto-tls --self-signed-cert-validity=0",
        "http http --listen-metrics-urls=https://127.0.0.1:0",
    ];
    let mut differ = Vec::new();
    for case in cases {
        let ends = [&go, &ours].map(|binaries| {
            let scratch = scratch();
            let words: Vec<String> = case.split(' ').map(|word| word.replace('@', &dir.path().display().to_string())).collect();
            let url = |scheme: &str| format!("{scheme}://127.0.0.1:{}", free_port());
            let mut arguments = lone_member(&scratch.path().join("data"), &url(&words[0]), &url(&words[1]));
            arguments.extend_from_slice(&words[2..]);
            let mut process = Process::start(&binaries.etcd, &arguments, &scratch.path().join("log"));
            let code = process.wait(START_LIMIT);
            let why = why(&process.log());
            // Ports are their own.
            (code, why.split(' ').map(|word| if word.contains("127.0.0.1:") { "ADDRESS" } else { word }).collect::<Vec<_>>().join(" "))
        });
        if ends[0] != ends[1] {
            differ.push(format!("{case}\n  Go   {:?}\n  ours {:?}", ends[0], ends[1]));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// The lines about refused connections, without what differs from run to run.
fn rejections(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let rejected = lines.filter(|line| line["msg"].as_str().is_some_and(|text| text.starts_with("rejected connection")));
    rejected
        .map(|line| {
            let error = line["error"].as_str().unwrap_or_default();
            // The time of day, and which resolver was asked.
            let error = error.split(": current time").next().unwrap_or_default();
            let error = error.split(" (lookup").next().unwrap_or_default();
            format!(
                "{} {} {} {} {} {error}",
                line["level"], line["msg"], line["server-name"], line["ip-addresses"], line["dns-names"]
            )
        })
        .collect()
}

/// Certificates as tutorials make them with openssl: of version 1, and one that says it is an authority's.
///
/// `None`, said loudly, where there is no openssl; under CI (`CI=true`) that is a failure.
fn of_tutorials(dir: &Path, ca: &str) -> Option<[Files; 2]> {
    let openssl = |words: &str| {
        let mut command = Command::new("/usr/bin/openssl");
        let quiet = || std::process::Stdio::null();
        command.args(words.split(' ')).current_dir(dir).stdout(quiet()).stderr(quiet()).status().ok()
    };
    if openssl("version").is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "openssl is missing");
        eprintln!("SKIPPED: there is no openssl");
        return None;
    }
    std::fs::write(dir.join("ca.ext"), "basicConstraints=CA:TRUE\n").expect("scratch is writable");
    for (name, more) in [("version1", ""), ("authority", " -extfile ca.ext")] {
        openssl(&format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN=root"));
        openssl(&format!("x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -set_serial 77 -days 9 -out {name}.pem{more}"));
    }
    let path = |name: String| dir.join(name).display().to_string();
    Some(["version1", "authority"].map(|name| Files { cert: path(format!("{name}.pem")), key: path(format!("{name}.key")) }))
}

#[test]
fn unusual_certificates_are_taken_or_refused_alike() {
    let (Some(go), Some(curl)) = (go_release("3.7.3"), curl()) else { return };
    let dir = scratch();
    let (ca, old) = (Authority::new(dir.path(), "ca"), Authority::expired(dir.path(), "old"));
    let Some([version1, authority]) = of_tutorials(dir.path(), "ca") else { return };
    let server = ca.sign("server", LOOPBACK);
    let both = [std::fs::read(ca.cert()), std::fs::read(old.cert())].map(|read| read.expect("it is there")).concat();
    let trusted = dir.path().join("trusted.pem").display().to_string();
    std::fs::write(&trusted, both).expect("scratch is writable");
    let of_the_old = old.sign("of-the-old", CLIENT);
    let flags = [
        format!("--cert-file={}", server.cert), format!("--key-file={}", server.key), format!("--trusted-ca-file={trusted}"),
    ];
    let seen = [&go, &ours()].map(|binaries| {
        let scratch = scratch();
        let server = Server::start(binaries, scratch.path(), ["https", "http"], &flags);
        let mut answers = Vec::new();
        for (name, own) in [("version 1", &version1), ("authority", &authority), ("of the old", &of_the_old)] {
            for version in ["1.2", "1.3"] {
                let url = format!("https://127.0.0.1:{}/version", server.client);
                let words = ["--tls-max", version, "-o", "/dev/null", "-w", "%{http_code}", &url];
                answers.push(format!("{name} {version} {}", asked(curl, &ca.cert(), Some(own), &words)));
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        (answers, rejections(&server.process.log()))
    });
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0.iter().filter(|answer| answer.ends_with(" 200")).count(), 4, "{seen:?}");
    assert_eq!(seen[0].1.len(), 2);
}

/// One request by curl: what it says of the answer, or nothing.
fn asked(curl: &Path, ca: &str, own: Option<&Files>, words: &[&str]) -> String {
    let mut command = Command::new(curl);
    command.args(["-sS", "--max-time", "10", "--cacert", ca]).args(words);
    if let Some(own) = own {
        command.args(["--cert", &own.cert, "--key", &own.key]);
    }
    let output = command.output().expect("curl starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_same_connections_are_refused_and_logged_alike() {
    let (Some(go), Some(curl)) = (go_release("3.7.3"), curl()) else { return };
    let dir = scratch();
    let (ca, other) = (Authority::new(dir.path(), "ca"), Authority::new(dir.path(), "other"));
    let server = ca.sign("server", LOOPBACK);
    let crl = ca.revoke("crl", &[0x2001]);
    let owners = [
        None,
        Some(ca.sign("good", CLIENT)),
        Some(other.sign("foreign", CLIENT)),
        Some(ca.sign("expired", Owner { expired: true, ..CLIENT })),
        Some(ca.sign("server-only", Owner { server: true, client: false, ..CLIENT })),
        Some(ca.sign("revoked", Owner { serial: 0x2001, ..CLIENT })),
        Some(ca.sign("unknown", Owner { name: "unknown", ..CLIENT })),
        Some(ca.sign("elsewhere", Owner { hosts: &["10.9.8.7"], ..LOOPBACK })),
        Some(ca.sign("nowhere", Owner { hosts: &["nowhere.invalid"], ..LOOPBACK })),
        Some(ca.sign("here", LOOPBACK)),
    ];
    let flags = |extra: &[&str]| -> Vec<String> {
        let mut flags = vec![
            format!("--cert-file={}", server.cert), format!("--key-file={}", server.key), "--client-cert-auth".into(),
            format!("--trusted-ca-file={}", ca.cert()), format!("--client-crl-file={crl}"),
            format!("--peer-cert-file={}", server.cert), format!("--peer-key-file={}", server.key),
            "--peer-client-cert-auth".into(), format!("--peer-trusted-ca-file={}", ca.cert()),
            format!("--peer-crl-file={crl}"),
        ];
        flags.extend(extra.iter().map(ToString::to_string));
        flags
    };
    for extra in [&[][..], &["--peer-cert-allowed-cn=root,node"], &["--peer-skip-client-san-verification"],
        &["--peer-cert-allowed-hostname=localhost,nowhere.invalid"]]
    {
        let seen = [&go, &ours()].map(|binaries| {
            let scratch = scratch();
            let server = Server::start(binaries, scratch.path(), ["https", "https"], &flags(extra));
            let mut answers = Vec::new();
            for port in [server.client, server.peer] {
                for own in &owners {
                    let url = format!("https://127.0.0.1:{port}/version");
                    let versions: &[&str] = if extra.is_empty() { &["1.2", "1.3"] } else { &["1.3"] };
                    for version in versions {
                        let words = ["--http1.1", "--tls-max", version, "-o", "/dev/null", "-w", "%{http_code}", &url];
                        let file = own.as_ref().map_or("none", |own| own.cert.rsplit('/').next().unwrap_or_default());
                        answers.push(format!("{file} {version} {}", asked(curl, &ca.cert(), own.as_ref(), &words)));
                    }
                }
            }
            // The last one is written after curl has gone.
            std::thread::sleep(Duration::from_millis(300));
            (answers, rejections(&server.process.log()))
        });
        assert_eq!(seen[0].0, seen[1].0, "{extra:?}");
        assert_eq!(seen[0].1, seen[1].1, "{extra:?}");
        assert!(seen[0].1.len() >= 8);
    }
}

#[test]
fn http_is_answered_alike_in_both_versions() {
    let (Some(go), Some(curl)) = (go_release("3.7.3"), curl()) else { return };
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let server = ca.sign("server", LOOPBACK);
    let seen = [&go, &ours()].map(|binaries| {
        let scratch = scratch();
        let http = free_port();
        let flags = [
            format!("--cert-file={}", server.cert), format!("--key-file={}", server.key), "--host-whitelist=a.example".into(),
            format!("--listen-metrics-urls=https://127.0.0.1:{http}"),
        ];
        let server = Server::start(binaries, scratch.path(), ["https", "http"], &flags);
        let mut answers = Vec::new();
        for version in ["--http1.1", "--http2"] {
            for (words, path) in [
                (&[][..], "/version"), (&[], "/health"), (&[], "/livez?verbose=true"), (&[], "/nosuch"), (&["-I"], "/version"),
                (&["-X", "POST"], "/version"), (&["-X", "OPTIONS"], "/health"), (&["-H", "Origin: http://x"], "/version"),
                (&["-H", "Host: b.example"], "/version"), (&[], "//version"), (&["-d", "x"], "/health"),
            ] {
                let url = format!("https://127.0.0.1:{}{path}", server.client);
                let arguments: Vec<&str> = [&[version, "-i", "--path-as-is", &url][..], words].concat();
                let answer = asked(curl, &ca.cert(), None, &arguments);
                let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
                // The order of the fields is the server's own; the date is of now.
                let mut fields: Vec<String> = head.lines().skip(1).map(str::to_lowercase).collect();
                fields.retain(|field| !field.starts_with("date:"));
                fields.sort();
                let status = head.lines().next().unwrap_or_default();
                let status: Vec<&str> = status.split(' ').take(2).collect();
                // Go finds out after some seconds (COMPAT.md).
                let body = body.replace("\"storage\":\"3.5.0\"", "\"storage\":\"3.7.0\"");
                answers.push(format!("{version} {words:?} {path}: {status:?} {fields:?} {body}"));
            }
            let metrics = asked(curl, &ca.cert(), None, &[version, &format!("https://127.0.0.1:{}/metrics", server.client)]);
            assert!(metrics.contains("\netcd_server_has_leader 1\n"), "{}: {metrics}", binaries.label);
        }
        answers.push(asked(curl, &ca.cert(), None, &["-w", " %{http_code}", &format!("https://127.0.0.1:{http}/health")]));
        answers
    });
    for (go, ours) in seen[0].iter().zip(&seen[1]) {
        assert_eq!(go, ours);
    }
}

#[test]
fn each_others_tools_speak_to_each_others_servers() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let (server, client) = (ca.sign("server", LOOPBACK), ca.sign("client", CLIENT));
    for binaries in [&go, &ours] {
        for versions in [&[][..], &["--tls-min-version=TLS1.3"], &["--tls-max-version=TLS1.2"],
            &["--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_GCM_SHA256", "--tls-max-version=TLS1.2"]]
        {
            let scratch = scratch();
            let mut flags = vec![
                format!("--cert-file={}", server.cert), format!("--key-file={}", server.key),
                format!("--trusted-ca-file={}", ca.cert()),
            ];
            flags.extend(versions.iter().map(ToString::to_string));
            let server = Server::start(binaries, scratch.path(), ["https", "http"], &flags);
            for tool in [&go.etcdctl, &ours.etcdctl] {
                let [endpoint, cacert, cert, key] = [
                    format!("--endpoints=https://127.0.0.1:{}", server.client), format!("--cacert={}", ca.cert()),
                    format!("--cert={}", client.cert), format!("--key={}", client.key),
                ];
                let ctl = |words: &[&str]| run(tool, &[&[endpoint.as_str(), &cacert, &cert, &key][..], words].concat());
                assert_eq!(ctl(&["put", "a", "1"]).ok(), "OK\n");
                assert_eq!(ctl(&["get", "a"]).ok(), "a\n1\n");
                assert!(ctl(&["endpoint", "health"]).stderr.is_empty() || ctl(&["endpoint", "health"]).code == 0);
            }
        }
    }
}

/// Go makes keys on a curve of which few libraries know.
#[test]
fn self_signed_certificates_go_from_one_to_the_other() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let dir = scratch();
    let flags = ["--auto-tls".to_string(), "--peer-auto-tls".to_string()];
    let made = || std::fs::read(dir.path().join("data/fixtures/client/cert.pem")).expect("the server made it");
    let mut first = None;
    for (value, binaries) in [("1", &go), ("2", &ours), ("3", &go)] {
        let server = Server::start(binaries, dir.path(), ["https", "https"], &flags);
        assert_eq!(*first.get_or_insert_with(made), made(), "{}", binaries.label);
        let endpoint = format!("--endpoints=https://127.0.0.1:{}", server.client);
        for tool in [&go.etcdctl, &ours.etcdctl] {
            run(tool, &[&endpoint, "--insecure-skip-tls-verify", "put", "a", value]).ok();
        }
        drop(server);
        let _none_yet = std::fs::remove_file(dir.path().join(format!("{}.log", binaries.label)));
    }
    // And the other way round: Go takes what we made.
    std::fs::remove_dir_all(dir.path().join("data/fixtures")).expect("it is there");
    for binaries in [&ours, &go] {
        drop(Server::start(binaries, dir.path(), ["https", "https"], &flags));
    }
}

#[test]
fn a_cluster_of_both_speaks_tls() {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let dir = scratch();
    let ca = Authority::new(dir.path(), "ca");
    let node = ca.sign("node", LOOPBACK);
    let with_files = [
        format!("--cert-file={}", node.cert), format!("--key-file={}", node.key), "--client-cert-auth".into(),
        format!("--trusted-ca-file={}", ca.cert()), format!("--peer-cert-file={}", node.cert),
        format!("--peer-key-file={}", node.key), "--peer-client-cert-auth".into(),
        format!("--peer-trusted-ca-file={}", ca.cert()), "--peer-cert-allowed-cn=node".into(),
    ];
    let automatic = ["--auto-tls".to_string(), "--peer-auto-tls".to_string()];
    for (name, flags) in [("files", &with_files[..]), ("automatic", &automatic)] {
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let founders: Vec<String> = ports.iter().enumerate().map(|(i, (_, peer))| format!("m{i}={}", url(*peer))).collect();
        let mut members: Vec<Process> = [&go, &ours, &ours]
            .iter()
            .zip(&ports)
            .enumerate()
            .map(|(i, (binaries, (client, peer)))| {
                let mut arguments = lone_member(&dir.path().join(format!("{name}{i}")), &url(*client), &url(*peer));
                arguments.extend([format!("--name=m{i}"), format!("--initial-cluster={}", founders.join(","))]);
                arguments.extend_from_slice(flags);
                Process::start(&binaries.etcd, &arguments, &dir.path().join(format!("{name}{i}.log")))
            })
            .collect();
        for member in &mut members {
            member.wait_for(READY, START_LIMIT);
        }
        let endpoints: Vec<String> = ports.iter().map(|(client, _)| url(*client)).collect();
        let trust = match name {
            "files" => vec![format!("--cacert={}", ca.cert()), format!("--cert={}", node.cert), format!("--key={}", node.key)],
            _ => vec!["--insecure-skip-tls-verify".to_string()],
        };
        for (i, endpoint) in endpoints.iter().enumerate() {
            let endpoint = format!("--endpoints={endpoint}");
            let words: Vec<&str> = std::iter::once(endpoint.as_str()).chain(trust.iter().map(String::as_str)).collect();
            let key = format!("key{i}");
            run(&go.etcdctl, &[&words[..], &["put", &key, "1"]].concat()).ok();
            assert_eq!(run(&go.etcdctl, &[&words[..], &["get", &key]].concat()).ok(), format!("{key}\n1\n"));
            let members = run(&go.etcdctl, &[&words[..], &["member", "list"]].concat()).ok();
            assert_eq!(members.matches(", started, ").count(), 3, "{members}");
        }
    }
}
