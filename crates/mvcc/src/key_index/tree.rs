//! Copy-on-write B+tree from key to slot, with the number of live keys below each child.
//!
//! Invariants:
//! - separator `i` of an inner node is above every key of child `i` and not above any key of child `i + 1`;
//! - `live[i]` is how many keys below child `i` are not deleted at the newest revision, so counting a range
//!   adds whole children and looks at keys only in the two leaves at its ends;
//! - a clone of the tree is a snapshot of its shape and its counts: nodes shared with a clone are copied
//!   before they change, never changed;
//! - deleted keys stay until compaction takes them out; only creation, deletion, re-creation and that removal
//!   touch the tree. An update of an existing key does not.

use std::ops::Range;
use std::sync::Arc;

use super::block::{BULK_KEYS, Block, Entries, MAX_BYTES, separator};

/// Children of an inner node at most.
const FAN: usize = 64;
/// Children of an inner node when built from sorted input.
const BULK_FAN: usize = 48;
/// A leaf with fewer keys, or an inner node with fewer children, is joined to a neighbour where they fit.
const SPARSE_KEYS: usize = 24;
const SPARSE_KIDS: usize = 12;

#[derive(Clone)]
enum Node {
    Leaf(Arc<Block>),
    Inner(Arc<Inner>),
}

#[derive(Clone, Default)]
struct Inner {
    separators: Vec<u8>,
    ends: Vec<u32>,
    kids: Vec<Node>,
    live: Vec<u32>,
}

/// A node to stand to the right of another, what separates the two, and the live keys below it.
struct Sibling {
    separator: Vec<u8>,
    node: Node,
    live: u32,
}

/// See the head of this file.
#[derive(Clone)]
pub(super) struct Tree {
    root: Node,
    live: u32,
}

impl Inner {
    fn separator(&self, index: usize) -> &[u8] {
        &self.separators[self.start(index)..self.ends[index] as usize]
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }

