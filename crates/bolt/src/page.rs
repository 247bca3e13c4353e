//! Pages: header, element table, keys and values. Bytes of the file become a [`Page`] only through
//! [`RawPage::check`]; after that, each element is checked against the page's bounds when it is used.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use disk::{Advice, Mapping};

use crate::error::{Corruption, Error, Result};

/// Bytes of a page header: id u64, flags u16, count u16, overflow u32.
pub(crate) const HEADER: usize = 16;
/// Bytes of an element, in leaves and branches alike.
pub(crate) const ELEMENT: usize = 16;
/// Longest key.
pub(crate) const KEY_MAX: usize = 32_768;
/// Longest value.
pub(crate) const VALUE_MAX: usize = (1 << 31) - 2;
/// Levels of a tree above which a file is taken for damaged. Branches have two or more children, so a tree of
/// this height would need more leaves than a disk has bytes.
pub(crate) const HEIGHT_MAX: usize = 32;
/// `count` is 16 bits; Go reads 0xFFFF as "count is elsewhere" in free lists, so leaves and branches stay below.
pub(crate) const COUNT_MAX: usize = 0xFFFE;

pub(crate) const FLAG_BRANCH: u16 = 0x01;
pub(crate) const FLAG_LEAF: u16 = 0x02;
pub(crate) const FLAG_META: u16 = 0x04;
pub(crate) const FLAG_FREELIST: u16 = 0x10;
/// Element flag of a leaf: the value is a bucket.
pub(crate) const ELEMENT_BUCKET: u32 = 0x01;

/// Bytes of a bucket's own header in its value: root page u64, sequence u64.
pub(crate) const BUCKET_HEADER: usize = 16;

pub(crate) fn le16(bytes: &[u8; 16], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn le32(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn le64(bytes: &[u8; 16], at: usize) -> u64 {
    let half = if at == 0 { bytes.first_chunk::<8>() } else { bytes.last_chunk::<8>() };
    u64::from_le_bytes(*half.expect("16 bytes have two halves"))
}

/// A page header, decoded but not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Header {
        Header {
            id: le64(bytes, 0),
            flags: le16(bytes, 8),
            count: le16(bytes, 10),
            overflow: le32(bytes, 12),
        }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }
}

/// Where pages come from: the mapped file up to one state's high-water mark.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) mapping: Arc<dyn Mapping>,
    pub(crate) page_size: usize,
    /// First page id that this state does not use.
    pub(crate) high_water: u64,
    pub(crate) path: Arc<Path>,
}

impl Pages {
    pub(crate) fn offset(&self, id: u64) -> u64 {
        id.saturating_mul(self.page_size as u64)
    }

    #[cold]
    pub(crate) fn corrupt(&self, offset: u64, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::corrupt(&self.path, offset, what)
    }

    /// What is wrong with page `id`.
    pub(crate) fn corrupt_at(&self, id: u64, what: String) -> Corruption {
        Corruption { path: self.path.to_path_buf(), offset: self.offset(id), what: what.into() }
    }

    /// The whole of page `id` with its overflow pages, of any kind, header believed only as far as its bounds.
    pub(crate) fn extent(&self, id: u64) -> Result<(Header, &[u8])> {
        if id < 2 || id >= self.high_water {
            return Err(self.out_of_range(id));
        }
        let offset = id * self.page_size as u64;
        let head = self.mapping.bytes(offset, HEADER);
        let header = Header::decode(head.first_chunk().expect("asked for a header"));
        let past = id + u64::from(header.overflow) + 1;
        if header.id != id || past > self.high_water {
            return Err(self.bad_header(id, header));
        }
        Ok((header, self.mapping.bytes(offset, (header.overflow as usize + 1) * self.page_size)))
    }

