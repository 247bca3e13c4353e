//! Free pages: one bit per page, lowest addresses first.
//!
//! Invariants:
//! 1. A set bit is a page below the high-water mark that no durable meta, no pinned view and no page of the running
//!    commit can reach. `commit.rs` decides when that is so; here a page is freed or taken once, which is asserted.
//! 2. `count` and the per-group counts equal the number of set bits.
//! 3. No group before `first` has a free page. No group before `first_run` had, when it was passed in this
//!    transaction, a run long enough for the requests that passed it.
//!
//! Taking the lowest run that fits keeps live pages at the front of the file, which is all that online
//! defragmentation needs: rewriting a page is moving it down.

/// Words per group; a group is 4,096 pages.
const GROUP: usize = 64;

/// Consecutive pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) pages: u64,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.pages
    }
}

/// The set of free pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreePages {
    words: Vec<u64>,
    groups: Vec<u32>,
    count: u64,
    first: usize,
    first_run: usize,
}

/// The bits of `extent` in each word it touches.
fn masks(extent: Extent) -> impl Iterator<Item = (usize, u64)> {
    let mut page = extent.start;
    std::iter::from_fn(move || {
        if page >= extent.end() {
            return None;
        }
        let word = page / 64;
        let stop = extent.end().min((word + 1) * 64);
        let bits = stop - page;
        let ones = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let mask = ones << (page % 64);
        page = stop;
        Some((word as usize, mask))
    })
}

impl FreePages {
    /// Number of free pages.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Free pages in runs that any page finds room in, a huge one aside. Looks at all words.
    pub(crate) fn in_runs(&self) -> u64 {
        64 * self.words.iter().filter(|word| **word == u64::MAX).count() as u64
    }

    pub(crate) fn is_free(&self, page: u64) -> bool {
        self.words.get((page / 64) as usize).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// Adds pages; none of them may be free already.
    pub(crate) fn release(&mut self, extent: Extent) {
        let words = extent.end().div_ceil(64) as usize;
        if words > self.words.len() {
            let groups = words.div_ceil(GROUP);
            self.words.resize(groups * GROUP, 0);
            self.groups.resize(groups, 0);
        }
        for (word, mask) in masks(extent) {
            assert!(self.words[word] & mask == 0, "page freed twice in {extent:?}");
            self.words[word] |= mask;
            self.groups[word / GROUP] += mask.count_ones();
        }
        self.count += extent.pages;
        let group = (extent.start / 64) as usize / GROUP;
        self.first = self.first.min(group);
        self.first_run = self.first_run.min(group);
    }

    /// Takes pages; all of them must be free.
    pub(crate) fn take(&mut self, extent: Extent) {
        for (word, mask) in masks(extent) {
            assert!(self.words[word] & mask == mask, "page taken that is not free in {extent:?}");
            self.words[word] &= !mask;
            self.groups[word / GROUP] -= mask.count_ones();
        }
        self.count -= extent.pages;
    }

    /// Starts a transaction: long runs are looked for from the front again.
    pub(crate) fn rewind(&mut self) {
        self.first_run = self.first;
    }

    /// Takes the lowest run of at least `min` pages, at most `want` of them.
    pub(crate) fn run(&mut self, min: u64, want: u64) -> Option<Extent> {
        if self.count < min {
            return None;
        }
        let single = min == 1;
        let mut group = if single { self.first } else { self.first_run };
        while group < self.groups.len() {
            if u64::from(self.groups[group]) >= min
                && let Some(extent) = self.run_in(group, min, want)
            {
                self.take(extent);
                *(if single { &mut self.first } else { &mut self.first_run }) = group;
                return Some(extent);
            }
            if self.groups[group] == 0 && group == self.first {
                self.first += 1;
            }
            group += 1;
        }
        *(if single { &mut self.first } else { &mut self.first_run }) = group;
        None
    }

    /// The first run that starts in `group` and has at least `min` pages; it may end in a later group.
    fn run_in(&self, group: usize, min: u64, want: u64) -> Option<Extent> {
        let mut page = (group * GROUP * 64) as u64;
        let end = page + (GROUP * 64) as u64;
        while page < end {
            let rest = self.words[(page / 64) as usize] >> (page % 64);
            if rest == 0 {
                page = (page / 64 + 1) * 64;
                continue;
            }
            page += u64::from(rest.trailing_zeros());
            let pages = self.length_at(page, want);
            if pages >= min {
                return Some(Extent { start: page, pages });
            }
            page += pages;
        }
        None
    }

    /// Free pages in a row from `start`, at most `want`.
    fn length_at(&self, start: u64, want: u64) -> u64 {
        let mut length = 0;
        while length < want {
            let page = start + length;
            let Some(word) = self.words.get((page / 64) as usize) else { break };
            let ones = u64::from((word >> (page % 64)).trailing_ones());
            length += ones;
            if ones < 64 - page % 64 {
                break;
            }
        }
        length.min(want)
    }

    /// Free pages in a row directly below `high_water`.
    pub(crate) fn trailing(&self, high_water: u64) -> u64 {
        let mut page = high_water;
        while page > 2 {
            let last = page - 1;
            let Some(word) = self.words.get((last / 64) as usize) else { break };
            let ones = u64::from((word << (63 - last % 64)).leading_ones()).min(last % 64 + 1);
            page -= ones;
            if ones < last % 64 + 1 {
                break;
            }
        }
        high_water - page.max(2)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::Rng;

    use super::*;
    use crate::tests::support::rng;

    fn lowest_run(free: &BTreeSet<u64>, min: u64) -> Option<u64> {
        free.iter().copied().find(|start| (0..min).all(|i| free.contains(&(start + i))))
    }

    /// Against a set of page numbers. Single pages come lowest first; longer runs lowest first too, unless the run
    /// begins in a group that has too few free pages of its own.
    #[test]
    fn equals_a_set() {
        for seed in 0..20 {
            let mut rng = rng(seed);
            let mut pages = FreePages::default();
            let mut set = BTreeSet::new();
            for _ in 0..600 {
                match rng.random_range(0..5) {
                    0 | 1 => {
                        let start = rng.random_range(2..20_000);
                        let extent = Extent { start, pages: rng.random_range(1..200) };
                        if (extent.start..extent.end()).all(|page| !set.contains(&page)) {
                            pages.release(extent);
                            set.extend(extent.start..extent.end());
                        }
                    }
                    2 => pages.rewind(),
                    3 => {
                        let extent = pages.run(1, 1);
                        assert_eq!(extent.map(|extent| extent.start), set.pop_first());
                    }
                    _ => {
                        pages.rewind();
                        let (min, want) = (rng.random_range(1..100), rng.random_range(100..300));
                        match pages.run(min, want) {
                            Some(extent) => {
                                assert!((min..=want).contains(&extent.pages));
                                let lowest = lowest_run(&set, min).unwrap();
                                assert!(lowest == extent.start || 4096 - lowest % 4096 < min);
                                for page in extent.start..extent.end() {
                                    assert!(set.remove(&page));
                                }
                            }
                            None => {
                                assert!(lowest_run(&set, min).is_none_or(|start| 4096 - start % 4096 < min));
                            }
                        }
                    }
                }
                assert_eq!(pages.count(), set.len() as u64);
                let high_water = rng.random_range(2..21_000);
                let trailing = (2..high_water).rev().take_while(|page| set.contains(page)).count();
                assert_eq!(pages.trailing(high_water), trailing as u64);
                let page = rng.random_range(0..21_000);
                assert_eq!(pages.is_free(page), set.contains(&page));
            }
        }
    }
}
