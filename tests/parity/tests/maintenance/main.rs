//! The cases `CM-*` of cluster and maintenance, on Go etcd and on ours, as far as one member can show them. One script
//! may cover several numbers where they share data.
//!
//! Reading order: `fresh.rs` (a member nobody has written to), `hash.rs`, `file.rs` (snapshots, defragmentation,
//! quota), `alarms.rs`, `http.rs`.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

mod alarms;
mod file;
mod fresh;
mod hash;
mod http;

use parity::semantics::{Suite, covers};

const DOWNGRADE: &str = "downgrades are a later capability";
const MEMBERS: &str = "changing the members is a later capability";
const SEVERAL: &str = "needs several members";
const LEARNER: &str = "needs a learner beside a voter";
const NO_LEADER: &str = "needs a member that has lost its leader, hence several";

/// Numbers that no single member of this version can show.
const NOT_HERE: &[(&str, &str)] = &[
    ("CM-016", SEVERAL),
    ("CM-017", SEVERAL),
    ("CM-018", LEARNER),
    ("CM-020", DOWNGRADE),
    ("CM-021", DOWNGRADE),
    ("CM-022", DOWNGRADE),
    ("CM-023", DOWNGRADE),
    ("CM-024", DOWNGRADE),
    ("CM-025", DOWNGRADE),
    ("CM-026", DOWNGRADE),
    ("CM-027", DOWNGRADE),
    ("CM-028", DOWNGRADE),
    ("CM-031", MEMBERS),
    ("CM-032", MEMBERS),
    ("CM-033", MEMBERS),
    ("CM-034", MEMBERS),
    ("CM-035", MEMBERS),
    ("CM-036", MEMBERS),
    ("CM-037", MEMBERS),
    ("CM-038", MEMBERS),
    ("CM-039", MEMBERS),
    ("CM-040", MEMBERS),
    ("CM-041", MEMBERS),
    ("CM-042", MEMBERS),
    ("CM-043", MEMBERS),
    ("CM-044", SEVERAL),
    ("CM-045", SEVERAL),
    ("CM-046", SEVERAL),
    ("CM-047", LEARNER),
    ("CM-048", LEARNER),
    ("CM-049", LEARNER),
    ("CM-050", LEARNER),
    ("CM-051", LEARNER),
    ("CM-052", LEARNER),
    ("CM-053", LEARNER),
    ("CM-054", SEVERAL),
    ("CM-055", SEVERAL),
    ("CM-056", SEVERAL),
    ("CM-057", SEVERAL),
    ("CM-058", SEVERAL),
    ("CM-059", SEVERAL),
    ("CM-060", SEVERAL),
    ("CM-061", SEVERAL),
    ("CM-082", NO_LEADER),
    ("CM-083", NO_LEADER),
    ("CM-086", LEARNER),
    ("CM-089", SEVERAL),
    ("CM-090", SEVERAL),
    ("CM-094", SEVERAL),
];

fn suite() -> Suite {
    let mut groups = file::groups();
    groups.extend(alarms::groups());
    groups.extend(hash::groups());
    groups.extend(fresh::groups());
    groups.extend(http::groups());
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
