//! What a lane starts from, how it can fail, and what it tells of itself.

use std::fmt;

use api::raftpb;

use super::convert::{self, Dropped};
use super::log::Log;

/// What a member's raft starts from.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// This member.
    pub id: u64,
    /// Index and term of the entry before the first of `entries`.
    pub log_start: (u64, u64),
    /// The log.
    pub entries: Vec<raftpb::Entry>,
    /// Term, vote and commit as the log has them.
    pub hard_state: raftpb::HardState,
    /// Voters and learners at `applied`.
    pub conf_state: raftpb::ConfState,
    /// The last entry whose effects the database holds.
    pub applied: u64,
    /// Leases at `applied`: id, granted seconds, seconds left at the last checkpoint.
    pub leases: Vec<(i64, i64, i64)>,
    /// Index of the newest snapshot on disk.
    pub disk_snapshot: u64,
    /// Once this index is applied a snapshot on disk must cover it, however few entries there are; 0 for none.
    pub snapshot_wanted_at: u64,
}

/// A state that a member cannot go on from. The process must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Something is committed that this member's log does not have, though it once said it had.
    CommitOutOfRange {
        /// What is committed.
        commit: u64,
        /// The last entry here.
        last: u64,
    },
    /// The database is ahead of the log.
    AppliedOutOfRange {
        /// The database's consistent index.
        applied: u64,
        /// The last entry here.
        last: u64,
    },
    /// The log starts after the entry that the database needs next.
    Gap {
        /// The database's consistent index.
        applied: u64,
        /// The first entry here.
        first: u64,
    },
    /// An entry of the log cannot be understood.
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        reason: Dropped,
    },
    /// The settings are refused by the raft library.
    Settings(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::CommitOutOfRange { commit, last } => write!(
                f,
                "tocommit({commit}) is out of range [lastIndex({last})]. Was the raft log corrupted, truncated, or lost?"
            ),
            Error::AppliedOutOfRange { applied, last } => write!(
                f,
                "applied({applied}) is out of range [lastIndex({last})]. Was the raft log corrupted, truncated, or lost?"
            ),
            Error::Gap { applied, first } => write!(
                f,
                "first index of committed entry[{first}] should <= applied index[{applied}] + 1: the log before it is gone"
            ),
            Error::Entry { index, reason } => write!(f, "raft log entry {index}: {reason}"),
            Error::Settings(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// A member's part in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes entries from a leader.
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Gives out entries.
    Leader,
}

/// What raft knows, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member's part.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// Leader, 0 when none is known.
    pub leader: u64,
    /// Last committed entry.
    pub committed: u64,
    /// Last applied entry.
    pub applied: u64,
    /// Last entry of the log.
    pub last_index: u64,
    /// Voters, ascending.
    pub voters: Vec<u64>,
    /// Learners, ascending.
    pub learners: Vec<u64>,
}

/// The log in memory as a directory holds it, if its parts fit together.
pub(super) fn build_log(start: &Start) -> Result<Log, Error> {
    let (index, term) = start.log_start;
    let mut entries = Vec::with_capacity(start.entries.len());
    for entry in &start.entries {
        let at = entry.index();
        entries.push(convert::entry_in(entry.clone()).map_err(|reason| Error::Entry { index: at, reason })?);
    }
    let mut hard_state = convert::hard_state_in(&start.hard_state);
    // The database may be ahead of the recorded commit: commits are not synced, applied entries are.
    hard_state.commit = hard_state.commit.max(start.applied).max(index);
    let last = entries.last().map_or(index, |entry| entry.index);
    if start.applied > last {
        return Err(Error::AppliedOutOfRange { applied: start.applied, last });
    }
    if start.applied < index {
        return Err(Error::Gap { applied: start.applied, first: index + 1 });
    }
    if hard_state.commit > last {
        return Err(Error::CommitOutOfRange { commit: hard_state.commit, last });
    }
    let mut log = Log::new(index, term, hard_state, convert::conf_state_in(&start.conf_state));
    log.append(&entries);
    log.set_applied(start.applied);
    Ok(log)
}
