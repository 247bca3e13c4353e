//! Logs and snapshot files written by Go etcd 3.4 to 3.7: every record read, and written again with the same bytes.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::raftpb;
use api::walpb;
use bytes::Bytes;
use disk::mem::MemDisk;
use disk::{Disk, OpenMode};
use prost::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wal::decoder::{Decoder, Frame};
use wal::encoder::Encoder;
use wal::record::Kind;
use wal::segment::SegmentName;
use wal::{EncodedEntry, Wal};

mod go_reads;
mod unpack;

use unpack::{Directory, Segment, expected, unpack};

const DIRECTORIES: [&str; 15] = [
    "datadir-force-new-cluster-3.7.1",
    "datadir-learner-by-snapshot-3.5.1",
    "datadir-migrated-3.4-to-3.7",
    "datadir-restored-3.5.1",
    "datadir-restored-bump-3.7.1",
    "datadir-single-3.4.23",
    "datadir-single-3.5.1",
    "datadir-single-3.5.30",
    "datadir-single-3.6.14",
    "datadir-single-3.7.1",
    "datadir-v2wal-3.4.23",
    "datadir-v2wal-3.5.30",
    "datadir-walcut-3.4.23",
    "datadir-walcut-3.5.1",
    "datadir-walcut-3.7.1",
];
const REENCODED: &str = "reencoded-3.5.1";

/// A record as it was found.
struct Found {
    offset: u64,
    length_field: [u8; 8],
    kind: Kind,
    crc: u32,
    data: Vec<u8>,
}

