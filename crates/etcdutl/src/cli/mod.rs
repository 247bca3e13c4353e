//! A command line as a table: commands, their flags, and a reader that behaves as the library under Go's tools does.
//!
//! Go's tools are scripted everywhere, down to the texts of their errors, so the rules here are theirs: flags before
//! and after arguments, `--` ends them, unambiguous prefixes of commands count, help goes to standard output with
//! exit code 0, a wrong flag shows the usage on standard error with exit code 1.
//!
//! Reading order: this file (the table), `flag.rs` (kinds of values), `parse.rs`, `help.rs`.

mod completion;
mod flag;
mod help;
mod parse;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

pub use completion::print_completion;
pub use flag::{Flag, Kind, parse_duration, parse_int, parse_uint};
pub use help::{command_help, flag_lines, usage};
pub use parse::{Invocation, Misuse, Parsed, parse_flags};

/// One command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What follows the name in its usage line.
    pub usage: &'static str,
    /// One line.
    pub short: &'static str,
    /// More lines, in place of the short one where it is shown alone.
    pub long: &'static str,
    /// How it is used.
    pub examples: &'static str,
    /// Heading under which the root lists it.
    pub group: &'static str,
    /// Flags of this command.
    pub flags: &'static [Flag],
    /// Flags of this command and all below it.
    pub persistent: &'static [Flag],
    /// Flags that must be given.
    pub required: &'static [&'static str],
    /// How many arguments there must be, where the number is checked before anything else.
    pub arguments: Option<usize>,
    /// The one argument must be one of these, where there are any.
    pub choices: &'static [&'static str],
    /// Commands below it.
    pub children: &'static [&'static Command],
    /// What it does; a command without it shows its help.
    pub run: Option<fn(&Invocation) -> Outcome>,
}

impl Command {
    /// A command to fill in.
    pub const EMPTY: Command = Command {
        name: "",
        usage: "",
        short: "",
        long: "",
        examples: "",
        group: "",
        flags: &[],
        persistent: &[],
        required: &[],
        arguments: None,
        choices: &[],
        children: &[],
        run: None,
    };
}

/// A whole tool.
pub struct Tool {
    /// The command that everything is below of.
    pub root: &'static Command,
    /// Show the root's flags in the help of every command.
    pub shows_globals: bool,
    /// Show the description of a command above its usage.
    pub describes: bool,
    /// Last line of every help.
    pub footer: &'static str,
    /// Print a misuse a second time after the usage, as Go's etcdutl does.
    pub repeats_errors: bool,
}

/// How a command ended early.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// What is printed after `Error: `; nothing without it.
    pub message: Option<String>,
}

/// How a command ended.
pub type Outcome = Result<(), Exit>;

/// Any failure without a code of its own.
pub const ERROR: i32 = 1;
/// No connection, or no login.
pub const BAD_CONNECTION: i32 = 2;
/// Standard input made no sense.
pub const INVALID_INPUT: i32 = 3;
/// Something that cannot be asked for.
pub const BAD_FEATURE: i32 = 4;
/// Ended by the other side.
pub const INTERRUPTED: i32 = 5;
/// Wrong arguments.
pub const BAD_ARGUMENTS: i32 = 128;
/// What a shell shows for a process that wrote to a pipe nobody reads.
const BROKEN_PIPE: i32 = 141;

#[allow(clippy::needless_pass_by_value, reason = "errors and texts are given away; by reference each call would borrow")]
impl Exit {
    /// An end with a message.
    pub fn new(code: i32, message: impl ToString) -> Exit {
        Exit { code, message: Some(message.to_string()) }
    }

    /// Wrong arguments.
    pub fn arguments(message: impl ToString) -> Exit {
        Exit::new(BAD_ARGUMENTS, message)
    }

    /// Any failure.
    pub fn error(message: impl ToString) -> Exit {
        Exit::new(ERROR, message)
    }

    /// An end without a word: everything has been said.
    #[must_use]
    pub fn silent(code: i32) -> Exit {
        Exit { code, message: None }
    }
}

/// Writes to standard output at once.
///
/// # Errors
/// Nobody reads it any more.
pub fn out(bytes: impl AsRef<[u8]>) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes.as_ref()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Exit::silent(BROKEN_PIPE),
        _ => Exit::error(format!("write standard output: {error}")),
    })
}

/// Writes to standard error. There is nowhere left to report a failure to.
pub fn err(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let written = stderr.write_all(text.as_bytes());
    drop(written);
}

/// Reads the process's command line, runs the command and gives the exit code.
pub fn main(tool: &'static Tool) -> i32 {
    let arguments = std::env::args_os().skip(1).map(OsString::into_vec).collect();
    let outcome = match parse::read(tool, arguments) {
        Ok(parse::Read::Help(text)) => out(text),
        Ok(parse::Read::HelpUnknown(text)) => {
            err(&text);
            Ok(())
        }
        Ok(parse::Read::Run(invocation, run)) => run(&invocation),
        Err(misuse) => {
            err(&misuse.shown);
            let message = tool.repeats_errors.then_some(misuse.message);
            Err(Exit { code: ERROR, message })
        }
    };
    match outcome {
        Ok(()) => 0,
        Err(exit) => {
            if let Some(message) = exit.message {
                err(&format!("Error: {message}\n"));
            }
            exit.code
        }
    }
}
