//! Single properties of the engine.

use std::path::Path;
use std::sync::Arc;

use crate::{Batch, Db, Error, Op, Options, Reserve, SyncMode};
use bytes::Bytes;
use disk::mem::MemDisk;
use disk::os::OsDisk;
use disk::{Disk, OpenMode};

use crate::page::Root;
use crate::tests::support::{PATH, check, dump, open, puts, small};

/// The buckets of a new member, as Go's: 20 kB in all, 16 kB in use.
#[test]
fn a_new_member_has_the_sizes_that_go_reports() {
    let disk = MemDisk::new();
    let mut db = open(&disk, &Options::default()).unwrap();
    assert_eq!(db.sizes().total, 4 * 4096);
    let names =
        ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed"];
    let mut batch = Batch::default();
    for name in names.iter().chain(&["meta"]) {
        batch.bucket(name.as_bytes()).create = true;
    }
    db.commit(&batch).unwrap();
    for i in 0..5_u64 {
        db.commit(&puts(b"meta", &[(&b"consistent_index"[..], &i.to_be_bytes()[..]), (b"term", &[0; 8])]))
            .unwrap();
        check(&db, "new member");
    }
    let sizes = db.sizes();
    assert_eq!((sizes.total, sizes.in_use), (20_480, 16_384));
}

#[test]
fn a_new_file_has_the_bytes_that_go_writes() {
    let disk = MemDisk::new();
    drop(open(&disk, &Options::default()).unwrap());
    let file = disk.open(Path::new(PATH), OpenMode::Read, 0).unwrap();
    let mut bytes = vec![0; 4 * 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    for (page, flags) in [(0, 4), (1, 4), (2, 0x10), (3, 2)] {
        assert_eq!(bytes[page * 4096..][..16], [page as u8, 0, 0, 0, 0, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0]);
    }
    let root_and_freelist = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4];
    assert_eq!(bytes[16 + 16..][..25], root_and_freelist);
    assert_eq!(bytes[4096 + 16 + 48], 1);
}

#[test]
fn a_second_opener_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let db = Db::open(&disk, &path, Options::default()).unwrap();
    assert!(matches!(Db::open(&disk, &path, Options::default()), Err(Error::Locked { .. })));
    db.close().unwrap();
    Db::open(&disk, &path, Options::default()).unwrap();
}

#[test]
fn a_read_only_database_refuses_commits_and_a_missing_file() {
    let disk = MemDisk::new();
    let read_only = Options { read_only: true, ..Options::default() };
    assert!(matches!(open(&disk, &read_only), Err(Error::Disk(_))));
    let mut db = open(&disk, &small()).unwrap();
    db.commit(&puts(b"a", &[(b"k", b"v")])).unwrap();
    db.close().unwrap();
    let before = disk.operations();
    let mut db = open(&disk, &read_only).unwrap();
    assert!(matches!(db.commit(&Batch::default()), Err(Error::ReadOnly { .. })));
    assert!(matches!(db.defragment_step(), Err(Error::ReadOnly { .. })));
    assert_eq!(db.reader().view().get(b"a", b"k").unwrap(), Some(&b"v"[..]));
    assert!(disk.operations() > before);
}

/// A quarter of a page is the limit: header 16, per entry 16 and its bytes.
#[test]
fn buckets_are_inline_by_gos_rule_both_ways() {
    let disk = MemDisk::new();
    let mut db = open(&disk, &small()).unwrap();
    let inline = |db: &Db| db.reader().view().bucket(b"a").unwrap().unwrap().is_inline();
    let value = vec![7; 1024 - 16 - 16 - 1];
    db.commit(&puts(b"a", &[(b"k", &value)])).unwrap();
    assert!(inline(&db));
    db.commit(&puts(b"a", &[(b"kk", &value)])).unwrap();
    assert!(!inline(&db));
    let mut batch = Batch::default();
    batch.bucket(b"a").changes = vec![(Bytes::from_static(b"kk"), Op::Delete)];
    db.commit(&batch).unwrap();
    assert!(inline(&db));
    check(&db, "inline");
}

