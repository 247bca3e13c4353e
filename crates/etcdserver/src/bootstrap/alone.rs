//! `--force-new-cluster`: a member of a cluster that is lost goes on alone, with everything that was committed.
//!
//! Entries that were not committed are cut off. Then follow entries that remove everybody else, as if the cluster had
//! agreed on them; the ids of the others can never come back. The cluster keeps its id, the member its own.

use std::collections::BTreeSet;

use api::raftpb::{self, ConfChange, ConfChangeType, EntryType};
use prost::Message;
use wal::{EncodedEntry, Replay, Wal};

use super::{Error, founding};
use crate::membership::{Cluster, ConfContext, Member};
use crate::raft::encode_conf_change;

/// What Go takes for the peer URL of a member that it does not find among the members.
const OWN_URL: &str = "http://localhost:2380";

/// Cuts the log at what is committed and appends the removals; tells how many entries were cut off.
pub(super) fn stand_alone(
    wal: &mut Wal,
    replay: &mut Replay,
    cluster: &Cluster,
    (from, applied): (u64, u64),
) -> Result<usize, Error> {
    let commit = replay.hard_state.commit().max(applied).max(from);
    let before = replay.entries.len();
    replay.entries.retain(|entry| entry.index() <= commit);
    let cut = before - replay.entries.len();
    let last = replay.entries.last().map_or(from, raftpb::Entry::index);
    let term = replay.hard_state.term();
    let own = cluster.local_id();
    let mut changes = Vec::new();
    let ids = members_at_the_end(cluster, &replay.entries, applied);
    if !ids.contains(&own) {
        let member = Member { id: own, peer_urls: vec![OWN_URL.to_owned()], ..Member::default() };
        changes.push(ConfChange {
            r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
            node_id: Some(own),
            context: Some(ConfContext { member, is_promote: false }.to_json()),
            id: None,
        });
    }
    changes.extend(ids.iter().filter(|id| **id != own).map(|id| ConfChange {
        r#type: Some(ConfChangeType::ConfChangeRemoveNode as i32),
        node_id: Some(*id),
        context: None,
        id: None,
    }));
    let mut entries = Vec::with_capacity(changes.len());
    for (change, index) in changes.iter().zip(last + 1..) {
        entries.push(raftpb::Entry {
            r#type: Some(EntryType::EntryConfChange as i32),
            term: Some(term),
            index: Some(index),
            data: Some(encode_conf_change(change)),
        });
    }
    replay.hard_state.commit = Some(last + entries.len() as u64);
    let encoded: Vec<EncodedEntry> = entries.iter().map(founding::encode).collect();
    wal.append(&encoded, Some(&replay.hard_state), true)?;
    replay.entries.extend(entries);
    Ok(cut)
}

/// Members as the log leaves them.
fn members_at_the_end(cluster: &Cluster, entries: &[raftpb::Entry], applied: u64) -> BTreeSet<u64> {
    let mut ids: BTreeSet<u64> = cluster.members().map(|member| member.id).collect();
    let behind = entries.iter().filter(|entry| entry.index() > applied);
    for entry in behind.filter(|entry| entry.r#type() == EntryType::EntryConfChange) {
        let Ok(change) = ConfChange::decode(entry.data()) else { continue };
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                ids.insert(change.node_id());
            }
            ConfChangeType::ConfChangeRemoveNode => {
                ids.remove(&change.node_id());
            }
            ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    ids
}
