//! What clients and watchers write down while they go on, and what is wrong at first sight.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use api::mvccpb::KeyValue;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::history::History;
use crate::ledger::Ledger;

/// A read whose answer is compared once the watch has come that far.
#[derive(Clone, Debug)]
pub struct Read {
    /// What to call it.
    pub what: &'static str,
    /// First key.
    pub key: Bytes,
    /// End, empty for one key.
    pub end: Bytes,
    /// The revision at which it was answered.
    pub revision: i64,
    /// The keys it gave.
    pub answer: Vec<KeyValue>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Book {
    /// What happened.
    pub history: Mutex<History>,
    /// What was asked for, and how that ended.
    pub ledger: Mutex<Ledger>,
    /// Reads not yet compared.
    pub reads: Mutex<Vec<Read>>,
    /// Leases that somebody may attach keys to.
    pub leases: Mutex<Vec<i64>>,
    /// How often requests ended without saying what became of them, by code and text.
    pub doubts: Mutex<BTreeMap<String, u64>>,
    /// The first thing that went wrong outside the checks.
    failure: Mutex<Option<String>>,
    /// Highest revision that any answer showed.
    seen: AtomicI64,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            history: Mutex::default(),
            ledger: Mutex::default(),
            reads: Mutex::default(),
            leases: Mutex::default(),
            doubts: Mutex::default(),
            failure: Mutex::default(),
            seen: AtomicI64::new(1),
        }
    }
}

impl Book {
    /// Somebody was shown this revision.
    pub fn see(&self, revision: i64) {
        self.seen.fetch_max(revision, Ordering::SeqCst);
    }

    /// The highest revision that anybody was shown.
    pub fn seen(&self) -> i64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Notes that something is wrong; the first one counts.
    pub fn fail(&self, what: String) {
        self.failure.lock().get_or_insert(what);
    }

    /// What went wrong first.
    ///
    /// # Errors
    /// Just that.
    pub fn failure(&self) -> Result<(), String> {
        self.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Compares reads of up to a revision, which must have happened, with the history; their number.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare_reads(&self, upto: i64) -> Result<u64, String> {
        let history = self.history.lock();
        let mut reads = self.reads.lock();
        let (due, later): (Vec<Read>, _) = std::mem::take(&mut *reads).into_iter().partition(|read| read.revision <= upto);
        *reads = later;
        for read in &due {
            history.check_range(read.what, &read.key, &read.end, read.revision, &read.answer)?;
        }
        Ok(due.len() as u64)
    }
}
