//! The leaf directory of one bucket: the beginning of each leaf's first key -> the leaf's page, in memory, so that a
//! get reads one leaf and no branch. 16 bytes per leaf.
//!
//! A directory is immutable and shared by the views of its transaction; a commit makes the next one, which shares
//! all chunks that did not change.
//!
//! Invariants:
//! 1. One entry per leaf of the tree, in key order. Its head is the first eight bytes of the key that the leaf's
//!    parent has for it, zeros where the key is shorter; so heads never descend.
//! 2. Equal heads are told apart by the first keys of the leaves themselves, which lie between the parent's key and
//!    the next one.
//! 3. No chunk is empty.

use std::sync::Arc;

use crate::error::Result;
use crate::page::{Page, Pages};
use crate::rebuild::LeafChanges;

/// Most entries of a chunk.
const CHUNK_MAX: usize = 512;
/// A chunk below this is joined to its left neighbour when there is room.
const CHUNK_MIN: usize = 128;

/// A leaf: the head of its key, and its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) head: u64,
    pub(crate) page: u64,
}

/// The leaf to search for a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) page: u64,
    /// The leaf's head is the key's.
    is_tie: bool,
    /// Distance of the key's head from the leaf's, and of the next leaf's head from it.
    from: u64,
    width: u64,
}

impl Target {
    fn of(place: Place) -> Target {
        Target { page: place.page, is_tie: false, from: 0, width: 0 }
    }

    /// Where among `count` entries of the leaf the key probably is: exactly there when the heads are consecutive
    /// numbers, as revisions mostly are.
    #[inline]
    pub(crate) fn position(&self, count: usize) -> usize {
        let at = if self.width == 0 { count / 2 } else { share(self.from, self.width, count) };
        at.min(count.saturating_sub(1))
    }
}

/// `count * from / width`, nearly, for `from` within `width`: where something is in a list whose ends are `width` apart
/// when it is `from` away from the first.
#[inline]
fn share(from: u64, width: u64, count: usize) -> usize {
    // No list here has more than 65,536 elements, and sixteen bits less of the heads leave room for the product.
    let shift = (u64::BITS - width.leading_zeros()).saturating_sub(48);
    ((from >> shift) * (count as u64 & 0xffff) / (width >> shift).max(1)) as usize
}

/// Number of places whose head is not above `head`; the first's is not. Heads are revisions, mostly spread evenly over
/// the leaves, so the search begins where the head should be and widens from there.
#[inline]
fn rank_by_head(places: &[Place], head: u64) -> usize {
    let (first, last) = (places[0].head, places[places.len() - 1].head);
    if last <= head {
        return places.len();
    }
    // Invariant: the place at `low` is not above, that at `high` is.
    let guess = share(head - first, last - first, places.len() - 1).min(places.len() - 2);
    let (mut low, mut high, mut step) = (0, places.len() - 1, 1);
    if places[guess].head <= head {
        low = guess;
        while low + step < high && places[low + step].head <= head {
            low += step;
            step *= 2;
        }
        high = high.min(low + step);
    } else {
        high = guess;
        while high > low + step && places[high - step].head > head {
            high -= step;
            step *= 2;
        }
        low = high.saturating_sub(step);
    }
    low + 1 + places[low + 1..high].partition_point(|place| place.head <= head)
}

/// Leaves by first key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    /// Head of each chunk's first entry.
    heads: Vec<u64>,
    chunks: Vec<Arc<[Place]>>,
}

/// First eight bytes of a key, so that a smaller key never has a larger head.
#[inline]
pub(crate) fn head(key: &[u8]) -> u64 {
    if let Some(bytes) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

fn first_key<'a>(page: &Page<'a>) -> Result<&'a [u8]> {
    if page.count() == 0 { Ok(&[]) } else { page.key(0) }
}

impl Directory {
    /// From all leaves of a tree in key order.
    pub(crate) fn new(places: &[Place]) -> Directory {
        let mut directory = Directory::default();
        for chunk in places.chunks(CHUNK_MAX) {
            directory.push(chunk.to_vec());
        }
        directory
    }

    fn push(&mut self, mut chunk: Vec<Place>) {
        if chunk.len() < CHUNK_MIN
            && let Some(last) = self.chunks.last()
            && last.len() + chunk.len() <= CHUNK_MAX
        {
            chunk.splice(0..0, last.iter().copied());
            self.chunks.pop();
            self.heads.pop();
        }
        if let Some(first) = chunk.first() {
            self.heads.push(first.head);
            self.chunks.push(chunk.into());
        }
    }

