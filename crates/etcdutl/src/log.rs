//! Log lines on standard error in the console form of Go's etcdutl: time, level, place, message, fields as JSON.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli;
use crate::json;
use crate::text;

/// A value in a line.
pub(crate) enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// Anything that already is JSON.
    Json(String),
}

/// Prints a line of level info.
pub(crate) fn info(place: &str, message: &str, fields: &[(&str, Value<'_>)]) {
    line("info", place, message, fields);
}

/// Prints a line.
pub(crate) fn line(level: &str, place: &str, message: &str, fields: &[(&str, Value<'_>)]) {
    let mut line = format!("{}\t{level}\t{place}\t{message}", now());
    if !fields.is_empty() {
        let parts: Vec<String> = (fields.iter())
            .map(|(name, value)| match value {
                Value::Text(text) => format!("{}: {}", json::plain(name), json::plain(text)),
                Value::Json(json) => format!("{}: {json}", json::plain(name)),
            })
            .collect();
        let _ = write!(line, "\t{{{}}}", parts.join(", "));
    }
    line.push('\n');
    cli::err(&line);
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}Z", text::date_and_time(since.as_secs()))
}
