//! Sizes, the quota with its alarm, malformed requests, and metadata of calls.

use std::time::Duration;

use api::ErrorCode;
use api::error::Code;
use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, DefragmentRequest, StatusRequest};
use api::methods::Method;
use bytes::Bytes;
use parity::semantics::answer::{holds, rev};
use parity::semantics::request::{
    Op, compact, compact_physical, delete, delete_span, everything, grant, put, range, then, when,
};
use parity::semantics::{Difference, Group, Outcome, Status, Target, same};
use prost::Message;

pub(crate) fn groups() -> Vec<Group> {
    vec![freed(full()), alarm_of_another(), malformed(sizes())]
}

/// The default of `--max-request-bytes`.
const REQUEST_MAX: usize = 1_572_864;

fn sizes() -> Group {
    Group::fresh("sizes")
        .case("KV-126", async |t| {
            t.refused(put("big", vec![0; REQUEST_MAX]), ErrorCode::RequestTooLarge).await
        })
        .case("KV-127", async |t| t.ok(put("big", vec![0; REQUEST_MAX - 200])).await.map(|_| ()))
        .case("KV-128", async |t| {
            let request = put("big", vec![0; REQUEST_MAX + 512 * 1024 + 100]);
            let text =
                format!("grpc: received message larger than max ({} vs. 2097152)", request.encoded_len());
            t.fails(request, &Status::new(Code::ResourceExhausted, text)).await
        })
        .case("KV-129", async |t| {
            t.ok(delete("big")).await?;
            for at in 0..4 {
                t.ok(put(format!("big{at}"), vec![0; 1_500_000])).await?;
            }
            let answer = t.everything().await?;
            same("bytes", answer.kvs.iter().map(|kv| kv.value.len()).sum::<usize>(), 6_000_000)
        })
}

fn malformed(group: Group) -> Group {
    let range_path = Method::KvRange.path();
    group
        .case("KV-130", async |t| {
            let status = t.raw("/etcdserverpb.KV/Nope", Bytes::new(), &[]).await.err();
            let text = "unknown method Nope for service etcdserverpb.KV";
            same("status", status, Some(Status::new(Code::Unimplemented, text)))
        })
        .case("KV-131", async move |t| {
            let mut bytes = range("zz").encode_to_vec();
            // Field 200, a varint.
            bytes.extend_from_slice(&[0xc0, 0x0c, 0x07]);
            let answer = t.raw(range_path, bytes.into(), &[]).await;
            holds("answered", answer.is_ok(), answer)
        })
        .case("KV-132", async move |t| {
            let answer = t.raw(range_path, Bytes::from_static(b"\xff\xff\xff"), &[]).await;
            let Err(status) = answer else { return Err(Difference::new("expected an error, got an answer")) };
            same("code", status.code, Code::Internal)?;
            // The rest of the text differs between builds of Go's library.
            let start = "grpc: error unmarshalling request: ";
            holds("begins as gRPC begins it", status.message.starts_with(start), status.message)
        })
        .case("KV-158", async |t| {
            let answer = t.ask_with(range("a"), &[("hasleader", b"true")]).await;
            holds("answered", answer.is_ok(), answer)
        })
        .case("KV-159", async |t| {
            let answer = t.ask_with(range("a"), &[("client-api-version", b"3.7\xff")]).await;
            same("status", answer.err(), Some(ErrorCode::InvalidClientApiVersion.into()))
        })
}

fn alarm(action: AlarmAction, member_id: u64) -> AlarmRequest {
    AlarmRequest { action: action as i32, member_id, alarm: AlarmType::Nospace as i32 }
}

async fn own_id(t: &Target) -> Result<u64, Difference> {
    let header = t.ok(range("a")).await?.header;
    Ok(header.map_or(0, |header| header.member_id))
}

const QUOTA: i64 = 16 << 20;
/// Size of the values that fill it.
const FILL: usize = 1 << 20;

fn full() -> Group {
    Group::fresh("full")
        .flags(&["--quota-backend-bytes=16777216"])
        .case("KV-146", async |t| {
            let value = vec![b'x'; FILL];
            t.ok(put("x", "")).await?;
            let mut refused = None;
            for at in 0..64 {
                if let Err(status) = t.ask(put(format!("fill/{at:02}"), &value)).await {
                    refused = Some(status);
                    break;
                }
            }
            same("refused", refused, Some(ErrorCode::NoSpace.into()))?;
            let alarms = t.ok(AlarmRequest::default()).await?.alarms;
            let own = AlarmMember { member_id: own_id(t).await?, alarm: AlarmType::Nospace as i32 };
            same("alarms", alarms, [own])
        })
        .case("KV-147", async |t| {
            let s = || put("s", "").op();
            t.refused(put("s", ""), ErrorCode::NoSpace).await?;
            t.refused(grant(0, 60), ErrorCode::NoSpace).await?;
            t.refused(then([s()]), ErrorCode::NoSpace).await?;
            t.refused(when([], [range("x").op()], [s()]), ErrorCode::NoSpace).await?;
            t.refused(then([then([s()]).op()]), ErrorCode::NoSpace).await
        })
        .case("KV-148", async |t| {
            // This gate looks at the file and at what the put would add. The file may still be behind what is applied.
            let request = put("", vec![b'x'; FILL]);
            for _ in 0..100 {
                if t.ok(StatusRequest {}).await?.db_size + FILL as i64 >= QUOTA {
                    break;
                }
                t.sleep(Duration::from_millis(50)).await;
            }
            t.refused(request, ErrorCode::NoSpace).await
        })
        .case("KV-149", async |t| {
            same("count", t.ok(range("x")).await?.count, 1)?;
            let deleted = t.ok(delete("fill/00")).await?;
            same("deleted", deleted.deleted, 1)?;
            t.ok(compact(rev(&deleted.header) - 1)).await.map(|_| ())
        })
        .case("KV-150", async |t| {
            t.ok(then([range("x").op()])).await?;
            t.ok(then([delete("x").op()])).await.map(|_| ())
        })
}

fn freed(group: Group) -> Group {
    group.case("KV-151", async |t| {
        let deleted = rev(&t.ok(delete_span("\0", "\0")).await?.header);
        t.ok(compact_physical(deleted)).await?;
        t.ok(DefragmentRequest {}).await?;
        same("count", t.ok(everything()).await?.count, 0)?;
        t.refused(put("s", ""), ErrorCode::NoSpace).await?;
        t.ok(alarm(AlarmAction::Deactivate, own_id(t).await?)).await?;
        t.ok(put("s", "")).await.map(|_| ())
    })
}

fn alarm_of_another() -> Group {
    Group::fresh("alarm of another member").case("KV-169", async |t| -> Outcome {
        t.ok(alarm(AlarmAction::Activate, 5)).await?;
        t.refused(put("", ""), ErrorCode::EmptyKey).await?;
        t.refused(put("x", ""), ErrorCode::NoSpace).await
    })
}