    /// Number of leaves.
    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.chunks.iter().flat_map(|chunk| chunk.iter().copied())
    }

    /// The leaf that covers `key`; `None` when there is no tree. A leaf that has to be read, to decide between equal
    /// heads, is read from `pages`.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], pages: &Pages) -> Result<Option<Target>> {
        let target = self.guess(key);
        // The last leaf whose head is not above the key's covers the key, unless its own key has the same head and is
        // above.
        match target {
            Some(target) if target.is_tie && first_key(&pages.page(target.page)?)? > key => {
                self.find_equal(key, head(key), pages).map(Some)
            }
            found => Ok(found),
        }
    }

    /// [`Directory::find`] without reading a leaf: wrong only when heads are equal, for keys below the leaf's first.
    #[inline]
    pub(crate) fn guess(&self, key: &[u8]) -> Option<Target> {
        let head = head(key);
        let Some(chunk) = self.heads.partition_point(|first| *first <= head).checked_sub(1) else {
            return self.chunks.first().map(|chunk| Target::of(chunk[0]));
        };
        let places = &self.chunks[chunk];
        let index = rank_by_head(places, head) - 1;
        let place = places[index];
        let next = places.get(index + 1).map(|next| next.head).or_else(|| self.heads.get(chunk + 1).copied());
        // How far into the leaf the key is, if keys are spread evenly.
        let (from, width) = (head - place.head, next.map_or(0, |next| next - place.head));
        Some(Target { page: place.page, is_tie: from == 0, from, width })
    }

    /// The covering leaf when heads equal to the key's exist: the last of them whose first key is not above `key`,
    /// else the leaf before them.
    #[cold]
    fn find_equal(&self, key: &[u8], head: u64, pages: &Pages) -> Result<Target> {
        let low = self.rank(|place| place.head < head);
        let high = self.rank(|place| place.head <= head);
        let (mut from, mut to) = (low, high);
        while from < to {
            let middle = usize::midpoint(from, to);
            let leaf = pages.page(self.at(middle).page)?;
            if first_key(&leaf)? <= key { from = middle + 1 } else { to = middle }
        }
        Ok(Target::of(self.at(from.saturating_sub(1))))
    }

    /// Number of places for which `below` holds; it holds for a prefix of them.
    fn rank(&self, below: impl Fn(&Place) -> bool) -> usize {
        let full = self.chunks.partition_point(|chunk| below(&chunk[chunk.len() - 1]));
        let before: usize = self.chunks[..full].iter().map(|chunk| chunk.len()).sum();
        before + self.chunks.get(full).map_or(0, |chunk| chunk.partition_point(below))
    }

    fn at(&self, mut index: usize) -> Place {
        for chunk in &self.chunks {
            if index < chunk.len() {
                return chunk[index];
            }
            index -= chunk.len();
        }
        unreachable!("index within the directory")
    }

    /// The directory after a commit that changed these leaves. `pages` is the old state, in which the leaves that
    /// stay can be read. An error means the old file contradicts itself.
    pub(crate) fn apply(&self, changes: &LeafChanges<'_>, pages: &Pages) -> Result<Directory> {
        let mut gone: Vec<u64> =
            changes.removed.iter().map(|child| child.1).chain(changes.removed_root).collect();
        gone.sort_unstable();
        let mut touched: Vec<usize> = Vec::new();
        let all = changes.removed.iter().chain(&changes.added);
        for (key, _) in all {
            touched.extend(self.chunks_of(head(key)));
        }
        if changes.removed_root.is_some() && !self.chunks.is_empty() {
            touched.push(0);
        }
        touched.sort_unstable();
        touched.dedup();

        let mut next = Directory::default();
        let mut added = changes.added.as_slice();
        let mut removed = 0;
        let mut touched = touched.into_iter().peekable();
        let mut chunk = 0;
        while chunk < self.chunks.len() {
            if touched.next_if_eq(&chunk).is_none() {
                next.heads.push(self.heads[chunk]);
                next.chunks.push(self.chunks[chunk].clone());
                chunk += 1;
                continue;
            }
            let start = chunk;
            chunk += 1;
            while touched.next_if_eq(&chunk).is_some() {
                chunk += 1;
            }
            // What is added below the head of the next untouched chunk belongs here: a head equal to that one would
            // have made it touched.
            let end = self.heads.get(chunk).copied();
            let here = added.partition_point(|child| end.is_none_or(|end| head(child.0) < end));
            let (mine, rest) = added.split_at(here);
            added = rest;
            let old: Vec<Place> =
                self.chunks[start..chunk].iter().flat_map(|chunk| chunk.iter().copied()).collect();
            let kept: Vec<Place> =
                old.iter().copied().filter(|place| gone.binary_search(&place.page).is_err()).collect();
            removed += old.len() - kept.len();
            next.extend(&merge(&kept, mine, pages)?);
        }
        if self.chunks.is_empty() {
            next.extend(&merge(&[], added, pages)?);
            added = &[];
        }
        if removed != gone.len() || !added.is_empty() || !next.heads.is_sorted() {
            return Err(pages.corrupt(0, "the tree of a bucket has keys out of order"));
        }
        Ok(next)
    }

    /// The chunks that a place of this head lies in, or would.
    fn chunks_of(&self, head: u64) -> std::ops::Range<usize> {
        if self.chunks.is_empty() {
            return 0..0;
        }
        let end = self.heads.partition_point(|first| *first <= head).max(1);
        let start =
            self.chunks[..end].partition_point(|chunk| chunk[chunk.len() - 1].head < head).min(end - 1);
        start..end
    }

    fn extend(&mut self, places: &[Place]) {
        // Full chunks first: what grows is mostly the end.
        for chunk in places.chunks(CHUNK_MAX) {
            self.push(chunk.to_vec());
        }
    }
}

