//! The workloads. Each runs on every generator thread: set-up, `ctx.start()`, then its clients until the run ends.

mod kubernetes;
mod kv;
mod lease;
mod maintenance;
mod values;
mod watch;

use std::cell::Cell;
use std::rc::Rc;

use api::etcdserverpb as pb;
use api::methods::Method;

use self::values::{Rng, Values};
use crate::h2::{INTERNAL, RpcError};
use crate::opts::{Consistency, Keys, Workload};
use crate::run::Ctx;
use crate::stats::{ClassDef, class, side};
use crate::wire;

pub(crate) type Result<T> = std::result::Result<T, RpcError>;

pub(crate) fn classes(w: &Workload) -> &'static [ClassDef] {
    const ONE: [ClassDef; 1] = [class("op")];
    const K8S: [ClassDef; 5] = [class("update"), class("get"), class("list"), class("pod"), side("event")];
    const FANOUT: [ClassDef; 2] = [class("event"), side("put")];
    match w {
        Workload::MixedK8s { .. } => &K8S,
        Workload::WatchFanout { .. } => &FANOUT,
        _ => &ONE,
    }
}

pub(crate) async fn run(ctx: &Rc<Ctx>) -> Result<()> {
    match ctx.shared.workload.clone() {
        Workload::Put { keys } => kv::put(ctx, keys).await,
        Workload::Fill { keys, per_txn } => kv::fill(ctx, keys, per_txn).await,
        Workload::Range { keys, consistency, no_prefill } => {
            kv::range(ctx, keys, consistency == Consistency::Serializable, no_prefill).await
        }
        Workload::List { keys, consistency, limit, keys_only, count_only, no_prefill } => {
            let shape = pb::RangeRequest {
                limit,
                serializable: consistency == Consistency::Serializable,
                keys_only,
                count_only,
                ..Default::default()
            };
            kv::list(ctx, keys, shape, no_prefill).await
        }
        Workload::Txn { keys } => kv::txn(ctx, keys).await,
        Workload::MixedK8s { nodes, watchers, limit } => kubernetes::mixed(ctx, nodes, watchers, limit).await,
        Workload::WatchFanout { keys, watchers, streams } => {
            watch::fanout(ctx, keys, watchers, streams).await
        }
        Workload::LeaseKeepalive { leases, ttl } => lease::keepalive(ctx, leases, ttl).await,
        Workload::LeaseGrant { ttl } => lease::grant(ctx, ttl).await,
        Workload::Status => maintenance::status(ctx).await,
        w @ (Workload::Snapshot | Workload::Defrag | Workload::Compact { .. } | Workload::Revision) => {
            maintenance::one_shot(ctx, &w).await
        }
        Workload::Compare(_) => Err(RpcError::new(INTERNAL, "the comparison is no load")),
    }
}

/// Writes the whole key space (thread 0 does) unless it is there already;
/// with `exact` nothing else may be under its prefix.
async fn prefill(ctx: &Rc<Ctx>, keys: &Keys, exact: bool) -> Result<()> {
    let enough = |n: u64| n == keys.key_space_size || (!exact && n > keys.key_space_size);
    if ctx.thread != 0 || enough(count(ctx, keys).await?) {
        return Ok(());
    }
    let next = Rc::new(Cell::new(0u64));
    let values = Rc::new(Values::new(ctx.settings().seed, keys.val_size));
    let mut tasks = Vec::new();
    for w in 0..64 {
        let (ctx, keys, next, values) = (ctx.clone(), keys.clone(), next.clone(), values.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let rng = Rng::new(ctx.settings().seed, w);
            let conn = ctx.pool.get(w).await?;
            loop {
                let i = next.get();
                if i >= keys.key_space_size {
                    return Result::Ok(());
                }
                next.set(i + 1);
                let value = values.get(&rng, keys.val_size);
                let req = pb::PutRequest { key: keys.key(i), value, ..Default::default() };
                conn.call(Method::KvPut, &req).await?;
            }
        }));
    }
    for t in tasks {
        t.await.map_err(|e| RpcError::new(INTERNAL, e.to_string()))??;
    }
    match count(ctx, keys).await? {
        n if enough(n) => Ok(()),
        n => {
            let what = format!("{} holds {n} keys, not {}", keys.prefix, keys.key_space_size);
            Err(RpcError::new(INTERNAL, what))
        }
    }
}

async fn count(ctx: &Ctx, keys: &Keys) -> Result<u64> {
    let (key, range_end) = keys.range();
    let req = pb::RangeRequest { key, range_end, count_only: true, ..Default::default() };
    let reply = ctx.pool.get(0).await?.call(Method::KvRange, &req).await?;
    Ok(wire::range_response(&reply)?.count as u64)
}
