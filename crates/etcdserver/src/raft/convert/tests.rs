//! Conversion to and from the raft crate's types, on bytes that Go members wrote.

use api::etcdserverpb::InternalRaftRequest;
use api::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use api::raftpb::{ConfChange, ConfChangeType, Message, MessageType};
use prost::Message as _;
use serde::Deserialize;

use super::*;
use crate::effect::Identity;
use crate::membership::{ConfContext, Member};

#[derive(Deserialize)]
struct Vector {
    name: String,
    source: String,
    hex: String,
}

fn vectors() -> Vec<Vector> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/vectors/byte-vectors.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(vector: &Vector) -> Vec<u8> {
    hex::decode(&vector.hex).unwrap()
}

fn vector(name: &str, source: &str) -> Vec<u8> {
    let all = vectors();
    let found = all.iter().find(|v| v.name == name && v.source.contains(source));
    bytes(found.unwrap_or_else(|| panic!("vector {name} of {source}")))
}

/// The data of a record of the log: record frame, then type and crc, then field 3.
fn record_data(frame: &[u8]) -> Vec<u8> {
    let len = (u64::from_le_bytes(frame[..8].try_into().unwrap()) & 0x00ff_ffff_ffff_ffff) as usize;
    api::walpb::Record::decode(&frame[8..8 + len]).unwrap().data.unwrap().to_vec()
}

fn through(message: &Message) -> Result<Message, Dropped> {
    message_in(message.to(), message.clone()).map(message_out)
}

