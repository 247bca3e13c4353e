//! The same command lines for Go's etcdctl and ours, on servers of Go: what they print and how they exit must be the
//! same. Commands that change nothing run on one server and are compared to the byte; the others run on two servers
//! that went through the same, with ids and times masked.

#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::path::Path;

use harness::{Binaries, Member, Options, Output, go_release, run_with_input};

const OURS: &str = env!("CARGO_BIN_EXE_etcdctl");

fn start(binaries: &Binaries, scratch: &Path, name: &str) -> Member {
    Member::start(binaries, &scratch.join(name), Options::default())
}

/// A line as a shell would split it; `<<` begins what is given on standard input, with `\n` for ends of lines.
fn run(program: &Path, endpoint: &str, line: &str) -> Output {
    let (line, input) = line.split_once("<<").unwrap_or((line, ""));
    let mut arguments = vec![format!("--endpoints={endpoint}"), "--command-timeout=60s".to_owned()];
    arguments.extend(line.split(' ').filter(|word| !word.is_empty()).map(|word| match word {
        "''" => String::new(),
        word => word.to_owned(),
    }));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run_with_input(program, &arguments, &input.replace("\\n", "\n"))
}

/// Log lines keep their message and error; usage texts go, as ours have their own words.
fn errors(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("Usage:") {
            break;
        }
        if line.starts_with('{') {
            let part = |name: &str| {
                let start = line.find(&format!("\"{name}\":")).unwrap_or(line.len());
                let end = line[start..].find("\",\"").map_or(line.len(), |end| start + end);
                line[start..end].trim_end_matches('}').to_owned()
            };
            kept.push_str(&[part("level"), part("msg"), part("method"), part("error")].join(" "));
        } else {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept
}

/// Long numbers, lease ids and durations differ from run to run.
fn mask(text: &str) -> String {
    let mut masked = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || (c == '.' && word.starts_with(|c: char| c.is_ascii_digit())) || c == 'µ' {
            word.push(c);
            continue;
        }
        let hex = word.len() >= 14 && word.chars().all(|c| c.is_ascii_hexdigit());
        let time = word.ends_with('s')
            && word.starts_with(|c: char| c.is_ascii_digit())
            && word.trim_end_matches(['m', 'n', 'µ', 's']).chars().all(|c| c.is_ascii_digit() || c == '.')
            && word.contains('.');
        masked.push_str(if hex { "ID" } else if time { "TIME" } else { &word });
        word.clear();
        masked.push(c);
    }
    masked.pop();
    masked
}

