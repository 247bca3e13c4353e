//! Values of flags: parsing and checking one text, in Go's forms and with Go's words.

use std::time::Duration;

use super::flags::{GATES, Kind};

/// Checks that `text` is a value of `kind`; the error is the text that Go's flag package would show after the
/// flag's name.
pub(crate) fn check(kind: Kind, text: &str) -> Result<(), String> {
    match kind {
        Kind::Text | Kind::List | Kind::UniqueList => Ok(()),
        Kind::Bool => parse_bool(text).map(drop).ok_or_else(|| "parse error".into()),
        Kind::Uint => parse_uint(text, u64::MAX).map(drop),
        Kind::Uint32 => parse_uint(text, u64::from(u32::MAX)).map(drop).map_err(|why| {
            let why = if why == "parse error" { "invalid syntax" } else { why.as_str() };
            format!("strconv.ParseUint: parsing {text:?}: {why}")
        }),
        Kind::Int => parse_int(text).map(drop),
        Kind::Duration => parse_duration(text).map(drop),
        Kind::Urls => parse_urls(text).map(drop),
        Kind::Origins => {
            let mut named = parse_list(text).into_iter().filter(|origin| !origin.is_empty() && origin != "*");
            named.try_for_each(|origin| parse_url(&origin).map(drop))
        }
        Kind::Choice(choices) if choices.contains(&text) => Ok(()),
        Kind::Choice(_) => Err("invalid value".into()),
        Kind::Gates => parse_gates(text).map(drop),
        Kind::V2Deprecation => match text {
            "" | "write-only" | "write-only-skip-check" | "write-only-drop-data" | "gone" => Ok(()),
            _ => Err(format!("invalid value {text:?}")),
        },
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Digits of a number in Go's forms (`0x`, `0o`, `0b`, underscores), with its base.
fn digits(text: &str) -> (u32, String) {
    let lower = text.to_ascii_lowercase();
    let (base, rest) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    (base, rest.replace('_', ""))
}

/// An unsigned number up to `max`.
pub(crate) fn parse_uint(text: &str, max: u64) -> Result<u64, String> {
    let (base, digits) = digits(text);
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err("parse error".into());
    }
    match u64::from_str_radix(&digits, base) {
        Ok(number) if number <= max => Ok(number),
        _ => Err("value out of range".into()),
    }
}

/// A signed number of 64 bits.
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let number = i128::from(parse_uint(rest, u64::MAX)?);
    i64::try_from(if negative { -number } else { number }).map_err(|_| "value out of range".into())
}

/// Go's durations: `300ms`, `1.5h`, `2h45m`; a bare `0` is allowed. Negative ones are given as negative
/// nanoseconds.
pub(crate) fn parse_duration_signed(text: &str) -> Result<i64, String> {
    let bad = || "parse error".to_string();
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..number_end].parse().map_err(|_| bad())?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ns" => 1f64,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        rest = &rest[unit_end..];
        total += number * unit;
    }
    if total > i64::MAX as f64 {
        return Err(bad());
    }
    Ok(if negative { -(total.round() as i64) } else { total.round() as i64 })
}

/// A duration that is not negative; a negative one counts as zero, as every place of etcd that reads one does.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_nanos(parse_duration_signed(text)?.max(0) as u64))
}

/// A duration as Go prints it: `1.5s`, `100ms`, `2h0m0s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let trim = |value: f64, unit: &str| {
        let mut text = format!("{value:.9}");
        while text.ends_with('0') {
            text.pop();
        }
        if text.ends_with('.') {
            text.pop();
        }
        text + unit
    };
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return trim(nanos as f64 / 1e3, "µs");
    }
    if nanos < 1_000_000_000 {
        return trim(nanos as f64 / 1e6, "ms");
    }
    let seconds = (nanos / 1_000_000_000) as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = trim((seconds % 60) as f64 + (nanos % 1_000_000_000) as f64 / 1e9, "s");
    match (hours, minutes) {
        (0, 0) => rest,
        (0, m) => format!("{m}m{rest}"),
        (h, m) => format!("{h}h{m}m{rest}"),
    }
}

/// One URL of a listener or a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    /// `http`, `https`, `unix` or `unixs`.
    pub(crate) scheme: String,
    /// Host and port, or the name of the socket file.
    pub(crate) host: String,
}

impl Address {
    /// Whether TLS is spoken there.
    pub(crate) fn is_secure(&self) -> bool {
        self.scheme == "https" || self.scheme == "unixs"
    }

