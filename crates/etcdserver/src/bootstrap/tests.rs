//! Bootstrap: new members, restarts, directories of all releases, and directories that are refused.

use std::io;
use std::path::Path;
use std::sync::Arc;

use disk::mem::MemDisk;
use disk::{Disk, OpenMode};

use self::machine::{Broken, Machine, config, options, unpack};
use super::*;
use crate::membership::Member;
use crate::raft::Role;

mod machine;

fn start(disk: &MemDisk, config: &Config) -> Machine {
    Machine::start(disk, config, 0).unwrap_or_else(|e| panic!("{e:?}"))
}

fn refused(disk: &MemDisk, config: &Config) -> String {
    match Machine::start(disk, config, 0) {
        Err(Broken::Bootstrap(error)) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it starts"),
    }
}

/// The directories of single members hold a NOSPACE alarm of a member cafe, which is none of theirs.
fn clear_alarm(machine: &mut Machine) {
    let request = api::etcdserverpb::AlarmRequest { action: 2, member_id: 0xcafe, alarm: 1 };
    assert!(machine.propose(10, request.encode_to_vec()).unwrap());
}

fn named(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        initial_cluster: vec![(name.to_owned(), vec!["http://127.0.0.1:2380".to_owned()])],
        initial_cluster_token: "etcd-cluster-0".to_owned(),
        advertise_peer_urls: vec!["http://127.0.0.1:2380".to_owned()],
        ..config()
    }
}

#[test]
fn a_new_member_starts_as_etcd_does_and_comes_back_after_a_kill() {
    let disk = MemDisk::new();
    let mut machine = start(&disk, &named("server"));
    assert_eq!(format!("{:x}", machine.report.member_id), "6702b0a34e2cfd39");
    assert_eq!(format!("{:x}", machine.report.cluster_id), "1dda2deacb7d5fb1");
    let status = machine.node.status();
    assert_eq!(
        (status.term, status.committed, status.applied),
        (2, 4, 4),
        "as etcdctl endpoint status shows it"
    );
    assert!(machine.published && machine.node.reads_are_local());
    let own = machine.applier.cluster().local().unwrap().clone();
    assert_eq!((own.name.as_str(), own.client_urls.len()), ("server", 1));
    assert_eq!(machine.applier.cluster().version().unwrap().to_string(), "3.7.0");
    assert!(machine.put("key1", "value1").unwrap());
    machine.commit().unwrap();
    assert!(machine.put("key2", "value2").unwrap());

    // Cluster flags mean nothing any more (B19).
    let other = Config { name: "renamed".to_owned(), initial_cluster: vec![], ..config() };
    for (boot, disk) in [disk.snapshot_after_kill(), disk.snapshot_after_crash(7)].iter().enumerate() {
        let again = Machine::start(disk, &other, boot as u64 + 1).unwrap();
        assert!(!again.report.is_new);
        assert_eq!(again.report.member_id, machine.report.member_id);
        assert_eq!(again.report.consistent_index, 5);
        assert_eq!(again.node.status().term, 3);
        assert_eq!(again.get("key1").as_deref(), Some("value1"));
        assert_eq!(again.get("key2").as_deref(), Some("value2"), "what was acknowledged is in the log");
        assert_eq!(
            again.applier.cluster().local().unwrap().name,
            "renamed",
            "name and client URLs follow the flags"
        );
    }
}

#[test]
fn b1_to_b4_founders_whose_settings_disagree() {
    let check = |config: Config| refused(&MemDisk::new(), &config);
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    assert_eq!(
        check(Config { name: "a".to_owned(), ..named("b") }),
        "couldn't find local name \"a\" in the initial cluster configuration"
    );
    let two = Config { initial_cluster: vec![("a".to_owned(), vec![url(9999)])], ..named("a") };
    assert_eq!(
        check(two),
        "--initial-cluster has a=http://127.0.0.1:9999 but missing from \
         --initial-advertise-peer-urls=http://127.0.0.1:2380 (resolved urls: \"http://127.0.0.1:2380\" != \
         \"http://127.0.0.1:9999\")"
    );
    let three = Config { advertise_peer_urls: vec![url(2380), url(9998)], ..named("a") };
    assert!(check(three).starts_with(
        "--initial-advertise-peer-urls has http://127.0.0.1:9998 but missing from --initial-cluster=a="
    ));
    let mut four = named("a");
    four.initial_cluster.push(("b".to_owned(), vec![url(2380)]));
    assert!(check(four).ends_with("has duplicate url"));
    assert_eq!(
        check(Config { initial_cluster: vec![], ..named("a") }),
        "couldn't find local name \"a\" in the initial cluster configuration"
    );
    assert_eq!(
        check(Config { new_cluster: false, ..named("a") }),
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
    );
}