/// Merges leaves that stay with leaves that are new, both in key order.
fn merge(kept: &[Place], added: &[(&[u8], u64)], pages: &Pages) -> Result<Vec<Place>> {
    let mut merged = Vec::with_capacity(kept.len() + added.len());
    let mut kept = kept.iter().copied().peekable();
    for (key, page) in added {
        let head = head(key);
        while let Some(place) = kept.peek() {
            let before = match place.head.cmp(&head) {
                std::cmp::Ordering::Less => true,
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Equal => first_key(&pages.page(place.page)?)? < *key,
            };
            if !before {
                break;
            }
            merged.push(*place);
            kept.next();
        }
        merged.push(Place { head, page: *page });
    }
    merged.extend(kept);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;
    use crate::tests::support::rng;

    /// Heads keep the order of keys of any length, which is all that the directory asks of them.
    #[test]
    fn heads_never_descend() {
        let mut rng = rng(1);
        let mut keys: Vec<Vec<u8>> = (0..2000)
            .map(|_| (0..rng.random_range(0..12)).map(|_| rng.random_range(0..3)).collect())
            .collect();
        keys.sort();
        assert!(keys.is_sorted_by_key(|key| head(key)));
    }

    /// Against the plain search: heads close together, far apart, equal, and of the whole range.
    #[test]
    fn a_rank_is_that_of_a_plain_search() {
        let mut rng = rng(7);
        for round in 0..400 {
            let len = rng.random_range(1..600);
            let mut heads: Vec<u64> = (0..len)
                .map(|_| match rng.random_range(0..if round % 2 == 0 { 2 } else { 5 }) {
                    0 => rng.random_range(0..40),
                    1 => rng.random_range(1_000..1_000_000),
                    2 => rng.random(),
                    3 => 0,
                    _ => u64::MAX,
                })
                .collect();
            heads.sort_unstable();
            let places: Vec<Place> = heads.iter().map(|head| Place { head: *head, page: 0 }).collect();
            let near = heads.iter().flat_map(|head| [head.saturating_sub(1), *head, head.saturating_add(1)]);
            for head in near.chain([rng.random()]).filter(|head| *head >= heads[0]) {
                let plain = heads.partition_point(|other| *other <= head);
                assert_eq!(rank_by_head(&places, head), plain, "{head} in {heads:?}");
            }
        }
    }

    #[test]
    fn a_share_is_within_the_list() {
        let mut rng = rng(8);
        for _ in 0..10_000 {
            let width = rng.random::<u64>() >> rng.random_range(0..64);
            let (width, count) = (width.max(1), rng.random_range(0..65_536));
            let from = rng.random_range(0..=width);
            assert!(share(from, width, count) <= count, "{from} of {width}, {count}");
        }
        assert_eq!((share(5, 10, 100), share(0, 1, 7), share(u64::MAX / 2, u64::MAX, 1_000)), (50, 0, 499));
    }

    /// The place in the leaf is within it, and exact where keys are consecutive.
    #[test]
    fn positions_are_within_the_leaf() {
        let places: Vec<Place> = (0..1000).map(|i| Place { head: 100 + i * 16, page: 2 + i }).collect();
        let directory = Directory::new(&places);
        for n in 100..100 + 1000 * 16 - 16 {
            let target = directory.guess(&u64::to_be_bytes(n)).unwrap();
            assert_eq!((target.page, target.position(16)), (2 + (n - 100) / 16, (n as usize - 100) % 16));
        }
        let last = directory.guess(&[0xff; 8]).unwrap();
        assert!(last.page == 1001 && last.position(16) < 16);
        let below = directory.guess(b"").unwrap();
        assert!(below.page == 2 && below.position(0) == 0);
        let far = Directory::new(&[Place { head: 0, page: 2 }, Place { head: u64::MAX, page: 3 }]);
        assert!(far.guess(&[0xff; 7]).unwrap().position(65_000) < 65_000);
    }
}
