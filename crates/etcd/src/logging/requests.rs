//! Requests and answers as log lines show them: values of keys are left out, their sizes stand there instead.
//!
//! The forms are etcd's. Requests with something to hide are in the old text form, `put:<key:"a" value_size:1 >`;
//! the others in the new one, `delete_range:{key:"a"}`.

use std::fmt::Write;

use api::{etcdserverpb as pb, membershippb as mpb};
use etcdserver::apply::policy::{field, policy_of};
use etcdserver::apply::request::{Compare, DeleteRange, Envelope, Op, Operand, Put, Range, Txn};
use prost::Message;

/// A request of the log with its header.
pub(crate) fn entry(envelope: &Envelope<'_>) -> String {
    let mut header = format!("ID:{}", envelope.id);
    if !envelope.caller.name.is_empty() {
        write!(header, " username:{}", quoted(envelope.caller.name.as_bytes())).expect("a string grows");
    }
    if envelope.caller.revision != 0 {
        write!(header, " auth_revision:{}", envelope.caller.revision).expect("a string grows");
    }
    let name = policy_of(envelope.field).map_or_else(|| "unknown".to_string(), |policy| snake(policy.name));
    let content = content(envelope.field, envelope.body);
    match envelope.field {
        field::PUT | field::TXN | field::LEASE_GRANT | field::LEASE_REVOKE => {
            format!("header:<{header}> {name}:<{content}>")
        }
        _ => format!("header:{{{header}}} {name}:{{{content}}}"),
    }
}

/// What a request asks for, by its field in the log. What cannot be read, or needs no telling, is empty.
pub(crate) fn content(field: u32, body: &[u8]) -> String {
    match field {
        field::RANGE => Range::parse(body).map(|request| range(&request)).unwrap_or_default(),
        field::PUT => Put::parse(body).map(|request| put(&request)).unwrap_or_default(),
        field::DELETE_RANGE => DeleteRange::parse(body).map(|request| delete_range(&request)).unwrap_or_default(),
        field::TXN => Txn::parse(body).map(|request| txn(&request)).unwrap_or_default(),
        field::LEASE_GRANT => pb::LeaseGrantRequest::decode(body)
            .map(|request| format!("ttl:{}-second id:{:016x}", request.ttl, request.id))
            .unwrap_or_default(),
        field::LEASE_REVOKE => pb::LeaseRevokeRequest::decode(body)
            .map(|request| format!("id:{:016x}", request.id))
            .unwrap_or_default(),
        field::COMPACTION => pb::CompactionRequest::decode(body).map(|request| compaction(&request)).unwrap_or_default(),
        field::CLUSTER_VERSION_SET => mpb::ClusterVersionSetRequest::decode(body)
            .map(|request| format!("ver:{}", quoted(request.ver.as_bytes())))
            .unwrap_or_default(),
        field::MEMBER_ATTR_SET => {
            mpb::ClusterMemberAttrSetRequest::decode(body).map(|request| attributes(&request)).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn compaction(request: &pb::CompactionRequest) -> String {
    let mut fields = Fields::default();
    fields.number("revision", request.revision);
    fields.flag("physical", request.physical);
    fields.0
}

fn attributes(request: &mpb::ClusterMemberAttrSetRequest) -> String {
    let given = request.member_attributes.clone().unwrap_or_default();
    let mut inner = Fields::default();
    inner.bytes("name", given.name.as_bytes());
    for url in &given.client_urls {
        inner.bytes("client_urls", url.as_bytes());
    }
    format!("member_ID:{} member_attributes:{{{}}}", request.member_id, inner.0)
}

/// Fields in the new form: a space between them, nothing for what has its default.
#[derive(Default)]
struct Fields(String);

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        write!(self.0, "{name}:{value}").expect("a string grows");
    }

    fn bytes(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.put(name, &quoted(value));
        }
    }

    fn number(&mut self, name: &str, value: i64) {
        if value != 0 {
            self.put(name, &value.to_string());
        }
    }

    fn flag(&mut self, name: &str, on: bool) {
        if on {
            self.put(name, "true");
        }
    }

    fn choice(&mut self, name: &str, number: i32, names: &[&str]) {
        if number != 0 {
            let known = usize::try_from(number).ok().and_then(|number| names.get(number));
            self.put(name, &known.map_or_else(|| number.to_string(), ToString::to_string));
        }
    }
}

