//! Streams that Go members sent, read and written byte for byte; and what is no stream.

use super::*;

/// The beginning of a captured stream: release, kind and ids are in the name of the file.
struct Capture {
    name: &'static str,
    bytes: Vec<u8>,
    sender: u64,
    receiver: u64,
}

const LEADER: u64 = 0x25f0_169d_6174_f1ff;
const THIRD: u64 = 0x6f_f29a_f9b9_2d11;
const SECOND: u64 = 0x0971_759b_910c_c6dd;

fn read(name: &str) -> Vec<u8> {
    let path = format!("{}/../../tests/data/peers/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn captures() -> Vec<Capture> {
    [
        ("3.5.1-msgapp-25f0169d6174f1ff-to-6ff29af9b92d11", LEADER, THIRD),
        ("3.5.1-message-25f0169d6174f1ff-to-6ff29af9b92d11", LEADER, THIRD),
        ("3.5.1-message-6ff29af9b92d11-to-25f0169d6174f1ff", THIRD, LEADER),
        ("3.6.14-msgapp-25f0169d6174f1ff-to-971759b910cc6dd", LEADER, SECOND),
        ("3.6.14-message-25f0169d6174f1ff-to-971759b910cc6dd", LEADER, SECOND),
        ("3.7.1-msgapp-25f0169d6174f1ff-to-6ff29af9b92d11", LEADER, THIRD),
        ("3.7.1-message-25f0169d6174f1ff-to-971759b910cc6dd", LEADER, SECOND),
    ]
    .into_iter()
    .map(|(name, sender, receiver)| Capture { name, bytes: read(name), sender, receiver })
    .collect()
}

impl Capture {
    fn is_append(&self) -> bool {
        self.name.contains("-msgapp-")
    }

    fn decoder(&self) -> Decoder {
        if self.is_append() { Decoder::append(self.receiver, self.sender) } else { Decoder::message() }
    }

    fn encoder(&self) -> Encoder {
        if self.is_append() { Encoder::Append { term: 0, index: 0 } } else { Encoder::Message }
    }
}

fn drain(decoder: &mut Decoder) -> Vec<Message> {
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

#[test]
fn p6_to_p13_and_p60_captured_streams_are_read_and_written_byte_for_byte() {
    for capture in captures() {
        let mut decoder = capture.decoder();
        decoder.feed(&capture.bytes);
        let messages = drain(&mut decoder);
        assert!(decoder.is_between(), "{}", capture.name);
        assert!(messages.len() > 10, "{}: {} messages", capture.name, messages.len());
        let (mut encoder, mut out) = (capture.encoder(), BytesMut::new());
        for message in &messages {
            if !is_link_heartbeat(message) {
                assert_eq!((message.from(), message.to()), (capture.sender, capture.receiver), "{}", capture.name);
            }
            encoder.put(message, &mut out);
        }
        assert!(out[..] == capture.bytes[..], "{} is written otherwise than it was read", capture.name);
    }
}

#[test]
fn pieces_of_any_size_make_the_same_messages() {
    for capture in captures() {
        let mut whole = capture.decoder();
        whole.feed(&capture.bytes);
        let expected = drain(&mut whole);
        for size in [1, 7, 64, 1000] {
            let mut decoder = capture.decoder();
            let mut messages = Vec::new();
            for piece in capture.bytes.chunks(size) {
                decoder.feed(piece);
                messages.extend(drain(&mut decoder));
            }
            assert!(messages == expected, "{} in pieces of {size}", capture.name);
        }
    }
}

#[test]
fn a_stream_torn_at_any_byte_gives_what_came_in_full() {
    for capture in captures() {
        let most = capture.bytes.len().min(1500);
        // Where frames end, found by feeding one byte after the other.
        let (mut decoder, mut ends, mut count) = (capture.decoder(), vec![(0, 0)], 0);
        for (at, byte) in capture.bytes[..most].iter().enumerate() {
            decoder.feed(&[*byte]);
            let more = drain(&mut decoder).len();
            count += more;
            if more > 0 {
                ends.push((at + 1, count));
            }
        }
        for torn in 0..most {
            let mut decoder = capture.decoder();
            decoder.feed(&capture.bytes[..torn]);
            let messages = drain(&mut decoder).len();
            let (end, count) = ends.iter().rev().find(|(end, _)| *end <= torn).copied().unwrap();
            assert_eq!(messages, count, "{} torn at {torn}", capture.name);
            assert_eq!(decoder.is_between(), end == torn, "{} torn at {torn}", capture.name);
        }
    }
}

#[test]
fn p10_and_p60_contexts_and_order_are_left_as_they_are() {
    let of = |name: &str| captures().into_iter().find(|capture| capture.name.starts_with(name)).unwrap();
    let capture = of("3.7.1-msgapp");
    let mut decoder = capture.decoder();
    decoder.feed(&capture.bytes);
    let indices: Vec<u64> = drain(&mut decoder).iter().filter(|m| !m.entries.is_empty()).map(Message::index).collect();
    let steps_back = indices.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(steps_back > 5, "a leader of 3.7.1 sends appends backwards: {indices:?}");
    let contexts = |name: &str| -> Vec<Bytes> {
        let capture = of(name);
        let mut decoder = capture.decoder();
        decoder.feed(&capture.bytes);
        let messages = drain(&mut decoder).into_iter();
        messages.filter(|m| m.r#type() == MessageType::MsgHeartbeat).filter_map(|m| m.context).collect()
    };
    assert!(contexts("3.5.1-message-25").iter().any(|context| context.len() == 8));
    for release in ["3.5.1-message-25", "3.7.1-message-25"] {
        assert!(contexts(release).iter().all(|context| context.is_empty() || context.len() == 8), "{release}");
    }
}

#[test]
fn p6_link_heartbeats() {
    let mut out = BytesMut::new();
    Encoder::Append { term: 7, index: 7 }.put(&link_heartbeat(), &mut out);
    Encoder::Message.put(&link_heartbeat(), &mut out);
    assert_eq!(&out[..], [0, 0, 0, 0, 0, 0, 0, 0, 2, 8, 8]);
    let of_3_5 = [
        8, 8, 16, 0, 24, 0, 32, 0, 40, 0, 48, 0, 64, 0, 0x4a, 0x0a, 0x12, 8, 0x0a, 2, 0x28, 0, 0x10, 0, 0x18, 0, 0x50, 0, 0x58,
        0,
    ];
    let of_3_6 = [8, 8, 16, 0, 24, 0, 32, 0, 40, 0, 48, 0, 64, 0, 0x50, 0, 0x58, 0, 0x68, 0];
    for bytes in [&of_3_5[..], &of_3_6, &[8, 8]] {
        assert!(is_link_heartbeat(&Message::decode(bytes).unwrap()));
    }
    let real = Message { to: Some(1), ..link_heartbeat() };
    assert!(!is_link_heartbeat(&real));
}

#[test]
fn lengths_are_not_believed() {
    let malformed = |mut decoder: Decoder, bytes: &[u8]| {
        decoder.feed(bytes);
        loop {
            match decoder.next() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    };
    let long = (1u64 << 40).to_be_bytes();
    assert_eq!(malformed(Decoder::message(), &long), Some(Malformed::TooLong(1 << 40)));
    for kind in [1, 2] {
        let bytes: Vec<u8> = [kind].into_iter().chain(long).collect();
        assert_eq!(malformed(Decoder::append(1, 2), &bytes), Some(Malformed::TooLong(1 << 40)), "kind {kind}");
    }
    assert_eq!(malformed(Decoder::append(1, 2), &[9]), Some(Malformed::Kind(9)));
    assert_eq!(malformed(Decoder::append(1, 2), b"HTTP/1.1 400"), Some(Malformed::Kind(b'H')));
    let bad = [0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff];
    assert!(matches!(malformed(Decoder::message(), &bad), Some(Malformed::NoMessage(_))));
    // A length that may be, without its bytes: nothing is set aside for it.
    let mut decoder = Decoder::message();
    decoder.feed(&(512u64 << 20).to_be_bytes());
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.buffer.capacity() < 1 << 10);
    let mut decoder = Decoder::append(1, 2);
    decoder.feed(&[1]);
    decoder.feed(&ENTRIES_MAX.to_be_bytes());
    assert_eq!(decoder.next(), Ok(None));
    assert!(matches!(&decoder.state, State::Short { entries, .. } if entries.capacity() == 0));
}

#[test]
fn unknown_types_are_messages_all_the_same() {
    let mut decoder = Decoder::message();
    decoder.feed(&[0, 0, 0, 0, 0, 0, 0, 3, 8, 0xe7, 7]);
    let message = decoder.next().unwrap().unwrap();
    assert_eq!(message.r#type, Some(999));
}

#[test]
fn p57_fields_that_nobody_knows_are_passed_over() {
    let plain: &[u8] = &[8, 9, 0x10, 7, 0x18, 0xb4, 0x24, 0x20, 1];
    let expected: Message = parse(Bytes::from_static(plain)).unwrap();
    for more in [
        &[0x70, 7][..], &[0x70, 0], &[0x78, 7], &[0x80, 1, 7], &[0x12, 0], &[0xfa, 1, 3, 1, 2, 3], &[0x25, 1, 2, 3, 4],
    ] {
        let bytes = [plain, more].concat();
        assert_eq!(parse::<Message>(bytes.into()).as_ref(), Ok(&expected), "{more:x?}");
    }
    for more in [&[0x68, 7][..], &[0x62, 3, b'a', b'b', b'c'], &[0x4a, 0], &[0x3a, 8, 0x28, 1, 0x32, 4, b'c', b't', b'x', b't']] {
        let message: Message = parse([plain, more].concat().into()).unwrap();
        assert_eq!((message.to(), message.term()), (7, 1), "{more:x?}");
    }
    assert!(parse::<Message>(Bytes::from_static(&[8])).is_err());
}

#[test]
fn p14_the_head_of_a_snapshot_is_checked_before_it_is_believed() {
    let bytes = read("3.5.1-snapshot-head");
    for torn in [0, 7, 8, 9, 9979] {
        let mut buffer = BytesMut::from(&bytes[..torn]);
        assert_eq!(snapshot_head(&mut buffer, 64 << 20), Ok(None), "torn at {torn}");
    }
    let mut buffer = BytesMut::from(&bytes[..]);
    let message = snapshot_head(&mut buffer, 64 << 20).unwrap().unwrap();
    assert_eq!((message.r#type(), buffer.len()), (MessageType::MsgSnap, 16), "the database follows");
    let mut again = BytesMut::new();
    put_message(&message, &mut again);
    assert!(again[..] == bytes[..bytes.len() - 16]);
    let mut buffer = BytesMut::from(&[0u8, 0, 0, 1, 0, 0, 0, 0][..]);
    assert_eq!(snapshot_head(&mut buffer, 64 << 20).unwrap_err().to_string(), "rafthttp: error limit exceeded");
    let mut buffer = BytesMut::from(&[0u8, 0, 0, 0, 0, 0, 0, 1, 0xff][..]);
    assert!(snapshot_head(&mut buffer, 64 << 20).unwrap_err().to_string().starts_with("proto: cannot parse"));
}

proptest::proptest! {
    #[test]
    fn nothing_from_the_network_panics(bytes in proptest::collection::vec(0u8.., 0..300)) {
        for mut decoder in [Decoder::message(), Decoder::append(1, 2)] {
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
        let _checked = snapshot_head(&mut BytesMut::from(&bytes[..]), 1000);
    }

    #[test]
    fn what_is_written_is_read(appends in proptest::collection::vec((0u64..3, 0u64..4, 0usize..4), 1..30)) {
        let (mut encoder, mut out, mut index) = (Encoder::Append { term: 0, index: 0 }, BytesMut::new(), 0);
        let mut sent = Vec::new();
        for (term, skip, entries) in appends {
            index += skip / 3;
            let term = term.min(1) + 1;
            let entry = |at| Entry { term: Some(term), index: Some(index + at), ..Entry::default() };
            let message = Message {
                r#type: Some(MessageType::MsgApp as i32), from: Some(2), to: Some(1), term: Some(term), log_term: Some(term),
                index: Some(index), entries: (1..=entries as u64).map(entry).collect(), commit: Some(index),
                ..Message::default()
            };
            index += entries as u64;
            encoder.put(&message, &mut out);
            sent.push(message);
        }
        let mut decoder = Decoder::append(1, 2);
        decoder.feed(&out);
        proptest::prop_assert_eq!(drain(&mut decoder), sent);
    }
}
