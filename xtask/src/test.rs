//! `cargo xtask test`: everything is built once, then all tests run, quick ones first.

use crate::peers;
use crate::shell::{Cmd, Result};

pub(crate) fn run() -> Result<()> {
    // One selection of packages for all steps: another one would choose other features of shared dependencies and
    // compile them again. Tests that start processes find our programs where this puts them.
    Cmd::cargo(["build", "--workspace", "--all-targets"]).run()?;
    peers::for_tests()?;
    Cmd::cargo(["test", "--workspace", "--doc"]).run()?;
    Cmd::cargo(["test", "--workspace", "--lib", "--bins"]).run()?;
    // Tables, files and processes; `tests/parity` and `tests/e2e` among them.
    Cmd::cargo(["test", "--workspace", "--test", "*"]).run()
}
