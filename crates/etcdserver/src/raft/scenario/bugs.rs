//! One test per bug that etcd had and that must have no place to live here, and per trap of the raft crate.

use api::raftpb::{ConfChange, ConfChangeType, HardState, Message, MessageType};

use super::harness::{Durable, Sim, Told, put, record, reply_to};
use crate::config::Config;
use crate::effect::{Proposal, RaftEffect, RaftInput, Renewal};
use crate::limits::STALL_ELECTIONS;
use crate::membership::ConfContext;
use crate::now::{MILLISECOND, SECOND};
use crate::raft::{Error, Node, Role, Start};

fn three(seed: u64) -> (Sim, u64) {
    let mut sim = Sim::new(Config { seed, ..Config::default() }, 3);
    sim.tick(&[1, 2, 3], 25);
    let leader = sim.leader().unwrap();
    sim.told.clear();
    (sim, leader)
}

fn replies(sim: &mut Sim) -> Vec<(u32, Result<u64, String>)> {
    sim.finish_reads();
    let told = std::mem::take(&mut sim.told);
    let reply = |told| match told {
        Told::Reply(to, result) => Some((to.stream, result)),
        _ => None,
    };
    told.into_iter().filter_map(reply).collect()
}

fn isolate(sim: &mut Sim, id: u64) {
    for other in sim.ids() {
        sim.cut.insert((id, other));
        sim.cut.insert((other, id));
    }
}

/// Found by the simulator: a lone voter wins its election before its term is durable. As leader it sent entries of that
/// term to a learner; after a power cut it led the same term once more, with other entries, which the learner took for
/// those that it had.
#[test]
fn a_lone_voter_does_not_speak_as_leader_before_its_term_is_durable() {
    let mut sim = Sim::new(Config::default(), 1);
    sim.tick(&[1], 25);
    let context = ConfContext {
        member: crate::membership::Member { is_learner: true, ..record(2) },
        is_promote: false,
    };
    let change = ConfChange {
        r#type: Some(ConfChangeType::ConfChangeAddLearnerNode as i32),
        node_id: Some(2),
        context: Some(context.to_json()),
        id: None,
    };
    sim.step(1, RaftInput::ConfChange { reply_to: None, change });
    sim.settle();
    sim.join(2);
    sim.tick(&[1, 2], 25);
    let status = |sim: &Sim, id: u64| sim.members[&id].node.as_ref().unwrap().status();
    let before = status(&sim, 2);
    assert_eq!(before.last_index, status(&sim, 1).last_index, "the learner is there");
    sim.crash(1, 0);
    sim.members.get_mut(&1).unwrap().disk_held = true;
    sim.start(1);
    sim.tick(&[1, 2], 30);
    assert_eq!((status(&sim, 1).role, status(&sim, 1).term), (Role::Leader, before.term + 1));
    assert_eq!((status(&sim, 2).term, status(&sim, 2).last_index), (before.term, before.last_index));
    sim.members.get_mut(&1).unwrap().disk_held = false;
    sim.tick(&[1, 2], 30);
    assert_eq!(status(&sim, 2).term, before.term + 1);
    assert_eq!(status(&sim, 2).last_index, status(&sim, 1).last_index);
}

/// etcd issue 14370 (up to 3.5.4): a single member acknowledged writes before they were durable, because its own
/// vote counted at once. Only what is persisted counts here.
#[test]
fn issue_14370_a_lone_voter_acknowledges_nothing_before_it_is_durable() {
    let mut sim = Sim::new(Config::default(), 1);
    sim.settle();
    sim.told.clear();
    sim.members.get_mut(&1).unwrap().disk_held = true;
    sim.step(1, RaftInput::Propose(vec![put(1, 1)]));
    sim.tick(&[1], 30);
    assert_eq!(replies(&mut sim), []);
    let before = sim.members[&1].node.as_ref().unwrap().status();
    sim.crash(1, 0);
    sim.members.get_mut(&1).unwrap().disk_held = false;
    sim.start(1);
    sim.settle();
    let after = sim.members[&1].node.as_ref().unwrap().status();
    assert_eq!(
        after.last_index,
        before.committed + 2,
        "the unacknowledged entry is gone; empty entry and publishing came"
    );
    assert_eq!(replies(&mut sim), []);
}

