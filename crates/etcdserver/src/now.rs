//! The time as an argument: two plain numbers that the driver reads once per turn.

/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// The time of one step of the core.
///
/// Durations are measured with `mono_ns` only. `wall_ns` enters nothing that members must agree on; it is there
/// for ids and log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds of a clock that never goes back. Its zero means nothing.
    pub mono_ns: u64,
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
}

impl Now {
    /// The same clocks, `ns` nanoseconds later.
    #[must_use]
    pub fn plus(self, ns: u64) -> Now {
        Now { mono_ns: self.mono_ns.saturating_add(ns), wall_ns: self.wall_ns.saturating_add(ns) }
    }
}
