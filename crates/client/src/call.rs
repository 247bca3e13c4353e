//! One call: picking a connection, sending, judging the failure, trying again.
//!
//! Invariants:
//! - A request that may have reached a server is sent again only if repeating it changes nothing.
//! - Every failed attempt of a unary call is logged once, as Go's client does; people search for that line.

use std::fmt::Debug;
use std::time::Duration;

use api::error::{Code, Status};
use api::etcdserverpb as pb;
use api::metadata;
use api::methods::Method;
use api::{ErrorCode, v3electionpb, v3lockpb};
use prost::Message;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::client::{Client, Field};
use crate::connection::Connection;
use crate::error::Error;

/// Attempts of one call, the first included.
const ATTEMPTS_MAX: u32 = 100;
/// Wait after a round of attempts.
const BACKOFF: Duration = Duration::from_millis(25);
/// The version that the client says it speaks.
const API_VERSION: &str = "3.7";

/// What goes with a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// When to give up; never without it.
    pub deadline: Option<Instant>,
    /// Fail instead of waiting when the server has no leader.
    pub require_leader: bool,
}

impl Context {
    /// No deadline.
    #[must_use]
    pub fn none() -> Context {
        Context::default()
    }

    /// A deadline this far ahead.
    #[must_use]
    pub fn timeout(after: Duration) -> Context {
        Context { deadline: Some(Instant::now() + after), require_leader: false }
    }

    /// The same, with [`Context::require_leader`] set.
    #[must_use]
    pub fn with_leader(self) -> Context {
        Context { require_leader: true, ..self }
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A request with one answer.
pub trait Rpc: Message + Clone + Debug + 'static {
    /// The answer.
    type Response: Message + Default + Debug + 'static;
    /// The method.
    const METHOD: Method;
    /// May it be sent again after it may have reached a server?
    const REPEATABLE: bool;
}

/// A request with a stream of answers, or one of a stream of requests.
pub trait StreamRpc: Message + Clone + Debug + 'static {
    /// One answer.
    type Response: Message + Default + Debug + 'static;
    /// The method.
    const METHOD: Method;
}

macro_rules! rpcs {
    ($($module:ident::$request:ident => $response:ident = $method:ident, $repeatable:literal;)*) => {$(
        impl Rpc for $module::$request {
            type Response = $module::$response;
            const METHOD: Method = Method::$method;
            const REPEATABLE: bool = $repeatable;
        }
    )*};
}

