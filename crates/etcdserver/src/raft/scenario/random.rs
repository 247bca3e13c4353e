//! Scenarios made up from a seed: elections, partitions, lost and reordered messages, slow disks, crashes that lose
//! what was not synced, membership changes. Checked: all members apply the same entries (in the harness), what was
//! acknowledged is never lost, reads see every write acknowledged before they began, no two members lead in one
//! term, and a healed cluster makes progress.

use std::collections::BTreeMap;

use api::raftpb::{ConfChange, ConfChangeType};

use super::harness::{Sim, Told, put, record, reply_to};
use crate::config::Config;
use crate::effect::RaftInput;
use crate::membership::{ConfContext, Member};
use crate::raft::timeouts::mix;

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % below
    }
}

#[derive(Default)]
struct Checker {
    /// Highest index that a client was told to be done.
    acknowledged: u64,
    /// What was acknowledged when a read began, by stream.
    reads: BTreeMap<u32, u64>,
    leaders: BTreeMap<u64, u64>,
    replies: usize,
    reads_done: usize,
    elections: usize,
    changes: usize,
    snapshots: usize,
}

impl Checker {
    fn take(&mut self, sim: &mut Sim) {
        sim.finish_reads();
        sim.sent.clear();
        for told in std::mem::take(&mut sim.told) {
            match told {
                Told::Role(id, role) if role.is_leader => {
                    let leader = self.leaders.entry(role.term).or_insert_with(|| {
                        self.elections += 1;
                        id
                    });
                    assert_eq!(*leader, id, "two leaders in term {}", role.term);
                }
                Told::Reply(_, Ok(index)) => {
                    self.acknowledged = self.acknowledged.max(index);
                    self.replies += 1;
                }
                Told::ReadOk(to, index) => {
                    let began = self.reads.remove(&to.stream).expect("a read is answered once");
                    assert!(index >= began, "read at {index} misses what was acknowledged at {began}");
                    self.reads_done += 1;
                }
                Told::Conf(..) => self.changes += 1,
                Told::SnapshotSent(..) => self.snapshots += 1,
                _ => {}
            }
        }
    }
}

/// One of the members, up or down.
fn someone(sim: &Sim, random: &mut Random) -> u64 {
    let ids = sim.ids();
    ids[random.next(ids.len() as u64) as usize]
}

/// Members that know of their own removal stop, as the process does.
fn stop_removed(sim: &mut Sim) {
    for id in sim.ids() {
        if sim.members[&id].app.members.is_removed(id) && sim.members[&id].node.is_some() {
            sim.crash(id, usize::MAX);
            sim.commit_db(id);
        }
    }
}

/// Asks for a membership change that makes some sense; apply decides.
fn change_members(sim: &mut Sim, random: &mut Random) {
    let Some(leader) = sim.leader() else { return };
    let members = sim.members[&leader].app.members.clone();
    let (kind, id, context) = match random.next(4) {
        0 if sim.members.len() < 8 => {
            let id = sim.members.len() as u64 + 1;
            sim.join(id);
            let is_learner = random.next(2) == 0;
            let kind = if is_learner {
                ConfChangeType::ConfChangeAddLearnerNode
            } else {
                ConfChangeType::ConfChangeAddNode
            };
            (kind, id, Some(ConfContext { member: Member { is_learner, ..record(id) }, is_promote: false }))
        }
        1 | 2 => {
            let Some(learner) = members.members().find(|member| member.is_learner) else { return };
            let member = Member { id: learner.id, ..Member::default() };
            (ConfChangeType::ConfChangeAddNode, learner.id, Some(ConfContext { member, is_promote: true }))
        }
        _ if members.members().len() > 2 => {
            let at = random.next(members.members().len() as u64) as usize;
            let Some(member) = members.members().nth(at) else { return };
            (ConfChangeType::ConfChangeRemoveNode, member.id, None)
        }
        _ => return,
    };
    let change = ConfChange {
        r#type: Some(kind as i32),
        node_id: Some(id),
        context: context.map(|c| c.to_json()),
        id: None,
    };
    sim.step(leader, RaftInput::ConfChange { reply_to: None, change });
}

fn disturb(sim: &mut Sim, random: &mut Random) {
    let id = someone(sim, random);
    match random.next(12) {
        0 | 1 => {
            let other = someone(sim, random);
            sim.cut.insert((id, other));
        }
        2 => {
            for other in sim.ids() {
                sim.cut.insert((id, other));
                sim.cut.insert((other, id));
            }
        }
        3 | 4 => sim.cut.clear(),
        5 => {
            let kept = random.next(4) as usize;
            sim.crash(id, kept);
        }
        6 | 7 => {
            let down: Vec<u64> = sim.members.values().filter(|m| m.node.is_none()).map(|m| m.id).collect();
            for id in down {
                if !sim.members[&id].durable.db.members.is_removed(id) {
                    sim.start(id);
                }
            }
        }
        8 => sim.members.get_mut(&id).unwrap().disk_held ^= true,
        9 => sim.members.get_mut(&id).unwrap().apply_held ^= true,
        10 => sim.commit_db(id),
        _ => sim.step(id, RaftInput::TransferLeader { to: 0 }),
    }
}

