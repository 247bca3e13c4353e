//! Fixed answers in every format.

use api::etcdserverpb::{MemberListResponse, PutResponse, StatusResponse};

use super::*;

fn header() -> ResponseHeader {
    ResponseHeader {
        cluster_id: 14_841_639_068_965_178_418,
        member_id: 10_276_657_743_932_975_437,
        revision: 4,
        raft_term: 2,
    }
}

fn kv() -> KeyValue {
    KeyValue {
        key: "foo".into(),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        value: "b\u{1}r".into(),
        lease: 31,
    }
}

fn printer(format: Format, hex: bool) -> Printer {
    Printer { format, hex, value_only: false }
}

#[test]
fn key_values() {
    let mut text = Vec::new();
    printer(Format::Simple, false).kv_simple(&mut text, false, &kv());
    printer(Format::Simple, true).kv_simple(&mut text, true, &kv());
    assert_eq!(text, b"foo\nb\x01r\n\\x62\\x01\\x72\n");
    assert_eq!(
        kv_json(&kv()),
        r#"{"key":"Zm9v","create_revision":2,"mod_revision":3,"version":2,"value":"YgFy","lease":31}"#
    );
    let mut text = String::new();
    printer(Format::Fields, true).kv_fields(&mut text, "Prev", &kv());
    expect_test::expect![[r#"
        "PrevKey" : "foo"
        "PrevCreateRevision" : 2
        "PrevModRevision" : 3
        "PrevVersion" : 2
        "PrevValue" : "b\x01r"
        "PrevLease" : 000000000000001f
    "#]]
    .assert_eq(&text);
}

#[test]
fn headers() {
    assert_eq!(
        with_header(Some(&header())).end(),
        r#"{"header":{"cluster_id":14841639068965178418,"member_id":10276657743932975437,"revision":4,"raft_term":2}}"#
    );
    assert_eq!(with_header(None).end(), "{}");
    let without = ResponseHeader { revision: 0, ..header() };
    expect_test::expect![[r#"
        "ClusterID" : cdf818194e3a8c32
        "MemberID" : 8e9e05c52164694d
        "RaftTerm" : 2
    "#]]
    .assert_eq(&printer(Format::Fields, true).header_fields(Some(&without)));
}

#[test]
fn formats_that_a_command_does_not_have() {
    let refused = |outcome: Outcome| outcome.unwrap_err();
    let exit = refused(printer(Format::Table, false).put(&PutResponse::default()));
    assert_eq!(exit, Exit::new(BAD_FEATURE, "table not supported as output format"));
    let exit = refused(printer(Format::Protobuf, false).status(&[]));
    assert_eq!(exit.message.as_deref(), Some("protobuf not supported as output format"));
    assert_eq!(Format::of_name("yaml"), None);
}

#[test]
fn nothing_is_printed_twice() {
    // An answer without members is an empty table in simple form, and only a header in JSON.
    let answer = MemberListResponse { header: Some(header()), members: Vec::new() };
    assert_eq!(printer(Format::Simple, false).member_list(&answer), Ok(()));
    assert_eq!(printer(Format::Simple, false).status(&[Status { endpoint: String::new(), answer: StatusResponse::default() }]), Ok(()));
}
