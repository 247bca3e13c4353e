//! Single cases, most of them by their id in the watch semantics.

use super::*;

/// P(a,0)=2 P(a,1)=3 P(a,2)=4 P(b,x)=5 D(a)=6.
fn fw() -> Bench {
    let mut bench = Bench::new();
    for value in ["0", "1", "2"] {
        bench.put("a", value);
    }
    bench.put("b", "x");
    bench.delete("a");
    assert_eq!(bench.store.revision(), 6);
    bench
}

/// P(k,0..9)=2..11, then C(6).
fn fwk() -> Bench {
    let mut bench = Bench::new();
    for value in 0..10 {
        bench.put("k", &value.to_string());
    }
    bench.compact(6);
    bench
}

#[test]
fn wa_001_to_008_ids() {
    let mut bench = fw();
    assert_eq!(bench.watch(1, "a", 0), 0);
    assert_eq!(bench.watch(1, "a", 0), 1);
    let with_id = |bench: &mut Bench, id| bench.create(WatchSpec { id, ..spec(1, "b") });
    assert_eq!(with_id(&mut bench, 7), Ok(7));
    assert_eq!(with_id(&mut bench, 7), Err(CreateError::DuplicateId));
    assert_eq!(with_id(&mut bench, 2), Ok(2));
    assert_eq!(bench.watch(1, "b", 0), 3, "the counter passes ids in use");
    assert_eq!(with_id(&mut bench, -1), Ok(-1));
    assert_eq!(with_id(&mut bench, -1), Err(CreateError::DuplicateId));
    assert_eq!(with_id(&mut bench, -5), Ok(-5));
    assert!(bench.hub.cancel(1, 1));
    assert!(!bench.hub.cancel(1, 1));
    assert!(!bench.hub.cancel(1, 99));
    assert!(!bench.hub.cancel(2, 0));
    assert_eq!(bench.watch(1, "a", 0), 4, "the counter does not go back");
    assert_eq!(with_id(&mut bench, 1), Ok(1));
    assert_eq!(with_id(&mut bench, i64::MIN), Ok(i64::MIN));
    assert_eq!(bench.watch(2, "a", 0), 0, "ids belong to a stream");
}

#[test]
fn wa_009_to_014_replay() {
    let replay = |spec: WatchSpec| {
        let mut bench = fw();
        bench.create(spec).unwrap();
        bench.catch_up();
        bench.seen()
    };
    let from_2 = WatchSpec { start_revision: 2, ..spec(1, "a") };
    let all = ["put a=0 @2", "put a=1 @3", "put a=2 @4", "del a @6"];
    assert_eq!(replay(from_2.clone()), [events(0, 6, &all)]);
    let with_previous = ["put a=0 @2", "put a=1 @3 was 0", "put a=2 @4 was 1", "del a @6 was 2"];
    assert_eq!(replay(WatchSpec { prev_kv: true, ..from_2.clone() }), [events(0, 6, &with_previous)]);
    assert_eq!(replay(WatchSpec { no_put: true, ..from_2.clone() }), [events(0, 6, &all[3..])]);
    assert_eq!(replay(WatchSpec { no_delete: true, ..from_2.clone() }), [events(0, 6, &all[..3])]);
    assert_eq!(replay(WatchSpec { no_put: true, no_delete: true, ..from_2.clone() }), []);
    assert_eq!(replay(WatchSpec { start_revision: 6, ..from_2 }), [events(0, 6, &all[3..])]);
}

#[test]
fn wa_015_and_016_start_in_the_future() {
    let mut bench = fw();
    bench.watch(1, "a", 7);
    bench.put("a", "new");
    assert_eq!(bench.seen(), [events(0, 7, &["put a=new @7"])]);
    bench.watch(2, "a", 10);
    bench.hub.cancel(1, 0);
    for value in ["8", "9", "10", "11"] {
        bench.put("a", value);
    }
    assert_eq!(bench.seen(), [events(0, 10, &["put a=10 @10"]), events(0, 11, &["put a=11 @11"])]);
}

#[test]
fn wa_017_to_019_and_051_ranges() {
    let mut bench = Bench::new();
    bench.watch(1, "", 0);
    bench.put("\0", "zero");
    bench.put("q", "1");
    assert_eq!(bench.seen(), [events(0, 2, &["put \0=zero @2"])]);
    bench.create(WatchSpec { end: RangeEnd::Unbounded, ..spec(2, "") }).unwrap();
    bench.put("zz", "1");
    assert_eq!(bench.seen(), [events(0, 4, &["put zz=1 @4"])]);
    for end in ["a", "b"] {
        let refused = bench.create(WatchSpec { end: before(end), ..spec(3, "b") });
        assert_eq!(refused, Err(CreateError::EmptyRange));
    }
    assert_eq!(CreateError::EmptyRange.message(), "mvcc: watcher range is empty");
    let high = WatchSpec { key: Bytes::from_static(b"\xff"), end: RangeEnd::Unbounded, ..spec(4, "") };
    bench.hub.drop_stream(2);
    bench.create(high).unwrap();
    bench.apply(&[("a", Some("1"))]);
    bench.deliver();
    assert_eq!(bench.seen(), []);
}

