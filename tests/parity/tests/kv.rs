//! The cases of the KV service, by number, on Go 3.7.3 and on ours.

use api::ErrorCode;
use parity::semantics::answer::{keys, kv, rev};
use parity::semantics::request::{RangeOptions, put, range, span};
use parity::semantics::{Group, Suite, same};

fn suite() -> Suite {
    Suite::new(
        "kv",
        vec![
            Group::fresh("F0")
                .case("KV-001", async |t| {
                    let answer = t.ok(range("zz")).await?;
                    same("count", answer.count, 0)?;
                    same("kvs", keys(&answer.kvs), Vec::<String>::new())?;
                    same("revision", rev(&answer.header), 1)
                })
                .case("KV-003", async |t| {
                    t.refused(range(""), ErrorCode::EmptyKey).await?;
                    t.refused(put("", ""), ErrorCode::EmptyKey).await
                }),
            Group::shared("one key").case("KV-005", async |t| {
                let before = t.revision().await?;
                t.ok(put("one/a", "v")).await?;
                let answer = t.ok(span("one/", "one0").limit(3)).await?;
                same("pair", kv(&answer.kvs[0]), ("one/a=v".into(), before + 1, before + 1, 1, 0))
            }),
        ],
    )
}

#[test]
fn go_and_ours_answer_alike() {
    suite().run();
}
