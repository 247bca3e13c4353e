//! Reading a command line against the table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::flag::{parse_bool, parse_duration, parse_int, parse_uint};
use super::help::{command_help, usage};
use super::{Command, Flag, Kind, Outcome, Tool};

/// A command line that was understood.
#[derive(Clone)]
pub struct Invocation {
    /// The tool.
    pub tool: &'static Tool,
    /// From the root to the command.
    pub path: Vec<&'static Command>,
    /// Arguments that are no flags, as bytes: keys need not be UTF-8.
    pub arguments: Vec<Vec<u8>>,
    /// How many arguments stood before `--`, if it was there.
    pub before_dashes: Option<usize>,
    flags: Vec<Flag>,
    given: BTreeMap<&'static str, String>,
}

/// A command line that was not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Misuse {
    /// What is wrong.
    pub message: String,
    /// That, and the usage, as it is shown on standard error.
    pub shown: String,
}

pub(crate) enum Read {
    Help(String),
    HelpUnknown(String),
    Run(Box<Invocation>, fn(&Invocation) -> Outcome),
}

/// Flags of a command: its own, then those of the commands above it.
fn flags_of(path: &[&'static Command]) -> Vec<Flag> {
    let own = path.last().map_or(&[][..], |command| command.flags);
    let above = path.iter().rev().flat_map(|command| command.persistent.iter());
    own.iter().chain(above).copied().collect()
}

pub(crate) fn read(tool: &'static Tool, arguments: Vec<Vec<u8>>) -> Result<Read, Misuse> {
    let (path, arguments) = find(tool, arguments)?;
    let command = *path.last().expect("the root is always there");
    if command.name == "help" && command.run.is_none() {
        // What is wrong with flags does not matter to who asks for help.
        let topics = parse_flags(&flags_of(&path), arguments).map(|parsed| parsed.arguments).unwrap_or_default();
        return Ok(help_about(tool, &topics));
    }
    let misused = |message: String| {
        let shown = format!("Error: {message}\n{}\n", usage(tool, &path));
        Misuse { message, shown }
    };
    let flags = flags_of(&path);
    let parsed = parse_flags(&flags, arguments).map_err(&misused)?;
    if parsed.help {
        return Ok(Read::Help(command_help(tool, &path)));
    }
    let Some(run) = command.run else {
        return Ok(Read::Help(command_help(tool, &path)));
    };
    let expected = if command.choices.is_empty() { command.arguments } else { Some(1) };
    if let Some(expected) = expected.filter(|expected| *expected != parsed.arguments.len()) {
        return Err(misused(format!("accepts {expected} arg(s), received {}", parsed.arguments.len())));
    }
    if !command.choices.is_empty() {
        let argument = String::from_utf8_lossy(&parsed.arguments[0]).into_owned();
        if !command.choices.contains(&argument.as_str()) {
            return Err(misused(format!("invalid argument {argument:?} for {:?}", names(&path))));
        }
    }
    let missing: Vec<String> = (command.required.iter())
        .filter(|name| !parsed.given.contains_key(*name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !missing.is_empty() {
        return Err(misused(format!("required flag(s) {} not set", missing.join(", "))));
    }
    let Parsed { arguments, before_dashes, given, .. } = parsed;
    Ok(Read::Run(Box::new(Invocation { tool, path, arguments, before_dashes, flags, given }), run))
}

pub(crate) fn names(path: &[&Command]) -> String {
    path.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

fn child(command: &Command, name: &[u8]) -> Option<&'static Command> {
    if let Some(exact) = command.children.iter().find(|child| child.name.as_bytes() == name) {
        return Some(exact);
    }
    let mut matching = command.children.iter().filter(|child| child.name.as_bytes().starts_with(name));
    let first = matching.next()?;
    if name.is_empty() || matching.next().is_some() { None } else { Some(first) }
}

/// Places of the arguments that are neither flags nor, as far as can be told before parsing, values of flags.
fn plain_places(flags: &[Flag], arguments: &[Vec<u8>]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    while at < arguments.len() {
        let argument = &arguments[at];
        if argument == b"--" {
            break;
        }
        if let Some(name) = argument.strip_prefix(b"--") {
            let flag = flags.iter().find(|flag| flag.name.as_bytes() == name);
            // A flag nobody knows is taken to have a value.
            let alone = argument.contains(&b'=') || flag.is_some_and(|flag| flag.kind == Kind::Bool);
            at += usize::from(!alone);
        } else if argument.len() == 2 && argument[0] == b'-' {
            let flag = flags.iter().find(|flag| flag.short == Some(char::from(argument[1])));
            at += usize::from(flag.is_none_or(|flag| flag.kind != Kind::Bool));
        } else if !argument.is_empty() && argument[0] != b'-' {
            places.push(at);
        }
        at += 1;
    }
    places
}

type Found = (Vec<&'static Command>, Vec<Vec<u8>>);

/// Follows the names of commands; what is left are flags and arguments.
fn find(tool: &'static Tool, mut arguments: Vec<Vec<u8>>) -> Result<Found, Misuse> {
    let mut path = vec![tool.root];
    loop {
        let command = *path.last().expect("the root is always there");
        let places = plain_places(&flags_of(&path), &arguments);
        let Some(&first) = places.first() else { break };
        if let Some(next) = child(command, &arguments[first]) {
            arguments.remove(first);
            path.push(next);
            continue;
        }
        if path.len() == 1 {
            let name = String::from_utf8_lossy(&arguments[first]).into_owned();
            let message = format!("unknown command {name:?} for {:?}{}", tool.root.name, suggestions(command, &name));
            let shown = format!("Error: {message}\nRun '{} --help' for usage.\n", tool.root.name);
            return Err(Misuse { message, shown });
        }
        break;
    }
    Ok((path, arguments))
}

fn suggestions(command: &Command, typed: &str) -> String {
    let typed = typed.to_lowercase();
    let mut close: Vec<&str> = (command.children.iter())
        .map(|child| child.name)
        .filter(|name| name.starts_with(&typed) || distance(&typed, name) <= 2)
        .collect();
    close.sort_unstable();
    if close.is_empty() {
        return String::new();
    }
    let lines: String = close.iter().map(|name| format!("\t{name}\n")).collect();
    format!("\n\nDid you mean this?\n{lines}")
}

/// How many letters must be changed, added or taken away.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// `help a b`: the help of that command.
fn help_about(tool: &'static Tool, arguments: &[Vec<u8>]) -> Read {
    let mut path = vec![tool.root];
    for (at, argument) in arguments.iter().enumerate() {
        let command = *path.last().expect("the root is always there");
        match child(command, argument) {
            Some(next) => path.push(next),
            None if at == 0 => {
                let topics: Vec<_> =
                    arguments.iter().map(|topic| format!("`{}`", String::from_utf8_lossy(topic))).collect();
                let text = format!("Unknown help topic [{}]\n{}", topics.join(" "), usage(tool, &path));
                return Read::HelpUnknown(text);
            }
            None => break,
        }
    }
    Read::Help(command_help(tool, &path))
}

/// Flags and arguments, told apart.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Flags that were given, with their values.
    pub given: BTreeMap<&'static str, String>,
    /// Everything else.
    pub arguments: Vec<Vec<u8>>,
    /// How many of the arguments stood before `--`.
    pub before_dashes: Option<usize>,
    /// `--help` or `-h` was there.
    pub help: bool,
}

/// Tells flags and arguments apart.
///
/// # Errors
/// A flag that is not known, or a value that is none.
pub fn parse_flags(flags: &[Flag], arguments: Vec<Vec<u8>>) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        if argument.len() < 2 || argument[0] != b'-' {
            parsed.arguments.push(argument);
        } else if argument == b"--" {
            parsed.before_dashes = Some(parsed.arguments.len());
            parsed.arguments.extend(rest);
            break;
        } else if argument.starts_with(b"--") {
            let text = String::from_utf8_lossy(&argument).into_owned();
            parse_long(flags, &text, &mut rest, &mut parsed)?;
        } else {
            let text = String::from_utf8_lossy(&argument).into_owned();
            parse_short(flags, &text[1..], &mut rest, &mut parsed)?;
        }
        if parsed.help {
            break;
        }
    }
    Ok(parsed)
}

fn parse_long(
    flags: &[Flag],
    text: &str,
    rest: &mut impl Iterator<Item = Vec<u8>>,
    parsed: &mut Parsed,
) -> Result<(), String> {
    let body = &text[2..];
    if body.starts_with(['-', '=']) {
        return Err(format!("bad flag syntax: {text}"));
    }
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
        if name == "help" {
            parsed.help = value.as_deref().is_none_or(|value| parse_bool(value).unwrap_or(true));
            return Ok(());
        }
        return Err(format!("unknown flag: --{name}"));
    };
    let value = match value {
        Some(value) => value,
        None if flag.kind == Kind::Bool => "true".to_owned(),
        None => match rest.next() {
            Some(next) => String::from_utf8_lossy(&next).into_owned(),
            None => return Err(format!("flag needs an argument: --{name}")),
        },
    };
    set(flag, value, &mut parsed.given)
}

