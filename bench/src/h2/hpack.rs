//! HPACK (RFC 7541), as much of it as a gRPC client needs.
//!
//! The encoder emits every request header field with incremental indexing the
//! first time and as a one-byte index ever after. The decoder is complete; it
//! keeps a fully indexed header block (what a server sends once warm) cheap.

use grpc::HUFFMAN_CODES;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::OnceLock;

#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HpackError;

fn put_int(out: &mut Vec<u8>, first: u8, prefix_bits: u32, mut v: usize) {
    let max = (1usize << prefix_bits) - 1;
    if v < max {
        out.push(first | v as u8);
        return;
    }
    out.push(first | max as u8);
    v -= max;
    while v >= 128 {
        out.push((v & 127) as u8 | 128);
        v >>= 7;
    }
    out.push(v as u8);
}

fn get_int(b: &mut &[u8], prefix_bits: u32) -> Result<usize, HpackError> {
    let (&first, mut rest) = b.split_first().ok_or(HpackError)?;
    let max = (1usize << prefix_bits) - 1;
    let mut v = first as usize & max;
    if v == max {
        let mut shift = 0;
        loop {
            let (&x, r) = rest.split_first().ok_or(HpackError)?;
            rest = r;
            v += ((x & 127) as usize) << shift;
            if x & 128 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return Err(HpackError);
            }
        }
    }
    *b = rest;
    Ok(v)
}

/// The fields one request carries, in wire order. Repeating the same fields on
/// a connection is what makes the one-byte-per-field encoding possible.
pub(crate) struct Encoder {
    dynamic: Vec<(String, String)>,
    indexing: bool,
    announce_zero: bool,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Encoder { dynamic: Vec::new(), indexing: true, announce_zero: false }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. Our few entries fit the default
    /// size; with anything smaller the encoder stops using the table at all.
    pub(crate) fn peer_table_size(&mut self, size: u32) {
        if size < 4096 && self.indexing {
            self.indexing = false;
            self.announce_zero = true;
            self.dynamic.clear();
        }
    }

    pub(crate) fn encode(&mut self, fields: &[(&str, &str)], out: &mut Vec<u8>) {
        if self.announce_zero {
            out.push(0x20);
            self.announce_zero = false;
        }
        for &(name, value) in fields {
            let n = self.dynamic.len();
            let known = self.dynamic.iter().position(|(k, v)| k == name && v == value);
            if let Some(i) = known {
                put_int(out, 0x80, 7, 62 + (n - 1 - i));
                continue;
            }
            if let Some(i) = STATIC.iter().position(|&(k, v)| k == name && v == value) {
                put_int(out, 0x80, 7, i + 1);
                continue;
            }
            let name_index = STATIC.iter().position(|&(k, _)| k == name).map_or(0, |i| i + 1);
            if self.indexing {
                put_int(out, 0x40, 6, name_index);
                self.dynamic.push((name.into(), value.into()));
            } else {
                put_int(out, 0x00, 4, name_index);
            }
            if name_index == 0 {
                put_int(out, 0, 7, name.len());
                out.extend_from_slice(name.as_bytes());
            }
            put_int(out, 0, 7, value.len());
            out.extend_from_slice(value.as_bytes());
        }
    }
}

type Field = (Rc<str>, Rc<str>);

pub(crate) struct Decoder {
    dynamic: VecDeque<Field>,
    size: usize,
    max_size: usize,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Decoder { dynamic: VecDeque::new(), size: 0, max_size: 4096 }
    }

    pub(crate) fn decode(
        &mut self,
        mut b: &[u8],
        mut field: impl FnMut(&str, &str),
    ) -> Result<(), HpackError> {
        while let Some(&first) = b.first() {
            if first & 0x80 != 0 {
                let i = get_int(&mut b, 7)?;
                self.with_index(i, &mut field)?;
            } else if first & 0xc0 == 0x40 {
                let f = self.literal(&mut b, 6)?;
                field(&f.0, &f.1);
                self.insert(f);
            } else if first & 0xe0 == 0x20 {
                let n = get_int(&mut b, 5)?;
                if n > 4096 {
                    return Err(HpackError);
                }
                self.max_size = n;
                self.evict();
            } else {
                let f = self.literal(&mut b, 4)?;
                field(&f.0, &f.1);
            }
        }
        Ok(())
    }

    fn with_index(&self, i: usize, field: &mut impl FnMut(&str, &str)) -> Result<(), HpackError> {
        match i {
            0 => return Err(HpackError),
            1..=61 => field(STATIC[i - 1].0, STATIC[i - 1].1),
            _ => {
                let f = self.dynamic.get(i - 62).ok_or(HpackError)?;
                field(&f.0, &f.1);
            }
        }
        Ok(())
    }

    fn literal(&self, b: &mut &[u8], prefix_bits: u32) -> Result<Field, HpackError> {
        let name = match get_int(b, prefix_bits)? {
            0 => string(b)?,
            i @ 1..=61 => STATIC[i - 1].0.into(),
            i => self.dynamic.get(i - 62).ok_or(HpackError)?.0.clone(),
        };
        Ok((name, string(b)?))
    }

    fn insert(&mut self, f: Field) {
        self.size += f.0.len() + f.1.len() + 32;
        self.dynamic.push_front(f);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.max_size {
            let Some(f) = self.dynamic.pop_back() else { break };
            self.size -= f.0.len() + f.1.len() + 32;
        }
    }
}

