//! A tool that goes on running, read line by line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A running tool. It is killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts a tool.
    pub fn start(program: &Path, arguments: &[&str]) -> Running {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the tool starts");
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            // Nobody listens any more: the rest is of no use.
            BufReader::new(stdout).lines().map_while(Result::ok).take_while(|line| send.send(line.clone()).is_ok()).count()
        });
        Running { child, lines }
    }

    /// The next line of its output.
    ///
    /// Panics when there is none within ten seconds.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(10)).expect("the tool says something")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
