//! Users, roles and permissions: replicated state and the decisions drawn from it.
//!
//! Every decision is a pure function of (state, caller, request): it gives the same answer at the edge of any
//! member, in apply, and in a test. Tokens are not replicated state and do not live here.

pub(crate) mod intervals;
pub mod perm;
pub mod store;

pub use perm::{Access, Caller, Need};
pub use store::{AuthState, AuthStore};

/// What applied entries did to the tokens that members keep in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// A simple token was given out.
    Assigned {
        /// The token, with the index of its entry behind the dot.
        token: String,
        /// Its user.
        user: String,
    },
    /// All tokens of this user are void: password changed, or user deleted.
    UserInvalidated(String),
    /// Auth went on: tokens count from now.
    Enabled,
    /// Auth went off: all tokens are void.
    Disabled,
}
