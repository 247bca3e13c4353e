//! Bytes that Go members of several releases wrote: every field is read as expected, and since messages of the log and
//! of peers know which fields were set, encoding them again gives the same bytes.

use api::schema::{self, Field, Kind};
use api::wire::{self, Fields, Value};
use api::{authpb, etcdserverpb, ids, leasepb, mvccpb, raftpb, walpb};
use bytes::Bytes;
use prost::Message;
use serde_json::Value as Json;

use super::data;

fn vectors(prefix: &str) -> Vec<(String, Vec<u8>, Json)> {
    let all: Vec<Json> = serde_json::from_str(&data("vectors/byte-vectors.json")).unwrap();
    let found: Vec<_> = all
        .into_iter()
        .filter(|v| v["name"].as_str().unwrap().starts_with(prefix))
        .map(|v| {
            let title = format!("{} ({})", v["name"].as_str().unwrap(), v["source"].as_str().unwrap());
            (title, hex::decode(v["hex"].as_str().unwrap().replace(' ', "")).unwrap(), v["decoded"].clone())
        })
        .collect();
    assert!(!found.is_empty(), "no vector is called {prefix}");
    found
}

/// Decodes, encodes again, compares.
fn again<M: Message + prost::Name + Default>(title: &str, bytes: &[u8]) -> M {
    let message: M = wire::decode(Bytes::copy_from_slice(bytes)).unwrap_or_else(|e| panic!("{title}: {e}"));
    assert_eq!(hex::encode(message.encode_to_vec()), hex::encode(bytes), "{title}");
    message
}

/// Compares the fields that stand in the bytes with those of the description: none missing, none more.
fn same(title: &str, message: &schema::Message, bytes: &[u8], expected: &Json) {
    let mut keys: Vec<&str> = Vec::new();
    let mut times = std::collections::BTreeMap::<u32, usize>::new();
    for field in Fields::new(bytes) {
        let field = field.unwrap();
        let known = message.field(field.number).unwrap_or_else(|| panic!("{title}: field {}", field.number));
        let mut expected = described(expected, known.name);
        let time = times.entry(field.number).or_default();
        if known.repeated {
            expected = &expected[*time];
        } else {
            assert_eq!(*time, 0, "{title}: {} stands twice", known.name);
        }
        *time += 1;
        if !keys.contains(&known.name) {
            keys.push(known.name);
        }
        same_value(&format!("{title}: {}", known.name), known, field.value, expected);
    }
    assert_eq!(keys.len(), expected.as_object().unwrap().len(), "{title}: {keys:?} are there");
}

/// The description writes the fields of a log entry in lower case.
fn described<'a>(expected: &'a Json, name: &str) -> &'a Json {
    let fields = expected.as_object().unwrap();
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or(&Json::Null, |(_, value)| value)
}

fn same_value(title: &str, field: &Field, value: Value<'_>, expected: &Json) {
    match (field.kind, value) {
        (Kind::Message(_), Value::Bytes(inner)) => {
            same(title, field.kind.message().unwrap(), inner, expected);
        }
        (Kind::Bytes | Kind::String | Kind::LooseString, Value::Bytes(bytes)) => {
            let expected = expected.as_str().unwrap();
            let (hex, text) = (hex::encode(bytes), String::from_utf8_lossy(bytes));
            let ours = match expected.split_once("...(") {
                Some((start, size)) => hex.starts_with(start) && size == format!("{} bytes)", bytes.len()),
                None => expected == hex || expected == text || expected == format!("hex:{hex}"),
            };
            assert!(ours, "{title}: {hex} is not {expected}");
        }
        (Kind::Enum(_), Value::Varint(number)) => {
            let values = field.kind.enumeration().unwrap().values;
            let name = values.iter().find(|v| v.number as u64 == number).unwrap().name;
            assert!(expected == name || *expected == number, "{title}: {name} is not {expected}");
        }
        (Kind::Bool, Value::Varint(number)) => assert_eq!(*expected, number != 0, "{title}"),
        (_, Value::Varint(number)) => {
            let hex = ids::hex(number).to_string();
            assert!(*expected == hex || *expected == number, "{title}: {number} is not {expected}");
        }
        other => panic!("{title}: {other:?}"),
    }
}

