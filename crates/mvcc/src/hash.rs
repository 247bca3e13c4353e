//! The hashes by which members are compared: `HashKV`, the compaction hash, and `Hash` of the whole file.
//!
//! `HashKV` at revision R, with compact revision C: CRC-32C of the word `key` and then, in revision order, of
//! bucket key and value of every record with main <= R, leaving out
//! - records with main <= C that are not among the kept ones: of each key that exists at R, its newest revision
//!   not after R. If no key exists at R, those that the compaction keeps: of each key that exists at C, its newest
//!   revision not after C. (Go then takes all that it finds, which is the same once the compaction has ended);
//! - a tombstone with main = C, since versions before 3.4.34 and 3.5.16 remove it.
//!
//! The compaction hash is the same walk with C the previous compact revision, R the new one and the kept ones
//! those the compaction keeps, tombstones included.

use crate::Revision;
use crate::error::{Error, Result};
use crate::records::{Records, Stored};
use crate::schema::Bucket;
use crate::view::State;
use crate::write_buf::DeadRecord;

/// How many compaction hashes are remembered.
pub(crate) const REMEMBERED: usize = 10;

/// The answer to `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The compact revision the hash was made with; -1 for none.
    pub compact_revision: i64,
    /// The revision it covers.
    pub revision: i64,
}

/// What a compaction leaves behind for members to compare: its revision and, as `compact_revision`, that of the
/// compaction before it.
pub type CompactionHash = HashKv;

/// A hash under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvHasher(u32);

impl KvHasher {
    pub(crate) fn new() -> KvHasher {
        KvHasher(crc32c::crc32c(Bucket::Key.name()))
    }

    pub(crate) fn add(&mut self, stored: &Stored<'_>) {
        self.0 = if stored.tombstone {
            crc32c::crc32c_append(self.0, &stored.revision.tombstone_key())
        } else {
            crc32c::crc32c_append(self.0, &stored.revision.key())
        };
        self.0 = crc32c::crc32c_append(self.0, stored.value);
    }

    pub(crate) fn finish(self) -> u32 {
        self.0
    }
}

pub(crate) fn hash_kv(state: &State, asked: i64) -> Result<HashKv> {
    // Go finds "compaction 0" of a fresh store here even when the current revision is asked for; we do not.
    if asked != 0
        && let Some(remembered) = state.hashes.iter().find(|hash| hash.revision == asked)
    {
        return Ok(*remembered);
    }
    let compact_revision = state.compact_revision;
    if asked > 0 && asked < compact_revision {
        return Err(Error::Compacted);
    }
    if asked > state.revision {
        return Err(Error::FutureRevision);
    }
    let revision = if asked == 0 { state.revision } else { asked };
    let kept = kept(state, revision);
    let records = state.records();
    let mut hasher = KvHasher::new();
    records.walk(Revision::default(), &mut |stored| {
        if stored.revision.main > revision {
            return false;
        }
        let old = stored.revision.main <= compact_revision;
        let left_out = kept.binary_search(&stored.revision).is_err() || is_compacted_tombstone(&stored, compact_revision);
        if !(old && left_out) {
            hasher.add(&stored);
        }
        true
    })?;
    Ok(HashKv { hash: hasher.finish(), compact_revision, revision })
}

pub(crate) fn is_compacted_tombstone(stored: &Stored<'_>, compact_revision: i64) -> bool {
    stored.tombstone && stored.revision.main == compact_revision
}

/// Which records not above the compact revision belong to the hash, sorted.
///
/// Where no key exists at `revision`, Go takes every record that is in the file. Once a compaction has ended those
/// are what it keeps; while it is under way they are more, by as much as it has not come to, and members that are
/// compared then differ without a fault in any of them. What the compaction keeps is the same at all times.
fn kept(state: &State, revision: i64) -> Vec<Revision> {
    if state.compact_revision <= 0 {
        return Vec::new();
    }
    let kept_at = |at: i64| {
        let mut any = false;
        let mut kept = Vec::new();
        state.index.keep(at, &mut |modified| {
            any = true;
            if modified.main <= state.compact_revision {
                kept.push(modified);
            }
        });
        any.then_some(kept)
    };
    let mut kept = kept_at(revision).or_else(|| kept_at(state.compact_revision)).unwrap_or_default();
    kept.sort_unstable();
    kept
}

/// Records that compactions have taken away and that a walk may still meet, sorted.
pub(crate) fn taken_away(records: Records<'_>) -> Vec<Revision> {
    let buffers = records.frozen.into_iter().chain([records.active]);
    let mut gone: Vec<Revision> =
        buffers.flat_map(|buffer| buffer.deletes.iter().map(DeadRecord::revision)).collect();
    gone.sort_unstable();
    gone
}

/// The hash of a whole file: of each bucket in name order its name, then all keys and values. `leave_out` names
/// keys of the `meta` bucket that do not count, see [`crate::schema::hash_leaves_out`].
///
/// Members agree on it only if they wrote the same bytes everywhere; it also covers buckets that etcd does not
/// know. What has not been committed to the file is not in it.
pub fn hash_file(file: &bolt::View, leave_out: &[&[u8]]) -> Result<u32> {
    let mut crc = 0;
    for name in file.bucket_names()? {
        crc = crc32c::crc32c_append(crc, name);
        let Some(bucket) = file.bucket(name)? else { continue };
        let ignored = if name[..] == *Bucket::Meta.name() { leave_out } else { &[] };
        let mut cursor = bucket.cursor();
        let mut entry = cursor.first()?;
        while let Some((key, value)) = entry {
            if !ignored.contains(&key) {
                crc = crc32c::crc32c_append(crc, key);
                crc = crc32c::crc32c_append(crc, value);
            }
            entry = cursor.next()?;
        }
    }
    Ok(crc)
}
