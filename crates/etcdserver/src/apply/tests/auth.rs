//! The case table of the auth service, by id, as far as it is about applied entries and pure checks; stored bytes.

use super::op::{cmp, d, p, r, t, then, txn};
use super::*;
use crate::auth::{Access, TokenChange};

type Request = pb::InternalRaftRequest;

fn user_add(name: &str) -> Request {
    let request = pb::AuthUserAddRequest { name: name.into(), ..Default::default() };
    Request { auth_user_add: Some(request), ..Default::default() }
}

fn user_delete(name: &str) -> Request {
    Request { auth_user_delete: Some(pb::AuthUserDeleteRequest { name: name.into() }), ..Default::default() }
}

fn change_password(name: &str) -> Request {
    let request = pb::AuthUserChangePasswordRequest { name: name.into(), ..Default::default() };
    Request { auth_user_change_password: Some(request), ..Default::default() }
}

fn grant_role(user: &str, role: &str) -> Request {
    let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    Request { auth_user_grant_role: Some(request), ..Default::default() }
}

fn revoke_role(name: &str, role: &str) -> Request {
    let request = pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() };
    Request { auth_user_revoke_role: Some(request), ..Default::default() }
}

fn role_add(name: &str) -> Request {
    Request { auth_role_add: Some(pb::AuthRoleAddRequest { name: name.into() }), ..Default::default() }
}

fn role_delete(role: &str) -> Request {
    Request { auth_role_delete: Some(pb::AuthRoleDeleteRequest { role: role.into() }), ..Default::default() }
}

const READ: i32 = 0;
const WRITE: i32 = 1;
const READWRITE: i32 = 2;

fn grant(role: &str, perm_type: i32, key: &str, end: &str) -> Request {
    let perm = Some(api::authpb::Permission { perm_type, key: b(key), range_end: b(end) });
    let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm };
    Request { auth_role_grant_permission: Some(request), ..Default::default() }
}

fn revoke(role: &str, key: &str, end: &str) -> Request {
    let request = pb::AuthRoleRevokePermissionRequest { role: role.into(), key: b(key), range_end: b(end) };
    Request { auth_role_revoke_permission: Some(request), ..Default::default() }
}

fn enable() -> Request {
    Request { auth_enable: Some(pb::AuthEnableRequest {}), ..Default::default() }
}

fn disable() -> Request {
    Request { auth_disable: Some(pb::AuthDisableRequest {}), ..Default::default() }
}

fn user_get(name: &str) -> Request {
    Request { auth_user_get: Some(pb::AuthUserGetRequest { name: name.into() }), ..Default::default() }
}

fn role_get(role: &str) -> Request {
    Request { auth_role_get: Some(pb::AuthRoleGetRequest { role: role.into() }), ..Default::default() }
}

fn user_list() -> Request {
    Request { auth_user_list: Some(pb::AuthUserListRequest {}), ..Default::default() }
}

fn role_list() -> Request {
    Request { auth_role_list: Some(pb::AuthRoleListRequest {}), ..Default::default() }
}

fn status(lane: &mut Lane) -> (bool, u64) {
    let answer = lane.ask(Request { auth_status: Some(pb::AuthStatusRequest {}), ..Default::default() });
    let status: pb::AuthStatusResponse = message(&answer);
    (status.enabled, status.auth_revision)
}

fn permissions(lane: &mut Lane, role: &str) -> Vec<(i32, String, String)> {
    let response: pb::AuthRoleGetResponse = message(&lane.ask(role_get(role)));
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    response.perm.iter().map(|p| (p.perm_type, text(&p.key), text(&p.range_end))).collect()
}

/// The fixture of the table: root with its role, u1 with r1 (READWRITE foo, WRITE from x on), np without password.
fn fa() -> Lane {
    let mut lane = Lane::new();
    let no_password = pb::AuthUserAddRequest {
        name: "np".into(),
        options: Some(api::authpb::UserAddOptions { no_password: true }),
        ..Default::default()
    };
    for request in [
        user_add("root"),
        grant_role("root", "root"),
        role_add("r1"),
        grant("r1", READWRITE, "foo", ""),
        grant("r1", WRITE, "x", "\0"),
        user_add("u1"),
        grant_role("u1", "r1"),
        Request { auth_user_add: Some(no_password), ..Default::default() },
        enable(),
    ] {
        lane.ask(request).unwrap();
    }
    lane
}

