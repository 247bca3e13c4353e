//! The case table of the KV service, by id, as far as it needs no process.

use api::etcdserverpb as pb;
use pb::compare::TargetUnion as U;
use pb::response_op::Response;

use super::op::{cmp, d, p, r, range, t, then, txn};
use super::*;

fn keys(response: &pb::RangeResponse) -> Vec<String> {
    response.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).replace('\u{fffd}', "?")).collect()
}

/// Puts `a ab abc b c \0`; the case tables add two keys of 0xff, which come in as bytes.
fn fk() -> Lane {
    let mut lane = Lane::new();
    for (at, key) in ["a", "ab", "abc", "b", "c", "\0"].into_iter().enumerate() {
        lane.p(key, &format!("v{at}"));
    }
    for (at, key) in [&b"\xff"[..], b"\xff\xff"].into_iter().enumerate() {
        let value = b(&format!("v{}", at + 6));
        lane.put(pb::PutRequest { key: Bytes::from_static(key), value, ..Default::default() }).unwrap();
    }
    assert_eq!(lane.revision(), 9);
    lane
}

fn fk2() -> Lane {
    let mut lane = fk();
    lane.p("c", "zz");
    lane.p("a", "mm");
    lane.p("ab", "aa");
    lane
}

#[test]
fn kv_001_005_to_019_intervals_and_limits() {
    let fresh = Lane::new();
    let empty = fresh.range(&get("zz")).unwrap();
    assert_eq!((empty.kvs.len(), empty.count, empty.header.unwrap().revision), (0, 0, 1));
    let lane = fk();
    let rows: &[(&str, &str, &[&str])] = &[
        ("a", "", &["a"]),
        ("a", "b", &["a", "ab", "abc"]),
        ("b", "\0", &["b", "c", "?", "??"]),
        ("\0", "\0", &["\0", "a", "ab", "abc", "b", "c", "?", "??"]),
        ("b", "a", &[]),
        ("b", "b", &[]),
        ("\0", "\0\0", &["\0"]),
    ];
    for (key, end, expected) in rows {
        let response = lane.range(&list(key, end)).unwrap();
        assert_eq!(
            (&keys(&response)[..], response.count),
            (&expected.map_owned()[..], expected.len() as i64)
        );
        assert_eq!(response.header.unwrap().revision, 9);
    }
    for (limit, keys, more) in
        [(2, 2, true), (5, 5, false), (-1, 5, false), (-5, 5, false), (i64::MAX, 5, false)]
    {
        let response = lane.range(&pb::RangeRequest { limit, ..list("a", "d") }).unwrap();
        assert_eq!((response.kvs.len(), response.count, response.more), (keys, 5, more), "limit {limit}");
    }
    let count = pb::RangeRequest { limit: 2, count_only: true, ..list("a", "d") };
    let response = lane.range(&count).unwrap();
    assert_eq!((response.kvs.len(), response.count, response.more), (0, 5, false));
    let response = lane.range(&pb::RangeRequest { limit: 2, keys_only: true, ..list("a", "d") }).unwrap();
    assert_eq!((keys(&response), response.count, response.more), (vec!["a".into(), "ab".into()], 5, true));
    assert!(response.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0 && kv.version == 1));
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for &[&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[test]
fn kv_020_to_037_orders_and_filters() {
    let lane = fk2();
    let asked = |order, target, limit| pb::RangeRequest {
        sort_order: order,
        sort_target: target,
        limit,
        ..list("a", "d")
    };
    let rows: &[(i32, i32, i64, &str)] = &[
        (0, 0, 0, "a ab abc b c"),
        (1, 0, 0, "a ab abc b c"),
        (2, 0, 0, "c b abc ab a"),
        (2, 2, 0, "c b abc ab a"),
        (1, 3, 0, "abc b c a ab"),
        (2, 3, 0, "ab a c b abc"),
        (1, 4, 0, "ab a abc b c"),
        (2, 4, 0, "c b abc a ab"),
        (0, 3, 0, "abc b c a ab"),
        (0, 3, 2, "abc a"),
        (1, 3, 2, "abc b"),
        (2, 0, 2, "c b"),
    ];
    for (order, target, limit, expected) in rows {
        let response = lane.range(&asked(*order, *target, *limit)).unwrap();
        assert_eq!(keys(&response).join(" "), *expected, "{order} {target} {limit}");
        assert_eq!(response.more, *limit > 0);
    }
    let versions = lane.range(&asked(1, 1, 0)).unwrap();
    assert_eq!(versions.kvs.iter().map(|kv| kv.version).collect::<Vec<_>>(), [1, 1, 2, 2, 2]);
    let filters: &[(i64, i64, i64, i64, i64, &str, bool)] = &[
        (10, 0, 0, 0, 0, "a ab c", false),
        (0, 6, 0, 0, 1, "abc", true),
        (0, 0, 4, 5, 0, "abc b", false),
        (999, 0, 0, 0, 0, "", false),
        (-5, 0, 0, 0, 0, "a ab abc b c", false),
        (0, -5, 0, 0, 0, "", false),
    ];
    for &(min_mod, max_mod, min_create, max_create, limit, expected, more) in filters {
        let request = pb::RangeRequest {
            min_mod_revision: min_mod,
            max_mod_revision: max_mod,
            min_create_revision: min_create,
            max_create_revision: max_create,
            limit,
            ..list("a", "d")
        };
        let response = lane.range(&request).unwrap();
        assert_eq!((keys(&response).join(" "), response.count, response.more), (expected.into(), 5, more));
    }
}

#[test]
fn kv_038_to_050_revisions_and_compactions() {
    let at = |revision| pb::RangeRequest { revision, ..get("a") };
    let mut lane = fk2();
    let old = lane.range(&at(3)).unwrap();
    assert_eq!((&old.kvs[0].value[..], old.kvs[0].mod_revision), (&b"v0"[..], 2));
    assert_eq!(old.header.unwrap().revision, 12);
    assert!(lane.range(&at(1)).unwrap().kvs.is_empty());
    assert_eq!(refused(lane.range(&at(13))), FUTURE);
    assert_eq!(
        refused(lane.range(&pb::RangeRequest { revision: 13, count_only: true, ..get("zz") })),
        FUTURE
    );
    assert_eq!(lane.range(&at(-5)).unwrap().kvs[0].value[..], *b"mm");
    assert_eq!(lane.compact(5).unwrap(), Reply::Compaction { revision: 12 });
    assert!(lane.last.compaction_scheduled);
    assert_eq!(refused(lane.range(&at(4))), COMPACTED);
    assert_eq!(lane.range(&at(5)).unwrap().kvs[0].value[..], *b"v0");
    for revision in [5, 4, 0, -1] {
        assert_eq!(refused(lane.compact(revision)), COMPACTED, "{revision}");
    }
    assert_eq!(refused(lane.compact(62)), FUTURE);
    assert!(!lane.last.compaction_scheduled);
    lane.compact(12).unwrap();
    lane.finish_compaction();
    assert_eq!(lane.range(&list("\0", "\0")).unwrap().count, 8);
    assert_eq!(lane.range(&at(12)).unwrap().kvs[0].version, 2);
    assert_eq!(refused(lane.range(&at(11))), COMPACTED);
    let mut fresh = Lane::new();
    assert_eq!(refused(fresh.compact(-1)), COMPACTED);
    assert_eq!(fresh.compact(0).unwrap().revision(), 1);
    assert_eq!(refused(fresh.compact(0)), COMPACTED);
    assert!(fresh.compact(1).is_ok());
    assert_eq!(refused(fresh.compact(2)), FUTURE);
}

#[test]
fn kv_051_to_069_puts() {
    let mut lane = Lane::new();
    assert_eq!((lane.p("k", "v1"), lane.p("k", "v1")), (2, 3));
    let prev = |request| pb::PutRequest { prev_kv: true, ..request };
    let response: pb::PutResponse = message(&lane.put(prev(put("k", "v2"))));
    let before = response.prev_kv.unwrap();
    assert_eq!(
        (&before.value[..], before.create_revision, before.mod_revision, before.version),
        (&b"v1"[..], 2, 3, 2)
    );
    assert!(message::<pb::PutResponse>(&lane.put(prev(put("k2", "v")))).prev_kv.is_none());
    let keep = pb::PutRequest { ignore_value: true, ..prev(put("k", "")) };
    let response: pb::PutResponse = message(&lane.put(keep));
    assert_eq!(response.prev_kv.unwrap().value[..], *b"v2");
    let kv = lane.get("k").unwrap();
    assert_eq!((&kv.value[..], kv.version, kv.mod_revision), (&b"v2"[..], 4, lane.revision()));
    let revision = lane.revision();
    let missing = [
        pb::PutRequest { ignore_value: true, ..put("missing", "") },
        pb::PutRequest { ignore_lease: true, ..put("missing", "x") },
    ];
    for request in missing {
        assert_eq!(refused(lane.put(request)), KEY_NOT_FOUND, "056");
    }
    for lease in [777, -777] {
        assert_eq!(refused(lane.put(pb::PutRequest { lease, ..put("k", "x") })), LEASE_NOT_FOUND, "059");
    }
    let both = pb::PutRequest { ignore_value: true, lease: 777, ..put("missing", "") };
    assert_eq!(refused(lane.put(both)), LEASE_NOT_FOUND, "060");
    assert_eq!(lane.revision(), revision);
    lane.p("e", "");
    assert_eq!(lane.get("e").map(|kv| (kv.value.len(), kv.version)), Some((0, 1)), "066");
    lane.delete(del("k", "")).unwrap();
    lane.p("k", "n");
    let kv = lane.get("k").unwrap();
    assert_eq!((kv.version, kv.create_revision), (1, kv.mod_revision), "069");
}

#[test]
fn kv_067_to_072_deletions() {
    let mut lane = Lane::new();
    lane.p("k2", "v");
    let none: pb::DeleteRangeResponse = message(&lane.delete(del("nope", "")));
    assert_eq!((none.deleted, none.header.unwrap().revision), (0, 2));
    assert!(lane.last.events.is_empty());
    let one: pb::DeleteRangeResponse =
        message(&lane.delete(pb::DeleteRangeRequest { prev_kv: true, ..del("k2", "") }));
    assert_eq!((one.deleted, one.prev_kvs.len(), one.header.unwrap().revision), (1, 1, 3));
    for key in ["d1", "d2", "d3"] {
        lane.p(key, key);
    }
    let before = lane.revision();
    let request = pb::DeleteRangeRequest { prev_kv: true, ..del("d", "e") };
    let three: pb::DeleteRangeResponse = message(&lane.delete(request));
    assert_eq!(three.prev_kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [b"d1", b"d2", b"d3"]);
    assert_eq!((three.deleted, lane.revision()), (3, before + 1));
    assert_eq!(lane.last.events[0].events.len(), 3);
    assert_eq!(message::<pb::DeleteRangeResponse>(&lane.delete(del("z", "a"))).deleted, 0);
    let old = pb::RangeRequest { revision: before, ..list("d", "e") };
    assert_eq!(lane.range(&old).unwrap().count, 3);
}

#[test]
fn kv_061_to_065_073_074_puts_and_leases() {
    let mut lane = Lane::new();
    lane.grant(5, 60).unwrap();
    lane.grant(6, 60).unwrap();
    let on = |key, value, lease| pb::PutRequest { lease, ..put(key, value) };
    lane.put(on("lk", "v", 5)).unwrap();
    assert_eq!(lane.keys_of(5), ["lk"]);
    lane.p("lk", "v2");
    assert_eq!((lane.get("lk").unwrap().lease, lane.keys_of(5).len()), (0, 0), "061");
    lane.put(on("lk", "v", 5)).unwrap();
    lane.put(pb::PutRequest { ignore_lease: true, ..put("lk", "v3") }).unwrap();
    assert_eq!((lane.get("lk").unwrap().lease, lane.keys_of(5)), (5, vec!["lk".to_owned()]), "062");
    lane.put(on("lk", "v4", 6)).unwrap();
    assert_eq!((lane.keys_of(5).len(), lane.keys_of(6)), (0, vec!["lk".to_owned()]), "063");
    lane.put(pb::PutRequest { ignore_lease: true, ignore_value: true, ..put("lk", "") }).unwrap();
    let kv = lane.get("lk").unwrap();
    assert_eq!((kv.lease, &kv.value[..]), (6, &b"v4"[..]), "064");
    lane.p("r0", "kept");
    lane.put(pb::PutRequest { ignore_value: true, ..on("r0", "", 5) }).unwrap();
    let kv = lane.get("r0").unwrap();
    assert_eq!((kv.lease, &kv.value[..]), (5, &b"kept"[..]), "065");
    lane.delete(del("lk", "")).unwrap();
    assert!(lane.keys_of(6).is_empty(), "073");
    let request = pb::DeleteRangeRequest { prev_kv: true, ..del("r0", "") };
    let response: pb::DeleteRangeResponse = message(&lane.delete(request));
    assert_eq!(response.prev_kvs[0].lease, 5, "074");
}

fn responses(response: &pb::TxnResponse) -> Vec<&Response> {
    response.responses.iter().map(|op| op.response.as_ref().unwrap()).collect()
}

fn ab() -> Lane {
    let mut lane = Lane::new();
    lane.p("a", "1");
    lane.p("b", "2");
    lane
}

#[test]
fn kv_075_to_082_transactions_and_their_headers() {
    let mut lane = ab();
    let empty: pb::TxnResponse = message(&lane.txn(then(vec![])));
    assert_eq!((empty.succeeded, empty.responses.len(), empty.header.unwrap().revision), (true, 0, 3));
    let with_prev = pb::PutRequest { prev_kv: true, ..put("y", "2") };
    let request = txn(
        vec![cmp("a", "", '=', U::Value(b("1")))],
        vec![p("x", "1"), r("x"), op::put(with_prev), range(list("x", "z"))],
        vec![],
    );
    let response: pb::TxnResponse = message(&lane.txn(request));
    assert_eq!(response.header.unwrap().revision, 4);
    let [
        Response::ResponsePut(x),
        Response::ResponseRange(rx),
        Response::ResponsePut(y),
        Response::ResponseRange(rxy),
    ] = responses(&response)[..]
    else {
        panic!("{response:?}");
    };
    for header in [x.header, rx.header, y.header, rxy.header] {
        assert_eq!(header, Some(pb::ResponseHeader { revision: 4, ..Default::default() }));
    }
    assert_eq!((keys(rx), keys(rxy)), (vec!["x".to_owned()], vec!["x".to_owned(), "y".to_owned()]));
    assert!(y.prev_kv.is_none());
    let request = txn(vec![cmp("a", "", '=', U::Value(b("2")))], vec![p("x", "9")], vec![r("a")]);
    let response: pb::TxnResponse = message(&lane.txn(request));
    assert!(!response.succeeded);
    let [Response::ResponseRange(found)] = responses(&response)[..] else { panic!() };
    assert_eq!(found.header.unwrap().revision, 4);
    let response: pb::TxnResponse = message(&lane.txn(then(vec![d("nonexist", "")])));
    let [Response::ResponseDeleteRange(nothing)] = responses(&response)[..] else { panic!() };
    assert_eq!((nothing.header.unwrap().revision, response.header.unwrap().revision), (4, 4), "078");
    let response: pb::TxnResponse = message(&lane.txn(then(vec![d("a", "c"), d("a", "")])));
    let [Response::ResponseDeleteRange(two), Response::ResponseDeleteRange(none)] = responses(&response)[..]
    else {
        panic!()
    };
    assert_eq!((two.deleted, none.deleted), (2, 0), "080");
    assert_eq!(none.header.unwrap().revision, 5);
    let response: pb::TxnResponse = message(&lane.txn(then(vec![d("a", "m"), p("m", "1")])));
    let [Response::ResponseDeleteRange(before), Response::ResponsePut(after)] = responses(&response)[..]
    else {
        panic!()
    };
    assert_eq!((before.header.unwrap().revision, after.header.unwrap().revision), (5, 6), "082");
    assert_eq!(response.header.unwrap().revision, 6);
}

#[test]
fn kv_089_to_095_order_of_execution_and_nesting() {
    let mut lane = ab();
    let revision = lane.revision();
    lane.txn(then(vec![t(then(vec![p("q", "1")])), t(then(vec![d("q", "")]))])).unwrap();
    assert_eq!((lane.get("q"), lane.revision()), (None, revision + 1), "089");
    lane.txn(then(vec![d("\0", "\0"), p("q", "1")])).unwrap();
    assert_eq!(keys(&lane.range(&list("\0", "\0")).unwrap()), ["q"], "091");
    lane.txn(then(vec![p("r", "1"), d("q", "\0")])).unwrap();
    assert_eq!(lane.get("r"), None, "092");
    let events: Vec<_> = lane.last.events[0].events.iter().map(|e| (e.kind, &e.key[..])).collect();
    let (put, delete) = (mvcc::EventKind::Put, mvcc::EventKind::Delete);
    assert_eq!(events, [(put, &b"r"[..]), (delete, b"q"), (delete, b"r")], "093");
    lane.p("n", "0");
    let inner = txn(vec![cmp("m1", "", '>', U::Version(0))], vec![p("saw", "1")], vec![p("notsaw", "1")]);
    let response: pb::TxnResponse = message(&lane.txn(then(vec![p("m1", "1"), t(inner), r("m1")])));
    let [_, Response::ResponseTxn(nested), Response::ResponseRange(m1)] = responses(&response)[..] else {
        panic!()
    };
    assert_eq!((nested.header, nested.succeeded), (Some(pb::ResponseHeader::default()), false), "094");
    assert_eq!((lane.get("saw").is_some(), lane.get("notsaw").is_some(), m1.count), (false, true, 1));
    let revision = lane.revision();
    let response: pb::TxnResponse = message(&lane.txn(then(vec![t(then(vec![r("n")]))])));
    let [Response::ResponseTxn(nested)] = responses(&response)[..] else { panic!() };
    assert_eq!((nested.header, lane.revision()), (Some(pb::ResponseHeader::default()), revision), "095");
}

#[test]
fn kv_096_to_103_165_checks_before_anything_is_written() {
    let mut lane = ab();
    let now = lane.revision();
    let at = |revision| range(pb::RangeRequest { revision, ..get("a") });
    lane.txn(then(vec![p("z1", "1"), at(2)])).unwrap();
    assert_eq!(lane.revision(), now + 1, "096");
    assert_eq!(refused(lane.txn(then(vec![p("z2", "1"), at(now + 2)]))), FUTURE, "097");
    assert_eq!(lane.get("z2"), None);
    assert_eq!(refused(lane.txn(then(vec![at(now + 2), p("x", "1")]))), FUTURE, "098");
    assert!(lane.txn(then(vec![at(-1), t(then(vec![]))])).is_ok(), "099");
    assert_eq!(refused(lane.txn(then(vec![at(-2), t(then(vec![]))]))), COMPACTED, "099");
    assert!(lane.txn(txn(vec![], vec![r("a"), t(then(vec![]))], vec![at(99)])).is_ok(), "100");
    let keep = op::put(pb::PutRequest { ignore_value: true, ..put("new2", "") });
    assert_eq!(refused(lane.txn(then(vec![p("new1", "1"), keep]))), KEY_NOT_FOUND, "101");
    let leased = || op::put(pb::PutRequest { lease: 999, ..put("l2", "") });
    assert_eq!(refused(lane.txn(then(vec![p("l1", "1"), leased()]))), LEASE_NOT_FOUND, "102");
    assert_eq!((lane.get("new1"), lane.get("l1")), (None, None));
    assert!(lane.txn(txn(vec![], vec![p("l1", "1")], vec![leased()])).is_ok(), "103");
    assert_eq!(refused(lane.txn(then(vec![at(99), leased()]))), FUTURE, "165");
    assert_eq!(refused(lane.txn(then(vec![leased(), at(99)]))), LEASE_NOT_FOUND, "165");
    // A key put earlier in the same transaction is not there for a put that keeps something.
    let keep = op::put(pb::PutRequest { ignore_value: true, ..put("fresh", "") });
    assert_eq!(refused(lane.txn(then(vec![t(then(vec![p("fresh", "1")])), keep]))), KEY_NOT_FOUND);
}

#[test]
fn kv_112_to_124_comparisons() {
    let mut lane = Lane::new();
    lane.p("a", "1");
    lane.p("b", "2");
    lane.p("b", "2");
    lane.grant(70, 60).unwrap();
    lane.put(pb::PutRequest { lease: 70, ..put("c", "3") }).unwrap();
    let v = |text: &str| U::Value(b(text));
    let rows = vec![
        (cmp("a", "", '=', v("1")), true),
        (cmp("a", "", '!', v("1")), false),
        (cmp("a", "", '>', v("0")), true),
        (cmp("a", "", '<', v("2")), true),
        (cmp("zz", "", '=', v("")), false),
        (cmp("zz", "", '!', v("x")), false),
        (cmp("zz", "", '<', v("x")), false),
        (cmp("zz", "", '>', v("")), false),
        (cmp("zz", "", '=', U::Version(0)), true),
        (cmp("zz", "", '=', U::CreateRevision(0)), true),
        (cmp("zz", "", '=', U::ModRevision(0)), true),
        (cmp("zz", "", '=', U::Lease(0)), true),
        (cmp("zz", "", '<', U::Version(1)), true),
        (cmp("b", "", '=', U::Version(2)), true),
        (cmp("b", "", '>', U::Version(1)), true),
        (cmp("b", "", '<', U::Version(2)), false),
        (cmp("b", "", '!', U::Version(2)), false),
        (cmp("b", "", '=', U::CreateRevision(3)), true),
        (cmp("b", "", '=', U::ModRevision(4)), true),
        (cmp("b", "", '>', U::ModRevision(3)), true),
        (cmp("c", "", '=', U::Lease(70)), true),
        (cmp("c", "", '!', U::Lease(0)), true),
        (cmp("a", "", '=', U::Lease(0)), true),
        (pb::Compare { key: b("zz"), ..Default::default() }, true),
        (pb::Compare { key: b("a"), ..Default::default() }, false),
        (pb::Compare { target: 0, ..cmp("zz", "", '=', v("x")) }, true),
        (pb::Compare { target: 0, ..cmp("b", "", '>', U::ModRevision(99)) }, true),
        (cmp("a", "d", '>', U::Version(0)), true),
        (cmp("a", "d", '>', U::Version(1)), false),
        (cmp("x", "z", '=', U::Version(0)), true),
        (cmp("x", "z", '>', U::Version(0)), false),
        (cmp("x", "z", '=', v("")), false),
        (cmp("b", "\0", '>', U::ModRevision(2)), true),
        (cmp("\0", "\0", '!', v("9")), true),
        (pb::Compare { result: 9, ..cmp("a", "", '=', v("nope")) }, true),
        (pb::Compare { target: 9, ..cmp("a", "", '=', v("nope")) }, true),
        (pb::Compare { target: 9, ..cmp("a", "", '>', v("")) }, false),
        (pb::Compare { target: 9, ..cmp("a", "", '!', v("")) }, false),
    ];
    for (compare, expected) in rows {
        // Through the log, and on a view: a nested transaction makes the difference.
        let through_log = txn(vec![compare.clone()], vec![t(then(vec![]))], vec![t(then(vec![]))]);
        let response: pb::TxnResponse = message(&lane.txn(through_log));
        assert_eq!(response.succeeded, expected, "{compare:?}");
        let bytes = txn(vec![compare.clone()], vec![], vec![]).encode_to_vec();
        let mut out = Vec::new();
        let parsed = request::Txn::parse(&bytes).unwrap();
        crate::read::txn(&lane.applier.publish(), Caller::default(), &parsed, &mut out).unwrap();
        assert_eq!(pb::TxnResponse::decode(&out[..]).unwrap().succeeded, expected, "{compare:?}");
    }
    let both = vec![cmp("a", "", '=', v("1")), cmp("b", "", '=', v("X"))];
    assert!(!message::<pb::TxnResponse>(&lane.txn(txn(both, vec![], vec![]))).succeeded, "122");
}

#[test]
fn kv_134_135_171_keys_only_and_the_lease() {
    let mut lane = Lane::new();
    lane.grant(5, 60).unwrap();
    lane.put(pb::PutRequest { lease: 5, ..put("a", "v") }).unwrap();
    let keys_only = pb::RangeRequest { keys_only: true, ..get("a") };
    assert_eq!(lane.range(&keys_only).unwrap().kvs[0].lease, 0, "134");
    let by_value = pb::RangeRequest { sort_target: 4, ..keys_only.clone() };
    assert_eq!(lane.range(&by_value).unwrap().kvs[0].lease, 5, "135");
    let response: pb::TxnResponse = message(&lane.txn(then(vec![range(keys_only.clone()), t(then(vec![]))])));
    let [Response::ResponseRange(found), _] = responses(&response)[..] else { panic!() };
    assert_eq!(found.kvs[0].lease, 0, "171");
    let mut older = Lane::with(Settings { keys_only_lease: true, ..settings() });
    older.grant(5, 60).unwrap();
    older.put(pb::PutRequest { lease: 5, ..put("a", "v") }).unwrap();
    assert_eq!(older.range(&keys_only).unwrap().kvs[0].lease, 5, "as 3.6 shows it");
}

#[test]
fn kv_136_to_142_events_counts_and_restart() {
    let mut lane = ab();
    lane.txn(then(vec![d("a", "c"), p("n", "1")])).unwrap();
    let events = &lane.last.events[0].events;
    assert_eq!(events.iter().map(|e| &e.key[..]).collect::<Vec<_>>(), [b"a", b"b", b"n"], "136");
    for key in ["r0", "r1", "r2", "r3", "r4"] {
        lane.p(key, "v");
    }
    let limited = range(pb::RangeRequest { limit: 2, ..list("r", "s") });
    let counted = range(pb::RangeRequest { count_only: true, ..list("r", "s") });
    let response: pb::TxnResponse =
        message(&lane.txn(then(vec![limited, d("r1", ""), t(then(vec![r("r1")])), counted])));
    let [Response::ResponseRange(two), _, Response::ResponseTxn(nested), Response::ResponseRange(left)] =
        responses(&response)[..]
    else {
        panic!()
    };
    assert_eq!((two.kvs.len(), two.count, two.more, left.count), (2, 5, true, 4), "137, 138");
    let [Response::ResponseRange(gone)] = responses(nested)[..] else { panic!() };
    assert_eq!(gone.count, 0);
    let compacted_at = lane.revision();
    lane.compact(compacted_at).unwrap();
    lane.finish_compaction();
    let before = (lane.revision(), lane.hash(), lane.get("r0"));
    let lane = lane.restart();
    assert_eq!((lane.revision(), lane.hash(), lane.get("r0")), before, "142");
    let old = pb::RangeRequest { revision: compacted_at - 1, ..get("r0") };
    assert_eq!(refused(lane.range(&old)), COMPACTED);
}

#[test]
fn ranges_that_went_through_the_log_are_answered() {
    let mut lane = ab();
    let answer = lane.ask(pb::InternalRaftRequest { range: Some(list("a", "c")), ..Default::default() });
    let response: pb::RangeResponse = message(&answer);
    assert_eq!((keys(&response), response.header.unwrap().revision), (vec!["a".into(), "b".into()], 3));
}
