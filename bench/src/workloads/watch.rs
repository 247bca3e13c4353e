//! Watches, and how long events take to them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use api::etcdserverpb::{self as pb, watch_request};
use api::methods::Method;
use bytes::Bytes;

use super::Result;
use super::values::{Rng, Values, prefix_range};
use crate::h2::{INTERNAL, RpcError, Streaming};
use crate::opts::Keys;
use crate::run::{Ctx, Done, client};
use crate::wire;

/// A value that starts with the time it was sent.
pub(super) fn stamped(ctx: &Ctx, values: &Values, rng: &Rng, size: usize) -> Bytes {
    let mut v = Vec::with_capacity(size.max(8));
    let now = ctx.shared.epoch.elapsed().as_nanos() as u64;
    v.extend_from_slice(&now.to_le_bytes());
    v.extend_from_slice(&values.get(rng, size.max(8) - 8));
    v.into()
}

fn stamp_of(ctx: &Ctx, value: &[u8]) -> Option<Instant> {
    let ns = u64::from_le_bytes(value.get(..8)?.try_into().ok()?);
    Some(ctx.shared.epoch + Duration::from_nanos(ns))
}

/// A Watch stream carrying `watchers` watches of one prefix; waits until each
/// is established.
pub(super) async fn open_watches(ctx: &Ctx, w: usize, watchers: usize, prefix: &[u8]) -> Result<Streaming> {
    let stream = ctx.conn(w).await?.stream(Method::Watch).await?;
    let (key, range_end) = prefix_range(prefix);
    for _ in 0..watchers {
        stream.send(&pb::WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                progress_notify: true,
                ..Default::default()
            })),
        });
    }
    let mut created = 0;
    while created < watchers {
        let mut bad = false;
        let more = stream
            .next(|m| match wire::watch_response(m, |_| {}) {
                Ok(r) if !r.canceled => created += r.created as usize,
                _ => bad = true,
            })
            .await?;
        if bad || !more {
            return Err(RpcError::new(INTERNAL, "watch refused"));
        }
    }
    Ok(stream)
}

/// Receives events until the stream fails or the task is dropped.
pub(super) async fn receive_events(ctx: Rc<Ctx>, stream: Streaming, class: usize) {
    loop {
        let now = Cell::new(None);
        let mut problem = None;
        let got = stream
            .next(|m| {
                let r = wire::watch_response(m, |value| {
                    let t = now.get().unwrap_or_else(|| {
                        now.set(Some(Instant::now()));
                        now.get().unwrap()
                    });
                    if let Some(sent) = stamp_of(&ctx, value) {
                        ctx.record(class, sent, t, 1, value.len() as u64);
                    }
                });
                match r {
                    Ok(r) if r.canceled => problem = Some("watch canceled"),
                    Ok(r) => {
                        if r.events == 0 && ctx.measured(Instant::now()) {
                            ctx.rec.borrow_mut().bump("progress_notifies", 1.0);
                        }
                    }
                    Err(_) => problem = Some("malformed watch response"),
                }
            })
            .await;
        match (got, problem) {
            (Ok(true), None) => {}
            (Ok(_), what) => {
                let what = what.unwrap_or("watch stream ended");
                return ctx.error(&RpcError::new(INTERNAL, what));
            }
            (Err(e), _) => return ctx.error(&e),
        }
    }
}

pub(super) async fn fanout(ctx: &Rc<Ctx>, keys: Keys, watchers: usize, streams: usize) -> Result<()> {
    let streams = streams.clamp(1, watchers.max(1));
    let mut tasks = Vec::new();
    for s in ctx.share(streams) {
        let n = watchers / streams + usize::from(s < watchers % streams);
        let stream = open_watches(ctx, s, n, keys.prefix.as_bytes()).await?;
        tasks.push(tokio::task::spawn_local(receive_events(ctx.clone(), stream, 0)));
    }
    let s = ctx.start().await;
    if ctx.thread == 0 {
        let keys = Rc::new(keys);
        let values = Rc::new(Values::new(ctx.settings().seed, keys.val_size));
        let pacer = crate::run::pacer(ctx, Some(ctx.settings().rate.unwrap_or(100.0)));
        let mut putters = Vec::new();
        for w in 0..ctx.settings().clients {
            let (ctx, keys, values, pacer) = (ctx.clone(), keys.clone(), values.clone(), pacer.clone());
            let rng = Rng::new(ctx.settings().seed, w);
            putters.push(tokio::task::spawn_local(async move {
                let put = async || {
                    let key = keys.key(keys.pick(&ctx, &rng));
                    let value = stamped(&ctx, &values, &rng, keys.val_size);
                    let req = pb::PutRequest { key, value, ..Default::default() };
                    ctx.pool.get(w).await?.call(Method::KvPut, &req).await?;
                    Done::of(1, 1, keys.val_size)
                };
                client(&ctx, pacer.as_deref(), put).await;
            }));
        }
        for p in putters {
            let _ = p.await;
        }
    } else if let Some(until) = s.until {
        tokio::time::sleep_until(until.into()).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}
