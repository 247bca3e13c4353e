//! Requests to other members beside raft: who is in the cluster, versions, leases, promotions, hashes.
//!
//! All of them run on the runtime of whoever asks. Errors are in the words of Go's HTTP client, because log lines show
//! them; those that a caller acts on have variants of their own.

use std::time::{Duration, Instant};

use api::error::ErrorCode;
use api::{Status, etcdserverpb as pb, lease_http};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use etcdserver::membership::Member;
use prost::Message as _;
use serde_json::Value;

use super::client::{self, Dialer, field};
use crate::config::value::parse_url;
use crate::logging::Logger;
use crate::member::handle::Shared;

/// Longest wait for the members of a running cluster, for each address.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer, as in etcd for answers about leases.
const ANSWER_MAX: usize = 100 << 20;
/// Most bytes of short answers.
const SHORT_ANSWER_MAX: usize = 1 << 20;

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end_matches('\n').to_string()
    }
}

/// A request on a connection of its own.
struct Ask<'a> {
    method: Method,
    url: &'a str,
    path: &'a str,
    headers: &'a [(header::HeaderName, &'a str)],
    body: Vec<u8>,
    timeout: Duration,
    most: usize,
}

impl<'a> Ask<'a> {
    fn get(url: &'a str, path: &'a str, timeout: Duration) -> Ask<'a> {
        Ask { method: Method::GET, url, path, headers: &[], body: Vec::new(), timeout, most: SHORT_ANSWER_MAX }
    }

    fn post(url: &'a str, path: &'a str, timeout: Duration) -> Ask<'a> {
        Ask { method: Method::POST, ..Ask::get(url, path, timeout) }
    }

    async fn send(self, dialer: &Dialer) -> Result<Answer, String> {
        let word = if self.method == Method::GET { "Get" } else { "Post" };
        let named = |why: String| format!("{word} \"{}{}\": {why}", self.url, self.path);
        let url = parse_url(self.url).map_err(named)?;
        let mut request = client::request(self.method.clone(), &url, self.path, Body::from(self.body));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                request.headers_mut().insert(name, value);
            }
        }
        let answered = async {
            let response = dialer.request(&url, request, self.timeout).await?;
            let (head, body) = response.into_parts();
            let body = client::whole(body, self.most, self.timeout).await?;
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(answered) => answered.map_err(named),
            Err(_) => Err(named("context deadline exceeded".into())),
        }
    }
}

/// The members of a running cluster.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) cluster_id: u64,
    pub(crate) members: Vec<Member>,
}

/// Who is in the cluster, by the first of the addresses that can say it.
pub(crate) async fn get_members(dialer: &Dialer, logger: &Logger, urls: &[String]) -> Result<Members, String> {
    for url in urls {
        let address = || ("address", format!("{url}/members").into());
        let answer = match Ask::get(url, "/members", MEMBERS_TIMEOUT).send(dialer).await {
            Ok(answer) => answer,
            Err(why) => {
                logger.warn("failed to get cluster response", &[address(), ("error", why.into())]);
                continue;
            }
        };
        let members = match parse_members(&answer.body) {
            Ok(members) => members,
            Err(why) => {
                logger.warn("failed to unmarshal cluster response", &[address(), ("error", why.into())]);
                continue;
            }
        };
        let id = field(&answer.headers, "x-etcd-cluster-id");
        let Ok(cluster_id) = api::ids::parse_hex(id) else {
            logger.warn("failed to parse cluster ID", &[address(), ("header", id.into())]);
            continue;
        };
        if members.is_empty() {
            return Err("failed to get raft cluster member(s) from the given URLs".into());
        }
        return Ok(Members { cluster_id, members });
    }
    Err("could not retrieve cluster information from the given URLs".into())
}

fn parse_members(body: &[u8]) -> Result<Vec<Member>, String> {
    let list: Vec<Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    list.iter().map(|member| Member::from_json(member.to_string().as_bytes())).collect()
}

/// What a member says it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) server: String,
    pub(crate) cluster: String,
    /// Said from 3.6 on.
    pub(crate) storage: String,
}

/// What the member at this address runs.
pub(crate) async fn get_version(dialer: &Dialer, url: &str, timeout: Duration) -> Result<Versions, String> {
    let answer = Ask::get(url, "/version", timeout).send(dialer).await?;
    let shown: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let text = |name: &str| shown.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    Ok(Versions { server: text("etcdserver"), cluster: text("etcdcluster"), storage: text("storage") })
}