#[test]
fn wa_020_and_022_a_transaction_is_one_response() {
    let mut bench = Bench::new();
    bench.create(WatchSpec { end: before("p"), ..spec(1, "m") }).unwrap();
    bench.apply(&[("m1", Some("1")), ("n1", Some("2")), ("z", Some("3")), ("q", None)]);
    bench.deliver();
    bench.put("p", "4");
    assert_eq!(bench.seen(), [events(0, 2, &["put m1=1 @2", "put n1=2 @2"])]);
    let mut txn = bench.store.write();
    txn.delete_range(b"m", &RangeEnd::Unbounded, false).unwrap();
    bench.queued.extend(txn.end());
    bench.deliver();
    assert_eq!(bench.seen(), [events(0, 4, &["del m1 @4", "del n1 @4"])]);
}

#[test]
fn wa_021_live_previous_values() {
    let mut bench = Bench::new();
    bench.put("m1", "0");
    bench.create(WatchSpec { prev_kv: true, ..spec(1, "m1") }).unwrap();
    bench.put("m1", "1");
    bench.delete("m1");
    bench.put("m1", "2");
    let expected = ["put m1=1 @3 was 0", "del m1 @4 was 1", "put m1=2 @5"];
    let expected: Vec<Seen> = (3..).zip(expected).map(|(at, text)| events(0, at, &[text])).collect();
    assert_eq!(bench.seen(), expected);
}

/// Issue of 3.7.3: a watcher was made live before its options were set, so its first events lacked the previous
/// value. Here it enters complete; the first event after creation shows it.
#[test]
fn the_first_event_has_its_previous_value() {
    let mut bench = Bench::new();
    bench.put("k", "0");
    bench.create(WatchSpec { prev_kv: true, ..spec(1, "k") }).unwrap();
    bench.put("k", "1");
    assert_eq!(bench.seen(), [events(0, 3, &["put k=1 @3 was 0"])]);
}

#[test]
fn wa_023_negative_start() {
    let mut bench = fw();
    let refused = bench.create(WatchSpec { start_revision: -1, ..spec(1, "a") });
    assert_eq!(refused, Err(CreateError::Compacted));
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(CreateError::Compacted.to_string(), text);
    assert_eq!(bench.watch(1, "a", 0), 0, "no id was used up");
}

#[test]
fn wa_028_to_033_compacted() {
    let mut bench = fwk();
    bench.create(WatchSpec { id: 9, start_revision: 5, ..spec(1, "k") }).unwrap();
    assert_eq!(bench.seen(), []);
    bench.catch_up();
    assert_eq!(bench.seen(), [Seen::Compacted { id: 9, compact_revision: 6 }]);
    assert_eq!(bench.hub.counts(), HubCounts { streams: 1, watchers: 0, slow: 0 });
    bench.put("k", "more");
    bench.watch(1, "other", 0);
    bench.ask_progress(1);
    assert_eq!(bench.seen(), [], "a dead watcher is told nothing and holds progress back");
    assert_eq!(bench.create(WatchSpec { id: 9, ..spec(1, "k") }), Err(CreateError::DuplicateId));
    assert!(bench.hub.cancel(1, 9), "known until the client lets it go");
    bench.ask_progress(1);
    assert_eq!(bench.seen(), [Seen::Progress { id: -1, revision: 12 }]);
    assert_eq!(bench.create(WatchSpec { id: 9, ..spec(1, "k") }), Ok(9));
}

#[test]
fn wa_031_and_032_start_at_the_compact_revision() {
    let mut bench = fwk();
    bench.create(WatchSpec { start_revision: 6, prev_kv: true, ..spec(1, "k") }).unwrap();
    bench.catch_up();
    let expected: Vec<String> = (6..12)
        .map(|at| match at {
            6 => "put k=4 @6".to_string(),
            _ => format!("put k={} @{at} was {}", at - 2, at - 3),
        })
        .collect();
    assert_eq!(bench.seen(), [Seen::Events { id: 0, revision: 11, events: expected }]);
}

