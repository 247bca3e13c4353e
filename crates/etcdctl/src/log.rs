//! Log lines on standard error, in the JSON of Go's client.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{Field, LogLine};
use etcdutl::cli;
use etcdutl::json::{self, Writer};
use etcdutl::text;

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
    format!("{}.{:06}Z", text::date_and_time(since.as_secs()), since.subsec_micros())
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
