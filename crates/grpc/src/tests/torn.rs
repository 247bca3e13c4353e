//! Input in any pieces has the same effect as input in one, and no input at all makes the codec panic or lose count.

use proptest::prelude::*;

use super::*;
use crate::message::gzip;

/// What came of an input: what the sink was told, the exact output, the error.
#[derive(Debug, PartialEq)]
struct Outcome {
    told: Vec<Told>,
    output: Vec<u8>,
    error: Option<Error>,
}

fn settings(plain: bool) -> Settings {
    // Small limits, so that short inputs reach them.
    Settings {
        plain: if plain { crate::Plain::Also } else { crate::Plain::Refused },
        max_message_bytes: 300,
        max_concurrent_streams: 20,
        stream_window: 65_535,
        connection_window: 65_535,
        ..Settings::default()
    }
}

/// Feeds the input cut at the given places.
fn run(input: &[u8], cuts: impl IntoIterator<Item = usize>, plain: bool) -> Outcome {
    let mut server = Server { meta: None, ..Server::default() };
    let mut c = Connection::new(settings(plain), 0);
    let (mut pending, mut error) = (Vec::new(), None);
    let mut from = 0;
    for to in cuts.into_iter().chain([input.len()]) {
        pending.extend_from_slice(&input[from..to]);
        from = to;
        loop {
            match c.receive(1, &pending, &mut server) {
                Ok(used) => drop(pending.drain(..used)),
                Err(e) => error = Some(e),
            }
            // Large answers take turns.
            if error.is_some() || !(c.stopped_early() && c.wants_input()) {
                break;
            }
        }
        if error.is_some() {
            break;
        }
        c.replies.streams.check();
    }
    let mut output = Vec::new();
    loop {
        let more = c.output().take_all();
        if more.is_empty() {
            break;
        }
        output.extend_from_slice(&more);
    }
    if error.is_none() {
        c.replies.streams.check();
    }
    c.abandon(&mut server);
    assert_eq!(c.replies().open_calls(), 0);
    c.replies.streams.check();
    Outcome { told: server.told, output, error }
}

/// A conversation with something of everything.
fn script() -> Vec<u8> {
    let mut s = PREFACE.to_vec();
    let mut put = |kind, flags, id, payload: &[u8]| s.extend(raw_frame(kind, flags, id, payload));
    put(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 4, 0, 0, 1, 0, 0, 0, 200, 0, 99, 0, 0, 0, 1]);
    put(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 16, 0]);
    put(kind::HEADERS, 4, 1, &grpc_block("/t.T/Unary", &[("token", "x.1"), ("grpc-timeout", "5S")]));
    put(kind::DATA, 1, 1, &prefixed(b"one"));
    // Priority, padding, CONTINUATION.
    let block = grpc_block("/t.T/Bidi", &[("x", "y")]);
    let mut first = vec![3, 0, 0, 0, 0, 7];
    first.extend_from_slice(&block[..20]);
    first.extend_from_slice(&[0; 3]);
    put(kind::HEADERS, 0x28, 3, &first);
    put(kind::CONTINUATION, 0, 3, &block[20..40]);
    put(kind::CONTINUATION, 4, 3, &block[40..]);
    let messages = [prefixed(b"alpha"), prefixed(b""), prefixed(&[9; 200])].concat();
    put(kind::DATA, 0, 3, &messages[..3]);
    put(kind::PING, 0, 0, b"12345678");
    put(kind::DATA, 8, 3, &[&[2][..], &messages[3..17], &[0, 0]].concat());
    put(kind::PRIORITY, 0, 3, &[0, 0, 0, 0, 1]);
    put(kind::DATA, 0, 3, &messages[17..]);
    put(kind::HEADERS, 4, 5, &grpc_block("/t.T/List", &[]));
    put(kind::HEADERS, 4, 7, &grpc_block("/t.T/Later", &[]));
    put(kind::DATA, 0, 7, &prefixed(b"later"));
    put(kind::DATA, 1, 5, &prefixed(&[0, 0, 8, 0]));
    put(kind::WINDOW_UPDATE, 0, 5, &[0, 0, 1, 0]);
    put(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 6, 0]);
    put(kind::DATA, 1, 7, &[]);
    put(kind::RST_STREAM, 0, 7, &[0, 0, 0, 8]);
    put(kind::HEADERS, 5, 3, &super::block(&[("x-trailer", "1")]));
    // Indexed fields, so that the table matters.
    let mut indexed = vec![0x83, 0x86, 0x44, 11];
    indexed.extend_from_slice(b"/t.T/Unary\0");
    indexed[3] = 10;
    indexed.truncate(14);
    indexed.extend_from_slice(&[0x41, 1, b'h', 0x5f, 16]);
    indexed.extend_from_slice(b"application/grpc");
    put(kind::HEADERS, 4, 9, &indexed);
    put(kind::DATA, 1, 9, &prefixed(b"nine"));
    put(kind::HEADERS, 4, 11, &[0x83, 0x86, 0xc0, 0xbf, 0xbe]);
    put(kind::DATA, 1, 11, &prefixed(b"eleven"));
    let zipped = gzip(b"zip zip zip");
    let mut packed = vec![1, 0, 0, 0, zipped.len() as u8];
    packed.extend_from_slice(&zipped);
    put(kind::HEADERS, 4, 13, &grpc_block("/t.T/Unary", &[("grpc-encoding", "gzip")]));
    put(kind::DATA, 1, 13, &packed);
    // Errors on streams.
    put(kind::HEADERS, 4, 15, &grpc_block("/t.T/Nope", &[]));
    put(kind::DATA, 1, 15, b"late");
    put(kind::HEADERS, 4, 17, &grpc_block("/t.T/Unary", &[]));
    put(kind::DATA, 0, 17, &prefixed(&[0; 301]));
    put(kind::HEADERS, 5, 19, &grpc_block("/t.T/Unary", &[("Bad", "x")]));
    put(kind::HEADERS, 5, 21, &super::block(&[(":method", "GET"), (":scheme", "http"), (":path", "/v")]));
    put(kind::HEADERS, 4, 23, &grpc_block("/t.T/Unary", &[]));
    put(kind::DATA, 0, 23, &prefixed(b"early"));
    put(kind::GOAWAY, 0, 0, &[0; 8]);
    put(kind::DATA, 1, 23, &[]);
    put(kind::HEADERS, 4, 25, &grpc_block("/t.T/Later", &[]));
    put(kind::DATA, 1, 25, &prefixed(b"waits"));
    put(kind::SETTINGS, 1, 0, &[]);
    s
}

