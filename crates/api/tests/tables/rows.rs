//! Messages, enums, methods and errors against their tables, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use api::error::{Code, ErrorCode};
use api::methods::{self, Kind as Streaming, Method, OnLearner};
use api::schema::{self, Field, Kind};
use api::version::Minor;

use super::{data, table};

fn minor(text: &str) -> Option<Minor> {
    if text.is_empty() { None } else { Some(Minor::parse_target(text).unwrap()) }
}

fn type_name(field: &Field) -> String {
    match field.kind {
        Kind::Bool => "bool".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Uint32 => "uint32".to_owned(),
        Kind::Uint64 => "uint64".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        Kind::String | Kind::LooseString => "string".to_owned(),
        Kind::Enum(_) => field.kind.enumeration().unwrap().name.to_owned(),
        Kind::Message(_) => {
            let inner = field.kind.message().unwrap();
            match inner.name.rsplit_once('.').unwrap().1.strip_suffix("Entry") {
                // A map is written as a repeated message that nobody else uses.
                Some("Statuses") => "map<string,message>".to_owned(),
                _ => inner.name.to_owned(),
            }
        }
    }
}

fn label(field: &Field) -> &'static str {
    match (field.repeated, field.packed) {
        (true, true) => "repeated packed",
        (true, false) => "repeated",
        (false, _) => "optional",
    }
}

#[test]
fn every_message_field_is_as_the_table_says() {
    let rows = table("messages");
    assert_eq!(rows.len(), 405);
    let mut seen: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for row in &rows {
        if row["package"] == "versionpb" {
            // Options of .proto files; they exist while generating only.
            let line = format!("optional {} {} = {};", row["type"], row["field"], row["number"]);
            let proto = include_str!("../../proto/version.proto");
            assert!(proto.contains(&line), "{line}");
            continue;
        }
        let name = format!("{}.{}", row["package"], row["message"]);
        let message = schema::message(&name).unwrap_or_else(|| panic!("no message {name}"));
        assert_eq!(message.since, minor(&row["version_annotation(message)"]), "{name}");
        let seen = seen.entry(name.clone()).or_default();
        if row["field"] == "(no fields)" {
            assert!(message.fields.is_empty(), "{name}");
            continue;
        }
        let number = row["number"].parse().unwrap();
        let field = message.field(number).unwrap_or_else(|| panic!("{name} has no field {number}"));
        if row["source"] == "renamed voters in 3.4" {
            assert_eq!((field.name, row["field"].as_str()), ("voters", "nodes"));
        } else {
            assert!(seen.insert(number), "{name}.{number} stands twice in the table");
            assert_eq!(field.name, row["field"], "{name}.{number}");
        }
        assert_eq!(type_name(field), row["type"], "{name}.{number}");
        assert_eq!(label(field), row["label"], "{name}.{number}");
        assert_eq!(field.oneof.unwrap_or_default(), row["oneof"], "{name}.{number}");
        assert_eq!(field.since, minor(&row["version_annotation(field)"]), "{name}.{number}");
        let tracked = row["syntax"] == "proto2" || field.oneof.is_some() || field.kind.message().is_some();
        assert_eq!(field.presence, tracked && !field.repeated, "{name}.{number}");
    }
    for message in schema::messages().iter().filter(|m| !m.name.ends_with(".StatusesEntry")) {
        let ours: BTreeSet<u32> = message.fields.iter().map(|f| f.number).collect();
        assert_eq!(seen.get(message.name), Some(&ours), "{} is not the table's", message.name);
    }
}

#[test]
fn every_enum_value_is_as_the_table_says() {
    let rows = table("enums");
    let mut seen: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for row in &rows {
        let name = format!("{}.{}", row["package"], row["enum"]);
        let ours =
            schema::enums().iter().find(|e| e.name == name).unwrap_or_else(|| panic!("no enum {name}"));
        assert_eq!(ours.since, minor(&row["version_annotation(enum)"]), "{name}");
        let number: i32 = row["number"].parse().unwrap();
        let value =
            ours.values.iter().find(|v| v.number == number).unwrap_or_else(|| panic!("{name} {number}"));
        assert_eq!(value.name, row["value_name"], "{name}");
        assert_eq!(value.since, minor(&row["version_annotation(value)"]), "{name}.{}", value.name);
        assert!(seen.entry(name).or_default().insert(number));
    }
    for ours in schema::enums() {
        let numbers: BTreeSet<i32> = ours.values.iter().map(|v| v.number).collect();
        assert_eq!(seen.get(ours.name), Some(&numbers), "{} is not the table's", ours.name);
    }
}

