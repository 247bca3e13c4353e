//! One suite for both disks, then what only the one in memory can do.

use std::io::ErrorKind;
use std::path::Path;

use crate::mem::MemDisk;
use crate::os::OsDisk;
use crate::{Advice, Disk, File, LockKind, OpenMode};

fn on_both(test: impl Fn(&dyn Disk, &Path)) {
    let scratch = tempfile::tempdir().expect("scratch directory");
    test(&OsDisk::new(), scratch.path());
    let memory = MemDisk::new();
    memory.create_dir_all(Path::new("/scratch"), 0o700).expect("scratch directory");
    test(&memory, Path::new("/scratch"));
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn kind_of<T: std::fmt::Debug>(result: crate::Result<T>) -> ErrorKind {
    result.expect_err("this fails").kind()
}

#[test]
fn open_modes() {
    on_both(|disk, root| {
        let path = root.join("file");
        assert_eq!(kind_of(disk.open(&path, OpenMode::Read, 0)), ErrorKind::NotFound);
        assert_eq!(kind_of(disk.open(&path, OpenMode::ReadWrite, 0)), ErrorKind::NotFound);
        let file = disk.open(&path, OpenMode::CreateNew, 0o600).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        assert_eq!(file.path(), path);
        assert_eq!(kind_of(disk.open(&path, OpenMode::CreateNew, 0o600)), ErrorKind::AlreadyExists);
        assert_eq!(contents(&*disk.open(&path, OpenMode::Create, 0o600).unwrap()), b"abc");
        assert_eq!(contents(&*disk.open(&path, OpenMode::ReadWrite, 0o600).unwrap()), b"abc");
        let reader = disk.open(&path, OpenMode::Read, 0).unwrap();
        assert!(reader.write_all_at(b"x", 0).is_err());
        assert_eq!(contents(&*reader), b"abc");
        assert!(disk.open(&path, OpenMode::Truncate, 0o600).unwrap().is_empty().unwrap());
        let found = disk.metadata(&path).unwrap().unwrap();
        assert_eq!((found.len, found.is_dir, found.mode), (0, false, 0o600));
    });
}

#[test]
fn reads_and_writes() {
    on_both(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::Create, 0o600).unwrap();
        file.write_all_at(b"hello", 1000).unwrap();
        assert_eq!(file.len().unwrap(), 1005);
        let mut buf = [7; 10];
        assert_eq!(file.read_at(&mut buf, 998).unwrap(), 7);
        assert_eq!(&buf[..7], b"\0\0hello");
        assert_eq!(file.read_at(&mut buf, 2000).unwrap(), 0);
        assert_eq!(kind_of(file.read_exact_at(&mut buf, 998)), ErrorKind::UnexpectedEof);
        file.set_len(1002).unwrap();
        file.set_len(1010).unwrap();
        file.read_exact_at(&mut buf, 1000).unwrap();
        assert_eq!(&buf, b"he\0\0\0\0\0\0\0\0");
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        file.start_write_back(0, 1010).unwrap();
    });
}

#[test]
fn names() {
    on_both(|disk, root| {
        let deep = root.join("a/b/c");
        disk.create_dir_all(&deep, 0o700).unwrap();
        disk.create_dir_all(&deep, 0o700).unwrap();
        let found = disk.metadata(&deep).unwrap().unwrap();
        assert!(found.is_dir);
        assert_eq!(found.mode, 0o700);
        for name in ["two", "one"] {
            disk.open(&deep.join(name), OpenMode::Create, 0o600).unwrap().write_all_at(b"x", 0).unwrap();
        }
        assert_eq!(disk.read_dir(&deep).unwrap(), ["one", "two"]);
        disk.rename(&deep.join("one"), &deep.join("two")).unwrap();
        assert_eq!(disk.read_dir(&deep).unwrap(), ["two"]);
        disk.rename(&root.join("a/b"), &root.join("moved")).unwrap();
        assert_eq!(disk.read_dir(&root.join("moved/c")).unwrap(), ["two"]);
        assert_eq!(disk.metadata(&root.join("a/b")).unwrap(), None);
        disk.sync_dir(root).unwrap();
        disk.remove_file(&root.join("moved/c/two")).unwrap();
        assert_eq!(kind_of(disk.remove_file(&root.join("moved/c/two"))), ErrorKind::NotFound);
        disk.remove_dir_all(&root.join("moved")).unwrap();
        assert_eq!(disk.read_dir(root).unwrap(), ["a"]);
        assert_eq!(kind_of(disk.read_dir(&root.join("moved"))), ErrorKind::NotFound);
        assert_eq!(kind_of(disk.sync_dir(&root.join("moved"))), ErrorKind::NotFound);
        assert_eq!(kind_of(disk.rename(&root.join("no"), &root.join("yes"))), ErrorKind::NotFound);
        let lost = disk.open(&root.join("no/file"), OpenMode::Create, 0o600);
        assert_eq!(kind_of(lost), ErrorKind::NotFound);
        assert!(disk.free_bytes(root).unwrap() > 0);
    });
}

