//! Every operation of the disk fails once, one run per operation: nothing that was committed is lost, nothing
//! panics, and after an error that leaves the device unknown no commit is taken.

use std::io::ErrorKind;

use disk::mem::MemDisk;

use crate::check::check_db;
use crate::tests::support::{Changes, Model, check, dump, open, small};
use crate::{Error, Options, SyncMode};

/// Opens, commits, defragments, closes; notes what was committed. The error that ended it, if one did.
fn scenario(disk: &MemDisk, options: &Options, known: &mut Vec<Model>) -> Result<(), Error> {
    let mut changes = Changes::new(3);
    let mut db = open(disk, options)?;
    for i in 0..6 {
        let batch = changes.next();
        known.push(changes.model.clone());
        if let Err(error) = db.commit(&batch) {
            // Reads go on, and a second try is either refused or leaves the database sound.
            dump(&db.reader().view());
            match db.commit(&batch) {
                Ok(_) => check(&db, "an error that changed nothing"),
                Err(Error::Broken { .. }) => assert!(matches!(db.force(), Err(Error::Broken { .. }))),
                Err(error) => panic!("{error}"),
            }
            return Err(error);
        }
        if i == 3 {
            while !db.defragment_step()?.done {}
        }
    }
    db.close()
}

fn every_operation_fails(options: &Options, kind: ErrorKind) {
    for n in 1..2000 {
        let disk = MemDisk::new();
        disk.fail_after(n, kind);
        let mut known = vec![Model::new()];
        let result = scenario(&disk, options, &mut known);
        let struck = disk.clear_fault();
        if !struck {
            result.unwrap();
            assert!(n > 60, "only {n} operations");
            return;
        }
        // Some faults are harmless, such as a refused growth that is tried again with less.
        let failed = result.is_err();
        for (disk, what) in
            [(disk.snapshot_after_kill(), "kill"), (disk.snapshot_after_crash(n), "power cut")]
        {
            let db = open(&disk, options).unwrap_or_else(|error| panic!("operation {n}, {what}: {error}"));
            check_db(&db).unwrap_or_else(|found| panic!("operation {n}, {what}: {}", found[0]));
            let found = dump(&db.reader().view());
            let lost =
                usize::from(failed) + usize::from(what == "power cut" && options.sync == SyncMode::Lazy);
            let at = known.iter().rposition(|model| *model == found);
            assert!(at.is_some_and(|at| at + lost + 1 >= known.len()), "operation {n}, {what}: {at:?}");
        }
    }
    panic!("the scenario never ends");
}

#[test]
fn any_operation_may_fail_once() {
    every_operation_fails(&Options { pace_bytes: 64 << 10, ..small() }, ErrorKind::Other);
    every_operation_fails(&Options { sync: SyncMode::Lazy, pace_bytes: 0, ..small() }, ErrorKind::Other);
    every_operation_fails(&Options { pace_bytes: 0, ..small() }, ErrorKind::StorageFull);
}