/// The same for a leader of three: a majority of the others is enough, itself and one other is not before its own
/// log has the entry.
#[test]
fn issue_14370_a_leader_does_not_count_itself_before_its_log_has_it() {
    let (mut sim, leader) = three(1);
    let other = sim.ids().into_iter().find(|id| *id != leader).unwrap();
    isolate(&mut sim, other);
    sim.members.get_mut(&leader).unwrap().disk_held = true;
    sim.step(leader, RaftInput::Propose(vec![put(leader, 1)]));
    sim.settle();
    assert_eq!(replies(&mut sim), [], "leader and one follower have it, the leader only in memory");
    sim.members.get_mut(&leader).unwrap().disk_held = false;
    sim.settle();
    assert_eq!(replies(&mut sim).len(), 1);
}

/// etcd issue 15247: a leader that stood still came back, took itself for the leader and revoked all leases; 3.7.3
/// still does when its tick is recent. Here a revoke goes into the leader's own log or nowhere, and after a pause a
/// quorum is asked first.
#[test]
fn issue_15247_a_paused_leader_revokes_nothing() {
    let (mut sim, leader) = three(2);
    let grant = Proposal {
        reply_to: Some(reply_to(leader, 1)),
        identity: None,
        field: 8,
        body: vec![0x08, 10, 0x10, 77].into(),
    };
    sim.step(leader, RaftInput::Propose(vec![grant]));
    sim.settle();
    let others: Vec<u64> = sim.ids().into_iter().filter(|id| *id != leader).collect();
    isolate(&mut sim, leader);
    // The others go on; a client keeps the lease alive with the new leader. The old one does not tick at all.
    sim.tick(&others, 40);
    let successor =
        *others.iter().find(|id| sim.members[id].node.as_ref().unwrap().role().is_leader).unwrap();
    for _ in 0..20 {
        let renewal = Renewal { reply_to: reply_to(successor, 2), lease: 77 };
        sim.step(successor, RaftInput::Renew(vec![renewal]));
        sim.tick(&others, 10);
    }
    // It wakes up: by its own clock the lease ended long ago. It neither revokes nor answers.
    sim.told.clear();
    let old = RaftInput::Renew(vec![Renewal { reply_to: reply_to(leader, 3), lease: 77 }]);
    sim.step(leader, old);
    sim.tick(&[leader], 6);
    assert!(!sim.told.iter().any(|told| matches!(told, Told::Renewed(..))), "{:?}", sim.told);
    let log = sim.members[&leader].node.as_ref().unwrap().status();
    assert_eq!(log.last_index, log.committed, "no revoke stands in its log either");
    sim.cut.clear();
    sim.tick(&[1, 2, 3], 20);
    assert!(sim.members.values().all(|member| member.app.leases.contains_key(&77)), "the lease lives");
}

/// A revoke that is already in the log of a leader when it is deposed cannot commit.
#[test]
fn issue_15247_a_deposed_leaders_revokes_do_not_commit() {
    let (mut sim, leader) = three(3);
    let grant = Proposal { reply_to: None, identity: None, field: 8, body: vec![0x08, 2, 0x10, 77].into() };
    sim.step(leader, RaftInput::Propose(vec![grant]));
    sim.settle();
    let others: Vec<u64> = sim.ids().into_iter().filter(|id| *id != leader).collect();
    // Cut off for less than an election timeout, so that it still leads when the lease ends.
    sim.tick(&[1, 2, 3], 15);
    isolate(&mut sim, leader);
    sim.tick(&[leader], 8);
    let status = sim.members[&leader].node.as_ref().unwrap().status();
    assert!(status.last_index > status.committed, "the revoke is in its own log");
    assert_eq!(status.role, Role::Leader);
    for _ in 0..20 {
        for id in &others {
            let renewal = Renewal { reply_to: reply_to(*id, 1), lease: 77 };
            sim.step(*id, RaftInput::Renew(vec![renewal]));
        }
        sim.tick(&others, 2);
    }
    assert!(sim.members[&others[0]].node.as_ref().unwrap().role().leader != leader);
    sim.cut.clear();
    for _ in 0..10 {
        let renewal = Renewal { reply_to: reply_to(others[0], 1), lease: 77 };
        sim.step(others[0], RaftInput::Renew(vec![renewal]));
        let renewal = Renewal { reply_to: reply_to(others[1], 1), lease: 77 };
        sim.step(others[1], RaftInput::Renew(vec![renewal]));
        sim.tick(&[1, 2, 3], 2);
    }
    assert!(sim.members.values().all(|member| member.app.leases.contains_key(&77)), "the lease lives");
}

