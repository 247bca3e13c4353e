//! The case table of the lease service, by id, as far as it needs neither clock nor cluster.

use super::op::{self, p, t, then};
use super::*;

fn leased(key: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { lease, ..put(key, "v") }
}

#[test]
fn le_001_to_008_grants() {
    let mut lane = Lane::new();
    for (id, ttl, effective) in [(1, 0, 2), (2, 1, 2), (3, -5, 2), (4, 2, 2), (123, 60, 60), (-9, 60, 60)] {
        assert_eq!(lane.grant(id, ttl).unwrap(), Reply::LeaseGrant { revision: 1, id, ttl: effective });
        assert_eq!(lane.last.leases, [LeaseChange::Granted { id, ttl: effective, remaining: 0 }]);
    }
    assert_eq!(refused(lane.grant(123, 60)), "lease already exists");
    assert!(lane.grant(7, 9_000_000_000).is_ok());
    assert_eq!(refused(lane.grant(8, 9_000_000_001)), "too large lease TTL");
    assert_eq!(refused(lane.grant(123, 9_000_000_001)), "too large lease TTL");
    assert_eq!(refused(lane.grant(0, 60)), LEASE_NOT_FOUND);
    assert_eq!(lane.revision(), 1);
    assert!(lane.last.leases.is_empty());
}

#[test]
fn le_018_to_021_revokes() {
    let mut lane = Lane::new();
    lane.grant(123, 60).unwrap();
    lane.put(leased("x", 123)).unwrap();
    lane.put(leased("w", 123)).unwrap();
    assert_eq!(lane.revoke(123).unwrap(), Reply::LeaseRevoke { revision: 4 });
    let keys: Vec<_> = lane.last.events[0].events.iter().map(|event| event.key.clone()).collect();
    assert_eq!(keys, ["w", "x"], "in byte order, under one revision");
    assert_eq!(lane.last.leases, [LeaseChange::Revoked { id: 123 }]);
    assert_eq!((lane.get("x"), lane.get("w")), (None, None));
    for id in [123, 888, 0] {
        assert_eq!(refused(lane.revoke(id)), LEASE_NOT_FOUND);
    }
    lane.grant(5, 60).unwrap();
    assert_eq!(lane.revoke(5).unwrap().revision(), 4, "020");
    assert!(lane.grant(123, 60).is_ok(), "021");
}

#[test]
fn le_028_029_a_put_without_the_lease_detaches() {
    let mut lane = Lane::new();
    lane.grant(777, 60).unwrap();
    lane.txn(then(vec![op::put(leased("tl", 777))])).unwrap();
    assert_eq!(lane.keys_of(777), ["tl"]);
    lane.delete(del("tl", "")).unwrap();
    assert!(lane.keys_of(777).is_empty());
    lane.p("tl", "2");
    lane.revoke(777).unwrap();
    assert!(lane.get("tl").is_some());
}

#[test]
fn le_026_027_leases_and_attachments_survive_a_restart() {
    let mut lane = Lane::new();
    lane.grant(9, 60).unwrap();
    lane.grant(4, 1).unwrap();
    for key in ["pers", "other", "gone"] {
        lane.put(leased(key, 9)).unwrap();
    }
    lane.delete(del("gone", "")).unwrap();
    lane.p("other", "detached");
    let lane = lane.restart();
    assert_eq!(lane.keys_of(9), ["pers"]);
    let granted = |id, ttl| LeaseChange::Granted { id, ttl, remaining: 0 };
    assert_eq!(lane.applier.leases(), [granted(4, 2), granted(9, 60)]);
}

#[test]
fn a_lease_given_and_taken_inside_one_transaction_ends_where_the_last_operation_left_it() {
    let mut lane = Lane::new();
    lane.grant(1, 60).unwrap();
    lane.grant(2, 60).unwrap();
    lane.put(leased("a", 1)).unwrap();
    // The deletion comes after the nested put: order of execution decides, not that of kinds.
    lane.txn(then(vec![t(then(vec![op::put(leased("a", 2))])), t(then(vec![op::d("a", "")]))])).unwrap();
    assert_eq!((lane.keys_of(1).len(), lane.keys_of(2).len()), (0, 0));
    lane.txn(then(vec![op::d("\0", "\0"), op::put(leased("a", 2)), p("b", "1")])).unwrap();
    assert_eq!(lane.keys_of(2), ["a"]);
}

fn checkpoint(lane: &mut Lane, id: i64, remaining: i64) -> Answer {
    let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl: remaining }];
    let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
    lane.ask(pb::InternalRaftRequest { lease_checkpoint, ..Default::default() })
}

#[test]
fn le_044_checkpoints_are_stored_from_cluster_version_3_6_on() {
    for (version, settings, stored) in [
        ("3.6.0", settings(), true),
        ("3.5.0", settings(), false),
        ("3.5.0", Settings { store_checkpoints: true, ..settings() }, true),
    ] {
        let mut lane = Lane::with(settings);
        let set = api::membershippb::ClusterVersionSetRequest { ver: version.into() };
        lane.ask(pb::InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() }).unwrap();
        lane.grant(1, 3600).unwrap();
        checkpoint(&mut lane, 1, 3300).unwrap();
        assert_eq!(lane.last.leases, [LeaseChange::Checkpointed { id: 1, remaining: 3300 }]);
        checkpoint(&mut lane, 77, 1).unwrap();
        assert!(lane.last.leases.is_empty(), "a lease that is gone is passed over");
        let remaining = if stored { 3300 } else { 0 };
        assert_eq!(
            lane.restart().applier.leases(),
            [LeaseChange::Granted { id: 1, ttl: 3600, remaining }],
            "{version}"
        );
    }
}