/// Changes, in order.
const SCRIPT: &[&str] = &[
    "put foo bar",
    "put foo bar2 --prev-kv",
    "put foo bar3 --prev-kv -w json",
    "put foo bar4 --prev-kv -w fields",
    "put foo bar5 --prev-kv -w table",
    "put foo bar6 --hex --prev-kv",
    "put foo -- -1",
    "put stdin<<a\\nb\\n",
    "put foo --ignore-value baz",
    "put nokey --ignore-value",
    "put foo --ignore-value --ignore-lease",
    "put foo1 v1",
    "put foo2 v2",
    "put x y --lease=zz",
    "put x y --lease=1",
    "put a b c",
    "get foo --prefix --command-timeout=5s",
    "del foo1 --prev-kv",
    "del foo1 --prev-kv -w json",
    "del foo2 foo3 --range -w fields --prev-kv",
    "del foo2",
    "del",
    "del a b --prefix",
    "del a --prefix --from-key",
    "txn<<mod(\"foo\") > \"0\"\\n\\nput foo a\\nget foo\\ndel nope\\n\\nget foo1\\n\\n",
    "txn -w json<<mod(\"foo\") > \"0\"\\n\\nput foo \"a b\"\\nget foo --prefix\\ndel nope\\n\\nget foo1\\n\\n",
    "txn -w fields<<create(\"foo\") = \"2\"\\nver(\"foo\") != \"7\"\\n\\nput foo c\\nget foo\\n\\n\\n",
    "txn -i -w json --hex=true<<val(\"foo\") < \"z\"\\n\\nget foo\\n\\n\\n",
    "txn<<value(\"foo\") = \"no\"\\n\\nput foo a\\n\\nget foo1\\n\\n",
    "txn<<bad(\"foo\") = \"no\"\\n\\n\\n\\n",
    "txn<<mod(\"foo\" = 1\\n\\n\\n\\n",
    "txn<<mod(\"foo\") = \"x\"\\n\\n\\n\\n",
    "txn<<\\nfrob foo\\n\\n\\n",
    "txn<<\\nput foo --nosuch\\n\\n\\n",
    "txn<<foo",
    "txn extra",
    "lease grant 1000",
    "lease grant 1000 -w json",
    "lease grant 1000 -w fields",
    "lease grant x",
    "lease grant",
    "lease revoke 1",
    "lease revoke zz",
    "lease keep-alive --once 1",
    "lease keep-alive 1",
    "compaction 3",
    "compaction 3",
    "compaction 99999",
    "compaction x",
    "compaction",
    "compact 5 --physical -w json",
    "member add",
    "member add x",
    "member add x http://127.0.0.1:1",
    "member remove 1",
    "member remove zz",
    "member update 1 --peer-urls=http://127.0.0.1:9",
    "member promote 1",
    "member promote",
    "move-leader 1",
    "move-leader",
    "downgrade validate 3.5",
    "downgrade validate 3.6",
    "downgrade cancel -w json",
    "downgrade enable",
    "user add alice --new-user-password=a",
    "user add bob --no-password -w json",
    "user add alice:x",
    "user add carol --interactive=false<<secret\\n",
    "user add :x",
    "user list",
    "user list -w json",
    "user list -w fields",
    "user passwd bob --interactive=false<<x\\n",
    "user get alice",
    "user get nobody",
    "role add rw",
    "role add rw",
    "role grant-permission rw readwrite foo",
    "role grant-permission rw read k --prefix",
    "role grant-permission rw write z --from-key -w json",
    "role grant-permission rw write a b",
    "role grant-permission rw bad a",
    "role grant-permission rw read a b --prefix",
    "role get rw",
    "role get rw -w json",
    "role get rw -w fields",
    "role list",
    "role list -w fields",
    "user grant-role alice rw",
    "user grant-role alice nosuch",
    "user get alice --detail",
    "user get alice -w json",
    "user get alice -w fields",
    "role revoke-permission rw foo",
    "role revoke-permission rw a b",
    "role revoke-permission rw z --from-key",
    "role revoke-permission rw nosuch",
    "user revoke-role alice rw",
    "user delete alice",
    "role delete rw",
    "auth status",
    "auth status -w json",
    "auth enable",
    "user add root:r",
    "auth enable",
    "get foo",
    "get foo --user=root:r",
    "get foo --user=root:bad",
    "get foo --user=root --password=r",
    "put foo 1 --user=bob:x",
    "endpoint health",
    "auth disable --user=root:r",
    "lock l1 echo hi",
    "lock l1 -- sh -c exit${IFS}3",
    "lock",
    "elect e",
    "elect e v -l",
    "defrag",
    "defrag -w json",
    "alarm list extra",
];

/// Nothing of this changes anything.
const QUESTIONS: &[&str] = &[
    "get foo",
    "get foo --prefix",
    "get foo --prefix -w json",
    "get foo --prefix -w fields",
    "get foo --prefix -w protobuf",
    "get foo --prefix -w table",
    "get foo --prefix --keys-only",
    "get '' --prefix --keys-only",
    "get / --prefix --keys-only",
    "get foo --from-key --limit 2 -w json",
    "get foo --prefix --print-value-only",
    "get foo --prefix --count-only -w fields",
    "get foo --prefix --count-only",
    "get foo --print-value-only -w json",
    "get foo --hex",
    "get foo --hex -w fields",
    "get foo --hex -w json",
    "get nothing",
    "get nothing -w json",
    "get foo --prefix --limit 1 -w json",
    "get foo --prefix --sort-by=MODIFY --order=DESCEND",
    "get foo --prefix --sort-by=version --order=ascend",
    "get foo --prefix --sort-by=bad",
    "get foo --rev=2",
    "get foo --rev=9999",
    "get foo --prefix --stream",
    "get foo --prefix --stream -w json",
    "get foo --order=BAD",
    "get foo -w yaml",
    "get foo zzz --prefix",
    "get foo zzz --from-key",
    "get foo --from-key --prefix",
    "get foo --keys-only --count-only",
    "get --consistency=x foo",
    "get --consistency=s foo",
    "get foo foo2",
    "get foo foo2 extra",
    "get foo --prefix --min-mod-rev=4 --max-mod-rev=5",
    "get foo --min-create-rev=4 --max-create-rev=3",
    "get",
    "get -w json foo -w simple",
    "member list",
    "member list -w json",
    "member list -w fields",
    "member list -w protobuf",
    "member list --hex -w json",
    "member list --hex -w fields",
    "mem l",
    "endpoint status",
    "endpoint status -w json",
    "endpoint status -w fields",
    "endpoint status -w protobuf",
    "endpoint status --cluster",
    "endpoint hashkv",
    "endpoint hashkv -w json",
    "endpoint hashkv -w fields",
    "endpoint hashkv --rev=3",
    "endpoint hashkv --rev=3000",
    "lease list",
    "lease list -w json",
    "lease list -w fields",
    "lease list --hex -w fields",
    "lease timetolive 1",
    "lease timetolive 1 --keys -w json",
    "lease timetolive 1 -w fields",
    "lease timetolive zz",
    "lease timetolive",
    "alarm list",
    "alarm list -w json",
    "alarm list -w fields",
    "alarm list -w table",
    "alarm disarm",
    "alarm disarm -w json",
    "nosuch",
    "gett",
    "l",
    "get --nosuch",
    "get -x foo",
    "get foo --limit x",
    "get foo --limit",
    "get foo -w",
    "--prefix get foo",
    "get foo --command-timeout=5",
    "get foo --cacert=",
    "get foo --cert=a",
    "version",
    "version extra",
    "completion",
    "completion nosuch",
    "watch",
    "watch a --",
    "watch foo --rev=1",
    "watch foo --rev=1 -w json",
    "watch foo --rev=1 -w table",
    "watch -i<<foo\\n\\nwatch\\n",
    "watch -i<<watch -x\\n",
    "watch a b --prefix",
    "snapshot save",
    "check datascale --load=x",
    "help nosuch",
];

