//! Snapshot files: which one counts, what goes, what a crash leaves.

use api::raftpb::{Snapshot, SnapshotMetadata};

use super::*;
use crate::snap;

const SNAP: &str = "/data/member/snap";

fn snap_dir() -> &'static Path {
    Path::new(SNAP)
}

fn snap_disk() -> MemDisk {
    let disk = MemDisk::new();
    disk::create_dir_durable(&disk, snap_dir(), 0o700).unwrap();
    disk
}

fn raft_snapshot(index: u64, term: u64) -> Snapshot {
    Snapshot {
        data: Some(Bytes::from(format!("state at {index}"))),
        metadata: Some(SnapshotMetadata {
            conf_state: snapshot(index, term).conf_state,
            index: Some(index),
            term: Some(term),
        }),
    }
}

fn list(disk: &MemDisk) -> Vec<String> {
    disk.read_dir(snap_dir()).unwrap()
}

fn newest(disk: &MemDisk, records: &[(u64, u64)]) -> Option<u64> {
    let records: Vec<_> = records.iter().map(|&(index, term)| snapshot(index, term)).collect();
    let found = snap::load_newest(disk, snap_dir(), Some(&records)).unwrap();
    found.map(|found| found.metadata.unwrap().index.unwrap())
}

fn put(disk: &MemDisk, name: &str, bytes: &[u8]) {
    disk.open(&snap_dir().join(name), OpenMode::Create, 0o600).unwrap().write_all_at(bytes, 0).unwrap();
}

#[test]
fn what_was_saved_is_loaded_and_durable() {
    let disk = snap_disk();
    let path = snap::save(&disk, snap_dir(), &raft_snapshot(0x21, 2)).unwrap();
    assert_eq!(path, snap_dir().join("0000000000000002-0000000000000021.snap"));
    let after = disk.snapshot_after_crash(0);
    assert_eq!(list(&after), ["0000000000000002-0000000000000021.snap"]);
    assert_eq!(snap::load(&after, &path).unwrap(), raft_snapshot(0x21, 2));
}

#[test]
fn the_newest_that_the_log_knows_counts() {
    let disk = snap_disk();
    for (index, term) in [(10, 1), (20, 1), (30, 3), (40, 2)] {
        snap::save(&disk, snap_dir(), &raft_snapshot(index, term)).unwrap();
    }
    assert_eq!(newest(&disk, &[(0, 0), (10, 1), (20, 1), (30, 3)]), Some(30));
    assert_eq!(newest(&disk, &[(0, 0), (10, 1), (20, 1)]), Some(20), "files without record are orphans");
    assert_eq!(newest(&disk, &[(0, 0), (10, 1), (20, 2)]), Some(10), "the term must agree, too");
    assert_eq!(newest(&disk, &[(0, 0)]), None);
    let any = snap::load_newest(&disk, snap_dir(), None).unwrap();
    assert_eq!(any, Some(raft_snapshot(30, 3)), "by term, then index");
    assert_eq!(snap::load_newest(&MemDisk::new(), snap_dir(), None).unwrap(), None);
}

#[test]
fn unreadable_files_are_put_aside_and_the_next_is_tried() {
    let disk = snap_disk();
    snap::save(&disk, snap_dir(), &raft_snapshot(10, 1)).unwrap();
    let good = snap::encode(&raft_snapshot(20, 1));
    let mut spoilt = good.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    put(&disk, &snap::file_name(1, 20), &spoilt);
    put(&disk, &snap::file_name(1, 30), b"");
    put(&disk, &snap::file_name(1, 40), &good[..good.len() / 2]);
    put(&disk, "db", b"a database");
    assert_eq!(newest(&disk, &[(10, 1), (20, 1), (30, 1), (40, 1)]), Some(10));
    assert_eq!(
        list(&disk.snapshot_after_crash(0)),
        [
            "0000000000000001-000000000000000a.snap",
            "0000000000000001-0000000000000014.snap.broken",
            "0000000000000001-000000000000001e.snap.broken",
            "0000000000000001-0000000000000028.snap.broken",
            "db",
        ]
    );
    let error =
        snap::load(&disk, &snap_dir().join("0000000000000001-0000000000000014.snap.broken")).unwrap_err();
    assert!(error.to_string().contains(".snap.broken: damaged at offset 0: crc mismatch"), "{error}");
}

