//! Who may do what: permission checks as pure functions over a flat list of needs.
//!
//! Order of a key check: auth off, then "no identity", then "old revision", then "unknown user", then the root
//! role, then the user's merged permissions. A list of needs passes when each one passes; since identity and
//! revision are the same for all needs of a request, the order of the needs cannot change the answer.

use std::sync::Arc;

use api::authpb::{Permission, permission};
use api::error::ErrorCode;
use bytes::Bytes;

use super::intervals::{Intervals, end_of_point};
use super::store::AuthState;
use crate::effect::Identity;
use crate::lease::LeasesView;
use crate::mutant::Mutant;

/// The user, and the role, that may do everything.
pub(crate) const ROOT: &str = "root";

/// Leases looked at under one lock.
const LEASES_PER_STEP: usize = 256;

/// Who asks: as found in the header of an entry, or made from a token or a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller<'a> {
    /// Name of the user; empty for nobody.
    pub name: &'a str,
    /// Auth revision at which the user was identified; 0 for nobody.
    pub revision: u64,
}

/// Reading or changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// READ or READWRITE on the keys.
    Read,
    /// WRITE or READWRITE on the keys.
    Write,
}

/// One thing that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Access to `key`, or to the interval when `end` is not empty (one zero byte: no end).
    Keys {
        /// Reading or changing.
        access: Access,
        /// The key, or the first one.
        key: &'a [u8],
        /// `range_end` as in requests.
        end: &'a [u8],
    },
    /// The right to change every key that hangs on this lease: who may not revoke it may not use it.
    LeaseKeys(i64),
}

impl<'a> Need<'a> {
    /// Reading an interval.
    pub fn read(key: &'a [u8], end: &'a [u8]) -> Need<'a> {
        Need::Keys { access: Access::Read, key, end }
    }

    /// Changing an interval.
    pub fn write(key: &'a [u8], end: &'a [u8]) -> Need<'a> {
        Need::Keys { access: Access::Write, key, end }
    }
}

/// `range_end` of one zero byte: from the key on.
pub(crate) fn is_open(end: &[u8]) -> bool {
    end == [0]
}

/// Whether a permission may be granted on this interval.
pub(crate) fn is_valid_range(key: &[u8], end: &[u8]) -> bool {
    !key.is_empty() && (end.is_empty() || key < end || is_open(end))
}

/// The permissions of one user, merged over the roles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights {
    read: Intervals,
    write: Intervals,
}

impl Rights {
    pub(crate) fn add(&mut self, permission: &Permission) {
        let begin = permission.key.clone();
        let end = if permission.range_end.is_empty() {
            end_of_point(&begin)
        } else if is_open(&permission.range_end) {
            Bytes::new()
        } else {
            permission.range_end.clone()
        };
        // Unknown kinds are stored and grant nothing.
        let Ok(kind) = permission::Type::try_from(permission.perm_type) else { return };
        if kind != permission::Type::Write {
            self.read.insert(begin.clone(), end.clone());
        }
        if kind != permission::Type::Read {
            self.write.insert(begin, end);
        }
    }

    fn allow(&self, access: Access, key: &[u8], end: &[u8]) -> bool {
        let intervals = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        if end.is_empty() || Mutant::EndIgnored.is_on() {
            intervals.holds(key)
        } else {
            intervals.cover(key, if is_open(end) { b"" } else { end })
        }
    }
}

impl AuthState {
    /// Whether the caller may touch these keys.
    pub fn check_keys(
        &self,
        caller: Caller<'_>,
        access: Access,
        key: &[u8],
        end: &[u8],
    ) -> Result<(), ErrorCode> {
        if !self.enabled() {
            return Ok(());
        }
        if caller.revision == 0 {
            return Err(ErrorCode::UserEmpty);
        }
        if caller.revision < self.revision() && !Mutant::OldIdentity.is_on() {
            return Err(ErrorCode::AuthOldRevision);
        }
        let user = self.user(caller.name).ok_or(ErrorCode::PermissionDenied)?;
        if has_root_role(&user.roles) {
            return Ok(());
        }
        match self.rights_of(caller.name) {
            Some(rights) if rights.allow(access, key, end) => Ok(()),
            _ => Err(ErrorCode::PermissionDenied),
        }
    }

