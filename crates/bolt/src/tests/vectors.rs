//! Files that Go's etcd, and another program, wrote.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::mem::MemDisk;
use disk::{Disk, OpenMode};

use crate::meta::{META_PAGE_USED, Meta, NO_FREELIST};
use crate::tests::support::{PATH, check, dump, open, puts, small};
use crate::{Db, View};

fn archive(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vectors").join(name)
}

/// The file of an archive whose path ends like this.
fn unpack(name: &str, end: &str) -> Vec<u8> {
    let file = std::fs::File::open(archive(&format!("{name}.tar.zst"))).unwrap();
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(27).unwrap();
    for entry in tar::Archive::new(decoder).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with(end) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("no {end} in {name}");
}

fn place(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::new();
    let file = disk.open(Path::new(PATH), OpenMode::Create, 0o600).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    drop(file);
    disk
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CRC-32C over names, keys and values of all buckets, without some keys of `meta`.
fn hash(view: &View, ignore: &[&str]) -> u32 {
    let mut hash = 0;
    for (name, entries) in dump(view) {
        hash = crc32c::crc32c_append(hash, &name);
        for (key, value) in entries {
            if name != b"meta" || !ignore.iter().any(|ignored| ignored.as_bytes() == key) {
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), &value);
            }
        }
    }
    hash
}

const BUCKETS: [&[u8]; 10] = [
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"key",
    b"lease",
    b"members",
    b"members_removed",
    b"meta",
];

/// D1 to D5, by the `Hash` that the living server answered. Each version leaves out what it knows.
#[test]
fn databases_of_five_versions_have_the_hash_that_go_gave_them() {
    for (version, expected, ignore) in [
        ("3.4.23", 3_404_021_218, &["consistent_index"][..]),
        ("3.5.1", 529_409_215, &["consistent_index", "term"]),
        ("3.5.30", 3_505_848_099, &["consistent_index", "term"]),
        ("3.6.14", 3_158_234_806, &["consistent_index", "term", "storageVersion"]),
        ("3.7.1", 3_875_212_487, &["consistent_index", "term", "storageVersion"]),
    ] {
        let bytes = unpack(&format!("datadir-single-{version}"), "member/snap/db");
        let disk = place(&bytes);
        let mut db = open(&disk, &small()).unwrap();
        check(&db, version);
        let view = db.reader().view();
        assert_eq!(view.bucket_names().unwrap(), BUCKETS, "{version}");
        assert_eq!(hash(&view, ignore), expected, "{version}");
        // All ten start inline, and stay so when we write them.
        for name in BUCKETS {
            assert!(view.bucket(name).unwrap().unwrap().is_inline(), "{version}");
        }
        db.commit(&puts(b"meta", &[(b"term", &2_u64.to_be_bytes())])).unwrap();
        check(&db, version);
        assert_eq!(hash(&db.reader().view(), &["consistent_index", "storageVersion", "term"]), {
            let mut without = ignore.to_vec();
            without.extend(["consistent_index", "storageVersion", "term"]);
            hash(&view, &without)
        });
    }
}

/// D27: the meta page that Go wrote is what we write for the same state.
#[test]
fn a_meta_page_is_byte_for_byte_gos() {
    for (version, expected) in [
        (
            "3.5.1",
            "00000000000000000400000000000000edda0ced020000000010000000000000030000000000000000000000000000\
             00ffffffffffffffff05000000000000001000000000000000f5a3b2cb63780ec8",
        ),
        (
            "3.7.1",
            "00000000000000000400000000000000edda0ced020000000010000000000000020000000000000000000000000000\
             00ffffffffffffffff05000000000000002200000000000000660480b475daa8dc",
        ),
    ] {
        let bytes = unpack(&format!("datadir-single-{version}"), "member/snap/db");
        let page: &[u8; META_PAGE_USED] = bytes.first_chunk().unwrap();
        assert_eq!(hex(page), expected.replace(' ', ""), "{version}");
        let meta = Meta::decode(page).unwrap();
        assert_eq!((meta.page_size, meta.high_water, meta.freelist), (4096, 5, NO_FREELIST));
        assert_eq!(hex(&meta.encode(meta.slot())), hex(page), "{version}");
    }
}

