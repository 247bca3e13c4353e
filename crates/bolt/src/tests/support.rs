//! A dumb model of a database, and random changes for both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::{Batch, Db, Op, Options, View};
use bytes::Bytes;
use disk::Disk;
use disk::mem::MemDisk;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What a database holds.
pub(crate) type Model = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The name every test gives its database.
pub(crate) const PATH: &str = "/db";

pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

pub(crate) fn open(disk: &MemDisk, options: &Options) -> crate::Result<Db> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Db::open(&disk, Path::new(PATH), options.clone())
}

/// Small numbers where the defaults would make a test slow.
pub(crate) fn small() -> Options {
    Options {
        grow_bytes: 1 << 20,
        reserve_bytes: 64 << 10,
        directory_bucket: Some(b"key"),
        ..Options::default()
    }
}

/// All that a view shows, read with cursors.
pub(crate) fn dump(view: &View) -> Model {
    let mut model = Model::new();
    for name in view.bucket_names().unwrap() {
        let mut entries = BTreeMap::new();
        let mut cursor = view.bucket(name).unwrap().unwrap().cursor();
        while let Some((key, value)) = cursor.next().unwrap() {
            entries.insert(key.to_vec(), value.to_vec());
        }
        model.insert(name.to_vec(), entries);
    }
    model
}

/// Panics with all violations when the database or its accounts are wrong.
pub(crate) fn check(db: &Db, context: &str) {
    if let Err(violations) = crate::check::check_db(db) {
        let text: Vec<String> = violations.iter().take(10).map(ToString::to_string).collect();
        panic!("{context}: {}", text.join("\n"));
    }
}

/// A key of the form the `key` bucket has: grows with `n`.
pub(crate) fn revision_key(n: u64, sub: u64) -> Vec<u8> {
    let mut key = n.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(sub.to_be_bytes());
    key
}

/// Makes batches of random changes and keeps the model they lead to.
pub(crate) struct Changes {
    pub(crate) rng: SmallRng,
    pub(crate) model: Model,
    revision: u64,
    /// Length of the longest ordinary value.
    pub(crate) value_max: usize,
    /// Length of random keys in the small buckets, to make branch pages fill soon.
    pub(crate) key_pad: usize,
}

impl Changes {
    pub(crate) fn new(seed: u64) -> Changes {
        Changes { rng: rng(seed), model: Model::new(), revision: 0, value_max: 1200, key_pad: 0 }
    }

    /// Goes on from what somebody else left.
    pub(crate) fn adopt(&mut self, model: Model) {
        let last = model.get(&b"key"[..]).and_then(|entries| entries.last_key_value());
        self.revision = last.map_or(0, |(key, _)| u64::from_be_bytes(*key.first_chunk().unwrap()));
        self.model = model;
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    fn value(&mut self) -> Vec<u8> {
        let len = if self.chance(50) {
            self.rng.random_range(0..20_000)
        } else {
            self.rng.random_range(0..self.value_max)
        };
        vec![(self.revision % 251) as u8; len]
    }

    /// Appends of new keys, deletes of old ones in ranges of any density, as revisions are written and compacted.
    fn revisions(&mut self, edits: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        for _ in 0..self.rng.random_range(0..150) {
            // Many keys with the same first eight bytes now and then, as in large transactions.
            let same = self.chance(2);
            self.revision += u64::from(!same);
            let sub = if same { self.rng.random_range(0..10_000) } else { 0 };
            let value = self.value();
            edits.insert(revision_key(self.revision, sub), Some(value));
        }
        if self.chance(3) {
            let keys: Vec<Vec<u8>> = self
                .model
                .get(&b"key"[..])
                .map(|entries| entries.keys().cloned().collect())
                .unwrap_or_default();
            if keys.is_empty() {
                return;
            }
            let start = self.rng.random_range(0..keys.len());
            let end = self.rng.random_range(start..=keys.len());
            let percent = [2, 30, 90, 99, 100][self.rng.random_range(0..5)];
            for key in &keys[start..end] {
                if self.rng.random_range(0..100) < percent {
                    edits.insert(key.clone(), None);
                }
            }
        }
    }

    fn random_keys(&mut self, name: &[u8], edits: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        for _ in 0..self.rng.random_range(0..40) {
            let mut key = format!("k{:05}", self.rng.random_range(0..3000)).into_bytes();
            key.resize(key.len() + self.key_pad, b'.');
            let value = if self.rng.random_range(0..100) < 45 {
                None
            } else {
                let len = self.rng.random_range(0..300);
                Some(vec![7; len])
            };
            edits.insert(key, value);
        }
        if self.chance(30) {
            for key in self.model.get(name).into_iter().flat_map(BTreeMap::keys) {
                edits.insert(key.clone(), None);
            }
        }
    }

    /// The next batch; the model is already as it will be after it.
    pub(crate) fn next(&mut self) -> Batch {
        let mut batch = Batch::default();
        for name in [&b"auth"[..], b"key", b"lease", b"members", b"meta"] {
            let mut edits = BTreeMap::new();
            if name == b"key" {
                self.revisions(&mut edits);
            } else if self.chance(3) {
                self.random_keys(name, &mut edits);
            }
            let change = batch.bucket(name);
            change.create = true;
            if name == b"members" && self.chance(20) {
                change.delete = true;
                self.model.remove(name);
            }
            let entries = self.model.entry(name.to_vec()).or_default();
            for (key, value) in &edits {
                match value {
                    Some(value) => entries.insert(key.clone(), value.clone()),
                    None => entries.remove(key),
                };
            }
            let touch: Vec<Vec<u8>> =
                entries.keys().filter(|key| !edits.contains_key(*key)).cloned().collect();
            let change = batch.bucket(name);
            change.changes = edits
                .into_iter()
                .map(|(key, value)| (key.into(), value.map_or(Op::Delete, |value| Op::Put(value.into()))))
                .collect();
            if !touch.is_empty() && self.chance(10) {
                let key = touch[self.rng.random_range(0..touch.len())].clone();
                batch.bucket(name).changes.push((key.into(), Op::Touch));
                batch.bucket(name).changes.sort_by(|a, b| a.0.cmp(&b.0));
            }
        }
        batch
    }
}

/// A batch of puts into one bucket, created if needed.
pub(crate) fn puts(bucket: &[u8], entries: &[(&[u8], &[u8])]) -> Batch {
    let mut batch = Batch::default();
    let change = batch.bucket(bucket);
    change.create = true;
    change.changes = entries
        .iter()
        .map(|(key, value)| (Bytes::copy_from_slice(key), Op::Put(Bytes::copy_from_slice(value))))
        .collect();
    change.changes.sort_by(|a, b| a.0.cmp(&b.0));
    batch
}
