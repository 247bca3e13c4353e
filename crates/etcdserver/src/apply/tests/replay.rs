//! Whole logs that Go wrote, applied from the first entry on an empty database: what comes out must be what Go's
//! database held, bucket by bucket, byte by byte.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use disk::OpenMode;

use super::*;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Unpacks a data directory. Segments are 64 MB, nearly all of it zeros: those are left out.
fn unpack(name: &str) -> Arc<dyn Disk> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vectors");
    let packed = std::fs::File::open(vectors.join(format!("{name}.tar.zst"))).unwrap();
    let mut decoder = zstd::Decoder::new(packed).unwrap();
    decoder.window_log_max(27).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    for entry in tar::Archive::new(decoder).entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let inside: PathBuf = entry.path().unwrap().components().skip(1).collect();
        let path = Path::new("/").join(inside);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if path.extension().is_some_and(|extension| extension == "wal") {
            let data = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            bytes.truncate(data.next_multiple_of(4096) + 4096);
        }
        disk.create_dir_all(path.parent().unwrap(), 0o700).unwrap();
        disk.open(&path, OpenMode::Create, 0o600).unwrap().write_all_at(&bytes, 0).unwrap();
    }
    disk
}

fn pairs(view: &bolt::View, bucket: Bucket) -> Pairs {
    let mut pairs = Pairs::new();
    let Some(found) = view.bucket(bucket.name()).unwrap() else { return pairs };
    let mut cursor = found.cursor();
    let mut at = cursor.first().unwrap();
    while let Some((key, value)) = at {
        pairs.insert(key.to_vec(), value.to_vec());
        at = cursor.next().unwrap();
    }
    pairs
}

/// Go's file, and ours after applying the same entries.
fn both(name: &str) -> (bolt::View, Lane) {
    let disk = unpack(name);
    let db = Path::new("/member/snap/db");
    let theirs = bolt::Db::open(&disk, db, bolt::Options::default()).unwrap().reader().view();
    let applied = pairs(&theirs, Bucket::Meta)[&b"consistent_index"[..]].clone();
    let applied = u64::from_be_bytes(applied.try_into().unwrap());
    let replay = wal::read(&*disk, Path::new("/member/wal"), &api::walpb::Snapshot::default()).unwrap();
    let mut lane = Lane::new();
    // 3.4 does not note the index of every entry that it applied.
    let up_to = if by_3_4(name) { u64::MAX } else { applied };
    let entries: Vec<_> = replay.entries.into_iter().filter(|entry| entry.index() <= up_to).collect();
    assert_eq!(entries.first().map(raftpb::Entry::index), Some(1), "{name}: the log is whole");
    assert!(entries.last().is_some_and(|last| last.index() >= applied), "{name}");
    for chunk in entries.chunks(7) {
        let work = Committed { snapshot: None, entries: chunk.to_vec() };
        lane.applier.apply(Now::default(), work, &mut Outcome::default()).unwrap();
        lane.flush();
    }
    lane.finish_compaction();
    lane.flush();
    (theirs, lane)
}

fn by_3_4(name: &str) -> bool {
    name.ends_with("3.4.23")
}

/// Passwords of 3.4 were hashed with a salt of their own at apply: only that they are hashes can be compared.
fn without_passwords(users: Pairs) -> Pairs {
    let strip = |value: Vec<u8>| {
        let mut user = api::authpb::User::decode(&value[..]).unwrap();
        if user.password.starts_with(b"$2a$") {
            user.password = b("hashed");
        }
        user.encode_to_vec()
    };
    users.into_iter().map(|(name, user)| (name, strip(user))).collect()
}

/// Compares all buckets but some with what the release wrote.
fn same(name: &str, but: &[Bucket]) -> Lane {
    let (theirs, lane) = both(name);
    let ours = lane.db.reader().view();
    for bucket in Bucket::ALL.into_iter().filter(|bucket| !but.contains(bucket)) {
        let (theirs, ours) = (pairs(&theirs, bucket), pairs(&ours, bucket));
        if bucket == Bucket::AuthUsers && by_3_4(name) {
            assert_eq!(without_passwords(theirs), without_passwords(ours), "{name} {bucket:?}");
        } else {
            assert_eq!(theirs, ours, "{name} {bucket:?}");
        }
    }
    let meta = |view| {
        let mut meta = pairs(view, Bucket::Meta);
        // Written by another part.
        meta.remove(&b"storageVersion"[..]);
        if by_3_4(name) {
            for key in [&b"term"[..], b"confState", b"consistent_index"] {
                meta.remove(key);
            }
        } else if name.contains("migrated") {
            // Written after a membership change only, and there was none since 3.4.
            meta.remove(&b"confState"[..]);
        }
        meta
    };
    assert_eq!(meta(&theirs), meta(&ours), "{name}");
    lane
}

/// Compared apart, since not all of it is alike.
const META: &[Bucket] = &[Bucket::Meta];
/// 3.5.0 to 3.5.19 never rewrote a member's record, so what was published is missing in their bucket.
const META_AND_MEMBERS: &[Bucket] = &[Bucket::Meta, Bucket::Members];

/// D6: all versions answered the same hashes over this history, compacted at revision 6.
fn hashes_of_single(lane: &Lane) {
    let view = lane.applier.store().view();
    let hash = |revision| view.hash_kv(revision).unwrap();
    assert_eq!((hash(0).hash, hash(0).compact_revision, hash(8).hash), (1_148_343_603, 6, 3_833_388_712));
}

#[test]
fn logs_with_everything_in_them() {
    for version in ["3.4.23", "3.5.30", "3.6.14", "3.7.1"] {
        hashes_of_single(&same(&format!("datadir-single-{version}"), META));
    }
    hashes_of_single(&same("datadir-single-3.5.1", META_AND_MEMBERS));
}

#[test]
fn d34_logs_with_v2_entries() {
    same("datadir-v2wal-3.4.23", META);
    same("datadir-v2wal-3.5.30", META);
}

#[test]
fn d13_to_15_logs_in_two_segments() {
    same("datadir-walcut-3.4.23", META);
    same("datadir-walcut-3.5.1", META_AND_MEMBERS);
    same("datadir-walcut-3.7.1", META);
}

#[test]
fn d33_a_log_that_four_versions_wrote() {
    same("datadir-migrated-3.4-to-3.7", META);
}
