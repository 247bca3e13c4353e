//! A disk that takes writes, and then does not for seconds: a small file system of its own that is frozen, which only
//! root may do.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use e2e::load::revision_of;
use e2e::rpc::Link;
use harness::{Cluster, ours};

/// As by default.
const ELECTION: Duration = Duration::from_secs(1);
/// How long a disk stands still.
const STALL: Duration = Duration::from_secs(5);
/// What a look at a member may take on a busy machine.
const LOOK: Duration = Duration::from_millis(500);

/// A file system in a file. It is unmounted when dropped, after the member on it.
struct Disk(PathBuf);

impl Disk {
    fn mount(dir: &Path) -> Option<Disk> {
        let (image, path) = (dir.join("image"), dir.join("disk"));
        std::fs::create_dir_all(&path).expect("scratch is writable");
        let file = std::fs::File::create(&image).expect("scratch is writable");
        file.set_len(400 << 20).expect("files may have holes");
        let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let is_there = works(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
            && works(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&path));
        if is_there {
            return Some(Disk(path));
        }
        eprintln!("SKIPPED: a file system in a file cannot be mounted here; run as root to see a disk that stalls");
        None
    }

    /// Nothing is written from now on, until the guard is dropped.
    fn freeze(&self) -> Frozen<'_> {
        let frozen = Command::new("fsfreeze").arg("--freeze").arg(&self.0).status().expect("util-linux has it");
        assert!(frozen.success(), "{frozen}");
        // A frozen file system that nobody thaws would stop everybody who syncs the machine's disks.
        let thaw = format!("sleep 30; fsfreeze --unfreeze '{}'", self.0.display());
        let watchdog = Command::new("sh").args(["-c", &thaw]).stderr(std::process::Stdio::null()).spawn();
        Frozen { disk: self, watchdog: watchdog.expect("there is a shell") }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What cannot be unmounted now goes when nobody uses it any more.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

struct Frozen<'a> {
    disk: &'a Disk,
    watchdog: Child,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        drop(Command::new("fsfreeze").arg("--unfreeze").arg(&self.disk.0).status());
        drop(self.watchdog.kill());
        drop(self.watchdog.wait());
    }
}

/// Writes through some members until the end: the revision of each number that was acknowledged.
struct Writer {
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<BTreeMap<u64, i64>>,
}

impl Writer {
    fn start(urls: Vec<String>) -> Writer {
        let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (is_over.clone(), acknowledged.clone());
        let thread = std::thread::spawn(move || {
            block(async {
                let links: Vec<Link> = urls.iter().map(|url| Link::new(url)).collect();
                let mut known = BTreeMap::new();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let link = &links[number as usize % links.len()];
                    let put = pb::PutRequest {
                        key: format!("k/{number:06}").into(),
                        value: number.to_string().into(),
                        ..pb::PutRequest::default()
                    };
                    if let Ok(Ok(answer)) = tokio::time::timeout(ELECTION, link.call(put)).await {
                        known.insert(number, revision_of(answer.header.as_ref()));
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                known
            })
        });
        Writer { is_over, acknowledged, thread }
    }

    fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn stop(self) -> BTreeMap<u64, i64> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("the writer does not panic")
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made").block_on(future)
}

async fn status(link: &Link) -> Option<pb::StatusResponse> {
    tokio::time::timeout(ELECTION, link.call(pb::StatusRequest {})).await.ok()?.ok()
}

/// The member of this number and its two others, of which the first is on the disk and leads.
fn led_from(disk: &Disk, dir: &Path) -> Cluster {
    let ours = ours();
    let mut cluster = Cluster::place(&[&ours, &ours, &ours], dir, &[]);
    let mut flags = cluster.flags(0);
    flags.push(format!("--data-dir={}", disk.0.join("data").display()));
    cluster.member_mut(0).set_flags(flags);
    cluster.launch();
    lead(&cluster, 0);
    cluster
}

fn lead(cluster: &Cluster, i: usize) {
    if cluster.leader() != i {
        cluster.retry(&["move-leader", &format!("{:x}", cluster.id(i))]);
    }
    assert_eq!(cluster.leader(), i);
}

/// The leader's log sync takes five seconds: it lets go of the leadership within two election timeouts, the others go
/// on, and when its disk is back it follows. A follower's sync that takes as long disturbs nobody.
#[test]
fn a_leader_whose_disk_stalls_lets_go() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(disk) = Disk::mount(scratch.path()) else { return };
    let cluster = led_from(&disk, scratch.path());
    let urls: Vec<String> = (0..3).map(|i| cluster.member(i).client_url()).collect();
    let id = cluster.id(0);
    let writer = Writer::start(urls[1..].to_vec());
    cluster.until("writes begin", |_| writer.count() > 20);

    let frozen = disk.freeze();
    let start = Instant::now();
    let successor = block(async {
        let (stalled, other) = (Link::new(&urls[0]), Link::new(&urls[1]));
        let mut let_go = None;
        loop {
            // It answers, whatever its disk does.
            let own = status(&stalled).await.expect("a member whose disk stalls says how it is");
            if own.leader != id && let_go.is_none() {
                let_go = Some(start.elapsed());
            }
            let seen = status(&other).await.map_or(0, |status| status.leader);
            if seen != 0 && seen != id && let_go.is_some() {
                println!("it let go after {let_go:?}, the next one led after {:?}", start.elapsed());
                assert!(let_go < Some(2 * ELECTION + LOOK), "{let_go:?}");
                return seen;
            }
            assert!(start.elapsed() < STALL, "it lets go after {let_go:?}, the others follow {seen:x}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let before = writer.count();
    std::thread::sleep(STALL.saturating_sub(start.elapsed()));
    assert!(writer.count() > before + 20, "the others go on: {} writes", writer.count() - before);
    let read = pb::RangeRequest { key: "k/000001".into(), serializable: true, ..pb::RangeRequest::default() };
    let answer = block(async { tokio::time::timeout(ELECTION, Link::new(&urls[0]).call(read)).await });
    assert!(matches!(&answer, Ok(Ok(answer)) if answer.count == 1), "it reads what it has: {answer:?}");
    drop(frozen);
    cluster.in_step(0);
    let leader = cluster.leader();
    assert_eq!(cluster.id(leader), successor, "it takes nothing back");

    // The same as a follower.
    let term = cluster.field(leader, "RaftTerm");
    let (frozen, before) = (disk.freeze(), writer.count());
    std::thread::sleep(STALL);
    assert!(writer.count() > before + 100, "the others go on: {} writes", writer.count() - before);
    drop(frozen);
    cluster.in_step(0);
    assert_eq!((cluster.leader(), cluster.field(0, "RaftTerm")), (leader, term), "nobody was elected");

    let acknowledged = writer.stop();
    cluster.agree();
    block(async {
        for url in &urls {
            let link = Link::new(url);
            let all = pb::RangeRequest { key: "k/".into(), range_end: "k0".into(), ..pb::RangeRequest::default() };
            let kvs = link.call(all).await.expect("all can be read").kvs;
            let there: BTreeMap<u64, i64> = kvs
                .iter()
                .map(|kv| (String::from_utf8_lossy(&kv.value).parse().expect("a number"), kv.mod_revision))
                .collect();
            for (number, revision) in &acknowledged {
                assert_eq!(there.get(number), Some(revision), "write {number}, which was acknowledged");
            }
        }
    });
    println!("{} writes acknowledged", acknowledged.len());
}
