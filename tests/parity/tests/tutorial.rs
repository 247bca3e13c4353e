//! The commands that tutorials show, with Go's own etcdctl, on Go's server and on ours: the output is the same.

use harness::{Member, Options, go_release, ours};
use parity::Ctl;

/// Runs the tour and notes what was printed.
fn tour(ctl: &Ctl<'_>) -> Vec<String> {
    let mut seen = Vec::new();
    for command in [
        "put key1 value1",
        "get key1",
        "put /a/1 one",
        "put /a/2 two",
        "put /a/3 three --prev-kv",
        "put /a/3 drei --prev-kv",
        "get / --prefix --keys-only",
        "get /a/1 /a/3",
        "get /a --prefix --limit 2",
        "get /a --prefix --sort-by=VALUE --order=DESCEND",
        "get /a --prefix --count-only -w fields",
        "get /a/3 --rev=5",
        "del /a/2 --prev-kv",
        "get /a/2",
        "get nothing",
        "del nothing",
        "compaction 4",
        "get key1 --rev=2",
        "get key1 --rev=99",
        "compaction 4",
        "put x --lease=1234",
        "alarm list",
        "member list",
        "endpoint health -w simple",
        "txn",
    ] {
        let output = ctl.run(command);
        let stderr = output.stderr.lines().filter(|line| line.starts_with("Error")).collect::<Vec<_>>().join("\n");
        seen.push(format!("{command}\n{}\n{}{stderr}", output.code, mask(&output.stdout)));
    }
    seen
}

/// Ports and times differ from run to run; so do member ids, which follow from ports.
fn mask(text: &str) -> String {
    let mut masked = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let core = word.trim_end();
        let is_id = core.len() >= 12 && core.trim_end_matches(',').chars().all(|c| c.is_ascii_hexdigit());
        let is_long = core.chars().all(|c| c.is_ascii_digit()) && core.len() > 12;
        if core.contains("127.0.0.1") || is_id || is_long || core.ends_with("ms") || core.ends_with("µs") {
            masked.push_str("MASKED\n");
        } else {
            masked.push_str(word);
        }
    }
    masked
}

#[test]
fn gos_etcdctl_sees_no_difference() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let theirs = Member::start(&go, &scratch.path().join("go"), Options::default());
    let mine = Member::start(&ours(), &scratch.path().join("ours"), Options::default());
    let expected = tour(&Ctl::new(&go.etcdctl, &theirs));
    let seen = tour(&Ctl::new(&go.etcdctl, &mine));
    for (expected, seen) in expected.iter().zip(&seen) {
        assert_eq!(expected, seen);
    }
}

#[test]
fn what_is_acknowledged_survives_kill_9() {
    let Some(go) = go_release("3.7.3") else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let mut member = Member::start(&ours(), &scratch.path().join("member"), Options::default());
    let mut written = 0;
    for _ in 0..5 {
        for _ in 0..10 {
            Ctl::new(&go.etcdctl, &member).ok(&format!("put /k/{written:04} {written}"));
            written += 1;
        }
        member.kill();
        member.start_again();
        let keys = Ctl::new(&go.etcdctl, &member).ok("get /k/ --prefix --keys-only");
        assert_eq!(keys.lines().filter(|line| !line.is_empty()).count(), written);
    }
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let first = Member::start(&ours(), &scratch.path().join("first"), Options::default());
    let flags = vec![
        format!("--listen-client-urls={}", first.client_url()),
        format!("--advertise-client-urls={}", first.client_url()),
    ];
    let mut second =
        Member::spawn(&ours(), &scratch.path().join("second"), Options { flags, ..Options::default() });
    assert_eq!(second.wait(std::time::Duration::from_secs(20)), Some(1));
    assert!(second.log().contains("bind: address already in use"), "{}", second.log());
}
