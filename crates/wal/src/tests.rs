//! The log as a whole, on a disk in memory: against a model, with failing operations, through power cuts.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use api::raftpb::{ConfState, Entry, HardState};
use api::walpb;
use bytes::Bytes;
use disk::mem::MemDisk;
use disk::{Disk, OpenMode};
use prost::Message;

use crate::{EncodedEntry, Error, Options, PrepareJob, Replay, Wal};

mod faults;
mod hostile;
mod model;
mod snapshots;

const DIR: &str = "/data/member/wal";
const METADATA: &[u8] = b"\x08\x01\x10\x02";
const SMALL: Options = Options { segment_bytes: 4096, sync: true };

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn handle(disk: &MemDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn create(disk: &MemDisk) -> Wal {
    Wal::create_with(&handle(disk), dir(), METADATA, SMALL).unwrap()
}

fn open(disk: &MemDisk, start: &walpb::Snapshot) -> crate::Result<(Wal, Replay)> {
    Wal::open_with(&handle(disk), dir(), start, SMALL)
}

fn beginning() -> walpb::Snapshot {
    walpb::Snapshot::default()
}

fn snapshot(index: u64, term: u64) -> walpb::Snapshot {
    let conf_state = ConfState { voters: vec![1], auto_leave: Some(false), ..ConfState::default() };
    walpb::Snapshot { index: Some(index), term: Some(term), conf_state: Some(conf_state) }
}

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index: Some(index), term: Some(term), r#type: Some(0), data: Some(Bytes::copy_from_slice(data)) }
}

fn encoded(entry: &Entry) -> EncodedEntry {
    EncodedEntry {
        index: entry.index.unwrap(),
        term: entry.term.unwrap(),
        bytes: entry.encode_to_vec().into(),
    }
}

fn state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Some(term), vote: Some(vote), commit: Some(commit) }
}

/// Appends entries of `size` bytes each, one per batch, committing the one before.
fn fill(wal: &mut Wal, from: u64, to: u64, size: usize) {
    for index in from..=to {
        let entry = entry(index, 1, &vec![index as u8; size]);
        wal.append(&[encoded(&entry)], Some(&state(1, 1, index - 1)), true).unwrap();
    }
}

fn names(disk: &MemDisk) -> Vec<String> {
    disk.read_dir(dir()).unwrap()
}

fn indexes(replay: &Replay) -> Vec<u64> {
    replay.entries.iter().map(|entry| entry.index.unwrap()).collect()
}

#[test]
fn a_new_log_is_empty_and_durable() {
    let disk = MemDisk::new();
    let wal = create(&disk);
    assert_eq!(names(&disk), ["0000000000000000-0000000000000000.wal"]);
    drop(wal);
    let after = disk.snapshot_after_crash(0);
    let (_, replay) = open(&after, &beginning()).unwrap();
    let expected = Replay { metadata: METADATA.into(), snapshot_found: true, ..Replay::default() };
    assert_eq!(replay, expected);
    let again = Wal::create(&handle(&after), dir(), METADATA).unwrap_err();
    assert_eq!(again.to_string(), "wal: /data/member/wal already holds a log");
}

#[test]
fn a_fresh_segment_is_reserved_in_full() {
    let disk = MemDisk::new();
    Wal::create(&handle(&disk), dir(), METADATA).unwrap();
    let path = dir().join("0000000000000000-0000000000000000.wal");
    let found = disk.metadata(&path).unwrap().unwrap();
    assert_eq!((found.len, found.mode), (64_000_000, 0o600));
    assert_eq!(disk.used_bytes(), 64_000_000_u64.next_multiple_of(4096));
    assert_eq!(disk.metadata(dir()).unwrap().unwrap().mode, 0o700);
}

#[test]
fn a_rest_of_an_earlier_creation_is_replaced_and_strangers_are_not() {
    let disk = MemDisk::new();
    disk.create_dir_all(&dir().with_extension("tmp"), 0o700).unwrap();
    disk.create_dir_all(dir(), 0o700).unwrap();
    disk.open(&dir().join("0.tmp"), OpenMode::Create, 0o600).unwrap();
    drop(create(&disk));
    assert_eq!(disk.read_dir(Path::new("/data/member")).unwrap(), ["wal"]);

    let disk = MemDisk::new();
    disk.create_dir_all(dir(), 0o700).unwrap();
    disk.open(&dir().join("thesis.txt"), OpenMode::Create, 0o600).unwrap();
    let error = Wal::create(&handle(&disk), dir(), METADATA).unwrap_err();
    assert!(error.to_string().contains("thesis.txt stands where the log is to be created"), "{error}");
    assert_eq!(names(&disk), ["thesis.txt"]);
}

