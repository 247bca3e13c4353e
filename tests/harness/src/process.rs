//! A program that runs beside a test, started as a user would: its flags, and what it logs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running program. It is killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in the folder of its log, which holds both of its outputs.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).expect("scratch is writable");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(log.parent().expect("a log lies in a folder"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file handle can be shared"))
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Process { child, log: log.to_path_buf() }
    }

    /// Waits until the log holds `text`.
    ///
    /// Panics with the log when the program ends, or when that takes longer than `limit`.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.log().contains(text) {
            let ended = self.child.try_wait().expect("the process can be waited for");
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", self.log());
            assert!(Instant::now() < deadline, "no {text:?} after {limit:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it ends by itself: its exit code.
    ///
    /// Panics with the log when that takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "it goes on for more than {limit:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The flags of a lone member on these URLs.
pub fn lone_member(data_dir: &Path, client: &str, peer: &str) -> Vec<String> {
    vec![
        "--name=m0".into(),
        format!("--data-dir={}", data_dir.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=m0={peer}"),
    ]
}
