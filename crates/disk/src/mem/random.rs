//! A small generator of pseudo-random numbers, so that a crash is fixed by its seed alone.

/// SplitMix64; the first two seeds are no generator at all but the two extremes.
#[derive(Debug)]
pub(super) enum Random {
    /// Always the oldest choice: everything unsynced is lost.
    Oldest,
    /// Always the newest choice: everything survives.
    Newest,
    /// Anything.
    Any(u64),
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        match seed {
            0 => Random::Oldest,
            1 => Random::Newest,
            seed => Random::Any(seed),
        }
    }

    /// A number below `count`, which is not zero.
    pub(super) fn below(&mut self, count: usize) -> usize {
        match self {
            Random::Oldest => 0,
            Random::Newest => count - 1,
            Random::Any(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((mixed ^ (mixed >> 31)) % count as u64) as usize
            }
        }
    }
}
