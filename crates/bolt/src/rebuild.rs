//! A sorted list of changes and an old tree become a new tree, in one pass from left to right.
//!
//! Each level packs entries into new pages. Level 0 packs elements into leaves; level h packs references to pages
//! of height h - 1 into branches of height h. Untouched pages are not read: they travel as references.
//!
//! Invariants:
//! 1. At each level, what was emitted upwards lies left of `held`, and `held` lies left of `open`. `held` is an
//!    unchanged page of that level's height that may still be opened if what follows it is too small for a page.
//! 2. When an unchanged page of height h arrives, all levels below h are empty and level h has no open entries:
//!    otherwise its content would overtake theirs.
//! 3. A branch page gets two children or more. (Go asserts this when it rebalances.) A level that ends with one
//!    child opens its left neighbour; `borrow_left` argues why that is always an old page.
//! 4. Keys leave each level in strictly ascending order; an old file that breaks this is refused, never copied on.
//! 5. Every old page is either referenced by the new tree or recorded as freed, once.

use bytes::Bytes;

use crate::alloc::Extent;
use crate::batch::Op;
use crate::error::{Error, Result};
use crate::new_pages::NewPages;
use crate::page::{
    BUCKET_HEADER, COUNT_MAX, ELEMENT, Element, HEADER, HEIGHT_MAX, Page, Pages, Root, write_branch,
    write_leaf,
};

/// Entries are written out once this many pages' worth is waiting.
const OPEN_PAGES: usize = 8;

/// The result of a rebuild.
pub(crate) enum NewRoot {
    /// A tree below this page.
    Tree(u64),
    /// Small enough to live in the parent: the image of a leaf, after room for a bucket header.
    Inline(Vec<u8>),
}

/// A reference to a page: the key its parent has for it, and its id.
pub(crate) type Child<'a> = (&'a [u8], u64);

/// Leaves that a rebuild added and removed, in key order each; the leaf directory follows them.
#[derive(Default)]
pub(crate) struct LeafChanges<'a> {
    pub(crate) added: Vec<Child<'a>>,
    pub(crate) removed: Vec<Child<'a>>,
    /// The whole tree was this one leaf, which has no key in a parent.
    pub(crate) removed_root: Option<u64>,
}

/// How a level is written out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// More follows: keep enough back that the rest is never too small.
    KeepTail,
    /// Nothing follows; the last pages share what there is.
    Close,
    /// Nothing follows, and the tree grows at its end: fill pages, for the next commit comes back to the last one.
    CloseFull,
}

#[derive(Default)]
struct Leaves<'a> {
    held: Option<Child<'a>>,
    open: Vec<Element<'a>>,
    bytes: usize,
}

#[derive(Default)]
struct Branches<'a> {
    held: Option<Child<'a>>,
    open: Vec<Child<'a>>,
    bytes: usize,
    last_key: Option<&'a [u8]>,
}

/// One tree being rebuilt.
pub(crate) struct Rebuild<'n, 'a> {
    old: &'a Pages,
    new: &'n mut NewPages,
    /// Bytes a leaf may have, header included; a single larger element gets a leaf of its own.
    leaf_bytes: usize,
    /// Whether puts are buckets: the tree is the bucket of buckets.
    puts_are_buckets: bool,
    leaves: Leaves<'a>,
    branches: Vec<Branches<'a>>,
    last_key: Option<&'a [u8]>,
    /// Whether the last element came from a put.
    last_is_new: bool,
    /// File offset of the old page that is being read, for errors.
    at: u64,
    changes: LeafChanges<'a>,
}

fn child_bytes(child: &Child<'_>) -> usize {
    ELEMENT + child.0.len()
}

impl<'n, 'a> Rebuild<'n, 'a> {
    pub(crate) fn new(
        old: &'a Pages,
        new: &'n mut NewPages,
        leaf_pages: u32,
        puts_are_buckets: bool,
    ) -> Self {
        let leaf_bytes = leaf_pages.max(1) as usize * new.page_size();
        Rebuild {
            old,
            new,
            leaf_bytes,
            puts_are_buckets,
            leaves: Leaves::default(),
            branches: Vec::new(),
            last_key: None,
            last_is_new: false,
            at: 0,
            changes: LeafChanges::default(),
        }
    }

