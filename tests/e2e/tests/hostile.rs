//! Clients that send what they should not: torn, wrong, and far too much. The server goes on for everybody else, and
//! holds no more memory than before.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use bytes::Bytes;
use e2e::raw::{Frame, PREFACE, Raw, field, flag, frame, kind, message, request_headers};
use harness::{Binaries, Member, Options, go_release, ours, run};
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

/// Memory of the server, in bytes.
fn memory(member: &Member) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", member.pid())).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
    let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kilobytes << 10
}

/// Lets several connections do their worst for a while; meanwhile and afterwards others are served, and afterwards
/// the memory is what it was, give or take `bound`.
fn attack(name: &str, bound: u64, worst: impl Fn(&mut Raw) + Sync) {
    const CONNECTIONS: usize = 8;
    let (_scratch, member) = start();
    serves(&member);
    let before = memory(&member);
    let mut peak = before;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut raw = Raw::open(&member.endpoint());
                    worst(&mut raw);
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            serves(&member);
            peak = peak.max(memory(&member));
        }
    });
    serves(&member);
    let after = memory(&member);
    println!("{name}: {} kB before, {} kB at most, {} kB after", before >> 10, peak >> 10, after >> 10);
    assert!(peak < before + bound, "{name}: {before} bytes before, {peak} at most");
}

const FEW_MEGABYTES: u64 = 48 << 20;

fn headers(stream: u32, more: &[u8], flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, &[&request_headers(PUT), more].concat())
}

#[test]
fn rapid_resets_end_the_connection() {
    attack("rapid reset", FEW_MEGABYTES, |raw| {
        let mut stream = 1;
        // Some are allowed per second, so that what a slow machine takes in five seconds is no flood.
        for _ in 0..2_000 {
            let mut bytes = Vec::new();
            for _ in 0..250 {
                bytes.extend(headers(stream, &[], flag::END_HEADERS));
                bytes.extend(frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            if !raw.send(&bytes) {
                return;
            }
        }
        assert!(raw.is_closed_within(Duration::from_secs(5)), "500000 resets are nobody's work");
    });
}

/// The same bytes again and again, until the server closes.
fn repeat(raw: &mut Raw, bytes: &[u8]) {
    for _ in 0..100 {
        if !raw.send(bytes) {
            return;
        }
    }
    assert!(raw.is_closed_within(Duration::from_secs(5)), "the server takes everything");
}

#[test]
fn a_flood_of_pings_ends_the_connection() {
    attack("ping", FEW_MEGABYTES, |raw| repeat(raw, &frame(kind::PING, 0, 0, &[7; 8]).repeat(2_000)));
}

#[test]
fn a_flood_of_settings_ends_the_connection() {
    let some = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    attack("settings", FEW_MEGABYTES, |raw| repeat(raw, &some.repeat(2_000)));
}

#[test]
fn a_flood_of_empty_frames_ends_the_connection() {
    attack("empty frames", FEW_MEGABYTES, |raw| {
        raw.send(&headers(1, &[], flag::END_HEADERS));
        repeat(raw, &frame(kind::DATA, 0, 1, &[]).repeat(2_000));
    });
}

#[test]
fn headers_without_end_end_the_connection() {
    attack("continuation", FEW_MEGABYTES, |raw| {
        raw.send(&headers(1, &[], 0));
        repeat(raw, &frame(kind::CONTINUATION, 0, 1, &field("x", &[b'y'; 200]).repeat(70)));
    });
}

#[test]
fn headers_that_unpack_to_megabytes_are_refused() {
    attack("header bomb", FEW_MEGABYTES, |raw| {
        // An entry of almost 4 KiB in the table (0x40: literal, to be indexed), then a byte for each copy of it.
        let mut indexed = field("bomb", &[b'b'; 4_000]);
        indexed[0] = 0x40;
        let mut stream = 1;
        for _ in 0..50 {
            if !raw.send(&headers(stream, &indexed, flag::END_HEADERS | flag::END_STREAM)) {
                return;
            }
            stream += 2;
            if !raw.send(&headers(stream, &[0xbe; 16_000], flag::END_HEADERS | flag::END_STREAM)) {
                return;
            }
            stream += 2;
        }
        // Every one of them may be refused by itself.
        raw.is_closed_within(Duration::from_millis(500));
    });
}

#[test]
fn messages_that_never_come_reserve_nothing() {
    attack("announced messages", FEW_MEGABYTES, |raw| {
        for stream in (1..2_000).step_by(2) {
            let mut bytes = headers(stream, &[], flag::END_HEADERS);
            // 1.5 MiB are announced, a few bytes come.
            bytes.extend(frame(kind::DATA, 0, stream, &[0, 0, 0x18, 0, 0, 1, 2, 3]));
            if !raw.send(&bytes) {
                return;
            }
        }
        raw.is_closed_within(Duration::from_millis(500));
    });
}

#[test]
fn answers_that_nobody_reads_are_not_piled_up() {
    let (_scratch, member) = start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        let link = e2e::rpc::Link::new(&member.client_url());
        for nth in 0..8 {
            let (key, value) = (format!("large{nth}").into(), vec![b'v'; 1 << 20].into());
            link.call(pb::PutRequest { key, value, ..pb::PutRequest::default() }).await.expect("a put");
        }
    });
    let before = memory(&member);
    let all = pb::RangeRequest { key: "l".into(), range_end: "m".into(), ..pb::RangeRequest::default() };
    let mut greedy = Raw::open(&member.endpoint());
    for stream in (1..400).step_by(2) {
        let mut bytes = frame(kind::HEADERS, flag::END_HEADERS, stream, &request_headers("/etcdserverpb.KV/Range"));
        bytes.extend(frame(kind::DATA, flag::END_STREAM, stream, &message(&all.encode_to_vec())));
        greedy.send(&bytes);
    }
    // Answers are made a few megabytes per turn: others have their turns in between.
    let start = Instant::now();
    while member.http("/health").is_none_or(|(status, _)| status != 200) {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody else is served");
    }
    serves(&member);
    let after = memory(&member);
    println!("200 answers of 8 MiB that nobody reads: {} kB before, {} kB after", before >> 10, after >> 10);
    // 1.6 GB were asked for; a connection may leave half a gigabyte unread.
    assert!(after < before + (700 << 20), "{before} bytes before, {after} after");
}

