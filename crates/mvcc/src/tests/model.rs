//! The dumb model: a list of everything ever written, and answers found by going through it.

use crate::revision::Revision;
use crate::{KeyValue, RangeEnd, RangeQuery, SortOrder, SortTarget};
use std::collections::{BTreeMap, BTreeSet};

/// A write: `None` is a deletion.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) revision: Revision,
    pub(super) key: Vec<u8>,
    pub(super) record: Option<Vec<u8>>,
}

impl Write {
    fn stored(&self) -> Vec<u8> {
        self.record.clone().unwrap_or_else(|| encode(&KeyValue { key: &self.key, ..KeyValue::default() }))
    }

    pub(super) fn bucket_key(&self) -> Vec<u8> {
        match self.record {
            Some(_) => self.revision.key().to_vec(),
            None => self.revision.tombstone_key().to_vec(),
        }
    }
}

/// hash, compact revision, revision
pub(super) type Hash = (u32, i64, i64);

#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Everything written.
    pub(super) writes: Vec<Write>,
    /// What a finished compaction would have left of it.
    pub(super) physical: Vec<Write>,
    pub(super) revision: i64,
    pub(super) compact: i64,
    /// Scheduled and not finished, each with the hash it will leave.
    pub(super) jobs: Vec<(i64, Option<Hash>)>,
    pub(super) hashes: Vec<Hash>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Compacted,
    Future,
}

/// Found keys, count, more.
pub(super) type Found = (Vec<Vec<u8>>, i64, bool);

fn encode(kv: &KeyValue<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    kv.encode(&mut out);
    out
}

impl Default for Model {
    fn default() -> Model {
        Model { writes: vec![], physical: vec![], revision: 1, compact: -1, jobs: vec![], hashes: vec![] }
    }
}

impl Model {
    fn write(&mut self, revision: Revision, key: &[u8], record: Option<Vec<u8>>) {
        let write = Write { revision, key: key.to_vec(), record };
        self.writes.push(write.clone());
        self.physical.push(write);
    }

    /// A put as change `sub` of the next transaction.
    pub(super) fn put(&mut self, sub: i64, key: &[u8], value: &[u8], lease: i64) {
        let main = self.revision + 1;
        let state = self.state(i64::MAX);
        let old = state.get(key).map(|record| KeyValue::decode(record).unwrap());
        let kv = KeyValue {
            key,
            create_revision: old.map_or(main, |old| old.create_revision),
            mod_revision: main,
            version: old.map_or(1, |old| old.version + 1),
            value,
            lease,
        };
        let record = encode(&kv);
        self.write(Revision::new(main, sub), key, Some(record));
    }

    /// Deletes an interval from change `sub` on; the keys that were there.
    pub(super) fn delete(&mut self, sub: i64, key: &[u8], end: &RangeEnd) -> Vec<Vec<u8>> {
        let main = self.revision + 1;
        let keys: Vec<Vec<u8>> = self.state(i64::MAX).into_keys().filter(|k| end.contains(key, k)).collect();
        for (sub, key) in (sub..).zip(&keys) {
            self.write(Revision::new(main, sub), key, None);
        }
        keys
    }

