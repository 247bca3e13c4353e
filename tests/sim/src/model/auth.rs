//! Users, roles and rights in the model, and what each request of the log needs: checker 7.
//!
//! Rights are looked up one by one from what roles say, with nothing merged or kept, so that whatever the product keeps
//! for speed is compared with the plain rule.

use std::collections::{BTreeMap, BTreeSet};

use api::authpb::Permission;
use api::error::ErrorCode;
use api::etcdserverpb as pb;
use api::etcdserverpb::request_op::Request;
use bytes::Bytes;
use etcdserver::apply::policy::field;
use etcdserver::auth::{AuthState, Caller};
use prost::Message;

use super::{Answer, Model, decode, header, in_range};

/// The user and the role that may do everything.
pub(crate) const ROOT: &str = "root";

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// The stored hash.
    password: Bytes,
    no_password: bool,
    pub(crate) roles: BTreeSet<String>,
}

/// Reading or changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// All of it, as of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Auth {
    pub(crate) enabled: bool,
    pub(crate) revision: u64,
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) roles: BTreeMap<String, Vec<Permission>>,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl Auth {
    fn is_root(&self, user: &User) -> bool {
        user.roles.contains(ROOT)
    }

    /// Whether somebody may touch these keys.
    pub(crate) fn check_keys(
        &self,
        caller: Caller<'_>,
        access: Access,
        key: &[u8],
        end: &[u8],
    ) -> Result<(), ErrorCode> {
        if !self.enabled {
            return Ok(());
        }
        if caller.revision == 0 {
            return Err(ErrorCode::UserEmpty);
        }
        if caller.revision < self.revision {
            return Err(ErrorCode::AuthOldRevision);
        }
        let user = self.users.get(caller.name).ok_or(ErrorCode::PermissionDenied)?;
        if self.is_root(user) || self.covers(user, access, key, end) {
            Ok(())
        } else {
            Err(ErrorCode::PermissionDenied)
        }
    }

    /// Whether the permissions of all roles together leave no gap in the interval.
    fn covers(&self, user: &User, access: Access, key: &[u8], end: &[u8]) -> bool {
        // READ is 0, WRITE 1, READWRITE 2.
        let wanted = if access == Access::Read { [0, 2] } else { [1, 2] };
        let granted: Vec<&Permission> = user
            .roles
            .iter()
            .filter_map(|role| self.roles.get(role))
            .flatten()
            .filter(|permission| wanted.contains(&permission.perm_type))
            .collect();
        let mut reached = key.to_vec();
        let until = match end {
            [] => [key, &[0]].concat(),
            end => end.to_vec(),
        };
        let is_open = end == [0];
        loop {
            let holds =
                |permission: &&&Permission| in_range(&reached, &permission.key, &permission.range_end);
            let holding: Vec<&&Permission> = granted.iter().filter(holds).collect();
            if holding.iter().any(|permission| permission.range_end[..] == [0]) {
                return true;
            }
            let farthest = holding.iter().map(|permission| match &permission.range_end[..] {
                [] => [&permission.key[..], &[0]].concat(),
                end => end.to_vec(),
            });
            let Some(farthest) = farthest.max() else { return false };
            if !is_open && farthest >= until {
                return true;
            }
            reached = farthest;
        }
    }

    /// Whether somebody may do what only administrators may; the auth revision does not matter for that.
    pub(crate) fn check_admin(&self, caller: Caller<'_>) -> Result<(), ErrorCode> {
        if !self.enabled {
            return Ok(());
        }
        if caller.name.is_empty() {
            return Err(ErrorCode::UserEmpty);
        }
        let user = self.users.get(caller.name).ok_or(ErrorCode::UserNotFound)?;
        if self.is_root(user) { Ok(()) } else { Err(ErrorCode::PermissionDenied) }
    }

    /// Whether somebody may touch all keys of a lease.
    pub(crate) fn check_lease<'a>(
        &self,
        caller: Caller<'_>,
        access: Access,
        keys: impl IntoIterator<Item = &'a Bytes>,
    ) -> Result<(), ErrorCode> {
        if self.check_admin(caller).is_ok() {
            return Ok(());
        }
        keys.into_iter().try_for_each(|key| self.check_keys(caller, access, key, b""))
    }

    /// Somebody reads: rights, and an identity that is not older than the last change.
    pub(crate) fn check_read(&self, caller: Caller<'_>, range: &pb::RangeRequest) -> Result<(), ErrorCode> {
        self.check_keys(caller, Access::Read, &range.key, &range.range_end)?;
        if caller.revision != 0 && caller.revision != self.revision {
            return Err(ErrorCode::AuthOldRevision);
        }
        Ok(())
    }

    /// What differs between this and a member's state, if anything does.
    pub(crate) fn difference(&self, state: &AuthState) -> Option<String> {
        let user = |name: &String| {
            let user = state.user(name)?;
            let no_password = user.options.is_some_and(|options| options.no_password);
            Some((
                name.clone(),
                User {
                    password: user.password.clone(),
                    no_password,
                    roles: user.roles.iter().cloned().collect(),
                },
            ))
        };
        let role = |name: &String| Some((name.clone(), state.role(name)?.key_permission.clone()));
        let found = Auth {
            enabled: state.enabled(),
            revision: state.revision(),
            users: state.user_names().iter().filter_map(user).collect(),
            roles: state.role_names().iter().filter_map(role).collect(),
        };
        if found != *self {
            return Some(format!("{found:?}, should be {self:?}"));
        }
        self.other_rights(state)
    }

    /// The first right in which they differ, of some that each user might have.
    fn other_rights(&self, state: &AuthState) -> Option<String> {
        let all = self.roles.values().flatten();
        let bounds: BTreeSet<&[u8]> = all.flat_map(|p| [&p.key[..], &p.range_end[..]]).collect();
        for name in self.users.keys() {
            let caller = Caller { name, revision: self.revision };
            for key in bounds.iter().filter(|key| !key.is_empty() && **key != [0]) {
                for end in bounds.iter().filter(|end| end.is_empty() || **end == [0] || *end > key) {
                    let own = [Access::Read, Access::Write].map(|a| self.check_keys(caller, a, key, end));
                    let theirs = [etcdserver::auth::Access::Read, etcdserver::auth::Access::Write]
                        .map(|access| state.check_keys(caller, access, key, end));
                    if own != theirs {
                        return Some(format!(
                            "{name} on {key:x?} to {end:x?}: {theirs:?}, should be {own:?}"
                        ));
                    }
                }
            }
        }
        None
    }
}

