//! Clients that send what they should not: torn, wrong, and far too much. The server goes on for everybody else, and
//! holds no more memory than before.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::time::Duration;

use api::etcdserverpb as pb;
use e2e::raw::{Frame, Raw, flag, frame, kind, message, request_headers};
use harness::{Member, Options, ours, run};
use prost::Message;

const PUT: &str = "/etcdserverpb.KV/Put";

fn put(key: &str, len: usize) -> Vec<u8> {
    pb::PutRequest { key: key.to_owned().into(), value: vec![b'v'; len].into(), ..pb::PutRequest::default() }
        .encode_to_vec()
}

fn start() -> (tempfile::TempDir, Member) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let member = Member::start(&ours(), &scratch.path().join("member"), Options::default());
    (scratch, member)
}

/// Somebody else is served, at once.
fn serves(member: &Member) {
    let etcdctl = &member.binaries().etcdctl;
    let endpoint = format!("--endpoints={}", member.endpoint());
    let put = run(etcdctl, &[&endpoint, "--command-timeout=5s", "put", "alive", "yes"]);
    assert_eq!(put.ok(), "OK\n");
}

/// Whether a call ended well: trailers, with nothing but success in them.
fn is_ok(end: Option<Frame>) -> bool {
    end.is_some_and(|end| end.kind == kind::HEADERS && end.flags & flag::END_STREAM != 0)
}

#[test]
fn a_frame_that_comes_in_pieces_is_waited_for_and_nobody_else_waits() {
    let (_scratch, member) = start();
    let mut torn = Raw::open(&member.endpoint());
    let mut bytes = frame(kind::HEADERS, flag::END_HEADERS, 1, &request_headers(PUT));
    bytes.extend(frame(kind::DATA, flag::END_STREAM, 1, &message(&put("torn", 60))));
    for (nth, byte) in bytes.iter().enumerate() {
        assert!(torn.send(&[*byte]));
        if nth % 40 == 0 {
            std::thread::sleep(Duration::from_millis(5));
            serves(&member);
        }
    }
    assert!(is_ok(torn.end_of(1, Duration::from_secs(5))), "the torn call is answered");
    assert!(is_ok(torn.call(3, PUT, &put("whole", 10))));
}
