//! Views: a consistent state of the file, pinned for as long as somebody looks at it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use disk::{File, Mapping};
use parking_lot::Mutex;

use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::meta::{META_PAGE_USED, Meta};
use crate::page::Pages;
use crate::read::Bucket;

/// Sizes of a database file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Up to the high-water mark: what etcd reports as the database's size.
    pub total: u64,
    /// Without free pages. Pages freed but not yet reusable count as used, as in Go.
    pub in_use: u64,
    /// Pages that the newest state reaches.
    pub live: u64,
    /// What the file takes on the device.
    pub allocated: u64,
}

/// One committed state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) meta: Meta,
    pub(crate) pages: Pages,
    /// The bucket that `directory` is for.
    pub(crate) directory_bucket: Option<&'static [u8]>,
    pub(crate) directory: Directory,
    pub(crate) sizes: Sizes,
}

#[derive(Clone, Copy, Debug)]
struct Pinned {
    views: u64,
    high_water: u64,
}

#[derive(Debug)]
struct Pins {
    current: Arc<State>,
    pinned: BTreeMap<u64, Pinned>,
}

/// What the writer and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) file: Arc<dyn File>,
    pins: Mutex<Pins>,
}

impl Shared {
    pub(crate) fn new(file: Arc<dyn File>, state: Arc<State>) -> Shared {
        Shared { file, pins: Mutex::new(Pins { current: state, pinned: BTreeMap::new() }) }
    }

    /// Makes `state` what new views see.
    pub(crate) fn publish(&self, state: Arc<State>) {
        // The old state is dropped outside the lock: its directory may be large.
        let old = std::mem::replace(&mut self.pins.lock().current, state);
        drop(old);
    }

    /// How many states are held, each by one view and its clones.
    pub(crate) fn pinned(&self) -> usize {
        self.pins.lock().pinned.values().map(|pinned| pinned.views as usize).sum()
    }

    /// The oldest transaction that a view holds.
    pub(crate) fn oldest_pin(&self) -> Option<u64> {
        self.pins.lock().pinned.keys().next().copied()
    }

    /// The highest page id that a view may read, plus one.
    pub(crate) fn pinned_high_water(&self) -> u64 {
        self.pins.lock().pinned.values().map(|pinned| pinned.high_water).max().unwrap_or(0)
    }
}

/// Makes views of whatever state is the newest. Cheap to clone, for any thread.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// Pins the newest state. The only lock of the read path, held for a few instructions.
    pub fn view(&self) -> View {
        let mut pins = self.shared.pins.lock();
        let state = pins.current.clone();
        let high_water = state.meta.high_water;
        pins.pinned.entry(state.meta.txid).or_insert(Pinned { views: 0, high_water }).views += 1;
        drop(pins);
        View { pin: Arc::new(Pin { shared: self.shared.clone(), state }) }
    }
}

#[derive(Debug)]
struct Pin {
    shared: Arc<Shared>,
    state: Arc<State>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let txid = self.state.meta.txid;
        let mut pins = self.shared.pins.lock();
        let pinned = pins.pinned.get_mut(&txid).expect("a view is pinned until it is dropped");
        pinned.views -= 1;
        if pinned.views == 0 {
            pins.pinned.remove(&txid);
        }
    }
}

/// A consistent state of the file. Its pages are not reused, and the file not cut below them, until the last clone is
/// dropped; so a view held for long makes the file grow by what is changed meanwhile.
#[derive(Clone, Debug)]
pub struct View {
    pin: Arc<Pin>,
}

impl View {
    /// How many views of this file there are, clones not counted.
    pub fn open_views(&self) -> usize {
        self.pin.shared.pinned()
    }

    pub(crate) fn state(&self) -> &State {
        &self.pin.state
    }

    fn pages(&self) -> &Pages {
        &self.pin.state.pages
    }

