//! The hashes by which members are compared: `HashKV`, the compaction hash, and `Hash` of the whole file.
//!
//! `HashKV` at revision R, with compact revision C: CRC-32C of the word `key` and then, in revision order, of
//! bucket key and value of every record with main <= R, leaving out
//! - records with main <= C that are not among the kept ones: of each key that exists at R, its newest revision
//!   not after R. If no key exists at R, nothing is left out by this rule, as in Go;
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
    let kept = Kept::at(state, revision);
    let records = state.records();
    let mut hasher = KvHasher::new();
    records.walk(Revision::default(), &mut |stored| {
        if stored.revision.main > revision {
            return false;
        }
        let old = stored.revision.main <= compact_revision;
        if !(old && (kept.leaves_out(stored.revision) || is_compacted_tombstone(&stored, compact_revision))) {
            hasher.add(&stored);
        }
        true
    })?;
    Ok(HashKv { hash: hasher.finish(), compact_revision, revision })
}

pub(crate) fn is_compacted_tombstone(stored: &Stored<'_>, compact_revision: i64) -> bool {
    stored.tombstone && stored.revision.main == compact_revision
}

/// Which records not above the compact revision belong to the hash.
enum Kept {
    /// These, sorted.
    Only(Vec<Revision>),
    /// All but these, sorted: what compactions have taken away, though it may still be in the file.
    AllBut(Vec<Revision>),
}

impl Kept {
    fn at(state: &State, revision: i64) -> Kept {
        let mut any = false;
        let mut kept = Vec::new();
        if state.compact_revision > 0 {
            state.index.keep(revision, &mut |modified| {
                any = true;
                if modified.main <= state.compact_revision {
                    kept.push(modified);
                }
            });
        }
        if any {
            kept.sort_unstable();
            Kept::Only(kept)
        } else {
            Kept::AllBut(taken_away(state.records()))
        }
    }

    fn leaves_out(&self, revision: Revision) -> bool {
        match self {
            Kept::Only(kept) => kept.binary_search(&revision).is_err(),
            Kept::AllBut(gone) => gone.binary_search(&revision).is_ok(),
        }
    }
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
