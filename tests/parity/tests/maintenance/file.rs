//! The database file: snapshots, defragmentation, the quota.

use api::error::Code;
use api::etcdserverpb::{
    DefragmentRequest, DefragmentResponse, HashRequest, LeaseGrantRequest, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use api::etcdserverpb::alarm_request::AlarmAction;
use parity::semantics::alarms::{CORRUPT, NONE, NOSPACE};
use parity::semantics::answer::holds;
use parity::semantics::request::{compact_physical, delete_span, put};
use parity::semantics::{Difference, Group, Outcome, Status, Target, same};
use sha2::{Digest, Sha256};

/// Bytes of the file in one message.
const BLOB_BYTES: usize = 32 << 10;
/// Bytes of the trailer.
const HASH_BYTES: usize = 32;

pub(super) fn groups() -> Vec<Group> {
    let snapshots = Group::fresh("snapshots")
        // Before that Go's snapshots name no version, as seen on a busy machine.
        .setup(async |t: &Target| super::members::stored(t, "3.7.0").await)
        .case("CM-011", cm_011)
        .case("CM-012", cm_012);
    let moves = Group::fresh("defragmentation").case("CM-013", cm_013);
    let quota = Group::fresh("quota")
        .flags(&["--quota-backend-bytes=2000000"])
        .setup(until_it_is_full)
        .case("CM-071", cm_071)
        .case("CM-072", cm_072)
        .case("CM-073", cm_073)
        .case("CM-074", cm_074);
    vec![quota, moves, snapshots]
}

async fn status(t: &Target) -> Result<StatusResponse, Difference> {
    t.ok(StatusRequest {}).await
}

/// Takes a snapshot and checks its form; the messages with data.
async fn snapshot(t: &Target) -> Result<Vec<SnapshotResponse>, Difference> {
    let (mut messages, end) = t.all(SnapshotRequest {}).await?;
    same("end", end, Status::ok())?;
    let hash = messages.pop().ok_or_else(|| Difference::new("no message at all"))?;
    let total: usize = messages.iter().map(|message| message.blob.len()).sum();
    let (mut left, mut digest) = (total, Sha256::new());
    for message in &messages {
        digest.update(&message.blob);
        left -= message.blob.len();
        same("bytes that remain", message.remaining_bytes, left as u64)?;
        same("header and version", (message.header.is_some(), message.version.as_str()), (false, "3.7.0"))?;
    }
    same("hash", hash.blob.as_ref(), digest.finalize().as_slice())?;
    same("rest of the hash's message", (hash.remaining_bytes, hash.version.as_str()), (0, "3.7.0"))?;
    same("length of the hash", hash.blob.len(), HASH_BYTES)?;
    holds("whole pages", total > 0 && total.is_multiple_of(4096), total)?;
    Ok(messages)
}

async fn cm_011(t: &Target) -> Outcome {
    snapshot(t).await.map(drop)
}

async fn cm_012(t: &Target) -> Outcome {
    for number in 0..4 {
        t.ok(put(format!("k{number}"), vec![b'x'; 100_000])).await?;
    }
    let messages = snapshot(t).await?;
    let sizes: Vec<usize> = messages.iter().map(|message| message.blob.len()).collect();
    let (last, others) = sizes.split_last().ok_or_else(|| Difference::new("no message with data"))?;
    holds("400 kB of data", sizes.iter().sum::<usize>() > 400_000, &sizes)?;
    holds("full blobs but for the last", others.iter().all(|size| *size == BLOB_BYTES), &sizes)?;
    holds("a last blob that is not longer", *last <= BLOB_BYTES, &sizes)
}

async fn cm_013(t: &Target) -> Outcome {
    for number in 0..40 {
        t.ok(put(format!("k{number:02}"), vec![b'x'; 50_000])).await?;
    }
    // A hash is taken of the file: all that was written goes there first.
    t.ok(HashRequest {}).await?;
    t.ok(delete_span("k", "l")).await?;
    t.ok(compact_physical(t.revision().await?)).await?;
    let before = settled(t).await?;
    holds("a file with holes", before.db_size > 4 * before.db_size_in_use, sizes(&before))?;
    same("answer", t.ok(DefragmentRequest {}).await?, DefragmentResponse::default())?;
    let after = status(t).await?;
    let shown = (sizes(&before), sizes(&after));
    holds("a file without holes", after.db_size <= after.db_size_in_use + 64 * 1024, shown)?;
    holds("the same in use", after.db_size_in_use <= before.db_size_in_use, shown)?;
    same("revision", t.revision().await?, 42)
}

fn sizes(status: &StatusResponse) -> (i64, i64) {
    (status.db_size, status.db_size_in_use)
}

/// The status once a commit has shown what the compaction freed.
async fn settled(t: &Target) -> Result<StatusResponse, Difference> {
    let mut answer = status(t).await?;
    for _ in 0..50 {
        if answer.db_size > 4 * answer.db_size_in_use {
            break;
        }
        // Go counts pages as in use until a commit after the one that freed them, and commits only when something was
        // written: a lease is, and changes no revision.
        t.ok(LeaseGrantRequest { ttl: 600, id: 0 }).await?;
        t.sleep(std::time::Duration::from_millis(100)).await;
        answer = status(t).await?;
    }
    Ok(answer)
}

async fn until_it_is_full(t: &Target) -> Outcome {
    let full = Status::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    for number in 0..200 {
        match t.ask(put(format!("k{number}"), vec![b'x'; 100_000])).await {
            Ok(_) => {}
            Err(status) if status == full => return Ok(()),
            Err(status) => return Err(Difference(format!("put {number}: {status}"))),
        }
        t.sleep(std::time::Duration::from_millis(10)).await;
    }
    Err(Difference::new("20 MB fit into a quota of 2 MB"))
}

async fn own(t: &Target) -> Result<u64, Difference> {
    Ok(status(t).await?.header.unwrap_or_default().member_id)
}

async fn cm_071(t: &Target) -> Outcome {
    let own = own(t).await?;
    same("all alarms", t.alarms(NONE).await?, vec![(own, NOSPACE)])?;
    same("NOSPACE alarms", t.alarms(NOSPACE).await?, vec![(own, NOSPACE)])?;
    same("CORRUPT alarms", t.alarms(CORRUPT).await?, vec![])
}

async fn cm_072(t: &Target) -> Outcome {
    let own = own(t).await?;
    let errors = status(t).await?.errors;
    let words: Vec<Vec<&str>> = errors.iter().map(|text| text.split_whitespace().collect()).collect();
    let member = format!("memberID:{own}");
    same("errors", words, vec![vec![member.as_str(), "alarm:NOSPACE"]])
}

async fn cm_073(t: &Target) -> Outcome {
    let own = own(t).await?;
    same("type NONE", t.alarm(AlarmAction::Deactivate, own, NONE).await?, vec![])?;
    same("member 0", t.alarm(AlarmAction::Deactivate, 0, NOSPACE).await?, vec![])?;
    same("all alarms", t.alarms(NONE).await?, vec![(own, NOSPACE)])
}

async fn cm_074(t: &Target) -> Outcome {
    let own = own(t).await?;
    t.lower(own, NOSPACE).await?;
    same("again", t.alarm(AlarmAction::Deactivate, own, NOSPACE).await?, vec![])?;
    same("all alarms", t.alarms(NONE).await?, vec![])
}
