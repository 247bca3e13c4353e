//! Cases that need several members: each script on three Go members and on three of ours.

use std::time::{Duration, Instant};

use api::ErrorCode;
use api::etcdserverpb::{
    AlarmRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, MemberAddRequest,
    MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest, MoveLeaderResponse,
    StatusRequest, TxnRequest, WatchRequest,
};
use harness::{Binaries, Cluster, go_release, ours};
use parity::semantics::answer::{holds, rev};
use parity::semantics::request::{Op, RangeOptions, create, put, range, then, watch};
use parity::semantics::target::{Metadata, ask_on, connect};
use parity::semantics::{Difference, Outcome, Status, Stream, same};
use tonic::transport::Channel;

const NOWHERE: &str = "http://127.0.0.1:9";
/// SIGSTOP and SIGCONT.
const STOP: i32 = 19;
const CONTINUE: i32 = 18;

pub(super) async fn to(cluster: &Cluster, i: usize) -> Channel {
    connect(&cluster.member(i).client_url()).await
}

fn refused<T: std::fmt::Debug>(what: &str, got: Result<T, Status>, why: ErrorCode) -> Outcome {
    match got {
        Err(status) if status == Status::from(why) => Ok(()),
        other => Err(Difference(format!("{what}: expected {}, got {other:?}", Status::from(why)))),
    }
}

pub(super) fn works<T>(what: &str, got: Result<T, Status>) -> Result<T, Difference> {
    got.map_err(|status| Difference(format!("{what}: expected OK, got {status}")))
}

fn add(url: &str, is_learner: bool) -> MemberAddRequest {
    MemberAddRequest { peer_ur_ls: vec![url.into()], is_learner }
}

/// CM-016, 017, 044, 061: who leads, and that it can be told to another, which may not answer.
async fn leadership(cluster: &Cluster) -> Outcome {
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let (at_leader, at_follower) = (to(cluster, leader).await, to(cluster, follower).await);
    let target_id = cluster.id(follower);
    refused("CM-016", ask_on(&at_follower, MoveLeaderRequest { target_id }).await, ErrorCode::NotLeader)?;
    let seen = works("CM-044", ask_on(&at_follower, StatusRequest {}).await)?;
    same("CM-044", seen.leader, cluster.id(leader))?;
    let term = seen.raft_term;
    let moved = works("CM-017", ask_on(&at_leader, MoveLeaderRequest { target_id }).await)?;
    same("CM-017", moved, MoveLeaderResponse::default())?;
    cluster.until("the target leads", |cluster| cluster.leader() == follower);
    let seen = works("CM-017", ask_on(&at_leader, StatusRequest {}).await)?;
    same("CM-017, leader and term", (seen.leader, seen.raft_term), (target_id, term + 1))?;
    let id = format!("{:x}", cluster.id(leader));
    cluster.member(leader).signal(STOP);
    let start = Instant::now();
    let late = cluster.ctl_on(follower, &["move-leader", &id, "--command-timeout=3s"]);
    cluster.member(leader).signal(CONTINUE);
    // The client's clock and the server's run out together.
    let says_so = ["deadline exceeded", "DeadlineExceeded", "leader transfer took too long"];
    let is_late = says_so.iter().any(|text| late.stderr.contains(text)) && start.elapsed() > Duration::from_millis(2_500);
    holds("CM-061", late.code != 0 && is_late, (late, start.elapsed()))?;
    cluster.leader();
    Ok(())
}