/// etcd issue 15528: a membership change was answered before raft had it, so the next step of a client could meet
/// the old configuration. The lane says `ConfChanged` in the step in which raft has followed.
#[test]
fn issue_15528_raft_has_a_change_before_anybody_is_answered() {
    let mut sim = Sim::new(Config::default(), 1);
    sim.settle();
    sim.told.clear();
    let change = ConfChange {
        r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
        node_id: Some(2),
        context: Some(ConfContext { member: record(2), is_promote: false }.to_json()),
        id: None,
    };
    sim.step(1, RaftInput::ConfChange { reply_to: Some(reply_to(1, 1)), change });
    sim.members.get_mut(&1).unwrap().apply_held = true;
    sim.settle();
    assert_eq!(sim.node(1).unwrap().status().voters, [1]);
    sim.members.get_mut(&1).unwrap().apply_held = false;
    sim.settle();
    assert_eq!(sim.node(1).unwrap().status().voters, [1, 2]);
    let conf = sim.told.iter().position(|told| matches!(told, Told::Conf(1, voters, _) if voters == &[1, 2]));
    let reply = sim.told.iter().position(|told| matches!(told, Told::Reply(..)));
    assert!(conf.is_some() && reply.is_some());
    let local = sim.told.iter().position(|told| matches!(told, Told::Role(1, role) if !role.reads_are_local));
    assert!(local.is_some(), "reads are no longer local");
}

/// etcd issue 18055: two snapshots in quick succession met each other's files. One is under way at a time.
#[test]
fn issue_18055_one_snapshot_on_disk_at_a_time() {
    let config = Config { snapshot_count: 10, catch_up_entries: 5, ..Config::default() };
    let mut sim = Sim::new(config, 1);
    sim.settle();
    for stream in 0..100 {
        sim.step(1, RaftInput::Propose(vec![put(1, stream)]));
        sim.settle();
    }
    sim.step(1, RaftInput::ForceSnapshot);
    sim.settle();
    let due = |sim: &mut Sim| {
        let told = std::mem::take(&mut sim.told);
        told.into_iter()
            .filter_map(|told| if let Told::SnapshotDue(_, at) = told { Some(at) } else { None })
            .collect::<Vec<_>>()
    };
    assert_eq!(due(&mut sim), [11]);
    sim.step(1, RaftInput::SnapshotSaved { index: 11 });
    sim.settle();
    assert_eq!(due(&mut sim), [104], "the next one stands where apply is now");
}

