//! The power goes at any moment: of the 512-byte sectors, lengths and names that were not synced, any subset is
//! there afterwards. What is recovered must be the content after some transaction, whole, and no older than what
//! was promised. The same test finds every bug that is planted on purpose.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use disk::Disk;
use disk::mem::MemDisk;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::bugs::Bug;
use crate::check::check_db;
use crate::tests::support::{Changes, Model, PATH, dump, open, puts, small};
use crate::tests::traced::Traced;
use crate::{Db, Options, SyncMode, View};

/// What recovery may find.
struct Oracle {
    rng: SmallRng,
    options: Options,
    /// Content by the transaction that made it; transactions between, of defragmentation, change nothing.
    states: BTreeMap<u64, Model>,
    /// Recovery may not be older than this.
    promised: u64,
    /// One in this many operations is followed by a power cut.
    one_in: u32,
    cuts: u32,
    failure: Option<String>,
}

impl Oracle {
    fn cut(&mut self, disk: &MemDisk) {
        if self.failure.is_some() || self.rng.random_range(0..self.one_in) > 0 {
            return;
        }
        self.cuts += 1;
        let after = disk.snapshot_after_crash(self.rng.random());
        if let Err(what) = self.recover(&after) {
            self.failure = Some(what);
        }
    }

    /// Opens what a crash left, compares, goes on with a commit, and cuts the power once more.
    fn recover(&mut self, disk: &MemDisk) -> Result<(), String> {
        // What opens the file afterwards is sound; the planted bug was in the process that died.
        let options = Options { bug: None, ..self.options.clone() };
        let mut db = open(disk, &options).map_err(|error| format!("open: {error}"))?;
        self.compare(&db, None)?;
        if self.rng.random_range(0..4) > 0 {
            return Ok(());
        }
        let batch = puts(b"zzz", &[(b"recovered", &[1; 3000])]);
        let mut after = dump(&db.reader().view());
        after.entry(b"zzz".to_vec()).or_default().insert(b"recovered".to_vec(), vec![1; 3000]);
        db.commit(&batch).map_err(|error| format!("commit after recovery: {error}"))?;
        drop(db);
        let again = disk.snapshot_after_crash(self.rng.random());
        let db = open(&again, &options).map_err(|error| format!("second open: {error}"))?;
        self.compare(&db, Some(&after))
    }

    fn compare(&self, db: &Db, or: Option<&Model>) -> Result<(), String> {
        let txid = db.txid();
        check_db(db).map_err(|violations| format!("txid {txid}: {}", violations[0]))?;
        if txid < self.promised {
            return Err(format!("recovered {txid}, promised {}", self.promised));
        }
        let found = dump(&db.reader().view());
        let model = self.states.range(..=txid).next_back().expect("the empty database is there").1;
        if found == *model || or.is_some_and(|or| found == *or) {
            return Ok(());
        }
        Err(format!("txid {txid} has other content than it was given"))
    }
}

struct Run {
    oracle: Arc<Mutex<Oracle>>,
    changes: Changes,
    pins: Vec<(View, Model)>,
    options: Options,
    /// Whether to defragment and hold views.
    busy: bool,
}

impl Run {
    fn oracle<T>(&self, f: impl FnOnce(&mut Oracle) -> T) -> T {
        f(&mut self.oracle.lock().unwrap())
    }

    fn open(&self, disk: &MemDisk) -> Db {
        let oracle = self.oracle.clone();
        let hook = Arc::new(move |disk: &MemDisk| oracle.lock().unwrap().cut(disk));
        let disk: Arc<dyn Disk> = Arc::new(Traced { disk: disk.clone(), hook });
        Db::open(&disk, Path::new(PATH), self.options.clone()).unwrap()
    }

    fn promise(&self, db: &Db, forced: bool) {
        let durable = match self.options.sync {
            SyncMode::Lazy if !forced => db.txid().saturating_sub(1),
            _ => db.txid(),
        };
        self.oracle(|oracle| oracle.promised = oracle.promised.max(durable));
    }

