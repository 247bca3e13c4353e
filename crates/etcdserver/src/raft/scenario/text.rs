//! Scenarios as text. A block is a command line beginning with `> ` and what it printed, up to the next command.
//! `UPDATE_SCENARIOS=1 cargo test -p etcdserver scenario` writes what was printed; read the difference before
//! it is committed.

use std::fmt::Write as _;

use api::raftpb::{ConfChange, ConfChangeType, MessageType};

use super::harness::{Sim, Told, put, record, reply_to};
use crate::config::Config;
use crate::effect::{LeaseQuestion, LeaseTimes, Proposal, RaftInput, Renewal};
use crate::membership::{ConfContext, Member};
use crate::now::MILLISECOND;

struct Runner {
    sim: Sim,
    trace: bool,
    streams: u32,
}

/// Streams from here on belong to repeated puts, whose answers are not shown.
const REPEATED: u32 = 10_000;

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is not a number"))
}

impl Runner {
    fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let id = || number(words[1]);
        match words[0] {
            "cluster" => self.sim = Sim::new(settings(&words[2..]), id()),
            "tick" => {
                let ids = match words[1] {
                    "all" => self.sim.ids(),
                    some => some.split(',').map(number).collect(),
                };
                let ticks = words.get(2).map_or(1, |n| number(n) as usize);
                self.sim.tick(&ids, ticks);
            }
            "settle" => {}
            "trace" => self.trace = words[1] == "on",
            "put" => {
                let streams = words[2..].iter().map(|s| put(id(), number(s) as u32)).collect();
                self.sim.step(id(), RaftInput::Propose(streams));
            }
            "put-large" => {
                let mut large = put(id(), number(words[2]) as u32);
                let value = vec![b'v'; number(words[3]) as usize].into();
                let request =
                    api::etcdserverpb::PutRequest { key: "key".into(), value, ..Default::default() };
                large.body = prost::Message::encode_to_vec(&request).into();
                self.sim.step(id(), RaftInput::Propose(vec![large]));
            }
            "repeat" => {
                for _ in 0..id() {
                    self.streams += 1;
                    let member = number(words[3]);
                    self.sim.step(member, RaftInput::Propose(vec![put(member, self.streams)]));
                    self.sim.settle();
                }
                self.sim.sent.clear();
            }
            "read" => {
                let streams = words[2..].iter().map(|s| reply_to(id(), number(s) as u32)).collect();
                self.sim.step(id(), RaftInput::ReadIndex(streams));
            }
            "conf" => self.conf(id(), number(words[2]) as u32, words[3], number(words[4])),
            "grant" | "revoke" => self.lease(id(), &words),
            "renew" | "time-to-live" | "leases" => self.ask_lease(id(), &words),
            "status" => return self.status(),
            "lines" => return self.lines(id()),
            _ => self.disturb(&words),
        }
        self.sim.settle();
        self.sim.finish_reads();
        self.print()
    }

    /// What members, disks and the network do to each other.
    fn disturb(&mut self, words: &[&str]) {
        let id = || number(words[1]);
        match words[0] {
            "join" => self.sim.join(id()),
            "cut" => {
                self.sim.cut.insert((id(), number(words[2])));
                self.sim.cut.insert((number(words[2]), id()));
            }
            "isolate" => {
                for other in self.sim.ids() {
                    self.sim.cut.insert((id(), other));
                    self.sim.cut.insert((other, id()));
                }
            }
            "heal" => {
                self.sim.cut.clear();
                self.sim.lost.clear();
            }
            "lose" => {
                self.sim.lost.insert(MessageType::from_str_name(words[1]).unwrap() as i32);
            }
            "hold-disk" => self.sim.members.get_mut(&id()).unwrap().disk_held = true,
            "free-disk" => self.sim.members.get_mut(&id()).unwrap().disk_held = false,
            "hold-apply" => self.sim.members.get_mut(&id()).unwrap().apply_held = true,
            "free-apply" => self.sim.members.get_mut(&id()).unwrap().apply_held = false,
            "crash" => self.sim.crash(id(), words.get(2).map_or(0, |n| number(n) as usize)),
            "start" => self.sim.start(id()),
            "commit-db" => self.sim.commit_db(id()),
            "transfer" => self.sim.step(id(), RaftInput::TransferLeader { to: number(words[2]) }),
            "saved" => self.sim.step(id(), RaftInput::SnapshotSaved { index: number(words[2]) }),
            "pause" => self.sim.now = self.sim.now.plus(id() * MILLISECOND),
            other => panic!("unknown command {other:?}"),
        }
    }

    fn conf(&mut self, at: u64, stream: u32, what: &str, id: u64) {
        let bare = Member { id, ..Member::default() };
        let (kind, context) = match what {
            "add" => (ConfChangeType::ConfChangeAddNode, Some((record(id), false))),
            "learner" => (
                ConfChangeType::ConfChangeAddLearnerNode,
                Some((Member { is_learner: true, ..record(id) }, false)),
            ),
            "promote" => (ConfChangeType::ConfChangeAddNode, Some((bare, true))),
            "update" => {
                let member = Member { peer_urls: vec![format!("http://new{id}:1")], ..bare };
                (ConfChangeType::ConfChangeUpdateNode, Some((member, false)))
            }
            "remove" => (ConfChangeType::ConfChangeRemoveNode, None),
            other => panic!("unknown change {other:?}"),
        };
        let context = context.map(|(member, is_promote)| ConfContext { member, is_promote }.to_json());
        let change = ConfChange { r#type: Some(kind as i32), node_id: Some(id), context, id: None };
        self.sim.step(at, RaftInput::ConfChange { reply_to: Some(reply_to(at, stream)), change });
    }

    fn lease(&mut self, at: u64, words: &[&str]) {
        let (stream, id) = (number(words[2]) as u32, number(words[3]));
        let (field, body) = if words[0] == "grant" {
            (8, vec![0x08, number(words[4]) as u8, 0x10, id as u8])
        } else {
            (9, vec![0x08, id as u8])
        };
        let proposal =
            Proposal { reply_to: Some(reply_to(at, stream)), identity: None, field, body: body.into() };
        self.sim.step(at, RaftInput::Propose(vec![proposal]));
    }

    fn ask_lease(&mut self, at: u64, words: &[&str]) {
        let reply_to = reply_to(at, number(words[2]) as u32);
        let lease = words.get(3).map(|id| number(id) as i64);
        let input = match (words[0], lease) {
            ("renew", Some(lease)) => RaftInput::Renew(vec![Renewal { reply_to, lease }]),
            (_, lease) => RaftInput::LeaseTimes(vec![LeaseQuestion { reply_to, lease }]),
        };
        self.sim.step(at, input);
    }

    fn status(&self) -> String {
        let mut out = String::new();
        for member in self.sim.members.values() {
            let Some(node) = &member.node else {
                let _ = writeln!(out, "{}: down", member.id);
                continue;
            };
            let s = node.status();
            let _ = write!(
                out,
                "{}: {:?} term={} leader={} committed={} applied={} last={} voters={:?}",
                member.id, s.role, s.term, s.leader, s.committed, s.applied, s.last_index, s.voters
            );
            if !s.learners.is_empty() {
                let _ = write!(out, " learners={:?}", s.learners);
            }
            let _ = writeln!(out, "{}", if node.reads_are_local() { " reads-local" } else { "" });
        }
        out
    }

    fn lines(&mut self, id: u64) -> String {
        let lines = self.sim.node(id).unwrap().take_lines();
        lines.into_iter().map(|line| format!("{:?} {}\n", line.level, line.text).to_lowercase()).collect()
    }

    fn print(&mut self) -> String {
        let mut out = String::new();
        for message in std::mem::take(&mut self.sim.sent) {
            if self.trace {
                let _ = writeln!(
                    out,
                    "  {}->{} {} term={} index={} entries={} commit={}{}",
                    message.from(),
                    message.to(),
                    message.r#type().as_str_name(),
                    message.term(),
                    message.index(),
                    message.entries.len(),
                    message.commit(),
                    if message.reject() { " reject" } else { "" },
                );
            }
        }
        for told in std::mem::take(&mut self.sim.told) {
            let line = match told {
                Told::Role(id, role) => {
                    let what = if role.is_leader { "leads" } else { "follows" };
                    let leader = if role.leader == 0 { "nobody".to_owned() } else { role.leader.to_string() };
                    let local = if role.reads_are_local { ", reads local" } else { "" };
                    let learner = if role.is_learner { ", learner" } else { "" };
                    format!("{id} {what} {leader} in term {}{local}{learner}", role.term)
                }
                Told::Reply(to, Ok(_)) if to.stream >= REPEATED => continue,
                Told::Reply(to, Ok(index)) => {
                    format!("{} stream {}: done at {index}", to.connection, to.stream)
                }
                Told::Reply(to, Err(why)) => format!("{} stream {}: {why}", to.connection, to.stream),
                Told::ReadOk(to, index) => format!("{} stream {}: read at {index}", to.connection, to.stream),
                Told::Renewed(to, ttl) => {
                    format!("{} stream {}: renewed for {ttl}", to.connection, to.stream)
                }
                Told::LeaseTimes(to, LeaseTimes::One { granted, left }) => {
                    format!("{} stream {}: {left} of {granted} s left", to.connection, to.stream)
                }
                Told::LeaseTimes(to, LeaseTimes::None) => {
                    format!("{} stream {}: no lease", to.connection, to.stream)
                }
                Told::LeaseTimes(to, LeaseTimes::All(ids)) => {
                    format!("{} stream {}: leases {ids:?}", to.connection, to.stream)
                }
                Told::Conf(id, voters, learners) => {
                    format!("{id} has voters {voters:?} learners {learners:?}")
                }
                Told::Published(id) => format!("{id} published"),
                Told::SnapshotDue(id, applied) => format!("{id} wants a snapshot on disk at {applied}"),
                Told::SnapshotSent(id, to, index) => format!("{id} sends {to} a snapshot at {index}"),
                Told::Elsewhere(id, leader) => format!("{id} passes it on to {leader}"),
            };
            out.push_str(&line);
            out.push('\n');
        }
        out
    }
}

fn settings(words: &[&str]) -> Config {
    let mut config = Config::default();
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        match name {
            "seed" => config.seed = number(value),
            "snapshot-count" => config.snapshot_count = number(value),
            "catch-up" => config.catch_up_entries = number(value),
            "max-request" => config.max_request_bytes = number(value) as u32,
            "checkpoint" => config.lease_checkpoint = value == "on",
            other => panic!("unknown setting {other:?}"),
        }
    }
    config
}

fn run_file(path: &std::path::Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut runner = Runner { sim: Sim::new(Config::default(), 0), trace: false, streams: REPEATED };
    let mut printed = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            printed.push_str(line);
            printed.push('\n');
            printed.push_str(&runner.run(command));
        } else if line.starts_with('#') || line.is_empty() {
            printed.push_str(line);
            printed.push('\n');
        }
    }
    if std::env::var_os("UPDATE_SCENARIOS").is_some() {
        std::fs::write(path, printed).unwrap();
    } else {
        assert!(printed == text, "{} reads differently now:\n{printed}", path.display());
    }
}

#[test]
fn scenarios() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/raft");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files {
        run_file(file);
    }
    assert!(files.len() >= 6, "scenarios are missing");
}
