//! `version`.

use etcdutl::cli::{Command, out};

pub(super) static COMMAND: Command = Command {
    name: "version",
    short: "Prints the version of etcdctl",
    group: super::UTILITY,
    run: Some(|_| {
        let minor = api::version::SERVER.minor();
        out(format!("etcdctl version: {}\nAPI version: {minor}\n", api::version::TRACKED))
    }),
    ..Command::EMPTY
};
