//! Names of gRPC metadata and HTTP headers that carry meaning in etcd, in the lower case of HTTP/2.

/// With the value [`HAS_LEADER_TRUE`]: fail instead of waiting when there is no leader.
pub const HAS_LEADER: &str = "hasleader";
/// The only value of [`HAS_LEADER`] that counts.
pub const HAS_LEADER_TRUE: &str = "true";
/// Version of the client library; any UTF-8, only counted.
pub const CLIENT_API_VERSION: &str = "client-api-version";
/// The auth token. Looked at before [`AUTHORIZATION`].
pub const TOKEN: &str = "token";
/// The auth token as the JSON gateway sends it.
pub const AUTHORIZATION: &str = "authorization";
/// Stripped from the front of a token.
pub const BEARER: &str = "Bearer ";

/// Headers between members. Names are case-insensitive; Go writes them as `X-Etcd-Cluster-Id`.
pub mod peer {
    /// Sender's id in hex.
    pub const FROM: &str = "x-server-from";
    /// Sender's (and on replies the server's) version.
    pub const SERVER_VERSION: &str = "x-server-version";
    /// The oldest cluster the sender can be part of.
    pub const MIN_CLUSTER_VERSION: &str = "x-min-cluster-version";
    /// Cluster id in hex.
    pub const CLUSTER_ID: &str = "x-etcd-cluster-id";
    /// Id in hex of the member that is dialled; on streams only.
    pub const RAFT_TO: &str = "x-raft-to";
    /// The sender's peer URLs, joined by commas.
    pub const PEER_URLS: &str = "x-peerurls";
}