/// Whether the cluster is being downgraded, as the member at this address knows it.
pub(crate) async fn downgrade_enabled(dialer: &Dialer, url: &str, timeout: Duration) -> Result<bool, String> {
    let answer = Ask::get(url, "/downgrade/enabled", timeout).send(dialer).await?;
    match (answer.status, answer.text().as_str()) {
        // Releases before 3.5 know of no downgrade.
        (StatusCode::NOT_FOUND, _) | (StatusCode::OK, "false") => Ok(false),
        (StatusCode::OK, "true") => Ok(true),
        (_, text) => Err(format!("unexpected answer about a downgrade: {text}")),
    }
}

/// Why there is no answer about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeaseError {
    NotFound,
    /// It does not lead, is not up to date, or not there.
    Other(String),
}

/// Asks each address in turn until one answers, or says that there is no such lease.
async fn about_lease(
    shared: &Shared,
    urls: &[String],
    path: &str,
    body: &[u8],
) -> Result<Bytes, LeaseError> {
    let (dialer, timeout) = (shared.transport.dialer(), shared.request_timeout());
    let mut last = LeaseError::Other("no address".into());
    for url in urls {
        let headers = [(header::CONTENT_TYPE, "application/protobuf")];
        let ask = Ask { headers: &headers, body: body.to_vec(), most: ANSWER_MAX, ..Ask::post(url, path, timeout) };
        last = match ask.send(dialer).await {
            Ok(answer) => match answer.status {
                StatusCode::OK => return Ok(answer.body),
                StatusCode::NOT_FOUND => return Err(LeaseError::NotFound),
                StatusCode::REQUEST_TIMEOUT => LeaseError::Other(answer.text()),
                _ => LeaseError::Other(format!("lease: unknown error({})", answer.text())),
            },
            Err(why) => LeaseError::Other(why),
        };
    }
    Err(last)
}

fn malformed(error: &prost::DecodeError) -> LeaseError {
    LeaseError::Other(format!("lease: {error}"))
}

/// Renews a lease at the leader; gives its time to live.
pub(crate) async fn renew_lease(shared: &Shared, urls: &[String], id: i64) -> Result<i64, LeaseError> {
    let body = pb::LeaseKeepAliveRequest { id }.encode_to_vec();
    let answer = about_lease(shared, urls, "/leases", &body).await?;
    let answer = pb::LeaseKeepAliveResponse::decode(answer).map_err(|error| malformed(&error))?;
    if answer.id == id { Ok(answer.ttl) } else { Err(LeaseError::Other("lease: renew id mismatch".into())) }
}

/// How much time a lease has left, and its keys if they are wanted, as the leader knows it.
pub(crate) async fn lease_times(
    shared: &Shared,
    urls: &[String],
    id: i64,
    keys: bool,
) -> Result<pb::LeaseTimeToLiveResponse, LeaseError> {
    let question = pb::LeaseTimeToLiveRequest { id, keys };
    let body = lease_http::LeaseInternalRequest { lease_time_to_live_request: Some(question) }.encode_to_vec();
    let answer = about_lease(shared, urls, "/leases/internal", &body).await?;
    let answer = lease_http::LeaseInternalResponse::decode(answer).map_err(|error| malformed(&error))?;
    match answer.lease_time_to_live_response {
        Some(times) if times.id == id => Ok(times),
        _ => Err(LeaseError::Other("lease: TTL id mismatch".into())),
    }
}

/// Why a learner was not promoted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PromoteError {
    /// The leader's answer.
    Refused(Status),
    /// There is no answer: somebody else may lead by now.
    Failed(String),
}

/// Asks the leader to promote a learner; gives the members afterwards.
pub(crate) async fn promote(
    shared: &Shared,
    urls: &[String],
    id: u64,
    deadline: Instant,
) -> Result<Vec<Member>, PromoteError> {
    let path = format!("/members/promote/{id}");
    let mut last = PromoteError::Failed("no address".into());
    for url in urls {
        let timeout = deadline.saturating_duration_since(Instant::now());
        last = match Ask::post(url, &path, timeout).send(shared.transport.dialer()).await {
            Err(why) => PromoteError::Failed(why),
            Ok(answer) if answer.status == StatusCode::OK => {
                return parse_members(&answer.body).map_err(PromoteError::Failed);
            }
            Ok(answer) => match refusal(answer.status, &answer.text()) {
                Some(code) => return Err(PromoteError::Refused(code.into())),
                None => PromoteError::Failed(format!("member promote: unknown error({})", answer.text())),
            },
        };
    }
    Err(last)
}