    /// Applies `changes` (sorted, unique keys) to the tree at `root`. With `may_inline`, a small result is returned
    /// as bytes, by Go's rule: one leaf without buckets, of at most a quarter page.
    pub(crate) fn run(
        mut self,
        root: Root<'a>,
        changes: &'a [(Bytes, Op)],
        may_inline: bool,
    ) -> Result<(NewRoot, LeafChanges<'a>)> {
        match root {
            Root::Inline(page) => self.merge_leaf(&page, changes)?,
            Root::Tree(id) => {
                let height = height(self.old, id)?;
                self.branches.resize_with(height, Branches::default);
                if height == 0 {
                    self.changes.removed_root = Some(id);
                }
                self.descend(id, height, changes)?;
            }
        }
        let root = self.finish(may_inline)?;
        Ok((root, self.changes))
    }

    /// Reads an old page that will not be part of the new tree.
    fn consume(&mut self, id: u64, height: usize) -> Result<Page<'a>> {
        let page = self.old.page(id)?;
        if page.is_leaf() != (height == 0) {
            return Err(self.old.corrupt(page.offset(), format!("page {id}: leaves at different depths")));
        }
        self.at = page.offset();
        self.new.free(Extent { start: id, pages: page.span() });
        Ok(page)
    }

    fn descend(&mut self, id: u64, height: usize, mut changes: &'a [(Bytes, Op)]) -> Result<()> {
        let page = self.consume(id, height)?;
        if height == 0 {
            return self.merge_leaf(&page, changes);
        }
        for i in 0..page.count() {
            let (key, child) = page.child(i)?;
            let mine = if i + 1 < page.count() {
                let next = page.key(i + 1)?;
                changes.partition_point(|change| change.0[..] < *next)
            } else {
                changes.len()
            };
            let (here, rest) = changes.split_at(mine);
            changes = rest;
            if here.is_empty() {
                self.unchanged(height - 1, key, child)?;
            } else {
                if height == 1 {
                    self.changes.removed.push((key, child));
                }
                self.descend(child, height - 1, here)?;
            }
        }
        Ok(())
    }

    /// The elements of one old leaf with the changes that fall into it.
    fn merge_leaf(&mut self, page: &Page<'a>, changes: &'a [(Bytes, Op)]) -> Result<()> {
        let mut next = 0;
        for (key, op) in changes {
            let found = next + self.copy_below(page, next, key)?;
            next = found;
            let here = found < page.count() && page.key(found)? == key;
            if matches!(op, Op::Touch) {
                continue;
            }
            if here {
                if !self.puts_are_buckets && page.element(found)?.bucket {
                    return Err(Error::IncompatibleValue { key: key.clone() });
                }
                next += 1;
            }
            if let Op::Put(value) = op {
                self.push(Element { bucket: self.puts_are_buckets, key, value })?;
                self.last_is_new = true;
            }
        }
        for i in next..page.count() {
            self.push(page.element(i)?)?;
        }
        Ok(())
    }

    /// Copies elements from `from` on while their keys are below `key`; returns how many.
    fn copy_below(&mut self, page: &Page<'a>, from: usize, key: &[u8]) -> Result<usize> {
        let mut i = from;
        while i < page.count() {
            let element = page.element(i)?;
            if element.key >= key {
                break;
            }
            self.push(element)?;
            i += 1;
        }
        Ok(i - from)
    }

    #[inline]
    fn push(&mut self, element: Element<'a>) -> Result<()> {
        if self.last_key.is_some_and(|last| last >= element.key) {
            return Err(self.unsorted());
        }
        self.last_key = Some(element.key);
        self.last_is_new = false;
        self.leaves.bytes += element.size();
        self.leaves.open.push(element);
        if self.leaves.bytes > OPEN_PAGES * self.leaf_bytes {
            self.flush_leaves(Flush::KeepTail)?;
        }
        Ok(())
    }

    #[cold]
    fn unsorted(&self) -> Error {
        self.old.corrupt(self.at, "keys out of order in this page or its neighbour")
    }

    fn flush_leaves(&mut self, flush: Flush) -> Result<()> {
        if let Some((key, id)) = self.leaves.held.take() {
            self.emit(0, key, id)?;
        }
        let open = std::mem::take(&mut self.leaves.open);
        let mut left = self.leaves.bytes;
        let mut start = 0;
        let capacity = self.leaf_bytes - HEADER;
        while start < open.len() && (flush != Flush::KeepTail || left > 2 * capacity) {
            let share = flush == Flush::Close && left > capacity && left <= 2 * capacity;
            let target = if share { left.div_ceil(2) } else { capacity };
            let (end, bytes, id) = self.write_one_leaf(&open[start..], left, target);
            self.changes.added.push((open[start].key, id));
            self.emit(0, open[start].key, id)?;
            left -= bytes;
            start += end;
        }
        self.leaves.bytes = left;
        self.leaves.open = open;
        self.leaves.open.drain(..start);
        Ok(())
    }

    /// Writes a leaf of the first elements: about `target` of `left` bytes, as far as the run of free pages that is
    /// at hand allows. Returns how many elements and bytes it took, and its page.
    fn write_one_leaf(
        &mut self,
        elements: &[Element<'a>],
        left: usize,
        target: usize,
    ) -> (usize, usize, u64) {
        let page_size = self.new.page_size();
        let pages_for = |bytes: usize| (HEADER + bytes).div_ceil(page_size) as u64;
        let min = pages_for(elements[0].size());
        let want = pages_for(left.min(target)).max(min);
        let room = self.new.available(min, want) as usize * page_size - HEADER;
        let mut bytes = 0;
        let mut count = 0;
        for element in elements.iter().take(COUNT_MAX) {
            if bytes + element.size() > room || bytes >= target {
                break;
            }
            bytes += element.size();
            count += 1;
        }
        let pages = pages_for(bytes);
        let id =
            self.new.add(pages, |buffer, id| write_leaf(buffer, id, pages as u32 - 1, &elements[..count]));
        (count, bytes, id)
    }

    /// A page of `height` is complete: it becomes an entry one level up.
    fn emit(&mut self, height: usize, key: &'a [u8], id: u64) -> Result<()> {
        if self.branches.len() <= height {
            self.branches.push(Branches::default());
        }
        self.append(height + 1, key, id)?;
        if self.branches[height].bytes > OPEN_PAGES * self.new.page_size() {
            self.flush_branches(height + 1, Flush::KeepTail)?;
        }
        Ok(())
    }

    /// Adds a child to the open entries of branch level `height`.
    fn append(&mut self, height: usize, key: &'a [u8], id: u64) -> Result<()> {
        let level = &mut self.branches[height - 1];
        if level.last_key.is_some_and(|last| last >= key) {
            return Err(self.unsorted());
        }
        level.last_key = Some(key);
        level.bytes += ELEMENT + key.len();
        level.open.push((key, id));
        Ok(())
    }

    fn flush_branches(&mut self, height: usize, flush: Flush) -> Result<()> {
        if let Some((key, id)) = self.branches[height - 1].held.take() {
            self.emit(height, key, id)?;
        }
        let open = std::mem::take(&mut self.branches[height - 1].open);
        let mut ends = cut_branches(&open, self.new.page_size(), flush == Flush::Close);
        if flush == Flush::KeepTail {
            ends.pop();
            ends.pop();
        }
        let mut start = 0;
        for end in ends {
            let children = &open[start..end];
            if children.len() < 2 {
                return Err(self.old.corrupt(self.at, "branches here are not those of a tree"));
            }
            let bytes = HEADER + children.iter().map(child_bytes).sum::<usize>();
            let pages = bytes.div_ceil(self.new.page_size()) as u64;
            self.new.available(pages, pages);
            let id = self.new.add(pages, |buffer, id| write_branch(buffer, id, pages as u32 - 1, children));
            self.emit(height, children[0].0, id)?;
            start = end;
        }
        let level = &mut self.branches[height - 1];
        level.open = open;
        level.open.drain(..start);
        level.bytes = level.open.iter().map(child_bytes).sum();
        Ok(())
    }

    fn flush(&mut self, height: usize, flush: Flush) -> Result<()> {
        if height == 0 { self.flush_leaves(flush) } else { self.flush_branches(height, flush) }
    }

    /// Whether the open entries of a level may become pages of their own: not fewer than a quarter page, as in Go.
    fn can_close(&self, height: usize) -> bool {
        let enough = self.new.page_size() / 4;
        if height == 0 {
            return self.leaves.open.is_empty() || self.leaves.bytes >= enough;
        }
        let level = &self.branches[height - 1];
        level.open.is_empty() || (level.open.len() >= 2 && level.bytes >= enough)
    }

    fn has_open(&self, height: usize) -> bool {
        if height == 0 { !self.leaves.open.is_empty() } else { !self.branches[height - 1].open.is_empty() }
    }

    fn held(&mut self, height: usize) -> &mut Option<Child<'a>> {
        if height == 0 { &mut self.leaves.held } else { &mut self.branches[height - 1].held }
    }

    /// An unchanged page of `height` comes next (invariant 2).
    fn unchanged(&mut self, height: usize, key: &'a [u8], id: u64) -> Result<()> {
        for below in 0..=height {
            let pending = self.has_open(below) || (below < height && self.held(below).is_some());
            if !pending {
                continue;
            }
            if !self.can_close(below) {
                return self.open(height, key, id);
            }
            self.flush(below, Flush::Close)?;
        }
        if let Some((key, id)) = self.held(height).replace((key, id)) {
            self.emit(height, key, id)?;
        }
        self.last_is_new = false;
        Ok(())
    }

    /// Takes an old page apart and feeds what it holds to the levels below it.
    fn open(&mut self, height: usize, key: &'a [u8], id: u64) -> Result<()> {
        let page = self.consume(id, height)?;
        if height == 0 {
            self.changes.removed.push((key, id));
            for i in 0..page.count() {
                self.push(page.element(i)?)?;
            }
        } else {
            for i in 0..page.count() {
                let (key, child) = page.child(i)?;
                self.unchanged(height - 1, key, child)?;
            }
        }
        Ok(())
    }

    /// Whether any level above `height` has entries.
    fn any_above(&self, height: usize) -> bool {
        self.branches.iter().skip(height).any(|level| !level.open.is_empty() || level.held.is_some())
    }

    fn finish(&mut self, may_inline: bool) -> Result<NewRoot> {
        let flush = if self.last_is_new { Flush::CloseFull } else { Flush::Close };
        if !self.any_above(0) && self.leaves.held.is_none() {
            if may_inline && self.fits_inline() {
                let mut value = vec![0; BUCKET_HEADER];
                write_leaf(&mut value, 0, 0, &self.leaves.open);
                return Ok(NewRoot::Inline(value));
            }
            if self.leaves.open.is_empty() {
                self.new.available(1, 1);
                let id = self.new.add(1, |buffer, id| write_leaf(buffer, id, 0, &[]));
                self.changes.added.push((&[], id));
                return Ok(NewRoot::Tree(id));
            }
        }
        if !self.can_close(0) {
            self.borrow_left(0)?;
            self.prepend_held_leaf()?;
        }
        self.flush_leaves(flush)?;
        for height in 1.. {
            let above = self.any_above(height);
            let level = &mut self.branches[height - 1];
            if !above && level.held.is_none() && level.open.len() == 1 {
                return Ok(NewRoot::Tree(level.open[0].1));
            }
            if level.open.is_empty() {
                match level.held.take() {
                    Some((_, id)) if !above => return Ok(NewRoot::Tree(id)),
                    Some((key, id)) => self.emit(height, key, id)?,
                    None => assert!(above, "a tree with elements has a root"),
                }
                continue;
            }
            if !self.can_close(height) {
                self.borrow_left(height)?;
                self.prepend_held_branch(height)?;
            }
            self.flush_branches(height, flush)?;
        }
        unreachable!("each level has fewer pages than the one below")
    }

    fn fits_inline(&self) -> bool {
        HEADER + self.leaves.bytes <= self.new.page_size() / 4 && !self.leaves.open.iter().any(|e| e.bucket)
    }

    /// The level's open entries are too few and no unchanged page of its height is held: makes one held by opening
    /// the nearest unchanged page further up. Does nothing when there is nothing to the left.
    ///
    /// Why a branch level never ends with one child and a new page to its left: new pages are emitted by `KeepTail`,
    /// which leaves at least a full page's worth open, or by `Close`, which happens only in front of an unchanged
    /// page, which is then held at its level, or taken apart into unchanged pages of which the last is held further
    /// down. A leaf level can (after one huge value); a small leaf is allowed.
    fn borrow_left(&mut self, height: usize) -> Result<()> {
        if self.held(height).is_some() {
            return Ok(());
        }
        let Some(mut from) =
            (height + 1..=self.branches.len()).find(|h| self.held(*h).is_some() || self.has_open(*h))
        else {
            return Ok(());
        };
        if self.has_open(from) {
            return Ok(());
        }
        while from > height {
            let Some((_, id)) = self.held(from).take() else { break };
            let page = self.consume(id, from)?;
            for i in 0..page.count() {
                let (key, child) = page.child(i)?;
                if i + 1 < page.count() {
                    self.append(from, key, child)?;
                } else {
                    *self.held(from - 1) = Some((key, child));
                }
            }
            from -= 1;
        }
        Ok(())
    }

    fn prepend_held_leaf(&mut self) -> Result<()> {
        let Some((key, id)) = self.leaves.held.take() else { return Ok(()) };
        let page = self.consume(id, 0)?;
        self.changes.removed.push((key, id));
        let mut elements = Vec::with_capacity(page.count() + self.leaves.open.len());
        for i in 0..page.count() {
            let element = page.element(i)?;
            self.leaves.bytes += element.size();
            elements.push(element);
        }
        elements.append(&mut self.leaves.open);
        if !elements.is_sorted_by(|a, b| a.key < b.key) {
            return Err(self.unsorted());
        }
        self.leaves.open = elements;
        Ok(())
    }

    fn prepend_held_branch(&mut self, height: usize) -> Result<()> {
        let Some((_, id)) = self.branches[height - 1].held.take() else { return Ok(()) };
        let page = self.consume(id, height)?;
        let mut children = Vec::with_capacity(page.count() + 8);
        for i in 0..page.count() {
            children.push(page.child(i)?);
        }
        children.append(&mut self.branches[height - 1].open);
        if !children.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(self.unsorted());
        }
        let level = &mut self.branches[height - 1];
        level.bytes = children.iter().map(child_bytes).sum();
        level.open = children;
        Ok(())
    }
}

