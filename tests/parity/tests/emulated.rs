//! `--emulated-version`: what a member reports that speaks as an older minor version, beside that release of Go's.

use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{
    DefragmentRequest, DefragmentResponse, HashKvRequest, HashRequest, MemberListRequest, RangeRequest,
    ResponseHeader, SnapshotRequest, StatusRequest, StatusResponse,
};
use harness::{go_release, ours, run};
use parity::http::{port_of, request};
use parity::semantics::alarms::NOSPACE;
use parity::semantics::answer::rev;
use parity::semantics::request::{PutOptions, RangeOptions, compact_physical, grant, prefix, put, time_to_live};
use parity::semantics::streams::response;
use parity::semantics::{Difference, Side, Target};

/// What was reported, a line for each thing.
type Report = Vec<String>;

/// Ids depend on ports, sizes on how leaves are laid out.
fn masked(header: Option<ResponseHeader>) -> Option<ResponseHeader> {
    header.map(|header| ResponseHeader { cluster_id: 0, member_id: 0, ..header })
}

fn status_line(status: StatusResponse) -> String {
    let header = masked(status.header);
    let leads = status.leader != 0;
    let known = StatusResponse { header, leader: u64::from(leads), db_size: 0, db_size_in_use: 0, ..status };
    format!("status {known:?}")
}

/// The status once the member has decided which version it stores as.
async fn settled_status(t: &Target, storage: &str) -> Result<StatusResponse, Difference> {
    let mut status = t.ok(StatusRequest {}).await?;
    for _ in 0..100 {
        if status.storage_version == storage {
            break;
        }
        t.sleep(Duration::from_millis(100)).await;
        status = t.ok(StatusRequest {}).await?;
    }
    Ok(status)
}

async fn maintenance(t: &Target, storage: &str, report: &mut Report) -> Result<(), Difference> {
    report.push(status_line(settled_status(t, storage).await?));
    for revision in [0, -3] {
        let hash = t.ok(HashKvRequest { revision }).await?;
        report.push(format!("hash of keys {} {} {}", hash.hash, hash.compact_revision, hash.hash_revision));
    }
    report.push(format!("hash {}", rev(&t.ok(HashRequest {}).await?.header)));
    let (messages, end) = t.all(SnapshotRequest {}).await?;
    let mut forms: Vec<String> =
        messages.iter().map(|message| format!("{:?} {:?}", message.header, message.version)).collect();
    forms.dedup();
    report.push(format!("snapshot {forms:?} {end}"));
    let defragmented = t.ok(DefragmentRequest {}).await? == DefragmentResponse::default();
    report.push(format!("defragment {defragmented}"));
    let members = t.ok(MemberListRequest { linearizable: true }).await?;
    let shown: Vec<String> = members
        .members
        .iter()
        .map(|m| format!("{} {} {} {}", m.name, m.peer_ur_ls.len(), m.client_ur_ls.len(), m.is_learner))
        .collect();
    report.push(format!("members {:?} {shown:?}", masked(members.header)));
    Ok(())
}

async fn keys(t: &Target, report: &mut Report) -> Result<(), Difference> {
    t.ok(grant(7, 600)).await?;
    for (key, lease) in [("a", 7), ("b", 0), ("a", 7)] {
        t.ok(put(key, "1").lease(lease)).await?;
    }
    let mut s = t.watchers();
    s.send(parity::semantics::request::create(parity::semantics::request::watch("a", "c", 2)));
    report.push(format!("watch {} {}", response(&s.message().await?), response(&s.message().await?)));
    report.push(format!("keys only {:?}", t.ok(prefix("").keys_only()).await?.kvs));
    let (messages, end) = t.all::<RangeRequest>(prefix("")).await?;
    report.push(format!("stream of a range {} {end}", messages.len()));
    let times = t.ok(time_to_live(7)).await?;
    report.push(format!("lease {} {:?}", times.granted_ttl, times.keys));
    t.ok(compact_physical(3)).await?;
    for revision in [0, 2, 3] {
        let hash = t.ask(HashKvRequest { revision }).await;
        report.push(format!("hash at {revision} {:?}", hash.map(|h| (h.hash, h.compact_revision, h.hash_revision))));
    }
    t.raise(5, NOSPACE).await?;
    let errors = t.ok(StatusRequest {}).await?.errors;
    let words: Vec<&str> = errors.iter().flat_map(|text| text.split_whitespace()).collect();
    report.push(format!("errors {words:?}"));
    t.lower(5, NOSPACE).await
}

fn http(t: &Target, report: &mut Report) {
    let port = t.member(|member| port_of(&member.client_url()));
    for path in ["/version", "/health", "/livez", "/readyz"] {
        let answer = request(port, "GET", path, &[], b"");
        report.push(format!("{path} {} {}", answer.status, answer.body.trim_end()));
    }
    let metrics = request(port, "GET", "/metrics", &[], b"").body;
    let versions = ["etcd_server_version{", "etcd_cluster_version{"];
    report.extend(
        metrics
            .lines()
            .filter(|line| versions.iter().any(|name| line.starts_with(name)))
            .map(str::to_string),
    );
}

async fn report(t: &Target, storage: &str) -> Result<Report, Difference> {
    let mut report = Report::new();
    maintenance(t, storage, &mut report).await?;
    keys(t, &mut report).await?;
    http(t, &mut report);
    Ok(report)
}

/// What Go's newest tool says of the file that is left behind.
fn stored_version(t: &Target) -> String {
    let Some(newest) = go_release("3.7.3") else { return String::new() };
    t.member(|member| {
        member.stop();
    });
    let db = t.data_dir().join("member/snap/db").display().to_string();
    let tool = newest.etcdutl.as_ref().expect("built with the release");
    let status = run(tool, &["snapshot", "status", &db, "-w", "json"]).ok();
    let version = status.split("\"version\":").nth(1).unwrap_or_default().trim_end();
    format!("stored version {version}")
}

fn same_reports(release: &str, minor: &str, storage: &str) {
    let Some(go) = go_release(release) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let seen = |side, binaries, flags: &[String]| {
        runtime.block_on(async {
            let t = Target::start(side, &Arc::new(binaries), flags).await;
            let mut seen = report(&t, storage).await.unwrap_or_else(|difference| panic!("{side}: {difference}"));
            seen.push(stored_version(&t));
            seen
        })
    };
    let expected = seen(Side::Go, go, &[]);
    let seen = seen(Side::Ours, ours(), &[format!("--emulated-version={minor}")]);
    let differ: Vec<String> = expected
        .iter()
        .zip(&seen)
        .filter(|(expected, seen)| expected != seen)
        .map(|(expected, seen)| format!("- {expected}\n+ {seen}"))
        .collect();
    assert!(differ.is_empty() && expected.len() == seen.len(), "{}", differ.join("\n"));
}

#[test]
fn a_member_that_speaks_as_3_6_reports_as_3_6() {
    same_reports("3.6.16", "3.6", "3.6.0");
}

#[test]
fn a_member_that_speaks_as_3_5_reports_as_3_5() {
    same_reports("3.5.35", "3.5", "");
}
