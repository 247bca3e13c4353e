//! Requests that do not become calls, and calls that the codec ends: status, text and frames as grpc-go's.

use super::*;
use crate::Reason;
use crate::message::gzip;

/// A request head whose body never comes, and the answer.
fn refused(fields: &[(&str, &str)], end: bool) -> Got {
    let mut p = Pair::new(Settings::default());
    p.frame(kind::HEADERS, 4 | u8::from(end), 1, &block(fields));
    assert_eq!((p.server.told.len(), p.c.replies().open_calls()), (0, 0));
    p.take(1)
}

fn with<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
    ];
    for (name, value) in more {
        match fields.iter_mut().find(|(n, _)| n == name && *n != "host") {
            Some(f) => f.1 = value,
            None => fields.push((name, value)),
        }
    }
    fields
}

#[test]
fn texts_of_grpc_go() {
    let u = "/t.T/Unary";
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        ("/t.T/Nope", &[], "200", "12", "unknown method Nope for service t.T"),
        ("/t.T/", &[], "200", "12", "unknown method  for service t.T"),
        ("/x.X/Nope", &[], "200", "12", "unknown service x.X"),
        ("/a/b/c", &[], "200", "12", "unknown service a/b"),
        ("/nope", &[], "200", "12", "malformed method name: \"/nope\""),
        ("no\"pe", &[], "200", "12", "malformed method name: \"no\\\"pe\""),
        (
            u,
            &[("grpc-encoding", "br")],
            "200",
            "12",
            "grpc: Decompressor is not installed for grpc-encoding \"br\"",
        ),
        (u, &[("grpc-timeout", "0m")], "200", "4", "context deadline exceeded"),
        (
            u,
            &[("grpc-timeout", "5")],
            "400",
            "13",
            "malformed grpc-timeout: transport: timeout string is too short: \"5\"",
        ),
        (u, &[("content-type", "text/html")], "415", "3", "invalid gRPC request content-type \"text/html\""),
        (
            u,
            &[("content-type", "application/grpcx")],
            "415",
            "3",
            "invalid gRPC request content-type \"application/grpcx\"",
        ),
        (
            u,
            &[(":method", "GET")],
            "405",
            "13",
            "Received a HEADERS frame with :method \"GET\" which should be POST",
        ),
        (
            u,
            &[("host", "a"), ("host", "b")],
            "400",
            "13",
            "num values of :authority: 1, num values of host: 2, both must only have 1 value as per HTTP/2 spec",
        ),
        (
            u,
            &[("x-bin", "%%%")],
            "400",
            "13",
            "malformed binary metadata \"%25%25%25\" in header \"x-bin\": illegal base64 data at input byte 0",
        ),
    ];
    for (path, more, http, code, text) in cases {
        for end in [true, false] {
            let got = refused(&with(path, more), end);
            assert_eq!(got.headers[0], format!(":status: {http}"), "{path} {more:?}");
            assert_eq!(got.headers[1], "content-type: application/grpc");
            assert_eq!((got.status(), got.message()), (Some(*code), *text));
            assert!(got.ended);
            // The client is told to stop sending, not that anything went wrong.
            assert_eq!(got.reset, (!end).then_some(Reason::NoError as u32));
        }
    }
    let mut fields = with(u, &[]);
    fields.remove(3);
    let got = refused(&fields, true);
    assert_eq!((got.status(), got.message()), (Some("13"), "no host or :authority header present"));
}

