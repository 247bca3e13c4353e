//! The one walk that defines a valid file. Opening walks quickly, to find the pages in use and the leaves of the
//! directory's bucket; `check` walks in full.
//!
//! The quick walk reads branches whole and of leaves only the element tables, and refuses the file at the first
//! thing wrong: a reference out of bounds, a page reached twice, branch keys out of order, an element that leaves its
//! page. What it accepts can be read and rebuilt without a page being freed or used twice. The full walk adds the
//! order and range of all keys and the shape of the tree, and goes on after what it finds.

use crate::alloc::{Extent, FreePages};
use crate::directory::{Place, head};
use crate::error::{Corruption, Error, Result};
use crate::meta::{Meta, NO_FREELIST};
use crate::page::{BucketValue, HEIGHT_MAX, KEY_MAX, Page, Pages, Root};

/// Most violations that a full walk collects.
const VIOLATIONS_MAX: usize = 100;

/// What a walk counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Buckets, nested and inline ones included.
    pub buckets: u64,
    /// Buckets that live in their parent's page.
    pub inline_buckets: u64,
    /// Entries of all buckets, buckets themselves not counted.
    pub keys: u64,
    /// Leaf pages (each with its overflow pages).
    pub leaves: u64,
    /// Branch pages.
    pub branches: u64,
    /// Pages in use: metas, leaves, branches and a stored free list, overflow included.
    pub pages_in_use: u64,
    /// Pages below the high-water mark that nothing reaches.
    pub pages_unused: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
}

/// A bucket whose tree is still to be walked.
struct Pending {
    root: u64,
    /// Whether its leaves go into the directory.
    directory: bool,
}

/// Keys that a page may hold.
#[derive(Clone, Copy)]
struct Range<'p> {
    low: &'p [u8],
    high: Option<&'p [u8]>,
}

pub(crate) struct Walk<'p> {
    pages: &'p Pages,
    full: bool,
    directory_bucket: Option<&'p [u8]>,
    /// Whether the bucket of buckets is being walked.
    top: bool,
    used: Vec<u64>,
    pending: Vec<Pending>,
    pub(crate) report: Report,
    pub(crate) places: Vec<Place>,
    pub(crate) violations: Vec<Corruption>,
}