#[test]
fn who_joins_has_an_empty_log_and_waits() {
    let joining = Founding {
        local_id: 7,
        cluster_id: 9,
        members: vec![Member { id: 7, ..Member::default() }, Member { id: 8, ..Member::default() }],
    };
    let disk = MemDisk::new();
    let joiner = Config { new_cluster: false, joining: Some(joining), ..named("a") };
    let machine = start(&disk, &joiner);
    assert_eq!((machine.report.member_id, machine.report.cluster_id), (7, 9));
    let status = machine.node.status();
    assert_eq!((status.last_index, status.committed, status.voters.len(), status.term), (0, 0, 0, 0));
    let again = Machine::start(&disk.snapshot_after_kill(), &Config { joining: None, ..joiner }, 1).unwrap();
    assert_eq!((again.report.member_id, again.report.cluster_id), (7, 9));
    assert_eq!(again.node.status().last_index, 0);
}

#[test]
fn p4_three_founders_have_gos_ids_and_wait_for_each_other() {
    let ports = [13402, 13412, 13422];
    let cluster = (0..3).map(|i| (format!("m{i}"), vec![format!("http://127.0.0.1:{}", ports[i])])).collect();
    let config = Config {
        name: "m1".to_owned(),
        initial_cluster: cluster,
        initial_cluster_token: "tok".to_owned(),
        advertise_peer_urls: vec!["http://127.0.0.1:13412".to_owned()],
        ..config()
    };
    let founding = check_founding(&config).unwrap();
    assert_eq!(format!("{:x}", founding.cluster_id), "cadd648ecaffa2d9");
    assert_eq!(format!("{:x}", founding.local_id), "971759b910cc6dd");
    let disk = MemDisk::new();
    let machine = start(&disk, &config);
    let status = machine.node.status();
    assert_eq!((status.committed, status.applied, status.voters.len(), status.leader), (3, 3, 3, 0));
    assert!(status.voters.windows(2).all(|pair| pair[0] < pair[1]));
}

/// Every data directory that Go left as a single member: it starts, agrees with Go about all keys, takes a write,
/// and starts again.
#[test]
fn directories_of_every_go_version_go_on() {
    for (name, hash_at_8) in [
        ("datadir-single-3.4.23", Some(3_833_388_712)),
        ("datadir-single-3.5.1", Some(3_833_388_712)),
        ("datadir-single-3.5.30", Some(3_833_388_712)),
        ("datadir-single-3.6.14", Some(3_833_388_712)),
        ("datadir-single-3.7.1", Some(3_833_388_712)),
        ("reencoded-3.5.1", None),
        ("datadir-walcut-3.7.1", None),
        ("datadir-v2wal-3.4.23", None),
        ("datadir-v2wal-3.5.30", None),
        ("datadir-migrated-3.4-to-3.7", None),
    ] {
        let disk = unpack(name);
        let mut machine = start(&disk, &config());
        if let Some(hash) = hash_at_8 {
            assert_eq!(machine.applier.store().view().hash_kv(8).unwrap().hash, hash, "{name}");
        }
        assert_eq!(machine.node.status().role, Role::Leader, "{name}");
        assert!(machine.published, "{name}");
        assert_eq!(machine.applier.cluster().version().unwrap().to_string(), "3.7.0", "{name}: raised");
        let own = machine.applier.cluster().local().unwrap();
        assert!(!own.peer_urls.is_empty() && !own.client_urls.is_empty(), "{name}");
        clear_alarm(&mut machine);
        assert!(machine.put("after", name).unwrap(), "{name}: {:?}", machine.answered);
        machine.commit().unwrap();
        drop(machine);
        let again = start(&disk.snapshot_after_crash(3), &config());
        assert_eq!(again.get("after").as_deref(), Some(name));
        assert!(
            again.report.reconciled == 0 || again.report.storage_version.as_deref() < Some("3.6"),
            "{name}"
        );
    }
}

