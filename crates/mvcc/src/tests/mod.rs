//! The store against a dumb model, against files written by Go, and against the stories of known bugs.

mod concurrent;
mod hostile;
mod model;
mod property;
mod regressions;
mod script;
mod txn;
mod vectors;

use crate::{EventBatch, RangeEnd, RangeQuery, RangeSummary, Restored, Result, Store, View, WriteTxn};
use bytes::Bytes;
use disk::Disk;
use disk::mem::MemDisk;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "/db";

fn options() -> bolt::Options {
    bolt::Options { directory_bucket: Some(b"key"), ..bolt::Options::default() }
}

/// A store with the file below it, committed to by hand.
struct Member {
    disk: Arc<dyn Disk>,
    db: bolt::Db,
    store: Store,
    restored: Restored,
    out: Option<bolt::Batch>,
}

impl Member {
    fn open(disk: Arc<dyn Disk>) -> Member {
        let db = bolt::Db::open(&disk, Path::new(FILE), options()).unwrap();
        let (store, restored) = Store::restore(db.reader().view()).unwrap();
        Member { disk, db, store, restored, out: None }
    }

    fn fresh() -> Member {
        Member::open(Arc::new(MemDisk::new()))
    }

    /// The process ends without another word and starts again.
    fn reopen(self) -> Member {
        let Member { disk, db, store, .. } = self;
        drop(store);
        drop(db);
        Member::open(disk)
    }

    fn freeze(&mut self) -> bool {
        match self.store.freeze_all() {
            Some(batch) => {
                assert!(self.out.replace(batch).is_none(), "two batches out at once");
                true
            }
            None => false,
        }
    }

    fn commit(&mut self) -> bool {
        let Some(batch) = self.out.take() else { return false };
        self.db.commit(&batch).unwrap();
        self.store.committed(self.db.reader().view());
        true
    }

    /// All that is applied reaches the file.
    fn flush(&mut self) {
        self.commit();
        while self.freeze() {
            self.commit();
        }
        assert_eq!((self.store.unflushed_ops(), self.store.unflushed_bytes()), (0, 0));
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        self.transaction(|txn| {
            txn.put(key.as_bytes(), value.as_bytes(), 0, false).unwrap();
        })
    }

    fn delete(&mut self, key: &str) -> i64 {
        self.transaction(|txn| {
            txn.delete_range(key.as_bytes(), &RangeEnd::Single, false).unwrap();
        })
    }

    /// Runs a transaction; the store's revision after it.
    fn transaction(&mut self, change: impl FnOnce(&mut WriteTxn<'_>)) -> i64 {
        self.transaction_with_events(change);
        self.store.revision()
    }

    fn transaction_with_events(&mut self, change: impl FnOnce(&mut WriteTxn<'_>)) -> Option<Arc<EventBatch>> {
        let mut txn = self.store.write();
        change(&mut txn);
        txn.end()
    }

    /// Schedules a compaction and carries it out.
    fn compact(&mut self, revision: i64) {
        self.store.schedule_compaction(revision).unwrap();
        self.finish_compaction();
    }

    fn finish_compaction(&mut self) {
        while self.store.is_compacting() {
            self.store.compaction_step(3).unwrap();
        }
    }

    /// Keys of the file's key bucket.
    fn file_keys(&self) -> Vec<Vec<u8>> {
        let view = self.db.reader().view();
        let bucket = view.bucket(b"key").unwrap().unwrap();
        let mut cursor = bucket.cursor();
        let mut keys = Vec::new();
        let mut entry = cursor.first().unwrap();
        while let Some((key, _)) = entry {
            keys.push(key.to_vec());
            entry = cursor.next().unwrap();
        }
        keys
    }
}

/// One key of an answer, as text: key, create, mod, version, value, lease.
type Shown = (String, i64, i64, i64, String, i64);

fn shown(record: &[u8]) -> Shown {
    let kv = crate::KeyValue::decode(record).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(kv.key), kv.create_revision, kv.mod_revision, kv.version, text(kv.value), kv.lease)
}

fn range(view: &View, query: &RangeQuery) -> Result<(Vec<Vec<u8>>, RangeSummary)> {
    let mut found = Vec::new();
    let summary = view.range(query, &mut |record| found.push(record.to_vec()))?;
    Ok((found, summary))
}

fn everything_at(view: &View, revision: i64) -> Result<Vec<Shown>> {
    let query = RangeQuery { revision, ..RangeQuery::new(Bytes::from_static(b"\0"), RangeEnd::Unbounded) };
    Ok(range(view, &query)?.0.iter().map(|record| shown(record)).collect())
}

/// The value of a key at a revision.
fn value_at(view: &View, key: &str, revision: i64) -> Result<Option<String>> {
    let record = view.key_at(key.as_bytes(), revision)?;
    Ok(record.map(|record| shown(&record).4))
}
