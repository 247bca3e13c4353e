//! A client that means harm: nothing grows without bound, and what goes on for too long ends the connection.

use super::*;
use crate::Reason;
use crate::limits::*;

/// Sends without ever reading until the server pauses or gives up, or `n` times. Returns the error, if any, and the
/// largest amount of memory in between.
fn flood(p: &mut Pair, n: usize, mut frame: impl FnMut(usize) -> Vec<u8>) -> (Option<Error>, usize) {
    let mut most = 0;
    for i in 0..n {
        if let Err(e) = p.try_send(&frame(i)) {
            return (Some(e), most);
        }
        most = most.max(p.c.footprint());
        if !p.c.wants_input() {
            // The socket would not be read any more: the input is the kernel's.
            return (None, most);
        }
    }
    (None, most)
}

fn calm(result: (Option<Error>, usize), bound: usize) {
    let error = result.0.expect("the flood must end the connection");
    assert_eq!(error.reason(), Reason::EnhanceYourCalm);
    assert!(result.1 < bound, "{} bytes", result.1);
}

#[test]
fn rapid_reset() {
    let mut p = Pair::new(Settings::default());
    let head = grpc_block("/t.T/Later", &[]);
    let result = flood(&mut p, 1_000_000, |i| {
        let id = 2 * i as u32 + 1;
        let mut f = raw_frame(kind::HEADERS, 4, id, &head);
        f.extend(raw_frame(kind::DATA, 1, id, &prefixed(b"x")));
        f.extend(raw_frame(kind::RST_STREAM, 0, id, &[0, 0, 0, 8]));
        f
    });
    calm(result, 100_000);
    // Every call that was told of was taken back.
    let cancelled = p.server.told.iter().filter(|t| matches!(t, Told::Cancelled(_))).count();
    assert_eq!(p.server.told.len(), 2 * cancelled + 1);
    p.c.abandon(&mut p.server);
    assert!(matches!(p.server.told.last(), Some(Told::Cancelled(_))));
}

#[test]
fn resets_provoked_by_broken_frames() {
    let mut p = Pair::new(Settings::default());
    p.server.quiet = true;
    let head = grpc_block("/t.T/Later", &[]);
    let result = flood(&mut p, 1_000_000, |i| {
        let id = 2 * i as u32 + 1;
        let mut f = raw_frame(kind::HEADERS, 4, id, &head);
        f.extend(raw_frame(kind::DATA, 1, id, &prefixed(b"x")));
        f.extend(raw_frame(kind::WINDOW_UPDATE, 0, id, &[0; 4]));
        f
    });
    calm(result, 2 * OUTPUT_PAUSE_BYTES);
}

#[test]
fn patient_cancellation_is_no_flood() {
    let mut p = Pair::new(Settings::default());
    for round in 0..3 {
        let ids = (0..10_000u32).map(|i| (round * 10_000 + i) * 2 + 1);
        for id in ids.clone() {
            p.head(id, "/t.T/Bidi", &[], false);
        }
        p.now += 2000;
        for id in ids {
            p.frame(kind::RST_STREAM, 0, id, &[0, 0, 0, 8]);
        }
    }
    assert_eq!(p.c.replies().open_calls(), 0);
}

#[test]
fn settings_pings_and_frames_without_effect() {
    calm(
        flood(&mut Pair::new(Settings::default()), 1 << 20, |_| raw_frame(kind::SETTINGS, 0, 0, &[])),
        50_000,
    );
    let ping = raw_frame(kind::PING, 0, 0, &[0; 8]);
    calm(flood(&mut Pair::new(Settings::default()), 1 << 20, |_| ping.clone()), 50_000);
    let priority = raw_frame(kind::PRIORITY, 0, 7, &[0, 0, 0, 1, 9]);
    calm(flood(&mut Pair::new(Settings::default()), 1 << 20, |_| priority.clone()), 50_000);
    calm(flood(&mut Pair::new(Settings::default()), 1 << 20, |_| raw_frame(77, 0, 0, &[])), 50_000);
    calm(
        flood(&mut Pair::new(Settings::default()), 1 << 20, |_| raw_frame(kind::PING, 1, 0, &[0; 8])),
        50_000,
    );
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Bidi", &[], false);
    calm(flood(&mut p, 1 << 20, |_| raw_frame(kind::DATA, 0, 1, &[])), 50_000);
    let mut p = Pair::new(Settings::default());
    p.frame(kind::HEADERS, 0, 1, b"\x82");
    calm(flood(&mut p, 1 << 20, |_| raw_frame(kind::CONTINUATION, 0, 1, &[])), 50_000);
    let mut p = Pair::new(Settings::default());
    p.call(1, "/t.T/Unary", b"");
    calm(flood(&mut p, 1 << 20, |_| raw_frame(kind::RST_STREAM, 0, 1, &[0; 4])), 50_000);
}

#[test]
fn header_bombs() {
    // One block without end.
    let mut p = Pair::new(Settings::default());
    p.frame(kind::HEADERS, 0, 1, b"\x82");
    let part = vec![0; 16_000];
    calm(flood(&mut p, 1 << 20, |_| raw_frame(kind::CONTINUATION, 0, 1, &part)), 1_000_000);
    // One large entry, referred to again and again.
    let mut p = Pair::new(Settings::default());
    let mut bomb = grpc_block("/t.T/Unary", &[]);
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'y'; 127 + 0x21 + (0x1e << 7)]);
    bomb.extend_from_slice(&[0xbe; 10_000]);
    p.frame(kind::HEADERS, 5, 1, &bomb);
    assert!(p.c.footprint() < 200_000);
    assert_eq!(p.take(1).reset, Some(Reason::FrameSize as u32));
    // The table is as it was meant to be.
    let mut next = grpc_block("/t.T/Unary", &[]);
    next.push(0xbe);
    p.frame(kind::HEADERS, 4, 3, &next);
    p.message(3, b"", true);
    assert_eq!(p.take(3).status(), Some("0"));
    assert_eq!(p.server.meta.as_ref().unwrap().get("x").unwrap().len(), 127 + 0x21 + (0x1e << 7));
}

