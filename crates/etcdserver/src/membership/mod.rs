//! Who belongs to the cluster: members, removed ids, cluster version, downgrade job.
//!
//! Values with methods. A method that changes something validates first and returns what to write into the small
//! buckets, so that store and memory cannot drift apart. Must not know: raft's own view, connections, who leads.
//!
//! Reading order: `member.rs` (one member and its JSON), `cluster.rs` (all of them, and every change),
//! `conf_state.rs` (voters and learners for raft and its stored form), `v2_snapshot.rs` (the JSON in `.snap` files).

mod cluster;
mod conf_state;
mod json;
mod member;
mod v2_snapshot;

pub use cluster::{Cluster, ConfEffect, Downgrade, Fault};
pub use conf_state::{conf_state, conf_state_json, parse_conf_state_json};
pub use member::{ConfContext, Member};
pub(crate) use v2_snapshot::VERSION_PATH;
pub use v2_snapshot::{V2Membership, v2_attributes_path, v2_member_of_attributes_path};
