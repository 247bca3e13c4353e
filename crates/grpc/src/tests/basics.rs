//! Calls that go well, byte for byte where it matters.

use super::*;

#[test]
fn the_first_reply_teaches_and_the_next_are_short() {
    let mut p = Pair::new(Settings::default());
    p.call(1, "/t.T/Unary", b"abc");
    let first = p.c.output().take_all();
    let expected = [
        &[0, 0, 19, 1, 4, 0, 0, 0, 1, 0x88, 0x5f, 16][..],
        b"application/grpc",
        &[0, 0, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3],
        b"abc",
        &[0, 0, 15, 1, 5, 0, 0, 0, 1, 0x40, 11],
        b"grpc-status\x010",
    ];
    assert_eq!(first, expected.concat());
    p.call(3, "/t.T/Unary", b"");
    let warm = [
        &[0, 0, 2, 1, 4, 0, 0, 0, 3, 0x88, 0xbf][..],
        &[0, 0, 5, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0],
        &[0, 0, 1, 1, 5, 0, 0, 0, 3, 0xbe],
    ];
    assert_eq!(p.c.output().take_all(), warm.concat());
    assert_eq!(p.c.replies().open_calls(), 0);
}

#[test]
fn unary_later() {
    let mut p = Pair::new(Settings::default());
    p.call(1, "/t.T/Later", b"q");
    p.call(3, "/t.T/Later", b"r");
    assert_eq!(p.server.told, [Told::Unary(1, LATER, b"q".into()), Told::Unary(3, LATER, b"r".into())]);
    assert!(p.c.replies().reply_status(3, 5, "no 100% café"));
    assert!(p.c.replies().reply(1, |out| out.push(7)));
    assert!(!p.c.replies().reply(1, |_| unreachable!()));
    let got = p.take(3);
    assert_eq!(
        got.headers,
        [
            ":status: 200",
            "content-type: application/grpc",
            "grpc-status: 5",
            "grpc-message: no 100%25 caf%C3%A9"
        ]
    );
    assert!(got.ended && got.reset.is_none());
    let got = p.take(1);
    assert_eq!((got.data, got.trailers), (prefixed(&[7]), vec!["grpc-status: 0".to_string()]));
}

#[test]
fn bidi() {
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Bidi", &[("token", "t.1"), ("hasleader", "true"), ("x", "y")], false);
    p.message(1, b"one", false);
    let mut two = prefixed(b"two");
    two.extend_from_slice(&prefixed(b"three"));
    p.frame(kind::DATA, 0, 1, &two[..3]);
    p.frame(kind::DATA, 0, 1, &two[3..]);
    p.frame(kind::DATA, 1, 1, &[]);
    assert_eq!(
        p.server.told,
        [
            Told::Open(1),
            Told::Message(1, b"one".into()),
            Told::Message(1, b"two".into()),
            Told::Message(1, b"three".into()),
            Told::HalfClose(1)
        ]
    );
    let meta = p.server.meta.take().unwrap();
    assert_eq!((meta.token(), meta.has_leader(), meta.get("x")), (Some(&b"t.1"[..]), true, Some(&b"y"[..])));
    let got = p.take(1);
    assert_eq!(got.data, [prefixed(b"one"), prefixed(b"two"), prefixed(b"three")].concat());
    assert_eq!(got.status(), Some("0"));
    assert_eq!(got.reset, None);
}

#[test]
fn end_of_stream_in_a_frame_of_its_own_needs_no_reset() {
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Unary", &[], false);
    p.message(1, b"x", false);
    assert_eq!(p.c.replies().open_calls(), 1);
    p.frame(kind::DATA, 1, 1, &[]);
    assert_eq!(p.c.replies().open_calls(), 0);
    let got = p.take(1);
    assert_eq!((got.status(), got.reset), (Some("0"), None));
}

#[test]
fn plain_requests() {
    let mut p = Pair::new(Settings { plain: crate::Plain::Also, ..Settings::default() });
    let get = block(&[(":method", "GET"), (":scheme", "https"), (":path", "/version"), (":authority", "a")]);
    p.frame(kind::HEADERS, 5, 1, &get);
    let post =
        block(&[(":method", "POST"), (":scheme", "https"), (":path", "/v3/kv/put"), ("content-length", "4")]);
    p.frame(kind::HEADERS, 4, 3, &post);
    p.frame(kind::DATA, 0, 3, b"ab");
    p.frame(kind::DATA, 1, 3, b"cd");
    assert_eq!(
        p.server.told,
        [Told::Plain(1, "/version".into(), vec![]), Told::Plain(3, "/v3/kv/put".into(), b"abcd".into())]
    );
    let got = p.take(3);
    assert_eq!((got.headers, got.data), (vec![":status: 200".into(), "x: y".into()], b"abcd".into()));
    assert!(p.take(1).ended);

    let mut p = Pair::new(Settings::default());
    p.frame(kind::HEADERS, 5, 1, &get);
    let got = p.take(1);
    assert_eq!(got.headers[0], ":status: 415");
    assert_eq!((got.status(), got.message()), (Some("3"), "invalid gRPC request content-type \"\""));
}

#[test]
fn a_large_reply_goes_in_slices_and_a_small_one_passes_it() {
    let mut p = Pair::new(Settings::default());
    // Windows wide open.
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    p.frame(kind::WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
    let n: u32 = 3_000_000;
    p.call(1, "/t.T/List", &n.to_be_bytes());
    assert!(p.c.output().len() < 300_000);
    let first = p.c.output().len();
    p.call(3, "/t.T/Unary", b"small");
    // Headers, message, trailers that spell the status out for the first time; no more of the list before them.
    assert_eq!(p.c.replies().out.len(), first + 11 + 14 + 5 + 24);
    let got = p.take(1);
    assert_eq!(got.data.len(), n as usize + 5);
    assert_eq!(got.status(), Some("0"));
    assert_eq!(p.take(3).data, prefixed(b"small"));
}
