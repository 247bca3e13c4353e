//! What one commit changes.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::page::{KEY_MAX, VALUE_MAX};

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The key gets this value.
    Put(Bytes),
    /// The key goes away, if it is there.
    Delete,
    /// Nothing changes, but the leaf that covers the key is written anew, which moves it down in the file.
    Touch,
}

/// What happens to one bucket, in this order: delete, create, changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketChange {
    /// Create the bucket if it is not there (after `delete`).
    pub create: bool,
    /// Remove the bucket with all it holds.
    pub delete: bool,
    /// Changes of keys, sorted by key, each key once.
    pub changes: Vec<(Bytes, Op)>,
}

/// How much of the room held in reserve a commit may use, when there is no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reserve {
    /// Nothing: it stays whole behind what the commit writes.
    #[default]
    Keep,
    /// All but a part that is enough to delete with: for commits that deletions wait behind.
    Most,
    /// All: for commits that only delete, compact, or record an alarm, so that a full device can be emptied.
    All,
}

impl Reserve {
    /// Of `reserve` bytes, those that must be left.
    pub(crate) fn left(self, reserve: u64) -> u64 {
        match self {
            Reserve::Keep => reserve,
            Reserve::Most => reserve / 8,
            Reserve::All => 0,
        }
    }
}

/// One transaction: changes per bucket, all of them or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Changes by bucket name.
    pub buckets: BTreeMap<Bytes, BucketChange>,
    /// Whether this commit may use the room that is held in reserve.
    pub reserve: Reserve,
}

impl Batch {
    /// The change of bucket `name`, empty at first.
    pub fn bucket(&mut self, name: &[u8]) -> &mut BucketChange {
        self.buckets.entry(Bytes::copy_from_slice(name)).or_default()
    }

    /// Lengths come from outside and are answered; the order is the caller's promise and is asserted.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, change) in &self.buckets {
            check_key(name)?;
            let changes = &change.changes;
            assert!(changes.is_sorted_by(|a, b| a.0 < b.0), "changes not sorted by unique keys");
            assert!(!change.delete || change.create || changes.is_empty(), "changes to a deleted bucket");
            for (key, op) in changes {
                match op {
                    Op::Put(value) if value.len() > VALUE_MAX => {
                        return Err(Error::ValueLength { len: value.len() });
                    }
                    Op::Put(_) => check_key(key)?,
                    Op::Delete | Op::Touch => {}
                }
            }
        }
        Ok(())
    }
}

fn check_key(key: &[u8]) -> Result<()> {
    if (1..=KEY_MAX).contains(&key.len()) { Ok(()) } else { Err(Error::KeyLength { len: key.len() }) }
}
