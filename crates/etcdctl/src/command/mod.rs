//! The tree of commands; one file per command or family.

mod alarm;
mod auth;
mod check;
mod compaction;
mod completion;
mod defrag;
mod del;
mod downgrade;
mod elect;
mod endpoint;
mod get;
mod lease;
mod lock;
mod make_mirror;
mod member;
mod move_leader;
mod options;
mod put;
mod role;
mod snapshot;
mod txn;
mod user;
mod version;
mod watch;
mod words;

use etcdutl::cli::{Command, Tool};

/// The tool.
pub(crate) static TOOL: Tool = Tool {
    root: &ROOT,
    shows_globals: false,
    describes: true,
    footer: "Use \"etcdctl options\" for the flags that all commands take.\n",
    repeats_errors: false,
};

const KEYS: &str = "Key-value commands";
const MAINTENANCE: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const AUTHENTICATION: &str = "Authentication commands";
const UTILITY: &str = "Utility commands";

static ROOT: Command = Command {
    name: "etcdctl",
    short: "Reads, writes and looks after an etcd cluster.",
    persistent: crate::global::FLAGS,
    children: &[
        &compaction::COMMAND,
        &del::COMMAND,
        &get::COMMAND,
        &lease::COMMAND,
        &put::COMMAND,
        &txn::COMMAND,
        &watch::COMMAND,
        &alarm::COMMAND,
        &defrag::COMMAND,
        &downgrade::COMMAND,
        &endpoint::COMMAND,
        &member::COMMAND,
        &move_leader::COMMAND,
        &snapshot::COMMAND,
        &elect::COMMAND,
        &lock::COMMAND,
        &auth::COMMAND,
        &role::COMMAND,
        &user::COMMAND,
        &check::COMMAND,
        &completion::COMMAND,
        &HELP,
        &make_mirror::COMMAND,
        &options::COMMAND,
        &version::COMMAND,
    ],
    ..Command::EMPTY
};

static HELP: Command =
    Command { name: "help", short: "Shows the help of a command", group: UTILITY, ..Command::EMPTY };

#[cfg(test)]
mod tests;
