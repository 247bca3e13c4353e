//! The tree of commands against the table of flags that Go's etcdctl has.

use etcdutl::cli::{Command, Flag, Kind, command_help};

use super::{ROOT, TOOL};

/// kind, command, name, default, type: the rows of the table that are in force in 3.7.
const TABLE: &str = include_str!("../../../../tests/data/parity/etcdctl.tsv");

fn find<'a>(path: &str) -> Option<Vec<&'a Command>> {
    let mut commands: Vec<&Command> = vec![&ROOT];
    for name in path.split(' ') {
        let next = commands.last()?.children.iter().find(|child| child.name == name)?;
        commands.push(next);
    }
    Some(commands)
}

fn kind_name(flag: &Flag) -> &'static str {
    match flag.kind {
        Kind::Bool => "bool",
        Kind::Text => "string",
        Kind::Int => "int",
        Kind::Uint => "uint",
        Kind::Duration => "duration",
        Kind::Texts => "stringSlice",
    }
}

fn check_flag(flags: &[Flag], shown: &str, kind: &str, default: &str, place: &str) {
    let (name, short) = match shown.split_once(", ") {
        Some((name, short)) => (name, short.strip_prefix('-').and_then(|short| short.chars().next())),
        None => (shown, None),
    };
    let name = name.trim_start_matches("--");
    if name == "help" {
        return;
    }
    let flag = flags.iter().find(|flag| flag.name == name).unwrap_or_else(|| panic!("{place} has no --{name}"));
    assert_eq!(flag.short, short, "{place} --{name}");
    let kind = if kind == "int64" { "int" } else { kind };
    assert_eq!(kind_name(flag), kind, "{place} --{name}");
    let default = default.trim_start_matches('[').trim_end_matches(']');
    assert_eq!(flag.default, default, "{place} --{name}");
}

#[test]
fn every_row_of_the_table() {
    let (mut commands, mut flags) = (0, 0);
    for line in TABLE.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [kind, command, name, status, value, default, ..] = cells[..] else { panic!("{line}") };
        if status != "active" {
            continue;
        }
        match kind {
            "global-flag" => {
                check_flag(ROOT.persistent, name, value, default, "etcdctl");
                flags += 1;
            }
            "command" => {
                let path = find(command).unwrap_or_else(|| panic!("no command {command}"));
                let last = path[path.len() - 1];
                assert!(last.run.is_some(), "{command} does nothing");
                assert_eq!(last.usage, value, "{command}");
                commands += 1;
            }
            "group" => assert!(!find(command).expect(command).last().expect("a path").children.is_empty()),
            "flag" => {
                let path = find(command).unwrap_or_else(|| panic!("no command {command}"));
                let all: Vec<Flag> =
                    path.iter().flat_map(|command| command.flags.iter().chain(command.persistent)).copied().collect();
                check_flag(&all, name, value, default, command);
                flags += 1;
            }
            _ => {}
        }
    }
    assert!(commands > 45 && flags > 70, "{commands} commands and {flags} flags were looked at");
}

#[test]
fn without_arguments() {
    expect_test::expect_file!["tests/noargs.txt"].assert_eq(&command_help(&TOOL, &[&ROOT]));
}

/// Help of Go's etcdctl 3.7.3: `$ etcdctl help CMD` and what it printed.
const GO_HELP: &str = include_str!("../../../../tests/data/golden/etcdctl-help.txt");
const GO_ROOT: &str = include_str!("../../../../tests/data/golden/etcdctl-noargs.txt");

/// What must be the same: usage lines, headings, flags with kinds and defaults, names of commands. Descriptions are
/// our own.
fn skeleton(help: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut section = "";
    // What stands before is description.
    for line in help.lines().skip_while(|line| *line != "Usage:") {
        if !line.starts_with(' ') {
            let groups = [super::KEYS, super::MAINTENANCE, super::CONCURRENCY, super::AUTHENTICATION, super::UTILITY];
            let known = line.ends_with(':') || groups.contains(&line);
            section = if known { line } else { "" };
            if known && section != "Examples:" {
                lines.push(line.to_owned());
            }
        } else if section == "Usage:" {
            lines.push(line.to_owned());
        } else if section.ends_with("Flags:") {
            let (left, right) = line.trim_start().split_once("   ").unwrap_or((line, ""));
            let default = right.rfind(" (default ").map_or("", |at| &right[at..]);
            lines.push(format!("{}{default}", left.trim_end()));
        } else if section.ends_with(" commands") || section == "Available Commands:" {
            lines.push(line.split_whitespace().next().unwrap_or_default().to_owned());
        }
    }
    lines
}

#[test]
fn help_has_the_shape_of_gos() {
    assert_eq!(skeleton(&command_help(&TOOL, &[&ROOT])), skeleton(GO_ROOT));
    let mut seen = 0;
    // Only at the start of a line: descriptions show command lines too.
    for section in format!("\n{GO_HELP}").split("\n$ etcdctl ").skip(1) {
        let (command, help) = section.split_once('\n').expect("a line with the command");
        let Some(name) = command.strip_prefix("help ") else { continue };
        let path = find(name).unwrap_or_else(|| panic!("no command {name}"));
        let (mut ours, go) = (skeleton(&command_help(&TOOL, &path)), skeleton(help));
        // These two left Go's etcdctl in 3.6; ours keeps them.
        if name == "snapshot" {
            ours.retain(|line| line != "restore" && line != "status");
        }
        assert_eq!(ours, go, "{name}");
        seen += 1;
    }
    assert!(seen > 60, "{seen} commands were compared");
}
