//! A server and tools in a folder of their own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::Binaries;

use super::transcript::Left;

/// Longest wait for a server to serve.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One server, on etcd's default ports.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server in `folder` and waits until it serves.
    pub(crate) fn start(program: &Path, folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        let log = folder.join("etcd.log");
        let file = File::options().create(true).append(true).open(&log).expect("scratch is writable");
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().copied()).current_dir(folder).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a file handle can be shared")).stderr(file);
        let mut server = Server { child: command.spawn().expect("the program starts"), log };
        let started = Instant::now();
        while !http(2379, "GET", "/health", &[]).is_some_and(|answer| answer.contains("\"true\"")) {
            let ended = server.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none() && started.elapsed() < START_LIMIT, "it does not serve:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log is there")
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("a killed process ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Status line and body of a plain request; headers of the answer are left out, but for the kind of its content.
pub(crate) fn http(port: u16, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(format!("{} {body}", head.lines().next()?.split(' ').nth(1)?))
}

/// A folder in which command lines are run as a person would type them.
pub(crate) struct Place {
    folder: PathBuf,
    tools: PathBuf,
}

impl Place {
    /// Puts tools of a release in reach.
    pub(crate) fn new(folder: &Path, binaries: &Binaries) -> Place {
        let tools = folder.join("bin");
        std::fs::create_dir_all(&tools).expect("scratch is writable");
        let etcdutl = binaries.etcdutl.clone().map(|path| ("etcdutl", path));
        for (name, path) in [("etcdctl", binaries.etcdctl.clone()), ("etcd", binaries.etcd.clone())].into_iter().chain(etcdutl) {
            std::os::unix::fs::symlink(path, tools.join(name)).expect("scratch is writable");
        }
        Place { folder: folder.to_path_buf(), tools }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a command line in a shell.
    pub(crate) fn run(&self, line: &str, input: &str) -> Left {
        let mut path = self.tools.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-c", line]).env("PATH", path).current_dir(&self.folder);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("bash starts");
        let mut stdin = child.stdin.take().expect("a pipe was asked for");
        // Recorded input is short: it fits into the pipe, read or not.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output().expect("the shell ends");
        Left {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Standard output of a command line that must work.
    pub(crate) fn ok(&self, line: &str) -> String {
        let left = self.run(line, "");
        assert_eq!(left.code, 0, "{line}: {left:?}");
        left.stdout
    }
}
