//! Whether all members hold the same: hashes compared at start, now and then, and after compactions.
//!
//! A member that differs gets the CORRUPT alarm, which ends all writes. Gates, times and texts are etcd's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb as pb;
use etcdserver::apply::alarm::CORRUPT;
use etcdserver::apply::policy::field;
use mvcc::{CompactionHash, HashKv, View};
use prost::Message;
use tokio::task::JoinSet;

use crate::config::value;
use crate::logging::Logger;
use crate::member::handle::Shared;
use crate::rafthttp::call::{self, HashError, PeerHash};
use crate::rafthttp::Dialer;

/// Time for the hash of one member: it reads all its keys for it.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Another member and what it said.
struct Heard {
    id: u64,
    hash: Result<PeerHash, HashError>,
}

/// Asks all at once: one that does not answer holds up nobody else.
async fn ask_all(
    dialer: &Dialer,
    cluster_id: u64,
    peers: &[(u64, Vec<String>)],
    revision: i64,
    timeout: Duration,
) -> Vec<Heard> {
    let mut asked = JoinSet::new();
    for (id, urls) in peers.iter().cloned() {
        let dialer = dialer.clone();
        asked.spawn(async move {
            let mut hash = Err(HashError::Other("no address".into()));
            for url in urls {
                hash = call::hashkv(&dialer, &url, cluster_id, revision, timeout).await;
                if hash.is_ok() {
                    break;
                }
            }
            Heard { id, hash }
        });
    }
    let mut heard = Vec::with_capacity(peers.len());
    while let Some(answer) = asked.join_next().await {
        heard.extend(answer);
    }
    heard
}

fn peers_of(cluster: &etcdserver::membership::Cluster) -> Vec<(u64, Vec<String>)> {
    let others = cluster.members().filter(|member| member.id != cluster.local_id());
    others.map(|member| (member.id, member.peer_urls.clone())).collect()
}

/// The check before a start, behind the gate InitialCorruptCheck: a member whose keys differ from those of its peers
/// must not serve. Peers that start as well do not answer yet, and are not waited for long.
pub(crate) async fn check_initially(
    dialer: &Dialer,
    logger: &Logger,
    cluster: &etcdserver::membership::Cluster,
    view: &View,
    timeout: Duration,
) -> Result<(), String> {
    let own = api::ids::hex(cluster.local_id()).to_string();
    let id = ("local-member-id", (&own).into());
    logger.info("starting initial corruption check", &[id, ("timeout", timeout.into())]);
    let hash = view.hash_kv(0).map_err(|error| format!("{own} failed to fetch hash ({error})"))?;
    let heard = ask_all(dialer, cluster.id(), &peers_of(cluster), hash.revision, timeout).await;
    let differ = heard.iter().filter(|heard| match &heard.hash {
        Ok(theirs) => {
            let differs = theirs.hash != hash.hash && theirs.compact_revision == hash.compact_revision;
            let text = match differs {
                true => "found different hash values from remote peer",
                false if theirs.hash == hash.hash => return false,
                false => "found different compact revision values from remote peer",
            };
            logger.warn(
                text,
                &[
                    ("local-member-id", (&own).into()),
                    ("local-member-revision", hash.revision.into()),
                    ("local-member-compact-revision", hash.compact_revision.into()),
                    ("local-member-hash", u64::from(hash.hash).into()),
                    ("remote-peer-id", api::ids::hex(heard.id).to_string().into()),
                    ("remote-peer-compact-revision", theirs.compact_revision.into()),
                    ("remote-peer-hash", u64::from(theirs.hash).into()),
                ],
            );
            differs
        }
        Err(why) => {
            let peer = ("remote-peer-id", api::ids::hex(heard.id).to_string().into());
            logger.warn("cannot fetch hash from remote peer", &[peer, ("error", format!("{why:?}").into())]);
            false
        }
    });
    if differ.count() > 0 {
        return Err(format!("{own} found data inconsistency with peers"));
    }
    logger.info("initial corruption checking passed; no corruption", &[("local-member-id", own.into())]);
    Ok(())
}

/// The check every `--corrupt-check-time`, by the leader.
pub(crate) async fn check_periodically(shared: Arc<Shared>) {
    let interval = duration(&shared, "corrupt-check-time");
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        if shared.published.load().role.is_leader
            && let Err(why) = check_now(&shared).await
        {
            shared.logger.warn("failed to check hash KV", &[("error", why.into())]);
        }
    }
}

async fn check_now(shared: &Arc<Shared>) -> Result<(), String> {
    let words = |status: api::Status| status.message.into_owned();
    shared.read_index().await.map_err(words)?;
    let (first, revision) = own_hash(shared, 0).await?;
    let peers = peers_of(&shared.published.load().edge.cluster);
    let heard = ask_all(shared.transport.dialer(), shared.cluster_id, &peers, revision, ANSWER_WAIT).await;
    shared.read_index().await.map_err(words)?;
    let (second, last) = own_hash(shared, revision).await?;
    if second.hash != first.hash && second.compact_revision == first.compact_revision {
        raise(shared, shared.member_id, "found hash mismatch").await;
    }
    for heard in heard {
        let Ok(theirs) = heard.hash else { continue };
        // Nobody can be ahead of the leader.
        let is_ahead = theirs.current > last || theirs.compact_revision > second.compact_revision;
        let differs = theirs.compact_revision == first.compact_revision && theirs.hash != first.hash;
        if is_ahead || differs {
            raise(shared, heard.id, "found corruption in a member's data").await;
        }
    }
    Ok(())
}

