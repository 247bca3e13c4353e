//! The same command lines for Go's etcdutl and ours, each on its own copy of the same files: what they print, how they
//! exit, and what they leave on disk.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Binaries, Member, Options, go_release, run};

const OURS: &str = env!("CARGO_BIN_EXE_etcdutl");

/// What a command left behind, as far as two runs share it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

/// Runs a line in a folder. `timeout` keeps one that waits for ever from stopping the test.
fn utl(program: &Path, folder: &Path, line: &str) -> Left {
    let mut command = Command::new("timeout");
    command.arg("20").arg(program).current_dir(folder).stdin(Stdio::null());
    command.args(line.split(' ').filter(|word| !word.is_empty()).map(|word| if word == "''" { "" } else { word }));
    let output = command.output().expect("timeout is there");
    Left {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: messages(&String::from_utf8_lossy(&output.stderr)),
        code: output.status.code(),
    }
}

/// Log lines keep level, message and fields; those of bbolt, stack traces, usage texts, sizes and times go.
fn messages(text: &str) -> String {
    let mut kept = String::new();
    let mut in_usage = false;
    for line in text.lines() {
        in_usage = (in_usage || line.starts_with("Usage:")) && !line.starts_with("Error:");
        let parts: Vec<&str> = line.split('\t').collect();
        let is_trace = line.starts_with('\t')
            || ["go.etcd.io/", "github.com/", "main.", "runtime."].iter().any(|start| line.starts_with(start));
        // Go's tells of each name that it resolves while it compares URLs.
        let resolved = parts.get(3) == Some(&"resolved URL Host");
        if in_usage || is_trace || resolved || parts.get(2) == Some(&"bbolt") {
            continue;
        }
        match &parts[..] {
            [_, level, .., message, fields] if fields.starts_with('{') => {
                kept.push_str(&format!("{level} {message} {}", without_sizes(fields)));
            }
            [_, level, .., message] if parts.len() > 3 => kept.push_str(&format!("{level} {message}")),
            _ => kept.push_str(line.split(" [").next().unwrap_or_default()),
        }
        kept.push('\n');
    }
    kept
}

