//! Requests of HTTP/2 that are not gRPC, which come through TLS: answered by the same functions as those of HTTP/1.1.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Version, header};
use bytes::Bytes;
use grpc::PlainRequest;
use http_body_util::BodyExt;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Port;
use crate::member::handle::Shared;

/// Largest answer. A page of metrics has some 100 kB.
const BODY_MAX: usize = 64 << 20;
/// Fields that mean something to one connection of HTTP/1.1 only.
const OF_A_CONNECTION: [&str; 4] = ["connection", "transfer-encoding", "keep-alive", "upgrade"];

/// A whole answer.
pub(crate) struct PlainAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

/// The request as the router takes it; `None` when its method or path is none.
pub(crate) fn request(plain: &PlainRequest<'_>) -> Option<Request> {
    let mut request = Request::new(Body::from(plain.body.to_vec()));
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(plain.method).ok()?;
    *request.uri_mut() = std::str::from_utf8(plain.path).ok()?.parse().ok()?;
    for (name, value) in plain.headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let name = header::HeaderName::from_bytes(name).ok()?;
        request.headers_mut().append(name, header::HeaderValue::from_bytes(value).ok()?);
    }
    if let Some(host) = plain.headers.authority().and_then(|host| header::HeaderValue::from_bytes(host).ok()) {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    Some(request)
}

/// The answer to a request that came through TLS.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request) -> PlainAnswer {
    let is_head = request.method() == Method::HEAD;
    let response = super::answer(State((shared, Port::SecureClient)), request).await;
    let (head, body) = response.into_parts();
    let limited = http_body_util::Limited::new(body, BODY_MAX).collect().await;
    let (status, body) = match limited {
        Ok(body) => (head.status, body.to_bytes()),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    };
    let fields = head.headers.iter().filter(|(name, _)| !OF_A_CONNECTION.contains(&name.as_str()));
    let mut headers: Vec<(String, String)> =
        fields.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_string()))).collect();
    if !head.headers.contains_key(header::CONTENT_LENGTH) {
        headers.push(("content-length".into(), body.len().to_string()));
    }
    headers.push(("date".into(), date(OffsetDateTime::now_utc())));
    PlainAnswer { status: status.as_u16(), headers, body: if is_head { Bytes::new() } else { body } }
}

/// A date as HTTP has it.
fn date(time: OffsetDateTime) -> String {
    let form = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    time.format(&form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        let time = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        assert_eq!(date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
