//! What a member answers that has lost its quorum, on Go and on ours: texts, and the time until they come.

// It is watched how long answers take.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::time::{Duration, Instant};

use api::ErrorCode;
use api::etcdserverpb as pb;
use client::Rpc;
use e2e::rpc::Link;
use harness::{Binaries, Cluster, Fabric, go_release, ours, ran_in_a_namespace};
use tokio::task::JoinHandle;
use tonic::Status;

/// Longest wait for an answer: etcd gives up after 5 s and two election timeouts.
const LIMIT: Duration = Duration::from_secs(15);

/// An answer: what was asked, what came, after how many seconds.
type Answer = (String, String, f64);

/// Asks, and gives up after a while.
fn ask<R: Rpc>(what: &'static str, link: &Link, request: R) -> JoinHandle<Answer> {
    let link = link.clone();
    answered(what, async move { link.call(request).await.map(|_| "an answer".to_owned()) })
}

fn answered(
    what: &'static str,
    call: impl Future<Output = Result<String, Status>> + Send + 'static,
) -> JoinHandle<Answer> {
    tokio::spawn(async move {
        let start = Instant::now();
        let answer = match tokio::time::timeout(LIMIT, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Err(_) => "nothing".to_owned(),
        };
        (what.to_owned(), answer, start.elapsed().as_secs_f64())
    })
}

fn put() -> pb::PutRequest {
    pb::PutRequest { key: "k".into(), value: "v".into(), ..pb::PutRequest::default() }
}

fn range(serializable: bool) -> pb::RangeRequest {
    pb::RangeRequest { key: "k".into(), serializable, ..pb::RangeRequest::default() }
}

fn compare() -> pb::TxnRequest {
    let read = pb::request_op::Request::RequestRange(range(false));
    pb::TxnRequest { success: vec![pb::RequestOp { request: Some(read) }], ..pb::TxnRequest::default() }
}

/// All kinds of requests at once.
async fn all(when: &str, link: &Link, lease: i64) -> Vec<Answer> {
    let (leader, renewing) = (link.with_leader(), link.clone());
    let members = |linearizable| pb::MemberListRequest { linearizable };
    let asked = [
        ask("put", link, put()),
        ask("read", link, range(false)),
        ask("serializable read", link, range(true)),
        ask("txn that reads", link, compare()),
        ask("delete", link, pb::DeleteRangeRequest { key: "x".into(), ..pb::DeleteRangeRequest::default() }),
        ask("compact", link, pb::CompactionRequest { revision: 1, physical: false }),
        ask("grant", link, pb::LeaseGrantRequest { ttl: 60, id: 0 }),
        ask("time to live", link, pb::LeaseTimeToLiveRequest { id: lease, keys: false }),
        answered("renew", async move { renewing.renew(lease).await.map(|left| format!("{left} s")) }),
        ask("members", link, members(true)),
        ask("members, as known here", link, members(false)),
        ask("hash", link, pb::HashKvRequest { revision: 0 }),
        ask("status", link, pb::StatusRequest {}),
        ask("put with a leader", &leader, put()),
        ask("read with a leader", &leader, range(false)),
    ];
    let mut answers = Vec::new();
    for answer in asked {
        let (what, answer, took) = answer.await.expect("asking does not panic");
        answers.push((format!("{when}: {what}"), answer, took));
    }
    answers
}

/// Cuts members off from all others, each by itself, and asks each everything at once and again when it has noticed.
async fn cut_off(fabric: &Fabric, cluster: &Cluster, cut: [(usize, &str); 2]) -> Vec<Answer> {
    let mut asked = Vec::new();
    for (i, who) in cut {
        let link = Link::new(&cluster.member(i).client_url());
        let granted = link.call(pb::LeaseGrantRequest { ttl: 600, id: 0 }).await.expect("it has a quorum");
        let (requests, mut watch) = link.with_leader().watch_all(0).await.expect("it has a leader");
        drop(watch.message().await);
        asked.push((who, link, granted.id, requests, watch));
    }
    let others = |i: usize| (0..cluster.len()).filter(move |j| *j != i);
    fabric.cut(&cut.iter().flat_map(|(i, _)| others(*i).flat_map(|j| [(*i, j), (j, *i)])).collect::<Vec<_>>());
    let start = Instant::now();
    let mut tasks = Vec::new();
    for (who, link, lease, requests, mut watch) in asked {
        let who = who.to_owned();
        tasks.push(tokio::spawn(async move {
            let (at_once, later) = (format!("{who}, at once"), format!("{who}, later"));
            let watched = async {
                let end = watch.message().await;
                let text = end.map_or_else(|status| format!("{:?}: {}", status.code(), status.message()), |_| "a message".to_owned());
                (format!("{who}: a watch with a leader"), text, start.elapsed().as_secs_f64())
            };
            let late = async {
                tokio::time::sleep(Duration::from_millis(3_500)).await;
                all(&later, &link, lease).await
            };
            let (watched, early, late) = tokio::join!(watched, all(&at_once, &link, lease), late);
            drop(requests);
            [vec![watched], early, late].concat()
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.expect("asking does not panic"));
    }
    answers
}

fn answers(binaries: &Binaries) -> Option<Vec<Answer>> {
    let binaries = binaries.clone();
    Fabric::with(5, move |fabric| {
        let scratch = tempfile::tempdir().expect("scratch is writable");
        let mut cluster = Cluster::place_on(fabric, &[&binaries; 5], scratch.path(), &[]);
        cluster.launch();
        let leader = cluster.leader();
        let cut = [(leader, "the leader"), ((leader + 1) % 5, "a follower")];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        runtime.block_on(cut_off(fabric, &cluster, cut))
    })
}

/// What is forwarded to the leader over a connection that there was hangs with it, what needs a new one learns that
/// there is no leader: it is chance, on Go's members and on ours, which request is which.
fn is_chance(what: &str, answer: &str) -> bool {
    let is_forwarded = what.ends_with("at once: renew") || what.ends_with("at once: time to live");
    let texts = [ErrorCode::NoLeader.message(), ErrorCode::Timeout.message()];
    what.starts_with("a follower") && is_forwarded && texts.iter().any(|text| answer.ends_with(text))
}

#[test]
fn a_minority_answers_as_gos_does() {
    if ran_in_a_namespace() {
        return;
    }
    let Some(go) = go_release("3.7.3") else { return };
    let on_go = std::thread::spawn(move || answers(&go));
    let (Some(on_ours), Some(on_go)) = (answers(&ours()), on_go.join().expect("no panic")) else { return };
    let mut differ = Vec::new();
    for ((what, ours, took), (_, go, took_go)) in on_ours.iter().zip(&on_go) {
        println!("{what}: {ours} after {took:.1} s; Go: {go} after {took_go:.1} s");
        let is_same = ours == go || is_chance(what, ours) && is_chance(what, go);
        // Go's reads may wait for a round that others began before them; a member has so long to notice that it is alone.
        if !is_same || *took > took_go + 2.0 {
            differ.push(what);
        }
    }
    assert!(differ.is_empty(), "{differ:?}");
}
