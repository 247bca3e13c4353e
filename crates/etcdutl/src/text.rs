//! Text as Go writes and reads it: between quotes, and times in log lines.

use std::fmt::Write;

/// Bytes between quotes with Go's escapes; what is not UTF-8 becomes `\xNN`.
#[must_use]
pub fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\u{7}' => quoted.push_str("\\a"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{c}' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{b}' => quoted.push_str("\\v"),
                ' '..='~' => quoted.push(c),
                '\0'..='\u{7f}' => {
                    let _ = write!(quoted, "\\x{:02x}", u32::from(c));
                }
                c if is_printable(c) => quoted.push(c),
                c if u32::from(c) < 0x1_0000 => {
                    let _ = write!(quoted, "\\u{:04x}", u32::from(c));
                }
                c => {
                    let _ = write!(quoted, "\\U{:08x}", u32::from(c));
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

/// Rust escapes in debug output what is not printable, and combining marks, which Go prints.
fn is_printable(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && (c.is_alphanumeric() || c.escape_debug().count() == 1)
}

/// Reads text between quotes at the start of `text`: `"..."` with escapes or `` `...` `` as it is. Gives the text and
/// what follows it.
#[must_use]
pub fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    match text.first()? {
        b'`' => {
            let end = text[1..].iter().position(|byte| *byte == b'`')?;
            Some((text[1..=end].to_vec(), &text[end + 2..]))
        }
        b'"' => unquote_escaped(&text[1..]),
        _ => None,
    }
}

fn unquote_escaped(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut plain = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((plain, rest)),
            b'\n' => return None,
            b'\\' => {
                let (&kind, after) = rest.split_first()?;
                rest = after;
                let digits = match kind {
                    b'a' => {
                        plain.push(7);
                        continue;
                    }
                    b'b' => {
                        plain.push(8);
                        continue;
                    }
                    b'f' => {
                        plain.push(12);
                        continue;
                    }
                    b'n' => {
                        plain.push(b'\n');
                        continue;
                    }
                    b'r' => {
                        plain.push(b'\r');
                        continue;
                    }
                    b't' => {
                        plain.push(b'\t');
                        continue;
                    }
                    b'v' => {
                        plain.push(11);
                        continue;
                    }
                    b'\\' | b'"' => {
                        plain.push(kind);
                        continue;
                    }
                    b'x' => 2,
                    b'u' => 4,
                    b'U' => 8,
                    b'0'..=b'7' => {
                        let octal = std::str::from_utf8(rest.get(..2)?).ok()?;
                        let number = u32::from_str_radix(octal, 8).ok()? + u32::from(kind - b'0') * 64;
                        plain.push(u8::try_from(number).ok()?);
                        rest = &rest[2..];
                        continue;
                    }
                    _ => return None,
                };
                let hex = std::str::from_utf8(rest.get(..digits)?).ok()?;
                let number = u32::from_str_radix(hex, 16).ok()?;
                rest = &rest[digits..];
                if kind == b'x' {
                    plain.push(u8::try_from(number).ok()?);
                } else {
                    let mut buffer = [0; 4];
                    plain.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut buffer).as_bytes());
                }
            }
            byte => plain.push(byte),
        }
    }
}

/// `2006-01-02T15:04:05` in UTC, so many seconds after 1970: what stands in log lines.
#[must_use]
pub fn date_and_time(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or_default();
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (plain, quoted) in [
            (&b"foo"[..], r#""foo""#),
            (b"a\"b\\c\n\t\0\x7f", r#""a\"b\\c\n\t\x00\x7f""#),
            ("grün".as_bytes(), "\"grün\""),
            (b"\xff\xfe", r#""\xff\xfe""#),
            ("\u{a0}\u{1}".as_bytes(), "\"\\u00a0\\x01\""),
        ] {
            assert_eq!(quote(plain), quoted);
            assert_eq!(unquote(quoted.as_bytes()), Some((plain.to_vec(), &b""[..])));
        }
        assert_eq!(unquote(b"`a\\n` x"), Some((b"a\\n".to_vec(), &b" x"[..])));
        assert_eq!(unquote(br#""\101\u00e4""#), Some(("Aä".as_bytes().to_vec(), &b""[..])));
        assert_eq!(unquote(br#""open"#), None);
        assert_eq!(unquote(b"bare"), None);
    }
}