    /// Whether it is a socket file.
    pub(crate) fn is_unix(&self) -> bool {
        self.scheme.starts_with("unix")
    }

    /// The host without its port.
    pub(crate) fn hostname(&self) -> &str {
        let host = self.host.rsplit_once(':').map_or(self.host.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)
    }
}

/// URLs separated by commas, sorted, each once; none for an empty text.
pub(crate) fn parse_urls(text: &str) -> Result<Vec<Address>, String> {
    let mut urls = Vec::new();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() {
            continue;
        }
        urls.push(parse_url(part)?);
    }
    urls.sort();
    urls.dedup();
    Ok(urls)
}

/// One URL of a listener, a member or an origin.
pub(crate) fn parse_url(text: &str) -> Result<Address, String> {
    let wrong_scheme = || format!("URL scheme must be http, https, unix, or unixs: {text}");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong_scheme)?;
    if !matches!(scheme, "http" | "https" | "unix" | "unixs") {
        return Err(wrong_scheme());
    }
    if scheme.starts_with("unix") {
        return Ok(Address { scheme: scheme.into(), host: rest.into() });
    }
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    if !path.is_empty() {
        return Err(format!("URL must not contain a path: {text}"));
    }
    let Some((name, port)) = host.rsplit_once(':') else {
        return Err(format!(
            "URL address does not have the form \"host:port\": {text}"
        ));
    };
    if (name.contains(':') && !name.starts_with('[')) || port.parse::<u16>().is_err() {
        return Err(format!("URL address does not have the form \"host:port\": {text}"));
    }
    Ok(Address { scheme: scheme.into(), host: host.into() })
}

/// Texts separated by commas, as given.
pub(crate) fn parse_list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(|part| part.trim().to_string()).collect() }
}

/// Gates as given, in order; the error is etcd's.
pub(crate) fn parse_gates(text: &str) -> Result<Vec<(String, bool)>, String> {
    let mut gates = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("missing bool value for {part}"));
        };
        let (name, value) = (name.trim(), value.trim());
        let Some(on) = parse_bool(value) else {
            return Err(format!(
                "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
            ));
        };
        if !GATES.iter().any(|(known, _, _)| *known == name) {
            return Err(format!("unrecognized feature gate: {name}"));
        }
        gates.push((name.to_string(), on));
    }
    Ok(gates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_go_does() {
        for (text, printed) in [
            ("0", "0s"), ("5s", "5s"), ("100ms", "100ms"), ("2h", "2h0m0s"), ("1.5s", "1.5s"), ("90s", "1m30s"),
            ("10m", "10m0s"), ("1us", "1µs"), ("7ns", "7ns"), ("1h1ms", "1h0m0.001s"),
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), printed, "{text}");
        }
        for text in ["", "5", "s", "1x", "1.2.3s", "--1s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration_signed("-1s"), Ok(-1_000_000_000));
    }

    #[test]
    fn numbers_are_go_literals() {
        assert_eq!(parse_uint("0x10", u64::MAX), Ok(16));
        assert_eq!(parse_uint("1_000", u64::MAX), Ok(1000));
        assert_eq!(parse_uint("-1", u64::MAX), Err("parse error".into()));
        assert_eq!(parse_uint("4294967296", u64::from(u32::MAX)), Err("value out of range".into()));
        assert_eq!(parse_int("-5"), Ok(-5));
    }

    #[test]
    fn urls_need_scheme_and_port() {
        assert_eq!(parse_urls("foo").unwrap_err(), "URL scheme must be http, https, unix, or unixs: foo");
        assert!(parse_urls("http://127.0.0.1").is_err());
        assert!(parse_urls("http://127.0.0.1:1/path").is_err());
        let urls = parse_urls("http://b:2,http://a:1,http://b:2").unwrap();
        assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://a:1", "http://b:2"]);
        assert_eq!(parse_urls("unix://localhost:1").unwrap()[0].host, "localhost:1");
        assert_eq!(parse_urls("http://[::1]:80").unwrap()[0].hostname(), "::1");
    }

    #[test]
    fn gates_are_checked_against_the_table() {
        assert_eq!(parse_gates("A=true").unwrap_err(), "unrecognized feature gate: A");
        assert_eq!(parse_gates("LeaseCheckpoint").unwrap_err(), "missing bool value for LeaseCheckpoint");
        assert_eq!(parse_gates("LeaseCheckpoint=true").unwrap(), [("LeaseCheckpoint".to_string(), true)]);
    }
}