/// The fields of a line whose names speak neither of sizes nor of time.
fn without_sizes(fields: &str) -> String {
    fields
        .trim_matches(['{', '}'])
        .split(", \"")
        .filter(|field| !field.contains("db-size") && !field.contains("took\":"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Both tools on copies of `from`, and a word on what each left of it.
struct Bench {
    scratch: tempfile::TempDir,
    go: Binaries,
}

impl Bench {
    fn new() -> Option<Bench> {
        Some(Bench { go: go_release("3.7.3")?, scratch: tempfile::tempdir().expect("scratch is writable") })
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    fn gos(&self) -> PathBuf {
        self.go.etcdutl.clone().expect("3.7 has it")
    }

    /// A directory that a server of this release has left, and a snapshot that was saved of it.
    fn directory(&self, release: &Binaries) -> PathBuf {
        let dir = self.path().join(format!("made-by-{}", release.label));
        let mut member = Member::start(release, &dir, Options::default());
        let endpoints = format!("--endpoints={}", member.endpoint());
        let ctl = |line: &str| {
            let words: Vec<&str> = std::iter::once(endpoints.as_str()).chain(line.split(' ')).collect();
            run(&self.go.etcdctl, &words).ok()
        };
        for i in 0..30 {
            ctl(&format!("put /k/{i:02} value-{i}"));
        }
        ctl("del /k/0 --prefix");
        ctl("put /k/10 again");
        ctl("lease grant 1000");
        ctl("compaction 20");
        let saved = self.path().join(format!("{}.db", release.label));
        ctl(&format!("snapshot save {}", saved.display()));
        // The storage version follows the cluster version some seconds after the start.
        let status = || ctl("endpoint status -w json");
        let wanted = release.label.rsplit_once('.').map(|(minor, _)| format!("\"storageVersion\":\"{minor}.0\""));
        for _ in 0..100 {
            if release.label.starts_with("3.5") || wanted.as_ref().is_none_or(|wanted| status().contains(wanted)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        member.stop();
        dir
    }

    /// Runs `line` by both tools in folders of the same names with a copy of `from` as `c` in each; what they left.
    fn both(&self, from: &Path, line: &str, after: impl Fn(&Path) -> String, wrong: &mut Vec<String>) {
        let mut results = Vec::new();
        for (name, program) in [("go", self.gos()), ("us", PathBuf::from(OURS))] {
            let folder = self.path().join(name);
            std::fs::create_dir_all(&folder).expect("scratch is writable");
            assert!(run(Path::new("cp"), &["-r", &from.display().to_string(), &folder.join("c").display().to_string()]).code == 0);
            let left = utl(&program, &folder, line);
            results.push((left, after(&folder)));
            std::fs::remove_dir_all(&folder).expect("scratch can be removed");
        }
        if results[0] != results[1] {
            wrong.push(format!("$ etcdutl {line}   (of {})\nGo:   {:#?}\nours: {:#?}", from.display(), results[0], results[1]));
        }
    }

    /// What Go's tools say of a database: keys, versions, history, and whether it is sound.
    fn judge(&self, db: &Path) -> String {
        if !db.exists() {
            return "no database".into();
        }
        let shown = db.display().to_string();
        let bbolt = self.go.bbolt.as_ref().expect("3.7 has it");
        let check = run(bbolt, &["check", &shown]);
        let status = run(&self.gos(), &["snapshot", "status", &shown, "-w", "json"]);
        // The size is the writer's own affair.
        let status = status.stdout.split(",\"totalSize\"").map(|part| part.split_once(',').map_or(part, |(_, rest)| rest).to_owned());
        let copy = db.with_extension("copy");
        std::fs::copy(db, &copy).expect("scratch is writable");
        let hash = run(&self.gos(), &["hashkv", &copy.display().to_string()]);
        std::fs::remove_file(copy).expect("scratch can be removed");
        format!("{} {:?} {}", check.stdout, status.collect::<Vec<_>>(), hash.stdout)
    }
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn migrations() {
    let Some(bench) = Bench::new() else { return };
    let mut wrong = Vec::new();
    for release in ["3.5.35", "3.6.16", "3.7.3"] {
        let Some(release) = go_release(release) else { return };
        let dir = bench.directory(&release);
        for target in ["3.5", "3.6", "3.7", "3.8", "4.0"] {
            for force in ["", "--force"] {
                let line = format!("migrate --data-dir c --target-version {target} {force}");
                bench.both(&dir, &line, |folder| bench.judge(&folder.join("c/member/snap/db")), &mut wrong);
            }
        }
    }
    let dir = bench.path().join("made-by-3.7.3");
    for line in [
        "migrate",
        "migrate --data-dir c",
        "migrate --target-version 3.6",
        "migrate --data-dir c --target-version 3",
        "migrate --data-dir c --target-version 3.4",
        "migrate --data-dir c --target-version 3.x",
        "migrate --data-dir c --target-version 3.7.0",
        "migrate --data-dir c --target-version ''",
        "migrate --data-dir nosuch --target-version 3.6",
        "migrate --data-dir c --target-version 3.6 --force=maybe",
        "migrate --data-dir c --target-version 3.6 extra",
    ] {
        bench.both(&dir, line, |folder| bench.judge(&folder.join("c/member/snap/db")), &mut wrong);
    }
    report(&wrong);
}

#[test]
fn questions_and_defragmentation() {
    let Some(bench) = Bench::new() else { return };
    let dir = bench.directory(&bench.go);
    let mut wrong = Vec::new();
    for format in ["simple", "json", "fields", "protobuf", "yaml"] {
        for line in ["snapshot status c/member/snap/db", "hashkv c/member/snap/db", "hashkv c/member/snap/db --rev 25"] {
            bench.both(&dir, &format!("{line} -w {format}"), |_| String::new(), &mut wrong);
        }
    }
    for line in [
        "hashkv c/member/snap/db --rev 20",
        "hashkv c/member/snap/db --rev 19",
        "hashkv c/member/snap/db --rev 1",
        "hashkv c/member/snap/db --rev 99999",
        "hashkv c/member/snap/db --rev -1",
        "hashkv c/member/snap/db --rev x",
        "hashkv",
        "hashkv a b",
        "hashkv nofile",
        "snapshot",
        "snapshot status",
        "snapshot status a b",
        "snapshot status nofile",
        "snapshot nosuch",
        "defrag",
        "defrag --data-dir nosuch",
        "defrag --data-dir c --timeout x",
        "defrag --data-dir c",
        "defrag --data-dir c --timeout 0",
        "nosuch",
        "defra",
        "snapshot stat c/member/snap/db",
        "version",
        "version -w json",
        "completion",
        "completion nosuch",
        "--nosuch",
        "-x",
        "--version",
        "-w",
    ] {
        bench.both(&dir, line, |folder| bench.judge(&folder.join("c/member/snap/db")), &mut wrong);
    }
    // Help texts have words of our own: they are compared elsewhere.
    wrong.retain(|text| !text.starts_with("$ etcdutl snapshot   ") && !text.starts_with("$ etcdutl snapshot nosuch "));
    report(&wrong);
}

/// Names of the files below a folder, sizes of databases aside.
fn files(folder: &Path) -> String {
    let found = Command::new("find").args([".", "-type", "f"]).current_dir(folder).output();
    let found = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut names: Vec<&str> = found.lines().collect();
    names.sort_unstable();
    names.join("\n")
}

#[test]
fn restores() {
    let Some(bench) = Bench::new() else { return };
    let dir = bench.directory(&bench.go);
    let saved = bench.path().join("3.7.3.db");
    let damaged = bench.path().join("damaged.db");
    let mut bytes = std::fs::read(&saved).expect("it was saved");
    let middle = bytes.len() - 100;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, &bytes).expect("scratch is writable");
    let cut = bench.path().join("cut.db");
    std::fs::write(&cut, &bytes[..bytes.len() - 32]).expect("scratch is writable");
    let three = "--name=a --initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3 \
                 --initial-advertise-peer-urls=http://127.0.0.1:1";
    let mut wrong = Vec::new();
    let lines: Vec<(&Path, String)> = [
        (&saved, "--data-dir=r"),
        (&saved, ""),
        (&saved, "--data-dir=r --name=other --initial-cluster=other=http://localhost:2380"),
        (&saved, "--data-dir=r --wal-dir=w"),
        (&saved, "--data-dir=r --initial-cluster-token=t --initial-memory-map-size=1000000"),
        (&saved, &format!("--data-dir=r {three}")),
        (&saved, "--data-dir=r --bump-revision=1000 --mark-compacted"),
        (&saved, "--data-dir=r --bump-revision=1000"),
        (&saved, "--data-dir=r --mark-compacted"),
        (&saved, "--data-dir=r --bump-revision=x"),
        (&saved, "--data-dir=r --bump-revision=-1"),
        (&saved, "--data-dir=r --name=nosuch"),
        (&saved, "--data-dir=r --initial-cluster=default"),
        (&saved, "--data-dir=r --initial-cluster="),
        (&saved, "--data-dir=r --initial-advertise-peer-urls=http://127.0.0.1:9"),
        (&saved, "--data-dir=r extra"),
        (&damaged, "--data-dir=r"),
        (&damaged, "--data-dir=r --skip-hash-check"),
        (&cut, "--data-dir=r"),
        (&cut, "--data-dir=r --skip-hash-check"),
    ]
    .map(|(file, flags)| (file.as_path(), flags.to_owned()))
    .to_vec();
    for (file, flags) in &lines {
        let data = if flags.contains("--data-dir=r") { "r" } else { "default.etcd" };
        let after = |folder: &Path| {
            let db = folder.join(data).join("member/snap/db");
            // Go's leaves an unfinished directory behind where the file is refused.
            let done = folder.join(data).join("member/snap/0000000000000001-0000000000000001.snap").exists()
                || folder.join(data).join("member/snap/0000000000000001-0000000000000003.snap").exists();
            if done { format!("{} {}", files(folder), bench.judge(&db)) } else { String::new() }
        };
        bench.both(file, &format!("snapshot restore c {flags}"), after, &mut wrong);
    }
    // Over a directory that is there, and of a database that is no snapshot.
    bench.both(&dir, "snapshot restore c/member/snap/db --data-dir=c", |_| String::new(), &mut wrong);
    bench.both(&dir, "snapshot restore c/member/snap/db --data-dir=r", |_| String::new(), &mut wrong);
    bench.both(&dir, "snapshot restore c/member/snap/db --data-dir=r --wal-dir=c/member/wal", |_| String::new(), &mut wrong);
    bench.both(&dir, "snapshot restore nofile --data-dir=r", |_| String::new(), &mut wrong);
    bench.both(&dir, "snapshot restore", |_| String::new(), &mut wrong);
    report(&wrong);
}