#[test]
fn entries_come_back_across_segments() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 40, 500);
    let segments: Vec<String> = wal.segments().map(|name| name.to_string()).collect();
    assert_eq!(segments.len(), 6);
    assert_eq!(segments[1], "0000000000000001-0000000000000009.wal");
    let report = crate::verify(&disk, dir()).unwrap();
    assert_eq!(report.problems, []);
    for segment in &report.segments[..5] {
        assert_eq!(segment.len, segment.data_end, "a closed segment is cut to its records");
    }
    assert_eq!(report.segments[5].len, 4096);
    drop(wal);

    let (mut wal, replay) = open(&disk, &beginning()).unwrap();
    assert_eq!(indexes(&replay), (1..=40).collect::<Vec<_>>());
    assert_eq!(replay.entries[16], entry(17, 1, &[17; 500]));
    assert_eq!(replay.hard_state, state(1, 1, 39));
    fill(&mut wal, 41, 50, 500);
    drop(wal);
    let read = crate::read(&disk, dir(), &beginning()).unwrap();
    assert_eq!(indexes(&read), (1..=50).collect::<Vec<_>>());
    assert!(!read.repaired);
}

#[test]
fn a_later_entry_replaces_those_from_its_index_on() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 5, 10);
    wal.append(&[encoded(&entry(3, 2, b"new"))], Some(&state(2, 0, 2)), true).unwrap();
    let (_, replay) = open(&disk.snapshot_after_kill(), &beginning()).unwrap();
    assert_eq!(indexes(&replay), [1, 2, 3]);
    assert_eq!(replay.entries[2], entry(3, 2, b"new"));
    assert_eq!(wal.last_index(), 3);
}

#[test]
fn what_is_synced_and_what_is_not() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    let syncs = |disk: &MemDisk, act: &mut dyn FnMut()| {
        let before = disk.syncs();
        act();
        disk.syncs() - before
    };
    let one = [encoded(&entry(1, 1, b"x"))];
    assert_eq!(syncs(&disk, &mut || wal.append(&one, Some(&state(1, 1, 0)), false).unwrap()), 1);
    assert_eq!(
        syncs(&disk, &mut || wal.append(&[], Some(&state(1, 1, 1)), false).unwrap()),
        0,
        "commit only"
    );
    assert_eq!(syncs(&disk, &mut || wal.append(&[], Some(&state(1, 1, 1)), true).unwrap()), 1, "asked for");
    assert_eq!(syncs(&disk, &mut || wal.append(&[], Some(&state(2, 0, 1)), false).unwrap()), 1, "term");
    assert_eq!(syncs(&disk, &mut || wal.append(&[], Some(&state(2, 3, 1)), false).unwrap()), 1, "vote");
    assert_eq!(syncs(&disk, &mut || wal.append(&[], Some(&state(0, 0, 0)), false).unwrap()), 0, "empty");
    assert_eq!(syncs(&disk, &mut || wal.save_snapshot(&snapshot(1, 1)).unwrap()), 1);
    assert_eq!(syncs(&disk, &mut || wal.sync().unwrap()), 1);
    let (_, replay) = open(&disk.snapshot_after_crash(0), &beginning()).unwrap();
    assert_eq!(replay.hard_state, state(2, 3, 1));
}

#[test]
fn without_sync_nothing_is_synced() {
    let disk = MemDisk::new();
    let options = Options { sync: false, ..SMALL };
    let mut wal = Wal::create_with(&handle(&disk), dir(), METADATA, options).unwrap();
    let before = disk.syncs();
    fill(&mut wal, 1, 3, 10);
    wal.sync().unwrap();
    assert_eq!(disk.syncs(), before);
}

#[test]
fn opened_at_a_snapshot_it_gives_what_is_behind() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 20, 500);
    wal.save_snapshot(&snapshot(15, 1)).unwrap();
    fill(&mut wal, 21, 30, 500);
    drop(wal);
    let (wal, replay) = open(&disk, &snapshot(15, 1)).unwrap();
    assert!(replay.snapshot_found);
    assert_eq!(indexes(&replay), (16..=30).collect::<Vec<_>>());
    assert_eq!(wal.segments().next().unwrap().index, 9, "the newest that begins at or below it");
    drop(wal);

    let error = open(&disk, &snapshot(15, 2)).unwrap_err();
    assert!(error.to_string().contains("the snapshot at index 15 has term 1, its file has 2"), "{error}");
    let (_, replay) = open(&disk, &snapshot(16, 1)).unwrap();
    assert!(!replay.snapshot_found, "tolerated, as Go does, but said");

    let records = crate::snapshot_records(&disk, dir()).unwrap();
    assert_eq!(
        records,
        [walpb::Snapshot { index: Some(0), term: Some(0), conf_state: None }, snapshot(15, 1)]
    );
}

