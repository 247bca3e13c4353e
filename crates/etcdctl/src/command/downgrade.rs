//! `downgrade`.

use api::etcdserverpb::DowngradeRequest;
use api::etcdserverpb::downgrade_request::DowngradeAction;
use etcdutl::cli::{Command, Exit, Invocation, Outcome};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "downgrade",
    short: "Prepares for an older release. See `etcdctl downgrade --help`",
    long: "Prepares a cluster for an older release.",
    group: super::MAINTENANCE,
    children: &[&CANCEL, &ENABLE, &VALIDATE],
    ..Command::EMPTY
};

static CANCEL: Command = Command {
    name: "cancel",
    short: "Stops a downgrade that is under way",
    run: Some(|invocation| send(invocation, DowngradeAction::Cancel, String::new())),
    ..Command::EMPTY
};

static ENABLE: Command = Command {
    name: "enable",
    usage: "<TARGET_VERSION>",
    short: "Starts a downgrade",
    run: Some(|invocation| send(invocation, DowngradeAction::Enable, target(invocation)?)),
    ..Command::EMPTY
};

static VALIDATE: Command = Command {
    name: "validate",
    usage: "<TARGET_VERSION>",
    short: "Tells whether a downgrade could start",
    run: Some(|invocation| send(invocation, DowngradeAction::Validate, target(invocation)?)),
    ..Command::EMPTY
};

fn target(invocation: &Invocation) -> Result<String, Exit> {
    match &invocation.arguments[..] {
        [] => Err(Exit::arguments("TARGET_VERSION not provided")),
        [version] => Ok(String::from_utf8_lossy(version).into_owned()),
        _ => Err(Exit::arguments("too many arguments")),
    }
}

fn send(invocation: &Invocation, action: DowngradeAction, version: String) -> Outcome {
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let request = DowngradeRequest { action: action as i32, version };
        let answer = client.call(request, session.context()).await.map_err(Exit::error)?;
        session.printer.downgrade(action, &answer)
    })
}