/// CM-018, 045 to 054, 086, WA-068: a learner from its addition to its promotion, and the end of one of the four.
async fn learner(cluster: &mut Cluster, binaries: &Binaries) -> Outcome {
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let (at_leader, at_follower) = (to(cluster, leader).await, to(cluster, follower).await);
    // By a follower, and not started yet.
    let unhealthy = Status::from(ErrorCode::Unhealthy);
    let added = loop {
        match ask_on(&at_follower, add(NOWHERE, true)).await {
            Err(status) if status == unhealthy => tokio::time::sleep(Duration::from_millis(200)).await,
            other => break works("CM-045", other)?.member.unwrap_or_default(),
        }
    };
    same("CM-045", added.is_learner, true)?;
    let promote = MemberPromoteRequest { id: added.id };
    refused("CM-046", ask_on(&at_follower, promote).await, ErrorCode::LearnerNotReady)?;
    let moved = ask_on(&at_leader, MoveLeaderRequest { target_id: added.id }).await;
    refused("CM-018", moved, ErrorCode::BadLeaderTransferee)?;
    works("its removal", ask_on(&at_leader, MemberRemoveRequest { id: added.id }).await)?;
    works("a put", ask_on(&at_leader, put("a", "1")).await)?;

    let new = cluster.join(binaries, true);
    cluster.in_step(new);
    let at_new = to(cluster, new).await;
    let status = works("CM-047", ask_on(&at_new, StatusRequest {}).await)?;
    same("CM-047", status.is_learner, true)?;
    works("CM-048", ask_on(&at_new, range("a").serializable()).await)?;
    let not = ErrorCode::NotSupportedForLearner;
    refused("CM-049, range", ask_on(&at_new, range("a")).await, not)?;
    refused("CM-049, put", ask_on(&at_new, put("a", "1")).await, not)?;
    refused("CM-049, delete", ask_on(&at_new, DeleteRangeRequest::default()).await, not)?;
    let txn: TxnRequest = then([range("a").serializable().op()]);
    refused("CM-049, txn", ask_on(&at_new, txn).await, not)?;
    refused("CM-049, members", ask_on(&at_new, MemberListRequest { linearizable: false }).await, not)?;
    refused("CM-049, hash", ask_on(&at_new, HashKvRequest { revision: 0 }).await, not)?;
    refused("CM-049, alarm", ask_on(&at_new, AlarmRequest::default()).await, not)?;
    refused("CM-049, lease", ask_on(&at_new, LeaseGrantRequest { ttl: 5, id: 0 }).await, not)?;
    let mut watched: Stream<WatchRequest> = Stream::open(at_new.clone(), &Metadata(&[]));
    watched.send(create(watch("a", "", 0)));
    same("CM-049, watch", watched.end().await?, Status::from(not))?;
    let mut kept: Stream<LeaseKeepAliveRequest> = Stream::open(at_new.clone(), &Metadata(&[]));
    kept.send(LeaseKeepAliveRequest { id: 1 });
    same("CM-049, renewal", kept.end().await?, Status::from(not))?;
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let file = scratch.path().join("snapshot").display().to_string();
    same("CM-050", cluster.ctl_on(new, &["snapshot", "save", &file]).code, 0)?;
    let http = |path: &str| cluster.member(new).http(path).unwrap_or_default();
    let (status, body) = http("/readyz");
    let says = body.contains("[-]non_learner failed: not supported for learner");
    same("CM-086, /readyz", (status, says), (503, true))?;
    same("CM-086, /livez and /health", (http("/livez").0, http("/health").0), (200, 200))?;

    let id = cluster.id(new);
    let promoted = works("CM-051", ask_on(&at_follower, MemberPromoteRequest { id }).await)?;
    same("CM-051", promoted.members.iter().any(|member| member.is_learner), false)?;
    same("CM-051", rev(&promoted.header), 0)?;
    refused("CM-052", ask_on(&at_follower, MemberPromoteRequest { id }).await, ErrorCode::MemberNotLearner)?;
    cluster.until("CM-053: it knows of its promotion", |cluster| cluster.ctl_on(new, &["put", "b", "2"]).code == 0);
    let (leader, follower_id) = (cluster.leader(), cluster.id(follower));
    let at = to(cluster, leader).await;
    works("CM-054", ask_on(&at, MemberRemoveRequest { id: follower_id }).await)?;
    same("CM-054", cluster.member_mut(follower).wait(Duration::from_secs(5)), Some(0))
}

