//! `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::member::handle::Shared;

/// Everything that is measured, in Prometheus' text form.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let body = format!(
        "# TYPE etcd_network_client_grpc_received_bytes_total counter\n\
         etcd_network_client_grpc_received_bytes_total {}\n\
         # TYPE etcd_network_client_grpc_sent_bytes_total counter\n\
         etcd_network_client_grpc_sent_bytes_total {}\n",
        shared.metrics.client_received.get(),
        shared.metrics.client_sent.get(),
    );
    (StatusCode::OK, [("content-type", "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}
