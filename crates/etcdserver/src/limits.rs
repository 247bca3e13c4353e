//! Every bound of the member's core in one place, with the relations between them checked at compile time.
//!
//! A bound that etcd has keeps etcd's number; the others say what happens when they are reached.

use crate::now::{MILLISECOND, SECOND};

/// Largest message of appended entries, and the most that one ready hands to apply, in bytes.
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Appends that may be on their way to one follower.
pub const RAFT_INFLIGHT_MAX: usize = 512;
/// Committed entries that apply may lag behind before proposals are answered "too many requests".
pub const APPLY_GAP_MAX: u64 = 5_000;
/// Requests that may wait for their entry at one time; beyond it "too many requests".
pub const WAITING_MAX: usize = 1 << 16;
/// Bytes of the entries of waiting requests; beyond it "too many requests".
pub const WAITING_BYTES_MAX: u64 = 256 << 20;
/// Membership changes that may wait for the one before them; beyond it "too many requests".
pub const CONF_QUEUE_MAX: usize = 64;
/// Reads that may wait for a read index; beyond it "too many requests".
pub const READS_MAX: usize = 1 << 16;
/// Read requests of followers that arrived before the first commit of a term and are kept; more are dropped,
/// their senders ask again.
pub const EARLY_READS_MAX: usize = 1_024;
/// Rounds of followers that may be under way on a leader; more are dropped, their senders ask again.
pub const FOLLOWER_ROUNDS_MAX: usize = 4_096;
/// Bytes of entries handed to apply and not reported as applied; beyond it hand-over pauses.
pub const APPLY_CREDIT_BYTES: u64 = 64 << 20;
/// Bytes of applied entries kept in memory for followers that lag; a follower behind them gets a snapshot.
pub const LOG_BYTES_MAX: u64 = 64 << 20;
/// Bytes of entries in memory altogether; beyond it a follower drops appends until apply has caught up.
pub const LOG_BYTES_HARD_MAX: u64 = 1 << 30;
/// The in-memory log is cut in steps of at least this many entries.
pub const LOG_CUT_STEP: u64 = 100;
/// What one entry costs in memory beside its bytes (estimate used in the sums above).
pub const ENTRY_OVERHEAD_BYTES: u64 = 192;
/// How long the log is not cut after a snapshot was asked for by a follower.
pub const SNAPSHOT_RELEASE_DELAY_NS: u64 = 30 * SECOND;
/// Largest encoded request where the process gives no other.
pub const REQUEST_BYTES_DEFAULT: u32 = 1_572_864;
/// Log entries between two snapshots on disk.
pub const SNAPSHOT_COUNT_DEFAULT: u64 = 10_000;
/// Applied entries kept in memory and log for followers that lag.
pub const CATCH_UP_ENTRIES_DEFAULT: u64 = 5_000;
/// A read index request that got no answer is sent again after this time.
pub const READ_RETRY_NS: u64 = 500 * MILLISECOND;
/// Leases are looked through this often.
pub const LEASE_SWEEP_NS: u64 = 500 * MILLISECOND;
/// Revokes of due leases that may be proposed per second.
pub const LEASE_REVOKES_PER_SECOND: u64 = 1_000;
/// Revokes of due leases per sweep.
pub const LEASE_REVOKES_PER_SWEEP: usize = 500;
/// Leases that a new leader lets expire within one second at most.
pub const LEASE_SPREAD_PER_SECOND: usize = 750;
/// From this many leases on a new leader spreads them.
pub const LEASE_SPREAD_FROM: usize = 1_000;
/// Time between two checkpoints of a lease, and the shortest time to live that is worth one.
pub const LEASE_CHECKPOINT_NS: u64 = 300 * SECOND;
/// Leases in one checkpoint entry.
pub const LEASE_CHECKPOINT_BATCH: usize = 1_000;
/// How long an answer about leases waits for applied to reach committed.
pub const LEASE_APPLY_WAIT_NS: u64 = SECOND;
/// Questions about leases that may wait; beyond it "too many requests".
pub const LEASE_WAITING_MAX: usize = 1 << 16;
/// A tick later than this many heartbeats makes a leader confirm its quorum before it touches leases.
pub const LATE_TICKS: u64 = 3;
/// A write to the log that takes longer than this many election timeouts makes a leader hand leadership away.
pub const STALL_ELECTIONS: u64 = 2;
/// Lines of the raft library kept until the process takes them; the oldest go first.
pub const RAFT_LINES_MAX: usize = 1_024;
/// Fixed part of the time that a request may take; two election timeouts are added.
pub const REQUEST_TIMEOUT_BASE_NS: u64 = 5 * SECOND;
/// The leader looks at the cluster version this often.
pub const VERSION_CHECK_NS: u64 = 4 * SECOND;
/// Learners that a cluster may have at one time.
pub const MAX_LEARNERS_DEFAULT: usize = 1;

// One message of forwarded proposals, and one request of the default size, must fit in the credit of apply.
const _: () = assert!(RAFT_MESSAGE_BYTES_MAX + (REQUEST_BYTES_DEFAULT as u64) < APPLY_CREDIT_BYTES);
// Entries handed to apply stay in the log until applied: the credit must not exceed what the log may hold.
const _: () = assert!(APPLY_CREDIT_BYTES <= LOG_BYTES_HARD_MAX);
const _: () = assert!(LOG_BYTES_MAX < LOG_BYTES_HARD_MAX);
// Waiting entries are in the log too.
const _: () = assert!(WAITING_BYTES_MAX < LOG_BYTES_HARD_MAX);
// Catch-up entries are what remains after a cut: the cut step must be smaller, or nothing would ever remain.
const _: () =
    assert!(LOG_CUT_STEP < CATCH_UP_ENTRIES_DEFAULT && CATCH_UP_ENTRIES_DEFAULT < SNAPSHOT_COUNT_DEFAULT);
// Sweeps keep the revoke rate.
const _: () = assert!(LEASE_REVOKES_PER_SWEEP as u64 * (SECOND / LEASE_SWEEP_NS) <= LEASE_REVOKES_PER_SECOND);
// Spread leases leave room in the revoke rate for ordinary ones.
const _: () = assert!((LEASE_SPREAD_PER_SECOND as u64) < LEASE_REVOKES_PER_SECOND);
// A lost read must be asked again well before its request times out.
const _: () = assert!(READ_RETRY_NS * 4 < REQUEST_TIMEOUT_BASE_NS);
