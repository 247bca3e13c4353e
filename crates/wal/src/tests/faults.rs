//! Every operation on the disk fails once, at every place, in every way of using the log.

use std::collections::BTreeSet;

use super::*;

const KINDS: [ErrorKind; 2] = [ErrorKind::Other, ErrorKind::StorageFull];

/// What one run came to: entries acknowledged, and the error that ended it.
#[derive(Default)]
struct Outcome {
    acknowledged: u64,
    failed: bool,
}

/// Creates a log, appends over several cuts, takes a snapshot, releases, purges; stops at the first error.
fn life(disk: &MemDisk, outcome: &mut Outcome) -> crate::Result<()> {
    let mut wal = Wal::create_with(&handle(disk), dir(), METADATA, SMALL)?;
    for index in 1..=20 {
        let one = [encoded(&entry(index, 1, &vec![index as u8; 450]))];
        wal.append(&one, Some(&state(1, 1, index)), true)?;
        outcome.acknowledged = index;
        if index % 6 == 0
            && let Some(job) = wal.prepare_next()
        {
            job.run()?;
        }
        if index == 12 {
            wal.save_snapshot(&snapshot(12, 1))?;
            wal.release_to(12);
            crate::purge(disk, dir(), 2)?;
        }
    }
    Ok(())
}

/// Reads what is there. It may be no log at all as long as nothing was acknowledged.
fn check(disk: &MemDisk, acknowledged: u64, story: &str) {
    if !crate::exists(disk, dir()).unwrap() {
        assert_eq!(acknowledged, 0, "{story}: the log is gone");
        create(disk);
        return;
    }
    let records = crate::snapshot_records(disk, dir()).unwrap_or_else(|error| panic!("{story}: {error}"));
    let newest = records.last().cloned().unwrap_or_default();
    let (mut wal, replay) = open(disk, &newest).unwrap_or_else(|error| panic!("{story}: {error}"));
    let last = newest.index.unwrap_or(0) + replay.entries.len() as u64;
    assert!(last >= acknowledged, "{story}: {last} of {acknowledged} acknowledged entries are left");
    for found in &replay.entries {
        let index = found.index.unwrap();
        assert_eq!(found, &entry(index, 1, &vec![index as u8; 450]), "{story}");
    }
    fill(&mut wal, last + 1, last + 8, 450);
    drop(wal);
    let report = crate::verify(disk, dir()).unwrap();
    assert_eq!((report.problems, report.torn), (vec![], None), "{story}");
}

#[test]
fn every_operation_fails_once() {
    for kind in KINDS {
        for lasting in [false, true] {
            let mut errors = BTreeSet::new();
            for nth in 1.. {
                let disk = MemDisk::new();
                let mut outcome = Outcome::default();
                if lasting {
                    disk.fail_from(nth, kind);
                } else {
                    disk.fail_after(nth, kind);
                }
                let done = life(&disk, &mut outcome);
                outcome.failed = done.is_err();
                if !disk.clear_fault() {
                    assert!(!outcome.failed);
                    break;
                }
                if let Err(error) = done {
                    errors.insert(error.to_string());
                }
                for seed in 0..4 {
                    let story = format!("operation {nth} fails with {kind}, power cut {seed}");
                    check(&disk.snapshot_after_crash(seed), outcome.acknowledged, &story);
                }
                check(&disk.snapshot_after_kill(), outcome.acknowledged, &format!("operation {nth}, kill"));
            }
            assert!(errors.len() > 10, "the fault was met in many places: {errors:?}");
        }
    }
}

