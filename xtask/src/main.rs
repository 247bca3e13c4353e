//! The project's own chores, as `cargo xtask VERB`.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("codegen") => {
            let status = Command::new("cargo").args(["run", "--quiet", "--package", "codegen"]).status();
            if status.is_ok_and(|s| s.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => {
            eprintln!("usage: cargo xtask codegen");
            ExitCode::from(2)
        }
    }
}
