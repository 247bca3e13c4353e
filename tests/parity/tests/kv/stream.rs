//! RangeStream: how a range is cut into messages, and what the last of them carries.

use api::ErrorCode;
use api::etcdserverpb::range_request::{SortOrder as Order, SortTarget as Sort};
use api::etcdserverpb::{RangeRequest, RangeResponse};
use parity::semantics::answer::{keys, rev};
use parity::semantics::request::{RangeOptions, compact, put, span};
use parity::semantics::{Difference, Group, Outcome, Status, Target, same};

pub(crate) fn groups() -> Vec<Group> {
    vec![refusals(twenty_five_keys())]
}

/// The messages of a stream that must end well.
async fn chunks(t: &Target, request: RangeRequest) -> Result<Vec<RangeResponse>, Difference> {
    let (messages, status) = t.all(request).await?;
    same("status", status, Status::ok())?;
    messages
        .into_iter()
        .map(|message| message.range_response.ok_or(Difference::new("a message without an answer")))
        .collect()
}

/// How many keys each message holds, and `more` and `count` of the last, which alone has a header.
async fn cut(t: &Target, request: RangeRequest, sizes: &[usize], more: bool, count: i64) -> Outcome {
    let chunks = chunks(t, request).await?;
    same("keys in each message", chunks.iter().map(|chunk| chunk.kvs.len()).collect::<Vec<_>>(), sizes)?;
    let last = chunks.last().ok_or(Difference::new("no message"))?;
    same("more", last.more, more)?;
    same("count", last.count, count)?;
    let before = &chunks[..chunks.len() - 1];
    let early = before.iter().filter(|chunk| chunk.header.is_some() || chunk.more || chunk.count != 0);
    same("earlier messages with a header, more or a count", early.count(), 0)?;
    let header = last.header.ok_or(Difference::new("no header in the last message"))?;
    same("cluster and member are named", header.cluster_id != 0 && header.member_id != 0, true)?;
    same("revision", header.revision, t.revision().await?)
}

fn all() -> RangeRequest {
    span("k", "l")
}

fn twenty_five_keys() -> Group {
    Group::fresh("range stream")
        .setup(async |t| {
            t.ok(put("first", "")).await?;
            for at in 0..25 {
                t.ok(put(format!("k{at:02}"), "v")).await?;
            }
            same("revision", t.revision().await?, 27)
        })
        .case("KV-133", async |t| {
            let expected: Vec<String> = (0..25).map(|at| format!("k{at:02}")).collect();
            let found: Vec<String> =
                chunks(t, all()).await?.iter().flat_map(|chunk| keys(&chunk.kvs)).collect();
            same("keys", found, expected)
        })
        .case("KV-160", async |t| cut(t, all(), &[10, 15], false, 25).await)
        .case("KV-161", async |t| {
            let chunks = chunks(t, all().limit(12)).await?;
            same("keys", chunks.iter().map(|chunk| chunk.kvs.len()).sum::<usize>(), 12)?;
            let last = chunks.last().ok_or(Difference::new("no message"))?;
            same("more and count", (last.more, last.count), (true, 25))
        })
        .case("KV-163", async |t| cut(t, all().count_only().limit(3), &[0], false, 25).await)
        .case("KV-172", async |t| cut(t, all().at(10), &[8], false, 8).await)
        .case("KV-174", async |t| {
            cut(t, all().limit(5), &[5], true, 25).await?;
            cut(t, all().limit(25), &[10, 15], false, 25).await
        })
}

async fn refused(t: &Target, request: RangeRequest, error: ErrorCode) -> Outcome {
    let (messages, status) = t.all(request).await?;
    same("messages", messages.len(), 0)?;
    same("status", status, error.into())
}

fn refusals(group: Group) -> Group {
    group
        .case("KV-162", async |t| {
            let sorted = |target, order| all().sort(target, order);
            refused(t, sorted(Sort::Key, Order::Descend), ErrorCode::RangeStreamSorted).await?;
            refused(t, sorted(Sort::Mod, Order::Ascend), ErrorCode::RangeStreamSorted).await?;
            let filtered = RangeRequest { min_mod_revision: 1, ..all() };
            refused(t, filtered, ErrorCode::RangeStreamFiltered).await?;
            for (target, order) in
                [(Sort::Key, Order::Ascend), (Sort::Mod, Order::None), (Sort::Value, Order::None)]
            {
                cut(t, sorted(target, order), &[10, 15], false, 25).await?;
            }
            Ok(())
        })
        .case("KV-164", async |t| {
            let current = rev(&t.ok(compact(9)).await?.header);
            refused(t, all().at(8), ErrorCode::Compacted).await?;
            refused(t, all().at(current + 1), ErrorCode::FutureRev).await
        })
        .case("KV-173", async |t| {
            let value = vec![b'x'; 700_000];
            for at in 0..12 {
                t.ok(put(format!("big{at:02}"), &value)).await?;
            }
            cut(t, span("big", "bih"), &[10, 2], false, 12).await
        })
}
