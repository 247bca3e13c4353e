//! `version`.

use crate::cli::{Command, out};

pub(super) static COMMAND: Command = Command {
    name: "version",
    short: "Prints the version of etcdutl",
    run: Some(|_| {
        out(format!("etcdutl version: {}\nAPI version: {}\n", api::version::TRACKED, api::version::SERVER.minor()))
    }),
    ..Command::EMPTY
};
