//! HTTP/2 frames: the nine-byte head, padding, and the small frames we write.
//!
//! ```text
//! 0        3      4       5                    9
//! | length | type | flags | 0, stream (31 bit) | payload
//! ```

use crate::error::Reason;

pub(crate) const HEAD_BYTES: usize = 9;
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) fn parse(b: &[u8; HEAD_BYTES]) -> Head {
        Head {
            len: usize::from(b[0]) << 16 | usize::from(b[1]) << 8 | usize::from(b[2]),
            kind: b[3],
            flags: b[4],
            stream: be32(&b[5..9]) & 0x7fff_ffff,
        }
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The first four bytes as a number; callers have checked the length.
pub(crate) fn be32(b: &[u8]) -> u32 {
    u32::from_be_bytes([b[0], b[1], b[2], b[3]])
}

pub(crate) fn put_head(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    let n = (len as u32).to_be_bytes();
    let s = stream.to_be_bytes();
    out.extend_from_slice(&[n[1], n[2], n[3], kind, flags, s[0], s[1], s[2], s[3]]);
}

/// Writes the length into a head that was put with another one.
pub(crate) fn patch_len(out: &mut [u8], at: usize, len: usize) {
    let n = (len as u32).to_be_bytes();
    out[at..at + 3].copy_from_slice(&n[1..]);
}

/// The payload without its padding; `None` if the padding is longer than the frame.
pub(crate) fn unpad(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (&pad, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(pad))?)
}

pub(crate) fn put_rst(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    put_head(out, 4, kind::RST_STREAM, 0, stream);
    out.extend_from_slice(&(reason as u32).to_be_bytes());
}

pub(crate) fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put_head(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(crate) fn put_ping(out: &mut Vec<u8>, ack: bool, data: &[u8]) {
    put_head(out, 8, kind::PING, u8::from(ack), 0);
    out.extend_from_slice(data);
}

pub(crate) fn put_goaway(out: &mut Vec<u8>, last: u32, reason: Reason, debug: &[u8]) {
    put_head(out, 8 + debug.len(), kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(reason as u32).to_be_bytes());
    out.extend_from_slice(debug);
}

pub(crate) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    put_head(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_round_trip_and_reserved_bit() {
        let mut out = Vec::new();
        put_head(&mut out, 0x01_02_03, kind::DATA, 0x9, 0x7fff_fffd);
        out[5] |= 0x80;
        let head = Head::parse(out[..].try_into().unwrap());
        assert_eq!(head, Head { len: 0x01_02_03, kind: 0, flags: 9, stream: 0x7fff_fffd });
    }

    #[test]
    fn padding() {
        let head = |flags| Head { len: 0, kind: 0, flags, stream: 1 };
        assert_eq!(unpad(head(0), b"abc"), Some(&b"abc"[..]));
        assert_eq!(unpad(head(8), &[2, b'a', 0, 0]), Some(&b"a"[..]));
        assert_eq!(unpad(head(8), &[3, 0, 0, 0]), Some(&b""[..]));
        assert_eq!(unpad(head(8), &[4, 0, 0, 0]), None);
        assert_eq!(unpad(head(8), &[]), None);
    }
}
