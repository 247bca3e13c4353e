//! A store from a file: at start, and when a snapshot has been received.
//!
//! The current revision is the largest one found, but never below the compaction marks: if the newest record was
//! a tombstone and compaction took it away, the marks are all that remembers how far the store had come.

use crate::Revision;
use crate::compaction::Compactor;
use crate::error::{Error, Result};
use crate::event::Arena;
use crate::key_index::Restorer;
use crate::mutant::Mutant;
use crate::range::decode;
use crate::records::{Records, Stored};
use crate::schema::{self, Bucket};
use crate::side::SideBuckets;
use crate::store::{Applied, Store};
use crate::write_buf::{BufView, WriteBuf};
use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::Arc;

/// A store beyond this revision could not go on counting; no honest one gets there.
const REVISION_MAX: i64 = i64::MAX >> 8;

/// What was found in the file beside the keys.
#[derive(Debug, Default)]
pub struct Restored {
    /// Keys and the leases they are attached to, in key order.
    pub attachments: Vec<(i64, Bytes)>,
    /// The store's revision; 1 for a fresh one.
    pub current_revision: i64,
    /// The last compaction that was carried out; -1 for none.
    pub compact_revision: i64,
    /// A compaction that was cut off and goes on.
    pub scheduled: Option<i64>,
    /// Index of the last raft entry in the file; 0 for a fresh one.
    pub consistent_index: u64,
    /// Its term; 0 before 3.5.
    pub term: u64,
    /// JSON of the conf state, if there is one. It can be stale: the members bucket decides.
    pub conf_state: Option<Bytes>,
    /// Keys that exist.
    pub live_keys: usize,
    /// Records in the file.
    pub records: u64,
}

impl Store {
    /// Reads a file into a store. A fresh or older file gets the buckets it lacks with the first batch; an
    /// interrupted compaction goes on with [`Store::compaction_step`].
    pub fn restore(file: bolt::View) -> Result<(Store, Restored)> {
        let mut create = Vec::new();
        let mut side = SideBuckets::default();
        for bucket in Bucket::ALL {
            if file.bucket(bucket.name())?.is_none() {
                create.push(bucket);
            } else if bucket != Bucket::Key {
                load_side(&file, bucket, &mut side)?;
            }
        }
        let (keys, index) = restore_keys(&file)?;
        let meta = |key: &[u8]| side.map(Bucket::Meta).get(key);
        let mark = |key| compaction_mark(meta(key));
        let finished = mark(schema::FINISHED_COMPACT_REV)?;
        let scheduled = mark(schema::SCHEDULED_COMPACT_REV)?;
        let marks = if Mutant::RevisionFromRecords.is_on() { 1 } else { finished.max(scheduled) };
        let current_revision = keys.last.max(marks).max(1);
        if current_revision > REVISION_MAX {
            return Err(Error::Corrupt(format!("revision {current_revision} leaves no room for another")));
        }
        let number = |key| meta(key).and_then(|value| schema::read_u64(value)).unwrap_or(0);
        let restored = Restored {
            attachments: keys.attachments(),
            current_revision,
            compact_revision: finished,
            scheduled: (scheduled > finished).then_some(scheduled),
            consistent_index: number(schema::CONSISTENT_INDEX),
            term: number(schema::TERM),
            conf_state: meta(schema::CONF_STATE).cloned(),
            live_keys: index.live_keys(),
            records: keys.records,
        };
        let mut store = Store {
            index,
            active: WriteBuf::default(),
            frozen: None,
            deletes_max: usize::MAX,
            file,
            side: Arc::new(side),
            revision: restored.current_revision,
            compact_revision: finished,
            compactor: Compactor::default(),
            hashes: Arc::default(),
            arena: Arena::default(),
            create,
            applied: Applied { index: restored.consistent_index, term: restored.term, changed: false },
            counts: crate::store::Counts::default(),
        };
        if let Some(scheduled) = restored.scheduled {
            store.schedule_compaction(scheduled)?;
        }
        Ok((store, restored))
    }
}

fn load_side(file: &bolt::View, bucket: Bucket, side: &mut SideBuckets) -> Result<()> {
    let Some(found) = file.bucket(bucket.name())? else { return Ok(()) };
    let map = side.map_mut(bucket);
    let mut cursor = found.cursor();
    let mut entry = cursor.first()?;
    while let Some((key, value)) = entry {
        map.set(Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
        entry = cursor.next()?;
    }
    Ok(())
}

/// A mark that is absent counts as -1.
fn compaction_mark(value: Option<&Bytes>) -> Result<i64> {
    let Some(value) = value else { return Ok(-1) };
    schema::read_compact_rev(value)
        .ok_or_else(|| Error::Corrupt(format!("a compaction mark in the meta bucket is {:02x?}", &value[..])))
}

/// What the key bucket told beside the index.
struct Keys {
    last: i64,
    records: u64,
    /// Keys whose last put named a lease.
    leases: HashMap<Bytes, i64, FixedState>,
}

impl Keys {
    fn attach(&mut self, key: &[u8], lease: i64) {
        if lease != 0 {
            if let Some(attached) = self.leases.get_mut(key) {
                *attached = lease;
            } else {
                self.leases.insert(Bytes::copy_from_slice(key), lease);
            }
        } else if !self.leases.is_empty() {
            self.leases.remove(key);
        }
    }

    fn attachments(&self) -> Vec<(i64, Bytes)> {
        let mut attachments: Vec<(i64, Bytes)> =
            self.leases.iter().map(|(key, lease)| (*lease, key.clone())).collect();
        attachments.sort_unstable_by(|a, b| a.1.cmp(&b.1));
        attachments
    }
}

fn restore_keys(file: &bolt::View) -> Result<(Keys, crate::key_index::KeyIndex)> {
    let empty = BufView::default();
    let records = Records { active: &empty, frozen: None, file };
    let mut keys = Keys { last: 0, records: 0, leases: HashMap::with_hasher(FixedState::default()) };
    let mut restorer = Restorer::new();
    let mut failed = None;
    // Nothing was ever written at transaction 0.
    records.walk(
        Revision::new(1, 0),
        &mut |stored| match restore_record(&mut keys, &mut restorer, stored) {
            Ok(()) => true,
            Err(error) => {
                failed = Some(error);
                false
            }
        },
    )?;
    match failed {
        Some(error) => Err(error),
        None => Ok((keys, restorer.finish())),
    }
}

fn restore_record(keys: &mut Keys, restorer: &mut Restorer, stored: Stored<'_>) -> Result<()> {
    let Stored { revision, tombstone, value } = stored;
    let kv = decode(value, revision)?;
    if !(tombstone && Mutant::RevisionFromRecords.is_on()) {
        keys.last = revision.main;
    }
    keys.records += 1;
    keys.attach(kv.key, if tombstone { 0 } else { kv.lease });
    restorer
        .push(kv.key, revision, kv.create_revision, kv.version, tombstone)
        .map_err(|error| Error::Corrupt(format!("revision {revision}: {error}")))
}
