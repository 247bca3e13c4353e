//! A runtime of one thread, as every thread that has sockets runs one.
//!
//! What would block it (a database that is hashed, or read from and written to a file) goes to a few workers beside
//! it, which end when there has been nothing for them for a while. What they read outlives the runtime: whoever
//! drops it does so with `shutdown_background`.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Workers beside a runtime; further work waits for one of them.
const WORKERS_MAX: usize = 8;
/// How long a worker waits for work.
const WORKER_IDLE_MAX: Duration = Duration::from_secs(5);

/// # Panics
///
/// If the system has no descriptors or threads left, which at a start is the end anyway.
pub(crate) fn of_one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(WORKERS_MAX)
        .thread_keep_alive(WORKER_IDLE_MAX)
        .build()
        .expect("a runtime can be built")
}