#[test]
fn messages_between_peers() {
    let mut count = 0;
    for (title, bytes, expected) in
        vectors("Msg").into_iter().chain(vectors("linkHeartbeat on /raft/stream/message"))
    {
        let message: raftpb::Message = again(&title, &bytes);
        same(&title, schema::of::<raftpb::Message>(), &bytes, &expected);
        assert_eq!(message.encoded_len(), bytes.len());
        count += 1;
    }
    assert_eq!(count, 30);
}

#[test]
fn appended_entries() {
    for (title, bytes, expected) in vectors("appEntries") {
        let mut rest = &bytes[1 + 8..];
        for entry in expected["entries"].as_array().unwrap() {
            let (len, after) = rest.split_at(8);
            let len = u64::from_be_bytes(len.try_into().unwrap()) as usize;
            let (entry_bytes, after) = after.split_at(len);
            let decoded: raftpb::Entry = again(&title, entry_bytes);
            same(&title, schema::of::<raftpb::Entry>(), entry_bytes, entry);
            again::<etcdserverpb::Request>(&title, &decoded.data.unwrap());
            rest = after;
        }
        assert_eq!(rest.len(), 8, "{title}: the commit index");
    }
}

#[test]
fn log_records_and_what_is_in_them() {
    let mut entries = 0;
    for (title, bytes, expected) in vectors("WAL ") {
        // Eight bytes little endian: the length, and above it whether and how much padding follows.
        let frame = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let len = (frame & ((1 << 56) - 1)) as usize;
        let record: walpb::Record = again(&title, &bytes[8..8 + len]);
        assert_eq!(expected["type"], record.r#type.unwrap(), "{title}");
        assert_eq!(expected["crc"], format!("{:08x}", record.crc.unwrap()), "{title}");
        let Some(content) = record.data else { continue };
        match record.r#type.unwrap() {
            1 => {
                again::<etcdserverpb::Metadata>(&title, &content);
                same(&title, schema::of::<etcdserverpb::Metadata>(), &content, &expected["data"]);
            }
            2 => {
                let entry: raftpb::Entry = again(&title, &content);
                same(&title, schema::of::<raftpb::Entry>(), &content, &expected["data"]);
                payload(&title, &entry, &expected["payload"]);
                entries += 1;
            }
            3 => {
                again::<raftpb::HardState>(&title, &content);
                same(&title, schema::of::<raftpb::HardState>(), &content, &expected["data"]);
            }
            5 => {
                again::<walpb::Snapshot>(&title, &content);
                same(&title, schema::of::<walpb::Snapshot>(), &content, &expected["data"]);
            }
            other => panic!("{title}: record of type {other}"),
        }
    }
    assert_eq!(entries, 7);
}

fn payload(title: &str, entry: &raftpb::Entry, expected: &Json) {
    let content = entry.data.clone().unwrap_or_default();
    if content.is_empty() {
        return;
    }
    if entry.r#type() == raftpb::EntryType::EntryConfChange {
        let change: raftpb::ConfChange = again(title, &content);
        assert_eq!(change.r#type(), raftpb::ConfChangeType::ConfChangeAddNode, "{title}");
        assert_eq!(expected["ConfChange"]["node_id"], ids::hex(change.node_id()).to_string(), "{title}");
        let member: Json = serde_json::from_slice(&change.context.unwrap()).unwrap();
        assert!(member["peerURLs"].is_array(), "{title}: {member}");
        return;
    }
    let (kind, fields) = expected.as_object().unwrap().iter().next().unwrap();
    if kind == "V2Request(bare)" {
        // The same bytes must not pass for a request of today.
        assert!(wire::decode::<etcdserverpb::InternalRaftRequest>(content.clone()).is_err(), "{title}");
        again::<etcdserverpb::Request>(title, &content);
        same(title, schema::of::<etcdserverpb::Request>(), &content, fields);
    } else {
        assert_eq!(kind, "InternalRaftRequest", "{title}");
        again::<etcdserverpb::InternalRaftRequest>(title, &content);
        same(title, schema::of::<etcdserverpb::InternalRaftRequest>(), &content, fields);
    }
}

