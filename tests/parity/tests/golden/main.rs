//! Sessions with Go's tools and Go's server as they were recorded, done again with ours: the same output, errors and
//! exit codes, to the recording and to Go's programs run beside ours. Then what a new user does first.
//!
//! Reading order: `transcript.rs` (the recordings), `mask.rs` (what two runs never share), `side.rs` (a server and
//! tools), this file, `first_use.rs`, `help.rs`.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

mod first_use;
mod help;
mod mask;
mod side;
mod transcript;

use std::path::Path;

use api::etcdserverpb::alarm_request::AlarmAction;
use api::etcdserverpb::{AlarmRequest, AlarmType};
use client::{Client, Config, Context};
use harness::{Binaries, go_release, ours, with_default_ports};
use side::{Place, Server, http};
use transcript::{Left, Step};

macro_rules! recording {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../data/golden/", $name, ".txt")))
    };
}

/// In the order in which they were recorded: revisions and indexes count on.
const RECORDINGS: &[(&str, &str)] = &[
    recording!("put"),
    recording!("get"),
    recording!("del"),
    recording!("txn"),
    recording!("lease"),
    recording!("lease2"),
    recording!("member"),
    recording!("endpoint"),
    recording!("alarm"),
    recording!("maintenance"),
    recording!("snapshot"),
    recording!("auth"),
    recording!("lock-elect-watch-misc"),
];

/// Our server has no logins yet.
const NOT_SERVED: &str = "auth";

/// Go's `hashkv` has changed the file, so that its checksum is wrong; ours has not.
const TOOLS_DIFFER: &str = "etcdutl snapshot restore WORKDIR/copy.db --data-dir WORKDIR/r0";

/// Our server has no such requests yet.
const SERVER_DIFFERS: &[&str] = &[
    "etcdctl member remove 1",
    "etcdctl member update 1 --peer-urls=http://127.0.0.1:9",
    "etcdctl member promote 1",
    "etcdctl downgrade validate 3.6",
    "etcdctl downgrade validate 3.5",
    "etcdctl downgrade cancel -w json",
];

/// What was done between the recordings, and did not belong to what they show.
fn before(name: &str) -> Vec<Step> {
    let lines: &[&str] = match name {
        "lease2" => &["etcdctl lease grant 5000", "etcdctl put leased x --lease=LEASEID"],
        _ => &[],
    };
    lines.iter().map(|line| Step::unrecorded(line)).collect()
}

/// One step done: where, and what it left behind.
struct Done {
    recording: &'static str,
    step: Step,
    left: Left,
    /// What 3.6's tool printed for the same table.
    table: Option<Left>,
}

/// Does all recordings in a folder, with a server of default flags.
fn perform(binaries: &Binaries, folder: &Path, tables: Option<&Binaries>) -> Vec<Done> {
    let place = Place::new(folder, binaries);
    let old = tables.map(|binaries| {
        let folder = folder.join("tables");
        std::fs::create_dir(&folder).expect("scratch is writable");
        Place::new(&folder, binaries)
    });
    let server = Server::start(&binaries.etcd, folder, &[], &[]);
    let workdir = folder.display().to_string();
    let mut lease = String::new();
    let mut done = Vec::new();
    let is_ours = binaries.etcd == ours().etcd;
    for (recording, text) in RECORDINGS {
        if is_ours && *recording == NOT_SERVED {
            continue;
        }
        for mut step in before(recording).into_iter().chain(transcript::read(text)) {
            let line = step.command.replace("WORKDIR", &workdir).replace("LEASEID", &lease);
            let left = special(&line).unwrap_or_else(|| place.run(&line, &step.input));
            if let Some(id) = left.stdout.strip_prefix("lease ").and_then(|rest| rest.split(' ').next()) {
                id.clone_into(&mut lease);
            }
            let is_table = step.command.contains("-w table") && left.code == 0;
            let table = old.as_ref().filter(|_| is_table).map(|old| old.run(&line, &step.input));
            step.recorded = mask::left(&step.command, "WORKDIR", &step.recorded);
            let masked = |left: &Left| mask::left(&step.command, &workdir, left);
            let (left, table) = (masked(&left), table.as_ref().map(masked));
            done.push(Done { recording, step, left, table });
        }
    }
    server.kill();
    done
}

/// Lines that were not typed to a tool of ours.
fn special(line: &str) -> Option<Left> {
    let stdout = if line.contains("/v3/maintenance/alarm") {
        raise_alarm();
        String::new()
    } else if line.ends_with("/health") {
        http(2379, "GET", "/health", &[])?.split_once(' ')?.1.to_owned()
    } else {
        return None;
    };
    Some(Left { stdout, ..Left::default() })
}

fn raise_alarm() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(Config::default()).await.expect("settings are sound");
        let request = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: 0x8e9e_05c5_2164_694d,
            alarm: AlarmType::Nospace as i32,
        };
        client.call(request, Context::none()).await.expect("the server takes it");
    });
}

fn run(binaries: Binaries, tables: Option<Binaries>) -> Option<Vec<Done>> {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    with_default_ports(move || perform(&binaries, scratch.path(), tables.as_ref()))
}

fn show(left: &Left) -> String {
    format!("{}[stderr] {}[exit {}]\n", left.stdout, left.stderr, left.code)
}

/// Differences between the recordings and what was done now.
fn unlike_recorded(all: &[Done], excused: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for done in all {
        let (expected, found) = (show(&done.step.recorded), show(&done.left));
        let unrecorded = done.step.recorded == Left::default() || done.step.command.contains("/v3/");
        if expected != found && !unrecorded && !excused.contains(&done.step.command.as_str()) {
            wrong.push(format!("{}: $ {}\n--- recorded\n{expected}--- ours\n{found}", done.recording, done.step.command));
        }
    }
    wrong
}

#[test]
fn ours_does_what_was_recorded() {
    let Some(all) = run(ours(), None) else { return };
    let excused: Vec<&str> = SERVER_DIFFERS.iter().copied().chain([TOOLS_DIFFER]).collect();
    let wrong = unlike_recorded(&all, &excused);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(all.len() > 150, "{} steps were done", all.len());
}

/// Logins too, which our server does not have yet.
#[test]
fn our_tools_do_what_was_recorded_on_gos_server() {
    let Some(go) = go_release("3.7.3") else { return };
    let Some(all) = run(Binaries { etcd: go.etcd, ..ours() }, None) else { return };
    let wrong = unlike_recorded(&all, &[TOOLS_DIFFER]);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(all.len() > 200, "{} steps were done", all.len());
}

#[test]
fn ours_does_what_go_does() {
    let Some(go) = go_release("3.7.3") else { return };
    let (Some(expected), Some(found)) = (run(go, go_release("3.6.16")), run(ours(), None)) else { return };
    let expected: Vec<&Done> = expected.iter().filter(|done| done.recording != NOT_SERVED).collect();
    let mut wrong = Vec::new();
    for (go, ours) in expected.iter().zip(&found) {
        assert_eq!(go.step.command, ours.step.command, "both went through the same");
        let left = go.table.as_ref().unwrap_or(&go.left);
        let (expected, found) = (show(left), show(&ours.left));
        let command = ours.step.command.as_str();
        if expected != found && !SERVER_DIFFERS.contains(&command) && command != TOOLS_DIFFER {
            wrong.push(format!("{}: $ {command}\n--- Go\n{expected}--- ours\n{found}", go.recording));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), found.len(), wrong.join("\n"));
}
