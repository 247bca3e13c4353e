//! The cases `WA-*` of watches, on Go etcd and on ours. One script may cover several numbers where they share a stream.
//!
//! Reading order: `create.rs` (requests and their answers), `events.rs` (what arrives, and how it is cut), `past.rs`
//! (compaction and restarts), `progress.rs`, `random.rs` (whatever the table does not think of).

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

mod create;
mod events;
mod past;
mod progress;
mod random;

use parity::semantics::{Suite, covers};

const SEVERAL: &str = "in maintenance/followers.rs, on three members";

/// Numbers that no single member of this version can show.
const NOT_HERE: &[(&str, &str)] = &[
    ("WA-054", SEVERAL),
    ("WA-055", SEVERAL),
    ("WA-056", SEVERAL),
    ("WA-057", "needs users and logins, a later capability"),
    ("WA-058", "needs users and logins, a later capability"),
    ("WA-059", "needs users and logins, a later capability"),
    ("WA-060", "needs users and logins, a later capability"),
    ("WA-061", "needs users and logins, a later capability"),
    ("WA-062", "needs users and logins, a later capability"),
    ("WA-063", "needs users and logins, a later capability"),
    ("WA-064", "needs users and logins, a later capability"),
    ("WA-065", "needs users and logins, a later capability"),
    ("WA-068", "in maintenance/several.rs, on a learner"),
    ("WA-069", SEVERAL),
];

fn suite() -> Suite {
    let mut groups = progress::groups();
    groups.extend(events::groups());
    groups.extend(create::groups());
    groups.extend(past::groups());
    Suite::new("watch", groups)
}

#[test]
fn the_table_is_covered() {
    covers(&suite(), include_str!("../../cases/watch.txt"), NOT_HERE);
}

#[test]
fn watch() {
    suite().run();
}
