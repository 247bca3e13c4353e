//! What the load, the faults and the checks share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use harness::{Binaries, Cluster};
use tokio::sync::watch;

use super::Report;
use crate::book::Book;

/// Clients of each member that write and read.
pub(super) const CLIENTS_PER_MEMBER: u64 = 2;

/// Counts of what went on.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    pub(super) reads: AtomicU64,
    pub(super) renewals: AtomicU64,
    pub(super) lapses: AtomicU64,
    pub(super) early_with_go: AtomicU64,
    pub(super) leaderless: AtomicU64,
    pub(super) moves: AtomicU64,
}

/// See the head of this file.
pub(super) struct World {
    pub(super) book: Book,
    /// Where the members' clients connect.
    pub(super) urls: Vec<String>,
    /// Which of them are Go's.
    is_go: Vec<bool>,
    pub(super) tallies: Tallies,
    /// For each member the number of the fault that keeps it from a quorum, 0 for none.
    alone: Vec<AtomicUsize>,
    /// Answers by a quorum, for each member that gave them.
    answers: Vec<AtomicU64>,
    /// How far each watch is: those bound to a member, then those that move.
    pub(super) watched: Vec<AtomicI64>,
    go_was_paused: AtomicBool,
    pub(super) clients_over: watch::Sender<bool>,
    pub(super) watches_over: watch::Sender<bool>,
    /// Clients that have not ended.
    pub(super) clients: AtomicUsize,
}

impl World {
    pub(super) fn new(cluster: &Cluster, releases: &[&Binaries]) -> Arc<World> {
        let len = cluster.len();
        Arc::new(World {
            book: Book::default(),
            urls: (0..len).map(|i| cluster.member(i).client_url()).collect(),
            is_go: releases.iter().map(|binaries| binaries.label != "ours").collect(),
            tallies: Tallies::default(),
            alone: (0..len).map(|_| AtomicUsize::new(0)).collect(),
            answers: (0..len).map(|_| AtomicU64::new(0)).collect(),
            watched: (0..2 * len).map(|_| AtomicI64::new(1)).collect(),
            go_was_paused: AtomicBool::new(false),
            clients_over: watch::Sender::new(false),
            watches_over: watch::Sender::new(false),
            clients: AtomicUsize::new(0),
        })
    }

    /// Whether a member is one of Go's.
    pub(super) fn is_go(&self, i: usize) -> bool {
        self.is_go[i]
    }

    /// From now on these have no quorum, and all others may have one.
    pub(super) fn leave_alone(&self, members: &[usize], fault: usize) {
        for (i, alone) in self.alone.iter().enumerate() {
            alone.store(if members.contains(&i) { fault } else { 0 }, Ordering::SeqCst);
        }
    }

    /// The fault that keeps a member from a quorum, 0 for none.
    pub(super) fn alone(&self, i: usize) -> usize {
        self.alone[i].load(Ordering::SeqCst)
    }

    /// A member answered what it must ask a quorum for; `alone` as it was when the request began.
    pub(super) fn answered(&self, i: usize, alone: usize) {
        if alone != 0 && self.alone(i) == alone {
            self.book.fail(format!("member {i} answered without a quorum"));
        }
        self.answers[i].fetch_add(1, Ordering::SeqCst);
    }

    /// How often a member answered what it must ask a quorum for.
    pub(super) fn answers(&self, i: usize) -> u64 {
        self.answers[i].load(Ordering::SeqCst)
    }

    pub(super) fn note_pause(&self, i: usize) {
        self.go_was_paused.fetch_or(self.is_go(i), Ordering::SeqCst);
    }

    /// A lease that was renewed in time is gone. A member of Go's that led, was paused and was replaced revokes leases
    /// that were renewed with its successor.
    pub(super) fn early_end(&self, lease: i64) {
        if self.go_was_paused.load(Ordering::SeqCst) {
            self.tallies.early_with_go.fetch_add(1, Ordering::SeqCst);
        } else {
            self.book.fail(format!("lease {lease:x} ended although it was renewed in time"));
        }
    }

    pub(super) fn stop_clients(&self) {
        self.clients_over.send_replace(true);
    }

    pub(super) fn stop_watches(&self) {
        self.watches_over.send_replace(true);
    }

    pub(super) fn clients_are_over(&self) -> bool {
        *self.clients_over.borrow()
    }

    pub(super) fn tell(&self, report: &mut Report) {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        report.counts = self.book.ledger.lock().counts();
        report.doubts = self.book.doubts.lock().clone();
        report.revisions = self.book.history.lock().last();
        report.watches = self.watched.len() as u64;
        report.leaderless = read(&self.tallies.leaderless);
        report.moves = read(&self.tallies.moves);
        report.reads = read(&self.tallies.reads);
        report.renewals = read(&self.tallies.renewals);
        report.lapses = read(&self.tallies.lapses);
        report.early_with_go = read(&self.tallies.early_with_go);
    }
}
