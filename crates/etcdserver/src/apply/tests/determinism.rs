//! Two members fed the same entries, with their own rhythm of freezing, committing, compacting and restarting, must
//! end alike: same answers, same hash, same small buckets.

use proptest::prelude::*;

use super::model::request;
use super::*;
use crate::auth::Access;

/// What a member does between two entries.
fn chores() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..8, 60)
}

/// Small buckets without what a member writes for itself: the index moves with commits.
fn buckets(lane: &Lane) -> Vec<(Bucket, Bytes, Bytes)> {
    Bucket::ALL[1..]
        .iter()
        .filter(|bucket| **bucket != Bucket::Meta)
        .flat_map(|bucket| {
            lane.applier.store().side_iter(*bucket).map(move |(k, v)| (*bucket, k.clone(), v.clone()))
        })
        .collect()
}

type Asked = (pb::InternalRaftRequest, &'static str, u64);

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["root", "u", "v"]).prop_map(str::to_owned)
}

fn bound() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec![&b""[..], b"a", b"ab", b"b", b"c", b"\0", b"\xff"]).prop_map(Bytes::from_static)
}

/// Any request of the auth service.
fn auth_request() -> impl Strategy<Value = pb::InternalRaftRequest> {
    type R = pb::InternalRaftRequest;
    let role = || prop::sample::select(vec!["root", "r", "s"]).prop_map(str::to_owned);
    let perm = (0i32..4, bound(), bound()).prop_map(|(perm_type, key, range_end)| api::authpb::Permission {
        perm_type,
        key,
        range_end,
    });
    prop_oneof![
        4 => (name(), prop::bool::weighted(0.2)).prop_map(|(name, no_password)| {
            let options = Some(api::authpb::UserAddOptions { no_password });
            let add = pb::AuthUserAddRequest { name, options, ..Default::default() };
            R { auth_user_add: Some(add), ..R::default() }
        }),
        1 => name().prop_map(|name| R {
            auth_user_delete: Some(pb::AuthUserDeleteRequest { name }),
            ..R::default()
        }),
        1 => name().prop_map(|name| R {
            auth_user_change_password: Some(pb::AuthUserChangePasswordRequest { name, ..Default::default() }),
            ..R::default()
        }),
        5 => (name(), role()).prop_map(|(user, role)| R {
            auth_user_grant_role: Some(pb::AuthUserGrantRoleRequest { user, role }),
            ..R::default()
        }),
        1 => (name(), role()).prop_map(|(name, role)| R {
            auth_user_revoke_role: Some(pb::AuthUserRevokeRoleRequest { name, role }),
            ..R::default()
        }),
        3 => role().prop_map(|name| R {
            auth_role_add: Some(pb::AuthRoleAddRequest { name }),
            ..R::default()
        }),
        1 => role().prop_map(|role| R {
            auth_role_delete: Some(pb::AuthRoleDeleteRequest { role }),
            ..R::default()
        }),
        6 => (role(), prop::option::weighted(0.95, perm)).prop_map(|(name, perm)| R {
            auth_role_grant_permission: Some(pb::AuthRoleGrantPermissionRequest { name, perm }),
            ..R::default()
        }),
        1 => (role(), bound(), bound()).prop_map(|(role, key, range_end)| R {
            auth_role_revoke_permission: Some(pb::AuthRoleRevokePermissionRequest { role, key, range_end }),
            ..R::default()
        }),
        4 => Just(R { auth_enable: Some(pb::AuthEnableRequest {}), ..R::default() }),
        1 => Just(R { auth_disable: Some(pb::AuthDisableRequest {}), ..R::default() }),
    ]
}

/// Requests of anybody, with an identity that may be old.
fn asked() -> impl Strategy<Value = Asked> {
    let who = prop::sample::select(vec!["root", "root", "u", "v", ""]);
    (prop_oneof![request(), auth_request()], who, prop_oneof![3 => Just(99u64), 1 => 0u64..12])
}

fn run(requests: &[Asked], chores: &[u8]) -> (Lane, Vec<Answer>) {
    let mut lane = Lane::new();
    let mut answers = Vec::new();
    for (at, (request, user, revision)) in requests.iter().enumerate() {
        lane.user = ((*user).to_owned(), *revision);
        answers.push(lane.ask(request.clone()));
        match chores[at % chores.len()] {
            0 => lane.freeze(),
            1 => lane.commit(),
            2 => {
                lane.applier.store_mut().compaction_step(2).unwrap();
            }
            3 => lane.finish_compaction(),
            4 => lane = lane.restart(),
            5 => lane.flush(),
            _ => {}
        }
    }
    lane.finish_compaction();
    (lane, answers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn members_with_another_rhythm_end_alike(
        requests in prop::collection::vec(asked(), 1..70),
        one in chores(),
        other in chores(),
    ) {
        let (first, answers) = run(&requests, &one);
        let (second, other_answers) = run(&requests, &other);
        prop_assert_eq!(answers, other_answers);
        prop_assert_eq!(first.revision(), second.revision());
        prop_assert_eq!(first.hash(), second.hash());
        prop_assert_eq!(buckets(&first), buckets(&second));
        prop_assert_eq!(first.applier.leases(), second.applier.leases());
        let (auth, other) = (first.applier.publish(), second.applier.publish());
        for user in ["root", "u", "v", "ghost"] {
            let caller = Caller { name: user, revision: 99 };
            for (key, end) in [("a", ""), ("a", "b"), ("b", "a"), ("\0", "\0"), ("c", "\0"), ("ab", "c")] {
                for access in [Access::Read, Access::Write] {
                    let may = |of: &Published| of.auth.check_keys(caller, access, key.as_bytes(), end.as_bytes());
                    prop_assert_eq!(may(&auth), may(&other), "{} {} {:?}", user, key, end);
                }
            }
        }
        for lease in first.applier.leases() {
            let LeaseChange::Granted { id, .. } = lease else { continue };
            prop_assert_eq!(first.keys_of(id), second.keys_of(id));
        }
    }
}