#[test]
fn every_method_is_as_the_table_says() {
    let rows = table("rpcs");
    let (rows, notes): (Vec<_>, Vec<_>) = rows.iter().partition(|r| r["full_method"].starts_with('/'));
    assert_eq!(rows.len(), methods::TABLE.len());
    for row in rows {
        let method = Method::of_path(row["full_method"].as_bytes()).unwrap_or_else(|| panic!("{row:?}"));
        let ours = method.row();
        let kind = match ours.kind {
            Streaming::Unary => "unary",
            Streaming::ServerStream => "server-stream",
            Streaming::BidiStream => "bidi-stream",
        };
        assert_eq!(kind, row["kind"], "{method:?}");
        assert_eq!((ours.request, ours.response), (&*row["request"], &*row["response"]));
        assert!(
            schema::message(ours.request).is_some() && schema::message(ours.response).is_some(),
            "{method:?}"
        );
        assert_eq!(method.service_and_name(), (&*row["service"], &*row["method"]));
        let learner = match ours.on_learner {
            OnLearner::No => "no",
            OnLearner::Yes => "yes",
            OnLearner::Serializable => "yes if serializable",
        };
        assert_eq!(learner, row["learner_allowed"], "{method:?}");
        let since = row["since"].split(|c: char| c != '.' && !c.is_ascii_digit()).next();
        assert_eq!(Some(ours.since), minor(since.unwrap()), "{method:?}");
    }
    // The other rows are about metadata, whose names stand in `metadata`, and about what is not served.
    let text =
        notes.iter().map(|r| r["method"].clone() + " " + &r["full_method"]).collect::<Vec<_>>().join("\n");
    let hasleader =
        format!("key \"{}\" value \"{}\"", api::metadata::HAS_LEADER, api::metadata::HAS_LEADER_TRUE);
    let version = format!("key \"{}\"", api::metadata::CLIENT_API_VERSION);
    let token =
        format!("key \"{}\" (gRPC) or \"{}\" (gateway)", api::metadata::TOKEN, api::metadata::AUTHORIZATION);
    for expected in [hasleader, version, token] {
        assert!(text.contains(&expected) || data("parity/rpcs.tsv").contains(&expected), "{expected}");
    }
}

/// Rows whose text is a pattern or is no error of a call at all.
fn no_fixed_text(row: &BTreeMap<String, String>) -> bool {
    let symbol = &row["server_symbol"];
    symbol.starts_with("(watch cancel_reason)")
        || symbol.starts_with("(grpc-go)")
        || ["(gateway) bad json", "(gateway) CN rejection", "(gateway) host whitelist"]
            .contains(&symbol.as_str())
}

#[test]
fn every_error_is_as_the_table_says() {
    let rows = table("grpc_errors");
    // Two errors stand twice: as declared, and as they are really sent.
    let sent: BTreeMap<&str, &str> = rows
        .iter()
        .filter(|r| r["server_symbol"].starts_with("(anomaly)"))
        .map(|r| (r["message"].as_str(), r["grpc_code"].as_str()))
        .collect();
    assert_eq!(sent.len(), 2);
    let mut seen = BTreeSet::new();
    for row in rows.iter().filter(|r| !no_fixed_text(r)) {
        let message = row["message"].as_str();
        let error = ErrorCode::of_message(message).unwrap_or_else(|| panic!("no error {message:?}"));
        let code = sent.get(message).copied().unwrap_or(&row["grpc_code"]);
        assert_eq!(error.grpc().name(), code, "{message}");
        if !sent.contains_key(message) {
            assert_eq!(error.code().to_string(), row["code_number"], "{message}");
            assert_eq!(error.grpc().http_status().to_string(), row["gateway_http_status"], "{message}");
        }
        if let Some(symbol) = row["server_symbol"].strip_prefix("ErrGRPC") {
            let ours = format!("{error:?}").to_lowercase();
            // The one symbol that Go spells in an odd way.
            let symbol = symbol.replace("RequestTooManyRequests", "TooManyRequests").to_lowercase();
            assert_eq!(ours, symbol);
        }
        seen.insert(error);
    }
    let all: BTreeSet<ErrorCode> = ErrorCode::ALL.iter().copied().collect();
    assert_eq!(seen, all);
    let texts: BTreeSet<&str> = ErrorCode::ALL.iter().map(|e| e.message()).collect();
    assert_eq!(texts.len(), ErrorCode::ALL.len(), "two errors with one text");
}

#[test]
fn texts_made_at_run_time_are_as_the_table_says() {
    let rows = table("grpc_errors");
    let row = |symbol: &str| {
        rows.iter().find(|r| r["server_symbol"] == symbol).unwrap_or_else(|| panic!("{symbol}"))
    };
    let check = |symbol: &str, status: &api::Status, arguments: &[&str]| {
        let mut text = row(symbol)["message"].clone();
        for argument in arguments {
            let at = text.find('%').unwrap();
            text.replace_range(at..at + 2, argument);
        }
        assert_eq!(status.message, text);
        assert_eq!(status.code.to_string(), row(symbol)["code_number"]);
    };
    check(
        "(grpc-go) recv limit",
        &api::Status::message_too_large(3_000_000, 2_097_152),
        &["3000000", "2097152"],
    );
    check("(grpc-go) unknown service", &api::Status::unknown_service("a.B"), &["a.B"]);
    check("(grpc-go) unknown method", &api::Status::unknown_method("Get", "a.B"), &["Get", "a.B"]);

    let reason = |symbol: &str| row(&format!("(watch cancel_reason) {symbol}"))["message"].clone();
    assert_eq!(reason("compacted"), ErrorCode::Compacted.message());
    assert_eq!(reason("permission"), api::Status::from(ErrorCode::PermissionDenied).to_string());
    assert_eq!(reason("invalid token"), api::Status::from(ErrorCode::InvalidAuthToken).to_string());
    assert_eq!(reason("user empty"), api::Status::from(ErrorCode::UserEmpty).to_string());
    assert_eq!(reason("old revision"), api::Status::from(ErrorCode::AuthOldRevision).to_string());
    assert_eq!(reason("empty range"), api::error::cancel_reason::EMPTY_RANGE);
    assert_eq!(reason("duplicate id"), api::error::cancel_reason::DUPLICATE_ID);

    assert_eq!(Code::ALL.len(), 17);
    for (number, code) in (0..).zip(Code::ALL) {
        assert_eq!((code.number(), Code::of(number)), (number, *code));
    }
    assert_eq!([Code::of(17), Code::of(-1)], [Code::Unknown; 2]);
}
