//! Three members on one machine: what a put costs all of them together, and how long nobody leads after the leader
//! was killed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Binaries, Cluster};

use super::Options;
use super::server::{FLAGS, Measured, Result, begin, empty_directory, finish, measured, timed};

/// Between two writes that ask whether somebody leads.
const PROBE: Duration = Duration::from_millis(20);
/// Longest wait for a leader.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Three members started for measuring. They end, and their data goes, when dropped.
pub(super) struct Three {
    cluster: Cluster,
    dir: PathBuf,
}

impl Three {
    pub(super) fn start(binaries: &Binaries, options: &Options) -> Result<Three> {
        let dir = empty_directory(&options.data, binaries)?;
        let cluster = Cluster::start(&[binaries; 3], &dir, &FLAGS);
        cluster.leader();
        std::thread::sleep(Duration::from_secs(1));
        Ok(Three { cluster, dir })
    }

    /// One row: clients are spread over all members, and the CPU is that of all of them.
    pub(super) fn load(&self, arguments: &str, seconds: f64) -> Result<Measured> {
        let pids: Vec<u32> = (0..self.cluster.len()).map(|i| self.cluster.member(i).pid()).collect();
        Ok(measured(&finish(begin(&self.cluster.endpoints(), &pids, &timed(arguments, seconds))?)?))
    }

    /// Kills the leader so many times, and says how many milliseconds each time passed until a write was taken again.
    pub(super) fn leaderless(&mut self, times: usize, probe: &Binaries) -> Result<Vec<f64>> {
        let mut passed = Vec::new();
        for _ in 0..times {
            let leader = self.cluster.leader();
            let from = Instant::now();
            self.cluster.member_mut(leader).kill();
            self.write_again(probe, from)?;
            passed.push(from.elapsed().as_secs_f64() * 1000.0);
            self.cluster.member_mut(leader).start_again();
            // The next leader must not be chosen among members that still catch up.
            std::thread::sleep(Duration::from_secs(2));
        }
        Ok(passed)
    }

    /// Sends writes at a steady pace, each from a client of its own, until one has been taken: a write that was passed
    /// on to the dead leader waits for its time-out, so none may wait for another.
    fn write_again(&self, probe: &Binaries, from: Instant) -> Result<()> {
        let endpoints = format!("--endpoints={}", self.cluster.endpoints());
        let mut writes: Vec<Child> = Vec::new();
        let mut taken = false;
        while !taken {
            if from.elapsed() > PROBE_LIMIT {
                return Err(format!("no write was taken for {PROBE_LIMIT:?}"));
            }
            let mut write = Command::new(&probe.etcdctl);
            write.args([endpoints.as_str(), "put", "/probe", "x"]);
            write.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            writes.push(write.spawn().map_err(|e| e.to_string())?);
            std::thread::sleep(PROBE);
            writes.retain_mut(|write| match write.try_wait() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    taken |= status.success();
                    false
                }
                Err(_) => false,
            });
        }
        for mut write in writes {
            // It may have ended by itself in this moment.
            let _ended = write.kill();
            write.wait().map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        for i in 0..self.cluster.len() {
            if self.cluster.member(i).is_running() {
                self.cluster.member_mut(i).kill();
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("bench compare: {}: {error}", self.dir.display());
        }
    }
}
