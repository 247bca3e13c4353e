//! Reading a bucket: get, cursors, leaves. Nothing here allocates or locks; a bucket borrows the view that pins it.

use crate::error::Result;
use crate::page::{BucketValue, HEIGHT_MAX, Page, Pages, Root};

/// A bucket of one pinned state.
#[derive(Clone, Copy)]
pub struct Bucket<'v> {
    pages: &'v Pages,
    value: BucketValue<'v>,
}

/// An entry: key and value. The value of a nested bucket is empty.
pub type Entry<'v> = (&'v [u8], &'v [u8]);

impl<'v> Bucket<'v> {
    /// The bucket of buckets.
    pub(crate) fn top(pages: &'v Pages, root: u64, sequence: u64) -> Bucket<'v> {
        Bucket { pages, value: BucketValue { root: Root::Tree(root), sequence } }
    }

    pub(crate) fn value(&self) -> BucketValue<'v> {
        self.value
    }

    /// The bucket's sequence number, which Go's users may set; etcd leaves it at 0.
    pub fn sequence(&self) -> u64 {
        self.value.sequence
    }

    /// Whether the bucket is stored within its parent's page.
    pub fn is_inline(&self) -> bool {
        matches!(self.value.root, Root::Inline(_))
    }

    /// The leaf that covers `key`, and the first index in it that is not below `key`.
    #[inline]
    fn leaf_for(&self, key: &[u8]) -> Result<(Page<'v>, usize)> {
        let mut page = match self.value.root {
            Root::Inline(page) => return Ok((page, page.lower_bound(key)?)),
            Root::Tree(id) => self.pages.page(id)?,
        };
        let mut levels = 0;
        while !page.is_leaf() {
            page = self.child(&page, page.child_for(key)?, &mut levels)?;
        }
        Ok((page, page.lower_bound(key)?))
    }

    /// Child `index` of a branch; refuses an empty branch and a path too long to be a tree.
    #[inline]
    fn child(&self, page: &Page<'v>, index: usize, levels: &mut usize) -> Result<Page<'v>> {
        *levels += 1;
        if index >= page.count() || *levels > HEIGHT_MAX {
            let what = format!("branch page {} has no children, or is its own descendant", page.id());
            return Err(self.pages.corrupt(page.offset(), what));
        }
        self.pages.page(page.child(index)?.1)
    }

    /// The value of `key`; `None` when it is absent or a nested bucket.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<&'v [u8]>> {
        let (leaf, index) = self.leaf_for(key)?;
        if index >= leaf.count() {
            return Ok(None);
        }
        let element = leaf.element(index)?;
        Ok((element.key == key && !element.bucket).then_some(element.value))
    }

    /// The nested bucket `name`.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'v>>> {
        let (leaf, index) = self.leaf_for(name)?;
        if index >= leaf.count() {
            return Ok(None);
        }
        let element = leaf.element(index)?;
        if element.key != name || !element.bucket {
            return Ok(None);
        }
        Ok(Some(Bucket { pages: self.pages, value: leaf.bucket(index)? }))
    }

    /// A cursor that stands before the first entry and after the last.
    pub fn cursor(&self) -> Cursor<'v> {
        Cursor { bucket: *self, path: [Step::default(); HEIGHT_MAX], height: 0, at: At::Outside, reads_ahead: false }
    }

    /// The bucket's leaves in key order, the pages ahead asked for in time.
    pub fn leaves(&self) -> Leaves<'v> {
        Leaves { cursor: self.cursor().reading_ahead(), started: false }
    }
}

/// A branch on the way to the cursor's leaf, and the child that was taken.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    page: u64,
    child: u32,
}

/// Where a cursor stands.
#[derive(Clone, Copy)]
enum At<'v> {
    /// Before the first entry and after the last: `next` goes to the first, `prev` to the last.
    Outside,
    /// After the last entry.
    End,
    /// Before the first entry.
    Start,
    Entry(Page<'v>, usize),
}

/// A position in a bucket.
#[derive(Clone)]
pub struct Cursor<'v> {
    bucket: Bucket<'v>,
    path: [Step; HEIGHT_MAX],
    height: usize,
    at: At<'v>,
    reads_ahead: bool,
}

/// Which way a descent or a step goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    First,
    Last,
}

impl<'v> Cursor<'v> {
    /// Goes down from `page` to a leaf, taking the child that `choose` names at each branch.
    fn descend(
        &mut self,
        mut page: Page<'v>,
        choose: &mut dyn FnMut(&Page<'v>) -> Result<usize>,
    ) -> Result<Page<'v>> {
        while !page.is_leaf() {
            let child = choose(&page)?;
            let mut levels = self.height;
            let below = self.bucket.child(&page, child, &mut levels)?;
            self.path[self.height] = Step { page: page.id(), child: child as u32 };
            self.height = levels;
            if self.reads_ahead && below.is_leaf() {
                self.bucket.pages.read_ahead(&page);
            }
            page = below;
        }
        Ok(page)
    }

