//! The auth service at apply: rights first, then the change, then what it means for tokens.

use api::etcdserverpb as pb;

use super::policy::{Right, field, policy_of};
use super::reply::Reply;
use super::{Applier, Context, Failure, Turn, decode};
use crate::auth::TokenChange;
use crate::side::SideChange;

impl Applier {
    /// Requests 1000 to 1299.
    pub(super) fn auth_request(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let policy = policy_of(at.envelope.field).ok_or_else(|| at.unknown())?;
        if policy.right == Right::Root {
            self.auth.state().check_admin(at.caller())?;
        }
        let mut side = Vec::new();
        let reply = match at.envelope.field {
            field::AUTH_ENABLE | field::AUTH_DISABLE | field::AUTH_STATUS | field::AUTHENTICATE => {
                self.auth_switch(at, &mut side, out)
            }
            field::USER_GET | field::USER_LIST | field::ROLE_GET | field::ROLE_LIST => self.auth_question(at),
            _ => self.auth_change(at, &mut side, out),
        };
        if !side.is_empty() {
            out.auth_changed = true;
        }
        self.write_side(side);
        reply
    }

    fn auth_switch(
        &mut self,
        at: Context<'_>,
        side: &mut Vec<SideChange>,
        out: &mut Turn<'_>,
    ) -> Result<Reply, Failure> {
        let revision = self.store.revision();
        match at.envelope.field {
            field::AUTH_ENABLE => {
                if self.auth.enable(side)? {
                    out.tokens.push(TokenChange::Enabled);
                }
            }
            field::AUTH_DISABLE => {
                if self.auth.disable(side) {
                    out.tokens.push(TokenChange::Disabled);
                }
            }
            field::AUTHENTICATE => return self.authenticate(at, out),
            _ => {
                let state = self.auth.state();
                let (enabled, auth_revision) = (state.enabled(), state.revision());
                return Ok(Reply::AuthStatus { revision, enabled, auth_revision });
            }
        }
        Ok(Reply::AuthDone { revision })
    }

    /// The entry carries the first half of a simple token, so that all members know it; its index is the second.
    fn authenticate(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<Reply, Failure> {
        let request: pb::InternalAuthenticateRequest = decode(at)?;
        self.auth.authenticate(&request.name)?;
        let token = if request.simple_token.is_empty() {
            String::new()
        } else {
            format!("{}.{}", request.simple_token, at.index)
        };
        if !token.is_empty() {
            out.tokens.push(TokenChange::Assigned { token: token.clone(), user: request.name.clone() });
        }
        Ok(Reply::Authenticate {
            revision: self.store.revision(),
            user: request.name,
            auth_revision: self.auth.state().revision(),
            token,
        })
    }

    fn auth_question(&self, at: Context<'_>) -> Result<Reply, Failure> {
        let revision = self.store.revision();
        let state = self.auth.state();
        let names = match at.envelope.field {
            field::USER_LIST => state.user_names(),
            field::ROLE_LIST => state.role_names(),
            field::USER_GET => {
                let request: pb::AuthUserGetRequest = decode(at)?;
                state.check_user_get(at.caller(), &request.name)?;
                state.roles_of(&request.name)?
            }
            _ => {
                let request: pb::AuthRoleGetRequest = decode(at)?;
                state.check_role_get(at.caller(), &request.role)?;
                return Ok(Reply::AuthRoleGet {
                    revision,
                    permissions: state.permissions_of(&request.role)?,
                });
            }
        };
        Ok(Reply::AuthNames { revision, names })
    }

    fn auth_change(
        &mut self,
        at: Context<'_>,
        side: &mut Vec<SideChange>,
        out: &mut Turn<'_>,
    ) -> Result<Reply, Failure> {
        let auth = &mut self.auth;
        match at.envelope.field {
            field::USER_ADD => auth.user_add(&decode(at)?, at.index, side)?,
            field::USER_DELETE => {
                let request: pb::AuthUserDeleteRequest = decode(at)?;
                auth.user_delete(&request.name, side)?;
                out.tokens.push(TokenChange::UserInvalidated(request.name));
            }
            field::USER_CHANGE_PASSWORD => {
                let request: pb::AuthUserChangePasswordRequest = decode(at)?;
                auth.user_change_password(&request, at.index, side)?;
                out.tokens.push(TokenChange::UserInvalidated(request.name));
            }
            field::USER_GRANT_ROLE => auth.user_grant_role(&decode(at)?, side)?,
            field::USER_REVOKE_ROLE => {
                let request: pb::AuthUserRevokeRoleRequest = decode(at)?;
                auth.user_revoke_role(&request.name, &request.role, side)?;
            }
            field::ROLE_ADD => {
                let request: pb::AuthRoleAddRequest = decode(at)?;
                auth.role_add(&request.name, side)?;
            }
            field::ROLE_DELETE => {
                let request: pb::AuthRoleDeleteRequest = decode(at)?;
                auth.role_delete(&request.role, side)?;
            }
            field::ROLE_GRANT_PERMISSION => auth.role_grant_permission(&decode(at)?, side)?,
            field::ROLE_REVOKE_PERMISSION => auth.role_revoke_permission(&decode(at)?, side)?,
            _ => return Err(at.unknown()),
        }
        Ok(Reply::AuthDone { revision: self.store.revision() })
    }
}
