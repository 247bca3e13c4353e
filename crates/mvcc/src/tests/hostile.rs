//! Files that are valid for bolt but hold no valid store: an error that says so, or a store that works.

use super::{FILE, options};
use crate::schema::{self, Bucket};
use crate::{Error, KeyValue, RangeEnd, RangeQuery, Revision, Store};
use bolt::{Batch, Op};
use bytes::Bytes;
use disk::Disk;
use disk::mem::MemDisk;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn restored(key: Pairs, meta: Pairs) -> Result<Store, Error> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let mut db = bolt::Db::open(&disk, Path::new(FILE), options()).unwrap();
    let mut batch = Batch::default();
    for (bucket, pairs) in [(Bucket::Key, key), (Bucket::Meta, meta)] {
        let change = batch.bucket(bucket.name());
        change.create = true;
        change.changes = pairs.into_iter().map(|(k, v)| (Bytes::from(k), Op::Put(Bytes::from(v)))).collect();
    }
    db.commit(&batch).unwrap();
    Store::restore(db.reader().view()).map(|(store, _)| store)
}

fn complaint(key: &[(&[u8], &[u8])], meta: &[(&[u8], &[u8])]) -> String {
    let pairs = |from: &[(&[u8], &[u8])]| from.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    match restored(pairs(key), pairs(meta)) {
        Err(Error::Corrupt(what)) => what,
        Err(error) => panic!("{error}"),
        Ok(store) => panic!("{store:?}"),
    }
}

#[test]
fn a_file_without_a_valid_store_is_refused_with_the_place() {
    let revision = Revision::new(2, 0).key();
    assert!(complaint(&[(b"short", b"")], &[]).contains("not a revision"));
    assert!(complaint(&[(&revision, b"\x0a\x7f")], &[]).contains("revision 2_0"));
    let wild = KeyValue { key: b"k", version: -1, ..KeyValue::default() };
    let mut bytes = Vec::new();
    wild.encode(&mut bytes);
    assert!(complaint(&[(&revision, &bytes)], &[]).contains("revision 2_0"));
    let last = Revision::new(i64::MAX, 0).key();
    assert!(complaint(&[(&last, b"\x0a\x01k")], &[]).contains("no room"));
    assert!(complaint(&[], &[(schema::SCHEDULED_COMPACT_REV, b"x")]).contains("compaction mark"));
    assert!(complaint(&[], &[(schema::FINISHED_COMPACT_REV, &last)]).contains("no room"));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![any::<u8>(), Just(0x0a), Just(1), Just(b'_'), Just(b't')], 0..24)
}

fn record() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let revision = (0i64..40, 0i64..3, any::<bool>()).prop_map(|(main, sub, tombstone)| {
        let revision = Revision::new(main, sub);
        if tombstone { revision.tombstone_key().to_vec() } else { revision.key().to_vec() }
    });
    let value = (0u8..4, prop::array::uniform4(-1i64..40)).prop_map(|(key, numbers)| {
        let [create_revision, mod_revision, version, lease] = numbers;
        let mut bytes = Vec::new();
        KeyValue {
            key: &[key][..usize::from(key.min(1))],
            create_revision,
            mod_revision,
            version,
            value: b"v",
            lease,
        }
        .encode(&mut bytes);
        bytes
    });
    prop_oneof![12 => (revision.clone(), value), 1 => (revision, bytes()), 1 => (bytes().prop_filter("a bolt key is not empty", |key| !key.is_empty()), bytes())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_the_buckets_hold_nothing_panics(
        key in prop::collection::vec(record(), 0..12),
        scheduled in prop::option::of(0i64..50),
        finished in prop::option::of(0i64..50),
    ) {
        let mark = |name: &[u8], main: Option<i64>| main.map(|main| (name.to_vec(), schema::write_compact_rev(main).to_vec()));
        let meta = [mark(schema::SCHEDULED_COMPACT_REV, scheduled), mark(schema::FINISHED_COMPACT_REV, finished)];
        let Ok(mut store) = restored(key.into_iter().collect(), meta.into_iter().flatten().collect()) else {
            return Ok(());
        };
        let all = RangeQuery::new(Bytes::from_static(b"\0"), RangeEnd::Unbounded);
        for _ in 0..2 {
            let view = store.view();
            let _ = view.range(&all, &mut |_| ());
            let _ = view.range(&RangeQuery { keys_only: true, keys_only_lease: true, ..all.clone() }, &mut |_| ());
            let _ = view.hash_kv(0);
            let _ = view.history(view.compact_revision().max(0), view.revision(), 10, &mut |_| true);
            while store.is_compacting() && store.compaction_step(3).is_ok() {}
            let mut txn = store.write();
            let before = txn.revision();
            txn.put(b"\x01", b"new", 0, false).unwrap();
            let batch = txn.end().unwrap();
            prop_assert_eq!(batch.revision, before + 1);
        }
    }
}
