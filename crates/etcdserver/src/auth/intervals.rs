//! The interval tree behind key permissions: the same shape, hence the same answers, as in Go.
//!
//! - Every node holds a half-open interval; an empty end, or beginning, is larger than every key.
//! - It is a red-black tree ordered by beginning, then by end; equal intervals stand to the right.
//! - `max` of a node is the largest end below it.
//!
//! Why not any set of merged intervals: a request whose end lies at or below its key is answered by where the walk
//! happens to prune, that is by the shape of the tree. Such a request may stand in a transaction beside writes, so
//! members that answer it differently would diverge. The shape follows from the order of insertion alone.

use std::cmp::Ordering;

use bytes::Bytes;

/// No node.
const NIL: u32 = u32::MAX;

/// Compares two bounds; the empty one is the largest.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => a.cmp(b),
    }
}

/// Where the first interval lies to the second; `Equal` when they overlap.
fn position(begin: &[u8], end: &[u8], of_begin: &[u8], of_end: &[u8]) -> Ordering {
    if compare(begin, of_begin).is_lt() && compare(end, of_begin).is_le() {
        Ordering::Less
    } else if compare(begin, of_end).is_ge() {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

#[derive(Clone, Debug)]
struct Node {
    begin: Bytes,
    end: Bytes,
    max: Bytes,
    left: u32,
    right: u32,
    parent: u32,
    red: bool,
}

/// A set of half-open intervals of keys that only grows.
#[derive(Clone, Debug)]
pub(crate) struct Intervals {
    nodes: Vec<Node>,
    root: u32,
}

impl Default for Intervals {
    fn default() -> Intervals {
        Intervals { nodes: Vec::new(), root: NIL }
    }
}

/// The interval that covers one key and nothing else ends here.
pub(crate) fn end_of_point(key: &[u8]) -> Bytes {
    let mut end = Vec::with_capacity(key.len() + 1);
    end.extend_from_slice(key);
    end.push(0);
    Bytes::from(end)
}

impl Intervals {
    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn is_red(&self, at: u32) -> bool {
        at != NIL && self.node(at).red
    }

    /// Adds `[begin, end)`.
    pub(crate) fn insert(&mut self, begin: Bytes, end: Bytes) {
        let new = u32::try_from(self.nodes.len()).expect("fewer permissions than 2^32");
        let mut parent = NIL;
        let mut at = self.root;
        let mut goes_left = false;
        while at != NIL {
            let node = self.node(at);
            let order = compare(&begin, &node.begin).then_with(|| compare(&end, &node.end));
            goes_left = order.is_lt();
            parent = at;
            at = if goes_left { node.left } else { node.right };
        }
        self.nodes.push(Node { begin, max: end.clone(), end, left: NIL, right: NIL, parent, red: true });
        if parent == NIL {
            self.root = new;
        } else if goes_left {
            self.node_mut(parent).left = new;
        } else {
            self.node_mut(parent).right = new;
        }
        self.raise_max(parent);
        self.rebalance(new);
    }

    /// Recomputes `max` from `at` up to the root.
    fn raise_max(&mut self, mut at: u32) {
        while at != NIL {
            let node = self.node(at);
            let mut max = node.end.clone();
            for child in [node.left, node.right] {
                if child != NIL && compare(&self.node(child).max, &max).is_gt() {
                    max = self.node(child).max.clone();
                }
            }
            let node = self.node_mut(at);
            node.max = max;
            at = node.parent;
        }
    }

    fn rebalance(&mut self, mut at: u32) {
        while self.is_red(self.node(at).parent) {
            let mut parent = self.node(at).parent;
            // A red node is never the root, so there is a grandparent.
            let grand = self.node(parent).parent;
            let parent_is_left = self.node(grand).left == parent;
            let uncle = if parent_is_left { self.node(grand).right } else { self.node(grand).left };
            if self.is_red(uncle) {
                self.node_mut(uncle).red = false;
                self.node_mut(parent).red = false;
                self.node_mut(grand).red = true;
                at = grand;
                continue;
            }
            let inner = if parent_is_left { self.node(parent).right } else { self.node(parent).left };
            if inner == at {
                at = parent;
                self.rotate(at, parent_is_left);
                parent = self.node(at).parent;
            }
            self.node_mut(parent).red = false;
            self.node_mut(grand).red = true;
            self.rotate(grand, !parent_is_left);
        }
        let root = self.root;
        self.node_mut(root).red = false;
    }

    /// Turns the tree at `x`: to the left, its right child takes its place; to the right, its left child does.
    fn rotate(&mut self, x: u32, to_left: bool) {
        let y = if to_left { self.node(x).right } else { self.node(x).left };
        let middle = if to_left { self.node(y).left } else { self.node(y).right };
        let parent = self.node(x).parent;
        if middle != NIL {
            self.node_mut(middle).parent = x;
        }
        self.node_mut(y).parent = parent;
        if parent == NIL {
            self.root = y;
        } else if self.node(parent).left == x {
            self.node_mut(parent).left = y;
        } else {
            self.node_mut(parent).right = y;
        }
        if to_left {
            self.node_mut(x).right = middle;
            self.node_mut(y).left = x;
        } else {
            self.node_mut(x).left = middle;
            self.node_mut(y).right = x;
        }
        self.node_mut(x).parent = y;
        self.raise_max(x);
    }

    /// Whether some interval holds the key.
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        let end = end_of_point(key);
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            if position(key, &end, &node.begin, &node.end).is_eq() {
                return true;
            }
            let left_reaches = node.left != NIL && compare(&self.node(node.left).max, key).is_gt();
            at = if left_reaches { node.left } else { node.right };
        }
        false
    }

    /// Whether the intervals together cover `[begin, end)`; an empty end is no end.
    pub(crate) fn cover(&self, begin: &[u8], end: &[u8]) -> bool {
        let mut covered: Option<(&[u8], &[u8])> = None;
        let contiguous = self.visit(self.root, begin, end, &mut |node| match &mut covered {
            None => {
                covered = Some((&node.begin, &node.end));
                true
            }
            Some((_, up_to)) => {
                if compare(up_to, &node.begin).is_lt() {
                    return false;
                }
                if compare(&node.end, up_to).is_gt() {
                    *up_to = &node.end;
                }
                true
            }
        });
        contiguous
            && covered
                .is_some_and(|(from, up_to)| compare(up_to, end).is_ge() && compare(from, begin).is_le())
    }

    /// Calls `each` for overlapping intervals in order, until it answers no.
    fn visit<'a>(
        &'a self,
        at: u32,
        begin: &[u8],
        end: &[u8],
        each: &mut dyn FnMut(&'a Node) -> bool,
    ) -> bool {
        if at == NIL {
            return true;
        }
        let node = self.node(at);
        match position(begin, end, &node.begin, &node.end) {
            Ordering::Less => self.visit(node.left, begin, end, each),
            Ordering::Greater => {
                // Only here a degenerate request (end at or below its key) is cut off by the tree's shape.
                if position(&node.begin, &node.max, begin, end).is_ne() {
                    return true;
                }
                self.visit(node.left, begin, end, each) && self.visit(node.right, begin, end, each)
            }
            Ordering::Equal => {
                self.visit(node.left, begin, end, each)
                    && each(node)
                    && self.visit(node.right, begin, end, each)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(of: &[(&str, &str)]) -> Intervals {
        let mut tree = Intervals::default();
        for (begin, end) in of {
            let begin = Bytes::copy_from_slice(begin.as_bytes());
            let end = if *end == "." { end_of_point(&begin) } else { Bytes::copy_from_slice(end.as_bytes()) };
            tree.insert(begin, end);
        }
        tree
    }

    fn check_shape(tree: &Intervals) {
        fn walk(tree: &Intervals, at: u32, parent: u32) -> usize {
            if at == NIL {
                return 1;
            }
            let node = tree.node(at);
            assert_eq!(node.parent, parent);
            assert!(!(node.red && (tree.is_red(node.left) || tree.is_red(node.right))));
            let mut max = node.end.clone();
            for child in [node.left, node.right] {
                if child != NIL && compare(&tree.node(child).max, &max).is_gt() {
                    max = tree.node(child).max.clone();
                }
            }
            assert_eq!(node.max, max);
            let left = walk(tree, node.left, at);
            assert_eq!(left, walk(tree, node.right, at), "black height");
            left + usize::from(!node.red)
        }
        assert!(!tree.is_red(tree.root));
        walk(tree, tree.root, NIL);
    }

    #[test]
    fn adjacent_and_overlapping_intervals_cover_together() {
        let tree = tree(&[("a", "c"), ("c", "e"), ("q", "")]);
        assert!(tree.cover(b"a", b"e"));
        assert!(tree.cover(b"b", b"d"));
        assert!(!tree.cover(b"a", b"f"));
        assert!(tree.cover(b"q", b""));
        assert!(tree.cover(b"r", b""));
        assert!(!tree.cover(b"\0", b""));
        assert!(tree.holds(b"zzz"));
        assert!(!tree.holds(b"e"));
    }

    #[test]
    fn a_point_covers_itself_and_nothing_wider() {
        let tree = tree(&[("k", ".")]);
        assert!(tree.cover(b"k", b"k\0"));
        assert!(!tree.cover(b"k", b"l"));
        assert!(tree.holds(b"k"));
        assert!(!tree.holds(b"k\0"));
    }

    #[test]
    fn a_request_that_ends_before_it_begins_follows_the_shape_of_gos_tree() {
        // Root is the point foo, [m,n) its right child; the walk for [m,a) is cut at the root, as Go's is.
        let tree = tree(&[("foo", "."), ("m", "n")]);
        assert!(tree.cover(b"foo", b"a"));
        assert!(tree.cover(b"m", b"m"));
        assert!(!tree.cover(b"m", b"a"));
        assert!(self::tree(&[("m", "n"), ("foo", ".")]).cover(b"m", b"a"));
    }

    fn bound() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"\0abc\xff".to_vec()), 1..3)
    }

    proptest! {
        #[test]
        fn answers_as_a_list_of_intervals_does(
            intervals in prop::collection::vec((bound(), bound()), 0..40),
            (begin, end) in (bound(), bound()),
        ) {
            let mut tree = Intervals::default();
            let mut list = Vec::new();
            for (from, to) in intervals {
                if from < to {
                    tree.insert(Bytes::from(from.clone()), Bytes::from(to.clone()));
                    list.push((from, to));
                    check_shape(&tree);
                }
            }
            let holds = list.iter().any(|(from, to)| *from <= begin && begin < *to);
            prop_assert_eq!(tree.holds(&begin), holds);
            if begin < end {
                list.sort();
                let mut up_to = begin.clone();
                for (from, to) in list {
                    if from <= up_to && to > up_to {
                        up_to = to;
                    }
                }
                prop_assert_eq!(tree.cover(&begin, &end), up_to >= end);
            }
        }
    }
}