#[test]
fn old_files_go() {
    let disk = snap_disk();
    for index in 1..=4 {
        snap::save(&disk, snap_dir(), &raft_snapshot(index, 1)).unwrap();
        let mut db = snap::ReceivedDb::create(&disk, snap_dir()).unwrap();
        db.write(b"pages").unwrap();
        db.finish(index).unwrap();
    }
    put(&disk, "db", b"");
    put(&disk, "db.tmp.1234", b"");
    put(&disk, "tmp0007", b"");
    assert_eq!(snap::clean(&disk, snap_dir()).unwrap(), ["db.tmp.1234", "tmp0007"]);
    assert_eq!(snap::purge(&disk, snap_dir(), 0, 4).unwrap(), [""; 0], "0 keeps all");
    assert_eq!(
        snap::purge(&disk, snap_dir(), 3, 1).unwrap(),
        ["0000000000000001-0000000000000001.snap", "0000000000000001.snap.db"]
    );
    assert_eq!(
        snap::release_dbs(&disk, snap_dir(), 4).unwrap(),
        ["0000000000000002.snap.db", "0000000000000003.snap.db"]
    );
    assert_eq!(
        list(&disk.snapshot_after_crash(1)),
        [
            "0000000000000001-0000000000000002.snap",
            "0000000000000001-0000000000000003.snap",
            "0000000000000001-0000000000000004.snap",
            "0000000000000004.snap.db",
            "db",
        ]
    );
}

/// Found by the simulator: a member whose log waited for room had taken a snapshot and was sent several more; the database
/// of the one it had taken was removed as the oldest, and the member could not go on.
#[test]
fn a_database_that_is_not_installed_yet_stays() {
    let disk = snap_disk();
    for index in [5, 7, 9] {
        snap::ReceivedDb::create(&disk, snap_dir()).unwrap().finish(index).unwrap();
    }
    assert_eq!(snap::purge(&disk, snap_dir(), 1, 4).unwrap(), [""; 0]);
    assert_eq!(snap::purge(&disk, snap_dir(), 1, 5).unwrap(), ["0000000000000005.snap.db"]);
    assert_eq!(snap::purge(&disk, snap_dir(), 1, 9).unwrap(), ["0000000000000007.snap.db"]);
}

#[test]
fn a_received_database_appears_whole_or_not_at_all() {
    let disk = snap_disk();
    let mut first = snap::ReceivedDb::create(&disk, snap_dir()).unwrap();
    let mut second = snap::ReceivedDb::create(&disk, snap_dir()).unwrap();
    first.write(b"pages ").unwrap();
    first.write(b"and pages").unwrap();
    assert_eq!((first.len(), first.is_empty(), second.is_empty()), (15, false, true));
    second.write(b"others").unwrap();
    assert_eq!(list(&disk), ["tmp0000", "tmp0001"]);
    assert_eq!(snap::received_db(&disk, snap_dir(), 9).unwrap(), None);
    let path = first.finish(9).unwrap();
    assert_eq!(snap::received_db(&disk, snap_dir(), 9).unwrap().as_ref(), Some(&path));
    assert_eq!(second.finish(9).unwrap(), path, "one that is there is kept");
    assert_eq!(list(&disk), ["0000000000000009.snap.db"]);
    let after = disk.snapshot_after_crash(0);
    let mut bytes = [0; 15];
    after.open(&path, OpenMode::Read, 0).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"pages and pages");
    let mut dropped = snap::ReceivedDb::create(&disk, snap_dir()).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(dropped.write(b"no room").unwrap_err().is_no_space());
    drop(dropped);
    assert_eq!(list(&disk), ["0000000000000009.snap.db"]);
}

/// Saving is interrupted everywhere: the snapshot before stays readable, and a file under its final name is whole.
#[test]
fn every_operation_of_a_save_fails_once() {
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for nth in 1.. {
            let disk = snap_disk();
            snap::save(&disk, snap_dir(), &raft_snapshot(1, 1)).unwrap();
            disk.fail_after(nth, kind);
            let saved = snap::save(&disk, snap_dir(), &raft_snapshot(2, 1));
            if !disk.clear_fault() {
                saved.unwrap();
                break;
            }
            for seed in 0..8 {
                let after = disk.snapshot_after_crash(seed);
                let records: &[(u64, u64)] = if saved.is_ok() { &[(1, 1), (2, 1)] } else { &[(1, 1)] };
                let expected = if saved.is_ok() { 2 } else { 1 };
                assert_eq!(newest(&after, records), Some(expected), "operation {nth}, power cut {seed}");
                assert!(!list(&after).iter().any(|name| name.ends_with(".broken")), "{:?}", list(&after));
            }
        }
    }
}