#[test]
fn malformed_requests_are_reset() {
    let u = "/t.T/Unary";
    for more in [
        ("Upper", "x"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("x", "a\0b"),
        ("x y", "z"),
        (":status", "200"),
        (":path", ""),
        ("content-length", "1x"),
    ] {
        let got = refused(&with(u, &[more]), true);
        assert_eq!((got.reset, got.headers.len()), (Some(Reason::Protocol as u32), 0), "{more:?}");
    }
    for i in 0..3 {
        let mut fields = with(u, &[]);
        let removed = fields.remove(i);
        assert_eq!(refused(&fields, true).reset, Some(1));
        fields.push(removed);
        // A pseudo-header behind a regular one.
        assert_eq!(refused(&fields, true).reset, Some(1));
        fields.insert(0, removed);
        assert_eq!(refused(&fields, true).reset, Some(1));
    }
}

/// What a call is answered for DATA frames of these payloads, the last one with END_STREAM or not.
fn answered(path: &str, more: &[(&str, &str)], data: &[&[u8]], end: bool) -> (Got, Vec<Told>) {
    let mut p = Pair::new(Settings { max_message_bytes: 1000, ..Settings::default() });
    p.head(1, path, more, false);
    for (i, d) in data.iter().enumerate() {
        p.frame(kind::DATA, u8::from(end && i + 1 == data.len()), 1, d);
    }
    let got = p.take(1);
    assert_eq!(p.c.replies().streams.partial, 0);
    (got, p.server.told)
}

#[test]
fn framing_errors() {
    let mut long = prefixed(&[0; 1001]);
    let none = "cardinality violation: received no request message from non-client-streaming RPC";
    let cases: &[(&str, &[&[u8]], &str, &str)] = &[
        ("/t.T/Unary", &[&[]], "2", "EOF"),
        ("/t.T/Unary", &[&[0, 0]], "2", "EOF"),
        ("/t.T/List", &[&[]], "13", none),
        ("/t.T/List", &[&[0, 0]], "13", none),
        ("/t.T/Unary", &[&[0, 0, 0, 0, 9, 1]], "2", "unexpected EOF"),
        ("/t.T/List", &[&[0, 0, 0, 0, 9, 1]], "13", "unexpected EOF"),
        (
            "/t.T/Unary",
            &[&[1, 0, 0, 0, 1, 1]],
            "13",
            "grpc: compressed flag set with identity or empty encoding",
        ),
        ("/t.T/Unary", &[&[2, 0, 0, 0, 1, 1]], "13", "grpc: received unexpected payload format 2"),
        ("/t.T/Unary", &[&[0, 0, 0, 4], &[2]], "8", "grpc: received message larger than max (1026 vs. 1000)"),
        ("/t.T/Unary", &[&long], "8", "grpc: received message larger than max (1001 vs. 1000)"),
    ];
    for (path, data, code, text) in cases {
        let (got, told) = answered(path, &[], data, true);
        assert_eq!((got.status(), got.message(), told.len()), (Some(*code), *text, 0), "{path} {data:?}");
        assert_eq!((got.ended, got.reset), (true, None));
    }
    // The same without the end: the client is told to stop.
    for (path, data, code, text) in &cases[6..] {
        let (got, _) = answered(path, &[], data, false);
        assert_eq!((got.status(), got.message(), got.reset), (Some(*code), *text, Some(0)));
    }
    // A stream has been told of, so it is told of the end as well.
    let (got, told) = answered("/t.T/Bidi", &[], &[&prefixed(b"x"), &[0, 1]], true);
    assert_eq!((got.status(), got.message()), (Some("13"), "unexpected EOF"));
    assert_eq!(told, [Told::Open(1), Told::Message(1, b"x".into()), Told::Cancelled(1)]);
    long.truncate(5 + 1000);
    long[4] -= 1;
    let (got, _) = answered("/t.T/Unary", &[], &[&long], true);
    assert_eq!((got.status(), got.data.len()), (Some("0"), 1005));
    // No END_STREAM at all after HEADERS with it: answered at once.
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Unary", &[], true);
    assert_eq!(p.take(1).message(), "EOF");
}

#[test]
fn a_second_message() {
    // grpc-go does not look at it for a unary call,
    let two = [prefixed(b"a"), prefixed(b"b")].concat();
    let (got, told) = answered("/t.T/Later", &[], &[&two], false);
    assert_eq!((got, told.len()), (Got::default(), 1));
    // and minds it for a server stream.
    let mut p = Pair::new(Settings::default());
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 100]);
    p.head(1, "/t.T/List", &[], false);
    p.message(1, &[0, 0, 1, 0], false);
    p.message(1, &[0, 0, 1, 0], true);
    assert_eq!(p.server.told.len(), 1);
}

#[test]
fn gzip_both_ways() {
    let body = vec![b'z'; 900];
    let mut packed = vec![1];
    let zipped = gzip(&body);
    packed.extend_from_slice(&(zipped.len() as u32).to_be_bytes());
    packed.extend_from_slice(&zipped);
    let gz = [("grpc-encoding", "gzip")];
    for data in [&packed[..], &prefixed(&body)] {
        let (got, told) = answered("/t.T/Unary", &gz, &[data], true);
        assert_eq!(told, [Told::Unary(1, UNARY, body.clone())]);
        assert_eq!(got.headers[2], "grpc-encoding: gzip");
        assert_eq!(got.data[0], 1);
        assert_eq!(crate::message::gunzip(&got.data[5..], 1000), Ok(body.clone()));
    }
    let (got, _) = answered("/t.T/Unary", &gz, &[&prefixed(b"")], true);
    assert_eq!(got.data, prefixed(b""));
    let bomb = gzip(&[0; 1001]);
    let mut data = vec![1, 0, 0, 0, bomb.len() as u8];
    data.extend_from_slice(&bomb);
    let (got, told) = answered("/t.T/Unary", &gz, &[&data], true);
    assert_eq!(got.message(), "grpc: received message after decompression larger than max 1000");
    assert!(told.is_empty());
}

#[test]
fn content_subtypes_are_given_back() {
    for (sent, back) in [
        ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc;x", "application/grpc+x"),
        ("application/grpc+", "application/grpc"),
    ] {
        let mut p = Pair::new(Settings::default());
        p.frame(kind::HEADERS, 4, 1, &block(&with("/t.T/Unary", &[("content-type", sent)])));
        p.message(1, b"", true);
        assert_eq!(p.take(1).headers[1], format!("content-type: {back}"));
    }
}

#[test]
fn content_length_must_be_true() {
    for (length, ok) in [("8", true), ("7", false), ("9", false)] {
        let mut p = Pair::new(Settings::default());
        p.head(1, "/t.T/Unary", &[("content-length", length)], false);
        p.message(1, b"abc", true);
        let got = p.take(1);
        assert_eq!((got.status().is_some(), got.reset), (ok, (!ok).then_some(1)));
        assert_eq!(p.server.told.len(), usize::from(ok));
    }
}

#[test]
fn over_the_stream_limit_is_refused() {
    let mut p = Pair::new(Settings { max_concurrent_streams: 2, ..Settings::default() });
    for id in [1, 3, 5] {
        p.call(id, "/t.T/Later", b"");
    }
    assert_eq!(p.take(5).reset, Some(Reason::Refused as u32));
    p.c.replies().reply(1, |_| {});
    p.call(7, "/t.T/Unary", b"");
    assert_eq!(p.take(7).status(), Some("0"));
}

#[test]
fn a_long_path_does_not_break_the_answer() {
    let path = format!("/t.T/{}", "é".repeat(8000));
    let got = refused(&with(&path, &[]), true);
    assert_eq!(got.status(), Some("12"));
    assert!(got.message().starts_with("unknown method %C3%A9") && got.message().len() <= 8192);
}
