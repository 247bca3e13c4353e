//! The cases of the KV service, by number, on Go 3.7.3 and on ours.
//!
//! Reading order: this file (what is covered, data that several groups share), `range.rs`, `write.rs`, `txn.rs`,
//! `compare.rs`, `compaction.rs`, `limits.rs`, `stream.rs`; then `random.rs`, for what no table thinks of.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

mod compaction;
mod compare;
mod limits;
mod random;
mod range;
mod stream;
mod txn;
mod write;

use parity::semantics::request::put;
use parity::semantics::{Outcome, Suite, Target, covers, same};

const SEVERAL: &str = "in maintenance/followers.rs, on three members";

/// Cases that this suite leaves out.
const NOT_HERE: &[(&str, &str)] = &[
    ("KV-152", SEVERAL),
    ("KV-153", SEVERAL),
    ("KV-154", SEVERAL),
    ("KV-155", SEVERAL),
    ("KV-156", SEVERAL),
    ("KV-157", "in maintenance/members.rs, with CM-041 to 043"),
    ("KV-166", "needs an apply loop that stands still, which a defragmentation of ours does not cause"),
    ("KV-167", SEVERAL),
    ("KV-175", "users and logins are not there yet"),
];

fn suite() -> Suite {
    let parts = [
        limits::groups(),
        compaction::groups(),
        range::groups(),
        write::groups(),
        txn::groups(),
        compare::groups(),
        stream::groups(),
    ];
    Suite::new("kv", parts.into_iter().flatten().collect())
}

/// Eight keys, `v0` to `v7`, on a fresh member: revisions 2 to 9.
async fn eight_keys(t: &Target) -> Outcome {
    let keys: [&[u8]; 8] = [b"a", b"ab", b"abc", b"b", b"c", b"\0", b"\xff", b"\xff\xff"];
    for (at, key) in keys.iter().enumerate() {
        t.ok(put(key, format!("v{at}"))).await?;
    }
    same("revision", t.revision().await?, 9)
}

/// Those, and three of them written again: revisions 10 to 12.
async fn eight_keys_and_three_again(t: &Target) -> Outcome {
    eight_keys(t).await?;
    for (key, value) in [("c", "zz"), ("a", "mm"), ("ab", "aa")] {
        t.ok(put(key, value)).await?;
    }
    same("revision", t.revision().await?, 12)
}

#[test]
fn go_and_ours_answer_alike() {
    suite().run();
}

#[test]
fn every_case_of_the_table_is_here() {
    covers(&suite(), include_str!("../../cases/kv.txt"), NOT_HERE);
}
