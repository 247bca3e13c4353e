//! Every family there is: name, kind and what it says.

/// How a family behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As it stands on the page.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One family.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
}

/// The family of that name.
pub(crate) fn find(name: &str) -> Option<&'static Family> {
    FAMILIES.binary_search_by(|family| family.name.cmp(name)).ok().map(|at| &FAMILIES[at])
}

const fn family(name: &'static str, kind: Kind, help: &'static str) -> Family {
    Family { name, kind, help }
}

/// Sorted by name.
#[rustfmt::skip]
static FAMILIES: &[Family] = &[
    family("etcd_cluster_version", Kind::Gauge, "1 for cluster version label."),
    family("etcd_debugging_auth_revision", Kind::Gauge, "Auth store revision."),
    family("etcd_debugging_disk_backend_commit_rebalance_duration_seconds", Kind::Histogram, "Time to merge pages before a commit; part of building them here, so 0."),
    family("etcd_debugging_disk_backend_commit_spill_duration_seconds", Kind::Histogram, "Time to build the pages of a commit."),
    family("etcd_debugging_disk_backend_commit_write_duration_seconds", Kind::Histogram, "Time to write and sync the pages of a commit."),
    family("etcd_debugging_lease_granted_total", Kind::Counter, "Leases granted."),
    family("etcd_debugging_lease_renewed_total", Kind::Counter, "Leases renewed on leader."),
    family("etcd_debugging_lease_revoked_total", Kind::Counter, "Leases revoked."),
    family("etcd_debugging_lease_ttl_total", Kind::Histogram, "Granted TTL distribution."),
    family("etcd_debugging_mvcc_compact_revision", Kind::Gauge, "Last compacted revision."),
    family("etcd_debugging_mvcc_current_revision", Kind::Gauge, "Current store revision."),
    family("etcd_debugging_mvcc_db_compaction_keys_total", Kind::Counter, "Db keys compacted."),
    family("etcd_debugging_mvcc_db_compaction_last", Kind::Gauge, "Unix time of last db compaction."),
    family("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", Kind::Histogram, "Db compaction pause."),
    family("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", Kind::Histogram, "Db compaction total time."),
    family("etcd_debugging_mvcc_events_total", Kind::Counter, "Events sent."),
    family("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", Kind::Histogram, "Index compaction pause."),
    family("etcd_debugging_mvcc_keys_total", Kind::Gauge, "Keys in store."),
    family("etcd_debugging_mvcc_pending_events_total", Kind::Gauge, "Events pending send."),
    family("etcd_debugging_mvcc_slow_watcher_total", Kind::Gauge, "Unsynced watchers."),
    family("etcd_debugging_mvcc_total_put_size_in_bytes", Kind::Gauge, "Bytes of puts seen."),
    family("etcd_debugging_mvcc_watch_stream_total", Kind::Gauge, "Open watch streams."),
    family("etcd_debugging_mvcc_watcher_total", Kind::Gauge, "Active watchers."),
    family("etcd_debugging_server_alarms", Kind::Gauge, "Active alarms per member."),
    family("etcd_debugging_server_lease_expired_total", Kind::Counter, "Expired leases."),
    family("etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", Kind::Histogram, "Watch control message time."),
    family("etcd_debugging_server_watch_send_loop_progress_duration_seconds", Kind::Histogram, "Watch progress loop time."),
    family("etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds", Kind::Histogram, "Watch send loop time per event."),
    family("etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", Kind::Histogram, "Watch send loop event time."),
    family("etcd_debugging_snap_save_marshalling_duration_seconds", Kind::Histogram, "Snap marshal time."),
    family("etcd_debugging_snap_save_total_duration_seconds", Kind::Histogram, "Snap save time."),
    family("etcd_debugging_store_expires_total", Kind::Counter, "V2store expired keys."),
    family("etcd_debugging_store_watch_requests_total", Kind::Counter, "V2store watch requests."),
    family("etcd_debugging_store_watchers", Kind::Gauge, "V2store watchers."),
    family("etcd_disk_backend_commit_duration_seconds", Kind::Histogram, "Backend commit latency."),
    family("etcd_disk_backend_defrag_duration_seconds", Kind::Histogram, "Defrag time."),
    family("etcd_disk_backend_snapshot_duration_seconds", Kind::Histogram, "Backend snapshot time."),
    family("etcd_disk_defrag_inflight", Kind::Gauge, "1 while defragmenting."),
    family("etcd_disk_wal_fsync_duration_seconds", Kind::Histogram, "WAL fsync latency."),
    family("etcd_disk_wal_write_bytes_total", Kind::Gauge, "WAL bytes written (gauge)."),
    family("etcd_disk_wal_write_duration_seconds", Kind::Histogram, "WAL write latency."),
    family("etcd_grpc_proxy_cache_hits_total", Kind::Gauge, "Proxy cache hits."),
    family("etcd_grpc_proxy_cache_keys_total", Kind::Gauge, "Proxy cached keys."),
    family("etcd_grpc_proxy_cache_misses_total", Kind::Gauge, "Proxy cache misses."),
    family("etcd_grpc_proxy_events_coalescing_total", Kind::Counter, "Proxy coalesced events."),
    family("etcd_grpc_proxy_watchers_coalescing_total", Kind::Gauge, "Proxy coalesced watchers."),
    family("etcd_mvcc_db_open_read_transactions", Kind::Gauge, "Open read transactions."),
    family("etcd_mvcc_db_total_size_in_bytes", Kind::Gauge, "Backend file size."),
    family("etcd_mvcc_db_total_size_in_use_in_bytes", Kind::Gauge, "Backend bytes in use."),
    family("etcd_mvcc_delete_total", Kind::Counter, "Delete operations."),
    family("etcd_mvcc_hash_duration_seconds", Kind::Histogram, "Hash latency."),
    family("etcd_mvcc_hash_rev_duration_seconds", Kind::Histogram, "HashKV latency."),
    family("etcd_mvcc_put_total", Kind::Counter, "Put operations."),
    family("etcd_mvcc_range_total", Kind::Counter, "Range operations."),
    family("etcd_mvcc_txn_total", Kind::Counter, "Transactions."),
    family("etcd_network_active_peers", Kind::Gauge, "Active peer connections."),
    family("etcd_network_client_grpc_received_bytes_total", Kind::Counter, "Bytes received from gRPC clients."),
    family("etcd_network_client_grpc_sent_bytes_total", Kind::Counter, "Bytes sent to gRPC clients."),
    family("etcd_network_disconnected_peers_total", Kind::Counter, "Peer disconnects."),
    family("etcd_network_known_peers", Kind::Gauge, "Known peers."),
    family("etcd_network_peer_received_bytes_total", Kind::Counter, "Bytes received from peers."),
    family("etcd_network_peer_received_failures_total", Kind::Counter, "Failures to receive from peers."),
    family("etcd_network_peer_round_trip_time_seconds", Kind::Histogram, "Round-trip time to peers."),
    family("etcd_network_peer_sent_bytes_total", Kind::Counter, "Bytes sent to peers."),
    family("etcd_network_peer_sent_failures_total", Kind::Counter, "Failures to send to peers."),
    family("etcd_network_server_stream_failures_total", Kind::Counter, "Server stream failures."),
    family("etcd_network_snapshot_receive_failures", Kind::Counter, "Snapshots from peers that failed."),
    family("etcd_network_snapshot_receive_inflights_total", Kind::Gauge, "Snapshots being received."),
    family("etcd_network_snapshot_receive_success", Kind::Counter, "Snapshots received."),
    family("etcd_network_snapshot_receive_total_duration_seconds", Kind::Histogram, "Snapshot receive time."),
    family("etcd_network_snapshot_send_failures", Kind::Counter, "Snapshots to peers that failed."),
    family("etcd_network_snapshot_send_inflights_total", Kind::Gauge, "Snapshots being sent."),
    family("etcd_network_snapshot_send_success", Kind::Counter, "Snapshots sent."),
    family("etcd_network_snapshot_send_total_duration_seconds", Kind::Histogram, "Snapshot send time."),
    family("etcd_server_apply_duration_seconds", Kind::Histogram, "Apply latency by version, op, success."),
    family("etcd_server_client_requests_total", Kind::Counter, "Requests by type and client API version."),
    family("etcd_server_feature_enabled", Kind::Gauge, "Feature gate state per name and stage."),
    family("etcd_server_go_version", Kind::Gauge, "1; the label says that there is no Go."),
    family("etcd_server_has_leader", Kind::Gauge, "1 if member knows a leader."),
    family("etcd_server_health_failures", Kind::Counter, "/health failures."),
    family("etcd_server_health_success", Kind::Counter, "/health successes."),
    family("etcd_server_healthcheck", Kind::Gauge, "Last livez/readyz check result."),
    family("etcd_server_healthchecks_total", Kind::Counter, "Livez/readyz check runs."),
    family("etcd_server_heartbeat_send_failures_total", Kind::Counter, "Late leader heartbeats."),
    family("etcd_server_id", Kind::Gauge, "1 for member id label (hex)."),
    family("etcd_server_is_leader", Kind::Gauge, "1 if this member is leader."),
    family("etcd_server_is_learner", Kind::Gauge, "1 if member is learner."),
    family("etcd_server_leader_changes_seen_total", Kind::Counter, "Leader changes observed."),
    family("etcd_server_learner_promote_successes", Kind::Counter, "Successful learner promotions on leader."),
    family("etcd_server_proposals_applied_total", Kind::Gauge, "Applied index as gauge."),
    family("etcd_server_proposals_committed_total", Kind::Gauge, "Committed index as gauge."),
    family("etcd_server_proposals_failed_total", Kind::Counter, "Failed proposals."),
    family("etcd_server_proposals_pending", Kind::Gauge, "Proposals waiting to commit."),
    family("etcd_server_quota_backend_bytes", Kind::Gauge, "Configured backend quota."),
    family("etcd_server_range_duration_seconds", Kind::Histogram, "Txn.Range latency."),
    family("etcd_server_read_indexes_failed_total", Kind::Counter, "Failed read indexes."),
    family("etcd_server_request_duration_seconds", Kind::Histogram, "Time from request to answer by type."),
    family("etcd_server_slow_apply_total", Kind::Counter, "Slow applies."),
    family("etcd_server_slow_read_indexes_total", Kind::Counter, "Slow or timed-out read indexes."),
    family("etcd_server_snapshot_apply_in_progress_total", Kind::Gauge, "1 while applying incoming snapshot."),
    family("etcd_server_version", Kind::Gauge, "1 for running server version."),
    family("etcd_snap_db_fsync_duration_seconds", Kind::Histogram, "Snap.db fsync."),
    family("etcd_snap_db_save_total_duration_seconds", Kind::Histogram, "Snap.db save time."),
    family("etcd_snap_fsync_duration_seconds", Kind::Histogram, "Snap file fsync."),
    family("go_threads", Kind::Gauge, "Threads of the operating system."),
    family("grpc_server_handled_total", Kind::Counter, "RPCs completed by code."),
    family("grpc_server_handling_seconds", Kind::Histogram, "RPC handling latency."),
    family("grpc_server_msg_received_total", Kind::Counter, "Stream messages received."),
    family("grpc_server_msg_sent_total", Kind::Counter, "Stream messages sent."),
    family("grpc_server_started_total", Kind::Counter, "RPCs started."),
    family("os_fd_limit", Kind::Gauge, "Most files that may be open."),
    family("os_fd_used", Kind::Gauge, "Files that are open."),
    family("process_cpu_seconds_total", Kind::Counter, "Processor time in user and system mode."),
    family("process_max_fds", Kind::Gauge, "Most files that may be open."),
    family("process_network_receive_bytes_total", Kind::Counter, "Bytes that came in over the network namespace of the process."),
    family("process_network_transmit_bytes_total", Kind::Counter, "Bytes that went out over the network namespace of the process."),
    family("process_open_fds", Kind::Gauge, "Files that are open."),
    family("process_resident_memory_bytes", Kind::Gauge, "Memory in use."),
    family("process_start_time_seconds", Kind::Gauge, "When the process was started."),
    family("process_virtual_memory_bytes", Kind::Gauge, "Address space in use."),
    family("process_virtual_memory_max_bytes", Kind::Gauge, "Most address space there may be."),
    family("promhttp_metric_handler_requests_in_flight", Kind::Gauge, "Scrapes being answered."),
    family("promhttp_metric_handler_requests_total", Kind::Counter, "Scrapes answered, by status."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(FAMILIES.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(find("os_fd_used").map(|family| family.kind), Some(Kind::Gauge));
    }
}
