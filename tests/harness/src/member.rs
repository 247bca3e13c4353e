//! A server process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Binaries, Room, free_port};

/// How a member is started, beside its names and ports.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More flags, after those that every member gets.
    pub flags: Vec<String>,
    /// More environment variables.
    pub environment: Vec<(String, String)>,
}

/// A running server of one member. It is killed when dropped.
pub struct Member {
    child: Option<Child>,
    binaries: Binaries,
    options: Options,
    data_dir: PathBuf,
    log: PathBuf,
    /// Where it listens, and where others find it.
    address: String,
    client_port: u16,
    peer_port: u16,
    /// Where it runs, if not in the network of the test.
    room: Option<Room>,
}

/// Longest wait for a member to serve.
const START_LIMIT: Duration = Duration::from_secs(30);

impl Member {
    /// Starts a member on `data_dir` and waits until it serves.
    ///
    /// Panics with its log when it does not come up in 30 seconds.
    pub fn start(binaries: &Binaries, data_dir: &Path, options: Options) -> Member {
        let mut member = Member::spawn(binaries, data_dir, options);
        member.wait_ready(START_LIMIT);
        member
    }

    /// Starts a member without waiting for it: for those that are expected to fail.
    pub fn spawn(binaries: &Binaries, data_dir: &Path, options: Options) -> Member {
        let mut member = Member::place(binaries, data_dir, options);
        member.launch();
        member
    }

    /// A member with its directory and ports, whose process does not run yet.
    pub fn place(binaries: &Binaries, data_dir: &Path, options: Options) -> Member {
        Member {
            child: None,
            binaries: binaries.clone(),
            options,
            data_dir: data_dir.to_path_buf(),
            log: data_dir.with_extension("log"),
            address: "127.0.0.1".to_owned(),
            client_port: free_port(),
            peer_port: free_port(),
            room: None,
        }
    }

    /// The same with a network and an address of its own, so that it can be cut off from others. Its ports are etcd's.
    pub fn place_in(room: &Room, binaries: &Binaries, data_dir: &Path, options: Options) -> Member {
        let mut member = Member::place(binaries, data_dir, options);
        member.address = room.address().to_owned();
        (member.client_port, member.peer_port) = (2379, 2380);
        member.room = Some(room.clone());
        member
    }

    /// The flags for its next start.
    pub fn set_flags(&mut self, flags: Vec<String>) {
        self.options.flags = flags;
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process again on the same directory and ports, and waits until it serves.
    pub fn start_again(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Waits until a process that was launched serves.
    ///
    /// Panics with its log when it does not come up in 30 seconds.
    pub fn wait_until_ready(&mut self) {
        self.wait_ready(START_LIMIT);
    }

    /// The same for a member with alarms, which serves but is not healthy.
    pub fn start_again_with_alarms(&mut self) {
        self.launch();
        self.wait_answer(START_LIMIT, "/livez", "ok");
    }

    /// Puts another release's programs in place; takes effect with the next start.
    pub fn swap(&mut self, binaries: &Binaries, options: Options) {
        assert!(self.child.is_none(), "a running process keeps its program");
        self.binaries = binaries.clone();
        self.options = options;
    }

    /// Starts the process on its directory and ports, without waiting for it.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "one process per member");
        let (client, peer) = (self.client_url(), self.peer_url());
        let log = File::options().create(true).append(true).open(&self.log).expect("scratch is writable");
        let mut command = Command::new(&self.binaries.etcd);
        command
            .arg("--name=m0")
            .arg(format!("--data-dir={}", self.data_dir.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=m0={peer}"))
            .args(&self.options.flags)
            .envs(self.options.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be shared"))
            .stderr(log);
        if let Some(room) = &self.room {
            room.run_in(&mut command);
        }
        self.child = Some(command.spawn().expect("the program starts"));
    }

    fn wait_ready(&mut self, limit: Duration) {
        self.wait_answer(limit, "/health", "\"true\"");
    }

    fn wait_answer(&mut self, limit: Duration, path: &str, expected: &str) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("{} ended with {status} at start:\n{}", self.binaries.label, self.log_tail());
            }
            if self.http(path).is_some_and(|(status, body)| status == 200 && body.contains(expected)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} does not serve after {limit:?}:\n{}", self.binaries.label, self.log_tail());
    }

    /// `http://ADDRESS:PORT` for clients; the address is 127.0.0.1 where it has none of its own.
    pub fn client_url(&self) -> String {
        format!("http://{}:{}", self.address, self.client_port)
    }

    /// `http://ADDRESS:PORT` for peers.
    pub fn peer_url(&self) -> String {
        format!("http://{}:{}", self.address, self.peer_port)
    }

    /// `ADDRESS:PORT` for clients.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.address, self.client_port)
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Changes the last byte of a stored value, wherever the database of a stopped member holds it.
    pub fn alter_stored(&self, value: &str) {
        assert!(self.child.is_none(), "a running process has its file mapped");
        let path = self.data_dir.join("member/snap/db");
        let mut bytes = std::fs::read(&path).expect("the database is there");
        let places: Vec<usize> =
            (0..bytes.len() - value.len()).filter(|at| bytes[*at..].starts_with(value.as_bytes())).collect();
        assert!(!places.is_empty(), "the value is not in the file");
        for at in places {
            bytes[at + value.len() - 1] ^= 1;
        }
        std::fs::write(&path, bytes).expect("the database can be written");
    }

    /// The programs it was started with.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the member runs").id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.pid()).expect("process numbers are small");
        // SAFETY: kill(2) takes plain numbers, and the child has not been waited for, so the number is still its own.
        #[allow(unsafe_code, reason = "std has no way to send a signal")]
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "the process is there");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process is there");
            child.wait().expect("a killed process ends");
        }
    }

    /// SIGTERM, and waits for the end; the exit code, or `None` when a signal ended it.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        self.wait(Duration::from_secs(20))
    }

    /// Waits for the process to end by itself; the exit code, or `None` when a signal ended it.
    ///
    /// Panics when it goes on for longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        let mut child = self.child.take().expect("the member runs");
        loop {
            if let Some(status) = child.try_wait().expect("the process can be waited for") {
                return status.code();
            }
            if Instant::now() > deadline {
                child.kill().expect("the process is there");
                panic!("{} goes on for more than {limit:?}:\n{}", self.binaries.label, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it was ever started.
    pub fn has_log(&self) -> bool {
        self.log.exists()
    }

    /// All lines it has logged, over all its starts.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        File::open(&self.log).and_then(|mut file| file.read_to_end(&mut text)).expect("the log is there");
        String::from_utf8_lossy(&text).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// A plain GET on the client port: status and body. `None` when there is no answer.
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        http_get(&self.address, self.client_port, path)
    }

    /// A plain GET on another port that it was told to listen on.
    pub fn http_on(&self, port: u16, path: &str) -> Option<(u16, String)> {
        http_get(&self.address, port, path)
    }

    /// A plain GET on the peer port.
    pub fn peer_http(&self, path: &str) -> Option<(u16, String)> {
        http_get(&self.address, self.peer_port, path)
    }
}

fn http_get(address: &str, port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((address, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_string()))
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
