//! Logs and snapshot files that we wrote, read by Go servers; and what those wrote behind, read by us.

use std::path::Path;
use std::sync::Arc;

use api::etcdserverpb::{InternalRaftRequest, Metadata, PutRequest, RequestHeader};
use api::ids;
use api::raftpb::{ConfChange, ConfChangeType, Entry, EntryType, HardState};
use api::walpb;
use disk::os::OsDisk;
use disk::{Disk, OpenMode};
use harness::{Binaries, Member, Options, go_release, run};
use prost::Message;
use wal::record::Kind;
use wal::{EncodedEntry, Wal};

use crate::records_of;
use crate::unpack::unpack_all;

/// So small that some entries fill a segment.
const SEGMENT_BYTES: u64 = 300_000;
const KEYS: u64 = 20;

fn options(segment_bytes: u64) -> wal::Options {
    wal::Options { segment_bytes, sync: true }
}

fn entry(index: u64, kind: EntryType, data: Vec<u8>) -> EncodedEntry {
    // Go before 3.7 writes a type of zero, Go 3.7 does not; both read both.
    let entry = Entry {
        index: Some(index),
        term: Some(1),
        r#type: (index.is_multiple_of(2) || kind != EntryType::EntryNormal).then_some(kind as i32),
        data: Some(data.into()),
    };
    EncodedEntry { index, term: 1, bytes: entry.encode_to_vec().into() }
}

/// The log of a cluster of one member with some puts, over several segments, and no database yet.
fn write_log(data_dir: &Path) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let url = "http://127.0.0.1:2380";
    let member = ids::member_id(&[url], "etcd-cluster", None);
    let metadata = Metadata { node_id: Some(member), cluster_id: Some(ids::cluster_id([member])) };
    let dir = data_dir.join("member/wal");
    let mut log = Wal::create_with(&disk, &dir, &metadata.encode_to_vec(), options(SEGMENT_BYTES)).unwrap();
    let context = format!(r#"{{"id":{member},"peerURLs":["{url}"],"name":"m0"}}"#);
    let change = ConfChange {
        r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
        node_id: Some(member),
        context: Some(context.into()),
        id: Some(0),
    };
    log.append(
        &[entry(1, EntryType::EntryConfChange, change.encode_to_vec())],
        Some(&HardState { term: Some(1), vote: Some(0), commit: Some(1) }),
        true,
    )
    .unwrap();
    for number in 1..=KEYS {
        let put = PutRequest {
            key: format!("key{number:02}").into(),
            value: vec![b'a' + number as u8; 50_000].into(),
            ..PutRequest::default()
        };
        let header = RequestHeader { id: number, ..RequestHeader::default() };
        let request = InternalRaftRequest { header: Some(header), put: Some(put), ..Default::default() };
        let commit = HardState { term: Some(1), vote: Some(member), commit: Some(number + 1) };
        let one = [entry(number + 1, EntryType::EntryNormal, request.encode_to_vec())];
        log.append(&one, Some(&commit), true).unwrap();
        if let Some(job) = log.prepare_next() {
            job.run().unwrap();
        }
    }
    assert_eq!(log.segments().count(), 4);
}

fn get(go: &Binaries, member: &Member, arguments: &[&str]) -> String {
    let endpoints = format!("--endpoints={}", member.endpoint());
    let all: Vec<&str> = [endpoints.as_str(), "get"].iter().chain(arguments).copied().collect();
    run(&go.etcdctl, &all).ok()
}

/// What is in the directory now is a valid log to us, and opens at its newest snapshot.
fn read_back(data_dir: &Path, at_least: u64) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let dir = data_dir.join("member/wal");
    let report = wal::verify(&*disk, &dir).unwrap();
    assert_eq!((report.problems, report.torn), (vec![], None));
    let records = wal::snapshot_records(&*disk, &dir).unwrap();
    let (log, replay) = Wal::open(&disk, &dir, records.last().unwrap()).unwrap();
    assert!(log.last_index() >= at_least && replay.hard_state.term > Some(1), "Go has gone on");
}

