//! Bugs that etcd had and that must have no place to live here: the story first, then the test.

use super::op::{self, cmp, d, p, r, t, then, txn};
use super::*;

/// 13766 (3.5.0 to 3.5.2): members diverged after a crash under load, because the consistent index was saved apart
/// from the data it describes. Here both are part of one batch: whatever commit a crash leaves as the last one, the
/// file's index says exactly which entries its keys hold.
#[test]
fn bug_13766_the_index_in_the_file_is_that_of_its_data() {
    let mut lane = Lane::new();
    for round in 0..20 {
        for _ in 0..round % 4 {
            lane.p("k", "v");
        }
        // A frozen batch that a crash keeps from being committed must not show in the file.
        lane.freeze();
        lane.p("k", "late");
        if round % 2 == 0 {
            lane.commit();
        }
        let view = lane.db.reader().view();
        let index = view.get(b"meta", b"consistent_index").unwrap();
        let index = index.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        let (store, restored) = Store::restore(view).unwrap();
        assert_eq!(restored.consistent_index, index);
        // Every entry here is one put, so index and revision go together.
        assert_eq!(store.revision(), 1 + i64::try_from(index).unwrap());
    }
}

/// 14571: enabling auth made members differ, because apply consulted local auth state. Here the decision is a pure
/// function of replicated state: a member that was restarted, or caught up late, decides as the others did.
#[test]
fn bug_14571_members_that_join_auth_at_another_time_decide_alike() {
    type R = pb::InternalRaftRequest;
    let script = || {
        let add = |name: &str| R {
            auth_user_add: Some(pb::AuthUserAddRequest { name: name.into(), ..Default::default() }),
            ..R::default()
        };
        let role = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        let by = |revision, key| {
            let header = Some(pb::RequestHeader { id: 0, username: "u".into(), auth_revision: revision });
            R { header, put: Some(put(key, "v")), ..R::default() }
        };
        vec![
            add("root"),
            R { auth_user_grant_role: Some(role), ..R::default() },
            add("u"),
            by(4, "before"),
            R { auth_enable: Some(pb::AuthEnableRequest {}), ..R::default() },
            by(4, "denied"),
            by(3, "old"),
            by(0, "nobody"),
        ]
    };
    let run = |restart_after: usize| {
        let mut lane = Lane::new();
        let mut answers = Vec::new();
        for (at, request) in script().into_iter().enumerate() {
            lane.user = request.header.map_or((String::new(), 0), |h| (h.username, h.auth_revision));
            answers.push(lane.ask(R { header: None, ..request }));
            if at == restart_after {
                lane = lane.restart();
            }
        }
        (answers, lane.hash())
    };
    let whole = run(usize::MAX);
    assert_eq!(refused(whole.0[5].clone()), "permission denied");
    assert_eq!(refused(whole.0[6].clone()), "revision of auth store is old");
    assert_eq!(refused(whole.0[7].clone()), "user name is empty");
    for restart_after in 0..script().len() {
        assert_eq!(run(restart_after), whole, "restarted after entry {restart_after}");
    }
}

/// 18667, 21432: transactions that read at the compacted revision differed between members, because apply saw how
/// far its own compaction had come. Here only the replicated compact revision is visible to it.
#[test]
fn bug_18667_21432_apply_sees_the_replicated_compact_revision_only() {
    let run = |steps: usize| {
        let mut lane = Lane::new();
        for at in 0..30 {
            lane.p(&format!("k{}", at % 5), &at.to_string());
        }
        lane.delete(del("k1", "")).unwrap();
        lane.compact(20).unwrap();
        for _ in 0..steps {
            lane.applier.store_mut().compaction_step(3).unwrap();
        }
        let mut answers = Vec::new();
        for revision in 18..23 {
            let at = pb::RangeRequest { revision, ..list("\0", "\0") };
            let request = txn(
                vec![cmp("k1", "", '=', pb::compare::TargetUnion::Version(0))],
                vec![op::range(at), p("done", &revision.to_string())],
                vec![],
            );
            answers.push(lane.txn(request));
        }
        lane.finish_compaction();
        (answers, lane.hash())
    };
    let none = run(0);
    assert_eq!(refused(none.0[0].clone()), COMPACTED);
    assert_eq!(refused(none.0[1].clone()), COMPACTED);
    assert!(none.0[2].is_ok(), "the compact revision itself can be read");
    for steps in 1..12 {
        assert_eq!(run(steps), none, "{steps} steps done");
    }
}

/// 17780: the revision went down after a crash in compaction, when the newest record was a tombstone that the
/// compaction had taken away.
#[test]
fn bug_17780_the_revision_does_not_go_down() {
    let mut lane = Lane::new();
    lane.p("k", "v");
    lane.delete(del("k", "")).unwrap();
    let revision = lane.revision();
    lane.compact(revision).unwrap();
    lane.finish_compaction();
    assert_eq!(lane.restart().revision(), revision);
}

