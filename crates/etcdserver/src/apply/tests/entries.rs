//! Entries as Go wrote them (R8 to R17 of the checklist), membership changes, and the rules of the index.

use api::raftpb::{ConfChange, ConfChangeType};
use proptest::prelude::*;

use super::*;
use crate::effect::ConfApplied;
use crate::membership::{ConfContext, Member};

const PEER: &str = "http://127.0.0.1:13380";

fn normal(lane: &mut Lane, hex_data: &str) {
    lane.entry(EntryType::EntryNormal, hex::decode(hex_data).unwrap());
}

fn founder(id: u64) -> ConfChange {
    let member =
        Member { id, peer_urls: vec![PEER.to_owned()], name: "server".to_owned(), ..Member::default() };
    change(ConfChangeType::ConfChangeAddNode, id, 0, Some(ConfContext { member, is_promote: false }))
}

fn change(kind: ConfChangeType, node_id: u64, id: u64, context: Option<ConfContext>) -> ConfChange {
    ConfChange {
        id: Some(id),
        r#type: Some(kind.into()),
        node_id: Some(node_id),
        context: context.map(|context| context.to_json()),
    }
}

fn conf(lane: &mut Lane, change: &ConfChange) -> ConfApplied {
    lane.entry(EntryType::EntryConfChange, change.encode_to_vec());
    assert_eq!(lane.last.conf.len(), 1);
    lane.last.conf.pop().unwrap()
}

fn with_founder() -> Lane {
    let mut lane = Lane::new();
    conf(&mut lane, &founder(LOCAL));
    lane
}

#[test]
fn r3_the_bootstrap_entry_founds_the_membership() {
    let mut lane = Lane::new();
    lane.entry(
        EntryType::EntryConfChange,
        hex::decode("080010001882dcaeb7aea9ffb35222507b226964223a353933373939333133313835343930303733382c227065657255524c73223a5b22687474703a2f2f3132372e302e302e313a3133333830225d2c226e616d65223a22736572766572227d").unwrap(),
    );
    let applied = lane.last.conf.pop().unwrap();
    assert_eq!((applied.voters, applied.learners, applied.index), (vec![LOCAL], vec![], 1));
    assert_eq!(applied.change.node_id(), LOCAL);
    assert!(lane.last.replies.is_empty() && lane.last.cluster_changed);
    let store = lane.applier.store();
    assert_eq!(
        store.side(Bucket::Members, b"5267fd4ae6ebae02").unwrap(),
        r#"{"id":5937993131854900738,"peerURLs":["http://127.0.0.1:13380"],"name":"server"}"#
    );
    assert_eq!(
        store.side(Bucket::Meta, b"confState").unwrap(),
        r#"{"voters":[5937993131854900738],"auto_leave":false}"#
    );
}

#[test]
fn r8_v2_publish() {
    let mut lane = with_founder();
    normal(
        &mut lane,
        "0881dce6a8cabfa881ae0112035055541a262f302f6d656d626572732f353236376664346165366562616530322f6174747269627574657322397b226e616d65223a22736572766572222c22636c69656e7455524c73223a5b22687474703a2f2f3132372e302e302e313a3133333739225d7d2800320038004800500058006000680070007800800100",
    );
    assert!(lane.last.cluster_changed);
    let member = lane.applier.cluster().local().unwrap();
    assert_eq!(
        (&member.name[..], &member.client_urls[..]),
        ("server", &["http://127.0.0.1:13379".to_owned()][..])
    );
}

fn v2(method: &str, path: &str, val: &str) -> Vec<u8> {
    pb::Request {
        id: Some(9),
        method: Some(method.into()),
        path: Some(path.into()),
        val: Some(val.into()),
        ..Default::default()
    }
    .encode_to_vec()
}

#[test]
fn r9_r10_v2_version_and_health_checks() {
    let mut lane = with_founder();
    lane.entry(EntryType::EntryNormal, v2("PUT", "/0/version", "3.5.0"));
    assert_eq!(lane.applier.cluster().version().unwrap().to_string(), "3.5.0");
    let before = lane.applier.cluster().clone();
    for (method, path, val) in [
        ("QGET", "", ""),
        ("POST", "/1/queue", "x"),
        ("PUT", "/1/key", "x"),
        ("DELETE", "/0/version", ""),
        ("SYNC", "", ""),
        ("PUT", "/0/members/zz/attributes", "junk"),
        ("PUT", "/0/members/5/attributes", "{}"),
    ] {
        lane.entry(EntryType::EntryNormal, v2(method, path, val));
        assert!(!lane.last.cluster_changed, "{method} {path}");
    }
    assert_eq!(*lane.applier.cluster(), before);
    // The same request inside an InternalRaftRequest, as it can stand in logs too.
    let mut wrapped = Vec::new();
    wire::put_message(2, &v2("PUT", "/0/version", "3.6.0"), &mut wrapped);
    lane.entry(EntryType::EntryNormal, wrapped);
    assert_eq!(lane.applier.cluster().version().unwrap().to_string(), "3.6.0");
}