/// Most connections that a test may open, both ends counted by their own processes.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux says so");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux says so");
    line.split_whitespace().nth(3).and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn ten_thousand_idle_connections_cost_little() {
    let (_scratch, member) = start();
    serves(&member);
    let before = memory(&member);
    let count = 10_000.min(descriptors().saturating_sub(300));
    let mut idle = Vec::with_capacity(count);
    for nth in 0..count {
        let mut socket = TcpStream::connect(member.endpoint()).expect("there is room");
        // Silent, broken off within the preface, and ready to go.
        let hello = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat();
        let part = [&hello[..0], &hello[..10], &hello[..]][nth % 3];
        socket.write_all(part).expect("a new connection takes bytes");
        idle.push(socket);
    }
    serves(&member);
    let after = memory(&member);
    let each = after.saturating_sub(before) / count as u64;
    println!("{count} idle connections: {} kB before, {} kB after, {each} bytes each", before >> 10, after >> 10);
    assert!(each < 24 << 10, "{each} bytes for an idle connection");
    drop(idle);
    serves(&member);
}

/// Our server under a limit of descriptors.
fn limited(scratch: &Path, descriptors: u32) -> Binaries {
    let ours = ours();
    let script = scratch.join("limited-etcd");
    let text = format!("#!/bin/sh\nulimit -n {descriptors} && exec {} \"$@\"\n", ours.etcd.display());
    std::fs::write(&script, text).expect("scratch is writable");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    Binaries { etcd: script, ..ours }
}

#[test]
fn a_crowd_leaves_the_member_its_descriptors_and_is_served_later() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let program = limited(scratch.path(), 200);
    let member = Member::start(&program, &scratch.path().join("member"), Options::default());
    let mut known = Raw::open(&member.endpoint());
    assert!(is_ok(known.call(1, PUT, &put("before", 10))));
    let crowd: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(member.endpoint()).expect("the backlog takes it")).collect();
    std::thread::sleep(Duration::from_millis(300));
    for stream in (3..40).step_by(2) {
        assert!(is_ok(known.call(stream, PUT, &put("during", 10))), "a connection that was there is served");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", member.pid())).expect("the process is there").count();
    assert!((50..150).contains(&open), "{open} of 200 descriptors are in use");
    drop(crowd);
    let start = Instant::now();
    while member.http("/health").is_none_or(|(status, _)| status != 200) {
        assert!(start.elapsed() < Duration::from_secs(10), "new connections are not taken any more");
    }
    serves(&member);
}

#[test]
fn too_few_descriptors_to_begin_with_are_said_in_one_line() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let program = limited(scratch.path(), 140);
    let mut member = Member::spawn(&program, &scratch.path().join("member"), Options::default());
    assert_eq!(member.wait(Duration::from_secs(20)), Some(1));
    let log = member.log();
    // Another thread may still say something before the process is gone.
    let told = log.lines().filter(|line| line.contains("file descriptor limit of etcd process is too low"));
    assert_eq!(told.filter(|line| line.contains("140")).count(), 1, "{log}");
}

#[test]
fn noise_is_closed_and_forgotten() {
    let (_scratch, member) = start();
    let mut noise: Vec<u8> = (0..50_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for round in 0..40 {
        let mut socket = TcpStream::connect(member.endpoint()).expect("the server listens");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket option");
        let start = if round % 2 == 0 { PREFACE } else { b"" };
        // The server may close before all is sent.
        drop(socket.write_all(start).and_then(|()| socket.write_all(&noise)));
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "round {round} is never closed"),
        }
        noise.rotate_left(977);
    }
    serves(&member);
}

