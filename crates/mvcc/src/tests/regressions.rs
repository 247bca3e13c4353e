//! Bugs that etcd had, each as a story that must end well here.

use super::{FILE, Member, everything_at, options, value_at};
use crate::schema::{self, Bucket};
use crate::{Error, EventKind, RangeEnd, Revision, Store};
use bolt::Op;
use bytes::Bytes;
use disk::Disk;
use disk::mem::MemDisk;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// etcd 17780: the newest record was a tombstone, compaction removed it, and the process was killed before the
/// finished mark was written. At the next start the revision was taken from what was left, and went down.
/// Here the current revision is never below the scheduled mark.
#[test]
fn issue_17780_revision_does_not_go_down_after_a_crash_in_compaction() {
    let mut member = Member::fresh();
    member.put("k", "1");
    member.put("l", "1");
    let last = member.delete("k");
    member.flush();
    // As an older etcd leaves it: the tombstone at the compacted revision gone, only the scheduled mark set.
    let mut batch = bolt::Batch::default();
    let dead = [Revision::new(2, 0).key().to_vec(), Revision::new(4, 0).tombstone_key().to_vec()];
    batch.bucket(b"key").changes = dead.into_iter().map(|key| (Bytes::from(key), Op::Delete)).collect();
    let mark = (Bytes::from_static(schema::SCHEDULED_COMPACT_REV), Op::Put(schema::write_compact_rev(last)));
    batch.bucket(b"meta").changes = vec![mark];
    member.db.commit(&batch).unwrap();
    let mut member = member.reopen();
    assert_eq!((member.restored.current_revision, member.restored.scheduled), (4, Some(4)));
    assert_eq!(member.put("m", "1"), 5);
    member.finish_compaction();
    member.flush();
    let member = member.reopen();
    assert_eq!((member.restored.current_revision, member.restored.compact_revision), (5, 4));
    assert_eq!(member.restored.scheduled, None);
}

/// The same, with the kill at every single commit of a compaction by us.
#[test]
fn issue_17780_no_kill_in_a_compaction_changes_what_is_read() {
    for steps in 0..40 {
        let mut member = Member::fresh();
        for round in 0..6 {
            member.put("a", &round.to_string());
            member.put("b", &round.to_string());
            member.delete("b");
        }
        let last = member.store.revision();
        let before = everything_at(&member.store.view(), last).unwrap();
        member.store.schedule_compaction(last).unwrap();
        for _ in 0..steps {
            member.flush();
            member.store.compaction_step(1).unwrap();
        }
        member.flush();
        let mut member = member.reopen();
        assert_eq!(member.store.revision(), last);
        assert_eq!(member.store.compact_revision(), last);
        assert_eq!(everything_at(&member.store.view(), last).unwrap(), before);
        member.finish_compaction();
        member.flush();
        assert_eq!(
            member.file_keys().len(),
            2,
            "the last put of a, and the tombstone of the revision itself"
        );
    }
}

/// etcd 18089 and 19179: a watcher that starts at the compact revision must still see that a key was deleted in
/// it; the tombstone had been removed with the compaction. Here it stays until a later compaction.
#[test]
fn issue_18089_a_watch_from_the_compact_revision_sees_its_deletion() {
    for (offset, sees_it) in [(-1, true), (0, true), (1, false)] {
        let mut member = Member::fresh();
        member.put("k", "1");
        member.put("other", "1");
        let deleted = member.delete("k");
        member.put("other", "2");
        member.put("other", "3");
        let at = deleted + offset;
        member.compact(at);
        member.flush();
        let check = |member: &Member| {
            let view = member.store.view();
            let history = view.history(at, view.revision(), usize::MAX, &mut |_| true).unwrap();
            let deletions: Vec<i64> = history
                .batches
                .iter()
                .filter(|batch| batch.events.iter().any(|event| event.kind == EventKind::Delete))
                .map(|batch| batch.revision)
                .collect();
            assert_eq!(deletions, if sees_it { vec![deleted] } else { vec![] }, "compacted at {at}");
            assert_eq!(history.batches.last().unwrap().revision, view.revision());
            let too_early = view.history(at - 1, view.revision(), usize::MAX, &mut |_| true);
            assert!(matches!(too_early, Err(Error::Compacted)));
            // Reads do not change with it.
            assert_eq!(value_at(&view, "k", at).unwrap().is_some(), offset < 0);
            assert_eq!(value_at(&view, "k", view.revision()).unwrap(), None);
        };
        check(&member);
        let mut member = member.reopen();
        check(&member);
        // The next compaction takes the tombstone that was spared.
        let last = member.store.revision();
        member.compact(last);
        member.flush();
        assert_eq!(member.file_keys(), [Revision::new(last, 0).key()]);
    }
}

