//! Users, roles, the switch and the auth revision: what the log makes of them, to the stored byte.
//!
//! Invariants:
//! - Every successful change of users and roles, and switching off, raises the revision by one; switching on, a
//!   role granted a second time, and whatever failed raise nothing.
//! - A user's roles are sorted as text, a role's permissions by key.
//! - `rights` holds the merged permissions of every user, from roles and permissions in their stored order.
//! - Failed requests return before the first change.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::authpb::{Permission, Role, User, UserAddOptions, permission};
use api::error::ErrorCode;
use api::etcdserverpb as pb;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use mvcc::schema::{AUTH_ENABLED, AUTH_REVISION, Bucket, read_u64, write_u64};
use prost::Message;
use sha1::{Digest, Sha1};

use super::perm::{ROOT, Rights, has_root_role, is_valid_range};
use crate::mutant::Mutant;
use crate::side::SideChange;

/// bcrypt's default, used when the configured cost is out of range.
const DEFAULT_BCRYPT_COST: u32 = 10;
/// What bcrypt takes.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// bcrypt uses no more of a password.
const PASSWORD_BYTES_MAX: usize = 72;

/// As Go reads base64: padded, any trailing bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The replicated auth state: a value that can be shared with readers.
#[derive(Clone, Debug, Default)]
pub struct AuthState {
    enabled: bool,
    revision: u64,
    users: BTreeMap<Bytes, User>,
    roles: BTreeMap<Bytes, Role>,
    rights: BTreeMap<Bytes, Arc<Rights>>,
}

impl AuthState {
    /// Whether auth is on.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The auth revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user by name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name.as_bytes())
    }

    /// A role by name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name.as_bytes())
    }

    /// Names of all users in byte order.
    pub fn user_names(&self) -> Vec<String> {
        self.users.keys().map(|name| text(name)).collect()
    }

    /// Names of all roles in byte order.
    pub fn role_names(&self) -> Vec<String> {
        self.roles.keys().map(|name| text(name)).collect()
    }

    /// What the role permits, as it is shown: the root role may do everything, whatever is stored with it.
    pub fn permissions_of(&self, role: &str) -> Result<Vec<Permission>, ErrorCode> {
        let role = self.role(role).ok_or(ErrorCode::RoleNotFound)?;
        if role.name == ROOT {
            return Ok(vec![Permission {
                perm_type: permission::Type::Readwrite.into(),
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            }]);
        }
        Ok(role.key_permission.clone())
    }

    /// The roles of a user.
    pub fn roles_of(&self, user: &str) -> Result<Vec<String>, ErrorCode> {
        Ok(self.user(user).ok_or(ErrorCode::UserNotFound)?.roles.clone())
    }

    pub(crate) fn rights_of(&self, user: &str) -> Option<&Rights> {
        self.rights.get(user.as_bytes()).map(|rights| &**rights)
    }

    /// Merges the permissions of one user anew.
    fn merge(&mut self, name: &Bytes) {
        let Some(user) = self.users.get(name) else {
            self.rights.remove(name);
            return;
        };
        let mut rights = Rights::default();
        for role in user.roles.iter().filter_map(|role| self.roles.get(role.as_bytes())) {
            for permission in &role.key_permission {
                rights.add(permission);
            }
        }
        self.rights.insert(name.clone(), Arc::new(rights));
    }

    /// Merges the permissions of everybody who has this role.
    fn merge_holders(&mut self, role: &str) {
        let holders: Vec<Bytes> = self
            .users
            .iter()
            .filter(|(_, user)| user.roles.iter().any(|held| held == role))
            .map(|(name, _)| name.clone())
            .collect();
        for name in holders {
            self.merge(&name);
        }
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A stored user or role that cannot be read: bucket and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where.
    pub bucket: Bucket,
    /// Which.
    pub key: Bytes,
}

/// The writing side, owned by the apply lane.
#[derive(Clone, Debug)]
pub struct AuthStore {
    state: Arc<AuthState>,
    bcrypt_cost: u32,
}