#[test]
fn a_snapshot_record_beyond_the_commit_index_does_not_count() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 3, 10);
    wal.save_snapshot(&snapshot(100, 2)).unwrap();
    assert_eq!(crate::snapshot_records(&disk, dir()).unwrap().len(), 1);
    wal.append(&[encoded(&entry(101, 2, b"behind it"))], Some(&state(2, 0, 100)), true).unwrap();
    assert_eq!(crate::snapshot_records(&disk, dir()).unwrap()[1], snapshot(100, 2));
    drop(wal);
    assert_eq!(indexes(&open(&disk, &snapshot(100, 2)).unwrap().1), [101]);
    let error = open(&disk, &beginning()).unwrap_err();
    assert!(error.to_string().contains("entries are missing between them"), "{error}");
}

/// Found by the simulator: a member that restarted with its database ahead of the commit index in the log recorded a
/// snapshot that did not count, and purged what did.
#[test]
fn a_commit_index_that_is_known_makes_a_record_count() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 3, 10);
    let known = crate::snapshot_records(&disk, dir()).unwrap().len();
    wal.append(&[encoded(&entry(4, 1, b"not yet committed here"))], None, true).unwrap();
    wal.raise_commit(4).unwrap();
    wal.save_snapshot(&snapshot(4, 1)).unwrap();
    wal.raise_commit(2).unwrap();
    assert_eq!(crate::snapshot_records(&disk, dir()).unwrap()[known..], [snapshot(4, 1)]);
    let after = disk.snapshot_after_crash(0);
    assert_eq!(crate::snapshot_records(&after, dir()).unwrap()[known..], [snapshot(4, 1)]);
}

#[test]
fn one_process_at_a_time() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 10, 1000);
    assert!(matches!(open(&disk, &beginning()).unwrap_err(), Error::Locked(_)));
    crate::read(&disk, dir(), &beginning()).unwrap();
    drop(wal);
    open(&disk, &beginning()).unwrap();
}

#[test]
fn released_segments_are_purged_oldest_first() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 40, 500);
    let starts: Vec<u64> = wal.segments().map(|name| name.index).collect();
    assert_eq!(starts, [0, 9, 17, 25, 33, 41]);
    assert_eq!(crate::purge(&disk, dir(), 2).unwrap(), [""; 0], "all are locked");

    wal.release_to(22);
    assert_eq!(wal.segments().map(|name| name.index).collect::<Vec<_>>(), [17, 25, 33, 41]);
    assert_eq!(crate::purge(&disk, dir(), 0).unwrap(), [""; 0], "0 keeps all");
    assert_eq!(crate::purge(&disk, dir(), 5).unwrap(), ["0000000000000000-0000000000000000.wal"]);
    assert_eq!(crate::purge(&disk, dir(), 1).unwrap(), ["0000000000000001-0000000000000009.wal"]);
    wal.release_to(1000);
    assert_eq!(wal.segments().map(|name| name.index).collect::<Vec<_>>(), [41]);
    assert_eq!(crate::purge(&disk, dir(), 1).unwrap().len(), 3);
    fill(&mut wal, 41, 43, 10);
    drop(wal);
    let (_, replay) = open(&disk, &snapshot(41, 1)).unwrap();
    assert_eq!(indexes(&replay), [42, 43]);
    assert!(matches!(open(&disk, &snapshot(20, 1)).unwrap_err(), Error::NoSegment { index: 20, .. }));
}

#[test]
fn a_missing_segment_is_named() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 20, 500);
    drop(wal);
    disk.remove_file(&dir().join("0000000000000001-0000000000000009.wal")).unwrap();
    let error = open(&disk, &beginning()).unwrap_err();
    assert!(error.to_string().starts_with("wal: segment 0000000000000001 is missing"), "{error}");
    assert_eq!(crate::verify(&disk, dir()).unwrap().problems.len(), 2, "the gap, and the broken chain");
    assert!(matches!(crate::verify(&MemDisk::new(), dir()), Err(Error::NotFound(_))));
    assert!(matches!(open(&MemDisk::new(), &beginning()), Err(Error::NotFound(_))));
}

