//! `member`: list and change members.

use api::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};
use etcdutl::cli::{BAD_FEATURE, Command, Exit, Flag, Invocation, Outcome, out, parse_uint};
use etcdutl::text::quote;

use crate::global::{Session, block_on};
use crate::print::Format;

pub(super) static COMMAND: Command = Command {
    name: "member",
    short: "Shows and changes the members. See `etcdctl member --help`",
    long: "Shows and changes the members of a cluster.",
    group: super::MAINTENANCE,
    children: &[&ADD, &LIST, &PROMOTE, &REMOVE, &UPDATE],
    ..Command::EMPTY
};

static ADD: Command = Command {
    name: "add",
    usage: "<memberName> [options]",
    short: "Adds a member",
    flags: &[
        Flag::switch("learner", "add it as a learner, without a vote"),
        Flag::text("peer-urls", "", "URLs, with commas in between, where the other members reach it"),
    ],
    run: Some(add),
    ..Command::EMPTY
};

static LIST: Command = Command {
    name: "list",
    short: "Lists the members",
    long: "Lists the members. In the format \"simple\" these are, with commas in between:
ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.",
    flags: &[Flag::text("consistency", "l", "linearizable (l) or serializable (s)")],
    run: Some(list),
    ..Command::EMPTY
};

static PROMOTE: Command = Command {
    name: "promote",
    usage: "<memberID>",
    short: "Gives a learner a vote",
    run: Some(promote),
    ..Command::EMPTY
};

static REMOVE: Command = Command {
    name: "remove",
    usage: "<memberID>",
    short: "Removes a member",
    run: Some(remove),
    ..Command::EMPTY
};

static UPDATE: Command = Command {
    name: "update",
    usage: "<memberID> [options]",
    short: "Changes where a member is reached by the others",
    flags: &[Flag::text("peer-urls", "", "URLs, with commas in between, where the other members reach it")],
    run: Some(update),
    ..Command::EMPTY
};

fn list(invocation: &Invocation) -> Outcome {
    let linearizable = match invocation.text("consistency") {
        "l" => true,
        "s" => false,
        other => return Err(Exit::new(BAD_FEATURE, format!("unknown consistency flag {other:?}"))),
    };
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer =
            client.call(MemberListRequest { linearizable }, session.context()).await.map_err(Exit::error)?;
        session.printer.member_list(&answer)
    })
}

fn add(invocation: &Invocation) -> Outcome {
    let name = match &invocation.arguments[..] {
        [] => return Err(Exit::arguments("member name not provided")),
        [name] => String::from_utf8_lossy(name).into_owned(),
        many => {
            let mut text = String::from("too many arguments");
            for argument in many {
                let argument = String::from_utf8_lossy(argument);
                if argument.to_lowercase().starts_with("http") {
                    text.push_str(&format!(", did you mean --peer-urls={argument}"));
                }
            }
            return Err(Exit::arguments(text));
        }
    };
    let urls = invocation.text("peer-urls").to_owned();
    if urls.is_empty() {
        return Err(Exit::arguments("member peer urls not provided"));
    }
    let session = Session::open(invocation)?;
    check_urls(&urls)?;
    block_on(async {
        let client = session.client().await?;
        let request = MemberAddRequest {
            peer_ur_ls: urls.split(',').map(str::to_owned).collect(),
            is_learner: invocation.switch("learner"),
        };
        let answer = client.call(request, session.context()).await.map_err(Exit::error)?;
        session.printer.member_add(&answer)?;
        if session.printer.format == Format::Simple { out(environment(&name, &urls, &answer)) } else { Ok(()) }
    })
}

/// URLs that no peer could listen on are not even sent.
fn check_urls(urls: &str) -> Outcome {
    for url in urls.split(',') {
        let url = url.trim();
        let wrong = |what: &str| Err(Exit::error(format!("{what}: {url}")));
        let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| SCHEMES.contains(scheme)) else {
            return wrong("URL scheme must be http, https, unix, or unixs");
        };
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if scheme.starts_with("unix") {
            continue;
        }
        if host.rsplit_once(':').is_none_or(|(name, _)| name.contains(':') && !name.ends_with(']')) {
            return wrong("URL address does not have the form \"host:port\"");
        }
        if path.starts_with('/') {
            return wrong("URL must not contain a path");
        }
    }
    Ok(())
}

/// What URLs of peers may begin with.
const SCHEMES: &[&str] = &["http", "https", "unix", "unixs"];

/// What the new member is to be started with.
fn environment(name: &str, urls: &str, answer: &MemberAddResponse) -> String {
    let new = answer.member.as_ref().map_or(0, |member| member.id);
    let mut cluster = Vec::new();
    for member in &answer.members {
        let name = if member.id == new { name } else { &member.name };
        cluster.extend(member.peer_ur_ls.iter().map(|url| format!("{name}={url}")));
    }
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quote(name.as_bytes()),
        quote(cluster.join(",").as_bytes()),
        quote(urls.as_bytes())
    )
}

/// The one argument, a member in hex.
fn member_argument(invocation: &Invocation) -> Result<u64, Exit> {
    let [id] = &invocation.arguments[..] else { return Err(Exit::arguments("member ID is not provided")) };
    parse_uint(&String::from_utf8_lossy(id), 16)
        .map_err(|why| Exit::arguments(format!("bad member ID arg ({why}), expecting ID in Hex")))
}

fn remove(invocation: &Invocation) -> Outcome {
    let id = member_argument(invocation)?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(MemberRemoveRequest { id }, session.context()).await.map_err(Exit::error)?;
        session.printer.member_changed(id, "removed from", answer.header.as_ref(), &answer.members, &answer)
    })
}

fn update(invocation: &Invocation) -> Outcome {
    let id = member_argument(invocation)?;
    let urls = invocation.text("peer-urls");
    if urls.is_empty() {
        return Err(Exit::arguments("member peer urls not provided"));
    }
    let request = MemberUpdateRequest { id, peer_ur_ls: urls.split(',').map(str::to_owned).collect() };
    let session = Session::open(invocation)?;
    check_urls(urls)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(request, session.context()).await.map_err(Exit::error)?;
        session.printer.member_changed(id, "updated in", answer.header.as_ref(), &answer.members, &answer)
    })
}

fn promote(invocation: &Invocation) -> Outcome {
    let id = member_argument(invocation)?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(MemberPromoteRequest { id }, session.context()).await.map_err(Exit::error)?;
        session.printer.member_changed(id, "promoted in", answer.header.as_ref(), &answer.members, &answer)
    })
}