    /// Page `id` as a leaf or branch.
    #[inline]
    pub(crate) fn page(&self, id: u64) -> Result<Page<'_>> {
        let (header, bytes) = self.extent(id)?;
        RawPage { pages: self, offset: id * self.page_size as u64, header, bytes }.check()
    }

    #[cold]
    fn out_of_range(&self, id: u64) -> Error {
        let what = format!("a reference to page {id}, but pages 2 to {} exist", self.high_water - 1);
        self.corrupt(self.offset(id), what)
    }

    #[cold]
    fn bad_header(&self, id: u64, header: Header) -> Error {
        let what = format!(
            "page {id} calls itself {} with {} overflow pages, and the file uses {} pages",
            header.id, header.overflow, self.high_water
        );
        self.corrupt(self.offset(id), what)
    }

    /// Asks the kernel for the children of a branch page whose children are leaves, nearby ones together.
    pub(crate) fn read_ahead(&self, branch: &Page<'_>) {
        /// Pages assumed per leaf, as its length is known only after reading it.
        const SPAN: u64 = 4;
        let mut ids: Vec<u64> =
            (0..branch.count()).filter_map(|i| branch.child(i).ok().map(|c| c.1)).collect();
        ids.retain(|id| (2..self.high_water).contains(id));
        ids.sort_unstable();
        let mut i = 0;
        while i < ids.len() {
            let start = ids[i];
            let mut end = start + SPAN;
            while i < ids.len() && ids[i] <= end + SPAN {
                end = ids[i] + SPAN;
                i += 1;
            }
            let end = end.min(self.high_water);
            let len = (end - start) * self.page_size as u64;
            self.mapping.advise(self.offset(start), len, Advice::WillNeed);
        }
    }
}

/// Bytes that claim to be a leaf or a branch.
pub(crate) struct RawPage<'a> {
    pub(crate) pages: &'a Pages,
    /// Where the bytes lie in the file.
    pub(crate) offset: u64,
    pub(crate) header: Header,
    pub(crate) bytes: &'a [u8],
}

impl<'a> RawPage<'a> {
    /// Kind and element table hold; elements are checked one by one as they are used.
    #[inline]
    pub(crate) fn check(self) -> Result<Page<'a>> {
        let leaf = match self.header.flags {
            FLAG_LEAF => true,
            FLAG_BRANCH => false,
            _ => return Err(self.refuse("neither a leaf nor a branch")),
        };
        let count = usize::from(self.header.count);
        let Some(table) = self.bytes.get(HEADER..HEADER + count * ELEMENT) else {
            return Err(self.refuse("element table longer than the page"));
        };
        if count > COUNT_MAX {
            return Err(self.refuse("more elements than a page can have"));
        }
        let (elements, rest) = table.as_chunks::<ELEMENT>();
        debug_assert!(rest.is_empty());
        Ok(Page { pages: self.pages, offset: self.offset, bytes: self.bytes, elements, leaf })
    }

    #[cold]
    fn refuse(&self, what: &'static str) -> Error {
        let Header { id, flags, count, overflow } = self.header;
        let what =
            format!("page {id} (flags {flags:#x}, {count} elements, {overflow} overflow pages): {what}");
        self.pages.corrupt(self.offset, what)
    }
}

/// A leaf or branch whose header and element table are known to lie within the page.
#[derive(Clone, Copy)]
pub(crate) struct Page<'a> {
    pages: &'a Pages,
    offset: u64,
    bytes: &'a [u8],
    elements: &'a [[u8; ELEMENT]],
    leaf: bool,
}

/// One element of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// Whether the value is a bucket.
    pub(crate) bucket: bool,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Element<'_> {
    /// Bytes it takes in a leaf.
    pub(crate) fn size(&self) -> usize {
        ELEMENT + self.key.len() + self.value.len()
    }
}

impl<'a> Page<'a> {
    pub(crate) fn count(&self) -> usize {
        self.elements.len()
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.leaf
    }

    pub(crate) fn id(&self) -> u64 {
        Header::decode(self.bytes.first_chunk().expect("checked page")).id
    }

