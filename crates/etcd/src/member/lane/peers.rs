//! The member thread and the others: messages, snapshots, who they are, and what only the leader can answer.

use std::collections::BTreeMap;

use api::raftpb;
use etcdserver::effect::{LeaseChange, LeaseQuestion, LeaseTimes, Renewal, RoleChange};
use etcdserver::snapshot;

use super::Lane;
use crate::http::PEER_THREAD;
use crate::member::forward::Forward;

impl Lane {
    pub(super) fn send(&mut self, messages: Vec<raftpb::Message>) {
        self.shared.transport.send(messages);
    }

    /// Snapshots that the batch was frozen for: the file holds everything up to its index now, and the pinned view
    /// keeps it so while it is sent.
    pub(super) fn send_snapshots(&mut self, file: &bolt::View) {
        let (index, term) = self.file_at;
        for mut message in std::mem::take(&mut self.building_in_batch) {
            message.snapshot = Some(snapshot::contents(&self.frozen_cluster, index, term));
            self.shared.transport.send_snapshot(message, file.clone());
        }
    }

    /// The transport follows the members as applied. Raft may be a step behind: a message too many is no harm.
    pub(super) fn follow_members(&mut self) {
        let cluster = self.applier.cluster().clone();
        let own = self.shared.member_id;
        let others = cluster.members().filter(|member| member.id != own);
        let members: BTreeMap<u64, Vec<String>> = others.map(|m| (m.id, m.peer_urls.clone())).collect();
        let transport = &self.shared.transport;
        for id in self.peers.keys().filter(|id| !members.contains_key(id)) {
            transport.remove_peer(*id);
        }
        for (id, urls) in &members {
            match self.peers.get(id) {
                None => transport.add_peer(*id, urls.clone()),
                Some(known) if known != urls => transport.update_peer(*id, urls.clone()),
                Some(_) => {}
            }
        }
        self.peers = members;
        if cluster.is_removed(own) {
            self.shared.say_removed();
        }
    }

    pub(super) fn role_changed(&mut self, role: RoleChange) {
        if role.leader != 0 && role.leader != self.leader {
            self.shared.metrics.lane.leader_changes.bump(1);
        }
        if role.is_leader && self.leader != role.leader {
            // What others said to the leader before is not known here.
            self.shared.versions_wanted.notify_one();
        }
        self.leader = role.leader;
        self.is_dirty = true;
    }

    pub(super) fn renewed(&mut self, renewed: Vec<(Renewal, i64)>) {
        self.shared.metrics.lane.lease_renewed.bump(renewed.iter().filter(|(_, ttl)| *ttl > 0).count() as u64);
        for row in renewed {
            if row.0.reply_to.thread == PEER_THREAD {
                self.shared.peer_calls.renewed(row.0, row.1);
                continue;
            }
            self.outgoing[usize::from(row.0.reply_to.thread)].renewed.push(row);
        }
    }

    pub(super) fn lease_times(&mut self, answers: Vec<(LeaseQuestion, LeaseTimes)>) {
        for row in answers {
            if row.0.reply_to.thread == PEER_THREAD {
                self.shared.peer_calls.times(row.0, &row.1);
                continue;
            }
            self.outgoing[usize::from(row.0.reply_to.thread)].lease_times.push(row);
        }
    }

    pub(super) fn renew_elsewhere(&mut self, renewals: Vec<Renewal>) {
        let mut forwards = renewals.into_iter().map(Forward::Renew).collect();
        self.shared.forwards.push_all(&mut forwards);
    }

    /// Which leases there are every member knows; how much time they have left only the leader.
    pub(super) fn lease_times_elsewhere(&mut self, questions: Vec<LeaseQuestion>) {
        let (all, single): (Vec<_>, Vec<_>) = questions.into_iter().partition(|question| question.lease.is_none());
        let mut forwards = single.into_iter().map(Forward::Times).collect();
        self.shared.forwards.push_all(&mut forwards);
        if all.is_empty() {
            return;
        }
        let leases = self.applier.leases().into_iter().filter_map(|change| match change {
            LeaseChange::Granted { id, .. } => Some(id),
            _ => None,
        });
        let leases: Vec<i64> = leases.collect();
        self.lease_times(all.into_iter().map(|question| (question, LeaseTimes::All(leases.clone()))).collect());
    }
}