#[test]
fn r11_v3_publish() {
    let mut lane = with_founder();
    normal(
        &mut lane,
        "a2060b0881e88eaacabfa881ae01aa512c0882dcaeb7aea9ffb35212200a067365727665721216687474703a2f2f3132372e302e302e313a3133333739",
    );
    let stored = lane.applier.store().side(Bucket::Members, b"5267fd4ae6ebae02").unwrap();
    assert_eq!(
        stored,
        r#"{"id":5937993131854900738,"peerURLs":["http://127.0.0.1:13380"],"name":"server","clientURLs":["http://127.0.0.1:13379"]}"#
    );
    assert_eq!(lane.last.replies, [(0xae02_a1fc_a543_b401, Ok(Reply::Nothing))]);
}

#[test]
fn r12_cluster_version_and_downgrade_job() {
    let mut lane = with_founder();
    let set = |lane: &mut Lane, ver: &str| {
        let request = api::membershippb::ClusterVersionSetRequest { ver: ver.into() };
        let cluster_version_set = Some(request);
        lane.ask(pb::InternalRaftRequest { cluster_version_set, ..Default::default() }).unwrap();
        lane.last.force_snapshot
    };
    assert!(!set(&mut lane, "3.6.0"));
    assert_eq!(lane.applier.store().side(Bucket::Cluster, b"clusterVersion").unwrap(), "3.6.0");
    assert!(!set(&mut lane, "3.7.0"));
    assert!(set(&mut lane, "3.6.0"), "going down asks for a snapshot");
    let job = |lane: &mut Lane, enabled, ver: &str| {
        let request = api::membershippb::DowngradeInfoSetRequest { enabled, ver: ver.into() };
        lane.ask(pb::InternalRaftRequest { downgrade_info_set: Some(request), ..Default::default() })
            .unwrap();
        lane.applier.store().side(Bucket::Cluster, b"downgrade").unwrap()
    };
    assert_eq!(job(&mut lane, true, "3.6.0"), r#"{"target-version":"3.6.0","enabled":true}"#);
    assert_eq!(job(&mut lane, false, "3.6.0"), r#"{"target-version":"","enabled":false}"#);
    let test = Some(pb::DowngradeVersionTestRequest { ver: "x".into() });
    assert_eq!(
        lane.ask(pb::InternalRaftRequest { downgrade_version_test: test, ..Default::default() }),
        Ok(Reply::Nothing)
    );
}

#[test]
fn r13_r14_users_and_tokens() {
    let mut lane = with_founder();
    let add = pb::AuthUserAddRequest {
        name: "alice".into(),
        hashed_password: "JDJhJDEwJGFiYw==".into(),
        options: Some(api::authpb::UserAddOptions { no_password: false }),
        ..Default::default()
    };
    lane.ask(pb::InternalRaftRequest { auth_user_add: Some(add), ..Default::default() }).unwrap();
    let stored = lane.applier.store().side(Bucket::AuthUsers, b"alice").unwrap();
    assert_eq!(stored, b"\x0a\x05alice\x12\x0a$2a$10$abc\x22\x00"[..]);
    let authenticate = pb::InternalAuthenticateRequest {
        name: "alice".into(),
        password: String::new(),
        simple_token: "abcdefghijklmnop".into(),
    };
    let answer = lane.ask(pb::InternalRaftRequest { authenticate: Some(authenticate), ..Default::default() });
    assert_eq!(refused(answer), "authentication is not enabled");
}

#[test]
fn r15_alarm_entry() {
    let mut lane = with_founder();
    let request = pb::AlarmRequest { action: 1, member_id: 0xcafe, alarm: 1 };
    lane.ask(pb::InternalRaftRequest { alarm: Some(request), ..Default::default() }).unwrap();
    let keys: Vec<_> =
        lane.applier.store().side_iter(Bucket::Alarm).map(|(key, _)| hex::encode(key)).collect();
    assert_eq!(keys, ["08fe95031001"]);
}

#[test]
fn r16_a_transaction_shares_one_main_revision() {
    use super::op::{cmp, d, p, txn};
    let mut lane = with_founder();
    lane.p("foo", "bar");
    lane.p("old", "x");
    let union = pb::compare::TargetUnion::Value(b("bar"));
    let request =
        txn(vec![cmp("foo", "", '=', union)], vec![p("foo", "bar2"), p("new", "1"), d("old", "")], vec![]);
    lane.txn(request).unwrap();
    lane.flush();
    let view = lane.db.reader().view();
    let bucket = view.bucket(b"key").unwrap().unwrap();
    let mut cursor = bucket.cursor();
    let mut keys = Vec::new();
    let mut at = cursor.first().unwrap();
    while let Some((key, value)) = at {
        keys.push((hex::encode(key), hex::encode(value)));
        at = cursor.next().unwrap();
    }
    let expected = [
        ("00000000000000045f0000000000000000", "0a03666f6f1002180420022a0462617232"),
        ("00000000000000045f0000000000000001", "0a036e6577100418042001 2a0131"),
        ("00000000000000045f000000000000000274", "0a036f6c64"),
    ];
    let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), v.replace(' ', ""))).collect();
    assert_eq!(keys[2..], expected);
}

