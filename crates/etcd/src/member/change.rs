//! Changes of the members: what is checked before one is proposed, in etcd's order and words.
//!
//! These checks are a courtesy to the operator: they look at what this member sees now. What counts is decided at
//! apply, by all members alike.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::error::ErrorCode;
use api::raftpb::{ConfChange, ConfChangeType};
use api::{Status, ids};
use etcdserver::apply::reply::Reply;
use etcdserver::membership::{Cluster, ConfContext, Member};

use crate::config::value;
use crate::member::handle::Shared;
use crate::rafthttp::call::{self, PromoteError};

/// A member counts as connected after this time, as in etcd.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait until all that is committed is applied.
const APPLY_WAIT: Duration = Duration::from_secs(1);
const APPLY_POLL: Duration = Duration::from_millis(5);
/// Pause before a promotion is passed on again.
const PROMOTE_RETRY: Duration = Duration::from_millis(50);

/// The URLs of a request, checked and sorted as Go does it.
pub(crate) fn checked_urls(urls: &[String]) -> Result<Vec<String>, Status> {
    let bad = || Status::from(ErrorCode::MemberBadUrls);
    let mut checked = Vec::with_capacity(urls.len());
    for url in urls {
        checked.push(value::parse_url(url).map_err(|_| bad())?.to_string());
    }
    if checked.is_empty() {
        return Err(bad());
    }
    checked.sort();
    Ok(checked)
}

/// Adds a voter or a learner.
pub(crate) async fn add(shared: &Shared, peer_urls: Vec<String>, is_learner: bool) -> Result<Reply, Status> {
    if is_strict(shared) {
        let state = shared.published.load_full();
        may_add(shared, &state.edge.cluster, is_learner)?;
    }
    let id = new_id(shared, &peer_urls).await;
    let kind = match is_learner {
        true => ConfChangeType::ConfChangeAddLearnerNode,
        false => ConfChangeType::ConfChangeAddNode,
    };
    let member = Member { id, peer_urls, is_learner, ..Member::default() };
    change(shared, kind, id, Some(ConfContext { member, is_promote: false })).await
}