rpcs! {
    pb::RangeRequest => RangeResponse = KvRange, true;
    pb::PutRequest => PutResponse = KvPut, false;
    pb::DeleteRangeRequest => DeleteRangeResponse = KvDeleteRange, false;
    pb::TxnRequest => TxnResponse = KvTxn, false;
    pb::CompactionRequest => CompactionResponse = KvCompact, false;
    pb::LeaseGrantRequest => LeaseGrantResponse = LeaseGrant, true;
    pb::LeaseRevokeRequest => LeaseRevokeResponse = LeaseRevoke, true;
    pb::LeaseTimeToLiveRequest => LeaseTimeToLiveResponse = LeaseTimeToLive, true;
    pb::LeaseLeasesRequest => LeaseLeasesResponse = LeaseLeases, true;
    pb::MemberAddRequest => MemberAddResponse = MemberAdd, false;
    pb::MemberRemoveRequest => MemberRemoveResponse = MemberRemove, false;
    pb::MemberUpdateRequest => MemberUpdateResponse = MemberUpdate, false;
    pb::MemberListRequest => MemberListResponse = MemberList, true;
    pb::MemberPromoteRequest => MemberPromoteResponse = MemberPromote, false;
    pb::AlarmRequest => AlarmResponse = MaintenanceAlarm, true;
    pb::StatusRequest => StatusResponse = MaintenanceStatus, true;
    pb::DefragmentRequest => DefragmentResponse = MaintenanceDefragment, false;
    pb::HashRequest => HashResponse = MaintenanceHash, true;
    pb::HashKvRequest => HashKvResponse = MaintenanceHashKv, true;
    pb::MoveLeaderRequest => MoveLeaderResponse = MaintenanceMoveLeader, true;
    pb::DowngradeRequest => DowngradeResponse = MaintenanceDowngrade, false;
    pb::AuthEnableRequest => AuthEnableResponse = AuthEnable, false;
    pb::AuthDisableRequest => AuthDisableResponse = AuthDisable, false;
    pb::AuthStatusRequest => AuthStatusResponse = AuthStatus, false;
    pb::AuthenticateRequest => AuthenticateResponse = Authenticate, false;
    pb::AuthUserAddRequest => AuthUserAddResponse = AuthUserAdd, false;
    pb::AuthUserGetRequest => AuthUserGetResponse = AuthUserGet, true;
    pb::AuthUserListRequest => AuthUserListResponse = AuthUserList, true;
    pb::AuthUserDeleteRequest => AuthUserDeleteResponse = AuthUserDelete, false;
    pb::AuthUserChangePasswordRequest => AuthUserChangePasswordResponse = AuthUserChangePassword, false;
    pb::AuthUserGrantRoleRequest => AuthUserGrantRoleResponse = AuthUserGrantRole, false;
    pb::AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse = AuthUserRevokeRole, false;
    pb::AuthRoleAddRequest => AuthRoleAddResponse = AuthRoleAdd, false;
    pb::AuthRoleGetRequest => AuthRoleGetResponse = AuthRoleGet, true;
    pb::AuthRoleListRequest => AuthRoleListResponse = AuthRoleList, true;
    pb::AuthRoleDeleteRequest => AuthRoleDeleteResponse = AuthRoleDelete, false;
    pb::AuthRoleGrantPermissionRequest => AuthRoleGrantPermissionResponse = AuthRoleGrantPermission, false;
    pb::AuthRoleRevokePermissionRequest => AuthRoleRevokePermissionResponse = AuthRoleRevokePermission, false;
    v3lockpb::LockRequest => LockResponse = Lock, false;
    v3lockpb::UnlockRequest => UnlockResponse = Unlock, false;
    v3electionpb::CampaignRequest => CampaignResponse = ElectionCampaign, false;
    v3electionpb::ProclaimRequest => ProclaimResponse = ElectionProclaim, false;
    v3electionpb::LeaderRequest => LeaderResponse = ElectionLeader, true;
    v3electionpb::ResignRequest => ResignResponse = ElectionResign, false;
}

macro_rules! streams {
    ($($request:ident => $response:ident = $method:ident;)*) => {$(
        impl StreamRpc for pb::$request {
            type Response = pb::$response;
            const METHOD: Method = Method::$method;
        }
    )*};
}

streams! {
    RangeRequest => RangeStreamResponse = KvRangeStream;
    SnapshotRequest => SnapshotResponse = MaintenanceSnapshot;
    WatchRequest => WatchResponse = Watch;
    LeaseKeepAliveRequest => LeaseKeepAliveResponse = LeaseKeepAlive;
}

/// A failed attempt.
struct Failure {
    error: Error,
    peer: Option<String>,
}