/// etcd 18667 and 21432: members had carried out a compaction to a different extent, and a transaction reading
/// at the compacted revision came out differently on each. Here only the scheduled revision decides, and what is
/// read does not depend on how far the work has come.
#[test]
fn issue_18667_progress_of_a_compaction_is_invisible() {
    let script = |member: &mut Member| {
        for round in 0..5 {
            member.put("a", &format!("a{round}"));
            member.put("b", &format!("b{round}"));
            member.delete("b");
        }
        member.store.schedule_compaction(9).unwrap();
    };
    let mut reference = Member::fresh();
    script(&mut reference);
    for steps in 0..30 {
        let mut member = Member::fresh();
        script(&mut member);
        for _ in 0..steps {
            member.store.compaction_step(1).unwrap();
            if steps % 2 == 0 {
                member.flush();
            }
        }
        let (mine, other) = (member.store.view(), reference.store.view());
        for at in [8, 9, 10, mine.revision()] {
            match (everything_at(&mine, at), everything_at(&other, at)) {
                (Err(Error::Compacted), Err(Error::Compacted)) => assert_eq!(at, 8),
                (a, b) => assert_eq!(a.unwrap(), b.unwrap(), "at {at} after {steps} steps"),
            }
        }
        let guarded = |member: &mut Member| {
            member.transaction(|txn| {
                let existed = txn.key_state(b"b").is_some();
                let lease = txn.lease_of(b"a").unwrap();
                let put = txn.put(b"a", &[u8::from(existed)], lease, true).unwrap();
                txn.put(b"old", &put.previous.unwrap(), 0, false).unwrap();
                txn.delete_range(b"b", &RangeEnd::Unbounded, false).unwrap();
            })
        };
        let mut again = Member::fresh();
        script(&mut again);
        assert_eq!(guarded(&mut member), guarded(&mut again));
        let last = member.store.revision();
        assert_eq!(
            everything_at(&member.store.view(), last).unwrap(),
            everything_at(&again.store.view(), last).unwrap()
        );
        member.finish_compaction();
        again.finish_compaction();
        assert_eq!(member.store.view().hash_kv(last).unwrap(), again.store.view().hash_kv(last).unwrap());
        assert_eq!(member.store.view().compaction_hashes(), again.store.view().compaction_hashes());
    }
}

/// etcd 13766: the consistent index was saved apart from the data, so that after a crash entries were applied
/// twice or not at all. Here both are in one batch: whatever a power cut leaves, they belong together.
#[test]
fn issue_13766_data_and_consistent_index_are_never_apart() {
    for fail_at in 0..60 {
        let disk = MemDisk::new();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut member = Member::open(shared);
        member.flush();
        disk.fail_from(fail_at, ErrorKind::Other);
        for index in 1..20u64 {
            member.transaction(|txn| {
                txn.put(b"k", index.to_string().as_bytes(), 0, false).unwrap();
            });
            member.store.set_consistent_index(index, 2);
            let Some(batch) = member.store.freeze() else { continue };
            match member.db.commit(&batch) {
                Ok(_) => member.store.committed(member.db.reader().view()),
                Err(_) => break,
            }
        }
        disk.clear_fault();
        for seed in 0..4 {
            let crashed: Arc<dyn Disk> = Arc::new(disk.snapshot_after_crash(seed * 1000 + fail_at));
            let db = bolt::Db::open(&crashed, Path::new(FILE), options()).unwrap();
            let (store, restored) = Store::restore(db.reader().view()).unwrap();
            let index = restored.consistent_index;
            assert_eq!(store.revision(), 1 + index as i64);
            let value = value_at(&store.view(), "k", store.revision()).unwrap();
            assert_eq!(value, (index > 0).then(|| index.to_string()));
            let term = store.side(Bucket::Meta, schema::TERM).and_then(|term| schema::read_u64(&term));
            assert_eq!(term, (index > 0).then_some(2));
        }
    }
}
