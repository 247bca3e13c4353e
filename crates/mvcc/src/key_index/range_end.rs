//! Where a range of keys ends.

use bytes::Bytes;

/// The end of a range of keys, read once from the wire's `range_end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// Only the key itself.
    Single,
    /// The keys from the start to below this one.
    Before(Bytes),
    /// All keys from the start on.
    Unbounded,
}

impl RangeEnd {
    /// Reads a request's `range_end`: empty is the one key, a single zero byte is no end.
    pub fn from_wire(range_end: Bytes) -> RangeEnd {
        match &range_end[..] {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        }
    }

    /// Whether the range that starts at `start` holds no key at all.
    pub fn is_empty_from(&self, start: &[u8]) -> bool {
        matches!(self, RangeEnd::Before(end) if end[..] <= *start)
    }

    /// Whether the range that starts at `start` holds `key`.
    pub fn contains(&self, start: &[u8], key: &[u8]) -> bool {
        match self {
            RangeEnd::Single => key == start,
            RangeEnd::Before(end) => start <= key && key < &end[..],
            RangeEnd::Unbounded => start <= key,
        }
    }
}