#[test]
fn changes_that_the_format_cannot_hold_are_refused_and_change_nothing() {
    let disk = MemDisk::new();
    let mut db = open(&disk, &small()).unwrap();
    db.commit(&puts(b"a", &[(b"k", b"v")])).unwrap();
    let before = (db.txid(), db.sizes(), dump(&db.reader().view()));
    assert!(matches!(db.commit(&puts(b"a", &[(b"", b"v")])), Err(Error::KeyLength { len: 0 })));
    let long = vec![1; 32_769];
    assert!(matches!(db.commit(&puts(b"a", &[(&long, b"v")])), Err(Error::KeyLength { len: 32_769 })));
    let mut batch = puts(b"b", &[(b"k", b"v")]);
    batch.bucket(b"b").create = false;
    assert!(matches!(db.commit(&batch), Err(Error::BucketMissing { .. })));
    assert_eq!((db.txid(), db.sizes(), dump(&db.reader().view())), before);
    check(&db, "refused");
    db.commit(&puts(b"a", &[(&long[1..], b"v")])).unwrap();
    check(&db, "longest key");
}

#[test]
fn a_full_device_changes_nothing_and_the_reserve_serves_deletes() {
    let disk = MemDisk::new();
    let options = Options { reserve_bytes: 256 << 10, ..small() };
    let mut db = open(&disk, &options).unwrap();
    disk.set_capacity(Some(8 << 20));
    let value = vec![1; 10_000];
    let mut model = dump(&db.reader().view());
    let mut keys: Vec<[u8; 8]> = Vec::new();
    loop {
        let key = (keys.len() as u64).to_be_bytes();
        match db.commit(&puts(b"key", &[(&key, &value)])) {
            Ok(_) => {
                keys.push(key);
                model.entry(b"key".to_vec()).or_default().insert(key.to_vec(), value.clone());
            }
            Err(error) => {
                assert!(matches!(error, Error::NoSpace { .. }), "{error}");
                break;
            }
        }
        assert!(keys.len() < 2000, "the device never fills");
    }
    assert!(keys.len() > 600, "{} keys of 10 kB on 8 MB", keys.len());
    check(&db, "full");
    assert!(dump(&db.reader().view()) == model);
    // With the capacity taken down to what is in use, nothing can grow; deletes must go on.
    disk.set_capacity(Some(disk.used_bytes()));
    // A commit that writes may use most of the reserve, and leaves what deletes need.
    let mut last = Vec::new();
    for nth in 0.. {
        let key = format!("x{nth}");
        let mut batch = puts(b"key", &[(key.as_bytes(), &value)]);
        assert!(matches!(db.commit(&batch), Err(Error::NoSpace { .. })), "the reserve is held");
        batch.reserve = Reserve::Most;
        match db.commit(&batch) {
            Ok(_) => last.push(key),
            Err(error) => {
                assert!(matches!(error, Error::NoSpace { .. }), "{error}");
                break;
            }
        }
    }
    assert!((5..26).contains(&last.len()), "{} keys of 10 kB in a reserve of 256 kB", last.len());
    for chunk in keys.chunks(20) {
        let mut batch = Batch { reserve: Reserve::All, ..Batch::default() };
        batch.bucket(b"key").changes =
            chunk.iter().map(|key| (Bytes::copy_from_slice(key), Op::Delete)).collect();
        db.commit(&batch).unwrap();
        check(&db, "deleting");
    }
    let mut batch = Batch { reserve: Reserve::All, ..Batch::default() };
    last.sort_unstable();
    batch.bucket(b"key").changes = last.into_iter().map(|key| (key.into(), Op::Delete)).collect();
    db.commit(&batch).unwrap();
    db.commit(&puts(b"key", &[(b"again", &value)])).unwrap();
    while !db.defragment_step().unwrap().done {}
    check(&db, "shrunk");
    assert!(db.sizes().total < 20 * 4096, "{:?}", db.sizes());
}

