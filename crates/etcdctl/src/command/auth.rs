//! `auth`: switch auth on and off.

use api::ErrorCode;
use api::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest, AuthUserGrantRoleRequest,
};
use client::{Client, Error};
use etcdutl::cli::{Command, Exit, Invocation, Outcome, out};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "auth",
    short: "Turns authentication on and off. See `etcdctl auth --help`",
    long: "Turns authentication on and off.",
    group: super::AUTHENTICATION,
    children: &[&DISABLE, &ENABLE, &STATUS],
    ..Command::EMPTY
};

static DISABLE: Command =
    Command { name: "disable", short: "Turns authentication off", run: Some(disable), ..Command::EMPTY };

static ENABLE: Command =
    Command { name: "enable", short: "Turns authentication on", run: Some(enable), ..Command::EMPTY };

static STATUS: Command =
    Command { name: "status", short: "Tells whether authentication is on", run: Some(status), ..Command::EMPTY };

fn no_arguments(invocation: &Invocation, name: &str) -> Outcome {
    if invocation.arguments.is_empty() {
        return Ok(());
    }
    Err(Exit::arguments(format!("auth {name} command does not accept any arguments")))
}

fn status(invocation: &Invocation) -> Outcome {
    no_arguments(invocation, "status")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(AuthStatusRequest {}, session.context()).await.map_err(Exit::error)?;
        session.printer.auth_status(&answer)
    })
}

fn enable(invocation: &Invocation) -> Outcome {
    no_arguments(invocation, "enable")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        loop {
            match client.call(AuthEnableRequest {}, session.context()).await {
                Ok(_) => return out("Authentication Enabled\n"),
                Err(error) if error.is(ErrorCode::RootRoleNotExist) => {
                    make_root(&client, &session).await.map_err(Exit::error)?;
                }
                Err(error) => return Err(Exit::error(error)),
            }
        }
    })
}

/// Makes the role root where it is missing, and gives it to the user root.
async fn make_root(client: &Client, session: &Session) -> Result<(), Error> {
    let role = String::from("root");
    match client.call(AuthRoleAddRequest { name: role.clone() }, session.context()).await {
        Err(error) if !error.is(ErrorCode::RoleAlreadyExist) => return Err(error),
        _ => {}
    }
    client.call(AuthUserGrantRoleRequest { user: role.clone(), role }, session.context()).await.map(|_| ())
}

fn disable(invocation: &Invocation) -> Outcome {
    no_arguments(invocation, "disable")?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        client.call(AuthDisableRequest {}, session.context()).await.map_err(Exit::error)?;
        out("Authentication Disabled\n")
    })
}
