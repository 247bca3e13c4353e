//! Every method of the API: path, kind of streaming, messages, first release, and whether a learner answers it.

use crate::version::Minor;

/// Which side sends more than one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one answer.
    Unary,
    /// One request, a stream of answers.
    ServerStream,
    /// Streams both ways.
    BidiStream,
}

/// What a member that is a learner does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLearner {
    /// Refuses it with [`NotSupportedForLearner`](crate::ErrorCode::NotSupportedForLearner).
    No,
    /// Answers it.
    Yes,
    /// Answers it if the request asks for a serializable read.
    Serializable,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// Which method this is.
    pub method: Method,
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Streaming.
    pub kind: Kind,
    /// Full name of the request message.
    pub request: &'static str,
    /// Full name of the response message.
    pub response: &'static str,
    /// First release with it. Members that speak as an older release answer Unimplemented.
    pub since: Minor,
    /// On learners.
    pub on_learner: OnLearner,
}

macro_rules! methods {
    ($($name:ident = $path:literal, $kind:ident, $request:literal => $response:literal, ($major:literal, $minor:literal), $learner:ident;)*) => {
        /// A method of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Method {
            $(#[doc = concat!("`", $path, "`")] $name,)*
        }

        /// All methods, each at the place of its number.
        pub static TABLE: &[Row] = &[$(Row {
            method: Method::$name,
            path: $path,
            kind: Kind::$kind,
            request: $request,
            response: $response,
            since: Minor::new($major, $minor),
            on_learner: OnLearner::$learner,
        },)*];

        impl Method {
            /// The method that a request path names.
            #[must_use]
            pub fn of_path(path: &[u8]) -> Option<Method> {
                match std::str::from_utf8(path).ok()? {
                    $($path => Some(Method::$name),)*
                    _ => None,
                }
            }
        }
    };
}

