//! The raft crate's log lines in etcd's words.
//!
//! The crate logs through slog, with other texts and decimal ids. Operators and tests grep for etcd's, so the drain
//! here recognises the crate's texts, takes the numbers out of them and says the same as etcd's raft would. What it
//! does not know is dropped: everything that operators rely on is known, and a test lists it. Some of etcd's lines
//! have no counterpart in the crate; the lane writes those itself.
//!
//! Nothing is written anywhere from here: lines wait, bounded in number, until the process takes them.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::eraftpb::ConfState;
use slog::{Drain, Logger, OwnedKVList, Record, o};

use crate::limits::RAFT_LINES_MAX;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineLevel {
    /// Ordinary life.
    Info,
    /// Something to look at.
    Warn,
    /// Something is wrong.
    Error,
}

/// One line for the logger named `raft`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: LineLevel,
    /// The text.
    pub text: String,
}

/// Lines that wait to be taken.
#[derive(Clone)]
pub(crate) struct Lines {
    id: u64,
    waiting: Arc<Mutex<VecDeque<Line>>>,
}

impl Lines {
    pub(crate) fn new(id: u64) -> Lines {
        Lines { id, waiting: Arc::default() }
    }

    /// The logger to give the crate.
    pub(crate) fn logger(&self) -> Logger {
        Logger::root(self.clone().fuse(), o!())
    }

    pub(crate) fn take(&mut self) -> Vec<Line> {
        self.lock().drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Line>> {
        // A panic elsewhere leaves whole lines behind, never half of one.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, level: LineLevel, text: String) {
        let mut waiting = self.lock();
        if waiting.len() == RAFT_LINES_MAX {
            waiting.pop_front();
        }
        waiting.push_back(Line { level, text });
    }

    fn info(&self, text: String) {
        self.push(LineLevel::Info, text);
    }

    /// The configuration has changed, or is told for the first time.
    pub(crate) fn conf_state(&self, state: &ConfState) {
        let list = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            let ids: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
            ids.join(" ")
        };
        let mut text = format!("{:x} switched to configuration voters=({})", self.id, list(&state.voters));
        if !state.learners.is_empty() {
            let _ = write!(text, " learners=({})", list(&state.learners));
        }
        self.info(text);
    }

    /// Another leader is known, or none.
    pub(crate) fn leader_changed(&self, before: u64, after: u64, term: u64) {
        let id = self.id;
        self.info(match (before, after) {
            (0, after) => format!("raft.node: {id:x} elected leader {after:x} at term {term}"),
            (before, 0) => format!("raft.node: {id:x} lost leader {before:x} at term {term}"),
            (before, after) => {
                format!("raft.node: {id:x} changed leader from {before:x} to {after:x} at term {term}")
            }
        });
    }

    /// The crate does not mention the vote that a candidate gives itself; etcd does.
    fn own_vote(&self, kind: &str, term: &str) {
        let id = self.id;
        self.info(format!("{id:x} received {kind} from {id:x} at term {term}"));
        self.info(format!("{id:x} has received 1 {kind} votes and 0 vote rejections"));
    }

    /// The crate asks for votes in one line, etcd in one per voter.
    fn vote_requests(&self, kv: &Pairs) {
        let id = self.id;
        let kind = etcd_type(kv.get("type"));
        let (term, log_term, index) = (kv.get("term"), kv.get("log_term"), kv.get("log_index"));
        for to in numbers(kv.get("to")).map(hex) {
            self.info(format!(
                "{id:x} [logterm: {log_term}, index: {index}] sent {kind} request to {to} at term {term}"
            ));
        }
    }

    fn vote_answer(&self, kv: &Pairs) {
        let id = self.id;
        let kind = etcd_type(kv.get("type"));
        let kind = if kind.ends_with("Resp") { kind.to_owned() } else { format!("{kind}Resp") };
        let (from, term) = (hex(kv.get("from")), kv.get("term"));
        let rejection = if kv.get("vote") == "false" { " rejection" } else { "" };
        self.info(format!("{id:x} received {kind}{rejection} from {from} at term {term}"));
        let (yes, no) = (kv.get("approvals"), kv.get("rejections"));
        self.info(format!("{id:x} has received {yes} {kind} votes and {no} vote rejections"));
    }