#[test]
fn snapshot_records() {
    for (title, bytes, expected) in vectors("walpb.Snapshot payload") {
        again::<walpb::Snapshot>(&title, &bytes);
        same(&title, schema::of::<walpb::Snapshot>(), &bytes, &expected);
    }
}

#[test]
fn values_in_the_database() {
    for (title, bytes, expected) in vectors("key bucket") {
        let revision = if expected["rev"]["tombstone"] == true { 18 } else { 17 };
        again::<mvccpb::KeyValue>(&title, &bytes[revision..]);
        same(&title, schema::of::<mvccpb::KeyValue>(), &bytes[revision..], &expected["kv"]);
    }
    for (title, bytes, expected) in vectors("lease bucket pair") {
        let lease: leasepb::Lease = again(&title, &bytes[8..]);
        assert_eq!(lease.id.to_be_bytes(), bytes[..8], "{title}");
        same(&title, schema::of::<leasepb::Lease>(), &bytes[8..], &expected);
    }
    for (title, bytes, expected) in vectors("alarm bucket key") {
        again::<etcdserverpb::AlarmMember>(&title, &bytes);
        same(&title, schema::of::<etcdserverpb::AlarmMember>(), &bytes, &expected);
    }
    for (title, bytes, expected) in vectors("authRoles/") {
        again::<authpb::Role>(&title, &bytes);
        same(&title, schema::of::<authpb::Role>(), &bytes, &expected);
    }
    for (title, bytes, expected) in vectors("authUsers/") {
        again::<authpb::User>(&title, &bytes);
        same(&title, schema::of::<authpb::User>(), &bytes, &expected);
    }
}

#[test]
fn member_and_cluster_ids() {
    let rows: Vec<Json> = serde_json::from_str(&data("vectors/member-and-cluster-ids.json")).unwrap();
    let mut added = 0;
    for row in &rows {
        let urls: Vec<&str> =
            row["peer_urls"].as_array().unwrap().iter().map(|u| u.as_str().unwrap()).collect();
        let token = row["token"].as_str().unwrap();
        let text = |id| ids::hex(id).to_string();
        if let Some(several) = row["member_ids"].as_array() {
            // One member per URL.
            let ours: Vec<u64> = urls.iter().map(|url| ids::member_id(&[url], token, None)).collect();
            let expected: Vec<&str> = several.iter().map(|id| id.as_str().unwrap()).collect();
            assert_eq!(ours.iter().map(|id| text(*id)).collect::<Vec<_>>(), expected);
            assert_eq!(
                text(ids::cluster_id(ours.iter().rev().copied())),
                row["cluster_id"].as_str().unwrap()
            );
            continue;
        }
        let member = ids::member_id(&urls, token, None);
        assert_eq!(text(member), row["member_id"].as_str().unwrap());
        assert_eq!(text(ids::cluster_id([member])), row["cluster_id"].as_str().unwrap());
        let reversed: Vec<&str> = urls.iter().rev().copied().collect();
        assert_eq!(ids::member_id(&reversed, token, None), member, "the order of the URLs does not matter");

        let joined = &row["added_member"];
        let second = joined["unix_second"].as_i64();
        let id = ids::member_id(&[joined["peer_url"].as_str().unwrap()], "", second);
        assert_eq!(text(id), joined["id"].as_str().unwrap());
        added += 1;
    }
    assert_eq!((rows.len(), added), (12, 9));
}
