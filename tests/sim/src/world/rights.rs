//! Who asks, what the edge says to it, and changes of users, roles and rights: checker 7, as far as it is not the
//! model's verdict on every entry.
//!
//! Some requests come from nobody, from users without the right, from users that are gone, or with an identity that is
//! some changes old, as with tokens that carry their revision.

use std::sync::Arc;

use api::authpb::{Permission, UserAddOptions};
use api::error::ErrorCode;
use api::etcdserverpb as pb;
use bytes::Bytes;
use etcdserver::apply::policy::field;
use etcdserver::auth::{self, Caller};
use etcdserver::effect::Identity;
use prost::Message;

use super::World;
use super::requests::Request;
use crate::failure::ensure;
use crate::model::{Access, ROOT};
use crate::random::Random;

/// Users and roles that there may be; one user never is.
const NAMES: [&str; 4] = [ROOT, "a", "b", "c"];
const GHOST: &str = "ghost";

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    name: &'static str,
    /// Changes since which it was identified.
    age: u64,
}

impl Who {
    pub(super) fn root() -> Who {
        Who { name: ROOT, age: 0 }
    }
}

/// Who asked, as apply and reads take it.
pub(super) fn caller(identity: Option<&Arc<Identity>>) -> Caller<'_> {
    identity.map_or_else(Caller::default, |identity| Caller {
        name: &identity.username,
        revision: identity.auth_revision,
    })
}

/// Whether a refusal is about rights.
pub(super) fn is_about_rights(message: &str) -> bool {
    [ErrorCode::UserEmpty, ErrorCode::PermissionDenied, ErrorCode::AuthOldRevision]
        .iter()
        .any(|code| code.message() == message)
}

fn body(field: u32, message: &impl Message) -> Request {
    Request::Write { field, body: message.encode_to_vec().into() }
}

/// Draws of their own: what the rest of a run draws does not depend on them.
#[derive(Debug)]
pub(super) struct Rights {
    random: Random,
}

impl Rights {
    pub(super) fn new(seed: u64) -> Rights {
        Rights { random: Random::new(seed, 7) }
    }

    /// Who sends the next request; `None` for nobody.
    fn who(&mut self) -> Option<Who> {
        let r = &mut self.random;
        let name = match r.below(100) {
            0..=49 => ROOT,
            50..=91 => r.pick(&NAMES[1..]),
            92..=95 => GHOST,
            _ => return None,
        };
        let age = if r.per_mille(50) { r.between(1, 3) } else { 0 };
        Some(Who { name, age })
    }
}

impl World {
    /// Who sends the next request.
    pub(super) fn who(&mut self) -> Option<Who> {
        if self.settings.auth_per_mille == 0 { None } else { self.rights.who() }
    }

    /// What a member makes of who asks: nothing while auth is off there.
    pub(super) fn identified(&self, member: usize, who: Option<&Who>) -> Option<Arc<Identity>> {
        let auth = &self.members[member].run.as_ref()?.published.auth;
        let who = who.filter(|_| auth.enabled())?;
        let auth_revision = auth.revision().saturating_sub(who.age).max(1);
        Some(Arc::new(Identity { username: who.name.to_owned(), auth_revision }))
    }

    /// What the edge asks of some requests before they go on, from what is published there; the model's verdict for
    /// that index must be the same.
    pub(super) fn edge(
        &self,
        member: usize,
        request: &Request,
        identity: Option<&Arc<Identity>>,
    ) -> Result<(), ErrorCode> {
        let Some(run) = &self.members[member].run else { return Ok(()) };
        let (published, model) = (&run.published, self.model.auth_at(run.published.applied));
        let caller = caller(identity);
        let nobody = model.enabled && caller.name.is_empty();
        let lease = |lease: i64, theirs: auth::Access, own: Access| {
            let keys = self.keys_of(lease, published.applied);
            let found = published.auth.check_lease(caller, theirs, lease, &published.leases);
            (found, model.check_lease(caller, own, &keys))
        };
        let (found, expected) = match request {
            Request::Write { field: field::COMPACTION | field::ALARM, .. } => {
                (published.auth.check_admin(caller), model.check_admin(caller))
            }
            Request::Write { field: field::LEASE_GRANT, .. } => {
                let expected = if nobody { Err(ErrorCode::UserEmpty) } else { Ok(()) };
                (published.auth.check_identified(caller), expected)
            }
            Request::Renew(id) => lease(*id, auth::Access::Write, Access::Write),
            Request::Times(id) => lease(*id, auth::Access::Read, Access::Read),
            _ => return Ok(()),
        };
        ensure!(
            found == expected,
            Auth,
            "member {member} at {} says {found:?} to {request:?} of {caller:?}, should be {expected:?}",
            published.applied
        );
        found
    }

