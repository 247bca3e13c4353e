//! `/version`.

use axum::response::Response;

use crate::member::handle::Shared;

/// Versions of server, cluster and storage, without a newline, as etcd has it.
pub(super) fn version(shared: &Shared) -> Response {
    super::json(body(shared))
}

fn body(shared: &Shared) -> String {
    let state = shared.published.load();
    let cluster = state.edge.cluster.version().map_or_else(|| "not_decided".into(), |version| version.to_string());
    let server = shared.core.version;
    if shared.config.emulated_minor < 6 {
        return format!("{{\"etcdserver\":\"{server}\",\"etcdcluster\":\"{cluster}\"}}");
    }
    let storage = crate::v3rpc::storage_version(shared, &state.edge);
    format!("{{\"etcdserver\":\"{server}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}")
}
