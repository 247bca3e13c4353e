//! A server under test, and single loads on it, each a process of its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Binaries, Member};
use serde_json::Value;

use crate::procfs;

pub(super) type Result<T> = std::result::Result<T, String>;

/// What one load showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Server CPU per operation, microseconds.
    pub(super) cpu: f64,
    /// Operations per second.
    pub(super) throughput: f64,
    /// Milliseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    /// How often a thread of the server went to sleep, per operation.
    pub(super) sleeps: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:9.1} us CPU/op {:9.0} op/s  p50 {:.2} p99 {:.2} max {:.1} ms",
            self.cpu, self.throughput, self.p50, self.p99, self.max
        )
    }
}

/// A member started for measuring. It ends, and its data goes, when dropped.
pub(super) struct Server {
    member: Member,
    dir: PathBuf,
}

impl Server {
    /// Starts a member on an empty directory below `data`.
    pub(super) fn start(binaries: &Binaries, data: &Path) -> Result<Server> {
        let dir = empty_directory(data, binaries)?;
        let options =
            harness::Options { flags: FLAGS.map(String::from).to_vec(), ..harness::Options::default() };
        let member = Member::start(binaries, &dir.join("member"), options);
        std::thread::sleep(Duration::from_secs(1));
        Ok(Server { member, dir })
    }

    /// Stops it as an init system does, starts it again, and says how long it took to the first linearizable read.
    pub(super) fn restart(&mut self) -> Result<Duration> {
        match self.member.stop() {
            // Go ends by the signal itself.
            Some(0) | None => {}
            Some(code) => return Err(format!("the server ended with {code}")),
        }
        let from = Instant::now();
        self.member.start_again();
        Ok(from.elapsed())
    }

    /// Memory now.
    pub(super) fn memory(&self) -> Result<procfs::Sample> {
        procfs::sample(&[self.member.pid()])
    }

    /// Starts a load that goes on beside others.
    pub(super) fn begin(&self, arguments: &str) -> Result<Child> {
        begin(&self.member.endpoint(), &[self.member.pid()], arguments)
    }

    /// Runs a load to its end; the load generator's JSON.
    pub(super) fn run(&self, arguments: &str) -> Result<Value> {
        finish(self.begin(arguments)?)
    }

    /// One row.
    pub(super) fn load(&self, arguments: &str, seconds: f64) -> Result<Measured> {
        let values = self.run(&timed(arguments, seconds))?;
        Ok(measured(&values))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.member.kill();
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("bench compare: {}: {error}", self.dir.display());
        }
    }
}

/// What every server is started with.
pub(super) const FLAGS: [&str; 3] = ["--quota-backend-bytes=8589934592", "--log-level=error", "--max-txn-ops=1000"];

/// A directory for servers of a release, made anew.
pub(super) fn empty_directory(data: &Path, binaries: &Binaries) -> Result<PathBuf> {
    let dir = data.join(&binaries.label);
    match std::fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{}: {e}", dir.display())),
        _ => {}
    }
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

/// Starts a load on these endpoints that measures these processes.
pub(super) fn begin(endpoints: &str, pids: &[u32], arguments: &str) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    command.args(arguments.split(' ')).arg(format!("--endpoints={endpoints}"));
    for pid in pids {
        command.arg(format!("--server-pid={pid}"));
    }
    command.args(["--json", "-"]).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    command.spawn().map_err(|e| e.to_string())
}

/// One row, for so many seconds.
pub(super) fn timed(arguments: &str, seconds: f64) -> String {
    format!("{arguments} --duration {seconds} --warmup 0.5")
}

/// Waits for a load that was begun.
pub(super) fn finish(child: Child) -> Result<Value> {
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let values: Value = serde_json::from_str(&text).map_err(|e| format!("a load failed: {e}: {text}"))?;
    if output.status.success() { Ok(values) } else { Err(format!("a load failed: {}", values["errors"])) }
}

/// The figures of a load.
pub(super) fn measured(values: &Value) -> Measured {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let latency = |name: &str| number(&values["latency_us"][name]) / 1000.0;
    Measured {
        // The generator's own figure is rounded to tenths.
        cpu: number(&values["server"]["cpu_s"]) * 1e6 / number(&values["ops"]),
        throughput: number(&values["throughput"]),
        p50: latency("p50"),
        p99: latency("p99"),
        max: latency("max"),
        sleeps: number(&values["server"]["sleeps"]) / number(&values["ops"]),
    }
}
