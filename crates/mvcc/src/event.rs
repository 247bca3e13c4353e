//! What one revision changed, in the form that watchers are sent.
//!
//! An event is encoded once, when it happens or when history is read; every hub and every watcher share the
//! bytes. The stored record lies inside the event's bytes, so a put costs one encoding for file, event and reply:
//!
//! ```text
//! put:     12 len [ 0a len key  10 create  18 mod  20 version  2a len value  30 lease ]   the brackets: record
//! delete:  08 01 12 len [ 0a len key ] 18 mod                                             and stored tombstone
//! ```

use crate::kv::{KeyValue, put_varint, varint_len};
use bytes::{BufMut, Bytes, BytesMut};

/// What happened to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Whether it is the first put of a life of the key; such an event has no previous value.
    pub created: bool,
    /// The lease the put attached the key to; 0 for none, and for a deletion.
    pub lease: i64,
    /// The key.
    pub key: Bytes,
    /// Encoded `mvccpb.KeyValue`; of a deletion only key and mod revision.
    pub kv: Bytes,
    /// Encoded `mvccpb.Event` without previous value: fields 1 and 2. Field 3 may be appended.
    pub encoded: Bytes,
}

/// All changes of one revision, in the order they were made.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// The main revision.
    pub revision: i64,
    /// The changes.
    pub events: Vec<Event>,
}

impl EventBatch {
    /// Bytes of all encoded events.
    pub fn encoded_len(&self) -> usize {
        self.events.iter().map(|event| event.encoded.len()).sum()
    }
}

impl Event {
    /// A put; its record is [`Event::kv`].
    pub(crate) fn put(arena: &mut Arena, kv: &KeyValue<'_>) -> Event {
        let len = kv.encoded_len();
        let encoded = arena.alloc(1 + varint_len(len as u64) + len, |out| {
            out.put_u8(0x12);
            put_varint(out, len as u64);
            kv.encode(out);
        });
        Event::of_put(encoded, len, kv)
    }

    /// A put whose record is stored already.
    pub(crate) fn stored_put(arena: &mut Arena, record: &[u8], kv: &KeyValue<'_>) -> Event {
        let len = record.len();
        let encoded = arena.alloc(1 + varint_len(len as u64) + len, |out| {
            out.put_u8(0x12);
            put_varint(out, len as u64);
            out.put_slice(record);
        });
        Event::of_put(encoded, len, kv)
    }

    fn of_put(encoded: Bytes, record_len: usize, kv: &KeyValue<'_>) -> Event {
        let record = encoded.slice(encoded.len() - record_len..);
        Event {
            kind: EventKind::Put,
            created: kv.create_revision == kv.mod_revision,
            lease: kv.lease,
            key: key_slice(&record, kv.key),
            kv: record,
            encoded,
        }
    }

    /// A deletion at `main`, and the tombstone to store: the key alone.
    pub(crate) fn delete(arena: &mut Arena, key: &[u8], main: i64) -> (Event, Bytes) {
        let kv = KeyValue { key, mod_revision: main, ..KeyValue::default() };
        let len = kv.encoded_len();
        let encoded = arena.alloc(3 + varint_len(len as u64) + len, |out| {
            out.put_slice(&[0x08, 0x01, 0x12]);
            put_varint(out, len as u64);
            kv.encode(out);
        });
        let kv_bytes = encoded.slice(encoded.len() - len..);
        let tombstone = kv_bytes.slice(..KeyValue { key, ..KeyValue::default() }.encoded_len());
        let event = Event {
            kind: EventKind::Delete,
            created: false,
            lease: 0,
            key: key_slice(&kv_bytes, key),
            kv: kv_bytes,
            encoded,
        };
        (event, tombstone)
    }
}

/// The key inside an encoding that this file wrote or that keeps the field order: it is the first field. Foreign
/// bytes with another order are copied.
fn key_slice(record: &Bytes, key: &[u8]) -> Bytes {
    let at = 1 + varint_len(key.len() as u64);
    match record.get(at..at + key.len()) {
        Some(found) if found == key && !key.is_empty() => record.slice(at..at + key.len()),
        _ => Bytes::copy_from_slice(key),
    }
}