/// Found by fuzzing 3.7.3: a transaction with `delete_range("\0","\0")` and a put of an existing key with
/// `ignore_lease` passes every check, panics in apply, and panics again at every start. Such an entry is answered
/// with the error of the precondition and changes nothing.
#[test]
fn quirk_a_put_that_keeps_what_the_same_transaction_deleted() {
    let keep = |key: &str| op::put(pb::PutRequest { ignore_lease: true, ..put(key, "new") });
    let mut lane = Lane::new();
    lane.p("q", "1");
    lane.p("z", "1");
    let before = (lane.revision(), lane.hash());
    for request in [
        then(vec![d("\0", "\0"), keep("q")]),
        then(vec![p("other", "1"), t(then(vec![d("q", "")])), t(then(vec![keep("q")]))]),
        then(vec![d("a", "r"), t(txn(vec![], vec![r("q"), keep("q")], vec![]))]),
    ] {
        assert_eq!(refused(lane.txn(request)), KEY_NOT_FOUND);
        assert_eq!((lane.revision(), lane.hash()), before);
    }
    // What Go applies is applied: ordinary puts, keys that come back first, branches that are not taken.
    lane.txn(then(vec![d("\0", "\0"), p("q", "2"), t(then(vec![keep("q")]))])).unwrap();
    assert_eq!(lane.get("q").map(|kv| kv.value), Some(b("new")));
    let untaken = cmp("q", "", '=', pb::compare::TargetUnion::Version(77));
    lane.txn(then(vec![d("\0", "\0"), t(txn(vec![untaken], vec![keep("q")], vec![]))])).unwrap();
    assert_eq!(lane.get("q"), None);
}

/// CVE-2026-33343, CVE-2026-44283: nested transactions, previous records and leases inside transactions went past
/// the permission check. The check runs over one flat list of needs: every hidden place is found.
#[test]
fn cve_2026_33343_44283_needs_are_found_at_every_depth() {
    use crate::auth::Need;
    let leased = op::put(pb::PutRequest { lease: 9, prev_kv: true, ..put("p", "1") });
    let mut request = txn(
        vec![cmp("c", "d", '=', pb::compare::TargetUnion::Version(0))],
        vec![leased, r("r")],
        vec![super::op::d("d", "\0")],
    );
    let depth = 40;
    for _ in 0..depth {
        request = txn(vec![], vec![], vec![t(request)]);
    }
    let bytes = request.encode_to_vec();
    let parsed = request::Txn::parse(&bytes).unwrap();
    let mut needs = Vec::new();
    txn::for_each_need(&parsed, &mut |need| {
        needs.push(need);
        Ok(())
    })
    .unwrap();
    let expected = [
        Need::read(b"c", b"d"),
        Need::write(b"p", b""),
        Need::LeaseKeys(9),
        Need::read(b"p", b""),
        Need::read(b"r", b""),
        Need::write(b"d", b"\0"),
    ];
    assert_eq!(needs, expected);
    // The first refusal ends the walk.
    let mut asked = 0;
    let refused = txn::for_each_need(&parsed, &mut |_| {
        asked += 1;
        Err(ErrorCode::PermissionDenied)
    });
    assert_eq!((refused, asked), (Err(ErrorCode::PermissionDenied), 1));
}

/// 19557, 20793, 20967: v2 and v3 membership differed after 3.5 to 3.6. Here v2 entries write the same records as
/// v3 entries do: one source of truth.
#[test]
fn bug_20793_v2_and_v3_entries_leave_the_same_records() {
    let member = crate::membership::Member {
        id: LOCAL,
        peer_urls: vec!["http://127.0.0.1:13380".into()],
        ..Default::default()
    };
    let context = crate::membership::ConfContext { member, is_promote: false };
    let founder = api::raftpb::ConfChange {
        id: None,
        r#type: Some(0),
        node_id: Some(LOCAL),
        context: Some(context.to_json()),
    };
    let records = |data: Vec<u8>| {
        let mut lane = Lane::new();
        lane.entry(EntryType::EntryConfChange, founder.encode_to_vec());
        lane.entry(EntryType::EntryNormal, data);
        lane.applier.store().side(Bucket::Members, b"5267fd4ae6ebae02").unwrap()
    };
    let v2 = pb::Request {
        id: Some(1),
        method: Some("PUT".into()),
        path: Some("/0/members/5267fd4ae6ebae02/attributes".into()),
        val: Some(r#"{"name":"server","clientURLs":["http://127.0.0.1:13379"]}"#.into()),
        ..Default::default()
    };
    let attributes = api::membershippb::Attributes {
        name: "server".into(),
        client_urls: vec!["http://127.0.0.1:13379".into()],
    };
    let v3 = pb::InternalRaftRequest {
        id: 1,
        cluster_member_attr_set: Some(api::membershippb::ClusterMemberAttrSetRequest {
            member_id: LOCAL,
            member_attributes: Some(attributes),
        }),
        ..Default::default()
    };
    assert_eq!(records(v2.encode_to_vec()), records(v3.encode_to_vec()));
}