methods! {
    KvRange = "/etcdserverpb.KV/Range", Unary, "etcdserverpb.RangeRequest" => "etcdserverpb.RangeResponse", (3, 0), Serializable;
    KvRangeStream = "/etcdserverpb.KV/RangeStream", ServerStream, "etcdserverpb.RangeRequest" => "etcdserverpb.RangeStreamResponse", (3, 7), No;
    KvPut = "/etcdserverpb.KV/Put", Unary, "etcdserverpb.PutRequest" => "etcdserverpb.PutResponse", (3, 0), No;
    KvDeleteRange = "/etcdserverpb.KV/DeleteRange", Unary, "etcdserverpb.DeleteRangeRequest" => "etcdserverpb.DeleteRangeResponse", (3, 0), No;
    KvTxn = "/etcdserverpb.KV/Txn", Unary, "etcdserverpb.TxnRequest" => "etcdserverpb.TxnResponse", (3, 0), No;
    KvCompact = "/etcdserverpb.KV/Compact", Unary, "etcdserverpb.CompactionRequest" => "etcdserverpb.CompactionResponse", (3, 0), No;
    Watch = "/etcdserverpb.Watch/Watch", BidiStream, "etcdserverpb.WatchRequest" => "etcdserverpb.WatchResponse", (3, 0), No;
    LeaseGrant = "/etcdserverpb.Lease/LeaseGrant", Unary, "etcdserverpb.LeaseGrantRequest" => "etcdserverpb.LeaseGrantResponse", (3, 0), No;
    LeaseRevoke = "/etcdserverpb.Lease/LeaseRevoke", Unary, "etcdserverpb.LeaseRevokeRequest" => "etcdserverpb.LeaseRevokeResponse", (3, 0), No;
    LeaseKeepAlive = "/etcdserverpb.Lease/LeaseKeepAlive", BidiStream, "etcdserverpb.LeaseKeepAliveRequest" => "etcdserverpb.LeaseKeepAliveResponse", (3, 0), No;
    LeaseTimeToLive = "/etcdserverpb.Lease/LeaseTimeToLive", Unary, "etcdserverpb.LeaseTimeToLiveRequest" => "etcdserverpb.LeaseTimeToLiveResponse", (3, 1), No;
    LeaseLeases = "/etcdserverpb.Lease/LeaseLeases", Unary, "etcdserverpb.LeaseLeasesRequest" => "etcdserverpb.LeaseLeasesResponse", (3, 3), No;
    MemberAdd = "/etcdserverpb.Cluster/MemberAdd", Unary, "etcdserverpb.MemberAddRequest" => "etcdserverpb.MemberAddResponse", (3, 0), No;
    MemberRemove = "/etcdserverpb.Cluster/MemberRemove", Unary, "etcdserverpb.MemberRemoveRequest" => "etcdserverpb.MemberRemoveResponse", (3, 0), No;
    MemberUpdate = "/etcdserverpb.Cluster/MemberUpdate", Unary, "etcdserverpb.MemberUpdateRequest" => "etcdserverpb.MemberUpdateResponse", (3, 0), No;
    MemberList = "/etcdserverpb.Cluster/MemberList", Unary, "etcdserverpb.MemberListRequest" => "etcdserverpb.MemberListResponse", (3, 0), No;
    MemberPromote = "/etcdserverpb.Cluster/MemberPromote", Unary, "etcdserverpb.MemberPromoteRequest" => "etcdserverpb.MemberPromoteResponse", (3, 4), No;
    MaintenanceAlarm = "/etcdserverpb.Maintenance/Alarm", Unary, "etcdserverpb.AlarmRequest" => "etcdserverpb.AlarmResponse", (3, 0), No;
    MaintenanceStatus = "/etcdserverpb.Maintenance/Status", Unary, "etcdserverpb.StatusRequest" => "etcdserverpb.StatusResponse", (3, 0), Yes;
    MaintenanceDefragment = "/etcdserverpb.Maintenance/Defragment", Unary, "etcdserverpb.DefragmentRequest" => "etcdserverpb.DefragmentResponse", (3, 0), No;
    MaintenanceHash = "/etcdserverpb.Maintenance/Hash", Unary, "etcdserverpb.HashRequest" => "etcdserverpb.HashResponse", (3, 0), No;
    MaintenanceHashKv = "/etcdserverpb.Maintenance/HashKV", Unary, "etcdserverpb.HashKVRequest" => "etcdserverpb.HashKVResponse", (3, 3), No;
    MaintenanceSnapshot = "/etcdserverpb.Maintenance/Snapshot", ServerStream, "etcdserverpb.SnapshotRequest" => "etcdserverpb.SnapshotResponse", (3, 0), Yes;
    MaintenanceMoveLeader = "/etcdserverpb.Maintenance/MoveLeader", Unary, "etcdserverpb.MoveLeaderRequest" => "etcdserverpb.MoveLeaderResponse", (3, 3), No;
    MaintenanceDowngrade = "/etcdserverpb.Maintenance/Downgrade", Unary, "etcdserverpb.DowngradeRequest" => "etcdserverpb.DowngradeResponse", (3, 5), No;
    AuthEnable = "/etcdserverpb.Auth/AuthEnable", Unary, "etcdserverpb.AuthEnableRequest" => "etcdserverpb.AuthEnableResponse", (3, 0), No;
    AuthDisable = "/etcdserverpb.Auth/AuthDisable", Unary, "etcdserverpb.AuthDisableRequest" => "etcdserverpb.AuthDisableResponse", (3, 0), No;
    AuthStatus = "/etcdserverpb.Auth/AuthStatus", Unary, "etcdserverpb.AuthStatusRequest" => "etcdserverpb.AuthStatusResponse", (3, 5), No;
    Authenticate = "/etcdserverpb.Auth/Authenticate", Unary, "etcdserverpb.AuthenticateRequest" => "etcdserverpb.AuthenticateResponse", (3, 0), No;
    AuthUserAdd = "/etcdserverpb.Auth/UserAdd", Unary, "etcdserverpb.AuthUserAddRequest" => "etcdserverpb.AuthUserAddResponse", (3, 0), No;
    AuthUserGet = "/etcdserverpb.Auth/UserGet", Unary, "etcdserverpb.AuthUserGetRequest" => "etcdserverpb.AuthUserGetResponse", (3, 0), No;
    AuthUserList = "/etcdserverpb.Auth/UserList", Unary, "etcdserverpb.AuthUserListRequest" => "etcdserverpb.AuthUserListResponse", (3, 0), No;
    AuthUserDelete = "/etcdserverpb.Auth/UserDelete", Unary, "etcdserverpb.AuthUserDeleteRequest" => "etcdserverpb.AuthUserDeleteResponse", (3, 0), No;
    AuthUserChangePassword = "/etcdserverpb.Auth/UserChangePassword", Unary, "etcdserverpb.AuthUserChangePasswordRequest" => "etcdserverpb.AuthUserChangePasswordResponse", (3, 0), No;
    AuthUserGrantRole = "/etcdserverpb.Auth/UserGrantRole", Unary, "etcdserverpb.AuthUserGrantRoleRequest" => "etcdserverpb.AuthUserGrantRoleResponse", (3, 0), No;
    AuthUserRevokeRole = "/etcdserverpb.Auth/UserRevokeRole", Unary, "etcdserverpb.AuthUserRevokeRoleRequest" => "etcdserverpb.AuthUserRevokeRoleResponse", (3, 0), No;
    AuthRoleAdd = "/etcdserverpb.Auth/RoleAdd", Unary, "etcdserverpb.AuthRoleAddRequest" => "etcdserverpb.AuthRoleAddResponse", (3, 0), No;
    AuthRoleGet = "/etcdserverpb.Auth/RoleGet", Unary, "etcdserverpb.AuthRoleGetRequest" => "etcdserverpb.AuthRoleGetResponse", (3, 0), No;
    AuthRoleList = "/etcdserverpb.Auth/RoleList", Unary, "etcdserverpb.AuthRoleListRequest" => "etcdserverpb.AuthRoleListResponse", (3, 0), No;
    AuthRoleDelete = "/etcdserverpb.Auth/RoleDelete", Unary, "etcdserverpb.AuthRoleDeleteRequest" => "etcdserverpb.AuthRoleDeleteResponse", (3, 0), No;
    AuthRoleGrantPermission = "/etcdserverpb.Auth/RoleGrantPermission", Unary, "etcdserverpb.AuthRoleGrantPermissionRequest" => "etcdserverpb.AuthRoleGrantPermissionResponse", (3, 0), No;
    AuthRoleRevokePermission = "/etcdserverpb.Auth/RoleRevokePermission", Unary, "etcdserverpb.AuthRoleRevokePermissionRequest" => "etcdserverpb.AuthRoleRevokePermissionResponse", (3, 0), No;
    ElectionCampaign = "/v3electionpb.Election/Campaign", Unary, "v3electionpb.CampaignRequest" => "v3electionpb.CampaignResponse", (3, 2), No;
    ElectionProclaim = "/v3electionpb.Election/Proclaim", Unary, "v3electionpb.ProclaimRequest" => "v3electionpb.ProclaimResponse", (3, 2), No;
    ElectionLeader = "/v3electionpb.Election/Leader", Unary, "v3electionpb.LeaderRequest" => "v3electionpb.LeaderResponse", (3, 2), No;
    ElectionObserve = "/v3electionpb.Election/Observe", ServerStream, "v3electionpb.LeaderRequest" => "v3electionpb.LeaderResponse", (3, 2), No;
    ElectionResign = "/v3electionpb.Election/Resign", Unary, "v3electionpb.ResignRequest" => "v3electionpb.ResignResponse", (3, 2), No;
    Lock = "/v3lockpb.Lock/Lock", Unary, "v3lockpb.LockRequest" => "v3lockpb.LockResponse", (3, 2), No;
    Unlock = "/v3lockpb.Lock/Unlock", Unary, "v3lockpb.UnlockRequest" => "v3lockpb.UnlockResponse", (3, 2), No;
    HealthCheck = "/grpc.health.v1.Health/Check", Unary, "grpc.health.v1.HealthCheckRequest" => "grpc.health.v1.HealthCheckResponse", (3, 3), No;
    HealthList = "/grpc.health.v1.Health/List", Unary, "grpc.health.v1.HealthListRequest" => "grpc.health.v1.HealthListResponse", (3, 6), No;
    HealthWatch = "/grpc.health.v1.Health/Watch", ServerStream, "grpc.health.v1.HealthCheckRequest" => "grpc.health.v1.HealthCheckResponse", (3, 4), No;
}