/// Branches above the leaves of the tree at `root`.
pub(crate) fn height(pages: &Pages, root: u64) -> Result<usize> {
    let mut id = root;
    for height in 0..HEIGHT_MAX {
        let page = pages.page(id)?;
        if page.is_leaf() {
            return Ok(height);
        }
        if page.count() == 0 {
            return Err(pages.corrupt(page.offset(), format!("branch page {id} without children")));
        }
        id = page.child(0)?.1;
    }
    Err(pages.corrupt(pages.offset(root), format!("a tree of more than {HEIGHT_MAX} levels")))
}

/// Cuts `children` into branch pages: where each one ends. Every page gets at least two; two whose keys do not fit
/// one page make a page with overflow. With `share`, the last two pages are made about equal.
pub(crate) fn cut_branches(children: &[Child<'_>], page_size: usize, share: bool) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut start, mut bytes) = (0, HEADER);
    for (i, child) in children.iter().enumerate() {
        let full = bytes + child_bytes(child) > page_size || i - start == COUNT_MAX - 1;
        if full && i - start >= 2 {
            ends.push(i);
            (start, bytes) = (i, HEADER);
        }
        bytes += child_bytes(child);
    }
    if start == children.len() {
        return ends;
    }
    let alone = children.len() - start == 1;
    ends.push(children.len());
    if ends.len() < 2 || !(alone || share) {
        return ends;
    }
    let first = if ends.len() > 2 { ends[ends.len() - 3] } else { 0 };
    let both = &children[first..];
    let middle = ends.len() - 2;
    if both.len() < 4 {
        ends.remove(middle);
        return ends;
    }
    if !share {
        ends[middle] -= 1;
        return ends;
    }
    let total: usize = both.iter().map(child_bytes).sum();
    let mut sum = 0;
    let half = both.iter().position(|child| {
        sum += child_bytes(child);
        sum * 2 >= total
    });
    let at = half.map_or(2, |i| i + 1).clamp(2, both.len() - 2);
    ends[middle] = first + at;
    ends
}
