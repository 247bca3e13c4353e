//! The stored form of a key: `mvccpb.KeyValue`, written and read by hand.
//!
//! The bytes are hashed by `HashKV` and compared between members, so they must be the ones that Go writes:
//! fields ascending, fields of zero left out, signed numbers as their 64-bit two's complement. They are also
//! what a response and an event carry, spliced in without decoding; hence the reader that works in place.

use bytes::BufMut;

/// Tags of the six fields.
const KEY: u8 = 0x0a;
const CREATE_REVISION: u8 = 0x10;
const MOD_REVISION: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
const LEASE: u8 = 0x30;

/// Wire types of protobuf that can occur.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// One key at one revision; borrows key and value from whoever holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Main revision of the put that began this life of the key.
    pub create_revision: i64,
    /// Main revision of the last put.
    pub mod_revision: i64,
    /// Number of puts in this life.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease it is attached to; 0 for none.
    pub lease: i64,
}

/// Stored bytes that are not a `KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> KeyValue<'a> {
    /// Length of the encoding.
    pub fn encoded_len(&self) -> usize {
        bytes_field_len(self.key)
            + number_field_len(self.create_revision)
            + number_field_len(self.mod_revision)
            + number_field_len(self.version)
            + bytes_field_len(self.value)
            + number_field_len(self.lease)
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_bytes_field(out, KEY, self.key);
        put_number_field(out, CREATE_REVISION, self.create_revision);
        put_number_field(out, MOD_REVISION, self.mod_revision);
        put_number_field(out, VERSION, self.version);
        put_bytes_field(out, VALUE, self.value);
        put_number_field(out, LEASE, self.lease);
    }

    /// Reads the fields in place. An empty message is valid (a restored snapshot can hold one); of a repeated
    /// field the last one counts, and unknown fields are passed over, as any protobuf reader does.
    pub fn decode(mut from: &'a [u8]) -> Result<KeyValue<'a>, Malformed> {
        let mut kv = KeyValue::default();
        while !from.is_empty() {
            let tag = take_varint(&mut from)?;
            match u8::try_from(tag) {
                Ok(KEY) => kv.key = take_bytes(&mut from)?,
                Ok(CREATE_REVISION) => kv.create_revision = take_number(&mut from)?,
                Ok(MOD_REVISION) => kv.mod_revision = take_number(&mut from)?,
                Ok(VERSION) => kv.version = take_number(&mut from)?,
                Ok(VALUE) => kv.value = take_bytes(&mut from)?,
                Ok(LEASE) => kv.lease = take_number(&mut from)?,
                _ => skip(tag, &mut from)?,
            }
        }
        Ok(kv)
    }

    /// The key alone, which as the first field costs next to nothing.
    pub fn key_of(mut from: &'a [u8]) -> Result<&'a [u8], Malformed> {
        if from.first() != Some(&KEY) {
            return KeyValue::decode(from).map(|kv| kv.key);
        }
        from = &from[1..];
        take_bytes(&mut from)
    }
}

/// Bytes a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn number_field_len(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value.cast_unsigned()) }
}

fn bytes_field_len(value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { 1 + varint_len(value.len() as u64) + value.len() }
}

fn put_number_field(out: &mut impl BufMut, tag: u8, value: i64) {
    if value != 0 {
        out.put_u8(tag);
        put_varint(out, value.cast_unsigned());
    }
}

fn put_bytes_field(out: &mut impl BufMut, tag: u8, value: &[u8]) {
    if !value.is_empty() {
        out.put_u8(tag);
        put_varint(out, value.len() as u64);
        out.put_slice(value);
    }
}

fn take_varint(from: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = from.split_first().ok_or(Malformed)?;
        *from = rest;
        // The tenth byte has room for one bit.
        if shift == 63 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take_number(from: &mut &[u8]) -> Result<i64, Malformed> {
    take_varint(from).map(u64::cast_signed)
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(take_varint(from)?).map_err(|_| Malformed)?;
    let (value, rest) = from.split_at_checked(len).ok_or(Malformed)?;
    *from = rest;
    Ok(value)
}

/// Passes over a field that is not ours: an unknown number, or a known one with another wire type.
fn skip(tag: u64, from: &mut &[u8]) -> Result<(), Malformed> {
    if tag >> 3 == 0 {
        return Err(Malformed);
    }
    let fixed = |from: &mut &[u8], len| {
        *from = from.get(len..).ok_or(Malformed)?;
        Ok(())
    };
    match tag & 7 {
        VARINT => take_varint(from).map(|_| ()),
        FIXED_64 => fixed(from, 8),
        BYTES => take_bytes(from).map(|_| ()),
        FIXED_32 => fixed(from, 4),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    fn by_prost(kv: &KeyValue<'_>) -> Vec<u8> {
        api::mvccpb::KeyValue {
            key: bytes::Bytes::copy_from_slice(kv.key),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: bytes::Bytes::copy_from_slice(kv.value),
            lease: kv.lease,
        }
        .encode_to_vec()
    }

    fn encoded(kv: &KeyValue<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        kv.encode(&mut out);
        assert_eq!(out.len(), kv.encoded_len());
        out
    }

    #[test]
    fn bytes_are_those_that_go_wrote() {
        let put = KeyValue {
            key: b"foo",
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: b"bar2",
            lease: 0,
        };
        assert_eq!(encoded(&put), b"\x0a\x03foo\x10\x02\x18\x03\x20\x02\x2a\x04bar2");
        let tombstone = KeyValue { key: b"b", ..KeyValue::default() };
        assert_eq!(encoded(&tombstone), b"\x0a\x01b");
        assert_eq!(encoded(&KeyValue::default()), b"");
    }

    #[test]
    fn unknown_fields_are_passed_over_and_garbage_is_refused() {
        let with_unknown =
            b"\x38\x05\x0a\x01k\x42\x02xy\x4d\x01\x02\x03\x04\x51\x01\x02\x03\x04\x05\x06\x07\x08\x18\x07";
        let kv = KeyValue::decode(with_unknown).unwrap();
        assert_eq!((kv.key, kv.mod_revision), (&b"k"[..], 7));
        assert_eq!(KeyValue::key_of(with_unknown), Ok(&b"k"[..]));
        for bad in [
            &b"\x0a\x05abc"[..],
            b"\x10",
            b"\x0b",
            b"\x00\x01",
            b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        ] {
            assert_eq!(KeyValue::decode(bad), Err(Malformed), "{bad:x?}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_field_counts() {
        let kv = KeyValue::decode(b"\x0a\x01a\x18\x01\x18\x02").unwrap();
        assert_eq!(kv.mod_revision, 2);
    }

    proptest! {
        #[test]
        fn encoding_equals_the_generated_one(
            key in prop::collection::vec(any::<u8>(), 0..200),
            value in prop::collection::vec(any::<u8>(), 0..300),
            numbers in prop::array::uniform4(prop_oneof![any::<i64>(), 0i64..3, Just(127i64), Just(128i64)]),
        ) {
            let [create_revision, mod_revision, version, lease] = numbers;
            let kv = KeyValue { key: &key, create_revision, mod_revision, version, value: &value, lease };
            let bytes = encoded(&kv);
            prop_assert_eq!(&bytes, &by_prost(&kv));
            prop_assert_eq!(KeyValue::decode(&bytes), Ok(kv));
            prop_assert_eq!(KeyValue::key_of(&bytes), Ok(&key[..]));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = KeyValue::key_of(&bytes);
            if let Ok(kv) = KeyValue::decode(&bytes) {
                prop_assert!(kv.key.len() <= bytes.len());
            }
        }
    }
}
