//! The command line for clusters.
//!
//! Must not know: files of a member; what has to do with them is asked of `etcdutl`.
//!
//! Reading order: `command/mod.rs` (the tree of commands), `global.rs` (flags of all commands, and how a client comes
//! of them), `print/` (formats), then `command/`, one file per command.

// A tool for people: it waits and measures.
#![allow(clippy::disallowed_methods, reason = "deadlines, and took = ... is printed")]

mod command;
mod global;
mod log;
mod password;
mod print;

fn main() {
    std::process::exit(etcdutl::cli::main(&command::TOOL));
}