/// D28 to D30: pairs as they lie in Go's file.
#[test]
fn pairs_of_gos_file_are_found() {
    let disk = place(&unpack("datadir-single-3.5.1", "member/snap/db"));
    let db = open(&disk, &small()).unwrap();
    let view = db.reader().view();
    for (bucket, key, value) in [
        ("key", "00000000000000035f0000000000000000", Some("0a03666f6f1002180320022a0462617232")),
        ("key", "00000000000000075f000000000000000074", Some("0a0162")),
        ("lease", "0000011f71fb04cb", Some("08cb89ec8ff72310901c")),
        ("alarm", "08fe95031001", Some("")),
        ("auth", "617574685265766973696f6e", Some("000000000000000c")),
        ("key", "00000000000000035f0000000000000001", None),
    ] {
        let key: Vec<u8> = key
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let found = view.get(bucket.as_bytes(), &key).unwrap().map(hex);
        assert_eq!(found.as_deref(), value, "{bucket} {}", hex(&key));
    }
}

/// D31: what `snapshot save` wrote, less its trailer. One of the three is spoilt in its trailer only.
#[test]
fn saved_snapshots_have_the_hash_that_status_prints() {
    let file = std::fs::File::open(archive("snapshot-files.tar.zst")).unwrap();
    let mut hashes = Vec::new();
    for entry in tar::Archive::new(zstd::Decoder::new(file).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if bytes.is_empty() {
            continue;
        }
        assert_eq!(bytes.len() % 512, 32);
        bytes.truncate(bytes.len() - 32);
        let disk = place(&bytes);
        let Ok(db) = open(&disk, &small()) else { continue };
        check(&db, "snapshot");
        hashes.push(hash(&db.reader().view(), &[]));
    }
    for expected in [1_996_695_707, 615_997_634, 6_769_131] {
        assert!(hashes.contains(&expected), "{expected} is not among {hashes:?}");
    }
}

/// D37: one content in four layouts that etcd does not write: other page sizes, a stored free list, unused pages,
/// paged buckets.
#[test]
fn files_of_another_writer_are_read_and_lose_their_free_list_at_the_first_commit() {
    for (name, page_size, total, freelist) in [
        ("p4096-freelist-inline.db", 4096, 20_480, true),
        ("p4096-freelist-gap5-paged.db", 4096, 81_920, true),
        ("p16384-nofreelist-inline.db", 16_384, 81_920, false),
        ("p65536-freelist-gap2-paged.db", 65_536, 1_114_112, true),
    ] {
        let bytes = unpack("bolt-by-other-writer", name);
        assert_eq!(bytes.len() as u64, total);
        let disk: Arc<dyn Disk> = Arc::new(place(&bytes));
        let mut db = Db::open(&disk, Path::new(PATH), small()).unwrap();
        check(&db, name);
        let view = db.reader().view();
        assert_eq!((db.page_size(), db.sizes().total), (page_size, total), "{name}");
        assert_eq!(view.state().meta.freelist != NO_FREELIST, freelist, "{name}");
        assert_eq!(hash(&view, &[]), 615_997_634, "{name}");
        for i in 0..300_u64 {
            let key = crate::tests::support::revision_key(13 + i, 0);
            db.commit(&puts(b"key", &[(&key, &[5; 70])])).unwrap();
        }
        check(&db, name);
        assert_eq!(db.reader().view().state().meta.freelist, NO_FREELIST);
        assert_eq!(hash(&view, &[]), 615_997_634, "{name}: the view changed");
        drop(view);
        db.close().unwrap();
        let db = Db::open(&disk, Path::new(PATH), small()).unwrap();
        check(&db, name);
        assert_eq!(db.page_size(), page_size);
    }
}

/// With the first meta unreadable, the second is found by trying all page sizes.
#[test]
fn the_page_size_is_found_without_the_first_meta() {
    for (name, page_size) in
        [("p16384-nofreelist-inline.db", 16_384), ("p65536-freelist-gap2-paged.db", 65_536)]
    {
        let mut bytes = unpack("bolt-by-other-writer", name);
        bytes[..100].fill(0xee);
        let db = open(&place(&bytes), &small()).unwrap();
        assert_eq!(db.page_size(), page_size);
        check(&db, name);
    }
    for shift in 10..=24 {
        let disk = MemDisk::new();
        let page_size = 1 << shift;
        let options = crate::Options { page_size, leaf_pages: 1, ..small() };
        let mut db = open(&disk, &options).unwrap();
        db.commit(&puts(b"a", &[(b"k", b"v")])).unwrap();
        db.commit(&puts(b"a", &[(b"k", b"w")])).unwrap();
        assert_eq!(db.txid(), 3);
        db.close().unwrap();
        let file = disk.open(Path::new(PATH), OpenMode::ReadWrite, 0).unwrap();
        file.write_all_at(&[0; 512], 0).unwrap();
        drop(file);
        let db = open(&disk, &small()).unwrap();
        assert_eq!(db.page_size(), page_size);
        assert_eq!(db.reader().view().get(b"a", b"k").unwrap(), Some(&b"w"[..]));
        check(&db, "probed");
    }
}
