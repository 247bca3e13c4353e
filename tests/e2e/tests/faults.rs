//! Every operation on the disk fails once, in a member that starts, takes writes, compacts, makes snapshots and
//! stops: whatever happens then, after a power cut nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use api::etcdserverpb as pb;
use api::mvccpb::KeyValue;
use bytes::Bytes;
use disk::mem::MemDisk;
use e2e::faulty_disk::{Class, FaultyDisk};
use e2e::lanes::{Ended, Lanes};
use etcdserver::Config;
use etcdserver::apply::reply::Reply;
use etcdserver::bootstrap::StorageOptions;
use mvcc::{RangeEnd, RangeQuery};
use prost::Message;

const PUT: u32 = 4;
const DELETE: u32 = 5;
const COMPACTION: u32 = 7;
const GRANT: u32 = 8;
const ALARM: u32 = 10;

/// Small, so that segments are cut during a run.
const SEGMENT: u64 = 24 << 10;

/// The log's own room is not what runs out.
const LARGE_SEGMENT: u64 = 8 << 20;

fn config() -> Config {
    Config {
        name: "m0".into(),
        data_dir: "/data".into(),
        initial_cluster: vec![("m0".into(), vec!["http://127.0.0.1:2380".into()])],
        advertise_peer_urls: vec!["http://127.0.0.1:2380".into()],
        advertise_client_urls: vec!["http://127.0.0.1:2379".into()],
        snapshot_count: 15,
        catch_up_entries: 5,
        ..Config::default()
    }
}

/// What was acknowledged, and the one request that may have happened without an answer.
#[derive(Clone, Debug)]
struct Known {
    /// Value and revision of the last acknowledged change of each key; no value for a deletion.
    keys: BTreeMap<Bytes, (Option<Bytes>, i64)>,
    open: Option<(Bytes, Option<Bytes>)>,
    revision: i64,
    compacted: i64,
    leases: usize,
}

impl Known {
    fn nothing() -> Known {
        Known { keys: BTreeMap::new(), open: None, revision: 1, compacted: -1, leases: 0 }
    }

    fn put(&mut self, lanes: &mut Lanes, key: &str, value: &str) -> Result<bool, Ended> {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        self.open = Some((key.clone(), Some(value.clone())));
        let request = pb::PutRequest { key: key.clone(), value: value.clone(), ..pb::PutRequest::default() };
        let answer = lanes.call(PUT, request.encode_to_vec())?;
        if let Some(Ok(Reply::Put { revision, .. })) = answer {
            self.keys.insert(key, (Some(value), revision));
            self.revision = revision;
        }
        if answer.is_some() {
            self.open = None;
        }
        Ok(matches!(answer, Some(Ok(_))))
    }

    fn delete(&mut self, lanes: &mut Lanes, key: &str) -> Result<(), Ended> {
        let key = Bytes::from(key.to_owned());
        self.open = Some((key.clone(), None));
        let request = pb::DeleteRangeRequest { key: key.clone(), ..pb::DeleteRangeRequest::default() };
        let answer = lanes.call(DELETE, request.encode_to_vec())?;
        if let Some(Ok(Reply::DeleteRange { revision, deleted: 1, .. })) = answer {
            self.keys.insert(key, (None, revision));
            self.revision = revision;
        }
        if answer.is_some() {
            self.open = None;
        }
        Ok(())
    }

    fn compact(&mut self, lanes: &mut Lanes, revision: i64) -> Result<(), Ended> {
        let request = pb::CompactionRequest { revision, physical: false };
        if let Some(Ok(_)) = lanes.call(COMPACTION, request.encode_to_vec())? {
            self.compacted = revision;
        }
        Ok(())
    }

    /// Compares a member with what is known.
    fn check(&self, lanes: &Lanes) -> Result<(), String> {
        let view = lanes.view();
        let found = all(lanes);
        let mut names: Vec<&Bytes> = self.keys.keys().chain(found.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let there = found.get(name).map(|kv| (kv.value.clone(), kv.mod_revision));
            let (value, revision) = self.keys.get(name).cloned().unwrap_or((None, 0));
            let acknowledged = value.map(|value| (value, revision));
            let is_open = self.open.as_ref().is_some_and(|(key, value)| {
                key == name && there.as_ref().map(|(value, _)| value) == value.as_ref()
            });
            if there != acknowledged && !is_open {
                return Err(format!("{name:?} is {there:?}, acknowledged was {acknowledged:?}"));
            }
        }
        let newest = self.revision + i64::from(self.open.is_some());
        if !(self.revision..=newest).contains(&view.revision()) {
            return Err(format!("revision {}, acknowledged was {}", view.revision(), self.revision));
        }
        if view.compact_revision() < self.compacted {
            return Err(format!("compacted at {}, acknowledged was {}", view.compact_revision(), self.compacted));
        }
        if lanes.leases() < self.leases {
            return Err(format!("{} leases, acknowledged were {}", lanes.leases(), self.leases));
        }
        bolt::check::check_db(lanes.db()).map_err(|violations| format!("{violations:?}")).map(drop)
    }
}

