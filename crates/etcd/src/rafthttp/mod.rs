//! Between members: etcd's peer protocol over HTTP/1.1.
//!
//! Every member dials every other one twice and reads two endless answers, over which the dialled side sends; while a
//! stream does not stand, messages go by requests of their own; databases always do. All of it runs on one thread of
//! its own, so that no load of clients delays a heartbeat.
//!
//! Nothing here waits for a peer that is slow or gone: queues have bounds, what does not fit is dropped, and raft is
//! told that the peer cannot be reached.
//!
//! Reading order: this file (who this member is), `transport.rs` (peers, and messages to and from the member thread),
//! `peer.rs` (queues and state of one peer), `codec.rs` (bytes), `stream.rs`, `pipeline.rs`, `snapshot.rs` (the three
//! ways), `probe.rs` (round trips), `client.rs` (connections that this member makes), `serve.rs` (those it accepts),
//! `call.rs` (other requests to members).

pub(crate) mod call;
pub(crate) mod client;
mod codec;
mod peer;
mod pipeline;
mod probe;
mod serve;
pub(crate) mod snapshot;
mod stream;
mod transport;

use api::version::{MIN_CLUSTER, Minor, Version};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use client::Dialer;
pub(crate) use codec::parse;
pub(crate) use peer::Kind;
pub(crate) use transport::{Local, Transport};

/// Peers of older versions are refused.
pub(crate) const VERSION_MIN: Minor = MIN_CLUSTER.minor();
/// What is said of a member that its peers do not know any more.
pub(crate) const REMOVED: &str = "the member has been permanently removed from the cluster";

/// Who this member is, as it tells its peers.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) member: u64,
    /// The same as text.
    pub(crate) hex: String,
    pub(crate) cluster: String,
    pub(crate) version: String,
    peer_urls: String,
}

impl Identity {
    pub(crate) fn new(member: u64, cluster: u64, version: Version, peer_urls: &[String]) -> Identity {
        Identity {
            member,
            hex: api::ids::hex(member).to_string(),
            cluster: api::ids::hex(cluster).to_string(),
            version: version.to_string(),
            peer_urls: peer_urls.join(","),
        }
    }

    /// The headers of every message to a peer.
    fn sign(&self, headers: &mut HeaderMap) {
        put(headers, "x-server-from", &self.hex);
        put(headers, "x-server-version", &self.version);
        put(headers, "x-min-cluster-version", &MIN_CLUSTER.to_string());
        put(headers, "x-etcd-cluster-id", &self.cluster);
        put(headers, "x-peerurls", &self.peer_urls);
    }

    /// The header that says who is meant.
    fn address(&self, headers: &mut HeaderMap, to: &str) {
        put(headers, "x-raft-to", to);
    }
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests;
