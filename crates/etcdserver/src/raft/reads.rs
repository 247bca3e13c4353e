//! Linearizable reads: all that wait share one round of read index.
//!
//! Rules, each of which a past bug of etcd has shown to be needed:
//! 1. A read joins only a round that starts after it arrived. While a round is under way, later ones queue.
//! 2. The context of a round is a fresh request id: no other member, no earlier life of this one and no earlier
//!    round has ever used it. Answers with another context mean nothing.
//! 3. A round that sees a new leader fails: its reads are answered "leader changed", never with an index.
//! 4. A round may be asked again (a leader that has not committed in its term drops it, and messages get lost);
//!    the answer to any of its own attempts counts.

use crate::effect::ReplyTo;
use crate::limits::{READ_RETRY_NS, READS_MAX};
use crate::mutant::Mutant;

/// What a finished round gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// Reads that may be answered once the index is applied.
    pub(crate) reads: Vec<ReplyTo>,
    /// The index.
    pub(crate) index: u64,
    /// When the round began.
    pub(crate) started_ns: u64,
}

#[derive(Debug)]
struct Round {
    contexts: Vec<u64>,
    started_ns: u64,
    sent_ns: u64,
    reads: Vec<ReplyTo>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Vec<ReplyTo>,
    /// The lane itself wants its leadership confirmed.
    confirm: bool,
    round: Option<Round>,
}

/// Attempts of one round that are remembered; an answer to an older one is ignored.
const ATTEMPTS_MAX: usize = 32;

impl Reads {
    /// Adds reads; those that find no room come back.
    pub(crate) fn add(&mut self, mut reads: Vec<ReplyTo>) -> Vec<ReplyTo> {
        let taken = self.waiting.len() + self.round.as_ref().map_or(0, |round| round.reads.len());
        let room = READS_MAX.saturating_sub(taken).min(reads.len());
        let refused = reads.split_off(room);
        if let Some(round) = self.round.as_mut().filter(|_| Mutant::JoinsRunningRound.is_on()) {
            round.reads.append(&mut reads);
            return refused;
        }
        self.waiting.append(&mut reads);
        refused
    }

    /// A round without a reader: the lane wants to know that it leads.
    pub(crate) fn want_confirmation(&mut self) {
        self.confirm = true;
    }

    /// Starts a round if one is wanted and none is under way. `context` is used up only then.
    pub(crate) fn start(&mut self, now_ns: u64, context: impl FnOnce() -> u64) -> Option<u64> {
        if self.round.is_some() || (self.waiting.is_empty() && !self.confirm) {
            return None;
        }
        let context = context();
        self.confirm = false;
        self.round = Some(Round {
            contexts: vec![context],
            started_ns: now_ns,
            sent_ns: now_ns,
            reads: std::mem::take(&mut self.waiting),
        });
        Some(context)
    }

    /// Asks again: because the answer is late, or (`at_once`) because the leader can answer only now.
    pub(crate) fn again(&mut self, now_ns: u64, at_once: bool, context: impl FnOnce() -> u64) -> Option<u64> {
        let round = self.round.as_mut()?;
        if !at_once && now_ns.saturating_sub(round.sent_ns) < READ_RETRY_NS {
            return None;
        }
        let context = context();
        if round.contexts.len() == ATTEMPTS_MAX {
            round.contexts.remove(0);
        }
        round.contexts.push(context);
        round.sent_ns = now_ns;
        Some(context)
    }

    /// Raft confirmed a context.
    pub(crate) fn confirmed(&mut self, context: &[u8], index: u64) -> Option<Confirmed> {
        let context = u64::from_be_bytes(context.try_into().ok()?);
        let round = self.round.take_if(|round| round.contexts.contains(&context))?;
        Some(Confirmed { reads: round.reads, index, started_ns: round.started_ns })
    }

    /// Another leader: the round under way fails. Its reads come back to be answered with the error.
    pub(crate) fn leader_changed(&mut self) -> Vec<ReplyTo> {
        self.round.take().map(|round| round.reads).unwrap_or_default()
    }

