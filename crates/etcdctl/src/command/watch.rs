//! `watch`: events as they come, in one watch, or in many that are started by lines of standard input.

use std::io::BufRead;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;

use api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use api::mvccpb::Event;
use api::mvccpb::event::EventType;
use client::{Client, Error, Watch, WatchOptions};
use etcdutl::cli::{
    Command, Exit, Flag, INTERRUPTED, INVALID_INPUT, Invocation, Outcome, err, out, parse_flags,
};
use etcdutl::text::quote;
use tokio::sync::mpsc;

use super::words;
use crate::global::{Session, block_on};
use crate::print::Format;

pub(super) static COMMAND: Command = Command {
    name: "watch",
    usage: "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    short: "Shows changes of keys as they happen",
    long: "Shows changes of keys as they happen.

The command after -- runs for every event; it finds the event in ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE,
ETCD_WATCH_KEY and ETCD_WATCH_VALUE. Without a key argument, ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END are used.",
    group: super::KEYS,
    flags: &[
        Flag::switch("interactive", "start watches by lines of standard input").letter('i'),
        Flag::switch("prefix", "watch all keys that begin with this one"),
        Flag::switch("prev-kv", "show keys as they were before, too"),
        Flag::switch("progress-notify", "show from time to time how far the watch is"),
        Flag::int("rev", "revision to begin with"),
    ],
    run: Some(run),
    ..Command::EMPTY
};

/// What to watch, and what to run for each event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    arguments: Vec<Vec<u8>>,
    execute: Vec<Vec<u8>>,
}

const BAD_COUNT: &str = "bad number of arguments";
const BAD_CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const BAD_SEPARATOR: &str = "bad number of arguments (found separator --, but no commands)";

fn run(invocation: &Invocation) -> Outcome {
    let variable = |name| std::env::var(name).unwrap_or_default().into_bytes();
    let (key, end) = (variable("ETCDCTL_WATCH_KEY"), variable("ETCDCTL_WATCH_RANGE_END"));
    if key.is_empty() && !end.is_empty() {
        let end = quote(&end);
        let text = format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}");
        return Err(Exit::arguments(text));
    }
    if invocation.switch("interactive") {
        return interactive(invocation, &key, &end);
    }
    let wanted = wanted(&invocation.arguments, invocation.before_dashes, &key, &end)?;
    let session = Session::open(invocation)?;
    let create = create(invocation, &wanted.arguments).map_err(Exit::arguments)?;
    block_on(async {
        let client = session.client().await?;
        let watch = Watch::new(&client, WatchOptions { create });
        show(watch, &session, &wanted.execute).await?;
        Err(Exit::new(INTERRUPTED, "watch is canceled by the server"))
    })
}

/// Parts what is watched from what is run, and lays the environment's key under it.
fn wanted(
    arguments: &[Vec<u8>],
    before_dashes: Option<usize>,
    key: &[u8],
    end: &[u8],
) -> Result<Wanted, Exit> {
    let (watched, execute) = arguments.split_at(before_dashes.unwrap_or(arguments.len()));
    if before_dashes.is_some() && execute.is_empty() {
        return Err(Exit::arguments(BAD_SEPARATOR));
    }
    if key.is_empty() {
        if watched.is_empty() {
            return Err(Exit::arguments(BAD_COUNT));
        }
        return Ok(Wanted { arguments: watched.to_vec(), execute: execute.to_vec() });
    }
    if !watched.is_empty() {
        return Err(Exit::arguments(BAD_CONFLICT));
    }
    let mut arguments = vec![key.to_vec()];
    if !end.is_empty() {
        arguments.push(end.to_vec());
    }
    Ok(Wanted { arguments, execute: execute.to_vec() })
}

fn create(invocation: &Invocation, arguments: &[Vec<u8>]) -> Result<WatchCreateRequest, &'static str> {
    let Some(key) = arguments.first() else { return Err(BAD_COUNT) };
    let (key, range_end) = match (arguments.get(1), invocation.switch("prefix")) {
        (Some(_), true) if arguments.len() == 2 => {
            return Err("`range_end` and `--prefix` are mutually exclusive");
        }
        (_, true) => client::prefix_range(key),
        (Some(end), false) if arguments.len() == 2 => (key.clone(), end.clone()),
        _ => (key.clone(), Vec::new()),
    };
    Ok(WatchCreateRequest {
        // An empty key is no key: as in Go's client it means the first one.
        key: if key.is_empty() { vec![0].into() } else { key.into() },
        range_end: range_end.into(),
        start_revision: invocation.int("rev"),
        progress_notify: invocation.switch("progress-notify"),
        prev_kv: invocation.switch("prev-kv"),
        ..Default::default()
    })
}

/// Prints what a watch brings, until it ends.
async fn show(mut watch: Watch, session: &Session, execute: &[Vec<u8>]) -> Outcome {
    loop {
        let answer = match watch.next().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(()),
            Err(error) => {
                err(&format!("watch was canceled ({error})\n"));
                let answer = WatchResponse { canceled: true, ..Default::default() };
                return shown(session, &answer);
            }
        };
        if answer.canceled {
            err(&format!("watch was canceled ({})\n", Error::of_canceled(&answer)));
        } else if answer.events.is_empty() {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            out(format!("progress notify: {revision}\n"))?;
        }
        shown(session, &answer)?;
        for event in &answer.events {
            execute_for(event, execute)?;
        }
    }
}

/// The end of a watch is not an event: the simple format has nothing to say about it.
fn shown(session: &Session, answer: &WatchResponse) -> Outcome {
    if answer.events.is_empty() && session.printer.format == Format::Simple {
        return Ok(());
    }
    session.printer.watch(answer)
}

