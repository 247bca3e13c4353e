//! Every bucket and key of the database file, and which storage version brought it.
//!
//! | bucket | key | value | since |
//! |---|---|---|---|
//! | `key` | revision, 17 or 18 bytes | encoded `mvccpb.KeyValue` | 3.0 |
//! | `lease` | lease id, 8 bytes big endian | encoded `leasepb.Lease` | 3.0 |
//! | `alarm` | encoded `AlarmMember` | empty | 3.0 |
//! | `auth` | `authEnabled`, `authRevision` | one byte; 8 bytes big endian | 3.0, 3.1 |
//! | `authUsers`, `authRoles` | name | encoded `authpb.User`, `authpb.Role` | 3.0 |
//! | `members`, `members_removed` | member id as hex text | JSON; `removed` | 3.0 |
//! | `cluster` | `clusterVersion`, `downgrade` | text; JSON | 3.0, 3.5 |
//! | `meta` | `consistent_index` | 8 bytes big endian | 3.0 |
//! | `meta` | `scheduledCompactRev`, `finishedCompactRev` | revision, 17 bytes | 3.0 |
//! | `meta` | `term`, `confState` | 8 bytes big endian; JSON | 3.5 |
//! | `meta` | `storageVersion` | text, `3.6.0` | 3.6 |

use crate::Revision;
use bytes::Bytes;
use std::fmt;

/// A bucket that etcd knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bucket {
    /// All revisions of all keys.
    Key = 0,
    /// Members that raised an alarm.
    Alarm,
    /// Whether auth is on, and its revision.
    Auth,
    /// Roles by name.
    AuthRoles,
    /// Users by name.
    AuthUsers,
    /// Cluster version and downgrade job.
    Cluster,
    /// Leases by id.
    Lease,
    /// Members by id.
    Members,
    /// Ids that must never be used again.
    MembersRemoved,
    /// Consistent index, term, conf state, compaction marks, storage version.
    Meta,
}

impl Bucket {
    /// All of them; `Key` first, the small ones after it in the order of their names.
    pub const ALL: [Bucket; 10] = [
        Bucket::Key,
        Bucket::Alarm,
        Bucket::Auth,
        Bucket::AuthRoles,
        Bucket::AuthUsers,
        Bucket::Cluster,
        Bucket::Lease,
        Bucket::Members,
        Bucket::MembersRemoved,
        Bucket::Meta,
    ];

    /// The bucket's name in the file.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Bucket::Key => b"key",
            Bucket::Alarm => b"alarm",
            Bucket::Auth => b"auth",
            Bucket::AuthRoles => b"authRoles",
            Bucket::AuthUsers => b"authUsers",
            Bucket::Cluster => b"cluster",
            Bucket::Lease => b"lease",
            Bucket::Members => b"members",
            Bucket::MembersRemoved => b"members_removed",
            Bucket::Meta => b"meta",
        }
    }
}

/// In `meta`: index of the last raft entry applied to the file.
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// In `meta`: term of that entry.
pub const TERM: &[u8] = b"term";
/// In `meta`: JSON of the conf state after the last conf change.
pub const CONF_STATE: &[u8] = b"confState";
/// In `meta`: the revision of the last compaction asked for.
pub const SCHEDULED_COMPACT_REV: &[u8] = b"scheduledCompactRev";
/// In `meta`: the revision of the last compaction carried out.
pub const FINISHED_COMPACT_REV: &[u8] = b"finishedCompactRev";
/// In `meta`: the storage version as text.
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
/// In `auth`: one byte, 0 or 1.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
/// In `auth`: 8 bytes big endian.
pub const AUTH_REVISION: &[u8] = b"authRevision";
/// In `cluster`: the cluster version as text.
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// In `cluster`: JSON of the downgrade job.
pub const DOWNGRADE: &[u8] = b"downgrade";
/// The value of every key in `members_removed`.
pub const REMOVED: &[u8] = b"removed";

/// Reads the 8-byte big-endian number of `consistent_index`, `term`, `authRevision`.
pub fn read_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// Writes such a number.
pub fn write_u64(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// Reads the main revision of a compaction mark.
pub fn read_compact_rev(value: &[u8]) -> Option<i64> {
    match Revision::from_key(value)? {
        (revision, false) => Some(revision.main),
        (_, true) => None,
    }
}

/// Writes a compaction mark.
pub fn write_compact_rev(main: i64) -> Bytes {
    Bytes::copy_from_slice(&Revision::new(main, 0).key())
}

/// Key of a lease in the `lease` bucket.
pub fn lease_key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

/// Which keys of `meta` the `Hash` request leaves out, by the minor version that answers.
pub fn hash_leaves_out(version: StorageVersion) -> &'static [&'static [u8]] {
    match version {
        StorageVersion::V3_4 => &[CONSISTENT_INDEX],
        StorageVersion::V3_5 => &[CONSISTENT_INDEX, TERM],
        StorageVersion::V3_6 | StorageVersion::V3_7 => &[CONSISTENT_INDEX, TERM, STORAGE_VERSION],
    }
}