#[test]
fn the_job_keeps_zeros_ahead() {
    let disk = MemDisk::new();
    let options = Options { segment_bytes: 40 << 20, sync: true };
    let mut wal = Wal::create_with(&handle(&disk), dir(), METADATA, options).unwrap();
    let job = wal.prepare_next().expect("a new log has nothing ahead");
    assert!(wal.prepare_next().is_none(), "one job at a time");
    job.run().unwrap();
    assert!(wal.prepare_next().is_none(), "nothing left to do");
    assert_eq!(names(&disk), ["0000000000000000-0000000000000000.wal", "1.tmp"]);
    assert_eq!(disk.metadata(&dir().join("1.tmp")).unwrap().unwrap().len, 40 << 20);

    fill(&mut wal, 1, 9, 1 << 20);
    let mut job = wal.prepare_next().expect("less than half of the window is left");
    assert!(job.step().unwrap());
    // The log overtakes the job, which then goes on behind it.
    fill(&mut wal, 10, 30, 1 << 20);
    assert!(job.step().unwrap());
    fill(&mut wal, 31, 50, 1 << 20);
    job.run().unwrap();
    assert_eq!(wal.segments().count(), 2);
    assert_eq!(names(&disk)[2], "0.tmp".to_owned().replace("0.tmp", &names(&disk)[2]));
    assert!(names(&disk).contains(&"0.tmp".to_owned()), "the names of prepared segments take turns");
    drop(wal);
    let (_, replay) = Wal::open_with(&handle(&disk), dir(), &beginning(), options).unwrap();
    assert_eq!(indexes(&replay), (1..=50).collect::<Vec<_>>());
    assert_eq!(crate::verify(&disk, dir()).unwrap().problems, []);
    assert!(!names(&disk).contains(&"0.tmp".to_owned()), "what a process before prepared is not trusted");
}

#[test]
fn the_job_and_the_log_at_the_same_time() {
    let disk = MemDisk::new();
    let options = Options { segment_bytes: 3 << 20, sync: true };
    let mut wal = Wal::create_with(&handle(&disk), dir(), METADATA, options).unwrap();
    std::thread::scope(|scope| {
        let mut running = None;
        for index in 1..=300 {
            if let Some(job) = wal.prepare_next() {
                running = Some(scope.spawn(|| job.run()));
            }
            fill(&mut wal, index, index, 100_000);
        }
        running.expect("a job ran").join().unwrap().unwrap();
    });
    drop(wal);
    let (_, replay) = Wal::open_with(&handle(&disk), dir(), &beginning(), options).unwrap();
    assert_eq!(replay.entries.len(), 300);
    assert_eq!(crate::verify(&disk, dir()).unwrap().problems, []);
}

/// No room for the next segment is told of when it begins to matter, and not before.
#[test]
fn a_next_segment_without_room_is_told_of_when_little_is_left() {
    let disk = MemDisk::new();
    let options = Options { segment_bytes: 64 << 10, sync: true };
    let mut wal = Wal::create_with(&handle(&disk), dir(), METADATA, options).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let mut index = 1;
    let left = loop {
        match wal.prepare_next().map(PrepareJob::run) {
            Some(Err(Error::NoSpace(_))) => break (64 << 10) - wal.offset(),
            None | Some(Ok(())) => fill(&mut wal, index, index, 500),
            Some(Err(error)) => panic!("{error}"),
        }
        index += 1;
    };
    assert!((6 << 10..8 << 10).contains(&left), "{left} bytes left");
    // Beside it there is room to grow, if not for a whole segment.
    disk.set_capacity(Some(disk.used_bytes() + (32 << 10)));
    fill(&mut wal, index, index + 3, 500);
    wal.prepare_next().unwrap().run().unwrap();
    assert_eq!(wal.segments().count(), 1);
}

/// A file system may want room for what was reserved. The next segment is then given up; the log goes on without.
#[test]
fn a_next_segment_that_finds_no_room_though_reserved_is_given_up() {
    let mut given_up = 0;
    for nth in 1.. {
        let disk = MemDisk::new();
        let mut wal = create(&disk);
        let before = disk.used_bytes();
        disk.fail_after(nth, ErrorKind::StorageFull);
        let done = wal.prepare_next().unwrap().run();
        if !disk.clear_fault() {
            done.unwrap();
            break;
        }
        match done {
            Ok(()) => {
                assert_eq!(disk.used_bytes(), before, "operation {nth}");
                given_up += 1;
                fill(&mut wal, 1, 20, 500);
            }
            Err(Error::Disk(error)) => {
                assert!(error.is_no_space());
                assert!(error.path.ends_with("0000000000000000-0000000000000000.wal") || error.path.ends_with("1.tmp"));
            }
            Err(error) => panic!("{error}"),
        }
        drop(wal);
        open(&disk, &beginning()).unwrap();
    }
    assert!(given_up >= 3, "created, reserved, written: {given_up}");
}

