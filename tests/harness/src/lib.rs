//! Starts real servers and tools, ours and Go's, for the tests that need processes.
//!
//! What it is: [`Binaries`] (where a release's programs are), [`Member`] (a server process with a scratch directory and
//! ports of its own), [`run`] (a tool's output and exit code). Everything listens on loopback and ends with the test.
//!
//! What it must not know: any etcd type. It sees what a user sees: files, ports, text.
//!
//! Reading order: `binaries.rs`, `member.rs`, `cluster.rs` (several members), `ports.rs`, `network.rs`, `fabric.rs` (members
//! that can be cut off from each other), `names.rs` (a DNS server), `tool.rs`, `process.rs`, `certificates.rs`.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

mod binaries;
mod certificates;
mod cluster;
mod fabric;
mod member;
mod names;
mod network;
mod ports;
mod process;
mod rootless;
mod tool;

pub use binaries::{Binaries, go_release, ours};
pub use certificates::{Authority, CLIENT, Files, LOOPBACK, Owner};
pub use cluster::Cluster;
pub use fabric::{Fabric, Room};
pub use member::{Member, Options};
pub use names::{Manner, Names, Record, with_names};
pub use network::with_default_ports;
pub use ports::free_port;
pub use process::{Process, lone_member};
pub use rootless::ran_in_a_namespace;
pub use tool::{Output, run, run_with_input};
