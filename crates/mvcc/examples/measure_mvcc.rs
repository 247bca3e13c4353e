//! Measures the store alone, without raft and network: `cargo run --release -p mvcc --example measure_mvcc [keys] [bytes]`.
//!
//! Figures are processor time of this thread per operation, so that they hold on a busy machine too; waiting for the
//! disk is not in them. The file is in a scratch directory.

use bytes::Bytes;
use disk::Disk;
use mvcc::{CompactionProgress, RangeEnd, RangeQuery, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A moment of this thread's processor time.
struct Instant(u64);

impl Instant {
    fn now() -> Instant {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Instant(stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(Instant::now().0.saturating_sub(self.0))
    }
}

struct Bench {
    db: bolt::Db,
    store: Store,
    freezing: Duration,
    committing: Duration,
}

fn options() -> bolt::Options {
    bolt::Options { directory_bucket: Some(b"key"), ..bolt::Options::default() }
}

fn key(number: u64) -> [u8; 48] {
    let mut key = *b"/registry/pods/namespace-00000/deployment-00000000";
    let digits = |into: &mut [u8], mut number: u64| {
        for digit in into.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    digits(&mut key[25..30], number / 1000);
    digits(&mut key[42..50], number);
    key[2..].try_into().expect("48 bytes")
}

/// A random order without a generator: multiplication by a number prime to all sizes used.
fn scattered(at: u64, keys: u64) -> u64 {
    (u128::from(at) * 2_654_435_761 % u128::from(keys)) as u64
}

fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn report(what: &str, took: Duration, operations: u64) {
    println!(
        "{what:<48} {:>9.0} ns  ({operations} in {took:.2?})",
        took.as_nanos() as f64 / operations as f64
    );
}

impl Bench {
    fn open(path: &Path) -> Bench {
        let disk: Arc<dyn Disk> = Arc::new(disk::os::OsDisk::new());
        let before = Instant::now();
        let db = bolt::Db::open(&disk, path, options()).expect("the file opens");
        let opened = before.elapsed();
        let before = Instant::now();
        let (store, restored) = Store::restore(db.reader().view()).expect("the file holds a store");
        let read = before.elapsed();
        println!(
            "open {opened:.2?}, restore {read:.2?}: {} keys, {} records",
            restored.live_keys, restored.records
        );
        Bench { db, store, freezing: Duration::ZERO, committing: Duration::ZERO }
    }

    fn flush(&mut self) {
        let before = Instant::now();
        let Some(batch) = self.store.freeze_all() else { return };
        self.freezing += before.elapsed();
        let before = Instant::now();
        self.db.commit(&batch).expect("there is room");
        self.committing += before.elapsed();
        self.store.committed(self.db.reader().view());
    }

    /// Puts in transactions of one, a view after every 32, a commit after every 10,000.
    fn puts(&mut self, what: &str, count: u64, value: &[u8], key_of: impl Fn(u64) -> u64) {
        (self.freezing, self.committing) = (Duration::ZERO, Duration::ZERO);
        let mut putting = Duration::ZERO;
        let mut done = 0;
        while done < count {
            let before = Instant::now();
            while done < count && self.store.unflushed_ops() < 10_000 {
                for number in done..(done + 32).min(count) {
                    let mut txn = self.store.write();
                    txn.put(&key(key_of(number)), value, 0, false).expect("puts do not read");
                    drop(txn.end());
                }
                drop(self.store.view());
                done += 32;
            }
            putting += before.elapsed();
            self.flush();
        }
        report(what, putting, count);
        report("  freezing, per put", self.freezing, count);
        report("  committing (its own thread), per put", self.committing, count);
    }

    fn gets(&self, what: &str, count: u64, key_of: impl Fn(u64) -> u64) {
        let view = self.store.view();
        let mut bytes = 0;
        let before = Instant::now();
        for number in 0..count {
            let query = RangeQuery::new(Bytes::copy_from_slice(&key(key_of(number))), RangeEnd::Single);
            view.range(&query, &mut |record| bytes += record.len()).expect("the file can be read");
        }
        report(what, before.elapsed(), count);
        assert!(bytes > 0);
    }

    fn list(&self, what: &str, from: u64, to: u64) {
        let view = self.store.view();
        let end = RangeEnd::Before(Bytes::copy_from_slice(&key(to)));
        let query = RangeQuery::new(Bytes::copy_from_slice(&key(from)), end);
        let mut out: Vec<u8> = Vec::with_capacity(64 << 20);
        let rounds = 50;
        let before = Instant::now();
        for _ in 0..rounds {
            out.clear();
            let summary = view.range(&query, &mut |record| out.extend_from_slice(record)).expect("readable");
            assert_eq!(summary.count as u64, to - from);
        }
        println!("{what:<48} {:>12.2?}  ({} bytes)", before.elapsed() / rounds, out.len());
    }

    fn compact(&mut self) {
        let keys_before = self.db.sizes();
        self.store.schedule_compaction(self.store.revision()).expect("there is history");
        (self.freezing, self.committing) = (Duration::ZERO, Duration::ZERO);
        let (mut stepping, mut longest, mut steps) = (Duration::ZERO, Duration::ZERO, 0u64);
        loop {
            let before = Instant::now();
            let progress = self.store.compaction_step(1000).expect("the file can be read");
            let step = before.elapsed();
            (stepping, longest, steps) = (stepping + step, longest.max(step), steps + 1);
            if self.store.unflushed_ops() >= 10_000 {
                self.flush();
            }
            if progress != CompactionProgress::Working {
                break;
            }
        }
        self.flush();
        println!(
            "compaction: {steps} steps of 1000, {stepping:.2?} in all, longest {longest:.2?}; freezing {:.2?}, \
             committing {:.2?}; live {} -> {} MB",
            self.freezing,
            self.committing,
            keys_before.live >> 20,
            self.db.sizes().live >> 20
        );
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let keys: u64 = arguments.next().unwrap_or(1_000_000);
    let value = vec![7; arguments.next().unwrap_or(256) as usize];
    let folder = std::env::temp_dir().join(format!("mvcc-measure-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a scratch directory");
    let path = folder.join("db");
    let empty = rss_anon();
    let mut bench = Bench::open(&path);
    bench.puts("put, new keys in order", keys / 2, &value, |at| at);
    bench.puts("put, new keys scattered", keys / 2, &value, |at| keys / 2 + scattered(at, keys / 2));
    println!("anonymous memory per key: {} bytes", (rss_anon() - empty) / keys);
    bench.puts("put, existing keys scattered", keys, &value, |at| scattered(at, keys));
    bench.gets("get, scattered, from the file", keys, |at| scattered(at + 7, keys));
    let hot = 5_000.min(keys);
    for number in 0..hot {
        let mut txn = bench.store.write();
        txn.put(&key(number), &value, 0, false).expect("puts do not read");
        drop(txn.end());
    }
    bench.gets("get, scattered, from the buffer", keys, |at| scattered(at, hot));
    bench.flush();
    bench.list("list of 10,000", keys / 4, keys / 4 + 10_000.min(keys / 4));
    let view = bench.store.view();
    let before = Instant::now();
    let hash = view.hash_kv(0).expect("the file can be read");
    println!("HashKV {:x} over {} records in {:.2?}", hash.hash, view.revision(), before.elapsed());
    drop(view);
    bench.compact();
    println!("anonymous memory per key: {} bytes", rss_anon().saturating_sub(empty) / keys);
    drop(bench);
    for _ in 0..2 {
        Bench::open(&path);
    }
    std::fs::remove_dir_all(&folder).expect("the scratch directory is ours");
}
