//! Running other programs: what is run is printed, and a failure says which.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A chore either works or says why not, in one line.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a chore failed.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds to an error of the system what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}

/// The root of this repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A program with its arguments, run from the root unless said otherwise.
pub(crate) struct Cmd {
    line: String,
    command: Command,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Cmd {
        let mut command = Command::new(&program);
        command.current_dir(root());
        Cmd { line: program.as_ref().to_string_lossy().into_owned(), command }
    }

    /// The cargo that runs this, so that `cargo +toolchain xtask` stays with its toolchain.
    pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Cmd {
        let mut cmd = Cmd::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cmd.line = "cargo".to_owned();
        // What `cargo run` says of this package is no news for other packages: a build script that looks at it
        // would compile its crate again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cmd.command.env_remove(&*name);
            }
        }
        cmd.args(arguments)
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Cmd {
        for argument in arguments {
            self.line.push(' ');
            self.line.push_str(&argument.as_ref().to_string_lossy());
            self.command.arg(argument);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Cmd {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Cmd {
        self.command.current_dir(dir);
        self
    }

    /// Runs it with our own input and output.
    pub(crate) fn run(mut self) -> Result<()> {
        eprintln!("$ {}", self.line);
        let status = self.command.status().doing(&self.line)?;
        if status.success() { Ok(()) } else { Err(Failure(format!("{}: {status}", self.line))) }
    }

    /// Runs it quietly and returns what it prints; what it says on stderr is shown only if it fails.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self.command.output().doing(&self.line)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure(format!("{}: {}\n{}", self.line, output.status, said.trim_end())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