    /// Key to record as of transaction `at`.
    pub(super) fn state(&self, at: i64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut state = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.revision.main <= at) {
            match &write.record {
                Some(record) => state.insert(write.key.clone(), record.clone()),
                None => state.remove(&write.key),
            };
        }
        state
    }

    pub(super) fn attachments(&self) -> Vec<(i64, Vec<u8>)> {
        let state = self.state(i64::MAX);
        let leases = state.into_iter().map(|(key, record)| (KeyValue::decode(&record).unwrap().lease, key));
        leases.filter(|(lease, _)| *lease != 0).collect()
    }

    pub(super) fn range(&self, query: &RangeQuery) -> Result<Found, Refused> {
        if query.revision > self.revision {
            return Err(Refused::Future);
        }
        let at = if query.revision <= 0 { self.revision } else { query.revision };
        if at < self.compact {
            return Err(Refused::Compacted);
        }
        let mut found: Vec<Vec<u8>> = Vec::new();
        for (key, record) in self.state(at) {
            if query.end.contains(&query.key, &key) {
                found.push(record);
            }
        }
        let count = found.len() as i64;
        if query.count_only {
            return Ok((vec![], count, false));
        }
        let filtered = [query.min_mod, query.max_mod, query.min_create, query.max_create] != [0; 4];
        if query.limit > 0 && query.order == SortOrder::None && !filtered {
            found.truncate(query.limit as usize + 1);
        }
        found.retain(|record| {
            let kv = KeyValue::decode(record).unwrap();
            !(query.min_mod != 0 && kv.mod_revision < query.min_mod
                || query.max_mod != 0 && kv.mod_revision > query.max_mod
                || query.min_create != 0 && kv.create_revision < query.min_create
                || query.max_create != 0 && kv.create_revision > query.max_create)
        });
        sort(query, &mut found);
        let more = query.limit > 0 && found.len() as i64 > query.limit;
        if more {
            found.truncate(query.limit as usize);
        }
        if query.keys_only {
            for record in &mut found {
                let kv = KeyValue::decode(record).unwrap();
                let keeps_lease = query.target == SortTarget::Value || query.keys_only_lease;
                let lease = if keeps_lease { kv.lease } else { 0 };
                *record = encode(&KeyValue { value: b"", lease, ..kv });
            }
        }
        Ok((found, count, more))
    }

    /// What a compaction at `at` keeps: of each key the newest not after it, a tombstone only at `at` itself. If
    /// transaction `at` deleted the key and created it again, both.
    fn available(&self, at: i64) -> BTreeSet<Revision> {
        let mut by_key: BTreeMap<&[u8], Vec<&Write>> = BTreeMap::new();
        for write in self.physical.iter().filter(|write| write.revision.main <= at) {
            by_key.entry(&write.key).or_default().push(write);
        }
        let mut kept = BTreeSet::new();
        for writes in by_key.values() {
            let mut newest_first = writes.iter().rev();
            let is_late_tombstone = |write: &Write| write.record.is_none() && write.revision.main == at;
            let newest = newest_first.next().expect("no key without a write");
            if newest.record.is_some() || is_late_tombstone(newest) {
                kept.insert(newest.revision);
            }
            if let Some(before) = newest_first.next()
                && newest.record.is_some()
                && is_late_tombstone(before)
            {
                kept.insert(before.revision);
            }
        }
        kept
    }

    fn hash(&self, compact: i64, at: i64, kept: &BTreeSet<Revision>) -> u32 {
        let mut bytes = b"key".to_vec();
        for write in &self.physical {
            let main = write.revision.main;
            let left_out = main <= compact && !kept.is_empty() && !kept.contains(&write.revision);
            let compacted_tombstone = main == compact && write.record.is_none();
            if main <= at && !left_out && !compacted_tombstone {
                bytes.extend(write.bucket_key());
                bytes.extend(write.stored());
            }
        }
        crc32c::crc32c(&bytes)
    }

    pub(super) fn hash_kv(&self, asked: i64) -> Result<Hash, Refused> {
        if let Some(hash) = self.hashes.iter().find(|hash| asked != 0 && hash.2 == asked) {
            return Ok(*hash);
        }
        if asked > 0 && asked < self.compact {
            return Err(Refused::Compacted);
        }
        if asked > self.revision {
            return Err(Refused::Future);
        }
        let at = if asked == 0 { self.revision } else { asked };
        let state = self.state(at);
        let kept = state.values().map(|record| KeyValue::decode(record).unwrap());
        let kept: BTreeSet<(i64, Vec<u8>)> = kept.map(|kv| (kv.mod_revision, kv.key.to_vec())).collect();
        let revisions = self.newest_revisions(at, &kept);
        Ok((self.hash(self.compact, at, &revisions), self.compact, at))
    }

    fn newest_revisions(&self, at: i64, kept: &BTreeSet<(i64, Vec<u8>)>) -> BTreeSet<Revision> {
        let mut newest = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.revision.main <= at) {
            newest.insert(&write.key, write.revision);
        }
        let is_kept = |key: &[u8], main| kept.contains(&(main, key.to_vec()));
        newest.into_iter().filter(|(key, revision)| is_kept(key, revision.main)).map(|(_, r)| r).collect()
    }

    pub(super) fn schedule(&mut self, at: i64) -> Result<(), Refused> {
        if at <= self.compact {
            return Err(Refused::Compacted);
        }
        if at > self.revision {
            return Err(Refused::Future);
        }
        let kept = self.available(at);
        let hash = self.jobs.is_empty().then(|| (self.hash(self.compact, at, &kept), self.compact, at));
        self.jobs.push((at, hash));
        self.physical.retain(|write| write.revision.main > at || kept.contains(&write.revision));
        self.compact = at;
        Ok(())
    }

    /// The store says that the compaction at `at` is finished.
    pub(super) fn finished(&mut self, at: i64) {
        let done = self.jobs.iter().position(|job| job.0 == at).expect("it was scheduled");
        for (_, hash) in self.jobs.drain(..=done) {
            self.hashes.extend(hash);
        }
        if self.hashes.len() > 10 {
            self.hashes.remove(0);
        }
    }

    /// The process started again on this state.
    pub(super) fn restarted(&mut self) {
        self.hashes.clear();
        if let Some((at, _)) = self.jobs.last() {
            self.jobs = vec![(*at, None)];
        }
    }
}

fn sort(query: &RangeQuery, found: &mut [Vec<u8>]) {
    let descend = query.order == SortOrder::Descend;
    let kv = |record: &[u8]| {
        let kv = KeyValue::decode(record).unwrap();
        (kv.key.to_vec(), kv.version, kv.create_revision, kv.mod_revision, kv.value.to_vec())
    };
    found.sort_by(|a, b| {
        let (a, b) = (kv(a), kv(b));
        let order = match query.target {
            SortTarget::Key => a.0.cmp(&b.0),
            SortTarget::Version => a.1.cmp(&b.1),
            SortTarget::Create => a.2.cmp(&b.2),
            SortTarget::Mod => a.3.cmp(&b.3),
            SortTarget::Value => a.4.cmp(&b.4),
        };
        if descend { order.reverse() } else { order }
    });
}
