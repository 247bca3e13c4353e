//! Go's etcdctl and ours side by side where connections are not the plain ones: TLS, socket files, dead endpoints,
//! the environment, and command lines that are wrong.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

#[path = "side_by_side/certificates.rs"]
mod certificates;
#[path = "side_by_side/wrong.rs"]
mod wrong;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Member, Options, go_release};

const OURS: &str = env!("CARGO_BIN_EXE_etcdctl");

/// What a command left behind, as far as two runs share it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

/// Runs a line in a folder: variables first, then the arguments; `<<` begins what is given on standard input.
fn run(program: &Path, folder: &Path, line: &str) -> Left {
    let (line, input) = line.split_once("<<").unwrap_or((line, ""));
    let mut words = line.split(' ').filter(|word| !word.is_empty()).peekable();
    // A command that waits for what never comes shows as exit code 124.
    let mut command = Command::new("timeout");
    command.arg("20").arg(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCDCTL_")) {
        command.env_remove(name);
    }
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        if !name.starts_with("ETCDCTL_") {
            break;
        }
        command.env(name, value);
        words.next();
    }
    command.args(words.map(|word| if word == "''" { "" } else { word })).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    // Who does not read its input may close the pipe.
    drop(stdin.write_all(input.replace("\\n", "\n").as_bytes()));
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    Left {
        stdout: took(&String::from_utf8_lossy(&output.stdout)),
        stderr: messages(&String::from_utf8_lossy(&output.stderr)),
        code: output.status.code(),
    }
}

/// Log lines keep level, message and error; usage texts go, the log of Go's gRPC library, and its calls of stty.
fn messages(text: &str) -> String {
    let mut kept = String::new();
    let ends = |line: &str| line.starts_with("Usage:") || line.contains(" INFO: [") || line.contains(" WARNING: [");
    for line in text.lines().take_while(|line| !ends(line)) {
        if line.starts_with('{') {
            let field = |name: &str| {
                let Some(start) = line.find(&format!("\"{name}\":\"")) else { return String::new() };
                let value = &line[start + name.len() + 4..];
                let end = value.find("\",\"").or(value.find("\"}")).unwrap_or(value.len());
                value[..end].to_owned()
            };
            kept.push_str(&[field("level"), field("msg"), field("logger"), cause(&field("error"))].join(" "));
        } else if line.starts_with("stty: ") {
            continue;
        } else {
            kept.push_str(&took(line));
        }
        kept.push('\n');
    }
    kept
}

/// Which of several dead endpoints is named is left to chance; so is, in Go, whether a refused certificate shows as
/// the alert or as the connection that it closed.
fn cause(error: &str) -> String {
    if let Some((before, _)) = error.split_once("latest balancer error: ").filter(|(_, cause)| {
        ["broken pipe", "reset by peer", "remote error", "server preface"].iter().any(|text| cause.contains(text))
    }) {
        return format!("{before}the connection was closed");
    }
    error.split_once("dial tcp 127.0.0.1:").map_or(error.to_owned(), |(before, after)| {
        format!("{before}dial tcp PORT{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
    })
}

/// Durations go.
fn took(text: &str) -> String {
    let mut parts = text.split("took ");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches("= ").trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == 'µ');
        masked.push_str("took T");
        masked.push_str(rest);
    }
    masked
}

