//! Records to bytes, with the running checksum.
//!
//! ```text
//! | length field, 8 bytes LE                        | walpb.Record        | zeros to a multiple of 8 |
//! | low 56 bits: record; top byte: 0 or 0x80 | pad  | type, crc, data     |                          |
//! ```

use api::wire;

use crate::record::Kind;

/// Length of the length field.
pub const LENGTH_FIELD: usize = 8;
/// Frames start at multiples of this, so that no length field straddles a sector.
pub const ALIGNMENT: usize = 8;

/// Appends frames to a buffer. It knows nothing of files: what it appended counts once it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    crc: u32,
}

impl Encoder {
    /// Goes on after a record with this checksum.
    pub fn new(crc: u32) -> Encoder {
        Encoder { crc }
    }

    /// The running checksum.
    pub fn crc(self) -> u32 {
        self.crc
    }

    /// Appends a record with content.
    pub fn put(&mut self, kind: Kind, data: &[u8], out: &mut Vec<u8>) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        let record_len = 2 + 1 + wire::varint_len(u64::from(self.crc)) + wire::message_len(3, data.len());
        out.reserve(LENGTH_FIELD + record_len + ALIGNMENT);
        let padding = put_length_field(record_len, out);
        put_head(kind, self.crc, out);
        wire::put_message(3, data, out);
        out.extend_from_slice(&[0; ALIGNMENT][..padding]);
    }

    /// Appends the record that every segment begins with.
    pub fn put_crc(self, out: &mut Vec<u8>) {
        let record_len = 2 + 1 + wire::varint_len(u64::from(self.crc));
        let padding = put_length_field(record_len, out);
        put_head(Kind::Crc, self.crc, out);
        out.extend_from_slice(&[0; ALIGNMENT][..padding]);
    }
}

fn put_head(kind: Kind, crc: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[1 << 3, kind.number(), 2 << 3]);
    wire::put_varint(u64::from(crc), out);
}

fn put_length_field(record_len: usize, out: &mut Vec<u8>) -> usize {
    let padding = record_len.next_multiple_of(ALIGNMENT) - record_len;
    let mut field = record_len as u64;
    assert!(field < 1 << 56, "a record is shorter than any disk");
    if padding > 0 {
        field |= (0x80 | padding as u64) << 56;
    }
    out.extend_from_slice(&field.to_le_bytes());
    padding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        hex::encode(out)
    }

    #[test]
    fn the_beginning_of_every_log() {
        let mut encoder = Encoder::default();
        assert_eq!(bytes(|out| encoder.put_crc(out)), "04000000000000840804100000000000");
        let metadata = hex::decode("0882dcaeb7aea9ffb35210adae9883bddae7f78801").unwrap();
        assert_eq!(
            bytes(|out| encoder.put(Kind::Metadata, &metadata, out)),
            "1e0000000000008208011090ddb46d1a150882dcaeb7aea9ffb35210adae9883bddae7f788010000"
        );
        assert_eq!(encoder.crc(), 0x0dad_2e90);
        assert_eq!(
            bytes(|out| encoder.put(Kind::Snapshot, &[8, 0, 16, 0], out)),
            "0e00000000000082080510dffaebce0c1a04080010000000"
        );
    }

    #[test]
    fn a_frame_is_a_multiple_of_eight() {
        for len in 0..64 {
            let mut encoder = Encoder::new(7);
            let mut out = Vec::new();
            encoder.put(Kind::Entry, &vec![1; len], &mut out);
            assert_eq!(out.len() % 8, 0);
        }
    }
}
