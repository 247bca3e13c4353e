//! `user`: users and their roles.

use api::authpb::UserAddOptions;
use api::etcdserverpb::{
    AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};
use client::Context;
use etcdutl::cli::{Command, Exit, Flag, Invocation, Kind, Outcome, out};

use crate::global::{Session, block_on};
use crate::password;

pub(super) static COMMAND: Command = Command {
    name: "user",
    short: "Handles users. See `etcdctl user --help`",
    long: "Handles users.",
    group: super::AUTHENTICATION,
    children: &[&ADD, &DELETE, &GET, &GRANT, &LIST, &PASSWD, &REVOKE],
    ..Command::EMPTY
};

const INTERACTIVE: Flag =
    Flag::new(Kind::Bool, "interactive", "true", "ask for the password on the terminal, else read a line");

static ADD: Command = Command {
    name: "add",
    usage: "<user name or user:password> [options]",
    short: "Makes a user",
    flags: &[
        INTERACTIVE,
        Flag::text("new-user-password", "", "the password"),
        Flag::switch("no-password", "make a user without a password, for the CN of a certificate"),
    ],
    run: Some(add),
    ..Command::EMPTY
};

static DELETE: Command =
    Command { name: "delete", usage: "<user name>", short: "Deletes a user", run: Some(delete), ..Command::EMPTY };

static GET: Command = Command {
    name: "get",
    usage: "<user name> [options]",
    short: "Shows a user",
    flags: &[Flag::switch("detail", "show what the user's roles allow")],
    run: Some(get),
    ..Command::EMPTY
};

static GRANT: Command = Command {
    name: "grant-role",
    usage: "<user name> <role name>",
    short: "Gives a role to a user",
    run: Some(grant),
    ..Command::EMPTY
};

static LIST: Command = Command { name: "list", short: "Lists all users", run: Some(list), ..Command::EMPTY };

static PASSWD: Command = Command {
    name: "passwd",
    usage: "<user name> [options]",
    short: "Changes the password of a user",
    flags: &[INTERACTIVE],
    run: Some(passwd),
    ..Command::EMPTY
};

static REVOKE: Command = Command {
    name: "revoke-role",
    usage: "<user name> <role name>",
    short: "Takes a role from a user",
    run: Some(revoke),
    ..Command::EMPTY
};

fn name(invocation: &Invocation, command: &str) -> Result<String, Exit> {
    match &invocation.arguments[..] {
        [name] => Ok(String::from_utf8_lossy(name).into_owned()),
        _ => Err(Exit::arguments(format!("user {command} command requires user name as its argument"))),
    }
}

/// Asks twice on the terminal, or reads a line.
fn new_password(invocation: &Invocation, user: &str) -> Result<String, Exit> {
    if !invocation.switch("interactive") {
        return password::read_line();
    }
    let first = password::ask(&format!("Password of {user}: "))?;
    let second = password::ask(&format!("Type password of {user} again for confirmation: "))?;
    if first == second { Ok(first) } else { Err(Exit::arguments("given passwords are different")) }
}

fn add(invocation: &Invocation) -> Outcome {
    let argument = name(invocation, "add")?;
    let no_password = invocation.switch("no-password");
    let given = invocation.text("new-user-password");
    let (name, password) = if no_password {
        (argument, String::new())
    } else if !given.is_empty() {
        (argument, given.to_owned())
    } else {
        match argument.split_once(':') {
            Some(("", _)) => return Err(Exit::arguments("empty user name is not allowed")),
            Some((name, password)) => (name.to_owned(), password.to_owned()),
            None => {
                let password = new_password(invocation, &argument)?;
                (argument, password)
            }
        }
    };
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let options = Some(UserAddOptions { no_password });
        let request = AuthUserAddRequest { name: name.clone(), password, options, ..Default::default() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.done(format!("User {name} created"), answer.header.as_ref(), &answer)
    })
}

fn delete(invocation: &Invocation) -> Outcome {
    let name = name(invocation, "delete")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthUserDeleteRequest { name: name.clone() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.done(format!("User {name} deleted"), answer.header.as_ref(), &answer)
    })
}

fn get(invocation: &Invocation) -> Outcome {
    let name = name(invocation, "get")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthUserGetRequest { name: name.clone() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        if !invocation.switch("detail") {
            return session.printer.user_get(&name, &answer);
        }
        out(format!("User: {name}\n"))?;
        for role in &answer.roles {
            out("\n")?;
            let request = AuthRoleGetRequest { role: role.clone() };
            let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
            session.printer.role_get(role, &answer)?;
        }
        Ok(())
    })
}

fn list(invocation: &Invocation) -> Outcome {
    if !invocation.arguments.is_empty() {
        return Err(Exit::arguments("user list command requires no arguments"));
    }
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(AuthUserListRequest {}, Context::none()).await.map_err(Exit::error)?;
        session.printer.user_list(&answer)
    })
}

fn passwd(invocation: &Invocation) -> Outcome {
    let name = name(invocation, "passwd")?;
    let password = new_password(invocation, &name)?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthUserChangePasswordRequest { name, password, ..Default::default() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.done("Password updated".into(), answer.header.as_ref(), &answer)
    })
}

fn user_and_role(invocation: &Invocation, command: &str) -> Result<(String, String), Exit> {
    match (invocation.arguments.len(), invocation.argument(0), invocation.argument(1)) {
        (2, Some(user), Some(role)) => Ok((user, role)),
        _ => {
            let text = format!("user {command} command requires user name and role name as its argument");
            Err(Exit::arguments(text))
        }
    }
}

fn grant(invocation: &Invocation) -> Outcome {
    let (user, role) = user_and_role(invocation, "grant")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        let line = format!("Role {role} is granted to user {user}");
        session.printer.done(line, answer.header.as_ref(), &answer)
    })
}

fn revoke(invocation: &Invocation) -> Outcome {
    let (name, role) = user_and_role(invocation, "revoke-role")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = AuthUserRevokeRoleRequest { name: name.clone(), role: role.clone() };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        let line = format!("Role {role} is revoked from user {name}");
        session.printer.done(line, answer.header.as_ref(), &answer)
    })
}