    /// From now on asks the system for all leaves of a branch when it comes to the first of them: for long walks over
    /// what may not be in memory.
    pub fn reading_ahead(mut self) -> Cursor<'v> {
        self.reads_ahead = true;
        self
    }

    fn root(&mut self) -> Result<Page<'v>> {
        self.height = 0;
        match self.bucket.value.root {
            Root::Inline(page) => Ok(page),
            Root::Tree(id) => self.bucket.pages.page(id),
        }
    }

    fn descend_to(&mut self, page: Page<'v>, side: Side) -> Result<Page<'v>> {
        self.descend(page, &mut |page| {
            Ok(if side == Side::First { 0 } else { page.count().saturating_sub(1) })
        })
    }

    /// The leaf after the current path's, or before it.
    fn neighbour(&mut self, side: Side) -> Result<Option<Page<'v>>> {
        while self.height > 0 {
            let step = self.path[self.height - 1];
            let page = self.bucket.pages.page(step.page)?;
            let child = step.child as usize;
            self.height -= 1;
            let next = match side {
                Side::First if child + 1 < page.count() => child + 1,
                Side::Last if child > 0 => child - 1,
                _ => continue,
            };
            let mut levels = self.height;
            let below = self.bucket.child(&page, next, &mut levels)?;
            self.path[self.height] = Step { page: step.page, child: next as u32 };
            self.height = levels;
            return self.descend_to(below, side).map(Some);
        }
        Ok(None)
    }

    /// Stands on the first (last) entry of `leaf` or of the leaves after (before) it.
    fn settle(&mut self, mut leaf: Page<'v>, side: Side) -> Result<Option<Entry<'v>>> {
        while leaf.count() == 0 {
            match self.neighbour(side)? {
                Some(next) => leaf = next,
                None => {
                    self.at = if side == Side::First { At::End } else { At::Start };
                    return Ok(None);
                }
            }
        }
        self.stand(leaf, if side == Side::First { 0 } else { leaf.count() - 1 })
    }

    fn stand(&mut self, leaf: Page<'v>, index: usize) -> Result<Option<Entry<'v>>> {
        self.at = At::Entry(leaf, index);
        self.current()
    }

    /// The entry the cursor stands on.
    pub fn current(&self) -> Result<Option<Entry<'v>>> {
        let At::Entry(leaf, index) = self.at else { return Ok(None) };
        let element = leaf.element(index)?;
        Ok(Some((element.key, if element.bucket { &[] } else { element.value })))
    }

    /// Whether the entry the cursor stands on is a nested bucket.
    pub fn is_bucket(&self) -> Result<bool> {
        let At::Entry(leaf, index) = self.at else { return Ok(false) };
        Ok(leaf.element(index)?.bucket)
    }

    /// Goes to the first entry.
    pub fn first(&mut self) -> Result<Option<Entry<'v>>> {
        let root = self.root()?;
        let leaf = self.descend_to(root, Side::First)?;
        self.settle(leaf, Side::First)
    }

    /// Goes to the last entry.
    pub fn last(&mut self) -> Result<Option<Entry<'v>>> {
        let root = self.root()?;
        let leaf = self.descend_to(root, Side::Last)?;
        self.settle(leaf, Side::Last)
    }

    /// Goes to the first entry whose key is not below `key`.
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<Entry<'v>>> {
        let root = self.root()?;
        let leaf = self.descend(root, &mut |page| page.child_for(key))?;
        let index = leaf.lower_bound(key)?;
        if index < leaf.count() {
            return self.stand(leaf, index);
        }
        match self.neighbour(Side::First)? {
            Some(next) => self.settle(next, Side::First),
            None => {
                self.at = At::End;
                Ok(None)
            }
        }
    }

    /// Goes to the next entry; from outside, to the first.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a cursor also goes back, and its steps can fail")]
    pub fn next(&mut self) -> Result<Option<Entry<'v>>> {
        match self.at {
            At::Entry(leaf, index) if index + 1 < leaf.count() => self.stand(leaf, index + 1),
            At::Entry(..) => match self.neighbour(Side::First)? {
                Some(next) => self.settle(next, Side::First),
                None => {
                    self.at = At::End;
                    Ok(None)
                }
            },
            At::End => Ok(None),
            At::Outside | At::Start => self.first(),
        }
    }

    /// Goes to the entry before; from outside or the end, to the last.
    pub fn prev(&mut self) -> Result<Option<Entry<'v>>> {
        match self.at {
            At::Entry(leaf, index) if index > 0 => self.stand(leaf, index - 1),
            At::Entry(..) => match self.neighbour(Side::Last)? {
                Some(before) => self.settle(before, Side::Last),
                None => {
                    self.at = At::Start;
                    Ok(None)
                }
            },
            At::Start => Ok(None),
            At::Outside | At::End => self.last(),
        }
    }
}

/// The leaves of a bucket in key order.
pub struct Leaves<'v> {
    cursor: Cursor<'v>,
    started: bool,
}

impl<'v> Leaves<'v> {
    /// The next leaf.
    #[expect(clippy::should_implement_trait, reason = "reading a leaf can fail")]
    pub fn next(&mut self) -> Result<Option<Leaf<'v>>> {
        let page = if self.started {
            self.cursor.neighbour(Side::First)?
        } else {
            self.started = true;
            let root = self.cursor.root()?;
            Some(self.cursor.descend_to(root, Side::First)?)
        };
        Ok(page.map(|page| Leaf { page }))
    }
}

/// One leaf of a bucket.
#[derive(Clone, Copy)]
pub struct Leaf<'v> {
    page: Page<'v>,
}

impl<'v> Leaf<'v> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.page.count()
    }

    /// Whether it has no entries, as the only leaf of an empty bucket.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entry `index`, which must be below [`Leaf::len`].
    #[inline]
    pub fn entry(&self, index: usize) -> Result<Entry<'v>> {
        let element = self.page.element(index)?;
        Ok((element.key, if element.bucket { &[] } else { element.value }))
    }
}