/// From now on the requests come from this user, as of now.
fn be(lane: &mut Lane, user: &str) {
    let revision = lane.applier.publish().auth.revision();
    lane.user = (user.to_owned(), if user.is_empty() { 0 } else { revision });
}

const DENIED: &str = "permission denied";
const EMPTY: &str = "user name is empty";
const OLD: &str = "revision of auth store is old";

#[test]
fn au_001_to_010_a_fresh_store() {
    let mut lane = Lane::new();
    assert_eq!(status(&mut lane), (false, 1));
    assert_eq!(refused(lane.ask(enable())), "root user does not exist");
    assert_eq!(refused(lane.ask(user_add(""))), EMPTY);
    assert_eq!(refused(lane.ask(role_add(""))), "role name is empty");
    lane.ask(user_add("root")).unwrap();
    assert!(lane.last.auth_changed);
    assert_eq!(status(&mut lane).1, 2);
    assert_eq!(refused(lane.ask(user_add("root"))), "user name already exists");
    assert_eq!(refused(lane.ask(enable())), "root user does not have root role");
    assert_eq!(refused(lane.ask(grant_role("root", "nope"))), "role name not found");
    lane.ask(grant_role("root", "root")).unwrap();
    lane.ask(grant_role("root", "root")).unwrap();
    assert!(!lane.last.auth_changed);
    assert_eq!(status(&mut lane).1, 3, "008: the second grant raises nothing");
    assert_eq!(refused(lane.ask(grant_role("zz", "root"))), "user name not found");
    lane.ask(role_add("r1")).unwrap();
    assert_eq!(refused(lane.ask(role_add("r1"))), "role name already exists");
    assert_eq!(lane.revision(), 1, "auth does not touch the store's revision");
}

#[test]
fn au_011_to_019_roles_and_permissions() {
    let mut lane = Lane::new();
    for request in [role_add("root"), role_add("r1"), user_add("u1"), grant_role("u1", "r1")] {
        lane.ask(request).unwrap();
    }
    assert_eq!(permissions(&mut lane, "root"), [(READWRITE, String::new(), "\0".to_owned())], "011");
    assert_eq!(refused(lane.ask(role_get("zz"))), "role name not found");
    assert_eq!(refused(lane.ask(user_get("zz"))), "user name not found");
    assert_eq!(refused(lane.ask(grant("zz", READ, "a", ""))), "role name not found");
    let without = pb::AuthRoleGrantPermissionRequest { name: "r1".into(), perm: None };
    let request = Request { auth_role_grant_permission: Some(without), ..Default::default() };
    assert_eq!(refused(lane.ask(request)), "permission not given");
    for (key, end) in [("", ""), ("b", "a"), ("b", "b")] {
        assert_eq!(refused(lane.ask(grant("r1", READ, key, end))), "invalid auth management", "014");
    }
    for request in [
        grant("r1", READ, "foo", ""),
        grant("r1", READWRITE, "foo", ""),
        grant("r1", READ, "a", "c"),
        grant("r1", WRITE, "x", "\0"),
    ] {
        lane.ask(request).unwrap();
    }
    let expected = [(READ, "a", "c"), (READWRITE, "foo", ""), (WRITE, "x", "\0")];
    let expected: Vec<_> = expected.map(|(t, k, e)| (t, k.to_owned(), e.to_owned())).into();
    assert_eq!(permissions(&mut lane, "r1"), expected, "015");
    for (key, end) in [("nokey", ""), ("a", "d")] {
        assert_eq!(refused(lane.ask(revoke("r1", key, end))), "permission is not granted to the role");
    }
    assert_eq!(refused(lane.ask(revoke("zz", "a", "c"))), "role name not found");
    lane.ask(revoke("r1", "a", "c")).unwrap();
    assert_eq!(permissions(&mut lane, "r1").len(), 2, "016");
    assert_eq!(refused(lane.ask(revoke_role("u1", "root"))), "role is not granted to the user");
    assert_eq!(refused(lane.ask(revoke_role("zz", "r1"))), "user name not found");
    lane.ask(user_add("Z")).unwrap();
    assert_eq!(message::<pb::AuthUserListResponse>(&lane.ask(user_list())).users, ["Z", "u1"]);
    assert_eq!(message::<pb::AuthRoleListResponse>(&lane.ask(role_list())).roles, ["r1", "root"]);
    assert_eq!(refused(lane.ask(change_password("zz"))), "user name not found", "019");
}