    /// The child that holds `key` if any does.
    fn child_of(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.separator(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn first(node: Node, live: u32) -> Inner {
        Inner { separators: Vec::new(), ends: Vec::new(), kids: vec![node], live: vec![live] }
    }

    fn insert_after(&mut self, index: usize, sibling: Sibling) {
        let at = self.start(index);
        let len = u32::try_from(sibling.separator.len()).expect("keys are limited by the request size");
        self.separators.splice(at..at, sibling.separator);
        for end in &mut self.ends[index..] {
            *end += len;
        }
        self.ends.insert(index, u32::try_from(at).expect("64 separators") + len);
        self.kids.insert(index + 1, sibling.node);
        self.live.insert(index + 1, sibling.live);
    }

    /// Takes separator `index` out.
    fn drop_separator(&mut self, index: usize) {
        let (start, end) = (self.start(index), self.ends[index] as usize);
        self.separators.drain(start..end);
        self.ends.remove(index);
        for later in &mut self.ends[index..] {
            *later -= (end - start) as u32;
        }
    }

    fn split_off(&mut self, at: usize) -> (Vec<u8>, Inner) {
        let up = self.separator(at - 1).to_vec();
        let (start, end) = (self.start(at - 1), self.ends[at - 1]);
        let right = Inner {
            separators: self.separators[end as usize..].to_vec(),
            ends: self.ends[at..].iter().map(|e| e - end).collect(),
            kids: self.kids.split_off(at),
            live: self.live.split_off(at),
        };
        self.separators.truncate(start);
        self.ends.truncate(at - 1);
        (up, right)
    }

    /// Cuts a node with too many children; what is cut off comes back in order.
    fn split(&mut self, appended: bool) -> Vec<Sibling> {
        let count = self.kids.len();
        if count <= FAN {
            return Vec::new();
        }
        let at = if appended { count - 2 } else { count / 2 };
        let (separator, mut right) = self.split_off(at);
        let mut siblings = self.split(false);
        let further = right.split(false);
        let live = right.live.iter().sum();
        siblings.push(Sibling { separator, node: Node::Inner(Arc::new(right)), live });
        siblings.extend(further);
        siblings
    }

    /// After keys left child `index`: an empty child goes, a sparse one joins a neighbour.
    fn mend(&mut self, index: usize) {
        if self.kids[index].len() == 0 {
            assert_eq!(self.live[index], 0, "an empty child cannot have live keys");
            self.kids.remove(index);
            self.live.remove(index);
            if !self.ends.is_empty() {
                self.drop_separator(index.saturating_sub(1));
            }
            return;
        }
        // Compaction sweeps upwards: the left neighbour has been thinned out already.
        if self.kids[index].is_sparse() && !(index > 0 && self.join(index - 1)) && index + 1 < self.kids.len()
        {
            self.join(index);
        }
    }

    /// Makes one child of `left` and its right neighbour, where they fit into one.
    fn join(&mut self, left: usize) -> bool {
        let Some(joined) = Node::joined(&self.kids[left], self.separator(left), &self.kids[left + 1]) else {
            return false;
        };
        self.drop_separator(left);
        self.kids[left] = joined;
        self.kids.remove(left + 1);
        let moved = self.live.remove(left + 1);
        self.live[left] += moved;
        true
    }
}

impl Node {
    fn len(&self) -> usize {
        match self {
            Node::Leaf(block) => block.len(),
            Node::Inner(inner) => inner.kids.len(),
        }
    }

    fn is_sparse(&self) -> bool {
        match self {
            Node::Leaf(block) => block.len() < SPARSE_KEYS,
            Node::Inner(inner) => inner.kids.len() < SPARSE_KIDS,
        }
    }

    fn joined(left: &Node, between: &[u8], right: &Node) -> Option<Node> {
        match (left, right) {
            (Node::Leaf(left), Node::Leaf(right)) => Some(Node::Leaf(Arc::new(left.joined(right)?))),
            (Node::Inner(left), Node::Inner(right)) => {
                if left.kids.len() + right.kids.len() > BULK_FAN {
                    return None;
                }
                let mut joined = Inner::clone(left);
                joined.separators.extend_from_slice(between);
                let shift = joined.separators.len() as u32;
                joined.ends.push(shift);
                joined.separators.extend_from_slice(&right.separators);
                joined.ends.extend(right.ends.iter().map(|end| end + shift));
                joined.kids.extend(right.kids.iter().cloned());
                joined.live.extend_from_slice(&right.live);
                Some(Node::Inner(Arc::new(joined)))
            }
            _ => unreachable!("children of one node are of one kind"),
        }
    }

    fn insert(&mut self, key: &[u8], slot: u32, is_live: &dyn Fn(u32) -> bool) -> Vec<Sibling> {
        match self {
            Node::Leaf(leaf) => insert_in_leaf(leaf, key, slot, is_live),
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let index = inner.child_of(key);
                let siblings = inner.kids[index].insert(key, slot, is_live);
                inner.live[index] += 1;
                if siblings.is_empty() {
                    return siblings;
                }
                let appended = index + 1 == inner.kids.len();
                for (offset, sibling) in siblings.into_iter().enumerate() {
                    inner.live[index] -= sibling.live;
                    inner.insert_after(index + offset, sibling);
                }
                inner.split(appended)
            }
        }
    }

    fn remove(&mut self, key: &[u8], dead: &[usize]) {
        match self {
            Node::Leaf(leaf) => *leaf = Arc::new(leaf.without(dead)),
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let index = inner.child_of(key);
                inner.kids[index].remove(key, dead);
                inner.mend(index);
            }
        }
    }

    fn visit(&self, from: Option<&[u8]>, end: Option<&[u8]>, visit: &mut BlockVisitor<'_>) -> bool {
        match self {
            Node::Leaf(block) => {
                let range = range_in(block, from, end);
                range.is_empty() || visit(block, range)
            }
            Node::Inner(inner) => {
                let (first, last) = inner.children(from, end);
                (first..=last).all(|index| {
                    let from = from.filter(|_| index == first);
                    let end = end.filter(|_| index == last);
                    inner.kids[index].visit(from, end, visit)
                })
            }
        }
    }

    fn count(&self, live: u32, from: Option<&[u8]>, end: Option<&[u8]>, in_leaf: &LeafCounter<'_>) -> usize {
        if from.is_none() && end.is_none() {
            return live as usize;
        }
        match self {
            Node::Leaf(block) => in_leaf(block, range_in(block, from, end)),
            Node::Inner(inner) => {
                let (first, last) = inner.children(from, end);
                (first..=last)
                    .map(|index| {
                        let from = from.filter(|_| index == first);
                        let end = end.filter(|_| index == last);
                        inner.kids[index].count(inner.live[index], from, end, in_leaf)
                    })
                    .sum()
            }
        }
    }
}

impl Inner {
    /// First and last child that a range may touch.
    fn children(&self, from: Option<&[u8]>, end: Option<&[u8]>) -> (usize, usize) {
        let first = from.map_or(0, |key| self.child_of(key));
        let last = end.map_or(self.kids.len() - 1, |key| self.child_of(key));
        (first, last)
    }
}

/// Called with a leaf and the positions in it that belong to the range; false ends the visit.
pub(super) type BlockVisitor<'a> = dyn FnMut(&Block, Range<usize>) -> bool + 'a;
/// Counts the live keys among these positions of a leaf.
pub(super) type LeafCounter<'a> = dyn Fn(&Block, Range<usize>) -> usize + 'a;