/// The crate wins an election for a lone voter at once and then asserts that its log is durable. A stray message of a
/// higher term while the disk stands still must not lead there.
#[test]
fn a_lone_voter_that_is_thrown_out_of_its_term_waits_for_its_disk() {
    let mut sim = Sim::new(Config::default(), 1);
    sim.settle();
    sim.members.get_mut(&1).unwrap().disk_held = true;
    sim.step(1, RaftInput::Propose(vec![put(1, 1)]));
    let stray = Message {
        r#type: Some(MessageType::MsgAppResp as i32),
        from: Some(9),
        to: Some(1),
        term: Some(40),
        ..Message::default()
    };
    sim.settle();
    sim.step(1, RaftInput::Message(stray.clone()));
    let vote = Message { r#type: Some(MessageType::MsgVote as i32), ..stray.clone() };
    sim.step(1, RaftInput::Message(vote));
    let hurry = Message { r#type: Some(MessageType::MsgTimeoutNow as i32), ..stray };
    sim.step(1, RaftInput::Message(hurry));
    sim.tick(&[1], 100);
    sim.members.get_mut(&1).unwrap().disk_held = false;
    sim.tick(&[1], 40);
    let status = sim.members[&1].node.as_ref().unwrap().status();
    assert_eq!((status.role, status.leader), (Role::Leader, 1));
    let data =
        |needle: &[u8]| sim.members[&1].app.history.values().any(|d| d.windows(4).any(|w| w == needle));
    assert!(data(b"key1"), "the entry survived");
}

/// Go: "tocommit is out of range. Was the raft log corrupted, truncated, or lost?" A member whose log was lost must
/// stop, not vote on.
#[test]
fn a_heartbeat_beyond_the_log_is_fatal() {
    let (mut sim, leader) = three(5);
    let follower = sim.ids().into_iter().find(|id| *id != leader).unwrap();
    let term = sim.members[&leader].node.as_ref().unwrap().status().term;
    let message = Message {
        r#type: Some(MessageType::MsgHeartbeat as i32),
        from: Some(leader),
        to: Some(follower),
        term: Some(term),
        commit: Some(1000),
        ..Message::default()
    };
    let now = sim.now;
    let error = sim.node(follower).unwrap().step(now, RaftInput::Message(message)).unwrap_err();
    assert!(matches!(error, Error::CommitOutOfRange { commit: 1000, .. }));
    assert!(error.to_string().contains("Was the raft log corrupted, truncated, or lost?"));
}

/// Databases and logs that do not fit together are refused, with etcd's words.
#[test]
fn a_start_that_does_not_fit_together_is_refused() {
    let error =
        |start: Start| Node::new(&Config::default(), start, crate::Now::default()).err().unwrap().to_string();
    let base = Start { id: 1, log_start: (10, 2), applied: 10, ..Start::default() };
    let hard_state = |commit| HardState { term: Some(2), vote: Some(0), commit: Some(commit) };
    assert!(
        error(Start { applied: 11, ..base.clone() })
            .starts_with("applied(11) is out of range [lastIndex(10)]")
    );
    assert!(
        error(Start { hard_state: hard_state(12), ..base.clone() })
            .starts_with("tocommit(12) is out of range [lastIndex(10)]")
    );
    assert!(error(Start { applied: 9, ..base.clone() }).contains("[11] should <= applied index[9] + 1"));
    let entry = api::raftpb::Entry { index: Some(11), term: Some(2), r#type: Some(2), data: None };
    assert_eq!(error(Start { entries: vec![entry], ..base }), "raft log entry 11: entry type 2 is not used");
}

/// A log that stands still takes the leader's heartbeats with it in etcd only when the disk is shared; here the
/// lane lives on, and gives leadership away.
#[test]
fn a_leader_with_a_dead_disk_steps_aside() {
    let (mut sim, leader) = three(6);
    sim.members.get_mut(&leader).unwrap().disk_held = true;
    sim.step(leader, RaftInput::Propose(vec![put(leader, 1)]));
    sim.tick(&[1, 2, 3], 10 * STALL_ELECTIONS as usize + 5);
    let now = sim.leader().unwrap();
    assert_ne!(now, leader);
    assert_eq!(replies(&mut sim), [], "here nothing is applied that is not durable here");
    sim.members.get_mut(&leader).unwrap().disk_held = false;
    sim.settle();
    assert_eq!(replies(&mut sim).len(), 1, "the others had committed it meanwhile");
}

/// A backlog of committed entries reaches apply in portions.
#[test]
fn apply_gets_no_more_than_its_credit() {
    let mut sim = Sim::new(Config::default(), 1);
    sim.settle();
    let now = sim.now;
    let large = |stream| Proposal { body: vec![0; 1 << 20].into(), ..put(1, stream) };
    let node = sim.node(1).unwrap();
    let mut effects = Vec::new();
    for stream in 0..100 {
        node.step(now, RaftInput::Propose(vec![large(stream)])).unwrap();
        node.drain(&mut effects);
    }
    let last =
        effects.iter().rev().find_map(|e| if let RaftEffect::Append(a) = e { Some(a.ready) } else { None });
    effects.clear();
    node.step(now, RaftInput::Persisted { ready: last.unwrap() }).unwrap();
    node.drain(&mut effects);
    let handed = |effects: &[RaftEffect]| -> u64 {
        effects.iter().map(|e| if let RaftEffect::Apply(c) = e { c.entries.len() as u64 } else { 0 }).sum()
    };
    let first = handed(&effects);
    assert!((60..70).contains(&first), "{first} entries of one MiB");
    effects.clear();
    node.step(now, RaftInput::Applied { index: 4 + first, leases: vec![] }).unwrap();
    node.drain(&mut effects);
    assert_eq!(handed(&effects), 100 - first);
}

/// Time between ticks does not count as a pause for a lone voter: nobody could have replaced it.
#[test]
fn a_lone_voter_needs_no_confirmation() {
    let mut sim = Sim::new(Config::default(), 1);
    sim.settle();
    let grant = Proposal { reply_to: None, identity: None, field: 8, body: vec![0x08, 100, 0x10, 7].into() };
    sim.step(1, RaftInput::Propose(vec![grant]));
    sim.settle();
    sim.now = sim.now.plus(20 * SECOND);
    sim.step(1, RaftInput::Renew(vec![Renewal { reply_to: reply_to(1, 1), lease: 7 }]));
    sim.settle();
    assert!(sim.told.contains(&Told::Renewed(reply_to(1, 1), 100)));
    // An unknown one is known to be unknown as soon as everything committed is applied.
    sim.step(1, RaftInput::Renew(vec![Renewal { reply_to: reply_to(1, 2), lease: 8 }]));
    sim.settle();
    assert!(sim.told.contains(&Told::Renewed(reply_to(1, 2), 0)));
    sim.now = sim.now.plus(MILLISECOND);
}

/// A member that lost everything but its directory's log starts from that log alone.
#[test]
fn an_empty_member_waits_for_a_leader() {
    let mut sim = Sim::new(Config::default(), 0);
    sim.join(5);
    sim.tick(&[5], 100);
    let status = sim.members[&5].node.as_ref().unwrap().status();
    assert_eq!((status.role, status.term, status.leader), (Role::Follower, 0, 0));
    assert_eq!(sim.members[&5].durable.entries.len(), Durable::default().entries.len());
}

/// The crate panics when a leader that is no longer a member commits something. A leader that removes itself steps
/// down when it has applied that, and its successor takes over at once.
#[test]
fn a_leader_that_removes_itself_steps_down() {
    let (mut sim, leader) = three(7);
    let change = ConfChange {
        r#type: Some(ConfChangeType::ConfChangeRemoveNode as i32),
        node_id: Some(leader),
        ..ConfChange::default()
    };
    for stream in 0..5 {
        sim.step(leader, RaftInput::Propose(vec![put(leader, stream)]));
    }
    sim.step(leader, RaftInput::ConfChange { reply_to: Some(reply_to(leader, 9)), change });
    for stream in 10..15 {
        sim.step(leader, RaftInput::Propose(vec![put(leader, stream)]));
    }
    sim.settle();
    let done: Vec<u32> = replies(&mut sim).into_iter().filter(|(_, r)| r.is_ok()).map(|(s, _)| s).collect();
    assert!(done.contains(&9), "{done:?}");
    let now = sim.leader().unwrap();
    assert_ne!(now, leader, "without waiting for an election timeout");
    assert_eq!(sim.node(now).unwrap().status().voters.len(), 2);
    sim.tick(&[1, 2, 3], 30);
    assert_eq!(sim.leader(), Some(now), "the removed member does not disturb");
}
