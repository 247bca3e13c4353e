//! Messages by requests of their own, for as long as no stream stands: `POST /raft`.

use std::sync::Arc;
use std::time::Duration;

use api::raftpb::Message;
use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use prost::Message as _;

use super::client::{self, Kept, field};
use super::peer::Peer;
use super::transport::Inner;
use crate::config::value::Address;

/// Requests that are under way to one peer at one time, as in etcd.
pub(crate) const WORKERS: usize = 4;
/// Longest wait for an answer. Go waits for ever; a peer that needs longer is not there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const ANSWER_MAX: usize = 64 << 10;

/// Takes messages that no stream carries and posts them, one after the other, until the peer is stopped.
pub(crate) async fn work(inner: Arc<Inner>, peer: Arc<Peer>) {
    let mut kept = Kept::default();
    loop {
        let Some(message) = peer.next_post() else {
            tokio::select! {
                () = peer.stopped() => return,
                () = peer.pipeline_ready.notified() => continue,
            }
        };
        let bytes = message.encoded_len() as u64;
        let posted = tokio::select! {
            () = peer.stopped() => return,
            posted = post(&inner, &peer, &message, &mut kept) => posted,
        };
        match posted {
            Ok(()) => {
                peer.activate(&inner);
                peer.counts.sent_bytes.add(bytes);
            }
            Err(why) => {
                peer.deactivate(&inner, "pipeline", "write", &why);
                inner.unreachable(peer.id);
                peer.counts.sent_failures.add(1);
            }
        }
    }
}

async fn post(inner: &Arc<Inner>, peer: &Peer, message: &Message, kept: &mut Kept) -> Result<(), String> {
    let url = peer.urls.lock().pick().ok_or("the peer has no address")?;
    let body = bytes::Bytes::from(message.encode_to_vec());
    let make = || request(inner, &url, body.clone());
    let answered = kept.request(&inner.dialer, &url, make, (ANSWER_MAX, ANSWER_TIMEOUT)).await;
    let posted = answered.and_then(|answer| {
        check(inner, peer, answer.status(), field(answer.headers(), "x-etcd-cluster-id"), answer.body())
    });
    if posted.is_err() {
        peer.urls.lock().unreachable(&url);
    }
    posted
}

fn request(inner: &Inner, url: &Address, body: bytes::Bytes) -> axum::http::Request<Body> {
    let mut request = client::request(Method::POST, url, "/raft", Body::from(body));
    inner.identity.sign(request.headers_mut());
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    request
}

/// What the answer to a post means; a peer that says this member was removed ends it.
pub(crate) fn check(inner: &Arc<Inner>, peer: &Peer, status: StatusCode, cluster: &str, text: &[u8]) -> Result<(), String> {
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::FORBIDDEN => {
            inner.expelled();
            Err(super::REMOVED.into())
        }
        StatusCode::PRECONDITION_FAILED => {
            let why = String::from_utf8_lossy(text).trim_end_matches('\n').to_string();
            Err(inner.say_ignored(peer, cluster, why))
        }
        other => {
            let reason = other.canonical_reason().unwrap_or_default();
            Err(format!("unexpected http status {reason} while posting to peer {}", peer.hex))
        }
    }
}
