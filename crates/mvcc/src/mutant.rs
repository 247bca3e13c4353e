//! Bugs on purpose, chosen by name, so that the simulator can show that it would find them.
//!
//! They exist with the feature `mutants` only, which no program that is shipped has: without it, asking for one is a
//! constant.

/// A bug, named after the number of etcd's issue where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The consistent index does not go with the batch that it describes.
    IndexApart,
    /// A defragmentation forgets that the consistent index has moved.
    IndexLostInMove,
    /// Progress is told before the events.
    ProgressOvertakes,
    /// Watchers stay where they were when the store is replaced.
    KeptAcrossRestore,
    /// A watcher that is behind is sent the last revision of a piece again.
    EventsTwice,
    /// A full stream makes its watchers skip what they had not been sent.
    VictimsDropped,
    /// A start takes the revision from the puts that are left.
    RevisionFromRecords,
    /// A compaction removes a tombstone of its own revision.
    TombstoneRemoved,
    /// A transaction sees how far the compaction of this member is.
    TxnSeesProgress,
    /// A watcher of the future is sent what comes before.
    FutureStartIgnored,
    /// A new watcher lacks one of its options at first.
    PrevKvMissing,
    /// Of a batch that found no room, what is not about keys is forgotten.
    SideLost,
    /// A batch that found no room is forgotten.
    BatchLost,
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
    "13766-index-apart",
    "14685-index-lost-in-move",
    "15220-progress-overtakes",
    "15271-kept-across-restore",
    "17247-events-twice",
    "17529-victims-dropped",
    "17780-revision-from-records",
    "18089-tombstone-removed",
    "18667-txn-sees-progress",
    "20221-future-start-ignored",
    "prev-kv-missing",
    "full-disk-side-lost",
    "full-disk-batch-lost",
];

/// Turns one on, or all off with a name that is not here.
#[cfg(feature = "mutants")]
pub fn choose(name: &str) {
    let place = NAMES.iter().position(|known| *known == name).map_or(0, |at| at + 1);
    CHOSEN.store(place, std::sync::atomic::Ordering::Relaxed);
}