#[test]
fn new_directories_are_durable() {
    on_both(|disk, root| {
        for _ in 0..2 {
            crate::create_dir_durable(disk, &root.join("a/b/c"), 0o700).unwrap();
            assert!(disk.metadata(&root.join("a/b/c")).unwrap().unwrap().is_dir);
        }
    });
    let disk = MemDisk::new();
    crate::create_dir_durable(&disk, Path::new("/a/b/c"), 0o700).unwrap();
    assert!(disk.snapshot_after_crash(0).metadata(Path::new("/a/b/c")).unwrap().is_some());
}

#[test]
fn a_removed_file_lives_until_closed() {
    on_both(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::Create, 0o600).unwrap();
        file.write_all_at(b"still here", 0).unwrap();
        disk.remove_file(&root.join("file")).unwrap();
        assert_eq!(contents(&*file), b"still here");
        let other = disk.open(&root.join("file"), OpenMode::Create, 0o600).unwrap();
        assert!(other.is_empty().unwrap());
    });
}

#[test]
fn reservation() {
    on_both(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::Create, 0o600).unwrap();
        file.write_all_at(b"keep", 0).unwrap();
        file.allocate(0, 100_000).unwrap();
        assert_eq!(file.len().unwrap(), 100_000);
        assert!(file.allocated_bytes().unwrap() >= 100_000);
        file.allocate(0, 10).unwrap();
        assert_eq!(file.len().unwrap(), 100_000);
        assert_eq!(&contents(&*file)[..6], b"keep\0\0");
        assert!(file.allocate(0, 1 << 61).is_err(), "no disk is that large");
        assert_eq!(file.len().unwrap(), 100_000);
    });
}

#[test]
fn locks_exclude_other_handles() {
    on_both(|disk, root| {
        for kind in [LockKind::Flock, LockKind::OpenFileDescription] {
            let path = root.join(format!("{kind:?}"));
            let first = disk.open(&path, OpenMode::Create, 0o600).unwrap();
            let second = disk.open(&path, OpenMode::ReadWrite, 0o600).unwrap();
            assert!(first.try_lock(kind).unwrap());
            assert!(first.try_lock(kind).unwrap(), "its own lock is no obstacle");
            assert!(!second.try_lock(kind).unwrap());
            drop(first);
            assert!(second.try_lock(kind).unwrap());
        }
    });
}

#[test]
fn a_mapping_follows_growth() {
    on_both(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::Create, 0o600).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        let mapping = file.map(1 << 40).unwrap();
        assert_eq!(mapping.bytes(0, 5), b"first");
        file.write_all_at(b"later", 1 << 20).unwrap();
        assert_eq!(mapping.bytes(1 << 20, 5), b"later");
        drop(file);
        for advice in [Advice::Random, Advice::Sequential, Advice::Normal, Advice::WillNeed] {
            mapping.advise(5, 1 << 20, advice);
        }
        mapping.advise(u64::MAX - 1, u64::MAX, Advice::Normal);
        assert_eq!(mapping.bytes((1 << 20) + 1, 4), b"ater");
        assert!(mapping.bytes(1 << 40, 0).is_empty());
    });
}

#[test]
fn a_range_outside_the_reserve_panics() {
    on_both(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::Create, 0o600).unwrap();
        let mapping = file.map(4096).unwrap();
        for (offset, len) in [(1 << 30, 1), (u64::MAX, 1), (0, usize::MAX)] {
            let outside = std::panic::AssertUnwindSafe(|| mapping.bytes(offset, len).len());
            assert!(std::panic::catch_unwind(outside).is_err());
        }
    });
}

fn new_file(disk: &MemDisk, name: &str) -> Box<dyn File> {
    disk.open(Path::new(name), OpenMode::Create, 0o600).unwrap()
}

fn contents_of(disk: &MemDisk, name: &str) -> Vec<u8> {
    contents(&*disk.open(Path::new(name), OpenMode::Read, 0).unwrap())
}

#[test]
fn a_power_cut_keeps_what_was_synced() {
    let disk = MemDisk::new();
    let file = new_file(&disk, "file");
    file.write_all_at(&[1; 2048], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[2; 1024], 512).unwrap();
    file.write_all_at(&[3; 1024], 2048).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let after = contents_of(&disk.snapshot_after_crash(seed), "file");
        assert!(after.len() == 2048 || after.len() == 3072);
        assert_eq!(after[..512], [1; 512]);
        assert_eq!(after[1536..2048], [1; 512]);
        for sector in after.chunks(512) {
            assert!(sector.iter().all(|byte| byte == &sector[0]), "sectors are whole");
        }
        seen.insert(after.chunks(512).map(|sector| sector[0]).collect::<Vec<_>>());
        assert_eq!(after, contents_of(&disk.snapshot_after_crash(seed), "file"), "the seed fixes it");
    }
    // Two sectors old or new, and the file short, or long with two more sectors written or not.
    assert_eq!(seen.len(), 4 + 4 * 4);
    assert_eq!(contents_of(&disk.snapshot_after_crash(0), "file"), [1; 2048]);
    assert_eq!(contents_of(&disk.snapshot_after_crash(1), "file"), contents(&*file));
    assert_eq!(contents_of(&disk.snapshot_after_kill(), "file"), contents(&*file));
    file.sync_data().unwrap();
    assert_eq!(contents_of(&disk.snapshot_after_crash(0), "file"), contents(&*file));
}