fn parse_short(
    flags: &[Flag],
    letters: &str,
    rest: &mut impl Iterator<Item = Vec<u8>>,
    parsed: &mut Parsed,
) -> Result<(), String> {
    let mut left = letters;
    while let Some(letter) = left.chars().next() {
        let after = &left[letter.len_utf8()..];
        let Some(flag) = flags.iter().find(|flag| flag.short == Some(letter)) else {
            if letter == 'h' {
                parsed.help = true;
                return Ok(());
            }
            return Err(format!("unknown shorthand flag: {letter:?} in -{left}"));
        };
        let value = match after.strip_prefix('=') {
            Some(value) => value.to_owned(),
            None if flag.kind == Kind::Bool => {
                set(flag, "true".to_owned(), &mut parsed.given)?;
                left = after;
                continue;
            }
            None if !after.is_empty() => after.to_owned(),
            None => match rest.next() {
                Some(next) => String::from_utf8_lossy(&next).into_owned(),
                None => return Err(format!("flag needs an argument: {letter:?} in -{left}")),
            },
        };
        return set(flag, value, &mut parsed.given);
    }
    Ok(())
}

fn set(flag: &Flag, value: String, given: &mut BTreeMap<&'static str, String>) -> Result<(), String> {
    flag.check(&value)
        .map_err(|why| format!("invalid argument {value:?} for {:?} flag: {why}", flag.shown()))?;
    match given.get_mut(flag.name) {
        Some(earlier) if flag.kind == Kind::Texts => {
            earlier.push(',');
            earlier.push_str(&value);
        }
        _ => {
            given.insert(flag.name, value);
        }
    }
    Ok(())
}

