//! JSON written the way Go's encoder does, because the bytes are compared: no spaces, `<`, `>` and `&` escaped.

use std::fmt::Write;

/// Appends `text` as a JSON string.
pub(crate) fn put_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends a list of strings.
pub(crate) fn put_strings(out: &mut String, list: &[String]) {
    out.push('[');
    for (i, text) in list.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        put_string(out, text);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        put_strings(&mut out, &["a\"\\<&>\u{2028}\u{1}\n".to_owned(), "ü".to_owned()]);
        assert_eq!(out, r#"["a\"\\\u003c\u0026\u003e\u2028\u0001\n","ü"]"#);
        let back: Vec<String> = serde_json::from_str(&out).unwrap();
        assert_eq!(back[0], "a\"\\<&>\u{2028}\u{1}\n");
    }
}