/// Lets the network lose, swap and repeat what is under way.
fn garble(sim: &mut Sim, random: &mut Random) {
    for _ in 0..random.next(4) {
        let len = sim.network.len() as u64;
        if len == 0 {
            return;
        }
        let at = random.next(len) as usize;
        match random.next(3) {
            0 => drop(sim.network.remove(at)),
            1 => sim.network.swap(0, at),
            _ => {
                let again = sim.network[at].clone();
                sim.network.push_back(again);
            }
        }
    }
}

fn run(seed: u64) -> Checker {
    let mut random = Random(seed << 20);
    let members = 1 + random.next(5);
    let with_changes = seed % 2 == 1;
    let config = Config { seed, catch_up_entries: 5 + random.next(60), ..Config::default() };
    let mut sim = Sim::new(config, members);
    let mut checker = Checker::default();
    let mut stream = 0;
    for _ in 0..400 {
        sim.now = sim.now.plus(sim.config.heartbeat_ms * 1_000_000);
        for id in sim.ids() {
            if random.next(20) > 0 {
                sim.step(id, RaftInput::Tick);
            }
        }
        if random.next(6) == 0 {
            disturb(&mut sim, &mut random);
        }
        if with_changes && random.next(12) == 0 {
            change_members(&mut sim, &mut random);
        }
        for _ in 0..random.next(5) {
            let id = someone(&sim, &mut random);
            stream += 1;
            if random.next(2) == 0 {
                sim.step(id, RaftInput::Propose(vec![put(id, stream)]));
            } else if sim.members[&id].node.is_some() {
                checker.reads.insert(stream, checker.acknowledged);
                sim.step(id, RaftInput::ReadIndex(vec![reply_to(id, stream)]));
            }
        }
        for id in sim.ids() {
            sim.drain(id);
        }
        garble(&mut sim, &mut random);
        sim.settle();
        stop_removed(&mut sim);
        checker.take(&mut sim);
    }
    heal(&mut sim, &mut checker);
    checker
}

/// Liveness: with all members up and connected a write is acknowledged within a bounded time, and every member
/// ends with the same state, which contains all that was acknowledged.
fn heal(sim: &mut Sim, checker: &mut Checker) {
    sim.cut.clear();
    for id in sim.ids() {
        let member = sim.members.get_mut(&id).unwrap();
        member.disk_held = false;
        member.apply_held = false;
        if member.node.is_none() && !member.durable.db.members.is_removed(id) {
            sim.start(id);
        }
    }
    let ids = sim.ids();
    for _ in 0..30 {
        sim.tick(&ids, 4);
        stop_removed(sim);
        checker.take(sim);
    }
    let leader = sim.leader().expect("a healed cluster has a leader");
    let before = checker.replies;
    sim.step(leader, RaftInput::Propose(vec![put(leader, 1 << 30)]));
    sim.tick(&ids, 20);
    checker.take(sim);
    assert!(checker.replies > before, "a healed cluster takes writes");
    let members = sim.members[&leader].app.members.clone();
    let applied: Vec<u64> =
        sim.members.values().filter(|m| members.member(m.id).is_some()).map(|m| m.app.applied).collect();
    assert!(applied.iter().all(|a| *a == applied[0]), "{applied:?}");
    assert!(applied[0] >= checker.acknowledged, "{} of {} is lost", checker.acknowledged, applied[0]);
}

#[test]
fn random_clusters_keep_every_promise() {
    let seeds = std::env::var("RAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60u64);
    let (mut replies, mut reads, mut elections, mut changes, mut snapshots) = (0, 0, 0, 0, 0);
    let first = std::env::var("RAFT_FIRST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
    for seed in first..first + seeds {
        println!("seed {seed}");
        let checker = run(seed);
        replies += checker.replies;
        reads += checker.reads_done;
        elections += checker.elections;
        changes += checker.changes;
        snapshots += checker.snapshots;
    }
    // A run that does nothing proves nothing.
    let counts = format!(
        "{replies} replies, {reads} reads, {elections} elections, {changes} changes, {snapshots} snapshots in {seeds} runs"
    );
    println!("{counts}");
    let enough = [(replies, 20), (reads, 20), (elections, 2), (changes, 1)];
    assert!(enough.iter().all(|(done, per_run)| *done as u64 > per_run * seeds) && snapshots > 0, "{counts}");
}

#[test]
fn a_run_can_be_repeated() {
    let told = |seed| {
        let mut sim = Sim::new(Config { seed, ..Config::default() }, 5);
        sim.tick(&[1, 2, 3, 4, 5], 100);
        format!("{:?}", sim.told)
    };
    assert_eq!(told(3), told(3));
    let different = (0..10).map(told).collect::<std::collections::BTreeSet<_>>();
    assert!(different.len() > 1, "the seed decides who leads");
}
