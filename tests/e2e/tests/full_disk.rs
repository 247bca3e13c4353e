//! A disk that is really full: a small file system of its own, which only root may mount.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use api::etcdserverpb as pb;
use e2e::rpc::Link;
use harness::{Member, Options, ours};
use tonic::{Code, Status};

const VALUE_BYTES: usize = 300_000;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";

/// A file system in memory. It is unmounted when dropped, after the member on it.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, megabytes: u32) -> Option<Small> {
        std::fs::create_dir_all(&path).expect("scratch is writable");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Small(path));
        }
        eprintln!("SKIPPED: a small file system cannot be mounted here; run as root to see a full disk");
        None
    }
}

impl Small {
    fn enlarge(&self, megabytes: u32) {
        let size = format!("remount,size={megabytes}m");
        let done = Command::new("mount").args(["-o", &size]).arg(&self.0).status().expect("it was mounted");
        assert!(done.success(), "{done}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // What cannot be unmounted now goes when nobody uses it any more.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let limit = Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, future).await }).expect("no call hangs")
}

fn value(nth: usize) -> String {
    format!("{nth:06}").repeat(VALUE_BYTES / 6)
}

async fn put(link: &Link, key: &str, value: String) -> Result<i64, Status> {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..pb::PutRequest::default() };
    Ok(link.call(request).await?.header.expect("a header").revision)
}

/// Writes until there is no room, as fast as it goes; what was acknowledged, by number.
async fn fill(link: &Link) -> BTreeMap<usize, i64> {
    let mut acknowledged = BTreeMap::new();
    for nth in 0..2_000 {
        match tokio::time::timeout(Duration::from_secs(20), put(link, &format!("fill/{nth:04}"), value(nth))).await {
            Ok(Ok(revision)) => {
                acknowledged.insert(nth, revision);
            }
            Ok(Err(status)) => {
                assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, NO_SPACE), "write {nth}");
                return acknowledged;
            }
            // A write that waits for room in the log is not answered.
            Err(_) => return acknowledged,
        }
    }
    panic!("the disk is not full after all");
}

/// Everything acknowledged is there, read one by one.
async fn check(link: &Link, acknowledged: &BTreeMap<usize, i64>) {
    for (nth, revision) in acknowledged {
        let key = format!("fill/{nth:04}");
        let request = pb::RangeRequest { key: key.clone().into(), ..pb::RangeRequest::default() };
        let answer = link.call(request).await.expect("reads go on");
        let kv = answer.kvs.first().unwrap_or_else(|| panic!("{key} is lost"));
        assert!(kv.value == value(*nth) && kv.mod_revision == *revision, "{key} is another");
    }
}

async fn alarms(link: &Link) -> Vec<pb::AlarmMember> {
    let get = pb::AlarmRequest { action: pb::alarm_request::AlarmAction::Get as i32, ..pb::AlarmRequest::default() };
    link.call(get).await.expect("alarms can be read").alarms
}

async fn disarm(link: &Link) {
    for alarm in alarms(link).await {
        let action = pb::alarm_request::AlarmAction::Deactivate as i32;
        let disarm = pb::AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
        link.call(disarm).await.expect("the alarm can be disarmed");
    }
}