impl AuthStore {
    /// Reads the three buckets. A store without auth revision gets its first one, 1: the returned change.
    pub fn restore(
        pairs: impl IntoIterator<Item = (Bucket, Bytes, Bytes)>,
        bcrypt_cost: u32,
    ) -> Result<(AuthStore, Option<SideChange>), Malformed> {
        let mut state = AuthState::default();
        for (bucket, key, value) in pairs {
            let malformed = || Malformed { bucket, key: key.clone() };
            match bucket {
                Bucket::Auth if key == AUTH_ENABLED => state.enabled = value[..] == [1],
                Bucket::Auth if key == AUTH_REVISION => {
                    state.revision = read_u64(&value).ok_or_else(malformed)?;
                }
                Bucket::AuthUsers => {
                    let user = User::decode(value).map_err(|_| malformed())?;
                    state.users.insert(key.clone(), user);
                }
                Bucket::AuthRoles => {
                    let role = Role::decode(value).map_err(|_| malformed())?;
                    state.roles.insert(key.clone(), role);
                }
                _ => {}
            }
        }
        for name in state.users.keys().cloned().collect::<Vec<_>>() {
            state.merge(&name);
        }
        let first = (state.revision == 0).then(|| {
            state.revision = 1;
            SideChange::put(Bucket::Auth, AUTH_REVISION, write_u64(1))
        });
        let bcrypt_cost = if BCRYPT_COSTS.contains(&bcrypt_cost) { bcrypt_cost } else { DEFAULT_BCRYPT_COST };
        Ok((AuthStore { state: Arc::new(state), bcrypt_cost }, first))
    }

    /// The state, to share with readers.
    pub fn state(&self) -> &Arc<AuthState> {
        &self.state
    }

    fn raise(state: &mut AuthState, side: &mut Vec<SideChange>) {
        state.revision += 1;
        if Mutant::AuthRevisionLost.is_on() {
            return;
        }
        side.push(SideChange::put(Bucket::Auth, AUTH_REVISION, write_u64(state.revision)));
    }

    fn put_user(state: &mut AuthState, user: User, side: &mut Vec<SideChange>) {
        let name = user.name.clone();
        side.push(SideChange::put(Bucket::AuthUsers, name.clone(), user.encode_to_vec()));
        state.users.insert(name.clone(), user);
        state.merge(&name);
    }

    fn put_role(state: &mut AuthState, role: Role, side: &mut Vec<SideChange>) {
        let name = text(&role.name);
        side.push(SideChange::put(Bucket::AuthRoles, role.name.clone(), role.encode_to_vec()));
        state.roles.insert(role.name.clone(), role);
        if !Mutant::RightsKept.is_on() {
            state.merge_holders(&name);
        }
    }

    /// Switches auth on; already on is success. True when it went on.
    pub fn enable(&mut self, side: &mut Vec<SideChange>) -> Result<bool, ErrorCode> {
        if self.state.enabled {
            return Ok(false);
        }
        let root = self.state.user(ROOT).ok_or(ErrorCode::RootUserNotExist)?;
        if !has_root_role(&root.roles) {
            return Err(ErrorCode::RootRoleNotExist);
        }
        Arc::make_mut(&mut self.state).enabled = true;
        side.push(SideChange::put(Bucket::Auth, AUTH_ENABLED, &[1][..]));
        Ok(true)
    }

    /// Switches auth off; already off is success. True when it went off.
    pub fn disable(&mut self, side: &mut Vec<SideChange>) -> bool {
        if !self.state.enabled {
            return false;
        }
        let state = Arc::make_mut(&mut self.state);
        state.enabled = false;
        side.push(SideChange::put(Bucket::Auth, AUTH_ENABLED, &[0][..]));
        Self::raise(state, side);
        true
    }

    /// Whether this user may be given a token; the password was checked before the proposal.
    pub fn authenticate(&self, name: &str) -> Result<(), ErrorCode> {
        if !self.state.enabled {
            return Err(ErrorCode::AuthNotEnabled);
        }
        let user = self.state.user(name).ok_or(ErrorCode::AuthFailed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(ErrorCode::AuthFailed);
        }
        Ok(())
    }

