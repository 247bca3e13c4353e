//! Help texts made from the table.

use std::fmt::Write;

use super::parse::names;
use super::{Command, Flag, Kind, Tool};

/// Names of commands are padded at least to this.
const NAME_WIDTH_MIN: usize = 11;

/// The help of a command.
#[must_use]
pub fn command_help(tool: &Tool, path: &[&'static Command]) -> String {
    let command = path[path.len() - 1];
    let description = if command.long.is_empty() { command.short } else { command.long };
    let mut text = String::new();
    if tool.describes && !description.is_empty() {
        text.push_str(description.trim_end());
        text.push_str("\n\n");
    }
    text.push_str(&usage(tool, path));
    text.push_str(tool.footer);
    text
}

/// The usage of a command: what is shown after a misuse too.
#[must_use]
pub fn usage(tool: &Tool, path: &[&'static Command]) -> String {
    let command = path[path.len() - 1];
    let mut text = String::from("Usage:\n");
    let name = names(path);
    if command.run.is_some() {
        let flags = if command.choices.is_empty() { " [flags]" } else { "" };
        let space = if command.usage.is_empty() { "" } else { " " };
        let _ = writeln!(text, "  {name}{space}{}{flags}", command.usage);
    }
    if !command.children.is_empty() {
        let _ = writeln!(text, "  {name} [command]");
    }
    if !command.examples.is_empty() {
        let _ = write!(text, "\nExamples:\n{}\n", command.examples);
    }
    text.push_str(&children(command));
    let is_root = path.len() == 1;
    if !is_root || tool.shows_globals {
        let mut own: Vec<Flag> = command.flags.iter().chain(command.persistent).copied().collect();
        own.push(Flag::switch("help", "").letter('h'));
        let _ = write!(text, "\nFlags:\n{}", flag_lines(&own, command.name));
    }
    let from = usize::from(!tool.shows_globals);
    let above: Vec<Flag> = if is_root {
        Vec::new()
    } else {
        path[..path.len() - 1].iter().skip(from).flat_map(|command| command.persistent).copied().collect()
    };
    if !above.is_empty() {
        let _ = write!(text, "\nGlobal Flags:\n{}", flag_lines(&above, command.name));
    }
    if !command.children.is_empty() {
        let _ = writeln!(text, "\nUse \"{name} [command] --help\" for more information about a command.");
    }
    text
}

fn children(command: &Command) -> String {
    let width = command.children.iter().map(|child| child.name.len()).max().unwrap_or(0).max(NAME_WIDTH_MIN);
    let mut text = String::new();
    let mut heading = None;
    for child in command.children {
        let group = if child.group.is_empty() { "Available Commands:" } else { child.group };
        if heading != Some(group) {
            let _ = write!(text, "\n{group}\n");
            heading = Some(group);
        }
        let _ = writeln!(text, "  {:width$} {}", child.name, child.short);
    }
    text
}

/// One line per flag, sorted, with the descriptions in one column.
#[must_use]
pub fn flag_lines(flags: &[Flag], command: &str) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut sorted = flags.to_vec();
    sorted.sort_by_key(|flag| flag.name);
    for flag in &sorted {
        let short = flag.short.map_or_else(|| "    ".into(), |short| format!("-{short}, "));
        let kind = flag.kind_name();
        let space = if kind.is_empty() { "" } else { " " };
        let left = format!("  {short}--{}{space}{kind}", flag.name);
        let right = if flag.name == "help" {
            format!("help for {command}")
        } else {
            format!("{}{}", flag.help, default_text(flag))
        };
        rows.push((left, right));
    }
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (left, right)| {
        let _ = writeln!(text, "{left:width$}   {right}");
        text
    })
}

fn default_text(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (Kind::Bool, "false") | (Kind::Int | Kind::Uint, "0") | (Kind::Duration, "0s") | (_, "") => String::new(),
        (Kind::Text, default) => format!(" (default {default:?})"),
        (Kind::Texts, default) => format!(" (default [{default}])"),
        (_, default) => format!(" (default {default})"),
    }
}