#[test]
fn every_operation_of_a_start_fails_once() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 20, 450);
    drop(wal);
    // Torn in the last record, so that the start has to repair.
    let last = dir().join(names(&disk).last().unwrap());
    let file = disk.open(&last, OpenMode::ReadWrite, 0).unwrap();
    let end = crate::verify(&disk, dir()).unwrap().segments.last().unwrap().data_end;
    file.set_len(end - 9).unwrap();
    file.sync_data().unwrap();
    drop(file);
    for kind in KINDS {
        for nth in 1.. {
            let disk = disk.snapshot_after_kill();
            disk.fail_after(nth, kind);
            let opened = open(&disk, &beginning());
            if !disk.clear_fault() {
                assert_eq!(indexes(&opened.unwrap().1), (1..=20).collect::<Vec<_>>());
                break;
            }
            drop(opened);
            for seed in 0..4 {
                let (_, replay) = open(&disk.snapshot_after_crash(seed), &beginning())
                    .unwrap_or_else(|error| panic!("operation {nth}, power cut {seed}: {error}"));
                assert_eq!(indexes(&replay), (1..=20).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn power_cut_at_every_operation() {
    for nth in 1.. {
        let disk = MemDisk::new();
        let mut outcome = Outcome::default();
        disk.fail_from(nth, ErrorKind::Other);
        if life(&disk, &mut outcome).is_ok() {
            break;
        }
        disk.clear_fault();
        for seed in 2..12 {
            let seed = seed + nth * 100;
            check(&disk.snapshot_after_crash(seed), outcome.acknowledged, &format!("cut {nth}, {seed}"));
        }
    }
}

/// A disk that loses its power while it recovers from the last power cut, again and again.
#[test]
fn power_cuts_during_recovery() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 6, 450);
    let three: Vec<_> = (7..=9).map(|index| encoded(&entry(index, 1, &vec![index as u8; 900]))).collect();
    wal.write(&three, Some(&state(1, 1, 9))).unwrap();
    drop(wal);
    for first in 2..40 {
        let torn = disk.snapshot_after_crash(first);
        for nth in 1.. {
            let recovering = torn.snapshot_after_kill();
            recovering.fail_from(nth, ErrorKind::Other);
            let opened = open(&recovering, &beginning());
            if !recovering.clear_fault() {
                opened.unwrap();
                break;
            }
            drop(opened);
            let (_, replay) = open(&recovering.snapshot_after_crash(first * 1000 + nth), &beginning())
                .unwrap_or_else(|error| panic!("cut {first}, then {nth}: {error}"));
            assert!(replay.entries.len() >= 6, "cut {first}, then {nth}");
        }
    }
}

/// Plants the bug "this sync was forgotten" at every place, and sees that a power cut right after the next promise
/// shows it. What is not shown must be listed here, with the reason why nothing was lost.
#[test]
fn every_sync_is_needed() {
    let reference = MemDisk::new();
    let mut wal = create(&reference);
    let of_creation = reference.syncs();
    fill(&mut wal, 1, 9, 450);
    assert_eq!(wal.segments().count(), 2);
    wal.save_snapshot(&snapshot(8, 1)).unwrap();
    let all = reference.syncs();
    drop(wal);

    let mut unnoticed = Vec::new();
    for nth in 1..=all {
        let disk = MemDisk::new();
        disk.skip_sync(nth);
        let is_lost = |acknowledged: u64, snapshots: usize| {
            let after = disk.snapshot_after_crash(0);
            let Ok(report) = crate::verify(&after, dir()) else { return true };
            if report.segments.iter().any(|segment| segment.records == 0) {
                return true;
            }
            let Ok((_, replay)) = open(&after, &beginning()) else { return true };
            let found = crate::snapshot_records(&after, dir()).unwrap().len();
            (replay.entries.len() as u64) < acknowledged || found < 1 + snapshots
        };
        let mut wal = create(&disk);
        let mut lost = is_lost(0, 0);
        for index in 1..=9 {
            fill(&mut wal, index, index, 450);
            lost |= is_lost(index, 0);
        }
        wal.save_snapshot(&snapshot(8, 1)).unwrap();
        if !(lost || is_lost(9, 1)) {
            unnoticed.push(nth);
        }
    }
    // The log's parent is synced for the preliminary name and again for the final one. At a cut, the old segment is
    // synced by the append and once more when it has its final length: either would do here.
    let append_before_cut = of_creation + 8;
    let (at_creation, later): (Vec<u64>, Vec<u64>) = unnoticed.iter().partition(|&&nth| nth <= of_creation);
    assert_eq!(later, [append_before_cut, append_before_cut + 1], "of {all}, {of_creation} at creation");
    assert_eq!(at_creation, [1], "of {of_creation}");
}

/// What [`every_sync_is_needed`] forgets once: a segment whose beginning was lost gets it when it is opened.
#[test]
fn a_segment_without_beginning_gets_one() {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 8, 500);
    drop(wal);
    let last = dir().join(names(&disk).last().unwrap());
    disk.open(&last, OpenMode::Truncate, 0o600).unwrap().set_len(4096).unwrap();
    let (mut wal, replay) = open(&disk, &beginning()).unwrap();
    assert_eq!((indexes(&replay).len(), replay.hard_state), (8, state(1, 1, 7)));
    fill(&mut wal, 9, 20, 500);
    drop(wal);
    let report = crate::verify(&disk, dir()).unwrap();
    assert_eq!((report.problems, report.entries), (vec![], Some((1, 20))));
    // The segment can be read without the one before it.
    disk.remove_file(&dir().join("0000000000000000-0000000000000000.wal")).unwrap();
    assert_eq!(indexes(&open(&disk, &snapshot(10, 1)).unwrap().1), (11..=20).collect::<Vec<_>>());
}
