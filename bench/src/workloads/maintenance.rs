//! Status, and what is done once: snapshot, defragmentation, compaction.

use std::cell::Cell;
use std::rc::Rc;

use api::etcdserverpb as pb;
use api::methods::Method;
use prost::Message;

use super::Result;
use crate::opts::Workload;
use crate::run::{Ctx, Done, client, clients};
use crate::wire;

pub(super) async fn status(ctx: &Rc<Ctx>) -> Result<()> {
    ctx.start().await;
    clients(ctx, |w| {
        let ctx = ctx.clone();
        async move || {
            let reply = ctx.conn(w).await?.call(Method::MaintenanceStatus, &pb::StatusRequest {}).await?;
            Done::of(0, 1, reply.len())
        }
    })
    .await;
    Ok(())
}

pub(super) async fn one_shot(ctx: &Rc<Ctx>, which: &Workload) -> Result<()> {
    let conn = ctx.pool.get(0).await?;
    let s = pb::StatusResponse::decode(&*conn.call(Method::MaintenanceStatus, &pb::StatusRequest {}).await?)?;
    ctx.rec.borrow_mut().bump("revision", s.header.as_ref().map_or(0, |h| h.revision) as f64);
    ctx.rec.borrow_mut().bump("db_size_before", s.db_size as f64);
    ctx.rec.borrow_mut().bump("db_size_in_use_before", s.db_size_in_use as f64);
    ctx.start().await;
    let bytes = Cell::new(0u64);
    let once = async || {
        match which {
            Workload::Snapshot => {
                let stream = conn.stream(Method::MaintenanceSnapshot).await?;
                stream.send_last(&pb::SnapshotRequest {});
                let count = |m: &[u8]| {
                    let _ = wire::fields(m, |n, v| {
                        if n == 3 {
                            bytes.set(bytes.get() + v.bytes().map_or(0, <[u8]>::len) as u64);
                        }
                    });
                };
                while stream.next(count).await? {}
            }
            // Its set-up has asked already.
            Workload::Revision => {}
            Workload::Defrag => {
                conn.call(Method::MaintenanceDefragment, &pb::DefragmentRequest {}).await?;
            }
            Workload::Compact { physical, revision } => {
                let current = s.header.as_ref().map_or(0, |h| h.revision);
                let (physical, revision) = (*physical, revision.unwrap_or(current));
                conn.call(Method::KvCompact, &pb::CompactionRequest { revision, physical }).await?;
            }
            _ => {}
        }
        Done::of(0, 1, bytes.get() as usize)
    };
    client(ctx, None, once).await;
    if ctx.shared.stopped() {
        return Ok(());
    }
    let s = pb::StatusResponse::decode(&*conn.call(Method::MaintenanceStatus, &pb::StatusRequest {}).await?)?;
    ctx.rec.borrow_mut().bump("db_size_after", s.db_size as f64);
    Ok(())
}
