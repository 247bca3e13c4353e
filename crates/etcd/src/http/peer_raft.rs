//! `/raft` and what lies below it: messages, streams and snapshots of other members.

use std::sync::Arc;

use api::raftpb;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::peer::{refusal, whole, with_cluster};
use super::{field, plain, set, text};
use crate::logging::Value;
use crate::member::handle::Shared;
use crate::rafthttp::{Kind, parse, snapshot};

/// Most bytes of a message of a member, and of a stranger's. A stream carries longer ones.
const MESSAGE_MAX: usize = 64 << 20;
const STRANGERS_MESSAGE_MAX: usize = 8 << 20;

/// Whoever says where it listens can be answered, even before it is known to be a member.
fn add_remote(shared: &Shared, headers: &HeaderMap) {
    let (Ok(from), urls) = (api::ids::parse_hex(field(headers, "x-server-from")), field(headers, "x-peerurls")) else {
        return;
    };
    if urls.is_empty() || is_removed(shared, from) {
        return;
    }
    let urls = urls.split(',').map(ToString::to_string).collect();
    if !shared.transport.add_remote(from, urls) {
        let from = Value::from(api::ids::hex(from).to_string());
        shared.logger.warn("too many remote peers; not added", &[("remote-peer-id", from)]);
    }
}

fn is_removed(shared: &Shared, id: u64) -> bool {
    shared.published.load().edge.cluster.is_removed(id)
}

/// `POST /raft`.
pub(super) async fn message(shared: &Arc<Shared>, request: Request) -> Response {
    if let Some(why) = refusal(shared, request.headers()) {
        return with_cluster(shared, text(StatusCode::PRECONDITION_FAILED, why));
    }
    add_remote(shared, request.headers());
    let from = api::ids::parse_hex(field(request.headers(), "x-server-from")).unwrap_or(0);
    let most = if shared.transport.is_peer(from) { MESSAGE_MAX } else { STRANGERS_MESSAGE_MAX };
    let response = match whole(request.into_body(), most).await {
        None => {
            say(shared, "failed to read Raft message", "it is too long, or broke off");
            text(StatusCode::BAD_REQUEST, "error reading raft message\n")
        }
        Some(body) => take(shared, &body),
    };
    with_cluster(shared, response)
}

fn take(shared: &Shared, body: &[u8]) -> Response {
    let message = match parse::<raftpb::Message>(bytes::Bytes::copy_from_slice(body)) {
        Ok(message) => message,
        Err(error) => {
            say(shared, "failed to unmarshal Raft message", &error.to_string());
            return text(StatusCode::BAD_REQUEST, "error unmarshalling raft message\n");
        }
    };
    let taken = match is_removed(shared, message.from()) {
        true => Err("cannot process message from removed member"),
        false => shared.transport.accept(message, body.len()),
    };
    match taken {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => {
            say(shared, "failed to process Raft message", why);
            let mut refused = text(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message\n");
            set(&mut refused, "connection", "close");
            refused
        }
    }
}

fn say(shared: &Shared, what: &str, why: &str) {
    let local = Value::from(api::ids::hex(shared.member_id).to_string());
    shared.logger.warn(what, &[("local-member-id", local), ("error", why.into())]);
}

/// `GET /raft/stream/KIND/FROM`; `rest` is what follows the second slash.
pub(super) fn stream(shared: &Shared, rest: &str, headers: &HeaderMap) -> Response {
    let mut response = with_cluster(shared, open_stream(shared, rest, headers));
    set(&mut response, "x-server-version", &shared.core.version.to_string());
    response
}

fn open_stream(shared: &Shared, rest: &str, headers: &HeaderMap) -> Response {
    if let Some(why) = refusal(shared, headers) {
        return text(StatusCode::PRECONDITION_FAILED, why);
    }
    let (kind, from) = rest.rsplit_once('/').unwrap_or(("", rest));
    let Some(kind) = Kind::of_path(kind) else { return text(StatusCode::NOT_FOUND, "invalid path\n") };
    let Ok(from) = api::ids::parse_hex(from) else { return text(StatusCode::NOT_FOUND, "invalid from\n") };
    let hex = |id| Value::from(api::ids::hex(id).to_string());
    let own = hex(shared.member_id);
    let who = [("local-member-id", own.clone()), ("remote-peer-id-stream-handler", own), ("remote-peer-id-from", hex(from))];
    if is_removed(shared, from) {
        shared.logger.warn("rejected stream from remote peer because it was removed", &who);
        return text(StatusCode::GONE, "removed member\n");
    }
    if !shared.transport.is_peer(from) {
        add_remote(shared, headers);
        let mut fields = who.to_vec();
        fields.push(("cluster-id", hex(shared.cluster_id)));
        shared.logger.warn("failed to find remote peer in cluster", &fields);
        return text(StatusCode::NOT_FOUND, "error sender not found\n");
    }
    let to = field(headers, "x-raft-to");
    if to != api::ids::hex(shared.member_id).to_string() {
        let [local, handler, from] = who;
        let (header, cluster) = (("remote-peer-id-header", to.into()), ("cluster-id", hex(shared.cluster_id)));
        shared.logger.warn("ignored streaming request; ID mismatch", &[local, handler, header, from, cluster]);
        return text(StatusCode::PRECONDITION_FAILED, "to field mismatch\n");
    }
    match shared.transport.attach(from, kind) {
        Some(body) => Response::new(body),
        // Removed just now.
        None => text(StatusCode::NOT_FOUND, "error sender not found\n"),
    }
}

/// `POST /raft/snapshot`.
pub(super) async fn snapshot(shared: &Arc<Shared>, request: Request) -> Response {
    if let Some(why) = refusal(shared, request.headers()) {
        return with_cluster(shared, text(StatusCode::PRECONDITION_FAILED, why));
    }
    add_remote(shared, request.headers());
    let place = snapshot::Place {
        disk: shared.disk.clone(),
        dir: shared.core.snap_dir(),
        applied: shared.published.load().edge.applied,
    };
    let response = match snapshot::receive(shared.transport.inner(), place, request.into_body()).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err((status, why)) => text(status, why),
    };
    with_cluster(shared, response)
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