/// The alarm comes with the log entry after the one that found no room.
async fn wait_for_alarm(link: &Link) {
    let start = Instant::now();
    while alarms(link).await.iter().all(|alarm| alarm.alarm != pb::AlarmType::Nospace as i32) {
        assert!(start.elapsed() < Duration::from_secs(10), "no alarm");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Kills it and starts it again; under the alarm it is not healthy, but it answers.
fn start_again(member: &mut Member) {
    member.kill();
    member.launch();
    let start = Instant::now();
    while member.http("/version").is_none_or(|(status, _)| status != 200) {
        assert!(start.elapsed() < Duration::from_secs(30), "no start on a full disk:\n{}", member.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(dir: &Path, flags: &[String]) -> Member {
    Member::start(&ours(), dir, Options { flags: flags.to_vec(), ..Options::default() })
}

#[test]
fn a_full_database_disk_is_freed_by_deletion_compaction_and_defragmentation() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(small) = Small::mount(scratch.path().join("small"), 64) else { return };
    let log = format!("--wal-dir={}", scratch.path().join("wal").display());
    let flags = [log, "--snapshot-count=20".to_owned()];
    let mut member = start(&small.0.join("data"), &flags);
    let pid = member.pid();
    let mut acknowledged = BTreeMap::new();
    wait(async {
        let link = Link::new(&member.client_url());
        acknowledged = fill(&link).await;
        assert!(acknowledged.len() > 50, "only {} writes", acknowledged.len());
        wait_for_alarm(&link).await;
        check(&link, &acknowledged).await;
    });
    assert_eq!(member.pid(), pid, "the same process");
    let health = member.http("/health").expect("an answer");
    assert!(health.0 == 503 && health.1.contains("NOSPACE"), "{health:?}");

    start_again(&mut member);
    wait(async {
        let link = Link::new(&member.client_url());
        check(&link, &acknowledged).await;
        let last = *acknowledged.values().last().expect("there are some");
        let refused = put(&link, "more", value(1)).await.expect_err("the alarm is still raised");
        assert_eq!(refused.message(), NO_SPACE);
        let request = pb::DeleteRangeRequest {
            key: "fill/0010".into(),
            range_end: "fill0".into(),
            ..pb::DeleteRangeRequest::default()
        };
        let deleted = link.call(request).await.expect("deletions go on");
        let revision = deleted.header.expect("a header").revision;
        assert!(revision > last, "the revision went back");
        link.call(pb::CompactionRequest { revision, physical: true }).await.expect("compaction goes on");
        link.call(pb::DefragmentRequest {}).await.expect("defragmentation goes on");
        let status = link.call(pb::StatusRequest {}).await.expect("status");
        assert!(status.db_size < 16 << 20, "{status:?}");
        disarm(&link).await;
        for nth in 0..50 {
            put(&link, &format!("again/{nth}"), value(nth)).await.expect("writes go on");
        }
        acknowledged.retain(|nth, _| *nth < 10);
        check(&link, &acknowledged).await;
        assert_eq!(alarms(&link).await, []);
    });
    member.kill();
    member.start_again();
    wait(async { check(&Link::new(&member.client_url()), &acknowledged).await });
    member.kill();
}

#[test]
fn a_disk_that_log_and_database_fill_together_loses_nothing() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(small) = Small::mount(scratch.path().join("small"), 180) else { return };
    let mut member = start(&small.0.join("data"), &["--snapshot-count=20".to_owned()]);
    let pid = member.pid();
    let mut acknowledged = BTreeMap::new();
    wait(async {
        let link = Link::new(&member.client_url());
        acknowledged = fill(&link).await;
        assert!(acknowledged.len() > 50, "only {} writes", acknowledged.len());
        check(&link, &acknowledged).await;
    });
    assert_eq!(member.pid(), pid, "the same process");
    start_again(&mut member);
    wait(async { check(&Link::new(&member.client_url()), &acknowledged).await });
    member.kill();
}

fn fill_up(path: &Path) {
    let mut file = std::fs::File::create(path).expect("there is room");
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// The log holds more than the disk of the database has room for, its reserve included: an older database was put in
/// the place of the one that had it all.
#[test]
fn a_long_replay_onto_a_full_disk_is_freed_by_deletion_and_compaction() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(small) = Small::mount(scratch.path().join("small"), 96) else { return };
    let log = format!("--wal-dir={}", scratch.path().join("wal").display());
    let mut member = start(&small.0.join("data"), &[log, "--snapshot-count=100000".to_owned()]);
    let (db, older, filler) = (small.0.join("data/member/snap/db"), small.0.join("older"), small.0.join("filler"));
    let mut acknowledged = BTreeMap::new();
    wait(async { put(&Link::new(&member.client_url()), "first", "small".into()).await.expect("there is room") });
    member.kill();
    std::fs::copy(&db, &older).expect("there is room");
    member.start_again();
    wait(async {
        let link = Link::new(&member.client_url());
        for nth in 0..90 {
            let revision = put(&link, &format!("fill/{nth:04}"), value(nth)).await.expect("there is room");
            acknowledged.insert(nth, revision);
        }
    });
    member.kill();
    std::fs::rename(&older, &db).expect("the same file system");
    fill_up(&filler);
    let length = std::fs::metadata(&db).expect("it is there").len();
    assert!(length < 20 << 20, "{length} bytes may be room enough");

    start_again(&mut member);
    wait(async {
        let link = Link::new(&member.client_url());
        wait_for_alarm(&link).await;
        check(&link, &acknowledged).await;
        // Taken back too early, it comes again: there is still no room.
        disarm(&link).await;
        wait_for_alarm(&link).await;
        // What needs all of it in the file is answered, and what may make room is tried.
        let refused = link.call(pb::HashRequest {}).await.expect_err("it is not in the file");
        assert_eq!(refused.message(), NO_SPACE);
        link.call(pb::DefragmentRequest {}).await.expect("defragmentation goes on");
        check(&link, &acknowledged).await;
        for nth in 10..90 {
            let key = format!("fill/{nth:04}").into();
            link.call(pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() }).await.expect("deletions go on");
            acknowledged.remove(&nth);
        }
    });
    // What is not in the file is in the log.
    assert_eq!(member.stop(), Some(0), "an orderly end on a full disk");
    start_again(&mut member);
    wait(async {
        let link = Link::new(&member.client_url());
        wait_for_alarm(&link).await;
        check(&link, &acknowledged).await;
        // Deletions count at the revision of a compaction, not those at it.
        let answer = link.call(pb::DeleteRangeRequest { key: "first".into(), ..pb::DeleteRangeRequest::default() });
        let revision = answer.await.expect("deletions go on").header.expect("a header").revision;
        // It answers when all of it is in the file.
        link.call(pb::CompactionRequest { revision, physical: true }).await.expect("compaction goes on");
    });
    start_again(&mut member);
    wait(async { check(&Link::new(&member.client_url()), &acknowledged).await });
    std::fs::remove_file(&filler).expect("it is ours");
    wait(async {
        let link = Link::new(&member.client_url());
        disarm(&link).await;
        for nth in 100..150 {
            acknowledged.insert(nth, put(&link, &format!("fill/{nth:04}"), value(nth)).await.expect("writes go on"));
        }
        assert_eq!(alarms(&link).await, []);
    });
    start_again(&mut member);
    wait(async { check(&Link::new(&member.client_url()), &acknowledged).await });
    member.kill();
}

/// Of every leaf one record goes, so that to sweep all of it at once would need the room of what stays.
#[test]
fn a_compaction_larger_than_the_reserve_is_swept_on_a_full_disk() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(small) = Small::mount(scratch.path().join("small"), 96) else { return };
    let log = format!("--wal-dir={}", scratch.path().join("wal").display());
    let mut member = start(&small.0.join("data"), &[log, "--snapshot-count=100000".to_owned()]);
    let key = |nth: usize| format!("k{nth:05}");
    let mut size = 0;
    wait(async {
        let link = Link::new(&member.client_url());
        for first in (0..16_000).step_by(100) {
            let put = |nth| pb::PutRequest { key: key(nth).into(), value: vec![1; 2_000].into(), ..pb::PutRequest::default() };
            let request = pb::request_op::Request::RequestPut;
            let op = |nth| pb::RequestOp { request: Some(request(put(nth))) };
            let success = (first..first + 100).map(op).collect();
            link.call(pb::TxnRequest { success, ..pb::TxnRequest::default() }).await.expect("there is room");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        size = link.call(pb::StatusRequest {}).await.expect("status").db_size as u64;
    });
    // Of the room that the file had ahead little is left.
    member.kill();
    let file = std::fs::OpenOptions::new().write(true).open(small.0.join("data/member/snap/db")).expect("it is there");
    assert!(file.metadata().expect("it is there").len() > size + (1 << 20), "{size} bytes are in use");
    file.set_len(size + (512 << 10)).expect("it can be cut");
    drop(file);
    fill_up(&small.0.join("filler"));
    start_again(&mut member);
    let mut revision = 0;
    wait(async {
        let link = Link::new(&member.client_url());
        for nth in (0..16_000).step_by(8) {
            let key = key(nth).into();
            let answer = link.call(pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() }).await;
            revision = answer.expect("deletions go on").header.expect("a header").revision;
        }
        link.call(pb::CompactionRequest { revision, physical: false }).await.expect("compaction goes on");
    });
    // Somewhere in the middle of it.
    start_again(&mut member);
    wait(async {
        let link = Link::new(&member.client_url());
        wait_for_alarm(&link).await;
        let key = key(1).into();
        let answer = link.call(pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() }).await;
        let revision = answer.expect("deletions go on").header.expect("a header").revision;
        link.call(pb::CompactionRequest { revision, physical: true }).await.expect("compaction ends");
    });
    start_again(&mut member);
    wait(async {
        let link = Link::new(&member.client_url());
        let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), count_only: true, ..pb::RangeRequest::default() };
        assert_eq!(link.call(all).await.expect("reads go on").count, 16_000 - 2_000 - 1);
        link.call(pb::DefragmentRequest {}).await.expect("defragmentation goes on");
        let status = link.call(pb::StatusRequest {}).await.expect("status");
        assert!(status.db_size_in_use < 34 << 20, "{status:?}");
    });
    member.kill();
}