    /// Keys that hung on a lease after the entry at `index`.
    fn keys_of(&self, lease: i64, index: u64) -> Vec<Bytes> {
        if !self.model.auth_at(index).enabled {
            return Vec::new();
        }
        let all = self.model.keys.range(b"", &[0], self.model.point(index).revision);
        all.into_iter().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    /// Now and then somebody, mostly the root user, changes users, roles, rights or the switch.
    pub(super) fn auth_client(&mut self, member: usize) {
        if !self.rights.random.per_mille(self.settings.auth_per_mille) {
            return;
        }
        let request = self.make_auth();
        let who = if self.rights.random.per_mille(850) { Some(Who::root()) } else { self.rights.who() };
        self.request_of(member, request, who);
    }

    fn make_auth(&mut self) -> Request {
        let auth = self.model.auth();
        let (is_on, root) = (auth.enabled, auth.users.get(ROOT).map(|user| user.roles.contains(ROOT)));
        let r = &mut self.rights.random;
        let setup = r.below(10);
        match root {
            None if setup < 5 => self.user_add(ROOT),
            Some(false) if setup < 5 => {
                let (user, role) = (ROOT.to_owned(), ROOT.to_owned());
                body(field::USER_GRANT_ROLE, &pb::AuthUserGrantRoleRequest { user, role })
            }
            Some(true) if setup < 2 && !is_on => body(field::AUTH_ENABLE, &pb::AuthEnableRequest {}),
            _ if r.per_mille(20) => body(field::AUTH_ENABLE, &pb::AuthEnableRequest {}),
            _ if r.per_mille(20) => body(field::AUTH_DISABLE, &pb::AuthDisableRequest {}),
            _ if r.per_mille(450) => self.change_user(),
            _ if r.per_mille(800) => self.change_role(),
            _ => self.auth_question(),
        }
    }

    fn user_add(&mut self, name: &str) -> Request {
        let r = &mut self.rights.random;
        let options = r.per_mille(800).then(|| UserAddOptions { no_password: r.per_mille(200) });
        let hashed_password = "AAAA".repeat(r.below(20) as usize);
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: String::new(),
            options,
            hashed_password,
        };
        body(field::USER_ADD, &request)
    }

    fn change_user(&mut self) -> Request {
        let r = &mut self.rights.random;
        let (name, role) = (r.pick(&NAMES).to_owned(), r.pick(&NAMES).to_owned());
        match r.below(20) {
            0..=4 => self.user_add(&name),
            5 => body(field::USER_DELETE, &pb::AuthUserDeleteRequest { name }),
            6 | 7 => {
                let hashed_password = "AAAA".repeat(r.below(20) as usize);
                let request =
                    pb::AuthUserChangePasswordRequest { name, password: String::new(), hashed_password };
                body(field::USER_CHANGE_PASSWORD, &request)
            }
            8..=15 => {
                // The root role for everybody would leave nothing to refuse.
                let role = if r.per_mille(900) { r.pick(&NAMES[1..]).to_owned() } else { role };
                body(field::USER_GRANT_ROLE, &pb::AuthUserGrantRoleRequest { user: name, role })
            }
            _ => body(field::USER_REVOKE_ROLE, &pb::AuthUserRevokeRoleRequest { name, role }),
        }
    }

    fn change_role(&mut self) -> Request {
        let r = &mut self.rights.random;
        let name = r.pick(&NAMES).to_owned();
        match r.below(20) {
            0..=3 => body(field::ROLE_ADD, &pb::AuthRoleAddRequest { name }),
            4 => body(field::ROLE_DELETE, &pb::AuthRoleDeleteRequest { role: name }),
            5..=13 => {
                let perm = self.permission();
                let perm = (!self.rights.random.per_mille(20)).then_some(perm);
                body(field::ROLE_GRANT_PERMISSION, &pb::AuthRoleGrantPermissionRequest { name, perm })
            }
            _ => {
                let held = self.model.auth().roles.get(&name).and_then(|held| {
                    let at = self.rights.random.below(held.len() as u64) as usize;
                    held.get(at).cloned()
                });
                let Permission { key, range_end, .. } = held.unwrap_or_else(|| self.permission());
                let request = pb::AuthRoleRevokePermissionRequest { role: name, key, range_end };
                body(field::ROLE_REVOKE_PERMISSION, &request)
            }
        }
    }

    /// A right on one key, some keys, half of them or all; now and then a kind or an interval that means nothing.
    fn permission(&mut self) -> Permission {
        let keys = self.settings.keys;
        let r = &mut self.rights.random;
        let named = |at: u64| Bytes::from(format!("k{at:03}"));
        let first = r.below(keys);
        let open = Bytes::from_static(&[0]);
        let (key, range_end) = match r.below(12) {
            0..=3 => (named(first), Bytes::new()),
            4..=6 => (named(first), named(first + r.between(1, 4))),
            7 => (named(0), named(keys / 2)),
            8 => (named(keys / 2), open),
            9 => (named(first), open),
            10 => (open.clone(), open),
            _ => (named(first), named(first / 2)),
        };
        Permission { perm_type: r.pick(&[0, 0, 1, 1, 2, 2, 2, 7]), key, range_end }
    }

    fn auth_question(&mut self) -> Request {
        let r = &mut self.rights.random;
        let name = r.pick(&NAMES).to_owned();
        match r.below(6) {
            0 => body(field::USER_GET, &pb::AuthUserGetRequest { name }),
            1 => body(field::USER_LIST, &pb::AuthUserListRequest {}),
            2 => body(field::ROLE_GET, &pb::AuthRoleGetRequest { role: name }),
            3 => body(field::ROLE_LIST, &pb::AuthRoleListRequest {}),
            4 => body(field::AUTH_STATUS, &pb::AuthStatusRequest {}),
            _ => {
                let (password, simple_token) = (String::new(), "token".to_owned());
                let request = pb::InternalAuthenticateRequest { name, password, simple_token };
                body(field::AUTHENTICATE, &request)
            }
        }
    }
}
