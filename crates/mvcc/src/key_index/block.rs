//! Leaf of the key tree: up to 128 keys, their common prefix held once, each with the slot of its history.
//!
//! Invariants:
//! - keys ascend strictly; `data` is the prefix followed by the suffixes in key order;
//! - `heads[i]` is the first four bytes of suffix `i`, zero-filled, so heads never descend and most searches
//!   touch only them;
//! - `ends[i]` is where suffix `i` ends, for every key but the last, whose suffix ends with `data`. That is
//!   why 16 bits are enough: a block of several keys holds at most [`MAX_BYTES`], and a key that does not fit
//!   beside others has a block of its own, where nothing is stored in `ends`;
//! - a block that a reader may hold is never changed: the tree changes only what it owns alone.

use std::cmp::Ordering;

/// Keys in one block at most.
pub(super) const MAX_KEYS: usize = 128;
/// Bytes of prefix and suffixes in a block of more than one key at most.
pub(super) const MAX_BYTES: usize = 32 * 1024;
/// Keys per block when built from sorted input: room for some inserts before the first split.
pub(super) const BULK_KEYS: usize = 96;
/// How many bytes of suffixes an in-place insert reserves at a time.
const GROW_BYTES: usize = 256;
/// How many keys' worth of the fixed-width columns an in-place insert reserves at a time.
const GROW_KEYS: usize = 12;

const _: () = assert!(MAX_BYTES <= u16::MAX as usize);

/// Full keys with their slots, ascending: what blocks are built from and taken apart into.
#[derive(Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    slots: Vec<u32>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.slots.clear();
    }

    pub(super) fn push(&mut self, prefix: &[u8], suffix: &[u8], slot: u32) {
        self.bytes.extend_from_slice(prefix);
        self.bytes.extend_from_slice(suffix);
        self.ends.push(self.bytes.len());
        self.slots.push(slot);
    }

    pub(super) fn key(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

/// See the head of this file.
#[derive(Clone, Default)]
pub(super) struct Block {
    prefix_len: u32,
    data: Vec<u8>,
    ends: Vec<u16>,
    heads: Vec<u32>,
    slots: Vec<u32>,
}

fn head_of(suffix: &[u8]) -> u32 {
    let mut head = [0; 4];
    let len = suffix.len().min(4);
    head[..len].copy_from_slice(&suffix[..len]);
    u32::from_be_bytes(head)
}

/// Length of what two keys begin with alike.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    // Eight bytes at a time: keys are alike for long, and restoring a store compares every one.
    let mut equal = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if x != y {
            break;
        }
        equal += 8;
    }
    equal + a[equal..].iter().zip(&b[equal..]).take_while(|(x, y)| x == y).count()
}

/// The shortest key that is above `left` and not above `right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    right[..=common_prefix(left, right)].to_vec()
}

