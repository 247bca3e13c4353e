//! Files written by Go etcd of five versions: everything read from them equals what the Go server answered.

use super::{FILE, Member, options, shown};
use crate::schema::{self, Bucket, Detected, StorageVersion};
use crate::{RangeEnd, Revision};
use crate::{RangeQuery, Store, hash_file};
use bytes::Bytes;
use disk::mem::MemDisk;
use disk::{Disk, OpenMode};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of an archive of vectors.
fn unpacked(archive: &str, name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vectors");
    let packed = std::fs::File::open(folder.join(format!("{archive}.tar.zst"))).unwrap();
    let mut unpacker = zstd::Decoder::new(packed).unwrap();
    unpacker.window_log_max(27).unwrap();
    let mut archive_reader = tar::Archive::new(unpacker);
    for entry in archive_reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap() == Path::new(archive).join(name) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    panic!("{archive} has no {name}");
}

fn disk_with(bytes: &[u8]) -> Arc<dyn Disk> {
    let disk = MemDisk::new();
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew, 0o600).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    Arc::new(disk)
}

fn member_of(archive: &str) -> Member {
    Member::open(disk_with(&unpacked(archive, "member/snap/db")))
}

fn hash_kv(member: &Member, revision: i64) -> (u32, i64, i64) {
    let hash = member.store.view().hash_kv(revision).unwrap();
    (hash.hash, hash.compact_revision, hash.revision)
}

#[test]
fn hashes_of_five_versions() {
    let versions = [
        ("3.4.23", StorageVersion::V3_4, 3404021218, Detected::Unknown),
        ("3.5.1", StorageVersion::V3_5, 529409215, Detected::Known(StorageVersion::V3_5)),
        ("3.5.30", StorageVersion::V3_5, 3505848099, Detected::Known(StorageVersion::V3_5)),
        ("3.6.14", StorageVersion::V3_6, 3158234806, Detected::Known(StorageVersion::V3_6)),
        ("3.7.1", StorageVersion::V3_7, 3875212487, Detected::Known(StorageVersion::V3_7)),
    ];
    for (name, version, hash, detected) in versions {
        let mut member = member_of(&format!("datadir-single-{name}"));
        assert_eq!(
            hash_file(member.store.view().file(), schema::hash_leaves_out(version)).unwrap(),
            hash,
            "{name}"
        );
        assert_eq!(schema::detect(&|key| member.store.side(Bucket::Meta, key)), detected, "{name}");
        for round in 0..2 {
            assert_eq!(hash_kv(&member, 0), (1148343603, 6, 12), "{name} {round}");
            assert_eq!(hash_kv(&member, 8), (3833388712, 6, 8), "{name} {round}");
            assert!(member.store.view().hash_kv(5).is_err());
            member = member.reopen();
        }
    }
}

#[test]
fn hashes_after_a_cut_log() {
    for name in ["3.4.23", "3.5.1", "3.7.1"] {
        let member = member_of(&format!("datadir-walcut-{name}"));
        let hash = hash_kv(&member, 0);
        assert_eq!((hash.0, hash.1), (558214533, -1), "{name}");
    }
}

#[test]
fn status_hashes_of_saved_snapshots() {
    for (name, hash) in [("3.4.23", 1996695707), ("3.5.1", 615997634), ("3.7.1", 6769131)] {
        let bytes = unpacked("snapshot-files", &format!("snapshot-save-{name}.db"));
        let disk = disk_with(&bytes[..bytes.len() - 32]);
        let db = bolt::Db::open(&disk, Path::new(FILE), options()).unwrap();
        assert_eq!(hash_file(&db.reader().view(), &[]).unwrap(), hash, "{name}");
    }
}

