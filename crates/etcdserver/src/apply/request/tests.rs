//! Parsing in place against the generated messages.

use api::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message;

use super::*;

fn b(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}

#[test]
fn all_fields_of_a_range_are_read() {
    let message = pb::RangeRequest {
        key: b(b"k"),
        range_end: b(b"z"),
        limit: -5,
        revision: 6,
        sort_order: 2,
        sort_target: -1,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: -2,
        min_create_revision: 3,
        max_create_revision: 4,
    };
    let bytes = message.encode_to_vec();
    let range = Range::parse(&bytes).unwrap();
    let expected = Range {
        key: b"k",
        end: b"z",
        limit: -5,
        revision: 6,
        order: 2,
        target: -1,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod: 1,
        max_mod: -2,
        min_create: 3,
        max_create: 4,
    };
    assert_eq!(range, expected);
    assert!(range.is_filtered() && !range.is_in_key_order());
}

#[test]
fn all_fields_of_puts_and_deletions_are_read() {
    let put = pb::PutRequest {
        key: b(b"k"),
        value: b(b"v"),
        lease: -3,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    }
    .encode_to_vec();
    let expected =
        Put { key: b"k", value: b"v", lease: -3, prev_kv: true, ignore_value: true, ignore_lease: true };
    assert_eq!(Put::parse(&put).unwrap(), expected);
    let delete = pb::DeleteRangeRequest { key: b(b"k"), range_end: b(b"\0"), prev_kv: true }.encode_to_vec();
    assert_eq!(DeleteRange::parse(&delete).unwrap(), DeleteRange { key: b"k", end: b"\0", prev_kv: true });
}

#[test]
fn all_arms_of_a_transaction_are_read() {
    use pb::compare::TargetUnion;
    use pb::request_op::Request;
    let compare = |union| pb::Compare {
        result: 3,
        target: 2,
        key: b(b"c"),
        range_end: b(b"d"),
        target_union: Some(union),
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let inner =
        pb::TxnRequest { failure: vec![pb::RequestOp { request: None }], ..pb::TxnRequest::default() };
    let message = pb::TxnRequest {
        compare: vec![
            compare(TargetUnion::Version(1)),
            compare(TargetUnion::CreateRevision(2)),
            compare(TargetUnion::ModRevision(3)),
            compare(TargetUnion::Value(b(b""))),
            compare(TargetUnion::Lease(-4)),
        ],
        success: vec![
            op(Request::RequestRange(pb::RangeRequest { key: b(b"r"), ..Default::default() })),
            op(Request::RequestPut(pb::PutRequest { key: b(b"p"), ..Default::default() })),
            op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key: b(b"d"), ..Default::default() })),
            op(Request::RequestTxn(inner)),
        ],
        failure: Vec::new(),
    };
    let bytes = message.encode_to_vec();
    let txn = Txn::parse(&bytes).unwrap();
    let operands: Vec<_> = txn.compares.iter().map(|compare| compare.operand).collect();
    assert_eq!(
        operands,
        [Operand::Version(1), Operand::Create(2), Operand::Mod(3), Operand::Value(b""), Operand::Lease(-4)]
    );
    assert!(txn.compares.iter().all(|c| (c.result, c.target, c.key, c.end) == (3, 2, b"c", b"d")));
    let [Op::Range(range), Op::Put(put), Op::DeleteRange(delete), Op::Txn(inner)] = &txn.success[..] else {
        panic!("{txn:?}");
    };
    assert_eq!((range.key, put.key, delete.key), (&b"r"[..], &b"p"[..], &b"d"[..]));
    assert_eq!(inner.failure, [Op::Empty]);
    assert!(!txn.is_read_only());
    assert!(Txn::default().is_read_only() && Txn::default().is_serializable());
}