impl<'p> Walk<'p> {
    /// Walks all of the state `meta`. In a quick walk the first violation is the error.
    pub(crate) fn run(
        pages: &'p Pages,
        meta: &Meta,
        directory_bucket: Option<&'p [u8]>,
        full: bool,
    ) -> Result<Walk<'p>> {
        let mut walk = Walk {
            pages,
            full,
            directory_bucket,
            top: true,
            used: vec![0; (pages.high_water as usize).div_ceil(64)],
            pending: Vec::new(),
            report: Report::default(),
            places: Vec::new(),
            violations: Vec::new(),
        };
        walk.mark(Extent { start: 0, pages: 2 })?;
        if meta.freelist != NO_FREELIST {
            let (header, bytes) = pages.extent(meta.freelist)?;
            if header.flags != crate::page::FLAG_FREELIST {
                return Err(
                    pages.corrupt(pages.offset(meta.freelist), "the free list's page is of another kind")
                );
            }
            walk.mark(Extent { start: meta.freelist, pages: (bytes.len() / pages.page_size) as u64 })?;
        }
        walk.tree(&Pending { root: meta.root, directory: false }, true)?;
        while let Some(bucket) = walk.pending.pop() {
            walk.tree(&bucket, false)?;
        }
        walk.report.pages_unused = pages.high_water - walk.report.pages_in_use;
        Ok(walk)
    }

    /// In a full walk notes a violation and goes on; otherwise ends the walk.
    fn note(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(Error::Corrupt(corruption)) if self.full && self.violations.len() < VIOLATIONS_MAX => {
                self.violations.push(*corruption);
                Ok(())
            }
            other => other,
        }
    }

    fn wrong(&mut self, page: &Page<'_>, what: &str) -> Result<()> {
        let error = self.pages.corrupt(page.offset(), format!("page {}: {what}", page.id()));
        self.note(Err(error))
    }

    fn mark(&mut self, extent: Extent) -> Result<()> {
        for page in extent.start..extent.end() {
            let word = &mut self.used[(page / 64) as usize];
            if *word >> (page % 64) & 1 == 1 {
                let what = format!("page {page} is used twice");
                return Err(self.pages.corrupt(self.pages.offset(page), what));
            }
            *word |= 1 << (page % 64);
        }
        self.report.pages_in_use += extent.pages;
        Ok(())
    }

    fn tree(&mut self, bucket: &Pending, top: bool) -> Result<()> {
        self.report.buckets += u64::from(!top);
        let mut leaf_level = None;
        let range = Range { low: &[], high: None };
        let first = self.places.len();
        self.top = top;
        let result = self.node(bucket, bucket.root, 0, range, &mut leaf_level);
        self.note(result)?;
        if bucket.directory && self.places.len() == first && leaf_level == Some(0) {
            let root = self.pages.page(bucket.root)?;
            let key = if root.count() == 0 { &[] } else { root.key(0)? };
            self.places.push(Place { head: head(key), page: bucket.root });
        }
        Ok(())
    }

    fn node(
        &mut self,
        bucket: &Pending,
        id: u64,
        level: usize,
        range: Range<'p>,
        leaf_level: &mut Option<usize>,
    ) -> Result<()> {
        let page = self.pages.page(id)?;
        self.mark(Extent { start: id, pages: page.span() })?;
        if page.is_leaf() {
            if *leaf_level.get_or_insert(level) != level {
                let what = format!("page {id}: a leaf at another depth than the leaves before it");
                return Err(self.pages.corrupt(page.offset(), what));
            }
            self.report.leaves += 1;
            return self.leaf(&page, level, range);
        }
        if level >= HEIGHT_MAX || page.count() == 0 {
            let what = format!("branch page {id} on level {level} with {} children", page.count());
            return Err(self.pages.corrupt(page.offset(), what));
        }
        self.report.branches += 1;
        if self.full && page.count() < 2 {
            self.wrong(&page, "a branch with a single child")?;
        }
        self.branch(bucket, &page, level, range, leaf_level)
    }

    fn branch(
        &mut self,
        bucket: &Pending,
        page: &Page<'p>,
        level: usize,
        range: Range<'p>,
        leaf_level: &mut Option<usize>,
    ) -> Result<()> {
        let mut next = page.child(0)?;
        for i in 0..page.count() {
            let (key, child) = next;
            let mut high = range.high;
            if i + 1 < page.count() {
                next = page.child(i + 1)?;
                high = Some(next.0);
            }
            if high.is_some_and(|high| key >= high) || (level > 0 && key < range.low) {
                let what = format!("branch page {}: key {i} out of order", page.id());
                return Err(self.pages.corrupt(page.offset(), what));
            }
            let low = if level == 0 && i == 0 { range.low } else { key };
            let result = self.node(bucket, child, level + 1, Range { low, high }, leaf_level);
            self.note(result)?;
            // The first leaf tells on which level the leaves are, so this is the time to ask for the others.
            if *leaf_level == Some(level + 1) {
                if i == 0 {
                    self.pages.read_ahead(page);
                }
                if bucket.directory {
                    self.places.push(Place { head: head(key), page: child });
                }
            }
        }
        Ok(())
    }

    fn leaf(&mut self, page: &Page<'p>, level: usize, range: Range<'p>) -> Result<()> {
        for i in 0..page.count() {
            let element = page.element(i)?;
            if element.bucket {
                let result = self.bucket(page, i);
                self.note(result)?;
            } else {
                self.report.keys += 1;
                self.report.bytes += (element.key.len() + element.value.len()) as u64;
            }
        }
        if self.full {
            self.leaf_order(page, level, range)?;
        }
        Ok(())
    }

    fn leaf_order(&mut self, page: &Page<'p>, level: usize, range: Range<'p>) -> Result<()> {
        if page.count() == 0 && level > 0 {
            self.wrong(page, "an empty leaf")?;
        }
        let mut last: Option<&[u8]> = None;
        for i in 0..page.count() {
            let key = page.key(i)?;
            if key.is_empty() || key.len() > KEY_MAX {
                self.wrong(page, &format!("element {i} has a key of {} bytes", key.len()))?;
            }
            if last.is_some_and(|last| key <= last) {
                self.wrong(page, &format!("element {i} is not above the one before it"))?;
            }
            if key < range.low || range.high.is_some_and(|high| key >= high) {
                self.wrong(page, &format!("element {i} is not within its parent's keys"))?;
            }
            last = Some(key);
        }
        Ok(())
    }

    fn bucket(&mut self, page: &Page<'p>, index: usize) -> Result<()> {
        let BucketValue { root, .. } = page.bucket(index)?;
        match root {
            Root::Tree(root) => {
                // Only names at the top count: nested buckets of the same name are others.
                let directory = self.top
                    && self.directory_bucket.is_some_and(|name| page.key(index).is_ok_and(|key| key == name));
                self.pending.push(Pending { root, directory });
                Ok(())
            }
            Root::Inline(inline) => {
                self.report.buckets += 1;
                self.report.inline_buckets += 1;
                self.inline(&inline)
            }
        }
    }

    fn inline(&mut self, page: &Page<'p>) -> Result<()> {
        for i in 0..page.count() {
            let element = page.element(i)?;
            if element.bucket {
                return Err(self.pages.corrupt(page.offset(), "an inline bucket that holds a bucket"));
            }
            self.report.keys += 1;
            self.report.bytes += (element.key.len() + element.value.len()) as u64;
        }
        if self.full {
            self.leaf_order(page, 0, Range { low: &[], high: None })?;
        }
        Ok(())
    }

    pub(crate) fn is_used(&self, page: u64) -> bool {
        self.used[(page / 64) as usize] >> (page % 64) & 1 == 1
    }

    /// All pages that were not reached.
    pub(crate) fn free_pages(&self) -> FreePages {
        let mut free = FreePages::default();
        let mut page = 0;
        while page < self.pages.high_water {
            let start = page;
            while page < self.pages.high_water && !self.is_used(page) {
                page += 1;
            }
            if page > start {
                free.release(Extent { start, pages: page - start });
            }
            page += 1;
        }
        free
    }
}
