//! Words that have no place: names that say nothing, work left undone, paths of one machine, `unsafe` outside its room.

use super::{Finding, Source};

/// Names for files, modules and types that could hold anything, and so will.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// Text that says the work is not done, or that the test is none. In pieces, so that this file passes its own check.
const UNFINISHED: &[(&str, &str)] = &[
    (concat!("tod", "o!("), "write it, or leave it out"),
    (concat!("unimple", "mented!("), "write it, or leave it out"),
    (concat!("TO", "DO"), "do it, or say in COMPAT.md that it is not there"),
    (concat!("FIX", "ME"), "mend it"),
    (concat!("XX", "X"), "say what is wrong, or mend it"),
    (concat!("#[ign", "ore"), "a test that does not run is none"),
    (concat!("assert!(tr", "ue)"), "a test that cannot fail is none"),
    (concat!("db", "g!("), "take it out"),
];

/// Folders of one machine.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// The only files of shipped code with `unsafe`.
const UNSAFE_ROOMS: &[&str] = &["crates/disk/src/map.rs", "crates/disk/src/os.rs"];

/// Crates that must behave the same every time: no clock, no threads, no random order.
const PURE: &[&str] = &["api", "bolt", "disk", "etcdserver", "grpc", "mvcc", "wal"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|s| !s.is_generated()) {
        findings.extend(anywhere(source));
        if source.is_rust() {
            findings.extend(names(source));
            findings.extend(rooms(source));
        }
    }
    findings
}

fn place(source: &Source, line: usize) -> String {
    format!("{}:{}", source.path, line + 1)
}

fn anywhere(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        for (word, instead) in UNFINISHED {
            if line.contains(word) {
                findings.push(Finding::new(place(source, at), format!("`{word}`: {instead}")));
            }
        }
        for path in MACHINE_PATHS {
            if line.contains(path) {
                findings
                    .push(Finding::new(place(source, at), format!("`{path}` is the path of one machine")));
            }
        }
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(place(source, at), "white space at the end of the line"));
        }
    }
    findings
}

/// File, module and type names that say nothing about their content.
fn names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folders = source.path.trim_end_matches(".rs").split('/');
    for part in folders.filter(|part| EMPTY_NAMES.contains(part)) {
        findings
            .push(Finding::new(&source.path, format!("`{part}` says nothing: name it after what it does")));
    }
    for (at, line) in source.text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
        while let Some(word) = words.next() {
            if !["mod", "struct", "enum", "trait", "type"].contains(&word) {
                continue;
            }
            let Some(name) = words.next() else { break };
            let last = name.rfind(char::is_uppercase).map_or(name, |start| &name[start..]).to_lowercase();
            if EMPTY_NAMES.contains(&last.as_str()) {
                let what = format!("`{name}` says nothing: name it after what it does");
                findings.push(Finding::new(place(source, at), what));
            }
        }
    }
    findings
}

/// `unsafe` and the clocks stay where they belong.
fn rooms(source: &Source) -> Vec<Finding> {
    let Some(name) = source.path.strip_prefix("crates/").and_then(|p| p.split('/').next()) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let tests_too = if source.is_test() { "" } else { source.code() };
    for (at, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let opens = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe_code"];
        if !UNSAFE_ROOMS.contains(&source.path.as_str()) && opens.iter().any(|word| code.contains(word)) {
            let what = format!("`unsafe` belongs into {}", UNSAFE_ROOMS.join(" or "));
            findings.push(Finding::new(place(source, at), what));
        }
    }
    if PURE.contains(&name) {
        for (at, line) in tests_too.lines().enumerate() {
            if line.contains("allow(") && line.contains("clippy::disallowed_") {
                let what = format!("{name} has no clock, no thread and no random order: time is an argument");
                findings.push(Finding::new(place(source, at), what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::source;
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&[source(path, text)]).len()
    }

    #[test]
    fn unfinished_work_is_found() {
        for (word, _) in UNFINISHED {
            assert_eq!(found("crates/a/src/b.rs", &format!("    {word}\n")), 1, "{word}");
        }
        for path in MACHINE_PATHS {
            assert_eq!(found("README.md", &format!("cd {path}x\n")), 1);
        }
        assert_eq!(found("README.md", "line \n"), 1);
        assert_eq!(found("README.md", "line\n\n"), 0);
    }

    #[test]
    fn empty_names_are_found_and_words_in_passing_are_not() {
        let empty = concat!("Man", "ager");
        for line in [
            format!("struct Lock{empty};"),
            format!("pub mod {};", EMPTY_NAMES[0]),
            format!("enum {empty} {{}}"),
        ] {
            assert_eq!(found("crates/a/src/b.rs", &line), 1, "{line}");
        }
        assert_eq!(found(&format!("crates/a/src/{}.rs", EMPTY_NAMES[5]), ""), 1);
        for line in ["let common_prefix = 1;", "// in common use", "struct Manage;", "fn utility() {}"] {
            assert_eq!(found("crates/a/src/b.rs", line), 0, "{line}");
        }
    }

    #[test]
    fn unsafe_and_clocks_stay_in_their_rooms() {
        let block = concat!("    uns", "afe { f() }\n");
        assert_eq!(found("crates/mvcc/src/a.rs", block), 1);
        assert_eq!(found("crates/disk/src/map.rs", block), 0);
        assert_eq!(found("crates/mvcc/src/a.rs", "// no unsafe { here }\n"), 0);
        let allow = "#![allow(clippy::disallowed_methods)]\n";
        assert_eq!(found("crates/mvcc/src/a.rs", allow), 1);
        assert_eq!(found("crates/mvcc/src/a/tests.rs", allow), 0);
        assert_eq!(found("crates/etcd/src/a.rs", allow), 0);
    }
}