#[test]
fn a_full_disk_is_an_answer_not_the_end() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(3 * 4096));
    let mut wal = create(&disk);
    wal.prepare_next().unwrap().run().unwrap();
    fill(&mut wal, 1, 7, 500);
    disk.set_capacity(Some(2 * 4096));
    fill(&mut wal, 8, 8, 500);
    assert_eq!(wal.segments().count(), 2, "no room to grow, so the prepared segment is taken early");
    disk.set_capacity(Some(2 * 4096 + (64 << 10)));
    // There is room for the second segment to grow, not for a third besides.
    let mut index = 9;
    let error = loop {
        let one = [encoded(&entry(index, 1, &[index as u8; 500]))];
        match wal.append(&one, Some(&state(1, 1, index - 1)), true) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
        assert!(index < 1000, "the disk is full some day");
    };
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    assert!(error.is_no_space());
    assert_eq!(wal.last_index(), index - 1, "nothing was written");
    let before = wal.offset();
    let large = entry(index, 1, &vec![1; 100_000]);
    assert!(matches!(wal.append(&[encoded(&large)], None, true), Err(Error::NoSpace(_))));
    assert_eq!(wal.offset(), before);
    assert!(
        matches!(wal.prepare_next().unwrap().run(), Err(Error::NoSpace(_))),
        "so that an alarm can be raised"
    );

    assert!(wal.prepare_next().is_none(), "not at every append");
    disk.set_capacity(None);
    fill(&mut wal, index, index + 20, 500);
    assert!(wal.prepare_next().is_some(), "a new segment is a new attempt");
    drop(wal);
    let (_, replay) = open(&disk, &beginning()).unwrap();
    assert_eq!(indexes(&replay), (1..=index + 20).collect::<Vec<_>>());
    assert_eq!(crate::verify(&disk, dir()).unwrap().problems, []);
}

#[test]
fn after_a_failed_sync_nothing_is_promised() {
    for operation in 1..=2 {
        let disk = MemDisk::new();
        let mut wal = create(&disk);
        fill(&mut wal, 1, 1, 10);
        disk.fail_after(operation, ErrorKind::Other);
        assert!(wal.append(&[encoded(&entry(2, 1, b"x"))], None, true).is_err());
        assert!(disk.clear_fault());
        let error = wal.append(&[encoded(&entry(2, 1, b"x"))], None, true).unwrap_err();
        assert!(matches!(error, Error::Failed));
        assert!(matches!(wal.sync(), Err(Error::Failed)));
        assert!(matches!(wal.save_snapshot(&snapshot(1, 1)), Err(Error::Failed)));
        assert!(wal.prepare_next().is_none());
    }
}

#[test]
fn an_error_that_the_job_hears_stops_the_log() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    let mut job = wal.prepare_next().unwrap();
    disk.fail_after(1, ErrorKind::Other);
    assert!(job.step().is_err());
    assert!(matches!(wal.append(&[], Some(&state(1, 1, 0)), true), Err(Error::Failed)));

    // An error about the next segment does not: it is made anew.
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    for operation in 3.. {
        let job = wal.prepare_next().expect("the next segment is not ready");
        disk.fail_after(operation, ErrorKind::Other);
        let done = job.run();
        let struck = disk.clear_fault();
        assert_eq!(done.is_err(), struck);
        if !struck {
            break;
        }
        if matches!(wal.append(&[], Some(&state(1, 1, 0)), true), Err(Error::Failed)) {
            wal = open(&disk.snapshot_after_kill(), &beginning()).unwrap().0;
        }
    }
}

#[test]
#[should_panic(expected = "entry 7 after 3 would leave a gap")]
fn a_gap_is_never_written() {
    let mut wal = create(&MemDisk::new());
    fill(&mut wal, 1, 3, 10);
    let _ = wal.append(&[encoded(&entry(7, 1, b""))], None, true);
}

#[test]
fn a_log_that_was_read_but_not_synced_is_synced_at_open() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    wal.write(&[encoded(&entry(1, 1, b"in the page cache"))], None).unwrap();
    drop(wal);
    let (_, replay) = open(&disk, &beginning()).unwrap();
    assert_eq!(indexes(&replay), [1]);
    let (_, replay) = open(&disk.snapshot_after_crash(0), &beginning()).unwrap();
    assert_eq!(indexes(&replay), [1], "raft was told of it, so it must stay");
}
