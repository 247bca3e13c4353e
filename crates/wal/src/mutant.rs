//! Bugs on purpose, chosen by name, so that the simulator can show that it would find them.
//!
//! They exist with the feature `mutants` only, which no program that is shipped has: without it, asking for one is a
//! constant.

/// A bug, named after the number of etcd's issue where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A sync of the log does nothing.
    SyncSkipped,
    /// A new segment comes before the end of the old one is durable.
    CutUnsynced,
    /// A log without room ends the process.
    NoRoomIsFatal,
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
pub const NAMES: &[&str] = &["sync-skipped", "cut-unsynced", "full-disk-ends-process"];

/// Turns one on, or all off with a name that is not here.
#[cfg(feature = "mutants")]
pub fn choose(name: &str) {
    let place = NAMES.iter().position(|known| *known == name).map_or(0, |at| at + 1);
    CHOSEN.store(place, std::sync::atomic::Ordering::Relaxed);
}