#[test]
fn au_020_026_063_switching() {
    let mut lane = fa();
    let before = lane.applier.publish().auth.revision();
    assert_eq!(refused(lane.ask(enable())), EMPTY, "020");
    be(&mut lane, "root");
    lane.ask(enable()).unwrap();
    assert!(lane.last.tokens.is_empty());
    assert_eq!(status(&mut lane), (true, before), "026");
    lane.ask(disable()).unwrap();
    assert_eq!(lane.last.tokens, [TokenChange::Disabled]);
    assert_eq!(status(&mut lane), (false, before + 1));
    be(&mut lane, "");
    lane.ask(disable()).unwrap();
    assert_eq!(status(&mut lane), (false, before + 1), "off already: success, nothing raised");
    lane.p("foo", "1");
    assert!(lane.ask(user_get("u1")).is_ok());
}

#[test]
fn au_022_to_025_tokens() {
    let mut lane = fa();
    let authenticate = |lane: &mut Lane, name: &str| {
        let request = pb::InternalAuthenticateRequest {
            name: name.into(),
            password: String::new(),
            simple_token: "abcdefghijklmnop".into(),
        };
        lane.ask(Request { authenticate: Some(request), ..Default::default() })
    };
    let failed = "authentication failed, invalid user ID or password";
    assert_eq!(refused(authenticate(&mut lane, "ghost")), failed);
    assert_eq!(refused(authenticate(&mut lane, "np")), failed);
    assert!(lane.last.tokens.is_empty());
    let response: pb::AuthenticateResponse = message(&authenticate(&mut lane, "root"));
    let token = format!("abcdefghijklmnop.{}", lane.applier.applied().0);
    assert_eq!(response.token, token);
    assert_eq!(lane.last.tokens, [TokenChange::Assigned { token, user: "root".into() }]);
    be(&mut lane, "root");
    lane.ask(change_password("u1")).unwrap();
    assert_eq!(lane.last.tokens, [TokenChange::UserInvalidated("u1".into())], "056");
    lane.ask(user_delete("u1")).unwrap();
    assert_eq!(lane.last.tokens, [TokenChange::UserInvalidated("u1".into())], "057");
}

#[test]
fn au_027_to_036_042_key_access() {
    let mut lane = fa();
    assert_eq!(refused(lane.put(put("foo", "1"))), EMPTY);
    assert_eq!(refused(lane.range(&get("foo"))), EMPTY);
    be(&mut lane, "u1");
    lane.p("foo", "1");
    assert!(lane.get("foo").is_some());
    for request in [list("foo", "fop"), get("bar"), pb::RangeRequest { count_only: true, ..get("bar") }] {
        assert_eq!(refused(lane.range(&request)), DENIED, "032");
    }
    let prev = |key| pb::PutRequest { prev_kv: true, ..put(key, "1") };
    lane.p("xyz", "1");
    assert_eq!(refused(lane.put(prev("xyz"))), DENIED, "033");
    assert_eq!(refused(lane.range(&get("xyz"))), DENIED, "033");
    assert!(lane.delete(del("x", "\0")).is_ok(), "034");
    assert_eq!(refused(lane.delete(del("w", "\0"))), DENIED);
    assert_eq!(refused(lane.delete(pb::DeleteRangeRequest { prev_kv: true, ..del("xa", "") })), DENIED);
    assert_eq!(refused(lane.range(&pb::RangeRequest { revision: 9999, ..get("bar") })), DENIED, "036");
    assert_eq!(refused(lane.put(pb::PutRequest { lease: 99, ..put("bar", "1") })), DENIED, "042");
    be(&mut lane, "");
    assert_eq!(refused(lane.range(&get(""))), "key is not provided", "035");
    assert_eq!(refused(lane.range(&pb::RangeRequest { revision: 9999, ..get("foo") })), EMPTY, "036");
}

