//! Clients of other people, with everything that programs do: the same script against Go's server, which proves the
//! script, and against ours. The scripts are in `tests/clients`.
//!
//! Go: the client of etcd 3.7.3. Python: the package `etcd3`. Rust: tonic on our messages; the crate `etcd-client`
//! wants a protoc, which nothing here needs.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use api::etcdserverpb as pb;
use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::request_op::Request;
use api::etcdserverpb::watch_request::RequestUnion;
use e2e::rpc::Link;
use harness::{Binaries, Member, Options, go_release, ours, run};
use tokio::sync::mpsc;
use tonic::Code;

/// Go's server first, where it is.
fn servers() -> impl Iterator<Item = Binaries> {
    go_release("3.7.3").into_iter().chain([ours()])
}

fn with_each_server(script: impl Fn(&Member)) {
    for binaries in servers() {
        let scratch = tempfile::tempdir().expect("scratch is writable");
        println!("== {}", binaries.label);
        script(&Member::start(&binaries, &scratch.path().join("member"), Options::default()));
    }
}

/// A tool that is not there: said loudly; under CI a failure.
fn absent(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{what}; CI does not pass without it");
    eprintln!("SKIPPED: {what}");
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients")
}

#[test]
fn the_go_client_works() {
    if Command::new("go").arg("version").output().is_err() {
        return absent("Go is not installed: its client is not tried");
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-client");
    let output = Command::new("go")
        .current_dir(clients().join("go"))
        // As the Go servers are built, so that what was compiled for them is used again.
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .output()
        .expect("go starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    with_each_server(|member| {
        let output = run(&program, &[&member.client_url()]).ok();
        assert!(output.ends_with("maintenance ok\n"), "{output}");
    });
}

#[test]
fn the_python_client_works() {
    let Some(python) = python() else {
        return absent("Python's etcd3 is missing: run tests/clients/python/setup");
    };
    let script = clients().join("python/client.py");
    with_each_server(|member| {
        let endpoint = member.endpoint();
        let (host, port) = endpoint.split_once(':').expect("host and port");
        let output = run(&python, &[&script.display().to_string(), host, port]).ok();
        assert!(output.ends_with("maintenance ok\n"), "{output}");
    });
}

/// The folder that `tests/clients/python/setup` makes, else the system's own package.
fn python() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from).or_else(home);
    let made = cache.map(|cache| cache.join("etcd-peers/python-etcd3-0.12.0/bin/python"));
    let has_package = |python: &PathBuf| {
        Command::new(python).args(["-c", "import etcd3"]).output().is_ok_and(|output| output.status.success())
    };
    made.into_iter().chain([PathBuf::from("/usr/bin/python3")]).find(has_package)
}

#[test]
fn a_tonic_client_works() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    with_each_server(|member| {
        let limit = Duration::from_secs(60);
        let script = async { tokio::time::timeout(limit, tonic_script(&Link::new(&member.client_url()))).await };
        runtime.block_on(script).expect("no call hangs");
    });
}

async fn tonic_script(link: &Link) {
    let put = |key: &str, value: &str, lease| pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        prev_kv: true,
        ..pb::PutRequest::default()
    };
    let get = |key: &str| pb::RangeRequest { key: key.to_owned().into(), ..pb::RangeRequest::default() };
    let first = link.call(put("a", "1", 0)).await.expect("put").header.expect("a header").revision;
    let second = link.call(put("a", "2", 0)).await.expect("put");
    assert_eq!(second.prev_kv.expect("there was one").value, "1");

    let compare = pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: "a".into(),
        range_end: "".into(),
        target_union: Some(TargetUnion::Version(2)),
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(pb::PutRequest { prev_kv: false, ..put("b", "x", 0) }))],
        failure: vec![],
    };
    assert!(link.call(txn).await.expect("txn").succeeded);

    watch_script(link, first).await;

    let granted = link.call(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("grant");
    link.call(put("leased", "x", granted.id)).await.expect("put");
    let (requests, queue) = mpsc::channel(4);
    // Go's server says nothing, not even its headers, before it was asked something.
    let ask = || requests.try_send(pb::LeaseKeepAliveRequest { id: granted.id }).expect("the stream is open");
    ask();
    let mut alive = link.duplex(queue).await.expect("keepalive");
    for _ in 0..3 {
        ask();
        let answer = alive.message().await.expect("keepalive").expect("an answer");
        assert_eq!((answer.id, answer.ttl), (granted.id, 60));
    }
    link.call(pb::LeaseRevokeRequest { id: granted.id }).await.expect("revoke");
    assert_eq!(link.call(get("leased")).await.expect("get").count, 0);

    let revision = second.header.expect("a header").revision;
    link.call(pb::CompactionRequest { revision, physical: true }).await.expect("compaction");
    let old = pb::RangeRequest { revision: first, ..get("a") };
    let refused = link.call(old).await.expect_err("a compacted revision");
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");

    let all = pb::RangeRequest { range_end: "\0".into(), ..get("\0") };
    let whole = link.call(all.clone()).await.expect("range").kvs;
    let mut streamed = Vec::new();
    let mut pieces = link.stream(all).await.expect("range stream");
    while let Some(piece) = pieces.message().await.expect("range stream") {
        streamed.extend(piece.range_response.expect("a piece").kvs);
    }
    assert_eq!(streamed, whole);

    let status = link.call(pb::StatusRequest {}).await.expect("status");
    assert!(status.version.starts_with("3.7.") && status.leader != 0, "{status:?}");
    let mut snapshot = link.stream(pb::SnapshotRequest {}).await.expect("snapshot");
    let mut len = 0;
    while let Some(piece) = snapshot.message().await.expect("snapshot") {
        len += piece.blob.len();
    }
    assert_eq!(len % 512, 32, "a file and its hash");
}

async fn watch_script(link: &Link, start_revision: i64) {
    let (requests, queue) = mpsc::channel(4);
    let create = pb::WatchCreateRequest { key: "a".into(), start_revision, ..pb::WatchCreateRequest::default() };
    let union = Some(RequestUnion::CreateRequest(create));
    requests.send(pb::WatchRequest { request_union: union }).await.expect("a new queue has room");
    let mut answers = link.duplex(queue).await.expect("watch");
    let mut values = Vec::new();
    let mut id = 0;
    while values.len() < 2 {
        let answer = answers.message().await.expect("watch").expect("an answer");
        id = answer.watch_id;
        values.extend(answer.events.into_iter().filter_map(|event| event.kv).map(|kv| kv.value));
    }
    assert_eq!(values, ["1", "2"]);
    let union = Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id }));
    requests.send(pb::WatchRequest { request_union: union }).await.expect("the stream is open");
    assert!(answers.message().await.expect("watch").expect("an answer").canceled);
}