#[test]
fn d34_v2_entries_are_covered_by_a_snapshot_at_once() {
    for name in ["datadir-v2wal-3.4.23", "datadir-v2wal-3.5.30"] {
        let disk = unpack(name);
        let machine = start(&disk, &config());
        let records = wal::snapshot_records(&*machine.disk, &machine.config.wal_path()).unwrap();
        let newest = records.last().unwrap();
        assert!(newest.index() >= 5, "{name}: {records:?}");
        assert_eq!(newest.conf_state.as_ref().unwrap().voters, [machine.report.member_id]);
        let file =
            wal::snap::load_newest(&*machine.disk, &machine.config.snap_dir(), Some(&records)).unwrap();
        let tree = crate::membership::V2Membership::parse(file.unwrap().data()).unwrap();
        assert_eq!(tree.members.len(), 1);
        drop(machine);
        // From the snapshot on there is nothing left that 3.6 and 3.7 cannot read.
        let again = start(&disk, &config());
        assert_eq!(again.report.snapshot_index, newest.index());
        let read = wal::read(&disk, Path::new("/data/member/wal"), newest).unwrap();
        assert_eq!(last_v2_entry(&read.entries), 0);
    }
}

/// etcd issues 19557, 20793, 20967: members of 3.5 lived on as zombies, or as learners, after the upgrade to 3.6,
/// because the database's copy of the members had never been rewritten. Here it is put right from the `.snap` file
/// and the log before anything reads it.
#[test]
fn issue_19557_members_of_3_5_are_taken_from_where_3_5_kept_them() {
    let disk = unpack("datadir-learner-by-snapshot-3.5.1");
    let before: Arc<dyn Disk> = Arc::new(unpack("datadir-learner-by-snapshot-3.5.1"));
    let db = bolt::Db::open(&before, Path::new("/data/member/snap/db"), options().db).unwrap();
    let (store, _) = mvcc::Store::restore(db.reader().view()).unwrap();
    let stale = store.side(Bucket::Members, b"e3ae70f01acdcb34").unwrap();
    assert!(std::str::from_utf8(&stale).unwrap().contains("isLearner"), "as 3.5.1 left it");

    let mut machine = start(&disk, &config());
    assert_eq!(machine.report.snapshot_index, 5418);
    assert_eq!(machine.report.consistent_index, 5421);
    assert!(machine.report.reconciled >= 1);
    let own = machine.applier.cluster().local().unwrap().clone();
    assert_eq!(format!("{:x}", own.id), "e3ae70f01acdcb34");
    assert!(!own.is_learner, "it was promoted");
    assert!(!own.name.is_empty() && !own.client_urls.is_empty(), "and had published itself: {own:?}");
    assert_eq!(machine.node.status().voters.len(), 4);
    machine.commit().unwrap();
    drop(machine);
    let again = start(&disk, &config());
    assert_eq!(again.report.reconciled, 0, "once is enough");
    assert_eq!(again.node.status().voters.len(), 4);

    // 3.5.1 lost the client URLs of the single member too.
    let disk = unpack("datadir-single-3.5.1");
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let recovered = bootstrap(&disk, &config(), &options()).unwrap();
    assert_eq!(recovered.cluster.local().unwrap().client_urls, ["http://127.0.0.1:13379"]);
    assert_eq!(recovered.report.reconciled, 1);
}

#[test]
fn d32_restored_directories_start_with_their_new_members() {
    for name in ["datadir-restored-3.5.1", "datadir-restored-bump-3.7.1"] {
        let machine = start(&unpack(name), &config());
        let status = machine.node.status();
        assert_eq!((status.term, status.committed, status.applied), (1, 3, 3), "{name}");
        // The stored conf state names a member of the old cluster; nobody believes it.
        assert_eq!(
            status.voters,
            [0x1eec_9398_88da_ccae, 0x5894_a9d4_6c2d_0599, 0xe3a0_0a5f_4960_bba9],
            "{name}"
        );
        assert_eq!(machine.report.snapshot_index, 3);
        let bumped = name.contains("bump");
        assert_eq!(machine.report.current_revision, if bumped { 1012 } else { 12 }, "{name}");
    }
}

#[test]
fn b23_a_directory_of_force_new_cluster_has_one_member_left() {
    let machine = start(&unpack("datadir-force-new-cluster-3.7.1"), &config());
    assert_eq!(machine.node.status().voters, [machine.report.member_id]);
    assert_eq!(machine.node.status().role, Role::Leader);
    assert!(machine.applier.cluster().removed().len() >= 2, "the others can never come back");
}

