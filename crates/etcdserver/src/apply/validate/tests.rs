//! The case table of the KV service as far as it is about checks before a proposal.

use proptest::prelude::*;

use super::*;
use crate::apply::request::Compare;

fn p(key: &'static str) -> Op<'static> {
    Op::Put(Put { key: key.as_bytes(), value: b"1", ..Put::default() })
}

fn d(key: &'static str, end: &'static str) -> Op<'static> {
    Op::DeleteRange(DeleteRange { key: key.as_bytes(), end: end.as_bytes(), prev_kv: false })
}

fn t(success: Vec<Op<'static>>, failure: Vec<Op<'static>>) -> Op<'static> {
    Op::Txn(Txn { compares: Vec::new(), success, failure })
}

fn check(success: Vec<Op<'static>>, failure: Vec<Op<'static>>) -> Result<(), ErrorCode> {
    txn(&Txn { compares: Vec::new(), success, failure }, TXN_OPS_MAX_DEFAULT)
}

const DUPLICATE: Result<(), ErrorCode> = Err(ErrorCode::DuplicateKey);

#[test]
fn kv_003_004_030_031_170_ranges() {
    assert_eq!(range(&Range::default()), Err(ErrorCode::EmptyKey));
    assert_eq!(range(&Range { end: b"\0", ..Range::default() }), Err(ErrorCode::EmptyKey));
    let a = Range { key: b"a", ..Range::default() };
    for (order, target) in [(9, 0), (0, 9), (-1, 0), (0, -1), (3, 0), (0, 5)] {
        assert_eq!(range(&Range { order, target, ..a }), Err(ErrorCode::InvalidSortOption));
        assert_eq!(range(&Range { order, target, ..Range::default() }), Err(ErrorCode::EmptyKey));
    }
    assert_eq!(range(&Range { order: 2, target: 4, ..a }), Ok(()));
    assert_eq!(check(vec![Op::Range(Range { order: 9, ..a })], vec![]), Err(ErrorCode::InvalidSortOption));
}

#[test]
fn kv_162_streams_take_key_order_without_filters() {
    let a = Range { key: b"a", ..Range::default() };
    assert_eq!(range_stream(&Range { target: 3, ..a }), Ok(()));
    assert_eq!(range_stream(&Range { order: 1, ..a }), Ok(()));
    assert_eq!(range_stream(&Range { order: 2, ..a }), Err(ErrorCode::RangeStreamSorted));
    assert_eq!(range_stream(&Range { order: 1, target: 3, ..a }), Err(ErrorCode::RangeStreamSorted));
    assert_eq!(range_stream(&Range { min_mod: 1, ..a }), Err(ErrorCode::RangeStreamFiltered));
}

#[test]
fn kv_055_057_058_106_puts() {
    let both =
        Put { key: b"k", value: b"x", lease: 3, ignore_value: true, ignore_lease: true, prev_kv: false };
    assert_eq!(put(&both), Err(ErrorCode::ValueProvided));
    assert_eq!(put(&Put { key: b"", ..both }), Err(ErrorCode::EmptyKey));
    assert_eq!(put(&Put { ignore_value: false, ..both }), Err(ErrorCode::LeaseProvided));
    assert_eq!(put(&Put { value: b"", lease: 0, ..both }), Ok(()));
    assert_eq!(
        check(vec![Op::Put(Put { ignore_lease: false, ..both })], vec![]),
        Err(ErrorCode::ValueProvided)
    );
}

#[test]
fn kv_079_to_091_overlaps() {
    assert_eq!(check(vec![p("p"), d("p", "")], vec![]), DUPLICATE);
    assert_eq!(check(vec![d("p", ""), p("p")], vec![]), DUPLICATE);
    assert_eq!(check(vec![p("p"), p("p")], vec![]), DUPLICATE);
    assert_eq!(check(vec![d("a", "c"), d("a", "")], vec![]), Ok(()), "080");
    assert_eq!(check(vec![d("a", "z"), p("m")], vec![]), DUPLICATE, "081");
    assert_eq!(check(vec![d("a", "m"), p("m")], vec![]), Ok(()), "082");
    assert_eq!(check(vec![], vec![p("p"), p("p")]), DUPLICATE, "083");
    assert_eq!(check(vec![p("p")], vec![p("p")]), Ok(()), "084");
    assert_eq!(check(vec![p("p"), t(vec![p("p")], vec![])], vec![]), DUPLICATE, "085");
    assert_eq!(check(vec![t(vec![p("q")], vec![p("q")])], vec![]), Ok(()), "086");
    assert_eq!(check(vec![t(vec![p("q")], vec![]), t(vec![p("q")], vec![])], vec![]), DUPLICATE, "087");
    assert_eq!(check(vec![t(vec![d("a", "z")], vec![]), p("q")], vec![]), DUPLICATE, "088");
    assert_eq!(check(vec![d("a", "z"), t(vec![p("q")], vec![])], vec![]), DUPLICATE, "088");
    assert_eq!(check(vec![t(vec![p("q")], vec![]), t(vec![d("q", "")], vec![])], vec![]), Ok(()), "089");
    assert_eq!(check(vec![t(vec![d("q", "")], vec![]), t(vec![p("q")], vec![])], vec![]), DUPLICATE, "090");
    assert_eq!(check(vec![d("\0", "\0"), p("q")], vec![]), Ok(()), "091");
    assert_eq!(check(vec![p("r"), d("q", "\0")], vec![]), Ok(()), "092");
    assert_eq!(check(vec![d("z", "a"), p("m")], vec![]), Ok(()), "an empty interval");
}

