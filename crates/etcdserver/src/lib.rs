//! One member of a cluster as state machines: a raft lane, an apply lane, and how they are built from a directory.
//!
//! What it is: synchronous code that is given one input at a time, with the time as an argument, and leaves effects
//! behind. The same code runs in the process and, a whole cluster on one thread, in the simulator.
//!
//! What it must not know: sockets, threads, wall clocks, runtimes, flags, metrics exporters.
//!
//! Reading order: `effect.rs` (every input and effect of every lane), `now.rs`, `limits.rs`, `config.rs`;
//! `raft/` (the raft lane; the raft crate is used in there only), `membership/` (members, versions, downgrade),
//! `bootstrap.rs` and `snapshot.rs` (from directory to lanes and back), `version.rs`; `apply/` (what a committed
//! entry does), `lease.rs`, `auth/`, `side.rs`, `read.rs` (what a network thread reads).

pub mod apply;
pub mod auth;
pub mod bootstrap;
pub mod config;
pub mod effect;
pub mod install;
pub mod lease;
pub mod limits;
pub mod membership;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
pub mod now;
pub mod raft;
pub mod read;
pub mod side;
pub mod snapshot;
pub mod version;

pub use config::Config;
pub use now::Now;
