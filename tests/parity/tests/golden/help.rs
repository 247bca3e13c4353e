//! Help texts: the same commands, groups, flags and defaults as in the recording; descriptions are our own.

use harness::{ours, run};

const ETCDCTL: &str = include_str!("../../../data/golden/etcdctl-help.txt");
const ETCDCTL_ALONE: &str = include_str!("../../../data/golden/etcdctl-noargs.txt");
const ETCDUTL: &str = include_str!("../../../data/golden/etcdutl-help.txt");

/// Headings under which commands stand.
fn lists_commands(heading: &str) -> bool {
    heading == "Available Commands:" || heading.ends_with(" commands") || heading.ends_with("Commands:")
}

/// Usage lines, headings, flags with kinds and defaults, names of commands.
fn skeleton(help: &str) -> Vec<String> {
    let mut lines = Vec::new();
    // `options` has no heading.
    let mut section = "Flags:";
    // What stands before is description.
    let is_usage = |line: &str| line == "Usage:";
    let has_usage = help.lines().any(is_usage);
    let is_text = |line: &str| if has_usage { !is_usage(line) } else { !line.trim_start().starts_with('-') };
    for line in help.lines().skip_while(|line| is_text(line)) {
        if !line.starts_with(' ') {
            let known = (line.ends_with(':') || lists_commands(line)) && !line.contains(". ");
            section = if known { line } else { "" };
            if known && section != "Examples:" {
                lines.push(line.to_owned());
            }
        } else if section == "Usage:" {
            lines.push(line.to_owned());
        } else if lists_commands(section) {
            lines.push(line.split_whitespace().next().unwrap_or_default().to_owned());
        } else if line.trim_start().starts_with('-') {
            let (left, right) = line.trim_start().split_once("   ").unwrap_or((line, ""));
            let default = right.rfind(" (default ").map_or("", |at| &right[at..]);
            lines.push(format!("{}{default}", left.trim_end()));
        }
    }
    lines
}

/// `$ tool words` and what it printed.
fn sections(recording: &str) -> Vec<(Vec<String>, String)> {
    let mut sections: Vec<(Vec<String>, String)> = Vec::new();
    for line in recording.lines() {
        // Descriptions show command lines too: `$ put <key> -- <value>`.
        if let Some(command) = line.strip_prefix("$ etcdctl ").or(line.strip_prefix("$ etcdutl ")) {
            sections.push((command.split(' ').map(str::to_owned).collect(), String::new()));
        } else if let Some((_, text)) = sections.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    sections
}

fn compare(program: &std::path::Path, recording: &str, kept: &[(&str, &[&str])]) -> usize {
    let sections = sections(recording);
    for (words, expected) in &sections {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut found = skeleton(&run(program, &words).ok());
        if let Some((_, lines)) = kept.iter().find(|(command, _)| *command == words.join(" ")) {
            found.retain(|line| !lines.contains(&line.as_str()));
        }
        assert_eq!(found, skeleton(expected), "{words:?}");
        assert!(!found.is_empty(), "{words:?}");
    }
    sections.len()
}

#[test]
fn help_of_etcdctl() {
    let program = ours().etcdctl;
    assert_eq!(skeleton(&run(&program, &[]).ok()), skeleton(ETCDCTL_ALONE));
    // These two left Go's etcdctl in 3.6; ours keeps them.
    let seen = compare(&program, ETCDCTL, &[("help snapshot", &["restore", "status"])]);
    assert!(seen > 60, "{seen} commands were compared");
}

#[test]
fn help_of_etcdutl() {
    let program = ours().etcdutl.expect("ours has it");
    let seen = compare(&program, ETCDUTL, &[]);
    assert!(seen > 7, "{seen} commands were compared");
}