/// There is room for one segment of the log and a quarter. That is no reason for an alarm until it runs out, and then
/// what is left serves deletions, however many writes are tried.
#[test]
fn a_disk_too_small_for_a_second_segment_raises_the_alarm_when_the_first_is_full() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(small) = Small::mount(scratch.path().join("small"), 76) else { return };
    let log = format!("--wal-dir={}", small.0.join("wal").display());
    let mut member = start(&scratch.path().join("data"), &[log]);
    let mut acknowledged = BTreeMap::new();
    wait(async {
        let link = Link::new(&member.client_url());
        acknowledged = fill(&link).await;
        let bytes = acknowledged.len() * VALUE_BYTES;
        assert!((58 << 20..70 << 20).contains(&bytes), "{bytes} bytes written");
        wait_for_alarm(&link).await;
        for nth in 0..100 {
            let refused = put(&link, "more", value(nth)).await.expect_err("the alarm is raised");
            assert_eq!(refused.message(), NO_SPACE);
        }
        for nth in 10..acknowledged.len() {
            let key = format!("fill/{nth:04}").into();
            link.call(pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() }).await.expect("deletions go on");
            acknowledged.remove(&nth);
        }
        let revision = acknowledged[&9];
        link.call(pb::CompactionRequest { revision, physical: true }).await.expect("compaction goes on");
    });
    start_again(&mut member);
    small.enlarge(160);
    wait(async {
        let link = Link::new(&member.client_url());
        check(&link, &acknowledged).await;
        disarm(&link).await;
        for nth in 0..10 {
            acknowledged.insert(nth, put(&link, &format!("fill/{nth:04}"), value(nth)).await.expect("writes go on"));
        }
        check(&link, &acknowledged).await;
        assert_eq!(alarms(&link).await, []);
    });
    member.kill();
}

#[test]
fn a_snapshot_that_finds_no_room_is_saved_later() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(small) = Small::mount(scratch.path().join("small"), 64) else { return };
    let log = format!("--wal-dir={}", scratch.path().join("wal").display());
    let mut member = start(&small.0.join("data"), &[log, "--snapshot-count=20".to_owned()]);
    let filler = small.0.join("filler");
    fill_up(&filler);
    wait(async {
        let link = Link::new(&member.client_url());
        for nth in 0..30 {
            // The member learns of the full disk by its snapshot; from then on writes are refused.
            let answer = put(&link, &format!("k{nth}"), "small".into()).await;
            assert!(answer.as_ref().err().is_none_or(|status| status.message() == NO_SPACE), "{answer:?}");
        }
        wait_for_alarm(&link).await;
    });
    let log = member.log();
    assert!(log.contains("triggering snapshot") && !log.contains("saved snapshot to disk"), "{log}");
    std::fs::remove_file(&filler).expect("it is ours");
    let start = Instant::now();
    while !member.log().contains("saved snapshot to disk") {
        assert!(start.elapsed() < Duration::from_secs(10), "the snapshot is not tried again");
        std::thread::sleep(Duration::from_millis(20));
    }
    member.kill();
}