#[test]
fn what_a_go_member_stored_is_read() {
    let member = member_of("datadir-single-3.7.1");
    let restored = &member.restored;
    assert_eq!((restored.current_revision, restored.compact_revision), (12, 6));
    assert_eq!((restored.scheduled, restored.consistent_index, restored.term), (None, 35, 2));
    assert_eq!(restored.attachments, [(1234567890123, Bytes::from_static(b"leased"))]);
    assert_eq!(
        restored.conf_state.as_deref(),
        Some(&b"{\"voters\":[5937993131854900738],\"auto_leave\":false}"[..])
    );
    let view = member.store.view();
    let record = view.get_at(Revision::new(3, 0)).unwrap().unwrap();
    assert_eq!(shown(&record), ("foo".into(), 2, 3, 2, "bar2".into(), 0));
    assert_eq!(view.key_at(b"b", 8).unwrap(), None);
    let alarms: Vec<_> = view.side_iter(Bucket::Alarm).collect();
    assert_eq!(alarms, [(&Bytes::from_static(b"\x08\xfe\x95\x03\x10\x01"), &Bytes::new())]);
    assert_eq!(view.side_iter(Bucket::Lease).count(), 2);
    assert_eq!(view.side(Bucket::Auth, schema::AUTH_REVISION), Some(schema::write_u64(12)));
    assert_eq!(view.side(Bucket::MembersRemoved, b"2c1d73a6896aaa2b").as_deref(), Some(schema::REMOVED));
    // Nothing is missing, so nothing is written on our own account.
    let mut member = member;
    assert!(member.store.freeze_all().is_none());
}

/// `snapshot restore --bump-revision --mark-compacted` leaves an empty record far ahead and a scheduled mark.
#[test]
fn a_bumped_snapshot_is_compacted_at_start() {
    let mut member = member_of("datadir-restored-bump-3.7.1");
    let restored = &member.restored;
    assert_eq!((restored.current_revision, restored.compact_revision), (1012, 6));
    assert_eq!((restored.scheduled, member.store.compact_revision()), (Some(1012), 1012));
    let before: Vec<_> = keys_of(&member.store);
    assert_eq!(before.len(), 5, "the empty key is not in any range");
    member.finish_compaction();
    member.flush();
    assert_eq!(member.put("k", "v"), 1013);
    member.flush();
    let member = member.reopen();
    assert_eq!((member.restored.current_revision, member.restored.compact_revision), (1013, 1012));
    assert_eq!(keys_of(&member.store).len(), 6);
}

fn keys_of(store: &Store) -> Vec<String> {
    let mut keys = Vec::new();
    let all = RangeQuery::new(Bytes::from_static(b"\0"), RangeEnd::Unbounded);
    let summary = store.view().range(&all, &mut |record| keys.push(shown(record).0)).unwrap();
    assert_eq!(summary.count, keys.len() as i64);
    keys
}

#[test]
fn a_migrated_directory_is_read() {
    let member = member_of("datadir-migrated-3.4-to-3.7");
    assert_eq!(member.restored.current_revision, 22);
    assert_eq!(member.restored.conf_state, None);
    assert_eq!(hash_kv(&member, 0), (1833045167, -1, 22));
}

/// A bucket that etcd does not know stays as it is and counts in the hash of the file.
#[test]
fn strangers_stay_in_the_file() {
    let mut member = Member::fresh();
    member.flush();
    let mut batch = bolt::Batch::default();
    let change = batch.bucket(b"test");
    change.create = true;
    change.changes = vec![(Bytes::from_static(b"k"), bolt::Op::Put(Bytes::from_static(b"v")))];
    let without = hash_file(&member.db.reader().view(), &[]).unwrap();
    member.db.commit(&batch).unwrap();
    let mut member = member.reopen();
    assert_ne!(hash_file(&member.db.reader().view(), &[]).unwrap(), without);
    member.put("a", "1");
    member.flush();
    let view = member.db.reader().view();
    assert_eq!(view.get(b"test", b"k").unwrap(), Some(&b"v"[..]));
}

#[test]
fn a_fresh_store_creates_the_ten_buckets_and_is_as_large_as_etcds() {
    let mut member = Member::fresh();
    assert_eq!((member.restored.current_revision, member.restored.compact_revision), (1, -1));
    member.flush();
    let names: Vec<Vec<u8>> =
        member.db.reader().view().bucket_names().unwrap().into_iter().map(<[u8]>::to_vec).collect();
    let mut expected: Vec<Vec<u8>> = Bucket::ALL.iter().map(|bucket| bucket.name().to_vec()).collect();
    expected.sort();
    assert_eq!(names, expected);
    let hash = member.store.view().hash_kv(0).unwrap();
    assert_eq!((hash.hash, hash.compact_revision), (1084519789, -1));
    for index in 1..5 {
        member.store.set_consistent_index(index, 2);
        member.flush();
    }
    let sizes = member.db.sizes();
    assert_eq!((sizes.total, sizes.in_use), (20480, 16384));
}