/// The lines by both tools; what differs is shown.
fn compare(folder: &Path, lines: &[String]) {
    let Some(go) = go_release("3.7.3") else { return };
    let mut wrong = Vec::new();
    for line in lines {
        let (expected, found) = (run(&go.etcdctl, folder, line), run(Path::new(OURS), folder, line));
        if expected != found {
            wrong.push(format!("$ etcdctl {line}\nGo:   {expected:#?}\nours: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

/// A server of Go's.
fn serve(folder: &Path, name: &str) -> Option<Member> {
    let go = go_release("3.7.3")?;
    Some(Member::start(&go, &folder.join(name), Options::default()))
}

/// A server of Go's that listens for clients at a URL that the harness would not know how to ask for its health.
fn listen(folder: &Path, name: &str, url: &str, flags: &[&str]) -> Killed {
    let go = go_release("3.7.3").expect("it was there a moment ago");
    let peer = format!("http://127.0.0.1:{}", harness::free_port());
    let mut command = Command::new(&go.etcd);
    command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).args(flags);
    for (flag, value) in [
        ("name", name),
        ("data-dir", name),
        ("listen-client-urls", url),
        ("advertise-client-urls", url),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", &format!("{name}={peer}")),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    Killed(command.spawn().expect("the program starts"))
}

#[test]
fn socket_files_and_dead_endpoints() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let folder = scratch.path();
    let Some(member) = serve(folder, "m") else { return };
    let ep = member.endpoint();
    // Of socket files etcd takes the part after the slashes as a path, colon and all.
    let socket = format!("localhost:{}", harness::free_port());
    let _other = listen(folder, "s", &format!("unix://{socket}"), &[]);
    let started = Instant::now();
    while !folder.join(&socket).exists() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let lines = [
        format!("--endpoints=unix://{socket} put a 1"),
        format!("--endpoints=unix:{socket} get a"),
        format!("--endpoints=unix://{socket} member list"),
        format!("--endpoints=unix://{socket} endpoint status"),
        format!("--endpoints=unix://{socket} endpoint health --cluster"),
        "--endpoints=unix://nofile --command-timeout=1s get a".into(),
        format!("--endpoints=127.0.0.1:1,{ep} put a 1"),
        format!("--endpoints=http://127.0.0.1:1,http://{ep} get a"),
        format!("--endpoints=127.0.0.1:1,{ep} member list"),
        format!("--endpoints=127.0.0.1:1,{ep} endpoint status --command-timeout=1s"),
        format!("--endpoints=127.0.0.1:1,{ep} watch a --rev=1 --command-timeout=1s -w bad"),
        format!("--endpoints={ep} --endpoints=127.0.0.1:1 endpoint health --command-timeout=1s"),
        "--endpoints=127.0.0.1:1,127.0.0.1:2 get a --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1,127.0.0.1:2 put a 1 --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1,127.0.0.1:2 lease grant 10 --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 endpoint hashkv --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 endpoint status --cluster --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 endpoint health --cluster --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 defrag --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 defrag --cluster --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 snapshot save x --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 get a --stream --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:1 get a --user=a:b --dial-timeout=1s".into(),
        "--endpoints= get a".into(),
        "--endpoints=127.0.0.1 get a --command-timeout=1s".into(),
        "--endpoints=127.0.0.1:99999 get a --command-timeout=1s".into(),
        format!("--endpoints=ftp://{ep} get a --command-timeout=1s"),
    ];
    compare(folder, &lines);
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_environment() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(member) = serve(scratch.path(), "m") else { return };
    let with = |rest: &str| format!("ETCDCTL_ENDPOINTS={} {rest}", member.endpoint());
    let lines = [
        with("put a 1"),
        with("get a"),
        with("ETCDCTL_WRITE_OUT=json get a"),
        with("ETCDCTL_HEX=true get a"),
        with("ETCDCTL_NOSUCH=5 get a"),
        with("ETCDCTL_PREFIX=true get a"),
        with("ETCDCTL_USER= get a"),
        with("ETCDCTL_USER=root:x get a"),
        with("ETCDCTL_DIAL_TIMEOUT=3s ETCDCTL_KEEPALIVE_TIME=1s ETCDCTL_KEEPALIVE_TIMEOUT=1s get a"),
        with("ETCDCTL_DEBUG=true get a"),
        with("ETCDCTL_WRITE_OUT=json get a -w fields"),
        with(&format!("get a --endpoints={}", member.endpoint())),
        with("ETCDCTL_WRITE_OUT=yaml get a"),
        "ETCDCTL_WRITE_OUT=yaml version".into(),
    ];
    compare(scratch.path(), &lines);
    let conflict = run(Path::new(OURS), scratch.path(), &with("get a --endpoints=127.0.0.1:1"));
    assert_eq!(conflict.code, Some(1));
    assert!(conflict.stderr.contains("conflicting environment variable"), "{conflict:?}");
    // Go's reads past a variable that makes no sense; ours does too, and says so.
    let ignored = run(Path::new(OURS), scratch.path(), &with("ETCDCTL_HEX=zz get a"));
    assert_eq!((ignored.code, ignored.stdout.as_str()), (Some(0), "a\n1\n"));
}

/// Starts a command that goes on, and reads its lines.
struct Running {
    child: Killed,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Running {
    fn start(arguments: &[&str]) -> Running {
        let mut command = Command::new(OURS);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child: Killed(child), lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("a line is printed")
    }

    /// Ends it as a user would; its exit code.
    fn interrupt(&mut self) -> Option<i32> {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill is there").success());
        self.child.0.wait().expect("it ends").code()
    }
}

#[test]
fn a_watch_goes_on_after_the_server_was_away() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(mut member) = serve(scratch.path(), "m") else { return };
    let endpoints = format!("--endpoints={}", member.endpoint());
    let put = |value: &str| run(Path::new(OURS), scratch.path(), &format!("{endpoints} put k {value}"));
    let watch = Running::start(&[&endpoints, "watch", "k", "--rev=1"]);
    assert_eq!(put("1").code, Some(0));
    assert_eq!([watch.line(), watch.line(), watch.line()], ["PUT", "k", "1"]);
    member.kill();
    member.start_again();
    assert_eq!(put("2").code, Some(0));
    assert_eq!(put("3").code, Some(0));
    let seen: Vec<String> = (0..6).map(|_| watch.line()).collect();
    assert_eq!(seen, ["PUT", "k", "2", "PUT", "k", "3"]);
}

#[test]
fn locks_and_elections_are_waited_for() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(member) = serve(scratch.path(), "m") else { return };
    let endpoints = format!("--endpoints={}", member.endpoint());
    let mut first = Running::start(&[&endpoints, "lock", "l", "--ttl=60"]);
    let key = first.line();
    assert!(key.starts_with("l/"), "{key}");
    let mut second = Running::start(&[&endpoints, "lock", "l"]);
    assert!(second.lines.recv_timeout(Duration::from_millis(800)).is_err(), "the lock is held");
    assert_eq!(first.interrupt(), Some(0));
    assert!(second.line().starts_with("l/"));
    assert_eq!(second.interrupt(), Some(0));
    let mut leader = Running::start(&[&endpoints, "elect", "e", "one"]);
    assert!(leader.line().starts_with("e/"));
    assert_eq!(leader.line(), "one");
    let observer = Running::start(&[&endpoints, "elect", "-l", "e"]);
    assert!(observer.line().starts_with("e/"));
    assert_eq!(observer.line(), "one");
    let mut next = Running::start(&[&endpoints, "elect", "e", "two"]);
    assert!(next.lines.recv_timeout(Duration::from_millis(500)).is_err(), "there is a leader");
    assert_eq!(leader.interrupt(), Some(0));
    assert!(next.line().starts_with("e/"));
    assert_eq!(next.line(), "two");
    assert!(observer.line().starts_with("e/"));
    assert_eq!(observer.line(), "two");
    assert_eq!(next.interrupt(), Some(0));
}

#[test]
fn a_mirror_follows() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(from) = serve(scratch.path(), "from") else { return };
    let Some(to) = serve(scratch.path(), "to") else { return };
    let on = |member: &Member, line: &str| {
        run(Path::new(OURS), scratch.path(), &format!("--endpoints={} {line}", member.endpoint()))
    };
    assert_eq!(on(&from, "put /a/1 one").code, Some(0));
    assert_eq!(on(&from, "put /b/1 not").code, Some(0));
    let source = format!("--endpoints={}", from.endpoint());
    let _mirror =
        Running::start(&[&source, "make-mirror", &to.endpoint(), "--prefix=/a/", "--dest-prefix=/copy/"]);
    let wait_for = |expected: &str| {
        let started = Instant::now();
        let mut found = String::new();
        while started.elapsed() < Duration::from_secs(20) {
            found = on(&to, "get --prefix /").stdout;
            if found == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{found:?} is not {expected:?}");
    };
    wait_for("/copy/1\none\n");
    assert_eq!(on(&from, "put /a/2 two").code, Some(0));
    assert_eq!(on(&from, "del /a/1").code, Some(0));
    wait_for("/copy/2\ntwo\n");
}

#[test]
fn a_check_of_memory_runs() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let Some(member) = serve(scratch.path(), "m") else { return };
    let endpoint = member.endpoint();
    let line = format!("--endpoints={endpoint} check datascale --load=s --auto-compact --auto-defrag");
    let left = run(Path::new(OURS), scratch.path(), &line);
    assert_eq!(left.code, Some(0), "{left:?}");
    let lines: Vec<&str> = left.stdout.lines().collect();
    let start = "Start data scale check for work load [10000 key-value pairs, 1024 bytes per key-value, 50 concurrent clients].";
    assert_eq!(lines[0], start);
    for part in ["Compacting with revision ", "Compacted with revision ", "Defragmenting \"", "Defragmented \""] {
        assert!(left.stdout.contains(part), "{part}: {}", left.stdout);
    }
    assert!(left.stdout.contains("PASS: Approximate system memory used : "), "{}", left.stdout);
    let keys = run(Path::new(OURS), scratch.path(), &format!("--endpoints={endpoint} get --prefix /etcdctl --keys-only"));
    assert_eq!(keys.stdout, "", "what was written is deleted");
}

