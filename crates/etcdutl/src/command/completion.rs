//! `completion`.

use crate::cli::{Command, Exit, completion_script, out};

pub(super) static COMMAND: Command = Command {
    name: "completion",
    usage: "[bash|zsh|fish|powershell]",
    short: "Prints a script for completion in a shell",
    choices: &["bash", "zsh", "fish", "powershell"],
    run: Some(|invocation| {
        let shell = invocation.argument(0).unwrap_or_default();
        match completion_script(invocation.tool, &shell) {
            Some(script) => out(script),
            None => Err(Exit::error(format!("no script for {shell}"))),
        }
    }),
    ..Command::EMPTY
};
