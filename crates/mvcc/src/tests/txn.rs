//! Cases of the key-value semantics that the store decides.

use super::{Member, Shown, range, shown};
use crate::{Error, EventKind, KeyValue, RangeEnd, RangeQuery, SortOrder, SortTarget};
use bytes::Bytes;

/// The keys a, ab, abc, b, c, 00, ff, ffff at revisions 2 to 9, then c, a, ab again at 10, 11, 12.
fn fixture() -> Member {
    let mut member = Member::fresh();
    for (at, key) in [&b"a"[..], b"ab", b"abc", b"b", b"c", b"\0", b"\xff", b"\xff\xff"].iter().enumerate() {
        member.transaction(|txn| {
            txn.put(key, format!("v{at}").as_bytes(), 0, false).unwrap();
        });
    }
    for (key, value) in [("c", "zz"), ("a", "mm"), ("ab", "aa")] {
        member.put(key, value);
    }
    member
}

fn query(key: &'static [u8], end: &'static [u8]) -> RangeQuery {
    RangeQuery::new(Bytes::from_static(key), RangeEnd::from_wire(Bytes::from_static(end)))
}

fn keys(member: &Member, query: &RangeQuery) -> (Vec<String>, i64, bool) {
    let (found, summary) = range(&member.store.view(), query).unwrap();
    assert_eq!(summary.revision, member.store.revision());
    (found.iter().map(|record| shown(record).0).collect(), summary.count, summary.more)
}

#[test]
fn sorting_and_limits_interplay_as_in_etcd() {
    let member = fixture();
    let sorted = |order, target, limit| {
        let (keys, count, more) = keys(&member, &RangeQuery { order, target, limit, ..query(b"a", b"d") });
        assert_eq!(count, 5);
        (keys.join(" "), more)
    };
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    assert_eq!(sorted(None, Key, 0), ("a ab abc b c".into(), false));
    assert_eq!(sorted(Descend, Key, 0), ("c b abc ab a".into(), false));
    assert_eq!(sorted(Descend, Create, 0), ("c b abc ab a".into(), false));
    assert_eq!(sorted(Ascend, Version, 0), ("abc b a ab c".into(), false));
    assert_eq!(sorted(Ascend, Mod, 0), ("abc b c a ab".into(), false));
    assert_eq!(sorted(Descend, Mod, 0), ("ab a c b abc".into(), false));
    assert_eq!(sorted(Ascend, Value, 0), ("ab a abc b c".into(), false));
    assert_eq!(sorted(Descend, Value, 0), ("c b abc a ab".into(), false));
    assert_eq!(sorted(None, Mod, 0), ("abc b c a ab".into(), false));
    // Without an order the limit comes first: only a, ab and abc are looked at.
    assert_eq!(sorted(None, Mod, 2), ("abc a".into(), true));
    assert_eq!(sorted(Ascend, Mod, 2), ("abc b".into(), true));
    assert_eq!(sorted(Descend, Key, 2), ("c b".into(), true));
    assert_eq!(sorted(None, Key, 5), ("a ab abc b c".into(), false));
    assert_eq!(sorted(None, Key, 4), ("a ab abc b".into(), true));
    assert_eq!(sorted(None, Key, -5), ("a ab abc b c".into(), false));
    assert_eq!(sorted(None, Key, i64::MAX), ("a ab abc b c".into(), false));
    assert_eq!(sorted(Ascend, Mod, i64::MAX), ("abc b c a ab".into(), false));
}

#[test]
fn filters_do_not_change_the_count() {
    let member = fixture();
    let base = || query(b"a", b"d");
    let found = |query: RangeQuery| {
        let (keys, count, more) = keys(&member, &query);
        (keys.join(" "), count, more)
    };
    assert_eq!(found(RangeQuery { min_mod: 10, ..base() }), ("a ab c".into(), 5, false));
    assert_eq!(found(RangeQuery { max_mod: 6, limit: 1, ..base() }), ("abc".into(), 5, true));
    assert_eq!(found(RangeQuery { min_create: 4, max_create: 5, ..base() }), ("abc b".into(), 5, false));
    assert_eq!(found(RangeQuery { min_mod: 999, ..base() }), (String::new(), 5, false));
    assert_eq!(found(RangeQuery { min_mod: 10, count_only: true, ..base() }), (String::new(), 5, false));
    assert_eq!(found(RangeQuery { min_mod: -5, ..base() }).0, "a ab abc b c");
    assert_eq!(found(RangeQuery { max_mod: -5, ..base() }), (String::new(), 5, false));
}

#[test]
fn intervals() {
    let member = fixture();
    let count = |key, end| keys(&member, &query(key, end)).1;
    assert_eq!(count(b"a", b""), 1);
    assert_eq!(count(b"a", b"b"), 3);
    assert_eq!(count(b"b", b"\0"), 4);
    assert_eq!(count(b"\0", b"\0"), 8);
    assert_eq!((count(b"b", b"a"), count(b"b", b"b")), (0, 0));
    assert_eq!(count(b"\0", b"\0\0"), 1);
    assert_eq!(count(b"a", b"\xff"), 5);
}

