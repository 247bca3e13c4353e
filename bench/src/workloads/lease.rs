//! Leases granted, revoked and kept alive.

use std::cell::Cell;
use std::rc::Rc;

use api::etcdserverpb as pb;
use api::methods::Method;
use prost::Message;

use super::Result;
use crate::h2::{INTERNAL, RpcError};
use crate::run::{Ctx, Done, client, clients};

pub(super) async fn keepalive(ctx: &Rc<Ctx>, leases: u64, ttl: i64) -> Result<()> {
    let clients_n = ctx.settings().clients;
    let mut mine: Vec<(usize, Vec<i64>)> = Vec::new();
    for w in ctx.share(clients_n.min(leases as usize)) {
        let conn = ctx.conn(w).await?;
        let mut ids = Vec::new();
        for _ in (w as u64..leases).step_by(clients_n) {
            let reply = conn.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl, id: 0 }).await?;
            ids.push(pb::LeaseGrantResponse::decode(&*reply)?.id);
        }
        mine.push((w, ids));
    }
    ctx.start().await;
    let settings = ctx.settings();
    let pacer = crate::run::pacer(ctx, settings.rate.map(|r| r / settings.threads as f64));
    let mut tasks = Vec::new();
    for (w, ids) in mine {
        let (ctx, pacer) = (ctx.clone(), pacer.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let stream = match ctx.conn(w).await {
                Ok(c) => c.stream(Method::LeaseKeepAlive).await,
                Err(e) => Err(e),
            };
            let stream = match stream {
                Ok(s) => s,
                Err(e) => return ctx.error(&e),
            };
            let at = Cell::new(0);
            let keep_alive = async || {
                let id = ids[at.get() % ids.len()];
                at.set(at.get() + 1);
                stream.send(&pb::LeaseKeepAliveRequest { id });
                let mut ok = false;
                let reply = |m: &[u8]| {
                    let r = pb::LeaseKeepAliveResponse::decode(m);
                    ok = r.is_ok_and(|r| r.id == id && r.ttl > 0);
                };
                if !stream.next(reply).await? || !ok {
                    return Err(RpcError::new(INTERNAL, "lease not kept alive"));
                }
                Done::of(0, 1, 0)
            };
            client(&ctx, pacer.as_deref(), keep_alive).await;
        }));
    }
    for t in tasks {
        let _ = t.await;
    }
    Ok(())
}

pub(super) async fn grant(ctx: &Rc<Ctx>, ttl: i64) -> Result<()> {
    ctx.start().await;
    clients(ctx, |w| {
        let ctx = ctx.clone();
        async move || {
            let conn = ctx.conn(w).await?;
            let reply = conn.call(Method::LeaseGrant, &pb::LeaseGrantRequest { ttl, id: 0 }).await?;
            let id = pb::LeaseGrantResponse::decode(&*reply)?.id;
            conn.call(Method::LeaseRevoke, &pb::LeaseRevokeRequest { id }).await?;
            Done::of(0, 1, 0)
        }
    })
    .await;
    Ok(())
}
