//! Changes of the members and downgrades, as a single member shows them.

use std::time::Duration;

use api::ErrorCode;
use api::etcdserverpb::{
    DowngradeInfo, DowngradeRequest, Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest, StatusRequest,
};
use parity::semantics::answer::{holds, rev};
use parity::semantics::request::put;
use parity::semantics::{Difference, Group, Outcome, Target, same};

/// Actions of `DowngradeRequest`.
const VALIDATE: i32 = 0;
const ENABLE: i32 = 1;
const CANCEL: i32 = 2;
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

pub(super) fn groups() -> Vec<Group> {
    let voters = Group::fresh("changes of a lone member")
        .case("CM-031", cm_031)
        .case("CM-032", cm_032)
        .case("CM-033", cm_033)
        .case("CM-034", cm_034)
        .case("CM-035", cm_035)
        .case("CM-036", cm_036)
        .cases(&["CM-037", "CM-038", "CM-039", "CM-040"], learner)
        .cases(&["CM-041", "CM-042", "CM-043"], second_voter);
    let downgrades = Group::fresh("downgrade")
        // The cluster decides on its version a moment after the member serves.
        .setup(async |t: &Target| stored(t, "3.7.0").await)
        .cases(&["CM-020", "CM-021", "CM-022", "CM-026"], validated)
        .case("CM-023", cm_023)
        .case("CM-025", cm_025)
        .cases(&["CM-024", "CM-027", "CM-028"], down_and_up);
    vec![voters, downgrades]
}

fn add(urls: &[&str], is_learner: bool) -> MemberAddRequest {
    MemberAddRequest { peer_ur_ls: urls.iter().map(ToString::to_string).collect(), is_learner }
}

fn update(id: u64, urls: &[&str]) -> MemberUpdateRequest {
    MemberUpdateRequest { id, peer_ur_ls: urls.iter().map(ToString::to_string).collect() }
}

async fn own(t: &Target) -> Result<Member, Difference> {
    let answer = t.ok(MemberListRequest { linearizable: false }).await?;
    answer.members.into_iter().next().ok_or_else(|| Difference::new("no members"))
}

async fn cm_031(t: &Target) -> Outcome {
    for urls in [&["junk"][..], &[], &["http://127.0.0.1"], &["http://127.0.0.1:9/path"], &["ftp://127.0.0.1:9"]] {
        t.refused(add(urls, false), ErrorCode::MemberBadUrls).await?;
    }
    Ok(())
}

async fn cm_032(t: &Target) -> Outcome {
    let url = t.member(|member| member.peer_url());
    t.refused(add(&[&url], false), ErrorCode::PeerUrlExist).await
}

async fn cm_033(t: &Target) -> Outcome {
    t.refused(MemberRemoveRequest { id: 5 }, ErrorCode::MemberNotFound).await?;
    t.refused(update(5, &[NOWHERE]), ErrorCode::MemberNotFound).await?;
    t.refused(MemberPromoteRequest { id: 5 }, ErrorCode::MemberNotFound).await
}

async fn cm_034(t: &Target) -> Outcome {
    t.refused(MemberPromoteRequest { id: own(t).await?.id }, ErrorCode::MemberNotLearner).await
}

async fn cm_035(t: &Target) -> Outcome {
    t.refused(MemberRemoveRequest { id: own(t).await?.id }, ErrorCode::MemberNotEnoughStarted).await
}

/// Go stores junk and an empty list too; ours refuses both, as adding such a member is refused by both.
async fn cm_036(t: &Target) -> Outcome {
    let (id, url) = (own(t).await?.id, t.member(|member| member.peer_url()));
    let answer = t.ok(update(id, &[&url])).await?;
    same("revision, members", (rev(&answer.header), answer.members.len()), (0, 1))?;
    same("URLs", own(t).await?.peer_ur_ls, vec![url])
}

