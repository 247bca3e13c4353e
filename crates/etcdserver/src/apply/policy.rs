//! One row per kind of request in the log: what it needs, and what stands in its way.
//!
//! The order of the gates at apply is that of the columns: the CORRUPT alarm, the NOSPACE alarm, the right of the
//! caller, the quota, then the request's own checks.

/// Which right an entry needs at apply while auth is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// None, or one that the edge has looked at.
    None,
    /// The root role; the auth revision is not compared.
    Root,
    /// Rights on the keys that the request names, in all its branches.
    Keys,
    /// Rights on the keys that hang on the lease.
    LeaseKeys,
    /// The root role, or being the user asked for.
    OwnUser,
    /// The root role, or having the role asked for.
    OwnRole,
}

/// What an alarm does to a kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// It goes through.
    Passes,
    /// It is refused.
    Refused,
    /// It is refused when it would store something.
    RefusedIfItCosts,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Field of `InternalRaftRequest`.
    pub field: u32,
    /// For logs and metrics, as etcd names it.
    pub name: &'static str,
    /// While a CORRUPT alarm is on.
    pub under_corrupt: Under,
    /// While a NOSPACE alarm is on.
    pub under_no_space: Under,
    /// While auth is on.
    pub right: Right,
    /// Whether the quota is looked at.
    pub costs: bool,
}

/// Field numbers of `InternalRaftRequest`.
pub mod field {
    /// Id of entries without header.
    pub const ID: u32 = 1;
    /// A v2 request of old logs.
    pub const V2: u32 = 2;
    /// Id, user and auth revision.
    pub const HEADER: u32 = 100;
    /// `RangeRequest`.
    pub const RANGE: u32 = 3;
    /// `PutRequest`.
    pub const PUT: u32 = 4;
    /// `DeleteRangeRequest`.
    pub const DELETE_RANGE: u32 = 5;
    /// `TxnRequest`.
    pub const TXN: u32 = 6;
    /// `CompactionRequest`.
    pub const COMPACTION: u32 = 7;
    /// `LeaseGrantRequest`.
    pub const LEASE_GRANT: u32 = 8;
    /// `LeaseRevokeRequest`.
    pub const LEASE_REVOKE: u32 = 9;
    /// `AlarmRequest`.
    pub const ALARM: u32 = 10;
    /// `LeaseCheckpointRequest`.
    pub const LEASE_CHECKPOINT: u32 = 11;
    /// `AuthEnableRequest`.
    pub const AUTH_ENABLE: u32 = 1000;
    /// `AuthDisableRequest`.
    pub const AUTH_DISABLE: u32 = 1011;
    /// `InternalAuthenticateRequest`.
    pub const AUTHENTICATE: u32 = 1012;
    /// `AuthStatusRequest`.
    pub const AUTH_STATUS: u32 = 1013;
    /// `AuthUserAddRequest`.
    pub const USER_ADD: u32 = 1100;
    /// `AuthUserDeleteRequest`.
    pub const USER_DELETE: u32 = 1101;
    /// `AuthUserGetRequest`.
    pub const USER_GET: u32 = 1102;
    /// `AuthUserChangePasswordRequest`.
    pub const USER_CHANGE_PASSWORD: u32 = 1103;
    /// `AuthUserGrantRoleRequest`.
    pub const USER_GRANT_ROLE: u32 = 1104;
    /// `AuthUserRevokeRoleRequest`.
    pub const USER_REVOKE_ROLE: u32 = 1105;
    /// `AuthUserListRequest`.
    pub const USER_LIST: u32 = 1106;
    /// `AuthRoleListRequest`.
    pub const ROLE_LIST: u32 = 1107;
    /// `AuthRoleAddRequest`.
    pub const ROLE_ADD: u32 = 1200;
    /// `AuthRoleDeleteRequest`.
    pub const ROLE_DELETE: u32 = 1201;
    /// `AuthRoleGetRequest`.
    pub const ROLE_GET: u32 = 1202;
    /// `AuthRoleGrantPermissionRequest`.
    pub const ROLE_GRANT_PERMISSION: u32 = 1203;
    /// `AuthRoleRevokePermissionRequest`.
    pub const ROLE_REVOKE_PERMISSION: u32 = 1204;
    /// `ClusterVersionSetRequest`.
    pub const CLUSTER_VERSION_SET: u32 = 1300;
    /// `ClusterMemberAttrSetRequest`.
    pub const MEMBER_ATTR_SET: u32 = 1301;
    /// `DowngradeInfoSetRequest`.
    pub const DOWNGRADE_INFO_SET: u32 = 1302;
    /// `DowngradeVersionTestRequest`.
    pub const DOWNGRADE_VERSION_TEST: u32 = 9900;
}

