//! The walker against known bytes, and against the decoder of the generated structs.

use prost::Message as _;

use super::*;
use crate::etcdserverpb::{
    Compare, InternalRaftRequest, MemberAddRequest, PutRequest, Request, RequestOp, TxnRequest,
    WatchCreateRequest, compare, request_op,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[test]
fn varints_come_back_and_know_their_length() {
    let mut values: Vec<u64> = (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).collect();
    values.push(u64::MAX);
    for value in values {
        let mut bytes = Vec::new();
        put_varint(value, &mut bytes);
        assert_eq!(bytes.len(), varint_len(value), "{value}");
        let mut rest = &bytes[..];
        assert_eq!(get_varint(&mut rest), Ok(value));
        assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            assert_eq!(get_varint(&mut &bytes[..cut]), Err(Malformed::Wire));
        }
    }
    // Longer than needed is fine, longer than 64 bits is not.
    assert_eq!(get_varint(&mut &hex("8000")[..]), Ok(0));
    assert_eq!(get_varint(&mut &hex("80808080808080808001")[..]), Ok(1 << 63));
    assert_eq!(get_varint(&mut &hex("80808080808080808002")[..]), Err(Malformed::Wire));
    assert_eq!(get_varint(&mut &hex("8080808080808080808000")[..]), Err(Malformed::Wire));
}

#[test]
fn fields_stand_as_they_were_written() {
    // 1: 150, 2: "testing", 3: fixed32, 4: fixed64, 5: group { 1: 1 }
    let bytes = hex("089601 120774657374696e67 1d01000000 210200000000000000 2b08012c");
    let fields: Vec<_> = Fields::new(&bytes).map(Result::unwrap).collect();
    let seen: Vec<_> = fields.iter().map(|f| (f.number, f.value)).collect();
    assert_eq!(
        seen,
        [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"testing")),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
            (5, Value::Group(&[8, 1])),
        ]
    );
    assert_eq!(fields.iter().flat_map(|f| f.raw).copied().collect::<Vec<_>>(), bytes);
    // Cut anywhere but between fields it is malformed, and never more than once.
    let borders: Vec<usize> = fields
        .iter()
        .scan(0, |at, f| {
            *at += f.raw.len();
            Some(*at)
        })
        .collect();
    for cut in 1..bytes.len() {
        let whole = borders.contains(&cut);
        assert_eq!(Fields::new(&bytes[..cut]).any(|f| f.is_err()), !whole, "{cut}");
        assert_eq!(Fields::new(&bytes[..cut]).filter(Result::is_err).count(), usize::from(!whole));
    }
}

#[test]
fn malformed_is_what_go_calls_malformed() {
    let put = schema::of::<PutRequest>();
    for bad in [
        "ffffff",        // cut inside a tag
        "0001",          // field number 0
        "8080808010 00", // field number 2^29
        "0e",
        "0f", // wire types 6 and 7
        "0c", // end of a group that never began
        "13",
        "1308",
        "1314 1c",                // unended, and ended by another number
        "0a05 61",                // shorter than it says
        "0affffffffffffffffff01", // length of 2^64-1
    ] {
        assert_eq!(check(put, &hex(bad)), Err(Malformed::Wire), "{bad}");
        assert!(PutRequest::decode(&hex(bad)[..]).is_err(), "{bad}");
    }
    assert_eq!(
        crate::Status::from(Malformed::Wire),
        crate::Status {
            code: 13,
            message: "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data".into()
        }
    );
}

#[test]
fn deep_nesting_is_malformed_before_it_hurts() {
    // A group in a group in a group.
    let mut groups = vec![0x7b; 100_000];
    groups.extend(vec![0x7c; 100_000]);
    assert_eq!(check(schema::of::<PutRequest>(), &groups), Err(Malformed::Wire));
    // A transaction in a transaction.
    let nested = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            let mut op = Vec::new();
            put_message(4, &bytes, &mut op);
            bytes.clear();
            put_message(2, &op, &mut bytes);
        }
        bytes
    };
    assert!(decode::<TxnRequest>(nested(45).into()).is_ok());
    assert_eq!(decode::<TxnRequest>(nested(51).into()), Err(Malformed::Wire));
    assert_eq!(check(schema::of::<TxnRequest>(), &nested(2_000)), Err(Malformed::Wire));
}

#[test]
fn strings_must_be_utf8_where_go_insists() {
    let bad = hex("0a02c328");
    assert_eq!(decode::<MemberAddRequest>(bad.clone().into()), Err(Malformed::Utf8));
    assert_eq!(
        crate::Status::from(Malformed::Utf8).message,
        "grpc: error unmarshalling request: string field contains invalid UTF-8"
    );
    // Keys are bytes; and old v2 requests are not looked at.
    assert!(decode::<PutRequest>(bad.into()).is_ok());
    let v2: Request = decode(hex("080112 02c328 1a012f").into()).unwrap();
    assert_eq!((v2.id(), v2.method(), v2.path()), (1, "\u{fffd}(", "/"));
    // Inside another message.
    let mut entry = Vec::new();
    put_message(1100, &hex("0a02c328"), &mut entry);
    assert_eq!(decode::<InternalRaftRequest>(entry.into()), Err(Malformed::Utf8));
}