fn string(b: &mut &[u8]) -> Result<Rc<str>, HpackError> {
    let huffman_coded = *b.first().ok_or(HpackError)? & 0x80 != 0;
    let n = get_int(b, 7)?;
    if n > b.len() {
        return Err(HpackError);
    }
    let (raw, rest) = b.split_at(n);
    *b = rest;
    if huffman_coded {
        let v = huffman_decode(raw)?;
        Ok(String::from_utf8_lossy(&v).into())
    } else {
        Ok(String::from_utf8_lossy(raw).into())
    }
}

/// A node is a pair of links: >= 0 is the next node, < 0 is `-(symbol + 1)`.
fn tree() -> &'static [[i32; 2]] {
    static TREE: OnceLock<Vec<[i32; 2]>> = OnceLock::new();
    TREE.get_or_init(|| {
        let mut t = vec![[0i32; 2]];
        for (symbol, &(code, len)) in HUFFMAN_CODES.iter().enumerate() {
            let mut at = 0;
            for bit in (0..len).rev() {
                let side = (code >> bit & 1) as usize;
                if bit == 0 {
                    t[at][side] = -(symbol as i32 + 1);
                } else {
                    if t[at][side] == 0 {
                        t.push([0; 2]);
                        t[at][side] = t.len() as i32 - 1;
                    }
                    at = t[at][side] as usize;
                }
            }
        }
        t
    })
}

fn huffman_decode(raw: &[u8]) -> Result<Vec<u8>, HpackError> {
    let t = tree();
    let mut out = Vec::with_capacity(raw.len() * 2);
    let (mut at, mut depth, mut all_ones) = (0usize, 0, true);
    for &byte in raw {
        for bit in (0..8).rev() {
            let side = (byte >> bit & 1) as usize;
            all_ones &= side == 1;
            depth += 1;
            match t[at][side] {
                0 => return Err(HpackError),
                n if n > 0 => at = n as usize,
                n => {
                    out.push((-n - 1) as u8);
                    (at, depth, all_ones) = (0, 0, true);
                }
            }
        }
    }
    // What is left must be padding: fewer than eight one bits.
    if depth >= 8 || !all_ones { Err(HpackError) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(d: &mut Decoder, hex: &str) -> Vec<String> {
        let raw: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        let mut v = vec![];
        d.decode(&raw, |n, x| v.push(format!("{n}: {x}"))).unwrap();
        v
    }

    #[test]
    fn rfc7541_c4_requests_with_huffman() {
        let mut d = Decoder::new();
        assert_eq!(
            all(&mut d, "828684418cf1e3c2e5f23a6ba0ab90f4ff"),
            [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"]
        );
        assert_eq!(
            all(&mut d, "828684be5886a8eb10649cbf"),
            [
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com",
                "cache-control: no-cache"
            ]
        );
        assert_eq!(
            all(&mut d, "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf")[4],
            "custom-key: custom-value"
        );
    }

    #[test]
    fn encoder_round_trip_and_steady_state_size() {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/etcdserverpb.KV/Put"),
            (":authority", "127.0.0.1:2379"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let (mut e, mut d) = (Encoder::new(), Decoder::new());
        for round in 0..3 {
            let mut out = vec![];
            e.encode(&fields, &mut out);
            if round > 0 {
                assert_eq!(out.len(), fields.len());
            }
            let mut got = vec![];
            d.decode(&out, |n, v| got.push((n.to_string(), v.to_string()))).unwrap();
            let want: Vec<_> = fields.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
            assert_eq!(got, want);
        }
        e.peer_table_size(0);
        let mut out = vec![];
        e.encode(&fields, &mut out);
        let mut got = vec![];
        d.decode(&out, |n, _| got.push(n.to_string())).unwrap();
        assert_eq!(got.len(), fields.len());
    }

    #[test]
    fn integers() {
        for v in [0, 1, 30, 31, 127, 128, 1337, 65535] {
            for p in [4, 5, 6, 7] {
                let mut out = vec![];
                put_int(&mut out, 0, p, v);
                let mut b = &out[..];
                assert_eq!(get_int(&mut b, p), Ok(v));
                assert!(b.is_empty());
            }
        }
    }
}
