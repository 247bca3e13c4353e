//! Alarms, what they forbid, and the quota that raises one.

use pb::alarm_request::AlarmAction::{Activate, Deactivate, Get};

use super::op::{d, p, r, t, then, txn};
use super::*;

fn alarm(
    lane: &mut Lane,
    action: pb::alarm_request::AlarmAction,
    member_id: u64,
    alarm: i32,
) -> Vec<(u64, i32)> {
    let request = pb::AlarmRequest { action: action.into(), member_id, alarm };
    let answer = lane.ask(pb::InternalRaftRequest { alarm: Some(request), ..Default::default() });
    message::<pb::AlarmResponse>(&answer).alarms.iter().map(|m| (m.member_id, m.alarm)).collect()
}

#[test]
fn cm_070_to_076_alarms_are_a_set() {
    let mut lane = Lane::new();
    assert_eq!(alarm(&mut lane, Get, 0, 0), []);
    assert_eq!(alarm(&mut lane, Activate, 5, 1), [(5, 1)]);
    assert!(lane.last.cluster_changed);
    assert_eq!(alarm(&mut lane, Activate, 5, 1), [(5, 1)], "075: the second time too");
    assert!(!lane.last.cluster_changed);
    assert_eq!(alarm(&mut lane, Get, 99, 0), [(5, 1)]);
    assert_eq!(alarm(&mut lane, Get, 0, 1), [(5, 1)]);
    assert_eq!(alarm(&mut lane, Get, 0, 2), []);
    assert_eq!(refused(lane.put(put("a", "1"))), NO_SPACE, "any member's alarm binds all");
    assert_eq!(alarm(&mut lane, Deactivate, 5, 0), []);
    assert_eq!(alarm(&mut lane, Deactivate, 0, 1), []);
    assert_eq!(alarm(&mut lane, Get, 0, 0), [(5, 1)], "073");
    assert_eq!(alarm(&mut lane, Deactivate, 5, 1), [(5, 1)]);
    assert_eq!(alarm(&mut lane, Deactivate, 5, 1), [], "074");
    assert_eq!(alarm(&mut lane, Activate, 5, 0), [], "076");
    lane.p("a", "1");
}

#[test]
fn cm_029_079_unknown_types_are_kept_and_alarms_survive() {
    let mut lane = Lane::new();
    assert_eq!(alarm(&mut lane, Activate, 3, 9), [(3, 9)]);
    assert_eq!(alarm(&mut lane, Activate, 0xcafe, 2), [(0xcafe, 2)]);
    let stored: Vec<_> =
        lane.applier.store().side_iter(Bucket::Alarm).map(|(k, v)| (hex::encode(k), v.len())).collect();
    assert_eq!(stored, [("08031009".to_owned(), 0), ("08fe95031002".to_owned(), 0)]);
    let mut lane = lane.restart();
    assert_eq!(alarm(&mut lane, Get, 0, 0), [(0xcafe, 2), (3, 9)]);
    assert_eq!(refused(lane.put(put("a", "1"))), CORRUPT);
    assert_eq!(alarm(&mut lane, Deactivate, 3, 9), [(3, 9)]);
}

#[test]
fn unknown_actions_are_an_error_and_change_nothing() {
    let mut lane = Lane::new();
    let request = pb::AlarmRequest { action: 7, member_id: 1, alarm: 1 };
    let answer = lane.ask(pb::InternalRaftRequest { alarm: Some(request), ..Default::default() });
    assert_eq!(refused(answer), "unknown method");
    assert_eq!(alarm(&mut lane, Get, 0, 0), []);
}

#[test]
fn kv_147_to_150_le_042_043_what_no_space_lets_through() {
    let mut lane = Lane::new();
    lane.p("x", "1");
    lane.grant(5, 60).unwrap();
    lane.put(pb::PutRequest { lease: 5, ..put("on", "1") }).unwrap();
    alarm(&mut lane, Activate, LOCAL, 1);
    assert_eq!(refused(lane.put(put("s", "1"))), NO_SPACE);
    assert_eq!(refused(lane.grant(6, 60)), NO_SPACE);
    for request in [
        then(vec![p("s", "1")]),
        txn(vec![], vec![r("x")], vec![p("s", "1")]),
        then(vec![t(then(vec![p("s", "1")]))]),
        txn(vec![], vec![], vec![t(txn(vec![], vec![], vec![p("s", "1")]))]),
    ] {
        assert_eq!(refused(lane.txn(request)), NO_SPACE);
    }
    assert_eq!(lane.revision(), 3);
    assert!(lane.txn(then(vec![d("x", ""), r("x")])).is_ok(), "150");
    assert!(lane.txn(then(vec![t(then(vec![r("x")]))])).is_ok(), "150");
    assert!(lane.delete(del("nope", "")).is_ok());
    assert!(lane.revoke(5).is_ok(), "LE-043");
    assert_eq!(lane.get("on"), None);
    assert!(lane.compact(2).is_ok());
    assert!(lane.last.proposals.is_empty(), "the alarm is on already");
}

