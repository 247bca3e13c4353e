//! A tool run to its end.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a tool left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a run that must have worked.
    ///
    /// Panics, showing standard error, when it did not.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a tool without input.
pub fn run(program: &Path, arguments: &[&str]) -> Output {
    run_with_input(program, arguments, "")
}

/// Runs a tool with text on its standard input.
pub fn run_with_input(program: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .env_remove("ETCDCTL_ENDPOINTS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    let input = input.to_string();
    // A tool that does not read its input closes the pipe: that is its right.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("the tool ends");
    writer.join().expect("writing does not panic");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