/// What the leader's refusal means; `None` when it means nothing that is known.
fn refusal(status: StatusCode, text: &str) -> Option<ErrorCode> {
    match status {
        StatusCode::REQUEST_TIMEOUT => Some(ErrorCode::Timeout),
        StatusCode::NOT_FOUND => Some(ErrorCode::MemberNotFound),
        StatusCode::PRECONDITION_FAILED if text.contains("in sync with leader") => Some(ErrorCode::LearnerNotReady),
        StatusCode::PRECONDITION_FAILED if text.contains("can only promote a learner member") => {
            Some(ErrorCode::MemberNotLearner)
        }
        _ => None,
    }
}

/// The hash of a member's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerHash {
    /// The member's revision.
    pub(crate) current: i64,
    pub(crate) hash: u32,
    pub(crate) compact_revision: i64,
    /// The revision of the hash; 0 from members before 3.6.
    pub(crate) revision: i64,
}

/// Why there is no hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HashError {
    Compacted,
    FutureRevision,
    /// The address belongs to another cluster.
    OtherCluster,
    Other(String),
}

/// The hash of the keys up to a revision, 0 for all, of the member at this address.
pub(crate) async fn hashkv(
    dialer: &Dialer,
    url: &str,
    cluster_id: u64,
    revision: i64,
    timeout: Duration,
) -> Result<PeerHash, HashError> {
    let cluster = api::ids::hex(cluster_id).to_string();
    let name = header::HeaderName::from_static("x-etcd-cluster-id");
    let headers = [(header::CONTENT_TYPE, "application/json"), (name, cluster.as_str())];
    let body = format!("{{\"revision\":{revision}}}").into_bytes();
    let ask = Ask { headers: &headers, body, ..Ask::get(url, "/members/hashkv", timeout) };
    let answer = ask.send(dialer).await.map_err(HashError::Other)?;
    let text = answer.text();
    match answer.status {
        StatusCode::OK => parse_hash(&answer.body).map_err(HashError::Other),
        StatusCode::BAD_REQUEST if text.contains("has been compacted") => Err(HashError::Compacted),
        StatusCode::BAD_REQUEST if text.contains("is a future revision") => Err(HashError::FutureRevision),
        StatusCode::PRECONDITION_FAILED if text.contains("cluster ID mismatch") => Err(HashError::OtherCluster),
        _ => Err(HashError::Other(format!("unknown error: {text}"))),
    }
}

/// Numbers that are 0 are left out.
fn parse_hash(body: &[u8]) -> Result<PeerHash, String> {
    let shown: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let number = |value: Option<&Value>| value.and_then(Value::as_i64).unwrap_or_default();
    Ok(PeerHash {
        current: number(shown.get("header").and_then(|header| header.get("revision"))),
        hash: u32::try_from(number(shown.get("hash"))).map_err(|error| error.to_string())?,
        compact_revision: number(shown.get("compact_revision")),
        revision: number(shown.get("hash_revision")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_any_release_writes_them() {
        let body = b"[{\"id\":31510469843430673,\"peerURLs\":[\"http://127.0.0.1:13422\"],\"isLearner\":true,\"name\":\"\"},\
            {\"id\":18446744073709551615,\"peerURLs\":null}]\n";
        let members = parse_members(body).unwrap();
        assert_eq!((members[0].id, members[0].is_learner), (31_510_469_843_430_673, true));
        assert_eq!((members[1].id, members[1].peer_urls.len()), (u64::MAX, 0));
        for wrong in [&b""[..], b"null", b"{}", b"[1]", b"[{\"peerURLs\":[]}]"] {
            assert!(parse_members(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn hashes_are_read_with_and_without_their_revision() {
        let body = br#"{"header":{"revision":5409},"hash":2155254536,"compact_revision":-1}"#;
        let hash = PeerHash { current: 5409, hash: 2_155_254_536, compact_revision: -1, revision: 0 };
        assert_eq!(parse_hash(body), Ok(hash));
        assert_eq!(parse_hash(b"{}"), Ok(PeerHash::default()));
        assert!(parse_hash(b"{\"hash\":4294967296}").is_err());
    }
}
