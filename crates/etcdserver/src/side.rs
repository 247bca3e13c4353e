//! Changes of the small buckets beside the keys: leases, alarms, auth, members, cluster.
//!
//! State that is replicated beside the keys returns its changes as values; the apply lane writes them into the
//! same commit batch as the index of the entry that caused them.

use bytes::Bytes;
use mvcc::schema::Bucket;

/// One change of one small bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideChange {
    /// Where.
    pub bucket: Bucket,
    /// Which.
    pub key: Bytes,
    /// The new value, `None` to delete.
    pub value: Option<Bytes>,
}

impl SideChange {
    /// Sets a key.
    pub fn put(bucket: Bucket, key: impl Into<Bytes>, value: impl Into<Bytes>) -> SideChange {
        SideChange { bucket, key: key.into(), value: Some(value.into()) }
    }

    /// Deletes a key.
    pub fn delete(bucket: Bucket, key: impl Into<Bytes>) -> SideChange {
        SideChange { bucket, key: key.into(), value: None }
    }
}