    fn translate(&self, text: &str, kv: &Pairs) -> Option<String> {
        let id = self.id;
        if text == "newRaft" {
            let (term, commit, applied) = (kv.get("term"), kv.get("commit"), kv.get("applied"));
            let (last, last_term) = (kv.get("last index"), kv.get("last term"));
            let peers = numbers(kv.get("peers")).map(hex).collect::<Vec<_>>().join(",");
            return Some(format!(
                "newRaft {id:x} [peers: [{peers}], term: {term}, commit: {commit}, applied: {applied}, \
                 lastindex: {last}, lastterm: {last_term}]"
            ));
        }
        if text == "starting a new election" {
            return Some(format!("{id:x} is starting a new election at term {}", kv.get("term")));
        }
        if text == "restored snapshot" || text == "fast-forwarded commit to snapshot" {
            let (commit, last, last_term) = (kv.get("commit"), kv.get("last_index"), kv.get("last_term"));
            let (index, term) = (kv.get("snapshot_index"), kv.get("snapshot_term"));
            return Some(format!(
                "{id:x} [commit: {commit}, lastindex: {last}, lastterm: {last_term}] {text} \
                 [index: {index}, term: {term}]"
            ));
        }
        if let Some([from]) = numbers_after(text, "received a message with higher term from ") {
            let (own, theirs) = (kv.get("term"), kv.get("message_term"));
            let kind = etcd_type(kv.get("msg type"));
            let from = hex(from);
            return Some(format!(
                "{id:x} [term: {own}] received a {kind} message with higher term from {from} [term: {theirs}]"
            ));
        }
        if let Some([from]) = numbers_after(text, "ignored a message with lower term from ") {
            let (own, theirs, kind) = (kv.get("term"), kv.get("msg term"), etcd_type(kv.get("msg type")));
            let from = hex(from);
            return Some(format!(
                "{id:x} [term: {own}] ignored a {kind} message with lower term from {from} [term: {theirs}]"
            ));
        }
        if text.starts_with("[logterm: ") {
            return self.translate_vote(text, kv);
        }
        if let Some([index]) = numbers_after(text, "found conflict at index ") {
            let (own, theirs) = (kv.get("existing term"), kv.get("conflicting term"));
            return Some(format!(
                "found conflict at index {index} [existing term: {own}, conflicting term: {theirs}]"
            ));
        }
        if text.starts_with("log [committed=") && text.contains("starts to restore snapshot") {
            return Some(text.to_owned());
        }
        translate_plain(text).map(|text| format!("{id:x} {text}"))
    }

    /// `[logterm: 1, index: 2, vote: 3] cast vote for 4 [logterm: 5, index: 6] at term 7` and its like.
    fn translate_vote(&self, text: &str, kv: &Pairs) -> Option<String> {
        let n: Vec<&str> = numbers(text).collect();
        let id = self.id;
        let kind = etcd_type(kv.get("msg type"));
        let [log_term, index, vote, from, theirs, their_index, ref rest @ ..] = n[..] else { return None };
        let (vote, from) = (hex(vote), hex(from));
        let own = format!("{id:x} [logterm: {log_term}, index: {index}, vote: {vote}]");
        let other = format!("{from} [logterm: {theirs}, index: {their_index}]");
        if text.contains("ignored vote") {
            let (term, ticks) = (kv.get("term"), kv.get("remaining ticks"));
            return Some(format!(
                "{own} ignored {kind} from {other} at term {term}: lease is not expired (remaining ticks: {ticks})"
            ));
        }
        let term = rest.first()?;
        if text.contains("cast vote") {
            return Some(format!("{own} cast {kind} for {other} at term {term}"));
        }
        text.contains("rejected vote").then(|| format!("{own} rejected {kind} from {other} at term {term}"))
    }
}

