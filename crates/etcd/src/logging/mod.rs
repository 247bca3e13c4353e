//! Log lines in etcd's form: one JSON object, or one line with tabs, per event.
//!
//! A [`Logger`] is a cheap handle. Keys stand in etcd's order: `level`, `ts`, `logger`, `caller`, `msg`, then the
//! fields of the call. Lines of one level and text are sampled as in etcd: the first hundred of a second, then each
//! hundredth.

mod encode;
pub(crate) mod requests;
mod sink;

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

pub(crate) use sink::Rotation;
use sink::Sink;

/// A size as people read it, in steps of a thousand: `20 kB`, `2.1 GB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let value = (value * 10.0 + 0.5).floor() / 10.0;
    if unit == 0 || value >= 10.0 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
    DPanic,
    Panic,
    Fatal,
}

impl Level {
    /// The level of that name, in any case; empty means info.
    pub(crate) fn parse(name: &str) -> Option<Level> {
        Some(match name.to_ascii_lowercase().as_str() {
            "debug" => Level::Debug,
            "" | "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            "dpanic" => Level::DPanic,
            "panic" => Level::Panic,
            "fatal" => Level::Fatal,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::DPanic => "dpanic",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Console,
}

/// The value of a field.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Number(i128),
    Bool(bool),
    List(Vec<String>),
    Duration(Duration),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}
impl From<&String> for Value {
    fn from(text: &String) -> Value {
        Value::Text(text.clone())
    }
}
impl From<bool> for Value {
    fn from(on: bool) -> Value {
        Value::Bool(on)
    }
}
impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number.into())
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number.into())
    }
}
impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Number(number.into())
    }
}
impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(number as i128)
    }
}
impl From<Vec<String>> for Value {
    fn from(list: Vec<String>) -> Value {
        Value::List(list)
    }
}
impl From<Duration> for Value {
    fn from(duration: Duration) -> Value {
        Value::Duration(duration)
    }
}

/// One field of a line.
pub(crate) type Field<'a> = (&'a str, Value);

/// One line before it is encoded.
pub(crate) struct Line<'a> {
    level: Level,
    unix_nanos: u128,
    logger: &'a str,
    caller: &'a str,
    text: &'a str,
    fields: &'a [Field<'a>],
}

/// Where lines go and which.
pub(crate) struct Settings {
    pub(crate) level: Level,
    pub(crate) form: Form,
    /// As given with `--log-outputs`; empty means standard error.
    pub(crate) outputs: Vec<String>,
    pub(crate) rotation: Option<Rotation>,
}

/// Lines of one level and text in the current second.
#[derive(Default)]
struct Sampler {
    second: u128,
    counts: BTreeMap<(Level, String), u64>,
}

/// Lines of one second and text that are written in any case.
const SAMPLE_FIRST: u64 = 100;
/// After those, each of this many.
const SAMPLE_EACH: u64 = 100;
/// Different texts remembered within a second; further ones are written unsampled.
const SAMPLE_TEXTS_MAX: usize = 4096;

impl Sampler {
    fn admits(&mut self, level: Level, text: &str, unix_nanos: u128) -> bool {
        let second = unix_nanos / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.counts.clear();
        }
        if self.counts.len() >= SAMPLE_TEXTS_MAX {
            return true;
        }
        let count = self.counts.entry((level, text.to_string())).or_insert(0);
        *count += 1;
        *count <= SAMPLE_FIRST || (*count - SAMPLE_FIRST).is_multiple_of(SAMPLE_EACH)
    }
}

struct Inner {
    level: Level,
    form: Form,
    offset_seconds: i32,
    samples: bool,
    sampler: Mutex<Sampler>,
    sinks: Mutex<Vec<Sink>>,
}

/// A handle for writing lines; clones share everything.
#[derive(Clone)]
pub(crate) struct Logger(Arc<Inner>);

impl Logger {
    /// A logger; the error says which output could not be opened.
    ///
    /// Must be called while the process has one thread: the time zone is read here.
    pub(crate) fn new(settings: &Settings) -> Result<Logger, String> {
        let (sinks, samples) = sink::open(&settings.outputs, settings.rotation.as_ref())?;
        let offset = time::UtcOffset::current_local_offset().unwrap_or(time::UtcOffset::UTC);
        Ok(Logger(Arc::new(Inner {
            level: settings.level,
            form: settings.form,
            offset_seconds: offset.whole_seconds(),
            samples,
            sampler: Mutex::default(),
            sinks: Mutex::new(sinks),
        })))
    }