#[test]
fn a_power_cut_may_leave_an_overwritten_version_and_undo_a_truncation() {
    let disk = MemDisk::new();
    let file = new_file(&disk, "file");
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 512], 0).unwrap();
    file.write_all_at(&[3; 512], 0).unwrap();
    file.set_len(512).unwrap();
    let seen: std::collections::BTreeSet<(u8, usize)> = (0..100)
        .map(|seed| contents_of(&disk.snapshot_after_crash(seed), "file"))
        .map(|bytes| (bytes[0], bytes.len()))
        .collect();
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [(1, 512), (1, 1024), (2, 512), (2, 1024), (3, 512), (3, 1024)]
    );
    assert_eq!(contents_of(&disk.snapshot_after_crash(0), "file"), [1; 1024]);
}

#[test]
fn a_power_cut_loses_unsynced_names() {
    let disk = MemDisk::new();
    let root = Path::new("/");
    new_file(&disk, "old").write_all_at(b"1", 0).unwrap();
    disk.sync_dir(root).unwrap();
    disk.rename(Path::new("old"), Path::new("new")).unwrap();
    new_file(&disk, "more");
    disk.remove_file(Path::new("new")).unwrap();
    let seen: std::collections::BTreeSet<Vec<String>> =
        (0..50).map(|seed| disk.snapshot_after_crash(seed).read_dir(root).unwrap()).collect();
    let expected: [&[&str]; 4] = [&["more"], &["more", "new"], &["new"], &["old"]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    let lost = disk.snapshot_after_crash(0);
    assert!(contents_of(&lost, "old").is_empty(), "the name was synced, the byte was not");
    disk.sync_dir(root).unwrap();
    assert_eq!(disk.snapshot_after_crash(0).read_dir(root).unwrap(), ["more"]);
}

#[test]
fn a_sync_that_lies() {
    let disk = MemDisk::new();
    let file = new_file(&disk, "file");
    disk.skip_sync(2);
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.syncs(), 2);
    assert!(contents_of(&disk.snapshot_after_crash(0), "file").is_empty());
    file.sync_data().unwrap();
    assert_eq!(contents_of(&disk.snapshot_after_crash(0), "file"), b"lost");
}

#[test]
fn the_nth_operation_fails() {
    let disk = MemDisk::new();
    let file = new_file(&disk, "file");
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    disk.fail_after(2, ErrorKind::Other);
    assert_eq!(file.len().unwrap(), 1024);
    assert_eq!(kind_of(file.write_all_at(&[2; 1024], 0)), ErrorKind::Other);
    let torn = contents(&*file);
    assert_eq!((torn[0], torn[511], torn[512]), (2, 2, 1), "a failed write leaves half");
    assert!(disk.clear_fault());
    disk.fail_from(1, ErrorKind::StorageFull);
    let failed = file.sync_data().unwrap_err();
    assert!(failed.is_no_space());
    assert_eq!(failed.to_string(), "sync file: no storage space");
    assert!(disk.read_dir(Path::new("/")).is_err(), "lasting");
    assert!(disk.clear_fault());
    assert!(!disk.clear_fault());
    file.sync_data().unwrap();
    assert_eq!(contents_of(&disk.snapshot_after_crash(0), "file"), [1; 1024], "a failed sync is for good");
    file.write_all_at(&[2; 512], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(contents_of(&disk.snapshot_after_crash(0), "file")[..512], [2; 512], "until written again");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(8192));
    let file = new_file(&disk, "file");
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 8192);
    assert!(file.allocate(0, 8193).unwrap_err().is_no_space());
    assert_eq!(file.len().unwrap(), 0);
    assert!(file.write_all_at(&[1; 10_000], 100).unwrap_err().is_no_space());
    assert_eq!(file.len().unwrap(), 8192);
    file.write_all_at(&[2; 8192], 0).unwrap();
    let other = new_file(&disk, "other");
    assert!(other.write_all_at(b"x", 0).unwrap_err().is_no_space());
    file.set_len(4096).unwrap();
    assert_eq!(disk.used_bytes(), 4096);
    other.write_all_at(b"x", 0).unwrap();
    drop(other);
    disk.remove_file(Path::new("other")).unwrap();
    assert_eq!(disk.used_bytes(), 4096);
    drop(file);
    assert_eq!(disk.snapshot_after_kill().used_bytes(), 4096);
}
