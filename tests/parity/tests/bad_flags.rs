//! Wrong command lines, given to Go and to ours: the exit code, the first line where a flag is not understood, and the
//! line that says why where the settings make no sense.

use std::path::Path;

use harness::{free_port, go_release, ours};
use serde_json::Value;

/// Refused before anything is touched.
const FLAGS: &[&str] = &[
    "--nosuch", "--name", "--election-timeout=abc", "--force-new-cluster=maybe", "--=x", "-", "-- x", "x", "--name=a x",
    "--version=maybe", "--snapshot-count=-1", "--max-wals=1.5", "--quota-backend-bytes=1e9",
    "--max-concurrent-streams=4294967296", "--max-concurrent-streams=x", "--grpc-keepalive-min-time=5",
    "--listen-client-urls=foo", "--listen-client-urls=http://127.0.0.1", "--listen-client-urls=http://127.0.0.1:1/path",
    "--listen-client-urls=ftp://127.0.0.1:1", "--listen-client-urls=", "--listen-client-urls=http://127.0.0.1:1",
    "--listen-peer-urls=http://example.com:2380", "--heartbeat-interval=300", "--election-timeout=50001",
    "--heartbeat-interval=0", "--election-timeout=0", "--auto-compaction-mode=foo", "--log-format=x", "--logger=foo",
    "--log-outputs=default,stderr", "--log-outputs=systemd/journal,stderr", "--log-outputs=/no/such/dir/x",
    "--enable-log-rotation --log-outputs=stderr", "--enable-log-rotation --log-outputs=x.log,y.log",
    "--enable-log-rotation --log-outputs=x.log --log-rotation-config-json={",
    "--enable-log-rotation --log-outputs=x.log --log-rotation-config-json={\"maxsize\":\"x\"}",
    "--enable-log-rotation --log-outputs=x.log --log-rotation-config-json={\"compress\":1}",
    "--initial-cluster-state=foo", "--discovery-fallback=proxy", "--discovery-fallback=x", "--v2-deprecation=not-yet",
    "--feature-gates=Foo=true", "--feature-gates=LeaseCheckpoint", "--feature-gates=LeaseCheckpoint=x",
    "--feature-gates=LeaseCheckpointPersist=true", "--initial-cluster=a=http://1.1.1.1:1 --discovery-srv=x.org",
    "--discovery-token=x", "--discovery-endpoints=x", "--discovery-token=x --discovery-endpoints=",
    "--discovery-token=x --discovery-endpoints=a,,b", "--discovery-token=x --discovery-endpoints=a --discovery-srv=b",
    "--initial-cluster= --discovery-token=x --discovery-endpoints=a --discovery-srv=b",
    "--initial-cluster=default=http://localhost:2380 --discovery-srv=b", "--config-file=/no/such", "--cors=http://a.example", "--cors=x",
    "--tls-min-version=foo", "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2", "--listen-metrics-urls=foo",
    "--experimental-nosuch", "--snapshot-catchup-entries=x", "--raft-write-timeout=x", "--warning-apply-duration=x",
    "--compaction-batch-limit=x", "--advertise-client-urls=foo", "--unsafe-no-fsync=2", "--socket-reuse-port=x",
    "--strict-reconfig-check=x", "--distributed-tracing-sampling-rate=x",
];

/// Refused at start: these get ports of their own in front.
const STARTS: &[&str] = &[
    "--auto-compaction-retention=x", "--initial-cluster=a", "--initial-cluster=", "--discovery-srv-name=x", "--initial-cluster=b=http://127.0.0.1:2380",
    "--initial-cluster=default=http://127.0.0.1:2380", "--auth-token=foo", "--data-dir=/proc/x", "--max-learners=-1",
    "--initial-advertise-peer-urls=http://localhost:2381",
];

/// What a user sees first, and what he is told.
#[derive(Debug, PartialEq, Eq)]
struct End {
    code: i32,
    /// The first line, unless it is one of the log.
    first: String,
    /// Level, text and error of the last line that names one.
    why: String,
}

fn end(program: &Path, words: &[String]) -> End {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    // A server that takes what it should refuse would run for ever; ended so, its code is 124.
    let output = std::process::Command::new("/usr/bin/timeout")
        .arg("60")
        .arg(program)
        .args(words)
        .current_dir(scratch.path())
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = text.lines().next().filter(|line| !line.starts_with('{')).unwrap_or_default().to_string();
    let mut said = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|line| line.get("error").is_some());
    let why = said
        .rfind(|line| line["level"] == "fatal" || line["msg"] == "failed to verify flags")
        .map(|line| format!("{} {}: {}", line["level"], line["msg"], line["error"]))
        .unwrap_or_default();
    End { code: output.status.code().unwrap_or(-1), first, why }
}

fn compare(cases: &[&str], front: impl Fn() -> Vec<String>) {
    let Some(go) = go_release("3.7.3") else { return };
    let ours = ours();
    let mut differ = Vec::new();
    for case in cases {
        let words: Vec<String> = front().into_iter().chain(case.split(' ').map(str::to_string)).collect();
        let [theirs, we] = [&go.etcd, &ours.etcd].map(|program| end(program, &words));
        if theirs != we {
            differ.push(format!("{case}\n  Go   {theirs:?}\n  ours {we:?}"));
        }
        assert!(theirs.code > 0, "{case}: Go takes it, {theirs:?}");
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn flags_that_are_no_flags_are_refused_in_gos_words() {
    compare(FLAGS, Vec::new);
}

#[test]
fn settings_that_cannot_be_are_refused_in_gos_words() {
    compare(STARTS, || {
        let (client, peer) = (free_port(), free_port());
        vec![
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        ]
    });
}

/// Flags that 3.7 dropped keep their meaning here (COMPAT.md), so that old unit files start.
#[test]
fn flags_of_older_releases_are_taken_with_a_warning() {
    let Some(go) = go_release("3.7.3") else { return };
    for case in ["--experimental-initial-corrupt-check", "--experimental-watch-progress-notify-interval=5s", "--debug", "--enable-v2=false"] {
        let name = case.trim_start_matches('-').split('=').next().unwrap_or_default();
        let words = [case.to_string(), "--heartbeat-interval=0".to_string()];
        let theirs = end(&go.etcd, &words);
        assert_eq!((theirs.code, theirs.first), (2, format!("flag provided but not defined: -{name}")));
        let we = end(&ours().etcd, &words);
        assert_eq!(we.code, 1, "the flag is taken, and only the next one refused");
        assert!(we.why.contains("--heartbeat-interval must be >0"), "{we:?}");
    }
}
