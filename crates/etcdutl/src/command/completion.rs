//! `completion`.

use crate::cli::{Command, print_completion};

pub(super) static COMMAND: Command = Command {
    name: "completion",
    usage: "[bash|zsh|fish|powershell]",
    short: "Prints a script for completion in a shell",
    choices: &["bash", "zsh", "fish", "powershell"],
    run: Some(print_completion),
    ..Command::EMPTY
};
