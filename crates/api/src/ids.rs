//! Ids of members, clusters, requests and leases: how etcd computes and prints them.

use std::fmt;
use std::num::ParseIntError;
use std::sync::atomic::{AtomicU64, Ordering};

use sha1::{Digest, Sha1};

/// The id of a member.
///
/// A member of a new cluster is given by its peer URLs and the cluster token. A member added to a running cluster
/// has no token but the second in which it was added. Its name is never part of the id.
#[must_use]
pub fn member_id<S: AsRef<str>>(peer_urls: &[S], token: &str, added_unix_second: Option<i64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(second) = added_unix_second {
        hash.update(second.to_string());
    }
    first_eight(hash)
}

/// The id of a cluster, from the members it was founded with. It never changes afterwards.
#[must_use]
pub fn cluster_id(members: impl IntoIterator<Item = u64>) -> u64 {
    let mut members: Vec<u64> = members.into_iter().collect();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for id in members {
        hash.update(id.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    hash.finalize().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// Prints an id as logs, headers, paths and tables show it: lower-case hex without leading zeros.
#[must_use]
pub fn hex(id: u64) -> Hex {
    Hex(id)
}

/// See [`hex`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex(u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads what [`hex`] prints; upper case and leading zeros are accepted too.
///
/// # Errors
/// Not a hexadecimal number, or more than 64 bits.
pub fn parse_hex(text: &str) -> Result<u64, ParseIntError> {
    if text.starts_with('+') {
        // Go takes no sign here; let the standard parser make the error.
        return u64::from_str_radix("+", 16);
    }
    u64::from_str_radix(text, 16)
}

/// Makes request ids that no other member, and no earlier life of this one, makes:
///
/// ```text
/// | low 16 bits of the member id | low 40 bits of the start in Unix ms | 8-bit counter |
/// ```
///
/// The low 48 bits count on as one number, so a burst of requests may run ahead of the clock; a restart is safe as
/// long as the member made fewer than 256 ids per millisecond of its life.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: AtomicU64,
}

const COUNTED: u64 = (1 << 48) - 1;

impl RequestIds {
    /// A generator for a member that starts at the given wall time.
    #[must_use]
    pub fn new(member: u64, start_unix_ms: u64) -> RequestIds {
        RequestIds { prefix: member << 48, suffix: AtomicU64::new(start_unix_ms << 8 & COUNTED) }
    }

    /// The next id. Never 0, which means "no id" in a log entry.
    pub fn next(&self) -> u64 {
        loop {
            let count = self.suffix.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & COUNTED;
            let id = self.prefix | count;
            if id != 0 {
                return id;
            }
        }
    }

    /// The next id for a lease: ids of leases are positive.
    pub fn next_lease(&self) -> i64 {
        loop {
            let id = self.next().cast_signed() & i64::MAX;
            if id != 0 {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_has_no_padding_and_comes_back() {
        for (id, text) in [
            (0, "0"),
            (0xcafe, "cafe"),
            (0x0097_1759_b910_cc6d, "971759b910cc6d"),
            (u64::MAX, "ffffffffffffffff"),
        ] {
            assert_eq!(hex(id).to_string(), text);
            assert_eq!(parse_hex(text), Ok(id));
        }
        for bad in ["", "+1", "-1", "g", "10000000000000000", " 1"] {
            assert!(parse_hex(bad).is_err(), "{bad:?}");
        }
        assert_eq!(format!("{:>6}|{:<6}|", hex(0xab), hex(0xab)), "    ab|ab    |");
    }

    #[test]
    fn request_ids_have_the_shape_go_gives_them() {
        // ae02a1fca50c2001 was seen in a log of member 5267fd4ae6ebae02.
        let ids = RequestIds::new(0x5267_fd4a_e6eb_ae02, 0x01a1_fca5_0c20);
        assert_eq!(ids.next(), 0xae02_a1fc_a50c_2001);
        assert_eq!(ids.next(), 0xae02_a1fc_a50c_2002);
        assert_eq!(ids.next_lease(), 0x2e02_a1fc_a50c_2003);
    }

    #[test]
    fn request_ids_wrap_inside_their_48_bits_and_skip_zero() {
        let ids = RequestIds::new(0x1_0000, (1 << 40) - 1);
        for _ in 0..255 {
            assert!(ids.next() > COUNTED - 256);
        }
        assert_eq!(ids.next(), 1);
        assert_eq!(ids.next_lease(), 2);
    }
}