fn all(lanes: &Lanes) -> BTreeMap<Bytes, KeyValue> {
    let mut found = BTreeMap::new();
    let query = RangeQuery::new(Bytes::from_static(b"\0"), RangeEnd::Unbounded);
    let mut visit = |record: &[u8]| {
        let kv = KeyValue::decode(record).expect("records are whole");
        found.insert(kv.key.clone(), kv);
    };
    lanes.view().range(&query, &mut visit).expect("all can be read");
    found
}

/// Start, writes, deletions, a lease, compaction, snapshots, stop.
fn work(lanes: &mut Lanes, known: &mut Known, from: usize) -> Result<(), Ended> {
    for i in from..from + 24 {
        let padding = "x".repeat(if i % 5 == 0 { 3_000 } else { 100 });
        known.put(lanes, &format!("k{}", i % 7), &format!("value-{i}-{padding}"))?;
        if i % 9 == 8 {
            known.delete(lanes, &format!("k{}", i % 7))?;
        }
        if i == from + 10 {
            let grant = pb::LeaseGrantRequest { ttl: 1_000, id: 77 + from as i64 };
            if let Some(Ok(_)) = lanes.call(GRANT, grant.encode_to_vec())? {
                known.leases += 1;
            }
        }
        if i == from + 15 {
            known.compact(lanes, known.revision - 4)?;
        }
    }
    lanes.idle(10)
}

fn life(disk: Arc<dyn disk::Disk>, known: &mut Known, from: usize) -> Result<(), Ended> {
    let mut lanes = Lanes::start(disk, config(), SEGMENT)?;
    known.check(&lanes).map_err(Ended)?;
    // Whatever the request without an answer came to, it is known now.
    if let Some((key, _)) = known.open.take() {
        known.revision = lanes.view().revision();
        match all(&lanes).remove(&key) {
            Some(kv) => known.keys.insert(key, (Some(kv.value), kv.mod_revision)),
            None => known.keys.remove(&key),
        };
    }
    work(&mut lanes, known, from)?;
    lanes.stop()
}

/// What is left after a power cut starts, holds what was acknowledged, and takes writes.
fn survives(mem: &MemDisk, known: &Known, seed: u64) -> Result<(), String> {
    let survivor: Arc<dyn disk::Disk> = Arc::new(mem.snapshot_after_crash(seed));
    let mut lanes = Lanes::start(survivor, config(), SEGMENT).map_err(|ended| ended.0)?;
    known.check(&lanes)?;
    let mut known = Known { open: None, ..known.clone() };
    if lanes.has_alarm(pb::AlarmType::Nospace as i32) {
        let refused = known.put(&mut lanes, "refused", "yes");
        if refused != Ok(false) {
            return Err(format!("a write under the alarm: {refused:?}"));
        }
        disarm(&mut lanes);
    }
    match known.put(&mut lanes, "afterwards", "yes") {
        Ok(true) => lanes.stop().map_err(|ended| ended.0),
        other => Err(format!("no write afterwards: {other:?}")),
    }
}

fn disarm(lanes: &mut Lanes) {
    let request = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Deactivate as i32,
        member_id: api::ids::member_id(&["http://127.0.0.1:2380".to_owned()], "etcd-cluster", None),
        alarm: pb::AlarmType::Nospace as i32,
    };
    assert!(matches!(lanes.call(ALARM, request.encode_to_vec()), Ok(Some(Ok(_)))), "the alarm can be disarmed");
}

/// What one failure came to.
struct Struck {
    what: String,
    ended: Option<String>,
}

/// Runs two lives with the n-th operation of the second one, or of both, failing, for every n.
fn every(class: Class, kind: ErrorKind, in_second: bool) -> Vec<Struck> {
    let mut all = Vec::new();
    let (base, base_known) = {
        let (mem, mut known) = (MemDisk::new(), Known::nothing());
        if in_second {
            life(Arc::new(mem.clone()), &mut known, 0).expect("nothing fails");
        }
        (mem, known)
    };
    for n in 1.. {
        let mem = base.snapshot_after_kill();
        let mut known = base_known.clone();
        let faulty = FaultyDisk::new(mem.clone(), class, n, kind);
        let result = life(Arc::new(faulty.clone()), &mut known, if in_second { 24 } else { 0 });
        mem.clear_fault();
        for seed in [0, 1, n + 2] {
            if let Err(what) = survives(&mem, &known, seed) {
                panic!("{class:?} {n} ({:?}, {kind:?}), ended: {result:?}, power cut {seed}: {what}", faulty.struck());
            }
        }
        let Some(what) = faulty.struck() else {
            result.expect("nothing failed");
            assert!(n > 20, "only {n} operations");
            return all;
        };
        all.push(Struck { what, ended: result.err().map(|ended| ended.0) });
    }
    unreachable!("every life has an end")
}