    /// Whether the caller may do what only administrators may. The auth revision is not compared here.
    pub fn check_admin(&self, caller: Caller<'_>) -> Result<(), ErrorCode> {
        if !self.enabled() {
            return Ok(());
        }
        if caller.name.is_empty() {
            return Err(ErrorCode::UserEmpty);
        }
        let user = self.user(caller.name).ok_or(ErrorCode::UserNotFound)?;
        if has_root_role(&user.roles) { Ok(()) } else { Err(ErrorCode::PermissionDenied) }
    }

    /// In whose name a member revokes leases whose time is up, as in etcd: the root user's while auth is on.
    pub fn own_identity(&self) -> Option<Arc<Identity>> {
        let identity = || Identity { username: ROOT.to_owned(), auth_revision: self.revision() };
        (self.enabled() && !Mutant::RevokesOfNobody.is_on()).then(|| Arc::new(identity()))
    }

    /// Whether there is a caller at all: what granting leases and looking at the cluster needs.
    pub fn check_identified(&self, caller: Caller<'_>) -> Result<(), ErrorCode> {
        if self.enabled() && caller.name.is_empty() { Err(ErrorCode::UserEmpty) } else { Ok(()) }
    }

    /// Whether the caller may change (or read) every key of the lease; a lease that does not exist has no keys.
    pub fn check_lease(
        &self,
        caller: Caller<'_>,
        access: Access,
        lease: i64,
        leases: &LeasesView,
    ) -> Result<(), ErrorCode> {
        if self.check_admin(caller).is_ok() {
            return Ok(());
        }
        leases.try_each_key(lease, &mut |key| self.check_keys(caller, access, key, b""))
    }

    /// Whether the caller may list all leases: administrators, and who may read every key on every lease.
    pub fn check_lease_list(&self, caller: Caller<'_>, leases: &LeasesView) -> Result<(), ErrorCode> {
        self.check_identified(caller)?;
        if self.check_admin(caller).is_ok() {
            return Ok(());
        }
        let mut after = None;
        loop {
            let some = leases.list(after, LEASES_PER_STEP);
            let Some((last, _)) = some.last() else { return Ok(()) };
            after = Some(*last);
            for (id, _) in some {
                leases.try_each_key(id, &mut |key| self.check_keys(caller, Access::Read, key, b""))?;
            }
        }
    }

    /// Whether one need is met.
    pub fn check(&self, caller: Caller<'_>, need: Need<'_>, leases: &LeasesView) -> Result<(), ErrorCode> {
        match need {
            Need::Keys { access, key, end } => self.check_keys(caller, access, key, end),
            Need::LeaseKeys(lease) => self.check_lease(caller, Access::Write, lease, leases),
        }
    }

    /// Whether the caller may see this user: administrators, and the user.
    pub fn check_user_get(&self, caller: Caller<'_>, name: &str) -> Result<(), ErrorCode> {
        self.check_admin(caller).or_else(|error| if name == caller.name { Ok(()) } else { Err(error) })
    }

    /// Whether the caller may see this role: administrators, and who has it.
    pub fn check_role_get(&self, caller: Caller<'_>, role: &str) -> Result<(), ErrorCode> {
        self.check_admin(caller).or_else(|error| {
            let has = self.user(caller.name).is_some_and(|user| user.roles.iter().any(|r| r == role));
            if has { Ok(()) } else { Err(error) }
        })
    }
}

/// Whether the root role is among these sorted roles.
pub(crate) fn has_root_role(roles: &[String]) -> bool {
    let at = roles.partition_point(|role| role.as_str() < ROOT);
    roles.get(at).is_some_and(|role| role == ROOT)
}