#[test]
fn go_replays_our_log() {
    for version in ["3.7.3", "3.6.16", "3.5.35"] {
        let Some(go) = go_release(version) else { continue };
        let scratch = tempfile::tempdir().unwrap();
        let data_dir = scratch.path().join("data");
        write_log(&data_dir);
        let mut member = Member::start(&go, &data_dir, Options::default());
        let keys = get(&go, &member, &["key", "--prefix", "--keys-only"]);
        let expected: Vec<String> = (1..=KEYS).map(|number| format!("key{number:02}")).collect();
        assert_eq!(keys.split_whitespace().collect::<Vec<_>>(), expected, "{version}");
        let value = get(&go, &member, &["key20", "--print-value-only"]);
        assert_eq!(value.trim_end(), "u".repeat(50_000), "{version}");
        member.stop();
        read_back(&data_dir, KEYS + 2);
    }
}

/// A directory of Go 3.5.1 whose log and snapshot files are replaced by ours, in many small segments.
fn write_again(data_dir: &Path) {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new());
    let (log_dir, snap_dir) = (data_dir.join("member/wal"), data_dir.join("member/snap"));
    disk.create_dir_all(&snap_dir, 0o700).unwrap();
    for (path, bytes) in unpack_all("datadir-single-3.5.1") {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "db" {
            let file = disk.open(&snap_dir.join(name), OpenMode::CreateNew, 0o600).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
        } else if name.ends_with(".snap") {
            let snapshot = wal::snap::decode(&bytes.into()).unwrap();
            wal::snap::save(&*disk, &snap_dir, &snapshot).unwrap();
        } else {
            copy_log(&disk, &log_dir, &bytes);
        }
    }
}

fn copy_log(disk: &Arc<dyn Disk>, dir: &Path, bytes: &[u8]) {
    let (records, ..) = records_of(bytes, 0, true);
    let mut log: Option<Wal> = None;
    for record in records {
        match record.kind {
            Kind::Crc => {}
            Kind::Metadata => log = Some(Wal::create_with(disk, dir, &record.data, options(800)).unwrap()),
            Kind::Entry => {
                let found = Entry::decode(&*record.data).unwrap();
                let (index, term) = (found.index.unwrap(), found.term.unwrap());
                let one = [EncodedEntry { index, term, bytes: record.data.into() }];
                log.as_mut().unwrap().append(&one, None, true).unwrap();
            }
            Kind::State => {
                let state = HardState::decode(&*record.data).unwrap();
                log.as_mut().unwrap().append(&[], Some(&state), false).unwrap();
            }
            Kind::Snapshot => {
                let snapshot = walpb::Snapshot::decode(&*record.data).unwrap();
                if snapshot.index.unwrap_or(0) > 0 {
                    log.as_mut().unwrap().save_snapshot(&snapshot).unwrap();
                }
            }
        }
    }
    let mut log = log.unwrap();
    assert!(log.segments().count() > 3);
    log.release_to(33);
    drop(log);
    // Only what a start at the newest snapshot needs.
    let kept = wal::purge(&**disk, dir, 2).unwrap();
    assert!(!kept.is_empty());
}

#[test]
fn go_starts_from_our_snapshot() {
    for version in ["3.7.3", "3.6.16", "3.5.35"] {
        let Some(go) = go_release(version) else { continue };
        let scratch = tempfile::tempdir().unwrap();
        let data_dir = scratch.path().join("data");
        write_again(&data_dir);
        let mut member = Member::spawn(&go, &data_dir, Options::default());
        let root = "--user=root:rootpw";
        let mut value = String::new();
        for _ in 0..100 {
            // The alarm that the directory holds makes the member unhealthy, so it is asked until it answers.
            let endpoints = format!("--endpoints={}", member.endpoint());
            let answer = run(&go.etcdctl, &[&endpoints, root, "get", "foo", "--print-value-only"]);
            if answer.code == 0 {
                value = answer.stdout;
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(value, "bar4\n", "{version}: {}", member.log());
        member.stop();
        read_back(&data_dir, 36);
    }
}
