//! Go's own etcdctl, 3.7.3 and 3.5.35, against Go's server and against ours: what it prints is the same but for
//! numbers that differ from run to run.

use std::path::Path;

use e2e::process::Running;
use harness::{Binaries, Member, Options, go_release, ours, run_with_input};

/// Everything that was typed and printed.
struct Session<'a> {
    etcdctl: &'a Path,
    endpoint: String,
    text: String,
}

impl Session<'_> {
    fn run(&mut self, command: &str) -> String {
        self.run_with(command, "")
    }

    fn run_with(&mut self, command: &str, input: &str) -> String {
        let words: Vec<&str> = std::iter::once(self.endpoint.as_str()).chain(command.split(' ')).collect();
        let output = run_with_input(self.etcdctl, &words, input);
        // Log lines of the client carry times and addresses; the last line is the error itself.
        let error = output.stderr.lines().last().unwrap_or_default();
        let error = if error.starts_with('{') { "(a log line)" } else { error };
        self.note(&format!("$ {command}\n{}{error}\n", output.stdout));
        assert_eq!(output.code == 0, error.is_empty() || error.starts_with("Finished"), "{command}: {error}");
        output.stdout
    }

    fn note(&mut self, text: &str) {
        self.text.push_str(&masked(text));
    }
}

/// Numbers that differ from run to run become `#`: ids, sizes, times.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || c == '.' {
            word.push(c);
            continue;
        }
        let is_id = word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit()) && word.bytes().any(|b| b.is_ascii_digit());
        let is_duration = word.ends_with("ms") || word.ends_with('s') && word.starts_with(|c: char| c.is_ascii_digit());
        let is_share = c == '%';
        let is_size = matches!(word.as_str(), "kB" | "MB");
        if is_size {
            let cut = out.trim_end().rfind([' ', '(', '\n']).map_or(0, |at| at + 1);
            out.truncate(cut);
        }
        out.push_str(if is_id || is_duration || is_size || is_share { "#" } else { &word });
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

fn script(etcdctl: &Path, member: &Member, scratch: &Path) -> String {
    let endpoint = format!("--endpoints={}", member.endpoint());
    let mut session = Session { etcdctl, endpoint: endpoint.clone(), text: String::new() };
    for command in [
        "put a 1", "put a 2 --prev-kv", "put b 3", "get a", "get a --rev=2", "get a --prefix -w fields", "get --from-key a --keys-only",
        "get a -w json", "get nothing", "del b --prev-kv", "del nothing", "put --ignore-value a",
    ] {
        session.run(command);
    }
    session.run_with("txn", "value(\"a\") = \"2\"\nversion(\"a\") > \"1\"\n\nput t yes\nget t\n\nput t no\n\n");
    session.run_with("txn", "mod(\"a\") = \"1\"\n\nput t yes\n\ndel t\nget t\n\n");

    let watch = Running::start(etcdctl, &[&endpoint, "watch", "w", "--prefix", "--prev-kv", "--rev=1"]);
    for command in ["put w/1 x", "put w/1 y", "del w/1"] {
        session.run(command);
    }
    // PUT, previous key and value (absent and empty at first), key, value.
    for _ in 0..14 {
        let line = watch.line();
        session.note(&format!("watch: {line}\n"));
        if line == "DELETE" {
            break;
        }
    }

    let granted = session.run("lease grant 100");
    let lease = granted.split(' ').nth(1).expect("the id is the second word").to_owned();
    session.run(&format!("put leased x --lease={lease}"));
    session.run(&format!("lease timetolive {lease} --keys"));
    session.run("lease list");
    session.run(&format!("lease keep-alive --once {lease}"));
    let alive = Running::start(etcdctl, &[&endpoint, "lease", "keep-alive", &lease]);
    session.note(&alive.line());
    drop(alive);
    session.run(&format!("lease revoke {lease}"));
    session.run("get leased");
    session.run(&format!("lease keep-alive --once {lease}"));

    session.run("compaction 5");
    session.run("compaction 5");
    session.run("get a --rev=2");
    session.run("defrag");
    session.run("alarm list");
    session.run("alarm disarm");
    session.run("endpoint health");
    session.run("endpoint hashkv");
    session.run("member list -w simple");
    let status = session.run("endpoint status");
    assert!(status.contains(", 3.7.3, "), "{status}");
    let file = scratch.join("saved.db");
    let saved = session.etcdctl;
    let words = [endpoint.as_str(), "snapshot", "save", &file.display().to_string()].map(str::to_owned);
    let output = run_with_input(saved, &words.each_ref().map(String::as_str), "");
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(std::fs::metadata(&file).expect("the snapshot is there").len() > 8 << 10);
    std::fs::remove_file(&file).expect("it can be removed");
    session.text
}

fn on(server: &Binaries, tool: &Binaries) -> String {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let member = Member::start(server, &scratch.path().join("member"), Options::default());
    let text = script(&tool.etcdctl, &member, scratch.path());
    // The storage version follows the cluster's when Go's member looks at it next, within four seconds.
    let text = text.replace(", 3.5.0, ", ", 3.7.0, ");
    text.replace(&member.endpoint(), "ENDPOINT").replace(&member.peer_url(), "PEER").replace(&member.client_url(), "CLIENT")
}

fn same(tool: &str) {
    let (Some(tool), Some(server)) = (go_release(tool), go_release("3.7.3")) else { return };
    let (go, our) = (on(&server, &tool), on(&ours(), &tool));
    for (nth, (go, our)) in go.lines().zip(our.lines()).enumerate() {
        assert_eq!(our, go, "line {nth} of what {} printed", tool.label);
    }
    assert_eq!(our, go);
}

#[test]
fn etcdctl_3_7_prints_the_same() {
    same("3.7.3");
}

#[test]
fn etcdctl_3_5_prints_the_same() {
    same("3.5.35");
}