fn reserve<T>(column: &mut Vec<T>, need: usize, step: usize) {
    if column.capacity() - column.len() < need {
        column.reserve_exact(need.max(step));
    }
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.data[..self.prefix_len as usize]
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { self.prefix_len as usize } else { usize::from(self.ends[index - 1]) }
    }

    pub(super) fn suffix(&self, index: usize) -> &[u8] {
        let end = if index + 1 == self.len() { self.data.len() } else { usize::from(self.ends[index]) };
        &self.data[self.start(index)..end]
    }

    pub(super) fn key(&self, index: usize) -> Vec<u8> {
        [self.prefix(), self.suffix(index)].concat()
    }

    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The key's position, or the position it would take.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let shared = prefix.len().min(key.len());
        match key[..shared].cmp(&prefix[..shared]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.len()),
            Ordering::Equal if key.len() < prefix.len() => return Err(0),
            Ordering::Equal => {}
        }
        let suffix = &key[prefix.len()..];
        let head = head_of(suffix);
        let mut low = self.heads.partition_point(|h| *h < head);
        let mut high = low + self.heads[low..].partition_point(|h| *h == head);
        while low < high {
            let middle = (low + high) / 2;
            match self.suffix(middle).cmp(suffix) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Position of the first key that is not below `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        self.find(key).unwrap_or_else(|position| position)
    }

    fn expand(&self, entries: &mut Entries) {
        for index in 0..self.len() {
            entries.push(self.prefix(), self.suffix(index), self.slots[index]);
        }
    }

    /// A block of the entries in `range`, which must fit (see [`Block::fits`]).
    fn build(entries: &Entries, low: usize, high: usize) -> Block {
        let prefix_len = common_prefix(entries.key(low), entries.key(high - 1));
        let count = high - low;
        let total: usize = prefix_len + (low..high).map(|i| entries.key(i).len() - prefix_len).sum::<usize>();
        let mut block = Block {
            prefix_len: u32::try_from(prefix_len).expect("keys are limited by the request size"),
            data: Vec::with_capacity(total),
            ends: Vec::with_capacity(count - 1),
            heads: Vec::with_capacity(count),
            slots: Vec::with_capacity(count),
        };
        block.data.extend_from_slice(&entries.key(low)[..prefix_len]);
        for index in low..high {
            let suffix = &entries.key(index)[prefix_len..];
            block.data.extend_from_slice(suffix);
            if index + 1 < high {
                block.ends.push(u16::try_from(block.data.len()).expect("a block of several keys fits"));
            }
            block.heads.push(head_of(suffix));
            block.slots.push(entries.slots[index]);
        }
        block
    }

    /// Whether the entries in the range may share a block.
    fn fits(entries: &Entries, low: usize, high: usize) -> bool {
        let count = high - low;
        if count <= 1 {
            return true;
        }
        let prefix_len = common_prefix(entries.key(low), entries.key(high - 1));
        let bytes: usize = (low..high).map(|i| entries.key(i).len()).sum();
        count <= MAX_KEYS && bytes - (count - 1) * prefix_len <= MAX_BYTES
    }

    /// Cuts the entries into as few blocks as halving finds, in order. Keys that come in ascending order leave
    /// full blocks behind: with `appended` the last entry is split off alone where that is enough.
    pub(super) fn pack(entries: &Entries, appended: bool) -> Vec<Block> {
        let mut blocks = Vec::new();
        let count = entries.len();
        if appended && count > 1 && !Block::fits(entries, 0, count) && Block::fits(entries, 0, count - 1) {
            blocks.push(Block::build(entries, 0, count - 1));
            blocks.push(Block::build(entries, count - 1, count));
        } else {
            Block::pack_halves(entries, 0, count, &mut blocks);
        }
        blocks
    }

    fn pack_halves(entries: &Entries, low: usize, high: usize, blocks: &mut Vec<Block>) {
        if low == high {
            return;
        }
        if Block::fits(entries, low, high) {
            blocks.push(Block::build(entries, low, high));
            return;
        }
        let middle = (low + high) / 2;
        Block::pack_halves(entries, low, middle, blocks);
        Block::pack_halves(entries, middle, high, blocks);
    }

    /// Whether the key can be put in without rebuilding the block.
    fn takes(&self, key: &[u8]) -> bool {
        !self.is_empty()
            && self.len() < MAX_KEYS
            && key.starts_with(self.prefix())
            && self.data.len() + key.len() - self.prefix().len() <= MAX_BYTES
    }

    /// The blocks that this one and the new key become, in a copy: for a block that readers share.
    pub(super) fn inserted(&self, position: usize, key: &[u8], slot: u32) -> Vec<Block> {
        let mut entries = Entries::default();
        for index in 0..position {
            entries.push(self.prefix(), self.suffix(index), self.slots[index]);
        }
        entries.push(key, &[], slot);
        for index in position..self.len() {
            entries.push(self.prefix(), self.suffix(index), self.slots[index]);
        }
        Block::pack(&entries, position == self.len())
    }

    /// Puts the key in without rebuilding; false, and nothing changed, where it does not fit so.
    pub(super) fn insert_in_place(&mut self, position: usize, key: &[u8], slot: u32) -> bool {
        if !self.takes(key) {
            return false;
        }
        let suffix = &key[self.prefix_len as usize..];
        let old_len = self.data.len();
        let at = if position == self.len() { old_len } else { self.start(position) };
        reserve(&mut self.data, suffix.len(), GROW_BYTES);
        reserve(&mut self.ends, 1, GROW_KEYS);
        reserve(&mut self.heads, 1, GROW_KEYS);
        reserve(&mut self.slots, 1, GROW_KEYS);
        self.data.resize(old_len + suffix.len(), 0);
        self.data.copy_within(at..old_len, at + suffix.len());
        self.data[at..at + suffix.len()].copy_from_slice(suffix);
        if position == self.len() {
            self.ends.push(u16::try_from(old_len).expect("checked by takes"));
        } else {
            let grown = u16::try_from(suffix.len()).expect("checked by takes");
            for end in &mut self.ends[position..] {
                *end += grown;
            }
            self.ends.insert(position, u16::try_from(at + suffix.len()).expect("checked by takes"));
        }
        self.heads.insert(position, head_of(suffix));
        self.slots.insert(position, slot);
        true
    }

    /// A copy with room for the key, inserted: for a block that readers share and that need not be split.
    pub(super) fn copy_with(&self, position: usize, key: &[u8], slot: u32) -> Option<Block> {
        if !self.takes(key) {
            return None;
        }
        let suffix = key.len() - self.prefix().len();
        let mut copy = Block {
            prefix_len: self.prefix_len,
            data: Vec::with_capacity(self.data.len() + suffix),
            ends: Vec::with_capacity(self.len()),
            heads: Vec::with_capacity(self.len() + 1),
            slots: Vec::with_capacity(self.len() + 1),
        };
        copy.data.extend_from_slice(&self.data);
        copy.ends.extend_from_slice(&self.ends);
        copy.heads.extend_from_slice(&self.heads);
        copy.slots.extend_from_slice(&self.slots);
        assert!(copy.insert_in_place(position, key, slot), "takes was asked before");
        Some(copy)
    }

    /// The block without the keys at these ascending positions.
    pub(super) fn without(&self, dead: &[usize]) -> Block {
        let mut entries = Entries::default();
        let mut dead = dead.iter().peekable();
        for index in 0..self.len() {
            if dead.next_if_eq(&&index).is_none() {
                entries.push(self.prefix(), self.suffix(index), self.slots[index]);
            }
        }
        // What is left has at least the old prefix in common, so it fits if it did before.
        if entries.is_empty() { Block::default() } else { Block::build(&entries, 0, entries.len()) }
    }

    /// Both blocks' keys in one, where that leaves room for inserts.
    pub(super) fn joined(&self, right: &Block) -> Option<Block> {
        if self.len() + right.len() > BULK_KEYS {
            return None;
        }
        let mut entries = Entries::default();
        self.expand(&mut entries);
        right.expand(&mut entries);
        Block::fits(&entries, 0, entries.len()).then(|| Block::build(&entries, 0, entries.len()))
    }

    /// Bytes held, for the memory test.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        size_of::<Block>()
            + 16
            + self.data.capacity()
            + self.ends.capacity() * 2
            + (self.heads.capacity() + self.slots.capacity()) * 4
    }

    /// Checks the invariants at the head of this file.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.heads.len(), self.len());
        assert_eq!(self.ends.len(), self.len().saturating_sub(1));
        assert!(self.len() <= MAX_KEYS);
        assert!(self.len() <= 1 || self.data.len() <= MAX_BYTES);
        for index in 0..self.len() {
            assert_eq!(self.heads[index], head_of(self.suffix(index)));
            assert!(index == 0 || self.suffix(index - 1) < self.suffix(index));
        }
    }
}