#[test]
fn wa_034_to_036_periodic_progress() {
    let mut bench = fw();
    bench.create(WatchSpec { progress_notify: true, ..spec(1, "a") }).unwrap();
    bench.watch(1, "a", 0);
    let told = |revision| vec![Seen::Progress { id: 0, revision }];
    assert_eq!(bench.tick(1), told(6));
    assert_eq!(bench.tick(1), told(6));
    bench.put("a", "1");
    bench.seen();
    assert_eq!(bench.tick(1), [], "it had events");
    assert_eq!(bench.tick(1), told(7));
    bench.put("other", "1");
    assert_eq!(bench.tick(1), told(8));
    assert_eq!(bench.tick(9), [], "no such stream");
}

/// A watcher that was sent history skips a tick as well.
#[test]
fn history_counts_as_events_for_progress() {
    let mut bench = fw();
    bench.create(WatchSpec { progress_notify: true, start_revision: 2, ..spec(1, "a") }).unwrap();
    assert_eq!(bench.tick(1), [], "it is behind");
    bench.catch_up();
    assert_eq!(bench.seen().len(), 1);
    assert_eq!(bench.tick(1), []);
    assert_eq!(bench.tick(1), [Seen::Progress { id: 0, revision: 6 }]);
}

#[test]
fn wa_037_and_038_manual_progress() {
    let mut bench = fw();
    bench.ask_progress(1);
    assert_eq!(bench.seen(), []);
    bench.watch(1, "a", 0);
    bench.watch(1, "b", 0);
    bench.ask_progress(1);
    assert_eq!(bench.seen(), [Seen::Progress { id: WHOLE_STREAM, revision: 6 }]);
    bench.hub.cancel(1, 0);
    bench.hub.cancel(1, 1);
    bench.ask_progress(1);
    assert_eq!(bench.seen(), []);
}