/// A leaf of large values is longer than all that stays free in front of it; the first version left such leaves where
/// they were, and the file as long as it was.
#[test]
fn large_leaves_move_too() {
    for sync in [SyncMode::Full, SyncMode::Lazy] {
        large_leaves_move(sync);
    }
}

fn large_leaves_move(sync: SyncMode) {
    let disk = MemDisk::new();
    let mut db = open(&disk, &Options { sync, ..small() }).unwrap();
    let value = vec![1; 100_000];
    for i in 0..200u64 {
        db.commit(&puts(b"key", &[(&i.to_be_bytes(), &value)])).unwrap();
    }
    let mut batch = Batch::default();
    let gone = 0..196u64;
    batch.bucket(b"key").changes = gone.map(|i| (Bytes::copy_from_slice(&i.to_be_bytes()), Op::Delete)).collect();
    db.commit(&batch).unwrap();
    while !db.defragment_step().unwrap().done {}
    check(&db, "shrunk");
    let sizes = db.sizes();
    assert!(sizes.live > 400_000 && sizes.total < 2 * sizes.live, "{sizes:?}");
}

#[test]
fn a_stream_is_a_database_of_the_same_content() {
    let disk = MemDisk::new();
    let mut db = open(&disk, &small()).unwrap();
    let mut changes = crate::tests::support::Changes::new(5);
    for _ in 0..20 {
        db.commit(&changes.next()).unwrap();
    }
    let view = db.reader().view();
    let model = changes.model.clone();
    for _ in 0..20 {
        db.commit(&changes.next()).unwrap();
    }
    let copy = disk.open(Path::new("/copy"), OpenMode::Create, 0o600).unwrap();
    let mut offset = 0;
    let len = view
        .write_to::<Error>(&mut |bytes| {
            copy.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
            Ok(())
        })
        .unwrap();
    assert_eq!((len, offset), (view.stream_len(), view.stream_len()));
    let mut odd = vec![0; 5000];
    assert_eq!(view.read_chunk(len - 4999, &mut odd).unwrap(), 4999);
    drop(copy);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut db = Db::open(&disk, Path::new("/copy"), small()).unwrap();
    assert_eq!(db.txid(), view.txid());
    assert!(dump(&db.reader().view()) == model);
    check(&db, "copy");
    db.commit(&puts(b"a", &[(b"k", b"v")])).unwrap();
    check(&db, "copy, changed");
}

/// A search from any guess finds what is there, and only that.
#[test]
fn a_search_from_a_wrong_guess_ends_at_the_key() {
    for count in [0, 1, 2, 3, 7, 40, 700] {
        let disk = MemDisk::new();
        let mut db = open(&disk, &Options { leaf_pages: 16, ..small() }).unwrap();
        let keys: Vec<[u8; 8]> = (0..count).map(|key: u64| (key * 2 + 1).to_be_bytes()).collect();
        let entries: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &key[..])).collect();
        db.commit(&puts(b"a", &entries)).unwrap();
        let view = db.reader().view();
        let Root::Tree(root) = view.bucket(b"a").unwrap().unwrap().value().root else { continue };
        let page = view.state().pages.page(root).unwrap();
        assert_eq!(page.count() as u64, count);
        for guess in (0..=page.count()).step_by(1 + page.count() / 40).chain([usize::MAX]) {
            for n in (0..count * 2 + 2).step_by(1 + page.count() / 40) {
                let expected = (n % 2 == 1).then_some(n as usize / 2);
                assert_eq!(page.find_near(&n.to_be_bytes(), guess).unwrap(), expected);
            }
        }
    }
}

