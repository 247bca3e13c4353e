//! What a reader holds: the store as it was between two transactions.
//!
//! A view is one reference count to clone and never waits for anybody. It pins pages of the file and records of
//! the index, so a view that is kept makes both grow: hold it for the length of a read.

use crate::error::{Error, Result};
use crate::event::{Arena, EventBatch};
use crate::hash::{self, CompactionHash, HashKv};
use crate::history::{self, History};
use crate::key_index::{IndexView, RangeEnd};
use crate::range::{Index, RangeQuery, RangeSummary, Source, Visit};
use crate::records::Records;
use crate::schema::Bucket;
use crate::side::SideBuckets;
use crate::write_buf::{BufView, Frozen};
use crate::{KeyState, Revision};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// See the head of this file.
#[derive(Clone)]
pub struct View(Arc<State>);

pub(crate) struct State {
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    pub(crate) index: IndexView,
    pub(crate) active: BufView,
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) file: bolt::View,
    pub(crate) side: Arc<SideBuckets>,
    pub(crate) hashes: Arc<Vec<CompactionHash>>,
}

impl State {
    pub(crate) fn records(&self) -> Records<'_> {
        Records {
            active: &self.active,
            frozen: self.frozen.as_ref().map(|frozen| &frozen.view),
            file: &self.file,
        }
    }
}

impl View {
    pub(crate) fn new(state: State) -> View {
        View(Arc::new(state))
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        self.0.revision
    }

    /// The last revision a compaction was asked for; below it nothing can be read. -1 before the first.
    pub fn compact_revision(&self) -> i64 {
        self.0.compact_revision
    }

    /// Keys that exist.
    pub fn live_keys(&self) -> usize {
        self.0.index.live_keys()
    }

    /// Answers a range request; each key goes to `visit`, encoded.
    pub fn range(&self, query: &RangeQuery, visit: &mut Visit<'_>) -> Result<RangeSummary> {
        let state = &*self.0;
        let source = Source {
            index: Index::View(&state.index),
            records: state.records(),
            current: state.revision,
            compact: state.compact_revision,
        };
        source.range(query, visit)
    }

    /// What is known of a key at transaction `at`, without reading its record.
    pub fn key_state(&self, key: &[u8], at: i64) -> Option<KeyState> {
        self.0.index.get(key, at)
    }

    /// How many keys an interval has at the latest revision.
    pub fn count(&self, key: &[u8], end: &RangeEnd) -> usize {
        self.0.index.count(key, end, self.0.revision)
    }

    /// The record written by the put at `revision`, if it is there.
    pub fn get_at(&self, revision: Revision) -> Result<Option<Bytes>> {
        self.0.records().get_owned(revision, &mut Arena::default())
    }

    /// The key's record as of transaction `at`; nothing when the key did not exist then.
    pub fn key_at(&self, key: &[u8], at: i64) -> Result<Option<Bytes>> {
        if at > self.0.revision {
            return Err(Error::FutureRevision);
        }
        if at < self.0.compact_revision {
            return Err(Error::Compacted);
        }
        let Some(state) = self.0.index.get(key, at) else { return Ok(None) };
        let record = self.0.records().get_owned(state.modified, &mut Arena::default())?;
        record.map(Some).ok_or_else(|| Error::missing(state.modified))
    }

    /// The events of the transactions `from` to `to`, oldest first, at most about `budget` bytes of them but at
    /// least one whole transaction. Events of keys that `wanted` says no to are left out; a transaction without
    /// any other is left out as a whole.
    pub fn history(
        &self,
        from: i64,
        to: i64,
        budget: usize,
        wanted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<History> {
        if from < self.0.compact_revision {
            return Err(Error::Compacted);
        }
        history::read(self.0.records(), from, to.min(self.0.revision), budget, wanted)
    }

    /// All changes of one transaction.
    pub fn batch_of(&self, main: i64) -> Result<Option<EventBatch>> {
        Ok(self.history(main, main, 0, &mut |_| true)?.batches.pop())
    }

    /// The hash of all keys as of `revision` (0: the latest), equal on every member.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv> {
        hash::hash_kv(&self.0, revision)
    }

    /// The hashes of the last compactions, oldest first; at most ten.
    pub fn compaction_hashes(&self) -> &[CompactionHash] {
        &self.0.hashes
    }

    /// A value of a small bucket.
    pub fn side(&self, bucket: Bucket, key: &[u8]) -> Option<Bytes> {
        self.0.side.map(bucket).get(key).cloned()
    }

    /// All of a small bucket in key order.
    pub fn side_iter(&self, bucket: Bucket) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.side.map(bucket).iter()
    }

    /// Brings records from `from` on, about `bytes` of them, from the disk into memory, for a reader that must not wait
    /// for the disk. Returns the first that it did not come to; `None` at the end of the file.
    pub fn read_ahead(&self, from: Revision, bytes: usize) -> Result<Option<Revision>> {
        /// No page of the system is smaller.
        const PAGE: usize = 4096;
        let Some(bucket) = self.0.file.bucket(Bucket::Key.name())? else { return Ok(None) };
        let mut cursor = bucket.cursor().reading_ahead();
        let mut entry = cursor.seek(&from.key())?;
        let mut read = 0;
        while let Some((key, value)) = entry {
            if read >= bytes {
                return Ok(Revision::from_key(key).map(|(revision, _)| revision));
            }
            // Whatever else of a page is looked at comes with its first byte.
            for byte in value.iter().step_by(PAGE) {
                std::hint::black_box(*byte);
            }
            read += key.len() + value.len();
            entry = cursor.next()?;
        }
        Ok(None)
    }

    /// The file as this view sees it: what was committed when the view was made.
    pub fn file(&self) -> &bolt::View {
        &self.0.file
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("revision", &self.0.revision)
            .field("compact_revision", &self.0.compact_revision)
            .finish_non_exhaustive()
    }
}
