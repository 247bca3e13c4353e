//! Bugs on purpose, chosen by name, so that the simulator can show that it would find them.
//!
//! They exist with the feature `mutants` only, which no program that is shipped has: without it, asking for one is a
//! constant.

/// A bug, named after the number of etcd's issue where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A leader counts its own log before it is durable.
    OwnVoteBeforeSync,
    /// A follower answers before its write is durable.
    AckBeforeSync,
    /// A revoke of a leader that was replaced goes into the log of the next one.
    RevokePassedOn,
    /// A leader that wakes up does not ask whether it still leads.
    PauseUnnoticed,
    /// A read counts on a round that began before it.
    JoinsRunningRound,
    /// All rounds of a member have one context.
    ContextReused,
    /// A promotion is not written to the members bucket.
    PromotionNotStored,
    /// Replaying a log of 3.5 takes membership changes that were refused.
    ReplayUnchecked,
    /// Apply refuses a put because this member has no room.
    QuotaDecides,
    /// Leases whose time is up are not revoked.
    LeaseNeverEnds,
    /// A new leader gives leases half of their time.
    LeaseEndsEarly,
    /// A snapshot is recorded with an index that its database has not reached.
    RecordAhead,
    /// Apply does not ask for the rights of requests that this member proposed.
    OwnTrusted,
    /// Rights on keys in nested transactions are not asked for.
    NestedUnchecked,
    /// The right to see a previous value is not asked for.
    PrevKvUnchecked,
    /// Whoever may write a key may hang it on any lease.
    LeaseUnchecked,
    /// An identity from before the last change of rights counts.
    OldIdentity,
    /// Of an interval, only the first key is looked at.
    EndIgnored,
    /// Users keep the rights that a role had when they got it.
    RightsKept,
    /// The auth revision is not written to its bucket.
    AuthRevisionLost,
    /// With auth on, a leader's revokes come from nobody.
    RevokesOfNobody,
    /// A membership change is answered, and raft is never told.
    RaftNotTold,
    /// A lone voter speaks as leader of a term that is not durable.
    TermBeforeSync,
}

impl Mutant {
    /// Whether it is the chosen one.
    #[cfg(feature = "mutants")]
    pub(crate) fn is_on(self) -> bool {
        CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == self as usize + 1
    }

    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "the other one looks")]
    pub(crate) const fn is_on(self) -> bool {
        false
    }
}

/// Place in [`NAMES`], counted from 1; 0 for none.
#[cfg(feature = "mutants")]
static CHOSEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// The names, in the order of the variants.
#[cfg(feature = "mutants")]
pub const NAMES: &[&str] = &[
    "14370-own-vote-before-sync",
    "14370-answer-before-sync",
    "15247-revoke-passed-on",
    "15247-pause-unnoticed",
    "21378-read-joins-round",
    "20418-read-context-reused",
    "20793-promotion-not-stored",
    "19557-replay-unchecked",
    "14571-local-state-decides",
    "lease-never-ends",
    "lease-ends-early",
    "18055-record-ahead",
    "14571-own-requests-trusted",
    "44283-nested-unchecked",
    "44283-prev-kv-unchecked",
    "44283-lease-unchecked",
    "auth-old-identity",
    "auth-range-end-ignored",
    "auth-rights-kept",
    "auth-revision-not-stored",
    "auth-revokes-of-nobody",
    "15528-raft-not-told",
    "term-before-sync",
];

/// Turns one on, or all off with a name that is not here.
#[cfg(feature = "mutants")]
pub fn choose(name: &str) {
    let place = NAMES.iter().position(|known| *known == name).map_or(0, |at| at + 1);
    CHOSEN.store(place, std::sync::atomic::Ordering::Relaxed);
}