    /// Pages it occupies, overflow included.
    pub(crate) fn span(&self) -> u64 {
        (self.bytes.len() / self.pages.page_size) as u64
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    #[cold]
    fn bad_element(&self, index: usize) -> Error {
        let what = format!("element {index} points out of its page of {} bytes", self.bytes.len());
        self.pages.corrupt(self.offset + (HEADER + index * ELEMENT) as u64, what)
    }

    /// Element `index` of a leaf.
    #[inline]
    pub(crate) fn element(&self, index: usize) -> Result<Element<'a>> {
        assert!(self.leaf, "element of a branch");
        let element = &self.elements[index];
        let start = HEADER + index * ELEMENT + le32(element, 4) as usize;
        let middle = start + le32(element, 8) as usize;
        let end = middle + le32(element, 12) as usize;
        match (self.bytes.get(start..middle), self.bytes.get(middle..end)) {
            (Some(key), Some(value)) => {
                Ok(Element { bucket: le32(element, 0) & ELEMENT_BUCKET != 0, key, value })
            }
            _ => Err(self.bad_element(index)),
        }
    }

    /// Key of element `index`, leaf or branch.
    #[inline]
    pub(crate) fn key(&self, index: usize) -> Result<&'a [u8]> {
        let element = &self.elements[index];
        let (pos, len) = if self.leaf {
            (le32(element, 4), le32(element, 8))
        } else {
            (le32(element, 0), le32(element, 4))
        };
        let start = HEADER + index * ELEMENT + pos as usize;
        match self.bytes.get(start..start + len as usize) {
            Some(key) => Ok(key),
            None => Err(self.bad_element(index)),
        }
    }

    /// Key and page of child `index` of a branch.
    #[inline]
    pub(crate) fn child(&self, index: usize) -> Result<(&'a [u8], u64)> {
        assert!(!self.leaf, "child of a leaf");
        Ok((self.key(index)?, le64(&self.elements[index], 8)))
    }

    /// Number of elements whose key is less than `key`, or not greater if `or_equal`. Keys are taken to be sorted;
    /// in a damaged page the answer is some index.
    #[inline]
    fn count_below(&self, key: &[u8], or_equal: bool) -> Result<usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            let found = self.key(middle)?;
            if found < key || (or_equal && found == key) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The element with this key, looked for from `guess` outwards: a good guess saves the reads of a search from
    /// the middle, each of which is a cache miss in a leaf of large values.
    #[inline]
    pub(crate) fn find_near(&self, key: &[u8], guess: usize) -> Result<Option<usize>> {
        let (mut low, mut high) = (0, self.count());
        let mut probe = guess.min(high.saturating_sub(1));
        let mut step = 1;
        while low < high {
            match self.key(probe)?.cmp(key) {
                Ordering::Equal => return Ok(Some(probe)),
                Ordering::Less => {
                    low = probe + 1;
                    probe = low.saturating_add(step - 1);
                }
                Ordering::Greater => {
                    high = probe;
                    probe = high.saturating_sub(step);
                }
            }
            step *= 2;
            // Steps that leave what is left of the page, or have turned out too small, end in halving.
            if !(low..high).contains(&probe) || step > 8 {
                probe = low.midpoint(high);
            }
        }
        Ok(None)
    }

    /// Asks the processor for the element at `guess`: its key and the beginning of its value.
    #[inline]
    pub(crate) fn prefetch(&self, guess: usize) {
        const AHEAD: usize = 256;
        if let Some(element) = self.elements.get(guess) {
            let at = HEADER + guess * ELEMENT + le32(element, 4) as usize;
            self.pages.mapping.prefetch(self.offset + at as u64, AHEAD);
        }
    }

    /// First element whose key is not less than `key`.
    #[inline]
    pub(crate) fn lower_bound(&self, key: &[u8]) -> Result<usize> {
        self.count_below(key, false)
    }

    /// Child that covers `key`: the last one whose key is not greater, else the first.
    #[inline]
    pub(crate) fn child_for(&self, key: &[u8]) -> Result<usize> {
        Ok(self.count_below(key, true)?.saturating_sub(1))
    }

    /// The bucket in the value of element `index`.
    pub(crate) fn bucket(&self, index: usize) -> Result<BucketValue<'a>> {
        let element = self.element(index)?;
        let at = element.key.as_ptr_range().end as usize - self.bytes.as_ptr() as usize;
        BucketValue::decode(self.pages, element.value, self.offset + at as u64)
    }
}

