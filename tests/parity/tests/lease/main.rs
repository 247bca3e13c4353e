//! The cases `LE-*` of leases, on Go etcd and on ours. One script may cover several numbers where they share data.
//!
//! Reading order: `calls.rs` (requests and their answers), `time.rs` (what happens as time passes), `alarms.rs`.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

mod alarms;
mod calls;
mod time;

use parity::semantics::{Suite, covers};

const SEVERAL: &str = "in maintenance/followers.rs, on three members";

/// Numbers that no single member of this version can show.
const NOT_HERE: &[(&str, &str)] = &[
    ("LE-031", SEVERAL),
    ("LE-032", SEVERAL),
    ("LE-033", SEVERAL),
    ("LE-034", SEVERAL),
    ("LE-035", SEVERAL),
    ("LE-036", "needs users and logins, a later capability"),
    ("LE-037", "needs users and logins, a later capability"),
    ("LE-038", "needs users and logins, a later capability"),
    ("LE-039", "needs users and logins, a later capability"),
    ("LE-044", "takes five minutes and a change of leaders"),
    ("LE-045", SEVERAL),
    ("LE-048", "needs users and logins, a later capability"),
];

fn suite() -> Suite {
    let mut groups = time::groups();
    groups.extend(alarms::groups());
    groups.extend(calls::groups());
    Suite::new("lease", groups)
}

#[test]
fn the_table_is_covered() {
    covers(&suite(), include_str!("../../cases/lease.txt"), NOT_HERE);
}

#[test]
fn lease() {
    suite().run();
}