#[test]
fn au_038_to_041_transactions() {
    let mut lane = fa();
    let u = pb::compare::TargetUnion::Version;
    be(&mut lane, "u1");
    let denied = [
        txn(vec![], vec![r("foo")], vec![r("bar"), t(then(vec![]))]),
        txn(vec![cmp("bar", "", '=', u(0))], vec![p("foo", "1")], vec![]),
        then(vec![t(then(vec![p("bar", "1")]))]),
        then(vec![t(txn(vec![], vec![], vec![d("bar", "")]))]),
        then(vec![t(txn(vec![cmp("bar", "", '=', u(0))], vec![], vec![]))]),
    ];
    for request in denied {
        assert_eq!(refused(lane.txn(request)), DENIED);
    }
    assert!(lane.txn(then(vec![r("foo"), t(then(vec![p("foo", "1")]))])).is_ok(), "039");
    for user in ["", "u1", "np"] {
        be(&mut lane, user);
        assert!(lane.txn(then(vec![])).is_ok(), "041");
    }
}

#[test]
fn au_043_to_049_what_needs_the_root_role() {
    let mut lane = fa();
    let requests = || {
        vec![
            user_list(),
            role_list(),
            user_add("new"),
            change_password("u1"),
            user_get("root"),
            role_get("root"),
            user_delete("u1"),
            grant_role("u1", "root"),
            revoke_role("u1", "r1"),
            role_add("new"),
            role_delete("r1"),
            grant("r1", READ, "", ""),
            revoke("r1", "foo", ""),
            enable(),
            disable(),
        ]
    };
    for (user, error) in [("u1", DENIED), ("", EMPTY), ("ghost", "user name not found")] {
        be(&mut lane, user);
        for request in requests() {
            assert_eq!(refused(lane.ask(request.clone())), error, "{user}: {request:?}");
        }
    }
    be(&mut lane, "u1");
    assert!(lane.ask(user_get("u1")).is_ok(), "044");
    assert!(lane.ask(role_get("r1")).is_ok(), "044");
    assert!(!lane.last.auth_changed);
}

#[test]
fn au_050_to_053_merged_intervals() {
    let mut lane = fa();
    be(&mut lane, "root");
    for request in [
        user_add("v"),
        role_add("a"),
        role_add("b"),
        grant("a", READ, "a", "c"),
        grant("b", READ, "c", "e"),
        grant("b", READWRITE, "q", "\0"),
        grant_role("v", "a"),
        grant_role("v", "b"),
    ] {
        lane.ask(request).unwrap();
    }
    be(&mut lane, "v");
    for (key, end, allowed) in [
        ("a", "e", true),
        ("b", "d", true),
        ("a", "f", false),
        ("q", "\0", true),
        ("r", "\0", true),
        ("\0", "\0", false),
        ("a", "a", true),
    ] {
        assert_eq!(lane.range(&list(key, end)).is_ok(), allowed, "{key} {end:?}");
    }
}

