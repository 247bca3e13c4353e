//! Measures the key index and the watch hub alone: `cargo run --release -p mvcc --example measure_watch_and_index [keys]`.
//!
//! Figures are processor time per operation on one thread. Compare runs on one machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk::Disk;
use disk::mem::MemDisk;
use mvcc::key_index::{CompactCursor, KeyIndex, Restorer};
use mvcc::watch::{Hub, WatchSpec};
use mvcc::{RangeEnd, Revision, Store};

fn rss_anon() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Time this process has spent on a processor: other processes do not disturb it much.
fn cpu() -> Duration {
    let times = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = times.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn report(what: &str, took: Duration, operations: u64) {
    println!(
        "{what:<52} {:>8.0} ns  ({operations} in {took:.2?})",
        took.as_nanos() as f64 / operations as f64
    );
}

fn key(number: u64) -> String {
    format!("/registry/pods/namespace-{:05}/deployment-{number:09}-abcde", number / 200)
}

/// A random order without a generator: multiplication by a number prime to all sizes used.
fn scattered(at: u64, keys: u64) -> u64 {
    (u128::from(at) * 2_654_435_761 % u128::from(keys)) as u64
}

fn revision(main: u64) -> Revision {
    Revision::new(main as i64, 0)
}

fn restore(keys: u64) -> KeyIndex {
    let names: Vec<String> = (0..keys).map(|at| key(scattered(at, keys))).collect();
    let held = rss_anon();
    let before = cpu();
    let mut restorer = Restorer::new();
    for (at, name) in names.iter().enumerate() {
        let main = at as u64 + 2;
        restorer.push(name.as_bytes(), revision(main), main as i64, 1, false).expect("in order");
    }
    let read = cpu() - before;
    let index = restorer.finish();
    report("restore, keys in random order", cpu() - before, keys);
    println!(
        "    of which reading and sorting {read:.2?}; {:.1} B/key",
        (rss_anon() - held) as f64 / keys as f64
    );
    index
}

fn index(keys: u64) {
    drop(restore(keys));
    let mut index = KeyIndex::new();
    let names: Vec<String> = (0..keys).map(|at| key(scattered(at, keys))).collect();
    let before = cpu();
    let mut view = index.reader();
    for (at, name) in names.iter().enumerate() {
        index.put(name.as_bytes(), revision(at as u64 + 2));
        if at % 100 == 0 {
            view = index.reader();
        }
    }
    report("insert, a view per 100", cpu() - before, keys);
    drop(view);
    let before = cpu();
    for (at, name) in names.iter().enumerate() {
        index.put(name.as_bytes(), revision(keys + at as u64 + 2));
    }
    report("update", cpu() - before, keys);
    let view = index.reader();
    let now = view.revision();
    let before = cpu();
    let found = names.iter().filter(|name| view.get(name.as_bytes(), now).is_some()).count();
    report("get", cpu() - before, found as u64);
    let before = cpu();
    let mut seen = 0;
    for at in 0..100 {
        let mut left = 10_000;
        let from = key(scattered(at, keys.saturating_sub(10_000).max(1)));
        view.range(from.as_bytes(), &RangeEnd::Unbounded, now, &mut |_, _| {
            left -= 1;
            seen += 1;
            left > 0
        });
    }
    report("scan in lists of 10,000, per key", cpu() - before, seen);
    let before = cpu();
    let counted: usize =
        (0..1000).map(|at| view.count(key(scattered(at, keys)).as_bytes(), &RangeEnd::Unbounded, now)).sum();
    report("count of half of all", cpu() - before, 1000);
    assert!(counted > 0);
    drop(view);
    let before = cpu();
    let mut cursor = CompactCursor::new(now);
    let (mut dead, mut longest, mut steps) = (0, Duration::ZERO, 0);
    let mut done = false;
    while !done {
        let step = cpu();
        done = index.compact(&mut cursor, 1000, &mut |_, _| dead += 1);
        longest = longest.max(cpu() - step);
        steps += 1;
    }
    report("compaction, per record given up", cpu() - before, dead);
    println!("    {steps} steps, the longest {longest:.2?}");
}

fn watch(streams: u64, watchers_per_stream: u64, rounds: u64) {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let options = bolt::Options { directory_bucket: Some(b"key"), ..bolt::Options::default() };
    let db = bolt::Db::open(&disk, Path::new("/db"), options).expect("a fresh file");
    let (mut store, _) = Store::restore(db.reader().view()).expect("a fresh store");
    let mut hub = Hub::new(&store.view());
    for at in 0..streams * watchers_per_stream {
        let spec = WatchSpec {
            stream: at % streams,
            id: 0,
            key: Bytes::from_static(b"/registry/pods/"),
            end: RangeEnd::Before(Bytes::from_static(b"/registry/pods0")),
            start_revision: 0,
            no_put: false,
            no_delete: false,
            prev_kv: true,
            progress_notify: true,
            fragment: false,
        };
        hub.create(spec, &store.view()).expect("a good range");
    }
    let mut batches = Vec::new();
    for round in 0..rounds {
        let mut txn = store.write();
        txn.put(key(round % 1000).as_bytes(), &[b'v'; 256], 0, false).expect("nothing is read");
        batches.push(txn.end().expect("a change"));
    }
    let view = store.view();
    let mut out = Vec::new();
    let mut sent = 0;
    let before = cpu();
    for batch in &batches {
        hub.publish(batch, &view, &mut out).expect("nothing is read from the file");
        for output in out.drain(..) {
            sent += output.watch_ids.len() as u64;
        }
    }
    let took = cpu() - before;
    report(&format!("event to {watchers_per_stream} watchers on each of {streams} streams"), took, sent);
}

fn main() {
    let keys = std::env::args().nth(1).and_then(|keys| keys.parse().ok()).unwrap_or(1_000_000);
    index(keys);
    watch(10, 100, 10_000);
    watch(1000, 1, 10_000);
    watch(1, 1, 100_000);
}
