//! What Kubernetes asks of etcd, by number, on Go 3.7.3 and on ours.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::time::{Duration, Instant};

use api::ErrorCode;
use api::etcdserverpb::compare::CompareResult::Equal;
use api::etcdserverpb::{
    PutRequest, RangeRequest, StatusRequest, TxnRequest, WatchCreateRequest, WatchRequest,
};
use api::health::health_check_response::ServingStatus;
use api::health::{HealthCheckRequest, HealthCheckResponse};
use api::methods::Method;
use harness::free_port;
use parity::semantics::answer::{deleted_at, events, holds, keys, kv, range_at, rev, text, values};
use parity::semantics::request::{
    Op, PutOptions, RangeOptions, compact, create, delete, grant, modified, prefix, progress, put, range,
    span, version, when,
};
use parity::semantics::target::ask_on;
use parity::semantics::{Difference, Group, Outcome, Received, Status, Stream, Suite, Target, covers, same};
use prost::Message;

/// Cases that this suite leaves out.
const NOT_HERE: &[(&str, &str)] = &[("K8-025", "a learner joins, which needs a second member")];

fn suite() -> Suite {
    let groups = vec![kubeadm(), lists_then_watches(), objects(), compactions(), idle_store(), probes()];
    Suite::new("kubernetes", groups)
}

/// Writes an object that nobody has written yet.
fn create_object(put: PutRequest) -> TxnRequest {
    when([modified(put.key.clone(), Equal, 0)], [put.op()], [])
}

/// Writes an object that was last written at `seen`; else reads it.
fn update_object(put: PutRequest, seen: i64) -> TxnRequest {
    let key = put.key.clone();
    when([modified(key.clone(), Equal, seen)], [put.op()], [range(key).op()])
}

/// Deletes an object that was last written at `seen`; else reads it.
fn delete_object(key: &str, seen: i64) -> TxnRequest {
    when([modified(key, Equal, seen)], [delete(key).op()], [range(key).op()])
}

const OBJECT: &str = "/registry/configmaps/default/a";

fn objects() -> Group {
    let group = Group::fresh("objects")
        .case("K8-002", async |t| {
            let first = t.ok(create_object(put(OBJECT, "1"))).await?;
            same("first", (first.succeeded, rev(&first.header)), (true, 2))?;
            let second = t.ok(create_object(put(OBJECT, "1"))).await?;
            same("second", (second.succeeded, rev(&second.header)), (false, 2))?;
            same("answers", second.responses.len(), 0)
        })
        .case("K8-003", async |t| {
            let answer = t.ok(update_object(put(OBJECT, "2"), 2)).await?;
            same("answer", (answer.succeeded, rev(&answer.header)), (true, 3))
        })
        .case("K8-004", async |t| {
            let answer = t.ok(update_object(put(OBJECT, "3"), 2)).await?;
            same("answer", (answer.succeeded, rev(&answer.header)), (false, 3))?;
            let current = kv(&range_at(&answer, 0)?.kvs[0]);
            same("current", current, (format!("{OBJECT}=2"), 2, 3, 2, 0))
        })
        .case("K8-005", async |t| {
            let failed = t.ok(delete_object(OBJECT, 2)).await?;
            same("failed", (failed.succeeded, rev(&failed.header)), (false, 3))?;
            same("current", values(&range_at(&failed, 0)?.kvs), ["2"])?;
            let done = t.ok(delete_object(OBJECT, 3)).await?;
            same("done", (done.succeeded, rev(&done.header)), (true, 4))?;
            same("deleted", deleted_at(&done, 0)?.deleted, 1)
        })
        .case("K8-006", async |t| {
            for request in [delete_object(OBJECT, 3), update_object(put(OBJECT, "3"), 3)] {
                let answer = t.ok(request).await?;
                same("succeeded", answer.succeeded, false)?;
                same("current", range_at(&answer, 0)?.kvs.len(), 0)?;
            }
            Ok(())
        });
    group
        .case("K8-015", async |t| {
            let granted = t.ok(grant(0, 3660)).await?;
            same("time to live", granted.ttl, 3660)?;
            t.ok(create_object(put("/registry/events/a", "1").lease(granted.id))).await?;
            same("lease", t.ok(range("/registry/events/a")).await?.kvs[0].lease, granted.id)
        })
        .case("K8-016", async |t| {
            let seen = t.ok(range("/registry/events/a")).await?.kvs[0].mod_revision;
            same(
                "succeeded",
                t.ok(update_object(put("/registry/events/a", "2"), seen)).await?.succeeded,
                true,
            )?;
            same("lease", t.ok(range("/registry/events/a")).await?.kvs[0].lease, 0)
        })
        .case("K8-010", async |t| same("count", t.ok(range("/registry/health")).await?.count, 0))
        .case("K8-017", async |t| {
            let request = HealthCheckRequest::default().encode_to_vec();
            let answer = t.raw(Method::HealthCheck.path(), request.into(), &[]).await;
            let answer = answer.map_err(|status| Difference::new(status.to_string()))?;
            let answer =
                HealthCheckResponse::decode(answer).map_err(|error| Difference::new(error.to_string()))?;
            same("status", answer.status, ServingStatus::Serving as i32)
        })
        .case("K8-021", async |t| same("version", t.ok(StatusRequest {}).await?.version, "3.7.3"))
}

