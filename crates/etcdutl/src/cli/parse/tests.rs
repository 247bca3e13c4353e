//! Command lines that scripts use, and those that people get wrong.

use super::*;
use crate::cli::Command;

fn nothing(_: &Invocation) -> Outcome {
    Ok(())
}

static GET: Command = Command {
    name: "get",
    usage: "[options] <key>",
    short: "Reads",
    flags: &[
        Flag::switch("prefix", "keys that start with the key"),
        Flag::int("limit", "how many"),
        Flag::switch("interactive", "ask").letter('i'),
    ],
    run: Some(nothing),
    ..Command::EMPTY
};
static LIST: Command = Command { name: "list", short: "Lists", run: Some(nothing), ..Command::EMPTY };
static LEASE: Command = Command { name: "lease", short: "Leases", children: &[&LIST], ..Command::EMPTY };
static LOCK: Command = Command { name: "lock", short: "Locks", run: Some(nothing), ..Command::EMPTY };
static ROOT: Command = Command {
    name: "ctl",
    persistent: &[
        Flag::text("write-out", "simple", "format").letter('w'),
        Flag::new(Kind::Texts, "endpoints", "a:1", "where"),
        Flag::switch("hex", "in hex"),
    ],
    children: &[&GET, &LEASE, &LOCK],
    ..Command::EMPTY
};
static TOOL: Tool =
    Tool { root: &ROOT, shows_globals: false, describes: true, footer: "end\n", repeats_errors: false };

fn parse(line: &str) -> Result<Invocation, String> {
    let arguments = line.split(' ').filter(|word| !word.is_empty()).map(|word| word.as_bytes().to_vec()).collect();
    match read(&TOOL, arguments) {
        Ok(Read::Run(invocation, _)) => Ok(*invocation),
        Ok(Read::Help(text)) => Err(format!("help: {}", text.lines().next().unwrap_or_default())),
        Ok(Read::HelpUnknown(text)) => Err(format!("unknown: {}", text.lines().next().unwrap_or_default())),
        Err(misuse) => Err(misuse.message),
    }
}

fn wrong(line: &str) -> String {
    parse(line).err().unwrap_or_else(|| panic!("{line} is right"))
}

#[test]
fn flags_stand_anywhere_and_the_last_wins() {
    let invocation = parse("--endpoints b:1 get foo -wjson --limit=3 --prefix -w fields --endpoints=c:1,d:1 bar").unwrap();
    assert_eq!(invocation.arguments, [b"foo".to_vec(), b"bar".to_vec()]);
    assert_eq!(invocation.text("write-out"), "fields");
    assert_eq!(invocation.int("limit"), 3);
    assert!(invocation.switch("prefix") && !invocation.switch("hex"));
    assert_eq!(invocation.texts("endpoints"), ["b:1", "c:1", "d:1"]);
    assert_eq!(parse("get x").unwrap().texts("endpoints"), ["a:1"]);
}

#[test]
fn dashes_end_flags() {
    let invocation = parse("get a -- --prefix -x").unwrap();
    assert_eq!(invocation.arguments.len(), 3);
    assert_eq!(invocation.before_dashes, Some(1));
    assert!(!invocation.is_given("prefix"));
}

#[test]
fn prefixes_of_commands() {
    assert_eq!(parse("le l").unwrap().path.last().unwrap().name, "list");
    assert_eq!(wrong("l"), "unknown command \"l\" for \"ctl\"\n\nDid you mean this?\n\tlease\n\tlock\n");
    assert_eq!(wrong("gett"), "unknown command \"gett\" for \"ctl\"\n\nDid you mean this?\n\tget\n");
    assert_eq!(wrong("nosuch"), "unknown command \"nosuch\" for \"ctl\"");
}

#[test]
fn a_flag_the_root_does_not_know_takes_the_next_word_along() {
    assert_eq!(wrong("--prefix get foo"), "unknown command \"foo\" for \"ctl\"");
}

#[test]
fn misuse_has_the_words_of_gos_tools() {
    for (line, message) in [
        ("get --nosuch", "unknown flag: --nosuch"),
        ("get --=x", "bad flag syntax: --=x"),
        ("get -x", "unknown shorthand flag: 'x' in -x"),
        ("get -ix", "unknown shorthand flag: 'x' in -x"),
        ("get --limit", "flag needs an argument: --limit"),
        ("get -w", "flag needs an argument: 'w' in -w"),
        ("get --limit x", "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("get -i=x", "invalid argument \"x\" for \"-i, --interactive\" flag: strconv.ParseBool: parsing \"x\": invalid syntax"),
    ] {
        assert_eq!(wrong(line), message);
    }
}

#[test]
fn help() {
    for (line, first) in [
        ("", "help: Usage:"),
        ("--help", "help: Usage:"),
        ("get -h", "help: Reads"),
        ("lease", "help: Leases"),
        ("lease nosuch", "help: Leases"),
        ("lease list --help", "help: Lists"),
    ] {
        assert_eq!(wrong(line), first, "{line}");
    }
    expect_test::expect![[r#"
        Reads

        Usage:
          ctl get [options] <key> [flags]

        Flags:
          -h, --help          help for get
          -i, --interactive   ask
              --limit int     how many
              --prefix        keys that start with the key
        end
    "#]]
    .assert_eq(&command_help(&TOOL, &[&ROOT, &GET]));
}
