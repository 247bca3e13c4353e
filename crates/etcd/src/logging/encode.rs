//! A line as bytes.

use super::{Line, Value};
use crate::config::value::format_duration;

/// `2006-01-02T15:04:05.000000Z0700`.
pub(super) fn timestamp(unix_nanos: u128, offset_seconds: i32) -> String {
    let micros = unix_nanos / 1000;
    let local = (micros / 1_000_000) as i64 + i64::from(offset_seconds);
    let date = time::OffsetDateTime::from_unix_timestamp(local).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let zone = match offset_seconds {
        0 => "Z".to_string(),
        other => {
            let minutes = other.abs() / 60;
            format!("{}{:02}{:02}", if other < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
        }
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{zone}",
        date.year(), u8::from(date.month()), date.day(), date.hour(), date.minute(), date.second(), micros % 1_000_000,
    )
}

/// Appends `text` as a JSON string, escaped as Go's zap does.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn value(out: &mut String, value: &Value, space: &str) {
    match value {
        Value::Text(text) => quote(out, text),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Bool(on) => out.push_str(if *on { "true" } else { "false" }),
        Value::Duration(duration) => quote(out, &format_duration(*duration)),
        Value::List(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                    out.push_str(space);
                }
                quote(out, item);
            }
            out.push(']');
        }
    }
}

/// One JSON object and a newline.
pub(super) fn json(line: &Line<'_>, offset_seconds: i32) -> String {
    let mut out = String::with_capacity(256);
    out.push_str("{\"level\":\"");
    out.push_str(line.level.name());
    out.push_str("\",\"ts\":\"");
    out.push_str(&timestamp(line.unix_nanos, offset_seconds));
    out.push('"');
    if !line.logger.is_empty() {
        out.push_str(",\"logger\":");
        quote(&mut out, line.logger);
    }
    out.push_str(",\"caller\":");
    quote(&mut out, line.caller);
    out.push_str(",\"msg\":");
    quote(&mut out, line.text);
    for (key, field) in line.fields {
        out.push(',');
        quote(&mut out, key);
        out.push(':');
        value(&mut out, field, "");
    }
    out.push_str("}\n");
    out
}

/// Tabs between the parts, the fields as one JSON object with spaces.
pub(super) fn console(line: &Line<'_>, offset_seconds: i32) -> String {
    let mut out = format!("{}\t{}\t", timestamp(line.unix_nanos, offset_seconds), line.level.name());
    if !line.logger.is_empty() {
        out.push_str(line.logger);
        out.push('\t');
    }
    out.push_str(line.caller);
    out.push('\t');
    out.push_str(line.text);
    for (i, (key, field)) in line.fields.iter().enumerate() {
        out.push_str(if i == 0 { "\t{" } else { ", " });
        quote(&mut out, key);
        out.push_str(": ");
        value(&mut out, field, " ");
    }
    out.push_str(if line.fields.is_empty() { "\n" } else { "}\n" });
    out
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    const NANOS: u128 = 1_795_328_290_728_339_000;

    fn line<'a>(fields: &'a [super::super::Field<'a>]) -> Line<'a> {
        Line { level: Level::Info, unix_nanos: NANOS, logger: "", caller: "a/b.rs:1", text: "hi \"you\"", fields }
    }

    #[test]
    fn a_json_line_has_etcds_keys_in_etcds_order() {
        let fields =
            [("n", Value::Number(-3)), ("l", Value::List(vec!["x".into(), "y".into()])), ("d", Value::from(std::time::Duration::from_millis(1500)))];
        assert_eq!(
            json(&line(&fields), 0),
            "{\"level\":\"info\",\"ts\":\"2026-11-22T06:18:10.728339Z\",\"caller\":\"a/b.rs:1\",\"msg\":\"hi \\\"you\\\"\",\
             \"n\":-3,\"l\":[\"x\",\"y\"],\"d\":\"1.5s\"}\n"
        );
    }

    #[test]
    fn a_console_line_has_tabs() {
        assert_eq!(
            console(&line(&[("a", true.into()), ("b", "c".into())]), 3600),
            "2026-11-22T07:18:10.728339+0100\tinfo\ta/b.rs:1\thi \"you\"\t{\"a\": true, \"b\": \"c\"}\n"
        );
        assert_eq!(console(&line(&[]), -5400), "2026-11-22T04:48:10.728339-0130\tinfo\ta/b.rs:1\thi \"you\"\n");
    }
}
