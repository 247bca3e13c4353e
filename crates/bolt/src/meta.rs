//! The two meta pages: which tree is the database, and which of the two is believed.
//!
//! Invariants:
//! 1. Transaction `t` writes its meta to page `t mod 2`, so the meta of `t - 1` is not touched.
//! 2. A meta is written only after every page it reaches is durable (`commit.rs`).
//! 3. The meta in the slot that is overwritten is never the newest durable one. After opening a file whose newest
//!    meta lies in the wrong slot (a copy made by Go's `WriteTo` at an odd transaction), one number is skipped.
//! 4. Of two valid metas the one with the higher transaction wins; a torn one fails its checksum.
//! 5. The 64 bytes of a meta lie within one 512-byte sector (16 to 80 of the page).

use std::path::Path;

use disk::File;

use crate::error::{Error, Result};
use crate::page::{FLAG_META, HEADER, Header};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// `freelist` of a file whose free pages are not written down but found by walking it.
pub(crate) const NO_FREELIST: u64 = u64::MAX;

// Offsets within the meta, which follows the page header.
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = AT_MAGIC + 4;
const AT_PAGE_SIZE: usize = AT_VERSION + 4;
const AT_FLAGS: usize = AT_PAGE_SIZE + 4;
const AT_ROOT: usize = AT_FLAGS + 4;
const AT_SEQUENCE: usize = AT_ROOT + 8;
const AT_FREELIST: usize = AT_SEQUENCE + 8;
const AT_HIGH_WATER: usize = AT_FREELIST + 8;
const AT_TXID: usize = AT_HIGH_WATER + 8;
const AT_CHECKSUM: usize = AT_TXID + 8;
const META: usize = AT_CHECKSUM + 8;
/// Bytes of a meta page that mean anything.
pub(crate) const META_PAGE_USED: usize = HEADER + META;

/// Smallest and largest page size that is probed for.
pub(crate) const PAGE_SIZE_MIN: u32 = 1 << 10;
pub(crate) const PAGE_SIZE_MAX: u32 = 1 << 24;

/// One state of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size: u32,
    pub(crate) flags: u32,
    /// Root page of the bucket of buckets.
    pub(crate) root: u64,
    pub(crate) sequence: u64,
    pub(crate) freelist: u64,
    /// First page id that is not in use.
    pub(crate) high_water: u64,
    pub(crate) txid: u64,
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Why bytes are not a meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotMeta {
    /// No meta was ever written here, or something wrote over it.
    Magic,
    /// A later format.
    Version(u32),
    /// Torn or damaged.
    Checksum,
}

