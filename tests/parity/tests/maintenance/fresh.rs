//! What a member answers that nobody has written to.

use std::time::Duration;

use api::ErrorCode;
use api::error::Code;
use api::etcdserverpb::{
    DowngradeInfo, HashKvRequest, HashRequest, MemberListRequest, MoveLeaderRequest, MoveLeaderResponse,
    StatusRequest, StatusResponse,
};
use api::health::{HealthCheckRequest, HealthCheckResponse};
use bytes::Bytes;
use parity::semantics::answer::{holds, rev};
use parity::semantics::request::{put, range};
use parity::semantics::{Difference, Group, Outcome, Status, Target, same};
use prost::Message;

/// CRC-32C of the bucket's name alone: the hash of no keys.
pub(super) const HASH_OF_NOTHING: u32 = 1_084_519_789;

pub(super) fn groups() -> Vec<Group> {
    let fresh = Group::fresh("fresh member")
        .case("CM-001", cm_001)
        .case("CM-002", cm_002)
        .case("CM-003", cm_003)
        .case("CM-004", cm_004)
        .case("CM-005", cm_005)
        .case("CM-014", cm_014)
        .case("CM-015", cm_015)
        .case("CM-030", cm_030)
        .case("CM-088", cm_088)
        .case("CM-009", cm_009)
        .case("CM-010", cm_010);
    vec![fresh]
}

async fn status(t: &Target) -> Result<StatusResponse, Difference> {
    t.ok(StatusRequest {}).await
}

async fn hash_kv(t: &Target, revision: i64) -> Result<(u32, i64, i64), Difference> {
    let answer = t.ok(HashKvRequest { revision }).await?;
    Ok((answer.hash, answer.compact_revision, answer.hash_revision))
}

async fn cm_001(t: &Target) -> Outcome {
    let answer = status(t).await?;
    let header = answer.header.unwrap_or_default();
    same("version", answer.version.as_str(), "3.7.3")?;
    holds("itself as leader", answer.leader == header.member_id && answer.leader != 0, &answer)?;
    holds("a cluster", header.cluster_id != 0, header)?;
    same("revision", header.revision, 1)?;
    same("term", (header.raft_term, answer.raft_term), (2, 2))?;
    // Without anybody to write, indexes stand where the start left them.
    holds("indexes in order", answer.raft_index >= answer.raft_applied_index, &answer)?;
    holds("sizes", answer.db_size >= answer.db_size_in_use && answer.db_size_in_use > 0, &answer)?;
    same("errors and learner", (answer.errors.len(), answer.is_learner), (0, false))
}

async fn cm_002(t: &Target) -> Outcome {
    let mut answer = status(t).await?;
    // Go decides on the stored version a moment after it serves.
    for _ in 0..100 {
        if answer.storage_version == "3.7.0" {
            break;
        }
        t.sleep(Duration::from_millis(100)).await;
        answer = status(t).await?;
    }
    same("storage version", answer.storage_version.as_str(), "3.7.0")?;
    same("quota", answer.db_size_quota, 2_147_483_648)?;
    same("downgrade", answer.downgrade_info, Some(DowngradeInfo::default()))?;
    same("indexes", (answer.raft_index, answer.raft_applied_index), (4, 4))
}

async fn cm_003(t: &Target) -> Outcome {
    let answer = t.ok(HashRequest {}).await?;
    holds("a hash", answer.hash != 0, answer)?;
    same("revision", rev(&answer.header), 1)
}

async fn cm_004(t: &Target) -> Outcome {
    same("hash, compact revision, revision", hash_kv(t, 0).await?, (HASH_OF_NOTHING, -1, 1))
}

async fn cm_005(t: &Target) -> Outcome {
    t.refused(HashKvRequest { revision: 99 }, ErrorCode::FutureRev).await
}

async fn cm_009(t: &Target) -> Outcome {
    t.ok(put("a", "1")).await?;
    same("hash, compact revision, revision", hash_kv(t, -3).await?, (HASH_OF_NOTHING, -1, -3))
}

async fn cm_010(t: &Target) -> Outcome {
    let before = hash_kv(t, 0).await?;
    t.ok(range("a")).await?;
    same("hash, compact revision, revision", hash_kv(t, 0).await?, before)?;
    // The same on both servers, for the key is the same.
    same("hash, compact revision, revision", before, (2_587_454_935, -1, 2))
}

async fn cm_014(t: &Target) -> Outcome {
    let target_id = status(t).await?.leader;
    same("answer", t.ok(MoveLeaderRequest { target_id }).await?, MoveLeaderResponse::default())?;
    same("leader", status(t).await?.leader, target_id)
}

async fn cm_015(t: &Target) -> Outcome {
    t.refused(MoveLeaderRequest { target_id: 5 }, ErrorCode::BadLeaderTransferee).await
}

async fn cm_030(t: &Target) -> Outcome {
    let own = status(t).await?.header.unwrap_or_default();
    for linearizable in [false, true] {
        let answer = t.ok(MemberListRequest { linearizable }).await?;
        let header = answer.header.unwrap_or_default();
        let expected = (own.cluster_id, own.member_id, 0, own.raft_term);
        same("header", (header.cluster_id, header.member_id, header.revision, header.raft_term), expected)?;
        let urls = t.member(|member| (vec![member.peer_url()], vec![member.client_url()]));
        let seen: Vec<_> = answer
            .members
            .iter()
            .map(|m| (m.id, m.name.as_str(), (m.peer_ur_ls.clone(), m.client_ur_ls.clone()), m.is_learner))
            .collect();
        same("members", seen, vec![(own.member_id, "m0", urls, false)])?;
    }
    Ok(())
}

async fn cm_088(t: &Target) -> Outcome {
    let check = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() }.encode_to_vec();
        t.raw("/grpc.health.v1.Health/Check", Bytes::from(request), &[]).await
    };
    let answer = check("").await.map_err(|status| Difference(format!("service \"\": {status}")))?;
    let answer = HealthCheckResponse::decode(answer).map_err(|error| Difference(error.to_string()))?;
    same("status", answer.status, 1)?;
    same("service foo", check("foo").await, Err::<Bytes, _>(Status::new(Code::NotFound, "unknown service")))
}