#[test]
fn odd_fields_are_read_as_go_reads_them() {
    // Key given twice, a lease of the wrong wire type, an unknown field.
    let put = Put::parse(b"\x0a\x01a\x0a\x01b\x1a\x01x\xf8\x01\x05").unwrap();
    assert_eq!(put, Put { key: b"b", ..Put::default() });
    // The same arm of an operation twice is merged; another arm replaces it.
    let merged = Op::parse(b"\x12\x03\x0a\x01k\x12\x03\x12\x01v", 5).unwrap();
    assert_eq!(merged, Op::Put(Put { key: b"k", value: b"v", ..Put::default() }));
    let replaced = Op::parse(b"\x12\x03\x0a\x01k\x1a\x03\x0a\x01d", 5).unwrap();
    assert_eq!(replaced, Op::DeleteRange(DeleteRange { key: b"d", ..DeleteRange::default() }));
    assert_eq!(Put::parse(b"\x0a\x05a"), Err(Malformed::Wire));
}

#[test]
fn nesting_has_a_limit() {
    let nested = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 1..levels {
            bytes = pb::RequestOp {
                request: Some(pb::request_op::Request::RequestTxn(pb::TxnRequest::default())),
            }
            .encode_to_vec()
            .into_iter()
            .take(1)
            .chain(length(bytes.len()))
            .chain(bytes)
            .collect();
            bytes = [0x12].into_iter().chain(length(bytes.len())).chain(bytes).collect();
        }
        bytes
    };
    assert!(Txn::parse(&nested(NESTING_MAX)).is_ok());
    assert_eq!(Txn::parse(&nested(NESTING_MAX + 1)), Err(Malformed::Wire));
}

fn length(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    api::wire::put_varint(len as u64, &mut out);
    out
}

#[test]
fn r11_publish_entries_of_3_6_and_3_7() {
    let data = hex::decode(
        "a2060b0881e88eaacabfa881ae01aa512c0882dcaeb7aea9ffb35212200a067365727665721216687474703a2f2f3132372e302e302e313a3133333739",
    )
    .unwrap();
    let envelope = Envelope::parse(&data).unwrap();
    assert_eq!((envelope.id, envelope.field), (0xae02_a1fc_a543_b401, field::MEMBER_ATTR_SET));
    assert_eq!(envelope.caller, Caller::default());
    assert!(!envelope.bare_v2);
}

#[test]
fn r8_a_bare_v2_request_is_told_from_its_wrapping() {
    let data = hex::decode("0881dce6a8cabfa881ae0112035055541a262f302f6d656d626572732f353236376664346165366562616530322f6174747269627574657322397b226e616d65223a22736572766572222c22636c69656e7455524c73223a5b22687474703a2f2f3132372e302e302e313a3133333739225d7d2800320038004800500058006000680070007800800100").unwrap();
    let envelope = Envelope::parse(&data).unwrap();
    assert!(envelope.bare_v2);
    assert_eq!((envelope.id, envelope.body), (0xae02_a1fc_a519_ae01, &data[..]));
    let mut wrapped = Vec::new();
    api::wire::put_message(2, &data, &mut wrapped);
    let envelope = Envelope::parse(&wrapped).unwrap();
    assert!(!envelope.bare_v2);
    assert_eq!((envelope.field, envelope.body), (field::V2, &data[..]));
    for method in ["PUT", "POST", "DELETE", "QGET", "SYNC", "GET", "HEAD"] {
        let mut bare = Vec::new();
        api::wire::put_uint(1, 9, &mut bare);
        api::wire::put_bytes(2, method.as_bytes(), &mut bare);
        assert!(Envelope::parse(&bare).unwrap().bare_v2, "{method}");
    }
}

#[test]
fn the_header_names_user_and_revision() {
    let message = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id: 77, username: "alice".into(), auth_revision: 12 }),
        put: Some(pb::PutRequest { key: b(b"k"), ..Default::default() }),
        ..Default::default()
    };
    let data = message.encode_to_vec();
    let envelope = Envelope::parse(&data).unwrap();
    assert_eq!(envelope.caller, Caller { name: "alice", revision: 12 });
    assert_eq!((envelope.id, envelope.field), (77, field::PUT));
    let old = pb::InternalRaftRequest { id: 5, ..message };
    assert_eq!(Envelope::parse(&old.encode_to_vec()).unwrap().id, 5);
}
