//! `completion`.

use etcdutl::cli::{Command, print_completion};

pub(super) static COMMAND: Command = Command {
    name: "completion",
    usage: "[bash|zsh|fish|powershell]",
    short: "Prints a script for completion in a shell",
    long: "Prints a script that completes commands and flags in a shell.

For this session:

  bash:        source <(etcdctl completion bash)
  zsh:         source <(etcdctl completion zsh)
  fish:        etcdctl completion fish | source
  PowerShell:  etcdctl completion powershell | Out-String | Invoke-Expression

For every session, write the script to where the shell looks for such:

  bash:        /etc/bash_completion.d/etcdctl
  zsh:         _etcdctl in a folder of $fpath
  fish:        ~/.config/fish/completions/etcdctl.fish
  PowerShell:  a file that the profile sources",
    group: super::UTILITY,
    choices: &["bash", "zsh", "fish", "powershell"],
    run: Some(print_completion),
    ..Command::EMPTY
};
