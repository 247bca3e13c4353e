//! Readers on other threads while the writer writes, commits and compacts: each view stays what it was.

use super::{Member, everything_at, shown};
use crate::{CompactionProgress, RangeEnd, RangeQuery, View};
use bytes::Bytes;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Each transaction moves one unit between two of these keys: their sum is always the same.
const KEYS: u8 = 16;
const SUM: i64 = 1000;

fn check(view: &View) {
    let all = RangeQuery::new(Bytes::from_static(b"k"), RangeEnd::Unbounded);
    for revision in [view.revision(), view.compact_revision().max(3)] {
        let mut sum = 0;
        let query = RangeQuery { revision, ..all.clone() };
        let summary =
            view.range(&query, &mut |record| sum += shown(record).4.parse::<i64>().unwrap()).unwrap();
        assert_eq!((sum, summary.count), (SUM, i64::from(KEYS)), "at {revision}");
    }
    assert_eq!(view.live_keys(), usize::from(KEYS));
    let from = (view.revision() - 20).max(view.compact_revision() + 1).max(5);
    let history = view.history(from, view.revision(), usize::MAX, &mut |_| true).unwrap();
    let revisions: Vec<i64> = history.batches.iter().map(|batch| batch.revision).collect();
    assert_eq!(revisions, (from..=view.revision()).collect::<Vec<_>>());
    assert!(history.batches.iter().all(|batch| matches!(batch.events.len(), 2 | 3)));
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read(published: &Mutex<View>, stop: &AtomicBool) -> usize {
    let mut checked = 0;
    let mut kept: Vec<(View, Vec<super::Shown>)> = Vec::new();
    // A failed check on either side must end both.
    let _stop = StopOnDrop(stop);
    while !stop.load(Ordering::Relaxed) {
        let view = published.lock().unwrap().clone();
        check(&view);
        if checked % 16 == 0 {
            if kept.len() == 4 {
                let (old, then) = kept.remove(0);
                assert_eq!(everything_at(&old, old.revision()).unwrap(), then);
            }
            let now = everything_at(&view, view.revision()).unwrap();
            kept.push((view, now));
        }
        checked += 1;
    }
    checked
}

#[test]
fn views_hold_while_the_writer_goes_on() {
    let mut member = Member::fresh();
    let key = |number: u8| [b'k', number];
    member.transaction(|txn| {
        for number in 0..KEYS {
            txn.put(&key(number), if number == 0 { b"1000" } else { b"0" }, 0, false).unwrap();
        }
    });
    member.put("a", "below the range");
    member.delete("a");
    let published = Mutex::new(member.store.view());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read(&published, &stop))).collect();
        let stopper = StopOnDrop(&stop);
        for round in 0..6000u32 {
            assert!(!stop.load(Ordering::Relaxed), "a reader failed");
            let (from, to) = ((round * 7 % 16) as u8, (round * 13 % 15 + 1) as u8);
            let to = if from == to { 0 } else { to };
            member.transaction(|txn| {
                let value = |txn: &crate::WriteTxn<'_>, number| {
                    txn.with_current(&key(number), |kv| String::from_utf8_lossy(kv.value).parse::<i64>())
                        .unwrap()
                };
                let (a, b) = (value(txn, from).unwrap().unwrap(), value(txn, to).unwrap().unwrap());
                txn.put(&key(from), (a - 1).to_string().as_bytes(), 0, false).unwrap();
                if round % 5 == 0 {
                    txn.delete_range(&key(to), &RangeEnd::Single, false).unwrap();
                    txn.put(&key(to), (b + 1).to_string().as_bytes(), 0, false).unwrap();
                } else {
                    txn.put(&key(to), (b + 1).to_string().as_bytes(), 0, false).unwrap();
                }
            });
            match round % 31 {
                3 => drop(member.freeze()),
                11 => drop(member.commit()),
                17 if round % 3 == 0 => {
                    let at = member.store.revision() - 25;
                    let _ = member.store.schedule_compaction(at);
                }
                _ => {
                    let progress = member.store.compaction_step(9).unwrap();
                    assert!(progress != CompactionProgress::Idle || !member.store.is_compacting());
                }
            }
            *published.lock().unwrap() = member.store.view();
        }
        drop(stopper);
        let checked: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(checked > 10, "only {checked} views were read");
    });
}