    /// What is stored as password: the hash that the proposer made, or, in entries of 3.4, one made here.
    fn password(&self, plain: &str, hashed: &str, salt: [u8; 16]) -> Result<Bytes, ErrorCode> {
        if !plain.is_empty() && hashed.is_empty() {
            if plain.len() > PASSWORD_BYTES_MAX {
                return Err(ErrorCode::NoPasswordUser);
            }
            let parts = bcrypt::hash_with_salt(plain, self.bcrypt_cost, salt)
                .map_err(|_| ErrorCode::NoPasswordUser)?;
            return Ok(Bytes::from(parts.format_for_version(bcrypt::Version::TwoA)));
        }
        let stripped: Vec<u8> = hashed.bytes().filter(|byte| !b"\r\n".contains(byte)).collect();
        BASE64.decode(stripped).map(Bytes::from).map_err(|_| ErrorCode::NoPasswordUser)
    }

    /// Adds a user. `index` is that of the entry: it goes into the salt of passwords that arrive in the clear, so
    /// that all our members store the same hash.
    pub fn user_add(
        &mut self,
        request: &pb::AuthUserAddRequest,
        index: u64,
        side: &mut Vec<SideChange>,
    ) -> Result<(), ErrorCode> {
        if request.name.is_empty() {
            return Err(ErrorCode::UserEmpty);
        }
        if self.state.user(&request.name).is_some() {
            return Err(ErrorCode::UserAlreadyExist);
        }
        let options = request.options.unwrap_or(UserAddOptions { no_password: false });
        let password = if options.no_password {
            Bytes::new()
        } else {
            self.password(&request.password, &request.hashed_password, salt(&request.name, index))?
        };
        let user = User {
            name: Bytes::from(request.name.clone()),
            password,
            roles: Vec::new(),
            options: Some(options),
        };
        let state = Arc::make_mut(&mut self.state);
        Self::put_user(state, user, side);
        Self::raise(state, side);
        Ok(())
    }

    /// Deletes a user.
    pub fn user_delete(&mut self, name: &str, side: &mut Vec<SideChange>) -> Result<(), ErrorCode> {
        if self.state.enabled && name == ROOT {
            return Err(ErrorCode::InvalidAuthMgmt);
        }
        let key = self.state.user(name).ok_or(ErrorCode::UserNotFound)?.name.clone();
        let state = Arc::make_mut(&mut self.state);
        state.users.remove(&key);
        state.merge(&key);
        side.push(SideChange::delete(Bucket::AuthUsers, key));
        Self::raise(state, side);
        Ok(())
    }

    /// Changes a password.
    pub fn user_change_password(
        &mut self,
        request: &pb::AuthUserChangePasswordRequest,
        index: u64,
        side: &mut Vec<SideChange>,
    ) -> Result<(), ErrorCode> {
        let user = self.state.user(&request.name).ok_or(ErrorCode::UserNotFound)?;
        let password = if user.options.is_some_and(|options| options.no_password) {
            Bytes::new()
        } else {
            self.password(&request.password, &request.hashed_password, salt(&request.name, index))?
        };
        let user = User { password, ..user.clone() };
        let state = Arc::make_mut(&mut self.state);
        Self::put_user(state, user, side);
        Self::raise(state, side);
        Ok(())
    }

    /// Gives a role to a user; the role `root` need not exist.
    pub fn user_grant_role(
        &mut self,
        request: &pb::AuthUserGrantRoleRequest,
        side: &mut Vec<SideChange>,
    ) -> Result<(), ErrorCode> {
        let user = self.state.user(&request.user).ok_or(ErrorCode::UserNotFound)?;
        if request.role != ROOT && self.state.role(&request.role).is_none() {
            return Err(ErrorCode::RoleNotFound);
        }
        let at = user.roles.partition_point(|role| *role < request.role);
        if user.roles.get(at) == Some(&request.role) {
            return Ok(());
        }
        let mut user = user.clone();
        user.roles.push(request.role.clone());
        user.roles.sort();
        let state = Arc::make_mut(&mut self.state);
        Self::put_user(state, user, side);
        Self::raise(state, side);
        Ok(())
    }

    /// Takes a role from a user.
    pub fn user_revoke_role(
        &mut self,
        name: &str,
        role: &str,
        side: &mut Vec<SideChange>,
    ) -> Result<(), ErrorCode> {
        if self.state.enabled && name == ROOT && role == ROOT {
            return Err(ErrorCode::InvalidAuthMgmt);
        }
        let user = self.state.user(name).ok_or(ErrorCode::UserNotFound)?;
        let left = without(user, role).ok_or(ErrorCode::RoleNotGranted)?;
        let state = Arc::make_mut(&mut self.state);
        Self::put_user(state, left, side);
        Self::raise(state, side);
        Ok(())
    }