fn records_of(bytes: &[u8], crc: u32, is_last: bool) -> (Vec<Found>, u64, u32) {
    let mut decoder = Decoder::new(crc, bytes.len() as u64, is_last);
    let mut records = Vec::new();
    loop {
        let offset = decoder.offset();
        let available = &bytes[offset as usize..];
        match decoder.frame(available).expect("Go wrote whole frames") {
            Frame::Whole { record, len } => {
                let found = decoder.take(&available[..len], record).expect("Go wrote good records");
                let length_field = available[..8].try_into().unwrap();
                records.push(Found {
                    offset,
                    length_field,
                    kind: found.kind,
                    crc: found.crc,
                    data: found.data.to_vec(),
                });
            }
            Frame::End => return (records, offset, decoder.crc()),
            Frame::More(_) => panic!("all bytes are at hand"),
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Metadata => "metadata",
        Kind::Entry => "entry",
        Kind::State => "state",
        Kind::Crc => "crc",
        Kind::Snapshot => "snapshot",
    }
}

fn hex_id(id: u64) -> String {
    format!("{id:x}")
}

fn check_content(found: &Found, expected: &Value, story: &str) {
    match found.kind {
        Kind::Crc => {}
        Kind::Metadata => {
            let metadata = api::etcdserverpb::Metadata::decode(&*found.data).unwrap();
            assert_eq!(hex_id(metadata.node_id.unwrap()), expected["metadata"]["NodeID"], "{story}");
            assert_eq!(hex_id(metadata.cluster_id.unwrap()), expected["metadata"]["ClusterID"], "{story}");
        }
        Kind::Entry => {
            let entry = raftpb::Entry::decode(&*found.data).unwrap();
            let wanted = &expected["entry"];
            assert_eq!(entry.index.unwrap(), wanted["index"], "{story}");
            assert_eq!(entry.term.unwrap(), wanted["term"], "{story}");
            assert_eq!(entry.data.as_ref().map_or(0, Bytes::len), wanted["data_len"], "{story}");
            assert_eq!(entry.data.is_some(), wanted["data_present"], "{story}");
            let is_change = entry.r#type == Some(raftpb::EntryType::EntryConfChange as i32);
            assert_eq!(is_change, wanted["type"] == "EntryConfChange", "{story}");
            assert_eq!(entry.r#type.is_some(), wanted.get("type").is_some(), "{story}");
        }
        Kind::State => {
            check_state(&raftpb::HardState::decode(&*found.data).unwrap(), &expected["state"], story);
        }
        Kind::Snapshot => {
            check_snapshot(&walpb::Snapshot::decode(&*found.data).unwrap(), &expected["snapshot"], story);
        }
    }
}

fn check_state(state: &raftpb::HardState, expected: &Value, story: &str) {
    assert_eq!(state.term.unwrap_or(0), expected["term"].as_u64().unwrap_or(0), "{story}");
    assert_eq!(hex_id(state.vote.unwrap_or(0)), expected["vote"].as_str().unwrap_or("0"), "{story}");
    assert_eq!(state.commit.unwrap_or(0), expected["commit"].as_u64().unwrap_or(0), "{story}");
}

fn check_snapshot(snapshot: &walpb::Snapshot, expected: &Value, story: &str) {
    assert_eq!(snapshot.index.unwrap_or(0), expected["index"].as_u64().unwrap_or(0), "{story}");
    assert_eq!(snapshot.term.unwrap_or(0), expected["term"].as_u64().unwrap_or(0), "{story}");
    check_conf_state(snapshot.conf_state.as_ref(), expected.get("conf_state"), story);
}

fn check_conf_state(state: Option<&raftpb::ConfState>, expected: Option<&Value>, story: &str) {
    assert_eq!(state.is_some(), expected.is_some(), "{story}");
    let (Some(state), Some(expected)) = (state, expected) else { return };
    let ids = |name: &str| -> Vec<&str> {
        expected[name]
            .as_array()
            .map(|ids| ids.iter().map(|id| id.as_str().unwrap()).collect())
            .unwrap_or_default()
    };
    assert_eq!(state.voters.iter().copied().map(hex_id).collect::<Vec<_>>(), ids("voters"), "{story}");
    assert_eq!(state.learners.iter().copied().map(hex_id).collect::<Vec<_>>(), ids("learners"), "{story}");
}

fn check_record(found: &Found, expected: &Value, story: &str) {
    let story = &format!("{story}, record at {}", found.offset);
    assert_eq!(found.offset, expected["off"], "{story}");
    let field = format!("{:016x}", u64::from_le_bytes(found.length_field));
    assert_eq!(field, expected["lenfield_be_hex"], "{story}");
    assert_eq!(kind_name(found.kind), expected["type"], "{story}");
    assert_eq!(format!("{:08x}", found.crc), expected["crc"], "{story}");
    check_content(found, expected, story);
}

/// D1 to D5, D11, D13 to D15, D32 to D36: every record of every segment stands where it should and holds what it should.
#[test]
fn every_record_is_read() {
    for name in DIRECTORIES.into_iter().chain([REENCODED]) {
        let directory = unpack(name);
        let expected = expected(name);
        let wal = if name == REENCODED { &expected["wal"] } else { &expected["wal"]["files"] };
        let files = wal.as_array().unwrap();
        assert_eq!(files.len(), directory.segments.len(), "{name}");
        let mut crc = 0;
        let mut entries = Sha256::new();
        for (nth, (file, segment)) in files.iter().zip(&directory.segments).enumerate() {
            let story = &format!("{name}/{}", segment.name);
            assert_eq!(segment.name, file["file"].as_str().unwrap(), "{story}");
            assert_eq!(segment.len, file["size"], "{story}");
            let (records, end, last_crc) = records_of(&segment.bytes, crc, nth + 1 == files.len());
            crc = last_crc;
            assert_eq!(end, file["data_end"], "{story}");
            let list = |name: &str| file[name].as_array().map(Vec::as_slice).unwrap_or_default();
            let (all, first, last) = (list("records"), list("records_first_20"), list("records_last_12"));
            if !all.is_empty() {
                assert_eq!(all.len(), records.len(), "{story}");
            }
            let tail = records.len() - last.len();
            let pairs = records
                .iter()
                .zip(all)
                .chain(records.iter().zip(first))
                .chain(records[tail..].iter().zip(last));
            assert!(pairs.clone().count() > 7, "{story}");
            for (found, wanted) in pairs {
                check_record(found, wanted, story);
            }
            for (kind, count) in file["record_counts"].as_object().into_iter().flatten() {
                let found = records.iter().filter(|record| kind_name(record.kind) == kind).count();
                assert_eq!(found, *count, "{story}: {kind}");
            }
            records.iter().filter(|r| r.kind == Kind::Entry).for_each(|r| entries.update(&r.data));
        }
        if let Some(sum) = expected["wal"].get("sha256_of_all_entry_record_data_in_order") {
            assert_eq!(hex::encode(entries.finalize()), *sum, "{name}");
        }
    }
}

fn on_disk(directory: &Directory) -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/member/wal"), 0o700).unwrap();
    disk.create_dir_all(Path::new("/member/snap"), 0o700).unwrap();
    let put = |folder: &str, name: &str, bytes: &[u8]| {
        let file = disk.open(&Path::new(folder).join(name), OpenMode::CreateNew, 0o600).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    };
    for segment in &directory.segments {
        put("/member/wal", &segment.name, &segment.bytes).set_len(segment.len).unwrap();
    }
    for (name, bytes) in &directory.snapshots {
        put("/member/snap", name, bytes);
    }
    disk
}

/// A log opens at each of its snapshots, and holds the entries and the state that Go's own reader would give.
#[test]
fn logs_open_at_every_snapshot() {
    for name in DIRECTORIES.into_iter().chain([REENCODED]) {
        let directory = unpack(name);
        let (mut snapshots, mut last_state, mut last_entry) = (Vec::new(), raftpb::HardState::default(), 0);
        let mut crc = 0;
        for segment in &directory.segments {
            let (records, _, end) = records_of(&segment.bytes, crc, true);
            crc = end;
            for record in &records {
                match record.kind {
                    Kind::Snapshot => snapshots.push(walpb::Snapshot::decode(&*record.data).unwrap()),
                    Kind::State => last_state = raftpb::HardState::decode(&*record.data).unwrap(),
                    Kind::Entry => last_entry = raftpb::Entry::decode(&*record.data).unwrap().index.unwrap(),
                    _ => {}
                }
            }
        }
        let disk = on_disk(&directory);
        let log = Path::new("/member/wal");
        assert_eq!(wal::snapshot_records(&disk, log).unwrap(), snapshots, "{name}");
        let report = wal::verify(&disk, log).unwrap();
        assert_eq!((report.problems, report.torn), (vec![], None), "{name}");
        assert_eq!(report.entries.unwrap().1, last_entry, "{name}");
        // Opening a 64 MB log fifty times shows nothing new.
        let step = (snapshots.len() / 3).max(1);
        for snapshot in snapshots.iter().rev().step_by(step) {
            let handle: Arc<dyn Disk> = Arc::new(disk.clone());
            let index = snapshot.index.unwrap_or(0);
            if index == 0 && name == "datadir-learner-by-snapshot-3.5.1" {
                let error = Wal::open(&handle, log, snapshot).unwrap_err();
                assert!(error.to_string().contains("entry 5419 follows entry 0"), "{error}");
                continue;
            }
            let (log, replay) = Wal::open(&handle, log, snapshot).unwrap();
            assert!(replay.snapshot_found && !replay.repaired, "{name}");
            assert_eq!(replay.hard_state, last_state, "{name}");
            let found: Vec<u64> = replay.entries.iter().map(|entry| entry.index.unwrap()).collect();
            assert_eq!(found, (index + 1..=last_entry).collect::<Vec<_>>(), "{name}");
            assert_eq!(log.last_index(), last_entry.max(index), "{name}");
        }
    }
}

/// Frames made from what was read are the frames that Go wrote, to the last byte of padding.
#[test]
fn frames_are_written_as_go_writes_them() {
    for name in DIRECTORIES {
        let mut encoder = Encoder::default();
        let mut crc = 0;
        for segment in unpack(name).segments {
            let (records, end, last_crc) = records_of(&segment.bytes, crc, true);
            crc = last_crc;
            let mut written = Vec::with_capacity(end as usize);
            for record in &records {
                match record.kind {
                    Kind::Crc => encoder.put_crc(&mut written),
                    kind => encoder.put(kind, &record.data, &mut written),
                }
            }
            assert!(written == segment.bytes[..end as usize], "{name}/{}", segment.name);
        }
    }
}

/// A log written through [`Wal`] from what was read is Go's log: contents, cuts and file names. (Not for 3.4, whose
/// snapshot records have no configuration: ours always have one.)
#[test]
fn logs_are_written_as_go_writes_them() {
    for name in DIRECTORIES.into_iter().filter(|name| !name.contains("3.4")) {
        let directory = unpack(name);
        let disk = MemDisk::new();
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut log = None;
        let mut crc = 0;
        for (nth, segment) in directory.segments.iter().enumerate() {
            let (records, _, end) = records_of(&segment.bytes, crc, true);
            crc = end;
            if let Some(log) = &mut log {
                assert!(Wal::cut_if_full(log).unwrap(), "{name}: Go cut here");
            }
            // What a segment begins with is written without being asked for.
            let mut written =
                if nth == 0 { vec![Kind::Crc, Kind::Snapshot] } else { vec![Kind::Crc, Kind::State] };
            for record in records {
                if let Some(at) = written.iter().position(|&kind| kind == record.kind) {
                    written.remove(at);
                    continue;
                }
                write_again(&handle, &mut log, &record);
            }
        }
        drop(log);
        let names = disk.read_dir(Path::new("wal")).unwrap();
        assert!(names.iter().eq(directory.segments.iter().map(|segment| &segment.name)), "{name}: {names:?}");
        for Segment { name: segment, bytes, len } in &directory.segments {
            let file = disk.open(&Path::new("wal").join(segment), OpenMode::Read, 0).unwrap();
            assert_eq!(file.len().unwrap(), *len, "{name}/{segment}");
            let mut ours = vec![0; bytes.len()];
            file.read_exact_at(&mut ours, 0).unwrap();
            assert!(ours == *bytes, "{name}/{segment}");
        }
    }
}

fn write_again(disk: &Arc<dyn Disk>, log: &mut Option<Wal>, record: &Found) {
    match record.kind {
        Kind::Metadata if log.is_none() => {
            *log = Some(Wal::create(disk, Path::new("wal"), &record.data).unwrap());
        }
        Kind::Metadata | Kind::Crc => {}
        Kind::Entry => {
            let entry = raftpb::Entry::decode(&*record.data).unwrap();
            let entry = EncodedEntry {
                index: entry.index.unwrap(),
                term: entry.term.unwrap(),
                bytes: record.data.clone().into(),
            };
            log.as_mut().unwrap().write(&[entry], None).unwrap();
        }
        Kind::State => {
            let state = raftpb::HardState::decode(&*record.data).unwrap();
            log.as_mut().unwrap().write(&[], Some(&state)).unwrap();
        }
        Kind::Snapshot => {
            let snapshot = walpb::Snapshot::decode(&*record.data).unwrap();
            log.as_mut().unwrap().save_snapshot(&snapshot).unwrap();
        }
    }
}

/// D26 and its like: snapshot files are read, and encoded again byte for byte.
#[test]
fn snapshot_files() {
    let mut count = 0;
    for name in DIRECTORIES.into_iter().chain([REENCODED]) {
        let directory = unpack(name);
        let expected = expected(name);
        let files = expected["snap_files"].as_array().or(expected["snaps"].as_array());
        let files = files.unwrap_or_else(|| panic!("{name} says nothing about snapshot files"));
        assert_eq!(files.len(), directory.snapshots.len(), "{name}");
        let disk = on_disk(&directory);
        let folder = Path::new("/member/snap");
        for (file, (snapshot, bytes)) in files.iter().zip(&directory.snapshots) {
            let story = &format!("{name}/{snapshot}");
            assert_eq!(file["file"], **snapshot, "{story}");
            let found = wal::snap::load(&disk, &folder.join(snapshot)).unwrap();
            let metadata = found.metadata.as_ref().unwrap();
            let (term, index) = (metadata.term.unwrap(), metadata.index.unwrap());
            assert_eq!(wal::snap::file_name(term, index), *snapshot);
            assert_eq!(wal::snap::parse_file_name(snapshot), Some((term, index)));
            assert_eq!(index, file["metadata"]["index"], "{story}");
            assert_eq!(term, file["metadata"]["term"], "{story}");
            check_conf_state(metadata.conf_state.as_ref(), file["metadata"].get("conf_state"), story);
            assert_eq!(found.data.as_ref().unwrap().len(), file["v2store_len"], "{story}");
            if name != REENCODED {
                assert!(wal::snap::encode(&found) == *bytes, "{story}");
            }
            count += 1;
        }
        let records = wal::snapshot_records(&disk, Path::new("/member/wal")).unwrap();
        let newest = wal::snap::load_newest(&disk, folder, Some(&records)).unwrap();
        let newest = newest.map(|found| found.metadata.unwrap().index.unwrap());
        let expected =
            directory.snapshots.last().map(|(name, _)| wal::snap::parse_file_name(name).unwrap().1);
        assert_eq!(newest, expected, "{name}");
    }
    assert!(count > 30, "{count} files");
}

/// D16 to D24: what Go 3.7.1 did with nine tails of the same segment, ours does.
#[test]
fn torn_tails() {
    const NAME: &str = "0000000000000000-0000000000000000.wal";
    let expected = expected("wal-torn");
    let cases = unpack::unpack_all("wal-torn");
    assert_eq!(cases.len(), 9);
    for (path, bytes) in cases {
        let case = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let wanted = &expected["cases"][&case];
        assert_eq!(hex::encode(Sha256::digest(&bytes)), wanted["sha256"], "{case}");
        let observed = &wanted["observed"]["3.7.1"];
        let disk = MemDisk::new();
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let log = Path::new("/wal");
        disk.create_dir_all(log, 0o700).unwrap();
        disk.open(&log.join(NAME), OpenMode::Create, 0o600).unwrap().write_all_at(&bytes, 0).unwrap();

        let start = walpb::Snapshot { index: Some(33), term: Some(2), conf_state: None };
        let opened = Wal::open(&handle, log, &start);
        assert_eq!(opened.is_ok(), observed["started"], "{case}: {:?}", opened.err());
        let broken = disk.metadata(&log.join(format!("{NAME}.broken"))).unwrap().map(|found| found.len);
        assert_eq!(broken.is_some(), observed["broken_copy_made"], "{case}");
        assert_eq!(broken, observed["broken_copy_size"].as_u64(), "{case}");
        match opened {
            Ok((mut log, replay)) => {
                assert_eq!(replay.repaired, broken.is_some(), "{case}");
                let last = log.last_index();
                assert_eq!(last, 35, "{case}");
                let entry =
                    raftpb::Entry { index: Some(last + 1), term: Some(2), ..raftpb::Entry::default() };
                let entry = EncodedEntry { index: last + 1, term: 2, bytes: entry.encode_to_vec().into() };
                log.append(&[entry], None, true).unwrap();
                drop(log);
                let report = wal::verify(&disk, Path::new("/wal")).unwrap();
                assert_eq!((report.problems, report.torn), (vec![], None), "{case}");
                assert_eq!(report.entries.unwrap().1, 36, "{case}");
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("crc mismatch: expected: ") && text.contains(NAME), "{case}: {text}");
                let mut unchanged = vec![0; bytes.len()];
                let file = disk.open(&log.join(NAME), OpenMode::Read, 0).unwrap();
                file.read_exact_at(&mut unchanged, 0).unwrap();
                assert!(unchanged == bytes, "{case}: a refusal changes nothing");
            }
        }
    }
}