#[test]
fn cm_077_081_091_092_what_corrupt_refuses_and_what_wins() {
    let mut lane = Lane::new();
    lane.p("x", "1");
    lane.grant(5, 60).unwrap();
    alarm(&mut lane, Activate, 7, 2);
    let revision = lane.revision();
    assert_eq!(refused(lane.put(put("a", "1"))), CORRUPT);
    assert_eq!(refused(lane.delete(del("x", ""))), CORRUPT);
    assert_eq!(refused(lane.txn(then(vec![p("a", "1")]))), CORRUPT);
    assert_eq!(refused(lane.compact(1)), CORRUPT);
    assert_eq!(refused(lane.grant(6, 60)), CORRUPT, "LE-041");
    assert_eq!(refused(lane.revoke(5)), CORRUPT, "LE-041");
    assert!(lane.get("x").is_some(), "078");
    alarm(&mut lane, Activate, 8, 1);
    assert_eq!(refused(lane.put(put("a", "1"))), CORRUPT, "091");
    alarm(&mut lane, Deactivate, 7, 2);
    assert_eq!(refused(lane.txn(then(vec![p("a", "1")]))), NO_SPACE, "092");
    alarm(&mut lane, Activate, 9, 1);
    alarm(&mut lane, Deactivate, 8, 1);
    assert_eq!(refused(lane.put(put("a", "1"))), NO_SPACE, "093");
    alarm(&mut lane, Deactivate, 9, 1);
    assert_eq!(lane.p("a", "1"), revision + 1, "081");
}

#[test]
fn kv_146_past_the_quota_the_write_is_done_the_answer_is_an_error_and_the_alarm_is_proposed() {
    let mut lane = Lane::with(Settings { quota: Quota::new(1), ..settings() });
    lane.flush();
    assert_eq!(refused(lane.put(put("a", "1"))), NO_SPACE);
    assert_eq!(lane.get("a").map(|kv| kv.mod_revision), Some(2));
    assert_eq!(lane.last.events.len(), 1);
    let proposal = lane.last.proposals[0].clone();
    assert_eq!((lane.last.proposals.len(), proposal.field), (1, field::ALARM));
    assert!(proposal.reply_to.is_none());
    assert_eq!(
        pb::AlarmRequest::decode(proposal.body).unwrap(),
        pb::AlarmRequest { action: 1, member_id: LOCAL, alarm: 1 }
    );
    assert_eq!(refused(lane.txn(then(vec![p("b", "1")]))), NO_SPACE);
    assert!(lane.get("b").is_some());
    assert_eq!(refused(lane.grant(5, 60)), NO_SPACE);
    assert_eq!(lane.applier.leases().len(), 1);
    // What costs nothing asks nobody.
    assert!(lane.delete(del("a", "")).is_ok());
    assert!(lane.txn(then(vec![d("b", "")])).is_ok());
    assert_eq!(refused(lane.put(pb::PutRequest { lease: 99, ..put("c", "1") })), LEASE_NOT_FOUND);
    assert!(lane.last.proposals.is_empty(), "a write that failed by itself raises nothing");
    assert_eq!(alarm(&mut lane, Activate, LOCAL, 1), [(LOCAL, 1)]);
    assert_eq!(refused(lane.put(put("d", "1"))), NO_SPACE);
    assert_eq!(lane.get("d"), None, "from the alarm on nothing is written");
}

#[test]
fn one_alarm_is_proposed_for_a_whole_batch_of_entries() {
    let mut lane = Lane::with(Settings { quota: Quota::new(1), ..settings() });
    lane.flush();
    let first = lane.next_index();
    let entries = (first..first + 3)
        .map(|index| raftpb::Entry {
            term: Some(2),
            index: Some(index),
            r#type: None,
            data: Some(
                pb::InternalRaftRequest { id: index, put: Some(put("k", "v")), ..Default::default() }
                    .encode_to_vec()
                    .into(),
            ),
        })
        .collect();
    let mut out = Outcome::default();
    lane.applier.apply(Now::default(), Committed { snapshot: None, entries }, &mut out).unwrap();
    assert_eq!((out.proposals.len(), out.events.len(), out.replies.len()), (1, 3, 0));
    assert_eq!(out.index, first + 2);
}
