//! A whole file from sorted input, in one pass: for offline tools. The live path is `commit.rs`.
//!
//! Pages are written in the order they fill, so nothing is written twice and nothing is free in the end. The metas
//! come last, after a sync: an interrupted file has none and is not taken for a database.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk::{Disk, File, OpenMode};

use crate::commit::bucket_value;
use crate::db::{MODE, Options};
use crate::error::{Error, Result};
use crate::meta::{Meta, NO_FREELIST};
use crate::page::{BUCKET_HEADER, ELEMENT, Element, HEADER, KEY_MAX, VALUE_MAX, write_branch, write_leaf};
use crate::rebuild::{NewRoot, cut_branches};
use crate::view::View;

/// Bytes that are written at once.
const WRITE: usize = 4 << 20;
/// Branch pages' worth of entries that wait on a level, so that the last pages are never too small.
const OPEN_PAGES: usize = 8;

/// Elements of a leaf that is being filled, their bytes one after the other.
#[derive(Default)]
struct OpenLeaf {
    bytes: Vec<u8>,
    /// Whether it is a bucket, length of the key, length of the value.
    elements: Vec<(bool, usize, usize)>,
}

impl OpenLeaf {
    /// Bytes in a page, header included.
    fn size(&self) -> usize {
        HEADER + self.elements.len() * ELEMENT + self.bytes.len()
    }

    fn push(&mut self, bucket: bool, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.elements.push((bucket, key.len(), value.len()));
    }

    fn elements(&self) -> Vec<Element<'_>> {
        let mut rest = self.bytes.as_slice();
        let mut elements = Vec::with_capacity(self.elements.len());
        for (bucket, key_len, value_len) in &self.elements {
            let (key, after) = rest.split_at(*key_len);
            let (value, after) = after.split_at(*value_len);
            elements.push(Element { bucket: *bucket, key, value });
            rest = after;
        }
        elements
    }
}

/// A tree that is being filled.
#[derive(Default)]
struct Tree {
    leaf: OpenLeaf,
    /// By height: references to pages of that height.
    levels: Vec<Vec<(Bytes, u64)>>,
    last_key: Vec<u8>,
}

/// Takes the next entry of a bucket: key and value.
pub type Push<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// Writes a database file from sorted input.
pub struct BulkWriter {
    file: Box<dyn File>,
    page_size: usize,
    leaf_bytes: usize,
    /// Page that the buffer begins at.
    start: u64,
    buffer: Vec<u8>,
    roots: Vec<(Bytes, Bytes)>,
}

impl BulkWriter {
    /// Starts a file that must not exist yet.
    pub fn create(disk: &dyn Disk, path: &Path, options: &Options) -> Result<BulkWriter> {
        let page_size = options.page_size as usize;
        Ok(BulkWriter {
            file: disk.open(path, OpenMode::CreateNew, MODE)?,
            page_size,
            leaf_bytes: options.leaf_pages.max(1) as usize * page_size,
            start: 2,
            buffer: Vec::new(),
            roots: Vec::new(),
        })
    }

    /// Writes one bucket; buckets come in the order of their names. `fill` hands each entry, in the order of the
    /// keys, to the function it is given.
    pub fn bucket(
        &mut self,
        name: &[u8],
        sequence: u64,
        fill: &mut dyn FnMut(&mut Push<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.roots.last().is_some_and(|last| last.0 >= name) {
            return Err(Error::Unsorted { key: Bytes::copy_from_slice(name) });
        }
        let mut tree = Tree::default();
        fill(&mut |key, value| self.push(&mut tree, false, key, value))?;
        let root = self.close(tree, true)?;
        self.roots.push((Bytes::copy_from_slice(name), bucket_value(root, sequence)));
        Ok(())
    }

    fn push(&mut self, tree: &mut Tree, bucket: bool, key: &[u8], value: &[u8]) -> Result<()> {
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(Error::KeyLength { len: key.len() });
        }
        if value.len() > VALUE_MAX {
            return Err(Error::ValueLength { len: value.len() });
        }
        if key <= &tree.last_key[..] {
            return Err(Error::Unsorted { key: Bytes::copy_from_slice(key) });
        }
        tree.last_key.clear();
        tree.last_key.extend_from_slice(key);
        let size = tree.leaf.size() + ELEMENT + key.len() + value.len();
        if size > self.leaf_bytes && !tree.leaf.elements.is_empty() {
            self.flush_leaf(tree)?;
        }
        tree.leaf.push(bucket, key, value);
        Ok(())
    }

    /// Adds a page of `size` bytes to the buffer and returns its id.
    fn add(&mut self, size: usize, write: impl FnOnce(&mut Vec<u8>, u64, u32)) -> Result<u64> {
        let id = self.start + (self.buffer.len() / self.page_size) as u64;
        let pages = size.div_ceil(self.page_size);
        let end = self.buffer.len() + pages * self.page_size;
        write(&mut self.buffer, id, pages as u32 - 1);
        assert!(self.buffer.len() <= end, "page {id} longer than its {pages} pages");
        self.buffer.resize(end, 0);
        if self.buffer.len() >= WRITE {
            self.write_out()?;
        }
        Ok(id)
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_all_at(&self.buffer, self.start * self.page_size as u64)?;
        self.start += (self.buffer.len() / self.page_size) as u64;
        self.buffer.clear();
        Ok(())
    }