/// Calls whose answers the client does not let out: the first limit is the memory of replies.
#[test]
fn replies_nobody_reads_stay_bounded() {
    let mut p = Pair::new(Settings::default());
    p.server.quiet = true;
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    // Shared bytes are counted though they cost nothing here.
    let n: u32 = 64 << 20;
    for i in 0..20 {
        p.call(2 * i + 1, "/t.T/List", &n.to_be_bytes());
    }
    assert!(p.c.replies().queued_bytes() <= QUEUED_MAX_BYTES + n as usize + 100);
    assert_eq!(p.take(39).reset, Some(Reason::Refused as u32));
}

/// A client that sends requests and never reads: the server stops reading from it.
#[test]
fn output_nobody_takes_pauses_the_input() {
    let mut p = Pair::new(Settings::default());
    p.server.quiet = true;
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    p.frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    let head = grpc_block("/t.T/Unary", &[]);
    let body = prefixed(&[7; 1000]);
    let (error, most) = flood(&mut p, 1 << 20, |i| {
        let id = 2 * i as u32 + 1;
        [raw_frame(kind::HEADERS, 4, id, &head), raw_frame(kind::DATA, 1, id, &body)].concat()
    });
    assert_eq!(error, None);
    assert!(!p.c.wants_input() && most < 3 * OUTPUT_PAUSE_BYTES, "{most}");
    // Paused, not dead: what it had sent meanwhile is served as soon as the socket takes output.
    let id = p.c.max_stream + 2;
    p.call(id, "/t.T/Unary", b"after");
    assert_eq!((p.c.max_stream, p.c.stopped_early()), (id - 2, true));
    assert_eq!(p.take(id).data, prefixed(b"after"));
    assert!(!p.c.stopped_early());
}

#[test]
fn incomplete_messages_stay_bounded() {
    let mut p = Pair::new(Settings { connection_window: 0x7fff_ffff, ..Settings::default() });
    let part = prefixed(&vec![0; 2 << 20])[..16_384].to_vec();
    let more = vec![0; 16_384];
    let mut refused = 0;
    for i in 0..200u32 {
        let id = 2 * i + 1;
        p.head(id, "/t.T/Unary", &[], false);
        p.frame(kind::DATA, 0, id, &part);
        for _ in 0..60 {
            p.frame(kind::DATA, 0, id, &more);
        }
        assert!(p.c.footprint() < 3 * PARTIAL_MAX_BYTES);
        refused += u32::from(p.take(id).status() == Some("8"));
    }
    assert!(refused > 60 && p.c.replies().streams.partial <= PARTIAL_MAX_BYTES);
}

#[test]
fn windows_that_allow_crumbs_only() {
    let mut p = Pair::new(Settings::default());
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
    p.call(1, "/t.T/List", &100_000u32.to_be_bytes());
    let mut error = None;
    for _ in 0..100_000 {
        p.c.output().take_all();
        if let Err(e) = p.try_frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]) {
            error = Some(e);
            break;
        }
    }
    assert_eq!(error.unwrap().reason(), Reason::EnhanceYourCalm);
}

#[test]
fn memory_of_a_burst_is_given_back() {
    let mut p = Pair::new(Settings::default());
    p.frame(kind::WINDOW_UPDATE, 0, 0, &[1, 0, 0, 0]);
    let before = p.c.footprint();
    for i in 0..20_000u32 {
        p.call(2 * i + 1, "/t.T/Later", b"some message");
    }
    p.server.told.clear();
    assert!(p.c.footprint() > 5_000_000);
    for i in 0..20_000u32 {
        assert!(p.c.replies().reply(2 * i + 1, |out| out.push(1)));
    }
    p.flush();
    p.send(&[]);
    let after = p.c.footprint();
    assert!(after < before + 100_000, "{before} {after}");
}

/// What 16,000 idle connections cost each.
#[test]
fn an_idle_connection_is_small() {
    let mut p = Pair::new(Settings::default());
    p.call(1, "/t.T/Unary", b"x");
    p.head(3, "/t.T/Bidi", &[("token", "abcdefghijklmnop.1")], false);
    p.flush();
    let idle = p.c.footprint() + size_of::<Connection>();
    assert!(idle < 4096, "{idle}");
}

#[test]
fn large_answers_that_were_asked_for_together_take_turns() {
    let mut p = Pair::new(Settings::default());
    let mut input = Vec::new();
    for id in (1..100).step_by(2) {
        input.extend(raw_frame(kind::HEADERS, 4, id, &grpc_block("/t.T/List", &[])));
        input.extend(raw_frame(kind::DATA, 1, id, &prefixed(&(1_u32 << 20).to_be_bytes())));
    }
    let (mut at, mut turns) = (0, 0);
    while at < input.len() {
        at += p.c.receive(p.now, &input[at..], &mut p.server).unwrap();
        turns += 1;
        assert!(turns == 1 || p.c.replies().queued_bytes() > 0);
        assert!(p.c.wants_input());
        assert_eq!(p.c.stopped_early(), at < input.len());
    }
    assert!((8..15).contains(&turns), "50 MiB in {turns} turns");
}
