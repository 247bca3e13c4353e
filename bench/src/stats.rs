//! What is measured: per class of operation a latency histogram and counts.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A class whose `primary` is set counts as an operation in the totals.
#[derive(Clone, Copy)]
pub(crate) struct ClassDef {
    pub(crate) name: &'static str,
    pub(crate) primary: bool,
}

pub(crate) const fn class(name: &'static str) -> ClassDef {
    ClassDef { name, primary: true }
}

pub(crate) const fn side(name: &'static str) -> ClassDef {
    ClassDef { name, primary: false }
}

pub(crate) struct Class {
    pub(crate) def: ClassDef,
    pub(crate) ops: u64,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    pub(crate) hist: Histogram<u64>,
}

pub(crate) struct Recorder {
    pub(crate) classes: Vec<Class>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) extra: BTreeMap<&'static str, f64>,
}

/// Nanoseconds, 1 us to 10 min, three digits.
fn hist() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, 600_000_000_000, 3).expect("constant bounds")
}

impl Recorder {
    pub(crate) fn new(defs: &[ClassDef]) -> Self {
        Recorder {
            classes: defs
                .iter()
                .map(|&def| Class { def, ops: 0, items: 0, bytes: 0, hist: hist() })
                .collect(),
            errors: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, class: usize, latency: Duration, items: u64, bytes: u64) {
        let c = &mut self.classes[class];
        c.ops += 1;
        c.items += items;
        c.bytes += bytes;
        c.hist.saturating_record(latency.as_nanos() as u64);
    }

    pub(crate) fn error(&mut self, what: String) {
        if self.errors.len() < 50 || self.errors.contains_key(&what) {
            *self.errors.entry(what).or_default() += 1;
        } else {
            *self.errors.entry("(other)".into()).or_default() += 1;
        }
    }

    pub(crate) fn bump(&mut self, name: &'static str, by: f64) {
        *self.extra.entry(name).or_default() += by;
    }

    pub(crate) fn merge(&mut self, other: Recorder) {
        for (a, b) in self.classes.iter_mut().zip(other.classes) {
            a.ops += b.ops;
            a.items += b.items;
            a.bytes += b.bytes;
            a.hist.add(b.hist).expect("same bounds");
        }
        for (k, v) in other.errors {
            *self.errors.entry(k).or_default() += v;
        }
        for (k, v) in other.extra {
            self.bump(k, v);
        }
    }

    pub(crate) fn total(&self) -> Class {
        let mut t = Class { def: class("total"), ops: 0, items: 0, bytes: 0, hist: hist() };
        for c in self.classes.iter().filter(|c| c.def.primary) {
            t.ops += c.ops;
            t.items += c.items;
            t.bytes += c.bytes;
            t.hist.add(&c.hist).expect("same bounds");
        }
        t
    }

    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn us(ns: f64) -> f64 {
    (ns / 100.0).round() / 10.0
}

pub(crate) fn latency_json(h: &Histogram<u64>) -> Value {
    let q = |q| us(h.value_at_quantile(q) as f64);
    json!({
        "mean": us(h.mean()), "p50": q(0.5), "p90": q(0.9), "p99": q(0.99),
        "p99.9": q(0.999), "max": us(h.max() as f64),
    })
}

pub(crate) fn class_json(c: &Class, elapsed: f64) -> Value {
    json!({
        "ops": c.ops,
        "ops_per_s": round1(c.ops as f64 / elapsed),
        "items": c.items,
        "items_per_s": round1(c.items as f64 / elapsed),
        "bytes": c.bytes,
        "mb_per_s": round1(c.bytes as f64 / elapsed / 1e6),
        "latency_us": latency_json(&c.hist),
    })
}

pub(crate) fn round1(v: f64) -> f64 {
    (v * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_and_totals() {
        let defs = [class("a"), side("b")];
        let (mut x, mut y) = (Recorder::new(&defs), Recorder::new(&defs));
        x.add(0, Duration::from_micros(10), 1, 5);
        y.add(0, Duration::from_micros(30), 1, 5);
        y.add(1, Duration::from_secs(1), 1, 5);
        y.error("boom".into());
        x.merge(y);
        let t = x.total();
        assert_eq!((t.ops, t.bytes, x.error_count()), (2, 10, 1));
        assert!(t.hist.max() < 40_000);
    }
}