#[test]
fn a_known_field_with_a_foreign_wire_type_counts_as_unknown() {
    // key = "k", value as a number, lease as bytes.
    let bytes = hex("0a016b 1005 1a0101");
    assert_eq!(check(schema::of::<PutRequest>(), &bytes), Ok(Checked { odd: true }));
    assert!(PutRequest::decode(&bytes[..]).is_err(), "the reason why decode takes such fields out");
    let put: PutRequest = decode(bytes.clone().into()).unwrap();
    assert_eq!(put, PutRequest { key: "k".into(), ..Default::default() });
    // Two messages deep, next to a field nobody knows.
    let mut txn = Vec::new();
    let mut op = Vec::new();
    put_message(2, &bytes, &mut op);
    put_message(2, &op, &mut txn);
    put_uint(1000, 7, &mut txn);
    let txn: TxnRequest = decode(txn.into()).unwrap();
    let op = RequestOp { request: Some(request_op::Request::RequestPut(put)) };
    assert_eq!(txn, TxnRequest { success: vec![op], ..Default::default() });
}

#[test]
fn repeated_numbers_are_read_packed_and_not() {
    let expected = WatchCreateRequest { filters: vec![0, 1], ..Default::default() };
    assert_eq!(decode(hex("2a020001").into()), Ok(expected.clone()));
    assert_eq!(decode(hex("28002801").into()), Ok(expected));
    assert_eq!(decode::<WatchCreateRequest>(hex("2a0180").into()), Err(Malformed::Wire));
}

#[test]
fn a_field_can_be_replaced_and_strangers_stay() {
    let put = PutRequest { key: "k".into(), value: "v".into(), lease: 5, ..Default::default() };
    let mut bytes = put.encode_to_vec();
    put_uint(99, 7, &mut bytes);
    let mut out = Vec::new();
    copy_without(&bytes, 3, &mut out).unwrap();
    put_int(3, -2, &mut out);
    let read = PutRequest::decode(&out[..]).unwrap();
    assert_eq!(read, PutRequest { lease: -2, ..put });
    assert_eq!(last_uint(&out, 99), 7);
    assert_eq!(last_uint(&out, 98), 0);
    assert_eq!(last_bytes(&out, 1), Some(&b"k"[..]));
    assert_eq!(last_bytes(&out, 3), None);
    assert_eq!(copy_without(&[0xff], 1, &mut out), Err(Malformed::Wire));
}

#[test]
fn what_is_put_together_is_what_the_encoder_writes() {
    let request = InternalRaftRequest {
        id: 0xae02_a1fc_a50c_2001,
        put: Some(PutRequest {
            key: "key".into(),
            value: vec![7; 300].into(),
            lease: -1,
            prev_kv: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut put = Vec::new();
    put_bytes(1, b"key", &mut put);
    put_bytes(2, &[7; 300], &mut put);
    put_int(3, -1, &mut put);
    put_bool(4, true, &mut put);
    put_bool(5, false, &mut put);
    put_bytes(6, b"", &mut put);
    let mut out = Vec::new();
    put_uint(1, request.id, &mut out);
    assert_eq!(out.len(), uint_len(1, request.id));
    let before = out.len();
    put_message(4, &put, &mut out);
    assert_eq!(out.len() - before, message_len(4, put.len()));
    assert_eq!(out, request.encode_to_vec());
    assert_eq!(uint_len(1, 0), 0);
}

mod random {
    use proptest::prelude::*;

    use super::*;

    fn request() -> impl Strategy<Value = TxnRequest> {
        let key = proptest::collection::vec(any::<u8>(), 0..4);
        let compare = (key.clone(), 0..5, any::<i64>()).prop_map(|(key, target, version)| Compare {
            key: key.into(),
            target,
            target_union: Some(compare::TargetUnion::Version(version)),
            ..Default::default()
        });
        let put = (key.clone(), key, any::<i64>(), any::<bool>()).prop_map(|(key, value, lease, prev_kv)| {
            RequestOp {
                request: Some(request_op::Request::RequestPut(PutRequest {
                    key: key.into(),
                    value: value.into(),
                    lease,
                    prev_kv,
                    ..Default::default()
                })),
            }
        });
        let ops = proptest::collection::vec(put, 0..4);
        (proptest::collection::vec(compare, 0..4), ops.clone(), ops)
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    }

    proptest! {
        #[test]
        fn any_message_passes_and_is_the_sum_of_its_fields(txn in request()) {
            let bytes = txn.encode_to_vec();
            prop_assert_eq!(check(schema::of::<TxnRequest>(), &bytes), Ok(Checked::default()));
            let copied: Vec<u8> = Fields::new(&bytes).flat_map(|f| f.unwrap().raw.to_vec()).collect();
            prop_assert_eq!(&copied, &bytes);
            prop_assert_eq!(decode::<TxnRequest>(bytes.into()), Ok(txn));
        }

        /// On bytes with one change the check and the struct's decoder agree, but for foreign wire types.
        #[test]
        fn check_and_decoder_agree_on_damaged_bytes(txn in request(), at in any::<usize>(), xor in 1u8..) {
            let mut bytes = txn.encode_to_vec();
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= xor;
            }
            let ours = check(schema::of::<TxnRequest>(), &bytes);
            let theirs = TxnRequest::decode(&bytes[..]);
            match ours {
                Ok(Checked { odd: false }) => prop_assert!(theirs.is_ok(), "{theirs:?}"),
                Ok(Checked { odd: true }) => prop_assert!(decode::<TxnRequest>(bytes.into()).is_ok()),
                Err(_) => prop_assert!(theirs.is_err(), "{theirs:?}"),
            }
        }
    }
}
