//! Where log lines go and in which form, and what becomes of a database at start: the same flags on Go and on ours.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::fs;
use std::path::Path;

use harness::{Binaries, Member, Options, go_release, ours};
use parity::Ctl;
use parity::http::{port_of, request};

fn options(flags: &[String]) -> Options {
    Options { flags: flags.to_vec(), ..Options::default() }
}

/// Both servers' binaries with a name for their folders.
fn both() -> Option<[(Binaries, &'static str); 2]> {
    Some([(go_release("3.7.3")?, "go"), (ours(), "ours")])
}

/// A line without its time, its place in the source and the ports of the member.
fn masked(line: &str, member: &Member) -> String {
    let mut parts: Vec<&str> = line.split('\t').collect();
    parts[0] = "TS";
    parts[2] = "CALLER";
    parts.join("\t").replace(&member.endpoint(), "CLIENT").replace(&member.peer_url(), "PEER")
}

#[test]
fn lines_for_people_go_to_every_output() {
    let Some(both) = both() else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let said = both.map(|(binaries, name)| {
        let file = scratch.path().join(format!("{name}.file"));
        let flags = ["--log-format=console".to_string(), format!("--log-outputs=stdout,{}", file.display())];
        let mut member = Member::start(&binaries, &scratch.path().join(name), options(&flags));
        member.stop();
        let written = fs::read_to_string(&file).expect("the file was made");
        // Standard error is empty, so the log of the process is its standard output.
        assert_eq!(member.log(), written, "{name}");
        let wanted = ["ready to serve client requests", "serving client traffic insecurely", "configuring peer listeners", "notifying init daemon", "added member"];
        let lines = wanted.map(|part| written.lines().find(|line| line.contains(part)).map(|line| masked(line, &member)));
        lines.map(|line| {
            // Ids follow from ports.
            let line = line.unwrap_or_default();
            line.split("-id\": \"").enumerate().map(|(i, part)| if i == 0 { part.to_string() } else { part[part.find('"').unwrap_or(0)..].to_string() }).collect::<String>()
        })
    });
    assert_eq!(said[0], said[1]);
    assert!(said[1].iter().all(|line| line.starts_with("TS\tinfo\tCALLER\t")), "{:?}", said[1]);
}

#[test]
fn a_full_file_is_rotated_as_in_go() {
    let Some(both) = both() else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    for compress in [false, true] {
        let found = both.clone().map(|(binaries, name)| {
            let dir = scratch.path().join(format!("{name}-{compress}"));
            fs::create_dir(&dir).expect("scratch is writable");
            let file = dir.join("server.log");
            fs::write(&file, vec![b'x'; 1 << 20]).expect("scratch is writable");
            let config = format!("{{\"maxsize\": 1, \"maxbackups\": 2, \"compress\": {compress}}}");
            let flags = [
                format!("--log-outputs={}", file.display()),
                "--enable-log-rotation".to_string(),
                format!("--log-rotation-config-json={config}"),
            ];
            let mut member = Member::start(&binaries, &dir.join("data"), options(&flags));
            member.stop();
            assert!(fs::read_to_string(&file).expect("it is there").contains("closed etcd server"), "{name}");
            listing(&dir)
        });
        assert_eq!(found[0], found[1], "compress {compress}");
        assert_eq!(found[0].len(), 2, "{:?}", found[0]);
    }
}

/// Files of a folder, digits as `#`.
fn listing(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).expect("it is there").filter_map(Result::ok).filter(|entry| entry.path().is_file());
    let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.starts_with("server"));
    let mut names: Vec<String> = names.map(|name| name.replace(|c: char| c.is_ascii_digit(), "#")).collect();
    names.sort();
    names
}

fn size(member: &Member) -> f64 {
    let page = request(port_of(&member.client_url()), "GET", "/metrics", &[], &[]).body;
    let line = page.lines().find(|line| line.starts_with("etcd_mvcc_db_total_size_in_bytes ")).expect("it is shown");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn a_database_with_much_room_is_made_small_at_start() {
    let Some(both) = both() else { return };
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let ctl_program = both[0].0.etcdctl.clone();
    let value = "x".repeat(100_000);
    let told = both.map(|(binaries, name)| {
        let mut member = Member::start(&binaries, &scratch.path().join(name), Options::default());
        let ctl = Ctl::new(&ctl_program, &member);
        for i in 0..80 {
            ctl.run_raw(&["put", &format!("k{i}"), &value]).ok();
        }
        ctl.ok("del k --prefix");
        ctl.ok("put kept yes");
        ctl.ok("compaction 82 --physical");
        // What was freed is in the file once a later batch is.
        ctl.ok("put kept still");
        std::thread::sleep(std::time::Duration::from_millis(500));
        let full = size(&member);
        member.stop();
        member.swap(&binaries, options(&["--bootstrap-defrag-threshold-megabytes=1000".to_string()]));
        member.start_again();
        assert!(size(&member) > 4e6, "{name} is small already: {full}");
        let log = member.log();
        let skipped = log.lines().find(|line| line.contains("Skipping defragmentation")).expect("it is said").to_string();
        member.stop();
        member.swap(&binaries, options(&["--bootstrap-defrag-threshold-megabytes=1".to_string()]));
        member.start_again();
        assert!(size(&member) < 1e6, "{name} stays at {} of {full}", size(&member));
        assert_eq!(Ctl::new(&ctl_program, &member).ok("get k --prefix"), "kept\nstill\n");
        assert!(member.log().contains("finished defragmenting directory"));
        // Sizes are each engine's own; the names of the fields and the threshold are not.
        skipped
            .split(",\"")
            .skip_while(|part| !part.starts_with("msg"))
            .map(|part| if part.contains("threshold") { part.to_string() } else { part.split(':').next().unwrap_or_default().to_string() })
            .collect::<Vec<_>>()
    });
    assert_eq!(told[0], told[1]);
}