#[test]
fn b23_a_member_of_a_lost_cluster_goes_on_alone() {
    let three = (0..3).map(|i| (format!("m{i}"), vec![format!("http://127.0.0.1:{}", 13402 + i)])).collect();
    let config = Config {
        name: "m1".to_owned(),
        initial_cluster: three,
        advertise_peer_urls: vec!["http://127.0.0.1:13403".to_owned()],
        ..config()
    };
    let disk = MemDisk::new();
    let before = start(&disk, &config);
    assert_eq!(before.node.status().leader, 0, "two of three are missing");
    let disk = disk.snapshot_after_kill();
    let alone = start(&disk, &Config { force_new_cluster: true, ..config.clone() });
    assert_eq!(alone.report.member_id, before.report.member_id);
    assert_eq!(alone.report.cluster_id, before.report.cluster_id);
    assert_eq!(alone.node.status().voters, [before.report.member_id]);
    assert_eq!(alone.node.status().role, Role::Leader);
    assert_eq!(alone.applier.cluster().removed().len(), 2);
    assert_eq!(alone.applier.cluster().members().len(), 1);
    // The flag may be left where it is, and need not be.
    let disk = disk.snapshot_after_kill();
    let again = start(&disk, &Config { force_new_cluster: true, ..config.clone() });
    assert_eq!(again.node.status().role, Role::Leader);
    let again = start(&disk.snapshot_after_kill(), &config);
    assert_eq!(again.node.status().role, Role::Leader);
}

#[test]
fn b20_b21_a_missing_database() {
    let disk = unpack("datadir-v2wal-3.5.30");
    disk.remove_file(Path::new("/data/member/snap/db")).unwrap();
    let machine = start(&disk, &config());
    assert_eq!(machine.report.consistent_index, 0);
    assert!(machine.node.status().applied >= 5, "the log is whole: all is built again from it");
    assert_eq!(machine.node.status().voters.len(), 1);

    let disk = unpack("datadir-single-3.7.1");
    disk.remove_file(Path::new("/data/member/snap/db")).unwrap();
    let why = refused(&disk, &config());
    assert!(why.contains("failed to recover v3 backend from snapshot"), "{why}");
    assert!(why.contains("snap: snapshot file doesn't exist"), "{why}");
}

#[test]
fn b22_a_database_without_its_log_is_refused() {
    let disk = unpack("datadir-single-3.7.1");
    disk.remove_dir_all(Path::new("/data/member/wal")).unwrap();
    let why = refused(&disk, &config());
    assert!(
        why.contains("/data/member/snap/db") && why.contains("index 35") && why.contains("/data/member/wal"),
        "{why}"
    );
}

#[test]
fn b26_b35_newer_storage_and_newer_clusters() {
    let of = |minor: u32| Config { version: Minor::new(3, minor).cluster(), ..config() };
    assert_eq!(refused(&unpack("datadir-single-3.7.1"), &of(6)), "version \"3.7.0\" is not supported");
    assert_eq!(refused(&unpack("datadir-single-3.6.14"), &of(5)), "version \"3.6.0\" is not supported");
    let disk = unpack("datadir-single-3.5.30");
    let why = refused(&disk, &of(4));
    assert!(why.contains("version \"3.5.0\" is not supported"), "{why}");

    // A member that emulates the directory's own version never raises anything.
    for (name, minor, agreed) in
        [("datadir-single-3.5.30", 5, "3.5.0"), ("datadir-single-3.6.14", 6, "3.6.0")]
    {
        let mut machine = start(&unpack(name), &of(minor));
        clear_alarm(&mut machine);
        assert!(machine.put("a", "b").unwrap());
        machine.tick(50).unwrap();
        assert_eq!(machine.applier.cluster().version().unwrap().to_string(), agreed);
    }
}

#[test]
fn a_proxy_directory_is_no_members() {
    let disk = MemDisk::new();
    disk::create_dir_durable(&disk, Path::new("/data/proxy"), 0o700).unwrap();
    assert!(refused(&disk, &config()).contains("v2 proxy"));
}