    fn flush_leaf(&mut self, tree: &mut Tree) -> Result<()> {
        let leaf = std::mem::take(&mut tree.leaf);
        let elements = leaf.elements();
        let id = self.add(leaf.size(), |buffer, id, overflow| write_leaf(buffer, id, overflow, &elements))?;
        let key = elements.first().map_or(&[][..], |element| element.key);
        self.emit(tree, 0, Bytes::copy_from_slice(key), id)
    }

    fn emit(&mut self, tree: &mut Tree, height: usize, key: Bytes, id: u64) -> Result<()> {
        if tree.levels.len() <= height {
            tree.levels.push(Vec::new());
        }
        let level = &mut tree.levels[height];
        level.push((key, id));
        let bytes: usize = level.len() * ELEMENT + level.len() * level[0].0.len();
        if bytes > OPEN_PAGES * self.page_size {
            self.flush_branches(tree, height, 2)?;
        }
        Ok(())
    }

    /// Writes the references to pages of `height` as branch pages, but for the last `keep` of those.
    fn flush_branches(&mut self, tree: &mut Tree, height: usize, keep: usize) -> Result<()> {
        let mut open = std::mem::take(&mut tree.levels[height]);
        let children: Vec<(&[u8], u64)> = open.iter().map(|(key, id)| (&key[..], *id)).collect();
        let mut ends = cut_branches(&children, self.page_size, false);
        ends.truncate(ends.len().saturating_sub(keep));
        let mut start = 0;
        for end in ends {
            let part = &children[start..end];
            let size = HEADER + part.iter().map(|child| ELEMENT + child.0.len()).sum::<usize>();
            let id = self.add(size, |buffer, id, overflow| write_branch(buffer, id, overflow, part))?;
            self.emit(tree, height + 1, open[start].0.clone(), id)?;
            start = end;
        }
        drop(children);
        open.drain(..start);
        tree.levels[height] = open;
        Ok(())
    }

    fn close(&mut self, mut tree: Tree, may_inline: bool) -> Result<NewRoot> {
        if tree.levels.is_empty() && may_inline && tree.leaf.size() <= self.page_size / 4 {
            let mut value = vec![0; BUCKET_HEADER];
            write_leaf(&mut value, 0, 0, &tree.leaf.elements());
            return Ok(NewRoot::Inline(value));
        }
        if tree.levels.is_empty() || !tree.leaf.elements.is_empty() {
            self.flush_leaf(&mut tree)?;
        }
        let mut height = 0;
        loop {
            let top = height + 1 == tree.levels.len();
            if top && let [(_, root)] = tree.levels[height][..] {
                return Ok(NewRoot::Tree(root));
            }
            self.flush_branches(&mut tree, height, 0)?;
            height += 1;
        }
    }

    /// Writes the bucket of buckets and the metas, the newest of which is transaction `txid` (at least 1), and makes
    /// the file durable; returns its length.
    pub fn finish(mut self, txid: u64) -> Result<u64> {
        assert!(txid > 0, "the other meta is one transaction older");
        let mut tree = Tree::default();
        for (name, value) in std::mem::take(&mut self.roots) {
            self.push(&mut tree, true, &name, &value)?;
        }
        let NewRoot::Tree(root) = self.close(tree, false)? else { unreachable!("asked for a tree") };
        self.write_out()?;
        let page_size = self.page_size as u32;
        let high_water = self.start;
        self.file.sync_all()?;
        for txid in [txid - 1, txid] {
            let meta =
                Meta { page_size, flags: 0, root, sequence: 0, freelist: NO_FREELIST, high_water, txid };
            self.file.write_all_at(&meta.encode(meta.slot()), meta.slot() * u64::from(page_size))?;
        }
        self.file.sync_all()?;
        Ok(high_water * u64::from(page_size))
    }
}

/// Writes all buckets of a view into a new file without free pages. Nested buckets are refused: etcd has none.
pub fn copy(view: &View, disk: &Arc<dyn Disk>, path: &Path, options: &Options) -> Result<u64> {
    let mut writer = BulkWriter::create(&**disk, path, options)?;
    for name in view.bucket_names()? {
        let Some(bucket) = view.bucket(name)? else { continue };
        writer.bucket(name, bucket.sequence(), &mut |push| {
            let mut cursor = bucket.cursor();
            while let Some((key, value)) = cursor.next()? {
                if cursor.is_bucket()? {
                    return Err(Error::IncompatibleValue { key: Bytes::copy_from_slice(key) });
                }
                push(key, value)?;
            }
            Ok(())
        })?;
    }
    writer.finish(view.txid().max(1))
}