/// A range in the new form.
pub(crate) fn range(request: &Range<'_>) -> String {
    let mut fields = Fields::default();
    fields.bytes("key", request.key);
    fields.bytes("range_end", request.end);
    fields.number("limit", request.limit);
    fields.number("revision", request.revision);
    fields.choice("sort_order", request.order, &["NONE", "ASCEND", "DESCEND"]);
    fields.choice("sort_target", request.target, &["KEY", "VERSION", "CREATE", "MOD", "VALUE"]);
    fields.flag("serializable", request.serializable);
    fields.flag("keys_only", request.keys_only);
    fields.flag("count_only", request.count_only);
    fields.number("min_mod_revision", request.min_mod);
    fields.number("max_mod_revision", request.max_mod);
    fields.number("min_create_revision", request.min_create);
    fields.number("max_create_revision", request.max_create);
    fields.0
}

fn delete_range(request: &DeleteRange<'_>) -> String {
    let mut fields = Fields::default();
    fields.bytes("key", request.key);
    fields.bytes("range_end", request.end);
    fields.flag("prev_kv", request.prev_kv);
    fields.0
}

/// A put in the old form: a space after each field.
fn put(request: &Put<'_>) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: String| write!(text, "{name}:{value} ").expect("a string grows");
    if !request.key.is_empty() {
        field("key", old_quoted(request.key));
    }
    if !request.value.is_empty() {
        field("value_size", request.value.len().to_string());
    }
    if request.lease != 0 {
        field("lease", request.lease.to_string());
    }
    for (name, on) in [
        ("prev_kv", request.prev_kv),
        ("ignore_value", request.ignore_value),
        ("ignore_lease", request.ignore_lease),
    ] {
        if on {
            field(name, "true".into());
        }
    }
    text
}

/// A transaction: its comparisons and both branches.
pub(crate) fn txn(request: &Txn<'_>) -> String {
    let compares: Vec<String> = request.compares.iter().map(compare).collect();
    let ops = |ops: &[Op<'_>]| ops.iter().map(op).collect::<Vec<_>>().join(" ");
    format!(
        "compare:<{}> success:<{}> failure:<{}>",
        compares.join(" "),
        ops(&request.success),
        ops(&request.failure)
    )
}

/// How many operations the branch of an encoded transaction has that was taken, and how long they are.
pub(crate) fn branch(txn: &[u8], succeeded: bool) -> (i64, i64) {
    let taken = if succeeded { 2 } else { 3 };
    let ops = api::wire::Fields::new(txn).filter_map(Result::ok).filter(|field| field.number == taken);
    ops.fold((0, 0), |(count, size), field| match field.value {
        api::wire::Value::Bytes(op) => (count + 1, size + op.len() as i64),
        _ => (count, size),
    })
}

fn compare(compare: &Compare<'_>) -> String {
    let mut fields = Fields::default();
    fields.choice("result", compare.result, &["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]);
    fields.choice("target", compare.target, &["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]);
    fields.bytes("key", compare.key);
    match compare.operand {
        Operand::Unset => {}
        Operand::Version(version) => fields.put("version", &version.to_string()),
        Operand::Create(revision) => fields.put("create_revision", &revision.to_string()),
        Operand::Mod(revision) => fields.put("mod_revision", &revision.to_string()),
        Operand::Lease(lease) => fields.put("lease", &lease.to_string()),
        Operand::Value(value) => {
            fields.put("value_size", &value.len().to_string());
            if !compare.end.is_empty() {
                fields.bytes("range_end", compare.end);
            }
            fields.0.push(' ');
            return fields.0;
        }
    }
    fields.bytes("range_end", compare.end);
    fields.0
}

fn op(op: &Op<'_>) -> String {
    match op {
        Op::Range(request) => format!("request_range:{{{}}}", range(request)),
        Op::Put(request) => format!("request_put:<{}>", put(request)),
        Op::DeleteRange(request) => format!("request_delete_range:{{{}}}", delete_range(request)),
        Op::Txn(nested) => format!("request_txn:<{}>", txn(nested)),
        Op::Empty => String::new(),
    }
}

/// Bytes in the new form: what is no text or not printable as two hex digits.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '"' | '\\' => out.extend(['\\', c]),
                c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                    write!(out, "\\x{:02x}", c as u32).expect("a string grows");
                }
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("a string grows");
        }
    }
    out.push('"');
    out
}

/// Bytes in the old form: everything beyond ASCII as three octal digits.
fn old_quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for byte in bytes {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x20..=0x7e => out.push(char::from(*byte)),
            _ => write!(out, "\\{byte:03o}").expect("a string grows"),
        }
    }
    out.push('"');
    out
}