/// Readers on other threads see whole transactions while the writer goes on, and nothing else.
#[test]
fn views_are_whole_on_any_thread() {
    fn any_thread<T: Send + Sync>(_: &T) {}
    let disk = MemDisk::new();
    let mut db = open(&disk, &small()).unwrap();
    db.commit(&puts(b"key", &[])).unwrap();
    let reader = db.reader();
    any_thread(&reader);
    any_thread(&reader.view());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let view = reader.view();
                    // Each transaction gives all keys one value, by which they can be told from those of another.
                    let first = view.get_by_directory(b"000").unwrap().map(<[u8]>::to_vec);
                    let mut cursor = view.bucket(b"key").unwrap().unwrap().cursor();
                    while let Some((key, value)) = cursor.next().unwrap() {
                        assert_eq!(Some(value), first.as_deref());
                        assert_eq!(view.clone().get_by_directory(key).unwrap(), Some(value));
                    }
                }
            });
        }
        for i in 0..150_usize {
            let value = vec![i as u8; 200 + 10 * (i % 20)];
            let keys: Vec<String> = (0..50 + i).map(|key| format!("{key:03}")).collect();
            let entries: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (key.as_bytes(), &value[..])).collect();
            db.commit(&puts(b"key", &entries)).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    check(&db, "after readers");
}

/// A copy has its newest meta in page 0 whatever its number, where an even one would go next.
#[test]
fn the_newest_meta_of_a_copy_is_not_overwritten() {
    let disk = MemDisk::new();
    let mut db = open(&disk, &small()).unwrap();
    while db.txid() < 5 {
        db.commit(&puts(b"a", &[(b"k", &db.txid().to_le_bytes())])).unwrap();
    }
    let mut head = vec![0; 2 * 4096];
    db.reader().view().read_chunk(0, &mut head).unwrap();
    db.close().unwrap();
    let file = disk.open(Path::new(PATH), OpenMode::ReadWrite, 0).unwrap();
    file.write_all_at(&head, 0).unwrap();
    drop(file);
    let mut db = open(&disk, &small()).unwrap();
    assert_eq!(db.txid(), 5);
    assert_eq!(db.commit(&puts(b"a", &[(b"k", b"v")])).unwrap().txid, 7);
    let mut now = vec![0; 4096];
    let file = disk.open(Path::new(PATH), OpenMode::Read, 0).unwrap();
    file.read_exact_at(&mut now, 0).unwrap();
    assert_eq!(now, head[..4096], "the newest meta was overwritten");
    assert_eq!(db.commit(&puts(b"a", &[(b"k", b"w")])).unwrap().txid, 8);
    check(&db, "two more");
}

/// Whatever lies at the end of the file when little is left of it, one defragmentation gives the rest back.
#[test]
fn a_file_emptied_in_any_order_shrinks_at_once() {
    use rand::Rng;
    for seed in 0..200 {
        let mut rng = crate::tests::support::rng(seed);
        let disk = MemDisk::new();
        let mut db = open(&disk, &Options { sync: crate::SyncMode::Lazy, ..small() }).unwrap();
        let names: [&[u8]; 4] = [b"alarm", b"key", b"meta", b"zero"];
        let mut create = Batch::default();
        for name in names {
            create.bucket(name).create = true;
        }
        db.commit(&create).unwrap();
        let mut keys = Vec::new();
        for n in 0..rng.random_range(1..12_u64) {
            let value = vec![1; rng.random_range(1..40_000)];
            let key = n.to_be_bytes();
            db.commit(&puts(b"key", &[(&key, &value)])).unwrap();
            keys.push(key);
            if rng.random_bool(0.5) {
                db.commit(&puts(b"meta", &[(b"index", &n.to_be_bytes())])).unwrap();
            }
        }
        if rng.random_bool(0.5) {
            db.commit(&puts(b"alarm", &[(b"nospace", b"")])).unwrap();
        }
        let mut delete = Batch::default();
        delete.bucket(b"key").changes =
            keys.iter().map(|key| (Bytes::copy_from_slice(key), Op::Delete)).collect();
        if rng.random_bool(0.5) {
            delete
                .bucket(b"meta")
                .changes
                .push((Bytes::from_static(b"index"), Op::Put(Bytes::from_static(b"last"))));
        }
        db.commit(&delete).unwrap();
        while !db.defragment_step().unwrap().done {}
        assert!(db.sizes().total <= 20 * 4096, "seed {seed}: {:?}", db.sizes());
        check(&db, "shrunk");
    }
}