fn execute_for(event: &Event, execute: &[Vec<u8>]) -> Outcome {
    use std::os::unix::ffi::OsStrExt;
    let Some((program, arguments)) = execute.split_first() else { return Ok(()) };
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type == EventType::Delete as i32 { "DELETE" } else { "PUT" };
    let text = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
    let status = Process::new(text(program))
        .args(arguments.iter().map(|argument| text(argument)))
        .env("ETCD_WATCH_REVISION", kv.mod_revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value))
        .stdin(Stdio::null())
        .status();
    let shown: Vec<String> = execute.iter().map(|word| quote(word)).collect();
    let failed = |why: String| {
        err(&format!("command [{}] error ({why})\n", shown.join(" ")));
        Err(Exit::silent(etcdutl::cli::ERROR))
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(super::lock::status_text(status)),
        Err(error) => failed(super::lock::start_text(program, &error)),
    }
}

/// The watches of an interactive session share its client; each prints by itself.
struct Interactive {
    client: Client,
    session: Arc<Session>,
    progress: Vec<mpsc::Sender<()>>,
    ended: mpsc::Sender<Exit>,
}

fn interactive(invocation: &Invocation, key: &[u8], end: &[u8]) -> Outcome {
    let session = Arc::new(Session::open(invocation)?);
    block_on(async {
        let (ended, mut ends) = mpsc::channel(1);
        let client = session.client().await?;
        let mut state = Interactive { client, session: Arc::clone(&session), progress: Vec::new(), ended };
        let mut lines = input_lines();
        loop {
            tokio::select! {
                Some(line) = lines.recv() => match line {
                    Ok(line) => state.line(&line, key, end)?,
                    Err(why) => {
                        let text = format!("error reading watch request line: {why}");
                        return Err(Exit::new(INVALID_INPUT, text));
                    }
                },
                Some(exit) = ends.recv() => return Err(exit),
            }
        }
    })
}

/// Lines of standard input; the last item says why there are no more. Reading waits in a thread of its own, which
/// ends with the process.
fn input_lines() -> mpsc::Receiver<Result<Vec<u8>, String>> {
    let (lines, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line).map_err(|error| error.to_string());
            let item = match read {
                Ok(_) if line.pop_if(|last| *last == b'\n').is_some() => Ok(line),
                Ok(_) => Err("EOF".to_owned()),
                Err(why) => Err(why),
            };
            let ends = item.is_err();
            if lines.blocking_send(item).is_err() || ends {
                return;
            }
        }
    });
    receiver
}

impl Interactive {
    fn line(&mut self, line: &[u8], key: &[u8], end: &[u8]) -> Outcome {
        let shown = String::from_utf8_lossy(line).into_owned();
        let words = words::split(line).ok_or_else(|| Exit::new(INVALID_INPUT, format!("bad quotes: {shown}")))?;
        match words.first().map(Vec::as_slice) {
            None => err(&format!("Invalid command: {shown} (watch and progress supported)\n")),
            Some(b"watch") if words.len() < 2 && key.is_empty() => {
                err(&format!("Invalid command {shown} (command type or key is not provided)\n"));
            }
            Some(b"watch") => return self.start(&shown, words[1..].to_vec(), key, end),
            Some(b"progress") => {
                for ask in &self.progress {
                    // A full queue means that an earlier request still waits: its answer serves both.
                    if ask.try_send(()).is_err() {
                        continue;
                    }
                }
            }
            Some(_) => err(&format!("Invalid command {shown} (only support watch)\n")),
        }
        Ok(())
    }

    fn start(&mut self, shown: &str, words: Vec<Vec<u8>>, key: &[u8], end: &[u8]) -> Outcome {
        let parsed = parse_flags(COMMAND.flags, words).map_err(Exit::arguments)?;
        let wanted = wanted(&parsed.arguments, parsed.before_dashes, key, end)?;
        let inner = self.session.invocation.nested(&COMMAND, parsed);
        let create = match create(&inner, &wanted.arguments) {
            Ok(create) => create,
            Err(why) => {
                err(&format!("Invalid command {shown} ({why})\n"));
                return Ok(());
            }
        };
        let watch = Watch::new(&self.client, WatchOptions { create });
        self.progress.push(watch.progress_handle());
        let (session, ended) = (Arc::clone(&self.session), self.ended.clone());
        tokio::spawn(async move {
            if let Err(exit) = show(watch, &session, &wanted.execute).await {
                // A full queue holds an end already: one is enough.
                drop(ended.try_send(exit));
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn what_is_watched_and_what_is_run() {
        let read = |line: &str, dashes, key: &str, end: &str| {
            wanted(&words(line), dashes, key.as_bytes(), end.as_bytes())
                .map(|wanted| (wanted.arguments, wanted.execute))
                .map_err(|exit| exit.message.unwrap())
        };
        assert_eq!(read("foo bar", None, "", ""), Ok((words("foo bar"), vec![])));
        assert_eq!(read("foo echo hi", Some(1), "", ""), Ok((words("foo"), words("echo hi"))));
        assert_eq!(read("echo hi", Some(0), "k", "z"), Ok((words("k z"), words("echo hi"))));
        assert_eq!(read("", None, "k", ""), Ok((words("k"), vec![])));
        assert_eq!(read("", None, "", ""), Err(BAD_COUNT.into()));
        assert_eq!(read("echo", Some(0), "", ""), Err(BAD_COUNT.into()));
        assert_eq!(read("foo", None, "k", ""), Err(BAD_CONFLICT.into()));
        assert_eq!(read("foo", Some(1), "", ""), Err(BAD_SEPARATOR.into()));
    }
}