/// The shape of the file, by the minor version that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageVersion {
    /// No `term`; also any file too new to have met a raft entry.
    V3_4,
    /// `term`, `confState`.
    V3_5,
    /// `storageVersion`.
    V3_6,
    /// Nothing new in the file.
    V3_7,
}

impl StorageVersion {
    /// The version of a minor number; `None` for one that this code does not know.
    pub fn from_minor(major: u64, minor: u64) -> Option<StorageVersion> {
        match (major, minor) {
            (3, 4) => Some(StorageVersion::V3_4),
            (3, 5) => Some(StorageVersion::V3_5),
            (3, 6) => Some(StorageVersion::V3_6),
            (3, 7) => Some(StorageVersion::V3_7),
            _ => None,
        }
    }

    /// As it stands in the file and in `Status`.
    pub fn text(self) -> &'static str {
        match self {
            StorageVersion::V3_4 => "3.4.0",
            StorageVersion::V3_5 => "3.5.0",
            StorageVersion::V3_6 => "3.6.0",
            StorageVersion::V3_7 => "3.7.0",
        }
    }
}

impl fmt::Display for StorageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What the `meta` bucket tells of the storage version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// One that this code knows.
    Known(StorageVersion),
    /// Written by a newer etcd: the text of `storageVersion`.
    Newer(String),
    /// Neither a version nor a term: a file of 3.4, or a fresh one.
    Unknown,
}

/// Finds the storage version from `meta`.
pub fn detect(meta: &dyn Fn(&[u8]) -> Option<Bytes>) -> Detected {
    if let Some((text, (major, minor))) = meta(STORAGE_VERSION).and_then(|v| parse_version(&v)) {
        return match StorageVersion::from_minor(major, minor) {
            Some(version) => Detected::Known(version),
            None => Detected::Newer(text),
        };
    }
    let number = |key| meta(key).and_then(|v| read_u64(&v)).unwrap_or(0);
    if number(CONSISTENT_INDEX) > 0 && number(TERM) > 0 {
        Detected::Known(StorageVersion::V3_5)
    } else {
        Detected::Unknown
    }
}

/// The change in `meta` that brings the file to `target`: the new value of `storageVersion`, or its removal.
///
/// All steps between the known versions come down to this one key: 3.6 brought it, 3.7 brought nothing, and a
/// step down from 3.6 takes it away.
pub fn storage_version_value(target: StorageVersion) -> Option<Bytes> {
    (target >= StorageVersion::V3_6).then(|| Bytes::from_static(target.text().as_bytes()))
}

/// `major.minor.patch`, whatever follows; the text comes back with the two numbers that matter.
fn parse_version(value: &[u8]) -> Option<(String, (u64, u64))> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    parts.next()?;
    Some((text.to_string(), (major, minor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(pairs: &'static [(&[u8], &[u8])]) -> impl Fn(&[u8]) -> Option<Bytes> {
        move |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| Bytes::from_static(v))
    }

    #[test]
    fn version_is_detected_as_etcd_does() {
        let known = |v| Detected::Known(v);
        assert_eq!(detect(&meta(&[])), Detected::Unknown);
        assert_eq!(detect(&meta(&[(CONSISTENT_INDEX, &[0, 0, 0, 0, 0, 0, 0, 9])])), Detected::Unknown);
        let with_term: &[(&[u8], &[u8])] =
            &[(CONSISTENT_INDEX, &[0, 0, 0, 0, 0, 0, 0, 9]), (TERM, &[0, 0, 0, 0, 0, 0, 0, 2])];
        assert_eq!(detect(&meta(with_term)), known(StorageVersion::V3_5));
        assert_eq!(detect(&meta(&[(STORAGE_VERSION, b"3.6.0")])), known(StorageVersion::V3_6));
        assert_eq!(detect(&meta(&[(STORAGE_VERSION, b"3.7.0")])), known(StorageVersion::V3_7));
        assert_eq!(detect(&meta(&[(STORAGE_VERSION, b"3.8.0")])), Detected::Newer("3.8.0".into()));
        assert_eq!(detect(&meta(&[(STORAGE_VERSION, b"nonsense")])), Detected::Unknown);
    }

    #[test]
    fn only_3_6_and_later_write_their_version() {
        assert_eq!(storage_version_value(StorageVersion::V3_5), None);
        assert_eq!(storage_version_value(StorageVersion::V3_6).as_deref(), Some(&b"3.6.0"[..]));
        assert_eq!(storage_version_value(StorageVersion::V3_7).as_deref(), Some(&b"3.7.0"[..]));
    }

    #[test]
    fn small_buckets_are_listed_by_name() {
        assert!(Bucket::ALL[1..].windows(2).all(|pair| pair[0].name() < pair[1].name()));
        for (at, bucket) in Bucket::ALL.into_iter().enumerate() {
            assert_eq!(bucket as usize, at);
        }
    }

    #[test]
    fn compaction_marks_read_back() {
        assert_eq!(read_compact_rev(&write_compact_rev(6)), Some(6));
        assert_eq!(write_compact_rev(6)[..], *b"\0\0\0\0\0\0\0\x06_\0\0\0\0\0\0\0\0");
        assert_eq!(read_compact_rev(b"short"), None);
        assert_eq!(read_compact_rev(&Revision::new(6, 0).tombstone_key()), None);
    }
}
