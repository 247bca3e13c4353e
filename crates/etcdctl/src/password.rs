//! Passwords from a terminal, without showing them.

use std::io::{BufRead, IsTerminal};
use std::process::{Command, Stdio};

use etcdutl::cli::{Exit, out};

/// Asks on the terminal; from anything else a line is read.
pub(crate) fn ask(prompt: &str) -> Result<String, Exit> {
    out(prompt)?;
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        echo(false);
    }
    let line = read_line();
    if terminal {
        echo(true);
    }
    out("\n")?;
    line
}

/// The next line of standard input, without its end.
pub(crate) fn read_line() -> Result<String, Exit> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Exit::arguments)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// `stty` does what the standard library has no call for. Without it the password is shown, which is worse than
/// not being asked.
fn echo(on: bool) {
    let argument = if on { "echo" } else { "-echo" };
    let status = Command::new("stty").arg(argument).stdin(Stdio::inherit()).stderr(Stdio::null()).status();
    if status.is_err() && !on {
        etcdutl::cli::err("(the password will be visible: stty was not found)\n");
    }
}
