//! Flow control both ways, backpressure, fairness between streams.

use super::*;
use crate::Reason;
use crate::limits::FRAME_MAX_BYTES;

#[test]
fn a_reply_waits_for_the_windows() {
    let mut p = Pair::new(Settings::default());
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10]);
    p.call(1, "/t.T/Unary", b"0123456789");
    p.flush();
    assert_eq!((p.got[&1].data.len(), p.got[&1].ended), (10, false));
    assert_eq!(p.c.replies().buffered(1), 5);
    // Down to a negative window and up again by less than that.
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    p.frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]);
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 3]);
    p.flush();
    assert_eq!(p.got[&1].data.len(), 12);
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]);
    let got = p.take(1);
    assert_eq!((got.data, got.trailers), (prefixed(b"0123456789"), vec!["grpc-status: 0".to_string()]));
}

#[test]
fn the_connections_window_is_shared() {
    let mut p = Pair::new(Settings::default());
    for id in [1, 3] {
        p.call(id, "/t.T/List", &50_000u32.to_be_bytes());
    }
    p.flush();
    let sent = |p: &Pair, id: u32| p.got[&id].data.len();
    assert_eq!(sent(&p, 1) + sent(&p, 3), 65_535);
    assert!(sent(&p, 1).abs_diff(sent(&p, 3)) <= FRAME_MAX_BYTES);
    p.frame(kind::WINDOW_UPDATE, 0, 0, &40_000u32.to_be_bytes());
    assert_eq!((p.take(1).data.len(), p.take(3).data.len()), (50_005, 50_005));
}

#[test]
fn windows_that_overflow() {
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Bidi", &[], false);
    p.frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(p.take(1).reset, Some(Reason::FlowControl as u32));
    assert_eq!(p.server.told, [Told::Open(1), Told::Cancelled(1)]);
    let error = p.try_frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).unwrap_err();
    assert_eq!(error.reason(), Reason::FlowControl);
}

#[test]
fn what_we_receive_is_counted_and_given_back() {
    let mut p =
        Pair::new(Settings { stream_window: 100_000, connection_window: 200_000, ..Settings::default() });
    p.head(1, "/t.T/Later", &[], false);
    let message = prefixed(&vec![1; 90_000]);
    // Padding counts as well.
    for part in message.chunks(9_000) {
        let mut padded = vec![255];
        padded.extend_from_slice(part);
        padded.extend_from_slice(&[0; 255]);
        p.frame(kind::DATA, 8, 1, &padded);
    }
    p.flush();
    let updates: Vec<_> = p.control.iter().filter(|(k, _, _)| *k == kind::WINDOW_UPDATE).collect();
    assert_eq!(updates.len(), 1);
    assert_eq!(frame::be32(&updates[0].2), 6 * 9_256);
    assert_eq!(p.server.told, [Told::Unary(1, LATER, vec![1; 90_000])]);

    let mut p =
        Pair::new(Settings { stream_window: 100_000, connection_window: 200_000, ..Settings::default() });
    for id in [1, 3, 5, 7] {
        p.head(id, "/t.T/Later", &[], false);
    }
    // A client that ignores the stream's window; the codec would give room back after half of it.
    let slot = p.c.replies.streams.find(1).unwrap();
    p.c.replies.streams.at(slot).recv_window = 10_000;
    p.frame(kind::DATA, 0, 1, &[0; 10_001]);
    assert_eq!(p.take(1).reset, Some(Reason::FlowControl as u32));
    p.c.recv_window = 10;
    assert_eq!(p.try_frame(kind::DATA, 0, 3, &[0; 11]).unwrap_err().reason(), Reason::FlowControl);
}

/// As a watch: stop at a bound, go on when told.
#[test]
fn backpressure_of_a_stream() {
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Bidi", &[], false);
    let event = Bytes::from(vec![5; 10_000]);
    let mut sent = 0;
    while p.c.replies().send_bytes(1, event.clone()) < 100_000 {
        sent += 1;
        p.flush();
    }
    let mut drained = Vec::new();
    p.c.replies().take_drained(&mut drained);
    assert!(drained.is_empty() && sent > 10);
    p.frame(kind::WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]);
    p.frame(kind::WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0]);
    p.flush();
    assert!(!p.c.replies().has_drained());
    p.frame(kind::WINDOW_UPDATE, 0, 0, &[0, 1, 0, 0]);
    p.frame(kind::WINDOW_UPDATE, 0, 1, &[0, 1, 0, 0]);
    p.flush();
    p.c.replies().take_drained(&mut drained);
    assert_eq!((drained, p.c.replies().has_drained()), (vec![1], false));
    p.frame(kind::DATA, 1, 1, &[]);
    let got = p.take(1);
    assert_eq!((got.data.len(), got.status()), ((sent + 1) * 10_005, Some("0")));
}