impl Meta {
    /// Decodes the used bytes of a meta page.
    pub(crate) fn decode(page: &[u8; META_PAGE_USED]) -> std::result::Result<Meta, NotMeta> {
        let meta = &page[HEADER..];
        let u32_at = |at: usize| u32::from_le_bytes([meta[at], meta[at + 1], meta[at + 2], meta[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(AT_MAGIC) != MAGIC {
            return Err(NotMeta::Magic);
        }
        if fnv1a(&meta[..AT_CHECKSUM]) != u64_at(AT_CHECKSUM) {
            return Err(NotMeta::Checksum);
        }
        if u32_at(AT_VERSION) != VERSION {
            return Err(NotMeta::Version(u32_at(AT_VERSION)));
        }
        Ok(Meta {
            page_size: u32_at(AT_PAGE_SIZE),
            flags: u32_at(AT_FLAGS),
            root: u64_at(AT_ROOT),
            sequence: u64_at(AT_SEQUENCE),
            freelist: u64_at(AT_FREELIST),
            high_water: u64_at(AT_HIGH_WATER),
            txid: u64_at(AT_TXID),
        })
    }

    /// The used bytes of the meta page in `slot`; the rest of the page is zeros.
    pub(crate) fn encode(&self, slot: u64) -> [u8; META_PAGE_USED] {
        let mut page = [0; META_PAGE_USED];
        let header = Header { id: slot, flags: FLAG_META, count: 0, overflow: 0 };
        page[..HEADER].copy_from_slice(&header.encode());
        let meta = &mut page[HEADER..];
        meta[AT_MAGIC..][..4].copy_from_slice(&MAGIC.to_le_bytes());
        meta[AT_VERSION..][..4].copy_from_slice(&VERSION.to_le_bytes());
        meta[AT_PAGE_SIZE..][..4].copy_from_slice(&self.page_size.to_le_bytes());
        meta[AT_FLAGS..][..4].copy_from_slice(&self.flags.to_le_bytes());
        meta[AT_ROOT..][..8].copy_from_slice(&self.root.to_le_bytes());
        meta[AT_SEQUENCE..][..8].copy_from_slice(&self.sequence.to_le_bytes());
        meta[AT_FREELIST..][..8].copy_from_slice(&self.freelist.to_le_bytes());
        meta[AT_HIGH_WATER..][..8].copy_from_slice(&self.high_water.to_le_bytes());
        meta[AT_TXID..][..8].copy_from_slice(&self.txid.to_le_bytes());
        let checksum = fnv1a(&meta[..AT_CHECKSUM]);
        meta[AT_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    /// The page it belongs in.
    pub(crate) fn slot(&self) -> u64 {
        self.txid % 2
    }

    /// Whether the numbers fit a file of `len` bytes; otherwise what is wrong.
    fn fits(&self, len: u64) -> std::result::Result<(), String> {
        let size = self.page_size;
        if !size.is_power_of_two() || !(PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&size) {
            return Err(format!("a page size of {size} bytes"));
        }
        match self.high_water.checked_mul(u64::from(size)) {
            Some(used) if used <= len => {}
            _ => {
                let high_water = self.high_water;
                return Err(format!(
                    "{high_water} pages of {size} bytes are in use, but the file has {len} bytes: it was cut short"
                ));
            }
        }
        let in_use = 2..self.high_water;
        if !in_use.contains(&self.root) {
            return Err(format!(
                "the root is page {}, and pages 2 to {} are in use",
                self.root, self.high_water
            ));
        }
        if self.freelist != NO_FREELIST && !in_use.contains(&self.freelist) {
            return Err(format!("the free list is page {}, of {} in use", self.freelist, self.high_water));
        }
        if self.txid == u64::MAX || self.txid == u64::MAX - 1 {
            return Err(format!("transaction {}, the last one there can be", self.txid));
        }
        Ok(())
    }
}

/// What the meta pages of a file say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The state to go on with.
    pub(crate) meta: Meta,
    /// The page it was found in.
    pub(crate) slot: u64,
    /// High-water mark of the other valid meta, if there is one.
    pub(crate) other_high_water: u64,
}

fn read_meta(file: &dyn File, offset: u64) -> Result<Option<std::result::Result<Meta, NotMeta>>> {
    let mut page = [0; META_PAGE_USED];
    let mut filled = 0;
    while filled < page.len() {
        match file.read_at(&mut page[filled..], offset + filled as u64)? {
            0 => return Ok(None),
            n => filled += n,
        }
    }
    Ok(Some(Meta::decode(&page)))
}

/// Reads both metas, probing for the page size when the first is not readable, and picks the state to go on with.
pub(crate) fn find(file: &dyn File, path: &Path, len: u64) -> Result<Found> {
    let first = read_meta(file, 0)?;
    let second = match first {
        Some(Ok(meta)) => read_meta(file, u64::from(meta.page_size))?,
        _ => probe(file)?,
    };
    let valid = |found: Option<std::result::Result<Meta, NotMeta>>| found.and_then(std::result::Result::ok);
    // A second meta of another page size is not a meta of this file but bytes that look like one.
    let second_meta = match (valid(first), valid(second)) {
        (Some(a), Some(b)) if a.page_size != b.page_size => None,
        (_, b) => b,
    };
    let (meta, slot, other) = match (valid(first), second_meta) {
        (Some(a), Some(b)) if b.txid > a.txid => (b, 1, Some(a)),
        (Some(a), b) => (a, 0, b),
        (None, Some(b)) => (b, 1, None),
        (None, None) => return Err(neither(path, first, second)),
    };
    if let Err(what) = meta.fits(len) {
        return Err(Error::corrupt(
            path,
            slot * u64::from(meta.page_size),
            format!("meta page {slot}: {what}"),
        ));
    }
    Ok(Found { meta, slot, other_high_water: other.map_or(0, |m| m.high_water) })
}

/// The second meta of a file whose first is unreadable: it lies one page size in, whatever that is.
fn probe(file: &dyn File) -> Result<Option<std::result::Result<Meta, NotMeta>>> {
    let mut seen = None;
    let mut size = PAGE_SIZE_MIN;
    while size <= PAGE_SIZE_MAX {
        match read_meta(file, u64::from(size))? {
            None => break,
            Some(Ok(meta)) if meta.page_size == size => return Ok(Some(Ok(meta))),
            Some(Err(NotMeta::Magic) | Ok(_)) => {}
            Some(Err(why)) => seen = Some(Err(why)),
        }
        size *= 2;
    }
    Ok(seen)
}

#[cold]
fn neither(
    path: &Path,
    first: Option<std::result::Result<Meta, NotMeta>>,
    second: Option<std::result::Result<Meta, NotMeta>>,
) -> Error {
    for found in [first, second] {
        if let Some(Err(NotMeta::Version(version))) = found {
            let what = format!("database format version {version}; this program knows version {VERSION}");
            return Error::corrupt(path, HEADER as u64, what);
        }
    }
    let what = match (first, second) {
        (Some(Err(NotMeta::Checksum)), _) | (_, Some(Err(NotMeta::Checksum))) => {
            "neither meta page has a valid checksum"
        }
        _ => "no meta page found; this is not a database file",
    };
    Error::corrupt(path, 0, what)
}
