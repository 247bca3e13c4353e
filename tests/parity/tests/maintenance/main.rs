//! The cases `CM-*` of cluster and maintenance, on Go etcd and on ours, as far as one member can show them. One script
//! may cover several numbers where they share data.
//!
//! Reading order: `fresh.rs` (a member nobody has written to), `hash.rs`, `file.rs` (snapshots, defragmentation,
//! quota), `alarms.rs`, `http.rs`, `members.rs` (changes of the members, downgrades), `several.rs` (several members),
//! `followers.rs` (leases and watches of several members), `different.rs` (members that hold something else).

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

mod alarms;
mod different;
mod file;
mod followers;
mod fresh;
mod hash;
mod http;
mod members;
mod several;

use parity::semantics::{Suite, covers};

const SEVERAL: &str = "in several.rs, on three members";
const DIFFERENT: &str = "in different.rs, on three members";

/// Numbers that no single member can show.
const NOT_HERE: &[(&str, &str)] = &[
    ("CM-016", SEVERAL),
    ("CM-017", SEVERAL),
    ("CM-018", SEVERAL),
    ("CM-044", SEVERAL),
    ("CM-045", SEVERAL),
    ("CM-046", SEVERAL),
    ("CM-047", SEVERAL),
    ("CM-048", SEVERAL),
    ("CM-049", SEVERAL),
    ("CM-050", SEVERAL),
    ("CM-051", SEVERAL),
    ("CM-052", SEVERAL),
    ("CM-053", SEVERAL),
    ("CM-054", SEVERAL),
    ("CM-055", SEVERAL),
    ("CM-056", SEVERAL),
    ("CM-057", SEVERAL),
    ("CM-058", SEVERAL),
    ("CM-059", SEVERAL),
    ("CM-060", SEVERAL),
    ("CM-061", SEVERAL),
    ("CM-082", SEVERAL),
    ("CM-083", SEVERAL),
    ("CM-086", SEVERAL),
    ("CM-089", DIFFERENT),
    ("CM-090", DIFFERENT),
    ("CM-094", DIFFERENT),
];

fn suite() -> Suite {
    let mut groups = file::groups();
    groups.extend(alarms::groups());
    groups.extend(hash::groups());
    groups.extend(fresh::groups());
    groups.extend(http::groups());
    groups.extend(members::groups());
    Suite::new("cluster and maintenance", groups)
}

#[test]
fn the_table_is_covered() {
    covers(&suite(), include_str!("../../cases/cluster_maintenance.txt"), NOT_HERE);
}

#[test]
fn maintenance() {
    suite().run();
}