#[test]
fn keys_only_drops_the_lease_unless_records_are_read() {
    let mut member = Member::fresh();
    member.transaction(|txn| {
        txn.put(b"k", b"value", 5, false).unwrap();
    });
    let found = |query: RangeQuery| -> Shown { shown(&range(&member.store.view(), &query).unwrap().0[0]) };
    let keys_only = || RangeQuery { keys_only: true, ..query(b"k", b"") };
    assert_eq!(found(keys_only()), ("k".into(), 2, 2, 1, String::new(), 0));
    let by_value = RangeQuery { target: SortTarget::Value, ..keys_only() };
    assert_eq!(found(by_value), ("k".into(), 2, 2, 1, String::new(), 5));
    let as_before = RangeQuery { keys_only_lease: true, ..keys_only() };
    assert_eq!(found(as_before), ("k".into(), 2, 2, 1, String::new(), 5));
}

#[test]
fn revisions_out_of_reach() {
    let mut member = fixture();
    let at = |member: &Member, revision| {
        range(&member.store.view(), &RangeQuery { revision, count_only: true, ..query(b"q", b"") })
    };
    assert!(matches!(at(&member, 13), Err(Error::FutureRevision)));
    assert!(at(&member, 1).is_ok() && at(&member, -1).is_ok());
    member.store.schedule_compaction(5).unwrap();
    assert!(matches!(at(&member, 4), Err(Error::Compacted)));
    assert!(at(&member, 5).is_ok());
    for bad in [5, 4, 0, -1] {
        assert!(matches!(member.store.schedule_compaction(bad), Err(Error::Compacted)));
    }
    assert!(matches!(member.store.schedule_compaction(62), Err(Error::FutureRevision)));
    let mut fresh = Member::fresh();
    assert!(matches!(fresh.store.schedule_compaction(-1), Err(Error::Compacted)));
    fresh.store.schedule_compaction(0).unwrap();
    assert!(matches!(fresh.store.schedule_compaction(0), Err(Error::Compacted)));
    fresh.store.schedule_compaction(1).unwrap();
    assert!(matches!(fresh.store.schedule_compaction(2), Err(Error::FutureRevision)));
}

/// The hash of "compaction 0" is remembered under revision 0, but revision 0 asks for the present one.
#[test]
fn hash_of_revision_0_is_always_the_current_one() {
    let mut member = Member::fresh();
    member.compact(0);
    member.put("k", "v");
    let hash = member.store.view().hash_kv(0).unwrap();
    assert_eq!((hash.revision, hash.compact_revision), (2, 0));
    assert_ne!(hash.hash, 1084519789);
    assert_eq!(member.store.view().hash_kv(-3).unwrap().hash, 1084519789);
}

#[test]
fn a_compacted_revision_is_answered_from_memory_until_restart() {
    let mut member = Member::fresh();
    for round in 0..10 {
        member.put("k", &round.to_string());
    }
    let before = member.store.view().hash_kv(8).unwrap();
    member.put("k", "more");
    assert_eq!(member.store.view().hash_kv(8).unwrap(), before);
    member.compact(5);
    let at_5 = member.store.view().hash_kv(5).unwrap();
    assert_eq!((at_5.compact_revision, at_5.revision), (-1, 5));
    assert!(matches!(member.store.view().hash_kv(4), Err(Error::Compacted)));
    assert_ne!(member.store.view().hash_kv(8).unwrap().hash, before.hash);
    member.compact(7);
    assert_eq!(member.store.view().hash_kv(5).unwrap(), at_5);
    member.flush();
    let member = member.reopen();
    assert!(matches!(member.store.view().hash_kv(5), Err(Error::Compacted)));
    assert_eq!(member.store.view().hash_kv(7).unwrap().compact_revision, 7);
}

#[test]
fn ten_compaction_hashes_are_remembered() {
    let mut member = Member::fresh();
    for round in 0..14 {
        let revision = member.put("k", &round.to_string());
        member.compact(revision);
    }
    let revisions: Vec<i64> =
        member.store.view().compaction_hashes().iter().map(|hash| hash.revision).collect();
    assert_eq!(revisions, (6..16).collect::<Vec<_>>());
    // One that follows an incomplete compaction leaves none.
    member.put("k", "x");
    member.put("k", "y");
    member.store.schedule_compaction(16).unwrap();
    member.store.schedule_compaction(17).unwrap();
    member.finish_compaction();
    assert_eq!(member.store.finished_compaction(), 17);
    let hashes: Vec<i64> = member.store.view().compaction_hashes().iter().map(|hash| hash.revision).collect();
    assert_eq!(hashes.last(), Some(&16));
}