#[test]
fn snapshots_are_taken_and_the_log_released() {
    let config = Config { snapshot_count: 20, catch_up_entries: 5, ..named("server") };
    let disk = MemDisk::new();
    let mut machine = start(&disk, &config);
    for i in 0..100 {
        assert!(machine.put(&format!("k{i}"), "v").unwrap());
    }
    let records = wal::snapshot_records(&*machine.disk, &config.wal_path()).unwrap();
    assert!(records.len() >= 5, "{records:?}");
    let newest = records.last().unwrap().index();
    drop(machine);
    let again = start(&disk.snapshot_after_crash(1), &config);
    assert_eq!(again.report.snapshot_index, newest);
    assert!(again.report.consistent_index >= newest);
    assert_eq!(again.get("k99").as_deref(), Some("v"));
}

/// A database that was received and not taken over before the crash takes the place of the old one now.
#[test]
fn a_received_database_is_swapped_in() {
    let from = unpack("datadir-single-3.7.1");
    let disk = MemDisk::new();
    let mut machine = start(&disk, &named("server"));
    let snap = Path::new("/data/member/snap");
    let received = from.open(&snap.join("db"), OpenMode::Read, 0).unwrap();
    let mut bytes = vec![0; received.len().unwrap() as usize];
    received.read_exact_at(&mut bytes, 0).unwrap();
    let mut arriving = wal::snap::ReceivedDb::create(&disk, snap).unwrap();
    arriving.write(&bytes).unwrap();
    arriving.finish(35).unwrap();
    let contents = crate::snapshot::contents(machine.applier.cluster(), 35, 2);
    let append = crate::effect::Append {
        ready: 9,
        snapshot: Some(contents),
        entries: vec![],
        hard_state: Some(raftpb::HardState { term: Some(2), vote: Some(0), commit: Some(35) }),
        must_sync: true,
    };
    crate::snapshot::append(&disk, snap, &mut machine.wal, &append).unwrap();
    drop(machine);
    let disk: Arc<dyn Disk> = Arc::new(disk.snapshot_after_crash(5));
    let recovered = bootstrap(&disk, &config(), &options()).unwrap();
    assert_eq!(recovered.report.swapped_database, Some(35));
    assert_eq!(recovered.report.current_revision, 12);
    assert_eq!((recovered.start.log_start, recovered.start.applied), ((35, 2), 35));
    assert!(disk.metadata(&snap.join("0000000000000023.snap.db")).unwrap().is_none());
}

#[test]
fn a_second_process_is_kept_out() {
    let disk = MemDisk::new();
    let _first = start(&disk, &named("server"));
    let why = refused(&disk, &named("server"));
    assert!(why.contains("another process"), "{why}");
}

#[test]
fn a_log_of_nobody_is_refused() {
    let disk = MemDisk::new();
    disk::create_dir_durable(&disk, Path::new("/data/member"), 0o700).unwrap();
    let handle: Arc<dyn Disk> = Arc::new(disk.clone());
    drop(wal::Wal::create_with(&handle, Path::new("/data/member/wal"), b"", options().wal).unwrap());
    assert!(refused(&disk, &config()).contains("does not say which member"));
}

/// Fails the n-th operation on the disk during the first life, for every n until it succeeds, and starts again on
/// what is left: nothing acknowledged is lost, and the member keeps its identity.
#[test]
fn a_first_start_may_die_anywhere() {
    let mut completed = false;
    for n in 1..400 {
        let disk = MemDisk::new();
        disk.fail_from(n, io::ErrorKind::Other);
        let acknowledged = match Machine::start(&disk, &named("server"), 0) {
            Ok(mut machine) => {
                let put = machine.put("key", "value");
                let committed = machine.commit();
                completed = put.is_ok() && committed.is_ok();
                put.is_ok_and(|done| done)
            }
            Err(_) => false,
        };
        disk.clear_fault();
        for left in [disk.snapshot_after_kill(), disk.snapshot_after_crash(n)] {
            let mut again = Machine::start(&left, &named("server"), 1)
                .unwrap_or_else(|e| panic!("operation {n} failed, and then the start does: {e:?}"));
            assert_eq!(format!("{:x}", again.report.member_id), "6702b0a34e2cfd39");
            assert!(again.published, "operation {n}");
            assert!(
                !acknowledged || again.get("key").as_deref() == Some("value"),
                "operation {n} loses a write"
            );
            assert!(again.put("more", "x").unwrap());
        }
        if completed {
            assert!(n > 20, "{n} operations are too few to prove anything");
            return;
        }
    }
    panic!("the first life never completes");
}
