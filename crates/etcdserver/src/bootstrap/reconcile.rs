//! Membership of a directory that a release before 3.6 wrote: `.snap` file and log against the database.
//!
//! Until 3.5 the v2 store was the truth about members, and the database's records were a copy that 3.5.0 to 3.5.19
//! never wrote a second time: promotions, new peer URLs and client URLs can be missing in it. So the v2 store is
//! rebuilt as of the consistent index, from the newest readable `.snap` file and the entries after it, and what
//! differs in the database is put right. Once 3.6 or we have written the directory, the database alone counts.

use std::sync::Arc;

use api::raftpb::{self, ConfChange, EntryType};
use api::{etcdserverpb as pb, membershippb, walpb};
use disk::Disk;
use prost::Message;

use super::Report;
use crate::apply::policy::field;
use crate::apply::request::Envelope;
use crate::config::Config;
use crate::membership::{Cluster, V2Membership};
use crate::side::SideChange;

/// Where to look.
pub(super) struct Log<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) config: &'a Config,
    pub(super) records: &'a [walpb::Snapshot],
    /// The record that the log was opened at, and the entries behind it.
    pub(super) from: &'a walpb::Snapshot,
    pub(super) entries: &'a [raftpb::Entry],
}

impl Log<'_> {
    /// Puts `cluster` right, and tells what the database needs for it.
    pub(super) fn reconcile(
        &self,
        cluster: &mut Cluster,
        applied: u64,
        report: &mut Report,
    ) -> Vec<SideChange> {
        let Some(mut truth) = self.base(applied, report) else {
            report.warnings.push(
                "neither a snapshot file nor the whole log is left to check the members in the database against"
                    .to_owned(),
            );
            return Vec::new();
        };
        if truth.has_user_content {
            report
                .warnings
                .push("the v2 store holds data of v2 clients, which nobody serves any more".to_owned());
        }
        if truth.members.is_empty() && applied > 0 {
            // A member that joined and has a snapshot of somebody else's making knows at least itself.
            report
                .warnings
                .push("the snapshot file knows no members; those in the database are kept".to_owned());
            return Vec::new();
        }
        // The version in the database is newer when both are there: it was written by the same entries.
        truth.version = truth.version.or(cluster.version());
        cluster.reconcile(&truth)
    }

    /// The v2 store as of `applied`.
    fn base(&self, applied: u64, report: &mut Report) -> Option<V2Membership> {
        let known: Vec<walpb::Snapshot> =
            self.records.iter().filter(|record| record.index() <= self.from.index()).cloned().collect();
        let found = wal::snap::load_newest(&**self.disk, &self.config.snap_dir(), Some(&known));
        let snapshot = found.unwrap_or_else(|error| {
            report.warnings.push(format!("snapshot files cannot be read: {error}"));
            None
        });
        let (mut base, index, term) = match &snapshot {
            Some(snapshot) => {
                let metadata = snapshot.metadata.clone().unwrap_or_default();
                match V2Membership::parse(snapshot.data()) {
                    Ok(base) => (base, metadata.index(), metadata.term()),
                    Err(error) => {
                        report.warnings.push(format!("snapshot file at {}: {error}", metadata.index()));
                        return None;
                    }
                }
            }
            None => (V2Membership::default(), 0, 0),
        };
        if index == self.from.index() {
            replay(&mut base, self.entries, applied, self.config.max_learners);
        } else {
            let start = walpb::Snapshot { index: Some(index), term: Some(term), conf_state: None };
            let read = wal::read(&**self.disk, &self.config.wal_path(), &start).ok()?;
            replay(&mut base, &read.entries, applied, self.config.max_learners);
        }
        Some(base)
    }
}

fn replay(base: &mut V2Membership, entries: &[raftpb::Entry], applied: u64, max_learners: usize) {
    for entry in entries.iter().filter(|entry| entry.index() <= applied) {
        if entry.r#type() == EntryType::EntryConfChange {
            if let Ok(change) = ConfChange::decode(entry.data()) {
                base.replay_conf_change(&change, max_learners);
            }
        } else if let Ok(envelope) = Envelope::parse(entry.data()) {
            replay_request(base, &envelope);
        }
    }
}

fn replay_request(base: &mut V2Membership, envelope: &Envelope<'_>) {
    match envelope.field {
        field::V2 => {
            if let Ok(request) = pb::Request::decode(envelope.body)
                && request.method() == "PUT"
            {
                base.replay_put(request.path(), request.val());
            }
        }
        field::CLUSTER_VERSION_SET => {
            if let Ok(request) = membershippb::ClusterVersionSetRequest::decode(envelope.body)
                && let Ok(version) = request.ver.parse()
            {
                base.version = Some(version);
            }
        }
        field::MEMBER_ATTR_SET => {
            if let Ok(request) = membershippb::ClusterMemberAttrSetRequest::decode(envelope.body) {
                let attributes = request.member_attributes.unwrap_or_default();
                base.replay_attributes(request.member_id, &attributes.name, &attributes.client_urls);
            }
        }
        _ => {}
    }
}