    /// The logger before settings are known: JSON at info to standard error.
    pub(crate) fn early() -> Logger {
        Logger::new(&Settings { level: Level::Info, form: Form::Json, outputs: Vec::new(), rotation: None })
            .expect("standard error needs no opening")
    }

    /// A logger that writes nothing: for attempts whose failure means nothing.
    pub(crate) fn silent() -> Logger {
        Logger(Arc::new(Inner {
            level: Level::Fatal,
            form: Form::Json,
            offset_seconds: 0,
            samples: false,
            sampler: Mutex::default(),
            sinks: Mutex::default(),
        }))
    }

    #[track_caller]
    pub(crate) fn info(&self, text: &str, fields: &[Field<'_>]) {
        self.write(Level::Info, "", text, fields, Location::caller());
    }

    #[track_caller]
    pub(crate) fn warn(&self, text: &str, fields: &[Field<'_>]) {
        self.write(Level::Warn, "", text, fields, Location::caller());
    }

    #[track_caller]
    pub(crate) fn error(&self, text: &str, fields: &[Field<'_>]) {
        self.write(Level::Error, "", text, fields, Location::caller());
    }

    /// Writes a line of level fatal and ends the process with exit code 1.
    #[track_caller]
    pub(crate) fn fatal(&self, text: &str, fields: &[Field<'_>]) -> ! {
        self.write(Level::Fatal, "", text, fields, Location::caller());
        std::process::exit(1);
    }

    /// A time as it stands in lines.
    pub(crate) fn time(&self, unix_nanos: u128) -> String {
        encode::timestamp(unix_nanos, self.0.offset_seconds)
    }

    /// Whether lines of this level are written at all.
    pub(crate) fn admits(&self, level: Level) -> bool {
        level >= self.0.level
    }

    /// A line of a named part, such as `raft`.
    #[track_caller]
    pub(crate) fn named(&self, logger: &str, level: Level, text: &str, fields: &[Field<'_>]) {
        self.write(level, logger, text, fields, Location::caller());
    }

    fn write(&self, level: Level, logger: &str, text: &str, fields: &[Field<'_>], at: &Location<'_>) {
        if level < self.0.level {
            return;
        }
        let unix_nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        if self.0.samples && !self.0.sampler.lock().admits(level, text, unix_nanos) {
            return;
        }
        let caller = short_caller(at);
        let line = Line { level, unix_nanos, logger, caller: &caller, text, fields };
        let encoded = match self.0.form {
            Form::Json => encode::json(&line, self.0.offset_seconds),
            Form::Console => encode::console(&line, self.0.offset_seconds),
        };
        for sink in self.0.sinks.lock().iter_mut() {
            sink.write(&line, &encoded);
        }
    }
}

/// The last directory and the file: `member/start.rs:12`.
fn short_caller(at: &Location<'_>) -> String {
    let file = at.file();
    let mut parts = file.rsplitn(3, '/');
    let (name, dir) = (parts.next().unwrap_or(file), parts.next().unwrap_or("etcd"));
    format!("{dir}/{name}:{}", at.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_line_is_thinned_out() {
        let mut sampler = Sampler::default();
        let written = (0..1000).filter(|_| sampler.admits(Level::Warn, "slow", 5_000_000_000)).count();
        assert_eq!(written, 109);
        assert!(sampler.admits(Level::Warn, "slow", 6_000_000_000), "a new second starts anew");
    }

    #[test]
    fn sizes_read_as_in_etcd() {
        for (bytes, text) in [
            (0, "0 B"), (999, "999 B"), (20_480, "20 kB"), (1_500, "1.5 kB"), (2_147_483_648, "2.1 GB"),
            (16_777_216, "17 MB"), (999_999, "1000 kB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn levels_have_names_in_any_case() {
        assert_eq!(Level::parse("WARN"), Some(Level::Warn));
        assert_eq!(Level::parse(""), Some(Level::Info));
        assert_eq!(Level::parse("foo"), None);
    }
}
