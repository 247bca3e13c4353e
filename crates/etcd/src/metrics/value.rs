//! The kinds of values: plain atomics. Most have one writer, and no writer ever waits.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds from any thread.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds from the one thread that owns this counter: a load and a store, no locked instruction.
    pub(crate) fn bump(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes over a total that somebody else counts.
    pub(crate) fn set(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Adds from any thread.
    pub(crate) fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by buckets that double: `start`, twice that, and so on.
#[derive(Debug)]
pub(crate) struct Histogram {
    start_ns: u64,
    /// One more than there are bounds.
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    /// A histogram whose lowest bound is `start`, with this many bounds.
    pub(crate) fn new(start: Duration, bounds: usize) -> Histogram {
        Histogram {
            start_ns: start.as_nanos() as u64,
            buckets: (0..=bounds).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }

    /// Bounds from 1 ms to 8.2 s, etcd's choice for most.
    pub(crate) fn millis() -> Histogram {
        Histogram::new(Duration::from_millis(1), 14)
    }

    pub(crate) fn observe(&self, duration: Duration) {
        self.observe_many(duration, 1);
    }

    /// The same on the one thread that owns this histogram: without locked instructions.
    pub(crate) fn observe_own(&self, duration: Duration) {
        let add = |to: &AtomicU64, n: u64| to.store(to.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        let ns = duration.as_nanos() as u64;
        add(&self.buckets[self.place(ns)], 1);
        add(&self.sum_ns, ns);
    }

    /// The bucket of a duration.
    fn place(&self, ns: u64) -> usize {
        let last = self.buckets.len() - 1;
        let (mut bound, mut at) = (self.start_ns, 0);
        while at < last && ns > bound {
            bound *= 2;
            at += 1;
        }
        at
    }

    /// The same duration, `n` times.
    pub(crate) fn observe_many(&self, duration: Duration, n: u64) {
        let ns = duration.as_nanos() as u64;
        self.buckets[self.place(ns)].fetch_add(n, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(n), Ordering::Relaxed);
    }

    /// What was observed so far.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let start = self.start_ns as f64 / 1e9;
        Snapshot {
            bounds: (1..self.buckets.len()).map(|at| start * (1u64 << (at - 1)) as f64).collect(),
            counts: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9,
        }
    }
}

/// Times of calls in milliseconds, by the bounds of Prometheus' libraries.
#[derive(Debug, Default)]
pub(crate) struct CallTimes {
    buckets: [Counter; CALL_BOUNDS_MS.len() + 1],
    sum_ms: Counter,
}

const CALL_BOUNDS_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

impl CallTimes {
    /// Counts a call, on the one thread that owns this.
    pub(crate) fn observe(&self, ms: u64) {
        let at = CALL_BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(CALL_BOUNDS_MS.len());
        self.buckets[at].bump(1);
        self.sum_ms.bump(ms);
    }

    /// What was observed so far.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            bounds: CALL_BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3).collect(),
            counts: self.buckets.iter().map(Counter::get).collect(),
            sum: self.sum_ms.get() as f64 / 1e3,
        }
    }
}

/// A histogram at one moment, or several of the same shape together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    /// Upper bounds, but for the last one, which is infinite.
    bounds: Vec<f64>,
    counts: Vec<u64>,
    pub(crate) sum: f64,
}

impl Snapshot {
    /// Adds what another histogram of the same shape observed.
    pub(crate) fn merge(mut self, other: Snapshot) -> Snapshot {
        debug_assert!(self.counts.len() == other.counts.len(), "shapes are the same");
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, more)| *mine += more);
        self.sum += other.sum;
        self
    }

    /// How often something was observed.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds, the last one infinite, each with how much lies at or below it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut total = 0;
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.counts).map(move |(bound, count)| {
            total += count;
            (bound, total)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        let histogram = Histogram::new(Duration::from_millis(1), 3);
        for micros in [1, 1000, 1001, 4000, 9000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let snapshot = histogram.snapshot();
        let rows: Vec<_> = snapshot.cumulative().collect();
        assert_eq!(rows, [(0.001, 2), (0.002, 3), (0.004, 4), (f64::INFINITY, 5)]);
        assert_eq!((snapshot.count(), snapshot.sum), (5, 0.015_002));
        histogram.observe_own(Duration::from_micros(1001));
        assert_eq!(histogram.snapshot().cumulative().nth(1), Some((0.002, 4)));
        let twice = snapshot.clone().merge(snapshot);
        assert_eq!(twice.count(), 10);
        let times = CallTimes::default();
        [5, 6, 20_000].into_iter().for_each(|ms| times.observe(ms));
        let rows: Vec<_> = times.snapshot().cumulative().filter(|(_, total)| *total > 0).take(2).collect();
        assert_eq!((rows, times.snapshot().count()), (vec![(0.005, 1), (0.01, 2)], 3));
    }
}