#[test]
fn au_054_058_to_062_073_074_management() {
    let mut lane = fa();
    be(&mut lane, "root");
    for request in [user_delete("root"), role_delete("root"), revoke_role("root", "root")] {
        assert_eq!(refused(lane.ask(request)), "invalid auth management", "058");
    }
    assert_eq!(refused(lane.ask(user_delete("zz"))), "user name not found");
    assert_eq!(refused(lane.ask(role_delete("zz"))), "role name not found");
    let revision = status(&mut lane).1;
    lane.ask(role_add("k")).unwrap();
    for (perm_type, end) in [(READ, ""), (READ, "z"), (READ, "p"), (WRITE, "z")] {
        lane.ask(grant("k", perm_type, "k", end)).unwrap();
    }
    assert_eq!(permissions(&mut lane, "k").len(), 4, "073: a second entry for the same interval");
    lane.ask(revoke("k", "k", "z")).unwrap();
    assert_eq!(permissions(&mut lane, "k").len(), 2);
    assert_eq!(status(&mut lane).1, revision + 6, "062");
    lane.ask(grant("k", 7, "zodd", "")).unwrap();
    lane.ask(grant_role("u1", "k")).unwrap();
    be(&mut lane, "u1");
    assert_eq!(refused(lane.range(&get("zodd"))), DENIED, "074");
    be(&mut lane, "root");
    lane.ask(role_delete("r1")).unwrap();
    assert_eq!(message::<pb::AuthUserGetResponse>(&lane.ask(user_get("u1"))).roles, ["k"], "060");
    be(&mut lane, "u1");
    assert_eq!(refused(lane.range(&get("foo"))), DENIED, "054");
}

#[test]
fn au_068_069_an_old_identity() {
    let mut lane = fa();
    be(&mut lane, "u1");
    let old = lane.user.clone();
    be(&mut lane, "root");
    let old_root = lane.user.clone();
    lane.ask(role_add("another")).unwrap();
    lane.user = old;
    assert_eq!(refused(lane.put(put("foo", "1"))), OLD);
    assert_eq!(refused(lane.range(&get("foo"))), OLD);
    let mut out = Vec::new();
    let caller = Caller { name: &lane.user.0, revision: lane.user.1 };
    let empty = request::Txn::default();
    let refused_txn = crate::read::txn(&lane.applier.publish(), caller, &empty, &mut out);
    assert_eq!(refused(refused_txn), OLD, "T() by the check behind the read");
    assert!(lane.grant(5, 60).is_ok(), "069");
    lane.user = old_root;
    assert_eq!(refused(lane.range(&get("foo"))), OLD);
    assert!(lane.ask(user_list()).is_ok(), "069: administrators' rights are not compared");
    // A revision ahead of this member's passes: the entry that raised it is on its way.
    lane.user = ("u1".to_owned(), 999);
    assert!(lane.put(put("foo", "1")).is_ok());
}

#[test]
fn le_036_to_038_leases_under_auth() {
    let mut lane = fa();
    be(&mut lane, "root");
    lane.grant(12, 60).unwrap();
    lane.grant(13, 60).unwrap();
    lane.put(pb::PutRequest { lease: 12, ..put("bar", "1") }).unwrap();
    lane.put(pb::PutRequest { lease: 13, ..put("foo", "1") }).unwrap();
    be(&mut lane, "u1");
    assert_eq!(refused(lane.put(pb::PutRequest { lease: 12, ..put("foo", "1") })), DENIED, "037");
    assert_eq!(refused(lane.revoke(12)), DENIED, "037");
    let nested = then(vec![t(then(vec![super::op::put(pb::PutRequest { lease: 12, ..put("foo", "1") })]))]);
    assert_eq!(refused(lane.txn(nested)), DENIED);
    let published = lane.applier.publish();
    let caller = Caller { name: "u1", revision: lane.user.1 };
    let read = |lease| published.auth.check_lease(caller, Access::Read, lease, &published.leases);
    assert_eq!(read(12), Err(ErrorCode::PermissionDenied), "038");
    assert_eq!(read(13), Ok(()));
    assert_eq!(published.auth.check_identified(Caller::default()), Err(ErrorCode::UserEmpty), "036");
    let listed = |caller| published.auth.check_lease_list(caller, &published.leases);
    assert_eq!(listed(Caller::default()), Err(ErrorCode::UserEmpty), "036");
    assert_eq!(listed(caller), Err(ErrorCode::PermissionDenied), "048");
    assert_eq!(listed(Caller { name: "root", ..caller }), Ok(()), "048");
    assert!(lane.revoke(13).is_ok());
    be(&mut lane, "");
    assert_eq!(refused(lane.revoke(12)), EMPTY, "036");
}