#[test]
fn torn_at_every_byte() {
    let input = script();
    for plain in [false, true] {
        let whole = run(&input, [], plain);
        assert_eq!(whole.error, None);
        assert!(whole.told.len() > 12, "{:?}", whole.told);
        assert_eq!(run(&input, 0..input.len(), plain), whole, "byte by byte");
        for at in 0..input.len() {
            assert_eq!(run(&input, [at], plain), whole, "torn at {at}");
        }
    }
}

#[test]
fn every_prefix_is_harmless() {
    let input = script();
    let whole = run(&input, [], false);
    for end in 0..input.len() {
        let part = run(&input[..end], [], false);
        assert_eq!(part.error, None);
        let told = part.told.iter().filter(|t| !matches!(t, Told::Cancelled(_))).count();
        assert!(told <= whole.told.len());
    }
}

/// A frame that may or may not make sense where it comes.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![8 => (0..12u32).prop_map(|i| 2 * i + 1), 1 => Just(0u32), 1 => 0..30u32];
    let path =
        prop_oneof![Just("/t.T/Unary"), Just("/t.T/Later"), Just("/t.T/List"), Just("/t.T/Bidi"), Just("/x")];
    let bytes = |n| proptest::collection::vec(any::<u8>(), 0..n);
    prop_oneof![
        6 => (id.clone(), path, any::<bool>(), 0..6usize).prop_map(|(id, path, end, more)| {
            let more: &[(&str, &str)] = match more {
                0 => &[("grpc-encoding", "gzip")],
                1 => &[("content-length", "9")],
                2 => &[("grpc-timeout", "0m")],
                3 => &[("content-type", "text/plain")],
                _ => &[],
            };
            raw_frame(kind::HEADERS, 4 | u8::from(end), id, &grpc_block(path, more))
        }),
        6 => (id.clone(), any::<bool>(), bytes(400))
            .prop_map(|(id, end, m)| raw_frame(kind::DATA, u8::from(end), id, &prefixed(&m))),
        2 => (id.clone(), 0..16u8, bytes(40)).prop_map(|(id, flags, m)| raw_frame(kind::DATA, flags, id, &m)),
        2 => (id.clone(), any::<u16>()).prop_map(|(id, n)| raw_frame(kind::WINDOW_UPDATE, 0, id, &u32::from(n).to_be_bytes())),
        1 => id.clone().prop_map(|id| raw_frame(kind::RST_STREAM, 0, id, &[0, 0, 0, 8])),
        1 => any::<u16>().prop_map(|n| raw_frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, (n >> 8) as u8, n as u8])),
        1 => Just(raw_frame(kind::PING, 0, 0, &[0; 8])),
        1 => (0..12u8, any::<u8>(), id, bytes(30)).prop_map(|(kind, flags, id, p)| raw_frame(kind, flags, id, &p)),
    ]
}

/// 400, or what `PROPTEST_CASES` says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_in_any_pieces(
        frames in proptest::collection::vec(frames(), 1..60),
        mut cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        plain in any::<bool>(),
    ) {
        let mut input = PREFACE.to_vec();
        input.extend(raw_frame(kind::SETTINGS, 0, 0, &[]));
        frames.iter().for_each(|f| input.extend_from_slice(f));
        let mut cuts: Vec<usize> = cuts.drain(..).map(|i| i.index(input.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(run(&input, cuts, plain), run(&input, [], plain));
    }

    #[test]
    fn damaged_conversations(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut input = script();
        for (at, byte) in damage {
            let at = 24 + at.index(input.len() - 24);
            input[at] = byte;
        }
        let whole = run(&input, [], false);
        prop_assert_eq!(run(&input, 0..input.len(), false), whole);
    }
}