/// Lines that differ from etcd's only in the missing id in front and in how other ids are written.
fn translate_plain(text: &str) -> Option<String> {
    const SAME: [&str; 12] = [
        "became follower at term ",
        "became pre-candidate at term ",
        "became candidate at term ",
        "became leader at term ",
        "no leader at term ",
        "stepped down to follower since quorum is not active",
        "already leader; ignored transferring leadership to self",
        "non-follower attempted to restore snapshot",
        "attempted to restore snapshot but it is not in the ConfState",
        "cannot campaign at term ",
        "[commit: ",
        "entries are dropped due to overlimit",
    ];
    if SAME.iter().any(|start| text.starts_with(start)) {
        return Some(text.to_owned());
    }
    // Ids stand where a word ends in one of these; everything else that is a number is a term or an index.
    let with_ids = [
        "starts to transfer leadership to ",
        "transfer leadership to ",
        "abort previous transferring leadership to ",
        "sends MsgTimeoutNow to ",
        "sent MsgTimeoutNow to ",
        "received MsgTimeoutNow from ",
    ];
    with_ids.iter().any(|part| text.contains(part)).then(|| {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, tail) = rest.split_at(at);
            let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            let (number, after) = tail.split_at(end);
            out.push_str(before);
            out.push_str(&if before.ends_with("term ") { number.to_owned() } else { hex(number) });
            rest = after;
        }
        out.push_str(rest);
        out
    })
}

fn hex(number: &str) -> String {
    number.parse::<u64>().map_or_else(|_| number.to_owned(), |id| format!("{id:x}"))
}

fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty())
}

fn numbers_after<'a, const N: usize>(text: &'a str, start: &str) -> Option<[&'a str; N]> {
    numbers(text.strip_prefix(start)?).take(N).collect::<Vec<_>>().try_into().ok()
}

fn etcd_type(name: &str) -> &str {
    match name {
        "MsgPropose" => "MsgProp",
        "MsgAppend" => "MsgApp",
        "MsgAppendResponse" => "MsgAppResp",
        "MsgRequestVote" => "MsgVote",
        "MsgRequestVoteResponse" => "MsgVoteResp",
        "MsgRequestPreVote" => "MsgPreVote",
        "MsgRequestPreVoteResponse" => "MsgPreVoteResp",
        "MsgSnapshot" => "MsgSnap",
        "MsgHeartbeatResponse" => "MsgHeartbeatResp",
        other => other,
    }
}

/// Key-value pairs of one record.
#[derive(Default)]
struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| *k == key).map_or("", |(_, value)| value)
    }
}