#[test]
fn messages_of_pieces() {
    let mut p = Pair::new(Settings::default());
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    p.frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    let pieces: Vec<Bytes> = (0..50u8).map(|i| Bytes::from(vec![i; usize::from(i) * 500])).collect();
    let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
    p.call(1, "/t.T/Later", b"");
    p.c.replies().reply_pieces(1, pieces.clone());
    assert_eq!(p.take(1).data, prefixed(&whole));
    p.head(3, "/t.T/Later", &[("grpc-encoding", "gzip")], false);
    p.message(3, b"", true);
    p.c.replies().reply_pieces(3, pieces.clone());
    let got = p.take(3);
    assert_eq!(crate::message::gunzip(&got.data[5..], 1 << 20), Ok(whole.clone()));
    p.head(5, "/t.T/Bidi", &[], false);
    p.c.replies().send_headers(5);
    p.flush();
    assert_eq!(p.got[&5].headers.len(), 2);
    p.c.replies().send_pieces(5, pieces[..3].to_vec());
    p.c.replies().send_pieces(5, pieces.clone());
    p.c.replies().finish(5, 0, "");
    let mut expected = prefixed(&whole[..1500]);
    expected.extend_from_slice(&prefixed(&whole));
    let got = p.take(5);
    assert_eq!((got.data, got.reset), (expected, Some(Reason::NoError as u32)));
}

/// Many large replies and one small: each gets its turn.
#[test]
fn queued_streams_take_turns() {
    let mut p = Pair::new(Settings::default());
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    p.frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    for id in [1, 3, 5, 7] {
        p.call(id, "/t.T/List", &1_000_000u32.to_be_bytes());
    }
    let turn = p.c.output().take_all();
    p.output.extend_from_slice(&turn);
    p.parse();
    let sizes: Vec<usize> = [1, 3, 5, 7].map(|id| p.got[&id].data.len()).to_vec();
    assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= FRAME_MAX_BYTES, "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() <= crate::limits::TURN_OUTPUT_BYTES + FRAME_MAX_BYTES);
    for id in [1, 3, 5, 7] {
        assert_eq!(p.take(id).data.len(), 1_000_005);
    }
}

#[test]
fn streaming_plain_answers() {
    let mut p = Pair::new(Settings { plain: crate::Plain::Also, ..Settings::default() });
    p.server.plain_later = true;
    p.frame(kind::HEADERS, 5, 1, &block(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]));
    let r = p.c.replies();
    assert!(r.plain_head(1, 503, &[("Content-Type", "text/plain")]));
    assert!(!r.plain_head(1, 200, &[]));
    assert_eq!(r.plain_data(1, Bytes::from_static(b"{1}")), 3);
    p.flush();
    assert_eq!(p.got[&1].data, b"{1}");
    p.c.replies().plain_data(1, vec![b'x'; 100_000].into());
    p.c.replies().plain_end(1);
    p.frame(kind::WINDOW_UPDATE, 0, 0, &[0, 2, 0, 0]);
    p.frame(kind::WINDOW_UPDATE, 0, 1, &[0, 2, 0, 0]);
    let got = p.take(1);
    assert_eq!(got.headers, [":status: 503", "content-type: text/plain"]);
    assert_eq!((got.data.len(), got.ended, got.reset), (100_003, true, None));

    // A body over the limit.
    let post = block(&[(":method", "POST"), (":scheme", "https"), (":path", "/")]);
    p.frame(kind::HEADERS, 4, 3, &post);
    let mut left = crate::limits::PLAIN_BODY_MAX_BYTES + 1;
    while left > 0 {
        let n = left.min(FRAME_MAX_BYTES);
        p.frame(kind::DATA, 0, 3, &vec![0; n]);
        left -= n;
    }
    let got = p.take(3);
    assert_eq!((&got.headers[0][..], got.reset), (":status: 413", Some(0)));
    assert_eq!(p.c.replies().streams.partial, 0);
}
