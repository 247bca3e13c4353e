//! `/metrics`.

use std::io::Write;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::member::handle::Shared;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Everything that is measured, in Prometheus' text form; compressed for those who take that.
pub(super) fn metrics(shared: &Shared, headers: &HeaderMap) -> Response {
    let page = crate::metrics::page(shared);
    shared.metrics.http.scrapes.add(1);
    if !takes_gzip(super::field(headers, "accept-encoding")) {
        return super::typed(axum::http::StatusCode::OK, CONTENT_TYPE, page);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder.write_all(page.as_bytes()).and_then(|()| encoder.finish()).expect("a vector grows");
    let mut response = super::typed(axum::http::StatusCode::OK, CONTENT_TYPE, Body::from(packed));
    super::set(&mut response, "content-encoding", "gzip");
    response
}

fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').map(str::trim).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && weight.trim() != "q=0"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_must_be_named() {
        assert!(takes_gzip("gzip") && takes_gzip("deflate, gzip;q=0.5"));
        assert!(!takes_gzip("") && !takes_gzip("gzip;q=0") && !takes_gzip("br"));
    }
}
