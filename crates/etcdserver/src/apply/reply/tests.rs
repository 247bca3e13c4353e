//! Every reply against the generated message: same bytes, header rules included.

use super::*;
use api::{authpb, mvccpb};

const IDS: HeaderIds =
    HeaderIds { cluster_id: 0xcdf8_1818_1e3a_b1cd, member_id: 0x8e9e_05c5_2164_694d, raft_term: 2 };

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: IDS.cluster_id,
        member_id: IDS.member_id,
        revision,
        raft_term: IDS.raft_term,
    })
}

fn record() -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: Bytes::from_static(b"foo"),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        value: Bytes::from_static(b"bar"),
        lease: -7,
    }
}

#[track_caller]
fn same(reply: &Reply, expected: &impl Message) {
    let mut out = vec![0xee];
    reply.encode(&IDS, &mut out);
    assert_eq!(out[1..], expected.encode_to_vec());
}

#[test]
fn puts_and_deletions() {
    let stored = Bytes::from(record().encode_to_vec());
    same(&Reply::Put { revision: 9, prev: None }, &pb::PutResponse { header: header(9), prev_kv: None });
    same(
        &Reply::Put { revision: 9, prev: Some(stored.clone()) },
        &pb::PutResponse { header: header(9), prev_kv: Some(record()) },
    );
    same(
        &Reply::DeleteRange { revision: 4, deleted: 0, prev: Vec::new() },
        &pb::DeleteRangeResponse { header: header(4), deleted: 0, prev_kvs: Vec::new() },
    );
    same(
        &Reply::DeleteRange { revision: 4, deleted: 2, prev: vec![stored.clone(), stored] },
        &pb::DeleteRangeResponse { header: header(4), deleted: 2, prev_kvs: vec![record(), record()] },
    );
}

#[test]
fn leases_compactions_and_alarms() {
    same(&Reply::Compaction { revision: 5 }, &pb::CompactionResponse { header: header(5) });
    same(
        &Reply::LeaseGrant { revision: 1, id: -9, ttl: 60 },
        &pb::LeaseGrantResponse { header: header(1), id: -9, ttl: 60, error: String::new() },
    );
    same(&Reply::LeaseRevoke { revision: 5 }, &pb::LeaseRevokeResponse { header: header(5) });
    same(&Reply::LeaseCheckpoint { revision: 5 }, &pb::LeaseCheckpointResponse { header: header(5) });
    let alarms = vec![pb::AlarmMember { member_id: 0, alarm: 1 }, pb::AlarmMember { member_id: 5, alarm: 9 }];
    same(
        &Reply::Alarm { revision: 3, alarms: alarms.clone() },
        &pb::AlarmResponse { header: header(3), alarms },
    );
}

#[test]
fn auth_answers() {
    same(&Reply::AuthDone { revision: 2 }, &pb::AuthUserAddResponse { header: header(2) });
    same(
        &Reply::AuthStatus { revision: 2, enabled: true, auth_revision: 12 },
        &pb::AuthStatusResponse { header: header(2), enabled: true, auth_revision: 12 },
    );
    let reply =
        Reply::Authenticate { revision: 2, user: "u".into(), auth_revision: 3, token: "abc.7".into() };
    same(&reply, &pb::AuthenticateResponse { header: header(2), token: "abc.7".into() });
    let names = vec!["a".to_owned(), String::new(), "b".to_owned()];
    same(
        &Reply::AuthNames { revision: 2, names: names.clone() },
        &pb::AuthUserListResponse { header: header(2), users: names.clone() },
    );
    same(
        &Reply::AuthNames { revision: 2, names: names.clone() },
        &pb::AuthUserGetResponse { header: header(2), roles: names },
    );
    let permissions = vec![authpb::Permission {
        perm_type: 2,
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"\0"),
    }];
    same(
        &Reply::AuthRoleGet { revision: 2, permissions: permissions.clone() },
        &pb::AuthRoleGetResponse { header: header(2), perm: permissions },
    );
}

#[test]
fn answers_about_members_have_no_revision() {
    let member = pb::Member {
        id: 7,
        name: "n".into(),
        peer_ur_ls: vec!["http://a:1".into()],
        client_ur_ls: Vec::new(),
        is_learner: true,
    };
    let members = Arc::new(vec![member.clone(), member.clone()]);
    same(
        &Reply::Members { added: Some(member.clone()), members: members.clone() },
        &pb::MemberAddResponse { header: header(0), member: Some(member), members: members.to_vec() },
    );
    same(
        &Reply::Members { added: None, members: members.clone() },
        &pb::MemberRemoveResponse { header: header(0), members: members.to_vec() },
    );
}

#[test]
fn an_empty_header_is_still_there() {
    let mut out = Vec::new();
    put_header(&mut out, &HeaderIds::default(), 0);
    assert_eq!(out, [0x0a, 0]);
    out.clear();
    put_header(&mut out, &IDS, i64::MAX);
    assert_eq!(out.len(), header_field_len(&IDS, i64::MAX));
}
