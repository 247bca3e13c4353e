//! `role`: roles and their permissions.

use api::authpb::Permission;
use api::authpb::permission::Type;
use api::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};
use client::Context;
use etcdutl::cli::{Command, Exit, Flag, Invocation, Outcome};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "role",
    short: "Handles roles. See `etcdctl role --help`",
    long: "Handles roles.",
    group: super::AUTHENTICATION,
    children: &[&ADD, &DELETE, &GET, &GRANT, &LIST, &REVOKE],
    ..Command::EMPTY
};

static ADD: Command =
    Command { name: "add", usage: "<role name>", short: "Makes a role", run: Some(add), ..Command::EMPTY };

static DELETE: Command =
    Command { name: "delete", usage: "<role name>", short: "Deletes a role", run: Some(delete), ..Command::EMPTY };

static GET: Command =
    Command { name: "get", usage: "<role name>", short: "Shows a role", run: Some(get), ..Command::EMPTY };

static LIST: Command = Command { name: "list", short: "Lists all roles", run: Some(list), ..Command::EMPTY };

static GRANT: Command = Command {
    name: "grant-permission",
    usage: "[options] <role name> <permission type> <key> [endkey]",
    short: "Allows a role something (read, write, readwrite) on keys",
    flags: &[
        Flag::switch("from-key", "on all keys from this one on, in the order of their bytes"),
        Flag::switch("prefix", "on all keys that begin with this one"),
    ],
    run: Some(grant),
    ..Command::EMPTY
};

static REVOKE: Command = Command {
    name: "revoke-permission",
    usage: "<role name> <key> [endkey]",
    short: "Takes a permission on keys from a role",
    flags: &[
        Flag::switch("from-key", "on all keys from this one on, in the order of their bytes"),
        Flag::switch("prefix", "on all keys that begin with this one"),
    ],
    run: Some(revoke),
    ..Command::EMPTY
};

fn name(invocation: &Invocation, command: &str) -> Result<String, Exit> {
    match &invocation.arguments[..] {
        [name] => Ok(String::from_utf8_lossy(name).into_owned()),
        _ => Err(Exit::arguments(format!("role {command} command requires role name as its argument"))),
    }
}

fn add(invocation: &Invocation) -> Outcome {
    let name = name(invocation, "add")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthRoleAddRequest { name: name.clone() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.done(format!("Role {name} created"), answer.header.as_ref(), &answer)
    })
}

fn delete(invocation: &Invocation) -> Outcome {
    let role = name(invocation, "delete")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthRoleDeleteRequest { role: role.clone() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.done(format!("Role {role} deleted"), answer.header.as_ref(), &answer)
    })
}

fn get(invocation: &Invocation) -> Outcome {
    let role = name(invocation, "get")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthRoleGetRequest { role: role.clone() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.role_get(&role, &answer)
    })
}

fn list(invocation: &Invocation) -> Outcome {
    if !invocation.arguments.is_empty() {
        return Err(Exit::arguments("role list command requires no arguments"));
    }
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(AuthRoleListRequest {}, Context::none()).await.map_err(Exit::error)?;
        session.printer.role_list(&answer)
    })
}

/// Key and range end of the arguments from `at` on.
fn range(invocation: &Invocation, at: usize) -> Result<(Vec<u8>, Vec<u8>), Exit> {
    let (prefix, from_key) = (invocation.switch("prefix"), invocation.switch("from-key"));
    let key = &invocation.arguments[at];
    let end = invocation.arguments.get(at + 1);
    if prefix && from_key {
        return Err(Exit::arguments("--from-key and --prefix flags are mutually exclusive"));
    }
    if end.is_some() && (prefix || from_key) {
        let flag = if prefix { "--prefix" } else { "--from-key" };
        return Err(Exit::arguments(format!("unexpected endkey argument with {flag} flag")));
    }
    Ok(client::key_range(key, end, prefix, from_key))
}

fn grant(invocation: &Invocation) -> Outcome {
    if invocation.arguments.len() < 3 {
        let text = "role grant command requires role name, permission type, and key [endkey] as its argument";
        return Err(Exit::arguments(text));
    }
    let role = invocation.argument(0).unwrap_or_default();
    let kind = invocation.argument(1).unwrap_or_default();
    let Some(kind) = Type::from_str_name(&kind.to_uppercase()) else {
        return Err(Exit::arguments(format!("invalid permission type: {kind}")));
    };
    let (key, range_end) = range(invocation, 2)?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let perm = Permission { perm_type: kind as i32, key: key.into(), range_end: range_end.into() };
        let request = AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.done(format!("Role {role} updated"), answer.header.as_ref(), &answer)
    })
}

fn revoke(invocation: &Invocation) -> Outcome {
    if invocation.arguments.len() < 2 {
        let text = "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Exit::arguments(text));
    }
    let role = invocation.argument(0).unwrap_or_default();
    let (key, range_end) = range(invocation, 1)?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthRoleRevokePermissionRequest {
            role: role.clone(),
            key: key.clone().into(),
            range_end: range_end.clone().into(),
        };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        let (key, end) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&range_end));
        let line = match &range_end[..] {
            b"" => format!("Permission of key {key} is revoked from role {role}"),
            b"\0" => format!("Permission of range [{key}, <open ended> is revoked from role {role}"),
            _ => format!("Permission of range [{key}, {end}) is revoked from role {role}"),
        };
        session.printer.done(line, answer.header.as_ref(), &answer)
    })
}