fn range_in(block: &Block, from: Option<&[u8]>, end: Option<&[u8]>) -> Range<usize> {
    let low = from.map_or(0, |key| block.lower_bound(key));
    let high = end.map_or(block.len(), |key| block.lower_bound(key));
    low..high
}

fn insert_in_leaf(
    leaf: &mut Arc<Block>,
    key: &[u8],
    slot: u32,
    is_live: &dyn Fn(u32) -> bool,
) -> Vec<Sibling> {
    let Err(position) = leaf.find(key) else { unreachable!("the caller looked for the key first") };
    match Arc::get_mut(leaf) {
        Some(block) => {
            if block.insert_in_place(position, key, slot) {
                return Vec::new();
            }
        }
        None => {
            if let Some(copy) = leaf.copy_with(position, key, slot) {
                *leaf = Arc::new(copy);
                return Vec::new();
            }
        }
    }
    let mut blocks = leaf.inserted(position, key, slot).into_iter();
    *leaf = Arc::new(blocks.next().expect("at least the new key"));
    let mut last_key = leaf.key(leaf.len() - 1);
    blocks
        .map(|block| {
            let separator = separator(&last_key, &block.key(0));
            last_key = block.key(block.len() - 1);
            let live = block.slots().iter().filter(|slot| is_live(**slot)).count() as u32;
            Sibling { separator, node: Node::Leaf(Arc::new(block)), live }
        })
        .collect()
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree { root: Node::Leaf(Arc::new(Block::default())), live: 0 }
    }

    /// Keys that are not deleted.
    pub(super) fn live(&self) -> usize {
        self.live as usize
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        let (block, _) = self.leaf(key);
        block.find(key).ok().map(|position| block.slots()[position])
    }

    /// The leaf that holds `key` if any does, and the lowest key that the next leaf may hold.
    pub(super) fn leaf(&self, key: &[u8]) -> (&Arc<Block>, Option<&[u8]>) {
        let mut node = &self.root;
        let mut next = None;
        loop {
            match node {
                Node::Leaf(block) => return (block, next),
                Node::Inner(inner) => {
                    let index = inner.child_of(key);
                    if index < inner.ends.len() {
                        next = Some(inner.separator(index));
                    }
                    node = &inner.kids[index];
                }
            }
        }
    }

    /// Adds a key that is not in the tree; it is live. `is_live` tells of any slot whether its key is.
    pub(super) fn insert(&mut self, key: &[u8], slot: u32, is_live: &dyn Fn(u32) -> bool) {
        let mut siblings = self.root.insert(key, slot, is_live);
        self.live += 1;
        while !siblings.is_empty() {
            let moved: u32 = siblings.iter().map(|sibling| sibling.live).sum();
            let left = std::mem::replace(&mut self.root, Node::Leaf(Arc::default()));
            let mut root = Inner::first(left, self.live - moved);
            for (index, sibling) in siblings.into_iter().enumerate() {
                root.insert_after(index, sibling);
            }
            siblings = root.split(false);
            self.root = Node::Inner(Arc::new(root));
        }
    }

    /// The key, which is in the tree, was deleted or created again: one live key less or more on its path.
    pub(super) fn set_live(&mut self, key: &[u8], live: bool) {
        let step = |count: &mut u32| {
            let changed = if live { count.checked_add(1) } else { count.checked_sub(1) };
            *count = changed.expect("live counts follow puts and deletes");
        };
        step(&mut self.live);
        let mut node = &mut self.root;
        while let Node::Inner(inner) = node {
            let inner = Arc::make_mut(inner);
            let index = inner.child_of(key);
            step(&mut inner.live[index]);
            node = &mut inner.kids[index];
        }
    }

    /// Takes deleted keys out: the ones at these ascending positions of the leaf that holds `key`.
    pub(super) fn remove(&mut self, key: &[u8], dead: &[usize]) {
        self.root.remove(key, dead);
        while let Node::Inner(inner) = &self.root {
            match inner.kids.len() {
                0 => self.root = Node::Leaf(Arc::default()),
                1 => self.root = inner.kids[0].clone(),
                _ => break,
            }
        }
    }

    /// Visits the leaves of `[from, end)` in order.
    pub(super) fn visit(&self, from: &[u8], end: Option<&[u8]>, visit: &mut BlockVisitor<'_>) -> bool {
        self.root.visit(Some(from), end, visit)
    }

    /// Live keys in `[from, end)`; `in_leaf` counts in the leaves at the ends.
    pub(super) fn count(&self, from: &[u8], end: Option<&[u8]>, in_leaf: &LeafCounter<'_>) -> usize {
        self.root.count(self.live, Some(from), end, in_leaf)
    }
}

