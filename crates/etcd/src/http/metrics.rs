//! `/metrics`.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::member::handle::Shared;

/// Everything that is measured, in Prometheus' text form.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    (StatusCode::OK, [("content-type", content_type)], body(&shared)).into_response()
}

fn family(out: &mut String, name: &str, kind: &str, value: impl std::fmt::Display) {
    writeln!(out, "# TYPE {name} {kind}\n{name} {value}").expect("a string grows");
}

fn body(shared: &Shared) -> String {
    let (metrics, state) = (&shared.metrics, shared.published.load());
    let mut out = String::with_capacity(16 << 10);
    for (name, value) in [
        ("etcd_network_client_grpc_received_bytes_total", metrics.client_received.get()),
        ("etcd_network_client_grpc_sent_bytes_total", metrics.client_sent.get()),
        ("etcd_server_proposals_failed_total", metrics.proposals_failed.get()),
        ("etcd_debugging_lease_renewed_total", metrics.lease_renewed.get()),
    ] {
        family(&mut out, name, "counter", value);
    }
    let edge = &state.edge;
    for (name, value) in [
        ("etcd_server_has_leader", i64::from(state.role.leader != 0)),
        ("etcd_server_is_leader", i64::from(state.role.is_leader)),
        ("etcd_server_is_learner", i64::from(state.role.is_learner)),
        ("etcd_server_proposals_committed_total", metrics.proposals_committed.get()),
        ("etcd_server_proposals_applied_total", metrics.proposals_applied.get()),
        ("etcd_server_quota_backend_bytes", edge.quota.limit().cast_signed()),
        ("etcd_mvcc_db_total_size_in_bytes", state.sizes.total.cast_signed()),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", state.sizes.in_use.cast_signed()),
        ("etcd_debugging_mvcc_current_revision", edge.view.revision()),
        ("etcd_debugging_mvcc_compact_revision", edge.view.compact_revision()),
        ("etcd_debugging_mvcc_keys_total", i64::try_from(edge.view.live_keys()).unwrap_or(i64::MAX)),
        ("etcd_disk_defrag_inflight", metrics.defrag_inflight.get()),
        ("etcd_disk_wal_write_bytes_total", metrics.wal_write_bytes.get().cast_signed()),
    ] {
        family(&mut out, name, "gauge", value);
    }
    for (name, histogram) in [
        ("etcd_disk_wal_fsync_duration_seconds", &metrics.wal_fsync),
        ("etcd_disk_backend_commit_duration_seconds", &metrics.backend_commit),
        ("etcd_disk_backend_defrag_duration_seconds", &metrics.backend_defrag),
    ] {
        histogram.write(name, &mut out);
    }
    let member = api::ids::hex(shared.member_id);
    writeln!(out, "# TYPE etcd_server_id gauge\netcd_server_id{{server_id=\"{member}\"}} 1").expect("a string grows");
    let version = shared.core.version;
    writeln!(out, "# TYPE etcd_server_version gauge\netcd_server_version{{server_version=\"{version}\"}} 1")
        .expect("a string grows");
    if let Some(cluster) = edge.cluster.version() {
        let minor = cluster.minor();
        writeln!(out, "# TYPE etcd_cluster_version gauge\netcd_cluster_version{{cluster_version=\"{minor}\"}} 1")
            .expect("a string grows");
    }
    metrics.write_calls(&mut out);
    out
}
