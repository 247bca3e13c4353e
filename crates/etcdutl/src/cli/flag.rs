//! Flags: their kinds, and how values are read.

use std::time::Duration;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A switch; `--flag` alone is true.
    Bool,
    /// Text.
    Text,
    /// A signed number.
    Int,
    /// A number that is not negative.
    Uint,
    /// `1h2m3.5s`.
    Duration,
    /// Texts with commas in between; every use of the flag adds to them.
    Texts,
}

/// One flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The name after `--`.
    pub name: &'static str,
    /// The letter after `-`.
    pub short: Option<char>,
    /// What its value is.
    pub kind: Kind,
    /// The value without it, as it would be written.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
}

impl Flag {
    /// A flag of some kind.
    #[must_use]
    pub const fn new(kind: Kind, name: &'static str, default: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, kind, default, help }
    }

    /// A switch that is off.
    #[must_use]
    pub const fn switch(name: &'static str, help: &'static str) -> Flag {
        Flag::new(Kind::Bool, name, "false", help)
    }

    /// Text.
    #[must_use]
    pub const fn text(name: &'static str, default: &'static str, help: &'static str) -> Flag {
        Flag::new(Kind::Text, name, default, help)
    }

    /// A number, 0 without it.
    #[must_use]
    pub const fn int(name: &'static str, help: &'static str) -> Flag {
        Flag::new(Kind::Int, name, "0", help)
    }

    /// The same with a letter.
    #[must_use]
    pub const fn letter(self, short: char) -> Flag {
        Flag { short: Some(short), ..self }
    }

    /// Checks a value, with the words of Go's parsers when it is wrong.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Bool => parse_bool(value).map(|_| ()),
            Kind::Int => parse_int(value, 0).map(|_| ()),
            Kind::Uint => parse_uint(value, 0).map(|_| ()),
            Kind::Duration => parse_duration(value).map(|_| ()),
            Kind::Text | Kind::Texts => Ok(()),
        }
    }

    /// The name of the kind in help texts.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Bool => "",
            Kind::Text => "string",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Duration => "duration",
            Kind::Texts => "strings",
        }
    }

    /// `-w, --write-out` or `--limit`, as errors name it.
    pub(crate) fn shown(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

pub(crate) fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {value:?}: invalid syntax")),
    }
}

/// Digits of a number and their base; base 0 looks at a prefix (`0x`, `0o`, `0b`, `0`).
fn digits(value: &str, base: u32) -> (String, u32) {
    if base != 0 {
        return (value.to_owned(), base);
    }
    let lower = value.to_ascii_lowercase().replace('_', "");
    for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = lower.strip_prefix(prefix) {
            return (rest.to_owned(), base);
        }
    }
    if lower.len() > 1 && lower.starts_with('0') { (lower[1..].to_owned(), 8) } else { (lower, 10) }
}

fn out_of_range(function: &str, value: &str) -> String {
    format!("strconv.{function}: parsing {value:?}: value out of range")
}

/// A signed number in a base, with Go's words for what is none.
///
/// # Errors
/// Not a number, or too large.
pub fn parse_int(value: &str, base: u32) -> Result<i64, String> {
    let (sign, rest) = match value.as_bytes().first() {
        Some(b'-') => (-1, &value[1..]),
        Some(b'+') => (1, &value[1..]),
        _ => (1, value),
    };
    let (text, base) = digits(rest, base);
    if text.is_empty() || !text.chars().all(|digit| digit.is_digit(base)) {
        return Err(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"));
    }
    i128::from_str_radix(&text, base)
        .ok()
        .and_then(|number| i64::try_from(number * sign).ok())
        .ok_or_else(|| out_of_range("ParseInt", value))
}

/// A number without a sign in a base, with Go's words for what is none.
///
/// # Errors
/// Not a number, or too large.
pub fn parse_uint(value: &str, base: u32) -> Result<u64, String> {
    let (text, base) = digits(value, base);
    if text.is_empty() || !text.chars().all(|digit| digit.is_digit(base)) {
        return Err(format!("strconv.ParseUint: parsing {value:?}: invalid syntax"));
    }
    u64::from_str_radix(&text, base).map_err(|_| out_of_range("ParseUint", value))
}

const UNITS: &[(&str, f64)] =
    &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

/// A duration like `1h2m3.5s`. Negative ones count as none at all.
///
/// # Errors
/// Not a duration.
pub fn parse_duration(value: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {value:?}");
    let (negative, mut rest) = match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..end];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {value:?}"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {value:?}"));
        };
        nanoseconds += number * scale;
        rest = &rest[end..];
    }
    if nanoseconds >= i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { Duration::ZERO } else { Duration::from_nanos(nanoseconds as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_int("-12", 0), Ok(-12));
        assert_eq!(parse_int("0x1f", 0), Ok(31));
        assert_eq!(parse_int("010", 0), Ok(8));
        assert_eq!(parse_int("010", 10), Ok(10));
        assert_eq!(parse_int("x", 10).unwrap_err(), "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert_eq!(parse_int("", 10).unwrap_err(), "strconv.ParseInt: parsing \"\": invalid syntax");
        assert_eq!(
            parse_int("9223372036854775808", 10).unwrap_err(),
            "strconv.ParseInt: parsing \"9223372036854775808\": value out of range"
        );
        assert_eq!(parse_uint("8e9e05c52164694d", 16), Ok(0x8e9e_05c5_2164_694d));
        assert_eq!(parse_uint("zz", 16).unwrap_err(), "strconv.ParseUint: parsing \"zz\": invalid syntax");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1m2.5s"), Ok(Duration::from_millis(62_500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("-3s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse_duration("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        assert_eq!(parse_duration("").unwrap_err(), "time: invalid duration \"\"");
        assert_eq!(parse_duration("s").unwrap_err(), "time: invalid duration \"s\"");
    }
}
