//! Random transactions against a `BTreeMap`, with a full check after every one.

use crate::{Options, SyncMode, View};
use disk::mem::MemDisk;
use rand::Rng;

use crate::tests::support::{Changes, Model, check, dump, open, small};

/// Every key is found by get, by the directory, and by seek; a cursor walks back as it walks forth.
fn compare(view: &View, model: &Model, changes: &mut Changes, context: &str) {
    assert!(dump(view) == *model, "{context}: content");
    for (name, entries) in model {
        let bucket = view.bucket(name).unwrap().unwrap();
        let mut back = Vec::new();
        let mut cursor = bucket.cursor();
        while let Some((key, _)) = cursor.prev().unwrap() {
            back.push(key.to_vec());
        }
        assert!(back.iter().rev().eq(entries.keys()), "{context}: backwards");
        let mut leaves = bucket.leaves();
        let mut keys = 0;
        while let Some(leaf) = leaves.next().unwrap() {
            keys += leaf.len();
        }
        assert_eq!(keys, entries.len(), "{context}: leaves");
        for (key, value) in entries {
            if changes.rng.random_range(0..20) > 0 {
                continue;
            }
            assert_eq!(bucket.get(key).unwrap(), Some(&value[..]), "{context}");
            let mut absent = key.clone();
            absent.push(0);
            assert_eq!(bucket.get(&absent).unwrap(), None);
            if name == b"key" {
                assert_eq!(view.get_by_directory(key).unwrap(), Some(&value[..]), "{context}: directory");
                assert_eq!(view.get_by_directory(&absent).unwrap(), None, "{context}: directory");
            }
            let next = entries.range(absent.clone()..).next();
            let mut cursor = bucket.cursor();
            let found = cursor.seek(&absent).unwrap();
            assert_eq!(found.map(|entry| entry.0), next.map(|entry| &entry.0[..]), "{context}: seek");
            if found.is_some() {
                assert_eq!(cursor.prev().unwrap().map(|entry| entry.0), Some(&key[..]));
            }
        }
    }
}

fn run(seed: u64, commits: u64, options: &Options, tune: impl Fn(&mut Changes)) {
    let disk = MemDisk::new();
    let mut db = open(&disk, options).unwrap();
    let mut changes = Changes::new(seed);
    tune(&mut changes);
    let mut pins: Vec<(View, Model)> = Vec::new();
    for i in 0..commits {
        let context = format!("seed {seed}, commit {i}");
        let batch = changes.next();
        let committed = db.commit(&batch).unwrap();
        check(&db, &context);
        assert_eq!(committed.sizes, db.sizes());
        let model = changes.model.clone();
        if i % 10 == 0 {
            compare(&db.reader().view(), &model, &mut changes, &context);
        }
        if changes.rng.random_range(0..8) == 0 {
            pins.push((db.reader().view(), model.clone()));
        }
        if changes.rng.random_range(0..8) == 0 && !pins.is_empty() {
            let (view, pinned) = pins.swap_remove(changes.rng.random_range(0..pins.len()));
            assert!(dump(&view) == pinned, "{context}: a view changed");
        }
        if changes.rng.random_range(0..20) == 0 {
            db.force().unwrap();
        }
        if changes.rng.random_range(0..25) == 0 {
            while !db.defragment_step().unwrap().done {
                check(&db, &format!("{context}, defragmenting"));
            }
            assert!(dump(&db.reader().view()) == model, "{context}: defragmented");
        }
        if i % 37 == 36 {
            for (view, pinned) in pins.drain(..) {
                assert!(dump(&view) == pinned, "{context}: a view changed");
            }
            db.close().unwrap();
            db = open(&disk, options).unwrap();
            check(&db, &format!("{context}, opened again"));
            assert!(dump(&db.reader().view()) == model, "{context}: opened again");
        }
    }
}

fn sync_mode(seed: u64) -> SyncMode {
    if seed.is_multiple_of(2) { SyncMode::Full } else { SyncMode::Lazy }
}

#[test]
fn equals_a_map_with_leaves_of_any_size() {
    for seed in 0..12 {
        let leaf_pages = [1, 2, 4, 16][seed as usize % 4];
        let options = Options { leaf_pages, sync: sync_mode(seed / 4), ..small() };
        run(seed, 110, &options, |_| {});
    }
}

#[test]
fn equals_a_map_with_any_page_size() {
    for (seed, page_size) in [(100, 1 << 10), (101, 16 << 10), (102, 64 << 10), (103, 1 << 10)] {
        let options = Options { page_size, leaf_pages: 1, sync: sync_mode(seed), ..small() };
        run(seed, 75, &options, |_| {});
    }
}

/// Long keys in small pages make trees of four and more levels, where branches split, empty and join.
#[test]
fn equals_a_map_in_deep_trees() {
    for seed in 200..208 {
        let options = Options { page_size: 1 << 10, leaf_pages: 1 + seed as u32 % 2, ..small() };
        run(seed, 120, &options, |changes| {
            changes.value_max = 200;
            changes.key_pad = [100, 220, 400, 1500][seed as usize % 4];
        });
    }
}
