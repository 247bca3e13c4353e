//! `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::member::handle::Shared;

/// Everything that is measured, in Prometheus' text form.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    let page = crate::metrics::page(&shared);
    shared.metrics.http.scrapes.add(1);
    (StatusCode::OK, [("content-type", content_type)], page).into_response()
}
