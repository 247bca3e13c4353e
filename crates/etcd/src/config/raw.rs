//! What the user said, before it is judged: values by flag name, from the command line, the environment or the
//! configuration file. Nothing here looks at more than one value at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::flags::{self, Fate, Flag, IGNORED, Kind};
use super::value;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `--name=value`.
    CommandLine,
    /// `ETCD_NAME=value`.
    Environment,
    /// A key of the configuration file.
    File,
}

/// Values by flag name; what is missing has its default.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawConfig {
    values: BTreeMap<&'static str, (String, Source)>,
    /// Old flags that were used, each with the sentence that says what became of it.
    pub(crate) warnings: Vec<String>,
}

/// Why the command line was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UsageError {
    /// Print help and leave with 0.
    Help,
    /// Print this text and the usage, and leave with 2.
    Wrong(String),
}

/// A line that is to be logged about the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EnvironmentNote {
    /// The variable was used.
    Used(&'static Flag, String),
    /// It begins with `ETCD_` but names no flag.
    Unknown(String),
    /// A flag on the command line hides it: the process must not start.
    Shadowed(String),
}

impl RawConfig {
    /// The value of a flag, or its default.
    ///
    /// Panics when there is no such flag: the name is written in our own code.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some((value, _)) => value,
            None => flags::find(name).unwrap_or_else(|| panic!("no flag {name} in the table")).default,
        }
    }

    /// Whether the user gave the flag, from wherever.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Where the user gave the flag; `None` if nowhere.
    pub(crate) fn source(&self, name: &str) -> Option<Source> {
        self.values.get(name).map(|(_, source)| *source)
    }

    /// Sets a value that has been checked.
    pub(crate) fn set(&mut self, flag: &'static Flag, text: &str, source: Source) {
        self.values.insert(flag.name, (text.to_string(), source));
    }

    fn set_checked(&mut self, flag: &'static Flag, text: &str, source: Source) -> Result<(), String> {
        value::check(flag.kind, text)?;
        self.set(flag, text, source);
        Ok(())
    }

    /// Takes a flag of an older release for what it means today.
    fn set_dropped(&mut self, dropped: &flags::Dropped, text: &str, source: Source) -> Result<(), String> {
        let known = |name: &str| flags::find(name).expect("fates name flags of the table");
        let note = match dropped.fate {
            Fate::Renamed(name) => {
                self.set_checked(known(name), text, source)?;
                format!("use --{name}")
            }
            Fate::Gate(gate) => {
                let on = value::parse_bool(text).ok_or("parse error")?;
                let mut gates = self.text("feature-gates").to_string();
                if !gates.is_empty() {
                    gates.push(',');
                }
                gates.push_str(&format!("{gate}={on}"));
                self.set(known("feature-gates"), &gates, source);
                format!("use --feature-gates={gate}={on}")
            }
            Fate::Means(name, meaning) => {
                if value::parse_bool(text).ok_or("parse error")? {
                    self.set(known(name), meaning, source);
                }
                format!("use --{name}={meaning}")
            }
            Fate::WithSwitch(name, switch) => {
                self.set_checked(known(name), text, source)?;
                self.set(known(switch), "true", source);
                format!("use --{name} and --{switch}")
            }
            Fate::Nothing => "it has no effect".to_string(),
            Fate::Refused(harmless, why) if harmless.contains(&text) => why.to_string(),
            Fate::Refused(_, why) => return Err(why.to_string()),
        };
        self.warnings.push(format!("--{} is a flag of an older release: {note}", dropped.name));
        Ok(())
    }

    /// Reads arguments as Go's flag package does, without the name of the program. Returns what follows the flags.
    pub(crate) fn read_arguments(&mut self, arguments: &[String]) -> Result<Vec<String>, UsageError> {
        let mut rest = arguments;
        while let Some(argument) = rest.first() {
            if argument.len() < 2 || !argument.starts_with('-') {
                break;
            }
            if argument == "--" {
                rest = &rest[1..];
                break;
            }
            rest = &rest[1..];
            let body = argument.strip_prefix("--").unwrap_or(&argument[1..]);
            if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
                return Err(UsageError::Wrong(format!("bad flag syntax: {argument}")));
            }
            let (name, given) = match body.split_once('=') {
                Some((name, text)) => (name, Some(text.to_string())),
                None => (body, None),
            };
            rest = self.read_one(name, given, rest)?;
        }
        Ok(rest.to_vec())
    }

    fn read_one<'a>(
        &mut self,
        name: &str,
        given: Option<String>,
        rest: &'a [String],
    ) -> Result<&'a [String], UsageError> {
        let (flag, dropped) = (flags::find(name), flags::find_dropped(name));
        let is_bool = flag.is_some_and(|flag| flag.kind == Kind::Bool) || dropped.is_some_and(|flag| flag.is_bool);
        if flag.is_none() && dropped.is_none() {
            return match name {
                _ if IGNORED.contains(&name) => Ok(rest),
                "help" | "h" => Err(UsageError::Help),
                _ => Err(UsageError::Wrong(format!("flag provided but not defined: -{name}"))),
            };
        }
        let (text, rest) = match (given, is_bool) {
            (Some(text), _) => (text, rest),
            (None, true) => ("true".to_string(), rest),
            (None, false) => match rest.split_first() {
                Some((text, rest)) => (text.clone(), rest),
                None => return Err(UsageError::Wrong(format!("flag needs an argument: -{name}"))),
            },
        };
        let result = match (flag, dropped) {
            (Some(flag), _) => self.set_checked(flag, &text, Source::CommandLine),
            (None, Some(dropped)) => self.set_dropped(dropped, &text, Source::CommandLine),
            (None, None) => unreachable!("both missing was handled above"),
        };
        let what = if is_bool { "boolean value" } else { "value" };
        let joint = if is_bool { "for" } else { "for flag" };
        result.map_err(|why| UsageError::Wrong(format!("invalid {what} {text:?} {joint} -{name}: {why}")))?;
        Ok(rest)
    }

    /// Reads variables that begin with `ETCD_`. A flag on the command line wins over nothing here: a variable that
    /// it hides is an error, as in etcd.
    pub(crate) fn read_environment(
        &mut self,
        variables: &[(String, String)],
    ) -> Result<Vec<EnvironmentNote>, String> {
        let mut notes = Vec::new();
        let mut known = BTreeSet::new();
        let dropped = flags::DROPPED.iter().map(|flag| (flag.name, None, Some(flag)));
        let active = flags::all().map(|flag| (flag.name, Some(flag), None));
        for (name, flag, old) in active.chain(dropped) {
            let variable = format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
            known.insert(variable.clone());
            let Some((_, text)) = variables.iter().find(|(key, _)| *key == variable) else { continue };
            if text.is_empty() {
                continue;
            }
            if matches!(self.values.get(name), Some((_, Source::CommandLine))) {
                notes.push(EnvironmentNote::Shadowed(variable));
                continue;
            }
            let wrong = |why: String| format!("invalid value {text:?} for {variable}: {why}");
            match (flag, old) {
                (Some(flag), _) => {
                    self.set_checked(flag, text, Source::Environment).map_err(wrong)?;
                    notes.push(EnvironmentNote::Used(flag, text.clone()));
                }
                (None, Some(old)) => self.set_dropped(old, text, Source::Environment).map_err(wrong)?,
                (None, None) => unreachable!("every name has a row"),
            }
        }
        for (key, text) in variables {
            let special = matches!(key.as_str(), "ETCD_UNSUPPORTED_ARCH" | "ETCD_VERIFY");
            if key.starts_with("ETCD_") && !known.contains(key) && !special {
                notes.push(EnvironmentNote::Unknown(format!("{key}={text}")));
            }
        }
        Ok(notes)
    }

    /// Reads a configuration file. Unknown keys are passed over, as in etcd.
    pub(crate) fn read_file(&mut self, contents: &str) -> Result<(), String> {
        let root: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(contents).map_err(|error| format!("error converting YAML to JSON: {error}"))?;
        if root.is_null() {
            return Ok(());
        }
        if !root.is_mapping() {
            return Err("error unmarshaling JSON: the file must hold a mapping of keys to values".into());
        }
        for flag in flags::all() {
            let Some(path) = flag.yaml else { continue };
            let Some(found) = path.split('.').try_fold(&root, |at, key| at.get(key)) else { continue };
            if found.is_null() {
                continue;
            }
            let text = text_of(flag, found).ok_or_else(|| wrong_type(path, flag.kind))?;
            value::check(flag.kind, &text)
                .map_err(|why| format!("invalid value {text:?} for key {path:?} of the configuration file: {why}"))?;
            self.set(flag, &text, Source::File);
        }
        self.read_old_keys(&root)
    }

    /// Keys of older releases that have no row of their own.
    fn read_old_keys(&mut self, root: &serde_yaml_ng::Value) -> Result<(), String> {
        for old in flags::DROPPED {
            let Some(found) = root.get(old.name).filter(|found| !found.is_null()) else { continue };
            let text = match found {
                serde_yaml_ng::Value::Bool(on) => on.to_string(),
                serde_yaml_ng::Value::Number(number) => match old.fate {
                    Fate::Renamed(name) if flags::find(name).is_some_and(|f| f.kind == Kind::Duration) => {
                        format!("{number}ns")
                    }
                    _ => number.to_string(),
                },
                serde_yaml_ng::Value::String(text) => text.clone(),
                _ => continue,
            };
            self.set_dropped(old, &text, Source::File)
                .map_err(|why| format!("invalid value {text:?} for key {:?}: {why}", old.name))?;
        }
        Ok(())
    }
}