/// Hands out small immutable byte strings cut from shared chunks, so that a put does not allocate.
///
/// A string keeps its whole chunk alive, at most [`CHUNK_BYTES`]; what is larger than a quarter of that gets
/// memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunk: BytesMut,
}

/// Size of a chunk.
const CHUNK_BYTES: usize = 64 << 10;

impl Arena {
    /// A string of exactly `len` bytes, written by `write`.
    pub(crate) fn alloc(&mut self, len: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        let bytes = if len > CHUNK_BYTES / 4 {
            let mut own = BytesMut::with_capacity(len);
            write(&mut own);
            own.freeze()
        } else {
            if self.chunk.capacity() < len {
                self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
            }
            write(&mut self.chunk);
            self.chunk.split().freeze()
        };
        assert_eq!(bytes.len(), len, "an encoding has the length it said it would have");
        bytes
    }

    /// A copy of `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        self.alloc(bytes.len(), |out| out.put_slice(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::mvccpb;
    use prost::Message;

    #[test]
    fn a_put_is_one_encoding_for_record_and_event() {
        let kv = KeyValue {
            key: b"foo",
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            value: b"bar2",
            lease: 7,
        };
        let event = Event::put(&mut Arena::default(), &kv);
        let decoded = mvccpb::Event::decode(event.encoded.clone()).unwrap();
        assert_eq!(decoded.r#type, mvccpb::event::EventType::Put as i32);
        assert_eq!(decoded.encode_to_vec(), event.encoded);
        assert_eq!(decoded.kv.unwrap().encode_to_vec(), event.kv);
        assert_eq!((&event.key[..], event.lease, event.created), (&b"foo"[..], 7, false));
        assert_eq!(KeyValue::decode(&event.kv), Ok(kv));
        let again = Event::stored_put(&mut Arena::default(), &event.kv, &kv);
        assert_eq!((again.encoded, again.kv, again.key), (event.encoded, event.kv, event.key));
    }

    #[test]
    fn a_deletion_carries_its_revision_but_its_record_does_not() {
        let (event, tombstone) = Event::delete(&mut Arena::default(), b"b", 300);
        assert_eq!(tombstone, b"\x0a\x01b"[..]);
        let decoded = mvccpb::Event::decode(event.encoded.clone()).unwrap();
        assert_eq!(decoded.encode_to_vec(), event.encoded);
        assert_eq!(decoded.r#type, mvccpb::event::EventType::Delete as i32);
        let kv = decoded.kv.unwrap();
        assert_eq!((&kv.key[..], kv.mod_revision), (&b"b"[..], 300));
        assert_eq!(kv.encode_to_vec(), event.kv);
        assert_eq!(event.key, b"b"[..]);
    }

    #[test]
    fn an_empty_key_and_a_strange_field_order_are_understood() {
        let event = Event::stored_put(&mut Arena::default(), b"", &KeyValue::default());
        assert_eq!((&event.encoded[..], &event.key[..]), (&b"\x12\x00"[..], &b""[..]));
        let strange = b"\x18\x07\x0a\x01k";
        let event = Event::stored_put(&mut Arena::default(), strange, &KeyValue::decode(strange).unwrap());
        assert_eq!(event.key, b"k"[..]);
    }

    #[test]
    fn arena_strings_keep_their_bytes_when_chunks_change() {
        let mut arena = Arena::default();
        let strings: Vec<Bytes> = (0..5000u32).map(|i| arena.copy(&[(i % 251) as u8; 40])).collect();
        let large = arena.copy(&vec![9; CHUNK_BYTES]);
        for (i, string) in strings.iter().enumerate() {
            assert_eq!(string[..], [(i % 251) as u8; 40]);
        }
        assert!(large.iter().all(|byte| *byte == 9));
    }
}