impl Method {
    /// Its row.
    #[must_use]
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// `/package.Service/Method`.
    #[must_use]
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// `package.Service` and `Method`, the labels of gRPC metrics.
    #[must_use]
    pub fn service_and_name(self) -> (&'static str, &'static str) {
        split_path(self.path()).unwrap_or_default()
    }
}

/// Splits a request path, known or not, into service and method as gRPC does: at the last slash, without the first.
#[must_use]
pub fn split_path(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/').unwrap_or(path).rsplit_once('/')
}

/// Whether some method belongs to this service: an unknown method of a known service has an error text of its own.
#[must_use]
pub fn service_exists(service: &str) -> bool {
    TABLE.iter().any(|row| row.method.service_and_name().0 == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_numbers_and_paths_lead_to_them() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.method as usize, at);
            assert_eq!(Method::of_path(row.path.as_bytes()), Some(row.method));
            assert!(Method::of_path(&row.path.as_bytes()[1..]).is_none());
        }
        assert_eq!(Method::of_path(b"/etcdserverpb.KV/Rangf"), None);
        assert_eq!(Method::of_path(b"\xff"), None);
    }

    #[test]
    fn services_are_told_apart_from_methods() {
        assert_eq!(Method::KvPut.service_and_name(), ("etcdserverpb.KV", "Put"));
        assert_eq!(split_path("/a/b/c"), Some(("a/b", "c")));
        assert_eq!(split_path("/abc"), None);
        assert!(service_exists("grpc.health.v1.Health"));
        assert!(!service_exists("grpc.reflection.v1.ServerReflection"));
    }
}
