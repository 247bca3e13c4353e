//! What an API server of Kubernetes asks of its store.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use api::etcdserverpb::{self as pb, request_op};
use api::methods::Method;
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::kv::{guarded_put, mod_is, op, read_all, txn_result};
use super::values::{Rng, Values};
use super::watch::{open_watches, receive_events, stamped};
use super::{Result, prefill};
use crate::opts::Keys;
use crate::run::{Ctx, Done, clients};
use crate::wire;

const LEASES: &str = "/registry/leases/kube-node-lease/";
const PODS: &str = "/registry/pods/default/";

/// Mostly watches on pods, one in ten on leases: what controllers do.
async fn open_all(ctx: &Rc<Ctx>, watchers: usize) -> Result<Vec<JoinHandle<()>>> {
    let mut tasks = Vec::new();
    for s in ctx.share(watchers) {
        let prefix = if s % 10 == 0 { LEASES } else { PODS };
        let stream = open_watches(ctx, s, 1, prefix.as_bytes()).await?;
        tasks.push(tokio::task::spawn_local(receive_events(ctx.clone(), stream, 4)));
    }
    Ok(tasks)
}

/// What the API server of a cluster of `nodes` nodes asks of etcd.
pub(super) async fn mixed(ctx: &Rc<Ctx>, nodes: u64, watchers: usize, limit: i64) -> Result<()> {
    let space = |prefix: &str, val_size| Keys {
        prefix: prefix.into(),
        key_size: prefix.len() + 12,
        val_size,
        key_space_size: nodes,
        sequential: false,
    };
    let (leases, pods) = (Rc::new(space(LEASES, 400)), Rc::new(space(PODS, 1500)));
    prefill(ctx, &leases, false).await?;
    prefill(ctx, &pods, false).await?;
    let tasks = open_all(ctx, watchers).await?;
    ctx.start().await;
    let values = Rc::new(Values::new(ctx.settings().seed, 2000));
    let lease_rev = Rc::new(RefCell::new(vec![0i64; nodes as usize]));
    clients(ctx, |w| {
        let (ctx, leases, pods, values, lease_rev) =
            (ctx.clone(), leases.clone(), pods.clone(), values.clone(), lease_rev.clone());
        let rng = Rng::new(ctx.settings().seed, w);
        let mut own_pod: Option<(Bytes, i64)> = None;
        let mut pods_made = 0u64;
        async move || {
            let conn = ctx.conn(w).await?;
            match rng.below(100) {
                0..70 => {
                    let i = rng.below(nodes) as usize;
                    let value = stamped(&ctx, &values, &rng, leases.val_size);
                    let req = guarded_put(leases.key(i as u64), value, lease_rev.borrow()[i]);
                    let (done, rev) = txn_result(&conn.call(Method::KvTxn, &req).await?)?;
                    lease_rev.borrow_mut()[i] = rev;
                    if !done && ctx.measured(Instant::now()) {
                        ctx.rec.borrow_mut().bump("guard_failures", 1.0);
                    }
                    Done::of(0, 1, leases.val_size)
                }
                70..90 => {
                    let from = if rng.below(2) == 0 { &leases } else { &pods };
                    let key = from.key(rng.below(nodes));
                    let req = pb::RangeRequest { key, ..Default::default() };
                    let reply = conn.call(Method::KvRange, &req).await?;
                    Done::of(1, wire::range_response(&reply)?.kvs, reply.len())
                }
                90..95 => {
                    let (key, range_end) = pods.range();
                    let shape = pb::RangeRequest { key, range_end, limit, ..Default::default() };
                    let (items, bytes) = read_all(&ctx, w, &shape).await?;
                    Done::of(2, items, bytes)
                }
                _ => {
                    let req = match &own_pod {
                        None => {
                            pods_made += 1;
                            let key = Bytes::from(format!("{PODS}pod-{w}-{pods_made}"));
                            let value = stamped(&ctx, &values, &rng, pods.val_size);
                            guarded_put(key, value, 0)
                        }
                        Some((key, rev)) => guarded_delete(key, *rev),
                    };
                    let key = req.compare[0].key.clone();
                    let (_, rev) = txn_result(&conn.call(Method::KvTxn, &req).await?)?;
                    own_pod = if own_pod.is_none() { Some((key, rev)) } else { None };
                    Done::of(3, 1, 0)
                }
            }
        }
    })
    .await;
    tasks.iter().for_each(JoinHandle::abort);
    Ok(())
}

fn guarded_delete(key: &Bytes, rev: i64) -> pb::TxnRequest {
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    pb::TxnRequest {
        compare: vec![mod_is(key.clone(), rev)],
        success: vec![op(request_op::Request::RequestDeleteRange(delete))],
        failure: vec![],
    }
}
