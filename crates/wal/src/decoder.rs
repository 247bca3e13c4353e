//! Bytes to records: framing, checksums, and which damage a crash explains.
//!
//! # Invariants
//!
//! 1. A record handed out has a right checksum, chained over all content from the segment's first record on.
//! 2. `offset` is the end of the last record handed out; nothing behind it has been believed.
//! 3. Damage is *torn* only in the last segment, and only if an interrupted write explains it: the file ends inside
//!    the frame, or a 512-byte sector that the frame covers holds only zeros (segments are zero-filled before they
//!    are written, so a sector that was not written in time reads as zeros). Everything else is corruption, which is
//!    never repaired: an acknowledged entry might be among what a repair would drop.
//! 4. No length found in the file is believed beyond the length of the file.

use crate::encoder::LENGTH_FIELD;
use crate::record::{Kind, RawRecord, Record};

/// What a device writes whole or not at all.
pub const SECTOR: u64 = 512;
const LENGTH_MASK: u64 = (1 << 56) - 1;

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write was interrupted.
    Torn(String),
    /// No interrupted write explains it.
    Corrupt(String),
}

/// What stands at the present offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing more: the end of the file or of what is written in it.
    End,
    /// At least so many bytes from the offset on are needed to tell.
    More(u64),
    /// A whole frame, padding and all.
    Whole {
        /// Bytes of the record in it.
        record: usize,
        /// Bytes of the frame.
        len: usize,
    },
}

/// Decodes one segment.
#[derive(Clone, Debug)]
pub struct Decoder {
    crc: u32,
    offset: u64,
    file_len: u64,
    is_last: bool,
}

impl Decoder {
    /// At the beginning of a segment of `file_len` bytes, after a segment that ended with checksum `crc` (0: none).
    pub fn new(crc: u32, file_len: u64, is_last: bool) -> Decoder {
        Decoder { crc, offset: 0, file_len, is_last }
    }

    /// Where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The running checksum.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    fn torn(&self, what: String) -> Fault {
        if self.is_last { Fault::Torn(what) } else { Fault::Corrupt(what) }
    }

    /// Measures the frame at the offset; `available` are the bytes from there on, as many as there are at hand.
    ///
    /// # Errors
    /// The file ends inside the frame.
    pub fn frame(&self, available: &[u8]) -> Result<Frame, Fault> {
        let rest = self.file_len.saturating_sub(self.offset);
        if rest == 0 {
            return Ok(Frame::End);
        }
        if rest < LENGTH_FIELD as u64 {
            return Err(self.torn("the file ends inside a length field".to_owned()));
        }
        let Some(field) = available.first_chunk::<LENGTH_FIELD>() else {
            return Ok(Frame::More(LENGTH_FIELD as u64));
        };
        let field = u64::from_le_bytes(*field);
        if field == 0 {
            return Ok(Frame::End);
        }
        let record = field & LENGTH_MASK;
        // Go looks at the padding only when the top bit is set.
        let padding = if field >> 63 == 1 { (field >> 56) & 7 } else { 0 };
        let len = LENGTH_FIELD as u64 + record + padding;
        if len > rest {
            return Err(self.torn(format!("a record of {record} bytes, but only {rest} bytes are left")));
        }
        if len > available.len() as u64 {
            return Ok(Frame::More(len));
        }
        Ok(Frame::Whole { record: record as usize, len: len as usize })
    }

    /// Takes the record out of a frame that [`Decoder::frame`] has measured, and goes on behind it.
    ///
    /// # Errors
    /// It is no record, or its checksum is wrong.
    pub fn take<'a>(&mut self, frame: &'a [u8], record_len: usize) -> Result<Record<'a>, Fault> {
        let bytes = &frame[LENGTH_FIELD..LENGTH_FIELD + record_len];
        let Ok(raw) = RawRecord::parse(bytes) else {
            return Err(self.damage(frame, "not a log record".to_owned()));
        };
        let kind = Kind::of(raw.kind);
        let crc = if kind == Some(Kind::Crc) {
            // The chain may begin anywhere, but where it goes on, it must be the same.
            if self.crc != 0 && raw.crc != self.crc {
                return Err(Fault::Corrupt(format!(
                    "the chain of checksums goes on with {:x} instead of {:x}",
                    raw.crc, self.crc
                )));
            }
            raw.crc
        } else {
            crc32c::crc32c_append(self.crc, raw.data)
        };
        if crc != raw.crc {
            let what = format!("crc mismatch: expected: {:x} computed: {crc:x}", raw.crc);
            return Err(self.damage(frame, what));
        }
        let Some(kind) = kind else {
            return Err(Fault::Corrupt(format!("unexpected record type {}", raw.kind)));
        };
        self.crc = crc;
        self.offset += frame.len() as u64;
        Ok(Record { kind, crc, data: raw.data })
    }

    fn damage(&self, frame: &[u8], what: String) -> Fault {
        if self.is_last && has_zero_sector(&frame[LENGTH_FIELD..], self.offset + LENGTH_FIELD as u64) {
            return Fault::Torn(format!("{what}, and a sector of it holds only zeros"));
        }
        Fault::Corrupt(what)
    }
}

