//! `options`.

use etcdutl::cli::{Command, flag_lines, out};

pub(super) static COMMAND: Command = Command {
    name: "options",
    short: "Shows the flags that all commands take",
    group: super::UTILITY,
    run: Some(|_| {
        out(format!(
            "These flags go with any command:\n\n{}",
            flag_lines(crate::global::FLAGS, "etcdctl")
        ))
    }),
    ..Command::EMPTY
};