#[test]
fn a_transaction_sees_itself_and_others_see_it_at_once() {
    let mut member = Member::fresh();
    let before = member.store.view();
    let batch = member.transaction_with_events(|txn| {
        assert_eq!(txn.revision(), 1);
        let deleted = txn.delete_range(b"a", &RangeEnd::Unbounded, false).unwrap();
        assert_eq!((deleted.count(), txn.revision()), (0, 1));
        txn.put(b"a", b"1", 9, false).unwrap();
        assert_eq!((txn.revision(), txn.lease_of(b"a").unwrap()), (2, 9));
        let put = txn.put(b"b", b"2", 0, false).unwrap();
        assert_eq!((put.revision.main, put.revision.sub), (2, 1));
        assert_eq!(txn.count(b"a", &RangeEnd::Unbounded), 2);
        let deleted = txn.delete_range(b"a", &RangeEnd::Single, true).unwrap();
        assert_eq!(shown(&deleted.previous[0]), ("a".into(), 2, 2, 1, "1".into(), 9));
        assert_eq!(txn.key_state(b"a"), None);
    });
    let batch = batch.unwrap();
    assert_eq!(batch.revision, 2);
    let kinds: Vec<_> = batch.events.iter().map(|event| (event.kind, &event.key[..], event.lease)).collect();
    let expected = [(EventKind::Put, &b"a"[..], 9), (EventKind::Put, b"b", 0), (EventKind::Delete, b"a", 0)];
    assert_eq!(kinds, expected);
    let deletion = KeyValue::decode(&batch.events[2].kv).unwrap();
    assert_eq!((deletion.mod_revision, deletion.version), (2, 0));
    assert_eq!((before.revision(), before.live_keys()), (1, 0));
    assert_eq!(range(&before, &query(b"\0", b"\0")).unwrap().1.count, 0);
    let read_back = member.store.view().batch_of(2).unwrap().unwrap();
    for (live, stored) in batch.events.iter().zip(&read_back.events) {
        assert_eq!((live.kind, live.created, live.lease), (stored.kind, stored.created, stored.lease));
        assert_eq!((&live.key, &live.kv, &live.encoded), (&stored.key, &stored.kv, &stored.encoded));
    }
}

#[test]
fn a_write_that_changes_nothing_leaves_nothing() {
    let mut member = Member::fresh();
    member.flush();
    assert!(member.transaction_with_events(|_| {}).is_none());
    assert_eq!(member.store.revision(), 1);
    assert!(member.store.freeze().is_none());
    member.store.set_consistent_index(7, 1);
    assert!(member.store.freeze().is_none(), "an index alone waits");
    assert!(member.freeze(), "unless it is asked for");
    member.commit();
    assert_eq!(member.reopen().restored.consistent_index, 7);
}

#[test]
#[should_panic(expected = "a transaction with changes was not ended")]
fn a_transaction_must_be_ended() {
    let mut member = Member::fresh();
    member.store.write().put(b"k", b"v", 0, false).unwrap();
}

#[test]
fn history_leaves_out_what_is_not_wanted_and_goes_on_where_it_stopped() {
    let mut member = Member::fresh();
    for round in 0..30 {
        member.put(if round % 3 == 0 { "wanted" } else { "other" }, &round.to_string());
        if round == 10 {
            member.flush();
        }
        if round == 20 {
            member.freeze();
        }
    }
    let view = member.store.view();
    let (mut next, mut seen, mut pieces) = (2, Vec::new(), 0);
    while next <= view.revision() {
        let piece = view.history(next, view.revision(), 50, &mut |key| key == b"wanted").unwrap();
        seen.extend(piece.batches.iter().map(|batch| batch.revision));
        (next, pieces) = (piece.next, pieces + 1);
    }
    assert_eq!(seen, (0..10).map(|i| 2 + 3 * i).collect::<Vec<_>>());
    assert!(pieces > 3);
}

#[test]
fn the_quota_sees_what_is_applied_and_takes_no_compaction_for_growth() {
    let mut member = Member::fresh();
    member.flush();
    let empty = member.store.size_for_quota();
    let value = "x".repeat(1 << 20);
    for _ in 0..4 {
        member.put("k", &value);
    }
    assert!(member.store.size_for_quota() > empty + (3 << 20), "applied");
    assert!(member.freeze());
    member.put("k", &value);
    assert!(member.store.size_for_quota() > empty + (4 << 20), "frozen and applied");
    member.flush();
    let full = member.store.size_for_quota();
    assert_eq!(full, member.db.sizes().total);
    for _ in 0..1000 {
        member.delete("k");
        member.put("k", "");
    }
    member.flush();
    let full = member.store.size_for_quota().max(full);
    member.compact(member.store.revision());
    assert_eq!(member.store.size_for_quota(), full, "compacted, not in the file yet");
}