fn show(rows: &[Struck]) {
    let mut kinds: BTreeMap<(String, bool), u32> = BTreeMap::new();
    for row in rows {
        let name: String = row.what.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        *kinds.entry((name, row.ended.is_some())).or_default() += 1;
    }
    for ((what, ended), count) in kinds {
        println!("{count:4} {} {what}", if ended { "ended   " } else { "goes on " });
    }
}

#[test]
fn any_operation_fails_in_a_first_life() {
    show(&every(Class::Any, ErrorKind::Other, false));
}

#[test]
fn any_operation_fails_in_a_second_life() {
    show(&every(Class::Any, ErrorKind::Other, true));
}

#[test]
fn a_failed_sync_ends_the_process() {
    let rows = every(Class::Sync, ErrorKind::Other, false);
    show(&rows);
    for row in &rows {
        assert!(row.ended.is_some(), "the process went on after a failed {}", row.what);
    }
}

#[test]
fn no_room_for_a_write_does_not_end_a_running_process() {
    let rows = every(Class::Write, ErrorKind::StorageFull, true);
    show(&rows);
    // Growth and new files may find no room at any time. Where room was reserved, or at a start, it is an error like
    // any other.
    for row in rows.iter().filter(|row| row.what.starts_with("allocate") || row.what.contains("/snap/tmp")) {
        assert_eq!(row.ended, None, "no room for {} ended the process", row.what);
    }
}

#[test]
fn a_full_disk_raises_the_alarm_and_can_be_freed() {
    let mem = MemDisk::new();
    let mut known = Known::nothing();
    let mut lanes = Lanes::start(Arc::new(mem.clone()), config(), LARGE_SEGMENT).expect("there is room");
    let value = "v".repeat(2_000);
    for i in 0..200 {
        known.put(&mut lanes, &format!("k{i:03}"), &value).expect("there is room");
    }
    mem.set_capacity(Some(mem.used_bytes() + (200 << 10)));
    let mut refused = 0;
    for i in 200..1_200 {
        if !known.put(&mut lanes, &format!("k{i:03}"), &value).expect("no room is no reason to end") {
            refused += 1;
            if refused > 3 && lanes.has_alarm(pb::AlarmType::Nospace as i32) {
                break;
            }
        }
    }
    assert!(lanes.no_room > 0 && lanes.has_alarm(pb::AlarmType::Nospace as i32), "no alarm");
    known.check(&lanes).expect("reads go on");
    let mut roomy = mem.snapshot_after_kill();
    roomy.set_capacity(None);
    survives(&roomy, &known, 5).expect("a power cut, and a larger disk");
    roomy = mem.snapshot_after_crash(6);
    let lanes_of_full = Lanes::start(Arc::new(roomy), config(), LARGE_SEGMENT).expect("a start on a full disk");
    known.check(&lanes_of_full).expect("a power cut on a full disk");
    drop(lanes_of_full);

    let keys: Vec<Bytes> = known.keys.keys().cloned().collect();
    for key in &keys[20..] {
        let key = std::str::from_utf8(key).expect("keys are text");
        known.delete(&mut lanes, key).expect("deletions go on");
    }
    known.compact(&mut lanes, known.revision).expect("compaction goes on");
    assert_eq!(known.compacted, known.revision, "compaction is acknowledged under the alarm");
    let before = lanes.db().sizes();
    while lanes.is_compacting() {
        lanes.idle(10).expect("nothing ends");
    }
    lanes.idle(10).expect("nothing ends");
    lanes.defragment().expect("nothing ends");
    let after = lanes.db().sizes();
    assert!(after.total * 4 < before.total, "{before:?}, then {after:?}");
    disarm(&mut lanes);
    for i in 0..20 {
        assert!(known.put(&mut lanes, &format!("again{i}"), &value).expect("there is room again"), "write {i}");
    }
    known.check(&lanes).expect("all is there");
    lanes.stop().expect("the end");
    survives(&mem, &known, 0).expect("after the stop");
}

/// A database whose reserve is soon too small.
fn small_reserve() -> StorageOptions {
    let db = StorageOptions::default().db;
    StorageOptions {
        db: bolt::Options { reserve_bytes: 256 << 10, ..db },
        wal: wal::Options { segment_bytes: LARGE_SEGMENT, ..wal::Options::default() },
    }
}