impl slog::Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.push((key, value.to_string()));
        Ok(())
    }
}

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        let level = match record.level() {
            slog::Level::Critical | slog::Level::Error => LineLevel::Error,
            slog::Level::Warning => LineLevel::Warn,
            slog::Level::Info => LineLevel::Info,
            slog::Level::Debug | slog::Level::Trace => return Ok(()),
        };
        let text = record.msg().to_string();
        let mut kv = Pairs::default();
        // A pair that cannot be written is missing from the line, nothing else.
        let _ = slog::KV::serialize(&record.kv(), record, &mut kv);
        if text == "received votes response" {
            self.vote_answer(&kv);
        } else if text == "broadcasting vote request" {
            self.vote_requests(&kv);
        } else if let Some(line) = self.translate(&text, &kv) {
            self.push(level, line);
            if let Some(term) = text.strip_prefix("became pre-candidate at term ") {
                self.own_vote("MsgPreVoteResp", term);
            } else if let Some(term) = text.strip_prefix("became candidate at term ") {
                self.own_vote("MsgVoteResp", term);
            }
        } else if level == LineLevel::Error {
            // Rare and never expected: better in the crate's words than lost.
            self.push(level, text);
        }
        Ok(())
    }

    fn is_enabled(&self, level: slog::Level) -> bool {
        level.is_at_least(slog::Level::Info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{info, warn};

    fn said(log: impl FnOnce(&Logger)) -> Vec<String> {
        let mut lines = Lines::new(0x8e9e_05c5_2164_694d);
        log(&lines.logger());
        lines.take().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_crates_texts_become_etcds() {
        let text = said(|l| {
            info!(l, "newRaft"; "term" => 1, "commit" => 2, "applied" => 0, "last index" => 3, "last term" => 1,
                  "peers" => ?[255u64, 16]);
            info!(l, "became follower at term {term}", term = 1);
            info!(l, "starting a new election"; "term" => 1);
            info!(l, "received a message with higher term from {from}", from = 255u64;
                  "term" => 1, "message_term" => 4, "msg type" => ?raft::eraftpb::MessageType::MsgRequestVote);
            info!(l, "received votes response"; "vote" => false, "from" => 255, "rejections" => 1, "approvals" => 2,
                  "type" => ?raft::eraftpb::MessageType::MsgRequestPreVoteResponse, "term" => 4);
            info!(l, "broadcasting vote request"; "type" => ?raft::eraftpb::MessageType::MsgRequestVote, "term" => 4,
                  "log_term" => 1, "log_index" => 3, "to" => ?[255u64, 16]);
            info!(
                l,
                "[term {term}] starts to transfer leadership to {lead_transferee}",
                term = 10,
                lead_transferee = 255
            );
            warn!(l, "stepped down to follower since quorum is not active");
            info!(l, "nobody knows this");
            slog::debug!(l, "became leader at term 9");
        });
        assert_eq!(
            text,
            [
                "newRaft 8e9e05c52164694d [peers: [ff,10], term: 1, commit: 2, applied: 0, lastindex: 3, lastterm: 1]",
                "8e9e05c52164694d became follower at term 1",
                "8e9e05c52164694d is starting a new election at term 1",
                "8e9e05c52164694d [term: 1] received a MsgVote message with higher term from ff [term: 4]",
                "8e9e05c52164694d received MsgPreVoteResp rejection from ff at term 4",
                "8e9e05c52164694d has received 2 MsgPreVoteResp votes and 1 vote rejections",
                "8e9e05c52164694d [logterm: 1, index: 3] sent MsgVote request to ff at term 4",
                "8e9e05c52164694d [logterm: 1, index: 3] sent MsgVote request to 10 at term 4",
                "8e9e05c52164694d [term 10] starts to transfer leadership to ff",
                "8e9e05c52164694d stepped down to follower since quorum is not active",
            ]
        );
    }

    #[test]
    fn votes_keep_all_their_numbers() {
        let text = said(|l| {
            let kind = raft::eraftpb::MessageType::MsgRequestPreVote;
            info!(l, "[logterm: {a}, index: {b}, vote: {c}] cast vote for {d} [logterm: {e}, index: {f}] at term {g}",
                  a = 1, b = 2, c = 255, d = 16, e = 3, f = 4, g = 5; "msg type" => ?kind);
            info!(l, "[logterm: {a}, index: {b}, vote: {c}] ignored vote from {d} [logterm: {e}, index: {f}]: lease is not expired",
                  a = 1, b = 2, c = 255, d = 16, e = 3, f = 4; "term" => 6, "remaining ticks" => 7, "msg type" => ?kind);
        });
        assert_eq!(
            text,
            [
                "8e9e05c52164694d [logterm: 1, index: 2, vote: ff] cast MsgPreVote for 10 [logterm: 3, index: 4] at term 5",
                "8e9e05c52164694d [logterm: 1, index: 2, vote: ff] ignored MsgPreVote from 10 [logterm: 3, index: 4] at term 6: lease is not expired (remaining ticks: 7)",
            ]
        );
    }

    #[test]
    fn lines_are_bounded_and_the_oldest_go_first() {
        let mut lines = Lines::new(1);
        for i in 0..RAFT_LINES_MAX + 10 {
            lines.info(i.to_string());
        }
        let taken = lines.take();
        assert_eq!((taken.len(), &taken[0].text[..]), (RAFT_LINES_MAX, "10"));
        lines.leader_changed(0, 2, 3);
        lines.leader_changed(2, 1, 4);
        lines.leader_changed(1, 0, 4);
        let state = ConfState { voters: vec![255, 16], learners: vec![3], ..ConfState::default() };
        lines.conf_state(&state);
        let taken: Vec<String> = lines.take().into_iter().map(|line| line.text).collect();
        assert_eq!(
            taken,
            [
                "raft.node: 1 elected leader 2 at term 3",
                "raft.node: 1 changed leader from 2 to 1 at term 4",
                "raft.node: 1 lost leader 1 at term 4",
                "1 switched to configuration voters=(10 ff) learners=(3)",
            ]
        );
    }
}