/// `DeleteRange` to `delete_range`, as fields of messages are named.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_of(field: u32, body: &[u8]) -> String {
        entry(&Envelope { id: 7, field, body, ..Envelope::default() })
    }

    #[test]
    fn values_of_keys_are_left_out() {
        let put = pb::PutRequest { key: "a\x01".into(), value: "secret".into(), lease: 5, prev_kv: true, ..Default::default() };
        assert_eq!(
            entry_of(field::PUT, &put.encode_to_vec()),
            "header:<ID:7> put:<key:\"a\\001\" value_size:6 lease:5 prev_kv:true >"
        );
        let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: vec![0].into(), prev_kv: false };
        assert_eq!(
            entry_of(field::DELETE_RANGE, &delete.encode_to_vec()),
            "header:{ID:7} delete_range:{key:\"a\" range_end:\"\\x00\"}"
        );
        let grant = pb::LeaseGrantRequest { ttl: 60, id: 0x1942_a1ff_995c_ca0a };
        assert_eq!(
            entry_of(field::LEASE_GRANT, &grant.encode_to_vec()),
            "header:<ID:7> lease_grant:<ttl:60-second id:1942a1ff995cca0a>"
        );
    }

    #[test]
    fn only_the_branch_taken_counts() {
        let txn = [0x0a, 1, 0, 0x12, 3, 0, 0, 0, 0x12, 1, 0, 0x1a, 2, 0, 0];
        assert_eq!((branch(&txn, true), branch(&txn, false)), ((2, 4), (1, 2)));
    }

    #[test]
    fn a_transaction_shows_both_branches() {
        use pb::compare::{CompareResult, CompareTarget, TargetUnion};
        use pb::request_op::Request;
        let put = pb::PutRequest { key: "b".into(), value: "3".into(), ..Default::default() };
        let range = pb::RangeRequest { key: "b".into(), limit: 3, ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![
                pb::Compare { key: "b".into(), target_union: Some(TargetUnion::Version(1)), ..Default::default() },
                pb::Compare {
                    key: "a".into(),
                    result: CompareResult::Greater as i32,
                    target: CompareTarget::Value as i32,
                    target_union: Some(TargetUnion::Value("1".into())),
                    ..Default::default()
                },
            ],
            success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![pb::RequestOp { request: Some(Request::RequestRange(range)) }],
        };
        assert_eq!(
            content(field::TXN, &request.encode_to_vec()),
            "compare:<key:\"b\" version:1 result:GREATER target:VALUE key:\"a\" value_size:1 > \
             success:<request_put:<key:\"b\" value_size:1 >> failure:<request_range:{key:\"b\" limit:3}>"
        );
    }
}
