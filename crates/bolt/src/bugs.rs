//! Bugs that tests plant, to see that the tests for crashes would find them. Outside tests there are none.

/// A rule of `commit.rs` or `db.rs` that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The meta is written before its pages are durable.
    SkipDataSync,
    /// Freed pages are reused although a crash may bring back a meta that reaches them.
    ReuseEarly,
    /// Freed pages are reused although a view reaches them.
    IgnorePins,
    /// Opening does not make durable what a killed process left in the page cache.
    SkipOpenSync,
    /// The file is cut although the meta before this one reaches further.
    CutEarly,
    /// A commit forgets to say which pages it no longer uses.
    LosePages,
}