/// D7 to D12, D25: single values.
#[test]
fn byte_vectors() {
    let text = std::fs::read_to_string(unpack::vectors().join("byte-vectors.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for vector in all.as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        if !name.starts_with("WAL ") {
            continue;
        }
        seen += 1;
        let bytes = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
        // A record out of the middle has a checksum that depends on all before it: take its frame only.
        let decoder = Decoder::new(0, bytes.len() as u64, true);
        let Ok(Frame::Whole { record, len }) = decoder.frame(&bytes) else { panic!("{name}") };
        assert_eq!(len, bytes.len(), "{name}");
        let raw = wal::record::RawRecord::parse(&bytes[8..8 + record]).unwrap();
        assert_eq!(raw.kind, vector["decoded"]["type"], "{name}");
        assert_eq!(format!("{:08x}", raw.crc), vector["decoded"]["crc"], "{name}");
        assert_eq!(len - 8 - record, vector["decoded"]["pad"].as_u64().unwrap_or(0) as usize, "{name}");
    }
    assert_eq!(seen, 11);
}

/// D25: both forms of a snapshot record, and the form of ours.
#[test]
fn snapshot_records() {
    let old = walpb::Snapshot::decode(&*hex::decode("080b1002").unwrap()).unwrap();
    assert_eq!((old.index, old.term, old.conf_state), (Some(11), Some(2), None));
    let new = hex::decode("080b10021a0c0882dcaeb7aea9ffb3522800").unwrap();
    let disk = MemDisk::new();
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut log = Wal::create(&handle, Path::new("wal"), b"").unwrap();
    let before = log.offset();
    log.save_snapshot(&walpb::Snapshot::decode(&*new).unwrap()).unwrap();
    let path = Path::new("wal").join(SegmentName { sequence: 0, index: 0 }.to_string());
    let mut bytes = vec![0; (log.offset() - before) as usize];
    disk.open(&path, OpenMode::Read, 0).unwrap().read_exact_at(&mut bytes, before).unwrap();
    assert!(bytes.windows(new.len()).any(|window| window == new), "{}", hex::encode(bytes));
}

/// D34: entries that are no v3 requests ask for no version; the others say which one they need.
#[test]
fn versions_that_logs_need() {
    let version = |name: &str| {
        let disk = on_disk(&unpack(name));
        let replay = wal::read(&disk, &PathBuf::from("/member/wal"), &walpb::Snapshot::default()).unwrap();
        wal::minimal_version(&replay.entries).map(|minor| minor.to_string())
    };
    assert_eq!(version("datadir-single-3.4.23").as_deref(), Some("3.4"));
    assert_eq!(version("datadir-single-3.7.1").as_deref(), Some("3.5"), "ClusterVersionSet");
    assert!(version("datadir-v2wal-3.4.23").is_none_or(|version| version.as_str() < "3.4"));
}
