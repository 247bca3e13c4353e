//! The encoder. It keeps two entries in the client's table and sends every other field as a literal that is not
//! indexed, so that the indices never move: a warm reply is `88 bf` (headers) and `be` (trailers).

use super::put_int;

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Size of the two entries as RFC 7541 section 4.1 counts them.
const NEEDED: u32 = (12 + 16 + 32) + (11 + 1 + 32);

/// Static table indices of the names we send.
pub(crate) mod index {
    pub(crate) const STATUS: usize = 8;
    pub(crate) const CONTENT_TYPE: usize = 31;
}

pub(crate) struct Encoder {
    /// Dynamic index of `content-type: application/grpc`; 0 when it is not in the table.
    content_type: u8,
    /// Dynamic index of `grpc-status: 0`; 0 when it is not in the table.
    status_ok: u8,
    /// The table size we use: 0 or at least `NEEDED`.
    size: u32,
    /// Size updates to be sent at the start of the next block: the smallest size since the last one.
    announce: Option<u32>,
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder { content_type: 0, status_ok: 0, size: 4096, announce: None }
    }

    /// The client's SETTINGS_HEADER_TABLE_SIZE.
    pub(crate) fn peer_table_size(&mut self, size: u32) {
        let size = if size < NEEDED { 0 } else { size.min(4096) };
        if size == self.size {
            return;
        }
        self.announce = Some(self.announce.unwrap_or(self.size).min(size));
        self.size = size;
        if size == 0 {
            self.content_type = 0;
            self.status_ok = 0;
        }
    }

    /// Must be called first in every header block.
    #[inline]
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(smallest) = self.announce.take() {
            if smallest < self.size {
                put_int(out, 0x20, 5, smallest as usize);
            }
            put_int(out, 0x20, 5, self.size as usize);
        }
    }

    /// `:status: 200` and `content-type: application/grpc`.
    #[inline]
    pub(crate) fn grpc_head(&mut self, out: &mut Vec<u8>) {
        out.push(0x88);
        if self.content_type != 0 {
            out.push(0x80 | self.content_type);
        } else if self.size != 0 {
            put_int(out, 0x40, 6, index::CONTENT_TYPE);
            put_string(out, CONTENT_TYPE);
            self.content_type = 62;
            if self.status_ok != 0 {
                self.status_ok += 1;
            }
        } else {
            literal(out, index::CONTENT_TYPE, b"", CONTENT_TYPE);
        }
    }

    /// `grpc-status: 0`.
    #[inline]
    pub(crate) fn status_ok(&mut self, out: &mut Vec<u8>) {
        if self.status_ok != 0 {
            out.push(0x80 | self.status_ok);
        } else if self.size != 0 {
            out.push(0x40);
            put_string(out, b"grpc-status");
            put_string(out, b"0");
            self.status_ok = 62;
            if self.content_type != 0 {
                self.content_type += 1;
            }
        } else {
            literal(out, 0, b"grpc-status", b"0");
        }
    }

    /// Whether the next reply is written in its shortest form.
    #[inline]
    pub(crate) fn is_warm(&self) -> bool {
        self.content_type == 63 && self.status_ok == 62 && self.announce.is_none()
    }
}

/// A field that leaves the table alone; `index` names it, or 0 and the name itself.
pub(crate) fn literal(out: &mut Vec<u8>, index: usize, name: &[u8], value: &[u8]) {
    put_int(out, 0x00, 4, index);
    if index == 0 {
        put_string(out, name);
    }
    put_string(out, value);
}

/// `:status` of a plain answer.
pub(crate) fn http_status(out: &mut Vec<u8>, status: u16) {
    let known = match status {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => 0,
    };
    if known != 0 {
        out.push(0x80 | known);
    } else {
        let digits =
            [b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
        literal(out, index::STATUS, b"", &digits);
    }
}

fn put_string(out: &mut Vec<u8>, s: &[u8]) {
    put_int(out, 0, 7, s.len());
    out.extend_from_slice(s);
}
