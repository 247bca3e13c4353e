//! `alarm`: list and disarm alarms.

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmResponse, AlarmType};
use client::{Client, Context, Error};
use etcdutl::cli::{Command, Exit, Invocation, Outcome};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "alarm",
    short: "Shows and ends alarms. See `etcdctl alarm --help`",
    long: "Shows and ends alarms.",
    group: super::MAINTENANCE,
    children: &[&DISARM, &LIST],
    ..Command::EMPTY
};

static DISARM: Command =
    Command { name: "disarm", short: "Ends all alarms", run: Some(disarm), ..Command::EMPTY };

static LIST: Command =
    Command { name: "list", short: "Lists the alarms that are on", run: Some(list), ..Command::EMPTY };

/// The alarms that are on.
pub(super) async fn get(client: &Client, context: Context) -> Result<AlarmResponse, Error> {
    let request =
        AlarmRequest { action: AlarmAction::Get as i32, member_id: 0, alarm: AlarmType::None as i32 };
    client.call(request, context).await
}

fn list(invocation: &Invocation) -> Outcome {
    if !invocation.arguments.is_empty() {
        return Err(Exit::arguments("alarm list command accepts no arguments"));
    }
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = get(&client, session.context()).await.map_err(Exit::error)?;
        session.printer.alarms(&answer)
    })
}

fn disarm(invocation: &Invocation) -> Outcome {
    if !invocation.arguments.is_empty() {
        return Err(Exit::arguments("alarm disarm command accepts no arguments"));
    }
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let context = session.context();
        let raised = get(&client, context).await.map_err(Exit::error)?;
        // One request per alarm; what is printed is the sum, which has no header of its own.
        let mut ended = AlarmResponse::default();
        for alarm in raised.alarms {
            let request = AlarmRequest {
                action: AlarmAction::Deactivate as i32,
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            ended.alarms.extend(client.call(request, context).await.map_err(Exit::error)?.alarms);
        }
        session.printer.alarms(&ended)
    })
}
