//! The static table, and the dynamic table of the decoder.
//!
//! Invariants of [`DynamicTable`]:
//! - `size` is the sum of name + value + 32 over `entries`, never above `max_size`.
//! - An entry's bytes are contiguous in `bytes`; entries follow each other as in a ring buffer and wrap to 0 where the
//!   next one does not fit before the end.
//! - `bytes.len()` is at least twice the bytes of all live entries plus the one being added. That is what makes the
//!   ring always fit: before a wrap the live bytes end above `len - new`, so they begin above `len / 2 - new`.

use std::collections::VecDeque;

use super::name::Name;
use crate::limits::HEADER_TABLE_MAX_BYTES;

pub(crate) struct StaticEntry {
    pub(crate) name: Name,
    pub(crate) name_bytes: &'static [u8],
    pub(crate) value: &'static [u8],
}

const fn e(name: &'static str, value: &'static str) -> StaticEntry {
    StaticEntry { name: Name::of(name.as_bytes()), name_bytes: name.as_bytes(), value: value.as_bytes() }
}

/// RFC 7541 appendix A; index 1 is at 0.
#[rustfmt::skip]
pub(crate) static STATIC: [StaticEntry; 61] = [
    e(":authority", ""), e(":method", "GET"), e(":method", "POST"), e(":path", "/"),
    e(":path", "/index.html"), e(":scheme", "http"), e(":scheme", "https"), e(":status", "200"),
    e(":status", "204"), e(":status", "206"), e(":status", "304"), e(":status", "400"),
    e(":status", "404"), e(":status", "500"), e("accept-charset", ""),
    e("accept-encoding", "gzip, deflate"), e("accept-language", ""), e("accept-ranges", ""),
    e("accept", ""), e("access-control-allow-origin", ""), e("age", ""), e("allow", ""),
    e("authorization", ""), e("cache-control", ""), e("content-disposition", ""),
    e("content-encoding", ""), e("content-language", ""), e("content-length", ""),
    e("content-location", ""), e("content-range", ""), e("content-type", ""), e("cookie", ""),
    e("date", ""), e("etag", ""), e("expect", ""), e("expires", ""), e("from", ""), e("host", ""),
    e("if-match", ""), e("if-modified-since", ""), e("if-none-match", ""), e("if-range", ""),
    e("if-unmodified-since", ""), e("last-modified", ""), e("link", ""), e("location", ""),
    e("max-forwards", ""), e("proxy-authenticate", ""), e("proxy-authorization", ""), e("range", ""),
    e("referer", ""), e("refresh", ""), e("retry-after", ""), e("server", ""), e("set-cookie", ""),
    e("strict-transport-security", ""), e("transfer-encoding", ""), e("user-agent", ""), e("vary", ""),
    e("via", ""), e("www-authenticate", ""),
];

/// Where an entry's bytes are, and what has been learnt about it.
#[derive(Clone, Copy)]
struct Entry {
    at: u16,
    name_len: u16,
    value_len: u16,
    name: Name,
    /// For the reader of the field: what it made of the value last time; 0 before.
    memo: u32,
}

impl Entry {
    fn len(&self) -> usize {
        usize::from(self.name_len) + usize::from(self.value_len)
    }
}

pub(crate) struct DynamicTable {
    /// Oldest first.
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    head: usize,
    live: usize,
    size: usize,
    max_size: usize,
}

/// An entry seen from outside.
pub(crate) struct Found<'a> {
    pub(crate) name: Name,
    pub(crate) name_bytes: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) memo: &'a mut u32,
}

impl DynamicTable {
    pub(crate) fn new() -> DynamicTable {
        DynamicTable {
            entries: VecDeque::new(),
            bytes: Vec::new(),
            head: 0,
            live: 0,
            size: 0,
            max_size: HEADER_TABLE_MAX_BYTES,
        }
    }

    /// Entry `i`, 0 being the newest.
    pub(crate) fn get(&mut self, i: usize) -> Option<Found<'_>> {
        let i = self.entries.len().checked_sub(i + 1)?;
        let e = &mut self.entries[i];
        let (at, name_len) = (usize::from(e.at), usize::from(e.name_len));
        let (name_bytes, value) = self.bytes[at..at + e.len()].split_at(name_len);
        Some(Found { name: e.name, name_bytes, value, memo: &mut e.memo })
    }

    /// Sets the size the peer announced, which the caller has compared with the allowed one.
    pub(crate) fn resize(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict(0);
    }

    /// Adds an entry whose bytes are the name followed by the value. One that is larger than the table empties it.
    pub(crate) fn insert(&mut self, name: Name, field: &[u8], name_len: usize, memo: u32) {
        let size = field.len() + 32;
        self.evict(size);
        if size > self.max_size {
            return;
        }
        if self.bytes.len() < 2 * (self.live + field.len()) {
            self.grow(field.len());
        }
        let at = if self.head + field.len() > self.bytes.len() { 0 } else { self.head };
        self.bytes[at..at + field.len()].copy_from_slice(field);
        self.head = at + field.len();
        self.live += field.len();
        self.size += size;
        self.entries.push_back(Entry {
            at: at as u16,
            name_len: name_len as u16,
            value_len: (field.len() - name_len) as u16,
            name,
            memo,
        });
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max_size {
            let Some(e) = self.entries.pop_front() else { return };
            self.size -= e.len() + 32;
            self.live -= e.len();
        }
    }

    /// Moves everything to a larger buffer, oldest first.
    fn grow(&mut self, room: usize) {
        let mut to = vec![0; (2 * (self.live + room)).next_power_of_two().max(1024)];
        let mut head = 0;
        for e in &mut self.entries {
            let (at, len) = (usize::from(e.at), e.len());
            to[head..head + len].copy_from_slice(&self.bytes[at..at + len]);
            e.at = head as u16;
            head += len;
        }
        self.bytes = to;
        self.head = head;
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
