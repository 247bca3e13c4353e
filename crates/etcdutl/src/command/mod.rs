//! The commands.

mod completion;
mod defrag;
mod hashkv;
mod migrate;
mod snapshot;
mod version;

pub use snapshot::{RESTORE, STATUS};

use crate::cli::{Command, Flag, Kind, Tool};

/// The tool.
pub static TOOL: Tool =
    Tool { root: &ROOT, shows_globals: true, describes: false, footer: "", repeats_errors: true };

static ROOT: Command = Command {
    name: "etcdutl",
    short: "Works on files of a member that does not run.",
    persistent: &[
        Flag::new(
            Kind::Duration,
            "timeout",
            "10s",
            "how long to wait for the lock on the database file, 0 for as long as it takes",
        ),
        Flag::text("write-out", "simple", "output format (fields, json, protobuf, simple, table)").letter('w'),
    ],
    children: &[
        &completion::COMMAND,
        &defrag::COMMAND,
        &hashkv::COMMAND,
        &HELP,
        &migrate::COMMAND,
        &snapshot::COMMAND,
        &version::COMMAND,
    ],
    ..Command::EMPTY
};

static HELP: Command = Command { name: "help", short: "Shows the help of a command", ..Command::EMPTY };