fn compare(line: &str, go: &Output, ours: &Output, mask: impl Fn(&str) -> String, wrong: &mut Vec<String>) {
    let show = |output: &Output| {
        format!("{}[stderr] {}[exit {}]", mask(&output.stdout), mask(&errors(&output.stderr)), output.code)
    };
    let (expected, found) = (show(go), show(ours));
    if expected != found {
        wrong.push(format!("$ etcdctl {line}\n--- Go\n{expected}\n--- ours\n{found}\n"));
    }
}

#[test]
fn commands_that_change_something() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (for_go, for_us) = (start(&go, scratch.path(), "go"), start(&go, scratch.path(), "ours"));
    let mut wrong = Vec::new();
    for line in SCRIPT {
        let expected = run(&go.etcdctl, &for_go.endpoint(), line);
        let found = run(Path::new(OURS), &for_us.endpoint(), line);
        let (go_url, our_url) = (for_go.endpoint(), for_us.endpoint());
        let mask = |text: &str| mask(&text.replace(&go_url, "EP").replace(&our_url, "EP"));
        compare(line, &expected, &found, mask, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), SCRIPT.len(), wrong.join("\n"));
}

#[test]
fn commands_that_only_ask() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let member = start(&go, scratch.path(), "go");
    let endpoint = member.endpoint();
    for line in ["put foo bar", "put foo1 v1", "put foo2 v2", "put foo bar2", "lease grant 1000", "compaction 3"] {
        run(&go.etcdctl, &endpoint, line).ok();
    }
    let mut wrong = Vec::new();
    for line in QUESTIONS {
        let expected = run(&go.etcdctl, &endpoint, line);
        let found = run(Path::new(OURS), &endpoint, line);
        compare(line, &expected, &found, str::to_owned, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), QUESTIONS.len(), wrong.join("\n"));
}

/// Tables as etcd up to 3.6 draws them.
#[test]
fn tables_as_in_3_6() {
    let Some(go) = go_release("3.6.16") else { return };
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let member = start(&go, scratch.path(), "go");
    let endpoint = member.endpoint();
    run(&go.etcdctl, &endpoint, "put foo bar").ok();
    let mut wrong = Vec::new();
    for line in [
        "member list -w table",
        "endpoint status -w table",
        "endpoint status --cluster -w table",
        "endpoint hashkv -w table",
    ] {
        let expected = run(&go.etcdctl, &endpoint, line);
        let found = run(Path::new(OURS), &endpoint, line);
        compare(line, &expected, &found, str::to_owned, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_saved_snapshot_is_the_same_file() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let member = start(&go, scratch.path(), "go");
    run(&go.etcdctl, &member.endpoint(), "put foo bar").ok();
    let mut files = Vec::new();
    for (program, name) in [(go.etcdctl.as_path(), "go.db"), (Path::new(OURS), "ours.db")] {
        let path = scratch.path().join(name);
        let output = run(program, &member.endpoint(), &format!("snapshot save {}", path.display()));
        assert_eq!(output.stderr.lines().count(), 6, "{}", output.stderr);
        let text = output.ok();
        assert_eq!(text, format!("Snapshot saved at {}\nServer version 3.7.0\n", path.display()));
        files.push(std::fs::read(&path).expect("the file is there").len());
    }
    assert_eq!(files[0], files[1]);
    let etcdutl = go.etcdutl.as_ref().expect("3.7 has etcdutl");
    let status = harness::run(etcdutl, &["snapshot", "status", &scratch.path().join("ours.db").display().to_string()]);
    assert!(status.ok().ends_with("3.7.0\n"));
}