impl Invocation {
    /// An invocation of a command below another one's, for commands that read commands.
    #[must_use]
    pub fn nested(&self, command: &'static Command, parsed: Parsed) -> Invocation {
        Invocation {
            tool: self.tool,
            path: vec![command],
            flags: flags_of(&[command]),
            given: parsed.given,
            arguments: parsed.arguments,
            before_dashes: parsed.before_dashes,
        }
    }

    /// Flags that come from commands above this one.
    #[must_use]
    pub fn inherited(&self) -> Vec<Flag> {
        let above = &self.path[..self.path.len() - 1];
        above.iter().rev().flat_map(|command| command.persistent.iter()).copied().collect()
    }

    /// Was the flag given?
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Gives a flag a value, as the environment does.
    ///
    /// # Errors
    /// The value is none.
    pub fn give(&mut self, flag: &Flag, value: String) -> Result<(), String> {
        set(flag, value, &mut self.given)
    }

    /// The value of a flag as text.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(value) => value,
            None => self.flags.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default),
        }
    }

    /// A switch.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }

    /// A signed number.
    #[must_use]
    pub fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name), 0).unwrap_or(0)
    }

    /// A number that is not negative.
    #[must_use]
    pub fn uint(&self, name: &str) -> u64 {
        parse_uint(self.text(name), 0).unwrap_or(0)
    }

    /// A duration.
    #[must_use]
    pub fn duration(&self, name: &str) -> Duration {
        parse_duration(self.text(name)).unwrap_or_default()
    }

    /// Texts with commas in between.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        let text = self.text(name);
        if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
    }

    /// An argument as text.
    #[must_use]
    pub fn argument(&self, at: usize) -> Option<String> {
        self.arguments.get(at).map(|argument| String::from_utf8_lossy(argument).into_owned())
    }
}

#[cfg(test)]
mod tests;
