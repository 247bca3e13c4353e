//! The wire contract of etcd: message types, errors, methods, ids and versions, as clients, peers and files know them.
//!
//! Must not know: anything else of ours, and how anything is stored, sent or decided. Values only: no clock, no I/O.
//!
//! Reading order: `proto/*.proto` (every message with its field numbers; the modules named `...pb` and `health` are
//! made from them by `cargo xtask codegen`), [`methods`], [`error`], [`metadata`]; then [`wire`] with [`schema`], which
//! work on encoded bytes; then the small ones, [`ids`], [`version`], [`versionpb`].
//!
//! Fields of `raftpb`, `walpb`, `snappb`, `etcdserverpb::Metadata` and `etcdserverpb::Request` know whether they
//! were set (`Option`), because Go refuses some records in which one is missing, and because members up to 3.6
//! write zeros out. All other scalars are plain and omitted when zero.

pub mod error;
pub mod ids;
pub mod metadata;
pub mod methods;
pub mod schema;
pub mod version;
pub mod versionpb;
pub mod wire;

pub use error::{ErrorCode, Status};

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all, reason = "generated")]
        #[rustfmt::skip]
        #[path = $file]
        pub mod $name;
    )*};
}

generated! {
    /// Users, roles, permissions.
    authpb = "gen/authpb.rs";
    /// The client API, log entries, and the two messages of older logs.
    etcdserverpb = "gen/etcdserverpb.rs";
    /// The health service of gRPC (`grpc.health.v1`).
    health = "gen/grpc.health.v1.rs";
    /// Stored leases, and what members ask each other about them.
    leasepb = "gen/leasepb.rs";
    /// Members and versions inside log entries.
    membershippb = "gen/membershippb.rs";
    /// Stored keys and events.
    mvccpb = "gen/mvccpb.rs";
    /// Raft's log entries, messages and configuration.
    raftpb = "gen/raftpb.rs";
    /// The envelope of `.snap` files.
    snappb = "gen/snappb.rs";
    /// The election service.
    v3electionpb = "gen/v3electionpb.rs";
    /// The lock service.
    v3lockpb = "gen/v3lockpb.rs";
    /// Records of the write-ahead log.
    walpb = "gen/walpb.rs";
}

/// Bodies of the lease requests that members send each other over HTTP (`/leases`, `/leases/internal`).
pub mod lease_http {
    pub use crate::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
    pub use crate::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
}
