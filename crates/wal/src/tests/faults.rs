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
