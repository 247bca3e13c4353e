//! Log lines on standard error in the console form of Go's etcdutl: time, level, place, message, fields as JSON.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli;
use crate::json;

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
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let second = seconds % 86_400;
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

/// The date that many days after 1970-01-01. Years are counted from March, so that the leap day comes last.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}