/// One apiserver's turn at compaction: whoever finds the version it knows goes on.
fn compact_turn(seen: i64, last: &str) -> TxnRequest {
    let key = "compact_rev_key";
    when([version(key, Equal, seen)], [put(key, last).op()], [range(key).op()])
}

fn compactions() -> Group {
    Group::fresh("compactions by two apiservers")
        .case("K8-007", async |t| {
            let other = t.connection().await;
            same("first", t.ok(compact_turn(0, "0")).await?.succeeded, true)?;
            let second = ask_on(&other, compact_turn(0, "0")).await;
            let second = second.map_err(|status| Difference::new(status.to_string()))?;
            same("second", second.succeeded, false)?;
            same("what it finds", kv(&range_at(&second, 0)?.kvs[0]), ("compact_rev_key=0".into(), 2, 2, 1, 0))
        })
        .case("K8-008", async |t| {
            for at in 0..4 {
                t.ok(put(format!("/registry/p/{at}"), "")).await?;
            }
            let current = t.revision().await?;
            same("turn", t.ok(compact_turn(1, &current.to_string())).await?.succeeded, true)?;
            t.ok(compact(current)).await.map(|_| ())
        })
        .case("K8-009", async |t| {
            t.refused(prefix("/registry/").at(5), ErrorCode::Compacted).await?;
            same("at the compacted revision", t.ok(prefix("/registry/").at(6)).await?.count, 4)
        })
}

const PODS: &str = "/registry/p/";

/// A page of a list: from `after`, without it, or from the start.
fn page(after: Option<&str>, limit: i64, revision: i64) -> RangeRequest {
    let end = client::prefix_end(PODS.as_bytes());
    let start = after.map_or_else(|| PODS.to_string(), |key| format!("{key}\0"));
    span(start, end).limit(limit).at(revision)
}

/// A watch as the apiserver opens it.
fn cacher_watch(start: i64) -> WatchRequest {
    let (key, end) = client::prefix_range(PODS.as_bytes());
    create(WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        start_revision: start,
        prev_kv: true,
        progress_notify: true,
        ..Default::default()
    })
}

async fn pods(t: &Target) -> Outcome {
    for at in 0..7 {
        t.ok(put(format!("{PODS}{at}"), format!("v{at}"))).await?;
    }
    same("revision", t.revision().await?, 8)
}

fn lists() -> Group {
    Group::fresh("lists and watches")
        .setup(pods)
        .case("K8-011", async |t| {
            let answer = t.ok(prefix(PODS).count_only()).await?;
            same("count and keys", (answer.count, answer.kvs.len()), (7, 0))
        })
        .case("K8-012", async |t| {
            let found = t.ok(range("/registry/p/1").limit(1)).await?;
            same("found", (values(&found.kvs), found.more), (vec!["v1".to_string()], false))?;
            let missing = t.ok(range("/registry/p").limit(1)).await?;
            same("missing", (missing.kvs.len(), rev(&missing.header)), (0, 8))
        })
        .case("K8-018", async |t| {
            let answer = t.ok(prefix(PODS).keys_only()).await?;
            same("keys", answer.kvs.len(), 7)?;
            same("values", values(&answer.kvs), [""; 7])
        })
        .case("K8-019", async |t| t.refused(prefix(PODS).at(108), ErrorCode::FutureRev).await)
        .case("K8-022", async |t| {
            let (messages, status) = t.all(prefix(PODS)).await?;
            same("status", status, Status::ok())?;
            let chunks: Vec<_> = messages.into_iter().filter_map(|message| message.range_response).collect();
            same("keys", chunks.iter().map(|chunk| chunk.kvs.len()).sum::<usize>(), 7)?;
            same("revision", chunks.last().map(|chunk| rev(&chunk.header)), Some(8))
        })
        .case("K8-001", pages)
}

/// A list in pages, with a write in between that they must not see.
async fn pages(t: &Target) -> Outcome {
    let first = t.ok(page(None, 3, 0)).await?;
    let pinned = rev(&first.header);
    same("first", (first.count, first.more), (7, true))?;
    t.ok(put(format!("{PODS}9"), "later")).await?;
    let last = text(&first.kvs[2].key);
    let second = t.ok(page(Some(&last), 3, pinned)).await?;
    same("second", (second.count, second.more, rev(&second.header)), (4, true, pinned + 1))?;
    let last = text(&second.kvs[2].key);
    let third = t.ok(page(Some(&last), 3, pinned)).await?;
    same("third", (third.count, third.more, rev(&third.header)), (1, false, pinned + 1))?;
    let found: Vec<String> = [first, second, third].iter().flat_map(|page| keys(&page.kvs)).collect();
    same("keys", found, (0..7).map(|at| format!("{PODS}{at}")).collect::<Vec<_>>())
}

