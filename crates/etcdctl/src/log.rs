//! Log lines on standard error, in the JSON of Go's client.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{Field, LogLine};
use etcdutl::cli;
use etcdutl::json::{self, Writer};

/// Prints a line of the client.
pub(crate) fn client_line(line: &LogLine) {
    let mut object = Writer::object();
    object.text("level", line.level).text("ts", &now());
    object.text("logger", &line.logger).text("caller", &line.caller);
    object.field("msg", json::plain(line.message));
    for (name, value) in &line.fields {
        match value {
            Field::Text(text) => object.field(name, json::plain(text)),
            Field::Number(number) => object.field(name, number),
        };
    }
    cli::err(&format!("{}\n", object.end()));
}

/// Prints a line of our own; a logger without a name has none in it.
pub(crate) fn line(level: &str, logger: &str, caller: &str, message: &str, fields: &[(&str, &str)]) {
    let mut object = Writer::object();
    object.text("level", level).text("ts", &now()).text("logger", logger).text("caller", caller);
    object.field("msg", json::plain(message));
    for (name, value) in fields {
        object.field(name, json::plain(value));
    }
    cli::err(&format!("{}\n", object.end()));
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    stamp(since)
}

/// A time in UTC with microseconds.
fn stamp(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// The date that many days after 1970-01-01. Years are counted from March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(stamp(Duration::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(stamp(Duration::from_micros(951_827_696_000_007)), "2000-02-29T12:34:56.000007Z");
        assert_eq!(stamp(Duration::from_secs(1_795_253_625)), "2026-11-21T09:33:45.000000Z");
    }
}