/// Where a bucket's entries are.
#[derive(Clone, Copy)]
pub(crate) enum Root<'a> {
    /// In the tree below this page.
    Tree(u64),
    /// In the value itself.
    Inline(Page<'a>),
}

/// A bucket as it is stored in its parent.
#[derive(Clone, Copy)]
pub(crate) struct BucketValue<'a> {
    pub(crate) root: Root<'a>,
    pub(crate) sequence: u64,
}

impl<'a> BucketValue<'a> {
    /// Decodes the value of a bucket element that lies at `offset` of the file.
    pub(crate) fn decode(pages: &'a Pages, value: &'a [u8], offset: u64) -> Result<BucketValue<'a>> {
        let Some((head, inline)) = value.split_first_chunk::<BUCKET_HEADER>() else {
            return Err(pages.corrupt(offset, "a bucket value shorter than its header"));
        };
        let (root, sequence) = (le64(head, 0), le64(head, 8));
        if root != 0 {
            return Ok(BucketValue { root: Root::Tree(root), sequence });
        }
        let offset = offset + BUCKET_HEADER as u64;
        let Some(header) = inline.first_chunk() else {
            return Err(pages.corrupt(offset, "an inline bucket shorter than a page header"));
        };
        let page = RawPage { pages, offset, header: Header::decode(header), bytes: inline }.check()?;
        if !page.leaf {
            return Err(pages.corrupt(offset, "an inline bucket that is not a leaf"));
        }
        Ok(BucketValue { root: Root::Inline(page), sequence })
    }
}

/// Appends a leaf page (or an inline bucket's image, with id 0 and no padding) to `buffer`.
pub(crate) fn write_leaf(buffer: &mut Vec<u8>, id: u64, overflow: u32, elements: &[Element<'_>]) {
    assert!(elements.len() <= COUNT_MAX, "leaf of {} elements", elements.len());
    let header = Header { id, flags: FLAG_LEAF, count: elements.len() as u16, overflow };
    buffer.extend_from_slice(&header.encode());
    let mut data = elements.len() * ELEMENT;
    for (i, element) in elements.iter().enumerate() {
        let mut bytes = [0; ELEMENT];
        bytes[..4].copy_from_slice(&if element.bucket { ELEMENT_BUCKET } else { 0 }.to_le_bytes());
        bytes[4..8].copy_from_slice(&to_u32(data - i * ELEMENT).to_le_bytes());
        bytes[8..12].copy_from_slice(&to_u32(element.key.len()).to_le_bytes());
        bytes[12..].copy_from_slice(&to_u32(element.value.len()).to_le_bytes());
        buffer.extend_from_slice(&bytes);
        data += element.key.len() + element.value.len();
    }
    for element in elements {
        buffer.extend_from_slice(element.key);
        buffer.extend_from_slice(element.value);
    }
}

/// Appends a branch page to `buffer`, without padding.
pub(crate) fn write_branch(buffer: &mut Vec<u8>, id: u64, overflow: u32, children: &[(&[u8], u64)]) {
    assert!((2..=COUNT_MAX).contains(&children.len()), "branch of {} children", children.len());
    let header = Header { id, flags: FLAG_BRANCH, count: children.len() as u16, overflow };
    buffer.extend_from_slice(&header.encode());
    let mut data = children.len() * ELEMENT;
    for (i, (key, child)) in children.iter().enumerate() {
        let mut bytes = [0; ELEMENT];
        bytes[..4].copy_from_slice(&to_u32(data - i * ELEMENT).to_le_bytes());
        bytes[4..8].copy_from_slice(&to_u32(key.len()).to_le_bytes());
        bytes[8..].copy_from_slice(&child.to_le_bytes());
        buffer.extend_from_slice(&bytes);
        data += key.len();
    }
    for (key, _) in children {
        buffer.extend_from_slice(key);
    }
}

/// Positions and lengths are 32 bits on disk. Keys and values are within their limits, and a page ends with the
/// element that crosses its capacity, so this holds for every page we build.
fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("page below 4 GiB")
}
