//! `/raft` and what lies below it, as a member without peers answers: messages and streams are checked as in every
//! member, and then there is nobody they could come from.

use std::sync::Arc;

use api::raftpb::{self, MessageType};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use prost::Message;

use super::peer::{refusal, whole, with_cluster};
use super::{plain, set, text};
use crate::member::handle::Shared;

/// Most bytes of a message that is read: none of a stranger's is worth more.
const MESSAGE_MAX: usize = 8 << 20;
/// Most bytes that the message at the head of a snapshot may say it has, as in etcd.
const SNAPSHOT_HEAD_MAX: u64 = 64 << 20;

/// `POST /raft`. A message for this member is taken, and goes no further: no member has sent it.
pub(super) async fn message(shared: &Arc<Shared>, request: Request) -> Response {
    if let Some(why) = refusal(shared, request.headers()) {
        return with_cluster(shared, text(StatusCode::PRECONDITION_FAILED, why));
    }
    let response = match whole(request.into_body(), MESSAGE_MAX).await {
        None => text(StatusCode::BAD_REQUEST, "error reading raft message\n"),
        Some(body) => match raftpb::Message::decode(body.as_slice()) {
            Err(_) => text(StatusCode::BAD_REQUEST, "error unmarshalling raft message\n"),
            Ok(message) if message.to() == shared.member_id => StatusCode::NO_CONTENT.into_response(),
            Ok(_) => {
                let mut refused = text(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message\n");
                set(&mut refused, "connection", "close");
                refused
            }
        },
    };
    with_cluster(shared, response)
}

/// `GET /raft/stream/KIND/FROM`; `rest` is what follows the second slash.
pub(super) fn stream(shared: &Shared, rest: &str, headers: &HeaderMap) -> Response {
    let (kind, from) = rest.rsplit_once('/').unwrap_or(("", rest));
    let response = if let Some(why) = refusal(shared, headers) {
        text(StatusCode::PRECONDITION_FAILED, why)
    } else if !matches!(kind, "msgapp" | "message") {
        text(StatusCode::NOT_FOUND, "invalid path\n")
    } else if api::ids::parse_hex(from).is_err() {
        text(StatusCode::NOT_FOUND, "invalid from\n")
    } else {
        text(StatusCode::NOT_FOUND, "error sender not found\n")
    };
    let mut response = with_cluster(shared, response);
    set(&mut response, "x-server-version", &shared.core.version.to_string());
    response
}

/// `POST /raft/snapshot`: the head is checked; nobody who could send one is known, so the rest is not read.
pub(super) async fn snapshot(shared: &Arc<Shared>, request: Request) -> Response {
    if let Some(why) = refusal(shared, request.headers()) {
        return with_cluster(shared, text(StatusCode::PRECONDITION_FAILED, why));
    }
    let response = match snapshot_head(request.into_body()).await {
        Err(why) => text(StatusCode::BAD_REQUEST, format!("failed to decode raft message ({why})\n")),
        Ok(message) if message.r#type() != MessageType::MsgSnap => {
            text(StatusCode::BAD_REQUEST, "wrong raft message type\n")
        }
        Ok(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "failed to save KV snapshot (the sender is no member)\n"),
    };
    with_cluster(shared, response)
}

/// A length in eight bytes, then a message of that length.
async fn snapshot_head(mut body: Body) -> Result<raftpb::Message, &'static str> {
    let mut bytes = Vec::new();
    let mut wanted = 8;
    loop {
        if bytes.len() >= 8 {
            let len = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
            if len > SNAPSHOT_HEAD_MAX {
                return Err("rafthttp: error limit exceeded");
            }
            wanted = 8 + len as usize;
        }
        if bytes.len() >= wanted && wanted >= 8 && bytes.len() >= 8 {
            return raftpb::Message::decode(&bytes[8..wanted]).map_err(|_| "proto: cannot parse invalid wire-format data");
        }
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Some(Err(_)) | None if bytes.is_empty() => return Err("EOF"),
            Some(Err(_)) | None => return Err("unexpected EOF"),
        }
    }
}

/// `/raft/probing`, whatever the method: that this member is there, and its clock.
pub(super) fn probing(shared: &Shared) -> Response {
    let nanos = shared.now().wall_ns;
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let now = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{point}{fraction}Z",
        at.year(), u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second()
    );
    plain(StatusCode::OK, format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(bytes: &[u8]) -> Result<raftpb::Message, &'static str> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(snapshot_head(Body::from(bytes.to_vec())))
    }

    #[test]
    fn the_head_of_a_snapshot_is_checked_before_it_is_believed() {
        assert_eq!(head(b"").unwrap_err(), "EOF");
        assert_eq!(head(&[0, 0, 0, 0, 0, 0, 0, 9, 8]).unwrap_err(), "unexpected EOF");
        assert_eq!(head(&[0, 0, 0, 1, 0, 0, 0, 0]).unwrap_err(), "rafthttp: error limit exceeded");
        assert!(head(&[0, 0, 0, 0, 0, 0, 0, 1, 0xff]).unwrap_err().starts_with("proto:"));
        assert_eq!(head(&[0, 0, 0, 0, 0, 0, 0, 2, 8, 8, 77]).unwrap().r#type(), MessageType::MsgHeartbeat);
    }
}