impl Client {
    /// A call with one answer, tried again as far as that is safe.
    ///
    /// # Errors
    /// What the last attempt failed with; [`Error::DeadlineExceeded`] once the deadline has passed.
    pub async fn call<R: Rpc>(&self, request: R, context: Context) -> Result<R::Response, Error> {
        let size = request.encoded_len();
        let limit = self.config().max_request_bytes;
        let mut logins = 0;
        let mut attempt = 0;
        loop {
            if attempt > 0 {
                self.back_off(attempt, context).await;
            }
            let tried = if size > limit {
                let text = format!("trying to send message larger than max ({size} vs. {limit})");
                let error = Error::Status(Status::new(Code::ResourceExhausted, text));
                Err(Failure { error, peer: None })
            } else {
                self.attempt(&request, context).await
            };
            let failure = match tried {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            self.log_failure(R::METHOD, attempt, &failure);
            let error = failure.error;
            if matches!(error.code(), Code::DeadlineExceeded | Code::Canceled) && context.is_over() {
                return Err(Error::DeadlineExceeded);
            }
            if self.can_log_in() && logins < 2 && token_is_refused(&error, R::METHOD) {
                logins += 1;
                self.log_in(context).await?;
            } else if !(R::REPEATABLE && error.code() == Code::Unavailable) {
                return Err(error);
            }
            attempt += 1;
            if attempt == ATTEMPTS_MAX {
                return Err(error);
            }
        }
    }

    /// Attempts go round the endpoints at once; a wait comes after each round.
    async fn back_off(&self, attempt: u32, context: Context) {
        let quorum = u32::try_from(self.pool().count() / 2 + 1).unwrap_or(u32::MAX);
        if attempt.is_multiple_of(quorum) {
            let until = Instant::now() + BACKOFF;
            tokio::time::sleep_until(context.deadline.map_or(until, |deadline| deadline.min(until))).await;
        }
    }

    fn log_failure(&self, method: Method, attempt: u32, failure: &Failure) {
        let no_peer = "Peer{Addr: <nil>, LocalAddr: <nil>, AuthInfo: <nil>}";
        let error = form_of_grpc(&failure.error);
        let fields = vec![
            ("target", Field::Text(self.target())),
            ("peer", Field::Text(failure.peer.clone().unwrap_or_else(|| no_peer.to_owned()))),
            ("method", Field::Text(method.path().to_owned())),
            ("attempt", Field::Number(u64::from(attempt))),
            ("error", Field::Text(error)),
        ];
        self.log("warn", line!(), "retrying of unary invoker failed", fields);
    }

    async fn attempt<R: Rpc>(&self, request: &R, context: Context) -> Result<R::Response, Failure> {
        let connection =
            self.pool().pick(context.deadline).await.map_err(|error| Failure { error, peer: None })?;
        let failed = |error| Failure { error, peer: Some(connection.peer().to_owned()) };
        let mut message = Request::new(request.clone());
        self.describe(&mut message, context).map_err(failed)?;
        let call = async {
            let mut grpc = self.grpc(&connection);
            grpc.ready().await.map_err(|error| Error::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static(R::METHOD.path());
            let answer = grpc.unary(message, path, ProstCodec::<R, R::Response>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| judge(&status, &connection))
        };
        let answer = match context.deadline {
            None => call.await,
            Some(deadline) => tokio::time::timeout_at(deadline, call).await.unwrap_or_else(|_| {
                Err(Error::Status(Status::from(ErrorCode::ContextDeadlineExceeded)))
            }),
        };
        answer.map_err(failed)
    }

    fn grpc(&self, connection: &Connection) -> tonic::client::Grpc<tonic::transport::Channel> {
        tonic::client::Grpc::new(connection.channel()).max_decoding_message_size(self.config().max_answer_bytes)
    }

    /// Adds what every request carries.
    fn describe<T>(&self, request: &mut Request<T>, context: Context) -> Result<(), Error> {
        if let Some(deadline) = context.deadline {
            // Our own timer ends the call; the server's copy of the deadline is a moment later, so that it does not
            // answer first.
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(100);
            request.set_timeout(left);
        }
        let map = request.metadata_mut();
        map.insert(metadata::CLIENT_API_VERSION, MetadataValue::from_static(API_VERSION));
        if context.require_leader {
            map.insert(metadata::HAS_LEADER, MetadataValue::from_static(metadata::HAS_LEADER_TRUE));
        }
        if let Some(token) = self.token() {
            let value = MetadataValue::try_from(token)
                .map_err(|_| Error::Config("the auth token has characters that no header can carry".into()))?;
            map.insert(metadata::TOKEN, value);
        }
        Ok(())
    }

    /// A call with a stream of answers. It is not tried again once a connection was picked.
    ///
    /// # Errors
    /// What opening the stream failed with.
    pub async fn stream<R: StreamRpc>(
        &self,
        request: R,
        context: Context,
    ) -> Result<Streaming<R::Response>, Error> {
        let connection = self.pool().pick(context.deadline).await.map_err(|error| {
            // Of the streams of answers only this one is tried again by Go's client, which therefore logs.
            if R::METHOD == Method::MaintenanceSnapshot {
                let fields = vec![("error", Field::Text(form_of_grpc(&error)))];
                self.log("error", line!(), "streamer failed to create ClientStream", fields);
            }
            over(error, context)
        })?;
        let mut message = Request::new(request);
        self.describe(&mut message, context)?;
        let mut grpc = self.grpc(&connection);
        grpc.ready().await.map_err(|error| Error::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(R::METHOD.path());
        let answer = grpc.server_streaming(message, path, ProstCodec::<R, R::Response>::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| over(judge(&status, &connection), context))
    }

    /// A call with streams both ways. It is not tried again once a connection was picked.
    ///
    /// # Errors
    /// What opening the stream failed with.
    pub async fn duplex<R: StreamRpc, S>(
        &self,
        requests: S,
        context: Context,
    ) -> Result<Streaming<R::Response>, Error>
    where
        S: Stream<Item = R> + Send + 'static,
    {
        let connection = self.pool().pick(context.deadline).await.map_err(|error| over(error, context))?;
        let mut message = Request::new(requests);
        self.describe(&mut message, context)?;
        let mut grpc = self.grpc(&connection);
        grpc.ready().await.map_err(|error| Error::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(R::METHOD.path());
        let answer = grpc.streaming(message, path, ProstCodec::<R, R::Response>::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| over(judge(&status, &connection), context))
    }
}

/// The next message of a stream; `None` at its orderly end.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Error> {
    stream.message().await.map_err(|status| judge_stream(&status))
}

impl Error {
    /// The error that a stream of answers ended with.
    #[must_use]
    pub fn of_stream(status: &tonic::Status) -> Error {
        judge_stream(status)
    }
}

/// With code and description, as log lines show it.
fn form_of_grpc(error: &Error) -> String {
    match error {
        Error::Status(status) => status.to_string(),
        other => other.to_string(),
    }
}

fn over(error: Error, context: Context) -> Error {
    match error.code() {
        Code::DeadlineExceeded | Code::Canceled if context.is_over() => Error::DeadlineExceeded,
        _ => error,
    }
}

fn token_is_refused(error: &Error, method: Method) -> bool {
    method != Method::Authenticate
        && (error.is(ErrorCode::InvalidAuthToken) || error.is(ErrorCode::AuthOldRevision) || error.is(ErrorCode::UserEmpty))
}

/// A status of the server stays as it is; one that the transport made up means that the connection broke.
fn judge(status: &tonic::Status, connection: &Connection) -> Error {
    match connection.closed_why() {
        Some(why) if is_of_transport(status) => {
            Error::unavailable(format!("error reading from server: {why}"))
        }
        _ => judge_stream(status),
    }
}

fn judge_stream(status: &tonic::Status) -> Error {
    // The transport's own timer, which is a moment behind ours, may still come first.
    if is_of_transport(status) && status.message() == "Timeout expired" {
        return ErrorCode::ContextDeadlineExceeded.into();
    }
    let code = i32::from(status.code());
    if is_of_transport(status) && matches!(status.code(), tonic::Code::Unknown | tonic::Code::Cancelled) {
        return Error::unavailable(format!("error reading from server: {}", status.message()));
    }
    if let Some(text) = too_long(status.message()) {
        return Error::Status(Status::new(Code::ResourceExhausted, text));
    }
    Error::Status(Status::new(Code::of(code), status.message().to_owned()))
}

/// tonic's words for an answer beyond the limit, in those of Go's gRPC.
fn too_long(message: &str) -> Option<String> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = rest.strip_suffix(" bytes")?.split_once(" bytes, the limit is: ")?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

fn is_of_transport(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}