/// Whether one of the pieces into which sector boundaries cut `bytes`, which stand at `offset`, holds only zeros.
fn has_zero_sector(mut bytes: &[u8], mut offset: u64) -> bool {
    while !bytes.is_empty() {
        let piece = (SECTOR - offset % SECTOR).min(bytes.len() as u64);
        let (now, rest) = bytes.split_at(piece as usize);
        if now.iter().all(|&byte| byte == 0) {
            return true;
        }
        (bytes, offset) = (rest, offset + piece);
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoder::Encoder;

    type Records = Vec<(Kind, Vec<u8>)>;

    fn decode_all(bytes: &[u8], is_last: bool) -> (Records, Result<u64, Fault>) {
        let mut decoder = Decoder::new(0, bytes.len() as u64, is_last);
        let mut records = Vec::new();
        loop {
            let available = &bytes[decoder.offset() as usize..];
            let (record, len) = match decoder.frame(available) {
                Ok(Frame::Whole { record, len }) => (record, len),
                Ok(Frame::End) => return (records, Ok(decoder.offset())),
                Ok(Frame::More(_)) => panic!("all bytes are at hand"),
                Err(fault) => return (records, Err(fault)),
            };
            match decoder.take(&available[..len], record) {
                Ok(record) => records.push((record.kind, record.data.to_vec())),
                Err(fault) => return (records, Err(fault)),
            }
        }
    }

    fn encode_all(records: &[(Kind, Vec<u8>)]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        for (kind, data) in records {
            match kind {
                Kind::Crc => encoder.put_crc(&mut out),
                _ => encoder.put(*kind, data, &mut out),
            }
        }
        out
    }

    fn records() -> impl Strategy<Value = Records> {
        let kind =
            prop_oneof![Just(Kind::Metadata), Just(Kind::Entry), Just(Kind::State), Just(Kind::Snapshot)];
        let data = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(any::<u8>(), 0..3000),
            prop::collection::vec(Just(0), 0..1500),
        ];
        prop::collection::vec((kind, data), 1..12)
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(records in records(), zeros in 0_usize..2000) {
            let mut bytes = encode_all(&records);
            let end = bytes.len() as u64;
            bytes.resize(bytes.len() + zeros / 8 * 8, 0);
            prop_assert_eq!(decode_all(&bytes, true), (records, Ok(end)));
        }

        #[test]
        fn any_bytes_are_records_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..400), is_last: bool) {
            let _any_answer_but_a_panic = decode_all(&bytes, is_last);
        }

        #[test]
        fn a_cut_file_ends_or_is_torn(records in records(), cut in any::<prop::sample::Index>()) {
            let bytes = encode_all(&records);
            let cut = cut.index(bytes.len());
            let (found, end) = decode_all(&bytes[..cut], true);
            prop_assert!(records.starts_with(&found));
            prop_assert!(matches!(end, Ok(_) | Err(Fault::Torn(_))));
            prop_assert_eq!(end.is_ok(), encode_all(&found).len() == cut);
            let (_, end) = decode_all(&bytes[..cut], false);
            prop_assert!(!matches!(end, Err(Fault::Torn(_))));
        }

        /// Whatever sectors of an append were lost, what was there before it is read, and nothing is refused.
        #[test]
        fn lost_sectors_are_torn_never_corrupt(
            before in records(), after in records(), lost in prop::collection::vec(any::<bool>(), 100),
        ) {
            let all: Vec<_> = before.iter().chain(&after).cloned().collect();
            let synced = encode_all(&before).len();
            let mut bytes = encode_all(&all);
            bytes.resize(bytes.len().next_multiple_of(512) + 512, 0);
            for (sector, lost) in bytes.chunks_mut(512).zip(lost).enumerate().map(|(nth, (s, l))| ((nth, s), l)) {
                let (nth, sector) = sector;
                let kept = synced.saturating_sub(nth * 512).min(512);
                if lost {
                    sector[kept..].fill(0);
                }
            }
            let (found, end) = decode_all(&bytes, true);
            prop_assert!(found.starts_with(&before));
            prop_assert!(!matches!(end, Err(Fault::Corrupt(_))), "{end:?}");
        }

        #[test]
        fn a_flipped_bit_is_noticed(records in records(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let bytes = encode_all(&records);
            let mut spoilt = bytes.clone();
            spoilt[at.index(bytes.len())] ^= 1_u8 << bit;
            let (found, end) = decode_all(&spoilt, false);
            // The checksum covers content only: a record's type is not protected, nor is the padding. With another length
            // of the padding the last record is read as it was, and what follows it is a fault.
            prop_assert!(found.iter().zip(&records).all(|(found, record)| found.1 == record.1));
            prop_assert!(found.len() < records.len() || (found.len() == records.len() && (end.is_ok() || found == records)));
        }
    }

    #[test]
    fn a_zero_sector_is_looked_for_at_sector_boundaries() {
        let mut bytes = vec![1; 1500];
        bytes[104..616].fill(0);
        assert!(has_zero_sector(&bytes, 408), "bytes 512 to 1024 of the file");
        assert!(!has_zero_sector(&bytes, 400));
        assert!(has_zero_sector(&[0; 3], 510));
        assert!(!has_zero_sector(&[], 0));
    }

    #[test]
    fn lengths_are_not_believed() {
        for field in [1_u64 << 55, LENGTH_MASK, u64::MAX, 1 << 63 | 100, 9] {
            let mut bytes = field.to_le_bytes().to_vec();
            bytes.extend_from_slice(&[0; 8]);
            assert!(matches!(decode_all(&bytes, true).1, Err(Fault::Torn(_))), "{field:x}");
            assert!(matches!(decode_all(&bytes, false).1, Err(Fault::Corrupt(_))), "{field:x}");
        }
    }
}