/// CM-055 to 058: one of three is down.
async fn one_is_down(cluster: &mut Cluster) -> Outcome {
    let leader = cluster.leader();
    let (live, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    let (live_id, dead_id) = (cluster.id(live), cluster.id(dead));
    cluster.member_mut(dead).kill();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let at_leader = to(cluster, leader).await;
    refused("CM-055", ask_on(&at_leader, add(NOWHERE, false)).await, ErrorCode::Unhealthy)?;
    refused("CM-056", ask_on(&at_leader, add(NOWHERE, true)).await, ErrorCode::Unhealthy)?;
    refused("CM-057", ask_on(&at_leader, MemberRemoveRequest { id: live_id }).await, ErrorCode::Unhealthy)?;
    works("CM-058", ask_on(&at_leader, MemberRemoveRequest { id: dead_id }).await)?;
    Ok(())
}

/// CM-060, 082, 083: no quorum is left. Streams that asked for a leader hear of it, others do not.
async fn no_quorum(cluster: &mut Cluster) -> Outcome {
    let left = cluster.leader();
    let wanted: &[(&'static str, &[u8])] = &[("hasleader", b"true")];
    let mut with_leader: Stream<WatchRequest> = Stream::open(to(cluster, left).await, &Metadata(wanted));
    let mut without: Stream<WatchRequest> = Stream::open(to(cluster, left).await, &Metadata(&[]));
    for stream in [&mut with_leader, &mut without] {
        stream.send(create(watch("a", "", 0)));
        stream.message().await?;
    }
    for i in (0..cluster.len()).filter(|i| *i != left) {
        if cluster.member(i).is_running() {
            cluster.member_mut(i).kill();
        }
    }
    cluster.until("nobody leads", |cluster| cluster.field(left, "Leader") == Some(0));
    same("the stream with a leader", with_leader.end().await?, Status::from(ErrorCode::NoLeader))?;
    without.silent(Duration::from_millis(500)).await?;
    let mut late: Stream<WatchRequest> = Stream::open(to(cluster, left).await, &Metadata(wanted));
    same("a late stream", late.end().await?, Status::from(ErrorCode::NoLeader))?;
    let at = to(cluster, left).await;
    let linearizable = ask_on(&at, MemberListRequest { linearizable: true }).await;
    refused("CM-060", linearizable, ErrorCode::Timeout)?;
    works("CM-060", ask_on(&at, MemberListRequest { linearizable: false }).await)?;
    let http = |path: &str| cluster.member(left).http(path).unwrap_or_default();
    let (status, body) = http("/health");
    let expected = (503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}");
    same("CM-082", (status, body.trim_end()), expected)?;
    same("CM-083", http("/health?serializable=true").0, 200)
}

/// CM-059: one of five is down.
async fn one_of_five(cluster: &mut Cluster) -> Outcome {
    let leader = cluster.leader();
    cluster.member_mut((leader + 1) % 5).kill();
    tokio::time::sleep(Duration::from_secs(7)).await;
    works("CM-059", ask_on(&to(cluster, leader).await, add(NOWHERE, false)).await)?;
    Ok(())
}

async fn all(binaries: &Binaries) -> Result<(), Difference> {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let three = [binaries, binaries, binaries];
    let mut cluster = Cluster::start(&three, &scratch.path().join("a"), &[]);
    leadership(&cluster).await?;
    learner(&mut cluster, binaries).await?;
    drop(cluster);
    let mut cluster = Cluster::start(&three, &scratch.path().join("b"), &[]);
    one_is_down(&mut cluster).await?;
    no_quorum(&mut cluster).await?;
    drop(cluster);
    let five = [binaries; 5];
    let mut cluster = Cluster::start(&five, &scratch.path().join("c"), &[]);
    one_of_five(&mut cluster).await
}

fn run(binaries: &Binaries) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    if let Err(difference) = runtime.block_on(all(binaries)) {
        panic!("{}: {difference}", binaries.label);
    }
}

#[test]
fn several_members_of_ours() {
    run(&ours());
}

#[test]
fn several_members_of_go() {
    if let Some(go) = go_release("3.7.3") {
        run(&go);
    }
}