const fn row(
    field: u32,
    name: &'static str,
    under_corrupt: Under,
    under_no_space: Under,
    right: Right,
    costs: bool,
) -> Policy {
    Policy { field, name, under_corrupt, under_no_space, right, costs }
}

/// The table, by field number.
pub const POLICIES: &[Policy] = {
    use Right::{Keys, LeaseKeys, None, OwnRole, OwnUser, Root};
    use Under::{Passes, Refused, RefusedIfItCosts};
    &[
        row(field::RANGE, "Range", Refused, Passes, Keys, false),
        row(field::PUT, "Put", Refused, Refused, Keys, true),
        row(field::DELETE_RANGE, "DeleteRange", Refused, Passes, Keys, false),
        row(field::TXN, "Txn", Refused, RefusedIfItCosts, Keys, true),
        row(field::COMPACTION, "Compaction", Refused, Passes, None, false),
        row(field::LEASE_GRANT, "LeaseGrant", Refused, Refused, None, true),
        row(field::LEASE_REVOKE, "LeaseRevoke", Refused, Passes, LeaseKeys, false),
        row(field::ALARM, "Alarm", Passes, Passes, None, false),
        row(field::LEASE_CHECKPOINT, "LeaseCheckpoint", Passes, Passes, None, false),
        row(field::AUTH_ENABLE, "AuthEnable", Passes, Passes, Root, false),
        row(field::AUTH_DISABLE, "AuthDisable", Passes, Passes, Root, false),
        row(field::AUTHENTICATE, "Authenticate", Passes, Passes, None, false),
        row(field::AUTH_STATUS, "AuthStatus", Passes, Passes, None, false),
        row(field::USER_ADD, "AuthUserAdd", Passes, Passes, Root, false),
        row(field::USER_DELETE, "AuthUserDelete", Passes, Passes, Root, false),
        row(field::USER_GET, "AuthUserGet", Passes, Passes, OwnUser, false),
        row(field::USER_CHANGE_PASSWORD, "AuthUserChangePassword", Passes, Passes, Root, false),
        row(field::USER_GRANT_ROLE, "AuthUserGrantRole", Passes, Passes, Root, false),
        row(field::USER_REVOKE_ROLE, "AuthUserRevokeRole", Passes, Passes, Root, false),
        row(field::USER_LIST, "AuthUserList", Passes, Passes, Root, false),
        row(field::ROLE_LIST, "AuthRoleList", Passes, Passes, Root, false),
        row(field::ROLE_ADD, "AuthRoleAdd", Passes, Passes, Root, false),
        row(field::ROLE_DELETE, "AuthRoleDelete", Passes, Passes, Root, false),
        row(field::ROLE_GET, "AuthRoleGet", Passes, Passes, OwnRole, false),
        row(field::ROLE_GRANT_PERMISSION, "AuthRoleGrantPermission", Passes, Passes, Root, false),
        row(field::ROLE_REVOKE_PERMISSION, "AuthRoleRevokePermission", Passes, Passes, Root, false),
        row(field::CLUSTER_VERSION_SET, "ClusterVersionSet", Passes, Passes, None, false),
        row(field::MEMBER_ATTR_SET, "ClusterMemberAttrSet", Passes, Passes, None, false),
        row(field::DOWNGRADE_INFO_SET, "DowngradeInfoSet", Passes, Passes, None, false),
        row(field::DOWNGRADE_VERSION_TEST, "DowngradeVersionTest", Passes, Passes, None, false),
    ]
};

/// The row of a request; `None` for a field that nobody knows.
pub fn policy_of(field: u32) -> Option<&'static Policy> {
    POLICIES.binary_search_by_key(&field, |policy| policy.field).ok().map(|at| &POLICIES[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_their_fields() {
        assert!(POLICIES.windows(2).all(|pair| pair[0].field < pair[1].field));
        assert_eq!(policy_of(field::PUT).map(|policy| policy.name), Some("Put"));
        assert_eq!(policy_of(field::V2), None);
    }

    #[test]
    fn what_costs_is_what_no_space_may_refuse() {
        for policy in POLICIES {
            assert_eq!(policy.costs, policy.under_no_space != Under::Passes, "{}", policy.name);
        }
    }

    #[test]
    fn a_corrupt_cluster_refuses_all_that_touches_keys_or_leases() {
        let refused: Vec<_> =
            POLICIES.iter().filter(|policy| policy.under_corrupt == Under::Refused).map(|p| p.name).collect();
        assert_eq!(
            refused,
            ["Range", "Put", "DeleteRange", "Txn", "Compaction", "LeaseGrant", "LeaseRevoke"]
        );
    }
}