/// Builds a tree from keys in ascending order.
#[derive(Default)]
pub(super) struct Builder {
    pending: Entries,
    pending_live: u32,
    last_key: Vec<u8>,
    leaves: Vec<Sibling>,
}

impl Builder {
    /// Adds the next key.
    pub(super) fn push(&mut self, key: &[u8], slot: u32, live: bool) {
        let full = self.pending.len() >= BULK_KEYS || self.pending.bytes() + key.len() > MAX_BYTES;
        if full && !self.pending.is_empty() {
            self.flush();
        }
        self.pending.push(key, &[], slot);
        self.pending_live += u32::from(live);
    }

    fn flush(&mut self) {
        let first = self.pending.key(0);
        let separator = if self.leaves.is_empty() { Vec::new() } else { separator(&self.last_key, first) };
        self.last_key.clear();
        self.last_key.extend_from_slice(self.pending.key(self.pending.len() - 1));
        let mut blocks = Block::pack(&self.pending, false);
        assert_eq!(blocks.len(), 1, "push keeps within what one block holds");
        let node = Node::Leaf(Arc::new(blocks.remove(0)));
        self.leaves.push(Sibling { separator, node, live: self.pending_live });
        self.pending.clear();
        self.pending_live = 0;
    }

    pub(super) fn finish(mut self) -> Tree {
        if !self.pending.is_empty() {
            self.flush();
        }
        let mut level = self.leaves;
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len() / BULK_FAN + 1);
            let mut rest = level.into_iter();
            while let Some(first) = rest.next() {
                let mut inner = Inner::first(first.node, first.live);
                for (index, sibling) in rest.by_ref().take(BULK_FAN - 1).enumerate() {
                    inner.insert_after(index, sibling);
                }
                let live = inner.live.iter().sum();
                above.push(Sibling { separator: first.separator, node: Node::Inner(Arc::new(inner)), live });
            }
            level = above;
        }
        match level.pop() {
            Some(root) => Tree { root: root.node, live: root.live },
            None => Tree::new(),
        }
    }
}

#[cfg(test)]
impl Tree {
    /// Checks the invariants at the head of this file; all keys with their slots come back.
    pub(super) fn check(&self, is_live: &dyn Fn(u32) -> bool) -> Vec<(Vec<u8>, u32)> {
        fn walk(
            node: &Node,
            low: Option<&[u8]>,
            high: Option<&[u8]>,
            is_live: &dyn Fn(u32) -> bool,
            out: &mut Vec<(Vec<u8>, u32)>,
        ) -> u32 {
            match node {
                Node::Leaf(block) => {
                    block.check();
                    let mut live = 0;
                    for (index, slot) in block.slots().iter().enumerate() {
                        let key = block.key(index);
                        assert!(low.is_none_or(|low| low <= key.as_slice()));
                        assert!(high.is_none_or(|high| key.as_slice() < high));
                        live += u32::from(is_live(*slot));
                        out.push((key, *slot));
                    }
                    live
                }
                Node::Inner(inner) => {
                    assert!(inner.kids.len() <= FAN && inner.live.len() == inner.kids.len());
                    assert_eq!(inner.ends.len() + 1, inner.kids.len());
                    for index in 0..inner.kids.len() {
                        let low = if index == 0 { low } else { Some(inner.separator(index - 1)) };
                        let high =
                            if index == inner.ends.len() { high } else { Some(inner.separator(index)) };
                        let live = walk(&inner.kids[index], low, high, is_live, out);
                        assert_eq!(live, inner.live[index]);
                        assert!(inner.kids[index].len() > 0);
                    }
                    inner.live.iter().sum()
                }
            }
        }
        let mut out = Vec::new();
        assert_eq!(walk(&self.root, None, None, is_live, &mut out), self.live);
        assert!(out.windows(2).all(|pair| pair[0].0 < pair[1].0));
        out
    }

    /// Bytes held, for the memory test.
    pub(super) fn footprint(&self) -> usize {
        fn walk(node: &Node) -> usize {
            match node {
                Node::Leaf(block) => block.footprint(),
                Node::Inner(inner) => {
                    size_of::<Inner>()
                        + 16
                        + inner.separators.capacity()
                        + inner.ends.capacity() * 4
                        + inner.live.capacity() * 4
                        + inner.kids.capacity() * size_of::<Node>()
                        + inner.kids.iter().map(walk).sum::<usize>()
                }
            }
        }
        walk(&self.root)
    }
}
