//! Puts, gets, lists and guarded transactions.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use api::etcdserverpb::{self as pb, compare, request_op, response_op};
use api::methods::Method;
use bytes::Bytes;
use prost::Message;

use super::values::{Rng, Values};
use super::{Result, prefill};
use crate::h2::{INTERNAL, RpcError};
use crate::opts::Keys;
use crate::run::{Ctx, Done, clients};
use crate::wire;

pub(super) async fn put(ctx: &Rc<Ctx>, keys: Keys) -> Result<()> {
    ctx.start().await;
    let keys = Rc::new(keys);
    let values = Rc::new(Values::new(ctx.settings().seed, keys.val_size));
    clients(ctx, |w| {
        let (ctx, keys, values) = (ctx.clone(), keys.clone(), values.clone());
        let rng = Rng::new(ctx.settings().seed, w);
        async move || {
            let key = keys.key(keys.pick(&ctx, &rng));
            let value = values.get(&rng, keys.val_size);
            let bytes = key.len() + value.len();
            let req = pb::PutRequest { key, value, ..Default::default() };
            ctx.conn(w).await?.call(Method::KvPut, &req).await?;
            Done::of(0, 1, bytes)
        }
    })
    .await;
    Ok(())
}

pub(super) async fn range(ctx: &Rc<Ctx>, keys: Keys, serializable: bool, no_prefill: bool) -> Result<()> {
    if !no_prefill {
        prefill(ctx, &keys, false).await?;
    }
    ctx.start().await;
    let keys = Rc::new(keys);
    clients(ctx, |w| {
        let (ctx, keys) = (ctx.clone(), keys.clone());
        let rng = Rng::new(ctx.settings().seed, w);
        async move || {
            let key = keys.key(keys.pick(&ctx, &rng));
            let req = pb::RangeRequest { key, serializable, ..Default::default() };
            let reply = ctx.conn(w).await?.call(Method::KvRange, &req).await?;
            if wire::range_response(&reply)?.kvs != 1 {
                return Err(RpcError::new(INTERNAL, "key not found"));
            }
            Done::of(0, 1, reply.len())
        }
    })
    .await;
    Ok(())
}

/// Reads a whole range page by page, all pages at the first one's revision.
pub(super) async fn read_all(ctx: &Ctx, w: usize, shape: &pb::RangeRequest) -> Result<(u64, usize)> {
    let conn = ctx.conn(w).await?;
    let mut req = shape.clone();
    let (mut items, mut bytes) = (0, 0);
    loop {
        let reply = conn.call(Method::KvRange, &req).await?;
        let r = wire::range_response(&reply)?;
        bytes += reply.len();
        items += if req.count_only { r.count as u64 } else { r.kvs };
        if !r.more || r.kvs == 0 {
            return Ok((items, bytes));
        }
        let (last, _) = wire::kv_key_rev(r.last_kv)?;
        let mut next = last.to_vec();
        next.push(0);
        req.key = next.into();
        if req.revision == 0 {
            req.revision = r.revision;
        }
    }
}

pub(super) async fn list(ctx: &Rc<Ctx>, keys: Keys, shape: pb::RangeRequest, no_prefill: bool) -> Result<()> {
    if !no_prefill {
        prefill(ctx, &keys, true).await?;
    }
    ctx.start().await;
    let (key, range_end) = keys.range();
    let shape = Rc::new(pb::RangeRequest { key, range_end, ..shape });
    clients(ctx, |w| {
        let (ctx, shape) = (ctx.clone(), shape.clone());
        let expect = keys.key_space_size;
        async move || {
            let (items, bytes) = read_all(&ctx, w, &shape).await?;
            if !no_prefill && items != expect {
                return Err(RpcError::new(INTERNAL, format!("listed {items} keys of {expect}")));
            }
            Done::of(0, items, bytes)
        }
    })
    .await;
    Ok(())
}

/// Puts every key of the space once, many in one transaction: the quickest way to a large store.
pub(super) async fn fill(ctx: &Rc<Ctx>, keys: Keys, per_txn: u64) -> Result<()> {
    ctx.start().await;
    let keys = Rc::new(keys);
    let values = Rc::new(Values::new(ctx.settings().seed, keys.val_size));
    clients(ctx, |w| {
        let (ctx, keys, values) = (ctx.clone(), keys.clone(), values.clone());
        let rng = Rng::new(ctx.settings().seed, w);
        async move || {
            let first = ctx.shared.next_seq() * per_txn;
            let put = |i| {
                let (key, value) = (keys.key(i % keys.key_space_size), values.get(&rng, keys.val_size));
                op(request_op::Request::RequestPut(pb::PutRequest { key, value, ..Default::default() }))
            };
            let req =
                pb::TxnRequest { success: (first..first + per_txn).map(put).collect(), ..Default::default() };
            ctx.conn(w).await?.call(Method::KvTxn, &req).await?;
            Done::of(0, per_txn, 0)
        }
    })
    .await;
    Ok(())
}

/// The update Kubernetes makes: put if the key is still at `rev`, else get it.
pub(super) fn guarded_put(key: Bytes, value: Bytes, rev: i64) -> pb::TxnRequest {
    let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
    let put = pb::PutRequest { key: key.clone(), value, ..Default::default() };
    pb::TxnRequest {
        compare: vec![mod_is(key, rev)],
        success: vec![op(request_op::Request::RequestPut(put))],
        failure: vec![op(request_op::Request::RequestRange(get))],
    }
}

pub(super) fn mod_is(key: Bytes, rev: i64) -> pb::Compare {
    pb::Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Mod as i32,
        key,
        target_union: Some(compare::TargetUnion::ModRevision(rev)),
        ..Default::default()
    }
}

pub(super) fn op(r: request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(r) }
}

/// The revision the key is at after a guarded transaction, and whether it was done.
pub(super) fn txn_result(reply: &[u8]) -> Result<(bool, i64)> {
    let r = pb::TxnResponse::decode(reply)?;
    if r.succeeded {
        return Ok((true, r.header.map_or(0, |h| h.revision)));
    }
    let found = r.responses.first().and_then(|o| match &o.response {
        Some(response_op::Response::ResponseRange(g)) => g.kvs.first().map(|kv| kv.mod_revision),
        _ => None,
    });
    Ok((false, found.unwrap_or(0)))
}

pub(super) async fn txn(ctx: &Rc<Ctx>, keys: Keys) -> Result<()> {
    ctx.start().await;
    let n = keys.key_space_size;
    let keys = Rc::new(keys);
    let values = Rc::new(Values::new(ctx.settings().seed, keys.val_size));
    let seen = Rc::new(RefCell::new(vec![0i64; n as usize]));
    clients(ctx, |w| {
        let (ctx, keys, values, seen) = (ctx.clone(), keys.clone(), values.clone(), seen.clone());
        let rng = Rng::new(ctx.settings().seed, w);
        async move || {
            let i = keys.pick(&ctx, &rng);
            let known = seen.borrow()[i as usize];
            let req = guarded_put(keys.key(i), values.get(&rng, keys.val_size), known);
            let reply = ctx.conn(w).await?.call(Method::KvTxn, &req).await?;
            let (done, rev) = txn_result(&reply)?;
            seen.borrow_mut()[i as usize] = rev;
            if !done && ctx.measured(Instant::now()) {
                ctx.rec.borrow_mut().bump("guard_failures", 1.0);
            }
            Done::of(0, 1, keys.val_size)
        }
    })
    .await;
    Ok(())
}
