//! How a checker says no: a panic with a payload, so that it ends a run from any depth, as an assertion of the
//! product does.

use std::fmt;

/// Who found something. Each has its name and its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// 1: members apply the same entries.
    Agreement,
    /// 2: equal hashes at equal revisions, and the state that a model has.
    Hash,
    /// 3: answers are those of a pure model, in an order that real time permits.
    Linearizability,
    /// 4: watchers see everything, once, in order.
    Watch,
    /// 5: what was promised before a crash is there after it.
    Durability,
    /// 6: leases end in time and not before.
    Lease,
    /// 7: no request passes without the right.
    Auth,
    /// 8: every crash image is valid, and recovery gives the replayed state.
    Recovery,
    /// 9: bucket, `.snap` JSON and raft agree on the members.
    Membership,
    /// The healed cluster makes progress.
    Liveness,
    /// An assertion or unplanned end inside the product.
    Product,
    /// A run that did too little to count.
    Floor,
}

impl Checker {
    /// All of them.
    pub const ALL: [Checker; 12] = [
        Checker::Agreement,
        Checker::Hash,
        Checker::Linearizability,
        Checker::Watch,
        Checker::Durability,
        Checker::Lease,
        Checker::Auth,
        Checker::Recovery,
        Checker::Membership,
        Checker::Liveness,
        Checker::Product,
        Checker::Floor,
    ];

    /// What the process ends with when this one failed.
    pub fn exit_code(self) -> u8 {
        11 + self as u8
    }
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Checker::Agreement => "agreement",
            Checker::Hash => "hash",
            Checker::Linearizability => "linearizability",
            Checker::Watch => "watch",
            Checker::Durability => "durability",
            Checker::Lease => "lease",
            Checker::Auth => "auth",
            Checker::Recovery => "recovery",
            Checker::Membership => "membership",
            Checker::Liveness => "liveness",
            Checker::Product => "product",
            Checker::Floor => "floor",
        })
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Failure {
    /// By whom.
    pub checker: Checker,
    /// What is wrong.
    pub text: String,
}

/// Ends the run.
pub(crate) fn fail(checker: Checker, text: String) -> ! {
    std::panic::panic_any(Failure { checker, text })
}

/// Ends the run unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $checker:ident, $($text:tt)*) => {
        if !$holds {
            $crate::failure::fail($crate::failure::Checker::$checker, format!($($text)*));
        }
    };
}
pub(crate) use ensure;