    /// The round under way has lasted too long. Its reads come back to be answered with the error.
    pub(crate) fn take_late(&mut self, now_ns: u64, timeout_ns: u64) -> Vec<ReplyTo> {
        let late = self.round.take_if(|round| now_ns.saturating_sub(round.started_ns) >= timeout_ns);
        late.map(|round| round.reads).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now::{MILLISECOND, SECOND};

    fn reads(streams: std::ops::Range<u32>) -> Vec<ReplyTo> {
        streams.map(|stream| ReplyTo { thread: 1, connection: 2, stream }).collect()
    }

    #[test]
    fn a_read_never_joins_a_round_that_began_before_it() {
        let mut r = Reads::default();
        assert_eq!(r.start(0, || 7), None, "nobody waits");
        assert!(r.add(reads(0..2)).is_empty());
        assert_eq!(r.start(10, || 7), Some(7));
        assert!(r.add(reads(2..3)).is_empty());
        assert_eq!(r.start(11, || 8), None, "one round at a time");
        let confirmed = r.confirmed(&7u64.to_be_bytes(), 40).unwrap();
        assert_eq!(confirmed, Confirmed { reads: reads(0..2), index: 40, started_ns: 10 });
        assert_eq!(r.start(12, || 8), Some(8));
        assert_eq!(r.confirmed(&8u64.to_be_bytes(), 41).unwrap().reads, reads(2..3));
    }

    /// etcd issue 20418 (3.4.20 to 3.6.8): after a pause of the process a read context was used again, and an
    /// answer meant for an earlier read let a later one read the past. Contexts here are used once.
    #[test]
    fn issue_20418_an_answer_to_an_earlier_context_means_nothing() {
        let mut r = Reads::default();
        r.add(reads(0..1));
        r.start(0, || 7);
        r.confirmed(&7u64.to_be_bytes(), 1).unwrap();
        r.add(reads(1..2));
        r.start(0, || 8);
        assert_eq!(r.confirmed(&7u64.to_be_bytes(), 1), None);
        assert_eq!(r.confirmed(b"short", 1), None);
        assert!(r.confirmed(&8u64.to_be_bytes(), 5).is_some());
    }

    /// etcd issues 21375 and 21378: an answer of the old leader's term reached a read after the leader had changed.
    #[test]
    fn issue_21375_a_round_does_not_outlive_its_leader() {
        let mut r = Reads::default();
        r.add(reads(0..2));
        r.start(0, || 7);
        r.add(reads(2..4));
        assert_eq!(r.leader_changed(), reads(0..2));
        assert_eq!(r.confirmed(&7u64.to_be_bytes(), 9), None, "too late");
        assert_eq!(r.start(1, || 8), Some(8), "what queued behind it asks the new leader");
        assert_eq!(r.confirmed(&8u64.to_be_bytes(), 9).unwrap().reads, reads(2..4));
    }

    #[test]
    fn a_lost_round_is_asked_again_and_any_attempt_counts() {
        let mut r = Reads::default();
        r.add(reads(0..1));
        r.start(0, || 1);
        assert_eq!(r.again(499 * MILLISECOND, false, || 2), None);
        assert_eq!(r.again(500 * MILLISECOND, false, || 2), Some(2));
        assert_eq!(r.again(501 * MILLISECOND, true, || 3), Some(3));
        assert!(r.take_late(6 * SECOND, 7 * SECOND).is_empty());
        assert!(r.confirmed(&1u64.to_be_bytes(), 4).is_some());
        r.add(reads(0..1));
        r.start(0, || 4);
        assert_eq!(r.take_late(7 * SECOND, 7 * SECOND), reads(0..1));
        assert_eq!(r.again(8 * SECOND, true, || 5), None);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut r = Reads::default();
        assert!(r.add(reads(0..READS_MAX as u32)).is_empty());
        r.start(0, || 1);
        assert_eq!(r.add(reads(0..3)).len(), 3);
    }
}