#[test]
fn wa_041_and_042_replay_comes_in_thousands() {
    let mut bench = Bench::new();
    for number in 0..2500 {
        bench.put("bt", &number.to_string());
    }
    bench.flush();
    bench.watch(1, "bt", 2);
    bench.ask_progress(1);
    bench.catch_up();
    let counts: Vec<(i64, usize)> = bench
        .seen()
        .into_iter()
        .map(|seen| match seen {
            Seen::Events { revision, events, .. } => (revision, events.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [(2501, 1000), (2501, 1000), (2501, 500)]);
    bench.ask_progress(1);
    assert_eq!(bench.seen(), [Seen::Progress { id: -1, revision: 2501 }]);
}

#[test]
fn wa_040_a_few_long_values_are_one_response() {
    let mut bench = Bench::new();
    let value = "x".repeat(700_000);
    for key in ["b1", "b2", "b3", "b4", "b5"] {
        bench.put(key, &value);
    }
    bench.create(WatchSpec { end: RangeEnd::from_wire("c".into()), start_revision: 2, ..spec(1, "b") }).unwrap();
    bench.catch_up();
    let counts: Vec<usize> = bench
        .seen()
        .iter()
        .map(|seen| match seen {
            Seen::Events { events, .. } => events.len(),
            _ => 0,
        })
        .collect();
    assert_eq!(counts, [5]);
}

#[test]
fn wa_043_and_047_many_watchers_of_one_key() {
    let mut bench = Bench::new();
    for id in 0..1000 {
        assert_eq!(bench.watch(1, "k", 0), id);
    }
    bench.put("k", "v");
    assert_eq!(bench.out.len(), 1, "one output for all");
    let mut ids: Vec<i64> = bench
        .seen()
        .into_iter()
        .map(|seen| match seen {
            Seen::Events { id, revision: 2, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>());
}

#[test]
fn wa_049_and_050_deletion_at_the_compact_revision() {
    for (compact, start, expected) in
        [(3, 3, &["del wt @3"][..]), (2, 2, &["put wt=1 @2", "del wt @3"]), (2, 3, &["del wt @3"])]
    {
        let mut bench = Bench::new();
        bench.put("wt", "1");
        bench.delete("wt");
        bench.put("other", "1");
        bench.flush();
        bench.compact(compact);
        bench.flush();
        bench.watch(1, "wt", start);
        bench.catch_up();
        assert_eq!(bench.seen(), [events(0, 4, expected)], "compacted at {compact}, from {start}");
    }
}

#[test]
fn wa_066_067_070_a_start_above_the_present_holds_progress_back() {
    let mut bench = fw();
    bench.create(WatchSpec { progress_notify: true, start_revision: 7, ..spec(1, "a") }).unwrap();
    bench.watch(1, "b", 0);
    bench.ask_progress(1);
    assert_eq!(bench.seen(), []);
    assert_eq!(bench.tick(1), []);
    bench.put("somewhere else", "1");
    bench.ask_progress(1);
    assert_eq!(bench.seen(), [Seen::Progress { id: -1, revision: 7 }]);
    assert_eq!(bench.tick(1), [Seen::Progress { id: 0, revision: 7 }]);
}

/// KV-092 and KV-093: a key may change twice in one transaction.
#[test]
fn a_put_and_a_deletion_in_one_revision_both_come() {
    let mut bench = Bench::new();
    bench.put("q", "0");
    bench.watch(1, "r", 0);
    let mut txn = bench.store.write();
    txn.put(b"r", b"1", 0, false).unwrap();
    txn.delete_range(b"q", &RangeEnd::Unbounded, false).unwrap();
    bench.queued.extend(txn.end());
    bench.deliver();
    bench.watch(2, "r", 3);
    bench.catch_up();
    let both = events(0, 3, &["put r=1 @3", "del r @3"]);
    assert_eq!(bench.seen(), [both.clone(), both]);
}

/// etcd issue 15220: a progress notification overtook events. A hub that has not yet been told of what the store
/// has done answers only when it has, after those events.
#[test]
fn progress_waits_for_the_hub() {
    let mut bench = fw();
    bench.watch(1, "a", 0);
    bench.apply(&[("a", Some("7"))]);
    bench.apply(&[("a", Some("8"))]);
    bench.ask_progress(1);
    assert_eq!(bench.seen(), []);
    bench.deliver();
    let live = |at: i64| events(0, at, &[&format!("put a={at} @{at}")]);
    assert_eq!(bench.seen(), [live(7), live(8), Seen::Progress { id: -1, revision: 8 }]);
}

/// A watcher without start revision is not sent what the store had done before it was created, though the hub
/// hears of it later; and it does not hold progress back for good.
#[test]
fn created_while_the_hub_is_late() {
    let mut bench = fw();
    bench.apply(&[("a", Some("7"))]);
    bench.watch(1, "a", 0);
    bench.ask_progress(1);
    bench.deliver();
    assert_eq!(bench.seen(), [Seen::Progress { id: -1, revision: 7 }]);
    bench.put("a", "8");
    assert_eq!(bench.seen(), [events(0, 8, &["put a=8 @8"])]);
}

/// etcd issue 17529: events were lost on a slow stream with many watchers.
#[test]
fn a_full_stream_misses_nothing() {
    let mut bench = Bench::new();
    for key in ["a", "b", "c"] {
        bench.watch(1, key, 0);
        bench.watch(2, key, 0);
    }
    bench.put("a", "1");
    bench.hub.stream_full(1);
    bench.put("b", "2");
    assert_eq!(bench.hub.counts(), HubCounts { streams: 2, watchers: 6, slow: 3 });
    bench.catch_up();
    bench.hub.stream_drained(1);
    bench.put("c", "3");
    bench.catch_up();
    bench.put("a", "4");
    let mut seen = Vec::new();
    for output in &bench.out {
        if let (1, Kind::Events { events, .. }) = (output.stream, &output.kind) {
            seen.push((output.watch_ids[0], shown(&events[0])));
        }
    }
    let expected = [(0, "put a=1 @2"), (1, "put b=2 @3"), (2, "put c=3 @4"), (0, "put a=4 @5")];
    assert_eq!(seen, expected.map(|(id, text)| (id, text.to_string())));
    assert_eq!(bench.hub.counts().slow, 0);
}

/// Compaction may overtake a stalled watcher; it never touches one that is caught up.
#[test]
fn compaction_reaches_only_who_is_behind() {
    let mut bench = Bench::new();
    bench.watch(1, "a", 0);
    bench.watch(2, "a", 0);
    bench.hub.stream_full(1);
    for value in 2..6 {
        bench.put("a", &value.to_string());
    }
    bench.compact(4);
    bench.catch_up();
    assert_eq!(bench.seen().len(), 4);
    bench.hub.stream_drained(1);
    bench.catch_up();
    assert_eq!(bench.seen(), [Seen::Compacted { id: 0, compact_revision: 4 }]);
}

/// Batches that were dropped on the way are read from history, and one that comes twice is passed over.
#[test]
fn a_gap_is_filled_from_history() {
    let mut bench = Bench::new();
    bench.watch(1, "a", 0);
    bench.watch(1, "a", 4);
    for value in ["2", "3", "4", "5"] {
        bench.apply(&[("a", Some(value))]);
    }
    let last = bench.queued.pop().unwrap();
    bench.queued.clear();
    bench.queued.extend([Arc::clone(&last), last]);
    bench.deliver();
    assert_eq!(bench.seen(), []);
    bench.catch_up();
    let all = ["put a=2 @2", "put a=3 @3", "put a=4 @4", "put a=5 @5"];
    assert_eq!(bench.seen(), [events(1, 5, &all[2..]), events(0, 5, &all)]);
    bench.put("a", "6");
    assert_eq!(bench.seen().len(), 2);
}

/// etcd issues 15271 and 20221: after a snapshot from another member a watch went back in time, and one with a
/// start in the future was sent older events.
#[test]
fn after_a_snapshot_watchers_read_what_they_missed() {
    let mut bench = Bench::new();
    bench.watch(1, "a", 0);
    bench.watch(1, "a", 6);
    bench.watch(1, "a", 4);
    for value in ["2", "3", "4"] {
        bench.apply(&[("a", Some(value))]);
    }
    bench.queued.clear();
    let view = bench.view();
    bench.hub.replaced(&view);
    bench.catch_up();
    let all = ["put a=2 @2", "put a=3 @3", "put a=4 @4"];
    assert_eq!(bench.seen(), [events(2, 4, &all[2..]), events(0, 4, &all)]);
    bench.put("a", "5");
    bench.put("a", "6");
    let ids: Vec<(i64, i64)> = bench
        .seen()
        .into_iter()
        .map(|seen| match seen {
            Seen::Events { id, revision, .. } => (revision, id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(ids.iter().all(|seen| matches!(seen, (5, 0 | 2) | (6, _))) && ids.len() == 5);
}

/// One watcher with everything to read does not hold up another that misses little.
#[test]
fn a_long_way_to_go_delays_nobody() {
    let mut bench = Bench::new();
    let large = "v".repeat(1000);
    for _ in 0..3000 {
        bench.put("a", &large);
    }
    bench.watch(1, "a", 2);
    bench.watch(2, "a", 2999);
    let view = bench.view();
    let more = bench.hub.catch_up(&view, 300 << 10, &mut bench.out).unwrap();
    assert!(more);
    assert!(bench.out.iter().any(|output| output.stream == 2));
    bench.catch_up();
    let mut sent = [0, 0, 0];
    for output in &bench.out {
        if let Kind::Events { events, .. } = &output.kind {
            sent[output.stream as usize] += events.len();
        }
    }
    assert_eq!(sent, [0, 3000, 3]);
}

/// Many watchers of a stream that are all behind do not make one call's output large.
#[test]
fn one_call_sends_a_stream_a_bounded_amount() {
    let mut bench = Bench::new();
    let large = "v".repeat(10_000);
    for _ in 0..20 {
        bench.put("a", &large);
    }
    for _ in 0..100 {
        bench.watch(1, "a", 2);
    }
    let view = bench.view();
    let mut calls = 0;
    let mut total = 0;
    loop {
        let more = bench.hub.catch_up(&view, 64 << 20, &mut bench.out).unwrap();
        let mut sent = 0;
        for output in bench.out.drain(..) {
            if let Kind::Events { events, .. } = &output.kind {
                sent += events.iter().map(Bytes::len).sum::<usize>();
                total += events.len();
            }
        }
        assert!(sent < 3 << 20, "{sent} bytes at once");
        calls += 1;
        if !more {
            break;
        }
    }
    assert_eq!(total, 2000);
    assert!(calls > 5);
}

/// Watchers alike stand together; taking one out leaves the others where they can be found.
#[test]
fn watchers_alike_leave_in_any_order() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.watch(1, "k", 0);
    }
    let mut left = vec![0, 1, 2, 3, 4];
    for id in [0, 4, 2, 1, 3] {
        assert!(bench.hub.cancel(1, id));
        left.retain(|other| *other != id);
        bench.put("k", "v");
        let mut ids: Vec<i64> = bench.out.drain(..).flat_map(|output| output.watch_ids.to_vec()).collect();
        ids.sort_unstable();
        assert_eq!(ids, left);
    }
}

#[test]
fn dropping_streams_leaves_nothing() {
    let mut bench = fw();
    for stream in 0..3 {
        bench.watch(stream, "a", 0);
        bench.watch(stream, "a", 2);
        bench.watch(stream, "a", 100);
        bench.create(WatchSpec { end: RangeEnd::Unbounded, ..spec(stream, "a") }).unwrap();
    }
    bench.hub.stream_full(1);
    for stream in 0..3 {
        bench.hub.drop_stream(stream);
    }
    assert_eq!(bench.hub.counts(), HubCounts::default());
    bench.put("a", "1");
    bench.catch_up();
    assert_eq!(bench.seen(), []);
}
