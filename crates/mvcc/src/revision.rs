//! Revisions and their keys in the `key` bucket.
//!
//! A revision is written as `main` (big endian) `_` `sub` (big endian), 17 bytes; a tombstone's key has a `t`
//! behind it, 18 bytes. Revisions are never negative, so the keys sort as the revisions do.

use std::fmt;

/// Length of the key of an ordinary record.
pub const KEY_LEN: usize = 17;
/// Length of the key of a tombstone.
pub const TOMBSTONE_KEY_LEN: usize = 18;
/// Between `main` and `sub`.
const SEPARATOR: u8 = b'_';
/// What a tombstone's key ends in.
const TOMBSTONE_MARK: u8 = b't';

/// One change in the history of the store: the `sub`-th change of transaction `main`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// Number of the transaction; a fresh store is at 1, its first write makes 2.
    pub main: i64,
    /// Number of the change in its transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The revision of change `sub` of transaction `main`.
    pub const fn new(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }

    /// The key of an ordinary record at this revision.
    pub fn key(self) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[8] = SEPARATOR;
        key[9..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The key of a tombstone at this revision.
    pub fn tombstone_key(self) -> [u8; TOMBSTONE_KEY_LEN] {
        let mut key = [TOMBSTONE_MARK; TOMBSTONE_KEY_LEN];
        key[..KEY_LEN].copy_from_slice(&self.key());
        key
    }

    /// Reads a key of either length; the flag tells a tombstone. `None` when it is not a revision's key.
    pub fn from_key(key: &[u8]) -> Option<(Revision, bool)> {
        let tombstone = match key.len() {
            KEY_LEN => false,
            TOMBSTONE_KEY_LEN if key[KEY_LEN] == TOMBSTONE_MARK => true,
            _ => return None,
        };
        if key[8] != SEPARATOR {
            return None;
        }
        let main = i64::from_be_bytes(key[..8].try_into().expect("eight bytes"));
        let sub = i64::from_be_bytes(key[9..KEY_LEN].try_into().expect("eight bytes"));
        (main >= 0 && sub >= 0).then_some((Revision { main, sub }, tombstone))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_documented_bytes() {
        let revision = Revision::new(0x0102, 3);
        assert_eq!(revision.key(), *b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        assert_eq!(revision.tombstone_key(), *b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
    }

    #[test]
    fn keys_read_back() {
        for revision in [Revision::new(0, 0), Revision::new(2, 0), Revision::new(i64::MAX, i64::MAX)] {
            assert_eq!(Revision::from_key(&revision.key()), Some((revision, false)));
            assert_eq!(Revision::from_key(&revision.tombstone_key()), Some((revision, true)));
        }
    }

    #[test]
    fn what_is_not_a_revision_is_refused() {
        let good = Revision::new(7, 1).key();
        assert_eq!(Revision::from_key(&good[..16]), None);
        assert_eq!(Revision::from_key(b""), None);
        let mut wrong_separator = good;
        wrong_separator[8] = b'-';
        assert_eq!(Revision::from_key(&wrong_separator), None);
        let mut wrong_mark = Revision::new(7, 1).tombstone_key();
        wrong_mark[17] = b'x';
        assert_eq!(Revision::from_key(&wrong_mark), None);
        let mut negative = good;
        negative[0] = 0x80;
        assert_eq!(Revision::from_key(&negative), None);
    }

    #[test]
    fn keys_sort_as_revisions_do() {
        let revisions =
            [Revision::new(1, 0), Revision::new(1, 1), Revision::new(2, 0), Revision::new(256, 0)];
        for pair in revisions.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].key() < pair[1].key());
            assert!(pair[0].tombstone_key()[..] < pair[1].key()[..]);
        }
    }
}