/// The next response that carries events.
async fn next_events(stream: &mut Stream<WatchRequest>) -> Result<(Vec<String>, Vec<String>), Difference> {
    let answer = stream.message().await?;
    let previous = answer
        .events
        .iter()
        .map(|event| event.prev_kv.as_ref().map_or_else(|| "none".into(), |kv| text(&kv.value)));
    Ok((events(&answer), previous.collect()))
}

fn lists_then_watches() -> Group {
    lists()
        .cases(&["K8-013", "K8-014"], async |t| {
            let next = t.revision().await? + 1;
            let mut stream = t.open_with::<WatchRequest>(&[("hasleader", b"true")]);
            stream.send(cacher_watch(next));
            same("created", stream.message().await?.created, true)?;
            let key = format!("{PODS}3");
            t.ok(put(&key, "again")).await?;
            let expected = (vec![format!("PUT {key}")], vec!["v3".to_string()]);
            same("after the put", next_events(&mut stream).await?, expected)?;
            t.ok(delete(&key)).await?;
            let expected = (vec![format!("DELETE {key}")], vec!["again".to_string()]);
            same("after the delete", next_events(&mut stream).await?, expected)?;
            stream.send(progress());
            let answer = stream.message().await?;
            same("progress", (answer.watch_id, answer.events.len()), (-1, 0))?;
            same("revision", rev(&answer.header), next + 1)
        })
        .case("K8-020", async |t| {
            let current = rev(&t.ok(compact(8)).await?.header);
            let mut stream = t.open::<WatchRequest>();
            stream.send(cacher_watch(6));
            let created = stream.message().await?;
            same("created", (created.created, rev(&created.header)), (true, current))?;
            let canceled = stream.message().await?;
            same("canceled", (canceled.canceled, canceled.compact_revision), (true, 8))
        })
}

const TICK: Duration = Duration::from_millis(300);

/// On a store in which nothing happens, a watch from the next revision on hears nothing, not even when it asks.
fn idle_store() -> Group {
    Group::fresh("idle store").flags(&["--watch-progress-notify-interval=300ms"]).setup(pods).case(
        "K8-026",
        async |t| {
            let mut stream = t.open::<WatchRequest>();
            stream.send(cacher_watch(9));
            same("created", stream.message().await?.created, true)?;
            stream.send(progress());
            stream.silent(TICK * 4).await?;
            t.ok(put("/elsewhere", "")).await?;
            let (mut asked, mut ticked) = (false, false);
            let deadline = Instant::now() + Duration::from_secs(10);
            while !(asked && ticked) && Instant::now() < deadline {
                stream.send(progress());
                let Received::Message(answer) = stream.receive(TICK).await else { continue };
                same("progress", (answer.events.len(), rev(&answer.header)), (0, 9))?;
                asked |= answer.watch_id == -1;
                ticked |= answer.watch_id == 0;
            }
            same("asked for, and by the clock", (asked, ticked), (true, true))
        },
    )
}

/// The flags of kubeadm's static pod, without those that name certificates.
fn kubeadm() -> Group {
    let flags = [
        "--feature-gates=InitialCorruptCheck=true",
        "--snapshot-count=10000",
        "--watch-progress-notify-interval=5s",
    ];
    Group::fresh("kubeadm").flags(&flags).case("K8-024", async |t| {
        let current = rev(&t.ok(put("/elsewhere", "")).await?.header);
        let mut stream = t.open::<WatchRequest>();
        stream.send(cacher_watch(current));
        same("created", stream.message().await?.created, true)?;
        let mut gaps = Vec::new();
        for _ in 0..2 {
            let begin = Instant::now();
            let answer = stream.message().await?;
            gaps.push(begin.elapsed());
            same("progress", (answer.watch_id, answer.events.len(), rev(&answer.header)), (0, 0, current))?;
        }
        holds("the first comes within a tick", gaps[0] < Duration::from_millis(6000), &gaps)?;
        let second = Duration::from_millis(4900)..Duration::from_millis(6000);
        holds("the second comes a tick later", second.contains(&gaps[1]), &gaps)
    })
}

fn probes() -> Group {
    Group::shared("probes").case("K8-023", async |t| {
        let port = free_port();
        let flag = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
        let other = t.another(&[&flag]).await;
        let status = |path| other.member(|member| member.http_on(port, path)).map(|(status, _)| status);
        for path in ["/livez", "/readyz", "/health", "/metrics"] {
            same(path, status(path), Some(200))?;
        }
        for path in ["/version", "/v3/kv/range", "/debug/vars"] {
            same(path, status(path), Some(404))?;
        }
        Ok(())
    })
}

#[test]
fn go_and_ours_answer_alike() {
    suite().run();
}

#[test]
fn every_case_of_the_table_is_here() {
    covers(&suite(), include_str!("../cases/kubernetes.txt"), NOT_HERE);
}