/// An id that was never a member's: it follows from the URLs and the second. One that was removed never comes back,
/// so that its second must pass.
async fn new_id(shared: &Shared, peer_urls: &[String]) -> u64 {
    loop {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = ids::member_id(peer_urls, "", Some(second.cast_signed()));
        if !shared.published.load().edge.cluster.is_removed(id) {
            return id;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Removes a member.
pub(crate) async fn remove(shared: &Shared, id: u64) -> Result<Reply, Status> {
    if is_strict(shared) {
        let state = shared.published.load_full();
        may_remove(shared, &state.edge.cluster, id)?;
    }
    change(shared, ConfChangeType::ConfChangeRemoveNode, id, None).await
}

/// Gives a member other peer URLs.
pub(crate) async fn update(shared: &Shared, id: u64, peer_urls: Vec<String>) -> Result<Reply, Status> {
    let member = Member { id, peer_urls, ..Member::default() };
    let context = ConfContext { member, is_promote: false };
    change(shared, ConfChangeType::ConfChangeUpdateNode, id, Some(context)).await
}

/// Makes a learner a voter, here or, as only a leader knows whether it has caught up, there.
pub(crate) async fn promote(shared: &Arc<Shared>, id: u64) -> Result<Vec<Member>, Status> {
    let deadline = Instant::now() + shared.request_timeout();
    loop {
        let state = shared.published.load_full();
        if state.role.is_leader {
            match promote_here(shared, id).await {
                Err(status) if status == ErrorCode::NotLeader.into() => {}
                other => return other,
            }
        } else if let Some(leader) = state.edge.cluster.member(state.role.leader) {
            match call::promote(shared, &leader.peer_urls, id, deadline).await {
                Ok(members) => return Ok(members),
                Err(PromoteError::Refused(status)) => return Err(status),
                Err(PromoteError::Failed(why)) => {
                    shared.logger.warn("failed to forward a promotion", &[("error", why.into())]);
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(ErrorCode::Timeout.into());
        }
        tokio::time::sleep(PROMOTE_RETRY).await;
    }
}

/// A promotion on the leader.
pub(crate) async fn promote_here(shared: &Arc<Shared>, id: u64) -> Result<Vec<Member>, Status> {
    wait_applied(shared).await?;
    let cluster = shared.published.load().edge.cluster.clone();
    if cluster.member(id).is_none() {
        return Err(ErrorCode::MemberNotFound.into());
    }
    match shared.learner_is_ready(id).await {
        Some(true) => {}
        Some(false) => return Err(ErrorCode::LearnerNotReady.into()),
        None if shared.published.load().role.is_leader => return Err(ErrorCode::LearnerNotReady.into()),
        None => return Err(ErrorCode::NotLeader.into()),
    }
    if is_strict(shared) && !cluster.may_promote() {
        say_rejected(shared, "rejecting member promote request; not enough healthy members", &cluster);
        return Err(ErrorCode::MemberNotEnoughStarted.into());
    }
    let member = Member { id, ..Member::default() };
    let context = ConfContext { member, is_promote: true };
    change(shared, ConfChangeType::ConfChangeAddNode, id, Some(context)).await?;
    Ok(shared.published.load().edge.cluster.members().cloned().collect())
}

/// Waits until what is committed now is applied.
async fn wait_applied(shared: &Shared) -> Result<(), Status> {
    let (start, committed) = (Instant::now(), shared.published.load().committed);
    while shared.published.load().edge.applied < committed {
        if start.elapsed() >= APPLY_WAIT {
            return Err(ErrorCode::TimeoutWaitAppliedIndex.into());
        }
        tokio::time::sleep(APPLY_POLL).await;
    }
    Ok(())
}

async fn change(
    shared: &Shared,
    kind: ConfChangeType,
    id: u64,
    context: Option<ConfContext>,
) -> Result<Reply, Status> {
    let change = ConfChange {
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: context.map(|context| context.to_json()),
        id: None,
    };
    shared.change_members(change).await
}

fn is_strict(shared: &Shared) -> bool {
    shared.config.raw.text("strict-reconfig-check") == "true"
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Voters that this member has been connected to for a while, itself among them.
fn connected_voters(shared: &Shared, cluster: &Cluster) -> usize {
    let is_connected = |member: &&Member| {
        member.id == shared.member_id
            || shared.transport.active_since(member.id).is_some_and(|since| since.elapsed() >= HEALTH_INTERVAL)
    };
    cluster.members().filter(|member| !member.is_learner).filter(is_connected).count()
}

fn voters(cluster: &Cluster) -> usize {
    cluster.members().filter(|member| !member.is_learner).count()
}

fn say_rejected(shared: &Shared, text: &str, cluster: &Cluster) {
    let started = cluster.members().filter(|member| !member.is_learner && member.is_started()).count();
    shared.logger.warn(
        text,
        &[
            ("number-of-started-member", started.into()),
            ("quorum", quorum(voters(cluster)).into()),
        ],
    );
}

fn may_add(shared: &Shared, cluster: &Cluster, is_learner: bool) -> Result<(), Status> {
    if !is_learner && !cluster.may_add_voter() {
        say_rejected(shared, "rejecting member add request; not enough healthy members", cluster);
        return Err(ErrorCode::MemberNotEnoughStarted.into());
    }
    let voters = voters(cluster);
    if voters > 1 && connected_voters(shared, cluster) < quorum(voters + 1) {
        say_rejected(
            shared,
            "rejecting member add request; local member has not been connected to enough peers, reconfigure breaks \
             active quorum",
            cluster,
        );
        return Err(ErrorCode::Unhealthy.into());
    }
    Ok(())
}

fn may_remove(shared: &Shared, cluster: &Cluster, id: u64) -> Result<(), Status> {
    if cluster.member(id).is_some_and(|member| member.is_learner) {
        return Ok(());
    }
    if !cluster.may_remove_voter(id) {
        say_rejected(shared, "rejecting member remove request; not enough healthy members", cluster);
        return Err(ErrorCode::MemberNotEnoughStarted.into());
    }
    // One that is down is no loss.
    if id != shared.member_id && shared.transport.active_since(id).is_none() {
        return Ok(());
    }
    if connected_voters(shared, cluster).saturating_sub(1) < quorum(voters(cluster).saturating_sub(1)) {
        say_rejected(
            shared,
            "rejecting member remove request; local member has not been connected to all peers, reconfigure breaks \
             active quorum",
            cluster,
        );
        return Err(ErrorCode::Unhealthy.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cm_031_urls_that_are_none() {
        let check = |urls: &[&str]| checked_urls(&urls.iter().map(ToString::to_string).collect::<Vec<_>>());
        for bad in [&["junk"][..], &[], &["http://a"], &["http://a:1/x"], &["ftp://a:1"]] {
            assert_eq!(check(bad).unwrap_err(), ErrorCode::MemberBadUrls.into(), "{bad:?}");
        }
        assert_eq!(check(&["http://b:1", "http://a:2"]).unwrap(), ["http://a:2", "http://b:1"]);
    }
}
