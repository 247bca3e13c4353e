//! An interval tree: which of many key ranges hold a key.
//!
//! A treap ordered by (start, end) in which every node knows the furthest end below it, so that a search leaves
//! out whatever ends before the key. Priorities come from a counter through a mixing function: the shape is the
//! same in every run.
//!
//! Invariants:
//! - left of a node all intervals are less, right of it all are greater; an interval is in the tree once;
//! - a node's priority is not below its children's;
//! - `furthest` of a node is the node with the greatest end in its subtree.

use std::cmp::Ordering;

use bytes::Bytes;

/// No node.
const NONE: u32 = u32::MAX;

struct Node {
    start: Bytes,
    /// Where the interval ends, itself outside; none for no end.
    end: Option<Bytes>,
    value: u32,
    priority: u64,
    left: u32,
    right: u32,
    furthest: u32,
}

/// See the head of this file.
pub(super) struct IntervalTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    inserted: u64,
}

/// Compares ends: no end is the furthest.
fn compare_ends(a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl IntervalTree {
    pub(super) fn new() -> IntervalTree {
        IntervalTree { nodes: Vec::new(), free: Vec::new(), root: NONE, inserted: 0 }
    }

    fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn compare(&self, id: u32, start: &[u8], end: Option<&[u8]>) -> Ordering {
        let node = self.node(id);
        node.start[..].cmp(start).then_with(|| compare_ends(node.end.as_deref(), end))
    }

    /// Adds an interval that is not in the tree.
    pub(super) fn insert(&mut self, start: Bytes, end: Option<Bytes>, value: u32) {
        self.inserted += 1;
        let (left, right) = self.split(self.root, &start, end.as_deref());
        let priority = mix(self.inserted);
        let id = self.free.pop().unwrap_or(self.nodes.len() as u32);
        let node = Node { start, end, value, priority, left: NONE, right: NONE, furthest: id };
        if id as usize == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[id as usize] = node;
        }
        let with_left = self.merge(left, id);
        self.root = self.merge(with_left, right);
    }

    /// Takes an interval out; false when it is not there.
    pub(super) fn remove(&mut self, start: &[u8], end: Option<&[u8]>) -> bool {
        let mut path = Vec::new();
        let mut id = self.root;
        while id != NONE {
            match self.compare(id, start, end) {
                Ordering::Equal => break,
                Ordering::Greater => {
                    path.push((id, true));
                    id = self.node(id).left;
                }
                Ordering::Less => {
                    path.push((id, false));
                    id = self.node(id).right;
                }
            }
        }
        if id == NONE {
            return false;
        }
        let Node { left, right, .. } = *self.node(id);
        let mut below = self.merge(left, right);
        while let Some((parent, is_left)) = path.pop() {
            if is_left {
                self.node_mut(parent).left = below;
            } else {
                self.node_mut(parent).right = below;
            }
            self.update(parent);
            below = parent;
        }
        self.root = below;
        let node = self.node_mut(id);
        (node.start, node.end) = (Bytes::new(), None);
        self.free.push(id);
        true
    }

    /// Calls `found` with the value of every interval that holds `key`.
    pub(super) fn stab(&self, key: &[u8], found: &mut dyn FnMut(u32)) {
        self.stab_below(self.root, key, found);
    }

    fn stab_below(&self, id: u32, key: &[u8], found: &mut dyn FnMut(u32)) {
        let mut id = id;
        while id != NONE {
            let node = self.node(id);
            let furthest = self.node(node.furthest).end.as_deref();
            if furthest.is_some_and(|end| end <= key) {
                return;
            }
            self.stab_below(node.left, key, found);
            if node.start[..] > *key {
                return;
            }
            if node.end.as_deref().is_none_or(|end| key < end) {
                found(node.value);
            }
            id = node.right;
        }
    }

    fn update(&mut self, id: u32) {
        let node = self.node(id);
        let mut furthest = id;
        for child in [node.left, node.right] {
            if child == NONE {
                continue;
            }
            let candidate = self.node(child).furthest;
            let ends = (self.node(candidate).end.as_deref(), self.node(furthest).end.as_deref());
            if compare_ends(ends.0, ends.1).is_gt() {
                furthest = candidate;
            }
        }
        self.node_mut(id).furthest = furthest;
    }

    /// What is less than the interval, and what is greater; it is not in the tree itself.
    fn split(&mut self, id: u32, start: &[u8], end: Option<&[u8]>) -> (u32, u32) {
        if id == NONE {
            return (NONE, NONE);
        }
        let parts = if self.compare(id, start, end).is_lt() {
            let (low, high) = self.split(self.node(id).right, start, end);
            self.node_mut(id).right = low;
            (id, high)
        } else {
            let (low, high) = self.split(self.node(id).left, start, end);
            self.node_mut(id).left = high;
            (low, id)
        };
        self.update(id);
        parts
    }

    /// One tree of two, all of the left one being less.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE || right == NONE {
            return if left == NONE { right } else { left };
        }
        if self.node(left).priority >= self.node(right).priority {
            let merged = self.merge(self.node(left).right, right);
            self.node_mut(left).right = merged;
            self.update(left);
            left
        } else {
            let merged = self.merge(left, self.node(right).left);
            self.node_mut(right).left = merged;
            self.update(right);
            right
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl IntervalTree {
        /// Checks the invariants at the head of this file; how deep the tree is.
        fn check(&self) -> usize {
            fn walk(tree: &IntervalTree, id: u32, all: &mut Vec<u32>) -> usize {
                if id == NONE {
                    return 0;
                }
                let node = tree.node(id);
                let first = all.len();
                let left = walk(tree, node.left, all);
                all.push(id);
                let right = walk(tree, node.right, all);
                for child in [node.left, node.right] {
                    assert!(child == NONE || tree.node(child).priority <= node.priority);
                }
                let furthest = tree.node(node.furthest).end.as_deref();
                let greatest = all[first..].iter().map(|id| tree.node(*id).end.as_deref());
                assert_eq!(greatest.max_by(|a, b| compare_ends(*a, *b)), Some(furthest));
                1 + left.max(right)
            }
            let mut all = Vec::new();
            let depth = walk(self, self.root, &mut all);
            for pair in all.windows(2) {
                let next = self.node(pair[1]);
                assert!(self.compare(pair[0], &next.start, next.end.as_deref()).is_lt());
            }
            depth
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)], 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn finds_what_a_scan_finds(
            ops in prop::collection::vec((key(), prop::option::of(key()), any::<bool>(), key()), 1..120),
        ) {
            let mut tree = IntervalTree::new();
            let mut model: BTreeMap<(Vec<u8>, Option<Vec<u8>>), u32> = BTreeMap::new();
            for (number, (start, end, insert, asked)) in ops.into_iter().enumerate() {
                let known = model.contains_key(&(start.clone(), end.clone()));
                if insert && !known {
                    tree.insert(start.clone().into(), end.clone().map(Bytes::from), number as u32);
                    model.insert((start, end), number as u32);
                } else if !insert {
                    prop_assert_eq!(tree.remove(&start, end.as_deref()), known);
                    model.remove(&(start, end));
                }
                tree.check();
                let mut found = Vec::new();
                tree.stab(&asked, &mut |value| found.push(value));
                found.sort_unstable();
                let holds = |start: &[u8], end: Option<&[u8]>| {
                    start <= &asked[..] && end.is_none_or(|end| &asked[..] < end)
                };
                let mut expected: Vec<u32> =
                    model.iter().filter(|((s, e), _)| holds(s, e.as_deref())).map(|(_, v)| *v).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn ascending_inserts_do_not_make_it_deep() {
        let mut tree = IntervalTree::new();
        for number in 0..4000_u32 {
            tree.insert(format!("{number:05}").into(), Some(format!("{number:05}x").into()), number);
        }
        assert!(tree.check() < 48);
        for number in 0..4000_u32 {
            assert!(tree.remove(format!("{number:05}").as_bytes(), Some(format!("{number:05}x").as_bytes())));
        }
        assert_eq!((tree.root, tree.nodes.len()), (NONE, 4000));
    }
}