/// The text that a YAML value would be on the command line; `None` when it has the wrong type.
fn text_of(flag: &Flag, found: &serde_yaml_ng::Value) -> Option<String> {
    use serde_yaml_ng::Value;
    match (flag.kind, found) {
        (Kind::Bool, Value::Bool(on)) => Some(on.to_string()),
        (Kind::Uint | Kind::Uint32, Value::Number(number)) => number.as_u64().map(|n| n.to_string()),
        (Kind::Int, Value::Number(number)) => number.as_i64().map(|n| n.to_string()),
        (Kind::Duration, Value::Number(number)) => number.as_i64().map(|n| format!("{n}ns")),
        // A plain number is a good version, retention or token.
        (Kind::Text | Kind::Choice(_), Value::Number(number)) => Some(number.to_string()),
        (Kind::Text | Kind::Urls | Kind::Choice(_) | Kind::Gates | Kind::V2Deprecation, Value::String(text))
        | (Kind::List | Kind::UniqueList | Kind::Origins, Value::String(text)) => Some(text.clone()),
        (Kind::List | Kind::UniqueList | Kind::Origins, Value::Sequence(items)) => {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str().map(str::to_string)).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn wrong_type(path: &str, kind: Kind) -> String {
    let wanted = match kind {
        Kind::Bool => "true or false",
        Kind::Uint | Kind::Uint32 => "a number that is not negative",
        Kind::Int => "a number",
        Kind::Duration => "a whole number of nanoseconds",
        Kind::List | Kind::UniqueList | Kind::Origins => "a list of texts",
        _ => "a text",
    };
    format!("error unmarshaling JSON: the key {path:?} of the configuration file takes {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<(RawConfig, Vec<String>), UsageError> {
        let mut raw = RawConfig::default();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let rest = raw.read_arguments(&arguments)?;
        Ok((raw, rest))
    }

    #[test]
    fn the_last_of_repeated_flags_wins() {
        let (raw, rest) = read(&["--name", "a", "-name=b", "--pre-vote=false", "--auto-tls", "x", "--name", "c"]).unwrap();
        assert_eq!((raw.text("name"), raw.text("pre-vote"), raw.text("auto-tls")), ("b", "false", "true"));
        assert_eq!(rest, ["x", "--name", "c"]);
    }

    #[test]
    fn wrong_arguments_read_as_in_etcd() {
        let wrong = |arguments: &[&str]| match read(arguments) {
            Err(UsageError::Wrong(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(wrong(&["--nosuch"]), "flag provided but not defined: -nosuch");
        assert_eq!(wrong(&["--name"]), "flag needs an argument: -name");
        assert_eq!(wrong(&["--election-timeout=abc"]), "invalid value \"abc\" for flag -election-timeout: parse error");
        assert_eq!(
            wrong(&["--force-new-cluster=maybe"]),
            "invalid boolean value \"maybe\" for -force-new-cluster: parse error"
        );
        assert_eq!(wrong(&["--=x"]), "bad flag syntax: --=x");
        assert_eq!(read(&["-h"]).unwrap_err(), UsageError::Help);
        assert!(read(&["--snapshot=9", "--vv"]).is_ok());
    }

    #[test]
    fn flags_of_older_releases_are_taken_for_what_they_mean() {
        let (raw, _) = read(&[
            "--experimental-initial-corrupt-check", "--experimental-watch-progress-notify-interval=5s",
            "--ca-file=ca.pem", "--debug", "--enable-v2=false", "--proxy=off",
        ])
        .unwrap();
        assert_eq!(raw.text("feature-gates"), "InitialCorruptCheck=true");
        assert_eq!(raw.text("watch-progress-notify-interval"), "5s");
        assert_eq!((raw.text("trusted-ca-file"), raw.text("client-cert-auth")), ("ca.pem", "true"));
        assert_eq!(raw.text("log-level"), "debug");
        assert_eq!(raw.warnings.len(), 6);
        assert!(read(&["--proxy=on"]).is_err());
    }

    #[test]
    fn the_environment_is_used_unless_a_flag_hides_it() {
        let (mut raw, _) = read(&["--name=y"]).unwrap();
        let variables: Vec<(String, String)> = [
            ("ETCD_NAME", "x"), ("ETCD_DATA_DIR", "d"), ("ETCD_FOO", "1"), ("ETCD_WAL_DIR", ""), ("PATH", "p"),
        ]
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
        let notes = raw.read_environment(&variables).unwrap();
        assert!(notes.contains(&EnvironmentNote::Shadowed("ETCD_NAME".into())));
        assert!(notes.contains(&EnvironmentNote::Unknown("ETCD_FOO=1".into())));
        assert_eq!(raw.text("data-dir"), "d");
        assert_eq!(notes.len(), 3);
    }

    #[test]
    fn the_configuration_file_has_its_own_types() {
        let mut raw = RawConfig::default();
        raw.read_file(
            "name: m1\nelection-timeout: 500\nwatch-progress-notify-interval: 600000000000\nunknown: 1\n\
             client-transport-security:\n  cert-file: a.pem\n  auto-tls: true\nlog-outputs: [stderr]\n\
             auto-compaction-retention: 1\n",
        )
        .unwrap();
        assert_eq!((raw.text("name"), raw.text("election-timeout"), raw.text("cert-file")), ("m1", "500", "a.pem"));
        assert_eq!(value::parse_duration(raw.text("watch-progress-notify-interval")).unwrap().as_secs(), 600);
        assert_eq!((raw.text("log-outputs"), raw.text("auto-compaction-retention")), ("stderr", "1"));
        for wrong in ["election-timeout: abc", "- a", "name: [", "pre-vote: 3"] {
            assert!(RawConfig::default().read_file(wrong).is_err(), "{wrong}");
        }
    }
}
