//! From values to the page: everything that `/metrics` shows.

use api::methods::{self, Kind};
use etcdserver::apply::alarm;
use etcdserver::apply::policy::POLICIES;

use super::page::Page;
use super::process::Process;
use super::value::{Histogram, Snapshot};
use super::{BySuccess, CLIENT_VERSIONS_MAX, CODES, Counter, Thread};
use crate::config::flags::GATES;
use crate::member::handle::{Shared, State};

/// The page as it is now.
pub(crate) fn page(shared: &Shared) -> String {
    let mut page = Page::default();
    let state = shared.published.load();
    identity(&mut page, shared, &state);
    store(&mut page, shared, &state);
    disk(&mut page, shared);
    server(&mut page, shared, &state);
    requests(&mut page, shared);
    watches(&mut page, &shared.metrics.threads);
    calls(&mut page, &shared.metrics.threads);
    health(&mut page, shared);
    shared.metrics.peers.put(&mut page, &api::ids::hex(shared.member_id).to_string());
    process(&mut page);
    never(&mut page);
    page.render()
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

fn identity(page: &mut Page, shared: &Shared, state: &State) {
    let member = api::ids::hex(shared.member_id).to_string();
    page.labelled("etcd_server_id", &[("server_id", &member)], 1.0);
    page.labelled("etcd_server_version", &[("server_version", &shared.core.version.to_string())], 1.0);
    page.labelled("etcd_server_go_version", &[("server_go_version", "none")], 1.0);
    if let Some(version) = state.edge.cluster.version() {
        page.labelled("etcd_cluster_version", &[("cluster_version", &version.minor().to_string())], 1.0);
    }
    for known in state.edge.cluster.members() {
        let known = api::ids::hex(known.id).to_string();
        page.labelled("etcd_network_known_peers", &[("Local", &member), ("Remote", &known)], 1.0);
    }
    for (name, on) in &shared.config.gates {
        let stage = GATES.iter().find(|(gate, _, _)| gate == name).map_or("", |(_, stage, _)| stage);
        page.labelled("etcd_server_feature_enabled", &[("name", name), ("stage", stage)], flag(*on));
    }
    for alarm in state.edge.alarms.list(alarm::NONE) {
        let kind = match alarm.alarm {
            alarm::NOSPACE => "NOSPACE",
            alarm::CORRUPT => "CORRUPT",
            _ => "NONE",
        };
        let server = api::ids::hex(alarm.member_id).to_string();
        page.labelled("etcd_debugging_server_alarms", &[("alarm_type", kind), ("server_id", &server)], 1.0);
    }
}

fn sum(threads: &[Thread], of: impl Fn(&Thread) -> &Counter) -> f64 {
    threads.iter().map(|thread| of(thread).get()).sum::<u64>() as f64
}

fn merged(threads: &[Thread], of: impl Fn(&Thread) -> &Histogram) -> Snapshot {
    let all = threads.iter().map(|thread| of(thread).snapshot());
    all.reduce(Snapshot::merge).expect("there is at least one network thread")
}

fn store(page: &mut Page, shared: &Shared, state: &State) {
    let (metrics, edge) = (&shared.metrics, &state.edge);
    let (lane, threads) = (&metrics.lane, &metrics.threads);
    let reads = sum(threads, |thread| &thread.ranges) + metrics.http.ranges.get() as f64;
    let view = &edge.view;
    for (name, value) in [
        ("etcd_mvcc_range_total", lane.ranges.get() as f64 + reads),
        ("etcd_mvcc_put_total", lane.puts.get() as f64),
        ("etcd_mvcc_delete_total", lane.deletes.get() as f64),
        ("etcd_mvcc_txn_total", lane.txns.get() as f64 + sum(threads, |thread| &thread.txns)),
        ("etcd_mvcc_db_total_size_in_bytes", state.sizes.total as f64),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", state.size_in_use() as f64),
        ("etcd_mvcc_db_open_read_transactions", view.file().open_views() as f64),
        ("etcd_debugging_mvcc_total_put_size_in_bytes", lane.put_bytes.get() as f64),
        ("etcd_debugging_mvcc_current_revision", view.revision() as f64),
        ("etcd_debugging_mvcc_compact_revision", view.compact_revision() as f64),
        ("etcd_debugging_mvcc_keys_total", view.live_keys() as f64),
        ("etcd_debugging_mvcc_db_compaction_keys_total", lane.compacted_keys.get() as f64),
        ("etcd_debugging_mvcc_db_compaction_last", lane.compaction_last.get() as f64),
        ("etcd_debugging_lease_granted_total", lane.lease_granted.get() as f64),
        ("etcd_debugging_lease_revoked_total", lane.lease_revoked.get() as f64),
        ("etcd_debugging_lease_renewed_total", lane.lease_renewed.get() as f64),
        ("etcd_debugging_server_lease_expired_total", lane.lease_expired.get() as f64),
        ("etcd_debugging_auth_revision", edge.auth.revision() as f64),
    ] {
        page.value(name, value);
    }
    for (name, histogram) in [
        ("etcd_mvcc_hash_duration_seconds", &metrics.hash),
        ("etcd_mvcc_hash_rev_duration_seconds", &metrics.hash_revision),
        ("etcd_debugging_lease_ttl_total", &lane.lease_ttl),
        ("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", &lane.compaction_pause),
        ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", &lane.compaction_total),
        ("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", &lane.index_compaction_pause),
    ] {
        page.histogram(name, &[], &histogram.snapshot());
    }
}

fn disk(page: &mut Page, shared: &Shared) {
    let metrics = &shared.metrics;
    page.value("etcd_disk_wal_write_bytes_total", metrics.wal_write_bytes.get() as f64);
    page.value("etcd_disk_defrag_inflight", metrics.defrag_inflight.get() as f64);
    // Pages are merged while they are built; nothing is left to do apart from that.
    let merging = Histogram::millis();
    merging.observe_many(std::time::Duration::ZERO, metrics.backend_build.snapshot().count());
    for (name, histogram) in [
        ("etcd_disk_wal_fsync_duration_seconds", &metrics.wal_fsync),
        ("etcd_disk_wal_write_duration_seconds", &metrics.wal_write),
        ("etcd_disk_backend_commit_duration_seconds", &metrics.backend_commit),
        ("etcd_debugging_disk_backend_commit_rebalance_duration_seconds", &merging),
        ("etcd_debugging_disk_backend_commit_spill_duration_seconds", &metrics.backend_build),
        ("etcd_debugging_disk_backend_commit_write_duration_seconds", &metrics.backend_write),
        ("etcd_disk_backend_defrag_duration_seconds", &metrics.backend_defrag),
        ("etcd_disk_backend_snapshot_duration_seconds", &metrics.backend_snapshot),
        ("etcd_snap_fsync_duration_seconds", &metrics.snap_fsync),
        ("etcd_debugging_snap_save_total_duration_seconds", &metrics.snap_save),
        ("etcd_debugging_snap_save_marshalling_duration_seconds", &metrics.snap_marshal),
        ("etcd_snap_db_fsync_duration_seconds", &metrics.peers.db_fsync),
        ("etcd_snap_db_save_total_duration_seconds", &metrics.peers.db_save),
    ] {
        page.histogram(name, &[], &histogram.snapshot());
    }
}

fn server(page: &mut Page, shared: &Shared, state: &State) {
    let (lane, threads) = (&shared.metrics.lane, &shared.metrics.threads);
    for (name, value) in [
        ("etcd_server_has_leader", flag(state.role.leader != 0)),
        ("etcd_server_is_leader", flag(state.role.is_leader)),
        ("etcd_server_is_learner", flag(state.role.is_learner)),
        ("etcd_server_leader_changes_seen_total", lane.leader_changes.get() as f64),
        ("etcd_server_proposals_committed_total", lane.proposals_committed.get() as f64),
        ("etcd_server_proposals_applied_total", lane.proposals_applied.get() as f64),
        ("etcd_server_proposals_pending", lane.proposals_pending.get() as f64),
        ("etcd_server_proposals_failed_total", lane.proposals_failed.get() as f64),
        ("etcd_server_quota_backend_bytes", state.edge.quota.limit() as f64),
        ("etcd_server_slow_apply_total", lane.slow.get() as f64 + sum(threads, |thread| &thread.slow)),
        ("etcd_network_client_grpc_received_bytes_total", sum(threads, |thread| &thread.received_bytes)),
        ("etcd_network_client_grpc_sent_bytes_total", sum(threads, |thread| &thread.sent_bytes)),
    ] {
        page.value(name, value);
    }
}

fn put_pair(page: &mut Page, name: &str, labels: &[(&str, &str)], pair: &BySuccess) {
    for (histogram, success) in pair.iter().zip(["true", "false"]) {
        put_one(page, name, labels, &histogram.snapshot(), success);
    }
}

/// A series exists once something was observed; `success` stands where the alphabet wants it.
fn put_one(page: &mut Page, name: &str, labels: &[(&str, &str)], snapshot: &Snapshot, success: &str) {
    if snapshot.count() == 0 {
        return;
    }
    let mut all: Vec<(&str, &str)> = labels.to_vec();
    all.push(("success", success));
    all.sort_unstable();
    page.histogram(name, &all, snapshot);
}

fn requests(page: &mut Page, shared: &Shared) {
    let (lane, threads, http) = (&shared.metrics.lane, &shared.metrics.threads, &shared.metrics.http);
    for (row, policy) in POLICIES.iter().enumerate() {
        let labels = [("op", policy.name), ("version", "v3")];
        put_pair(page, "etcd_server_apply_duration_seconds", &labels, &lane.apply[row]);
        let labels = [("type", policy.name)];
        put_pair(page, "etcd_server_request_duration_seconds", &labels, &lane.requests[row]);
    }
    for (at, success) in ["true", "false"].into_iter().enumerate() {
        let ranges = merged(threads, |thread| &thread.range_seconds[at]).merge(http.range_seconds[at].snapshot());
        put_one(page, "etcd_server_range_duration_seconds", &[], &ranges, success);
        let whole = merged(threads, |thread| &thread.range_requests[at]).merge(http.range_requests[at].snapshot());
        put_one(page, "etcd_server_request_duration_seconds", &[("type", "Range")], &whole, success);
        let txns = merged(threads, |thread| &thread.txn_requests[at]);
        put_one(page, "etcd_server_request_duration_seconds", &[("type", "ReadonlyTxn")], &txns, success);
    }
}

fn watches(page: &mut Page, threads: &[Thread]) {
    let gauge = |of: fn(&Thread) -> i64| threads.iter().map(of).sum::<i64>() as f64;
    page.value("etcd_debugging_mvcc_watch_stream_total", gauge(|thread| thread.streams.get()));
    page.value("etcd_debugging_mvcc_watcher_total", gauge(|thread| thread.watchers.get()));
    page.value("etcd_debugging_mvcc_slow_watcher_total", gauge(|thread| thread.slow_watchers.get()));
    page.value("etcd_debugging_mvcc_events_total", sum(threads, |thread| &thread.events));
    // An event is either in history or written out: there is no place where it could wait in between.
    page.value("etcd_debugging_mvcc_pending_events_total", 0.0);
    let prefix = "etcd_debugging_server_watch_send_loop";
    for (name, snapshot) in [
        ("watch_stream_duration_seconds", merged(threads, |thread| &thread.send_events)),
        ("watch_stream_duration_per_event_seconds", merged(threads, |thread| &thread.send_per_event)),
        ("control_stream_duration_seconds", merged(threads, |thread| &thread.send_control)),
        ("progress_duration_seconds", merged(threads, |thread| &thread.send_progress)),
    ] {
        page.histogram(&format!("{prefix}_{name}"), &[], &snapshot);
    }
}

fn calls(page: &mut Page, threads: &[Thread]) {
    for (at, row) in methods::TABLE.iter().enumerate() {
        let (service, name) = row.method.service_and_name();
        let started = sum(threads, |thread| &thread.started[at]);
        // These register after the rest in etcd, and show once they were called.
        let is_late = service.starts_with("v3electionpb.") || service.starts_with("v3lockpb.");
        if is_late && started == 0.0 {
            continue;
        }
        let kind = match row.kind {
            Kind::Unary => "unary",
            Kind::ServerStream => "server_stream",
            Kind::BidiStream => "bidi_stream",
        };
        let labels = [("grpc_method", name), ("grpc_service", service), ("grpc_type", kind)];
        page.labelled("grpc_server_started_total", &labels, started);
        let received = sum(threads, |thread| &thread.received[at]);
        page.labelled("grpc_server_msg_received_total", &labels, received);
        page.labelled("grpc_server_msg_sent_total", &labels, sum(threads, |thread| &thread.sent[at]));
        let times = threads.iter().filter_map(|thread| Some(thread.handling.as_ref()?[at].snapshot()));
        if let Some(times) = times.reduce(Snapshot::merge) {
            page.histogram("grpc_server_handling_seconds", &labels, &times);
        }
        for (code, name) in CODES.iter().enumerate() {
            let handled = sum(threads, |thread| &thread.handled[at][code]);
            let [method, service, kind] = labels;
            if is_late && handled == 0.0 {
                continue;
            }
            page.labelled("grpc_server_handled_total", &[("grpc_code", name), method, service, kind], handled);
        }
    }
    client_versions(page, threads);
}

fn client_versions(page: &mut Page, threads: &[Thread]) {
    let mut rows = std::collections::BTreeMap::<(String, usize), u64>::new();
    for thread in threads {
        let names = thread.clients.names.lock().clone();
        for (at, calls) in thread.clients.calls.iter().enumerate() {
            let name = match names.get(at) {
                Some(name) if at < CLIENT_VERSIONS_MAX => String::from_utf8_lossy(name).into_owned(),
                _ => "unknown".to_string(),
            };
            for (kind, counter) in calls.iter().enumerate() {
                *rows.entry((name.clone(), kind)).or_default() += counter.get();
            }
        }
    }
    for ((version, kind), count) in rows.into_iter().filter(|(_, count)| *count > 0) {
        let labels = [("client_api_version", version.as_str()), ("type", ["unary", "stream"][kind])];
        page.labelled("etcd_server_client_requests_total", &labels, count as f64);
    }
}

fn health(page: &mut Page, shared: &Shared) {
    let http = &shared.metrics.http;
    page.value("etcd_server_health_success", http.health_success.get() as f64);
    page.value("etcd_server_health_failures", http.health_failures.get() as f64);
    for ((endpoint, name), check) in http.checks.lock().iter() {
        page.labelled("etcd_server_healthcheck", &[("name", name), ("type", endpoint)], flag(check.healthy));
        for (status, count) in [("success", check.succeeded), ("error", check.failed)] {
            if count > 0 {
                let labels = [("name", *name), ("status", status), ("type", *endpoint)];
                page.labelled("etcd_server_healthchecks_total", &labels, count as f64);
            }
        }
    }
    page.value("promhttp_metric_handler_requests_in_flight", 1.0);
    for (code, count) in [("200", http.scrapes.get()), ("500", 0), ("503", 0)] {
        page.labelled("promhttp_metric_handler_requests_total", &[("code", code)], count as f64);
    }
}

fn process(page: &mut Page) {
    let process = Process::read();
    for (name, value) in [
        ("process_cpu_seconds_total", process.cpu_seconds),
        ("process_max_fds", process.max_files),
        ("process_network_receive_bytes_total", process.received_bytes),
        ("process_network_transmit_bytes_total", process.sent_bytes),
        ("process_open_fds", process.open_files),
        ("process_resident_memory_bytes", process.resident_bytes),
        ("process_start_time_seconds", process.start_seconds),
        ("process_virtual_memory_bytes", process.virtual_bytes),
        ("process_virtual_memory_max_bytes", process.max_virtual_bytes),
        ("os_fd_used", process.open_files),
        ("os_fd_limit", process.max_files),
        ("go_threads", process.threads),
    ] {
        if let Some(value) = value {
            page.value(name, value);
        }
    }
}

/// What etcd registers and a server of today never moves: the store of its second API, its proxy; and what only
/// larger clusters have.
fn never(page: &mut Page) {
    for name in [
        "etcd_debugging_store_expires_total",
        "etcd_debugging_store_watch_requests_total",
        "etcd_debugging_store_watchers",
        "etcd_grpc_proxy_cache_hits_total",
        "etcd_grpc_proxy_cache_keys_total",
        "etcd_grpc_proxy_cache_misses_total",
        "etcd_grpc_proxy_events_coalescing_total",
        "etcd_grpc_proxy_watchers_coalescing_total",
        "etcd_server_heartbeat_send_failures_total",
        "etcd_server_learner_promote_successes",
        "etcd_server_read_indexes_failed_total",
        "etcd_server_slow_read_indexes_total",
        "etcd_server_snapshot_apply_in_progress_total",
    ] {
        page.value(name, 0.0);
    }
}