    fn commits(&mut self, db: &mut Db, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let batch = self.changes.next();
            let model = self.changes.model.clone();
            // One number may be skipped.
            self.oracle(|oracle| {
                oracle.states.insert(db.txid() + 1, model.clone());
            });
            db.commit(&batch).map_err(|error| error.to_string())?;
            self.promise(db, false);
            if self.changes.rng.random_range(0..8) == 0 {
                db.force().map_err(|error| error.to_string())?;
                self.promise(db, true);
            }
            if self.busy && self.changes.rng.random_range(0..4) == 0 {
                self.pins.push((db.reader().view(), model));
            }
            if self.busy && self.changes.rng.random_range(0..3) == 0 && !self.pins.is_empty() {
                let (view, model) = self.pins.remove(0);
                if dump(&view) != model {
                    return Err("a pinned view changed".to_owned());
                }
            }
            if self.busy && self.changes.rng.random_range(0..12) == 0 {
                while !db.defragment_step().map_err(|error| error.to_string())?.done {}
            }
            check_db(db).map_err(|violations| violations[0].to_string())?;
        }
        Ok(())
    }
}

/// Three lives of a process: two killed, the last one stopped; the power cut all along.
fn survive(seed: u64, options: &Options, one_in: u32, busy: bool) -> Result<u32, String> {
    let oracle = Oracle {
        rng: SmallRng::seed_from_u64(seed),
        options: options.clone(),
        states: BTreeMap::from([(0, Model::new())]),
        promised: 0,
        one_in,
        cuts: 0,
        failure: None,
    };
    let mut changes = Changes::new(seed);
    changes.value_max = 700;
    let mut run = Run {
        oracle: Arc::new(Mutex::new(oracle)),
        changes,
        pins: Vec::new(),
        options: options.clone(),
        busy,
    };
    let disk = MemDisk::new();
    drop(open(&disk, &Options { bug: None, ..options.clone() }).unwrap());
    for _ in 0..3 {
        let mut db = run.open(&disk);
        run.commits(&mut db, 14)?;
        run.pins.clear();
        // A kill: the page cache still holds what was not synced.
        drop(db);
    }
    run.oracle(|oracle| oracle.failure.take().map_or(Ok(oracle.cuts), Err))
}

fn options(seed: u64, bug: Option<Bug>) -> Options {
    let sync = if seed.is_multiple_of(2) { SyncMode::Lazy } else { SyncMode::Full };
    Options {
        leaf_pages: [1, 4][seed as usize / 2 % 2],
        sync,
        pace_bytes: 16 << 10,
        reserve_bytes: 0,
        bug,
        ..small()
    }
}

#[test]
fn any_power_cut_leaves_a_whole_transaction() {
    let mut cuts = 0;
    for seed in 0..8 {
        let done = survive(seed, &options(seed, None), 6, true);
        cuts += done.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    assert!(cuts > 200, "only {cuts} power cuts");
}

/// Creation itself: before the first sync of the metas there is no database, after it there is an empty one.
#[test]
fn a_power_cut_while_a_file_is_created_leaves_nothing_or_an_empty_database() {
    let failures = Arc::new(Mutex::new(Vec::new()));
    for seed in 0..40 {
        let disk = MemDisk::new();
        let found = failures.clone();
        let hook = Arc::new(move |disk: &MemDisk| {
            let after = disk.snapshot_after_crash(seed);
            match open(&after, &small()) {
                Ok(db) if check_db(&db).is_ok() && dump(&db.reader().view()).is_empty() => {}
                Ok(_) => found.lock().unwrap().push("not empty".to_owned()),
                Err(error) => found.lock().unwrap().push(error.to_string()),
            }
        });
        let traced: Arc<dyn Disk> = Arc::new(Traced { disk, hook });
        drop(Db::open(&traced, Path::new(PATH), small()).unwrap());
    }
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());
}

fn is_found(bug: Bug) -> bool {
    // The panics are expected; an assertion of the engine may be what finds the bug.
    (0..12).any(|seed| {
        let one_in = 1 + seed as u32 % 3;
        let busy = bug != Bug::SkipOpenSync;
        let run = || survive(seed, &options(seed, Some(bug)), one_in, busy);
        !matches!(catch_unwind(AssertUnwindSafe(run)), Ok(Ok(_)))
    })
}

#[test]
fn a_planted_bug_is_found() {
    for bug in [
        Bug::SkipDataSync,
        Bug::ReuseEarly,
        Bug::IgnorePins,
        Bug::SkipOpenSync,
        Bug::CutEarly,
        Bug::LosePages,
    ] {
        assert!(is_found(bug), "{bug:?} was not found");
    }
}
