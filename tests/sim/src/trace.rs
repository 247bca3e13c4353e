//! What happened, in order: a hash over all of it, and the last of it for whoever reads a failure.

use std::collections::VecDeque;
use std::fmt::Write;

/// One thing that happened. Numbers only: a line is made when somebody reads it.
#[derive(Clone, Copy, Debug)]
struct Note {
    at: u64,
    member: usize,
    what: &'static str,
    a: u64,
    b: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    count: u64,
    kept: VecDeque<Note>,
    keep: usize,
}

/// A note about nobody in particular.
pub(crate) const NOBODY: usize = usize::MAX;

impl Trace {
    /// Keeps the last `keep` notes.
    pub(crate) fn new(keep: usize) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, count: 0, kept: VecDeque::new(), keep }
    }

    pub(crate) fn note(&mut self, at: u64, member: usize, what: &'static str, a: u64, b: u64) {
        self.count += 1;
        for part in [at, member as u64, what.len() as u64 ^ u64::from(what.as_bytes()[0]) << 8, a, b] {
            self.hash = (self.hash ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        if self.kept.len() == self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back(Note { at, member, what, a, b });
    }

    /// Equal for equal runs.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The kept notes as lines.
    pub(crate) fn lines(&self) -> String {
        let mut out = String::new();
        for note in &self.kept {
            let (ms, us) = (note.at / 1_000_000, note.at / 1_000 % 1_000);
            let who = if note.member == NOBODY { "-".to_owned() } else { note.member.to_string() };
            let _ = writeln!(out, "{ms:>7}.{us:03} m{who:<2} {:<16} {:x} {:x}", note.what, note.a, note.b);
        }
        out
    }
}
