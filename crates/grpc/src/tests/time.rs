//! Keepalive both ways, deadlines, graceful close.

use super::*;
use crate::Reason;

fn at(p: &mut Pair, now: u64) -> Result<(), Error> {
    p.now = now;
    p.c.on_time(now, &mut p.server)
}

#[test]
fn pings_against_the_policy() {
    let ping = |p: &mut Pair| p.try_frame(kind::PING, 0, 0, &[1; 8]);
    // Without streams: the first is free, two strikes are forgiven.
    let mut p = Pair::new(Settings::default());
    for i in 0..3 {
        p.now += 6_000 * i;
        ping(&mut p).unwrap();
    }
    assert_eq!(ping(&mut p), Err(Error::TooManyPings));
    p.flush();
    let (kind, _, payload) = p.control.last().unwrap();
    assert_eq!((*kind, &payload[8..]), (kind::GOAWAY, &b"too_many_pings"[..]));
    assert_eq!(frame::be32(&payload[4..]), Reason::EnhanceYourCalm as u32);
    assert!(p.c.is_closed());
    assert_eq!(p.c.next_wakeup(), None);

    // With a stream every five seconds is fine, and two hours without.
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Bidi", &[], false);
    for _ in 0..50 {
        p.now += 5_000;
        ping(&mut p).unwrap();
    }
    p.frame(kind::RST_STREAM, 0, 1, &[0; 4]);
    for _ in 0..50 {
        p.now += 2 * 60 * 60 * 1000;
        ping(&mut p).unwrap();
    }
    // Whatever we send forgives everything.
    for i in 0..50 {
        p.call(2 * i + 3, "/t.T/Unary", b"");
        ping(&mut p).unwrap();
    }
    // Answered calls that wait for END_STREAM do not count as streams.
    p.head(1001, "/t.T/Unary", &[], false);
    p.message(1001, b"", false);
    ping(&mut p).unwrap();
    assert!((0..3).any(|_| {
        p.now += 6_000;
        ping(&mut p).is_err()
    }));

    let mut p = Pair::new(Settings { permit_without_stream: true, ..Settings::default() });
    for _ in 0..50 {
        p.now += 5_000;
        ping(&mut p).unwrap();
    }
}

#[test]
fn our_pings() {
    let settings =
        Settings { keepalive_interval_ms: 10_000, keepalive_timeout_ms: 2_000, ..Settings::default() };
    let mut p = Pair::new(settings);
    assert_eq!(p.c.next_wakeup(), Some(11_000));
    at(&mut p, 10_999).unwrap();
    p.flush();
    assert!(p.control.is_empty());
    at(&mut p, 11_000).unwrap();
    p.flush();
    assert_eq!(p.control, [(kind::PING, 0, vec![0; 8])]);
    assert_eq!(p.c.next_wakeup(), Some(13_000));
    // Any input is a sign of life.
    p.now = 12_500;
    p.frame(kind::PING, 1, 0, &[0; 8]);
    assert_eq!(p.c.next_wakeup(), Some(22_500));
    at(&mut p, 22_500).unwrap();
    p.head(1, "/t.T/Bidi", &[], false);
    at(&mut p, 32_500).unwrap();
    assert_eq!(at(&mut p, 34_500), Err(Error::KeepaliveTimeout));
    assert!(p.c.is_closed());
    p.c.abandon(&mut p.server);
    assert_eq!(p.server.told, [Told::Open(1), Told::Cancelled(1)]);
}

#[test]
fn a_client_that_says_nothing() {
    let mut p = Pair::raw(Settings::default());
    p.send(&PREFACE[..10]);
    assert_eq!(p.c.next_wakeup(), Some(121_000));
    assert_eq!(at(&mut p, 121_000), Err(Error::HandshakeTimeout));
}

#[test]
fn deadlines() {
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Later", &[("grpc-timeout", "1500m")], false);
    p.message(1, b"x", true);
    assert_eq!(p.server.meta.as_ref().unwrap().deadline_ms(), Some(2500));
    p.head(3, "/t.T/Bidi", &[("grpc-timeout", "2S")], false);
    p.head(5, "/t.T/Unary", &[("grpc-timeout", "1S")], false);
    p.head(7, "/t.T/List", &[("grpc-timeout", "3S")], false);
    assert_eq!(p.c.next_wakeup(), Some(2000));
    at(&mut p, 2000).unwrap();
    // The message never came; the handler does not know of the call.
    let got = p.take(5);
    assert_eq!((got.status(), got.message(), got.reset), (Some("4"), "context deadline exceeded", Some(0)));
    assert_eq!(p.c.next_wakeup(), Some(2500));
    at(&mut p, 2600).unwrap();
    assert_eq!((p.take(1).status(), p.take(1).reset), (Some("4"), None));
    at(&mut p, 3000).unwrap();
    assert_eq!(p.take(3).status(), Some("4"));
    assert_eq!(&p.server.told[1..], [Told::Open(3), Told::Cancelled(1), Told::Cancelled(3)]);
    // Late answers are ignored.
    assert!(!p.c.replies().reply(1, |_| unreachable!()));
    // An answer that has begun is cut off.
    p.frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10]);
    p.message(7, &[0, 0, 1, 0], true);
    at(&mut p, 4000).unwrap();
    let got = p.take(7);
    assert_eq!((got.data.len(), got.reset), (0, Some(Reason::Cancel as u32)));
    assert_eq!(p.c.replies().open_calls(), 0);
}

#[test]
fn deadlines_of_answered_calls_cost_one_look() {
    let mut p = Pair::new(Settings::default());
    p.head(1, "/t.T/Unary", &[("grpc-timeout", "1S")], false);
    p.message(1, b"", true);
    assert_eq!(p.c.next_wakeup(), Some(2000));
    at(&mut p, 2000).unwrap();
    assert!(p.c.next_wakeup().unwrap() > 1_000_000);
}

#[test]
fn graceful_close() {
    let mut p = Pair::new(Settings::default());
    p.call(1, "/t.T/Later", b"");
    p.c.graceful_close(p.now);
    p.c.graceful_close(p.now);
    p.flush();
    let (kind, _, payload) = p.control.remove(0);
    assert_eq!(
        (kind, frame::be32(&payload), &payload[8..]),
        (kind::GOAWAY, 0x7fff_ffff, &b"graceful_stop"[..])
    );
    let (kind, _, ping) = p.control.remove(0);
    assert_eq!((kind, p.control.len()), (kind::PING, 0));
    // A call that was on its way is still served.
    p.call(3, "/t.T/Later", b"");
    assert!(!p.c.is_closed());
    p.frame(kind::PING, 1, 0, &ping);
    p.flush();
    let (kind, _, payload) = p.control.remove(0);
    assert_eq!((kind, frame::be32(&payload)), (kind::GOAWAY, 3));
    p.call(5, "/t.T/Later", b"");
    assert_eq!(p.take(5).reset, Some(Reason::Refused as u32));
    p.c.replies().reply(1, |_| {});
    p.flush();
    assert!(!p.c.is_closed());
    p.c.replies().reply(3, |_| {});
    assert!(p.c.is_closed());
    assert_eq!(p.take(3).status(), Some("0"));
}

#[test]
fn graceful_close_without_an_answer() {
    let mut p = Pair::new(Settings::default());
    p.c.graceful_close(1000);
    assert_eq!(p.c.next_wakeup(), Some(6000));
    at(&mut p, 6000).unwrap();
    assert!(p.c.is_closed());
}