#[test]
fn r17_empty_entries_move_the_index_and_nothing_else() {
    let mut lane = with_founder();
    let view = lane.applier.publish();
    lane.entry(EntryType::EntryNormal, Bytes::new());
    assert_eq!(lane.last.index, 2);
    assert_eq!(lane.applier.store().consistent_index(), (2, 2));
    assert_eq!(lane.applier.publish().view.revision(), view.view.revision());
    let work = Committed {
        snapshot: None,
        entries: vec![raftpb::Entry { term: Some(3), index: Some(3), r#type: None, data: None }],
    };
    let mut out = Outcome::default();
    lane.applier.apply(Now::default(), work, &mut out).unwrap();
    assert_eq!(lane.applier.publish().ids.raft_term, 3);
}

#[test]
fn failed_entries_move_the_consistent_index_into_the_file() {
    let mut lane = with_founder();
    assert_eq!(refused(lane.put(pb::PutRequest { lease: 9, ..put("k", "v") })), LEASE_NOT_FOUND);
    let index = lane.applier.applied().0;
    lane.flush();
    let view = lane.db.reader().view();
    assert_eq!(view.get(b"meta", b"consistent_index").unwrap(), Some(&index.to_be_bytes()[..]));
    assert_eq!(view.get(b"meta", b"term").unwrap(), Some(&2u64.to_be_bytes()[..]));
}

#[test]
fn entries_below_the_consistent_index_do_nothing() {
    let mut lane = with_founder();
    lane.p("k", "1");
    let mut lane = lane.restart();
    let (index, _) = lane.applier.applied();
    assert_eq!(index, 2);
    let again = |index, data: Vec<u8>, kind: EntryType| raftpb::Entry {
        term: Some(2),
        index: Some(index),
        r#type: Some(kind.into()),
        data: Some(data.into()),
    };
    let put =
        pb::InternalRaftRequest { id: 1, put: Some(put("k", "2")), ..Default::default() }.encode_to_vec();
    let entries = vec![
        again(1, founder(LOCAL).encode_to_vec(), EntryType::EntryConfChange),
        again(2, put.clone(), EntryType::EntryNormal),
        again(3, put, EntryType::EntryNormal),
    ];
    let mut out = Outcome::default();
    lane.applier.apply(Now::default(), Committed { snapshot: None, entries }, &mut out).unwrap();
    assert_eq!((out.conf.len(), out.events.len(), out.index), (0, 1, 3));
    assert_eq!(lane.get("k").unwrap().version, 2);
}

#[test]
#[should_panic(expected = "does not follow")]
fn a_gap_in_the_log_is_a_bug() {
    let mut lane = with_founder();
    let entry = raftpb::Entry { term: Some(2), index: Some(7), ..Default::default() };
    let _ = lane.applier.apply(
        Now::default(),
        Committed { snapshot: None, entries: vec![entry] },
        &mut Outcome::default(),
    );
}

fn try_entry(kind: i32, data: &[u8]) -> Error {
    let mut lane = with_founder();
    let entry = raftpb::Entry {
        term: Some(2),
        index: Some(2),
        r#type: Some(kind),
        data: Some(Bytes::copy_from_slice(data)),
    };
    let work = Committed { snapshot: None, entries: vec![entry] };
    lane.applier.apply(Now::default(), work, &mut Outcome::default()).unwrap_err()
}

#[test]
fn entries_that_mean_nothing_stop_the_member_with_their_index() {
    let put_broken = {
        let mut data = Vec::new();
        wire::put_message(field::PUT, b"\x0a\x09a", &mut data);
        data
    };
    let mut unknown = Vec::new();
    wire::put_message(4242, b"", &mut unknown);
    for (kind, data) in [
        (0, &b"\xff"[..]),
        (0, &put_broken),
        (0, &unknown),
        (0, b"\x08\x01"),
        (1, b"\xff"),
        (2, b"\x08\x01"),
        (9, b""),
        (0, &v2("PUT", "/0/version", "nonsense")),
    ] {
        let error = try_entry(kind, data);
        assert!(matches!(error, Error::Entry { index: 2, .. }), "{error}");
        assert!(error.to_string().starts_with("log entry 2 "), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Entries are other members' words: whatever they hold, they are applied, refused, or an error with their index.
    #[test]
    fn hostile_entries_never_panic(
        requests in prop::collection::vec(super::model::request(), 1..4),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        kind in prop_oneof![6 => Just(0i32), 1 => 1i32..4],
    ) {
        let mut lane = with_founder();
        for request in requests {
            let mut data = request.encode_to_vec();
            for (at, byte) in &spoilt {
                if !data.is_empty() {
                    let at = at.index(data.len());
                    data[at] = *byte;
                }
            }
            if let Some(cut) = &cut {
                data.truncate(cut.index(data.len() + 1));
            }
            let index = lane.next_index();
            let entry =
                raftpb::Entry { term: Some(2), index: Some(index), r#type: Some(kind), data: Some(data.into()) };
            let work = Committed { snapshot: None, entries: vec![entry] };
            let mut out = Outcome::default();
            match lane.applier.apply(Now::default(), work, &mut out) {
                Ok(()) => prop_assert_eq!(out.index, index),
                Err(error) => {
                    prop_assert!(matches!(error, Error::Entry { index: at, .. } if at == index), "{}", error);
                    break;
                }
            }
        }
        lane.finish_compaction();
        lane.restart();
    }
}

#[test]
fn membership_changes_are_checked_recorded_and_told() {
    let mut lane = with_founder();
    let learner = ConfContext {
        member: Member {
            id: 77,
            peer_urls: vec!["http://127.0.0.1:9".into()],
            is_learner: true,
            ..Member::default()
        },
        is_promote: false,
    };
    let id = (LOCAL & 0xffff) << 48 | 5;
    let add = change(ConfChangeType::ConfChangeAddLearnerNode, 77, id, Some(learner.clone()));
    let applied = conf(&mut lane, &add);
    assert_eq!((applied.voters, applied.learners), (vec![LOCAL], vec![77]));
    let [(of, Ok(Reply::Members { added: Some(added), members }))] = &lane.last.replies[..] else {
        panic!("{:?}", lane.last.replies);
    };
    assert_eq!((*of, added.id, added.is_learner, members.len()), (id, 77, true, 2));
    // Refused: raft gets a change of nothing, the index moves on.
    let applied = conf(&mut lane, &add);
    assert_eq!((applied.change.node_id(), applied.learners), (0, vec![77]));
    let [(_, Err(status))] = &lane.last.replies[..] else { panic!() };
    assert_eq!(status.message, "etcdserver: member ID already exist");
    assert!(!lane.last.cluster_changed);
    assert_eq!(lane.applier.store().consistent_index().0, 3);
    let promote = ConfContext { member: Member { id: 77, ..Member::default() }, is_promote: true };
    let applied = conf(&mut lane, &change(ConfChangeType::ConfChangeAddNode, 77, id, Some(promote)));
    assert_eq!((applied.voters, applied.learners), (vec![77, LOCAL], vec![]));
    let applied = conf(&mut lane, &change(ConfChangeType::ConfChangeRemoveNode, 77, id, None));
    assert_eq!(applied.voters, [LOCAL]);
    assert_eq!(lane.applier.store().side(Bucket::MembersRemoved, b"4d").unwrap(), "removed");
    let lane = lane.restart();
    assert!(lane.applier.cluster().is_removed(77));
}

#[test]
fn reads_are_local_only_while_this_member_is_the_sole_voter() {
    let mut lane = with_founder();
    assert!(!lane.applier.publish().reads_are_local);
    lane.applier.set_reads_are_local(true);
    assert!(lane.applier.publish().reads_are_local);
    let member = Member { id: 77, peer_urls: vec!["http://127.0.0.1:9".into()], ..Member::default() };
    let context = Some(ConfContext { member, is_promote: false });
    conf(&mut lane, &change(ConfChangeType::ConfChangeAddNode, 77, 1, context));
    assert!(!lane.applier.publish().reads_are_local, "an added voter clears it before raft knows");
}

#[test]
fn answers_are_made_only_for_requests_of_this_member() {
    let mut lane = with_founder();
    let other = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id: 0x1234 << 48 | 1, ..Default::default() }),
        put: Some(put("k", "v")),
        ..Default::default()
    };
    lane.entry(EntryType::EntryNormal, other.encode_to_vec());
    assert_eq!((lane.last.replies.len(), lane.last.events.len()), (0, 1));
}