#[test]
fn au_072_any_user_with_the_root_role_is_an_administrator() {
    let mut lane = fa();
    be(&mut lane, "root");
    lane.ask(grant_role("u1", "root")).unwrap();
    be(&mut lane, "u1");
    assert!(lane.ask(user_list()).is_ok());
    assert!(lane.range(&list("\0", "\0")).is_ok());
    assert!(lane.ask(disable()).is_ok());
}

#[test]
fn the_stored_bytes_are_gos() {
    let mut lane = Lane::new();
    let side = |lane: &Lane, bucket, key: &[u8]| lane.applier.store().side(bucket, key).map(hex::encode);
    assert_eq!(side(&lane, Bucket::Auth, b"authRevision").unwrap(), "0000000000000001");
    assert_eq!(side(&lane, Bucket::Auth, b"authEnabled"), None, "written when it is first switched");
    let nopw = pb::AuthUserAddRequest {
        name: "nopw".into(),
        options: Some(api::authpb::UserAddOptions { no_password: true }),
        ..Default::default()
    };
    for request in [
        Request { auth_user_add: Some(nopw), ..Default::default() },
        user_add("root"),
        grant_role("root", "root"),
        role_add("rw"),
        grant("rw", READWRITE, "foo", "fop"),
        grant("rw", READ, "pre", "\0"),
        user_add("u"),
        grant_role("u", "rw"),
        change_password("u"),
        role_add("other"),
        enable(),
    ] {
        lane.ask(request).unwrap();
    }
    assert_eq!(side(&lane, Bucket::AuthUsers, b"nopw").unwrap(), "0a046e6f707722020801");
    assert_eq!(side(&lane, Bucket::AuthUsers, b"u").unwrap(), "0a01751a0272772200");
    assert_eq!(
        side(&lane, Bucket::AuthRoles, b"rw").unwrap(),
        "0a027277120c08021203666f6f1a03666f70120812037072651a0100"
    );
    assert_eq!(side(&lane, Bucket::Auth, b"authEnabled").unwrap(), "01");
    assert_eq!(side(&lane, Bucket::Auth, b"authRevision").unwrap(), "000000000000000b");
    be(&mut lane, "root");
    lane.ask(disable()).unwrap();
    assert_eq!(side(&lane, Bucket::Auth, b"authEnabled").unwrap(), "00");
    assert_eq!(
        side(&lane, Bucket::Auth, b"authRevision").unwrap(),
        "000000000000000c",
        "ten changes, one switch"
    );
    let before = lane.applier.publish().auth.clone();
    let mut lane = lane.restart();
    let after = lane.applier.publish().auth.clone();
    assert_eq!((before.enabled(), before.revision()), (after.enabled(), after.revision()));
    assert_eq!((before.user("u"), before.role("rw")), (after.user("u"), after.role("rw")));
    be(&mut lane, "");
    lane.ask(enable()).unwrap();
    be(&mut lane, "u");
    assert!(lane.range(&list("foo", "fop")).is_ok(), "permissions are merged again after a restart");
}

#[test]
fn passwords_in_the_clear_are_hashed_alike_on_all_members() {
    let hash = |index: u64| {
        let mut lane = Lane::new();
        for _ in 1..index {
            lane.entry(EntryType::EntryNormal, Bytes::new());
        }
        let request =
            pb::AuthUserAddRequest { name: "old".into(), password: "secret".into(), ..Default::default() };
        lane.ask(Request { auth_user_add: Some(request), ..Default::default() }).unwrap();
        lane.applier.publish().auth.user("old").unwrap().password.clone()
    };
    let first = hash(1);
    assert_eq!(first, hash(1));
    assert_ne!(first, hash(2));
    let text = std::str::from_utf8(&first).unwrap();
    assert!(text.starts_with("$2a$04$"), "{text}");
    assert!(bcrypt::verify("secret", text).unwrap());
    let mut lane = Lane::new();
    let long = pb::AuthUserAddRequest { name: "l".into(), password: "x".repeat(73), ..Default::default() };
    assert!(lane.ask(Request { auth_user_add: Some(long), ..Default::default() }).is_err());
    assert!(lane.applier.publish().auth.user("l").is_none());
}
