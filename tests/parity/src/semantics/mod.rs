//! Behaviour cases by number: small scripts of gRPC calls, run on Go etcd and on ours, each with the answers expected.
//!
//! A [`Case`](suite::Suite) is an async function on a [`Target`], the connection to a running member; it returns the
//! first difference it sees. Cases that stand on the same data form a [`Group`]: one member, one set-up, the cases in
//! order. A [`Suite`] runs all its groups on both servers and fails with one list of all differences.
//!
//! Environment: `MAINSTAY_CASES=KV-012,KV-030` runs only the groups that hold these cases, `MAINSTAY_SERVER=ours` (or
//! `go`) only that server; `MAINSTAY_TIMES=1` prints how long every group took.
//!
//! Reading order: [`suite`], [`target`], [`stream`], [`request`] (short forms of requests), [`answer`] (short forms of
//! answers), [`streams`] (watches and keepalives), [`alarms`].

pub mod alarms;
pub mod answer;
pub mod dice;
pub mod request;
pub mod stream;
pub mod streams;
pub mod suite;
pub mod target;

pub use answer::{Difference, Outcome, Status, same};
pub use stream::{Received, Stream};
pub use suite::{Group, Suite, covers};
pub use target::{Side, Target};