#[test]
fn r1_r19_r20_messages_of_three_versions_go_through_the_crate_unharmed() {
    let mut seen = 0;
    for vector in vectors().iter().filter(|v| v.name.ends_with("/raft/stream/message")) {
        let encoded = bytes(vector);
        let message = Message::decode(&encoded[..]).unwrap();
        if vector.name.starts_with("linkHeartbeat") {
            assert_eq!(through(&message), Err(Dropped::From(0)), "it only keeps the connection alive");
            continue;
        }
        let out = through(&message).unwrap_or_else(|e| panic!("{} of {}: {e}", vector.name, vector.source));
        if vector.source.contains("3.7.1 leader") || vector.source.starts_with("3.7.1 m2") {
            assert_eq!(out.encode_to_vec(), encoded, "{} of {}", vector.name, vector.source);
        }
        assert_eq!(out.context(), message.context(), "contexts are echoed byte for byte");
        assert_eq!((out.r#type, out.term(), out.index()), (message.r#type, message.term(), message.index()));
        let data = |m: &Message| m.entries.iter().map(|e| e.data().to_vec()).collect::<Vec<_>>();
        assert_eq!(data(&out), data(&message));
        seen += 1;
    }
    assert!(seen >= 20, "{seen} vectors");
}

#[test]
fn r2_types_two_and_three_mean_what_they_mean_to_etcd() {
    for (hex, etcd, crate_type) in [
        ("0801100218ad01", ConfChangeType::ConfChangeUpdateNode, None),
        (
            "0801100318ad01",
            ConfChangeType::ConfChangeAddLearnerNode,
            Some(eraftpb::ConfChangeType::AddLearnerNode),
        ),
        ("0801100018ad01", ConfChangeType::ConfChangeAddNode, Some(eraftpb::ConfChangeType::AddNode)),
        ("0801100118ad01", ConfChangeType::ConfChangeRemoveNode, Some(eraftpb::ConfChangeType::RemoveNode)),
    ] {
        let change = ConfChange::decode(&hex::decode(hex).unwrap()[..]).unwrap();
        assert_eq!((change.r#type(), change.node_id(), change.id()), (etcd, 173, 1));
        assert_eq!(conf_change_in(&change).map(|c| (c.change_type, c.node_id)), crate_type.map(|t| (t, 173)));
        assert_eq!(hex::encode(encode_conf_change(&change)), hex);
        let refused = ConfChange { node_id: Some(0), ..change };
        assert_eq!(conf_change_in(&refused), None);
    }
}

#[test]
fn conf_change_bytes_pass_the_crate_out_of_its_sight_for_all_four_types() {
    for kind in 0..4 {
        let context = ConfContext { member: Member { id: 173, ..Member::default() }, is_promote: kind == 0 };
        let change = ConfChange {
            id: Some(u64::MAX),
            r#type: Some(kind),
            node_id: Some(173),
            context: (kind != 1).then(|| context.to_json()),
        };
        let data = encode_conf_change(&change);
        let entry =
            raftpb::Entry { term: Some(3), index: Some(9), r#type: Some(1), data: Some(data.clone()) };
        let inside = entry_in(entry.clone()).unwrap();
        assert!(inside.data.is_empty(), "the crate reads `data` of a membership change");
        assert_eq!(inside.context, data);
        let record = encode_entry(&inside, &mut BytesMut::new());
        assert_eq!(raftpb::Entry::decode(record).unwrap(), entry, "the log holds etcd's bytes");
        assert_eq!(entry_out(inside), entry, "and so do peers and apply");
    }
}

#[test]
fn r3_founders_entries_equal_those_of_3_7_byte_for_byte() {
    let context = ConfContext {
        member: Member {
            id: 0x5267_fd4a_e6eb_ae02,
            peer_urls: vec!["http://127.0.0.1:13380".to_owned()],
            name: "server".to_owned(),
            ..Member::default()
        },
        is_promote: false,
    };
    let change = ConfChange {
        id: None,
        r#type: Some(0),
        node_id: Some(0x5267_fd4a_e6eb_ae02),
        context: Some(context.to_json()),
    };
    let inside = eraftpb::Entry {
        entry_type: eraftpb::EntryType::EntryConfChange,
        term: 1,
        index: 1,
        context: encode_conf_change(&change),
        ..eraftpb::Entry::default()
    };
    let go = record_data(&vector("WAL ConfChange bootstrap entry (3.7: no id field)", "3.7.1"));
    assert_eq!(hex::encode(encode_entry(&inside, &mut BytesMut::new())), hex::encode(go));
    // 3.5 writes the id 0 out; the meaning is the same.
    let go = record_data(&vector("WAL ConfChange bootstrap entry", "3.5.1"));
    let entry = raftpb::Entry::decode(&go[..]).unwrap();
    assert_eq!(ConfChange::decode(entry.data()).unwrap().context(), change.context());
    assert_eq!(entry.data(), &entry_in(entry.clone()).unwrap().context[..], "data travels unchanged");
}

#[test]
fn r11_r12_our_requests_are_3_7s_byte_for_byte() {
    let go = record_data(&vector("WAL v3 publish entry (3.7: no type field)", "3.7.1"));
    let data = raftpb::Entry::decode(&go[..]).unwrap().data.unwrap();
    let request = InternalRaftRequest::decode(data.clone()).unwrap();
    let publish = ClusterMemberAttrSetRequest {
        member_id: 0x5267_fd4a_e6eb_ae02,
        member_attributes: Some(Attributes {
            name: "server".to_owned(),
            client_urls: vec!["http://127.0.0.1:13379".to_owned()],
        }),
    };
    assert_eq!(request.cluster_member_attr_set.as_ref(), Some(&publish));
    let id = request.header.unwrap().id;
    assert_eq!(encode_request(id, None, 1301, &publish.encode_to_vec()), data);
    let inside = eraftpb::Entry { term: 2, index: 3, data, ..eraftpb::Entry::default() };
    assert_eq!(encode_entry(&inside, &mut BytesMut::new())[..], go[..]);

    let version = ClusterVersionSetRequest { ver: "3.6.0".to_owned() };
    let data = encode_request(9, None, 1300, &version.encode_to_vec());
    assert_eq!(hex::encode(&data), "a206020809a251070a05332e362e30");
}

#[test]
fn r17_the_empty_entry_of_a_new_leader() {
    let empty = eraftpb::Entry { term: 2, index: 2, ..eraftpb::Entry::default() };
    let ours = encode_entry(&empty, &mut BytesMut::new());
    assert_eq!(ours[..], record_data(&vector("WAL empty leader entry (3.7: no type field)", "3.7.1"))[..]);
    let theirs = record_data(&vector("WAL empty leader entry", "3.5.1"));
    let read = entry_in(raftpb::Entry::decode(&theirs[..]).unwrap()).unwrap();
    assert_eq!((read.term, read.index, read.entry_type, read.data.len()), (2, 2, empty.entry_type, 0));
}

#[test]
fn requests_have_header_and_body_in_ascending_order() {
    let identity = Identity { username: "root".to_owned(), auth_revision: 300 };
    for field in [3, 4, 9, 11, 1000, 1301, 9900] {
        let data = encode_request(u64::MAX, Some(&identity), field, b"");
        let request = InternalRaftRequest::decode(data.clone()).unwrap();
        let header = request.header.clone().unwrap();
        assert_eq!((header.id, &header.username[..], header.auth_revision), (u64::MAX, "root", 300));
        // Which of the two comes first decides whether our bytes equal those of Go's encoder.
        assert_eq!(data.starts_with(&[0xa2, 0x06]), field > 100);
    }
    let put = encode_request(7, None, 4, b"\x0a\x01k");
    assert_eq!(hex::encode(put), "22030a016ba206020807");
}

fn sample(kind: MessageType) -> Message {
    let entry = raftpb::Entry { term: Some(2), index: Some(8), ..raftpb::Entry::default() };
    let snapshot = raftpb::Snapshot {
        data: Some(Bytes::from_static(b"x")),
        metadata: Some(raftpb::SnapshotMetadata {
            index: Some(7),
            term: Some(2),
            conf_state: Some(raftpb::ConfState { voters: vec![1, 2], ..raftpb::ConfState::default() }),
        }),
    };
    Message {
        r#type: Some(kind as i32),
        from: Some(1),
        to: Some(2),
        term: Some(3),
        index: Some(7),
        log_term: Some(1),
        entries: if kind == MessageType::MsgHeartbeat { vec![] } else { vec![entry] },
        snapshot: (kind == MessageType::MsgSnap).then_some(snapshot),
        ..Message::default()
    }
}

#[test]
fn what_would_make_the_crate_panic_or_count_wrongly_is_dropped() {
    for number in (0..=1).chain(10..=12).chain(19..=23).chain([24, -1, 99]) {
        let message = Message { r#type: Some(number), ..sample(MessageType::MsgApp) };
        assert_eq!(through(&message), Err(Dropped::Type(number)));
    }
    for kind in [
        MessageType::MsgApp,
        MessageType::MsgAppResp,
        MessageType::MsgVote,
        MessageType::MsgSnap,
        MessageType::MsgHeartbeat,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
        MessageType::MsgReadIndexResp,
    ] {
        let good = sample(kind);
        assert!(through(&good).is_ok(), "{kind:?}");
        assert_eq!(through(&Message { term: None, ..good.clone() }), Err(Dropped::NoTerm), "{kind:?}");
        assert_eq!(through(&Message { from: Some(2), ..good.clone() }), Err(Dropped::From(2)));
        assert_eq!(message_in(5, good), Err(Dropped::To(2)));
    }
    let none = |kind| Message { entries: vec![], ..sample(kind) };
    for kind in [MessageType::MsgProp, MessageType::MsgReadIndex, MessageType::MsgReadIndexResp] {
        assert_eq!(through(&none(kind)), Err(Dropped::Entries), "{kind:?}");
    }
    assert!(through(&none(MessageType::MsgApp)).is_ok());
    for (index, term) in [(9, 2), (7, 2), (8, 4), (8, 0)] {
        let entry = raftpb::Entry { index: Some(index), term: Some(term), ..raftpb::Entry::default() };
        let message = Message { entries: vec![entry], ..sample(MessageType::MsgApp) };
        assert_eq!(through(&message), Err(Dropped::Entries), "entry {index} of term {term}");
    }
    let entry = raftpb::Entry { r#type: Some(2), ..sample(MessageType::MsgApp).entries[0].clone() };
    let message = Message { entries: vec![entry], ..sample(MessageType::MsgApp) };
    assert_eq!(through(&message), Err(Dropped::EntryType(2)));
    assert_eq!(
        through(&Message { snapshot: None, ..sample(MessageType::MsgSnap) }),
        Err(Dropped::NoSnapshot)
    );
}

#[test]
fn fields_that_etcd_does_not_have_neither_come_in_nor_go_out() {
    let mut inside = message_in(2, sample(MessageType::MsgApp)).unwrap();
    inside.commit_term = 5;
    inside.priority = 6;
    inside.deprecated_priority = 7;
    inside.request_snapshot = 8;
    assert_eq!(message_out(inside), sample(MessageType::MsgApp));
    let odd =
        Message { vote: Some(9), responses: vec![Message::default()], ..sample(MessageType::MsgAppResp) };
    let inside = message_in(2, odd).unwrap();
    assert_eq!((inside.request_snapshot, inside.deprecated_priority), (0, 0));
    let mut answer = inside;
    answer.commit = 44;
    assert_eq!(message_out(answer).commit, None, "etcd sends no commit index in answers");
    let snapshot = through(&sample(MessageType::MsgSnap)).unwrap();
    let metadata = snapshot.snapshot.unwrap().metadata.unwrap();
    assert_eq!((metadata.index, metadata.term), (Some(7), Some(2)));
    assert_eq!(metadata.conf_state.unwrap().auto_leave, Some(false));
}