/// Own hash at a revision, 0 for the present one, which is told too.
async fn own_hash(shared: &Arc<Shared>, revision: i64) -> Result<(HashKv, i64), String> {
    let view = shared.published.load().edge.view.clone();
    let revision = if revision == 0 { view.revision() } else { revision };
    let last = view.revision();
    let hash = tokio::task::spawn_blocking(move || view.hash_kv(revision)).await;
    let hash = hash.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok((hash, last.max(revision)))
}

async fn raise(shared: &Arc<Shared>, member_id: u64, why: &str) {
    // Alarms are a set: one that is there already need not be raised again.
    if shared.published.load().edge.alarms.contains(CORRUPT, member_id) {
        return;
    }
    let id = ("corrupted-member-id", api::ids::hex(member_id).to_string().into());
    shared.logger.error(why, &[id]);
    let body = pb::AlarmRequest { action: 1, member_id, alarm: CORRUPT }.encode_to_vec();
    if let Err(status) = shared.propose(field::ALARM, body.into()).await {
        let error = status.message.into_owned();
        shared.logger.error("failed to raise the CORRUPT alarm", &[("error", error.into())]);
    }
}

/// The check every `--compact-hash-check-time`, by the leader, behind the gate CompactHashCheck: the hashes that
/// every member made when it compacted.
pub(crate) async fn check_compactions(shared: Arc<Shared>) {
    let interval = duration(&shared, "compact-hash-check-time");
    if interval.is_zero() || !shared.config.gate("CompactHashCheck") {
        return;
    }
    let mut checked = 0;
    loop {
        tokio::time::sleep(interval).await;
        if !shared.published.load().role.is_leader {
            continue;
        }
        let mut hashes: Vec<CompactionHash> = shared.published.load().edge.view.compaction_hashes().to_vec();
        hashes.retain(|hash| hash.revision > checked);
        hashes.sort_by_key(|hash| std::cmp::Reverse(hash.revision));
        shared.logger.info("starting compact hash check", &[("number-of-hashes", hashes.len().into())]);
        for hash in hashes {
            if check_compaction(&shared, &hash, &mut checked).await {
                break;
            }
        }
    }
}

/// Compares one hash with those of all peers; says whether older ones need not be looked at.
async fn check_compaction(shared: &Arc<Shared>, own: &CompactionHash, checked: &mut i64) -> bool {
    let peers = peers_of(&shared.published.load().edge.cluster);
    let heard = ask_all(shared.transport.dialer(), shared.cluster_id, &peers, own.revision, ANSWER_WAIT).await;
    let same = heard.iter().filter_map(|heard| {
        let theirs = heard.hash.as_ref().ok()?;
        (theirs.compact_revision == own.compact_revision).then_some((heard.id, theirs.hash))
    });
    let same: Vec<(u64, u32)> = same.collect();
    let all = same.len() == peers.len();
    match judge(shared.member_id, own.hash, &same, peers.len() + 1) {
        Verdict::Equal => {
            if all {
                *checked = own.revision;
                let fields = [("revision", own.revision.into()), ("peers-checked", same.len().into())];
                shared.logger.info("finished compaction hash check", &fields);
            }
            all
        }
        Verdict::Differ(members) => {
            for member in members {
                raise(shared, member, "found compacted hash mismatch").await;
            }
            true
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Equal,
    /// These hold something else than most; 0 stands for nobody in particular.
    Differ(Vec<u64>),
}

/// Who differs from the majority, if there is one.
fn judge(own_id: u64, own: u32, others: &[(u64, u32)], members: usize) -> Verdict {
    let mut by_hash: BTreeMap<u32, Vec<u64>> = BTreeMap::from([(own, vec![own_id])]);
    for (id, hash) in others {
        by_hash.entry(*hash).or_default().push(*id);
    }
    if by_hash.len() == 1 {
        return Verdict::Equal;
    }
    let quorum = members / 2 + 1;
    let right = by_hash.iter().find(|(_, ids)| ids.len() >= quorum).map(|(hash, _)| *hash);
    match right {
        None => Verdict::Differ(vec![0]),
        Some(right) => {
            by_hash.remove(&right);
            Verdict::Differ(by_hash.into_values().flatten().collect())
        }
    }
}

fn duration(shared: &Shared, name: &str) -> Duration {
    value::parse_duration(shared.config.raw.text(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minority_is_wrong() {
        assert_eq!(judge(1, 7, &[(2, 7), (3, 7)], 3), Verdict::Equal);
        assert_eq!(judge(1, 7, &[(2, 7), (3, 8)], 3), Verdict::Differ(vec![3]));
        assert_eq!(judge(1, 7, &[(2, 8), (3, 8)], 3), Verdict::Differ(vec![1]), "also when it leads");
        assert_eq!(judge(1, 7, &[(2, 8)], 3), Verdict::Differ(vec![0]), "nobody has a majority");
        assert_eq!(judge(1, 7, &[], 3), Verdict::Equal, "nobody else has said anything");
    }
}
