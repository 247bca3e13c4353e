//! The same scripts on Go etcd and on ours, compared: what the tests of this package share.
//!
//! Reading order: this file, then `tests/switch.rs` (data directories that go from Go to ours and back),
//! `tests/tutorial.rs` (commands of tutorials with Go's own etcdctl), `tests/restore.rs` (backups). Then [`semantics`],
//! the driver of the cases that have a number, and `tests/kv.rs` as its first user; and [`http`], with which
//! `tests/http.rs`, `tests/metrics.rs` and the tests of log lines ask what operators ask.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

pub mod http;
pub mod semantics;

use std::path::Path;

use harness::{Member, Output, run, run_with_input};

/// One etcdctl, pointed at one member.
pub struct Ctl<'a> {
    program: &'a Path,
    endpoint: String,
}

impl<'a> Ctl<'a> {
    /// The tool at `program`, talking to `member`.
    pub fn new(program: &'a Path, member: &Member) -> Ctl<'a> {
        Ctl { program, endpoint: format!("--endpoints={}", member.endpoint()) }
    }

    /// Runs a command; words are separated by spaces.
    pub fn run(&self, command: &str) -> Output {
        let words: Vec<&str> = std::iter::once(self.endpoint.as_str()).chain(command.split(' ')).collect();
        run(self.program, &words)
    }

    /// Standard output of a command that must work.
    pub fn ok(&self, command: &str) -> String {
        self.run(command).ok()
    }

    /// Runs a command with text on its standard input; its standard output.
    pub fn ok_with(&self, command: &str, input: &str) -> String {
        let words: Vec<&str> = std::iter::once(self.endpoint.as_str()).chain(command.split(' ')).collect();
        run_with_input(self.program, &words, input).ok()
    }

    /// HashKV at the current revision: hash and the revision it stands for.
    pub fn hash(&self) -> String {
        let line = self.ok("endpoint hashkv");
        line.split_once(", ").map(|(_, rest)| rest.trim().to_string()).unwrap_or(line)
    }

    /// All keys and values.
    pub fn everything(&self) -> String {
        self.run_raw(&["get", "", "--prefix"]).ok()
    }

    /// Runs a command whose words may hold spaces or be empty.
    pub fn run_raw(&self, words: &[&str]) -> Output {
        let words: Vec<&str> = std::iter::once(self.endpoint.as_str()).chain(words.iter().copied()).collect();
        run(self.program, &words)
    }
}