    fn top(&self) -> Bucket<'_> {
        let meta = &self.pin.state.meta;
        Bucket::top(self.pages(), meta.root, meta.sequence)
    }

    /// The transaction that made this state.
    pub fn txid(&self) -> u64 {
        self.pin.state.meta.txid
    }

    /// Page size of the file.
    pub fn page_size(&self) -> u32 {
        self.pin.state.meta.page_size
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.pin.state.pages.path
    }

    /// Sizes as of this state; `allocated` as of its commit.
    pub fn sizes(&self) -> Sizes {
        self.pin.state.sizes
    }

    /// The bucket `name`.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_>>> {
        self.top().bucket(name)
    }

    /// Names of all buckets, in order.
    pub fn bucket_names(&self) -> Result<Vec<&[u8]>> {
        let mut names = Vec::new();
        let mut cursor = self.top().cursor();
        while let Some((name, _)) = cursor.next()? {
            if cursor.is_bucket()? {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The value of `key` in `bucket`; `None` when either is absent.
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<&[u8]>> {
        match self.bucket(bucket)? {
            Some(bucket) => bucket.get(key),
            None => Ok(None),
        }
    }

    /// The value of `key` in the bucket that the leaf directory is kept for: one leaf is read, no branch.
    #[inline]
    pub fn get_by_directory(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        let state = self.state();
        let Some(target) = state.directory.find(key, &state.pages)? else {
            return state.directory_bucket.map_or(Ok(None), |bucket| self.get(bucket, key));
        };
        let leaf = state.pages.page(target.page)?;
        if !leaf.is_leaf() {
            let what = format!("page {} is not a leaf any more", target.page);
            return Err(state.pages.corrupt(leaf.offset(), what));
        }
        let Some(index) = leaf.find_near(key, target.position(leaf.count()))? else { return Ok(None) };
        let element = leaf.element(index)?;
        Ok((!element.bucket).then_some(element.value))
    }

    /// Asks the processor for what [`View::get_by_directory`] will read first for `key`, and waits for nothing.
    /// Worth a call some twelve keys ahead when many values are read in no order.
    #[inline]
    pub fn prefetch(&self, key: &[u8]) {
        /// Header and element table of a leaf of 15 entries.
        const BEGINNING: usize = 256;
        let state = self.state();
        if let Some(target) = state.directory.guess(key) {
            state.pages.mapping.prefetch(state.pages.offset(target.page), BEGINNING);
        }
    }

    /// Asks the processor for the entry itself: worth a call some six keys ahead, for a key whose
    /// [`View::prefetch`] has had time to arrive.
    #[inline]
    pub fn prefetch_entry(&self, key: &[u8]) {
        let state = self.state();
        if let Some(target) = state.directory.guess(key)
            && let Ok(leaf) = state.pages.page(target.page)
        {
            leaf.prefetch(target.position(leaf.count()));
        }
    }

    /// Length of the file that [`View::read_chunk`] describes.
    pub fn stream_len(&self) -> u64 {
        let meta = &self.pin.state.meta;
        meta.high_water * u64::from(meta.page_size)
    }

    /// Reads a part of this state as a file of its own, in the form Go's `WriteTo` gives it: both metas of this
    /// state, the second with the transaction before, then all pages. Free pages in it may be torn, which is
    /// harmless. Returns how many bytes were filled: all of `buffer`, less at the end.
    pub fn read_chunk(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = self.stream_len().saturating_sub(offset);
        let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..len];
        let metas = 2 * u64::from(self.page_size());
        let head = usize::try_from(metas.saturating_sub(offset)).map_or(len, |head| head.min(len));
        let (head, rest) = buffer.split_at_mut(head);
        self.fill_metas(offset, head);
        if !rest.is_empty() {
            self.pin.shared.file.read_exact_at(rest, offset.max(metas))?;
        }
        Ok(len)
    }

    fn fill_metas(&self, offset: u64, buffer: &mut [u8]) {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for slot in 0..2 {
            let meta = Meta { txid: self.txid().saturating_sub(slot), ..self.pin.state.meta };
            let start = slot * u64::from(meta.page_size);
            let page = meta.encode(slot);
            for (at, byte) in (start..start + META_PAGE_USED as u64).zip(page) {
                if (offset..end).contains(&at) {
                    buffer[(at - offset) as usize] = byte;
                }
            }
        }
    }

    /// Hands the file of [`View::read_chunk`] to `sink`, piece by piece; returns its length.
    pub fn write_to<E: From<Error>>(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, E> {
        const PIECE: usize = 1 << 20;
        let mut buffer = vec![0; PIECE.min(self.stream_len() as usize)];
        let mut offset = 0;
        while offset < self.stream_len() {
            let len = self.read_chunk(offset, &mut buffer)?;
            sink(&buffer[..len])?;
            offset += len as u64;
        }
        Ok(offset)
    }

    /// The mapping that values are read from.
    pub(crate) fn mapping(&self) -> &Arc<dyn Mapping> {
        &self.pin.state.pages.mapping
    }

    /// Tells the kernel how the file will be read: [`disk::Advice::Random`] is what a database larger than memory
    /// needs, and what opening sets.
    pub fn advise(&self, advice: disk::Advice) {
        self.mapping().advise(0, self.stream_len(), advice);
    }
}