    /// Adds a role.
    pub fn role_add(&mut self, name: &str, side: &mut Vec<SideChange>) -> Result<(), ErrorCode> {
        if name.is_empty() {
            return Err(ErrorCode::RoleEmpty);
        }
        if self.state.role(name).is_some() {
            return Err(ErrorCode::RoleAlreadyExist);
        }
        let role = Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        let state = Arc::make_mut(&mut self.state);
        Self::put_role(state, role, side);
        Self::raise(state, side);
        Ok(())
    }

    /// Deletes a role, from all users too.
    pub fn role_delete(&mut self, name: &str, side: &mut Vec<SideChange>) -> Result<(), ErrorCode> {
        if self.state.enabled && name == ROOT {
            return Err(ErrorCode::InvalidAuthMgmt);
        }
        let key = self.state.role(name).ok_or(ErrorCode::RoleNotFound)?.name.clone();
        let state = Arc::make_mut(&mut self.state);
        state.roles.remove(&key);
        side.push(SideChange::delete(Bucket::AuthRoles, key));
        let holders: Vec<User> = state.users.values().filter_map(|user| without(user, name)).collect();
        for user in holders {
            Self::put_user(state, user, side);
        }
        Self::raise(state, side);
        Ok(())
    }

    /// Grants a permission. Only the *first* permission on that key is looked at for being the same interval, so
    /// a later one is added a second time: members must agree on that. Permissions on one key keep the order in
    /// which they were granted, as from Go with up to 12 of them and from 50 on; in between, Go's order follows
    /// from the release of its sort.
    pub fn role_grant_permission(
        &mut self,
        request: &pb::AuthRoleGrantPermissionRequest,
        side: &mut Vec<SideChange>,
    ) -> Result<(), ErrorCode> {
        let new = request.perm.as_ref().ok_or(ErrorCode::PermissionNotGiven)?;
        if !is_valid_range(&new.key, &new.range_end) {
            return Err(ErrorCode::InvalidAuthMgmt);
        }
        let mut role = self.state.role(&request.name).ok_or(ErrorCode::RoleNotFound)?.clone();
        let at = role.key_permission.partition_point(|held| held.key < new.key);
        match role.key_permission.get_mut(at) {
            Some(held) if held.key == new.key && held.range_end == new.range_end => {
                held.perm_type = new.perm_type;
            }
            _ => {
                role.key_permission.push(new.clone());
                role.key_permission.sort_by(|a, b| a.key.cmp(&b.key));
            }
        }
        let state = Arc::make_mut(&mut self.state);
        Self::put_role(state, role, side);
        Self::raise(state, side);
        Ok(())
    }

    /// Takes a permission back: all entries with exactly this interval.
    pub fn role_revoke_permission(
        &mut self,
        request: &pb::AuthRoleRevokePermissionRequest,
        side: &mut Vec<SideChange>,
    ) -> Result<(), ErrorCode> {
        let mut role = self.state.role(&request.role).ok_or(ErrorCode::RoleNotFound)?.clone();
        let before = role.key_permission.len();
        role.key_permission.retain(|held| held.key != request.key || held.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(ErrorCode::PermissionNotGranted);
        }
        let state = Arc::make_mut(&mut self.state);
        Self::put_role(state, role, side);
        Self::raise(state, side);
        Ok(())
    }
}

/// The user without the role; `None` when the user does not have it.
fn without(user: &User, role: &str) -> Option<User> {
    let roles: Vec<String> = user.roles.iter().filter(|held| *held != role).cloned().collect();
    (roles.len() < user.roles.len()).then(|| User { roles, ..user.clone() })
}

/// A salt that differs by user and by entry and is the same on every member.
fn salt(name: &str, index: u64) -> [u8; 16] {
    let digest = Sha1::new().chain_update(index.to_be_bytes()).chain_update(name).finalize();
    digest[..16].try_into().expect("a digest of 20 bytes")
}