#[test]
fn kv_104_105_empty_operations_and_keys() {
    assert_eq!(check(vec![Op::Empty], vec![]), Err(ErrorCode::KeyNotFound));
    assert_eq!(check(vec![p("")], vec![]), Err(ErrorCode::EmptyKey));
    assert_eq!(check(vec![], vec![p("")]), Err(ErrorCode::EmptyKey));
    let compare = Txn { compares: vec![Compare::default()], ..Txn::default() };
    assert_eq!(txn(&compare, 128), Err(ErrorCode::EmptyKey));
}

#[test]
fn kv_107_to_111_operations_are_counted_before_keys_are_looked_at() {
    let many = |count: usize| -> Vec<Op<'static>> {
        (0..count).map(|i| Op::Put(Put { key: i.to_string().leak().as_bytes(), ..Put::default() })).collect()
    };
    let empty = |count: usize| vec![p(""); count];
    assert_eq!(check(many(129), vec![]), Err(ErrorCode::TooManyOps));
    assert_eq!(check(empty(129), vec![]), Err(ErrorCode::TooManyOps));
    assert_eq!(check(many(128), vec![]), Ok(()));
    let compares = Txn { compares: vec![Compare::default(); 129], ..Txn::default() };
    assert_eq!(txn(&compares, 128), Err(ErrorCode::TooManyOps));
    let with =
        |count: usize, nested: Op<'static>| many(count).into_iter().chain([nested]).collect::<Vec<_>>();
    assert_eq!(check(with(126, t(vec![p("x"), p("y")], vec![])), vec![]), Err(ErrorCode::TooManyOps), "109");
    assert_eq!(check(with(126, t(vec![p("x")], vec![])), vec![]), Ok(()), "110");
    assert_eq!(check(with(127, t(vec![], vec![])), vec![]), Ok(()), "110");
    let nested = (0..64)
        .map(|i| {
            let puts = (0..64)
                .map(|j| Op::Put(Put { key: format!("{i}/{j}").leak().as_bytes(), ..Put::default() }))
                .collect();
            t(puts, vec![])
        })
        .collect();
    assert_eq!(check(nested, vec![]), Ok(()), "111");
}

#[test]
fn the_pair_that_go_panics_on_is_refused() {
    // delete_range("\0","\0") beside a put that keeps the lease: Go panics at apply, and at every start after it.
    let keep = |key: &'static str| {
        Op::Put(Put { key: key.as_bytes(), value: b"v", ignore_lease: true, ..Put::default() })
    };
    let refused = Err(ErrorCode::KeyNotFound);
    assert_eq!(check(vec![d("\0", "\0"), keep("q")], vec![]), refused);
    assert_eq!(check(vec![], vec![d("\0", "\0"), keep("q")]), refused);
    assert_eq!(check(vec![d("a", "\0"), t(vec![], vec![keep("q")])], vec![]), refused);
    assert_eq!(check(vec![t(vec![], vec![d("a", "\0")]), keep("q")], vec![]), refused);
    assert_eq!(check(vec![keep("q"), d("\0", "\0")], vec![]), Ok(()), "deleted afterwards");
    assert_eq!(check(vec![d("r", "\0"), keep("q")], vec![]), Ok(()), "another key");
    assert_eq!(check(vec![d("\0", "\0"), p("q")], vec![]), Ok(()), "an ordinary put");
    assert_eq!(
        check(vec![t(vec![d("a", "\0")], vec![keep("q")])], vec![]),
        Ok(()),
        "branches exclude each other"
    );
}

/// Keys of one or two letters out of three, so that intervals meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"\0ab".to_vec()), 1..3)
}

proptest! {
    #[test]
    fn key_sets_answer_as_a_list_of_operations_does(
        ops in prop::collection::vec((key(), prop::option::of(key()), any::<bool>()), 0..30),
        asked in prop::collection::vec(key(), 1..10),
    ) {
        let mut set = KeySet::default();
        for (key, end, remove) in &ops {
            match end {
                _ if *remove => set.remove(key),
                Some(end) => set.insert_range(key, end),
                None => set.insert_range(key, b""),
            }
        }
        let by_list = |asked: &[u8]| {
            let mut held = false;
            for (key, end, remove) in &ops {
                let hit = match end.as_deref() {
                    _ if *remove => key == asked,
                    None => key == asked,
                    Some([0]) => &key[..] <= asked,
                    Some(end) => &key[..] <= asked && asked < end,
                };
                if hit {
                    held = !*remove;
                }
            }
            held
        };
        for key in asked {
            prop_assert_eq!(set.contains(&key), by_list(&key));
        }
    }
}