/// Kills the member here, and cuts its power; what is left starts on the full disk and on a larger one.
fn can_be_killed(mem: &MemDisk, known: &Known, seed: u64) {
    for left in [mem.snapshot_after_kill(), mem.snapshot_after_crash(0), mem.snapshot_after_crash(seed)] {
        for is_full in [true, false] {
            let again = left.snapshot_after_kill();
            again.set_capacity(is_full.then(|| left.used_bytes()));
            let mut lanes = Lanes::start_with(Arc::new(again), config(), &small_reserve()).expect("a start");
            known.check(&lanes).expect("nothing is lost");
            lanes.idle(5).expect("it goes on");
            known.check(&lanes).expect("nothing is lost");
            if !is_full {
                lanes.stop().expect("there is room for all of it");
            }
        }
    }
}

/// Writes gather while the disk is slow, and then they are more than there is room for.
#[test]
fn a_batch_larger_than_the_reserve_becomes_smaller_by_deletions() {
    let mem = MemDisk::new();
    let mut known = Known::nothing();
    let mut lanes = Lanes::start_with(Arc::new(mem.clone()), config(), &small_reserve()).expect("there is room");
    let value = "v".repeat(5_000);
    for i in 0..40 {
        assert!(known.put(&mut lanes, &format!("old{i:02}"), &value).expect("there is room"));
    }
    lanes.idle(10).expect("there is room");
    lanes.commits_wait = true;
    for i in 0..600 {
        assert!(known.put(&mut lanes, &format!("new{i:03}"), &value).expect("the log has room"));
    }
    mem.set_capacity(Some(mem.used_bytes()));
    lanes.commits_wait = false;
    lanes.idle(10).expect("no room is no reason to end");
    assert!(lanes.has_alarm(pb::AlarmType::Nospace as i32) && lanes.is_refused, "there is no room");
    assert!(!known.put(&mut lanes, "more", "no").expect("the alarm is no reason to end"));
    known.open = None;
    let txid = lanes.db().txid();
    for i in 0..590 {
        known.delete(&mut lanes, &format!("new{i:03}")).expect("deletions go on");
        if i % 150 == 30 {
            can_be_killed(&mem, &known, i + 2);
        }
    }
    for i in 0..30 {
        known.delete(&mut lanes, &format!("old{i:02}")).expect("deletions go on");
    }
    known.compact(&mut lanes, known.revision).expect("compaction goes on");
    assert_eq!(lanes.db().txid(), txid, "there was no room until now");
    let mut turns = 0;
    while lanes.is_refused || lanes.is_compacting() {
        if turns % 100 == 1 {
            can_be_killed(&mem, &known, turns + 2);
        }
        lanes.idle(1).expect("nothing ends");
        turns += 1;
        assert!(turns < 2_000, "it does not come to an end");
    }
    assert!(lanes.db().txid() > txid, "the file lags behind");
    lanes.defragment().expect("nothing ends");
    can_be_killed(&mem, &known, 3);
    disarm(&mut lanes);
    for i in 0..10 {
        assert!(known.put(&mut lanes, &format!("again{i}"), &value).expect("there is room again"), "write {i}");
    }
    known.check(&lanes).expect("all is there");
    drop(lanes);
    can_be_killed(&mem, &known, 4);
}

/// What a compaction takes away lies all over the file: to take it at once would need the room of all that is left.
#[test]
fn a_compaction_that_does_not_fit_comes_bit_by_bit() {
    let mem = MemDisk::new();
    let mut known = Known::nothing();
    let mut lanes = Lanes::start_with(Arc::new(mem.clone()), config(), &small_reserve()).expect("there is room");
    let value = "v".repeat(2_000);
    for i in 0..2_600 {
        assert!(known.put(&mut lanes, &format!("k{i:04}"), &value).expect("there is room"));
    }
    lanes.idle(10).expect("there is room");
    mem.set_capacity(Some(mem.used_bytes()));
    lanes.commits_wait = true;
    for i in (0..2_600).step_by(8) {
        known.delete(&mut lanes, &format!("k{i:04}")).expect("deletions go on");
    }
    known.compact(&mut lanes, known.revision).expect("compaction goes on");
    while lanes.is_compacting() {
        lanes.idle(1).expect("nothing ends");
    }
    lanes.commits_wait = false;
    let mut turns = 0;
    while lanes.is_unflushed() {
        if turns % 7 == 0 {
            can_be_killed(&mem, &known, turns + 2);
        }
        lanes.idle(1).expect("nothing ends");
        turns += 1;
        assert!(turns < 200, "it does not come to an end");
    }
    assert!(lanes.bits > 1, "it fitted: {} of {turns} turns left some", lanes.bits);
    lanes.defragment().expect("nothing ends");
    known.check(&lanes).expect("all is there");
    drop(lanes);
    can_be_killed(&mem, &known, 5);
}
