//! Measures the engine: `cargo run --release -p bolt --example measure_bolt -- FILE [RECORDS] [full|lazy]`.
//!
//! Inserts records of 1 KB in commits of 10,000, reads them, deletes nine of ten while inserting, defragments.

#![allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bolt::{Batch, Db, Op, Options, SyncMode};
use bytes::Bytes;
use disk::Disk;
use disk::os::OsDisk;

const PER_COMMIT: u64 = 10_000;
const VALUE: usize = 1000;

fn key(revision: u64) -> Bytes {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&revision.to_be_bytes());
    key[8] = b'_';
    Bytes::copy_from_slice(&key)
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number"))
}

fn anonymous_memory() -> String {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("RssAnon")).unwrap_or("RssAnon: ?");
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

/// Time and CPU of all commits so far.
#[derive(Default)]
struct Meter {
    walls: Vec<Duration>,
    cpu: Duration,
}

impl Meter {
    fn measure<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let (wall, cpu_before) = (Instant::now(), cpu());
        let result = f();
        self.walls.push(wall.elapsed());
        self.cpu += cpu() - cpu_before;
        result
    }

    fn report(&mut self, what: &str, operations: u64) {
        self.walls.sort_unstable();
        let total: Duration = self.walls.iter().sum();
        let at = |part: f64| self.walls[((self.walls.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
        println!(
            "{what}: {:.0} kops/s, {:.3} us CPU per operation, each ms p50 {:.2} p99 {:.2} max {:.2}",
            operations as f64 / total.as_secs_f64() / 1e3,
            self.cpu.as_secs_f64() * 1e6 / operations as f64,
            at(0.5),
            at(0.99),
            at(1.0),
        );
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn puts(batch: &mut Batch, revisions: std::ops::Range<u64>, value: &Bytes) {
    let bucket = batch.bucket(b"key");
    bucket.create = true;
    bucket.changes.extend(revisions.map(|revision| (key(revision), Op::Put(value.clone()))));
}

fn insert(db: &mut Db, records: u64) {
    let value = Bytes::from(vec![0x5a; VALUE]);
    let mut meter = Meter::default();
    for start in (0..records).step_by(PER_COMMIT as usize) {
        let mut batch = Batch::default();
        puts(&mut batch, start..start + PER_COMMIT, &value);
        let meta = batch.bucket(b"meta");
        meta.create = true;
        meta.changes.push((Bytes::from_static(b"consistent_index"), Op::Put(key(start).slice(..8))));
        meter.measure(|| db.commit(&batch)).expect("commit");
    }
    meter.report("insert", records);
    let logical = records * (VALUE as u64 + 17);
    println!(
        "  file {:.3} of the records' bytes, {}",
        db.sizes().total as f64 / logical as f64,
        anonymous_memory()
    );
}

fn read(db: &Db, records: u64) {
    const GETS: u64 = 1_000_000;
    let view = db.reader().view();
    let bucket = view.bucket(b"key").expect("bucket").expect("bucket");
    let mut random = Random(88_172_645_463_325_252);
    let keys: Vec<Bytes> = (0..GETS).map(|_| key(random.below(records))).collect();
    let time = |what: &str, f: &mut dyn FnMut()| {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let start = cpu();
            f();
            best = best.min(cpu() - start);
        }
        println!("{what}: {:.0} ns CPU each", best.as_nanos() as f64 / GETS as f64);
    };
    time("random get, directory", &mut || {
        for key in &keys {
            black_box(view.get_by_directory(key).expect("get").expect("present")[500]);
        }
    });
    time("random get, tree", &mut || {
        for key in &keys {
            black_box(bucket.get(key).expect("get").expect("present")[500]);
        }
    });
    let mut copy = Vec::with_capacity(12 << 20);
    for ahead in [0, 4, 8, 12, 16] {
        time(&format!("10k random values copied, {ahead} prefetched ahead"), &mut || {
            for list in keys.chunks(10_000) {
                copy.clear();
                for (i, key) in list.iter().enumerate() {
                    if ahead > 0
                        && let Some(next) = list.get(i + ahead)
                    {
                        view.prefetch(next);
                    }
                    if ahead > 0
                        && let Some(next) = list.get(i + ahead / 2)
                    {
                        view.prefetch_entry(next);
                    }
                    copy.extend_from_slice(view.get_by_directory(key).expect("get").expect("present"));
                }
                black_box(&copy);
            }
        });
    }
    let start = Instant::now();
    let (mut count, mut bytes) = (0_u64, 0_u64);
    let mut leaves = bucket.leaves();
    while let Some(leaf) = leaves.next().expect("leaf") {
        for i in 0..leaf.len() {
            let (_, value) = leaf.entry(i).expect("entry");
            count += 1;
            bytes += value.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
    }
    black_box(bytes);
    println!("scan by leaves, every byte: {:.0} ns each", start.elapsed().as_nanos() as f64 / count as f64);
    let start = Instant::now();
    let mut cursor = bucket.cursor();
    let mut count = 0_u64;
    while cursor.next().expect("entry").is_some() {
        count += 1;
    }
    println!("scan by cursor: {:.0} ns each", start.elapsed().as_nanos() as f64 / count as f64);
}

fn compact(db: &mut Db, records: u64) {
    let value = Bytes::from(vec![0x5a; VALUE]);
    let mut meter = Meter::default();
    let mut operations = 0;
    for (i, start) in (0..records).step_by(PER_COMMIT as usize).enumerate() {
        let mut batch = Batch::default();
        let dead = (start..start + PER_COMMIT).filter(|revision| revision % 10 != 0);
        batch.bucket(b"key").changes.extend(dead.map(|revision| (key(revision), Op::Delete)));
        let new = records + i as u64 * 1000;
        puts(&mut batch, new..new + 1000, &value);
        operations += batch.bucket(b"key").changes.len() as u64;
        meter.measure(|| db.commit(&batch)).expect("commit");
    }
    meter.report("compact to a tenth while inserting", operations);
}

fn defragment(db: &mut Db) {
    let before = db.sizes();
    let mut meter = Meter::default();
    let mut moved = 0;
    let start = Instant::now();
    loop {
        let progress = meter.measure(|| db.defragment_step()).expect("step");
        moved += progress.moved_pages;
        if progress.done {
            break;
        }
    }
    println!(
        "defragment: {} -> {} MB in {:.2} s, {moved} pages moved",
        before.total >> 20,
        db.sizes().total >> 20,
        start.elapsed().as_secs_f64()
    );
    let steps = meter.walls.len() as u64;
    meter.report("  steps", steps);
    println!("  {:?}, {}", db.sizes(), anonymous_memory());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let path = Path::new(arguments.get(1).expect("a file to create"));
    let records = arguments.get(2).map_or(1_000_000, |n| n.parse().expect("a number of records"));
    let lazy = arguments.get(3).is_some_and(|mode| mode == "lazy");
    let sync = if lazy { SyncMode::Lazy } else { SyncMode::Full };
    let options = Options { sync, directory_bucket: Some(b"key"), ..Options::default() };
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    assert!(!path.exists(), "{} exists", path.display());
    let mut db = Db::open(&disk, path, options.clone()).expect("open");
    insert(&mut db, records);
    read(&db, records);
    db.close().expect("close");
    let start = Instant::now();
    let mut db = Db::open(&disk, path, options).expect("open");
    println!("open: {:.3} s", start.elapsed().as_secs_f64());
    compact(&mut db, records);
    defragment(&mut db);
    let start = Instant::now();
    let report = bolt::check::check_db(&db).expect("a sound file");
    println!("check: {:.3} s, {report:?}", start.elapsed().as_secs_f64());
}