/// One call with any bytes as its body: `grpc-status` of the answer, or how the stream ended.
async fn odd_call(member: &Member, fields: &[(&str, &str)], pieces: &[&[u8]]) -> String {
    let socket = tokio::net::TcpStream::connect(member.endpoint()).await.expect("the server listens");
    let (mut sender, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut request = http::Request::builder().method("POST").uri(format!("http://localhost{PUT}"));
    for (name, value) in fields {
        match *name {
            ":path" => request = request.uri(format!("http://localhost{value}")),
            ":method" => request = request.method(*value),
            name => request = request.header(name, *value),
        }
    }
    let request = request.body(()).expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("a stream");
    for (nth, piece) in pieces.iter().enumerate() {
        // The server may have answered already.
        drop(body.send_data(Bytes::copy_from_slice(piece), nth + 1 == pieces.len()));
    }
    let answer = match tokio::time::timeout(Duration::from_secs(10), answer).await.expect("an answer") {
        Ok(answer) => answer,
        Err(error) => return format!("stream ended: {:?}", error.reason()),
    };
    let status = answer.status().as_u16();
    let mut fields = answer.headers().clone();
    let mut body = answer.into_body();
    while let Some(Ok(_)) = body.data().await {}
    fields.extend(body.trailers().await.ok().flatten().unwrap_or_default());
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    // Go's protobuf writes its spaces one way or the other, from build to build.
    format!("{status}, {}: {}", text("grpc-status"), text("grpc-message").replace("%C2%A0", " "))
}

/// Bad framing of gRPC inside good HTTP/2, and what comes of each.
async fn odd_calls(member: &Member) -> Vec<(&'static str, String)> {
    const GRPC: (&str, &str) = ("content-type", "application/grpc");
    const TE: (&str, &str) = ("te", "trailers");
    let good = message(&put("odd", 10));
    let cut = &good[..good.len() - 3];
    let two = [&good[..], &good[..]].concat();
    let mut compressed = good.clone();
    compressed[0] = 1;
    let mut unknown_flag = good.clone();
    unknown_flag[0] = 9;
    let nonsense = message(&[0xff; 20]);
    let wrong_type = message(&[0x08, 0x01]);
    let huge = [0, 0xff, 0xff, 0xff, 0xff, 1];
    let plain: &[(&str, &str)] = &[GRPC, TE];
    type Fields<'a> = Vec<(&'a str, &'a str)>;
    let calls: Vec<(&str, Fields<'_>, Vec<&[u8]>)> = vec![
        ("good", plain.to_vec(), vec![&good]),
        ("in two pieces", plain.to_vec(), vec![&good[..7], &good[7..]]),
        ("no message", plain.to_vec(), vec![b""]),
        ("half a length", plain.to_vec(), vec![&good[..3]]),
        ("cut off", plain.to_vec(), vec![cut]),
        ("two messages", plain.to_vec(), vec![&two]),
        ("compressed without saying how", plain.to_vec(), vec![&compressed]),
        ("compressed, but not gzip", vec![GRPC, TE, ("grpc-encoding", "gzip")], vec![&compressed]),
        ("an encoding nobody knows", vec![GRPC, TE, ("grpc-encoding", "snappy")], vec![&compressed]),
        ("an unknown flag", plain.to_vec(), vec![&unknown_flag]),
        ("no protobuf", plain.to_vec(), vec![&nonsense]),
        ("a field of another type", plain.to_vec(), vec![&wrong_type]),
        ("longer than allowed", plain.to_vec(), vec![&huge]),
        ("an unknown service", vec![GRPC, TE, (":path", "/nobody.Service/Method")], vec![&good]),
        ("an unknown method", vec![GRPC, TE, (":path", "/etcdserverpb.KV/Nothing")], vec![&good]),
        ("no path of a method", vec![GRPC, TE, (":path", "/nothing")], vec![&good]),
        ("another content type", vec![("content-type", "text/plain")], vec![&good]),
        ("no content type", vec![TE], vec![&good]),
        ("a time-out that is none", vec![GRPC, TE, ("grpc-timeout", "soon")], vec![&good]),
        ("GET", vec![GRPC, TE, (":method", "GET")], vec![&good]),
    ];
    let mut answers = Vec::new();
    for (name, fields, pieces) in calls {
        answers.push((name, odd_call(member, &fields, &pieces).await));
    }
    answers
}

#[test]
fn bad_framing_of_grpc_is_answered_as_go_does() {
    let ask = |binaries: &Binaries| {
        let scratch = tempfile::tempdir().expect("scratch is writable");
        let member = Member::start(binaries, &scratch.path().join("member"), Options::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        let answers = runtime.block_on(odd_calls(&member));
        serves(&member);
        answers
    };
    let ours = ask(&ours());
    assert_eq!(ours[0].1, "200, 0: ");
    let Some(go) = go_release("3.7.3") else { return };
    let differences: Vec<_> = ask(&go).into_iter().zip(&ours).filter(|(go, ours)| go != *ours).collect();
    assert!(differences.is_empty(), "Go, ours: {differences:#?}");
}