async fn learner(t: &Target) -> Outcome {
    let answer = t.ok(add(&[NOWHERE], true)).await?;
    let added = answer.member.unwrap_or_default();
    same("learner, name", (added.is_learner, added.name.as_str()), (true, ""))?;
    same("members, revision", (answer.members.len(), rev(&answer.header)), (2, 0))?;
    t.refused(add(&["http://127.0.0.1:8"], true), ErrorCode::TooManyLearners).await?;
    t.refused(MemberPromoteRequest { id: added.id }, ErrorCode::LearnerNotReady).await?;
    t.ok(put("a", "1")).await?;
    same("members left", t.ok(MemberRemoveRequest { id: added.id }).await?.members.len(), 1)?;
    t.refused(MemberRemoveRequest { id: added.id }, ErrorCode::MemberNotFound).await?;
    t.refused(update(added.id, &[NOWHERE]), ErrorCode::MemberNotFound).await?;
    t.refused(MemberPromoteRequest { id: added.id }, ErrorCode::MemberNotFound).await
}

/// KV-157 too: the leader is known, and its write needs the one that is not there.
async fn second_voter(t: &Target) -> Outcome {
    let urls = ["http://127.0.0.1:11", "http://127.0.0.1:10"];
    let answer = t.ok(add(&urls, false)).await?;
    let sorted = vec![urls[1].to_string(), urls[0].to_string()];
    same("URLs", answer.member.unwrap_or_default().peer_ur_ls, sorted)?;
    t.refused(add(&[NOWHERE], false), ErrorCode::MemberNotEnoughStarted).await?;
    let (written, lost) = tokio::join!(t.refused(put("a", "1"), ErrorCode::Timeout), leader_lost(t));
    written?;
    lost
}

async fn leader_lost(t: &Target) -> Outcome {
    for _ in 0..100 {
        let status = t.ok(StatusRequest {}).await?;
        if status.leader == 0 {
            return same("errors", status.errors, vec![ErrorCode::NoLeader.message().to_string()]);
        }
        t.sleep(Duration::from_millis(100)).await;
    }
    Err(Difference::new("it still leads without a quorum"))
}

async fn downgrade(t: &Target, action: i32, version: &str) -> Result<String, Difference> {
    let answer = t.ok(DowngradeRequest { action, version: version.into() }).await?;
    holds("a header", rev(&answer.header) > 0, &answer)?;
    Ok(answer.version)
}

async fn refuse(t: &Target, action: i32, version: &str, why: ErrorCode) -> Outcome {
    t.refused(DowngradeRequest { action, version: version.into() }, why).await
}

async fn validated(t: &Target) -> Outcome {
    for version in ["3.6", "3.6.0", "3.6.7", "3.6.0-rc.1"] {
        same(version, downgrade(t, VALIDATE, version).await?, "3.7")?;
    }
    for version in ["3.7", "3.5", "4.0", "3.8"] {
        refuse(t, VALIDATE, version, ErrorCode::InvalidDowngradeTargetVersion).await?;
    }
    for version in ["abc", "", "v3.6", "3", "3.6.0.0", " 3.6", "3.6.x"] {
        refuse(t, VALIDATE, version, ErrorCode::WrongDowngradeVersionFormat).await?;
    }
    Ok(())
}

async fn cm_023(t: &Target) -> Outcome {
    same("version", downgrade(t, CANCEL, "").await?, "3.7")
}

async fn cm_025(t: &Target) -> Outcome {
    refuse(t, 7, "3.6", ErrorCode::UnknownMethod).await
}

/// Waits until the stored version is this one.
pub(super) async fn stored(t: &Target, version: &str) -> Outcome {
    for _ in 0..100 {
        if t.ok(StatusRequest {}).await?.storage_version == version {
            return Ok(());
        }
        t.sleep(Duration::from_millis(100)).await;
    }
    Err(Difference(format!("the storage version is not {version} within ten seconds")))
}

async fn down_and_up(t: &Target) -> Outcome {
    same("version", downgrade(t, ENABLE, "3.6").await?, "3.7")?;
    let info = t.ok(StatusRequest {}).await?.downgrade_info;
    same("downgrade", info, Some(DowngradeInfo { enabled: true, target_version: "3.6.0".into() }))?;
    stored(t, "3.6.0").await?;
    refuse(t, ENABLE, "3.6", ErrorCode::InvalidDowngradeTargetVersion).await?;
    refuse(t, VALIDATE, "3.5", ErrorCode::DowngradeInProcess).await?;
    same("version", downgrade(t, CANCEL, "").await?, "3.6")?;
    same("downgrade", t.ok(StatusRequest {}).await?.downgrade_info, Some(DowngradeInfo::default()))?;
    stored(t, "3.7.0").await?;
    same("version", downgrade(t, CANCEL, "").await?, "3.7")
}