impl Model {
    /// Users and rights after the entry at `index`.
    pub(crate) fn auth_at(&self, index: u64) -> &Auth {
        let after = self.auths.partition_point(|(at, _)| *at <= index);
        &self.auths[after - 1].1
    }

    /// Users and rights now.
    pub(crate) fn auth(&self) -> &Auth {
        &self.auths.last().expect("the first one stays").1
    }

    /// How often they changed.
    pub(crate) fn auth_changes(&self) -> u64 {
        self.auths.len() as u64 - 1
    }

    /// Keys that hang on a lease now.
    pub(crate) fn keys_of(&self, lease: i64) -> impl Iterator<Item = &Bytes> {
        self.attached.get(&lease).into_iter().flatten()
    }

    pub(super) fn check_put_rights(&self, caller: Caller<'_>, put: &pb::PutRequest) -> Result<(), ErrorCode> {
        let auth = self.auth();
        auth.check_keys(caller, Access::Write, &put.key, b"")?;
        if put.lease != 0 {
            auth.check_lease(caller, Access::Write, self.keys_of(put.lease))?;
        }
        if put.prev_kv {
            auth.check_keys(caller, Access::Read, &put.key, b"")?;
        }
        Ok(())
    }

    pub(super) fn check_delete_rights(
        &self,
        caller: Caller<'_>,
        delete: &pb::DeleteRangeRequest,
    ) -> Result<(), ErrorCode> {
        let auth = self.auth();
        auth.check_keys(caller, Access::Write, &delete.key, &delete.range_end)?;
        if delete.prev_kv {
            auth.check_keys(caller, Access::Read, &delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    /// All comparisons and both branches, at every depth.
    pub(super) fn check_txn_rights(&self, caller: Caller<'_>, txn: &pb::TxnRequest) -> Result<(), ErrorCode> {
        let auth = self.auth();
        for compare in &txn.compare {
            auth.check_keys(caller, Access::Read, &compare.key, &compare.range_end)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op.request.as_ref().expect("clients send whole operations") {
                Request::RequestRange(range) => {
                    auth.check_keys(caller, Access::Read, &range.key, &range.range_end)?;
                }
                Request::RequestPut(put) => self.check_put_rights(caller, put)?,
                Request::RequestDeleteRange(delete) => self.check_delete_rights(caller, delete)?,
                Request::RequestTxn(nested) => self.check_txn_rights(caller, nested)?,
            }
        }
        Ok(())
    }

    /// Requests of the auth service.
    pub(super) fn auth_request(&mut self, index: u64, kind: u32, caller: Caller<'_>, body: &[u8]) -> Answer {
        let auth = self.auth();
        let is_open =
            matches!(kind, field::AUTHENTICATE | field::AUTH_STATUS | field::USER_GET | field::ROLE_GET);
        if !is_open {
            auth.check_admin(caller)?;
        }
        match kind {
            field::AUTHENTICATE => self.authenticate(index, &decode(body)),
            field::AUTH_STATUS => Ok(pb::AuthStatusResponse {
                header: self.header(),
                enabled: auth.enabled,
                auth_revision: auth.revision,
            }
            .encode_to_vec()),
            field::USER_GET | field::USER_LIST | field::ROLE_GET | field::ROLE_LIST => {
                self.auth_question(kind, caller, body)
            }
            _ => {
                let mut next = auth.clone();
                if next.change(kind, body)? {
                    self.auths.push((index, next));
                }
                Ok(pb::AuthEnableResponse { header: self.header() }.encode_to_vec())
            }
        }
    }

    fn authenticate(&self, index: u64, request: &pb::InternalAuthenticateRequest) -> Answer {
        if !self.auth().enabled {
            return Err(ErrorCode::AuthNotEnabled);
        }
        let user = self.auth().users.get(&request.name).ok_or(ErrorCode::AuthFailed)?;
        if user.no_password {
            return Err(ErrorCode::AuthFailed);
        }
        let token = format!("{}.{index}", request.simple_token);
        Ok(pb::AuthenticateResponse { header: self.header(), token }.encode_to_vec())
    }

    fn auth_question(&self, kind: u32, caller: Caller<'_>, body: &[u8]) -> Answer {
        let (auth, header) = (self.auth(), header(self.keys.revision));
        let answer = match kind {
            field::USER_LIST => {
                pb::AuthUserListResponse { header, users: auth.users.keys().cloned().collect() }
                    .encode_to_vec()
            }
            field::ROLE_LIST => {
                pb::AuthRoleListResponse { header, roles: auth.roles.keys().cloned().collect() }
                    .encode_to_vec()
            }
            field::USER_GET => {
                let request: pb::AuthUserGetRequest = decode(body);
                auth.check_admin(caller)
                    .or_else(|error| if request.name == caller.name { Ok(()) } else { Err(error) })?;
                let user = auth.users.get(&request.name).ok_or(ErrorCode::UserNotFound)?;
                pb::AuthUserGetResponse { header, roles: user.roles.iter().cloned().collect() }
                    .encode_to_vec()
            }
            _ => {
                let request: pb::AuthRoleGetRequest = decode(body);
                let has = auth.users.get(caller.name).is_some_and(|user| user.roles.contains(&request.role));
                auth.check_admin(caller).or_else(|error| if has { Ok(()) } else { Err(error) })?;
                let mut perm = auth.roles.get(&request.role).ok_or(ErrorCode::RoleNotFound)?.clone();
                if request.role == ROOT {
                    let range_end = Bytes::from_static(&[0]);
                    perm = vec![Permission { perm_type: 2, key: Bytes::new(), range_end }];
                }
                pb::AuthRoleGetResponse { header, perm }.encode_to_vec()
            }
        };
        Ok(answer)
    }
}

impl Auth {
    /// Makes a change; true when there was something to change.
    fn change(&mut self, kind: u32, body: &[u8]) -> Result<bool, ErrorCode> {
        match kind {
            field::AUTH_ENABLE => {
                let root = self.users.get(ROOT).filter(|_| !self.enabled);
                if !self.enabled && !root.ok_or(ErrorCode::RootUserNotExist)?.roles.contains(ROOT) {
                    return Err(ErrorCode::RootRoleNotExist);
                }
                // No new revision for that.
                return Ok(!std::mem::replace(&mut self.enabled, true));
            }
            field::AUTH_DISABLE => {
                if !std::mem::replace(&mut self.enabled, false) {
                    return Ok(false);
                }
            }
            field::USER_ADD | field::USER_DELETE | field::USER_CHANGE_PASSWORD => {
                self.change_user(kind, body)?;
            }
            field::USER_GRANT_ROLE => {
                let request: pb::AuthUserGrantRoleRequest = decode(body);
                let user = self.users.get_mut(&request.user).ok_or(ErrorCode::UserNotFound)?;
                if request.role != ROOT && !self.roles.contains_key(&request.role) {
                    return Err(ErrorCode::RoleNotFound);
                }
                if !user.roles.insert(request.role) {
                    return Ok(false);
                }
            }
            field::USER_REVOKE_ROLE => {
                let request: pb::AuthUserRevokeRoleRequest = decode(body);
                if self.enabled && request.name == ROOT && request.role == ROOT {
                    return Err(ErrorCode::InvalidAuthMgmt);
                }
                let user = self.users.get_mut(&request.name).ok_or(ErrorCode::UserNotFound)?;
                if !user.roles.remove(&request.role) {
                    return Err(ErrorCode::RoleNotGranted);
                }
            }
            _ => self.change_role(kind, body)?,
        }
        self.revision += 1;
        Ok(true)
    }

    fn change_user(&mut self, kind: u32, body: &[u8]) -> Result<(), ErrorCode> {
        match kind {
            field::USER_ADD => {
                let request: pb::AuthUserAddRequest = decode(body);
                if request.name.is_empty() {
                    return Err(ErrorCode::UserEmpty);
                }
                if self.users.contains_key(&request.name) {
                    return Err(ErrorCode::UserAlreadyExist);
                }
                let no_password = request.options.is_some_and(|options| options.no_password);
                let password = if no_password { Bytes::new() } else { hash_of(&request.hashed_password) };
                let user = User { password, no_password, roles: BTreeSet::new() };
                self.users.insert(request.name, user);
            }
            field::USER_DELETE => {
                let request: pb::AuthUserDeleteRequest = decode(body);
                if self.enabled && request.name == ROOT {
                    return Err(ErrorCode::InvalidAuthMgmt);
                }
                self.users.remove(&request.name).ok_or(ErrorCode::UserNotFound)?;
            }
            _ => {
                let request: pb::AuthUserChangePasswordRequest = decode(body);
                let user = self.users.get_mut(&request.name).ok_or(ErrorCode::UserNotFound)?;
                user.password =
                    if user.no_password { Bytes::new() } else { hash_of(&request.hashed_password) };
            }
        }
        Ok(())
    }

    fn change_role(&mut self, kind: u32, body: &[u8]) -> Result<(), ErrorCode> {
        match kind {
            field::ROLE_ADD => {
                let request: pb::AuthRoleAddRequest = decode(body);
                if request.name.is_empty() {
                    return Err(ErrorCode::RoleEmpty);
                }
                if self.roles.contains_key(&request.name) {
                    return Err(ErrorCode::RoleAlreadyExist);
                }
                self.roles.insert(request.name, Vec::new());
            }
            field::ROLE_DELETE => {
                let request: pb::AuthRoleDeleteRequest = decode(body);
                if self.enabled && request.role == ROOT {
                    return Err(ErrorCode::InvalidAuthMgmt);
                }
                self.roles.remove(&request.role).ok_or(ErrorCode::RoleNotFound)?;
                self.users.values_mut().for_each(|user| _ = user.roles.remove(&request.role));
            }
            field::ROLE_GRANT_PERMISSION => {
                let request: pb::AuthRoleGrantPermissionRequest = decode(body);
                let new = request.perm.ok_or(ErrorCode::PermissionNotGiven)?;
                let is_valid =
                    new.range_end.is_empty() || new.range_end[..] == [0] || new.range_end > new.key;
                if new.key.is_empty() || !is_valid {
                    return Err(ErrorCode::InvalidAuthMgmt);
                }
                let held = self.roles.get_mut(&request.name).ok_or(ErrorCode::RoleNotFound)?;
                // Of several with that key, the first one is looked at.
                let first = held.iter_mut().find(|held| held.key == new.key);
                match first.filter(|first| first.range_end == new.range_end) {
                    Some(first) => first.perm_type = new.perm_type,
                    None => {
                        held.push(new);
                        held.sort_by(|a, b| a.key.cmp(&b.key));
                    }
                }
            }
            field::ROLE_REVOKE_PERMISSION => {
                let request: pb::AuthRoleRevokePermissionRequest = decode(body);
                let held = self.roles.get_mut(&request.role).ok_or(ErrorCode::RoleNotFound)?;
                let before = held.len();
                held.retain(|held| held.key != request.key || held.range_end != request.range_end);
                if held.len() == before {
                    return Err(ErrorCode::PermissionNotGranted);
                }
            }
            other => panic!("nobody here proposes requests of kind {other}"),
        }
        Ok(())
    }
}

/// Members hash before they propose: clients of the simulator have hashes whose text is base64 of one digit each.
fn hash_of(hashed: &str) -> Bytes {
    assert!(hashed.bytes().all(|byte| byte == b'A'), "hashes are zeros");
    Bytes::from(vec![0; hashed.len() / 4 * 3])
}
