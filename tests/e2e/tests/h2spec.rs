//! The conformance test of HTTP/2 servers, against Go's server and against ours: ours fails no case that Go passes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Binaries, Member, Options, go_release, ours};

const VERSION: &str = "2.2.1";

fn h2spec() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from).or_else(home)?;
    let program = cache.join(format!("etcd-peers/h2spec-{VERSION}/h2spec"));
    if program.exists() {
        return Some(program);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "h2spec is missing: run `cargo xtask peers`");
    eprintln!("SKIPPED: h2spec is not installed; run `cargo xtask peers`");
    None
}

/// A section and the title of a case in it.
type Case = (String, String);

/// How many cases of some sections (of all, if none is named) ran, and those that failed.
fn cases(program: &Path, server: &Binaries, sections: &BTreeSet<&str>) -> (usize, BTreeSet<Case>) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    let member = Member::start(server, &scratch.path().join("member"), Options::default());
    let endpoint = member.endpoint();
    let (host, port) = endpoint.split_once(':').expect("host and port");
    let report = scratch.path().join("report.xml");
    // It fails when a case fails; the report says which.
    Command::new(program)
        .args(["-h", host, "-p", port, "-o", "1", "-j"])
        .arg(&report)
        .args(sections)
        .output()
        .expect("h2spec starts");
    let text = std::fs::read_to_string(&report).expect("h2spec wrote its report");
    let mut failed = BTreeSet::new();
    let mut case = Case::default();
    let mut count = 0;
    for line in text.lines().map(str::trim) {
        if line.starts_with("<testcase ") {
            count += 1;
            case = (attribute(line, "package").to_owned(), attribute(line, "classname").to_owned());
        }
        if line.starts_with("<error") || line.starts_with("<failure") {
            failed.insert(case.clone());
        }
    }
    (count, failed)
}

fn attribute<'a>(line: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    let from = line.find(&start).map_or(line.len(), |at| at + start.len());
    line[from..].split('"').next().unwrap_or_default()
}

#[test]
fn ours_passes_what_go_passes() {
    let (Some(program), Some(go)) = (h2spec(), go_release("3.7.3")) else { return };
    let (count, ours) = cases(&program, &ours(), &BTreeSet::new());
    assert!(count > 140, "h2spec ran only {count} cases");
    // Go lets many cases run into their time-out: only those are tried that matter.
    let sections: BTreeSet<&str> = ours.iter().map(|(section, _)| section.as_str()).collect();
    if sections.is_empty() {
        return;
    }
    let (count, go) = cases(&program, &go, &sections);
    assert!(count >= ours.len(), "h2spec ran only {count} cases of {sections:?}");
    println!("ours fails {ours:#?}");
    let worse: Vec<&Case> = ours.difference(&go).collect();
    assert!(worse.is_empty(), "Go passes these, ours does not: {worse:#?}");
}
