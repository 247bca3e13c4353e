//! What is counted per peer. Members come and go, so the table grows on demand and has a bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::page::Page;
use super::{Counter, Gauge, Histogram};

/// Members that have counters of their own. Further ones, which only strangers can make so many, share those of 0.
const PEERS_MAX: usize = 256;

/// Snapshots in one direction.
#[derive(Debug)]
pub(crate) struct Snapshots {
    pub(crate) inflight: Gauge,
    pub(crate) succeeded: Counter,
    pub(crate) failed: Counter,
    pub(crate) seconds: Histogram,
}

impl Snapshots {
    fn new() -> Snapshots {
        Snapshots {
            inflight: Gauge::default(),
            succeeded: Counter::default(),
            failed: Counter::default(),
            seconds: Histogram::new(Duration::from_millis(100), 10),
        }
    }

    /// One ended.
    pub(crate) fn ended(&self, ok: bool, took: Duration) {
        if ok {
            self.succeeded.add(1);
            self.seconds.observe(took);
        } else {
            self.failed.add(1);
        }
    }
}

/// What concerns one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_failures: Counter,
    pub(crate) received_failures: Counter,
    pub(crate) round_trip: Histogram,
    /// How often it became active, and inactive.
    pub(crate) connected: Counter,
    pub(crate) disconnected: Counter,
    pub(crate) snapshots_sent: Snapshots,
    pub(crate) snapshots_received: Snapshots,
}

impl Peer {
    fn new() -> Peer {
        Peer {
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            sent_failures: Counter::default(),
            received_failures: Counter::default(),
            round_trip: Histogram::new(Duration::from_micros(100), 16),
            connected: Counter::default(),
            disconnected: Counter::default(),
            snapshots_sent: Snapshots::new(),
            snapshots_received: Snapshots::new(),
        }
    }
}

/// The counters of all peers.
#[derive(Debug)]
pub(crate) struct Peers {
    table: Mutex<BTreeMap<u64, Arc<Peer>>>,
    /// Databases received, whoever sent them.
    pub(crate) db_fsync: Histogram,
    pub(crate) db_save: Histogram,
}

impl Default for Peers {
    fn default() -> Peers {
        let db_save = Histogram::new(Duration::from_millis(100), 10);
        Peers { table: Mutex::default(), db_fsync: Histogram::millis(), db_save }
    }
}

impl Peers {
    /// The counters of a peer.
    pub(crate) fn of(&self, id: u64) -> Arc<Peer> {
        let mut table = self.table.lock();
        let id = if table.len() < PEERS_MAX || table.contains_key(&id) { id } else { 0 };
        table.entry(id).or_insert_with(|| Arc::new(Peer::new())).clone()
    }

    /// Everything that was used.
    pub(super) fn put(&self, page: &mut Page, local: &str) {
        for (id, peer) in self.table.lock().iter() {
            put_peer(page, local, &api::ids::hex(*id).to_string(), peer);
        }
    }
}

/// As in etcd a series exists once something was counted in it.
fn put_peer(page: &mut Page, local: &str, id: &str, peer: &Peer) {
    let (from, to, both) = ([("From", id)], [("To", id)], [("Local", local), ("Remote", id)]);
    for (name, labels, counter) in [
        ("etcd_network_peer_sent_bytes_total", &to, &peer.sent_bytes),
        ("etcd_network_peer_received_bytes_total", &from, &peer.received_bytes),
        ("etcd_network_peer_sent_failures_total", &to, &peer.sent_failures),
        ("etcd_network_peer_received_failures_total", &from, &peer.received_failures),
        ("etcd_network_snapshot_send_success", &to, &peer.snapshots_sent.succeeded),
        ("etcd_network_snapshot_send_failures", &to, &peer.snapshots_sent.failed),
        ("etcd_network_snapshot_receive_success", &from, &peer.snapshots_received.succeeded),
        ("etcd_network_snapshot_receive_failures", &from, &peer.snapshots_received.failed),
    ] {
        if counter.get() > 0 {
            page.labelled(name, labels, counter.get() as f64);
        }
    }
    let (connected, disconnected) = (peer.connected.get(), peer.disconnected.get());
    if connected > 0 {
        page.labelled("etcd_network_active_peers", &both, connected.saturating_sub(disconnected) as f64);
    }
    if disconnected > 0 {
        page.labelled("etcd_network_disconnected_peers_total", &both, disconnected as f64);
    }
    for (name, labels, histogram) in [
        ("etcd_network_peer_round_trip_time_seconds", &to, &peer.round_trip),
        ("etcd_network_snapshot_send_total_duration_seconds", &to, &peer.snapshots_sent.seconds),
        ("etcd_network_snapshot_receive_total_duration_seconds", &from, &peer.snapshots_received.seconds),
    ] {
        let snapshot = histogram.snapshot();
        if snapshot.count() > 0 {
            page.histogram(name, labels, &snapshot);
        }
    }
    for (name, labels, snapshots) in [
        ("etcd_network_snapshot_send_inflights_total", &to, &peer.snapshots_sent),
        ("etcd_network_snapshot_receive_inflights_total", &from, &peer.snapshots_received),
    ] {
        if snapshots.inflight.get() != 0 || snapshots.succeeded.get() + snapshots.failed.get() > 0 {
            page.labelled(name, labels, snapshots.inflight.get() as f64);
        }
    }
}
